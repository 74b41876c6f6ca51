"""The parts that benchmarks draw differ as they are said to, and are written as folders."""
import argparse

import numpy as np
import pytest
from skimage import data

from adlib.data import layout
from benchmarks import tiles, unseen


@pytest.mark.parametrize("part", [*unseen.PARTS, *unseen.TEXTURES])
def test_parts_that_nobody_had_in_view_are_drawn_each_in_its_own_way(part):
    one, again, other = (unseen.draw(part, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert one.shape == (unseen.SIDE, unseen.SIDE, 3) and one.dtype == np.uint8
    assert np.array_equal(one, again) and not np.array_equal(one, other)
    for kind in unseen.DEFECTS:
        off = unseen.damage(one, kind, np.random.default_rng(2)).astype(int) - one
        share = (abs(off).max(axis=2) > 5).mean()
        assert 0.0005 < share < 0.05, kind
    if part in unseen.TEXTURES:  # nothing of what is learned from is tested on
        learned, tested = (unseen.draw(part, np.random.default_rng(3), fresh=fresh)[..., 0]
                           for fresh in (False, True))
        whole = getattr(data, part)()
        for crop, half in ((learned, whole[:, :256]), (tested, whole[:, 256:])):
            windows = np.lib.stride_tricks.sliding_window_view(half, crop.shape[:1], axis=1)
            assert (windows == crop[0]).all(axis=-1).any()


def test_parts_that_nobody_had_in_view_are_a_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(unseen, "GOOD", 3)
    monkeypatch.setattr(unseen, "FRESH", 2)
    monkeypatch.setattr(unseen, "BAD", 4)
    unseen.write(tmp_path, "hands")
    category = layout.open_category(tmp_path, "hands")
    labels = layout.read_labels(category)
    assert len(category.train) == 3 and len(category.test) == 6
    pictures = {path.read_bytes() for path in (*category.train, *category.test)}
    assert len(pictures) == 9  # none is tested that was learned from
    assert sorted(labels[category.key(path)].anomalous for path in category.test) == (
        [False] * 2 + [True] * 4)


def test_no_drawn_plate_or_board_is_tested_that_was_learned_from(tmp_path):
    given = argparse.Namespace(train=4, good=3, defects=2, side=4, large=(160, 120))
    for root in (tiles.plates(tmp_path / "plates", given), tiles.boards(tmp_path / "boards",
                                                                         (272, 136))):
        category = layout.open_category(root.parent, root.name)
        pictures = [path.read_bytes() for path in (*category.train, *category.test)]
        assert len(set(pictures)) == len(pictures) == (9 if root.name == "plates" else 120)
