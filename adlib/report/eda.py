"""What the first notebook shows of a folder of images: pictures, numbers and the sentences that go
with them."""
from __future__ import annotations

import typing
from pathlib import Path

import numpy as np

from adlib.config import Config, InputError
from adlib.data import images, layout
from adlib.data.layout import Category
from adlib.data.quality import Findings
from adlib.models import backbone as features
from adlib.models import embedding
from adlib.report import clouds, data_sentences, scenes
from adlib.report.i18n import Text, html, join, t


def card(findings: Findings) -> typing.Any:
    """The data card: what was found, and every problem, as an HTML table."""
    from IPython.display import HTML

    rows = "".join(f"<tr><th scope=row>{html(name)}</th><td>{html(value)}</td></tr>"
                   for name, value in data_sentences.findings_rows(findings))
    problems = "".join(f"<li>{html(problem)}</li>"
                       for problem in data_sentences.findings_problems(findings))
    return HTML(
        f"<table><caption>{html(t('data.data_card'))}</caption><tbody>{rows}</tbody></table>" +
        (f"<p><strong>{html(t('data.problems_found'))}</strong></p><ul>{problems}</ul>"
         if problems else f"<p>{html(t('data.no_problems_found'))}</p>"))


def duplicates(category: Category, findings: Findings, size: int = 72, most: int = 12) -> str:
    """The groups of identical images with a picture of each, as HTML; the first `most` of them, ""
    where there is none."""
    found = [*findings.leaks, *findings.duplicates][:most]
    strips = []
    for keys in found:
        picture = images.load([category.root / keys[0]], size)[0].permute(1, 2, 0).numpy()
        strips.append(
            scenes.strip({t("data.same_image_n_times", n=len(keys)): picture}, keys[0],
                         html(join(keys, ", "))))
    return scenes.flow(strips) if found else ""


def groups(category: Category) -> dict[str, list[Path]]:
    """The images by kind, for description only: train, then the test images by their defect, good
    ones first."""
    labels = layout.read_labels(category)
    found: dict[str, list[Path]] = {t("data.train_good"): list(category.train)}
    known = [(labels.get(category.key(path)), path) for path in category.test]
    for label, path in sorted(known, key=lambda one: one[0] is None or one[0].anomalous):
        found.setdefault(
            t("data.test_defect", defect=label.defect) if label else t("data.test_unlabelled"),
            []).append(path)
    if category.train_bad:
        found[t("data.train_bad_never_trained")] = list(category.train_bad)
    return found


def samples(category: Category, size: int, each: int = 8) -> dict[str, np.ndarray]:
    """{kind: [n,S,S,3] in [0,1]}: up to `each` images of every kind, evenly spaced over the sorted
    folder."""
    return {kind: _pictures(_spread(paths, each), size) for kind, paths in groups(category).items()}


def train_pictures(category: Category, size: int, most: int = 500) -> np.ndarray:
    """Up to `most` good training images, evenly spaced: float32 [N,S,S,3] in [0,1]."""
    return _pictures(_spread(list(category.train), most), size)


def brightness(category: Category, size: int) -> dict[str, np.ndarray]:
    """{kind: mean grey value [N] in [0,1]} of all images."""
    return {
        kind: images.brightness(images.load(paths, size))
        for kind, paths in groups(category).items()
    }


def page(category: Category, paths: list[Path], size: int, number: int, each: int) -> str:
    """The images of page `number` (1, 2, ...; after the last comes the first) of some of a
    category's, `each` a page, as HTML."""
    start = (number - 1) % -(-len(paths) // each) * each
    shown = paths[start:start + each]
    strips = [
        scenes.strip({t("data.image"): picture.permute(1, 2, 0).numpy()}, category.key(path),
                     html(path.name))
        for path, picture in zip(shown, images.load(shown, min(size, 128)), strict=True)
    ]
    said = t("data.first_last_n_images", first=start + 1, last=start + len(shown), n=len(paths))
    return scenes.paragraph(said) + scenes.flow(strips, 8)


def feature_map(category: Category, config: Config, most: int = 400) -> tuple[str, Text]:
    """Up to `most` images, alike ones near each other (clouds.feature_map of embedding.plane), and
    what their neighbours say.

    ("", why) where the weights are out of reach: random ones are used where the configuration
    allows them, and then the title says so.
    """
    try:
        encoder, weights = features.backbone(config)
    except InputError as error:
        return "", t("data.no_map_features_why", why=str(error))
    found = groups(category)
    shown = {
        kind: _spread(paths, n)
        for (kind, paths), n in zip(
            found.items(), embedding.spread(list(map(len, found.values())), most), strict=True)
    }
    paths, kinds = [path for of in shown.values()
                    for path in of], [kind for kind, of in shown.items() for _ in of]
    loaded = images.load(paths, config.image_size)
    pooled = embedding.pooled(encoder, loaded, config)
    points, how = embedding.plane(pooled)
    labels = layout.read_labels(category)
    anomalous = np.array(
        [category.key(path) in labels and labels[category.key(path)].anomalous for path in paths])
    title = t("data.n_images_features_frozen_resnet18", n=len(paths), how=how,
              weights=t("data.random_because_no_run_asks") if config.weights == "none" else weights)
    drawn = clouds.feature_map(points, kinds, [category.key(path) for path in paths],
                               loaded.permute(0, 2, 3, 1).numpy(), title)
    return drawn, embedding.sentence(pooled, anomalous)


def montage_sentence(category: Category, pictures: dict[str, np.ndarray]) -> Text:
    kinds = join((t("data.n_kind", n=len(some), kind=kind) for kind, some in pictures.items()),
                 ", ")
    return t("data.sample_images_category_row_each", category=category.name, kinds=kinds)


def deviation_sentence(category: Category) -> Text:
    return t("data.mean_image_good_training_images", category=category.name)


def brightness_sentence(found: dict[str, np.ndarray]) -> Text:
    medians = join((t("limits.name_value_f", name=kind, value=np.median(values))
                    for kind, values in found.items()), ", ")
    return t("data.median_grey_value_medians", medians=medians)


def answer(category: Category, findings: Findings) -> Text:
    counts = {"category": category.name, "train": len(category.train), "test": len(category.test)}
    problems = data_sentences.findings_problems(findings)
    return join([
        t("data.category_train_good_images_learn", bad=len(category.train_bad), **counts)
        if category.train_bad else t("data.category_train_good_images_learn_2", **counts),
        t("data.n_problem_s_look_listed", n=len(problems))
        if problems else t("data.nothing_found_speaks_against_using")
    ])


def _spread(paths: list[Path], most: int) -> list[Path]:
    return [
        paths[i]
        for i in np.unique(np.linspace(0,
                                       len(paths) - 1, min(most, len(paths))).astype(int))
    ]


def _pictures(paths: list[Path], size: int) -> np.ndarray:
    return images.to_float(images.load(paths, size)).permute(0, 2, 3, 1).numpy()
