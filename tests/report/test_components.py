"""The threshold, the gallery and single images as HTML: what they count, in which order, in either
language, and that no name in them becomes markup."""
import base64
import io
import math

import bs4
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from adlib.evaluation.conformal import Threshold
from adlib.report import components, i18n, render
from adlib.report.i18n import t

NOTHING = Threshold(np.zeros(0), 0.05, "none")


def table(labels, scores, defect="bad", p_values=None):
    return pd.DataFrame({
        "path": [f"nut/test/{i}.png" for i in range(len(labels))], "split": "test",
        "label": pd.array(labels, "Int64"), "defect": [defect if label else "good"
                                                       for label in labels],
        "chosen_score": [float(s) for s in scores],
        "chosen_p_value": 0.5 if p_values is None else p_values})


def soup(fragment):
    return bs4.BeautifulSoup(fragment, "html.parser")


def english(fragment):
    page = soup(fragment)
    for part in page.select("[lang=zh-CN]"):
        part.decompose()
    return page


def above(value, n=19, rate=0.05):
    """A threshold at `value`, from n good images."""
    return Threshold(np.linspace(value - 1, value, n), rate)


def test_the_matrix_is_that_of_the_label_free_threshold():
    threshold = above(2.5, 40)
    page = soup(components.threshold(table([0, 0, 1, 1], [1, 3, 2, 4]), threshold, "ssim.max"))
    assert {cell["data-count"]: cell.text for cell in page.select("[data-count]")} == {
        "found": "1", "missed": "1", "false_positives": "1", "passed": "1"}
    panel = page.select_one(".threshold")
    assert (panel["data-good"], panel["data-anomalous"], panel["data-oracle"]) == (
        "1.0 3.0", "2.0 4.0", "1.5")
    assert {dd["data-rate"]: dd.text for dd in page.select("dd")} == {
        "precision": "50%", "recall": "50%", "fpr": "50%"}
    assert [option.text for option in page.select("option")] == ["–", "5%", "10%", "20%"]
    assert [option.text for option in page.select("option[selected]")] == ["5%"]
    assert [float(option["value"]) for option in page.select("option")[1:]] == [
        threshold.at(rate).value for rate in (0.05, 0.1, 0.2)]
    assert len(page.select("rect[fill*=bad]")) == len(page.select("rect[fill*=good]")) == 2


@pytest.mark.parametrize("value", [1 / 3, 2e-7 / 3, 123456789.123456789])
def test_the_threshold_on_the_page_is_that_of_the_run_to_the_last_digit(value):
    threshold = above(value)
    page = soup(components.threshold(table([0, 1], [0, 1]), threshold, "ssim.max"))
    panel, output = page.select_one(".threshold"), page.output
    levels = [float(level) for level in panel["data-levels"].split()]
    assert float(panel["data-label-free"]) == float(
        output["data-threshold"]) == threshold.value == value
    assert output.text == f"{value:.6g}" and threshold.value in levels
    assert levels == sorted(levels) and levels[0] == -math.inf and levels[-1] == math.inf
    rows = components.with_scores(table([0, 1], [value, np.nextafter(value, 2 * value)]))
    tiles = soup(components.tiles_of(rows, [{}] * 2, threshold, "ssim.max", 2)).select("li")
    assert [tile.select_one(".verdict:not([hidden])")["class"][1] for tile in tiles] == [
        "found", "passed"]  # not above it is good


def test_a_rate_of_ones_own_is_among_those_to_ask_for():
    page = soup(components.threshold(table([0, 1], [1, 2]), above(1.5, rate=0.07), "ssim.max"))
    assert [option.text for option in page.select("option[selected]")] == ["7%"]
    assert "10%" in page.select_one("select").text


def test_without_a_threshold_it_stands_at_the_oracle_and_without_labels_there_is_none():
    page = soup(components.threshold(table([0, 1], [1, 2]), NOTHING, "ssim.max"))
    assert page.select_one("[data-count=found]").text == "1" and page.output.text == "1.5"
    assert not page.select("[data-to=labelFree]") and not page.select("select")
    assert components.threshold(table([0, 0], [1, 2]), above(1.5), "ssim.max") == ""
    assert components.threshold(table([0, None], [1, 2]), above(1.5), "ssim.max") == ""


def test_a_threshold_that_calls_nothing_anomalous_lies_at_the_edge():
    page = soup(components.threshold(table([0, 1], [1, 2]), above(1.5, 10), "ssim.max"))
    assert page.select_one(".threshold")["data-label-free"] == "Infinity"
    assert page.select_one("[data-count=missed]").text == "1" and page.output.text == "∞"
    assert page.select_one(".line")["transform"] == f"translate({components.WIDTH - 12}.0 0)"


def gallery(labels, scores, threshold, **options):
    rows = components.with_scores(table(labels, scores, **options))
    pictures = [{t("view.input"): np.zeros((8, 8, 3), np.uint8)}] * len(rows)
    return components.tiles_of(rows, pictures, threshold, "ssim.max", len(rows))


def test_the_gallery_is_sorted_and_says_what_became_of_each_image():
    source = gallery([0, 1, 1, None], [3, 4, 1, 9], above(3.0),
                     defect="<script>alert(1)</script>", p_values=[0.1, 0.05, 0.9, math.nan])
    page = soup(source)
    assert [tile["data-score"] for tile in page.select("li")] == ["9.0", "4.0", "3.0", "1.0"]
    assert [[part["class"][1] for part in tile.select(".verdict:not([hidden])")]
            for tile in page.select("li")] == [["called"], ["found"], ["passed"], ["missed"]]
    assert ["p " in caption.text for caption in page.select("figcaption")] == [False] + [True] * 3
    assert "<script" not in source and all(
        len(image["alt"]) > 10 and image["data-alt-zh"] for image in page.select("img"))
    assert [option["value"] for option in page.select("[data-key=defect] option")] == [
        "", "<script>alert(1)</script>", "good"]


def test_without_a_threshold_the_gallery_gives_no_verdict():
    page = soup(gallery([0, 1], [1, 2], NOTHING))
    assert page.select(".verdict") and not page.select(".verdict:not([hidden])")
    assert page.select_one(".gallery")["data-threshold"] == ""


def test_a_component_on_its_own_brings_its_style_and_its_script():
    live = components.live(components.paragraph("a < b"))
    assert "a &lt; b" in live and render.script() in live and render.style() in live
    assert "<script" not in components.live(components.paragraph("x"), moving=False)


# ---- single images

def shown(**options):
    picture, map_ = np.full((32, 32, 3), 128, np.uint8), np.zeros((32, 32))
    map_[8:16, 8:16] = 3
    return components.views(picture, map_, low=0, level=1, size=64, **options)


def test_views_are_of_one_size_and_only_what_there_is():
    views = shown()
    assert list(views) == ["input", "anomaly map", "anomaly map over the input"]
    assert all(view.shape == (64, 64, 3) and view.dtype == np.uint8 for view in views.values())
    map_ = views["anomaly map"]
    assert (views["input"] == 128).all() and (map_[24, 24] != map_[50, 50]).any()
    more = shown(reconstruction=np.zeros((32, 32, 3), np.uint8), truth=np.eye(32, dtype=bool))
    assert list(more)[1] == "reconstruction"
    assert (more["anomaly map over the input"] == 255).all(axis=2).any()


def test_a_strip_has_every_picture_with_its_words_in_both_languages():
    strip = soup(components.strip(shown(), "a<b.png", components.paragraph("below"), titled=True))
    images = strip.select("img")
    assert [image["alt"] for image in images] == [
        "a<b.png: input", "a<b.png: anomaly map", "a<b.png: anomaly map over the input"]
    assert images[0]["data-alt-zh"] == "a<b.png：输入" and strip.figcaption.p.text == "below"
    opened = Image.open(io.BytesIO(base64.b64decode(images[0]["src"].split(",")[1])))
    assert opened.size == (64, 64) == (int(images[0]["width"]), int(images[0]["height"]))
    assert soup(components.strip({}, "x", "<b>")).figcaption.text == "<b>"


@pytest.mark.parametrize(("score", "label", "said"), [
    (2.0, 1, "found"), (0.5, 1, "missed"), (1.1, 0, "false alarm"), (1.0, 0, "passed"),
    (1.1, None, "called anomalous"), (1.0, None, "called good")])
def test_a_verdict_is_given_above_the_threshold_and_none_without_one(score, label, said):
    text = i18n.Text("It scores.", "它有分数。")
    assert english(components.judged(text, score, label, above(1.0))).text.split(". ")[1] == said
    assert soup(components.judged(text, score, label, NOTHING)).select(".verdict") == []
    assert "missed" in components.judged(text, score, 1, Threshold(np.zeros(3), 0.05))


def test_what_is_said_shows_names_as_they_are():
    said = components.judged("<u>", 1.0, 1, NOTHING, "<i>")
    assert "&lt;i&gt;" in said and "&lt;u&gt;" in said


@pytest.mark.parametrize("synthetic", [True, False])
def test_the_banner_says_what_the_data_are_and_that_they_were_drawn(course_root, synthetic):
    from adlib.config import Config
    from adlib.data import part

    if synthetic:
        (course_root / "synthetic.json").write_text("{}")
    page = english(components.banner(part.open_part(Config(data_root=str(course_root),
                                                           held_out=0.4))))
    assert bool(page.select(".synthetic")) == synthetic
    assert f"Category: nut. Data: folder {course_root.name} (" in page.text and "8 good" in page.text
    assert str(course_root) not in page.text


def test_localization_is_a_row_a_group():
    row = {"group": "<b>", "images": 3, "pixel_auroc": 0.9, "pixel_ap": 0.5, "au_pro_30": 0.25,
           "au_pro_05": 0.1}
    page = english(components.localization({"groups": [row]}))
    assert [cell.text for cell in page.select("td")] == ["<b>", "3", "0.900", "0.500", "0.250",
                                                         "0.100"]
    assert components.localization({"groups": []}) == components.localization(None) == ""
