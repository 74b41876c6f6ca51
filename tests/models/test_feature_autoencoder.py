import dataclasses

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cosine

from adlib.config import Config, InputError
from adlib.models import backbone as features
from adlib.models import feature_autoencoder, training
from tests.tolerances import NETWORK, UNIT, size_of, summed

CONFIG = Config(model="to_features", image_size=32, epochs=2, batch_size=4, lr=5e-3, weights="none",
                device="cpu", precision="float32")
TARGETS = ("to_pixels", "to_features")


def configured(target, **changes):
    return dataclasses.replace(CONFIG, model=target, **changes)


def pictures(n=8, size=32, seed=0):
    """A gradient, lighter or darker, with some noise."""
    rng = np.random.default_rng(seed)
    grey = np.linspace(60, 140, size)[None, None, None] + rng.normal(0, 20,
                                                                     (n, 1, 1, 1)) + rng.normal(
                                                                         0, 5, (n, 3, size, size))
    return torch.from_numpy(np.clip(grey, 0, 255).astype(np.uint8))


def stages_of(n=8, size=32, seed=0):
    """What features.extract could give: each channel has its level."""
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.rand(1, channels, 1, 1, generator=torch.Generator().manual_seed(9)) +
         0.3 * torch.rand(n, channels, size // stride, size // stride, generator=generator)).half()
        for channels, stride in zip(features.CHANNELS, features.STRIDES, strict=True)
    ]


def on(stages, config):
    """A detector whose backbone gives these stages, whatever it looks at."""
    detector = feature_autoencoder.FeatureAutoencoder(config)
    detector.stages = lambda images: [stage[:len(images)] for stage in stages]
    return detector


def fitted(target, n=8, size=32, **changes):
    config = configured(target, image_size=size, **changes)
    return on(stages_of(n, size), config).fit(pictures(n, size))


@pytest.fixture(scope="module")
def trained():
    return {target: fitted(target, epochs=8) for target in TARGETS}


def maps(detector, stages, images, **changes):
    """Its maps of images with these stages."""
    other = on(stages, dataclasses.replace(detector.config, **changes))
    other.decoder = detector.decoder
    return other.anomaly_maps(images)["distance"]


def mapped(detector, n=3, size=32, **changes):
    return maps(detector, stages_of(n, size, 5), pictures(n, size, 5), image_size=size, **changes)


@pytest.mark.parametrize("size", [32, 64, 96])
def test_what_goes_in_and_what_comes_out(size):
    layer3 = torch.randn(2, 256, size // 16, size // 16)
    pixels = feature_autoencoder.Decoder("to_pixels").eval()(layer3)
    assert pixels.shape == (2, 3, size, size) and 0 <= pixels.min() and pixels.max() <= 1
    model = feature_autoencoder.Decoder("to_features").eval()
    assert [tuple(estimate.shape) for estimate in model(layer3)
            ] == [(2, channels, size // stride, size // stride)
                  for channels, stride in zip(features.CHANNELS, features.STRIDES, strict=True)]
    assert model.bottleneck(layer3).shape == (2, 256, size // 32, size // 32)
    # read out by a plain convolution: no range is forced on it
    assert any((estimate < 0).any() for estimate in model(layer3))


def test_only_the_last_layers_differ():
    states = []
    for target in TARGETS:
        torch.manual_seed(3)
        states.append(feature_autoencoder.Decoder(target).state_dict())
    pixels, read_out = ({
        name: tensor
        for name, tensor in state.items() if not name.startswith("out.")
    } for state in states)
    assert pixels.keys() == read_out.keys() and {name.split(".")[0]
                                                 for name in pixels} == {"bottleneck", "stages"}
    # they even start with the same numbers
    assert all(torch.equal(tensor, read_out[name]) for name, tensor in pixels.items())
    last = [
        sum(tensor.numel() for name, tensor in state.items()
            if name.startswith("out.") and tensor.is_floating_point()) for state in states
    ]
    assert last == [(64 * 32 * 16 + 32) + 4 * 32 + (32 * 3 * 16 + 3),
                    sum(c * c + c for c in features.CHANNELS)]


def test_each_stage_is_read_out_of_the_decoders_stage_of_its_size():
    model = feature_autoencoder.Decoder("to_features").eval()
    layer3 = torch.randn(2, 256, 4, 4)
    with torch.no_grad():
        x = model.bottleneck(layer3)
        expected = []
        for stage, read in zip(model.stages, reversed(model.out), strict=True):
            x = stage(x)
            expected.append(
                torch.einsum("oi,nihw->nohw", read.weight[:, :, 0, 0], x) +
                read.bias[:, None, None])
        for estimate, truth in zip(model(layer3), reversed(expected), strict=True):
            # A 1x1 convolution of at most 256 terms, by another product.
            assert torch.allclose(estimate, truth, rtol=0, atol=6 * summed(256) * size_of(x))


@pytest.mark.parametrize("target", TARGETS)
def test_the_loss_falls_while_the_rate_rises_and_falls(trained, target):
    history = trained[target].history
    losses, rates = ([row[name] for row in history] for name in ("loss", "lr"))
    assert [row["epoch"] for row in history] == list(range(1, 9))
    assert losses[-1] < 0.7 * losses[0]
    assert max(rates) == pytest.approx(CONFIG.lr, rel=0.1) and rates.index(max(rates)) in (1, 2)
    assert rates[-1] < 0.03 * max(rates)
    assert not any(module.training for module in trained[target].decoder.modules())


@pytest.mark.parametrize("target", TARGETS)
def test_the_backbone_is_frozen_bit_for_bit(target):
    detector, seen = feature_autoencoder.FeatureAutoencoder(configured(target)), pictures()
    before = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    kept = [stage.clone() for stage in detector.stages(seen)]
    detector.fit(seen)
    detector.anomaly_maps(seen)
    after = detector.state_dict()
    moved = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert not [name for name in moved if name.startswith("backbone.")]
    assert not any(p.requires_grad for p in detector.backbone.parameters())
    assert torch.equal(seen, pictures())
    assert all(torch.equal(a, b) for a, b in zip(detector.stages(seen), kept, strict=True))
    torch.manual_seed(0)
    fresh = feature_autoencoder.Decoder(target).state_dict()
    decoder = detector.decoder.state_dict()
    learned = {name.split(".")[0] for name, tensor in decoder.items()
               if not torch.equal(tensor, fresh[name])}
    assert learned == {"bottleneck", "stages", "out"}  # while the decoder learns


@pytest.mark.parametrize("target, distance", [("to_pixels", "cosine"), ("to_features", "cosine"),
                                              ("to_features", "squared")])
def test_the_loss_is_the_mean_of_the_map(target, distance):
    # One batch: the loss is that of the first weights.
    detector = fitted(target, distance=distance, epochs=1, batch_size=8)
    torch.manual_seed(CONFIG.seed)
    decoder = feature_autoencoder.Decoder(target).train()
    found = on(stages_of(), detector.config)
    found.decoder = decoder.train()
    mean = found.errors(stages_of(), pictures()).double().mean().item()
    # Errors of size 1 of a decoder of six layers in float32.
    assert detector.history[0]["loss"] == pytest.approx(mean, abs=6 * NETWORK)


@pytest.mark.parametrize("target", TARGETS)
def test_the_same_for_the_same_seed_and_other_for_another(target):
    torch.manual_seed(1)
    first = fitted(target, seed=2)
    torch.manual_seed(5)
    again, other = fitted(target, seed=2), fitted(target, seed=3)
    assert [row["loss"] for row in first.history] == [row["loss"] for row in again.history]
    assert all(torch.equal(tensor, again.state_dict()[name])
               for name, tensor in first.state_dict().items())
    assert torch.equal(mapped(first), mapped(again))
    assert not torch.allclose(mapped(first), mapped(other), rtol=1e-3)


@pytest.mark.parametrize("size", [32, 64])
def test_maps_have_the_size_of_the_image_or_of_layer2(size):
    for target, side in (("to_pixels", size), ("to_features", size // 8)):
        detector = fitted(target, size=size, epochs=1)
        found = mapped(detector, size=size)
        assert found.shape == (3, side, side) and found.dtype == torch.float32
        # A cosine of parallel vectors may exceed 1 by its rounding.
        assert (found >= -8 * UNIT[torch.float32]).all()
        assert found.device.type == "cpu" and not found.requires_grad
        assert len(mapped(detector, n=0, size=size)) == 0


def test_pixels_are_compared_by_their_squared_error(trained):
    detector = trained["to_pixels"]
    with torch.no_grad():
        output = detector.decoder(stages_of(3, seed=5)[2].float()).double().numpy()
    expected = ((pictures(3, seed=5).double().numpy() / 255 - output)**2).mean(axis=1)
    # Of values in [0,1], by one network in two memory layouts.
    assert mapped(detector).numpy() == pytest.approx(expected, rel=0, abs=6 * NETWORK)


def on_layer2s_grid(errors, stage):
    """2x2 blocks of layer1's, layer3's bilinear between the centres of its cells."""
    if stage == 0:
        return errors.reshape(len(errors), errors.shape[1] // 2, 2, errors.shape[2] // 2,
                              2).mean(axis=(2, 4))
    if stage == 2:
        for axis in (1, 2):
            count = errors.shape[axis]
            where = np.clip((np.arange(2 * count) + 0.5) / 2 - 0.5, 0, count - 1)
            weights = np.maximum(0, 1 - np.abs(where[:, None] - np.arange(count)))
            errors = np.moveaxis(np.tensordot(weights, errors, (1, axis)), 0, axis)
    return errors


@pytest.mark.parametrize("layers", ["1", "2", "3", "1,2,3", "3, 1"])
@pytest.mark.parametrize("distance", ["cosine", "squared"])
def test_features_are_compared_by_the_formula(trained, distance, layers):
    detector, stages = trained["to_features"], stages_of(3, 64, 5)
    with torch.no_grad():
        estimates = detector.decoder(stages[2].float())
    errors = []
    for layer in layers.split(","):
        truth, estimate = (some[int(layer) - 1].double().numpy() for some in (stages, estimates))
        error = ((truth - estimate)**2).mean(axis=1) if distance == "squared" else np.array(
            [[[cosine(truth[i, :, y, x], estimate[i, :, y, x]) for x in range(truth.shape[3])]
              for y in range(truth.shape[2])] for i in range(3)])
        errors.append(on_layer2s_grid(error, int(layer) - 1))
    found = mapped(detector, size=64, distance=distance, layers=layers)
    # Distances of size 1, of features of size 1.
    assert found.numpy() == pytest.approx(np.mean(errors, axis=0), rel=0, abs=6 * NETWORK)


def test_layers_that_are_not_asked_for_are_not_learned():
    detector = fitted("to_features", layers="2")
    torch.manual_seed(CONFIG.seed)
    fresh = feature_autoencoder.Decoder("to_features").out
    assert [torch.equal(detector.decoder.out[i].weight, fresh[i].weight)
            for i in range(3)] == [True, False, True]


def test_to_pixels_looks_at_no_layer_and_no_distance():
    first, other = fitted("to_pixels"), fitted("to_pixels", layers="1", distance="squared")
    assert torch.equal(mapped(first), mapped(other, layers="2", distance="squared"))


@pytest.mark.parametrize("target", TARGETS)
def test_an_images_map_does_not_depend_on_its_neighbours(trained, target):
    detector, stages = trained[target], stages_of(5, seed=5)
    together = mapped(detector, n=5)  # a batch of four, and one more
    for i in range(5):
        one = slice(i, i + 1)
        alone = maps(detector, [stage[one] for stage in stages], pictures(5, seed=5)[one])
        assert torch.allclose(alone[0], together[i], rtol=0, atol=6 * NETWORK)
    again = mapped(detector, n=5, batch_size=2)
    assert torch.allclose(again, together, rtol=0, atol=6 * NETWORK)


def test_a_white_square_is_where_the_pixels_error_is_highest(trained):
    odd = pictures(1, seed=5)
    odd[:, :, 8:14, 18:24] = 255
    y, x = divmod(int(maps(trained["to_pixels"], stages_of(1, seed=5), odd).argmax()), 32)
    assert 8 <= y < 14 and 18 <= x < 24


def test_an_odd_cell_is_where_the_features_error_is_highest(trained):
    stages = stages_of(1, 64, 5)
    stages[1][0, :, 5, 2] *= -1
    found = maps(trained["to_features"], stages, pictures(1, 64, 5), image_size=64)
    assert divmod(int(found.argmax()), 8) == (5, 2)


@pytest.mark.parametrize("target", TARGETS)
def test_bf16_computes_float32_maps_of_about_the_same_numbers(target):
    detector = fitted(target, precision="bf16", epochs=1)
    found, exact = (mapped(detector, precision=precision) for precision in ("bf16", "float32"))
    assert found.dtype == torch.float32 and not torch.equal(found, exact)
    # Six layers, each rounded to 8 bits: 1 % of values of size 1, and twice that in an error.
    tolerance = 2 * summed(6, torch.bfloat16)
    assert torch.allclose(found, exact, rtol=10 * tolerance, atol=tolerance)
    assert np.isfinite(detector.history[0]["loss"])


def test_both_targets_learn_under_one_schedule(monkeypatch):
    calls, one_cycle = [], training.one_cycle

    def spy(parameters, loss_of, count, **rest):
        calls.append((count, rest))
        return one_cycle(parameters, loss_of, count, **rest)

    monkeypatch.setattr(training, "one_cycle", spy)
    for target in TARGETS:
        fitted(target, epochs=3, seed=6, lr=0.01)
    assert calls[0] == calls[1] == (8, {"epochs": 3, "batch_size": 4, "peak": 0.01, "seed": 6})


def test_a_loss_that_is_not_finite_is_a_sentence():
    broken = stages_of()
    broken[2][0, 0, 0, 0] = float("nan")
    with pytest.raises(
            InputError,
            match="the loss became nan in epoch 1; the learning rate 0.005 is probably too high"):
        on(broken, CONFIG).fit(pictures())


def test_nothing_is_left_where_the_reconstruction_is_the_image(trained):
    detector = trained["to_pixels"]
    with torch.no_grad():
        output = detector.decoder(stages_of(3, seed=5)[2].float())
    perfect = (output * 255).round().to(torch.uint8)
    found = maps(detector, stages_of(3, seed=5), perfect)
    assert found.max() < (0.5 / 255 + 6 * NETWORK)**2  # nothing but the rounding to 8 bits


@pytest.mark.parametrize("target", TARGETS)
def test_the_state_dict_is_the_whole_detector(trained, target):
    other = feature_autoencoder.FeatureAutoencoder(trained[target].config)
    other.load_state_dict(trained[target].state_dict())
    assert torch.equal(mapped(other), mapped(trained[target]))


@pytest.mark.parametrize("target", TARGETS)
def test_the_only_good_image_is_learned_from_where_batch_norm_can(target):
    assert np.isfinite(fitted(target, n=1, size=64, epochs=1).history[0]["loss"])
    with pytest.raises(InputError, match="1 good training image of 32 pixels is too little"):
        fitted(target, n=1, epochs=1)
