"""What an earlier version called otherwise is read for one version more, with a sentence."""
from __future__ import annotations

import functools
import typing

from adlib.config.errors import log

RENAMED_KEYS = {"false_alarms": "target_fpr"}
RENAMED_VALUES = {("schedule", "seed"): "reference", ("model", "taught"): "classifier",
                  **{("name", f"taught{kinds}"): f"classifier{kinds}"
                     for kinds in ("", "_texture", "_shape")}}
RENAMED_FILES = {"study": "reference"} | {  # of params/
    old: new for (key, old), new in RENAMED_VALUES.items() if key == "name"}
RENAMED_LAYOUTS = {"seed": "course"}
RENAMED_METRICS = {"false_alarms": "false_positives", "follows": "confounders"}


def upgrade(values: typing.Mapping[str, object], where: str) -> dict[str, object]:
    """Parameters as this version names them; each old name is told once, with its new one."""
    upgraded = {}
    for key, value in values.items():
        name = RENAMED_KEYS.get(key, key)
        new = RENAMED_VALUES.get((name, value), value) if isinstance(value, str) else value
        if (name, new) != (key, value):
            deprecated(f"{where}: {key}: {value} is now {name}: {new}")
        upgraded[name] = new
    return upgraded


def upgrade_weights(word: str) -> str:
    """Where weights came from (models.weights), of a run that says it in English."""
    if word.startswith("RANDOM"):
        return f"random:{word.partition(' (')[2].removesuffix(')')}".removesuffix(":")
    if word.startswith("file "):
        return "file:" + ":".join(word.removeprefix("file ").rsplit(" sha256:", 1))
    if word.startswith("torchvision "):
        return f"imagenet:{word.removeprefix('torchvision ')}"
    return "none" if word.startswith("none (") else word


def upgrade_metrics(value: typing.Any) -> typing.Any:
    """What a metrics.json holds, to any depth, under the keys of this version."""
    if isinstance(value, dict):
        return {RENAMED_METRICS.get(key, key): upgrade_metrics(inner)
                for key, inner in value.items()}
    return value


@functools.cache
def deprecated(sentence: str) -> None:
    """Say once that something old was read, and what it is called now."""
    log.warning("deprecated: %s; the next version of adlib will not read it", sentence)
