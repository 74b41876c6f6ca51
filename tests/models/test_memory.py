"""The distance to the nearest good patch."""
import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from sklearn.neighbors import NearestNeighbors

from adlib.models import detectors
from tests.models.cells import (
    CHANNELS,
    SIDE,
    cells_of,
    equal64,
    fitted,
    good_features,
    mapped,
    mapped64,
)
from tests.tolerances import summed


def test_memory_is_the_distance_to_sklearns_nearest_neighbour(monkeypatch):
    monkeypatch.setattr(detectors, "BANK", 50)
    detector = fitted("memory")
    bank = detector.bank.double().numpy()
    assert bank.shape == (50, CHANNELS)
    expected = NearestNeighbors(n_neighbors=1).fit(bank).kneighbors(
        cells_of(good_features(4, seed=5)))[0][:, 0]
    assert equal64(mapped64(detector, good_features(4, seed=5)).ravel(), expected)
    nearest, _ = NearestNeighbors(n_neighbors=1).fit(cells_of(good_features())).kneighbors(bank)
    # good patches as they are, none of them twice
    assert (nearest == 0).all() and len(np.unique(bank, axis=0)) == 50


def test_a_small_memory_keeps_every_patch():
    detector = fitted("memory")
    assert sorted(map(tuple, detector.bank.tolist())) == sorted(
        map(tuple,
            cells_of(good_features()).astype(np.float32).tolist()))
    # What it has seen has no distance, but for another as near as rounding tells them apart.
    squares = float(good_features().square().sum(dim=1).max())
    assert mapped(detector, good_features()).max() < (12 * summed(CHANNELS) * squares)**0.5


def test_a_cell_is_compared_with_other_images_where_there_are_others():
    good = good_features(4)
    detector = detectors.Memory().fit(good)
    cells = torch.from_numpy(cells_of(good)).float()[:SIDE**2]
    others = cells_of(good)[np.r_[SIDE**2:2 * SIDE**2, 3 * SIDE**2:4 * SIDE**2]]
    expected = cdist(cells, others).min(axis=1)
    search, without = detector.search(), torch.tensor([0, 2])
    for known in (None, search(cells)):
        own = detector.difference(cells, detector.nearest_other(cells, without, search, known))
        assert np.allclose(own.norm(dim=1), expected, rtol=1e-4) and expected.min() > 0
    alone = detectors.Memory().fit(good[:1])
    known, others = alone.nearest(good[:1], torch.tensor([0]))
    assert torch.equal(known.places, others.places) and alone(good[:1], others).max() < 0.1


def test_the_nearest_of_all_and_of_other_images_are_those_found_one_by_one():
    good, new = good_features(4), good_features(2, seed=5)
    detector = detectors.Memory().fit(good)
    features, own = torch.cat([good, new]), torch.tensor([0, 1, 2, 3, -1, -1])
    known, others = (found.places for found in detector.nearest(features, own))
    for one, i, first, second in zip(features, own.tolist(), known, others, strict=True):
        distances = cdist(one.flatten(1).T, detector.bank)
        assert np.array_equal(distances.argmin(axis=1), first.flatten())
        distances[:, (detector.image == i).numpy()] = np.inf
        assert np.array_equal(distances.argmin(axis=1), second.flatten())
    assert (known[:4] != others[:4]).all() and torch.equal(known[4:], others[4:])


def test_how_far_apart_good_patches_lie_is_the_mean_distance_to_others_images_nearest(
        monkeypatch):
    monkeypatch.setattr(detectors, "BANK", 60)
    memory = detectors.Memory().fit(good_features(4))
    found, image = memory.local_scale(), memory.image.numpy()
    expected = []
    for patch, own in zip(memory.bank, image, strict=True):
        others = memory.bank[torch.from_numpy(image != own)]
        expected.append(np.sort(cdist(patch[None], others)[0])[:5].mean())
    floor = 0.25 * np.sort(expected)[(len(expected) - 1) // 2]  # torch's median
    assert found.numpy() == pytest.approx(np.maximum(expected, floor), rel=1e-4)
    assert len(found.unique()) > 10


def test_what_good_images_repeat_to_the_bit_lies_not_nothing_apart():
    same = good_features(1).repeat(8, 1, 1, 1)
    assert (detectors.Memory().fit(same).local_scale() >= detectors.DIGIT).all()
    memory = detectors.Memory().fit(good_features(9))
    memory.bank[:12], memory.image[:12] = memory.bank[0].clone(), torch.arange(12) % 9
    found = memory.local_scale()
    assert (found[:12] == found.min()).all()
    assert found.min() == pytest.approx(0.25 * float(found.median()), rel=1e-5)
    assert (detectors.Memory().fit(same[:1]).local_scale() == 1).all()  # no other image


def test_the_memory_has_patches_of_the_views_and_knows_whose_they_are():
    good, views = good_features(3), torch.from_numpy(cells_of(good_features(2, seed=8))).float()
    image = torch.tensor([2, 0]).repeat_interleave(SIDE**2)
    detector = detectors.Memory().fit(good, 0, (views, image))
    kept = {tuple(patch): number for patch, number in zip(detector.bank.tolist(),
                                                          detector.image.tolist(), strict=True)}
    numbered = torch.arange(3).repeat_interleave(SIDE**2)
    patches = torch.cat([torch.from_numpy(cells_of(good)).float(), views]).tolist()
    for patch, number in zip(patches, torch.cat([numbered, image]).tolist(), strict=True):
        assert kept[tuple(patch)] == number
    assert detector.difference(views).norm(dim=1).max() < 0.1


def test_what_cells_are_compared_by_is_that_of_the_bank_as_it_is():
    memory = detectors.Memory().fit(good_features())
    assert memory.search() is memory.search()  # made once
    other = detectors.Memory().fit(good_features(seed=9))
    for change in (lambda: memory.load_state_dict(other.state_dict()),
                   lambda: memory.fit(good_features(seed=7))):
        change()
        fresh = detectors.Memory()
        fresh.bank = memory.bank
        assert torch.equal(memory.search().products, fresh.search().products)


def test_the_pool_is_a_random_part_of_the_patches(monkeypatch):
    monkeypatch.setattr(detectors, "POOL", 40)
    numbered = torch.arange(10 * SIDE * SIDE, dtype=torch.float32).view(10, 1, SIDE, SIDE)
    pools = [
        set(fitted("memory", numbered, seed=seed).bank.flatten().tolist()) for seed in range(2)
    ]
    assert len(pools[0]) == len(pools[1]) == 40 and pools[0] != pools[1]
    for pool in pools:
        # of the images, and of the places in them
        assert len({value // SIDE**2 for value in pool}) > 5
        assert len({value % SIDE**2 for value in pool}) > 15


def test_the_memory_keeps_what_is_rare(monkeypatch):
    monkeypatch.setattr(detectors, "BANK", 8)
    good = 0.01 * good_features()
    for i in range(4):
        good[i, :, i, 2 * i % SIDE] += 5 * torch.eye(CHANNELS)[i]
    bank = fitted("memory", good).bank
    assert sorted(bank.argmax(dim=1)[bank.amax(dim=1) > 1].tolist()) == [0, 1, 2, 3]


def test_more_patches_than_a_batch_of_distances():
    good, many = good_features(2), good_features(120, seed=5)  # 4320 patches; 1024 at a time
    assert equal64(mapped64(fitted("memory", good), many).ravel(),
                   cdist(cells_of(many), cells_of(good)).min(axis=1))
