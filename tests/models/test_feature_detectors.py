"""What is fitted in seconds on the backbone's features, whichever kind it is."""
import numpy as np
import pytest
import torch

from adlib.config import FITTED_IN_SECONDS, STATISTICS
from adlib.data import corruptions
from adlib.data.synthetic import anomalies
from adlib.models import backbone, detectors, fused, registry
from adlib.models.detector import fit, load_state
from tests.models.striped import (
    CONFIG,
    HELD,
    KEPT,
    SIDE,
    SIZE,
    SYNTHETIC,
    TRAINED,
    configured,
    equal_states,
    fitted_to,
    maps,
    pictures,
    spotted,
)
from tests.tolerances import of_features

pytestmark = pytest.mark.usefixtures("quick")


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
    hosts = torch.arange(SYNTHETIC) % len(KEPT)
    strengths = np.random.default_rng(seed).choice(4, SYNTHETIC, p=[0.75, *[0.25 / 3] * 3])
    noisy = pictures()[KEPT][hosts]
    for strength in (1, 2, 3):
        some = torch.from_numpy(strengths == strength)
        noisy[some] = corruptions.apply(noisy[some], "noise", strength,
                                        seed=2 * fused.TRAINING_SEED + 3)
    changed, masks, _ = anomalies.insert(noisy, SYNTHETIC, seed=seed)
    good, anomalous = (found.features(some) for some in (pictures()[KEPT], changed))
    made_of = hosts[torch.from_numpy(anomalies.sources(SYNTHETIC, SYNTHETIC, seed=seed))]
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


def test_the_classifier_sees_anomalies_in_the_fitted_images_and_of_the_asked_kinds(monkeypatch):
    calls, insert = [], anomalies.insert

    def spy(good, n, **rest):
        calls.append((torch.stack(good), n, rest))
        return insert(good, n, **rest)

    monkeypatch.setattr(anomalies, "insert", spy)
    fitted_to("classifier", kinds="scratch, perlin", seed=3)
    ((good, n, rest), ) = calls
    as_they_are = (good == pictures()[KEPT][torch.arange(n) % len(KEPT)]).flatten(1).all(dim=1)
    assert n == len(good) == SYNTHETIC
    assert 0.5 < as_they_are.float().mean() < 0.95  # some have noise
    assert rest == {"seed": fused.TRAINING_SEED + 3, "kinds": ["scratch", "perlin"]}
    for model in ("memory", "to_features"):
        fitted_to(model)
    assert len(calls) == 1  # nobody else learns from anomalies


def test_noise_is_put_where_pixels_count_and_nowhere_else(monkeypatch):
    given, insert = [], anomalies.insert
    monkeypatch.setattr(anomalies, "insert",
                        lambda hosts, *n, **how: given.extend(hosts) or insert(hosts, *n, **how))
    good, area = pictures(30), torch.zeros(30, SIZE, SIZE, dtype=torch.bool)
    area[:, :, 8:] = True
    images, masks, made_of = registry.build(configured("fused"))._anomalies(good, area)
    changed = torch.stack(given)[:, :3] != good
    assert len(images) == len(masks) == len(made_of) == SYNTHETIC and len(given) == 30
    assert not changed[..., :8].any() and 2 < changed.flatten(1).any(dim=1).sum() < 20
    assert not (images != good[made_of[:, 0]])[..., :8].any()


@pytest.mark.parametrize("name", STATISTICS)
def test_a_statistic_needs_no_backbone(name, monkeypatch):
    monkeypatch.setattr(backbone, "extract", None)
    monkeypatch.setattr(backbone, "load_backbone", None)
    detector = fitted_to(name, weights="imagenet")
    assert detector.weights == "none" and detector.position_share is None
    assert maps(detector, spotted(pictures(3, seed=1))).shape == (3, 1, 1)


def test_of_many_images_a_sample_is_fitted_on(monkeypatch):
    monkeypatch.setattr(fused, "MOST", 5)
    chosen = [registry.build(configured("memory", seed=seed))._sample(8) for seed in (0, 0, 1)]
    assert torch.equal(chosen[0], chosen[1]) and not torch.equal(chosen[0], chosen[2])
    assert len(chosen[0].unique()) == 5 and set(chosen[0].tolist()) < set(range(8))
    sampled = fitted_to("memory")
    monkeypatch.undo()
    assert equal_states(sampled, fit(configured("memory"), pictures()[KEPT][chosen[0]]))


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


def test_no_anomaly_that_a_choice_is_made_with_is_trained_with():
    images = torch.arange(4 * 3 * 32 * 32).mul(37).remainder(251).view(4, 3, 32, 32).byte()
    trained, chosen = (anomalies.insert(images, 8, seed=seed)[1]
                       for seed in (fused.TRAINING_SEED + 7, 7))
    assert not (trained == chosen).flatten(1).all(dim=1).any()
