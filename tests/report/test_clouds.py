"""A score among others and clouds of points as HTML: everything lies on it, colours with shapes, words
for those who cannot see."""
import base64
import io
import math
import re

import bs4
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from adlib.report import clouds, i18n


def soup(fragment):
    return bs4.BeautifulSoup(fragment, "html.parser")


values = st.lists(st.floats(-1e3, 1e3), max_size=6).map(lambda found: np.array(found, float))


@given(st.floats(-1e3, 1e3), values, values,
       st.one_of(st.floats(-1e3, 1e3), st.just(math.inf)))
def test_everything_on_a_gauge_lies_on_it(score, good, bad, line):
    drawn = clouds.gauge(score, good, bad, line, "ssim.max")
    places = [float(place) for place in re.findall(r"M(-?[\d.]+) ", drawn)]
    # and the axis and the marker
    assert len(places) == len(good) + len(bad) + math.isfinite(line) + 2
    assert all(0 <= place <= clouds.WIDTH
               for place in places) and "nan" not in drawn and "inf" not in drawn


@given(st.integers(1, 12), st.integers(0, 2**31), st.sampled_from([math.inf, -math.inf, 0.0]))
def test_a_scatter_has_a_mark_an_image_a_shape_a_kind_and_one_ring(n, seed, line):
    rng = np.random.default_rng(seed)
    x, y, labels = rng.normal(size=n), np.ones(n), [None, 0, 1][:n] + [1] * (n - 3)
    plot = soup(clouds.scatter(x, y, labels, ("a", "<b>"), (line, 0.5), n - 1))
    svg = plot.svg
    marks = [path for path in svg.select("path") if path.get("transform")]
    assert len(marks) == n and len(
        svg.select("circle")) == 1 and svg.circle["transform"] == marks[-1]["transform"]
    assert len({(path["d"], path["fill"])
                for path in marks}) == len(set(labels)) == len({path["d"]
                                                                for path in marks})
    assert len(svg.select(
        "path[stroke-dasharray]")) == 1 + math.isfinite(line) and "<b>" in svg["aria-label"]
    for mark in marks:
        a, b = map(float, re.findall(r"[\d.]+", mark["transform"]))
        assert 0 < a < clouds.SIDE and 0 < b < clouds.SIDE


def feature_map(n, kinds=("train", "test"), points=None, size=64):
    rng = np.random.default_rng(n)
    thumbs = np.linspace(40, 200, size)[None, :, None] + rng.normal(0, 3, (n, size, size, 3))
    return clouds.feature_map(
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
                clouds.WIDE, clouds.HIGH), strict=True)
        ]


@settings(max_examples=15)
@given(st.integers(1, 60))
def test_pictures_cover_neither_each_other_nor_the_edge_and_a_large_one_stays_inside(n):
    boxes = []
    for label, (x, y) in places(feature_map(n)):
        sides = label.get("class", [])
        for length, kept in ((clouds.ROOM, "shown" in sides), (clouds.LARGE, True)):
            box = (x - length * ("left" in sides), y - length * ("up" in sides), length)
            assert -0.1 <= box[0] <= clouds.WIDE - length + 0.1 and -0.1 <= box[
                1] <= clouds.HIGH - length + 0.1
            boxes += [box] if kept and length == clouds.ROOM else []
    assert boxes and all(
        abs(a[0] - b[0]) > clouds.ROOM - 0.2 or abs(a[1] - b[1]) > clouds.ROOM - 0.2
        for i, a in enumerate(boxes) for b in boxes[:i])


def test_four_hundred_images_stay_below_the_limit_and_few_are_large():
    many, few = feature_map(400), feature_map(3)
    assert len(many) < 700_000
    sizes = [
        Image.open(io.BytesIO(base64.b64decode(soup(drawn).img["src"].split(",")[1]))).width
        for drawn in (many, few)
    ]
    assert 24 <= sizes[0] <= sizes[1] == clouds.THUMBS[0]


def test_images_in_one_place_are_drawn_all_the_same():
    assert len(soup(feature_map(4, points=np.zeros((4, 2)))).select("label.shown")) == 1
