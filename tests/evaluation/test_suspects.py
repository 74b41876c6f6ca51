"""Which of the good pictures may not be good: what was put among them is found, and little else."""
import shutil

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from scipy import ndimage

from adlib.config import Config
from adlib.data import layout
from adlib.data.part import ImageSet
from adlib.evaluation import suspects
from adlib.models import anomaly_maps

CONFIG = Config(model="memory", weights="none")


def ranked(root):
    category = layout.open_category(root, "nut")
    return suspects.rank(ImageSet(category, category.train, 64), CONFIG)


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """24 pictures of smooth texture under a gradient, each another one."""
    root = tmp_path_factory.mktemp("parts")
    for i in range(24):
        rng = np.random.default_rng(i)
        texture = 250 * ndimage.gaussian_filter(rng.normal(0, 1, (128, 128)), 5)
        grey = (np.linspace(60, 140, 128)[:, None] + texture)[:, :, None]
        path = root / "nut" / "train" / "good" / f"{i:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.clip(grey + rng.normal(0, 3, (128, 128, 3)), 0, 255).astype(
            np.uint8)).save(path)
    return root


@pytest.fixture
def good(parts, tmp_path):
    shutil.copytree(parts, tmp_path, dirs_exist_ok=True)
    return tmp_path / "nut" / "train" / "good"


def test_a_clean_folder_has_hardly_a_suspect(good):
    found = ranked(good.parents[2])
    assert (found["reason"] != "").sum() <= 3
    assert sorted(found["path"]) == [f"nut/train/good/{i:03d}.png" for i in range(24)]


def test_what_was_put_among_good_pictures_is_found_and_why(good):
    def reopened(name):
        return Image.open(good / f"{name}.png")

    grey = np.asarray(reopened("003")).copy()
    grey[40:80, 40:80] = (250, 40, 40)
    Image.fromarray(grey).save(good / "spot.png")
    Image.new("RGB", (128, 128), (90, 90, 90)).save(good / "absent.png")
    reopened("005").filter(ImageFilter.GaussianBlur(4)).save(good / "soft.png")
    reopened("007").save(good / "zagain.jpg", quality=80)
    found = ranked(good.parents[2])
    reasons = dict(zip(found["path"].str.rpartition("/")[2], found["reason"], strict=True))
    assert reasons["spot.png"] == "anomalous" and reasons["soft.png"] == "blurred"
    assert reasons["absent.png"] in ("anomalous", "unlike") and reasons["zagain.jpg"] == "copy"
    of = found.set_index("path")["of"]
    assert of["nut/train/good/zagain.jpg"] == "nut/train/good/007.png"
    assert set(found.index[found["reason"] != ""]) == set(range((found["reason"] != "").sum()))
    assert sum(reason != "" for name, reason in reasons.items() if name[0].isdigit()) <= 3


def test_cells_are_compared_with_the_nearest_of_each_picture_of_another_thing(monkeypatch):
    """Blocks of 16 pictures, of which the last is short; two and two show one thing."""
    n, side = 19, suspects.GRID
    cells = torch.randn(n, 8, side, side, generator=torch.Generator().manual_seed(0))
    thing = torch.arange(n) // 2
    monkeypatch.setattr(suspects.backbone, "load_backbone", lambda config: (None, ""))
    monkeypatch.setattr(suspects.backbone, "extract", lambda network, images, config: images)
    monkeypatch.setattr(suspects.backbone, "grid", lambda stages, layers: stages)
    monkeypatch.setattr(suspects.siblings, "groups", lambda images: thing)
    flat = cells.half().double().flatten(2).mT
    nearest = torch.stack([torch.cdist(one, flat).amin(dim=2) for one in flat])  # [N,N,cells]
    nearest[thing[:, None] == thing] = torch.inf
    maps = nearest.sort(dim=1).values[:, [0, 2]].transpose(0, 1).view(2, n, side, side)
    expected = [anomaly_maps.reduce(anomaly_maps.smooth(one.float().numpy()), "top1")
                for one in maps]
    # of two that rounding to bf16 confuses either may be taken (0.0006 of a score was seen)
    np.testing.assert_allclose(suspects._patch_scores(cells, CONFIG), expected, rtol=0.002)


def test_of_few_pictures_nothing_is_said(course_root):
    assert ranked(course_root).empty


def test_deviations_are_those_of_most_where_one_in_five_is_wrong():
    values = np.r_[np.linspace(-1, 1, 80), np.full(20, 9.0)]
    found = suspects._deviations(values)
    assert (found[80:] > suspects.FAR).all() and (found[:80] < suspects.FAR).all()
    assert suspects._deviations(np.linspace(-1, 1, 101))[100] == pytest.approx(1.349)
    assert (suspects._deviations(np.zeros(12)) == 0).all()


@pytest.mark.parametrize("n", [5, 8, 12])
def test_each_picture_twice(good, n):
    """To whose copy the distance is nothing at all."""
    for i, path in enumerate(sorted(good.iterdir())):
        if i < n:
            shutil.copyfile(path, path.with_name(f"again-{path.name}"))
        else:
            path.unlink()
    found = ranked(good.parents[2])
    assert (found["reason"] == "copy").sum() == n and np.isfinite(found["distance"]).all()
