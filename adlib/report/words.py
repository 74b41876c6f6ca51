"""What the run notebooks say about their own numbers. Every sentence is made from the numbers it is
given; none is written in advance.

Words that come from a run's files (why a number is absent, where weights came from, what a score
follows) are plain text there; `t` knows their Chinese again (lang.chinese).
"""
from __future__ import annotations

import typing

import pandas as pd

from adlib.config import PIXEL_MODELS, REFERENCE_SCORE, STATISTICS, Config
from adlib.data import layout
from adlib.evaluation import calibration, conformal
from adlib.report.i18n import Text, join, t

if typing.TYPE_CHECKING:
    from adlib.data.part import Part
    from adlib.models.detector import Detector


def facts(part: Part, detector: Detector, about: dict[str, typing.Any],
          fitted_on: int | None = None) -> Text:
    """The run in one line: device, precision, size of the network, where its weights came from.

    Args:
        about: device, threads, precision. fitted_on: good images in a feature detector's sample.
    """
    config = part.config
    shared = {"name": config.name, "seed": config.seed, "size": config.image_size, **about}
    if config.model in PIXEL_MODELS:
        total, trained = (sum(p.numel() for p in detector.parameters() if p.requires_grad or every)
                          for every in (True, False))
        return t("run.configuration_name_seed_seed_epochs", epochs=config.epochs,
                 optimizer=config.optimizer.capitalize(), mse=1 - config.ssim_weight,
                 ssim=config.ssim_weight, total=total / 1e6, trained=trained / 1e6,
                 weights=detector.weights, **shared)
    network = t("run.no_network_all") if config.model in STATISTICS else t(
        "run.stages_layers_frozen_resnet18_encoder", layers=config.layers, weights=detector.weights)
    text = t("run.configuration_name_seed_seed_detector", model=config.model, network=network,
             **shared)
    return text if fitted_on is None or fitted_on >= len(part.train) else join(
        [text, t("run.fitted_sample_n_good_images", n=fitted_on, of=len(part.train))])


def decisions(scored: calibration.Scored, config: Config) -> Text:
    """What was decided without a test label, in words."""
    said = []
    if "all" in scored.ranking:
        best = scored.ranking.set_index("score").loc[scored.chosen]
        kinds = join((t("limits.name_value_f", name=kind, value=best[kind])
                      for kind in scored.ranking.columns if kind not in ("score", "all")), ", ")
        by = t("run.chosen_without_labels") if scored.primary == REFERENCE_SCORE else t(
            "run.fixed_advance")
        said.append(
            t("run.n_scores_chosen_tells_held_out", n=len(scored.ranking), chosen=scored.chosen,
              by=by, auroc=best["all"], kinds=kinds))
    if not conformal.is_attainable(scored.calibration, config.target_fpr):
        return join([*said, conformal.sentence(scored.calibration, config.target_fpr)])
    return join([
        *said,
        t("run.threshold_rests_n_good_images", n=scored.calibration, how=scored.how,
          rate=config.target_fpr)
    ])


def scores(scores: pd.DataFrame) -> Text:
    """How well the label-free order of the scores foretells the real one."""
    if scores["test"].isna().any():
        return t("run.n_scores_test_split_cannot", n=len(scores))
    named = join((f"{row.score} {row.test:.3f}" for row in scores.itertuples() if row.role), ", ")
    text = t("run.n_scores_test_split_named", n=len(scores), named=named)
    if len(scores) < 3 or scores["label_free"].isna().any() or 1 in scores[["label_free", "test"
                                                                            ]].nunique().to_list():
        return text  # a constant has no rank correlation
    agreement, best = scores["label_free"].corr(
        scores["test"], method="spearman"), scores.loc[scores["test"].idxmax()]
    used = scores.loc[scores["role"].str.contains("chosen|fixed"), "test"].max()
    if best["test"] > used:
        return join([
            text,
            t("run.label_free_order_real_one_rank_2", agreement=agreement, best=best["score"],
              auroc=best["test"])
        ])
    return join([text, t("run.label_free_order_real_one_rank", agreement=agreement)])


def operating(operating: dict[str, dict[str, typing.Any]], prefix: str = "") -> Text:
    """False alarms and detections on the test split, with what the best threshold in hindsight
    would have given.

    prefix: how the sentence begins; empty = with the label-free threshold.
    """
    prefix, entry = prefix or t("run.label_free_threshold"), operating["test"]
    false, found, oracle = entry["false_positives"], entry["detections"], entry["oracle_f1"]
    if false is None:
        return (t("run.prefix_nothing_count_because_no", prefix=prefix) if oracle else t(
            "run.prefix_nothing_count_because_test", prefix=prefix))
    parts = []
    if false["n"]:
        parts.append(t("run.count_n_good_test_images", **false))
    if found["n"]:
        parts.append(t("run.count_n_anomalous_ones_found", **found))
    text = t("run.prefix_counted", prefix=prefix,
             counted=t("run.one_other", one=parts[0], other=parts[1]) if parts[1:] else join(parts))
    return text if oracle is None else join([
        text,
        t("run.oracle_knows_test_labels_takes", false_positives=oracle["false_positives"],
          detections=oracle["detections"])
    ])


def chosen(scored: calibration.Scored, operating_of_chosen: dict[str, dict[str,
                                                                           typing.Any]]) -> Text:
    """The operating point of the score that was chosen without labels, where that is not the
    configuration's own."""
    if scored.chosen == scored.primary:
        return t("run.score_study_uses_configuration_s")
    return operating(operating_of_chosen,
                     t("run.chosen_score_chosen_without_labels", chosen=scored.chosen))


def localisation(found: dict[str, typing.Any] | None) -> Text:
    if found is None:
        return t("run.no_masks_defects_so_they")
    if "why_absent" in found:
        return t("run.localisation_cannot_judged_why", why=found["why_absent"])
    text = t("run.over_all_pixels_n_test", n=found["images"], auroc=found["pixel_auroc"],
             ap=found["pixel_ap"], au_pro_30=found["au_pro_30"], au_pro_05=found["au_pro_05"])
    return text if not found["without_mask"] else join(
        [text, t("run.n_anomalous_images_no_mask", n=found["without_mask"])])


def loss(history: list[dict]) -> Text:
    first, last = history[0], history[-1]
    text = t("run.over_epochs_epochs_training_loss", epochs=len(history), first=first["loss"],
             last=last["loss"])
    if last["held_out_loss"] == last["held_out_loss"]:
        text += t("run.held_out_good_images_first_f", first=first["held_out_loss"],
                  last=last["held_out_loss"])
    return text + t("run.last_them_began_learning_rate", lr=last["lr"])


def auroc(auroc: dict[str, dict[str, typing.Any]]) -> Text:
    """AUROC of both evaluation splits with interval and counts, or why there is none."""
    said = [t("run.auroc_test_split_auroc", auroc=_auroc(auroc["test"]))]
    if auroc["train_bad"]["n_anomalous"]:
        said.append(t("run.auroc_test_split_s_good", auroc=_auroc(auroc["train_bad"])))
    return join(said)


def roc(entry: dict[str, typing.Any]) -> Text:
    return t("run.roc_curve_test_split_auroc", auroc=_auroc(entry))


def distribution(results: pd.DataFrame) -> Text:
    """Medians of the three groups, and how many anomalous images score below the highest good one.
    """
    test = results[results["split"] == "test"]
    train = results.loc[results["split"] == "train", "score"]
    good, bad = test.loc[test["label"] == 0, "score"], test.loc[test["label"] == 1, "score"]
    medians = [
        t("run.name_value_f", name=name, value=scores.median())
        for name, scores in ((t("run.training_images"), train), (t("run.good_test_images"), good),
                             (t("run.anomalous_test_images"), bad)) if len(scores)
    ]
    text = t("run.median_score_medians", medians=join(medians, ", "))
    return text if not (len(good) and len(bad)) else join(
        [text,
         t("run.n_anomalous_images_score_no", n=int((bad <= good.max()).sum()), of=len(bad))])


def epochs(epochs: pd.DataFrame) -> Text:
    known = epochs.dropna()
    if known.empty:
        return t("run.no_labels_both_classes_so")
    first, last, top = known.iloc[0], known.iloc[-1], known.loc[known["auroc"].idxmax()]
    return t("run.auroc_first_f_after_epoch", first=first["auroc"], begin=first["epoch"],
             last=last["auroc"], end=last["epoch"], top=top["auroc"], best=top["epoch"])


def confounders(follows: dict[str, float | None]) -> Text:
    """What the score follows where there is no defect (evaluate.confounders)."""
    found = [
        t("run.name_none", name=name)
        if value is None else t("run.name_value_f_2", name=name, value=value)
        for name, value in follows.items()
    ]
    return t("run.rank_correlation_score_looks_good", found=join(found, ", "))


def answer(config: Config, category: layout.Category, auroc: dict[str, dict[str, typing.Any]],
           weights: str) -> Text:
    """The closing sentence of a run: its AUROC, what that means, and how sure one can be."""
    entry = auroc["test"]
    if entry["value"] is None:
        return t("run.category_scored_without_auroc_why", category=category.name,
                 why=entry["why_absent"])
    verdict = (t("run.cannot_told_guessing")
               if entry["low"] <= 0.5 <= entry["high"] else t("run.ranks_good_parts_above_bad")
               if entry["high"] < 0.5 else t("run.better_than_guessing"))
    text = t("run.category_auroc_value_f_test", category=category.name, value=entry["value"],
             name=config.name, verdict=verdict, auroc=_auroc(entry))
    return text if not weights.startswith("RANDOM") else join(
        [text, t("run.encoder_weights_were_weights", weights=weights)])


def _auroc(entry: dict[str, typing.Any]) -> Text:
    if entry["value"] is None:
        return t("run.none_because_why", why=entry["why_absent"])
    return t("run.value_f_interval_low_f", value=entry["value"], low=entry["low"],
             high=entry["high"], good=entry["n_good"], bad=entry["n_anomalous"])
