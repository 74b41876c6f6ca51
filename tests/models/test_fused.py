"""Feature detectors that are fitted in seconds: on the backbone's features, cross-fitted, fused."""
import copy
import dataclasses

import numpy as np
import pytest
import torch

from adlib.config import FITTED_IN_SECONDS, STATISTICS, Config
from adlib.data import corruptions
from adlib.data.synthetic import anomalies
from adlib.evaluation import conformal
from adlib.models import anomaly_maps, backbone, detectors, fused, registry
from adlib.models.detector import fit, fit_on, load_state
from adlib.models.fast.device import threads
from tests.tolerances import of_features

SIZE, SIDE, SYNTHETIC = 32, 4, 24
CONFIG = Config(model="fused", image_size=SIZE, epochs=2, batch_size=4, weights="none",
                device="cpu", precision="float32", seed=0)
TRAINED = ("to_pixels", "to_features")
KEPT, HELD = torch.tensor([0, 1, 3, 4, 5, 6, 8, 9]), torch.tensor([2, 7, 10])


def configured(model, **changes):
    return dataclasses.replace(CONFIG, model=model, **changes)


def pictures(n=11, seed=0, size=SIZE):
    """Good ones: stripes on a gradient, with some noise; each a little lighter or darker."""
    rng = np.random.default_rng(seed)
    stripes = np.linspace(60, 120, size)[:, None] + 25 * np.sin(np.arange(size) * np.pi / 4)
    grey = (stripes[None, None] + rng.normal(0, 4, (n, 1, 1, 1))
            + rng.normal(0, 6, (n, 3, size, size)))
    return torch.from_numpy(np.clip(grey, 0, 255).astype(np.uint8))


def spotted(good, index=slice(None), y=12, x=20):
    """The same with a white square of 8 pixels in some of them."""
    changed = good.clone()
    changed[index, :, y:y + 8, x:x + 8] = 255
    return changed


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """One for all tests here: they look at the same few pictures (test_backbone is about the
    cache)."""
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def _quick(_own_cache, cache, monkeypatch):
    monkeypatch.setenv("ADLIB_CACHE", cache)
    monkeypatch.setattr(fused, "SYNTHETIC", SYNTHETIC)


def fitted_to(model, good=None, held=HELD, **changes):
    good = pictures() if good is None else good
    validation = None if held is None else good[held]
    return fit(configured(model, **changes), good[KEPT], validation)


@pytest.fixture(scope="module")
def fitted(cache):
    """Each model fitted once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADLIB_CACHE", cache)
        patch.setattr(fused, "SYNTHETIC", SYNTHETIC)
        return {model: fitted_to(model) for model in (*FITTED_IN_SECONDS, *TRAINED)}


def equal_states(a, b):
    one, other = a.state_dict(), b.state_dict()
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name])
                                              for name, tensor in one.items())


def maps(detector, some):
    return detector.anomaly_maps(some)["distance"].numpy()


@pytest.mark.parametrize("model", [*FITTED_IN_SECONDS, *TRAINED])
def test_one_map_an_image(fitted, model):
    side = SIZE if model == "to_pixels" else SIDE
    found = fitted[model].anomaly_maps(pictures(3, seed=1))
    assert list(found) == ["distance"] and found["distance"].dtype == torch.float32
    assert found["distance"].shape == (3, side, side) and found["distance"].isfinite().all()
    assert not found["distance"].requires_grad
    assert len(fitted[model].anomaly_maps(pictures(0))["distance"]) == 0


@pytest.mark.parametrize("model", [*FITTED_IN_SECONDS, *TRAINED])
def test_a_white_square_is_the_highest_place_of_its_map(model):
    # The stage that looks least far around.
    detector = fitted_to(model, pictures(size=64), image_size=64, layers="1", epochs=10, seed=3)
    clean = pictures(3, seed=1, size=64)
    before, found = maps(detector, clean), maps(detector, spotted(clean, y=24, x=40))
    stride = 64 // found.shape[1]
    for one in found:
        y, x = divmod(int(one.argmax()), one.shape[1])
        assert 24 - stride <= y * stride <= 32 and 40 - stride <= x * stride <= 48
    assert (found.max(axis=(1, 2)) > before.max()).all()  # higher = more anomalous


@pytest.mark.parametrize("model", [*FITTED_IN_SECONDS, *TRAINED])
def test_same_seed_same_numbers(fitted, model):
    torch.manual_seed(12345)
    again = fitted_to(model)
    assert equal_states(fitted[model], again)
    unseen = pictures(3, seed=1)
    assert np.array_equal(maps(fitted[model], unseen), maps(again, unseen))
    losses = [[row["loss"] for row in one.history] for one in (fitted[model], again)]
    epochs = {"classifier": detectors.EPOCHS, "fused": detectors.EPOCHS}
    assert losses[0] == losses[1]
    assert len(losses[0]) == epochs.get(model, CONFIG.epochs if model in TRAINED else 0)


@pytest.mark.parametrize("model", ["classifier", "to_features", "cae"])
def test_fitting_leaves_the_global_generator_where_it_was(model):
    detector = registry.build(configured(model))
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    fit(detector, pictures()[KEPT], pictures()[HELD])
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("model", ["gaussian", "memory", "classifier", "to_features"])
def test_another_seed_is_another_fit(fitted, model):
    other = registry.build(configured(model, seed=1))
    other.backbone = fitted[model].backbone  # random weights are the seed's, too
    assert not equal_states(fitted[model], fit(other, pictures()[KEPT], pictures()[HELD]))


@pytest.mark.parametrize("model", ["pca", "gaussian_anywhere"])
def test_what_draws_nothing_has_no_seed(fitted, model):
    other = registry.build(configured(model, seed=1))
    other.backbone = fitted[model].backbone
    assert equal_states(fitted[model], fit(other, pictures()[KEPT], pictures()[HELD]))


@pytest.mark.parametrize("model", [*FITTED_IN_SECONDS, "to_features", "contrast"])
def test_nothing_is_fitted_on_the_validation_images(model):
    """They give the fused detector its two scales, and nobody anything else."""
    good = pictures()
    spoiled = spotted(good, HELD)
    spoiled[HELD] = spoiled[HELD].flip(3)
    first, other = (fitted_to(model, some) for some in (good, spoiled))
    if model == "fused":
        for one, another in ((first.head, other.head), (first.head.whole, other.head.whole)):
            assert not torch.equal(one.spread, another.spread)
            for name in ("centre", "spread"):
                setattr(another, name, getattr(one, name))
    assert equal_states(first, other) and first.position_share == other.position_share
    changed = fitted_to(model, spotted(good, KEPT[2]))
    assert not equal_states(first, changed)  # while each kept one counts


@pytest.mark.parametrize("model", FITTED_IN_SECONDS)
def test_the_state_dict_is_the_whole_detector(fitted, model):
    """Whatever mode it is loaded in."""
    other = registry.build(configured(model, seed=1))
    load_state(other, fitted[model].state_dict())
    unseen = pictures(3, seed=1)
    assert equal_states(other, fitted[model])
    assert np.array_equal(maps(other, unseen), maps(fitted[model], unseen))


@pytest.mark.parametrize("model", ["memory", "classifier", "to_features", "contrast"])
def test_no_validation_images_are_needed(model):
    assert equal_states(fitted_to(model, held=None), fitted_to(model))


@pytest.mark.parametrize("few, held", [(9, None), (11, HELD[:0]), (9, HELD)])
def test_of_few_held_out_all_good_ones_put_the_fused_maps_on_one_scale(few, held, monkeypatch):
    """Those that it was fitted on without their own patches; of few in all, disturbed copies."""
    monkeypatch.setattr(fused, "FEW", few)
    found, n = fitted_to("fused", held=held), 0 if held is None else len(held)
    known = pictures()[KEPT if held is None else torch.cat([KEPT, held])]
    own = torch.cat([torch.arange(len(KEPT)), torch.full((n, ), -1)])
    if len(known) < few:
        known, own = torch.cat([corruptions.apply(known, name, 1)
                                for name in ("shift", "rotation", "brighter", "darker")]), \
            own.repeat(4)
    features = found.features(known)
    head, one_by_one = found.head, []
    for i in range(len(known)):
        nearest = head.nearest(features[[i]], own[[i]])[1]
        both = head.classifier.both(features[[i]], nearest)
        one_by_one.append(head.in_local_scale(nearest, *both))
    for whose, centre, spread in zip(zip(*one_by_one, strict=True), head.centre, head.spread,
                                     strict=True):
        values = torch.cat(whose).detach().numpy()
        tops = anomaly_maps.reduce(anomaly_maps.smooth(values), "top1")
        assert float(centre) == pytest.approx(tops.mean(), rel=1e-3, abs=1e-3)
        assert float(spread) == pytest.approx(tops.std(ddof=1), rel=1e-2)
    whole = found.head.whole
    distances = whole.distance(whole.pooled(features), own)
    assert torch.equal(whole.centre, distances.mean())
    assert torch.equal(whole.spread, distances.std())


def test_the_only_good_image_is_not_what_its_own_cells_are_compared_with():
    one = registry.build(dataclasses.replace(CONFIG, model="fused")).fit(pictures()[:1])
    memory = one.head.classifier.memory
    assert set(memory.image.tolist()) == {0, 1}  # 1: its views
    features = one.features(pictures()[:1])
    assert memory(features, memory.nearest(features, torch.tensor([0]))[1]).median() > 0


def test_the_backbone_is_frozen_bit_for_bit():
    detector = registry.build(CONFIG)
    before = {name: tensor.clone() for name, tensor in detector.backbone.state_dict().items()}
    maps(fit(detector, pictures(seed=3)[KEPT], pictures(seed=3)[HELD]), pictures(2, seed=4))
    after = detector.backbone.state_dict()
    assert all(torch.equal(tensor, before[name]) for name, tensor in after.items())


def test_fitting_and_mapping_leave_the_pictures_as_they_are():
    good, unseen = pictures(), pictures(2, seed=1)
    maps(fitted_to("fused", good), unseen)
    assert torch.equal(good, pictures()) and torch.equal(unseen, pictures(2, seed=1))


@pytest.mark.parametrize("model", fused.CLOSED_FORM)
def test_a_closed_form_is_fitted_on_the_grid_of_the_configurations_layers(model):
    found = fitted_to(model, layers="2,3", seed=3)
    grid = backbone.grid(found.stages(pictures()[KEPT]), "2,3")
    kind = fused.CLOSED_FORM[model]
    assert type(found.head) is kind and grid.shape[1] == 128 + 256
    unseen = backbone.grid(found.stages(pictures(2, seed=1)), "2,3")
    views = {"views": found._views(pictures()[KEPT])} if model == "memory" else {}
    expected = kind().fit(grid, 3, **views)(unseen).numpy()
    assert np.array_equal(maps(found, pictures(2, seed=1)), expected)
    assert found.position_share == backbone.position_share(grid) and 0 < found.position_share < 1


def test_the_classifier_is_trained_with_the_seed_and_the_layers_of_the_configuration():
    found = fitted_to("classifier", layers="1", seed=3)
    seed = fused.TRAINING_SEED + 3
    changed, masks, _ = anomalies.insert(pictures()[KEPT], SYNTHETIC, seed=seed)
    good, anomalous = (found.features(some) for some in (pictures()[KEPT], changed))
    made_of = torch.from_numpy(anomalies.sources(SYNTHETIC, len(KEPT), seed=seed))
    reference = detectors.SyntheticAnomalyClassifier(64).fit(
        good, anomalous, masks, made_of, found._views(pictures()[KEPT]), seed=3)
    assert equal_states(found.head, reference)


def test_the_eight_positions_of_an_image_are_all_that_mirrors_and_quarter_turns_give():
    image = pictures(1)[0]
    found = {fused.turned(image, position).numpy().tobytes() for position in range(8)}
    turned = [torch.rot90(some, k, (-2, -1)) for k in range(4) for some in (image, image.flip(-1))]
    assert torch.equal(fused.turned(image, 0), image) and len(found) == 8
    assert found == {one.numpy().tobytes() for one in turned}


@pytest.mark.parametrize("most", [5, 99])
def test_views_are_cells_of_other_positions_of_the_good_images(fitted, monkeypatch, most):
    monkeypatch.setattr(fused, "VIEWS", most)
    detector, good = fitted["memory"], pictures()[KEPT]
    cells, image = detector._views(good)
    side = SIDE**2
    assert len(cells) == len(image) == min(most, 7 * len(good)) * side
    assert most == 5 or len(image.unique()) == len(good)
    for i in image.unique().tolist():
        turned = torch.stack([fused.turned(good[i], position) for position in range(1, 8)])
        possible = detector.features(turned).permute(0, 2, 3, 1).flatten(0, 2)
        mine = cells[image == i]
        exactly = torch.cdist(mine, possible, compute_mode="donot_use_mm_for_euclid_dist")
        assert exactly.amin(dim=1).max() < 1e-2  # rounding differs by the size of the batch
    for model in ("pca", "gaussian"):
        assert registry.build(configured(model))._views(good) is None


def test_a_mirrored_good_image_is_as_good_to_the_memory():
    """What lies mirrored is no defect: nearly so far as it is to a memory without views."""
    good = spotted(pictures(), y=4, x=4)
    plain = detectors.Memory().fit(registry.build(configured("memory")).features(good))
    detector = fit(configured("memory"), good)
    mirrored = pictures(3, seed=1)
    mirrored = spotted(mirrored, y=4, x=4).flip(-1)
    with_views = maps(detector, mirrored).max()
    without = plain(detector.features(mirrored)).max()
    assert with_views < 0.8 * without


def test_maps_do_not_depend_on_how_many_images_there_are():
    """The maps of a chunk are those of its features, whichever chunk an image is in."""
    detector = fitted_to("pca")
    many = pictures(67, seed=1)
    features = detector.features(many)  # 64 at a time, as anomaly_maps has them
    expected = torch.cat([detector.head(features[:64]), detector.head(features[64:])])
    assert np.array_equal(maps(detector, many), expected.numpy())


def test_the_fused_map_is_the_sum_of_its_halves_in_deviations_of_validation_scores(
        fitted, monkeypatch):
    monkeypatch.setattr(fused, "FEW", len(HELD))
    whole = fitted_to("fused")
    head, expected = whole.head, 0
    assert equal_states(fitted["classifier"].head, head.classifier)
    assert equal_states(fitted["memory"].head, head.classifier.memory)
    for half, name in enumerate(("memory", "classifier")):
        def of(images, name=name):
            found = torch.from_numpy(maps(fitted[name], images))
            if name == "memory":  # in units of how far apart good patches lie there
                found = found / head.local_scale[fitted[name].head.places(whole.features(images))]
            return found

        tops = anomaly_maps.reduce(anomaly_maps.smooth(of(pictures()[HELD]).numpy()), "top1")
        assert float(head.centre[half]) == pytest.approx(tops.mean(), rel=2**-20)
        assert float(head.spread[half]) == pytest.approx(np.std(tops, ddof=1), rel=2**-12)
        expected = expected + (of(pictures(3, seed=1)) - head.centre[half]) / head.spread[half]
    expected = head.whole(whole.features(pictures(3, seed=1)))[:, None, None] + expected
    assert np.array_equal(maps(whole, pictures(3, seed=1)), expected.numpy())


class Halves(torch.nn.Module):
    """Two maps: the image's channels in some units."""

    history = ()

    def __init__(self, *units):
        super().__init__()
        self.units, self.memory = units, self

    def places(self, x):
        return torch.zeros(len(x), *x.shape[2:], dtype=torch.int64)

    def both(self, x, nearest=None):
        return [factor * x[:, i] + shift for i, (factor, shift) in enumerate(self.units)]


def test_the_fused_map_does_not_depend_on_its_halves_units():
    held, x = (torch.randn(9, 2, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
               for seed in (0, 1))

    def of(*units):
        head = fused.Fused(2)
        head.classifier, head.local_scale = Halves(*units), torch.ones(1)
        return head.scale(held)(x)

    found = [of((1, 0), units) for units in ((1, 0), (1024, -8), (2**-7, 4))]
    # A shift of 4 at a scale of 1/128: 512 times float32's rounding, in deviations of some 0.3.
    for other in found[1:]:
        assert torch.allclose(found[0], other, rtol=0, atol=2 * 512 / 0.3 * 2**-24 * 8)
    # A flat half divides by no zero.
    assert torch.isfinite(of((0, 1), (1, 0))).all()


def test_the_classifier_sees_anomalies_in_the_fitted_images_and_of_the_asked_kinds(monkeypatch):
    calls, insert = [], anomalies.insert

    def spy(good, n, **rest):
        calls.append((good.clone(), n, rest))
        return insert(good, n, **rest)

    monkeypatch.setattr(anomalies, "insert", spy)
    fitted_to("classifier", kinds="scratch, perlin", seed=3)
    ((good, n, rest), ) = calls
    assert torch.equal(good, pictures()[KEPT]) and n == SYNTHETIC
    assert rest == {"seed": fused.TRAINING_SEED + 3, "kinds": ["scratch", "perlin"], "area": None}
    for model in ("memory", "to_features"):
        fitted_to(model)
    assert len(calls) == 1  # nobody else learns from anomalies


@pytest.mark.parametrize("name", STATISTICS)
def test_a_statistic_needs_no_backbone(name, monkeypatch):
    monkeypatch.setattr(backbone, "extract", None)
    monkeypatch.setattr(backbone, "load_backbone", None)
    detector = fitted_to(name, weights="imagenet")
    assert detector.weights == "none" and detector.position_share is None
    assert maps(detector, spotted(pictures(3, seed=1))).shape == (3, 1, 1)


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


REFITTED = sorted(set(fused.CLOSED_FORM) - set(fused.LEFT_OUT))


@pytest.mark.parametrize("model", REFITTED)
def test_each_fold_is_a_fit_on_the_rest(fitted, model):
    features = fitted[model].features(pictures())
    found = crossed(fitted[model], pictures(), KEPT, FOLDS[1:3])
    for held, (rest, index) in zip(found, FOLDS[1:3], strict=True):
        alone = fused.CLOSED_FORM[model]().fit(features[rest], 0)
        assert np.array_equal(held, alone(features[index]).numpy())


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


def test_where_good_cells_lie_apart_a_distance_counts_for_less(fitted):
    detector = fitted["fused"]
    head, x = detector.head, detector.features(pictures(2, seed=3))
    assert torch.equal(head.local_scale, head.classifier.memory.local_scale())
    assert head.local_scale.std() > 0
    before, distances = head(x).detach(), head.classifier.memory(x)
    places = head.classifier.memory.places(x)
    head.local_scale = 2 * (local_scale := head.local_scale)
    try:
        lower = before - head(x)
    finally:
        head.local_scale = local_scale
    expected = distances / local_scale[places] / 2 / head.spread[0]
    assert torch.allclose(lower, expected, rtol=0, atol=float(before.abs().max()) * 2**-20)


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


def test_copies_and_places_of_tiles_explain_no_whole_picture():
    usual, varied = (fit(configured("fused", vary=vary), pictures()[KEPT], pictures()[HELD])
                     for vary in (False, True))
    tiles = registry.build(configured("fused"))
    fit_on(tiles, pictures()[KEPT], pictures()[HELD], of=torch.arange(len(KEPT)))
    assert [len(one.head.whole.basis) for one in (usual, varied, tiles)] == [len(KEPT), 0, 0]


def test_of_many_images_a_sample_is_fitted_on(monkeypatch):
    monkeypatch.setattr(fused, "MOST", 5)
    chosen = [registry.build(configured("memory", seed=seed))._sample(8) for seed in (0, 0, 1)]
    assert torch.equal(chosen[0], chosen[1]) and not torch.equal(chosen[0], chosen[2])
    assert len(chosen[0].unique()) == 5 and set(chosen[0].tolist()) < set(range(8))
    sampled = fitted_to("memory")
    monkeypatch.undo()
    assert equal_states(sampled, fit(configured("memory"), pictures()[KEPT][chosen[0]]))


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


def test_features_are_the_same_kept_or_computed_again():
    """Of tiles of large pictures they are not kept; one at a time or many, they differ by
    rounding."""
    detector, images = registry.build(configured("memory")), pictures()
    kept = detector.grids(images)
    detector.keeps_features = False
    again = detector.grids(images)
    assert again.shape == kept.shape == kept[:].shape
    for index in (4, slice(2, 9)):
        assert torch.allclose(again[index], kept[index], **of_features(kept[:]))
        assert not torch.allclose(again[index], kept[:][0], **of_features(kept[:]))
