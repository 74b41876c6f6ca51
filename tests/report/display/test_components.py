"""The threshold, what is missed and single images as HTML: what they count, in which order, in either
language, and that no name in them becomes markup."""
import base64
import io
import math
import re
import types

import bs4
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from adlib.evaluation.conformal import Threshold
from adlib.report.display import components, gallery, render
from adlib.report.words import i18n
from adlib.report.words.i18n import t
from tests.report.display.test_gallery import SHOT

NOTHING = Threshold(np.zeros(0), 0.05, "none")


def table(labels, scores, defect="bad", p_values=None):
    return pd.DataFrame({
        "path": [f"nut/test/{i}.png" for i in range(len(labels))], "split": "test",
        "label": pd.array(labels, "Int64"), "defect": [defect if label else "good"
                                                       for label in labels],
        "chosen_score": [float(s) for s in scores], "score": [float(s) for s in scores],
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
    assert "maximum of the 1 - SSIM map" in page.select_one(".unit").text  # and no code


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
    rows = gallery.with_scores(table([0, 1], [value, np.nextafter(value, 2 * value)]))
    tiles = soup(gallery.gallery(rows, [SHOT] * 2, threshold, "ssim.max")).select("li")
    assert [tile.select_one(".verdict:not([hidden])")["class"][1] for tile in tiles] == [
        "found", "passed"]  # not above it is good


def test_a_rate_of_ones_own_is_among_those_to_ask_for():
    page = soup(components.threshold(table([0, 1], [1, 2]), above(1.5, rate=0.07), "ssim.max"))
    assert [option.text for option in page.select("option[selected]")] == ["7%"]
    assert "10%" in page.select_one("select").text


def test_without_a_threshold_nothing_is_called_anomalous_and_without_labels_too_there_is_none():
    page = soup(components.threshold(table([0, 1], [1, 2]), NOTHING, "ssim.max"))
    assert page.select_one("[data-count=missed]").text == "1" and page.output.text == "∞"
    assert page.select_one(".line")["style"] == "left:100.00%"
    assert not page.select("[data-to=labelFree]") and not page.select("select")
    assert components.threshold(table([0, 0], [1, 2]), NOTHING, "ssim.max") == ""
    assert components.threshold(table([None], [1]), above(1.5, 10), "ssim.max") == ""


@pytest.mark.parametrize(("labels", "words"), [
    ([0, 0], "good, kept for testing (2)"), ([1, 1], "anomalous (2)"),
    ([None, None], "unlabelled (2)"), ([0, None], "good, kept for testing (1)"),
    ([], "good, kept for testing (0)")], ids=str)
def test_of_one_kind_of_test_image_those_of_the_threshold_stand_beside_them(labels, words):
    threshold = above(1.5, 40)
    fragment = components.threshold(table(labels, [1, 2][:len(labels)]), threshold, "ssim.max")
    page, n = english(fragment), int(words.split("(")[1][0])
    assert [re.sub(r"\s+", " ", side.text) for side in page.select(".side")] == [
        words, "good, the threshold's own (40)"]
    assert {cell["data-count"]: int(cell.text) for cell in page.select("[data-count]")} == {
        "found": int(n > 1), "missed": min(n, 1), "false_positives": 1, "passed": 39}
    assert float(page.output["data-threshold"]) == threshold.value < 1.5
    assert page.select(".rates[hidden]") and not page.select("[data-to=oracle]")


def test_too_few_good_images_for_the_asked_rate_are_no_threshold_but_for_higher_rates():
    page = soup(components.threshold(table([0, 1], [1, 2]), above(1.5, 10), "ssim.max"))
    assert not page.select("[data-to=labelFree]") and page.output.text == "∞"
    assert [option.text for option in page.select("option")] == ["–", "10%", "20%"]
    held = [holds for *_, holds in components.verdicts(2.0, 1, above(1.5, 10))]
    assert held == [False, False] and any(
        holds for *_, holds in components.verdicts(2.0, 1, above(1.5, 19)))


def heights(path):
    """[(left, signed height)] of the bars of a histogram."""
    return [(float(x), float(height)) for x, height in re.findall(r"M([\d.]+) \d+h[\d.]+v(-?[\d.]+)",
                                                                  path)]


def test_the_line_stands_where_its_score_is_on_the_axis_of_the_bars():
    """Both are places of one axis, so the handle and the line cannot disagree."""
    scores = [0.0, 1, 2, 3, 4, 5, 6, 100]
    page = soup(components.threshold(table([0] * 4 + [1] * 4, scores), above(5.5), "ssim.max"))
    panel = page.select_one(".threshold")
    levels, linear, squeezed = (np.array(panel[f"data-{key}"].split(), float)
                                for key in ("levels", "linear", "squeezed"))
    assert (np.diff(linear) >= 0).all() and (np.diff(squeezed) >= 0).all()
    at = list(levels).index(5.5)
    assert linear[at] == pytest.approx(0.055, abs=1e-4) and squeezed[at] > 0.25
    assert panel["data-axis"] == "squeezed"  # a heavy tail: seven of eight lie in a fifteenth
    assert float(page.select_one(".line")["style"][5:-1]) == pytest.approx(100 * squeezed[at], abs=0.01)
    for kind, places in (("linear", linear), ("squeezed", squeezed)):
        bad, good = (heights(page.select_one(f"g.{kind} .{side}")["d"]) for side in ("bad", "good"))
        assert all(height < 0 for _, height in bad) and all(height > 0 for _, height in good)
        for label, bars in ((1, bad), (0, good)):
            called = [x / 1000 >= places[at] for x, height in bars]
            assert any(called) == (label == 1)  # 6 and 100, and no good one


def test_an_even_spread_is_not_squeezed_and_equal_scores_have_a_place():
    even = table([0] * 8 + [1] * 8, range(16))
    assert soup(components.threshold(even, above(5.5), "ssim.max")).select_one(
        ".threshold")["data-axis"] == "linear"
    page = soup(components.threshold(table([0, 1], [1, 1]), above(1.0), "ssim.max"))
    assert "nan" not in str(page)


def test_the_reference_score_is_grey_and_only_where_it_is_not_in_use():
    rows = table([0, 0, 1, 1], [1, 3, 2, 4]).assign(score=[4.0, 3, 2, 1])
    page = soup(components.threshold(rows, above(2.5), "ssim.max"))
    assert len(page.select("g.grey path")) == 2 and "grey" in page.select_one(".unit").text
    assert not soup(components.threshold(table([0, 1], [1, 2]), above(1.5), "x.max")).select(".grey")


def results(labels, called, defects, areas=(), localization=None, reference=None):
    """Results of test images: called anomalous or not, by defect."""
    rows = pd.DataFrame({
        "path": [f"nut/test/{i}.png" for i in range(len(labels))], "split": "test",
        "label": pd.array(labels, "Int64"), "defect": defects, "chosen_score": 1.0, "score": 1.0,
        "chosen_prediction": pd.array(called, "Int64"),
        "prediction": pd.array(reference or called, "Int64")})
    if reference:
        rows["score"] = 2.0
    regions = pd.DataFrame({"path": [f"nut/test/{i}.png" for i, _ in areas],
                            "share": [area for _, area in areas]})
    return types.SimpleNamespace(table=rows, regions=regions, localization=localization)


def rows_of(fragment):
    return [[cell.get_text(strip=True) for cell in row.select("th, td")]
            for row in english(fragment).select("tbody tr")]


def test_what_is_missed_is_counted_by_defect_the_most_missed_first_and_by_size():
    measured = {"groups": [{"group": "cut", "pixel_auroc": 0.9, "au_pro_30": 0.5, "au_pro_05": 0.25},
                           {"group": ">1.50%", "pixel_auroc": 0.8, "au_pro_30": 0, "au_pro_05": 0}]}
    found = results([1, 1, 1, 1, 0], [1, 1, 0, 1, 1], ["hole", "hole", "cut", "cut", "good"],
                    [(0, 0.03), (1, 0.02), (2, 0.005), (2, 0.005), (3, 0.01)], measured,
                    [0, 1, 1, 0, 0])
    shown = components.misses(found)
    assert rows_of(shown) == [
        ["cut", "1 / 2", "", "0.900", "0.500", "0.250"], ["hole", "2 / 2", "", "", "", ""],
        ["defects up to 1.50% of the image", "1 / 2", "", "", "", ""],
        ["defects above 1.50% of the image", "2 / 2", "", "0.800", "0.000", "0.000"]]
    bars = english(shown).select(".part")
    assert [bar.span["style"] for bar in bars] == ["width:50.0%", "width:100.0%"] * 2
    assert [bar.i["style"] for bar in bars] == ["left:50.0%"] * 4  # the reference's
    assert all(re.fullmatch(r"\d+%–\d+%", bar["title"]) for bar in bars)  # the 95% interval


def test_without_an_anomalous_label_nothing_can_be_missed():
    assert components.misses(results([0, 0], [0, 1], ["good"] * 2)) == ""
    one = results([1, 1], [1, 0], ["cut", "cut"], [(0, 0.02), (1, 0.02)])  # of one kind and size
    assert rows_of(components.misses(one)) == [["cut", "1 / 2", ""]]
    assert not english(components.misses(one)).select(".part i")
    one.localization = {"groups": [], "pixel_auroc": 0.9, "au_pro_30": 0.5, "au_pro_05": 0.25}
    assert rows_of(components.misses(one)) == [["cut", "1 / 2", "", "0.900", "0.500", "0.250"]]


def test_a_figure_has_a_permalink_in_ascii_and_says_where_it_comes_from():
    page = english(components.figure("<b>", "roc-curve", i18n.Text("A & b.", "甲。"), "all.csv"))
    assert page.figure["id"] == "roc-curve" and page.select_one(".figno")["href"] == "#roc-curve"
    assert [link["href"] for link in page.select(".sources a")] == ["all.csv", "#cell"]
    assert "&lt;b&gt;" in str(page) and "A &amp; b." in str(page)


def test_a_component_on_its_own_brings_its_style_and_its_script():
    live = components.live(components.paragraph("a < b"))
    assert "a &lt; b" in live and render.script() in live and render.style() in live


def test_a_strip_has_every_picture_with_its_words_in_both_languages():
    pictures = {t("view.input"): np.full((64, 64, 3), 128, np.uint8),
                t("view.reconstruction"): np.zeros((32, 64, 3), np.uint8)}
    strip = soup(components.strip(pictures, "a<b.png", components.paragraph("below"), titled=True,
                                  boxes={"input": (25, 50, 10, 10)}))
    images = strip.select("img")
    assert [image["alt"] for image in images] == ["a<b.png: input", "a<b.png: reconstruction"]
    assert images[0]["data-alt-zh"] == "a<b.png：输入"
    assert strip.select_one(".caption").p.text == "below"
    opened = Image.open(io.BytesIO(base64.b64decode(images[0]["src"].split(",")[1])))
    assert opened.size == (64, 64) == (int(images[0]["width"]), int(images[0]["height"]))
    assert [box["style"] for box in strip.select("i")] == [
        "left:25%;top:50%;width:10%;height:10%"]
    assert soup(components.strip({}, "x", "<b>")).select_one(".caption").text == "<b>"


def test_a_montage_is_a_row_a_kind():
    rows = {"good": np.zeros((3, 8, 8, 3)), "<hole>": np.ones((1, 8, 8, 3))}
    page = soup(components.montage(rows))
    assert [len(strip.select("img")) for strip in page.select(".strip")] == [3, 1]
    assert page.select(".strip")[1].select_one(".caption").text == "<hole>"


@pytest.mark.parametrize(("score", "label", "said"), [
    (2.0, 1, "found"), (0.5, 1, "missed"), (1.1, 0, "false alarm"), (1.0, 0, "passed"),
    (1.1, None, "called anomalous"), (1.0, None, "called good")])
def test_a_verdict_is_given_above_the_threshold_and_none_without_one(score, label, said):
    text = i18n.Text("It scores.", "它有分数。")
    shown = english(components.with_verdict(text, score, label, above(1.0)))
    assert shown.text.split(". ")[1] == said
    assert soup(components.with_verdict(text, score, label, NOTHING)).select(".verdict") == []
    too_few = Threshold(np.zeros(3), 0.05)
    assert soup(components.with_verdict(text, score, label, too_few)).select(".verdict") == []


def test_what_is_said_shows_names_as_they_are():
    assert "&lt;u&gt;" in components.with_verdict("<u>", 1.0, 1, NOTHING)


@pytest.mark.parametrize("synthetic", [True, False])
def test_the_banner_says_what_the_data_are_and_that_they_were_drawn(course_root, synthetic):
    from adlib.config import Config
    from adlib.data import part

    if synthetic:
        (course_root / "synthetic.json").write_text("{}")
    page = english(components.banner(part.open_part(Config(data_root=str(course_root),
                                                           held_out=0.4))))
    assert bool(page.select(".synthetic")) == synthetic
    assert f"Category: nut. Data: folder {course_root.name}, as given." in page.text
    assert "8 good" in page.text
    assert str(course_root) not in page.text
