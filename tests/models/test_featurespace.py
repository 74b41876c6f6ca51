import dataclasses

import numpy as np
import pytest
import torch

from adlib.config import FITTED_IN_SECONDS, STATISTICS, Config, InputError
from adlib.data.synthetic import anomalies
from adlib.evaluation import conformal
from adlib.models import anomaly_maps, detectors, feature_autoencoder, featurespace, statistics
from adlib.models import backbone as features

SIZE, SIDE, LESSONS = 32, 4, 24
CONFIG = Config(model="fused", image_size=SIZE, epochs=2, batch_size=4, weights="none",
                device="cpu", precision="float32")
TRAINED = ("to_pixels", "to_features")
KEPT, HELD, NONE = torch.tensor([0, 1, 3, 4, 5, 6, 8, 9]), torch.tensor([2, 7, 10]), torch.zeros(
    0, dtype=torch.long)


def configured(model, **changes):
    return dataclasses.replace(CONFIG, model=model, **changes)


def pictures(n=11, seed=0, size=SIZE):
    """Good ones: stripes on a gradient, with some noise; each a little lighter or darker."""
    rng = np.random.default_rng(seed)
    stripes = np.linspace(60, 120, size)[:, None] + 25 * np.sin(np.arange(size) * np.pi / 4)
    grey = stripes[None, None] + rng.normal(0, 4,
                                            (n, 1, 1, 1)) + rng.normal(0, 6, (n, 3, size, size))
    return torch.from_numpy(np.clip(grey, 0, 255).astype(np.uint8))


def spotted(good, index=slice(None), y=12, x=20):
    """The same with a white square of 8 pixels in some of them."""
    changed = good.clone()
    changed[index, :, y:y + 8, x:x + 8] = 255
    return changed


@pytest.fixture(scope="module")
def encoder():
    return featurespace.backbone(dataclasses.replace(CONFIG, seed=3))[0]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """One for all tests here: they look at the same few pictures (tests/test_features.py is about
    the cache)."""
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def _quick(_own_cache, cache, monkeypatch):
    monkeypatch.setenv("ADLIB_CACHE", cache)
    monkeypatch.setattr(featurespace, "TAUGHT_ON", LESSONS)


@pytest.fixture(scope="module")
def fitted(encoder, cache):
    """Each model fitted once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADLIB_CACHE", cache)
        patch.setattr(featurespace, "TAUGHT_ON", LESSONS)
        return {
            model: featurespace.fit(encoder, pictures(), KEPT, HELD, configured(model))
            for model in (*FITTED_IN_SECONDS, *TRAINED)
        }


def equal_states(a, b):
    one, other = a.detector.state_dict(), b.detector.state_dict()
    return one.keys() == other.keys() and all(
        torch.equal(tensor, other[name]) for name, tensor in one.items())


def maps(detector, some):
    return detector(some)["distance"]


@pytest.mark.parametrize("model", [*FITTED_IN_SECONDS, *TRAINED])
def test_one_map_an_image(fitted, model):
    side = SIZE if model == "to_pixels" else SIDE
    found = fitted[model](pictures(3, seed=1))
    assert list(found) == ["distance"]
    assert found["distance"].shape == (
        3, side, side) and found["distance"].dtype == np.float32 and np.isfinite(
            found["distance"]).all()
    assert maps(fitted[model], pictures(0)).shape == (0, side, side)
    assert list(anomaly_maps.table(
        found, {}).columns) == ["distance.top1", "distance.max", "distance.mean"]


@pytest.mark.parametrize("model", [*FITTED_IN_SECONDS, *TRAINED])
def test_a_white_square_is_the_highest_place_of_its_map(encoder, model):
    # the stage that looks least far around
    config = configured(model, image_size=64, layers="1", epochs=10)
    detector = featurespace.fit(encoder, pictures(size=64), KEPT, HELD, config)
    clean = pictures(3, seed=1, size=64)
    before, found = maps(detector, clean), maps(detector, spotted(clean, y=24, x=40))
    stride = 64 // found.shape[1]
    for one in found:
        y, x = divmod(int(one.argmax()), one.shape[1])
        assert 24 - stride <= y * stride <= 32 and 40 - stride <= x * stride <= 48
    assert (found.max(axis=(1, 2)) > before.max()).all()  # higher = more anomalous


@pytest.mark.parametrize("model", [*FITTED_IN_SECONDS, *TRAINED])
def test_same_seed_same_numbers(encoder, fitted, model):
    torch.manual_seed(12345)
    again = featurespace.fit(encoder, pictures(), KEPT, HELD, configured(model))
    assert equal_states(fitted[model], again)
    assert np.array_equal(maps(fitted[model], pictures(3, seed=1)), maps(
        again, pictures(3, seed=1)))
    losses = [[row["loss"] for row in one.history] for one in (fitted[model], again)]
    assert losses[0] == losses[1] and len(losses[0]) == {
        "classifier": detectors.EPOCHS, "fused": detectors.EPOCHS
    }.get(model, CONFIG.epochs if model in TRAINED else 0)


@pytest.mark.parametrize("model", ["gaussian", "memory", "classifier", "to_features"])
def test_another_seed_is_another_fit(encoder, fitted, model):
    assert not equal_states(
        fitted[model], featurespace.fit(encoder, pictures(), KEPT, HELD, configured(model, seed=1)))


@pytest.mark.parametrize("model", ["pca", "gaussian_anywhere"])
def test_what_draws_nothing_has_no_seed(encoder, fitted, model):
    assert equal_states(
        fitted[model], featurespace.fit(encoder, pictures(), KEPT, HELD, configured(model, seed=1)))


@pytest.mark.parametrize("model", [*FITTED_IN_SECONDS, "to_features", "contrast"])
def test_only_the_kept_images_are_fitted_on(encoder, model):
    """Those held out give the fused detector its two scales, and nobody anything else."""
    good = pictures()
    spoiled = spotted(good, HELD)
    spoiled[HELD] = spoiled[HELD].flip(3)
    first, other = (featurespace.fit(encoder, some, KEPT, HELD, configured(model))
                    for some in (good, spoiled))
    if model == "fused":
        assert not torch.equal(first.detector.spread, other.detector.spread)
        other.detector.centre, other.detector.spread = first.detector.centre, first.detector.spread
    assert equal_states(first, other) and first.position_share == other.position_share
    changed = featurespace.fit(encoder, spotted(good, KEPT[2]), KEPT, HELD, configured(model))
    assert not equal_states(first, changed)  # while each kept one counts


@pytest.mark.parametrize("model", ["memory", "classifier", "to_features", "contrast"])
def test_nothing_needs_to_be_held_out(encoder, model):
    good = pictures()[KEPT]
    alone = featurespace.fit(encoder, good, torch.arange(len(good)), NONE, configured(model))
    assert equal_states(alone, featurespace.fit(encoder, pictures(), KEPT, HELD, configured(model)))


def test_but_the_fused_detector_needs_it(encoder):
    with pytest.raises(
            InputError,
            match="by held-out good images, and 0 of 11 are too few; give a larger held_out"):
        featurespace.fit(encoder, pictures(), torch.arange(11), NONE, CONFIG)


def test_the_encoder_is_frozen_bit_for_bit(encoder):
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    maps(featurespace.fit(encoder, pictures(seed=3), KEPT, HELD, CONFIG), pictures(2, seed=4))
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())


def test_fitting_and_mapping_leave_the_pictures_as_they_are(encoder):
    good, unseen = pictures(), pictures(2, seed=1)
    maps(featurespace.fit(encoder, good, KEPT, HELD, CONFIG), unseen)
    assert torch.equal(good, pictures()) and torch.equal(unseen, pictures(2, seed=1))


@pytest.mark.parametrize("model", detectors.CLOSED_FORM)
def test_a_detector_of_the_config_is_fitted_on_the_grid_of_its_layers(encoder, model):
    config = configured(model, layers="2,3", seed=3)
    found = featurespace.fit(encoder, pictures(), KEPT, HELD, config)
    grid = features.grid(features.extract(encoder, pictures()[KEPT], config), "2,3")
    kind = detectors.CLOSED_FORM[model]
    assert type(found.detector) is kind and grid.shape[1] == 128 + 256
    reference = kind().fit(grid, 3) if model in detectors.RANDOM else kind().fit(grid)
    unseen = features.grid(features.extract(encoder, pictures(2, seed=1), config), "2,3")
    assert np.array_equal(maps(found, pictures(2, seed=1)), reference(unseen).numpy())
    assert found.position_share == detectors.position_share(grid) and 0 < found.position_share < 1


def test_the_head_is_taught_with_the_seed_and_the_layers_of_the_config(encoder):
    config = configured("classifier", layers="1", seed=3)
    changed, masks, _ = anomalies.insert(pictures()[KEPT], LESSONS,
                                         seed=featurespace.TEACH_SEED + 3)
    good, anomalous = (features.grid(features.extract(encoder, some, config), "1")
                       for some in (pictures()[KEPT], changed))
    reference = detectors.Taught().fit(good, anomalous, masks, seed=3).state_dict()
    found = featurespace.fit(encoder, pictures(), KEPT, HELD, config).detector.state_dict()
    assert found.keys() == reference.keys() and all(
        torch.equal(tensor, found[name]) for name, tensor in reference.items())


@pytest.mark.parametrize("model", TRAINED)
def test_a_decoder_of_the_config_is_frozen_aes(encoder, fitted, model):
    stages = features.extract(encoder, pictures()[KEPT], configured(model))
    reference, history = feature_autoencoder.fit(stages, pictures()[KEPT], configured(model))
    assert [row["loss"] for row in fitted[model].history
            ] == [row["loss"] for row in history] and fitted[model].position_share is None
    assert all(
        torch.equal(tensor,
                    reference.state_dict()[name])
        for name, tensor in fitted[model].detector.state_dict().items())


def test_maps_do_not_depend_on_how_many_images_there_are(encoder):
    detector = featurespace.fit(encoder, pictures(5), torch.arange(5), NONE, configured("pca"))
    many = pictures(67, seed=1)  # 64 at a time
    found = maps(detector, many)
    assert found.shape == (67, 4, 4)
    assert found[[0, 63, 64, 66]] == pytest.approx(maps(detector, many[[0, 63, 64, 66]]), rel=0.01,
                                                   abs=1e-3)


@pytest.mark.parametrize("few", [2, 99])
def test_the_fused_map_is_the_sum_of_its_parts_in_deviations_of_held_out_scores(
        encoder, fitted, monkeypatch, few):
    monkeypatch.setattr(featurespace, "FEW", few)
    whole = featurespace.fit(encoder, pictures(), KEPT, HELD, configured("fused"))
    fused = whole.detector
    memory, taught = fused.parts
    assert equal_states(fitted["memory"], dataclasses.replace(fitted["fused"], detector=memory))
    assert equal_states(fitted["classifier"], dataclasses.replace(fitted["fused"], detector=taught))
    expected = 0
    for part, name in enumerate(("memory", "classifier")):
        tops = anomaly_maps.reduce(anomaly_maps.smooth(maps(fitted[name],
                                                            pictures()[HELD])), "top1")
        centre = np.median(tops)
        spread = 1.4826 * np.median(np.abs(tops - centre)) if few == 2 else np.std(tops, ddof=1)
        assert (fused.centre[part].item(), fused.spread[part].item()) == pytest.approx(
            (centre, spread), rel=1e-3)
        expected = expected + (maps(fitted[name], pictures(3, seed=1)) - centre) / spread
    assert maps(whole, pictures(3, seed=1)) == pytest.approx(expected, rel=1e-3, abs=0.01)


class Scaled(torch.nn.Module):
    """A detector whose map is the image's first channel in other units."""

    history = ()

    def __init__(self, factor, shift):
        super().__init__()
        self.factor, self.shift = factor, shift

    def forward(self, x):
        return self.factor * x[:, 0] + self.shift


def test_the_fused_map_does_not_depend_on_its_parts_units():
    held, x = (torch.randn(9, 2, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
               for seed in (0, 1))
    found = [
        featurespace.Fused(Scaled(1, 0), Scaled(*units)).calibrate(held)(x)
        for units in ((1, 0), (1000, -7), (0.01, 3))
    ]
    assert torch.allclose(found[0], found[1], atol=1e-3) and torch.allclose(
        found[0], found[2], atol=1e-3)
    # a flat part divides by no zero
    assert torch.isfinite(featurespace.Fused(Scaled(0, 1), Scaled(1, 0)).calibrate(held)(x)).all()


def test_the_lesson_is_of_the_kept_images_only_and_of_the_asked_kinds(encoder, monkeypatch):
    calls, insert = [], anomalies.insert

    def spy(good, n, **rest):
        calls.append((good.clone(), n, rest))
        return insert(good, n, **rest)

    monkeypatch.setattr(anomalies, "insert", spy)
    featurespace.fit(encoder, pictures(), KEPT, HELD,
                     configured("classifier", kinds="scratch, perlin", seed=3))
    ((good, n, rest), ) = calls
    assert torch.equal(good, pictures()[KEPT]) and n == LESSONS
    assert rest == {"seed": featurespace.TEACH_SEED + 3, "kinds": ["scratch", "perlin"]}
    for model in ("memory", "to_features"):
        featurespace.fit(encoder, pictures(), KEPT, HELD, configured(model))
    assert len(calls) == 1  # nobody else learns from anomalies


@pytest.mark.parametrize("name", STATISTICS)
def test_a_statistic_needs_no_network(name, monkeypatch):
    monkeypatch.setattr(features, "extract", None)
    encoder, word = featurespace.backbone(configured(name, weights="imagenet"))
    assert encoder is None and word == "none (no network)"
    fitted = featurespace.fit(encoder, pictures(), KEPT, HELD, configured(name))
    found = maps(fitted, spotted(pictures(3, seed=1)))
    assert found.shape == (3, 1, 1) and fitted.history == [] and fitted.position_share is None
    expected = statistics.distance(statistics.statistic(spotted(pictures(3, seed=1)), name),
                                   statistics.statistic(pictures()[KEPT], name))
    assert found.ravel() == pytest.approx(expected)
    assert anomaly_maps.table({"distance": found},
                              {})["distance.top1"].to_numpy() == pytest.approx(expected)


def test_the_backbone_is_the_feature_rooms():
    found, word = featurespace.backbone(configured("to_pixels", seed=4))
    expected, other = features.backbone(configured("fused", seed=4))
    assert word == other == "none (trained from scratch)"
    assert all(
        torch.equal(tensor,
                    expected.state_dict()[name]) for name, tensor in found.state_dict().items())


FOLDS = conformal.folds(11, 4, 0)
OTHERS = (pictures(2, seed=1), spotted(pictures(3, seed=2)))


@pytest.mark.parametrize("model", FITTED_IN_SECONDS)
def test_cross_maps_are_of_every_held_image_and_of_every_other_set(fitted, model):
    found = featurespace.cross_maps(fitted[model], pictures(), KEPT, OTHERS, FOLDS[:2])
    for (held, others), (_, index) in zip(found, FOLDS[:2], strict=True):
        assert held.shape == (len(index), SIDE, SIDE) and [other.shape
                                                           for other in others] == [(2, SIDE, SIDE),
                                                                                    (3, SIDE, SIDE)]
        assert all(
            values.dtype == np.float32 and np.isfinite(values).all() for values in (held, *others))
    # each fold has its own
    assert any(
        not np.array_equal(one, other) for one, other in zip(found[0][1], found[1][1], strict=True))


@pytest.mark.parametrize("model", detectors.CLOSED_FORM)
def test_each_fold_is_a_fit_on_the_rest(encoder, fitted, model):
    found = featurespace.cross_maps(fitted[model], pictures(), KEPT, OTHERS, FOLDS[1:3])
    for (held, others), (rest, index) in zip(found, FOLDS[1:3], strict=True):
        alone = featurespace.fit(encoder, pictures(), torch.from_numpy(rest), NONE,
                                 configured(model))
        assert held == pytest.approx(maps(alone, pictures()[index]), rel=0.02, abs=0.02)
        for values, other in zip(others, OTHERS, strict=True):
            assert values == pytest.approx(maps(alone, other), rel=0.02, abs=0.02)


def test_an_outlier_among_the_good_images_is_not_judged_by_a_fit_that_has_seen_it(encoder):
    """A memory that has seen it would find it at no distance."""
    good, config = spotted(pictures(), 4), configured("memory")
    naive = featurespace.fit(encoder, good, torch.arange(11), NONE, config)
    assert maps(naive, good)[4].max() < 0.1
    for (held, _), (_, index) in zip(
            featurespace.cross_maps(naive, good, torch.arange(11), [], FOLDS), FOLDS, strict=True):
        tops = dict(zip(index.tolist(), held.max(axis=(1, 2)), strict=True))
        if 4 in tops:
            assert tops.pop(4) > 3 * max(tops.values()) > 1


@pytest.mark.parametrize("model, kinds", [
    *((model, "scratch") for model in detectors.CLOSED_FORM), ("classifier", "scratch,structural"),
    ("fused", "scratch,structural"), ("classifier", "cutpaste"), ("fused", "perlin")
])
def test_held_images_have_no_say_in_the_fit_that_judges_them(encoder, model, kinds):
    """Whatever the held images of a fold look like, its detector maps all others the same, bit for
    bit."""
    config = configured(model, kinds=kinds)
    fitted = featurespace.fit(encoder, pictures(), KEPT, HELD, config)
    first = featurespace.cross_maps(fitted, pictures(), KEPT, OTHERS, FOLDS[:1])
    held = FOLDS[0][1]
    assert set(held) & set(KEPT.tolist())  # some of them taught the head of `fitted`
    changed = pictures()
    changed[held] = spotted(changed.flip(3), held, y=8, x=8)[held]
    again = featurespace.cross_maps(fitted, changed, KEPT, OTHERS, FOLDS[:1])
    # they themselves are other images now
    assert not np.allclose(first[0][0], again[0][0], rtol=0.01)
    assert all(np.array_equal(a, b) for a, b in zip(first[0][1], again[0][1], strict=True))


def test_anomalies_with_anything_of_a_held_image_are_left_out_of_the_lesson(fitted, monkeypatch):
    lessons, fit = [], detectors.Taught.fit

    def spy(self, good, anomalous, masks, **rest):
        lessons.append((len(good), masks))
        return fit(self, good, anomalous, masks, **rest)

    monkeypatch.setattr(detectors.Taught, "fit", spy)
    featurespace.cross_maps(fitted["classifier"], pictures(), KEPT, [], FOLDS[-2:])
    _, masks, _ = anomalies.insert(pictures()[KEPT], LESSONS, seed=featurespace.TEACH_SEED)
    for (count, found), (rest, held) in zip(lessons, FOLDS[-2:], strict=True):
        made_of = KEPT.numpy()[anomalies.sources(LESSONS, len(KEPT), seed=featurespace.TEACH_SEED)]
        unseen = [not set(pair) & set(held.tolist()) for pair in made_of]
        assert count == len(rest) and any(unseen)
        assert torch.equal(found, masks[torch.tensor(unseen)])
    assert min(len(found) for _, found in lessons) < LESSONS


def test_the_folds_of_the_fused_detector_have_the_scales_of_the_whole(encoder, fitted):
    fused = fitted["fused"].detector
    rest = np.sort(KEPT.numpy())
    ((_, (found, )), ) = featurespace.cross_maps(fitted["fused"], pictures(), KEPT, OTHERS[:1],
                                                 [(rest, HELD.numpy())])
    # fitted on the very same images
    assert found == pytest.approx(maps(fitted["fused"], OTHERS[0]), rel=0.02, abs=0.05)
    moved = dataclasses.replace(fitted["fused"], detector=featurespace.Fused(*fused.parts))
    moved.detector.centre, moved.detector.spread = fused.centre + 1, 2 * fused.spread
    ((_, (other, )), ) = featurespace.cross_maps(moved, pictures(), KEPT, OTHERS[:1],
                                                 [(rest, HELD.numpy())])
    assert other == pytest.approx(found / 2 - float((0.5 / fused.spread).sum()), rel=0.01, abs=0.05)


def test_of_many_images_a_sample_is_fitted_on(encoder, monkeypatch):
    monkeypatch.setattr(featurespace, "MOST", 5)
    chosen = [featurespace.sample(KEPT, configured("memory", seed=seed)) for seed in (0, 0, 1)]
    assert torch.equal(chosen[0], chosen[1]) and not torch.equal(chosen[0], chosen[2]) and len(
        chosen[0].unique()) == 5
    assert set(chosen[0].tolist()) < set(KEPT.tolist())
    # trained in batches: it may see them all
    assert featurespace.sample(KEPT, configured("to_features")) is KEPT
    sampled = featurespace.fit(encoder, pictures(), KEPT, HELD, configured("memory"))
    monkeypatch.undo()
    assert equal_states(
        sampled, featurespace.fit(encoder, pictures(), chosen[0], HELD, configured("memory")))
