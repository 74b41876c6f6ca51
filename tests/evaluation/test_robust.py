"""`robust: true`: what the good pictures call damaged or foreign is left out of the whole fit."""
import dataclasses
import shutil

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from adlib.config import Config, InputError
from adlib.data import files, layout
from adlib.data.part import open_part as with_all
from adlib.evaluation import suspects
from adlib.evaluation.auroc import auroc
from adlib.evaluation.calibration import calibrate, score_table
from adlib.evaluation.fits import open_part
from adlib.models import registry
from adlib.models.detector import fit
from adlib.runs import freshness, inference
from tests.handmade import spine

CONFIG = Config(category="nut", model="memory", weights="none", image_size=64, target_fpr=0.1,
                precision="float32", device="cpu", robust=True)
BAD = [f"nut/train/good/bad-{i}.png" for i in range(3)]


def picture(i, *, bad=False):
    """Smooth texture under a gradient, each another one; bad: with a spot, always at one place."""
    rng = np.random.default_rng(i)
    texture = 250 * ndimage.gaussian_filter(rng.normal(0, 1, (128, 128)), 5)
    grey = (np.linspace(60, 140, 128)[:, None] + texture)[:, :, None]
    values = np.clip(grey + rng.normal(0, 3, (128, 128, 3)), 0, 255).astype(np.uint8)
    if bad:
        values[40:70, 40:70] = 250, 40, 40
    return Image.fromarray(values)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """27 good pictures, three of which are none, and twelve to test, half of them bad."""
    root = tmp_path_factory.mktemp("data")
    for split, numbers, bad in (("train/good", range(24), False), ("test/good", range(50, 56), 0),
                                ("test/spot", range(60, 66), True)):
        (root / "nut" / split).mkdir(parents=True)
        for i in numbers:
            picture(i, bad=bad).save(root / "nut" / split / f"{i:03d}.png")
    for i, name in enumerate(BAD):
        picture(30 + i, bad=True).save(root / name)
    return root


@pytest.fixture
def config(root):
    return dataclasses.replace(CONFIG, data_root=str(root))


@pytest.fixture(scope="module")
def opened(root, tmp_path_factory):
    """The part without what is left out of it, and how many pictures were ranked each time."""
    asked, known = [], suspects.rank

    def rank(good, config):
        asked.append(len(good))
        return known(good, config)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADLIB_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(suspects, "rank", rank)
        return open_part(dataclasses.replace(CONFIG, data_root=str(root))), asked


def measured(config, part):
    detector = fit(registry.build(config), part.train, part.held_out)
    decision = calibrate(detector, part)
    scores = score_table(detector, decision.scale, part.test)[decision.score].to_numpy()
    bad = np.array(["spot" in key for key in part.test.keys])
    return (auroc(bad.astype(int), scores), decision.threshold.value,
            int(decision.threshold.exceeded(scores)[bad].sum()))


def test_of_few_pictures_none_is_left_out(config, root, tmp_path):
    """Whose usual spread says too little: clean folders of twelve lost up to four."""
    few = tmp_path / "nut" / "train" / "good"
    few.mkdir(parents=True)
    for path in (root / BAD[0], *sorted((root / "nut" / "train" / "good").glob("0*"))[:18]):
        shutil.copyfile(path, few / path.name)
    part = open_part(dataclasses.replace(config, data_root=str(tmp_path)))
    assert part.left_out == [] and len(part.good) == 19 == suspects.LEAST - 1


def test_what_is_damaged_is_left_out_of_all_good_pictures(opened):
    part, asked = opened
    gone = [row["path"] for row in part.left_out]
    assert set(BAD) <= set(gone) and len(gone) <= 4
    assert {row["reason"] for row in part.left_out} <= {"anomalous", "unlike"}
    assert min(row["distance"] for row in part.left_out) > suspects.FAR
    assert not set(part.good.keys) & set(gone) and len(part.good) == 27 - len(gone)
    both = sorted([*part.train_index.tolist(), *part.held_out_index.tolist()])
    assert both == list(range(len(part.good)))
    assert len(part.category.train) == 27  # the data are what they were
    # the rest was asked once again without the first ones, and then few went
    assert asked[0] == 27 and asked[1] <= 24 and len(asked) == 2 and len(set(gone)) == len(gone)


def test_a_dirty_folder_is_as_good_as_a_clean_one(config, opened):
    clean = dataclasses.replace(config, robust=False, exclude=str(BAD))
    dirty = dataclasses.replace(config, robust=False)
    of_clean, of_dirty = (measured(one, open_part(one)) for one in (clean, dirty))
    of_robust = measured(config, opened[0])
    assert of_robust[0] >= of_clean[0] - 0.005 and of_robust[0] >= of_dirty[0]
    # what is bad calibrates, too
    assert abs(of_robust[1] - of_clean[1]) < of_dirty[1] - of_clean[1]
    assert of_dirty[2] < of_clean[2] == of_robust[2] == 6


def test_a_clean_folder_loses_hardly_a_picture(config):
    part = open_part(dataclasses.replace(config, exclude=str(BAD)))
    assert len(part.left_out) <= 1 and len(part.good) >= 23


def test_without_it_nothing_is_left_out(config):
    part = open_part(dataclasses.replace(config, robust=False))
    assert part.left_out is None and len(part.good) == 27


def test_what_is_not_looked_at_makes_no_suspect(config, root, tmp_path):
    shutil.copytree(root, tmp_path, dirs_exist_ok=True)
    mask = np.zeros((128, 128), np.uint8)
    mask[32:80, 32:80] = 255  # where the spots are
    Image.fromarray(mask).save(tmp_path / "nut" / "mask.png")
    config = dataclasses.replace(config, data_root=str(tmp_path), ignore="mask.png")
    assert not set(BAD) & {row["path"] for row in open_part(config).left_out}


def test_a_reopened_run_has_what_was_left_out_and_asks_nothing_again(
        config, tmp_path, monkeypatch, small_detectors):
    folder = spine(dataclasses.replace(config, reports=str(tmp_path / "reports")))[0]
    gone = files.read_json(folder / "run.json")["data"]["left_out"]
    assert set(BAD) <= {row["path"] for row in gone}
    monkeypatch.setattr(suspects, "rank", None)
    run, part = inference.reopen_with_data(folder)
    assert part.left_out == gone and len(part.good) == 27 - len(gone)
    assert run.config.robust


@pytest.mark.parametrize("model", ["cae", "contrast"])
def test_it_takes_a_network_to_compare_pictures_by(model):
    with pytest.raises(InputError, match=f"robust compares pictures .* {model!r}"):
        Config(model=model, robust=True)


def test_data_opened_without_the_decision_have_all_pictures(config):
    assert len(with_all(config).good) == 27


def test_a_run_without_it_is_made_again_when_it_is_asked_for(config, root):
    category = layout.open_category(root, "nut")
    before = freshness.of_run(dataclasses.replace(config, robust=False), category)
    now = freshness.of_run(config, category)
    assert freshness.why_stale({"inputs": before}, now) == "robust: False -> True"
