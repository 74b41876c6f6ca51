"""Is this folder of images fit for a study? Counts, sizes, modes, labels, duplicates, and every
file that cannot be read."""
from __future__ import annotations

import math
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from adlib.data import layout
from adlib.config import InputError
from adlib.report.i18n import Text, join, t

MANY_SIZES = 6  # different ones that the data card still names one by one


@dataclass(frozen=True)
class Findings:
    """What `check` found. Paths are keys (below the data root)."""

    counts: dict[str, int]  # images per split
    sizes: dict[str, int]  # "256x256" -> images
    modes: dict[str, int]  # Pillow's mode -> images
    labels: dict[str, int]  # defect -> test images
    # groups of byte-identical images within train or within test
    duplicates: tuple[tuple[str, ...], ...]
    leaks: tuple[tuple[str, ...], ...]  # such groups with members in train/good and outside
    unreadable: tuple[str, ...]  # "key (why)"
    ignored: int  # files that are no images
    label_problem: str  # what is wrong with the labels, or ""

    def rows(self) -> list[tuple[Text, str]]:
        """The findings in words, for a table."""
        def spell(counts: dict[str, int]) -> Text:
            return join((f"{key} {value}"
                         for key, value in counts.items()), ", ") if counts else t("data.none")

        by_area = sorted(self.sizes, key=lambda size: math.prod(map(int, size.split("x"))))
        sizes = spell(self.sizes) if len(by_area) <= MANY_SIZES else t(
            "data.n_different_ones_least_most", n=len(by_area), least=by_area[0], most=by_area[-1],
            often=next(iter(self.sizes)))
        return [(t("data.images"), spell(self.counts)), (t("data.sizes_pixels"), sizes),
                (t("data.modes"), spell(self.modes)), (t("data.test_labels"), spell(self.labels)),
                (t("data.identical_images_within_split"), str(len(self.duplicates))),
                (t("data.identical_images_train_evaluation"), str(len(self.leaks))),
                (t("data.unreadable"), str(len(self.unreadable))),
                (t("data.files_no_images"), str(self.ignored))]

    def problems(self) -> list[str]:
        """What a person should look at, a sentence each; empty if nothing. What is wrong with the
        labels is told in English alone."""
        found: list[str] = [t("data.cannot_read_name", name=name) for name in self.unreadable]
        found += [
            t("data.same_image_training_evaluation_flatters", names=join(group, ", "))
            for group in self.leaks
        ]
        found += [
            t("data.same_image_more_than_once", names=join(group, ", "))
            for group in self.duplicates
        ]
        if self.label_problem:
            found.append(self.label_problem)
        if not self.labels and not self.label_problem:
            found.append(t("data.test_images_no_labels_they"))
        elif len({name == "good" for name in self.labels}) == 1:
            found.append(
                t("data.test_images_all_good_will") if "good" in
                self.labels else t("data.test_images_all_anomalous_will"))
        return found


def check(category: layout.Category) -> Findings:
    """Look at every file of a category. Raises nothing for bad images or labels: they are findings.
    """
    splits = {"train/good": category.train, "test": category.test, "train/bad": category.train_bad}
    paths = [path for group in splits.values() for path in group]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        looked = dict(zip(paths, pool.map(_look, paths), strict=True))
    readable = [about for about in looked.values() if about[0]]
    try:
        label_problem, labels = "", layout.read_labels(category)
    except InputError as error:
        label_problem, labels = str(error), {}
    kinds = Counter(labels[key].defect for key in map(category.key, category.test) if key in labels)
    same, leaks = _identical(category)
    return Findings(
        counts={name: len(group)
                for name, group in splits.items() if group or name != "train/bad"}, sizes=dict(
                    Counter(size for size, _, _ in readable).most_common()), modes=dict(
                        Counter(m for _, m, _ in readable).most_common()), labels=dict(
                            sorted(kinds.items(), key=lambda item: (item[0] != "good", item[0]))),
        duplicates=same, leaks=leaks, unreadable=tuple(
            f"{category.key(path)} ({why})" for path, (size, _, why) in looked.items() if not size),
        ignored=_ignored(category), label_problem=label_problem)


def _look(path: Path) -> tuple[str, str, str]:
    """(size, mode, "") of an image that decodes to its end, or ("", "", why)."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.load()
            return f"{image.width}x{image.height}", image.mode, ""
    except Exception as error:  # whatever a decoder trips over in a damaged file, the file is named
        return "", "", (str(error) or type(error).__name__).replace(str(path), path.name)


def _identical(
        category: layout.Category
) -> tuple[tuple[tuple[str, ...], ...], tuple[tuple[str, ...], ...]]:
    groups: dict[str, list[Path]] = {}
    for path, digest in layout.content_hashes(
        [*category.train, *category.test, *category.train_bad]).items():
        groups.setdefault(digest, []).append(path)
    train = set(category.train)
    same, leaks = [], []
    for group in groups.values():
        if len(group) > 1:
            crossing = len({path in train for path in group}) == 2
            (leaks if crossing else same).append(tuple(category.key(path) for path in group))
    return tuple(same), tuple(leaks)


def _ignored(category: layout.Category) -> int:
    here = category.root / category.name
    return sum(1 for part in ("train", "test") for path in (here / part).rglob("*")
               if path.is_file() and path.suffix.lower() not in layout.SUFFIXES
               and not path.name.startswith("."))
