"""How many good pictures it takes (evaluation.how_many): in words, and as a row a part."""
from __future__ import annotations

import math

import pandas as pd

from adlib.evaluation import learning_curve
from adlib.report.words.i18n import Text, enumerated, join, named, t, with_texts


def said(table: pd.DataFrame) -> Text:
    """The learning curve of a part (how_many.measure), and whether more pictures are worth taking.
    """
    column = learning_curve.judged_by(table)
    curve, found = learning_curve.curve(table), learning_curve.gain(table, column)
    values = (t("how_many.of_n", n=int(row["n"]), value=row[column], low=row[f"{column}_low"],
                high=row[f"{column}_high"])
              for _, row in curve.iterrows() if row[column] == row[column])
    text = [t("how_many.auroc" if column == "auroc" else "how_many.label_free",
              values=join(values, ", "))]
    if found is None:
        text.append(t("how_many.short"))
    else:
        key = "how_many.stop" if found.stop else "how_many.go_on"
        text.append(t(key, pictures=found.pictures, more=learning_curve.MORE, gain=found.gain,
                      low=found.low, high=found.high, worth=learning_curve.WORTH,
                      enough=found.enough))
    if "smallest" in curve and len(sized := curve.dropna(subset=["smallest"])):
        last = sized.iloc[-1]
        text.append(t("how_many.smallest", n=int(last["n"]), share=last["smallest"]))
    if (judged := curve.dropna(subset=["false_positives"])).empty:
        return join([*text, t("how_many.no_rates")])
    last = judged.iloc[-1]
    return join([*text, t("how_many.rates" if last["found"] == last["found"] else
                          "how_many.rates_good", n=int(last["n"]), rate=last["false_positives"],
                          low=last["false_positives_low"], high=last["false_positives_high"],
                          found=last["found"])])


def table(tables: dict[tuple[str, str], pd.DataFrame]) -> pd.DataFrame:
    """How many pictures each part has, the AUROC with four of them and with most, what 50 more
    would bring, and from how many on that is too little."""
    rows = []
    for (category, name), table in tables.items():
        column = learning_curve.judged_by(table)
        curve = learning_curve.curve(table).set_index("n")[column]
        worth = learning_curve.gain(table, column)
        rows.append({"category": category, "configuration": name, "judged_by": named(
            "judged_by", column), "pictures": int(table["pictures"].iloc[0]),
            "auroc_of_4": curve.get(4, math.nan), "most": int(curve.index[-1]),
            "auroc_of_most": curve.iloc[-1], **dict(zip(
                ("gain", "gain_low", "gain_high", "enough"),
                (worth.gain, worth.low, worth.high, worth.enough) if worth else 4 * [math.nan],
                strict=True))})
    return with_texts(pd.DataFrame(rows), judged_by=[row["judged_by"] for row in rows])


def of_parts(table: pd.DataFrame) -> Text:
    """Which parts have pictures enough (table)."""
    gains = table.dropna(subset=["gain"])
    enough = gains[gains["gain_high"] < learning_curve.WORTH]["category"]
    more = gains[gains["gain_high"] >= learning_curve.WORTH]["category"]
    said = [t(key, parts=enumerated(dict.fromkeys(names)), more=learning_curve.MORE,
              worth=learning_curve.WORTH)
            for key, names in (("how_many.enough_for", enough), ("how_many.more_for", more))
            if len(names)]
    return join(said)
