"""What several test files share: the real images where they exist, a cache folder of each test's
own, tiny data sets."""
from __future__ import annotations

import collections
import copy
import functools
import gc
import itertools
import json
import logging
import os
import re
import shutil
import signal
import typing

# before torch is loaded: tiny networks lose more to threads than they gain
os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path

import filelock
import numpy as np
import pandas as pd
import pytest
from hypothesis import settings
from PIL import Image

from tests import handmade
from tests.tiny_study import Study

ROOT = Path(__file__).resolve().parents[1]
# Files of long tests, the longest first, in groups that a worker does better alone: one alone then
# has the process that tests/forked.py forks from, or has learnt to export.
LONG = (("test_faults", "test_end_to_end", "test_training", "test_benchmarks", "test_notebooks",
         "test_security"),
        ("test_onnx_export", "test_onnx_tiles", "test_inference", "test_browser",
         "test_browser_first_page"),
        ("test_pinned_numbers", "test_honesty", "test_robust", "test_feature_detectors",
         "test_frames"))
# a suite that was started in the background ignores it, and so would what its tests interrupt
signal.signal(signal.SIGINT, signal.default_int_handler)
# no timing in a test, and the same examples every time
settings.register_profile("house", deadline=None, derandomize=True)
settings.load_profile("house")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Each worker's share, which is so many in a row, begins with long tests: what the workers
    share out at the end is short."""
    shares = [[] for _ in range(int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))]
    of_file = collections.defaultdict(list)
    for item in items:
        of_file[item.path.stem].append(item)
    for i, group in enumerate(LONG):
        for name in group:
            shares[i % len(shares)] += of_file.pop(name, [])
    short = list(itertools.chain(*of_file.values()))
    sizes = [(len(items) * (i + 1)) // len(shares) - (len(items) * i) // len(shares)
             for i in range(len(shares))]
    for share, size in zip(shares, sizes, strict=True):
        room = max(0, size - len(share))
        share += short[:room]
        del short[:room]
    items[:] = [*itertools.chain(*shares), *short]


def pytest_collection_finish() -> None:
    """What was imported stays: no garbage collection looks through it."""
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch) -> typing.Iterator[None]:
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("ADLIB_CACHE", str(cache))
    monkeypatch.delenv("ADLIB_DATA", raising=False)
    yield
    shutil.rmtree(cache, ignore_errors=True)  # gigabytes, were they kept to the suite's end


@pytest.fixture(scope="session", autouse=True)
def _drawn_once() -> typing.Iterator[None]:
    """The ResNet18 of a seed, whose random weights every run draws: drawn once and copied, with the
    generator as it is afterwards."""
    import torch

    from adlib.models import resnet18

    draw, drawn = resnet18.resnet18_encoder, {}

    def encoder() -> torch.nn.Module:
        seed = torch.get_rng_state().numpy().tobytes()
        if seed not in drawn:
            if len(drawn) == 4:
                drawn.clear()
            drawn[seed] = draw(), torch.get_rng_state()
        made, after = drawn[seed]
        torch.set_rng_state(after)
        return copy.deepcopy(made)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resnet18, "resnet18_encoder", encoder)
        yield


@pytest.fixture
def caplog(caplog):
    """What adlib says, and nobody else: another library's thread may have a word at any time."""
    adlib_alone = logging.Filter("adlib")
    caplog.handler.addFilter(adlib_alone)
    yield caplog
    caplog.handler.removeFilter(adlib_alone)


@pytest.fixture
def small_detectors(monkeypatch) -> None:
    """Few patches and synthetic anomalies: for whatever needs a detector, and not a good one."""
    from adlib.evaluation import calibration
    from adlib.models import detectors, fused

    for module, name, value in ((calibration, "SYNTHETIC", 8), (fused, "SYNTHETIC", 24),
                                (fused, "VIEWS", 16), (detectors, "BANK", 400),
                                (detectors, "POOL", 2000)):
        monkeypatch.setattr(module, name, value)


@pytest.fixture(scope="session")
def exporter() -> typing.Iterator[None]:
    """torch.onnx reads the source of five hundred operators once, and not for every export."""
    registration = pytest.importorskip("torch.onnx._internal.exporter._registration")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registration.ONNXRegistry, "from_torchlib", staticmethod(
            functools.cache(registration.ONNXRegistry.from_torchlib)))
        yield


@pytest.fixture
def shared() -> Path:
    folder = Path(os.environ.get("ADLIB_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"needs the real images in {folder} (set ADLIB_SHARED)")
    return folder


def read_csv(path: Path, **options: typing.Any) -> pd.DataFrame:
    """A table with every digit: up to version 3.0, pandas leaves the last one out unless asked."""
    version = tuple(map(int, pd.__version__.split(".")[:2]))
    return pd.read_csv(path, **options, **({"float_precision": "round_trip"} if version < (3, 1)
                                           else {}))


def picture(path: Path, seed: int, defect: bool = False, size: int = 32) -> None:
    """A small noisy gradient; a defect is a white square."""
    rng = np.random.default_rng(seed)
    grey = np.linspace(60, 120, size)[None, :, None] + rng.normal(0, 8, (size, size, 3))
    if defect:
        grey[8:16, 8:16] = 250
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8)).save(path)


def course_data(root: Path) -> Path:
    """The reference's layout: two categories, 8 good, 2 train/bad, 3 good + 3 bad in a flat test
    folder, and the label file."""
    labels = {}
    for c, category in enumerate(("nut", "zip")):
        for i in range(8):
            picture(root / category / "train" / "good" / f"{i:03d}.png", 100 * c + i)
        for i in range(2):
            picture(root / category / "train" / "bad" / f"{i:03d}.png", 100 * c + 50 + i,
                    defect=True)
        for i in range(6):
            picture(root / category / "test" / f"{i:03d}.png", 100 * c + 20 + i, defect=i % 2 == 1)
            labels[f"{category}/test/{i:03d}.png"] = {
                "original_category": category, "label": "bad" if i % 2 else "good"
            }
    (root / "image_anomaly_labels.json").write_text(json.dumps(labels))
    return root


@pytest.fixture
def course_root(tmp_path) -> Path:
    return course_data(tmp_path / "course_data")


@pytest.fixture(scope="session")
def once(tmp_path_factory) -> typing.Callable[[str, typing.Callable[[Path], object]], Path]:
    """once(name, fill): a folder that fill(folder) makes for the first test that asks for it, of
    all processes of this session. Nobody may change it."""
    base = tmp_path_factory.getbasetemp()
    base = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "once"
    base.mkdir(exist_ok=True)

    def made(name: str, fill: typing.Callable[[Path], object]) -> Path:
        with filelock.FileLock(base / f"{name}.lock"):
            if not (base / f"{name}.made").exists():
                fill(base / name)
                (base / f"{name}.made").touch()
        return base / name

    return made


@pytest.fixture
def course_run(once, course_root, tmp_path, small_detectors) -> typing.Callable[..., Path]:
    """handmade.small_run on course_root as it was written: a run that no test had yet is made, and
    everyone gets a copy."""
    def run(**changes: typing.Any) -> Path:
        place = once("-".join(re.findall(r"\w+", f"run {sorted(changes.items())}")), lambda place:
                     handmade.small_run(course_data(place / "course_data"), place / "reports",
                                        **changes))
        (made, ) = (place / "reports").glob("runs/*/*/*")
        folder = shutil.copytree(made, tmp_path / made.relative_to(place))
        places = folder / ".local.json"
        places.write_text(places.read_text().replace(str(place), str(tmp_path)))
        return folder

    return run


@pytest.fixture
def mvtec_root(tmp_path) -> Path:
    """MVTec AD's layout: one category, 6 good, 3 + 3 test images, masks for the defects."""
    root = tmp_path / "mvtec_data"
    for i in range(6):
        picture(root / "nut" / "train" / "good" / f"{i:03d}.png", i)
    for i in range(3):
        picture(root / "nut" / "test" / "good" / f"{i:03d}.png", 20 + i)
        picture(root / "nut" / "test" / "spot" / f"{i:03d}.png", 30 + i, defect=True)
        mask = np.zeros((32, 32), np.uint8)
        mask[8:16, 8:16] = 255
        path = root / "nut" / "ground_truth" / "spot" / (f"{i:03d}_mask.png" if i else "000.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(path)
    return root


@pytest.fixture(scope="session")
def undisturbed(once) -> Study:
    """A tiny study to which nothing happened."""
    study = Study(once("undisturbed", lambda place: Study(place).made().run(
        "--report", ADLIB_CACHE=str(place / "cache"))))
    assert study.complete()
    return study
