"""Is this folder of images fit for a study? Counts, sizes, modes, labels, duplicates, and every
file that cannot be read."""
from __future__ import annotations

import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from adlib.config import InputError
from adlib.data import layout, reading
from adlib.data.reading import GreyRange, Header

Group = tuple[str, ...]  # the keys of identical images


@dataclass(frozen=True)
class Findings:
    """What `check` found. Images are named by their keys (below the data root)."""

    counts: dict[str, int]  # images per split
    sizes: dict[str, int]  # "256x256" -> images, the most frequent first
    modes: dict[str, int]  # Pillow's mode -> images, the most frequent first
    labels: dict[str, int]  # defect -> test images, "good" first
    duplicates: tuple[Group, ...]  # byte-identical images within train or within test
    leaks: tuple[Group, ...]  # byte-identical images in train/good and outside
    unreadable: tuple[str, ...]  # "key (why)"
    ignored: int  # files that are no images
    label_problem: str  # what is wrong with the labels, or ""
    unnamed: Group = ()  # files that are images, and are not read for their names
    grey_range: GreyRange | None = None  # what becomes 0 and 255 in images of more than 8 bits
    outside: Group = ()  # images with values beyond it
    eight_bits: Group = ()  # images of 8 bits, where those to learn from have more

    def problems(self) -> list[tuple[str, Group]]:
        """What a person should look at: (code, names of the images concerned); [] if nothing.

        Codes: unreadable, unnamed, outside, eight_bits, leak, duplicate, labels (with what is wrong
        with them instead of names), no_labels, all_good, all_anomalous.
        """
        problems = [("unreadable", (name, )) for name in self.unreadable]
        problems += [(code, names) for code, names in (
            ("unnamed", self.unnamed), ("outside", self.outside), ("eight_bits", self.eight_bits))
            if names]
        problems += [("leak", group) for group in self.leaks]
        problems += [("duplicate", group) for group in self.duplicates]
        if self.label_problem:
            problems.append(("labels", (self.label_problem, )))
        elif not self.labels:
            problems.append(("no_labels", ()))
        elif len({name == "good" for name in self.labels}) == 1:
            problems.append(("all_good" if "good" in self.labels else "all_anomalous", ()))
        return problems


def check(category: layout.Category) -> Findings:
    """Look at every file of a category. Bad images and labels are findings, and raise nothing."""
    splits = {"train/good": category.train, "test": category.test, "train/bad": category.train_bad}
    paths = [path for split in splits.values() for path in split]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        examined = dict(zip(map(category.key, paths), pool.map(_examine, paths), strict=True))
    headers = {key: header for key, header in examined.items() if isinstance(header, Header)}
    grey_range = reading.union(headers[key].extent for key in map(category.key, category.train)
                               if key in headers)
    if grey_range is None:
        examined |= {key: reading.without_range(one.extent) for key, one in headers.items()
                     if one.extent}
    others = [path for split in ("train", "test")
              for path in layout.below(category.root / category.name / split, images=False)]
    unnamed = tuple(category.key(path) for path in others if reading.is_picture(path))
    try:
        label_problem, labels = "", layout.read_labels(category)
    except InputError as error:
        label_problem, labels = str(error), {}
    defects = Counter(labels[key].defect for key in map(category.key, category.test)
                      if key in labels)
    identical: dict[str, list[Path]] = {}
    for path, digest in layout.content_hashes(paths).items():
        identical.setdefault(digest, []).append(path)
    train = set(category.train)
    groups = {tuple(map(category.key, group)): len({path in train for path in group}) == 2
              for group in identical.values() if len(group) > 1}
    return Findings(
        counts={name: len(split) for name, split in splits.items() if split or name != "train/bad"},
        sizes=dict(Counter("{}x{}".format(*one.size) for one in headers.values()).most_common()),
        modes=dict(Counter(one.mode for one in headers.values()).most_common()),
        labels=dict(sorted(defects.items(), key=lambda item: (item[0] != "good", item[0]))),
        duplicates=tuple(group for group, leaks in groups.items() if not leaks),
        leaks=tuple(group for group, leaks in groups.items() if leaks),
        unreadable=tuple(f"{key} ({why})" for key, why in examined.items() if isinstance(why, str)),
        ignored=len(others) - len(unnamed), label_problem=label_problem, unnamed=unnamed,
        grey_range=grey_range, outside=tuple(
            key for key, one in headers.items() if reading.is_outside(one.extent, grey_range)),
        eight_bits=tuple(key for key, one in headers.items() if grey_range and not one.extent))


def _examine(path: Path) -> Header | str:
    """What decodes to its end, or why it does not."""
    try:
        return reading.examine(path)
    except Exception as error:  # whatever a decoder trips over in a damaged file, the file is named
        return (str(error) or type(error).__name__).replace(str(path), path.name)
