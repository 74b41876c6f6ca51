"""What the notebooks of one run (02, 03, 04) show alike: a function a section, each called in one
cell. And the pictures of the cells that teach.

Whatever is shown of a run is about the score in use; the reference score, the mean squared error,
goes along as a thin grey line.
"""
from __future__ import annotations

import dataclasses
import typing

import numpy as np
import pandas as pd
import torch
from PIL import Image

from adlib.config import Config
from adlib.data import background, siblings
from adlib.models import backbone, by_place
from adlib.models.fast import device as devices
from adlib.models.fused import MOST, FeatureDetector
from adlib.report import suspects
from adlib.report.display import charts, components, figures, gallery, reference_figures
from adlib.report.words import sentences
from adlib.report.words.i18n import join, named, t
from adlib.runs import image_layers, overlays

if typing.TYPE_CHECKING:
    from adlib.data.part import Part
    from adlib.evaluation.calibration import Decision
    from adlib.evaluation.results import Results
    from adlib.models.detector import Detector
    from adlib.runs.run_folder import Run

Picture = torch.Tensor | np.ndarray
CONFOUNDED = 20  # good test images that a correlation says something of
SHOWN = 176  # pixels a side of a picture of the cells that teach


# ---- the sections of a run, in their order


def introduce(part: Part, detector: Detector) -> None:
    """What data this page is about, and the run in one line: device, network, weights."""
    figures.show(components.banner(part))
    fitted_on = min(len(part.train), MOST) if isinstance(detector, FeatureDetector) else None
    figures.say(sentences.facts(part, detector, devices.describe(part.config), fitted_on))
    if choice := part.fit_choice:
        least, most = (f"{width} x {height}" for width, height in choice["sizes"])
        aurocs = ", ".join(f"{fit} {value:.3f}" for fit, value in choice.get("auroc", {}).items())
        figures.say(t(f"fit.{choice['reason']}", **choice | {
            "side": part.config.image_size, "least": least, "most": most, "aurocs": aurocs}))
    if part.left_out is not None:
        figures.say(suspects.left_out(part))
        rows = pd.DataFrame(part.left_out, columns=["path", "reason", "distance"])
        figures.show(suspects.gallery(rows, part.category, "suspects.left_out_caption", data=""))
    if part.config.fit == "tile":
        figures.say(t("run.tiled", tile=part.config.tile_size, scale=part.config.scale))
    _, counts = siblings.groups(part.good.tensor).unique(return_counts=True)
    if len(several := counts[counts > 1]):
        apart = (isinstance(detector.of_squares, FeatureDetector) and not part.config.vary
                 and len(part.good) <= MOST)
        figures.say(t("run.siblings" if apart else "run.siblings_kept", n=int(several.sum()),
                      good=len(part.good), groups=len(several)))
    if reason := part.found[1]:
        figures.say(t(f"roi.{reason}", few=background.FEWEST))
    if part.looked_at is not None:
        caption = t("run.looked_at", share=float(part.looked_at.mean()))
        seen = part.good.select([0]).tensor[0].permute(1, 2, 0).numpy()
        figures.show(components.strip({"": seen}, caption, caption), caption, "looked-at")


def show_training(run: Run, detector: Detector) -> None:
    """How tiles are compared, and the loss curve of a detector that was trained; a sentence where
    nothing was."""
    if found := getattr(detector.of_squares, "by_place", None):
        figures.say(t("run.by_place" if found.chosen else "run.one_memory",
                      cost=found.cost, gain=found.gain, times=by_place.TIMES,
                      least=by_place.LEAST))
    if not detector.history:
        figures.say(t("run.nothing_trained"))
        return
    reference_figures.loss_curve(detector.history, run.folder)
    figures.show(charts.loss(detector.history, sentences.loss(detector.history)))


def show_decision(decision: Decision) -> None:
    """What was decided without a label: the score, and the threshold."""
    from adlib.evaluation import psychometric

    figures.say(sentences.decisions(decision))
    if unlike := sentences.foreign_decided(decision):
        figures.say(unlike)
    if found := psychometric.half_found(decision):
        key = "beyond" if found["pixels"] is None else (
            "or_less" if found["pixels"] == found["least"] else "pixels")
        figures.say(t(f"half_found.{key}", **found))


def show_result(run: Run, part: Part, detector: Detector, decision: Decision,
                results: Results) -> None:
    """Three images. Keeps the pictures of all test images in the run's folder."""
    if not len(part.test):
        return
    image_layers.keep(run.folder, part.test, results.maps, decision, detector)
    reference_figures.visualization(detector, results, decision, part, run.folder)
    rows, threshold = gallery.with_scores(results.table), decision.threshold
    whys = gallery.select_informative(rows, threshold)
    shots = _shots(run, part, list(whys))
    figures.show(gallery.examples(rows.iloc[list(whys)], shots, threshold, list(whys.values())),
                 t("figure.examples"), "examples", "all_results.csv")


def show_threshold(run: Run, decision: Decision, results: Results) -> None:
    """The scores of the test images and the threshold between them, to be moved."""
    reference_figures.score_distribution(results, decision.score, run.folder)
    said = sentences.operating(
        results.chosen["operating"]) if decision.threshold.is_attainable else (
        sentences.threshold_of(decision))
    said = join([said, *sentences.foreign_first(decision.threshold),
                 *sentences.refused_in_addition(results.metrics)])
    if panel := components.threshold(results.table, decision.threshold, decision.score):
        figures.show(panel, join([t("figure.drag"), said]), "threshold", "all_results.csv")
    else:
        figures.say(said)


def show_images(run: Run, part: Part, detector: Detector, decision: Decision,
                results: Results) -> None:
    """Every test image under its map."""
    rows = gallery.with_scores(results.table)
    shots = _shots(run, part, range(len(rows)))
    if shots:
        figures.show(gallery.gallery(rows, shots, decision.threshold, decision.score,
                                     ids=not figures.attended()),
                     gallery.counted(rows, decision.threshold), "images", "all_results.csv")


def show_misses(decision: Decision, results: Results) -> None:
    """What is missed, by kind and size of defect, and how well defects are localized."""
    said = sentences.misses(results.table)
    if not decision.threshold.is_attainable:
        figures.say(sentences.threshold_of(decision))
    elif table := components.misses(results):
        figures.show(table, said, "misses-by-defect", "all_results.csv")
    else:
        figures.say(said)
    figures.say(sentences.localization(results.localization))


def show_scores(run: Run, decision: Decision, results: Results) -> None:
    """The ROC curve, and every score's label-free AUROC beside its real one."""
    reference_figures.roc(results, decision.score, run.folder)
    said = sentences.roc(results.chosen["auroc"], decision.score)
    figures.show(charts.roc_of(results, decision, said) or components.paragraph(said))
    figures.show(charts.score_study(results.score_study, sentences.scores(results.score_study)))


def show_confounders(results: Results) -> None:
    """The AUROC had training stopped earlier, where that is known; its
    confounders over the good test images."""
    if len(results.epochs.dropna()):
        figures.show(charts.epochs_of(results.epochs, sentences.epochs(results.epochs)))
    if (n := results.chosen["auroc"]["test"]["n_good"]) >= CONFOUNDED:
        figures.say(sentences.confounders(results.confounders, n))


def answer(part: Part, detector: Detector, results: Results) -> None:
    """The closing sentence."""
    figures.say(sentences.answer(part.config, part.category.name, results.chosen["auroc"],
                                 detector.weights))


def _shots(run: Run, part: Part, places: typing.Sequence[int]) -> list[image_layers.Shot]:
    """Of some test images, those that `show_result` has kept: on a page from beside it; in
    JupyterLab inside the notebook, which lies elsewhere."""
    keys = part.test.select(places).keys
    if figures.attended():
        kept = image_layers.read(run.folder, None, keys)
        return [kept[key] for key in keys]
    kept = image_layers.read(run.folder, run.folder, keys)
    return image_layers.inlined([kept[key] for key in keys], run.folder)


# ---- the cells that teach


def say(key: str, **values: typing.Any) -> None:
    """A sentence on what a cell has computed, message `by_hand.<key>`."""
    figures.say(t(f"by_hand.{key}", **values))


def pictures(key: str, images: typing.Mapping[str, Picture],
             boxes: typing.Mapping[str, tuple[int, int, int]] | None = None,
             data: str = "all_results.csv", **values: typing.Any) -> None:
    """Display images and maps side by side, with the caption `by_hand.<key>`.

    Args:
        images: {title: [3,S,S], or a map [S,S], which gets the whole colour scale, its ends in the
            title, or a mask, bool [S,S], or a batch of one of any}.
        boxes: {title: (row, column, cells a side)}: the grid cell to draw a box around.
        data: the file beside the page that the image is listed in.
    """
    caption, shown = t(f"by_hand.{key}", **values), {}
    for title, picture in images.items():
        array, name = np.asarray(picture), named("picture", title)
        array = array[0] if array.shape[0] == 1 else array
        if array.ndim == 2:
            low, high = float(array.min()), float(array.max())
            if array.dtype != bool:
                name = t("view.scaled", name=name, low=low, high=high)
            array = overlays.heat(array, low, (low + high) / 2)
        else:
            array = (array.transpose(1, 2, 0) * (1 if array.max() > 1 else 255)).astype(np.uint8)
        shown[name] = np.asarray(Image.fromarray(array).resize((SHOWN, SHOWN)))
    framed = {named("picture", title): (100 * column / cells, 100 * row / cells, 100 / cells,
                                        100 / cells)
              for title, (row, column, cells) in (boxes or {}).items()}
    figures.show(components.strip(shown, caption, "", boxes=framed, titled=True), caption,
                 key.replace("_", "-"), data)


def sample_features(images: torch.Tensor, detector: Detector, config: Config) -> torch.Tensor:
    """What the frozen ResNet18 sees in some images: uint8 [n,3,S,S] -> float32 [n,C,g,g].

    Through the detector's own backbone where it has one, else through one of random weights: good
    enough to learn the arithmetic from, and never out of reach.
    """
    network = getattr(detector.of_squares, "backbone", None)
    if not isinstance(detector.of_squares, backbone.OnBackbone):
        with torch.random.fork_rng(devices=[]):
            network, _ = backbone.load_backbone(dataclasses.replace(config, weights="none"))
    return backbone.grid(backbone.extract(network, images, config), config.layers)


def changed_cell(mask: torch.Tensor, cells: int) -> tuple[int, int]:
    """(row, column) of the grid cell that a mask, bool [S,S], covers most of."""
    share = torch.nn.functional.adaptive_avg_pool2d(mask[None].float(), cells)[0]
    return divmod(int(share.argmax()), cells)
