import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adlib.config import Config, InputError
from adlib.data.synthetic import anomalies
from adlib.models import registry, tiles
from adlib.models.detector import Detector, load_state
from adlib.models.tiles import Tiled, starts

CONFIG = Config(model="memory", fit="tile", tile_size=64, overlap=16, weights="none",
                precision="float32", device="cpu")


class Grey(Detector):
    """The mean grey value of every cell, by which it is seen what a tile shows."""

    def __init__(self, cell=8):
        super().__init__()
        self.cell, self.fitted = cell, None

    def fit(self, images, validation=None, *, area=None):
        self.fitted, self.area = images.clone(), area
        return self

    def anomaly_maps(self, images):
        return {"map": torch.nn.functional.avg_pool2d(images.float().mean(dim=1), self.cell)}


def picture(height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(0, 256, (4, height, width), generator=generator, dtype=torch.uint8)
    values[3] = 255
    return values


@given(st.integers(8, 300), st.sampled_from([64, 96, 256]), st.sampled_from([0, 8, 32]))
def test_tiles_cover_a_side_at_cells_and_overlap(cells, tile, overlap):
    length = max(tile, 8 * cells)
    found = starts(length, tile, overlap)
    assert found[0] == 0 and found[-1] == length - tile and all(at % 8 == 0 for at in found)
    steps = np.diff(found)
    assert (steps > 0).all() and (steps <= tile - overlap + 8).all()
    # as few as can be
    assert len(found) == 1 + -(-(length - tile) // (tile - overlap))


@pytest.mark.parametrize("cell", [1, 2, 8])
@pytest.mark.parametrize("overlap", [0, 16, 32])
@pytest.mark.parametrize("shape", [(64, 64), (72, 200), (136, 64)])
def test_stitched_maps_are_those_of_the_picture(cell, overlap, shape):
    """Where a cell's value does not depend on the tile it is in, stitching changes nothing."""
    tiled = Tiled(Grey(cell), dataclasses.replace(CONFIG, overlap=overlap))
    image = picture(*shape)[None, :3]
    plain = Grey(8 if cell > 1 else 1)  # what is finer than a feature cell, and no pixel, is coarsened
    found, expected = (one.anomaly_maps(image)["map"] for one in (tiled, plain))
    assert torch.allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("shape", [(2, 64), (64, 8), (1, 3), (24, 40)])
def test_maps_of_any_shape_are_stitched(shape):
    class Flat(Grey):
        def anomaly_maps(self, images):
            return {"map": torch.full((len(images), *shape), 3.0)}

    found = Tiled(Flat(), CONFIG).anomaly_maps(picture(64, 128)[None, :3])["map"]
    assert found.shape == (1, 8, 16) and torch.allclose(found, torch.tensor(3.0))


def test_a_small_or_odd_picture_has_a_map_of_its_own_size():
    found = Tiled(Grey(), CONFIG).anomaly_maps(picture(40, 101)[None, :3])["map"]
    assert found.shape == (1, 5, 13) and torch.isfinite(found).all()


def test_no_tile_leaves_a_seam():
    """Maps that are higher at a tile's rim, as convolutions make them, are smooth where tiles
    meet."""
    class Rim(Grey):
        def anomaly_maps(self, images):
            rim = torch.zeros(len(images), 8, 8)
            rim[:, 0] = rim[:, -1] = rim[:, :, 0] = rim[:, :, -1] = 1
            return {"map": rim}

    flat = dataclasses.replace(CONFIG, overlap=32)
    found = Tiled(Rim(), flat).anomaly_maps(picture(64, 256)[None, :3])["map"][0]
    assert found[4, 1:-1].max() < 0.1 and found[0].min() > 0.9  # only the picture's own rim


def test_tiles_that_were_seen_are_not_looked_at_again(monkeypatch):
    """A picture with an anomaly has most in common with the one that it was put into."""
    class Counting(Grey):
        asked = 0

        def anomaly_maps(self, images):
            self.asked += len(images)
            return super().anomaly_maps(images)

    monkeypatch.setattr(tiles, "CHUNK", 2)
    inner, image = Counting(), picture(64, 256)[None, :3]  # five tiles: two, two, and one
    tiled, changed = Tiled(inner, CONFIG), image.clone()
    changed[..., 50:58] = 255  # in the first two
    first, found = (tiled.anomaly_maps(one)["map"] for one in (image, changed))
    assert inner.asked == 5 + 2 and torch.equal(tiled.anomaly_maps(image)["map"], first)
    assert torch.equal(found, Tiled(Grey(), CONFIG).anomaly_maps(changed)["map"])
    for other_since in (lambda: tiled.fit([picture(64, 256)]),
                        lambda: tiled.load_state_dict(tiled.state_dict())):
        other_since()
        assert not tiled._known
        tiled.anomaly_maps(image)
    assert inner.asked == 5 + 2 + 5 + 5
    monkeypatch.setattr(tiles, "KNOWN", 2)
    tiled.anomaly_maps(picture(64, 256, seed=1)[None, :3])
    assert len(tiled._known) == 2
    fine = Tiled(Grey(1), CONFIG)
    fine.anomaly_maps(image)
    assert not fine._known  # too large


def test_every_place_is_learned_from_in_other_pictures(monkeypatch):
    monkeypatch.setattr(tiles, "SAMPLE", 16 * 64**2)
    monkeypatch.setattr(tiles, "FEWEST", 1)
    pictures = [picture(64, 256, seed=i) for i in range(6)]  # six tiles of each
    tiled = Tiled(Grey(), CONFIG)
    framed, of, origins = tiled.sample(pictures)
    places = starts(256, 64, 16)
    assert len(framed) == 16
    found = [next(x for x in places if torch.equal(pictures[i][:, :, x:x + 64], tile))
             for i, tile in zip(of, framed, strict=True)]
    counts = np.bincount([places.index(x) for x in found], minlength=len(places))
    assert counts.max() - counts.min() <= 1 and len(set(zip(of, found, strict=True))) == 16
    assert len(set(of)) == 6


def test_tiles_in_which_nothing_counts_are_not_learned_from():
    pictures = [picture(64, 256, seed=i) for i in range(3)]
    for one in pictures:
        one[3, :, 100:] = 0
    inner = Grey()
    Tiled(inner, CONFIG).fit(pictures)
    assert len(inner.fitted) == len(inner.area) == 9  # at 0, 40 and 80 of each
    assert inner.area.flatten(1).any(dim=1).all() and not inner.area.all()


def test_a_fitted_one_is_its_state(tmp_path):
    pictures = [picture(64, 128, seed=i) for i in range(4)]
    tiled = registry.build(CONFIG)
    assert isinstance(tiled, Tiled) and tiled.tile == 64
    tiled.fit(pictures)
    torch.save(tiled.state_dict(), tmp_path / "model.pt")
    again = registry.build(CONFIG)
    load_state(again, torch.load(tmp_path / "model.pt", weights_only=True))
    image = picture(72, 200, seed=9)[None, :3]
    assert torch.equal(tiled.anomaly_maps(image)["distance"], again.eval().anomaly_maps(image)["distance"])
    assert tiled.position_share is not None and tiled.detector.keeps_features is not None


def test_refitting_leaves_the_held_pictures_out(monkeypatch):
    """A picture unlike the others is near to a memory of its own tiles, and far from the rest's."""
    monkeypatch.setattr(tiles, "FEWEST", 8)
    pictures = [picture(64, 128, seed=i) for i in range(4)]
    pictures[3][:3] = 255 - pictures[3][:3] // 8
    tiled = registry.build(CONFIG).fit(pictures)
    before = tiled.anomaly_maps(pictures[3][None, :3])["distance"].mean()
    folds = [(np.array([0, 1, 2]), np.array([3])), (np.array([2, 3]), np.array([0, 1]))]

    maps = list(tiled.cross_fitted_maps(pictures, torch.arange(4), folds))
    assert [len(one["distance"]) for one in maps] == [1, 1, 1]
    assert maps[0]["distance"].mean() > 2 * before
    for one, i in zip(maps, (3, 0, 1), strict=True):  # and what it makes of each itself
        assert torch.equal(one["own distance"],
                           tiled.anomaly_maps(pictures[i][None, :3])["distance"])
    # and leaves the detector as it was
    assert tiled.anomaly_maps(pictures[3][None, :3])["distance"].mean() == before


def test_a_refit_takes_what_counts_of_its_own_tiles():
    tiles_, of = torch.stack([picture(64, 64, seed=i) for i in range(4)]), np.arange(4)
    tiles_[:2, 3, :32] = 0
    detector = registry.build(dataclasses.replace(CONFIG, model="pca")).detector
    refit = detector.refitting(tiles_, of)
    for own in (of[:2], of[2:]):
        alone = detector.refitting(tiles_[own], own)(own)
        torch.testing.assert_close(refit(own).mean, alone.mean)  # other batches round otherwise


def test_a_score_of_reconstructions_has_none(tmp_path, monkeypatch):
    (tmp_path / "own.py").write_text("def mine(images, redrawn):\n    return 0\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="which tiles have none of"):
        registry.build(dataclasses.replace(CONFIG, model="cae", score="own.py:mine"))


def test_an_anomaly_changes_one_square_where_it_counts():
    pictures = [picture(72, 200, seed=i) for i in range(2)]
    for one in pictures:
        one[:3] = torch.linspace(60, 180, 200).byte()
        one[3, :, :50] = 0
    changed = anomalies.Changed(pictures, 8, side=64, seed=1)
    assert len(changed) == len(changed.kinds) == 8 and len(set(changed.kinds)) == 4
    for i, one in enumerate(changed):
        again, mask = changed.with_mask(i)
        different = (one[:3] != pictures[i % 2][:3]).any(dim=0)
        assert torch.equal(one, again) and mask.any() and not mask[:, :50].any()
        assert (different | ~mask).all() and not different[:, :50].any()
        rows, columns = (different.any(dim=axis).nonzero() for axis in (1, 0))
        assert rows.max() - rows.min() < 64 and columns.max() - columns.min() < 64


def test_what_was_seen_before_changes_no_number():
    """To the bit: of a changed picture the new tiles alone are asked for, or all of them."""
    tiled = registry.build(CONFIG).fit([picture(64, 128, seed=i) for i in range(4)])
    image = picture(64, 640, seed=9)[None, :3]
    changed = image.clone()
    changed[..., 50:58] = 255
    fresh = tiled.anomaly_maps(changed)["distance"]
    tiled._known.clear()
    before = tiled.anomaly_maps(image)["distance"]
    known = len(tiled._known)
    assert torch.equal(tiled.anomaly_maps(changed)["distance"], fresh)
    assert known < len(tiled._known) < 2 * known and not torch.equal(before, fresh)
