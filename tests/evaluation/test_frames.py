"""Whole runs in every frame: what is ignored has no say in them, and a picture is one part."""
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from adlib.config import Config, InputError
from adlib.data import files
from adlib.data.part import open_part
from adlib.evaluation import limits, results
from adlib.evaluation.calibration import calibrate, score_table
from adlib.models.detector import fit as fit_detector
from adlib.models.fused import FeatureDetector
from adlib.runs import inference, run_folder
from tests import handmade

SHAPES = ((70, 110), (80, 100), (66, 104))  # two rows of two squares of 64
pytestmark = pytest.mark.usefixtures("small_detectors")
NUMBER = (slice(0, 24), slice(0, 60))  # where a serial number is printed
SMALL = {"category": "strip", "image_size": 96, "tile_size": 64, "overlap": 16, "weights": "none",
         "precision": "float32", "device": "cpu", "epochs": 1, "held_out": 0.4, "target_fpr": 0.3}


def picture(path, seed, *, defect=False, ignored=0, shape=None):
    """A long part of varying size; `ignored` seeds what is in the region that is not looked at."""
    height, width = shape or SHAPES[seed % len(SHAPES)]
    rng = np.random.default_rng(seed)
    grey = np.linspace(60, 140, width) + 8 * np.sin(np.arange(height) / 5)[:, None]
    grey = grey + rng.normal(0, 3, (height, width))
    grey[NUMBER] = np.random.default_rng([ignored, seed]).uniform(0, 255, (24, 60))
    mask = np.zeros((height, width), bool)
    if defect:
        mask[50:60, 80:90] = True
        grey[mask] += 90
    for target, values in ((path, np.clip(grey, 0, 255).astype(np.uint8)), (
            path.parents[2] / "ground_truth" / "spot" / f"{path.stem}_mask.png", mask)):
        if target == path or defect:
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(target)


def category(root, ignored=0):
    place = root / "strip"
    for i in range(8):
        picture(place / "train" / "good" / f"{i:03d}.png", i, ignored=ignored)
    for i in range(3):
        picture(place / "test" / "good" / f"{i:03d}.png", 20 + i, ignored=ignored)
        picture(place / "test" / "spot" / f"{i:03d}.png", 30 + i, defect=True, ignored=ignored)
    hidden = np.zeros(SHAPES[0], bool)
    hidden[:26, :68] = True  # with room for every shape
    (place / "ignore").mkdir()
    Image.fromarray(hidden).save(place / "ignore" / "number.png")
    return root


@pytest.mark.parametrize(("fit", "model"), [
    ("squeeze", "memory"), ("pad", "fused"), ("pad", "cae"), ("tile", "fused"), ("tile", "cae")])
def test_what_is_ignored_has_no_say(tmp_path, fit, model):
    """Other serial numbers, in every picture of the data: the same numbers to the last digit."""
    found = []
    for ignored in (0, 1):
        root = category(tmp_path / f"data-{ignored}", ignored)
        config = Config(**SMALL, model=model, fit=fit, data_root=str(root),
                        reports=str(tmp_path / f"reports-{ignored}"))
        folder, _, decision, results = handmade.spine(config)
        found.append((files.read_json(folder / "metrics.json"), results))
    (first, one), (second, other) = found
    assert first == second
    pd.testing.assert_frame_equal(one.table, other.table)
    assert np.array_equal(one.maps, other.maps) and np.isfinite(one.maps).all()
    # the defect is in the numbers, though
    assert one.localization["pixel_auroc"] > 0.5 and len(one.regions) == 3
    if fit == "tile":  # measured on the file's own pixels
        assert one.regions["area"].tolist() == [100] * 3


@pytest.mark.parametrize("fit", ["pad", "tile"])
def test_robustness_is_of_what_the_detector_is_given(tmp_path, fit, monkeypatch):
    """Disturbed as it is laid: what does not count stays, so that another number on it has no
    say."""
    monkeypatch.setattr(limits.corruptions, "CORRUPTIONS", ("shift", "blur"))
    monkeypatch.setattr(limits.corruptions, "STRENGTHS", (2, 5))
    found = []
    for ignored in (0, 1):
        root = category(tmp_path / f"data-{ignored}", ignored)
        part = open_part(Config(**SMALL, model="memory", fit=fit, data_root=str(root)))
        detector = fit_detector(part.config, part.train, part.held_out)
        found.append(limits.robustness(detector, calibrate(detector, part), part))
    pd.testing.assert_frame_equal(*found)
    assert found[0]["strength"].iloc[0] == 0 and found[0]["auroc"].iloc[0] == 1


def test_a_disk_too_full_for_the_maps_of_tiles_is_a_sentence(tmp_path, monkeypatch):
    part = open_part(Config(**SMALL, model="memory", fit="tile",
                            data_root=str(category(tmp_path / "data"))))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with results._native(part) as (keep, _), pytest.raises(
            InputError, match="cannot write .*0.npy: No space left on device; free some space"):
        keep(np.zeros((4, 4), np.float32), 0)


def test_a_threshold_from_all_good_pictures_has_their_features_once(tmp_path, monkeypatch):
    """Of a large picture features take long: its own score comes with that by the others."""
    part = open_part(Config(**SMALL | {"held_out": 0.2}, model="memory", fit="tile",
                            data_root=str(category(tmp_path / "data"))))
    detector = fit_detector(part.config, part.train, part.held_out)
    seen, features = [], FeatureDetector.features
    monkeypatch.setattr(FeatureDetector, "features", lambda self, images, *origins: seen.append(
        len(images)) or features(self, images, *origins))
    decision = calibrate(detector, part)
    tiles = [sum(seen)]
    seen.clear()
    detector._known.clear()  # what it has seen
    for split in ("train", "held_out"):
        expected = score_table(detector, decision.scale, getattr(part, split))
        pd.testing.assert_frame_equal(decision.good_scores[split], expected)
    each = sum(seen) / 8
    assert decision.threshold.how == "cross-conformal" and len(part.held_out) == 2
    # 8 once, the held-out ones for the scale, and the synthetic anomalies
    assert tiles == [(8 + 2 + len(decision.synthetic)) * each]


@pytest.mark.parametrize(("fit", "scale"), [("squeeze", 1), ("pad", 1), ("tile", 1), ("tile", 0.5)])
def test_sizes_are_counted_in_the_files_pixels(tmp_path, fit, scale):
    root = category(tmp_path / "data")
    (root / "strip" / "ignore" / "number.png").unlink()
    good = open_part(Config(**SMALL, fit=fit, scale=scale, data_root=str(root))).good
    for i, image in enumerate(good.given):
        height, width = SHAPES[i % len(SHAPES)]
        shown = (image[3] > 0).float().mean().item() if len(image) == 4 else 1.0
        assert shown * good.own_pixels(i) == pytest.approx(height * width, rel=1e-6)


@pytest.mark.parametrize(("fit", "model"), [("pad", "fused"), ("tile", "memory")])
def test_a_reopened_run_scores_a_file_as_the_run_did(tmp_path, fit, model):
    root = category(tmp_path / "data")
    config = Config(**SMALL, model=model, fit=fit, data_root=str(root),
                    reports=str(tmp_path / "reports"))
    folder, _, decision, results = handmade.spine(config)
    run = inference.reopen(folder)
    assert not run.looked_at[:26, :68].any() and run.looked_at.sum() == 70 * 110 - 26 * 68
    assert (folder / run_folder.LOOKED_AT).exists()
    table = results.table[results.table["split"] == "test"]
    scores = [run.scores(run.decode(root / path).given[None])[0] for path in table["path"]]
    # kept features are float16: a batch of another size rounds some of them to the next one
    assert scores == pytest.approx(table["chosen_score"].tolist(), rel=1e-4, abs=0.01)
    (_, maps) = run.score_with_maps(run.decode(root / table["path"].iloc[-1]).given[None])
    assert maps.shape == (1, 96, 96)
    # a picture is one part: one score, and a p-value among whole pictures
    assert len(decision.threshold.calibration) in (3, 8)
    assert table["chosen_p_value"].between(0, 1).all()
