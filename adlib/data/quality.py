"""Is this folder of images fit for a study? Counts, sizes, modes, labels, masks, duplicates, and
every file that cannot be read or has no place. And what kind of workpiece its good images show, by
measurement."""
from __future__ import annotations

import os
import typing
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from adlib.config import InputError
from adlib.data import files, layout, reading
from adlib.data.reading import GreyRange, Header

if typing.TYPE_CHECKING:
    import numpy as np
    import torch

MAP_SIZE = 256  # pixels a side of the maps of all but the autoencoders
Group = tuple[str, ...]  # the keys of identical images
Problem = tuple[str, dict[str, typing.Any]]  # a code, and what its message names


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
    label_problem: Problem | None = None  # what is wrong with the labels
    grey_range: GreyRange | None = None  # what becomes 0 and 255 in images of more than 8 bits
    listed: dict[str, Group] = field(default_factory=dict)  # code: images that it is about, if any
    mask_problems: tuple[Problem, ...] = ()  # what is wrong with the masks
    masks: dict[str, tuple[int, int]] = field(default_factory=dict)  # defect: with mask, images
    noted: dict[str, Group] = field(default_factory=dict)  # code: what it is about, if anything

    @property
    def stopping(self) -> int:
        """How many of the problems would stop a run."""
        return len(self.unreadable) + bool(self.label_problem) + len(self.mask_problems)

    def problems(self) -> list[tuple[str, Group] | Problem]:
        """What a user should look at: (code, names of the images concerned); [] if nothing.

        Codes: unreadable, leak, duplicate, no_test, no_labels, all_good, all_anomalous;
        with values instead of names labels.* (those of the errors that layout.read_labels raises)
        and masks.* (unusable, and of roi and ignore nothing_left);
        those of `listed`: unnamed (files that are images, and are not read for their names),
        outside (values beyond the grey range), eight_bits (where those to learn from have more),
        coarse (few grey levels of the range);
        those of `noted`: unread (images without a place in the layout), stray (masks of no image),
        bare (folders of a defect without an image), respelled (names and labels taken for good,
        bad, train or test in another case), alike (defects that differ in case alone), absent (no
        mask, where others have one), contradicted (good, but its mask shows a defect), misfit (of
        the masks roi and ignore, with the shape of no training image), and data.masks'
        own, once a defect.
        """
        problems = [("unreadable", (name, )) for name in self.unreadable]
        problems += [(code, names) for code, names in self.listed.items() if names]
        problems += [("leak", group) for group in self.leaks]
        problems += [("duplicate", group) for group in self.duplicates]
        if self.label_problem:
            problems.append(self.label_problem)
        elif not self.counts["test"]:
            problems.append(("no_test", ()))
        elif not self.labels:
            problems.append(("no_labels", ()))
        elif len({name == "good" for name in self.labels}) == 1:
            problems.append(("all_good" if "good" in self.labels else "all_anomalous", ()))
        return [*problems, *self.mask_problems,
                *((code, names) for code, names in self.noted.items() if names)]


def check(category: layout.Category, size: int = MAP_SIZE) -> Findings:
    """Look at every file of a category, and at its masks as a run at `size` pixels a side would.
    Bad images, labels and masks are findings, and raise nothing."""
    splits = {"train/good": category.train, "test": category.test, "train/bad": category.train_bad}
    paths = [path for split in splits.values() for path in split]
    examined = dict(zip(map(category.key, paths), files.in_threads(examine, paths), strict=True))
    headers = {key: header for key, header in examined.items() if isinstance(header, Header)}
    grey_range = reading.union(headers[key].extent for key in map(category.key, category.train)
                               if key in headers)
    coarse = [key for key in map(category.key, category.train) if key in headers
              and reading.is_coarse(headers[key].extent, grey_range)]
    if grey_range is None:
        examined |= {key: reading.without_range(one.extent) for key, one in headers.items()
                     if one.extent}
    others = [path for split in layout.folders(category.root / category.name)
              if split.name.lower() in ("train", "test", "ground_truth")
              for path in layout.below(split, images=False)]
    unnamed = tuple(category.key(path) for path in others if reading.is_picture(path))
    try:
        label_problem, labels = None, layout.read_labels(category)
    except InputError as error:
        label_problem, labels = (f"labels.{error.code}", error.values), {}
    of_test = {path: labels[key] for path in category.test if (key := category.key(path)) in labels}
    defects = Counter(label.defect for label in of_test.values())
    masked = Counter(label.defect for path, label in of_test.items() if path in category.masks)
    mask_problems, noted = _masks(category, of_test, size)
    misfit, region_problems = _regions(category, [
        path for path in category.train if category.key(path) in headers])
    identical = defaultdict(list)
    hashed = [path for path in paths if not files.is_special(path) and os.access(path, os.R_OK)]
    for path, digest in files.content_hashes(hashed).items():
        identical[digest].append(path)
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
        ignored=len(others) - len(unnamed), label_problem=label_problem, grey_range=grey_range,
        listed={
            "unnamed": unnamed, "outside": tuple(
                key for key, one in headers.items() if reading.is_outside(one.extent, grey_range)),
            "eight_bits": tuple(
                key for key, one in headers.items() if grey_range and not one.extent),
            "coarse": tuple(coarse) if 2 * len(coarse) > len(category.train) else ()},
        mask_problems=(*mask_problems, *region_problems),
        masks={name: (masked[name], n) for name, n in sorted(defects.items()) if name != "good"},
        noted=_places(category, defects) | noted | {"misfit": misfit})


def _places(category: layout.Category, defects: typing.Iterable[str]) -> dict[str, Group]:
    """What has no place, and what has one under another spelling."""
    unread, tests = list(map(category.key, category.unread)), category.root / category.name
    stray = [key for key in unread if key.split("/")[1].lower() == "ground_truth"]
    bare = [f"{test.name}/{folder.name}" for test in layout.folders(tests)
            if test.name.lower() == "test" for folder in layout.folders(test)
            if category.layout == "mvtec" and not layout.below(folder)]
    spelled = set()
    for path in (*category.train, *category.test, *category.train_bad):
        first, *rest = category.key(path).split("/")[1:-1]
        spelled |= {first, *(f"{first}/{name}" for name in rest[:1]
                             if first.lower() == "train" or name.lower() == "good")}
    if category.layout == "course" and defects:
        entries = layout.label_entries(category.root, category.name).values()
        spelled |= {entry["label"] if isinstance(entry, dict) else entry for entry in entries}
    cases = [[name for name in defects if name.lower() == one]
             for one in sorted({name.lower() for name in defects})]
    return {"unread": tuple(key for key in unread if key not in stray), "stray": tuple(stray),
            "bare": tuple(bare),
            "respelled": tuple(sorted(name for name in spelled
                                     if (last := name.rpartition("/")[2]) != last.lower())),
            "alike": tuple(name for names in cases if len(names) > 1 for name in names)}


def properties(good: torch.Tensor) -> dict[str, float]:
    """What kind of workpiece good images show: uint8 [N,3,S,S], S at least 64, N at least 2.

    Returns:
        form: share of the variance of brightness, on a grid of 16 x 16, that the place in the image
        explains: near 0 for a surface, all places of which are alike, near 1 for an object before
        its ground. alignment: mean correlation of the details of two images (64 x 64 pixels, less
        their surroundings): near 1 where an object always lies the same way. colour: mean
        difference of the largest and the smallest channel, 0 (grey) to 1. good: N.
    """
    from torch.nn import functional

    from adlib.data.siblings import details

    x = good.float() / 255
    grey, n = x.mean(dim=1, keepdim=True), len(x)
    coarse = functional.adaptive_avg_pool2d(grey, 16).flatten(1)
    within = float(coarse.var(dim=0).mean())
    between = max(float(coarse.mean(dim=0).var(correction=0)) - within / n, 0.0)
    fine = details(good)
    return {"form": between / max(between + within, 1e-12),
            "alignment": float((fine.sum(dim=0).square().sum() - fine.square().sum())
                               / (n * (n - 1))),
            "colour": float((x.amax(dim=1) - x.amin(dim=1)).mean()), "good": n}


def _masks(category: layout.Category, labels: dict[Path, layout.Label],
           size: int) -> tuple[list[Problem], dict[str, Group]]:
    """What is wrong with the masks, and the images that each note is about."""
    from adlib.data import masks

    paths, noted = list(category.masks), defaultdict(list)
    try:
        grids, notes = masks.load(paths, list(category.masks.values()), size)
    except InputError as error:
        return [_unusable(category, error.values["problems"])], {}
    noted["absent"] = [category.key(path) for path, label in labels.items()
                       if paths and label.anomalous and path not in category.masks]
    for path, grid, found in zip(paths, grids, notes, strict=True):
        good = path in labels and not labels[path].anomalous
        for note in ["contradicted"] * bool(grid.any()) if good else found.elements():
            noted[note].append(category.key(path))
    return [], {note: tuple(names) for note, names in noted.items()}


def _regions(category: layout.Category, images: list[Path]) -> tuple[Group, list[Problem]]:
    """The masks roi and ignore that have the shape of none of the images, as these are shown; and
    why they cannot be used."""
    from adlib.data import frame, masks

    paths = (*category.roi, *category.ignore)
    sizes = set(map(masks.shown_size, images if paths else ()))
    regions, damaged = dict[Path, "np.ndarray"](), list[tuple[Path, str]]()
    for path in paths:
        try:
            regions[path] = masks.region(path)
        except Exception as error:  # whatever a decoder trips over, the file is named
            damaged.append((path, files.reason_of(error)))
    misfit = tuple(category.key(path) for path, region in regions.items()
                   if not any(masks.alike(region.shape, size) for size in sizes))
    if damaged:
        return misfit, [_unusable(category, damaged)]
    try:
        frame.looked_at(category.roi, category.ignore, regions.__getitem__)
    except InputError:
        return misfit, [("masks.nothing_left", {"names": list(map(category.key, paths))})]
    return misfit, []


def _unusable(category: layout.Category, problems: list[tuple[Path, str]]) -> Problem:
    return "masks.unusable", {"names": [f"{category.key(path)} ({why})" for path, why in problems]}


def examine(path: Path) -> Header | str:
    """What decodes to its end, or why it does not."""
    try:
        return reading.examine(path)
    except Exception as error:  # whatever a decoder trips over in a damaged file, the file is named
        return files.reason_of(error).replace(str(path), path.name)
