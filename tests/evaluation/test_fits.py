"""`fit: auto`: decided from good pictures alone, and told."""
import dataclasses

import numpy as np
import pytest
from PIL import Image

from adlib import cli
from adlib.config import FITS, Config, InputError
from adlib.data import files
from adlib.data.part import open_part as opened
from adlib.evaluation import fits
from adlib.evaluation.fits import open_part
from adlib.models import registry
from adlib.runs import freshness, inference, run_folder
from tests import handmade

pytestmark = pytest.mark.usefixtures("small_detectors")
CONFIG = Config(category="strip", image_size=64, tile_size=64, overlap=16, weights="none",
                precision="float32", device="cpu", held_out=0.3, target_fpr=0.3, model="memory",
                fit="auto", epochs=1)


def part_of(root, shape, n=14, bad=2):
    """Good parts of one shape, a little different each, and some with a spot."""
    for i in range(n + 2 * bad):
        height, width = shape
        rng = np.random.default_rng(i)
        grey = np.linspace(60, 140, width) + 8 * np.sin(np.arange(height) / 5)[:, None]
        grey = grey + rng.normal(0, 3, (height, width))
        kind = "train/good" if i < n else "test/good" if i < n + bad else "test/spot"
        if kind == "test/spot":
            grey[height // 2:height // 2 + 6, width // 2:width // 2 + 6] += 90
        path = root / "strip" / kind / f"{i:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8)).save(path)
    return dataclasses.replace(CONFIG, data_root=str(root), reports=str(root.parent / "reports"))


@pytest.mark.parametrize(("shape", "n", "fit", "reason"), [
    ((64, 64), 14, "squeeze", "square"), ((60, 64), 14, "squeeze", "square"),
    ((600, 620), 3, "tile", "large"),
    ((64, 200), 3, "pad", "few"), ((100, 100), 3, "squeeze", "few")])
def test_what_the_sizes_decide(tmp_path, shape, n, fit, reason):
    part = open_part(part_of(tmp_path / "data", shape, n))
    choice = part.fit_choice
    assert choice["reason"] == reason and choice["sizes"] == [list(shape[::-1])] * 2
    assert part.config.fit == choice["fit"] == fit and part.requested.fit == "auto"


@pytest.mark.parametrize(("separates", "expected"), [
    ({"pad"}, "pad"), ({"tile"}, "tile"), ({"pad", "tile"}, "pad"), (set(), "squeeze"),
    ({"squeeze", "tile"}, "squeeze")])
def test_the_simplest_that_none_beats_is_chosen(tmp_path, monkeypatch, separates, expected):
    """Within one standard error of the best."""
    asked = []

    def scores(detector, scale, images):  # of good pictures, then of anomalous ones, under each fit
        asked.append(len(images))
        higher = 3 if len(asked) % 2 == 0 and FITS[len(asked) // 2 - 1] in separates else 0
        noise = np.random.default_rng(len(images)).normal(0, 1, len(images))
        return {"distance.top1": higher + noise}

    monkeypatch.setattr(fits, "score_table", scores)
    assert open_part(part_of(tmp_path / "data", (64, 200))).config.fit == expected
    assert asked == [5, 80] * 3


def test_where_it_is_measured_no_test_picture_is_read_and_twice_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(fits, "SYNTHETIC", 24)
    config = part_of(tmp_path / "data", (40, 200))
    part = open_part(config)
    first = part.fit_choice
    assert first["reason"] == "measured" and first["sizes"] == [[200, 40]] * 2
    assert first["synthetic"] == 24
    assert set(first["auroc"]) == {"squeeze", "pad", "tile"}
    assert part.config.fit == first["fit"] and part.requested.fit == "auto"
    for path in (tmp_path / "data" / "strip" / "test").rglob("*.png"):
        path.write_bytes(b"no picture")
    assert open_part(config).fit_choice == first


def test_a_run_tells_what_was_chosen_and_is_reopened_by_it(tmp_path, monkeypatch):
    config = part_of(tmp_path / "data", (64, 200))
    with pytest.raises(InputError, match="fit is auto, which adlib.open_part decides"):
        registry.build(opened(config).config)
    monkeypatch.setattr(fits, "_measured", lambda *_: {"fit": "tile", "reason": "measured"})
    monkeypatch.setattr(handmade, "open_part", open_part)
    folder, *_ = handmade.spine(config)
    about = files.read_json(folder / "run.json")
    assert about["params"]["fit"] == "auto" and about["data"]["fit"]["fit"] == "tile"
    # up to date for who asks for auto
    assert about["inputs"] == freshness.of_run(
        dataclasses.replace(config, category="strip"), opened(config).category)
    run = inference.reopen(folder)
    assert run.config.fit == "tile" and run.detector.tile == 64
    assert run_folder.config_of(folder).fit == "tile"
    test = next((tmp_path / "data" / "strip" / "test" / "spot").iterdir())
    out = str(tmp_path / "out")
    assert cli.main(["predict", str(folder), str(test), "--out", out]) == 1  # found


def test_a_picture_that_cannot_be_read_is_named(tmp_path):
    config = part_of(tmp_path / "data", (64, 200))
    (tmp_path / "data" / "strip" / "train" / "good" / "003.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"1 of 14 images cannot be read.*003\.png"):
        open_part(config)
