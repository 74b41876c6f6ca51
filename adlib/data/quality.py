"""Is this folder of images fit for a study? Counts, sizes, modes, labels, duplicates, and every
file that cannot be read. And what kind of workpiece its good images show, by measurement."""
from __future__ import annotations

import os
import typing
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from adlib.config import InputError
from adlib.data import layout

if typing.TYPE_CHECKING:
    import torch

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

    def problems(self) -> list[tuple[str, Group]]:
        """What a person should look at: (code, names of the images concerned); [] if nothing.

        Codes: unreadable, leak, duplicate, labels (with what is wrong with them instead of names),
        no_labels, all_good, all_anomalous.
        """
        problems = [("unreadable", (name, )) for name in self.unreadable]
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
        images = dict(zip(map(category.key, paths), pool.map(_read, paths), strict=True))
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
        sizes=dict(Counter(size for size, _, why in images.values() if not why).most_common()),
        modes=dict(Counter(mode for _, mode, why in images.values() if not why).most_common()),
        labels=dict(sorted(defects.items(), key=lambda item: (item[0] != "good", item[0]))),
        duplicates=tuple(group for group, leaks in groups.items() if not leaks),
        leaks=tuple(group for group, leaks in groups.items() if leaks),
        unreadable=tuple(f"{key} ({why})" for key, (_, _, why) in images.items() if why),
        ignored=sum(path.is_file() and path.suffix.lower() not in layout.SUFFIXES
                    and not path.name.startswith(".") for split in ("train", "test")
                    for path in (category.root / category.name / split).rglob("*")),
        label_problem=label_problem)


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

    x = good.float() / 255
    grey, n = x.mean(dim=1, keepdim=True), len(x)
    coarse = functional.adaptive_avg_pool2d(grey, 16).flatten(1)
    within = float(coarse.var(dim=0).mean())
    between = max(float(coarse.mean(dim=0).var(correction=0)) - within / n, 0.0)
    fine = functional.adaptive_avg_pool2d(grey, 64)
    fine = fine - functional.avg_pool2d(functional.pad(fine, (4, ) * 4, mode="reflect"), 9, 1)
    details = functional.normalize(fine.flatten(1) - fine.flatten(1).mean(dim=1, keepdim=True))
    return {"form": between / max(between + within, 1e-12),
            "alignment": float((details.sum(dim=0).square().sum() - details.square().sum())
                               / (n * (n - 1))),
            "colour": float((x.amax(dim=1) - x.amin(dim=1)).mean()), "good": n}


def _read(path: Path) -> tuple[str, str, str]:
    """(size, mode, "") of an image that decodes to its end, or ("", "", why)."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.load()
            return f"{image.width}x{image.height}", image.mode, ""
    except Exception as error:  # whatever a decoder trips over in a damaged file, the file is named
        return "", "", (str(error) or type(error).__name__).replace(str(path), path.name)
