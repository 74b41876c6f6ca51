"""What the comparison says: sentences made from the tables of `comparison` and `questions`."""
from __future__ import annotations

import numpy as np
import pandas as pd

from adlib.config import STATISTICS
from adlib.data import corruptions
from adlib.report import sentences
from adlib.report.comparison import EDGE, LEVEL, label, p_value
from adlib.report.data_sentences import corruption, data_source
from adlib.report.i18n import Text, enumerated, join, named, t
from adlib.report.sentences import SHOWN_STRENGTH

NAMED = 6  # rows that a sentence names
Tables = dict[tuple[str, str], pd.DataFrame]  # {(category, configuration): a table of its run}


def interval(row: pd.Series, value: str = "auroc", low: str = "low", high: str = "high") -> str:
    """'0.797 [0.66, 0.94]' from three columns of a row."""
    return f"{row[value]:.3f} [{row[low]:.2f}, {row[high]:.2f}]"


# ---- the answer


def headline(rows: pd.DataFrame) -> Text:
    """The answer in two sentences: the row with the best mean AUROC over the categories, and how
    many of the others are not distinguishable from the best."""
    compared = rows[rows["with_best"].notna() & rows["auroc"].notna()]
    if compared.empty:
        return t("answer.no_auroc_yet")
    by_row = compared.groupby("configuration", sort=False)
    everywhere = by_row["category"].nunique() == compared["category"].nunique()
    means = by_row["auroc"].mean()[everywhere]
    if means.empty:
        return full(rows)
    best = means.idxmax()
    numbers = (t("answer.auroc_on", category=row["category"], auroc=interval(row))
               for _, row in compared[compared["configuration"] == best].iterrows())
    first = t("answer.best_everywhere", label=label(best), numbers=enumerated(numbers))
    if len(means) == 1:
        return first
    counts = []
    for category, part in compared.groupby("category", sort=False):
        others = part[part["configuration"] != best]
        counts.append(t("answer.n_of_others_on", category=category, others=len(part) - 1,
                        n=int((others["with_best"] == True).sum())))  # noqa: E712
    return join([first, t("answer.others_with_best", counts=enumerated(counts))])


def full(rows: pd.DataFrame) -> Text:
    """Which row is best in each category, what is not distinguishable from it, which rows beat no
    baseline, how the reference's claims fared, and what has no result."""
    said = []
    for category, part in rows[rows["auroc"].notna()].groupby("category", sort=False):
        compared, apart = part[part["with_best"].notna()], part[part["with_best"].isna()]
        if len(apart):
            said.append(t("answer.not_compared", category=category, rows=_labels(apart)))
        if len(compared):
            said += [_best(category, compared), *_below_baselines(compared)]
    judged = [verdict for verdict in ("reached", "exceeded", "missed")
              if (rows["verdict"] == verdict).any()]
    if judged:
        counts = rows["verdict"].value_counts()
        verdicts = (t(f"answer.n_{verdict}", n=counts[verdict]) for verdict in judged)
        said.append(t("answer.claims", n=counts[judged].sum(), verdicts=enumerated(verdicts)))
    absent = [t("answer.absent_row", category=row["category"], label=label(row["configuration"]),
                status=status(row)) for _, row in rows[rows["auroc"].isna()].iterrows()]
    return join([*said, *([t("answer.absent", rows=join(absent, "; "))] if absent else [])])


def status(row: pd.Series) -> Text:
    """What became of a row, and why it has no AUROC."""
    why = row["reason"] if isinstance(row["reason"], str) else ""
    if row["status"] == "finished" and row["auroc"] != row["auroc"]:
        why = sentences.no_auroc(int(row["n_good"]), int(row["n_anomalous"]))
    state = Text(named("status", row["status"]))
    return t("answer.status_why", status=state, why=why) if why else state


def _labels(rows: pd.DataFrame) -> Text:
    return enumerated(map(label, rows["configuration"]))


def _best(category: str, compared: pd.DataFrame) -> Text:
    best = compared.loc[compared["auroc"].idxmax()]
    in_print = compared["auroc"].round(4) == round(best["auroc"], 4)
    tied, others = compared[in_print], compared[~in_print]
    level = [label(row.configuration) for row in others.itertuples() if row.with_best is True]
    text = t("answer.best" if len(tied) == 1 else "answer.tied_best", category=category,
             rows=_labels(tied), auroc=interval(best))
    if others.empty:
        return text + t("answer.stop")
    if not level:
        return text + t("answer.all_below" if len(others) > 1 else "answer.other_below",
                        others=len(others))
    shown = level if len(level) <= NAMED else [
        *level[:NAMED], t("answer.n_more", n=len(level) - NAMED)]
    return text + t("answer.some_with_best" if len(others) > 1 else "answer.other_with_best",
                    bad=best["n_anomalous"], n=len(level), others=len(others),
                    rows=enumerated(shown))


def _below_baselines(compared: pd.DataFrame) -> list[Text]:
    statistic = compared["name"].isin(STATISTICS)
    if not statistic.any():
        return []
    top = compared.loc[compared.loc[statistic, "auroc"].idxmax()]
    below = compared[~statistic & (compared["auroc"] <= top["auroc"])]
    return [t("answer.does_not_beat" if len(below) == 1 else "answer.do_not_beat",
              rows=_labels(below), top=label(top["configuration"]), auroc=top["auroc"])
            ] if len(below) else []


def provenance(table: pd.DataFrame) -> Text:
    """Where the numbers come from: data, device, weights; synthetic data and weights that were not
    the asked-for ones first. table: comparison.performance."""
    done = table[table["status"] == "finished"]
    said: list[str] = []
    synthetic = done[done["synthetic"] == True]  # noqa: E712  (a column of True, False and nothing)
    if len(synthetic):
        said.append(t("comparison.synthetic", drawn=enumerated(sorted(set(synthetic["category"])))))
    words = sorted(set(done["weights"]))
    if random := [word for word in words if word.startswith("RANDOM")]:
        said.append(t("comparison.random_weights",
                      weights=join(map(sentences.weights, random), "; ")))
    said += [data_source("", folder) for folder in sorted(set(done["data"]) - {""})]
    if given := [word for word in words if not word.startswith(("RANDOM", "none"))]:
        said.append(t("comparison.weights", weights=join(map(sentences.weights, given), "; ")))
    fingerprints = (t("list.name", name=category, value=enumerated(sorted(set(values))))
                    for category, values in done.groupby("category")["fingerprint"])
    return join([*said, t("comparison.finished", done=len(done), runs=len(table),
                          devices=enumerated(sorted(set(done["device"]))),
                          data=join(fingerprints, ", "))])


# ---- the figures


def bars(rows: pd.DataFrame) -> Text:
    claims = rows["claim_low"].notna().any()
    return join([t("comparison.bars_with_claims" if claims else "comparison.bars"), *(
        t("comparison.of_category", category=category, values=join(
            (t("list.value_2", name=label(row.configuration), value=row.auroc)
             for row in part.itertuples() if row.auroc == row.auroc), ", "))
        for category, part in rows.groupby("category", sort=False))])


def matrix(pairs: pd.DataFrame, category: str) -> Text:
    if pairs.empty:
        return t("comparison.no_pairs", category=category)
    return t("comparison.pairs", category=category, pairs=len(pairs),
             apart=int((pairs["p_holm"] < LEVEL).sum()))


def roc() -> Text:
    return t("comparison.roc")


def bootstrap(gaps: np.ndarray) -> Text:
    """The cross-check of the intervals (comparison.bootstrap_gaps)."""
    if not len(gaps):
        return t("comparison.no_bootstrap")
    return t("comparison.bootstrap", n=len(gaps), low=EDGE, high=1 - EDGE, mean=gaps.mean(),
             most=gaps.max())


def distributions(results: Tables) -> Text:
    """How many anomalous images hide among the good ones, per run."""
    hidden = []
    for (category, name), table in results.items():
        test = table[table["split"] == "test"]
        good, bad = (test.loc[test["label"] == truth, "score"] for truth in (0, 1))
        if len(good) and len(bad):
            hidden.append(t("comparison.hidden", category=category, label=label(name),
                            hidden=int((bad <= good.max()).sum()), bad=len(bad)))
    return t("comparison.distributions", values=join(hidden, ", ") or t("comparison.no_labels"))


def epochs(curves: Tables) -> Text:
    changes = [t("comparison.first_and_last", category=category, label=label(name),
                 first=defined.iloc[0]["auroc"], begin=defined.iloc[0]["epoch"],
                 last=defined.iloc[-1]["auroc"], end=defined.iloc[-1]["epoch"])
               for (category, name), table in curves.items() if len(defined := table.dropna())]
    return t("comparison.epochs", values=join(changes, "; ") or t("comparison.no_labels"))


# ---- the questions


def scores(choices: pd.DataFrame) -> Text:
    """What the label-free choice of the score is worth (questions.choices)."""
    if choices.empty:
        return t("question.no_scores")
    gain, rank = choices["chosen_auroc"] - choices["own_auroc"], choices["rank_correlation"]
    return t("question.scores", n=len(choices), gain=gain.mean(), least=gain.min(),
             most=gain.max(), lost=(choices["best_auroc"] - choices["chosen_auroc"]).mean(),
             rank=rank.mean(), lowest=rank.min(), highest=rank.max())


def target(rows: pd.DataFrame, pairs: dict[str, pd.DataFrame]) -> Text:
    """Whether features beat pixels, by the planned paired tests.

    rows: questions.target. pairs: {category: comparison.matrix}.
    """
    said = []
    for category, part in rows.groupby("category", sort=False):
        by_name = part.set_index("configuration")
        if not {"to_pixels", "to_features"} <= set(by_name.index):
            continue
        others = (t("question.target_other", label=label(name), auroc=row["auroc"],
                    p=p_value(pairs[category], name, "to_pixels"))
                  for name, row in by_name.drop(index="to_pixels").iterrows())
        said.append(t("question.target_on", category=category, pixels=label("to_pixels"),
                      auroc=by_name.loc["to_pixels", "auroc"], others=enumerated(others)))
    return join([t("question.target"), *said]) if said else t("question.no_target")


def position(table: pd.DataFrame) -> Text:
    if table.empty:
        return t("question.no_position")
    right = table.loc[table["label_free_choice"] == table["better"], "category"]
    return t("question.position_right" if len(right) else "question.position_wrong", n=len(right),
             of=len(table), right=enumerated(right))


def ablation(table: pd.DataFrame) -> Text:
    """How far from each other the variants are on the real images (questions.ablation)."""
    if table.empty:
        return t("question.no_ablation")
    ranges = []
    for category, part in table.dropna(subset=["auroc_test"]).groupby("category", sort=False):
        worst, best = part.loc[part["auroc_test"].idxmin()], part.loc[part["auroc_test"].idxmax()]
        ranges.append(t("question.ablation_on", category=category, low=worst["auroc_test"],
                        worst=label(worst["configuration"]), high=best["auroc_test"],
                        best=label(best["configuration"])))
    return t("question.ablation", ranges=join(ranges, "; ")) if ranges else t(
        "question.ablation_no_labels")


def robustness(tables: Tables) -> Text:
    """The worst disturbance of every configuration (questions.robustness)."""
    if not tables:
        return t("limits.not_asked")
    changes = []
    for (category, name), table in tables.items():
        disturbed = table[table["strength"] == SHOWN_STRENGTH]
        worst = disturbed.loc[disturbed["auroc"].idxmin()]
        changes.append(t(
            "limits.clean_to_worst", category=category, label=label(name), worst=worst["auroc"],
            clean=table.loc[table["strength"] == 0, "auroc"].iloc[0],
            what=corruption(worst["disturbance"], SHOWN_STRENGTH)))
    return t("limits.compared", strength=SHOWN_STRENGTH, values=join(changes, ", "))


def robustness_caption() -> Text:
    """What the columns of questions.robustness_table are."""
    columns = (t("limits.disturbance", name=named("disturbance", name),
                 what=corruption(name, SHOWN_STRENGTH)) for name in corruptions.CORRUPTIONS)
    return t("caption.robustness", strength=SHOWN_STRENGTH, columns=join(columns, "; "))
