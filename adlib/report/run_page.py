"""What the notebooks of one run (02, 03, 04) show alike: a function a section, each called in one
cell. And the pictures of the cells that teach.

Every figure is saved in the run's folder, captioned and displayed once.
"""
from __future__ import annotations

import dataclasses
import typing

import matplotlib.pyplot as plt
import numpy as np
import torch

from adlib.config import Config
from adlib.models import backbone
from adlib.models.fast import device as devices
from adlib.models.fused import MOST, FeatureDetector
from adlib.report import components, examples, figures, sentences
from adlib.report.figures import Captioned
from adlib.report.i18n import t
from adlib.runs.overlays import HEAT

if typing.TYPE_CHECKING:
    from adlib.data.part import Part
    from adlib.evaluation.calibration import Decision
    from adlib.evaluation.results import Results
    from adlib.models.detector import Detector
    from adlib.runs.run_folder import Run

Picture = torch.Tensor | np.ndarray


# ---- the sections of a run, in their order


def introduce(part: Part, detector: Detector) -> None:
    """What data this page is about, and the run in one line: device, network, weights. Sets the
    figures' look."""
    figures.style()
    figures.show(components.banner(part))
    fitted_on = min(len(part.train), MOST) if isinstance(detector, FeatureDetector) else None
    figures.say(sentences.facts(part, detector, devices.describe(part.config), fitted_on))


def show_training(run: Run, detector: Detector) -> None:
    """The loss curve of a detector that was trained; a sentence where nothing was."""
    run.show(figures.loss_curve(detector.history))


def show_decision(decision: Decision) -> None:
    """What was decided without a label: the score, and the threshold."""
    figures.say(sentences.decisions(decision))


def show_scores(run: Run, decision: Decision, results: Results) -> None:
    """AUROC, operating point, both distributions, and the threshold to look at from nearby."""
    figures.say(sentences.auroc(results.auroc))
    figures.say(sentences.operating(results.operating))
    run.show(figures.roc(results))
    run.show(figures.score_distribution(results))
    figures.show(components.threshold(results.table, decision.threshold, decision.score))


def show_score_study(run: Run, decision: Decision, results: Results) -> None:
    """Every score's label-free AUROC beside its real one, and what the chosen one finds."""
    run.show(figures.score_study(results))
    figures.say(sentences.chosen(decision, results.chosen["operating"]))


def show_places(run: Run, part: Part, detector: Detector, decision: Decision,
                results: Results) -> None:
    """Where the anomalies are: pixel metrics, the maps of some images, and a gallery of all."""
    figures.say(sentences.localization(results.localization))
    figures.show(components.localization(results.localization))
    if not len(part.test):
        return
    maps = "visualization_result.png"
    if hasattr(detector, "reconstruct"):
        run.show(figures.visualization(detector, results, part))
        maps = "anomaly_maps.png"
    run.show(figures.heat_maps(results, decision, part, maps))
    figures.show(components.gallery(results, decision, part, detector))
    examples.save(run.folder, part, decision, results)


def show_confounders(run: Run, results: Results) -> None:
    """The AUROC had training stopped earlier, where that is known; what the score follows where
    there is no defect."""
    if len(results.epochs):
        run.show(figures.auroc_over_epochs(results))
    figures.say(sentences.confounders(results.confounders))


def answer(part: Part, detector: Detector, results: Results) -> None:
    """The closing sentence."""
    figures.say(sentences.answer(part.config, part.category.name, results.auroc, detector.weights))


# ---- the cells that teach


def say(key: str, **values: typing.Any) -> None:
    """A sentence on what a cell has computed, message `lesson.<key>`."""
    figures.say(t(f"lesson.{key}", **values))


def pictures(key: str, images: typing.Mapping[str, Picture],
             boxes: typing.Mapping[str, tuple[int, int, int]] | None = None,
             **values: typing.Any) -> Captioned:
    """Images and maps side by side, with the caption `lesson.<key>`.

    Args:
        images: {title: [3,S,S], or a map [S,S]}, or a batch of one of either.
        boxes: {title: (row, column, cells a side)}: the grid cell to draw a box around.
    """
    figure, axes = plt.subplots(1, len(images), figsize=(2.3 * len(images), 2.5), squeeze=False)
    for ax, (title, picture) in zip(axes[0], images.items(), strict=True):
        array = np.asarray(picture, dtype=float)
        array = array[0] if array.shape[0] == 1 else array
        if array.ndim == 3:
            ax.imshow(array.transpose(1, 2, 0) / (255 if array.max() > 1 else 1))
        else:
            ax.imshow(array, cmap=HEAT)
        if title in (boxes or {}):
            row, column, cells = boxes[title]
            side = array.shape[-1] / cells
            ax.add_patch(plt.Rectangle((column * side - 0.5, row * side - 0.5), side, side,
                                       fill=False, edgecolor="#00d5ff", linewidth=2))
        ax.set_title(title, fontsize=9, loc="center")
        ax.axis("off")
    return Captioned(figure, t(f"lesson.{key}", **values), f"{key}.png")


def sample_features(images: torch.Tensor, detector: Detector, config: Config) -> torch.Tensor:
    """What the frozen ResNet18 sees in some images: uint8 [n,3,S,S] -> float32 [n,C,g,g].

    Through the detector's own backbone where it has one, else through one of random weights: good
    enough to learn the arithmetic from, and never out of reach.
    """
    network = getattr(detector, "backbone", None)
    if not isinstance(detector, backbone.OnBackbone):
        with torch.random.fork_rng(devices=[]):
            network, _ = backbone.load_backbone(dataclasses.replace(config, weights="none"))
    return backbone.grid(backbone.extract(network, images, config), config.layers)


def changed_cell(mask: torch.Tensor, cells: int) -> tuple[int, int]:
    """(row, column) of the grid cell that a mask, bool [S,S], covers most of."""
    share = torch.nn.functional.adaptive_avg_pool2d(mask[None].float(), cells)[0]
    return divmod(int(share.argmax()), cells)
