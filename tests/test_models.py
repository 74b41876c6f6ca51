import copy
import pickle
import socket

import pytest
import torch

from adlib import models
from adlib.config import Config, InputError


@pytest.mark.parametrize("size", [32, 64, 128, 160])
@pytest.mark.parametrize("kind", [models.CAE, models.ResNetAE])
def test_reconstruction_has_the_shape_and_range_of_the_image(kind, size):
    out = kind().eval()(torch.rand(2, 3, size, size))
    assert out.shape == (2, 3, size, size)
    assert 0 <= out.min() and out.max() <= 1


def test_cae_is_the_seeds():
    x, sides, channels = torch.rand(2, 3, 128, 128), [], []
    for block in models.CAE().encoder:
        x = block(x)
        channels.append(x.shape[1])
        sides.append(x.shape[2])
    assert channels == [64, 128, 256, 512, 512] and sides == [64, 32, 16, 8, 4]
    decoder = [layer for layer in models.CAE().decoder if isinstance(layer, torch.nn.ConvTranspose2d)]
    assert [layer.out_channels for layer in decoder] == [512, 256, 128, 64, 3]
    assert all((layer.kernel_size, layer.stride, layer.padding, layer.output_padding) == ((3, 3), (2, 2), (1, 1), (1, 1))
               for layer in decoder)
    assert isinstance(models.CAE().decoder[-1], torch.nn.Sigmoid)


def test_resnet_code_and_decoder():
    model = models.ResNetAE()
    assert model.encoder(torch.rand(2, 3, 128, 128)).shape == (2, 512, 4, 4)
    decoder = [layer for layer in model.decoder if isinstance(layer, torch.nn.ConvTranspose2d)]
    assert [layer.out_channels for layer in decoder] == [256, 128, 64, 32, 3]
    assert sum(isinstance(layer, torch.nn.BatchNorm2d) for layer in model.decoder) == 4


def test_encoder_equals_torchvisions_resnet18():
    from torchvision.models import resnet18
    from torchvision.transforms.functional import normalize

    torch.manual_seed(0)
    net, model = resnet18(weights=None).eval(), models.ResNetAE().eval()
    models.load_encoder(model, net.state_dict(), "test")
    x = torch.rand(2, 3, 64, 64)
    expected = normalize(x, models.IMAGENET_MEAN, models.IMAGENET_STD)
    for name in ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"):
        expected = getattr(net, name)(expected)
    assert torch.allclose(model.encoder((x - model.mean) / model.std), expected, atol=1e-5)


def test_frozen_stages_do_not_move():
    model = models.ResNetAE().train()
    before = copy.deepcopy(model.state_dict())
    optimiser = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model(torch.rand(4, 3, 32, 32)).mean().backward()
    optimiser.step()
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    frozen = ("encoder.conv1", "encoder.bn1", "encoder.layer1", "mean", "std")
    assert not [name for name in moved if name.startswith(frozen)]
    assert any(name.startswith("encoder.layer2") for name in moved)
    assert any(name.startswith("encoder.layer4") and "running_mean" in name for name in moved)


def state():
    from torchvision.models import resnet18

    return resnet18(weights=None).state_dict()


def save(tmp_path, value):
    path = tmp_path / "w.pth"
    torch.save(value, path)
    return Config(model="resnet18", weights=str(path))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_any_float_type(tmp_path, dtype):
    wanted = {name: t.to(dtype) if t.is_floating_point() else t for name, t in state().items()}
    model, word = models.build(save(tmp_path, {"state_dict": {f"module.{k}": v for k, v in wanted.items()}}))
    assert word.startswith("file w.pth sha256:")
    assert model.encoder.conv1.weight.dtype == torch.float32
    assert torch.equal(model.encoder.conv1.weight, wanted["conv1.weight"].float())


def test_weights_that_do_not_fit(tmp_path):
    wrong = state()
    del wrong["layer2.0.conv1.weight"]
    wrong["extra"] = torch.zeros(1)
    wrong["conv1.weight"] = torch.zeros(64, 1, 7, 7)
    with pytest.raises(InputError) as error:
        models.build(save(tmp_path, wrong))
    for words in ("1 missing (layer2.0.conv1.weight)", "1 unexpected (extra)", "conv1.weight (64, 1, 7, 7) instead of (64, 3, 7, 7)"):
        assert words in str(error.value)


class Hostile:
    def __reduce__(self):
        return print, ("this must never be printed",)


def test_hostile_and_broken_weights(tmp_path, capsys):
    with pytest.raises(InputError, match="could run code"):
        models.build(save(tmp_path, {"a": Hostile()}))
    path = tmp_path / "plain.pkl"
    path.write_bytes(pickle.dumps(Hostile()))
    with pytest.raises(InputError):
        models.read_state(path)
    path.write_bytes(b"")
    with pytest.raises(InputError, match="cannot be read"):
        models.read_state(path)
    whole = (tmp_path / "w.pth").read_bytes()
    path.write_bytes(whole[:len(whole) // 2])
    with pytest.raises(InputError):
        models.read_state(path)
    with pytest.raises(InputError, match="a folder"):
        models.read_state(tmp_path)
    with pytest.raises(InputError, match="missing"):
        models.read_state(tmp_path / "none.pth")
    with pytest.raises(InputError, match="no state dict"):
        models.build(save(tmp_path, [1, 2]))
    assert "never be printed" not in capsys.readouterr().out


def test_imagenet_out_of_reach(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("no network in this test")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(socket, "create_connection", refuse)
    with pytest.raises(InputError, match="three ways out.*weights: PATH.*weights: none"):
        models.build(Config(model="resnet18"))
    model, word = models.build(Config(model="resnet18", weights_fallback=True))
    assert word.startswith("RANDOM, not ImageNet's") and isinstance(model, models.ResNetAE)


def test_imagenet_from_torchvisions_cache(tmp_path, monkeypatch):
    from torchvision.models import ResNet18_Weights

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    wanted = state()
    torch.save(wanted, folder / ResNet18_Weights.IMAGENET1K_V1.url.rsplit("/", 1)[-1])
    model, word = models.build(Config(model="resnet18"))
    assert word == "torchvision IMAGENET1K_V1"
    assert torch.equal(model.encoder.layer4[1].conv2.weight, wanted["layer4.1.conv2.weight"])


def test_seed_decides_the_random_part():
    first, again, other = (models.build(Config(seed=seed))[0].state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["encoder.0.0.weight"], other["encoder.0.0.weight"])


def test_real_weights(shared):
    model, word = models.build(Config(model="resnet18", weights=str(shared / "weights" / "resnet18-imagenet-to-layer3.pth")))
    assert "resnet18-imagenet-to-layer3.pth" in word
    assert model.encoder.layer3[0].conv1.weight.dtype == torch.float32
