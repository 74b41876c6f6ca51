"""What is said of one run and its limits. Every sentence is made from the numbers it
is given; none is written in advance."""
from __future__ import annotations

import math
import typing

import pandas as pd

from adlib.config import MODELS, PIXEL_MODELS, REFERENCE_SCORE, STATISTICS, Config
from adlib.evaluation.conformal import Threshold, min_calibration_size
from adlib.evaluation.ranks import rank_correlation
from adlib.report.words.data_sentences import corruption
from adlib.report.words.i18n import Text, join, messages, named, t

if typing.TYPE_CHECKING:
    from adlib.data.part import Part
    from adlib.evaluation.calibration import Decision
    from adlib.models.detector import Detector

SHOWN_STRENGTH = 3  # of a disturbance in tables: clearly visible, and still a camera one would use


def score(code: str) -> str:
    """What a score's code is called: "squared.max" is the maximum of the squared error. A user's
    own keeps its name."""
    if code == REFERENCE_SCORE:
        return t("score.reference")
    map_, _, how = code.rpartition(".")
    known = map_ and f"score.{how}" in messages()
    return t(f"score.{how}", map=named("map", map_)) if known else code


def defect(code: str) -> str:
    """What a kind of image is called in a caption: a defect by its folder's name."""
    return t("view.good") if code == "good" else code or t("view.unlabelled")


def weights(code: str, *, short: bool = False) -> str:
    """Where pretrained weights came from (a code of models.weights).

    short: for a table: without a file's hash or the reason; "" for a network that has none.
    """
    source, _, which = code.partition(":")
    if source == "random":
        return t("weights.random") if short or not which else t(
            "weights.random_why", why=named("weights_why", which))
    if source == "none":
        return "" if short else t("weights.none")
    if source == "imagenet":
        return t("weights.imagenet", version=which)
    if source != "file":
        return code
    name, _, digest = which.rpartition(":")
    return t("weights.file", name=name) if short else t("weights.file_of", name=name, digest=digest)


def facts(part: Part, detector: Detector, about: dict[str, typing.Any],
          fitted_on: int | None = None) -> Text:
    """The run in one line: device, precision, size of the network, where its weights came from.

    Args:
        about: device, threads, precision, learned_in.
        fitted_on: good images in a feature detector's sample.
    """
    config, origin = part.config, weights(detector.weights)
    shared = {"name": config.name, "seed": config.seed, "size": config.image_size, **about}
    if config.model in PIXEL_MODELS:
        total = sum(p.numel() for p in detector.parameters())
        trained = sum(p.numel() for p in detector.parameters() if p.requires_grad)
        said = [t("run.trained_network", epochs=config.epochs, mse=1 - config.ssim_weight,
                  optimizer=config.optimizer.capitalize(), ssim=config.ssim_weight,
                  total=total / 1e6, trained=trained / 1e6, weights=origin, **shared)]
    else:
        network = t("run.no_network") if config.model in STATISTICS else t(
            "run.frozen_encoder", layers=config.layers, weights=origin
        ) if config.model in MODELS else t("run.own_network", weights=origin)
        said = [t("run.detector", model=config.model, network=network, **shared)]
        if fitted_on is not None and fitted_on < len(part.train):
            said.append(t("run.fitted_on_sample", n=fitted_on, of=len(part.train)))
    if part.grey_range is not None:
        low, high = part.grey_range
        said.append(t("run.grey_range", low=low, high=high))
    return join(said)


def decisions(decision: Decision) -> Text:
    """What was decided without a test label: the score, and the threshold."""
    ranking, threshold, said = decision.ranking, decision.threshold, []
    if "all" in ranking:
        best = ranking.set_index("score").loc[decision.score]
        kinds = [t("list.value_3", name=named("kind", kind), value=best[kind])
                 for kind in ranking.columns if kind not in ("score", "all")]
        free = decision.chosen_without_labels
        said.append(t("run.score_chosen" if free else "run.score_fixed", n=len(ranking),
                      score=score(decision.score), auroc=best["all"], kinds=join(kinds, ", ")))
        if free and decision.undecided:
            said.append(t("run.choice_unsure", n=len(decision.undecided), of=len(ranking) - 1))
    return join([*said, threshold_of(decision), *foreign_first(threshold)])


def threshold_of(decision: Decision) -> Text:
    """threshold_rests_on of what was just decided, which knows all good images."""
    return threshold_rests_on(decision.threshold, sum(map(len, decision.good_scores.values())))


def foreign_decided(decision: Decision) -> Text:
    """From where on a picture is foreign; "" where nobody asks."""
    if not (unlike := decision.foreign_threshold):
        return Text("")
    said = t("foreign.decided", n=len(unlike.calibration), rate=unlike.target_fpr,
             both=decision.threshold.target_fpr, weights=weights(decision.foreign.weights))
    aside = int(decision.foreign.set_aside)
    return join([said, t("foreign.set_aside", n=aside)]) if aside else said


def threshold_rests_on(threshold: Threshold, good: int) -> Text:
    """The images a threshold is from, or why there is none: too few of the `good` images that there
    are were held out, or there are too few."""
    n, rate = len(threshold.calibration), threshold.target_fpr
    least = min_calibration_size(rate)
    if not threshold.is_attainable:
        return t("run.threshold_unattainable", n=n, rate=rate, least=least) if good >= least else (
            t("run.too_few_good", n=good, rate=rate, least=least, more=least - good))
    return t("run.threshold", value=threshold.value, n=n, how=named("how", threshold.how),
             rate=f"{100 * rate:.3g}%")


def foreign_first(threshold: Threshold) -> list[Text]:
    """That good pictures which the others call foreign take the refusals that the rate allows; []
    where none does."""
    n = len(threshold.calibration)
    if not threshold.foreign or not threshold.is_attainable:
        return []
    k, allowed = threshold.foreign, threshold.rank - 1
    return [t("foreign.first" if allowed else "foreign.first_of_none", n=n, k=k,
              taken=min(k, allowed), allowed=allowed)]


def scores(study: pd.DataFrame) -> Text:
    """How well the label-free order of the scores foretells the real one (results.score_study)."""
    if study["test"].isna().any():
        return t("run.scores_without_labels", n=len(study))
    used = study[study["role"] != ""]
    text = t("run.scores", n=len(study), named=join(
        (t("list.value_3", name=score(row.score), value=row.test) for row in used.itertuples()),
        ", "))
    constant = 1 in study[["label_free", "test"]].nunique().to_list()  # has no rank correlation
    if len(study) < 3 or study["label_free"].isna().any() or constant:
        return text
    agreement = rank_correlation(study["label_free"], study["test"])
    best = study.loc[study["test"].idxmax()]
    if best["test"] > used.loc[used["role"].str.contains("chosen|fixed"), "test"].max():
        return join([text, t("run.rank_correlation_and_best", agreement=agreement,
                             best=score(best["score"]), auroc=best["test"])])
    return join([text, t("run.rank_correlation", agreement=agreement)])


def result(category: str, configuration: str, metrics: dict[str, typing.Any],
           target_fpr: float) -> Text:
    """What a run came to, in a line: the title of its page.

    Args:
        configuration: its name. metrics: metrics.json. target_fpr: of the run.
    """
    entry, auroc = metrics["chosen"]["operating"]["test"], metrics["chosen"]["auroc"]["test"]
    detections, alarms = entry["detections"], entry["false_positives"]
    if not Threshold.recorded(metrics, target_fpr).is_attainable:
        detections = alarms = None
    if detections and detections["n"]:
        said = t("result.finds", **detections)
        if alarms["n"]:
            said = t("result.both", found=said, alarms=t(_ALARMS.get(alarms["count"],
                                                                     "result.alarms"), **alarms))
    elif alarms and alarms["n"]:
        said = t("result.alarms_alone", **alarms)
    else:
        said = t("result.scores") if auroc["value"] is None else t("result.auroc",
                                                                   value=auroc["value"])
    return t("result.title", configuration=configuration, category=category, said=said)


def taken_otherwise(metrics: dict[str, typing.Any], target_fpr: float) -> Text | str:
    """That a run's threshold does not hold on its test images: they are taken otherwise
    (results.taken_otherwise), or more are called anomalous than chance allows; "" else."""
    if (found := metrics.get("conditions") or {"cause": None})["cause"]:
        return t("conditions.taken_otherwise", n=found["pictures"], by=found["by"],
                 cause=named("change", found["cause"]))
    alarms = metrics["chosen"]["operating"]["test"]["false_positives"]
    above = alarms and alarms["low"] > target_fpr
    return t("conditions.too_many", asked=target_fpr, **alarms) if above else ""


def guessing(metrics: dict[str, typing.Any]) -> Text | str:
    """That chance could have put the test images into a run's order; "" where it could not."""
    entry = metrics["chosen"]["auroc"]["test"]
    chance = entry["value"] is not None and entry["low"] <= 0.5 <= entry["high"]
    return t("answer.guessing") if chance else ""


def refused_in_addition(metrics: dict[str, typing.Any]) -> list[Text]:
    """What the verdict "foreign" refuses of the test images beside the score; [] where nobody
    knows."""
    if not (found := metrics.get("foreign")):
        return []
    judged = metrics["chosen"]["auroc"]["test"]["n_anomalous"]
    return [t("foreign.in_addition" if judged else "foreign.in_addition_good", **found)]


_ALARMS = {0: "result.no_alarm", 1: "result.one_alarm"}


def operating(operating: dict[str, dict[str, typing.Any]]) -> Text:
    """False positives and detections on the test split, beside what the best threshold in hindsight
    would have given."""
    entry = operating["test"]
    false, detected, oracle = entry["false_positives"], entry["detections"], entry["oracle_f1"]
    if false is None:
        return t("run.nothing_held_out" if oracle else "run.no_labels_to_count")
    counts = [t(key, **rate) for key, rate in (("run.false_positives", false),
                                               ("run.detections", detected)) if rate["n"]]
    text = t("run.operating", counted=t(
        "run.one_and_other", one=counts[0], other=counts[1]) if counts[1:] else join(counts))
    return text if oracle is None else join([text, t(
        "run.oracle", false_positives=oracle["false_positives"], detections=oracle["detections"])])


def all_images(n: int, kinds: typing.Sequence[str]) -> Text:
    """How many images a gallery has, and what became of them."""
    return t("view.all_images_kinds", n=n, kinds=join(kinds, ", ")) if kinds else t(
        "view.all_images", n=n)


def misses(table: pd.DataFrame) -> Text:
    """What is missed, of which kind most of it is, and what the reference score says of it. table:
    Results.table."""
    bad = table[(table["split"] == "test") & (table["label"] == 1)]
    if bad.empty:
        return t("misses.unknown")
    missed = bad[bad["chosen_prediction"] == 0]
    if missed.empty:
        return t("misses.none", n=len(bad))
    said = [t("misses.some", n=len(missed), of=len(bad))]
    if bad["defect"].nunique() > 1 and len(missed) > 1:
        counts = missed["defect"].value_counts()
        if (counts == counts.iloc[0]).sum() == 1:  # else no kind is most of them
            said.append(t("misses.most", n=counts.iloc[0], of=len(missed),
                          defect=defect(counts.index[0]),
                          all=int((bad["defect"] == counts.index[0]).sum())))
    if whole := sorted(set(bad["defect"]) - set(missed["defect"])):
        said.append(t("misses.never", defects=join(map(defect, whole), ", ")))
    if not bad["score"].equals(bad["chosen_score"]):
        said.append(t("misses.reference", n=int(missed["prediction"].sum()), of=len(missed)))
    return join(said)


def localization(measured: dict[str, typing.Any] | None) -> Text:
    if measured is None:
        return t("run.no_masks")
    if "why_absent" in measured:
        return t("run.localization_impossible", why=named("why_absent", measured["why_absent"]))
    text = t("run.localization", n=measured["images"], auroc=measured["pixel_auroc"],
             ap=measured["pixel_ap"], au_pro_30=measured["au_pro_30"],
             au_pro_05=measured["au_pro_05"])
    counts = {"absent": measured["without_mask"], **measured.get("masks", {})}  # older runs: none
    notes = join((t(f"mask.{note}", n=n) for note, n in counts.items() if n), "; ")
    return join([text, t("run.masks", said=notes)]) if notes else text


def group(code: str) -> str:
    """Which defects a row of the localization is about: a defect type, or by size "<=0.73%" and
    ">0.73%" of the image."""
    if code.startswith("<="):
        return t("run.defects_up_to", share=code[2:])
    return t("run.defects_above", share=code[1:]) if code.startswith(">") else code


def loss(history: list[dict]) -> Text:
    first, last = history[0], history[-1]
    text = t("run.loss", epochs=len(history), first=first["loss"], last=last["loss"])
    if last["held_out_loss"] == last["held_out_loss"]:
        text += t("run.held_out_loss", first=first["held_out_loss"], last=last["held_out_loss"])
    return text + t("run.last_learning_rate", lr=last["lr"])


def roc(results: dict[str, dict[str, typing.Any]], name: str) -> Text:
    """AUROC of both evaluation splits with interval and counts, or why there is none. results:
    results.auroc_of, of the score `name`."""
    said = [t("run.roc", auroc=_auroc(results["test"]), score=score(name))]
    if results["train_bad"]["n_anomalous"]:
        said.append(t("run.auroc_train_bad", auroc=_auroc(results["train_bad"])))
    return join(said)


def no_auroc(good: int, anomalous: int) -> Text:
    """Why there is no AUROC: which class is missing, or that there are no labels."""
    return t("run.no_anomalous" if good else "run.no_good" if anomalous else "run.no_labels")


def epochs(epochs: pd.DataFrame) -> Text:
    defined = epochs.dropna()
    first, last, top = defined.iloc[0], defined.iloc[-1], defined.loc[defined["auroc"].idxmax()]
    return t("run.epochs", first=first["auroc"], begin=first["epoch"], last=last["auroc"],
             end=last["epoch"], top=top["auroc"], best=top["epoch"])


def confounders(correlations: dict[str, float | None], n: int) -> Text:
    """Rank correlations of the score with brightness, size and pose (results.confounders) over n
    good test images, and how far from 0 chance takes them (Fisher's z)."""
    return t("run.confounders", n=n, chance=math.tanh(1.96 / math.sqrt(n - 3)), values=join(
        (t("list.none", name=named("appearance", name)) if value is None else
         t("list.signed", name=named("appearance", name), value=value)
         for name, value in correlations.items()), ", "))


def answer(config: Config, category: str, auroc: dict[str, dict[str, typing.Any]],
           weights_code: str) -> Text:
    """The closing sentence of a run: its AUROC, what that means, and how sure one can be."""
    entry = auroc["test"]
    if entry["value"] is None:
        return t("run.answer_without_auroc", category=category,
                 why=no_auroc(entry["n_good"], entry["n_anomalous"]))
    verdict = t("run.like_guessing" if entry["low"] <= 0.5 <= entry["high"] else
                "run.worse_than_guessing" if entry["high"] < 0.5 else "run.better_than_guessing")
    text = t("run.answer", category=category, verdict=verdict,
             name=named("label", config.name), auroc=_auroc(entry))
    return text if not weights_code.startswith("random") else join(
        [text, t("run.answer_weights", weights=weights(weights_code))])


def _auroc(entry: dict[str, typing.Any]) -> Text:
    if entry["value"] is None:
        return t("run.auroc_none", why=no_auroc(entry["n_good"], entry["n_anomalous"]))
    return t("run.auroc_interval", value=entry["value"], low=entry["low"], high=entry["high"],
             good=entry["n_good"], bad=entry["n_anomalous"])


# ---- its limits


def reopened(config: Config, code: str, threshold: float) -> Text:
    key = "limits.reopened" if math.isfinite(threshold) else "limits.reopened_without"
    return t(key, name=config.name, seed=config.seed, score=score(code), threshold=threshold)


def robustness(table: pd.DataFrame) -> Text:
    """The worst disturbances of one run (limits.robustness), and the most false positives."""
    if table.empty:
        return t("limits.no_labels")
    clean = table.loc[table["strength"] == 0, "auroc"].iloc[0]
    disturbed = table[table["strength"] == SHOWN_STRENGTH]
    worst = [t("list.value_3", name=corruption(row.disturbance, SHOWN_STRENGTH), value=row.auroc)
             for row in disturbed.sort_values("auroc").head(3).itertuples() if row.auroc < clean]
    text = t("limits.worst" if worst else "limits.none_worse", clean=clean,
             strength=SHOWN_STRENGTH, worst=join(worst, ", "))
    if table["false_positives"].isna().any():
        return join([text, t("limits.no_threshold")])
    most = disturbed.sort_values("false_positives", ascending=False).iloc[0]
    if not most["false_positives"]:
        return join([text, t("limits.no_false_positives")])
    return join([text, t("limits.most_false_positives", share=most["false_positives"],
                         what=corruption(most["disturbance"], SHOWN_STRENGTH))])


def foreign(exam: pd.DataFrame) -> Text:
    """How many pictures that do not show the part are refused (foreign_exam.exam)."""
    if exam.empty:
        from adlib.models.foreign import FEWEST

        return t("foreign.none", least=FEWEST)
    rows = exam.set_index("kind").to_dict("index")
    every, good = rows.pop("all"), rows.pop("good")
    text = [t("foreign.exam", n=every["pictures"], **every)]
    missed = [t("foreign.missed_kind", kind=named("foreign_kind", kind), n=row["pictures"],
                passed=row["pictures"] - row["refused"])
              for kind, row in rows.items() if row["refused"] < row["pictures"]]
    text += [t("foreign.missed", kinds=join(missed, ", "))] if missed else []
    return join([*text, t("foreign.good", n=good["pictures"], **good)])


def detectability(drawn: pd.DataFrame, sizes: pd.DataFrame) -> Text:
    """How large a defect must be (limits.detectability and limits.smallest)."""
    if drawn.empty:
        return t("limits.not_drawn")
    areas = (t("limits.area_not_reached", defect=row.defect, share=row.found_at_real_size)
             if row.area95 != row.area95 else
             t("limits.area_or_less" if row.area95 <= row.smallest else "limits.area",
               defect=row.defect, area=row.area95) for row in sizes.itertuples())
    return t("limits.areas", areas=join(areas, ", "))
