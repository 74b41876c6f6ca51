"""The memory of few good pictures and of more, from distances that are computed once."""
import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from adlib.config import Config, InputError
from adlib.data import layout
from adlib.data.part import open_part
from adlib.evaluation import how_many
from adlib.evaluation.auroc import auroc
from adlib.models import anomaly_maps, registry
from tests.evaluation import test_frames


@pytest.fixture
def memory(course_root, monkeypatch):
    """A part of 8 good and 6 test images of 64 px, and a detector, not fitted, with random
    weights."""
    monkeypatch.setattr(how_many, "SYNTHETIC", 8)
    monkeypatch.setattr(how_many, "PATCHES", 10_000)  # all: no coreset, so that it can be checked
    part = open_part(Config(name="memory", model="memory", weights="none", image_size=64,
                            category="nut", data_root=str(course_root), target_fpr=0.2))
    return registry.build(part.config), part


def test_any_set_of_pictures_is_judged_as_by_the_memory_of_its_cells(memory):
    detector, part = memory
    good, test = part.good.tensor, part.test.tensor
    to = [maps for maps, _ in how_many._distances(detector, good, [good, test])]
    assert len(to) == 14 and to[0].shape == (8, 8, 8)
    for image, own in ((11, np.array([5, 2, 7])), (2, np.array([5, 7]))):
        bank = torch.cat([how_many._bank(detector, one, i) for i, one in enumerate(good[own])])
        cells = detector.features(torch.cat([good, test])[image:image + 1])[0].flatten(1).T
        nearest = torch.cdist(cells, bank).amin(dim=1).view(1, 8, 8)
        right = anomaly_maps.reduce(anomaly_maps.smooth(nearest.numpy()), "top1")[0]
        assert how_many.score(to[image], own) == pytest.approx(right, rel=1e-3)
    assert np.isnan(how_many.score(to[2], np.array([], int)))


def test_a_row_a_number_and_a_draw_and_a_threshold_where_there_are_enough(memory):
    table = how_many.measure(*memory, draws=3)
    assert table[["n", "draw"]].values.tolist() == [[n, draw] for draw in range(3)
                                                    for n in (1, 2, 4, 8)]
    assert (table["pictures"] == 8).all() and table[["good", "anomalous"]].eq(3).all(axis=None)
    assert table["auroc"].between(0, 1).all() and table["label_free"].between(0, 1).all()
    few = table["n"] < 4  # 20 % false alarms take 4 good pictures
    assert table.loc[few, ["false_positives", "found"]].isna().all(axis=None)
    assert table.loc[~few, ["false_positives", "found"]].notna().all(axis=None)
    assert len(table.loc[table["n"] == 8, "auroc"].unique()) == 1  # all are all, in any order
    assert table.loc[few, "smallest"].isna().all()
    again = how_many.measure(*memory, draws=3)
    pd.testing.assert_frame_equal(table, again)


def test_all_pictures_have_the_auroc_of_the_one_memory_of_all(memory):
    detector, part = memory
    known = layout.read_labels(part.category)
    labels = np.array([int(known[key].anomalous) for key in part.test.keys])
    to = how_many._distances(detector, part.good.tensor, [part.test.tensor])
    maps = anomaly_maps.smooth(np.stack([maps.min(axis=0) for maps, _ in to]))
    right = auroc(labels, anomaly_maps.reduce(maps, "top1"))
    assert how_many.measure(*memory, counts=(8, ), draws=1)["auroc"].tolist() == [right]


def test_no_picture_is_compared_with_its_siblings_nor_what_is_made_of_them(memory, monkeypatch):
    detector, part = memory
    thing, seen = torch.tensor([0, 0, 1, 2, 3, 4, 5, 6]), {}
    monkeypatch.setattr(how_many.siblings, "groups", lambda images: thing)
    monkeypatch.setattr(how_many, "_figures", lambda scores, *_: seen.update(scores=scores) or {})
    how_many.measure(detector, part, counts=(8, ), draws=1)
    good, made_of = part.good.tensor, how_many.anomalies.sources(8, 8, seed=part.config.seed)
    changed = how_many.anomalies.insert(good, 8, seed=part.config.seed)[0]
    to = [maps for maps, _ in how_many._distances(detector, good, [good, changed])]
    for i, own in enumerate([*np.arange(8)[:, None], *made_of]):
        others = np.flatnonzero(~np.isin(thing, thing[own]))
        assert seen["scores"][i] == pytest.approx(how_many.score(to[i], others), rel=1e-6)


def test_without_labels_it_is_judged_by_synthetic_anomalies_alone(memory, monkeypatch):
    monkeypatch.setattr(layout, "read_labels", lambda category: {})
    table = how_many.measure(*memory, counts=(1, 8), draws=2)
    assert table["label_free"].notna().all()
    assert table[["auroc", "false_positives", "found"]].isna().all(axis=None)


def test_the_smallest_anomaly_is_that_of_whose_size_half_are_found():
    sizes = np.geomspace(0.001, 0.1, 40)
    scores = np.r_[np.zeros(20), np.where(sizes > 0.01, 2.0, -1.0), np.ones(2)]  # found above .01
    found = how_many._figures(scores, np.arange(20), 20, np.repeat("scratch", 40), sizes,
                              np.array([0, 1]), 0.05)
    assert found["smallest"] == pytest.approx(0.01, rel=0.1)
    few = how_many._figures(scores, np.arange(18), 20, np.repeat("scratch", 40), sizes,
                            np.array([0, 1]), 0.05)
    assert np.isnan(few["smallest"])  # 18 make no threshold for 5 %


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_one_good_picture_says_nothing_and_warns_of_nothing(memory):
    detector, part = memory
    category = dataclasses.replace(part.category, train=part.category.train[:1])
    table = how_many.measure(detector, dataclasses.replace(part, category=category), draws=1)
    assert table["n"].tolist() == [1] and table["label_free"].isna().all()
    assert table["auroc"].notna().all()


def test_a_detector_without_the_backbone_is_refused_in_a_sentence(course_root):
    part = open_part(Config(name="mine", model="cae", image_size=32, category="nut",
                            data_root=str(course_root)))
    with pytest.raises(InputError, match="mine has none; take a configuration such as fused"):
        how_many.measure(registry.build(part.config), part)


def test_only_what_is_looked_at_counts(course_root, monkeypatch):
    """The defects of the test images lie outside the region of interest."""
    monkeypatch.setattr(how_many, "SYNTHETIC", 8)
    roi = np.zeros((32, 32), np.uint8)
    roi[:, 20:] = 255  # they are at 8:16, 8:16
    Image.fromarray(roi).save(course_root / "nut" / "roi.png")
    config = Config(name="memory", model="memory", weights="none", image_size=64, category="nut",
                    data_root=str(course_root), roi="roi.png")
    found = {}
    for name, one in (("whole", dataclasses.replace(config, roi="")), ("right", config)):
        part = open_part(one)
        to = {}
        monkeypatch.setattr(how_many, "_figures", lambda scores, *_, to=to: to.update(s=scores) or {})
        how_many.measure(registry.build(one), part, counts=(8, ), draws=1)
        labels = layout.read_labels(part.category)
        found[name] = {key: score for key, score in zip(part.test.keys, to["s"][-6:], strict=True)
                       if labels[key].anomalous}
    assert all(found["right"][key] < 0.7 * score for key, score in found["whole"].items())


def test_pictures_of_one_tile_are_judged_as_whole_ones(memory, course_root):
    for path in (course_root / "nut").rglob("*.png"):
        Image.open(path).resize((64, 64)).save(path)
    whole = dataclasses.replace(memory[1].config, image_size=64)  # as they are
    tiled = dataclasses.replace(whole, fit="tile", tile_size=64, overlap=16)
    assert [tuple(one.shape) for one in open_part(tiled).good.given] == 8 * [(4, 64, 64)]
    found = [how_many.measure(registry.build(one), open_part(one), draws=2)
             for one in (whole, tiled)]
    columns = ["n", "draw", "auroc", "good", "anomalous", "false_positives", "found"]
    pd.testing.assert_frame_equal(*(one[columns] for one in found))
    assert found[1]["label_free"].between(0, 1).all()


def test_of_pictures_of_many_tiles_fewer_are_looked_at(tmp_path, monkeypatch, small_detectors):
    monkeypatch.setattr(how_many, "MOST", 10)
    monkeypatch.setattr(how_many, "TESTED", 3)
    config = Config(**test_frames.SMALL, name="memory", model="memory", fit="tile",
                    data_root=str(test_frames.category(tmp_path)))
    table = how_many.measure(registry.build(config), open_part(config), draws=1)
    sizes = [height * width / 64**2 for height, width in test_frames.SHAPES]  # in tiles
    assert all(2 <= 3 / size**0.5 < 3 and 4 <= 10 / size**0.5 < 8 for size in sizes)
    assert table["n"].tolist() == [1, 2, 4]
    assert (table[["good", "anomalous"]] == 2).all(axis=None) and (table["pictures"] == 8).all()
    assert table["auroc"].notna().all()
