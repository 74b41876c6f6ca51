import copy
import dataclasses

import pytest
import torch

from adlib import fit
from adlib.config import Config
from adlib.models import autoencoders, registry, weights
from adlib.models.resnet18 import IMAGENET_MEAN, IMAGENET_STD
from tests.tolerances import NETWORK, size_of


@pytest.mark.parametrize("size", [32, 64, 96, 128, 160])
@pytest.mark.parametrize("kind", [autoencoders.CAE, autoencoders.ResNetAE])
def test_reconstruction_has_the_shape_and_range_of_the_image(kind, size):
    out = kind().eval()(torch.rand(2, 3, size, size))
    assert out.shape == (2, 3, size, size)
    assert 0 <= out.min() and out.max() <= 1


def test_cae_is_the_seeds():
    x, sides, channels = torch.rand(2, 3, 128, 128), [], []
    for block in autoencoders.CAE().encoder:
        x = block(x)
        channels.append(x.shape[1])
        sides.append(x.shape[2])
    assert channels == [64, 128, 256, 512, 512] and sides == [64, 32, 16, 8, 4]
    decoder = [
        layer for layer in autoencoders.CAE().decoder if isinstance(layer, torch.nn.ConvTranspose2d)
    ]
    assert [layer.out_channels for layer in decoder] == [512, 256, 128, 64, 3]
    assert all((layer.kernel_size, layer.stride, layer.padding,
                layer.output_padding) == ((3, 3), (2, 2), (1, 1), (1, 1)) for layer in decoder)
    assert isinstance(autoencoders.CAE().decoder[-1], torch.nn.Sigmoid)


def test_resnet_code_and_decoder():
    model = autoencoders.ResNetAE()
    assert model.encoder(torch.rand(2, 3, 128, 128)).shape == (2, 512, 4, 4)
    decoder = [layer for layer in model.decoder if isinstance(layer, torch.nn.ConvTranspose2d)]
    assert [layer.out_channels for layer in decoder] == [256, 128, 64, 32, 3]
    assert sum(isinstance(layer, torch.nn.BatchNorm2d) for layer in model.decoder) == 4


def test_encoder_equals_torchvisions_resnet18():
    from torchvision.models import resnet18
    from torchvision.transforms.functional import normalize

    torch.manual_seed(0)
    net, model = resnet18(weights=None).eval(), autoencoders.ResNetAE().eval()
    weights.load_encoder(model.encoder, net.state_dict(), "test")
    x = torch.rand(2, 3, 64, 64)
    expected = normalize(x, IMAGENET_MEAN, IMAGENET_STD)
    for name in ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"):
        expected = getattr(net, name)(expected)
    assert torch.allclose(model.encoder((x - model.mean) / model.std), expected, rtol=0,
                          atol=6 * NETWORK * size_of(expected))


def test_frozen_stages_do_not_move():
    model = autoencoders.ResNetAE().train()
    before = copy.deepcopy(model.state_dict())
    optimiser = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model(torch.rand(4, 3, 32, 32)).mean().backward()
    optimiser.step()
    moved = {
        name
        for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])
    }
    frozen = ("encoder.conv1", "encoder.bn1", "encoder.layer1", "mean", "std")
    assert not [name for name in moved if name.startswith(frozen)]
    assert any(name.startswith("encoder.layer2") for name in moved)
    assert any(name.startswith("encoder.layer4") and "running_mean" in name for name in moved)


def test_seed_decides_the_random_part():
    first, again, other = (autoencoders.build_network(Config(seed=seed))[0].state_dict()
                           for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["encoder.0.0.weight"], other["encoder.0.0.weight"])


@pytest.mark.parametrize("kind, every, trained", [(autoencoders.CAE, 7_825_923, 7_825_923),
                                                  (autoencoders.ResNetAE, 13_964_771, 13_807_267)])
def test_parameter_counts(kind, every, trained):
    # The difference is conv1 (9,408), bn1 (128) and layer1 (147,968).
    parameters = list(kind().parameters())
    assert sum(p.numel() for p in parameters) == every
    assert sum(p.numel() for p in parameters if p.requires_grad) == trained


@pytest.mark.parametrize("kind", [autoencoders.CAE, autoencoders.ResNetAE])
def test_state_dict_round_trip(tmp_path, kind):
    torch.manual_seed(0)
    model, x = kind().train(), torch.rand(4, 3, 64, 64)
    # moves the running statistics away from their defaults, so that losing them would show
    model(x)
    torch.save(model.state_dict(), tmp_path / "model.pt")
    again = kind()
    again.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    assert torch.equal(model.eval()(x), again.eval()(x))


def test_frozen_stages_are_in_eval_mode_from_birth_and_in_copies():
    for model in (autoencoders.ResNetAE(), copy.deepcopy(autoencoders.ResNetAE()).train()):
        assert not model.encoder.bn1.training and not model.encoder.layer1[0].bn1.training
        assert model.encoder.layer2[0].bn1.training and model.decoder[1].training


CONFIG = Config(image_size=32, device="cpu", precision="float32", weights="none", epochs=2)


def pictures(n=9):
    return torch.randint(0, 256, (n, 3, 32, 32), dtype=torch.uint8,
                         generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("model", ["cae", "resnet18"])
def test_the_detectors_state_is_the_network(model):
    config = dataclasses.replace(CONFIG, model=model)
    detector = autoencoders.Autoencoder(config).fit(pictures(), pictures(3))
    assert [row["epoch"] for row in detector.history] == [1, 2]
    other = autoencoders.Autoencoder(dataclasses.replace(config, seed=1))
    other.load_state_dict(detector.state_dict())
    assert torch.equal(other.reconstruct(pictures(3)), detector.reconstruct(pictures(3)))
    assert set(detector.state_dict()) == {f"network.{key}" for key in detector.network.state_dict()}


def test_it_reconstructs_in_batches_what_the_network_reconstructs(monkeypatch):
    detector = autoencoders.Autoencoder(CONFIG)
    with torch.no_grad():
        expected = detector.network.eval()(pictures().float() / 255)
    for at_once in (4, 32):
        monkeypatch.setattr(autoencoders, "AT_ONCE", at_once)
        found = detector.reconstruct(pictures())
        assert found.shape == (9, 3, 32, 32) and found.dtype == torch.float32
        assert torch.allclose(found, expected, rtol=0, atol=6 * NETWORK)  # of values in [0,1]
        assert detector.reconstruct(pictures()[:0]).shape == (0, 3, 32, 32)


def test_a_fit_again_begins_anew_whatever_was_looked_at_before():
    """In JupyterLab cells are run in any order, and again."""
    images = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8,
                           generator=torch.Generator().manual_seed(0))
    config = Config(image_size=32, epochs=1, device="cpu", precision="float32")
    once, looked_at = (registry.build(config) for _ in range(2))
    expected = {name: values.clone() for name, values in fit(once, images).state_dict().items()}
    looked_at.anomaly_maps(images)  # before it was fitted
    for detector in (looked_at, once):
        again = fit(detector, images).state_dict()
        assert all(torch.equal(again[name], expected[name]) for name in expected)
