"""The frozen network and its three stages."""
import copy
import dataclasses

import pytest
import torch

from adlib.models import autoencoders
from adlib.models import backbone as features
from adlib.models.fast.device import threads
from adlib.models.resnet18 import IMAGENET_MEAN, IMAGENET_STD
from tests.models.noise import CONFIG, cached, pictures, same
from tests.tolerances import of_features, size_of, summed


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
