"""A frozen backbone, and detectors that are fitted once."""
import copy
import dataclasses
import textwrap

import pytest
import torch

from adlib.config import FITTED_IN_SECONDS
from adlib.models import backbone as features
from adlib.models import fused
from tests.models import cells, noise, striped


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
    return features.load_backbone(dataclasses.replace(noise.CONFIG, weights=str(weights)))[0]


@pytest.fixture
def backbone(untouched):
    return copy.deepcopy(untouched)


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """One for all who look at the same few striped pictures (test_feature_cache is about the
    cache)."""
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def quick(_own_cache, cache, monkeypatch):
    monkeypatch.setenv("ADLIB_CACHE", cache)
    monkeypatch.setattr(fused, "SYNTHETIC", striped.SYNTHETIC)


@pytest.fixture(scope="session")
def fitted(cache):
    """Each kind fitted once to striped pictures."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADLIB_CACHE", cache)
        patch.setattr(fused, "SYNTHETIC", striped.SYNTHETIC)
        return {model: striped.fitted_to(model)
                for model in (*FITTED_IN_SECONDS, *striped.TRAINED)}


@pytest.fixture(scope="session")
def all_fitted():
    """Each kind fitted once to features."""
    return {name: cells.fitted(name) for name in cells.NAMES}


@pytest.fixture
def own(tmp_path):
    """Writes the user's file; a detector's configuration is of `model=own(code) + ':Name'`."""
    def write(code, name="my_detector.py"):
        (tmp_path / name).write_text("import time, numpy as np, torch\n" + textwrap.dedent(code))
        return str(tmp_path / name)
    return write
