"""Maps of good images by detectors that have not seen them."""
import copy
import dataclasses

import numpy as np
import pytest
import torch

from adlib.config import FITTED_IN_SECONDS
from adlib.evaluation import conformal
from adlib.models import detectors, fused, registry
from adlib.models.detector import fit
from adlib.models.fast.device import threads
from tests.models.striped import (
    HELD,
    KEPT,
    SIDE,
    TRAINED,
    configured,
    equal_states,
    fitted_to,
    maps,
    pictures,
    spotted,
)

pytestmark = pytest.mark.usefixtures("quick")
FOLDS = conformal.folds(11, 4, 0)


def crossed(detector, good, index, folds):
    return [{name: values.numpy() for name, values in found.items()}["distance"]
            for found in detector.cross_fitted_maps(good, index, folds)]


@pytest.mark.parametrize("model", FITTED_IN_SECONDS)
def test_cross_fitted_maps_are_of_every_held_image(fitted, model):
    found = crossed(fitted[model], pictures(), KEPT, FOLDS[:2])
    for held, (_, index) in zip(found, FOLDS[:2], strict=True):
        assert held.shape == (len(index), SIDE, SIDE) and held.dtype == np.float32
        assert np.isfinite(held).all()


@pytest.mark.parametrize("model", [*TRAINED, "contrast", "cae"])
def test_what_takes_long_to_fit_and_what_is_none_of_ours_is_not_cross_fitted(model):
    detector = registry.build(configured(model))
    assert detector.cross_fitted_maps(pictures(), KEPT, FOLDS) is None


def test_more_pictures_than_it_would_hold_the_features_of_are_not_cross_fitted(fitted, monkeypatch):
    for most, crosses in ((11, True), (10, False)):
        monkeypatch.setattr(fused, "MOST", most)
        found = fitted["pca"].cross_fitted_maps(pictures(), KEPT, FOLDS)
        assert (found is not None) == crosses


REFITTED = sorted(set(fused.CLOSED_FORM) - set(fused.LEFT_OUT))


@pytest.mark.parametrize("model", REFITTED)
def test_each_fold_is_a_fit_on_the_rest(fitted, model):
    features = fitted[model].features(pictures())
    found = crossed(fitted[model], pictures(), KEPT, FOLDS[1:3])
    for held, (rest, index) in zip(found, FOLDS[1:3], strict=True):
        alone = fused.CLOSED_FORM[model]().fit(features[rest], 0)
        assert np.array_equal(held, alone(features[index]).numpy())


@pytest.mark.parametrize("model", REFITTED)
def test_what_does_not_count_of_the_rest_has_no_say_in_a_folds_fit(fitted, model):
    """Of each picture another part counts, and a fold's fit takes those of its own pictures."""
    detector, good = fitted[model], pictures()
    area = torch.ones(len(good), *good.shape[-2:], dtype=torch.bool)
    for i, one in enumerate(area):
        one[:, :8 * (i % 4)] = False
    features, counts = detector.features(good), detector._counts(area)
    found = detector.cross_fitted_maps(good, KEPT, FOLDS[1:3], area)
    for held, (rest, index) in zip(found, FOLDS[1:3], strict=True):
        alone, whole = (fused.CLOSED_FORM[model]().fit(features[rest], 0, which)(features[index])
                        for which in (counts[rest], None))
        assert torch.equal(held["distance"], alone) and not torch.equal(alone, whole)


def test_an_outlier_among_the_good_images_is_not_judged_by_a_fit_that_has_seen_it():
    """A memory that has seen it would find it at no distance."""
    good = spotted(pictures(), 4)
    naive = fit(configured("memory"), good)
    assert maps(naive, good)[4].max() < 0.1
    found = crossed(naive, good, torch.arange(11), FOLDS)
    for held, (_, index) in zip(found, FOLDS, strict=True):
        tops = dict(zip(index.tolist(), held.max(axis=(1, 2)), strict=True))
        if 4 in tops:
            assert tops.pop(4) > 3 * max(tops.values()) > 1


@pytest.mark.parametrize("model", REFITTED)
def test_held_images_have_no_say_in_the_fit_that_judges_them(model, monkeypatch):
    """Whatever the held images of a fold look like, its head is the same, bit for bit."""
    heads, fit_head = [], fused.FeatureDetector._fit_head

    def spy(self, *learned):
        heads.append(fit_head(self, *learned))
        return heads[-1]

    fitted = fitted_to(model)
    monkeypatch.setattr(fused.FeatureDetector, "_fit_head", spy)
    held = FOLDS[0][1]
    assert set(held) & set(KEPT.tolist())  # some of them trained the head of `fitted`
    changed = pictures()
    changed[held] = spotted(changed.flip(3), held, y=8, x=8)[held]
    first, again = (crossed(fitted, some, KEPT, FOLDS[:1])[0] for some in (pictures(), changed))
    # They themselves are other images now.
    assert not np.allclose(first, again, rtol=0.01)
    assert len(heads) == 2 and equal_states(*heads)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_by_two_threads_maps_are_the_same_and_the_generator_stays(precision, monkeypatch):
    monkeypatch.setattr(detectors, "AT_ONCE", 64)  # of 176 cells: what is one part is not spread
    found = []
    detector = fitted_to("fused", precision=precision)
    before = torch.get_rng_state()
    for n in (1, 2):
        with threads(n):
            found.append([maps(detector, pictures()), *crossed(detector, pictures(), KEPT, FOLDS)])
    assert all(map(np.array_equal, *found)) and torch.equal(before, torch.get_rng_state())


def test_no_image_is_compared_with_its_own_patches(fitted):
    """The nearest patches of the others, found by hand; of an image that was not fitted on, of
    all."""
    detector = fitted["memory"]
    features, place = detector.features(pictures()), {int(i): n for n, i in enumerate(KEPT)}
    assert set(place) < set(range(11))
    for held, (_, index) in zip(crossed(detector, pictures(), KEPT, FOLDS), FOLDS, strict=True):
        for found, i in zip(held, index, strict=True):
            bank = detector.head.bank[detector.head.image != place.get(int(i), -1)]
            expected = torch.cdist(features[i].flatten(1).T.double(), bank.double()).min(1).values
            assert found.ravel() == pytest.approx(expected.numpy(), rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("model", ["classifier", "fused"])
def test_a_classifier_that_judges_images_has_learned_nothing_of_them(fitted, model, monkeypatch):
    head = getattr(fitted[model].head, "classifier", fitted[model].head)
    before, rows_used = head.head, []
    trained = detectors.SyntheticAnomalyClassifier._trained
    kind = detectors.SyntheticAnomalyClassifier
    monkeypatch.setattr(kind, "_trained", lambda self, rows, *epochs: (
        rows_used.append(rows), trained(self, rows, *epochs))[1])
    crossed(fitted[model], pictures(), KEPT, FOLDS)
    x, y, made_of = head.training_set
    assert len(x) == len(y) == len(made_of)
    assert set(made_of.unique().tolist()) == set(range(len(KEPT)))
    assert y[made_of[:, 0] != made_of[:, 1]].any() and not y.all()
    for rows, (_, held) in zip(rows_used, FOLDS, strict=True):
        own = [n for n, i in enumerate(KEPT.tolist()) if i in held]
        kept = np.array([not set(row) & set(own) for row in made_of.tolist()])
        assert kept.all() == (not own) and kept.any()
        assert rows.tolist() == np.flatnonzero(kept).tolist()
    assert head.head is before  # that of the run stays


def test_a_classifier_trained_again_is_trained_as_long_and_on_the_same_scale(fitted, monkeypatch):
    """Else, where the training set is easy, what is left out looks less usual than what is new."""
    head, steps, one_cycle = fitted["classifier"].head, [], detectors.training.one_cycle

    def counted(*given, **more):
        steps.append(more["epochs"] * (given[2] // more["batch_size"]))
        return one_cycle(*given, **more)

    monkeypatch.setattr(detectors, "BATCH", 64)
    monkeypatch.setattr(detectors.training, "one_cycle", counted)
    x, y, made_of = head.training_set
    again, left_out = head.without(torch.tensor([0, 1])), torch.tensor([0, 1])
    assert steps == pytest.approx([detectors.EPOCHS * (len(x) // 64)], rel=0.1)
    good = x[(y == 0) & ~torch.isin(made_of, left_out).any(dim=1)]
    with torch.no_grad():
        own, other = head.head(good), again.head(good)
    assert not torch.allclose(own, other)
    assert [float(other.mean()), float(other.std())] == pytest.approx(
        [float(own.mean()), float(own.std())], rel=1e-3)


def test_of_good_pictures_that_are_all_alike_a_classifier_trained_again_keeps_its_scale(
        monkeypatch):
    head, weights = copy.deepcopy(fitted_to("classifier").head), []
    trained = type(head)._trained
    monkeypatch.setattr(type(head), "_trained", lambda self, *given: (
        found := trained(self, *given), weights.append(found[0][-1].weight.clone()))[0])
    x, y, made_of = head.training_set
    head.training_set = torch.where(y[:, None] == 0, 0.0, x), y, made_of
    again = head.without(torch.tensor([0, 1]))
    assert torch.allclose(again.head[-1].weight, weights[0])


def test_the_folds_of_the_fused_detector_have_the_scales_of_the_whole(fitted):
    detector, folds = fitted["fused"], [(KEPT.numpy(), HELD.numpy())]
    (found, ) = crossed(detector, pictures(), KEPT, folds)
    head = detector.head
    centre, spread = head.centre.clone(), head.spread.clone()
    head.centre, head.spread = centre + 1, 2 * spread
    try:
        (other, ) = crossed(detector, pictures(), KEPT, folds)
    finally:
        head.centre, head.spread = centre, spread
    whole = head.whole(detector.features(pictures()[HELD]))[:, None, None].numpy()  # has its own
    expected = (found - whole) / 2 - (0.5 / spread).sum(dim=0).numpy() + whole
    # (map - centre) / spread in float32: the sum's rounding at the size of what was subtracted.
    size = float(((np.abs(found).max() + centre.abs()) / spread).max())
    assert other == pytest.approx(expected, rel=0, abs=16 * 2**-24 * size)


@pytest.mark.parametrize("model", ["pca", "memory", "fused"])
def test_the_maps_by_the_head_in_use_that_come_with_the_folds_are_its_own(fitted, model):
    detector, without = fitted[model], 0.0
    found = detector.cross_fitted_maps(pictures(), KEPT, FOLDS)
    for maps_of, (_, held) in zip(found, FOLDS, strict=True):
        expected, own = maps(detector, pictures()[held]), maps_of["own distance"].numpy()
        # the same features to the bit; float32's sums of some hundred terms in another order
        assert np.allclose(own, expected, rtol=0, atol=2**-12 * np.abs(expected).max())
        without = max(without, np.abs(maps_of["distance"].numpy() - own).max())
    assert without > 0  # which a fold of pictures that were not fitted on need not show


def test_a_sibling_says_nothing_of_a_picture_that_stands_in_for_parts_to_come(monkeypatch):
    """The memory is the same; only the pictures that have a sibling in it look less usual."""
    from tests.data.test_siblings import pictures as siblings_too

    good, folds = siblings_too(), [(np.arange(29), np.arange(29))]
    config = dataclasses.replace(configured("memory"), image_size=96)

    def scores():
        detector = fit(config, good)
        (found, ) = crossed(detector, good, torch.arange(29), folds)
        return found.mean(axis=(1, 2))

    apart = scores()
    monkeypatch.setattr(fused.siblings, "groups", lambda *sets: torch.arange(sum(map(len, sets))))
    together = scores()
    have = np.isin(np.arange(29), [0, 1, 2, 3, 24, 25, 26, 27, 28])
    np.testing.assert_allclose(apart[~have], together[~have], rtol=1e-4)
    assert (apart[have] >= (1 - 1e-4) * together[have]).all()
    assert (apart[[0, 24]] > 1.02 * together[[0, 24]]).all()  # two in the same light
