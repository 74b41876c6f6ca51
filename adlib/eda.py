"""What the first notebook shows of a folder of images: pictures, numbers and the sentences that go with them."""
from __future__ import annotations

import html
import typing
from pathlib import Path

import numpy as np

from adlib import data, images
from adlib.data import Category
from adlib.datacheck import Findings


def card(findings: Findings) -> typing.Any:
    """The data card: what was found, and every problem, as an HTML table."""
    from IPython.display import HTML

    rows = "".join(f"<tr><th scope=row>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>" for name, value in findings.rows())
    problems = "".join(f"<li>{html.escape(problem)}</li>" for problem in findings.problems())
    return HTML(f"<table><caption>Data card</caption><tbody>{rows}</tbody></table>"
                + (f"<p><strong>Problems found:</strong></p><ul>{problems}</ul>" if problems else "<p>No problems found.</p>"))


def groups(category: Category) -> dict[str, list[Path]]:
    """The images by kind, for description only: train, then the test images by their defect."""
    labels = data.read_labels(category)
    found: dict[str, list[Path]] = {"train, good": list(category.train)}
    for path in category.test:
        label = labels.get(category.key(path))
        found.setdefault(f"test, {label.defect}" if label else "test, unlabelled", []).append(path)
    if category.train_bad:
        found["train_bad (never trained on)"] = list(category.train_bad)
    return found


def samples(category: Category, size: int, each: int = 8) -> dict[str, np.ndarray]:
    """{kind: [n,S,S,3] in [0,1]}: up to `each` images of every kind, evenly spaced over the sorted folder."""
    return {kind: _pictures(_spread(paths, each), size) for kind, paths in groups(category).items()}


def train_pictures(category: Category, size: int, most: int = 500) -> np.ndarray:
    """Up to `most` good training images, evenly spaced: float32 [N,S,S,3] in [0,1]."""
    return _pictures(_spread(list(category.train), most), size)


def brightness(category: Category, size: int) -> dict[str, np.ndarray]:
    """{kind: mean grey value [N] in [0,1]} of all images."""
    return {kind: images.brightness(images.load(paths, size)) for kind, paths in groups(category).items()}


def montage_sentence(category: Category, pictures: dict[str, np.ndarray]) -> str:
    return f"Sample images of {category.name}, a row each: " + ", ".join(f"{len(p)} {kind}" for kind, p in pictures.items()) + "."


def deviation_sentence(category: Category) -> str:
    return f"Mean image of the good training images of {category.name}, and each pixel's standard deviation over them."


def brightness_sentence(found: dict[str, np.ndarray]) -> str:
    return "Median grey value: " + ", ".join(f"{kind} {np.median(values):.3f}" for kind, values in found.items()) + "."


def answer(category: Category, findings: Findings) -> str:
    problems = findings.problems()
    text = f"{category.name} has {len(category.train)} good images to learn from and {len(category.test)} test images"
    if category.train_bad:
        text += f", and {len(category.train_bad)} known bad ones kept for evaluation"
    return text + (f". {len(problems)} problem(s) to look at, listed above." if problems else
                   ". Nothing found that speaks against using it.")


def _spread(paths: list[Path], most: int) -> list[Path]:
    return [paths[i] for i in np.unique(np.linspace(0, len(paths) - 1, min(most, len(paths))).astype(int))]


def _pictures(paths: list[Path], size: int) -> np.ndarray:
    return images.to_float(images.load(paths, size)).permute(0, 2, 3, 1).numpy()
