"""What a batch is about to do, before it does it: how many steps, about how long on this machine,
on which data, with which weights."""
from __future__ import annotations

import os
import typing
from collections import Counter
from pathlib import Path

from adlib.config import OWN, Config, InputError, cache_dir
from adlib.data import files, layout
from adlib.runs import freshness, grid
from adlib.runs.grid import Task

# Seconds on two cores that compute bf16, when scores did, too; what the last batch took here
# corrects them (PACE). Of a notebook whatever it does, of an image and epoch of training at 128
# pixels, of an image at 256 pixels through a frozen network.
OVERHEAD_S = {"eda": 6.0, "run": 5.0, "limits": 6.0, "how_many": 10.0, "comparison": 6.0}
EPOCH_S = {"cae": 0.012, "resnet18": 0.016, "to_pixels": 0.006, "to_features": 0.006}
FEATURES_S, EDA_S, DISTURBED = 0.05, 0.02, 42  # the last: how often limits score the test images
COMPARED_S = 0.002  # an image with the memory of another, for how many pictures it takes, which
DRAWN_FROM, LOOKED_AT = 200, 180  # looks at so many good ones, and at so many others, at most
LEAST_S = 10.0  # a shorter batch says nothing of the machine
PACE = "pace.json"  # in the cache: what the last batch took here, as a multiple of the above


def seconds(kind: str, config: Config | None, images: tuple[int, int]) -> float:
    """About how long a task takes on the machine of the constants.

    kind, config: a Task's. images: of its category, (train, test).
    """
    train, test = images
    needed = OVERHEAD_S[kind]
    if kind == "eda":
        return needed + EDA_S * (train + test)
    if kind == "limits":
        return needed + DISTURBED * EDA_S * test
    if kind == "how_many":
        drawn = min(train, DRAWN_FROM)
        return needed + COMPARED_S * drawn * (drawn + min(80 + test, LOOKED_AT))
    if config is None:
        return needed
    if config.model in EPOCH_S:
        needed += EPOCH_S[config.model] * config.epochs * train * (config.image_size / 128)**2
    per_image = FEATURES_S if config.uses_weights else EDA_S / 2
    return needed + per_image * (train + test) * (config.image_size / 256)**2


def of_tasks(tasks: typing.Iterable[Task]) -> dict[Task, float]:
    """{task: seconds on this machine}, by the pace of the last batch here."""
    counts: dict[tuple[str, str], tuple[int, int]] = {}
    forecast = {}
    for task in tasks:
        key = task.params.get("data_root", ""), task.params.get("category", "")
        if key[1] and key not in counts:
            try:
                category = layout.open_category(layout.find_root(key[0])[0], key[1])
                counts[key] = len(category.train), len(category.test)
            except InputError:  # the task will meet it too, and say so
                counts[key] = 0, 0
        forecast[task] = _pace() * seconds(task.kind, task.config, counts.get(key, (0, 0)))
    return forecast


def of_grid(path: Path, images: typing.Iterable[tuple[int, int]]) -> float:
    """Seconds of a grid on this machine, on categories of so many (train, test) images."""
    asked, total = grid.read(path), OVERHEAD_S["comparison"]
    for each in images:
        total += seconds("eda", None, each) + sum(
            len(names) * seconds(kind, None, each) for kind, names in asked.after.items())
        total += len(asked.seeds) * sum(seconds("run", Config.from_mapping(
            values | asked.common | {"name": name}, str(path)), each)
            for name, values in asked.configs.items())
    return _pace() * total


def remember(forecast: float, took: float) -> None:
    """Note how this machine compares, so that the next forecast is about it."""
    if forecast > LEAST_S:
        files.write_json(cache_dir() / PACE, {"pace": _pace() * took / forecast})


def describe(reasons: typing.Mapping[Task, str], forecast: typing.Mapping[Task, float]) -> str:
    """The steps that are due, about how long they take, their data and weights, a line each."""
    due = [task for task, reason in reasons.items() if reason]
    if not due:
        return f"all {len(reasons)} steps are up to date"
    kinds = Counter(task.kind for task in due)
    categories = list(dict.fromkeys(filter(None, (task.params.get("category") for task in due))))
    basis = "at the pace of the last batch here" if (cache_dir() / PACE).is_file() else (
        "by measurements on two cores; the first batch here, so this may be off")
    root = layout.find_root(next(iter(reasons)).params.get("data_root", ""))[0]
    drawn = " (drawn by adlib: SYNTHETIC)" if (root / layout.MARKER).is_file() else ""
    files_given = {Path(task.config.weights).name for task in due if task.config
                   and task.config.uses_weights and task.config.weights != "imagenet"}
    weights = sorted(files_given) + ["ImageNet's"] * any(map(_wants_imagenet, due))
    return "\n".join([
        f"due: {len(due)} of {len(reasons)} steps: "
        + ", ".join(f"{kinds[kind]} {word}{'s' * (kinds[kind] > 1)}" for kind, word in (
            ("eda", "data page"), ("run", "run"), ("limits", "limit"),
            ("how_many", "learning curve"), ("comparison", "comparison"))
            if kinds[kind]) + (f", on {', '.join(categories)}" if categories else ""),
        f"time: about {duration(sum(forecast[task] for task in due))} ({basis})",
        f"data: {near(root)}{drawn}", f"weights: {', '.join(weights) or 'none needed'}"])


def near(path: Path) -> str:
    """A path as one would type it from here."""
    return os.path.relpath(path) if path.resolve().is_relative_to(Path.cwd()) else str(path)


def weights_out_of_reach(tasks: typing.Iterable[Task]) -> str:
    """Why ImageNet's weights cannot be had, with the ways out; "" where they can, or are not asked
    for. They are fetched now, once, and not by every run."""
    wanting = [task for task in tasks if _wants_imagenet(task)]
    if not wanting or freshness.imagenet_at_hand():
        return ""
    from adlib.models import weights  # which needs torch

    why, address, cached = weights.fetch()
    # one's own detector does not take them, and only whether a picture shows the part is asked
    wanting = [task for task in wanting if not OWN.fullmatch(task.config.model)]
    if not why or not wanting:
        return ""
    what = ("fail" if any(grid.needs_weights(task.config) for task in wanting) else
            "go on with RANDOM weights, be grey on every page and stay out of its headline")
    runs = f"{len(wanting)} run{'s' * (len(wanting) != 1)}"
    return (f"weights: ImageNet's are out of reach ({why}), so {runs} will {what}. "
            f"Ways out: fetch {address} elsewhere (its sha256 begins with "
            f"{address.rpartition('-')[2].partition('.')[0]}), then give it with --weights FILE "
            f"(make study WEIGHTS=FILE), or put it at {cached}")


def duration(seconds: float) -> str:
    """'40 s', '4 min', '1 h 20 min'."""
    if seconds < 100:
        return f"{max(10, round(seconds, -1)):.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _pace() -> float:
    return float(freshness.read(cache_dir() / PACE).get("pace", 1.0))


def _wants_imagenet(task: Task) -> bool:
    return bool(task.config and task.config.uses_weights and task.config.weights == "imagenet")
