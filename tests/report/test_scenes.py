"""Pictures of one image, verdicts and clouds of points as HTML: the right pictures, colours with
shapes, words for those who cannot see."""
import base64
import io
import math
import re

import bs4
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from adlib.report import clouds, i18n, scenes


def soup(fragment):
    return bs4.BeautifulSoup(fragment, "html.parser")


def shown(**options):
    picture, map_ = np.full((32, 32, 3), 128, np.uint8), np.zeros((32, 32))
    map_[8:16, 8:16] = 3
    return scenes.views(picture, map_, low=0, level=1, size=64, **options)


def test_views_are_of_one_size_and_only_what_there_is():
    views = shown()
    assert list(views) == ["input", "anomaly map", "anomaly map over the input"]
    assert all(view.shape == (64, 64, 3) and view.dtype == np.uint8 for view in views.values())
    assert (views["input"] == 128).all() and (views["anomaly map"][24, 24]
                                              != views["anomaly map"][50, 50]).any()
    more = shown(redrawn=np.zeros((32, 32, 3), np.uint8), truth=np.eye(32, dtype=bool))
    assert list(more)[1] == "reconstruction" and (more["anomaly map over the input"]
                                                  == 255).all(axis=2).any()


def test_a_strip_has_every_picture_with_its_words_in_both_languages():
    strip = soup(scenes.strip(shown(), "a<b.png", "<b>below</b>", titled=True))
    images = strip.select("img")
    assert [image["alt"] for image in images] == [
        "a<b.png: input", "a<b.png: anomaly map", "a<b.png: anomaly map over the input"
    ]
    assert images[0]["data-alt-zh"] == "a<b.png：输入" and strip.figcaption.b.text == "below"
    opened = Image.open(io.BytesIO(base64.b64decode(images[0]["src"].split(",")[1])))
    assert opened.size == (64, 64) == (int(images[0]["width"]), int(images[0]["height"]))


@pytest.mark.parametrize(("score", "label", "said"), [(2.0, 1, "found"), (0.5, 1, "missed"),
                                                      (1.0, 0, "false alarm"), (0.5, 0, "passed"),
                                                      (1.0, None, "called anomalous"),
                                                      (0.5, None, "called good")])
def test_a_verdict_is_given_at_the_threshold_and_none_without_one(score, label, said):
    assert soup(scenes.verdict(score, label, 1.0)).select_one("[lang=en]").text == said
    assert scenes.verdict(score, label, math.nan) == "" and scenes.verdict(score, 1,
                                                                           math.inf).count("missed")


def test_a_caption_shows_names_as_they_are():
    said = scenes.caption("<i>", "x.png", 0.123456, 0.05, 1, 0.1)
    assert "&lt;i&gt;" in said and "0.1235" in said and "p 0.05" in said
    assert "p " not in scenes.caption("", "x", 1.0, math.nan, None, math.nan)


values = st.lists(st.floats(-1e3, 1e3), max_size=6).map(lambda found: np.array(found, float))


@given(st.floats(-1e3, 1e3), values, values,
       st.one_of(st.floats(-1e3, 1e3), st.just(math.inf), st.just(math.nan)))
def test_everything_on_a_gauge_lies_on_it(score, good, bad, line):
    drawn = scenes.gauge(score, good, bad, line, "ssim.max")
    places = [float(place) for place in re.findall(r"M(-?[\d.]+) ", drawn)]
    # and the axis and the marker
    assert len(places) == len(good) + len(bad) + math.isfinite(line) + 2
    assert all(0 <= place <= scenes.WIDTH
               for place in places) and "nan" not in drawn and "inf" not in drawn


@given(st.integers(1, 12), st.integers(0, 2**31), st.sampled_from([math.inf, math.nan, 0.0]))
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
