"""The study's questions that no single run answers, each a table of codes and numbers, from the run
folders alone. Figures are means over the seeds of a configuration."""
from __future__ import annotations

import math
import typing
from pathlib import Path

import numpy as np
import pandas as pd

from adlib.config import STATISTICS
from adlib.evaluation.auroc import LEVEL
from adlib.evaluation.ranks import rank_correlation
from adlib.report import comparison, ranking
from adlib.report.comparison import CONFOUNDERS, PIXEL_METRICS, finished
from adlib.report.words.i18n import with_texts
from adlib.report.words.sentences import SHOWN_STRENGTH, group
from adlib.runs import freshness, run_folder

TARGETS = ("to_pixels", "to_features", "to_features_squared")
POSITIONS = ("gaussian", "gaussian_anywhere")  # per position, any position
TRAINED_WITH = "*"  # after a figure: of a kind of anomaly that the classifier was trained with


def scores(table: pd.DataFrame, reports: Path) -> pd.DataFrame:
    """Which score? A row a category, configuration and score of the autoencoders: label_free, test
    (AUROCs, means over the seeds), own (the configuration's own score), chosen (share of the seeds
    that chose it), picked (mean test AUROC of what each seed chose)."""
    rows = [pd.DataFrame(columns=["category", "configuration", "score", "label_free", "test", "own",
                                  "chosen", "picked"])]
    for (category, name), runs in finished(table):
        paths = [reports / folder / "score_study.csv" for folder in runs["folder"]]
        studies = [comparison.read_csv(path) for path in paths if path.is_file()]
        if len(studies) < len(runs) or any(
                len(study) < 5 or study[["test", "label_free"]].isna().any(axis=None)
                for study in studies):
            continue
        seeds = pd.concat(studies)
        role = seeds["role"].fillna("")
        seeds = seeds.assign(own=role.str.contains("own"), chosen=role.str.contains("chosen"))
        means = seeds.groupby("score", sort=False).agg(
            {"label_free": "mean", "test": "mean", "own": "max", "chosen": "mean"})
        rows.append(means.reset_index().assign(
            category=category, configuration=name,
            picked=seeds.loc[seeds["chosen"], "test"].mean()))
    return pd.concat(rows[1:] or rows, ignore_index=True)


def all_scores(scores: pd.DataFrame) -> pd.DataFrame:
    """Every score of every autoencoder as cells (tables.heat): the real AUROC, in brackets the
    label-free one, a dot where a seed chose it."""
    return _cells(scores, "score", ("category", "configuration"), "test").assign(
        text=[f"{row.test:.3f} ({row.label_free:.3f})" for row in scores.itertuples()],
        mark=np.where(scores["chosen"] > 0, "•", ""))


def wide(cells: pd.DataFrame, index: str) -> pd.DataFrame:
    """Cells as a table of their texts and marks, for a file."""
    said = cells.assign(text=(cells["text"] + " " + cells["mark"]).str.rstrip())
    table = said.pivot(index="row", columns="column", values="text").fillna("")
    rows, columns = (list(dict.fromkeys(cells[key])) for key in ("row", "column"))
    return table.loc[rows, columns].rename_axis(index=index, columns=None).reset_index()


def _cells(table: pd.DataFrame, row: str, columns: tuple[str, str], value: str) -> pd.DataFrame:
    return pd.DataFrame({"row": table[row], "value": table[value], "column": list(zip(
        *(table[name] for name in columns), strict=True))})


def choices(scores: pd.DataFrame) -> pd.DataFrame:
    """What the label-free choice is worth: the own score, the chosen one and the best in hindsight
    with their AUROCs, and the rank correlation of the label-free and the real order."""
    rows = []
    for (category, name), part in scores.groupby(["category", "configuration"], sort=False):
        own, best = part[part["own"]].iloc[0], part.loc[part["test"].idxmax()]
        rows.append({
            "category": category, "configuration": name,
            "own_score": own["score"], "own_auroc": own["test"],
            "chosen_score": ", ".join(part.loc[part["chosen"] > 0, "score"]),
            "chosen_auroc": part["picked"].iloc[0],
            "best_score": best["score"], "best_auroc": best["test"],
            "rank_correlation": rank_correlation(part["label_free"], part["test"])})
    return pd.DataFrame(rows)


def target(rows: pd.DataFrame) -> pd.DataFrame:
    """Pixels or features? The controlled experiment's rows (rows: comparison.rows)."""
    chosen = rows[rows["name"].isin(TARGETS) & rows["auroc"].notna() & ~rows["random"].eq(True)]
    return chosen[["category", "configuration", "score", "auroc", "spread", "low", "high",
                   "label_free", "train_seconds"]]


def position(table: pd.DataFrame, reports: Path) -> pd.DataFrame:
    """Does the position matter? What is known without labels, beside what turned out: a row a
    category where both can be known."""
    rows = []
    for category in dict.fromkeys(table["category"]):
        here = {name: runs for (where, name), runs in finished(table) if where == category}
        if not set(POSITIONS) <= set(here):
            continue
        metrics = [_metrics(reports, here[name]) for name in POSITIONS]
        label_free = [_mean(_label_free(each).get("all") for each in seeds) for seeds in metrics]
        real = [_mean(each["chosen"]["auroc"]["test"]["value"] for each in seeds)
                for seeds in metrics]
        if not np.isfinite([*label_free, *real]).all():
            continue
        choice, better = ("per_position" if first > second else "any_position"
                          for first, second in (label_free, real))
        rows.append({
            "category": category,
            "position_share": _mean(each["position_share"] for each in metrics[0]),
            "label_free_per_position": label_free[0], "label_free_any_position": label_free[1],
            "label_free_choice": choice, "auroc_per_position": real[0],
            "auroc_any_position": real[1], "better": better})
    return pd.DataFrame(rows)


def ablation(table: pd.DataFrame, reports: Path) -> pd.DataFrame:
    """What does each component of the best detector bring? Label-free AUROC by kind of synthetic
    anomaly, as text with an asterisk where the classifier was trained with this kind (there it is
    no proof), and the real ones. Empty where no variant was run."""
    rows: list[dict[str, typing.Any]] = []
    if not table["name"].isin(comparison.ABLATIONS).any():
        return pd.DataFrame()
    variants = table["name"].str.startswith(("fused", "classifier")) | table["name"].eq("memory")
    for (category, name), runs in finished(table[variants]):
        metrics = _metrics(reports, runs)
        params = run_folder.manifest(reports / runs.iloc[0]["folder"])["params"]
        trained = [] if name == "memory" else params["kinds"].replace(" ", "").split(",")
        kinds = [kind for kind in _label_free(metrics[0]) if kind not in ("score", "all")]
        rows.append({
            "category": category, "configuration": name, "seeds": len(runs),
            **{f"kind:{kind}": f"{_mean(_label_free(each)[kind] for each in metrics):.3f}"
               + TRAINED_WITH * (kind in trained) for kind in kinds},
            **{f"auroc_{split}": _mean(each["chosen"]["auroc"][split]["value"] for each in metrics)
               for split in ("test", "train_bad")}})
    return pd.DataFrame(rows)


def localization(table: pd.DataFrame, reports: Path) -> pd.DataFrame:
    """Where is it? The pixel metrics by defect type and by size, wherever masks exist
    (results.localization's groups)."""
    rows = []
    for (category, name), runs in finished(table[~table["name"].isin(STATISTICS)]):
        groups = [pd.DataFrame(each["localisation"]["groups"]) for each in _metrics(reports, runs)
                  if (each["localisation"] or {}).get("groups")]
        for kind, part in pd.concat(groups).groupby("group", sort=False) if groups else []:
            rows.append({"category": category, "configuration": name, "group": kind,
                         "images": round(part["images"].mean()),
                         **{key: part[key].mean() for key in PIXEL_METRICS}})
    return pd.DataFrame(rows)


def epochs(table: pd.DataFrame, reports: Path) -> pd.DataFrame:
    """Does training help? AUROC had training stopped there, and the rank correlations of the final
    score with its confounders."""
    rows = []
    for (category, name), runs in finished(table):
        paths = [reports / folder / "epochs.csv" for folder in runs["folder"]]
        if all(path.is_file() for path in paths):
            curves = pd.concat([comparison.read_csv(path) for path in paths])
            mean = curves.groupby("epoch")["auroc"].mean().dropna()
            rows.append({"category": category, "configuration": name}
                        | {f"epoch:{epoch}": value for epoch, value in mean.items()}
                        | {f"confounder:{key}": runs[key].mean() for key in CONFOUNDERS})
    seen = {int(key[6:]) for row in rows for key in row if key.startswith("epoch:")}
    return pd.DataFrame(rows, columns=[
        "category", "configuration", *(f"epoch:{epoch}" for epoch in sorted(seen)),
        *(f"confounder:{key}" for key in CONFOUNDERS)])


def places(found: pd.DataFrame) -> pd.DataFrame:
    """AU-PRO up to 30% of `localization` as cells; to be read, all four metrics."""
    metrics = found[["au_pro_30", "au_pro_05", "pixel_auroc", "pixel_ap"]]
    said = with_texts(found, group=map(group, found["group"]))
    return _cells(said, "configuration", ("category", "group"), "au_pro_30").assign(
        text=metrics.map("{:.2f}".format).agg(" · ".join, axis=1))


# ---- who is better than whom


def both_ways(pairs: pd.DataFrame, order: list[str]) -> pd.DataFrame:
    """Every pair of ranking.matrix as two cells (tables.heat): the difference of AUROC, row minus
    column, with p, and a star where the paired test distinguishes the two."""
    other = pairs.rename(columns={"a": "b", "b": "a"}).assign(difference=-pairs["difference"])
    cells = pd.concat([pairs, other]).rename(
        columns={"a": "row", "b": "column", "difference": "value"})
    cells = cells[cells["row"].isin(order) & cells["column"].isin(order)]
    cells = cells.sort_values(["row", "column"], key=lambda codes: codes.map(order.index))
    return cells.assign(
        text=[f"{round(cell.value, 3) + 0.0:+.3f} (p {_p(cell.p_holm)})"  # no -0.000
              for cell in cells.itertuples()],
        mark=np.where(cells["p_holm"] < LEVEL, "★", ""))


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.2g}"


def wins(by_category: dict[str, pd.DataFrame], order: list[str]) -> pd.DataFrame:
    """In how many categories the row is significantly above the column, as cells; of how many,
    where not all compare the two."""
    cells = pd.concat([both_ways(pairs, order) for pairs in by_category.values()])
    won = cells.assign(value=(cells["value"] > 0) & (cells["mark"] != ""))
    counts = won.groupby(["row", "column"], sort=False)["value"].agg(["sum", "count"]).reset_index()
    counts = counts.sort_values(["row", "column"], key=lambda codes: codes.map(order.index))
    return counts.assign(value=counts["sum"].astype(float), text=[
        str(won) if of == len(by_category) else f"{won} / {of}"
        for won, of in counts[["sum", "count"]].to_numpy()])


# ---- which detector for which kind of workpiece


def kind_of(properties: typing.Mapping[str, float]) -> str:
    """surface | aligned | free, by quality.properties. The borders lie in the gaps between the
    categories that this study was built on (form .17 to .60, alignment .28 to .66)."""
    if properties["form"] < 0.4:
        return "surface"
    return "aligned" if properties["alignment"] >= 0.45 else "free"


def kinds(rows: pd.DataFrame, reports: Path) -> pd.DataFrame:
    """category, kind_of and quality.properties of the categories whose data notebook noted them."""
    noted = {category: freshness.read(reports / "eda" / category / "properties.json")
             for category in dict.fromkeys(rows["category"])}
    return pd.DataFrame([{"category": category, "kind_of": kind_of(found), **found}
                         for category, found in noted.items() if found])


def by_kind(rows: pd.DataFrame, kinds: pd.DataFrame) -> pd.DataFrame:
    """Mean AUROC of each configuration over the categories of each kind, as cells, the best first.
    """
    wide = ranking.over_categories(rows)
    kind_of_category = kinds.set_index("category")["kind_of"].reindex(wide.index)
    means = wide.groupby("kind_of:" + kind_of_category).mean()
    order = means.mean().sort_values(ascending=False, kind="stable").index
    cells = means[order].T.stack().rename_axis(["row", "column"])
    return cells.rename("value").reset_index()


# ---- limits, of every configuration that was taken to them


def robustness_table(tables: dict[tuple[str, str], pd.DataFrame]) -> pd.DataFrame:
    """AUROC as they are and at SHOWN_STRENGTH of every disturbance, and the mean share of false
    positives there at the fixed threshold (NaN: there is no threshold)."""
    rows = []
    for (category, name), table in tables.items():
        disturbed = table[table["strength"] == SHOWN_STRENGTH]
        rows.append({"category": category, "configuration": name,
                     "undisturbed": table.loc[table["strength"] == 0, "auroc"].iloc[0],
                     **{f"disturbance:{row.disturbance}": row.auroc
                        for row in disturbed.itertuples()},
                     "mean_false_positives": disturbed["false_positives"].mean(skipna=False)})
    return pd.DataFrame(rows)


def disturbed(table: pd.DataFrame) -> pd.DataFrame:
    """The AUROCs of `robustness_table` as cells."""
    long = table.drop(columns="mean_false_positives").melt(["category", "configuration"])
    return long.assign(row=list(zip(long["category"], long["configuration"], strict=True))).rename(
        columns={"variable": "column"})


def smallest(reports: Path) -> pd.DataFrame:
    """Where each defect is found, on drawn data: limits.smallest of every configuration."""
    tables = [table.assign(category=category, configuration=name) for (category, name), table in
              comparison.after_runs(reports, "limits", "smallest.csv").items()]
    columns = ["category", "configuration", "defect", "area50", "area95", "smallest", "largest",
               "found_at_real_size", "contrast95", "faintest"]
    return pd.concat([pd.DataFrame(columns=columns), *tables])[columns]


def _metrics(reports: Path, runs: pd.DataFrame) -> list[dict[str, typing.Any]]:
    return [comparison.read_metrics(reports / folder) for folder in runs["folder"]]


def _label_free(metrics: dict[str, typing.Any]) -> dict[str, typing.Any]:
    """The label-free figures of the score in use; empty where nothing was held out."""
    own = [entry for entry in metrics["label_free"] if entry["score"] == metrics["chosen"]["score"]]
    return own[0] if own else {}


def _mean(values: typing.Iterable[float | None]) -> float:
    return float(np.mean([math.nan if value is None else value for value in values]))
