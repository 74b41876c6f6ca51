"""What the comparison says: sentences made from the tables of `comparison` and `questions`."""
from __future__ import annotations

import math
import typing

import pandas as pd

from adlib.config import STATISTICS
from adlib.data import corruptions
from adlib.evaluation import ranks as of_ranks
from adlib.evaluation.auroc import LEVEL
from adlib.report import ranking
from adlib.report.comparison import label
from adlib.report.ranking import Answer, p_value
from adlib.report.words import sentences
from adlib.report.words.data_sentences import corruption, data_source
from adlib.report.words.i18n import Text, enumerated, join, named, t
from adlib.report.words.sentences import SHOWN_STRENGTH

NAMED = 4  # rows that a sentence names
Tables = dict[tuple[str, str], pd.DataFrame]  # {(category, configuration): a table of its run}


# ---- the answer: what ranking.answer found, in words


def labels(codes: typing.Iterable[str]) -> Text:
    return enumerated(map(label, codes))


def rates(row: typing.Mapping[str, typing.Any]) -> Text:
    """What a row finds and falsely calls at its threshold, in counts (the seeds' mean)."""
    detections, alarms = row["detections"], row["false_positives"]
    if math.isnan(detections) or math.isnan(alarms):
        return t("answer.no_rates")
    n_bad, n_good = int(row["n_anomalous"]), int(row["n_good"])
    return t("answer.rates", found=f"{round(detections * n_bad, 1):g}", bad=n_bad,
             alarms=f"{round(alarms * n_good, 1):g}", good=n_good)


def gains(found: Answer) -> Text:
    """`rates` of the best row, by name where others share its AUROC."""
    said = rates(found.best)
    return said if len(found.tied) < 2 else t("answer.of_one", label=label(found.tied[0]),
                                              rates=said)


def operating(row: typing.Mapping[str, typing.Any]) -> list[str]:
    """The same as two rates, "76%" and "2%"; none where there is no threshold."""
    rates = [row["detections"], row["false_positives"]]
    return [] if any(map(math.isnan, rates)) else [f"{rate:.0%}" for rate in rates]


def without_auroc(row: typing.Mapping[str, typing.Any]) -> Text:
    """What is known of a finished row without an AUROC (Answer.unjudged), without a full stop."""
    n, half = row["n_good"], row["half_found"]
    said = [t("answer.no_rates" if math.isnan(row["threshold"]) else "answer.threshold", **row)]
    if not math.isnan(row["false_positives"]):
        said.append(t("answer.called", count=round(row["false_positives"] * n, 1), n=int(n),
                      low=row["false_low"], high=row["false_high"]))
    if not math.isnan(half):
        said.append(t("answer.half" if math.isfinite(half) else "answer.not_half", **row))
    if not math.isnan(row["label_free"]):
        said.append(t("answer.free", **row))
    return join(said, "; ")


def cell(row: typing.Mapping[str, typing.Any]) -> Text:
    """A row without an AUROC in a few words: what its threshold does to good images, or what became
    of it."""
    if row["status"] != "finished":
        return status(row)
    called = round(row["false_positives"] * row["n_good"], 1)
    return t("matrix.scored") if math.isnan(called) else t("matrix.called", count=called,
                                                           n=int(row["n_good"]))


def equivalents(found: Answer, beyond: int = 1) -> Text:
    """What is not distinguishable from the best. beyond: how many of the tied are named already."""
    others = [*found.tied[beyond:], *found.level]
    if found.best["low"] <= 0.5:
        return t("answer.guessing")
    if not others:
        return Text("") if found.tied[1:] and not found.below else t(
            ("answer.only_row", "answer.alone_one", "answer.alone")[min(found.below, 2)],
            n=found.below)
    shown = others if len(others) <= NAMED else [
        *others[:NAMED - 1], t("answer.n_more", n=len(others) - NAMED + 1)]
    return t("answer.level", rows=labels(shown))


def short(found: Answer) -> Text:
    """The answer of a category in a line."""
    if found.unjudged:
        return join([t("answer.known", category=found.category, said=without_auroc(found.unjudged),
                       label=label(found.unjudged["configuration"])), t("answer.try")])
    if found.best is None:
        return t("answer.none_random" if found.random else "answer.none", category=found.category)
    best = found.best
    return t("answer.short", category=found.category, rows=labels(found.tied[:1]),
             auroc=f"{best['auroc']:.3f} [{best['low']:.2f}, {best['high']:.2f}]",
             rates=rates(best), level=equivalents(found))


def overall(rows: pd.DataFrame) -> Text | None:
    """Who does best over the categories that labels can judge, and on how many it is with the
    best."""
    over = ranking.standing(rows)
    if over.empty:
        return None
    best = over.index[0]
    mine = rows[(rows["configuration"] == best) & rows["auroc"].notna()]
    with_best = int((mine["with_best"] == True).sum())  # noqa: E712
    return t("answer.overall_all" if with_best == len(mine) else "answer.overall", n=len(mine),
             label=label(best), mean=over.loc[best, "mean"], with_best=with_best)


def full(rows: pd.DataFrame) -> Text:
    """Which row is best in each category and what is not distinguishable from it; then what the
    first screen does not say (`footnotes`)."""
    said = [overall(rows)]
    for found in _found(rows):
        if found.unjudged or found.best or found.random or found.apart:
            said += [short(found), *_left_aside(rows, found)]
    return join(filter(None, [*said, *_of_all(rows)])) or t("answer.no_auroc_yet")


def footnotes(rows: pd.DataFrame) -> Text:
    """Where the answers stand, and what they leave out: which rows beat no baseline or were not
    compared, how the reference's claims fared, what has no result."""
    said = [one for found in _found(rows) for one in _left_aside(rows, found)]
    return join(filter(None, [t("answer.above"), *said, *_of_all(rows)]))


def _found(rows: pd.DataFrame) -> list[Answer]:
    return [ranking.answer(rows, category) for category in dict.fromkeys(rows["category"])]


def _left_aside(rows: pd.DataFrame, found: Answer) -> list[Text | None]:
    """Of a category: rows that beat no baseline, and those that were compared with nothing."""
    said = [_below_baselines(rows, found)] if found.best else []
    if found.apart:
        said.append(t("answer.not_compared", category=found.category, rows=labels(found.apart)))
    if found.random and found.best:
        said.append(t("answer.not_compared_random", category=found.category,
                      rows=labels(found.random)))
    return said


def _of_all(rows: pd.DataFrame) -> list[Text]:
    """How the reference's claims fared, and what has no result."""
    said, judged = [], [verdict for verdict in ("reached", "exceeded", "missed")
                        if (rows["verdict"] == verdict).any()]
    if judged:
        counts = rows["verdict"].value_counts()
        verdicts = (t(f"answer.n_{verdict}", n=counts[verdict]) for verdict in judged)
        said.append(t("answer.claims", n=counts[judged].sum(), verdicts=enumerated(verdicts)))
    told = {found.category for found in _found(rows) if found.unjudged}
    absent = [t("answer.absent_row", category=row["category"], label=label(row["configuration"]),
                status=status(row)) for _, row in rows[rows["auroc"].isna()].iterrows()
              if row["status"] != "finished" or row["category"] not in told]
    return said + [t("answer.absent", rows=join(absent, "; "))] * bool(absent)


def status(row: typing.Mapping[str, typing.Any]) -> Text:
    """What became of a row, and why it has no AUROC."""
    why = row["reason"] if isinstance(row["reason"], str) else ""
    if row["status"] == "finished" and row["auroc"] != row["auroc"]:
        why = sentences.no_auroc(int(row["n_good"]), int(row["n_anomalous"]))
    state = Text(named("status", row["status"]))
    return t("answer.status_why", status=state, why=why) if why else state


def _below_baselines(rows: pd.DataFrame, found: Answer) -> Text | None:
    """Which detectors of a category are no better than what is no model at all."""
    here = rows[(rows["category"] == found.category) & rows["with_best"].notna()]
    statistic = here["name"].isin(STATISTICS)
    if not statistic.any():
        return None
    top = here.loc[here.loc[statistic, "auroc"].idxmax()]
    below = here[~statistic & (here["auroc"] <= top["auroc"])]
    return t("answer.does_not_beat" if len(below) == 1 else "answer.do_not_beat",
             rows=labels(below["configuration"]), top=label(top["configuration"]),
             auroc=top["auroc"]) if len(below) else None


def provenance(table: pd.DataFrame) -> Text:
    """Where the numbers come from: data, device, weights; synthetic data and weights that were not
    the asked-for ones first. table: comparison.performance."""
    done = table[table["status"] == "finished"]
    said: list[str] = []
    synthetic = done[done["synthetic"] == True]  # noqa: E712  (a column of True, False and nothing)
    if len(synthetic):
        said.append(t("comparison.synthetic", drawn=enumerated(sorted(set(synthetic["category"])))))
    words = sorted(set(done["weights"]))
    if random := [word for word in words if word.startswith("random")]:
        said.append(t("comparison.random_weights",
                      weights=join(map(sentences.weights, random), "; ")))
    said += [data_source("folder", folder) for folder in sorted(set(done["data"]) - {""})]
    if given := [word for word in words if not word.startswith(("random", "none"))]:
        said.append(t("comparison.weights", weights=join(map(sentences.weights, given), "; ")))
    fingerprints = (t("list.name", name=category, value=enumerated(sorted(set(values))))
                    for category, values in done.groupby("category")["fingerprint"])
    return join([*said, t("comparison.finished", done=len(done), runs=len(table),
                          devices=enumerated(sorted(set(done["device"]))),
                          data=join(fingerprints, ", "))])


# ---- the questions


def ranks(wide: pd.DataFrame, tested: pd.DataFrame) -> Text:
    """What the ranks over categories prove (ranking.over_categories, ranks.pairs)."""
    n, k = wide.shape
    apart, needed = int((tested["p_holm"] < LEVEL).sum()), of_ranks.rows_needed(k)
    said = t("answer.ranks", n=n, k=k, p=of_ranks.friedman(wide), apart=apart, pairs=len(tested))
    return said if n >= needed else join([said, t("answer.too_few", needed=needed, n=n)])


def kinds(by_kind: pd.DataFrame, kinds: pd.DataFrame) -> Text:
    """The best mean of each kind of workpiece (questions.by_kind)."""
    counts = kinds["kind_of"].value_counts()
    best = by_kind.loc[by_kind.groupby("column", sort=False)["value"].idxmax()]
    return t("answer.kinds", kinds=join((
        t("answer.of_kind", kind=named(*row.column.split(":")), label=label(row.row),
          n=counts[row.column.partition(":")[2]], auroc=row.value)
        for row in best.itertuples()), "; "))


def scores(choices: pd.DataFrame) -> Text:
    """What the label-free choice of the score is worth (questions.choices)."""
    gain, rank = choices["chosen_auroc"] - choices["own_auroc"], choices["rank_correlation"]
    return t("question.scores", n=len(choices), gain=gain.mean(), least=gain.min(),
             most=gain.max(), lost=(choices["best_auroc"] - choices["chosen_auroc"]).mean(),
             rank=rank.mean(), lowest=rank.min(), highest=rank.max())


def target(rows: pd.DataFrame, pairs: dict[str, pd.DataFrame]) -> Text:
    """Whether features beat pixels, by the planned paired tests; of a category where none was
    possible, nothing. rows: questions.target. pairs: {category: ranking.matrix}."""
    said = []
    for category, part in rows.groupby("category", sort=False):
        aurocs = part.set_index("configuration")["auroc"]
        if not {"to_pixels", "to_features"} <= set(aurocs.index):
            continue
        others = [t("question.target_other", label=label(name), auroc=auroc, p=p)
                  for name, auroc in aurocs.drop("to_pixels").items()
                  if (p := p_value(pairs[category], name, "to_pixels")) == p]
        if others:
            said.append(t("question.target_on", category=category, pixels=label("to_pixels"),
                          auroc=aurocs["to_pixels"], others=enumerated(others)))
    return join([t("question.target"), *said]) if said else Text("")


def position(table: pd.DataFrame) -> Text:
    right = table.loc[table["label_free_choice"] == table["better"], "category"]
    return t("question.position_right" if len(right) else "question.position_wrong", n=len(right),
             of=len(table), right=enumerated(right))


def robustness(tables: Tables) -> Text:
    """The worst disturbance of every configuration (questions.robustness)."""
    changes = []
    for (category, name), table in tables.items():
        disturbed = table[table["strength"] == SHOWN_STRENGTH]
        worst = disturbed.loc[disturbed["auroc"].idxmin()]
        clean = table.loc[table["strength"] == 0, "auroc"].iloc[0]
        changes.append(t(
            "limits.clean_to_worst" if worst["auroc"] < clean else "limits.clean_to_none_worse",
            category=category, label=label(name), clean=clean, worst=worst["auroc"],
            what=corruption(worst["disturbance"], SHOWN_STRENGTH)))
    return t("limits.compared", strength=SHOWN_STRENGTH, values=join(changes, ", "))


def robustness_caption() -> Text:
    """What the columns of questions.robustness_table are."""
    columns = (t("limits.disturbance", name=named("disturbance", name),
                 what=corruption(name, SHOWN_STRENGTH)) for name in corruptions.CORRUPTIONS)
    return t("caption.robustness", strength=SHOWN_STRENGTH, columns=join(columns, "; "))
