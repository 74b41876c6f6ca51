"""What the run notebooks say about their own numbers. Every sentence is made from the numbers it is given; none is written in advance."""
from __future__ import annotations

import typing

import pandas as pd

from adlib import conformal, data, decide, score
from adlib.config import Config
from adlib.lang import Text, t


def decisions(scored: decide.Scored, config: Config) -> str:
    """What was decided without a test label, in words."""
    text = ""
    if "all" in scored.ranking:
        best = scored.ranking.set_index("score").loc[scored.chosen]
        kinds = ", ".join(f"{kind} {best[kind]:.3f}" for kind in scored.ranking.columns if kind not in ("score", "all"))
        by = "chosen without labels" if scored.primary == score.SEED_SCORE else "fixed in advance"
        text = (f"Of {len(scored.ranking)} scores, {scored.chosen} is {by}: it tells held-out good images from synthetic anomalies "
                f"with an AUROC of {best['all']:.3f} ({kinds}). ")
    if not conformal.supports(scored.calibration, config.false_alarms):
        return text + conformal.sentence(scored.calibration, config.false_alarms)
    return text + (f"The threshold rests on {scored.calibration} good images ({scored.how}): a part is called anomalous where fewer than "
                   f"{config.false_alarms:.0%} of good ones would score as high.")


def scores(scores: pd.DataFrame) -> str:
    """How well the label-free order of the scores foretells the real one."""
    if scores["test"].isna().any():
        return f"{len(scores)} scores, of which the test split cannot tell which is best: it has no labels of both classes."
    named = ", ".join(f"{row.score} {row.test:.3f}" for row in scores.itertuples() if row.role)
    text = f"{len(scores)} scores; on the test split {named}."
    if len(scores) < 3 or scores["label_free"].isna().any():
        return text
    agreement, best = scores["label_free"].corr(scores["test"], method="spearman"), scores.loc[scores["test"].idxmax()]
    text += f" The label-free order and the real one have a rank correlation of {agreement:+.2f}"
    used = scores.loc[scores["role"].str.contains("chosen|fixed"), "test"].max()
    return text + (f"; with the labels one would have taken {best['score']} ({best['test']:.3f})." if best["test"] > used else
                   "; no score is better on the test split than the one in use.")


def operating(operating: dict[str, dict[str, typing.Any]], prefix: str = "With the label-free threshold") -> str:
    """False alarms and detections on the test split, with what the best threshold in hindsight would have given."""
    entry = operating["test"]
    if entry["false_alarms"] is None:
        why = "no good image was held out" if entry["oracle_f1"] else "the test split has no labels of both classes"
        return f"{prefix}: nothing to count, because {why}."
    false, found = entry["false_alarms"], entry["detections"]
    parts = [f"{which['count']} of {which['n']} {name} ({which['rate']:.0%}, 95 % interval {which['low']:.0%} to {which['high']:.0%})"
             for which, name in ((false, "good test images are called anomalous"), (found, "anomalous ones are found")) if which["n"]]
    text = f"{prefix}, " + " and ".join(parts) + "."
    oracle = entry["oracle_f1"]
    return text + ("" if oracle is None else f" An oracle that knows the test labels and takes the threshold of the best F1 would have "
                   f"{oracle['false_alarms']:.0%} false alarms and {oracle['detections']:.0%} detections.")


def chosen(scored: decide.Scored, operating_of_chosen: dict[str, dict[str, typing.Any]]) -> str:
    """The operating point of the score that was chosen without labels, where that is not the configuration's own."""
    if scored.chosen == scored.primary:
        return "The score that the study uses is the configuration's own."
    return operating(operating_of_chosen, f"With {scored.chosen}, the score chosen without labels, and its threshold")


def localisation(found: dict[str, typing.Any] | None) -> str:
    if found is None:
        return "There are no masks of the defects, so where they are cannot be judged."
    if "why_absent" in found:
        return f"Localisation cannot be judged: {found['why_absent']}."
    text = (f"Over all pixels of {found['images']} test images: AUROC {found['pixel_auroc']:.3f}, average "
            f"precision {found['pixel_ap']:.3f}, "
            f"AU-PRO {found['au_pro_30']:.3f} up to 30 % false positives and {found['au_pro_05']:.3f} up to 5 %.")
    if found["without_mask"]:
        text += f" {found['without_mask']} anomalous images have no mask and are left out."
    return text


def loss(history: list[dict]) -> Text:
    first, last = history[0], history[-1]
    text = t("Over {epochs} epochs the training loss went from {first:.4f} to {last:.4f}", epochs=len(history), first=first["loss"],
             last=last["loss"])
    if last["held_out_loss"] == last["held_out_loss"]:
        text += t(", that of the held-out good images from {first:.4f} to {last:.4f}", first=first["held_out_loss"],
                  last=last["held_out_loss"])
    return text + t("; the learning rate ended at {lr:.1e}.", lr=last["lr"])


def auroc(auroc: dict[str, dict[str, typing.Any]]) -> str:
    """AUROC of both evaluation splits with interval and counts, or why there is none."""
    names = {"test": "AUROC on the test split", "train_bad": "AUROC of the test split's good images against train/bad"}
    return " ".join(f"{names[split]}: {_auroc(entry)}." for split, entry in auroc.items()
                    if split == "test" or entry["n_anomalous"])


def roc(entry: dict[str, typing.Any]) -> str:
    return f"ROC curve on the test split; AUROC {_auroc(entry)}."


def distribution(results: pd.DataFrame) -> str:
    """Medians of the three groups, and how many anomalous images score below the highest good one."""
    test = results[results["split"] == "test"]
    groups = {"training images": results.loc[results["split"] == "train", "score"],
              "good test images": test.loc[test["label"] == 0, "score"], "anomalous test images": test.loc[test["label"] == 1, "score"]}
    text = "Median score: " + ", ".join(f"{name} {scores.median():.4f}" for name, scores in groups.items() if len(scores)) + "."
    good, bad = groups["good test images"], groups["anomalous test images"]
    if len(good) and len(bad):
        text += f" {int((bad <= good.max()).sum())} of {len(bad)} anomalous images score no higher than the highest good one."
    return text


def epochs(epochs: pd.DataFrame) -> str:
    known = epochs.dropna()
    if known.empty:
        return "There are no labels of both classes, so no AUROC over epochs."
    first, last, top = known.iloc[0], known.iloc[-1], known.loc[known["auroc"].idxmax()]
    return (f"AUROC is {first['auroc']:.3f} after epoch {first['epoch']:.0f} and {last['auroc']:.3f} after epoch {last['epoch']:.0f}; "
            f"the highest of the epochs looked at is {top['auroc']:.3f}, after epoch {top['epoch']:.0f}.")


def follows(follows: dict[str, float | None]) -> str:
    """What the score follows where there is no defect (evaluate.follows)."""
    words = [f"{name} {'none' if value is None else f'{value:+.2f}'}" for name, value in follows.items()]
    return f"Rank correlation of the score with the looks of the good test images: {', '.join(words)}. Near 0 is as it should be."


def answer(config: Config, category: data.Category, auroc: dict[str, dict[str, typing.Any]], weights: str) -> str:
    """The closing sentence of a run: its AUROC, what that means, and how sure one can be."""
    entry = auroc["test"]
    if entry["value"] is None:
        return f"{category.name}: scored, without an AUROC: {entry['why_absent']}."
    verdict = ("cannot be told from guessing" if entry["low"] <= 0.5 <= entry["high"] else
               "ranks good parts above bad ones" if entry["high"] < 0.5 else "is better than guessing")
    text = f"{category.name} AUROC: {entry['value']:.4f}. With this test set {config.name} {verdict} ({_auroc(entry)})."
    return text + (f" Its encoder weights were {weights}." if weights.startswith("RANDOM") else "")


def _auroc(entry: dict[str, typing.Any]) -> str:
    if entry["value"] is None:
        return f"none, because {entry['why_absent']}"
    return (f"{entry['value']:.3f} (95 % interval {entry['low']:.3f} to {entry['high']:.3f}; {entry['n_good']} good, "
            f"{entry['n_anomalous']} anomalous)")
