"""What the first notebook shows of a folder of images: pictures and numbers of each kind of image.
What is said of them is in `data_sentences`."""
from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from markupsafe import Markup

from adlib.config import Config, InputError
from adlib.data import files, images, layout, masks
from adlib.data.layout import Category
from adlib.data.part import Part
from adlib.data.quality import Findings
from adlib.data.reading import GreyRange
from adlib.models import backbone, embedding
from adlib.report import questions
from adlib.report.display import charts, components, scatter
from adlib.report.display.render import render
from adlib.report.words import data_sentences, sentences
from adlib.report.words.i18n import Text, join, named, t
from adlib.runs import overlays, run_folder

CARD = "card.json"  # beside the data's page: quality.Findings
IMAGES = "images.csv"  # beside the data's page: each image, its kind and its mean grey value
MEASURED = 200  # good pictures that say what kind of workpiece it is
SIDE = 128  # pixels that a picture is high at the most, and twice as wide
BINS = 16  # of mean grey values


def card(part: Part, findings: Findings) -> Markup:
    """The data card: what was found, and every problem; kept in CARD beside the data's page."""
    files.write_json(_folder(part) / CARD, dataclasses.asdict(findings))
    rows, problems = (data_sentences.findings_rows(findings),
                      data_sentences.findings_problems(findings))
    return components.figure(render("data_card.html.j2", rows=rows, problems=problems),
                             "card", t("data.data_card"), CARD)


def properties(part: Part, measured: dict[str, float]) -> Text:
    """What kind of workpiece it is, by quality.properties, noted beside the data's page for the
    comparison, and said; of one good picture nothing is measured."""
    if not measured:
        return t("data.one_good_picture")
    files.write_json(_folder(part) / "properties.json", measured)
    return t("data.properties", kind=named("kind_of", questions.kind_of(measured)), **measured)


def duplicates(category: Category, findings: Findings) -> str:
    """The groups of identical images with a picture of each, as HTML; the first dozen, "" where
    there is none."""
    strips = []
    for keys in [*findings.leaks, *findings.duplicates][:12]:
        (picture, ) = _shown(category, [category.root / keys[0]], 72)
        strips.append(components.strip({t("data.same_image_n_times", n=len(keys)): picture},
                                       keys[0], join(keys, ", ")))
    return components.flow(strips) if strips else ""


def groups(category: Category, most: int | None = None) -> dict[str, list[Path]]:
    """The images by kind, for description only: train, then the test images by their defect, good
    ones first. most: defects that stay apart; of more, all are one kind."""
    labels = layout.read_labels(category)
    by_kind: dict[str, list[Path]] = {t("data.train_good"): list(category.train)}
    defects = {label.defect for label in labels.values() if label.anomalous}
    together = most is not None and len(defects) > most
    test = [(labels.get(category.key(path)), path) for path in category.test]
    for label, path in sorted(test, key=lambda pair: pair[0] is None or pair[0].anomalous):
        kind = t("data.test_unlabelled") if label is None else (
            t("data.test_anomalous") if label.anomalous and together else
            t("data.test_defect", defect=sentences.defect(label.defect)))
        by_kind.setdefault(kind, []).append(path)
    if category.train_bad:
        by_kind[t("data.train_bad_never_trained")] = list(category.train_bad)
    return by_kind


def samples(category: Category) -> dict[str, list[np.ndarray]]:
    """{kind: uint8 [h,w,3] each}: up to eight images of every kind, in their own shape, evenly
    spaced over the sorted folder."""
    return {kind: _shown(category, _spread(paths, 8))
            for kind, paths in groups(category).items()}


def train_pictures(category: Category, size: int) -> np.ndarray:
    """Up to 500 good training images, evenly spaced: float32 [N,S,S,3] in [0,1]."""
    return _pictures(category, _spread(list(category.train), 500), size)


def mean_and_deviation(pictures: np.ndarray) -> str:
    """Mean image, and each pixel's deviation over the images: where good parts differ among
    themselves. [N,S,S,3] in [0,1]."""
    deviation = pictures.std(axis=0).mean(axis=-1)
    return components.strip({
        t("data.mean_image"): (255 * pictures.mean(axis=0)).astype(np.uint8),
        t("data.standard_deviation", most=float(deviation.max())): overlays.heat(
            deviation, 0, deviation.max() / 2)}, "", "", titled=True)


def brightness_curves(values: dict[str, np.ndarray], caption: str) -> str:
    """Mean grey value of the images of each kind (`brightness`), as shares of the kind: what a
    detector could read off the exposure alone."""
    every = 20 * np.concatenate(list(values.values()))  # in steps of a twentieth
    low, high = np.floor(every.min()).item() / 20, (np.floor(every.max()).item() + 1) / 20
    counted = {kind: np.histogram(some, BINS, (low, high))[0] / len(some)
               for kind, some in values.items()}
    top = max(shares.max() for shares in counted.values())
    at = low + (np.arange(BINS) + 0.5) * (high - low) / BINS
    return charts.panels(
        {t("data.brightness_axis"): [(charts.colour(i), "line", zip(at, shares, strict=True))
                                     for i, shares in enumerate(counted.values())]},
        list(counted), (t("data.brightness_axis"), low, high, (low, (low + high) / 2, high)),
        (t("data.share_of_images"), 0, top, (0, float(f"{top:.3g}"))), caption, "brightness",
        data=IMAGES)


def brightness(part: Part) -> dict[str, np.ndarray]:
    """{kind: mean grey value [N] in [0,1]} of all images, in no more kinds than lines can be told
    apart; each image's is kept in IMAGES beside the data's page."""
    category, by_kind = part.category, groups(part.category, most=3)
    values = {kind: images.brightness(_load(category, paths, part.config.image_size))
              for kind, paths in by_kind.items()}
    files.write_text(_folder(part) / IMAGES, pd.concat([
        pd.DataFrame({"path": map(category.key, by_kind[kind]), "kind": str(kind),
                      "brightness": some}) for kind, some in values.items()]).to_csv(index=False))
    return values


def page(category: Category, paths: list[Path], number: int, each: int) -> str:
    """The images of page `number` (1, 2, ...; after the last comes the first) of some of a
    category's, `each` a page, as HTML."""
    start = (number - 1) % -(-len(paths) // each) * each
    shown = paths[start:start + each]
    strips = [components.strip({t("data.image"): picture}, category.key(path), path.name)
              for path, picture in zip(shown, _shown(category, shown), strict=True)]
    said = t("data.first_last_n_images", first=start + 1, last=start + len(shown), n=len(paths))
    return components.paragraph(said) + components.flow(strips)


def feature_map(category: Category, config: Config, most: int = 400) -> tuple[str, Text]:
    """Up to `most` images, alike ones near each other (scatter.feature_map of embedding.plane), and
    what their neighbours say.

    ("", why) where the weights are out of reach: random ones are used where the configuration
    allows them, and then the title says so.
    """
    try:
        encoder, word = backbone.load_backbone(config)
    except InputError as error:
        return "", t("data.no_map_features_why", why=str(error))
    by_kind = groups(category)
    counts = embedding.spread([len(paths) for paths in by_kind.values()], most)
    shown = [(kind, path) for (kind, paths), n in zip(by_kind.items(), counts, strict=True)
             for path in _spread(paths, n)]
    kinds, paths = map(list, zip(*shown, strict=True))
    loaded = _load(category, paths, config.image_size)
    pooled = embedding.pooled(encoder, loaded, config)
    points, how = embedding.plane(pooled)
    labels, keys = layout.read_labels(category), [category.key(path) for path in paths]
    anomalous = np.array([key in labels and labels[key].anomalous for key in keys])
    weights = t("data.random_because_no_run_asks") if config.weights == "none" else (
        sentences.weights(word))
    title = t("data.n_images_features_frozen_resnet18", n=len(paths), how=how, weights=weights)
    drawn = scatter.feature_map(points, kinds, keys, loaded.permute(0, 2, 3, 1).numpy(), title,
                                IMAGES, sizes=list(map(masks.shown_size, paths)))
    return drawn, data_sentences.neighbours(*embedding.alike(pooled, anomalous), len(paths))


def _folder(part: Part) -> Path:
    """Of the data's page."""
    return run_folder.reports_dir(part.config.reports) / "eda" / part.category.name


def _spread(paths: list[Path], most: int) -> list[Path]:
    places = np.linspace(0, len(paths) - 1, min(most, len(paths)))
    return [paths[i] for i in np.unique(places.astype(int))]


def _load(category: Category, paths: list[Path], size: int) -> torch.Tensor:
    return images.load(paths, size, _grey_range(category, paths))


def _shown(category: Category, paths: list[Path], side: int = SIDE) -> list[np.ndarray]:
    grey_range = _grey_range(category, paths)
    return files.in_threads(lambda path: images.small(path, side, grey_range), paths)


def _grey_range(category: Category, paths: list[Path]) -> GreyRange | None:
    # Where those to learn from have 8 bits and these have more (a problem that is told), they are
    # shown all the same.
    return images.grey_range(category.train) or images.grey_range(paths)


def _pictures(category: Category, paths: list[Path], size: int) -> np.ndarray:
    return images.to_float(_load(category, paths, size)).permute(0, 2, 3, 1).numpy()
