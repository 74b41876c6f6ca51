import copy
import dataclasses
import os

import numpy as np
import pytest
import torch
from scipy import ndimage

from adlib import config as configs
from adlib.config import Config
from adlib.models import autoencoders
from adlib.models import backbone as features
from adlib.models.fast.device import threads
from adlib.models.resnet18 import IMAGENET_MEAN, IMAGENET_STD
from tests.tolerances import of_features, size_of, summed

CONFIG = Config(image_size=32, weights="none", device="cpu", precision="float32")


def pictures(n=3, size=32, seed=0):
    return torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8,
                         generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def net():
    """torchvision's, with running statistics that are no identity: train mode would be noticed."""
    from torchvision.models import resnet18

    torch.manual_seed(0)
    net = resnet18(weights=None).train()
    with torch.no_grad():
        for _ in range(3):
            net(torch.randn(8, 3, 32, 32))
    return net.eval()


@pytest.fixture(scope="module")
def weights(net, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(net.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def untouched(weights):
    return features.load_backbone(dataclasses.replace(CONFIG, weights=str(weights)))[0]


@pytest.fixture
def backbone(untouched):
    return copy.deepcopy(untouched)


@pytest.fixture
def forbidden(monkeypatch):
    """From its call on, nothing may be computed: what is wanted must be in the cache."""
    def compute(*_):
        raise AssertionError("computed, and not read from the cache")

    return lambda: monkeypatch.setattr(features, "_compute", compute)


def cached():
    return sorted((configs.cache_dir() / "features").glob("*"))


def same(a, b):
    return len(a) == len(b) and all(x.dtype == y.dtype and torch.equal(x, y)
                                    for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("size", [32, 64, 96])
def test_three_stages_of_half_precision_on_the_cpu(backbone, size):
    found = features.extract(backbone, pictures(2, size), CONFIG)
    assert [tuple(stage.shape) for stage in found] == [(2, 64, size // 4, size // 4),
                                                       (2, 128, size // 8, size // 8),
                                                       (2, 256, size // 16, size // 16)]
    assert all(
        stage.dtype == torch.float16 and stage.device.type == "cpu" and torch.isfinite(stage).all()
        for stage in found)
    assert (features.CHANNELS, features.STRIDES) == ((64, 128, 256), (4, 8, 16))


def test_equals_torchvisions_resnet18(net, backbone):
    from torchvision.transforms.functional import normalize

    pictured = pictures(features.BATCH + 2, 64)  # more than one batch: their order counts as well
    x = normalize(pictured.float() / 255, IMAGENET_MEAN, IMAGENET_STD)
    expected = []
    with torch.no_grad():
        x = net.maxpool(net.relu(net.bn1(net.conv1(x))))
        for stage in (net.layer1, net.layer2, net.layer3):
            x = stage(x)
            expected.append(x)
    found = features.extract(backbone, pictured, CONFIG)
    for stage, truth in zip(found, expected, strict=True):
        assert truth.std() > 0.1  # else the tolerance would forgive everything
        assert torch.allclose(stage.float(), truth, **of_features(truth))


def test_bf16_is_near_float32(backbone):
    for stage, other in zip(
            features.extract(backbone, pictures(), CONFIG),
            features.extract(backbone, pictures(), dataclasses.replace(CONFIG, precision="bf16")),
            strict=True):
        assert not torch.equal(stage, other)
        # 17 layers in a row, each rounded to 8 bits: 1.6 %.
        assert (stage.float() - other.float()).abs().mean() < summed(
            17, torch.bfloat16) * size_of(stage)


def test_an_image_has_its_features_whatever_its_neighbours(backbone):
    together = features.extract(backbone, pictures(3), CONFIG)
    for i in range(3):
        alone = features.extract(backbone, pictures(3)[i:i + 1], CONFIG)
        assert all(
            torch.allclose(one[0].float(), all_[i].float(), **of_features(all_))
            for one, all_ in zip(alone, together, strict=True))


def test_no_pictures_no_features(backbone):
    for _ in range(2):
        found = features.extract(backbone, pictures(0), CONFIG)
        assert [tuple(stage.shape) for stage in found] == [(0, 64, 8, 8), (0, 128, 4, 4),
                                                           (0, 256, 2, 2)]
        assert features.grid(found, "1,2,3").shape == (0, 448, 4, 4)


def test_the_backbone_is_frozen_and_says_where_it_came_from(weights):
    model, word = features.load_backbone(dataclasses.replace(CONFIG, weights=str(weights),
                                                        model="fused"))
    assert word == autoencoders.build_network(
        dataclasses.replace(CONFIG, weights=str(weights), model="resnet18"))[1]
    assert "resnet18.pth" in word
    assert not any(module.training for module in model.modules())
    assert not any(parameter.requires_grad
                   for parameter in model.parameters()) and list(model.parameters())
    assert [name for name, _ in model.encoder.named_children()] == [
        "conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3"
    ]
    assert not hasattr(model, "decoder")


def test_extracting_changes_no_weight_and_no_running_statistic(backbone):
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    first = features.extract(backbone, pictures(), CONFIG)
    for file in cached():
        file.unlink()
    # train() does not reach the numbers
    assert same(first, features.extract(backbone.train(), pictures(), CONFIG))
    after = backbone.state_dict()
    assert any("running_mean" in name for name in before)
    assert before.keys() == after.keys() and all(
        torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_random_weights_are_the_seeds():
    states = [
        features.load_backbone(dataclasses.replace(CONFIG, seed=seed))[0].state_dict()
        for seed in (0, 0, 1)
    ]
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())
    assert not torch.equal(states[0]["encoder.conv1.weight"], states[2]["encoder.conv1.weight"])


def test_the_random_weights_of_a_seed_are_drawn_once(weights, monkeypatch):
    drawn, draw = [], features.ResNet18
    monkeypatch.setattr(features, "ResNet18", lambda: drawn.append(1) or draw())
    features._drawn.cache_clear()
    states, after = [], []
    for given in ("none", str(weights), "none"):
        network, _ = features.load_backbone(dataclasses.replace(CONFIG, weights=given, seed=3))
        after.append(torch.rand(1).item())
        states.append({name: tensor.clone() for name, tensor in network.state_dict().items()})
        with torch.no_grad():  # of a copy of one's own
            network.encoder.conv1.weight.zero_()
    assert drawn == [1] and len(set(after)) == 1
    assert all(torch.equal(tensor, states[2][name]) for name, tensor in states[0].items())
    assert not torch.equal(states[0]["encoder.conv1.weight"], states[1]["encoder.conv1.weight"])


def test_the_second_call_reads_the_same_bytes(weights, backbone, forbidden):
    first = features.extract(backbone, pictures(), CONFIG)
    assert len(cached()) == 3  # a picture each, and no temporary file beside them
    forbidden()
    assert same(first, features.extract(backbone, pictures(), CONFIG))
    # another process's backbone
    again, _ = features.load_backbone(dataclasses.replace(CONFIG, weights=str(weights)))
    assert same(
        first,
        features.extract(again, pictures(),
                         dataclasses.replace(CONFIG, model="pca", seed=5, layers="2")))
    with pytest.raises(AssertionError, match="and not read"):
        features.extract(backbone, pictures(seed=1), CONFIG)


def other_pixels(model, pictured, config):
    pictured[-1, -1, -1, -1] ^= 1
    return model, pictured, config


def other_weights(model, pictured, config):
    with torch.inference_mode():
        model.encoder.layer3[1].conv2.weight[0, 0, 0, 0] += 1
    return model, pictured, config


def other_statistics(model, pictured, config):
    with torch.inference_mode():
        model.encoder.layer1[0].bn1.running_var[0] += 1
    return model, pictured, config


def other_precision(model, pictured, config):
    return model, pictured, dataclasses.replace(config, precision="bf16")


@pytest.mark.parametrize("change", [
    other_pixels, other_weights, other_statistics, other_precision
])
def test_what_changes_a_number_has_a_file_of_its_own(backbone, change):
    features.extract(backbone, pictures(), CONFIG)
    model, pictured, config = change(backbone, pictures(), CONFIG)
    found = features.extract(model, pictured, config)
    assert len(cached()) == 3 + (1 if change is other_pixels else 3)
    for file in cached():
        file.unlink()
    assert same(found, features.extract(model, pictured, config))  # as without any cache


@pytest.mark.parametrize("count", [3, 19])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_by_however_many_threads_features_are_the_same(backbone, precision, count):
    config = dataclasses.replace(CONFIG, precision=precision)
    found = []
    for n in (1, 3):
        with threads(n):
            found.append(features.extract(backbone, pictures(count), config))
        for file in cached():
            file.unlink()
    assert same(*found)


def test_equal_bytes_of_another_shape_are_other_pictures(backbone):
    features.extract(backbone, pictures(8, 32), CONFIG)
    features.extract(backbone, pictures(8, 32).view(2, 3, 64, 64), CONFIG)
    assert len(cached()) == 8 + 2


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_picture_that_is_known_looks_the_same_among_whatever_others(backbone, precision):
    """To the bit, as without any cache: else a run's numbers would depend on what ran before."""
    config = dataclasses.replace(CONFIG, precision=precision)
    pictured, some = pictures(11), [9, 1, 4]
    before = features.extract(backbone, pictured[some], config)
    whole = features.extract(backbone, pictured, config)  # three of them from the cache
    assert len(cached()) == 11
    assert same(before, [stage[some] for stage in whole])
    for file in cached():
        file.unlink()
    assert same(whole, features.extract(backbone, pictured, config))
    assert same([stage.flip(0) for stage in whole],
                features.extract(backbone, pictured.flip(0), config))


def empty(path):
    path.write_bytes(b"")


def truncated(path):
    path.write_bytes(path.read_bytes()[:-100])


def header_only(path):
    path.write_bytes(path.read_bytes()[:128])


def junk(path):
    path.write_bytes(b"these bytes are no array" * 100)


def pickled(path):
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)


def another_type(path):
    np.save(path, np.load(path).astype(np.float32))


def another_count(path):
    np.save(path, np.load(path)[:-1])


def folded(path):
    np.save(path, np.load(path)[None])


@pytest.mark.parametrize(
    "damage", [empty, truncated, header_only, junk, pickled, another_type, another_count, folded])
def test_a_damaged_file_is_computed_again(backbone, damage, forbidden):
    first = features.extract(backbone, pictures(), CONFIG)
    kept, (_, file, _) = cached(), cached()
    good = file.read_bytes()
    damage(file)
    assert file.read_bytes() != good
    assert same(first, features.extract(backbone, pictures(), CONFIG))
    assert cached() == kept and file.read_bytes() == good
    forbidden()
    assert same(first, features.extract(backbone, pictures(), CONFIG))


def test_nobody_changes_the_file_through_what_was_returned(backbone):
    first = [stage.clone() for stage in features.extract(backbone, pictures(), CONFIG)]
    good = [file.read_bytes() for file in cached()]
    for _ in range(2):
        for stage in features.extract(backbone, pictures(), CONFIG):
            stage.zero_()
        assert [file.read_bytes() for file in cached()] == good
    assert same(first, features.extract(backbone, pictures(), CONFIG))


def test_nobody_changes_the_file_through_what_was_computed(backbone):
    computed = features.extract(backbone, pictures(), CONFIG)
    first = [stage.clone() for stage in computed]
    for stage in computed:
        stage.zero_()
    assert same(first, features.extract(backbone, pictures(), CONFIG))



def test_what_was_used_last_is_forgotten_last(backbone, monkeypatch, forbidden):
    kept, dropped, new = (pictures(2, seed=seed) for seed in range(3))
    features.extract(backbone, kept, CONFIG)
    first = cached()
    features.extract(backbone, dropped, CONFIG)
    second = sorted(set(cached()) - set(first))
    for i, file in enumerate([*first, *second]):  # the first were written first ...
        os.utime(file, (1e9 + i, 1e9 + i))
    features.extract(backbone, kept, CONFIG)  # ... and read again
    monkeypatch.setattr(features, "KEPT_BYTES", 4 * first[0].stat().st_size)
    features.extract(backbone, new, CONFIG)
    assert len(cached()) == 4 and set(first) < set(cached()) and not set(second) & set(cached())
    forbidden()
    features.extract(backbone, new, CONFIG)


def test_features_above_the_limit_are_still_returned(backbone, monkeypatch):
    monkeypatch.setattr(features, "KEPT_BYTES", 0)
    first = features.extract(backbone, pictures(), CONFIG)
    assert len(cached()) == 1 and same(first, features.extract(backbone, pictures(), CONFIG))


def some_stages(n=3, side=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(n, channels, scale * side // 2, scale * side // 2, generator=generator).half()
        for channels, scale in zip((2, 3, 5), (4, 2, 1), strict=True)
    ]


def on_the_grid(stages):
    """By hand: the 3x3 mean with zeros outside, 2x2 blocks of layer1, layer3 bilinear between the
    centres of its cells."""
    one, two, three = (ndimage.uniform_filter(stage.double().numpy(), size=(1, 1, 3, 3),
                                              mode="constant") for stage in stages)
    one = one.reshape(*one.shape[:2], one.shape[2] // 2, 2, one.shape[3] // 2, 2).mean(axis=(3, 5))
    for axis in (2, 3):
        where = np.clip((np.arange(2 * three.shape[axis]) + 0.5) / 2 - 0.5, 0,
                        three.shape[axis] - 1)
        low = np.floor(where).astype(int)
        high, share = np.minimum(low + 1, three.shape[axis] - 1), np.expand_dims(
            where - low, (1, ) if axis == 2 else ())
        three = np.take(three, low, axis) * (1 - share) + np.take(three, high, axis) * share
    return {1: one, 2: two, 3: three}


@pytest.mark.parametrize("layers", ["1", "2", "3", "1,2", "2,3", "1,3", "1,2,3"])
def test_the_grid_is_layer2s(layers):
    stages = some_stages(side=8)
    found = features.grid(stages, layers)
    expected = np.concatenate([on_the_grid(stages)[int(layer)] for layer in layers.split(",")],
                              axis=1)
    assert found.dtype == torch.float32 and found.shape == expected.shape == (3, expected.shape[1],
                                                                              8, 8)
    # A mean of 9, then of 4 cells of size 1.
    assert found.numpy() == pytest.approx(expected, rel=0, abs=6 * summed(13))


def test_the_order_of_the_layers_is_no_matter():
    assert torch.equal(features.grid(some_stages(), "3, 1"), features.grid(some_stages(), "1,3"))


def test_the_grid_leaves_the_stages_as_they_are():
    stages = some_stages()
    features.grid(stages, "1,2,3")
    assert same(stages, some_stages())


def test_a_picture_on_its_own_is_not_kept_and_looks_the_same(backbone):
    alone = features.extract(backbone, pictures(3)[1:2], CONFIG)
    assert not cached()
    among = features.extract(backbone, pictures(3), CONFIG)
    assert all(
        torch.allclose(a.float(), b[1:2].float(), **of_features(b))
        for a, b in zip(alone, among, strict=True)) and len(cached()) == 3


def test_folded_is_the_same_function_of_the_weights_as_they_are_now(backbone):
    network, x = copy.deepcopy(backbone), torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        for _ in range(2):
            plain, folded = (features.stages_of(one, x)
                             for one in (network, features.folded(network)))
            for a, b in zip(plain, folded, strict=True):
                assert (a - b).abs().max() <= 1e-5 * a.abs().max()
            assert not any(isinstance(module, torch.nn.BatchNorm2d)
                           for module in features.folded(network).modules())
            network.load_state_dict({key: values + 0.01 * values.abs()
                                     for key, values in network.state_dict().items()})
    assert features.folded(network) is features.folded(network)


def in_place(layer):
    with torch.no_grad():
        layer.weight.mul_(2)


def replaced(layer):
    layer.weight = torch.nn.Parameter(2 * layer.weight.detach())


def moved(layer):  # as by .to(device)
    layer.weight.data = 2 * layer.weight.detach()


@pytest.mark.parametrize("change", [in_place, replaced, moved])
def test_a_network_that_changed_is_folded_and_hashed_anew(backbone, change):
    network = copy.deepcopy(backbone)
    before, digest = features.folded(network), features._digest(network)
    change(network.encoder.conv1)
    assert features.folded(network) is not before and features._digest(network) != digest


def test_grids_are_those_that_are_asked_for():
    """By a number, a slice, or numbers; what is picked and shared of them is that of the whole."""
    generator = torch.Generator().manual_seed(0)
    stages = [torch.randn(19, channels, 32 // stride, 32 // stride, generator=generator).half()
              for channels, stride in zip(features.CHANNELS, features.STRIDES, strict=True)]
    whole, asked = features.grids(stages, "1,2,3"), features.Grids(
        lambda index: [stage[index] for stage in stages], (19, 3, 32, 32), "1,2,3")
    assert asked.shape == whole.shape and len(asked) == 19
    for index in (3, slice(2, 17), torch.tensor([5, 0, 18]), np.array([1, 1])):
        assert torch.equal(asked[index], whole[index])
    cells = torch.randperm(19 * 16, generator=generator)[:40]
    assert torch.equal(features.picked(asked, cells),
                       whole.permute(0, 2, 3, 1).flatten(0, 2)[cells])
    assert features.position_share(asked) == pytest.approx(features.position_share(whole), rel=1e-5)
