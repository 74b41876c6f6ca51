"""Maps as pictures: fixed scale, outlines that show, data URIs that open."""
import base64
import io

import numpy as np
from PIL import Image

from adlib.runs import overlays


def test_heat_is_blue_below_and_yellow_above_and_the_same_for_the_same_value():
    low, middle, high, beyond = overlays.heat(np.array([[0.0, 1.0, 2.0, 9.0]]), 0, 1)[0].astype(int)
    assert low[2] > low[0] > low[1] and (
        high == beyond).all() and high[0] > 200 and high[1] > 200 and high[2] < 80
    assert low.sum() < middle.sum() < high.sum()  # even in print without colour


def test_an_overlay_leaves_what_is_usual_alone_and_outlines_what_exceeds_the_level():
    picture, map_ = np.full((16, 16, 3), 128, np.uint8), np.zeros((16, 16))
    assert (overlays.overlay(picture, map_, low=0, level=1) == picture).all()
    map_[4:12, 4:12] = 5
    drawn = overlays.overlay(picture, map_, low=0, level=1)
    assert (drawn[:3] == 128).all() and (drawn[3, 4:12] == 0).all() and (picture == 128).all()
    assert (drawn[4, 4:12] == overlays.FOUND).all(axis=-1).any() and (drawn[8, 8] != 128).any()


def test_a_layer_is_clear_where_the_map_is_usual_and_has_the_colours_of_the_heat():
    map_ = np.array([[0.0, 1.0, 2.0, 9.0]])
    layer = overlays.layer(map_, 0, 1)
    assert (layer[..., :3] == overlays.heat(map_, 0, 1)).all()
    assert list(layer[0, :, 3]) == [0, 102, 204, 204]  # 0.8 of 255 at twice the level and above


def test_a_data_uri_opens_as_the_picture():
    picture = np.full((8, 8, 3), (200, 100, 50), np.uint8)
    for array in (picture, np.dstack([picture, picture[..., :1]])):
        head, _, content = overlays.uri(array).partition(";base64,")
        opened = Image.open(io.BytesIO(base64.b64decode(content)))
        assert head == "data:image/webp" and opened.format == "WEBP"
        assert np.abs(np.asarray(opened).astype(int) - array).max() <= 4
    small = Image.open(io.BytesIO(base64.b64decode(overlays.uri(picture, 4).split(",")[1])))
    assert (small.format, small.size) == ("WEBP", (4, 4))
