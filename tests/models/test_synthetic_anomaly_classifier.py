"""A classifier that tells good cells from those of synthetic anomalies."""
import pytest
import torch

from adlib.config import InputError
from adlib.models import detectors, training
from tests.models.cells import (
    CHANNELS,
    SIDE,
    anomalies_of,
    classifier,
    fitted,
    good_features,
    mapped,
    planted,
)


def test_the_classifier_learns(monkeypatch):
    monkeypatch.setattr(detectors, "BATCH", 64)  # of so few cells: several steps an epoch
    detector = classifier().fit(good_features(), *anomalies_of())
    losses = [row["loss"] for row in detector.history]
    assert len(losses) == detectors.EPOCHS and losses[-1] < 0.6 * losses[0]
    assert not any(module.training for module in detector.head.modules())
    unseen, unseen_masks, _ = anomalies_of(seed=30)
    odd = unseen_masks[:, ::4, ::4]
    found = mapped(detector, unseen)
    assert found[odd].min() > found[~odd].max()
    # a logit: 0 is the border between the two
    assert (mapped(detector, good_features(seed=40)) < 0).float().mean() > 0.9


def test_the_classifier_looks_at_sizes_of_differences_in_deviations_of_good_ones():
    """The same for other units, and for a difference to either side."""
    good, (anomalous, masks, made_of) = good_features(), anomalies_of()
    one = classifier().fit(good, anomalous, masks, made_of)
    other = classifier().fit(4 * good + 1, 4 * anomalous + 1, masks, made_of)
    unseen = good_features(3, seed=5)
    # A shift of 1 rounds the features; training amplifies it.
    assert torch.allclose(mapped(one, unseen), mapped(other, 4 * unseen + 1), atol=0.05)
    one.memory.bank = torch.zeros(1, CHANNELS)
    assert torch.equal(mapped(one, unseen), mapped(one, -unseen))


def test_no_cell_is_compared_with_an_image_that_it_is_made_of(monkeypatch):
    """Else its difference were nothing, in training alone."""
    compared, original = [], detectors.Memory.nearest_other

    def spy(self, cells, without, search, known=None):
        compared.append(set(without.tolist()))
        return original(self, cells, without, search, known)

    monkeypatch.setattr(detectors.Memory, "nearest_other", spy)
    anomalous, masks, _ = anomalies_of(3)
    detector = classifier().fit(good_features(2), anomalous, masks,
                                torch.tensor([[0, 1], [1, 1], [0, 0]]))
    assert compared == [{0}, {1}, {0, 1}, {1}, {0}, {0, 1}, {1}, {0}]
    mapped(detector, good_features(1))
    assert len(compared) == 8  # while a new image's are compared with all


def test_both_maps_are_those_of_the_two_detectors(all_fitted):
    unseen = good_features(3, seed=5)
    distance, logit = all_fitted["classifier"].both(unseen)
    assert torch.equal(distance, mapped(all_fitted["memory"], unseen))
    assert torch.equal(logit, mapped(all_fitted["classifier"], unseen))


@pytest.fixture
def trained_on(monkeypatch):
    """How many cells each classifier was trained with, and the seed of their order."""
    calls, one_cycle = [], training.one_cycle

    def spy(parameters, loss_of, count, **rest):
        calls.append((count, rest["seed"]))
        return one_cycle(parameters, loss_of, count, **rest)

    monkeypatch.setattr(training, "one_cycle", spy)
    return calls


@pytest.mark.parametrize("per_image, beside", [(36, 100), (5, 100), (5, 2), (400, 2)])
def test_it_is_trained_on_a_sample_of_the_good_cells_and_every_anomalous_one(
        trained_on, monkeypatch, per_image, beside):
    monkeypatch.setattr(detectors, "GOOD_CELLS", per_image)
    monkeypatch.setattr(detectors, "CELLS_BESIDE", beside)
    fitted("classifier", seed=4)
    good, bad = 10 * min(per_image, SIDE**2), 12
    assert trained_on == [(good + bad + 12 * min(beside, SIDE**2 - 1), 4)]


def test_cells_that_are_partly_changed_are_left_out():
    anomalous, masks, made_of = anomalies_of()
    masks[:, :2, :2] = masks[:, -4:, -4:] = False
    # one pixel of two corner cells: neither good nor anomalous
    masks[:, 0, 0] = masks[:, -1, -1] = True
    clean = planted(good_features(12, seed=1), [(i % SIDE, (2 * i + 1) % SIDE) for i in range(12)])
    other = clean.clone()
    other[:, :, 0, 0] = other[:, :, -1, -1] = 1e6
    heads = [classifier().fit(good_features(), some, masks, made_of).state_dict()
             for some in (clean, other)]
    assert all(torch.equal(tensor, heads[1][key]) for key, tensor in heads[0].items())
    other[:, :, 0, 1] = 1e6  # a cell that counts as good does matter
    assert not torch.equal(classifier().fit(good_features(), other, masks, made_of).head[0].weight,
                           heads[0]["head.0.weight"])


@pytest.mark.parametrize("pixels, enough", [(0, False), (1, False), (3, True), (4, True)])
def test_a_cell_is_anomalous_by_one_block_of_its_pixels(trained_on, pixels, enough):
    anomalous, _, made_of = anomalies_of()
    masks = torch.zeros(len(anomalous), 4 * SIDE, 4 * SIDE, dtype=torch.bool)
    for y, x in [(10, 12), (10, 13), (11, 12), (11, 13)][:pixels]:
        masks[0, y, x] = True
    if enough:
        classifier().fit(good_features(), anomalous, masks, made_of)
        assert trained_on == [(10 * SIDE**2 + 1 + 12 * SIDE**2 - 1, 0)]
    else:
        with pytest.raises(
                InputError,
                match="no synthetic anomaly covers most of a 2x2 block of pixels; give a larger "
                "image_size"):
            classifier().fit(good_features(), anomalous, masks, made_of)
