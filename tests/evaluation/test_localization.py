from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage.measure import label
from sklearn import metrics as sk

from adlib.evaluation import localization

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
    with pytest.raises(
            ValueError,
            match=r"maps \(2, 4, 4\) and masks \(1, 4, 4\) \(bool\) must both be \[N,H,W\]"):
        measure(maps, masks[:1])
    with pytest.raises(ValueError, match=r"must both be \[N,H,W\], the masks bool"):
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
