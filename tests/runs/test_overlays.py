"""Maps as pictures: fixed scale, outlines that show, data URIs that open."""
import base64
import io

import numpy as np
from PIL import Image

from adlib.runs import overlays


def test_heat_is_blue_below_and_yellow_above_and_the_same_for_the_same_value():
    low, middle, high, beyond = overlays.heat(np.array([[0.0, 1.0, 2.0, 9.0]]), 0, 2)[0].astype(int)
    assert low[2] > low[0] > low[1] and (
        high == beyond).all() and high[0] > 200 and high[1] > 200 and high[2] < 80
    assert low.sum() < middle.sum() < high.sum()  # even in print without colour


def test_outlines_are_drawn_on_both_sides_of_the_rim_and_nowhere_else():
    picture, region = np.full((16, 16, 3), 128, np.uint8), np.zeros((16, 16), bool)
    region[4:12, 4:12] = True
    drawn = overlays.outlined(picture, region, (255, 0, 0))
    assert (drawn[4, 4:12] == (255, 0, 0)).all() and (drawn[3, 4:12] == 0).all()
    assert (drawn[6:10, 6:10] == 128).all() and (drawn[:2] == 128).all() and (picture == 128).all()


def test_an_overlay_leaves_what_is_usual_alone():
    picture, map_ = np.full((16, 16, 3), 128, np.uint8), np.zeros((16, 16))
    assert (overlays.overlay(picture, map_, low=0, level=1) == picture).all()
    map_[4:12, 4:12] = 5
    drawn = overlays.overlay(picture, map_, low=0, level=1, truth=map_ > 0)
    assert (drawn[:2] == 128).all() and (drawn[4, 4] == 255).all() and (drawn[8, 8] != 128).any()


def test_a_data_uri_opens_as_the_picture():
    picture = np.random.default_rng(0).integers(0, 255, (8, 8, 3)).astype(np.uint8)
    kind, _, content = overlays.uri(picture, exact=True).partition(";base64,")
    assert kind == "data:image/png" and (np.asarray(
        Image.open(io.BytesIO(base64.b64decode(content)))) == picture).all()
    small = Image.open(io.BytesIO(base64.b64decode(overlays.uri(picture, 4).split(",")[1])))
    assert (small.format, small.size) == ("JPEG", (4, 4))
