"""`roi: auto` on drawn parts whose place is known."""
import logging

import numpy as np
import pytest
import torch
from PIL import Image

from adlib.config import Config
from adlib.data import background, layout
from adlib.data.part import open_part
from adlib.runs import freshness

N, SIDE = 40, background.SIDE
ROWS, COLUMNS = np.mgrid[:SIDE, :SIDE]


def nut(seed, *, spread=12, ground=(30, 34, 40), radius=(80, 55)):
    """A part that turns and moves a little on a plain ground: uint8 [3,SIDE,SIDE] and where it is,
    bool [SIDE,SIDE]."""
    rng = np.random.default_rng(seed)
    angle, (y, x) = rng.uniform(0, np.pi), SIDE / 2 + rng.uniform(-spread, spread, 2)
    down, right = ROWS - y, COLUMNS - x
    along, across = (np.cos(angle) * right + np.sin(angle) * down,
                     np.cos(angle) * down - np.sin(angle) * right)
    where = (along / radius[0])**2 + (across / radius[1])**2 < 1
    colour = np.where(where, np.reshape((150, 90, 50), (3, 1, 1)), np.reshape(ground, (3, 1, 1)))
    noisy = colour + rng.normal(0, 2, (3, SIDE, SIDE))
    return np.clip(noisy, 0, 255).astype(np.uint8), where


def pictures(seeds, **how):
    drawn = [nut(seed, **how) for seed in seeds]
    return torch.from_numpy(np.stack([one for one, _ in drawn])), [where for _, where in drawn]


def test_all_places_of_the_part_and_what_is_beside_it_stay():
    good, known = pictures(range(N))
    region, why = background.region(good)
    assert why == "found" and region.mean() < 0.9
    for where in known:  # and a burr, half a margin wide
        down, right = np.indices((17, 17)) - 8
        for y, x in zip(*(down.ravel(), right.ravel()), strict=True):
            assert region[np.roll(where, (y, x), axis=(0, 1))].all()
    _, others = pictures(range(1000, 1000 + N))  # parts that it has not seen
    assert all(region[where].all() for where in others)
    assert not region[:20, :20].any()


def test_dirt_is_background_and_a_small_loose_piece_of_every_part_is_not():
    good, _ = pictures(range(N))
    for i in range(5):
        good[i, :, 20 + 40 * i:26 + 40 * i, 14:20] = 200  # each time elsewhere
    region, why = background.region(good)
    assert why == "found" and not region[:, 14:20].any()
    good[:, :, 20:26, 14:20] = 200
    region, why = background.region(good)
    assert why == "found" and region[20:26, 14:20].all()


def test_it_depends_on_colour_and_not_on_brightness():
    grey = (150 + 90 + 50) // 3
    assert background.region(pictures(range(N), ground=(grey, grey, grey))[0])[1] == "found"


def striped(picture):
    picture[:, :, 100:156] = 200  # from rim to rim
    return picture


def ribbed(picture):
    return (128 + 40 * np.sin(np.arange(SIDE) / 3) * np.ones((3, SIDE, 1))).astype(np.uint8)


def plain(picture):
    return np.clip(120 + np.random.default_rng(0).normal(0, 2, picture.shape), 0, 255
                   ).astype(np.uint8)


@pytest.mark.parametrize(("change", "how", "why"), [
    (striped, {}, "rim"), (ribbed, {}, "rim"), (plain, {}, "nothing"),
    (None, {"spread": 90, "radius": (28, 22)}, "moves"),
    (None, {"spread": 2, "radius": (119, 116)}, "fills")])
def test_where_it_is_not_safe_nothing_is_cut_off(change, how, why):
    good, _ = pictures(range(background.FEWEST), **how)
    if change:
        good = torch.from_numpy(np.stack([change(one) for one in good.numpy()]))
    assert background.region(good) == (None, why)


def test_grounds_of_two_colours_and_parts_that_are_not_always_there():
    dark, bright = pictures(range(N))[0], pictures(range(N), ground=(200, 200, 200))[0]
    assert background.region(torch.cat([dark[:30], bright[30:]])) == (None, "rim")
    dark[0] = dark[0, :, :1, :1]
    assert background.region(dark) == (None, "nothing")
    assert background.region(dark[:background.FEWEST - 1]) == (None, "few")


@pytest.fixture
def root(tmp_path):
    for i in range(background.FEWEST):
        for place in ("train/good", "test/good"):
            path = tmp_path / "data" / "nut" / place / f"{i:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(nut(i)[0].transpose(1, 2, 0)).resize((80, 60)).save(path)
    return tmp_path / "data"


def test_a_category_is_opened_with_it(root, caplog):
    config = Config(data_root=str(root), image_size=64, roi="auto")
    (root / "nut" / "ignore").mkdir()
    hidden = np.zeros((64, 64), bool)
    hidden[28:36, 28:36] = True
    Image.fromarray(hidden).save(root / "nut" / "ignore" / "number.png")
    part = open_part(config)
    assert part.found[1] == "found" and not part.looked_at[128, 128] and part.looked_at[128, 100]
    assert not part.test.area[:, :4, :4].any() and not caplog.messages
    whole = Config(data_root=str(root), image_size=64)
    category = layout.open_category(root, "nut")
    asked, plain = (freshness.of_run(one, category)["params"] for one in (config, whole))
    assert asked != plain and asked == plain | {"roi": "auto"}
    (root / "nut" / "train" / "good" / "000.png").unlink()
    with caplog.at_level(logging.WARNING):
        part = open_part(config)
    assert part.found == (None, "few") and part.looked_at[60, 60]
    assert ["fewer than 20 good pictures" in one for one in caplog.messages] == [True]
