"""How far a picture lies from the good ones: the closed forms, and what it may depend on."""
import numpy as np
import pytest
import torch

from adlib.config import Config, InputError
from adlib.models import backbone, foreign, weights
from adlib.models.detector import load_state
from adlib.models.foreign import RIDGE, Foreign

CONFIG = Config(weights="none", image_size=64)


@pytest.fixture(scope="module")
def features():
    generator = torch.Generator().manual_seed(0)
    mixed = torch.randn(40, 40, generator=generator, dtype=torch.float64)
    return torch.randn(12, 40, generator=generator, dtype=torch.float64) @ mixed + 5


def fitted(images):
    model = Foreign(CONFIG)
    return model.fit(model.features(images))


def direct(features, of, deviation, out=1):
    """The Mahalanobis distance with a ridge, by a D x D matrix; the scatter over n + out of n rows
    is what leaving `out` of n + out out leaves."""
    z = (features - features.mean(dim=0)) / deviation
    x = (of - features.mean(dim=0)) / deviation
    return torch.einsum("ni,ij,nj->n", x, torch.linalg.inv(
        z.T @ z / (len(z) + out) + RIDGE * torch.eye(z.shape[1], dtype=z.dtype)), x).sqrt()


def test_the_distance_is_mahalanobis_with_a_ridge(features):
    model = Foreign(CONFIG).fit(features)
    z = (features - model.mean) / model.deviation
    x = torch.randn(5, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    precision = torch.linalg.inv(z.T @ z / len(z) + RIDGE * torch.eye(40, dtype=torch.float64))
    expected = torch.einsum("ni,ij,nj->n", x, precision, x).sqrt()
    torch.testing.assert_close(model.distances(x * model.deviation + model.mean), expected)


def test_leaving_one_out_is_refitting_without_it(features):
    model = Foreign(CONFIG).fit(features)
    refitted = [direct(torch.cat([features[:i], features[i + 1:]]), features[i:i + 1],
                       model.deviation).item() for i in range(len(features))]
    np.testing.assert_allclose(model.calibration, refitted)
    assert (model.calibration > model.distances(features)).all()


def test_copies_of_a_picture_are_left_out_together(features):
    of = torch.tensor([0, 1, 2, 3, 3, 2, 1, 0, 4, 4, 4, 5])
    model = Foreign(CONFIG).fit(features, of)
    refitted = [direct(features[of != one], features[i:i + 1], model.deviation,
                       int((of == one).sum())).item() for i, one in enumerate(of)]
    np.testing.assert_allclose(model.calibration, refitted)
    alone, same = Foreign(CONFIG).fit(features), Foreign(CONFIG).fit(features, torch.arange(12))
    np.testing.assert_allclose(same.calibration, alone.calibration)
    one = Foreign(CONFIG).fit(features[:2], torch.zeros(2, dtype=int))  # nothing else is known
    assert one.calibration.isfinite().all()


def test_a_feature_counts_by_its_deviation_and_those_of_the_deeper_layer_for_half():
    shallow, deep = (6 * backbone.CHANNELS[i] for i in (1, 2))
    features = torch.randn(12, 1 + shallow + deep, dtype=torch.float64) * torch.linspace(
        0.1, 2, 1 + shallow + deep)
    model, own = Foreign(CONFIG).fit(features), features.numpy().std(axis=0, ddof=1)
    expected = (own + 0.1 * own.mean()) * np.repeat([1, 2], [1 + shallow, deep])
    np.testing.assert_allclose(model.deviation, expected)
    assert model.least_detail == features[:, 0].min()


def test_a_picture_is_its_greys_deviation_and_two_layers_deviations_means_and_quarters(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    first, second, third = (torch.randn(2, 3 * side, side, side, generator=generator)
                            for side in (8, 4, 2))
    monkeypatch.setattr(backbone, "stages_of", lambda network, x: [first, second, third])
    images = torch.rand(2, 3, 64, 64, generator=generator)
    for i, found in enumerate(foreign.features_of(None, images)):
        expected = [images[i].numpy().mean(axis=0).std(ddof=1)]
        for cells in (second[i].numpy(), third[i].numpy()):
            half = cells.shape[1] // 2
            expected += [*cells.reshape(len(cells), -1).std(axis=1, ddof=1),
                         *cells.mean(axis=(1, 2))]
            for rows, columns in ((0, 0), (0, half), (half, 0), (half, half)):
                expected += [*cells[:, rows:rows + half, columns:columns + half].mean(axis=(1, 2))]
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("side", "looked_at"), [(64, 64), (255, 255), (256, 128), (400, 133)])
def test_larger_pictures_are_averaged_down(monkeypatch, side, looked_at):
    seen = []
    monkeypatch.setattr(backbone, "stages_of", lambda network, x: seen.append(x) or [x, x])
    images = torch.rand(1, 3, side, side)
    foreign.features_of(None, images)
    assert seen[0].shape == (1, 3, looked_at, looked_at)
    n = side // looked_at
    torch.testing.assert_close(seen[0][0, 0, 0, 0], images[0, 0, :n, :n].mean())


def test_good_pictures_are_near_and_an_empty_one_is_far(pictures):
    model = fitted(pictures[:20])
    near = model.distances(model.features(pictures[20:])).max()
    flat = torch.full((1, 3, 64, 64), 90, dtype=torch.uint8)
    noise = 255 * np.random.default_rng(1).integers(0, 2, (1, 1, 64, 64), np.uint8).repeat(3, 1)
    far = model.features(torch.cat([flat, torch.from_numpy(noise)]))
    assert model.distances(far).min() > 2 * near
    assert model.is_empty(far).tolist() == [True, False]
    assert not model.is_empty(model.features(pictures[:20])).any()


def test_a_broken_part_is_not_absent(pictures):
    """It has less contrast than any good one, and far more than nothing has."""
    model = fitted(pictures[:20])
    weaker = (64 + (pictures[20:].float() - 64) * 0.7).to(torch.uint8)
    features = model.features(weaker)
    assert (features[:, 0] < model.least_detail).all() and not model.is_empty(features).any()


def test_its_state_is_the_whole_of_it_and_nothing_else_is_drawn_from(pictures):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    one = fitted(pictures)
    assert torch.rand(1) == expected
    other = Foreign(Config(weights="none", image_size=64, seed=5))
    load_state(other, one.state_dict())
    given = [model.distances(model.features(pictures[:3])) for model in (one, other)]
    assert torch.equal(*given) and torch.equal(one.calibration, other.calibration)
    assert torch.equal(fitted(pictures).calibration, one.calibration)


def test_random_weights_are_said(monkeypatch, caplog):
    assert fitted(torch.zeros(12, 3, 64, 64, dtype=torch.uint8)).weights == "random:unasked"
    assert caplog.text == ""  # the run asks for none

    def out_of_reach():
        raise InputError("out of reach") from ConnectionError("no network")

    monkeypatch.setattr(weights, "_imagenet_state", out_of_reach)
    own = Foreign(Config(model="mine.py:Mine"))
    assert own.weights == "random:no_connection"
    assert "is told by a ResNet18 of RANDOM weights, not ImageNet's" in caplog.text
    with pytest.raises(InputError):  # a run that asks for these has none without them
        Foreign(Config(model="fused"))


def test_pictures_that_are_all_the_same_are_no_error():
    same = torch.full((12, 3, 64, 64), 90, dtype=torch.uint8)
    model = fitted(same)
    assert torch.isfinite(model.calibration).all()
    assert model.distances(model.features(same[:1])) < model.distances(model.features(same[:1] + 9))


@pytest.fixture(scope="module")
def pictures():
    """A bright disc, about in the middle: uint8 [24,3,64,64]."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:64, :64]
    made = [40 + 150 * (np.hypot(y - 32 - dy, x - 32 - dx) < 18) + rng.normal(0, 6, (3, 64, 64))
            for dy, dx in rng.integers(-2, 3, (24, 2))]
    return torch.from_numpy(np.clip(made, 0, 255).astype(np.uint8))
