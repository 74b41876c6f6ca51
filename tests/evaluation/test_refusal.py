"""Pictures that are not the part: what tells them, and how they and anomalous ones share one asked
rate."""
import copy
from types import SimpleNamespace

import numpy as np
import torch
from PIL import Image

from adlib.config import Config
from adlib.data import siblings
from adlib.evaluation import calibration, refusal
from adlib.evaluation.conformal import Threshold
from tests.conftest import picture
from tests.data import test_siblings
from tests.evaluation.test_calibration import CONFIG, DISTANCE, opened


def test_what_tells_foreign_images_is_not_blinded_by_one_among_the_good():
    """A black image in the good folder is set aside, and black ones stay foreign."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:64, :64]
    good = torch.from_numpy(np.stack([np.clip(
        40 + 150 * (np.hypot(y - 32 - dy, x - 32 - dx) < 18) + rng.normal(0, 6, (3, 64, 64)), 0,
        255).astype(np.uint8) for dy, dx in rng.integers(-3, 4, (40, 2))]))
    model = calibration.Foreign(Config(weights="none", image_size=64))
    clean = refusal.fit_foreign(model, good, seed=0).calibration.clone()
    assert model.set_aside <= 1
    black = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    refusal.fit_foreign(model, torch.cat([good, black]), seed=0)
    assert model.set_aside >= 1 and model.calibration.max() < 1.5 * clean.max()
    threshold = calibration.TailThreshold(model.calibration.numpy(), refusal.FOREIGN_FPR)
    assert threshold.exceeded(model.distances(model.features(black)).numpy()).all()


class Known:
    """What Foreign has found out, without one."""

    def __init__(self, calibration, of=None):
        self.calibration = self.own = torch.tensor(calibration)
        self.of = torch.arange(len(calibration)) if of is None else of


def test_an_image_that_the_others_call_foreign_uses_up_the_budget():
    near = np.linspace(1, 2, 59).tolist()
    model, distances = Known([*near, 30.0]), np.array([*near, 30.0, 100.0])  # the last: set aside
    scores = np.arange(61.0)[::-1].copy()
    budget = refusal.one_budget(model, distances, scores, 0.05)
    assert budget.tolist() == [*scores[:59], 60.0]
    assert np.flatnonzero(refusal.counted_first(model, distances)).tolist() == [59]
    assert np.flatnonzero(refusal.counted_first(model, distances, new=True)).tolist() == [60]
    assert not refusal.counted_first(Known(near), np.array(near)).any()
    assert not refusal.counted_first(None, np.array(near)).any()
    asked = int(0.05 * 61)  # of sixty and a new one, less the new one itself
    refused = Threshold(budget, 0.05).exceeded(scores[:60]) | (distances[:60] == 30)
    assert refused.sum() == asked - 1
    alone = Threshold(scores[:60], 0.05).exceeded(scores[:60]) | (distances[:60] == 30)
    assert alone.sum() == asked  # without the budget one more


def test_no_copy_of_it_vouches_for_an_image_that_the_others_call_foreign():
    near = np.linspace(1, 2, 29).tolist()
    model = Known([*near, 30.0, *near, 29.0], torch.arange(30).repeat(2))
    held = np.array([1.5, 30.0, 2.0])  # without their copies
    assert refusal.counted_first(model, held).tolist() == [False, True, False]
    assert refusal.one_budget(model, held, np.arange(3.0), 0.05).tolist() == [0, 2, 2]
    # The copy alone is beyond: its image counts as any other.
    model = Known([*near, 2.0, *near, 30.0], torch.arange(30).repeat(2))
    assert not refusal.counted_first(model, np.array([1.5, 2.0])).any()


def test_varied_and_too_few_a_picture_of_something_else_counts_first(course_root):
    """As without copies: what it says of the good pictures does not hang on being attainable."""
    stripes = np.zeros((32, 32, 3), np.uint8)
    stripes[::2] = 255
    for i in range(8, 20):
        picture(course_root / "nut" / "train" / "good" / f"{i:03d}.png", i)
    good = sorted((course_root / "nut" / "train" / "good").glob("*.png"))
    part = opened(course_root, vary=True, target_fpr=0.05, held_out=0.4)
    place = good[int(part.held_out_index[0])]
    Image.fromarray(stripes).save(place)
    part = opened(course_root, vary=True, target_fpr=0.05, held_out=0.4)
    known, of = refusal.known_good(part)
    model = calibration.Foreign(part.config)
    model.fit(model.features(known), of)  # none set aside, as a milder one would not be
    distances = model.distances(model.features(part.held_out.tensor)).numpy()
    assert refusal.counted_first(model, distances).tolist() == [True] + [False] * (
        len(distances) - 1)


def test_where_too_few_would_be_left_none_is_left_out():
    near = np.linspace(1, 2, 18).tolist()
    scores = np.arange(19.0)
    budget = refusal.one_budget(Known(near), np.array([*near, 100.0]), scores, 0.05)
    assert budget.tolist() == scores.tolist() and Threshold(budget, 0.05).is_attainable
    few = refusal.one_budget(Known(near[:9]), np.array([*near, 100.0]), scores, 0.05)
    assert few.tolist() == scores.tolist()  # nine say nothing
    told = refusal.one_budget(Known(near), np.array([*near, 100.0]), scores[::-1].copy(), 0.05,
                                  new=True)
    assert told.tolist() == [*scores[:0:-1], 18.0]  # of new ones, a foreign one has no better rank
    assert refusal.one_budget(None, np.zeros(19), scores, 0.05) is scores


def test_varied_no_copy_vouches_for_its_picture_when_foreign_ones_are_told(course_root):
    """With it in, new pictures that are so disturbed were called foreign, half of the noisy."""
    part = opened(course_root, vary=True, target_fpr=0.3)
    model = calibration.calibrate(DISTANCE, part).foreign
    known, of = refusal.known_good(part)
    assert of.tolist() == [*range(len(part.good))] * 2
    alone = refusal.fit_foreign(copy.deepcopy(model), known, seed=CONFIG.seed)
    assert model.calibration.median() > alone.calibration.median()


def test_no_picture_of_the_same_thing_vouches_for_one_when_foreign_ones_are_told():
    """A part made tomorrow has no sibling among the good ones."""
    pictures = test_siblings.pictures()
    part = SimpleNamespace(good=SimpleNamespace(tensor=pictures), config=Config(weights="none"))
    known, of = refusal.known_good(part)
    assert known is pictures and torch.equal(of, siblings.groups(pictures))
    part.good.tensor = pictures[:24]  # each of its own: as it always was
    assert refusal.known_good(part)[1] is None
