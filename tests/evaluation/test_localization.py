import dataclasses
import shutil
from unittest import mock

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from skimage.measure import label
from sklearn import metrics as sk

from adlib.data import layout
from adlib.evaluation import localization
from adlib.evaluation import results as evaluation
from tests.conftest import picture
from tests.evaluation.test_results import of, opened

SHAPE = (2, 5, 6)
small_maps = hnp.arrays(np.int64, SHAPE, elements=st.integers(
    0, 4)).map(lambda array: array.astype(float))
small_masks = hnp.arrays(bool, SHAPE).filter(lambda array: array.any() and not array.all())


def slow_regions(maps, masks, limit):
    """Bergmann et al.'s curve, threshold by threshold: each region's area up to `limit`, divided by
    it."""
    regions = [(i, labels == number) for i, mask in enumerate(masks)
               for labels in [label(mask, connectivity=2)] for number in range(1,
                                                                               labels.max() + 1)]
    fpr, found = [0.0], [[0.0] * len(regions)]
    for threshold in np.unique(maps)[::-1]:
        called = maps >= threshold
        fpr.append(called[~masks].mean())
        found.append([called[i][region].mean() for i, region in regions])
    areas = []
    for curve in zip(*found, strict=True):
        area = 0.0
        for x0, x1, y0, y1 in zip(fpr, fpr[1:], curve, curve[1:], strict=False):
            if x1 > limit and x0 < limit:
                x1, y1 = limit, y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
            if x1 <= limit:
                area += (x1 - x0) * (y0 + y1) / 2
        areas.append(area / limit)
    return [i for i, _ in regions], [int(region.sum()) for _, region in regions], areas


def au_pro(maps, masks, limit):
    with mock.patch.object(localization, "LIMITS", {"pro": limit}):
        return localization.measure(maps, masks)[0]["pro"]


@settings(max_examples=100, deadline=None)
@given(small_maps, small_masks)
def test_pixel_metrics_are_scikit_learns(maps, masks):
    found, _ = localization.measure(maps, masks)
    assert found["pixel_auroc"] == pytest.approx(sk.roc_auc_score(masks.ravel(), maps.ravel()))
    assert found["pixel_ap"] == pytest.approx(
        sk.average_precision_score(masks.ravel(), maps.ravel()))


@settings(max_examples=150, deadline=None)
@given(small_maps, small_masks, st.sampled_from([0.05, 0.1, 0.3, 0.5, 1.0]))
def test_au_pro_is_its_definition(maps, masks, limit):
    found, regions = localization.measure(maps, masks)
    for name, at in (("au_pro_30", 0.30), ("au_pro_05", 0.05)):
        images, areas, expected = slow_regions(maps, masks, at)
        # two labellings, two orders
        rows = sorted(zip(regions["image"], regions["area"], regions[name].round(9), strict=True))
        assert np.array(rows) == pytest.approx(
            np.array(sorted(zip(images, areas, np.round(expected, 9), strict=True))), abs=2e-9)
        assert found[name] == pytest.approx(np.mean(expected)) == pytest.approx(
            au_pro(maps, masks, limit=at))
    assert au_pro(maps, masks, limit=limit) == pytest.approx(
        np.mean(slow_regions(maps, masks, limit)[2]))
    assert regions["share"].tolist() == (regions["area"] / 30).tolist()
    assert all(0 <= value <= 1 for value in found.values())


def test_larger_maps_without_ties():
    rng = np.random.default_rng(0)
    masks = np.zeros((3, 24, 24), bool)
    masks[0, 2:6, 3:9] = masks[0, 15:20, 15:17] = masks[1, 10:12, 10:12] = True
    maps = rng.normal(size=masks.shape) + 1.5 * masks
    found, regions = localization.measure(maps, masks)
    assert regions[["image", "area"]].to_numpy().tolist() == [[0, 24], [0, 10], [1, 4]]
    assert regions["au_pro_30"].tolist() == pytest.approx(slow_regions(maps, masks, 0.3)[2])
    assert regions["au_pro_05"].tolist() == pytest.approx(slow_regions(maps, masks, 0.05)[2])
    assert found["au_pro_30"] == pytest.approx(regions["au_pro_30"].mean())


@settings(max_examples=60, deadline=None)
@given(small_maps, small_masks)
def test_only_the_order_of_the_values_counts(maps, masks):
    found, regions = localization.measure(maps, masks)
    other, other_regions = localization.measure(np.exp(maps) - 3, masks)
    assert other == pytest.approx(found)
    assert other_regions.equals(regions)
    twice, _ = localization.measure(np.tile(maps, (2, 1, 1)), np.tile(masks, (2, 1, 1)))
    assert twice == pytest.approx(found)
    mirrored, _ = localization.measure(maps[::-1, ::-1, ::-1], masks[::-1, ::-1, ::-1])
    assert mirrored == pytest.approx(found)


@settings(max_examples=60, deadline=None)
@given(small_masks)
def test_perfect_useless_and_worst_maps(masks):
    share = masks.mean()
    for maps, expected in ((masks, (1, 1, 1, 1)), (0 * masks, (0.5, share, 0.15, 0.025)),
                           (~masks, (0, share, 0, 0))):
        found, _ = localization.measure(maps.astype(float), masks)
        assert list(found) == ["pixel_auroc", "pixel_ap", "au_pro_30", "au_pro_05"]
        assert list(found.values()) == pytest.approx(expected)


@settings(max_examples=60, deadline=None)
@given(small_maps)
def test_up_to_1_and_with_one_region_it_is_the_auroc(maps):
    masks = np.zeros(SHAPE, bool)
    masks[1, 1:4, 2:4] = True
    assert au_pro(maps, masks, limit=1) == pytest.approx(
        localization.measure(maps, masks)[0]["pixel_auroc"])


def test_by_hand_and_cut_between_two_thresholds():
    # Ten good pixels of 0, 2 and 4, four bad ones of 1 and 3: after 4, 3, 2, 1, 0 the false
    # positive rate is .1, .1, .5, .5, 1.
    maps = np.array([[[4, 2, 2, 2, 2, 0, 0], [0, 0, 0, 3, 1, 1, 1]]], float)
    masks = np.array([[[False] * 7, [False] * 3 + [True] * 4]])
    assert au_pro(maps, masks, limit=0.3) == pytest.approx(0.2 * 0.25 / 0.3)
    assert au_pro(maps, masks, limit=0.1) == 0
    assert au_pro(maps, masks, limit=0.75) == pytest.approx((0.4 * 0.25 + 0.25) / 0.75)
    # now the bad pixels cross the threshold with four good ones, from .1 to .5
    tied = np.where(masks, 2.0, maps)
    assert au_pro(tied, masks, limit=0.3) == pytest.approx(0.2 * 0.5 / 2 / 0.3)


def test_corners_touch_and_small_regions_count_like_large_ones():
    masks = np.zeros((1, 8, 8), bool)
    # two pixels over a corner, and a large square
    masks[0, 0, 0] = masks[0, 1, 1] = masks[0, 4:8, 4:8] = True
    maps = np.zeros((1, 8, 8))
    maps[0, 4:8, 4:8] = 1
    found, regions = localization.measure(maps, masks)
    assert regions["area"].tolist() == [2, 16] and regions["share"].tolist() == [2 / 64, 0.25]
    # the small one is found with all good pixels, along a diagonal
    assert regions["au_pro_30"].tolist() == pytest.approx([0.15, 1])
    assert found["au_pro_30"] == pytest.approx(0.575)


def test_touching_masks_of_two_images_are_two_regions():
    masks = np.ones((2, 2, 3), bool)
    masks[:, :, 0] = False
    assert localization.measure(np.zeros(masks.shape), masks)[1]["image"].tolist() == [0, 1]


def test_bad_input():
    maps, masks = np.zeros((2, 4, 4)), np.zeros((2, 4, 4), bool)
    masks[0, 0, 0] = True
    measure = localization.measure
    with pytest.raises(ValueError, match="maps, masks and areas must be of the same images"):
        measure(maps, masks[:1])
    with pytest.raises(ValueError, match=r"\[2, 2, 3\] maps, masks and areas"):
        measure(maps, masks, np.ones((3, 4, 4), bool))
    with pytest.raises(ValueError, match=r"a map \(4, 4\) and its mask \(4, 3\) \(bool\) must"):
        measure(maps, masks[:, :, :3])
    with pytest.raises(ValueError, match=r"must both be \[H,W\], the mask bool"):
        measure(maps[0], masks[0])
    with pytest.raises(ValueError, match="uint8"):
        measure(maps, masks.astype(np.uint8))
    for value in (np.nan, np.inf):
        with pytest.raises(ValueError, match="not finite"):
            measure(np.full((2, 4, 4), value), masks)
    with pytest.raises(ValueError, match="no defective pixel"):
        measure(maps, np.zeros_like(masks))
    with pytest.raises(ValueError, match="no good pixel"):
        measure(maps, np.ones_like(masks))


def more_defects(root):
    """Beside the fixture's three spots of 8 x 8: two scratches of 4 x 16, the second with a single
    pixel more, and one without a mask."""
    for i in range(3):
        picture(root / "nut" / "test" / "scratch" / f"{i:03d}.png", 60 + i, defect=True)
        mask = np.zeros((32, 32), np.uint8)
        mask[20:24, 4:20] = 255
        if i == 1:
            mask[0, 0] = 1
        path = root / "nut" / "ground_truth" / "scratch" / f"{i:03d}_mask.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        if i < 2:
            Image.fromarray(mask).save(path)
    return opened(root)


def test_localisation(mvtec_root):
    part = more_defects(mvtec_root)  # 3 good, 3 scratches, 3 spots
    truth = np.zeros((9, 32, 32), bool)
    truth[3:5, 20:24, 4:20] = truth[4, 0, 0] = truth[6:, 8:16, 8:16] = True
    maps = np.random.default_rng(0).random((9, 32, 32)) + 0.3 * truth
    used = [0, 1, 2, 3, 4, 6, 7, 8]
    found, regions = evaluation.locate(part, maps)
    groups, expected = found.pop("groups"), localization.measure(maps[used], truth[used])
    assert found == expected[0] | {"images": 8, "without_mask": 1, "masks": {"levels": 1}}
    assert regions["defect"].tolist() == ["scratch"] * 3 + ["spot"] * 3
    assert regions["path"].tolist() == [
        f"nut/test/{name}.png"
        for name in ("scratch/000", "scratch/001", "scratch/001", *(f"spot/{i:03d}"
                                                                    for i in range(3)))
    ]
    assert regions["area"].tolist() == [64, 1, 64, 64, 64, 64]
    pd.testing.assert_frame_equal(regions[expected[1].columns.drop("image")],
                                  expected[1].drop(columns="image"))

    members = {
        "scratch": [3, 4], "spot": [6, 7, 8], "<=6.25%": [3, 6, 7, 8],
        ">6.25%": [4]
    }
    assert [group["group"] for group in groups] == list(members)
    for group, chosen in zip(groups, members.values(), strict=True):
        assert group.pop("images") == len(chosen)
        assert group == {"group": group["group"]} | localization.measure(
            maps[[0, 1, 2, *chosen]], truth[[0, 1, 2, *chosen]])[0]


def test_localisation_of_one_type_and_one_size_has_no_groups(mvtec_root):
    part = opened(mvtec_root)
    maps = np.zeros((6, 32, 32))
    maps[3:, 8:16, 8:16] = 1
    found, regions = evaluation.locate(part, maps)
    assert found == {
        "pixel_auroc": 1, "pixel_ap": 1, "au_pro_30": 1, "au_pro_05": 1, "images": 6,
        "without_mask": 0, "masks": {}, "groups": []
    }
    assert regions["share"].tolist() == [1 / 16] * 3
    # The masks come at the images' own size.
    large, _ = evaluation.locate(of(part.category, size=64), maps.repeat(2, 1).repeat(2, 2))
    assert large == found


def test_a_group_without_a_good_pixel_is_left_out(mvtec_root):
    """No good test image, and one kind of defect that covers the whole of each."""
    shutil.rmtree(mvtec_root / "nut" / "test" / "good")
    part = more_defects(mvtec_root)  # two masked scratches, three spots
    for path in (mvtec_root / "nut" / "ground_truth" / "scratch").iterdir():
        Image.new("L", (32, 32), 255).save(path)
    found, _ = evaluation.locate(part, np.random.default_rng(0).random((6, 32, 32)))
    assert [row["group"] for row in found["groups"]] == ["spot", "<=6.25%"]
    assert found["images"] == 5 and found["pixel_auroc"] > 0


def test_false_alarms_on_good_images_count(mvtec_root):
    part = opened(mvtec_root)
    maps = np.zeros((6, 32, 32))
    maps[3:, 8:16, 8:16] = 1
    maps[0] = 2
    found, _ = evaluation.locate(part, maps)
    assert found["pixel_auroc"] == pytest.approx(1 - 1024 / (6 * 1024 - 3 * 64))


def test_pixels_that_are_not_looked_at_do_not_count(mvtec_root):
    """Neither false alarms there, nor what of a defect lies there."""
    seen = np.zeros((32, 32), bool)
    seen[:, 10:] = True  # of each defect, 8:16 by 8:16, three quarters
    Image.fromarray(seen).save(mvtec_root / "nut" / "roi.png")
    category = dataclasses.replace(layout.open_category(mvtec_root, "nut"),
                                   roi=(mvtec_root / "nut" / "roi.png", ))
    outside = np.zeros((32, 32), bool)
    outside[8:16, 2:8] = True
    Image.fromarray(outside).save(mvtec_root / "nut" / "ground_truth" / "spot" / "000.png")
    maps = np.zeros((6, 32, 32))
    maps[:, :, :10] = 9
    maps[3:, 8:16, 10:16] = 1
    found, regions = evaluation.locate(of(category), maps)
    assert (found["pixel_auroc"], found["pixel_ap"], found["au_pro_30"]) == (1, 1, 1)
    assert regions["area"].tolist() == [48] * 2 and found["images"] == 5


def test_no_localisation_without_masks(mvtec_root, course_root):
    part = opened(course_root)
    absent, regions = evaluation.locate(part, np.zeros((6, 32, 32)))
    assert absent is None and regions.empty
    for path in (mvtec_root / "nut" / "ground_truth" / "spot").iterdir():
        Image.new("L", (32, 32)).save(path)
    part = opened(mvtec_root)
    found, regions = evaluation.locate(part, np.zeros((6, 32, 32)))
    assert found == {"why_absent": "one_class"} and regions.empty
    shutil.rmtree(mvtec_root / "nut" / "ground_truth")
    assert evaluation.locate(opened(mvtec_root), np.zeros((6, 32, 32)))[0] is None


def test_a_defective_image_never_counts_as_good_pixels(mvtec_root):
    """Left out and counted: an empty mask, no mask, a good image with a defect in its mask."""
    masks = mvtec_root / "nut" / "ground_truth"
    Image.new("L", (32, 32)).save(masks / "spot" / "000.png")
    (masks / "spot" / "001_mask.png").unlink()
    (masks / "good").mkdir()
    Image.new("L", (32, 32)).save(masks / "good" / "000.png")
    Image.new("L", (32, 32), 255).save(masks / "good" / "001.png")
    maps = np.random.default_rng(0).random((6, 32, 32))
    maps[[1, 3, 4]] = 9  # those that are left out
    found, regions = evaluation.locate(opened(mvtec_root), maps)
    truth = np.zeros((3, 32, 32), bool)
    truth[2, 8:16, 8:16] = True
    expected, _ = localization.measure(maps[[0, 2, 5]], truth)
    assert found == expected | {"images": 3, "without_mask": 1, "groups": [],
                                "masks": {"empty": 1, "contradicted": 1}}
    assert regions["path"].tolist() == ["nut/test/spot/002.png"]


def test_no_small_defect_vanishes_at_the_size_of_the_maps(mvtec_root):
    for i, path in enumerate(sorted((mvtec_root / "nut" / "ground_truth" / "spot").iterdir())):
        mask = np.zeros((320, 320), np.uint8)
        mask[101:104, 5 + i:8 + i] = mask[201:203, 200] = 255
        Image.fromarray(mask).save(path)
    maps = np.zeros((6, 32, 32))
    maps[3:, 10, 0], maps[3:, 20, 20] = 2, 1
    found, regions = evaluation.locate(opened(mvtec_root), maps)
    assert found["masks"] == {"kept": 6} and found["images"] == 6
    assert regions["area"].tolist() == [1] * 6 and found["pixel_auroc"] == 1
