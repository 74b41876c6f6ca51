import copy
import itertools
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist, mahalanobis
from sklearn.covariance import EmpiricalCovariance
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

from adlib.config import FITTED_IN_SECONDS, InputError
from adlib.models import backbone, closed_forms, coreset, detectors, training
from adlib.models.coreset import k_centre
from adlib.models.fused import CLOSED_FORM
from tests.tolerances import UNIT, summed

SIDE, CHANNELS = 6, 12
RANDOM = ("gaussian", "memory")  # the closed forms that draw something
NAMES = (*CLOSED_FORM, "classifier")


def classifier():
    return detectors.SyntheticAnomalyClassifier(CHANNELS)


def good_features(n=10, channels=CHANNELS, side=SIDE, seed=0):
    """A few directions that vary much, all others little; the same at every place."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(3, channels))
    x = rng.normal(size=(n, side, side, 3)) @ mixing + 0.1 * rng.normal(size=(n, side, side,
                                                                              channels)) + 2
    return torch.from_numpy(x.transpose(0, 3, 1, 2).astype(np.float32)).contiguous()


ODD = torch.from_numpy(np.random.default_rng(7).normal(size=CHANNELS).astype(np.float32)) * 3


def planted(features, cells):
    """The features with something odd at cell cells[i] of image i."""
    features = features.clone()
    for i, (y, x) in enumerate(cells):
        features[i, :, y, x] += ODD
    return features


def anomalies_of(n=12, seed=1):
    """Features with one odd cell each, the masks of the 4x4 pixels of that cell, and which good
    images they count as made of."""
    cells = [(i % SIDE, (2 * i + 1) % SIDE) for i in range(n)]
    masks = torch.zeros(n, 4 * SIDE, 4 * SIDE, dtype=torch.bool)
    for mask, (y, x) in zip(masks, cells, strict=True):
        mask[4 * y:4 * y + 4, 4 * x:4 * x + 4] = True
    return planted(good_features(n, seed=seed), cells), masks, torch.arange(n)[:, None] % 10


def fitted(name, good=None, **seed):
    good = good_features() if good is None else good
    if name == "classifier":
        return classifier().fit(good, *anomalies_of(), **seed)
    return CLOSED_FORM[name]().fit(good, **seed)


def mapped(detector, features):
    with torch.no_grad():
        return detector(features)


def mapped64(detector, features):
    """In float64, where two ways of computing it must agree: in float32 a small distance between
    large features is mostly rounding."""
    return mapped(copy.deepcopy(detector).double(), features.double())


def fitted64(name, good=None, **seed):
    """Fitted in float64: an eigenvector of float32 is off by as much as its neighbours are near."""
    good = good_features() if good is None else good
    return CLOSED_FORM[name]().fit(good.double(), **seed)


def equal64(a, b):
    return torch.allclose(torch.as_tensor(a), torch.as_tensor(b), rtol=1e-6, atol=1e-6)


def cells_of(features):
    return features.permute(0, 2, 3, 1).flatten(0, 2).double().numpy()


@pytest.fixture(scope="module")
def all_fitted():
    return {name: fitted(name) for name in NAMES}


def test_every_detector_of_the_config_is_here():
    assert {*NAMES, "fused"} == set(FITTED_IN_SECONDS)


def test_what_draws_nothing_has_no_seed():
    for name in set(CLOSED_FORM) - set(RANDOM):
        states = [fitted(name, seed=seed).state_dict() for seed in (0, 1)]
        assert all(torch.equal(tensor, states[1][key]) for key, tensor in states[0].items())


@pytest.mark.parametrize("name", NAMES)
def test_one_finite_number_a_cell(all_fitted, name):
    unseen = good_features(4, seed=5)
    found = mapped(all_fitted[name], unseen)
    assert found.shape == (4, SIDE,
                           SIDE) and found.dtype == torch.float32 and torch.isfinite(found).all()
    assert mapped(all_fitted[name], unseen[:0]).shape == (0, SIDE, SIDE)
    # Each image on its own.
    assert equal64(mapped64(all_fitted[name], unseen[1:2]), mapped64(all_fitted[name], unseen)[1:2])
    if name != "classifier":
        assert (found >= 0).all()


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=15, deadline=None)
@given(y=st.integers(0, SIDE - 1), x=st.integers(0, SIDE - 1), seed=st.integers(10, 99))
def test_an_odd_cell_is_the_highest_of_its_map(all_fitted, name, y, x, seed):
    clean = good_features(1, seed=seed)
    found, before = mapped(all_fitted[name], planted(clean, [(y, x)]))[0], mapped(
        all_fitted[name], clean)[0]
    assert divmod(int(found.argmax()), SIDE) == (y, x)
    assert found[y, x] > before.max()
    elsewhere = torch.ones(SIDE, SIDE, dtype=torch.bool)
    elsewhere[y, x] = False
    # A cell's score is that of its features.
    found, before = (mapped64(all_fitted[name], some)[0]
                     for some in (planted(clean, [(y, x)]), clean))
    assert equal64(found[elsewhere], before[elsewhere])


@pytest.mark.parametrize("name", NAMES)
def test_float32_is_as_near_to_float64_as_its_sums_allow(all_fitted, name):
    unseen = good_features(4, seed=5)
    found, exact = mapped(all_fitted[name], unseen).double(), mapped64(all_fitted[name], unseen)
    size = float(unseen.square().sum(dim=1).max()) ** 0.5  # of a cell's features: some 10
    noise = 6 * summed(CHANNELS) * size
    if name == "memory":  # of two that are as near, by the rounding of |b|^2 - 2ab, either is right
        assert torch.allclose(found**2, exact**2, rtol=0, atol=2 * noise * size)
    elif name == "pca":  # a squared residual
        assert torch.allclose(found.sqrt(), exact.sqrt(), rtol=0, atol=2 * noise)
    elif name == "classifier":  # standardised features; layers of 128, gains of some ten
        assert torch.allclose(found, exact, rtol=0, atol=60 * summed(3 * 128))
    else:  # whitened by at most 1 / sqrt(RIDGE) = 10
        assert torch.allclose(found, exact, rtol=0, atol=noise / closed_forms.RIDGE**0.5)


@pytest.mark.parametrize("name", NAMES)
def test_the_farther_the_more_anomalous(all_fitted, name):
    clean = good_features(1, seed=3)
    steps = torch.cat([clean + share * ODD[:, None, None] for share in (1.0, 2.0, 4.0)])
    means = mapped(all_fitted[name], steps).mean(dim=(1, 2))
    assert mapped(all_fitted[name], clean).mean() < means[0] < means[1] < means[2]


@pytest.mark.parametrize("name", NAMES)
def test_the_same_for_the_same_seed_whatever_the_global_generators_did(name):
    seeds = {"seed": 3} if name in (*RANDOM, "classifier") else {}
    torch.manual_seed(1)
    first = fitted(name, **seeds)
    torch.manual_seed(2)
    again = fitted(name, **seeds)
    assert first.state_dict().keys() == again.state_dict().keys()
    assert all(
        torch.equal(tensor,
                    again.state_dict()[key]) for key, tensor in first.state_dict().items())
    unseen = good_features(3, seed=5)
    assert torch.equal(mapped(first, unseen), mapped(again, unseen))


@pytest.mark.parametrize("name", [*RANDOM, "classifier"])
def test_another_seed_is_another_draw(name, monkeypatch):
    # with all dimensions, or all patches, there is nothing to draw
    monkeypatch.setattr(closed_forms, "DIMENSIONS", 6)
    monkeypatch.setattr(detectors, "BANK", 20)
    unseen = good_features(3, seed=5)
    assert not torch.allclose(mapped(fitted(name, seed=0), unseen),
                              mapped(fitted(name, seed=1), unseen), rtol=1e-2)


@pytest.mark.parametrize("name", NAMES)
def test_the_state_dict_is_the_whole_detector(name):
    one, other = fitted(name), fitted(name, good_features(seed=20) * 1.5)
    unseen = good_features(3, seed=5)
    expected = mapped(one, unseen)
    assert not torch.allclose(mapped(other, unseen), expected, rtol=1e-3)
    other.load_state_dict(one.state_dict())
    assert torch.equal(mapped(other, unseen), expected)


@pytest.mark.parametrize("name", NAMES)
def test_fitting_and_mapping_leave_the_features_as_they_are(name):
    good, unseen = good_features(), good_features(3, seed=5)
    mapped(fitted(name, good), unseen)
    assert torch.equal(good, good_features()) and torch.equal(unseen, good_features(3, seed=5))


@pytest.mark.parametrize("components, kept", [(4, 4), (96, CHANNELS - 1)])
def test_pca_residual_is_sklearns(components, kept, monkeypatch):
    monkeypatch.setattr(closed_forms, "COMPONENTS", components)
    reference = PCA(n_components=kept).fit(cells_of(good_features()))
    unseen = cells_of(good_features(4, seed=5))
    expected = ((unseen - reference.inverse_transform(reference.transform(unseen)))**2).sum(axis=1)
    detector = fitted64("pca")
    assert equal64(mapped(detector, good_features(4, seed=5).double()).ravel(), expected)
    # Never all of them: nothing would be left over.
    assert detector.components.shape == (CHANNELS, kept)


def test_pca_keeps_96_components():
    good = torch.randn(4, 120, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    reference = PCA(n_components=96, svd_solver="full").fit(cells_of(good))
    expected = ((cells_of(good) -
                 reference.inverse_transform(reference.transform(cells_of(good))))**2).sum(axis=1)
    assert equal64(mapped(fitted64("pca", good), good.double()).ravel(), expected)


def test_pca_does_not_see_what_lies_in_its_span():
    detector, good = fitted64("pca"), good_features().double()
    basis = torch.cat([detector.components, ODD[:, None].double()], dim=1)
    along, across = detector.components[:, -1], torch.linalg.qr(basis)[0][:, -1]
    assert equal64(mapped(detector, good + 5 * along[:, None, None]), mapped(detector, good))
    centre = detector.mean[None, :, None, None]
    assert mapped(detector, centre + 5 * across[None, :, None, None]).item() == pytest.approx(25)


@pytest.mark.parametrize("dimensions", [5, 100])
def test_gaussian_is_scipys_mahalanobis_at_each_place(dimensions, monkeypatch):
    monkeypatch.setattr(closed_forms, "DIMENSIONS", dimensions)
    # another mean in every row
    good, unseen = good_features() + torch.arange(SIDE)[:, None], good_features(2, seed=5)
    detector = fitted64("gaussian", good, seed=4)
    chosen = detector.chosen.tolist()
    assert len(chosen) == min(dimensions, CHANNELS) and chosen == sorted(
        set(chosen)) and set(chosen) <= set(range(CHANNELS))
    found = mapped(detector, unseen.double())
    for y, x in itertools.product(range(SIDE), range(SIDE)):
        here = good[:, chosen, y, x].double().numpy()
        precision = np.linalg.inv(np.cov(here.T) + closed_forms.RIDGE * np.eye(len(chosen)))
        for i in range(2):
            expected = mahalanobis(unseen[i, chosen, y, x].double().numpy(), here.mean(axis=0),
                                   precision)
            assert found[i, y, x].item() == pytest.approx(expected)


def test_one_good_image_gives_the_ridge_alone():
    good, unseen = good_features(1), good_features(2, seed=5)
    expected = (unseen - good).double().norm(dim=1) / closed_forms.RIDGE**0.5
    assert equal64(mapped(fitted64("gaussian", good), unseen.double()), expected.double())


def test_gaussian_anywhere_is_sklearns_mahalanobis():
    covariance = EmpiricalCovariance().fit(cells_of(good_features()))
    precision = np.linalg.inv(covariance.covariance_ + closed_forms.RIDGE * np.eye(CHANNELS))
    expected = cdist(cells_of(good_features(4, seed=5)), covariance.location_[None], "mahalanobis",
                     VI=precision)[:, 0]
    assert equal64(mapped(fitted64("gaussian_anywhere"),
                          good_features(4, seed=5).double()).ravel(), expected)


def test_only_the_gaussian_of_each_position_expects_something_of_a_place():
    good = good_features() + 5 * torch.arange(SIDE)[:, None]  # every row its own level
    swapped = good_features(2, seed=5) + 5 * torch.arange(SIDE).flip(0)[:, None]
    usual = good_features(2, seed=5) + 5 * torch.arange(SIDE)[:, None]
    for name in CLOSED_FORM:
        detector = fitted(name, good)
        if name == "gaussian":
            assert mapped(detector, swapped).median() > 10 * mapped(detector, usual).median()
        else:  # the others map a cell the same wherever it lies
            assert equal64(mapped64(detector, usual.flip(2)), mapped64(detector, usual).flip(1))


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


def test_how_far_apart_good_patches_lie_is_the_mean_distance_to_others_images_nearest():
    memory = detectors.Memory(bank=60).fit(good_features(4))
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


points = st.integers(
    1, 3).flatmap(lambda d: st.lists(st.tuples(*[st.integers(-9, 9)] * d), min_size=1, max_size=14))


def greedy(x, count):
    """k-centre as Gonzalez (1985) has it, without any bookkeeping; the first of equally far points.
    """
    chosen = [0]
    while len(chosen) < count:
        chosen.append(int(cdist(x, x[chosen], "sqeuclidean").min(axis=1).argmax()))
    return chosen


@settings(max_examples=150, deadline=None)
@given(points, st.data())
def test_the_coreset_is_the_greedy_k_centre(values, data):
    x = np.array(values, float)  # whole numbers: float32 is exact, and ties are ties
    count = data.draw(st.integers(1, len(x)))
    with mock.patch.object(coreset, "AHEAD", data.draw(st.integers(1, 6))):
        found = k_centre(torch.from_numpy(x).float(), count)
    assert found.dtype == torch.long and found.tolist() == greedy(x, count)


@settings(max_examples=60, deadline=None)
@given(points.filter(lambda values: len(values) <= 9), st.integers(1, 3))
def test_the_coreset_covers_at_most_twice_as_far_as_the_best(values, count):
    x = np.array(values, float)
    count = min(count, len(x))
    distance = cdist(x, x)
    best = min(distance[:, list(some)].min(axis=1).max()
               for some in itertools.combinations(range(len(x)), count))
    assert distance[:, k_centre(torch.from_numpy(x).float(), count).tolist()].min(
        axis=1).max() <= 2 * best + 1e-9


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
        compared.append(without.tolist())
        return original(self, cells, without, search, known)

    monkeypatch.setattr(detectors.Memory, "nearest_other", spy)
    anomalous, masks, _ = anomalies_of(3)
    detector = classifier().fit(good_features(2), anomalous, masks,
                                torch.tensor([[0, 1], [1, 1], [0, 0]]))
    assert compared == [[0], [1], [0, 1], [1, 1], [0, 0], [0, 1], [1, 1], [0, 0]]
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
    heads = [
        classifier().fit(good_features(), some, masks, made_of).state_dict() for some in (clean, other)
    ]
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


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(1, 4), st.integers(1, 5), st.floats(0, 3), st.floats(-20, 20),
       st.integers(0, 99))
def test_position_share_is_a_share(n, channels, side, share, offset, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, channels, side, side, generator=generator) + offset
    x = x + share * torch.randn(1, channels, side, side, generator=generator)
    found = backbone.position_share(x)
    assert -1e-6 <= found <= 1 + 1e-5
    # An offset of 20 beside a deviation of 1: its square rounds at 400 times float32's last digit.
    exact = backbone.position_share(x.double())
    assert found == pytest.approx(exact, abs=1e-6 + 2 * 400 * 6 * UNIT[torch.float32])
    # the share of variance between places, as of an analysis of variance
    here = x.double().permute(1, 2, 3, 0).numpy()
    between, total = np.var(here.mean(axis=3), axis=(1, 2)).sum(), np.var(here,
                                                                          axis=(1, 2, 3)).sum()
    assert exact == pytest.approx(between / total if total > 1e-9 else exact, abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 6), st.integers(1, 4), st.integers(2, 5), st.integers(0, 99))
def test_position_share_is_1_if_all_images_are_alike_and_0_if_all_places_are(
        n, channels, side, seed):
    generator = torch.Generator().manual_seed(seed)
    places = torch.randn(1, channels, side, side, generator=generator)
    assert backbone.position_share(places.expand(n, -1, -1, -1)) == pytest.approx(1, abs=1e-5)
    images = torch.randn(n, channels, 1, 1, generator=generator)
    assert backbone.position_share(images.expand(-1, -1, side, side)) == pytest.approx(0, abs=1e-5)


def test_position_share_of_constant_features_is_0():
    assert backbone.position_share(torch.full((4, 3, 5, 5), 0.1)) == pytest.approx(
        0, abs=(6 * summed(100) * 0.1)**2 / 1e-12)  # what is left of a variance, over the floor of it


def test_position_share_of_noise_is_near_0_with_many_images():
    shares = [
        backbone.position_share(
            torch.randn(n, 8, 10, 10, generator=torch.Generator().manual_seed(n)))
        for n in (10, 100)
    ]
    # 1 / number of images: a mean of noise is not zero
    assert shares == pytest.approx([0.1, 0.01], rel=0.2)
