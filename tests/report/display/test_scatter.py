"""Images as points: all of them there, colours with shapes, words for those who cannot see."""
import base64
import io
import re

import bs4
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from adlib.report.display import scatter
from adlib.report.words import i18n


def soup(fragment):
    return bs4.BeautifulSoup(fragment, "html.parser")


def feature_map(n, kinds=("train", "test"), points=None, size=64):
    rng = np.random.default_rng(n)
    thumbs = np.linspace(40, 200, size)[None, :, None] + rng.normal(0, 3, (n, size, size, 3))
    return scatter.feature_map(
        rng.normal(size=(n, 2)) if points is None else points,
        [kinds[i % len(kinds)] for i in range(n)], [f"{i}.png" for i in range(n)],
        thumbs.astype(np.uint8), i18n.Text("Images", "图像"))


def test_a_feature_map_has_every_image_once_with_its_kind_in_words_colour_and_shape():
    drawn = soup(feature_map(9, ("train", "test", "<spot>")))
    labels = drawn.select(".feature-map label")
    assert [label.img["alt"] for label in labels] == [
        f"{('train', 'test', '<spot>')[i % 3]}: {i}.png" for i in range(9)
    ]
    assert [label.img["data-alt-zh"] for label in labels][2] == "<spot>：2.png"
    looks = [(label.path["d"], label.path["fill"]) for label in labels]
    assert looks[:3] * 3 == looks and len({d
                                           for d, _ in looks}) == len({fill
                                                                       for _, fill in looks}) == 3
    assert "(3)" in drawn.text and drawn.select_one(".feature-map")["aria-label"] == "Images"
    assert "script" not in str(drawn) and len({label.input["name"] for label in labels}) == 1


def places(drawn):
    for label in soup(drawn).select("label"):
        yield label, [
            float(share) / 100 * side
            for share, side in zip(re.findall(r"([\d.]+)%", label["style"]), (
                scatter.WIDE, scatter.HIGH), strict=True)
        ]


@settings(max_examples=15)
@given(st.integers(1, 60))
def test_pictures_cover_neither_each_other_nor_the_edge_and_a_large_one_stays_inside(n):
    boxes = []
    for label, (x, y) in places(feature_map(n)):
        sides = label.get("class", [])
        for length, kept in ((scatter.ROOM, "shown" in sides), (scatter.LARGE, True)):
            box = (x - length * ("left" in sides), y - length * ("up" in sides), length)
            assert -0.1 <= box[0] <= scatter.WIDE - length + 0.1 and -0.1 <= box[
                1] <= scatter.HIGH - length + 0.1
            boxes += [box] if kept and length == scatter.ROOM else []
    assert boxes and all(
        abs(a[0] - b[0]) > scatter.ROOM - 0.2 or abs(a[1] - b[1]) > scatter.ROOM - 0.2
        for i, a in enumerate(boxes) for b in boxes[:i])


def test_four_hundred_images_stay_below_the_limit_and_few_are_large():
    many, few = feature_map(400), feature_map(3)
    assert len(many) < 700_000
    sizes = [
        Image.open(io.BytesIO(base64.b64decode(soup(drawn).img["src"].split(",")[1]))).width
        for drawn in (many, few)
    ]
    assert 24 <= sizes[0] <= sizes[1] == scatter.THUMBS[0]


def test_images_in_one_place_are_drawn_all_the_same():
    assert len(soup(feature_map(4, points=np.zeros((4, 2)))).select("label.shown")) == 1
