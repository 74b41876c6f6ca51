"""What the report's pages and JupyterLab show alike: the threshold, the gallery, single images.

Data in, HTML out: the markup is in templates/components, the movement in components.js.
"""
from __future__ import annotations

import math
import typing
from pathlib import Path

import numpy as np
import pandas as pd
from markupsafe import Markup
from PIL import Image

from adlib.evaluation import operating_point
from adlib.report import sentences
from adlib.report.data_sentences import data_source
from adlib.report.i18n import Text, join, t
from adlib.report.render import render, script, style
from adlib.runs import overlays

if typing.TYPE_CHECKING:  # a page need not wait for torch
    import torch

    from adlib.data.part import ImageSet, Part
    from adlib.evaluation.calibration import Decision
    from adlib.evaluation.conformal import Threshold
    from adlib.evaluation.results import Results
    from adlib.models.detector import Detector

GOOD, BAD = "var(--good, #2f6690)", "var(--bad, #c8553d)"
RATES = (0.01, 0.02, 0.05, 0.1, 0.2)  # false-positive rates that one may ask for
WIDTH, HEIGHT, BINS = 720, 190, 72  # of the histograms
TILE, TILES = 108, 96  # of a gallery: pixels a side of a picture, and images (below 2 MB in all)
VERDICTS = {  # (label, called anomalous): class, words
    (1, True): ("found", t("view.found")), (1, False): ("missed", t("view.missed")),
    (0, True): ("false-alarm", t("view.false_alarm")), (0, False): ("passed", t("view.passed")),
    (None, True): ("called", t("view.called_anomalous")),
    (None, False): ("let-pass", t("view.called_good"))}
ORDERS = (("down", t("view.highest_score_first")), ("up", t("view.lowest_score_first")),
          ("near", t("view.nearest_threshold_first")))
METRICS = {"pixel_auroc": t("run.pixel_auroc"), "pixel_ap": t("run.pixel_ap"),
           "au_pro_30": Text("AU-PRO .30"), "au_pro_05": Text("AU-PRO .05")}

Pictures = typing.Mapping[Text, np.ndarray]  # {what it is: uint8 [h,w,3]}


def live(fragment: str, *, moving: bool = True) -> Markup:
    """A component with its style and, where it is to move, its script: for JupyterLab, as often as
    one likes. The report's pages bring both themselves."""
    return render("live.html.j2", fragment=fragment, style=style(), script=script() * moving)


# ---- a run's scores and its threshold

def threshold(table: pd.DataFrame, threshold: Threshold, name: str) -> Markup:
    """Both distributions of the chosen score on the test split, the label-free threshold, and its
    confusion matrix.

    Args:
        table: Results.table.
        threshold: of the chosen score. Without good images it rests on, the best F1 is shown.
        name: of the score.

    Returns:
        "" where the test split has no labels of both classes.
    """
    test = table[(table["split"] == "test") & table["label"].notna()]
    labels, scores = test["label"].to_numpy(int), test["chosen_score"].to_numpy(float)
    if not 0 < labels.sum() < len(labels):
        return Markup("")
    calibrated, best = _calibrated(threshold), operating_point.oracle(labels, scores)
    level, levels = threshold.value if calibrated else best, operating_point.cuts(scores)
    rates = {rate: threshold.at(rate).value for rate in sorted({*RATES, threshold.target_fpr})}
    said = t("view.histograms_name_over_test_images", name=name, bad=int(labels.sum()),
             good=int((labels == 0).sum()))
    return render("threshold.html.j2", name=name, good=np.sort(scores[labels == 0]),
                  anomalous=np.sort(scores[labels == 1]), levels=np.union1d(levels, [level]),
                  label_free=threshold.value if calibrated else math.nan, oracle=best, level=level,
                  calibrated=calibrated, target_fpr=threshold.target_fpr,
                  rates=[(rate, value) for rate, value in rates.items() if math.isfinite(value)],
                  counts=operating_point.counts(labels, scores, level), said=said,
                  plot=_histograms(labels, scores, level), good_colour=GOOD, bad_colour=BAD)


def _histograms(labels: np.ndarray, scores: np.ndarray, level: float) -> dict[str, typing.Any]:
    """Two histograms on one axis, anomalous images above it and good ones below, and where the
    threshold stands; an infinite one at the edge."""
    low, high, left, right = float(scores.min()), float(scores.max()), 12, WIDTH - 12
    span, middle, step = max(high - low, 1e-12), HEIGHT / 2 - 8, (right - left) / BINS
    counted = [np.histogram(scores[labels == label], bins=BINS, range=(low, low + span))[0]
               for label in (1, 0)]
    unit = (middle - 22) / max(1, *(int(counts.max()) for counts in counted))
    bars = [{"x": f"{left + i * step:.1f}", "height": f"{counts[i] * unit:.1f}", "colour": colour,
             "y": f"{middle - counts[i] * unit if colour == BAD else middle:.1f}"}
            for counts, colour in zip(counted, (BAD, GOOD), strict=True)
            for i in np.flatnonzero(counts)]
    line = left + (right - left) * (min(max(level, low), high) - low) / span
    ticks = [{"value": low + span * at, "x": f"{left + (right - left) * at:.1f}", "anchor": anchor}
             for at, anchor in ((0, "start"), (0.5, "middle"), (1, "end"))]
    return {"bars": bars, "ticks": ticks, "line": f"{line:.1f}", "bar": f"{step - 1:.1f}",
            "width": WIDTH, "height": HEIGHT, "middle": middle, "low": low, "high": high,
            "left": left, "right": right}


def gallery(results: Results, decision: Decision, part: Part, detector: Detector) -> Markup:
    """The test images of a run with their maps, all of them or the most informative ones, and with
    their reconstructions where the detector makes some."""
    test = with_scores(results.table[results.table["split"] == "test"])
    rows = operating_point.select_informative(test, decision.threshold.value, TILES)
    return tiles(rows, part.test.select(rows.index), results.maps[rows.index], decision, detector,
                 len(test))


def tiles(rows: pd.DataFrame, images: ImageSet, maps: np.ndarray, decision: Decision,
          detector: Detector, total: int) -> Markup:
    """A gallery of some images, the highest score first.

    Args:
        rows: `with_scores`, a row an image.
        images: the same images. maps: float32 [N,S,S], theirs.
        total: how many there are, of which these are shown.
    """
    shown = [{what: picture for what, picture in views.items() if what != t("view.anomaly_map")}
             for views in seen(images.tensor, maps, decision, detector, TILE, images.masks)]
    return tiles_of(rows, shown, decision.threshold, decision.score, total)


def tiles_of(rows: pd.DataFrame, pictures: typing.Sequence[Pictures], threshold: Threshold,
             name: str, total: int) -> Markup:
    """The same of pictures that are there already. name: of the score."""
    order = np.argsort(-rows["score"].to_numpy(float), kind="stable")
    entries = [{"path": row.path, "file": row.path.rsplit("/", 1)[-1], "defect": row.defect,
                "score": row.score, "p_value": row.p_value, "pictures": _uris(pictures[i]),
                "verdicts": _verdicts(row.score, known(row.label), threshold)}
               for i, row in ((i, rows.iloc[i]) for i in order)]
    said = (t("view.all_n_test_images_highest", n=total, name=name) if len(rows) == total else
            t("view.shown_n_test_images_highest", shown=len(rows), n=total, name=name))
    shows = [("", t("view.all")), *(words for (label, _), words in VERDICTS.items()
                                    if label is not None)]
    defects = [("", t("view.all")), *((name, Text(name, name)) for name in sorted(
        {entry["defect"] for entry in entries} - {""}))]
    return render("gallery.html.j2", name=name, tiles=entries, said=said, shows=shows,
                  defects=defects, orders=ORDERS,
                  level=threshold.value if _calibrated(threshold) else math.nan)


def with_scores(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of Results.table, numbered from 0; score and p_value are those of the chosen score."""
    return table.reset_index(drop=True).assign(
        score=lambda rows: rows["chosen_score"], p_value=lambda rows: rows["chosen_p_value"],
        defect=lambda rows: rows["defect"].fillna(""))


# ---- single images

def seen(images: torch.Tensor, maps: np.ndarray, decision: Decision, detector: Detector, size: int,
         masks: torch.Tensor | None = None) -> list[dict[Text, np.ndarray]]:
    """What is shown of each image (`views`), in the run's one colour scale.

    images: uint8 [N,3,S,S]. maps: [N,S,S]. size: pixels a side. masks: bool [N,S,S].
    """
    redrawn: typing.Sequence[np.ndarray | None] = [None] * len(images)
    if hasattr(detector, "reconstruct") and len(images):
        redrawn = (detector.reconstruct(images) * 255 + 0.5).byte().permute(0, 2, 3, 1).numpy()
    return [views(picture, maps[i], low=decision.low, level=decision.level, size=size,
                  reconstruction=redrawn[i], truth=None if masks is None else masks[i].numpy())
            for i, picture in enumerate(images.permute(0, 2, 3, 1).numpy())]


def views(picture: np.ndarray, map_: np.ndarray, *, low: float, level: float, size: int,
          reconstruction: np.ndarray | None = None,
          truth: np.ndarray | None = None) -> dict[Text, np.ndarray]:
    """An image, its reconstruction if there is one, its map, the map over it: uint8 [size,size,3].

    Brought to `size` first, so that outlines are as thick as they are meant to be.

    Args:
        picture, reconstruction: uint8 [S,S,3]. map_: [S,S]. truth: bool [S,S], the true defect.
        low, level: Decision's colour scale.
    """
    def resized(array: np.ndarray, how: Image.Resampling = Image.Resampling.BILINEAR) -> np.ndarray:
        image = Image.fromarray(array)
        return np.asarray(image if image.size == (size, size) else image.resize((size, size), how))

    shown = {t("view.input"): resized(picture)}
    if reconstruction is not None:
        shown[t("view.reconstruction")] = resized(reconstruction)
    map_ = resized(map_.astype(np.float32))
    mask = None if truth is None else resized(truth, Image.Resampling.NEAREST)
    shown[t("view.anomaly_map")] = overlays.heat(map_, low, low + 2 * (level - low))
    shown[t("view.anomaly_map_over_input")] = overlays.overlay(shown[t("view.input")], map_,
                                                               low=low, level=level, truth=mask)
    return shown


def strip(pictures: Pictures, name: str, caption: str, *, titled: bool = False) -> Markup:
    """Pictures of one image side by side. name: of the image. titled: say above each what it is."""
    return render("strip.html.j2", pictures=_uris(pictures), name=name, caption=caption,
                  titled=titled)


def judged(text: Text, score: float, label: int | None, threshold: Threshold,
           name: str = "") -> Markup:
    """A sentence with the verdict behind it, and a name before it."""
    return render("said.html.j2", text=text, name=name, verdicts=_verdicts(score, label, threshold))


def _verdicts(score: float, label: int | None,
              threshold: Threshold) -> list[tuple[str, Text, bool]]:
    """(class, words, does it hold) for a score above the threshold and one that is not; none holds
    where there is no threshold."""
    above = bool(threshold.exceeded(score))
    return [(*VERDICTS[label, called], _calibrated(threshold) and called == above)
            for called in (True, False)]


def _uris(pictures: Pictures) -> list[tuple[Text, str, int, int]]:
    return [(what, overlays.uri(picture), picture.shape[1], picture.shape[0])
            for what, picture in pictures.items()]


def _calibrated(threshold: Threshold) -> bool:
    return len(threshold.calibration) > 0


def known(label: typing.Any) -> int | None:
    """A label of a table: 0, 1, or None where it is empty."""
    return None if pd.isna(label) else int(label)


def outlines(masks: bool) -> Text:
    """What the outlines in the pictures mean; `masks`: whether there are any."""
    return t("view.dashed_map_exceeds_one_twenty_2" if masks else
             "view.dashed_map_exceeds_one_twenty")


# ---- text and tables

def flow(fragments: typing.Iterable[str]) -> Markup:
    """Fragments in rows, as many in each as there is room for."""
    return render("flow.html.j2", fragments=list(fragments))


def paragraph(text: str) -> Markup:
    return render("paragraph.html.j2", text=text)


def banner(part: Part) -> Markup:
    """What data a page is about; where it is synthetic, in a box that nobody can miss."""
    category = part.category
    counts = t("run.image_counts_with_train_bad" if category.train_bad else "run.image_counts",
               layout=category.layout, train=len(category.train), test=len(category.test),
               bad=len(category.train_bad))
    source = data_source(part.source, Path(category.root).resolve().name)
    return render("banner.html.j2", synthetic=category.synthetic, text=join(
        [t("run.category_category", category=category.name), source, counts]))


def localization(measured: dict[str, typing.Any] | None) -> Markup:
    """Pixel metrics by defect type and size (Results.localization); "" where there is one kind."""
    rows = [row | {"group": sentences.group(row["group"])}
            for row in (measured or {}).get("groups", [])]
    headings = [t("run.good_images"), t("run.defective_images"), *METRICS.values()]
    return render("localization.html.j2", rows=rows, headings=headings,
                  names=list(METRICS)) if rows else Markup("")
