"""anomalib's models as detectors. Most of it needs the extra [anomalib]; what a user without it is
told does not."""
import importlib.util
import socket
import sys

import numpy as np
import pytest
import torch

from adlib.config import Config, InputError
from adlib.models import anomalib_adapter, autoencoders, backbone
from adlib.models.anomalib_adapter import MODELS, build
from adlib.models.detector import load_state

SIZE = 64
TRAINED = ("Stfpm", "Fastflow", "ReverseDistillation", "Fre")
needs_anomalib = pytest.mark.skipif(
    importlib.util.find_spec("anomalib") is None, reason="needs the extra: pip install -e '.[anomalib]'")


def config(**changes):
    return Config(**{"weights": "none", "image_size": SIZE, "epochs": 5} | changes)


def good_images(n, seed=0):
    """Noisy gradients, uint8 [n,3,S,S]."""
    noise = torch.randn(n, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))
    return (torch.linspace(60, 120, SIZE) + 8 * noise).clamp(0, 255).to(torch.uint8)


def defective_images(n, seed=1):
    """The same with a white square."""
    images = good_images(n, seed)
    images[:, :, 20:36, 24:40] = 250
    return images


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    def refuse(self, address):
        raise AssertionError(f"connects to {address}")
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(scope="module")
def fitted():
    """Each model, fitted once for all tests; they leave it as it is."""
    detectors = {}

    def of(name):
        if name not in detectors:
            detectors[name] = build(name, config()).fit(good_images(8))
        return detectors[name]
    return of


def distance(detector, images):
    return detector.anomaly_maps(images)["distance"]


@needs_anomalib
@pytest.mark.parametrize("name", MODELS)
def test_maps_are_finite_and_highest_in_the_defect(fitted, name):
    good, defective = (distance(fitted(name), images)
                       for images in (good_images(9, 2), defective_images(9)))
    assert good.shape == defective.shape == (9, SIZE, SIZE) and good.dtype == torch.float32
    assert torch.isfinite(good).all() and torch.isfinite(defective).all()
    assert defective.amax(dim=(1, 2)).min() > good.amax(dim=(1, 2)).max()
    if name not in ("Dfm", "Fre"):  # of such small images, theirs have one cell and four
        inside = defective[:, 20:36, 24:40].mean(dim=(1, 2))
        assert (inside > defective.mean(dim=(1, 2))).all()


@needs_anomalib
@pytest.mark.parametrize("restore", [load_state, lambda module, state: module.load_state_dict(state)])
@pytest.mark.parametrize("name", MODELS)
def test_the_state_dict_is_the_whole_of_it(fitted, tmp_path, name, restore):
    torch.save(fitted(name).state_dict(), tmp_path / "detector.pt")
    reopened = build(name, config(seed=5))  # every random number in it is another
    restore(reopened, torch.load(tmp_path / "detector.pt", weights_only=True))
    images = defective_images(3)
    assert torch.equal(distance(reopened, images), distance(fitted(name), images))


@needs_anomalib
@pytest.mark.parametrize("name", MODELS)
def test_it_follows_from_the_seed_alone_and_forgets_an_earlier_fit(fitted, name):
    images, detector = defective_images(3), build(name, config()).fit(defective_images(4))
    assert not torch.equal(distance(detector, images), distance(fitted(name), images))
    torch.manual_seed(99)
    np.random.seed(99)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    assert torch.equal(distance(detector.fit(good_images(8)), images), distance(fitted(name), images))
    # others' random numbers stay theirs
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])


@needs_anomalib
@pytest.mark.parametrize("name", MODELS)
def test_history_has_a_row_an_epoch_where_it_trains(fitted, name):
    history = fitted(name).history
    assert [row["epoch"] for row in history] == ([1, 2, 3, 4, 5] if name in TRAINED else [])
    if history:
        assert history[-1]["loss"] < history[0]["loss"]
        assert all(row["lr"] > 0 and row["seconds"] > 0 for row in history)
        assert all(np.isnan(row["held_out_loss"]) for row in history)


@needs_anomalib
@pytest.mark.parametrize("name", MODELS)
def test_its_frozen_backbone_has_the_studys_weights_before_and_after(tmp_path, name):
    network, _ = backbone.load_backbone(config(seed=3))
    state = dict(network.encoder.state_dict())
    full, _ = autoencoders.build_network(config(model="resnet18", seed=3))
    torch.save(full.encoder.state_dict(), tmp_path / "resnet18.pth")
    detector = build(name, config(weights=str(tmp_path / "resnet18.pth"), epochs=1))
    assert detector.weights.startswith("file:resnet18.pth:")
    for ready in (lambda: detector, lambda: detector.fit(good_images(4))):
        frozen = ready().model.model.get_submodule(MODELS[name]).state_dict()
        assert "layer2.0.conv1.weight" in frozen
        assert all(torch.equal(tensor, state[key]) for key, tensor in frozen.items())


@needs_anomalib
def test_options_go_to_anomalibs_constructor():
    cells = 6 * (SIZE // 8)**2
    for options, share in (("", 0.1), ('{"coreset_sampling_ratio": 0.05}', 0.05)):
        detector = build("Patchcore", config(options=options)).fit(good_images(6))
        assert len(detector.model.model.memory_bank) == int(cells * share)


@needs_anomalib
@pytest.mark.parametrize(("options", "message"), [
    ('{"coreset_sampling_ration": 0.1}', "did you mean 'coreset_sampling_ratio'"),
    ('{"pre_trained": true}', "unknown option 'pre_trained'"),
    ('{"backbone": "resnet34"}', "do not fit the backbone of anomalib:Patchcore: layer1.2.bn1.bias"),
    ('{"layers": ["layer3", "layer4"]}', "choose no other backbone or layer"),
    ('{"backbone": "no_such_network"}', "cannot be built with options"),
    ('{"coreset_sampling_ratio": 0.0001}',
     r"cannot be fitted on images \[4, 3, 64, 64\]: ValueError: coreset_size"),
    ('{"layers": ["nope"]}', "cannot be fitted on images .*: KeyError: 'nope'"),
    ('{"layers": []}', "cannot be fitted on images .*: IndexError: "),
    ('{"num_neighbors": "x"}', r"gives no maps of images \[4, 3, 64, 64\]: TypeError: "),
])
def test_a_wrong_option_is_one_sentence(options, message):
    with pytest.raises(InputError, match=message):
        distance(build("Patchcore", config(options=options)).fit(good_images(4)), good_images(4))


@pytest.mark.parametrize(("name", "message"), [
    ("anomalib:patchcore", "did you mean 'Patchcore'"), ("WinClip", "here: Patchcore, Padim, Dfm")])
def test_an_unknown_model_is_told_with_those_that_run(name, message):
    with pytest.raises(InputError, match=message):
        build(name, config())


@pytest.mark.parametrize("package", ["timm", "anomalib.models", "lightning.pytorch"])
def test_without_anomalib_the_command_that_installs_it_is_named(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=r"pip install -e '\.\[anomalib\]'"):
        anomalib_adapter._imported(package)
    if importlib.util.find_spec("anomalib") is None:
        with pytest.raises(InputError, match="pip install"):
            build("Patchcore", config())
