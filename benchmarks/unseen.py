"""What is decided without labels, on parts that nobody had in view: drawn ones that differ as real
ones do, and crops of scikit-image's photographs of textures, learned from the left half of a
photograph and tested on the right one. A row a part.

    python -m benchmarks.unseen --weights FILE [PART ...]

AUROC of the images; `5%`, `10%`: of FRESH fresh good pictures refused where so many were asked;
`found`: bad ones refused at 5%; `foreign`: of 200 foreign pictures refused; `good foreign`: fresh
good ones called so. Of STREAMS streams of 1,000 good pictures (FRESH, in every round in another
order) how many warned, `5% bad` with every twentieth bad, and pictures until strength 3 was
noticed (median; how often named). `listed`, `good listed`: of a tenth of bad pictures among the
good ones, and of these, what the list of suspects has; `copies`: what it has as nearly copies.
"""
from __future__ import annotations

import argparse
import collections
import dataclasses
import shutil
import statistics
import tempfile
import typing
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from scipy import ndimage

from adlib.config import Config
from adlib.data import corruptions
from adlib.data.part import open_part
from adlib.evaluation import foreign_exam, suspects
from adlib.evaluation.auroc import auroc
from adlib.evaluation.calibration import chosen_scores
from adlib.evaluation.conditions import SCORE
from adlib.evaluation.results import truth_of
from adlib.models import registry
from adlib.models.detector import fit
from benchmarks import common, conditions, parts

SIDE, GOOD, FRESH, BAD, STREAMS = 128, 60, 200, 40, 20
TEXTURES, DEFECTS = ("brick", "gravel", "grass"), ("blot", "scratch", "dent", "faint")
Random = np.random.Generator


def draw(part: str, random: Random, *, fresh: bool = False) -> np.ndarray:
    """A good picture: uint8 [SIDE,SIDE,3]. fresh: of a texture, from the half that is tested on."""
    if part in TEXTURES:
        from skimage import data

        whole = getattr(data, part)()
        across, down = random.integers(0, whole.shape[1] // 2 - SIDE), random.integers(
            0, len(whole) - SIDE)
        across += fresh * whole.shape[1] // 2
        return np.repeat(whole[down:down + SIDE, across:across + SIDE, None], 3, axis=2)
    values = PARTS[part](random) + random.normal(0, 2, (SIDE, SIDE, 1))
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def damage(image: np.ndarray, kind: str, random: Random) -> np.ndarray:
    """With a defect of DEFECTS where something stands out from the rim: uint8 [SIDE,SIDE,3]."""
    off = np.abs(image.astype(float) - np.median(image[[0, -1]], axis=(0, 1))).max(axis=2)
    off[:16], off[-16:], off[:, :16], off[:, -16:] = 0, 0, 0, 0
    y, x = random.choice(np.argwhere(off >= min(20, np.quantile(off, 0.8))))
    down, across = np.mgrid[:SIDE, :SIDE] - np.reshape((y, x), (2, 1, 1))
    turn, size = random.uniform(0, np.pi), random.uniform(4, 8)
    along, aside = (np.cos(turn) * across + np.sin(turn) * down,
                    np.cos(turn) * down - np.sin(turn) * across)
    spot = np.exp(-(down**2 + across**2) / (2 * (0.6 * size)**2))[..., None]
    if kind == "blot":
        share = np.clip(2 * spot, 0, 1)
        values = image * (1 - share) + random.uniform(0, 255, 3) * share
    elif kind == "scratch":
        line = np.exp(-(aside / 0.9)**2) * (abs(along) < 3 * size)
        values = image + random.choice([-70, 70]) * line[..., None]
    elif kind == "dent":
        values = image + 70 * spot * (along / size)[..., None]
    else:  # faint
        values = image + random.choice([-20, 20]) * spot
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _canvas(colour: tuple[int, int, int]) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("RGB", (2 * SIDE, 2 * SIDE), colour)
    return image, ImageDraw.Draw(image)


def _small(image: Image.Image) -> np.ndarray:
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.LANCZOS), float)


def _disc(pen: ImageDraw.ImageDraw, x: float, y: float, r: float, colour: typing.Any) -> None:
    pen.ellipse([2 * SIDE * v for v in (x - r, y - r, x + r, y + r)], fill=colour)


def washer(random: Random) -> np.ndarray:
    """Lies anywhere, its shine too; nothing else tells one from another."""
    image, pen = _canvas((40, 40, 40))
    x, y = random.uniform(0.44, 0.56, 2)
    _disc(pen, x, y, 0.36, (150, 150, 150))
    _disc(pen, x, y, 0.17, (40, 40, 40))
    across, down = np.meshgrid(*(np.arange(SIDE) / SIDE - at for at in (x, y)))
    ring = abs(np.hypot(across, down) - 0.265) < 0.095
    shine = np.cos(2 * (np.arctan2(down, across) - random.uniform(0, np.pi)))
    return _small(image) + 25 * (ndimage.gaussian_filter(ring * 1.0, 0.7) * shine)[..., None]


def screw(random: Random) -> np.ndarray:
    """Turned anyhow, and small."""
    image, pen = _canvas((225, 226, 222))
    pen.polygon([(50, 94), (68, 110), (68, 146), (50, 162)], fill=(90, 90, 96))
    pen.rectangle([66, 116, 196, 140], fill=(90, 90, 96))
    for x in np.arange(90 + random.uniform(0, 5), 190, 7):
        pen.polygon([(x, 110), (x + 3, 117), (x + 5, 139), (x + 2, 146)], fill=(145, 145, 145))
    return _small(image.rotate(random.uniform(0, 360), Image.Resampling.BICUBIC,
                               fillcolor=(225, 226, 222)))


def hands(random: Random) -> np.ndarray:
    """Left or right, always in one place."""
    image, pen = _canvas((30, 34, 40))
    pen.rectangle([51, 51, 115, 205], fill=(160, 160, 155))
    pen.rectangle([51, 154, 205, 205], fill=(160, 160, 155))
    for x, y in ((0.32, 0.3), (0.32, 0.5), (0.65, 0.7)):
        _disc(pen, x, y, 0.05, (30, 34, 40))
    values = _small(image)[:, ::random.choice([-1, 1])]
    return ndimage.shift(values, (*random.normal(0, 0.4, 2), 0), order=1, mode="nearest")


def types(random: Random) -> np.ndarray:
    """A plate of seven kinds, each always the same."""
    own = np.random.default_rng(int(random.integers(7)))
    image, pen = _canvas((40, 60, 50))
    pen.rectangle([26, 26, 230, 230], fill=(150, 150, 145))
    for x, y in own.uniform(0.18, 0.82, (9, 2)):
        _disc(pen, x, y, own.uniform(0.02, 0.05), (40, 60, 50))
    return _small(image) + random.normal(0, 2)


PARTS: dict[str, typing.Callable[[Random], np.ndarray]] = {
    one.__name__: one for one in (washer, screw, hands, types)}


def write(root: Path, part: str) -> None:
    """As folders: train/good, test/good, test/<defect>."""
    for fold, (split, n) in enumerate([("train/good", GOOD), ("test/good", FRESH), *(
            (f"test/{kind}", BAD // len(DEFECTS)) for kind in DEFECTS)]):
        folder, kind = root / part / split, split.partition("test/")[2]
        folder.mkdir(parents=True)
        for i in range(n):
            random = np.random.default_rng([len(part), fold, i])
            image = draw(part, random, fresh=fold > 0)
            image = damage(image, kind, random) if kind in DEFECTS else image
            Image.fromarray(image).save(folder / f"{i:03d}.png")


def measure(root: Path, part: str, weights: str) -> dict[str, typing.Any]:
    config = Config(name="fused", model="fused", image_size=SIDE, weights=weights, category=part,
                    data_root=str(root))
    opened = open_part(config)
    pictures, bad = opened.test.tensor, truth_of(opened) == 1
    row: dict[str, typing.Any] = {"part": part}
    for names, kind in ((parts.HALVES, parts.WithHalves), (("pca", ), registry.build)):
        known = fit(kind(dataclasses.replace(config, model=names[0])), opened.train,
                    opened.held_out)
        for name, maps in zip(names, parts.smoothed(known.anomaly_maps(pictures)), strict=True):
            row[name] = f"{auroc(bad.astype(int), parts.top(maps)):.3f}"
    detector, decision = common.decided(opened)
    usual, unlike = decision.conditions, decision.calls_foreign(pictures)

    def taken(images: torch.Tensor) -> conditions.Values:
        return usual.measure(images) | {SCORE: chosen_scores(detector, decision, images)}

    values = taken(pictures)
    for rate in (0.05, 0.1):
        refused = decision.threshold.at(rate).exceeded(values[SCORE]) | unlike
        row[f"{rate:.0%}"] = int(refused[~bad].sum())
        row.setdefault("found", f"{int(refused[bad].sum())} of {BAD}")
    exam = foreign_exam.exam(detector, decision, opened).set_index("kind")
    row |= {"foreign": int(exam.loc["all", "refused"]), "good foreign": int(unlike[~bad].sum())}
    known = usual.calibration | {SCORE: decision.threshold.calibration}
    fresh, broken = ({name: one[some] for name, one in values.items()} for some in (~bad, bad))
    for name, more in (("warned", {}), ("5% bad", {"others": broken, "every": 20}), *(
            (name, {"others": taken(corruptions.apply(pictures[~bad], name, 3)),
                    "after": conditions.CHANGED_AT}) for name in ("brighter", "blur"))):
        found = [conditions.replay(known, fresh, seed, **more) for seed in range(STREAMS)]
        causes = collections.Counter(one.cause for one in found if one)
        row[name] = f"{causes.total()} {' '.join(causes)}".strip()
        if "after" in more:
            late = statistics.median(one.noticed - more["after"] if one else np.inf
                                     for one in found)
            row[name] = f"{late:.0f} ({causes[conditions.EXPECTED[name]]})"
    put = [path for path, one in zip(opened.test.paths, bad, strict=True) if one
           ][::BAD * 10 // GOOD][:GOOD // 10]
    for path in put:
        shutil.copy(path, root / part / "train" / "good" / f"{path.parent.name}-{path.name}")
    table = suspects.rank(open_part(config).good, config)
    is_bad, said = table["path"].str.contains("-"), ~table["reason"].isin(["", "copy"])
    return row | {"listed": f"{int((is_bad & said).sum())} of {len(put)}",
                  "good listed": f"{int((~is_bad & said).sum())} of {GOOD}",
                  "copies": int((table["reason"] == "copy").sum())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("parts", nargs="*", default=[*PARTS, *TEXTURES])
    parser.add_argument("--weights", required=True)
    given, head = parser.parse_args(), ""
    with tempfile.TemporaryDirectory() as made:
        for part in given.parts:
            write(Path(made), part)
        for part in given.parts:
            row = measure(Path(made), part, given.weights)
            if not head:
                head = "| " + " | ".join(row) + " |\n" + "|---" * len(row) + "|"
                print(head)
            print("| " + " | ".join(map(str, row.values())) + " |", flush=True)


if __name__ == "__main__":
    main()
