"""Could a study run here? Versions, device, data, weights, pictures that may not be good, and write
access, each in words."""
from __future__ import annotations

import os
import tempfile
import typing
from pathlib import Path

import torch

from adlib.config import Config, InputError, cache_dir
from adlib.data import layout, quality
from adlib.data.part import ImageSet
from adlib.evaluation import suspects as ranking
from adlib.models import autoencoders
from adlib.models.fast import device
from adlib.report import suspects
from adlib.report.words import data_sentences, sentences
from adlib.runs import freshness, run_folder


def checks(data_root: str, weights: str, reports: str) -> typing.Iterator[tuple[str, bool, str]]:
    """What was looked at, whether a study could run with it, and what was found or is to be done.
    Arguments: as the options of `adlib check`, "" = not given."""
    yield "versions", True, ", ".join(f"{name} {version}"
                                      for name, version in freshness.versions().items())
    for name, found in (("device", _device), ("data", lambda: _data(data_root)),
                        ("weights", lambda: _weights(weights)),
                        ("suspects", lambda: _suspects(data_root, weights, reports)),
                        ("write access", lambda: _writing(reports))):
        try:
            yield name, True, found()
        except (InputError, ImportError) as error:
            yield name, False, str(error)


def _device() -> str:
    return (f"{device.pick_device('auto')}, {os.cpu_count()} cores, torch uses "
            f"{torch.get_num_threads()} threads")


def _data(data_root: str) -> str:
    root, rule = layout.find_root(data_root)
    # a page names the folder alone; whoever sits at this machine wants to know where it is
    lines, bad = [f"{data_sentences.data_source(rule, root.resolve().name)} ({root.resolve()})"], 0
    for name in layout.categories(root):
        try:
            findings = quality.check(layout.open_category(root, name))
        except InputError as error:
            lines, bad = [*lines, f"  {name}: {error}"], bad + 1
            continue
        rows = "; ".join(map(" ".join, data_sentences.findings_rows(findings)))
        problems = data_sentences.findings_problems(findings)
        lines += [f"  {name}: {rows}", *(f"    problem: {problem}" for problem in problems)]
        bad += findings.stopping
    lines += [f"  no category: {words}" for words in layout.near_misses(root)]
    if bad:
        raise InputError("\n".join([*lines, f"  {bad} of these problems would stop a run"]))
    return "\n".join(lines)


def _suspects(data_root: str, weights: str, reports: str) -> str:
    """Good pictures that may not be good, a line a category; a page of each is no obstacle."""
    root, _ = layout.find_root(data_root)
    return "\n  ".join(["good training pictures that may not be good:", *(
        f"{name}: {suspects_of(root, name, weights, reports)}"
        for name in layout.categories(root))])


def suspects_of(root: Path, name: str, weights: str, reports: str, language: str = "") -> str:
    """Rank a category's good pictures, and write a page and a list of the suspects."""
    config = Config(model="memory", weights=weights or "imagenet")
    try:
        category = layout.open_category(root, name)
        ranked = ranking.rank(ImageSet(category, category.train, ranking.SIDE), config)
    except InputError as error:
        return f"not looked for: {error}"
    where = run_folder.reports_dir(reports) / "suspects" / name
    written = suspects.page(category, ranked, where, weights, language)
    return f"{suspects.said(ranked)} See {written.with_name('index.html')}"


def _weights(weights: str) -> str:
    config = Config(model="resnet18", weights=weights or "imagenet", weights_fallback=not weights)
    source = autoencoders.build_network(config)[1]
    return sentences.weights(source) + (" (the CAE needs none; give a file with --weights PATH)"
                                        if source.startswith("random") else "")


def _writing(reports: str) -> str:
    folders = run_folder.reports_dir(reports), cache_dir()
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise InputError(f"cannot write in {folder} ({error.strerror}); make it writable, or "
                             f"set ADLIB_CACHE or --reports") from error
    return " and ".join(map(str, folders))
