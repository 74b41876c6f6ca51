"""Scores meet labels: the only module of a run that reads them, and nothing found here goes back
into a choice."""
from __future__ import annotations

import contextlib
import dataclasses
import tempfile
import typing
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd

from adlib.data import files, layout
from adlib.data.lazy import Lazy
from adlib.evaluation import localization, operating_point
from adlib.evaluation.auroc import OneClassError, auroc, auroc_interval
from adlib.evaluation.conformal import rate_interval
from adlib.evaluation.ranks import rank_correlation

if typing.TYPE_CHECKING:  # a comparison of runs need not wait for torch
    from adlib.data.part import Part
    from adlib.evaluation.calibration import Decision
    from adlib.models.detector import Detector

EVALUATION_SPLITS = ("test", "train_bad")  # the latter: the course layout's, with test's good ones
Entry = dict[str, typing.Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Results:
    """What a run came to. Every table has columns of numbers and codes.

    table: all_results.csv, a row an image: path, split, label (0 good, 1 anomalous, empty =
        unknown), defect; score, p_value and prediction (1 = score > threshold) of the reference
        score, and the same with chosen_ of the score that the study uses.
    maps: float32 [N,S,S], the test images' smoothed maps of that score.
    score_study: a row a score: score, label_free, test, train_bad (AUROCs), role.
    localization: localization.measure and its groups; None without masks. regions: a row a defect.
    epochs: AUROC had training stopped there: epoch, auroc; empty where nothing was kept.
    confounders: rank correlation of the score with the looks of the good test images.
    metrics: what metrics.json holds; equal inputs give equal bytes, so no times.
    """

    table: pd.DataFrame
    maps: np.ndarray
    score_study: pd.DataFrame
    localization: Entry | None
    regions: pd.DataFrame
    epochs: pd.DataFrame
    confounders: dict[str, float | None]
    metrics: Entry

    @property
    def auroc(self) -> dict[str, Entry]:
        """Of the reference score, by split (see auroc_of)."""
        return self.metrics["auroc"]

    @property
    def chosen(self) -> Entry:
        """score, auroc and operating of the score that the study uses."""
        return self.metrics["chosen"]


def evaluate(detector: Detector, decision: Decision, part: Part) -> Results:
    """Score the test images (and the course layout's train/bad), and join their labels.

    Raises:
        InputError: for labels that are missing or cannot be understood (layout.read_labels), and
            a detector that is not fitted.
    """
    from adlib.data import images
    from adlib.evaluation import foreign_exam, psychometric
    from adlib.evaluation.calibration import score_table, score_with_maps
    from adlib.models.detector import check_fitted, parted

    check_fitted(detector)
    with _native(part) as (keep, native):
        scores, maps = score_with_maps(detector, decision, part.test, keep=keep)
        located, regions = locate(part, maps, native)
    unseen = {"test": scores} if len(part.test) else {}
    if len(part.train_bad):
        unseen["train_bad"] = score_table(detector, decision.scale, part.train_bad)
    by_split = decision.good_scores | unseen
    table = results_table(part, decision, by_split)
    study = score_study(table, decision, by_split)
    epochs = pd.DataFrame(columns=["epoch", "auroc"])
    if hasattr(detector, "scores_over_epochs"):
        epochs = auroc_over_epochs(table, detector.scores_over_epochs(*parted(part.test.framed)))
    looks = images.appearance(part.test.tensor, part.good.tensor)
    confounders = confounder_correlation(table, looks)
    last = detector.history[-1] if detector.history else {"loss": None, "held_out_loss": None}
    metrics = measured(table, decision, located, confounders) | {
        "conditions": taken_otherwise(table, decision, part),
        "foreign": foreign_exam.refused_in_addition(table, decision, part),
        "half_found": psychometric.half_found(decision),
        "epochs": len(detector.history), "final_loss": last["loss"],
        "final_held_out_loss": last["held_out_loss"], "position_share": detector.position_share}
    return Results(table, maps, study, located, regions, epochs, confounders, metrics)


def truth_of(part: Part) -> np.ndarray:
    """The labels of the test images: int64 [N], 1 = anomalous, 0 = good, -1 = none. Raises as
    layout.read_labels."""
    labels = layout.read_labels(part.category)
    return np.array([int(labels[key].anomalous) if key in labels else -1
                     for key in part.test.keys], dtype=int)


def results_table(part: Part, decision: Decision,
                  by_split: typing.Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Results.table. by_split: {split: a column a score, a row an image}."""
    labels, rows = layout.read_labels(part.category), []
    sets = {"train": part.train, "held_out": part.held_out, "test": part.test,
            "train_bad": part.train_bad}
    for split, scores in by_split.items():
        keys = sets[split].keys
        known = [layout.Label(False, "good") if split in ("train", "held_out") else labels.get(key)
                 for key in keys]
        row = pd.DataFrame({
            "path": keys, "split": split,
            "label": [None if label is None else int(label.anomalous) for label in known],
            "defect": ["" if label is None else label.defect for label in known]})
        for prefix, name in (("", decision.reference), ("chosen_", decision.score)):
            threshold, values = decision.thresholds[name], scores[name].to_numpy()
            judged = split in EVALUATION_SPLITS
            p_values = pd.Series(
                threshold.p_values(values) if judged else np.full(len(keys), np.nan))
            called = pd.Series(threshold.exceeded(values)).astype("Int64")
            row[f"{prefix}score"], row[f"{prefix}p_value"] = values, p_values
            row[f"{prefix}prediction"] = called.where(p_values.notna())
        rows.append(row)
    return pd.concat(rows, ignore_index=True).astype(
        {"label": "Int64", "prediction": "Int64", "chosen_prediction": "Int64"})


def taken_otherwise(table: pd.DataFrame, decision: Decision, part: Part) -> Entry | None:
    """Does the threshold hold on the test images? Not where the good ones of them, which their
    labels tell, are not like the good training images (evaluation/conditions). Of images without
    labels the light is compared, and not the score.

    Returns:
        {pictures, cause, by}: cause, a value of conditions.CAUSES, and by how many deviations; None
        where nothing has changed. None where there is nothing to compare.
    """
    from adlib.evaluation.conditions import SCORE, compare

    rows = table[table["split"] == "test"]
    labelled = rows["label"].notna().any()
    good = np.flatnonzero((rows["label"] == 0).fillna(False) | (not labelled))
    if decision.conditions is None or not len(good):
        return None
    values = decision.conditions.measure(part.test.select(good).tensor)
    usual = dict(decision.conditions.calibration)
    if labelled and len(decision.threshold.calibration):
        usual[SCORE] = decision.threshold.calibration
        values[SCORE] = rows["chosen_score"].to_numpy(float)[good]
    change = compare(usual, values, seed=part.config.seed)
    return {"pictures": len(good), "cause": change and change.cause, "by": change and change.by}


def measured(table: pd.DataFrame, decision: Decision, located: Entry | None,
             confounders: dict[str, float | None]) -> Entry:
    """What metrics.json holds of a table and a decision."""
    ranking = decision.ranking.to_dict("records") if "all" in decision.ranking else []
    threshold = decision.threshold
    return {
        "auroc": auroc_of(table), "score": decision.reference, "operating": operating_of(table),
        "chosen": {"score": decision.score, "auroc": auroc_of(table, "chosen_score"),
                   "operating": operating_of(table, "chosen_")},
        "label_free": ranking, "synthetic": None if decision.synthetic is None else
        decision.synthetic[decision.score].tolist(),
        "calibration": {"images": len(threshold.calibration), "how": threshold.how,
                        "foreign": threshold.foreign,
                        "scores": threshold.calibration.tolist()},
        "maps": {"scale": decision.scale, "low": decision.low, "level": decision.level},
        "localisation": located, "confounders": confounders}


def score_study(table: pd.DataFrame, decision: Decision,
                by_split: typing.Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Every score's label-free AUROC beside the AUROC on test and train_bad, in the label-free
    order.

    Columns score, label_free, test, train_bad, role: own, chosen (without labels) or fixed (in
    advance), joined by "+"; "" for none.
    """
    how = "chosen" if decision.chosen_without_labels else "fixed"
    free = decision.ranking.get("all", [np.nan] * len(decision.ranking))
    rows = []
    for name, value in zip(decision.ranking["score"], free, strict=True):
        scored = table.assign(score=pd.concat([scores[name] for scores in by_split.values()],
                                              ignore_index=True))
        row = {"score": name, "label_free": value}
        for split in EVALUATION_SPLITS:
            row[split] = _auroc_or_nan(*arrays(scored, split))
        roles = [code for code, which in (("own", decision.reference), (how, decision.score))
                 if which == name]
        rows.append(row | {"role": "+".join(roles)})
    return pd.DataFrame(rows).sort_values("label_free", ascending=False, kind="stable",
                                          ignore_index=True)


def operating_of(table: pd.DataFrame, prefix: str = "") -> dict[str, Entry]:
    """False positives and detections at the label-free threshold, and the best-F1 threshold.

    Returns:
        {split: {false_positives, detections: {count, n, rate, low, high} (Clopper-Pearson, 95%),
        oracle_f1: {threshold, f1, false_positives, detections}, which uses test labels}}; None
        where there are no predictions, or no labels of both classes.
    """
    by_split: dict[str, Entry] = {}
    for split in EVALUATION_SPLITS:
        rows = _rows(table, split)
        truth, called = rows["label"].to_numpy(dtype=int), rows[f"{prefix}prediction"]
        entry: Entry = {"false_positives": None, "detections": None, "oracle_f1": None}
        if len(rows) and called.notna().all():
            for name, of in (("false_positives", 0), ("detections", 1)):
                hits, n = int(called[truth == of].sum()), int((truth == of).sum())
                low, high = rate_interval(hits, n)
                entry[name] = {"count": hits, "n": n, "rate": hits / n if n else None, "low": low,
                               "high": high}
        if 0 < truth.sum() < len(truth):
            entry["oracle_f1"] = _best_f1(truth, rows[f"{prefix}score"].to_numpy())
        by_split[split] = entry
    return by_split


@contextlib.contextmanager
def _native(part: Part) -> typing.Iterator[tuple[typing.Callable, Lazy | None]]:
    """Of fit tile: what keeps the test images' maps on disk, and these on the images' own pixels,
    one at a time; else what keeps nothing, and None."""
    if part.test.tiled is None:
        yield lambda values, i: None, None
        return
    with tempfile.TemporaryDirectory(prefix="adlib-maps-") as place:
        def kept(i: int) -> Path:
            return Path(place) / f"{i}.npy"

        yield (lambda values, i: files.write_array(kept(i), values)), Lazy(
            len(part.test), lambda i: part.test.on_own_pixels(np.load(kept(i)), i))


def locate(part: Part, maps: np.ndarray, native: Lazy | None = None
           ) -> tuple[Entry | None, pd.DataFrame]:
    """Pixel metrics of the test images' maps, float [N,S,S], and a row a defect region.

    All labelled test images count, good ones as all good; left out and counted are an anomalous
    image without a mask or with an empty one, and a good image whose mask shows a defect. Of each
    image those pixels count that are looked at.

    Args:
        native: of fit tile the same maps on the images' own pixels, which are measured there.

    Returns:
        ({pixel_auroc, pixel_ap, au_pro_30, au_pro_05, images, without_mask, masks, groups}, regions
        with path and defect); (None, empty) where no anomalous image has a mask. masks: {note:
        count} (data.masks; contradicted: masks of good images). groups: the same four metrics for
        the good images with each defect type, and with the half of the defective images whose
        defects are smaller, and larger. Definitions: evaluation.localization.
    """
    labels, keys, masks = layout.read_labels(part.category), part.test.keys, part.test.mask_paths
    defects = np.array([labels[key].defect if key in labels else "" for key in keys])
    bad, good = (np.array([key in labels and labels[key].anomalous == of for key in keys], bool)
                 for of in (True, False))
    masked = np.array([mask is not None for mask in masks], bool)
    if not (bad & masked).any():
        return None, pd.DataFrame()
    truth, areas = part.test.masks.numpy(), part.test.area
    truth = truth if areas is None else truth & areas.numpy()
    marked = truth.any(axis=(1, 2))
    used = np.flatnonzero(good & ~marked | bad & marked)
    notes = sum((part.test.mask_notes[i] for i in np.flatnonzero(bad)), Counter())
    notes["contradicted"] = int((good & marked).sum())
    kinds, shares = defects[used], truth[used].mean(axis=(1, 2))

    def measure(places: np.ndarray) -> tuple[dict[str, float], pd.DataFrame]:
        if native is None:
            return localization.measure(maps[places], truth[places],
                                        None if areas is None else areas.numpy()[places])
        return localization.measure(*(Lazy(len(places), lambda i, of=of: of(places[i]))
                                      for of in (native.make, part.test.native_mask,
                                                 part.test.native_area)))

    try:
        found, regions = measure(used)
    except OneClassError:  # masks that are all empty, say
        return {"why_absent": "one_class"}, pd.DataFrame()
    rows = []
    for name, chosen in _groups(kinds, shares).items():
        chosen = (chosen & (shares > 0)) | (shares == 0)
        with contextlib.suppress(OneClassError):  # without a good image, whole ones that are bad
            rows.append({"group": name, "images": int((chosen & (shares > 0)).sum()),
                         **measure(used[chosen])[0]})
    regions = regions.assign(defect=kinds[regions["image"]],
                             path=[keys[used[i]] for i in regions["image"]])
    return found | {"images": len(used), "without_mask": int((bad & ~masked).sum()),
                    "masks": dict(+notes), "groups": rows}, regions.drop(columns="image")


def auroc_of(table: pd.DataFrame, score: str = "score") -> dict[str, Entry]:
    """{split: {value, low, high, n_good, n_anomalous, why_absent}}.

    low and high: the 95% interval for the finite test set (DeLong, on the logit scale). Where a
    split lacks a class, or all labels, these are None, and why_absent no_good, no_anomalous or
    no_labels.
    """
    by_split = {}
    for split in EVALUATION_SPLITS:
        labels, scores = arrays(table, split, score)
        entry: Entry = {"n_good": int((labels == 0).sum()), "n_anomalous": int((labels == 1).sum()),
                        "value": None, "low": None, "high": None, "why_absent": None}
        try:
            entry["value"] = auroc(labels, scores)
            entry["low"], entry["high"] = auroc_interval(labels, scores)
        except OneClassError:
            missing = "anomalous" if entry["n_good"] else "good"
            entry["why_absent"] = f"no_{missing if len(labels) else 'labels'}"
        by_split[split] = entry
    return by_split


def arrays(table: pd.DataFrame, split: str, score: str = "score") -> tuple[np.ndarray, np.ndarray]:
    """labels [N] of 0/1 and scores [N] of an evaluation split; train_bad's good ones are test's."""
    rows = _rows(table, split)
    return rows["label"].to_numpy(dtype=int), rows[score].to_numpy(dtype=float)


def auroc_over_epochs(table: pd.DataFrame,
                      by_epoch: typing.Mapping[int, np.ndarray]) -> pd.DataFrame:
    """The test AUROC had training stopped there: epoch, auroc. A diagnosis, never a choice.

    by_epoch: {epoch: scores [N] of the test images, in the order of `table`}.
    """
    test = table[table["split"] == "test"]
    rows = [(epoch, _auroc_or_nan(*arrays(test.assign(score=np.asarray(scores)), "test")))
            for epoch, scores in sorted(by_epoch.items())]
    return pd.DataFrame(rows, columns=["epoch", "auroc"])


def confounder_correlation(table: pd.DataFrame, appearance: typing.Mapping[str, np.ndarray]
                           ) -> dict[str, float | None]:
    """What confounds the score where there is no defect: its Spearman correlation in [-1,1], over
    the good test images, with each of {name: [N], a value a test image} (images.appearance).

    None where either does not vary, and for fewer than 5 images.
    """
    test = table[table["split"] == "test"].reset_index(drop=True)
    good = (test["label"] == 0).to_numpy(dtype=bool, na_value=False)
    scores, correlations = test.loc[good, "score"], {}
    for name, values in appearance.items():
        looks = pd.Series(np.asarray(values, float))[good]
        varies = good.sum() >= 5 and scores.nunique() > 1 and looks.nunique() > 1
        correlations[name] = rank_correlation(scores, looks) if varies else None
    return correlations


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write beside its place and rename. Scores keep all their digits: equal runs, equal bytes."""
    with files.atomic_path(path) as temporary:
        table.to_csv(temporary, index=False)


def _groups(kinds: np.ndarray, areas: np.ndarray) -> dict[str, np.ndarray]:
    present, middle = kinds[areas > 0], np.median(areas[areas > 0])
    groups = {kind: kinds == kind
              for kind in dict.fromkeys(present)} if len(set(present)) > 1 else {}
    if (areas > middle).any():
        groups |= {f"<={middle:.2%}": (areas > 0) & (areas <= middle),
                   f">{middle:.2%}": areas > middle}
    return groups


def _rows(table: pd.DataFrame, split: str) -> pd.DataFrame:
    wanted = table["split"] == split
    if split == "train_bad":
        wanted |= (table["split"] == "test") & (table["label"] == 0)
    return table[wanted & table["label"].notna()]


def _auroc_or_nan(labels: np.ndarray, scores: np.ndarray) -> float:
    try:
        return auroc(labels, scores)
    except OneClassError:
        return float("nan")


def _best_f1(truth: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    cut = operating_point.oracle(truth, scores)
    confusion = operating_point.counts(truth, scores, cut)
    wrong = confusion["missed"] + confusion["false_positives"]
    return {"threshold": float(scores[scores > cut].min()),  # the lowest that is called anomalous
            "f1": 2 * confusion["found"] / (2 * confusion["found"] + wrong),
            "false_positives": confusion["fpr"], "detections": confusion["recall"]}
