"""What the run notebooks say about their own numbers. Every sentence is made from the numbers it is given; none is written in advance.

Words that come from a run's files (why a number is absent, where weights came from, what a score follows) are plain text there;
`t` knows their Chinese again (lang.chinese).
"""
from __future__ import annotations

import typing

import pandas as pd

from adlib import conformal, data, decide
from adlib.config import SEED_SCORE, Config
from adlib.lang import Text, join, t


def decisions(scored: decide.Scored, config: Config) -> Text:
    """What was decided without a test label, in words."""
    said = []
    if "all" in scored.ranking:
        best = scored.ranking.set_index("score").loc[scored.chosen]
        kinds = join((t("{name} {value:.3f}", name=kind, value=best[kind]) for kind in scored.ranking.columns
                      if kind not in ("score", "all")), ", ")
        by = t("chosen without labels") if scored.primary == SEED_SCORE else t("fixed in advance")
        said.append(t("Of {n} scores, {chosen} is {by}: it tells held-out good images from synthetic anomalies with an AUROC of "
                      "{auroc:.3f} ({kinds}).", n=len(scored.ranking), chosen=scored.chosen, by=by, auroc=best["all"], kinds=kinds))
    if not conformal.supports(scored.calibration, config.false_alarms):
        return join([*said, conformal.sentence(scored.calibration, config.false_alarms)])
    return join([*said, t("The threshold rests on {n} good images ({how}): a part is called anomalous where fewer than {rate:.0%} of good "
                          "ones would score as high.", n=scored.calibration, how=scored.how, rate=config.false_alarms)])


def scores(scores: pd.DataFrame) -> Text:
    """How well the label-free order of the scores foretells the real one."""
    if scores["test"].isna().any():
        return t("{n} scores, of which the test split cannot tell which is best: it has no labels of both classes.", n=len(scores))
    named = join((f"{row.score} {row.test:.3f}" for row in scores.itertuples() if row.role), ", ")
    text = t("{n} scores; on the test split {named}.", n=len(scores), named=named)
    if len(scores) < 3 or scores["label_free"].isna().any() or 1 in scores[["label_free", "test"]].nunique().to_list():
        return text  # a constant has no rank correlation
    agreement, best = scores["label_free"].corr(scores["test"], method="spearman"), scores.loc[scores["test"].idxmax()]
    used = scores.loc[scores["role"].str.contains("chosen|fixed"), "test"].max()
    if best["test"] > used:
        return join([text, t("The label-free order and the real one have a rank correlation of {agreement:+.2f}; with the labels one "
                             "would have taken {best} ({auroc:.3f}).", agreement=agreement, best=best["score"], auroc=best["test"])])
    return join([text, t("The label-free order and the real one have a rank correlation of {agreement:+.2f}; no score is better on the "
                         "test split than the one in use.", agreement=agreement)])


def operating(operating: dict[str, dict[str, typing.Any]], prefix: str = "") -> Text:
    """False alarms and detections on the test split, with what the best threshold in hindsight would have given.

    prefix: how the sentence begins; empty = with the label-free threshold.
    """
    prefix, entry = prefix or t("With the label-free threshold"), operating["test"]
    false, found, oracle = entry["false_alarms"], entry["detections"], entry["oracle_f1"]
    if false is None:
        return (t("{prefix}: nothing to count, because no good image was held out.", prefix=prefix) if oracle else
                t("{prefix}: nothing to count, because the test split has no labels of both classes.", prefix=prefix))
    parts = []
    if false["n"]:
        parts.append(t("{count} of {n} good test images are called anomalous ({rate:.0%}, 95 % interval {low:.0%} to {high:.0%})", **false))
    if found["n"]:
        parts.append(t("{count} of {n} anomalous ones are found ({rate:.0%}, 95 % interval {low:.0%} to {high:.0%})", **found))
    text = t("{prefix}, {counted}.", prefix=prefix, counted=t("{one} and {other}", one=parts[0], other=parts[1]) if parts[1:] else
             join(parts))
    return text if oracle is None else join([text, t(
        "An oracle that knows the test labels and takes the threshold of the best F1 would have {false_alarms:.0%} false alarms and "
        "{detections:.0%} detections.", false_alarms=oracle["false_alarms"], detections=oracle["detections"])])


def chosen(scored: decide.Scored, operating_of_chosen: dict[str, dict[str, typing.Any]]) -> Text:
    """The operating point of the score that was chosen without labels, where that is not the configuration's own."""
    if scored.chosen == scored.primary:
        return t("The score that the study uses is the configuration's own.")
    return operating(operating_of_chosen, t("With {chosen}, the score chosen without labels, and its threshold", chosen=scored.chosen))


def localisation(found: dict[str, typing.Any] | None) -> Text:
    if found is None:
        return t("There are no masks of the defects, so where they are cannot be judged.")
    if "why_absent" in found:
        return t("Localisation cannot be judged: {why}.", why=found["why_absent"])
    text = t("Over all pixels of {n} test images: AUROC {auroc:.3f}, average precision {ap:.3f}, AU-PRO {au_pro_30:.3f} up to 30 % false "
             "positives and {au_pro_05:.3f} up to 5 %.", n=found["images"], auroc=found["pixel_auroc"], ap=found["pixel_ap"],
             au_pro_30=found["au_pro_30"], au_pro_05=found["au_pro_05"])
    return text if not found["without_mask"] else join(
        [text, t("{n} anomalous images have no mask and are left out.", n=found["without_mask"])])


def loss(history: list[dict]) -> Text:
    first, last = history[0], history[-1]
    text = t("Over {epochs} epochs the training loss went from {first:.4f} to {last:.4f}", epochs=len(history), first=first["loss"],
             last=last["loss"])
    if last["held_out_loss"] == last["held_out_loss"]:
        text += t(", that of the held-out good images from {first:.4f} to {last:.4f}", first=first["held_out_loss"],
                  last=last["held_out_loss"])
    return text + t("; the last of them began at a learning rate of {lr:.1e}.", lr=last["lr"])


def auroc(auroc: dict[str, dict[str, typing.Any]]) -> Text:
    """AUROC of both evaluation splits with interval and counts, or why there is none."""
    said = [t("AUROC on the test split: {auroc}.", auroc=_auroc(auroc["test"]))]
    if auroc["train_bad"]["n_anomalous"]:
        said.append(t("AUROC of the test split's good images against train/bad: {auroc}.", auroc=_auroc(auroc["train_bad"])))
    return join(said)


def roc(entry: dict[str, typing.Any]) -> Text:
    return t("ROC curve on the test split; AUROC {auroc}.", auroc=_auroc(entry))


def distribution(results: pd.DataFrame) -> Text:
    """Medians of the three groups, and how many anomalous images score below the highest good one."""
    test = results[results["split"] == "test"]
    train = results.loc[results["split"] == "train", "score"]
    good, bad = test.loc[test["label"] == 0, "score"], test.loc[test["label"] == 1, "score"]
    medians = [t("{name} {value:.4f}", name=name, value=scores.median()) for name, scores in (
        (t("training images"), train), (t("good test images"), good), (t("anomalous test images"), bad)) if len(scores)]
    text = t("Median score: {medians}.", medians=join(medians, ", "))
    return text if not (len(good) and len(bad)) else join(
        [text, t("{n} of {of} anomalous images score no higher than the highest good one.", n=int((bad <= good.max()).sum()), of=len(bad))])


def epochs(epochs: pd.DataFrame) -> Text:
    known = epochs.dropna()
    if known.empty:
        return t("There are no labels of both classes, so no AUROC over epochs.")
    first, last, top = known.iloc[0], known.iloc[-1], known.loc[known["auroc"].idxmax()]
    return t("AUROC is {first:.3f} after epoch {begin:.0f} and {last:.3f} after epoch {end:.0f}; the highest of the epochs looked at is "
             "{top:.3f}, after epoch {best:.0f}.", first=first["auroc"], begin=first["epoch"], last=last["auroc"], end=last["epoch"],
             top=top["auroc"], best=top["epoch"])


def follows(follows: dict[str, float | None]) -> Text:
    """What the score follows where there is no defect (evaluate.follows)."""
    found = [t("{name} none", name=name) if value is None else t("{name} {value:+.2f}", name=name, value=value)
             for name, value in follows.items()]
    return t("Rank correlation of the score with the looks of the good test images: {found}. Near 0 is as it should be.",
             found=join(found, ", "))


def answer(config: Config, category: data.Category, auroc: dict[str, dict[str, typing.Any]], weights: str) -> Text:
    """The closing sentence of a run: its AUROC, what that means, and how sure one can be."""
    entry = auroc["test"]
    if entry["value"] is None:
        return t("{category}: scored, without an AUROC: {why}.", category=category.name, why=entry["why_absent"])
    verdict = (t("cannot be told from guessing") if entry["low"] <= 0.5 <= entry["high"] else
               t("ranks good parts above bad ones") if entry["high"] < 0.5 else t("is better than guessing"))
    text = t("{category} AUROC: {value:.4f}. With this test set {name} {verdict} ({auroc}).", category=category.name, value=entry["value"],
             name=config.name, verdict=verdict, auroc=_auroc(entry))
    return text if not weights.startswith("RANDOM") else join([text, t("Its encoder weights were {weights}.", weights=weights)])


def _auroc(entry: dict[str, typing.Any]) -> Text:
    if entry["value"] is None:
        return t("none, because {why}", why=entry["why_absent"])
    return t("{value:.3f} (95 % interval {low:.3f} to {high:.3f}; {good} good, {bad} anomalous)", value=entry["value"], low=entry["low"],
             high=entry["high"], good=entry["n_good"], bad=entry["n_anomalous"])
