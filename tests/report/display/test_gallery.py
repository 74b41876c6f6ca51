"""Many images as HTML: every one of them, in order, with what became of it; a few to begin with; two
runs beside each other."""
import dataclasses
import json
import math

import bs4
import numpy as np
import pandas as pd
import pytest

from adlib.evaluation.conformal import Threshold
from adlib.report.display import gallery
from adlib.report.words.i18n import Text
from adlib.runs.image_layers import Shot

NOTHING = Threshold(np.zeros(0), 0.05, "none")
SHOT = Shot("in.jpg", "small.jpg", 640, 480, "", "map.jpg", "heat.webp", "M0 0", "M1 1", "M2 2V3H4")


def above(value):
    """A threshold at `value`, from 19 good images."""
    return Threshold(np.linspace(value - 1, value, 19), 0.05)


def rows(labels, scores, defect="bad", p_values=0.5):
    return gallery.with_scores(pd.DataFrame({
        "path": [f"nut/test/{i}.png" for i in range(len(labels))], "split": "test",
        "label": pd.array(labels, "Int64"),
        "defect": [defect if label else None if label is None else "good" for label in labels],
        "chosen_score": [float(score) for score in scores], "chosen_p_value": p_values}))


def english(fragment):
    page = bs4.BeautifulSoup(fragment, "html.parser")
    for part in page.select("[lang=zh-CN]"):
        part.decompose()
    return page


def verdicts(page):
    return [[part["class"][1] for part in tile.select(".verdict:not([hidden])")]
            for tile in page.select("li")]


def test_all_images_are_there_the_highest_score_first_with_what_became_of_each():
    some = rows([0, 1, 1, None], [3, 4, 1, 9], "<script>alert(1)</script>",
                [0.1, 0.05, 0.9, math.nan])
    source = gallery.gallery(some, [SHOT] * 4, above(3.0), "ssim.max", ids=True)
    page = english(source)
    assert [tile["data-score"] for tile in page.select("li")] == ["9.0", "4.0", "3.0", "1.0"]
    assert [tile["id"] for tile in page.select("li")] == ["image-3", "image-1", "image-0", "image-2"]
    assert verdicts(page) == [["called"], ["found"], ["passed"], ["missed"]]
    assert ["p 0" in tile.text for tile in page.select("li")] == [False] + [True] * 3
    assert "<script" not in source
    assert page.li.img["alt"] == "unlabelled 3.png, under its anomaly map"


def test_filters_say_how_many_images_are_like_that():
    page = english(gallery.gallery(rows([0, 0, 1, 1, 1], [1, 5, 2, 6, 7]), [SHOT] * 5, above(4.0),
                                   "ssim.max"))
    chips = {button["data-value"]: button.select_one(".n").text
             for button in page.select("[data-facet=verdict]")}
    assert chips == {"": "5", "found": "2", "missed": "1", "false-alarm": "1", "passed": "1"}
    assert {button["data-value"]: button.select_one(".n").text
            for button in page.select("[data-facet=defect]")} == {"": "5", "bad": "3", "good": "2"}
    assert gallery.counted(rows([0, 0, 1, 1, 1], [1, 5, 2, 6, 7]), above(4.0)) == (
        "All 5 images; at the label-free threshold 2 found, 1 missed, 1 false alarm, 1 passed.")


def test_without_labels_only_the_calls_can_be_chosen_and_without_a_threshold_nothing():
    page = english(gallery.gallery(rows([None, None], [1, 5]), [SHOT] * 2, above(4.0), "x.max"))
    assert [button["data-value"] for button in page.select("[data-facet=verdict]")] == [
        "", "called", "let-pass"]
    page = english(gallery.gallery(rows([0, 1], [1, 2]), [SHOT] * 2, NOTHING, "x.max"))
    assert verdicts(page) == [[], []] and page.select_one(".gallery")["data-threshold"] == ""
    assert not page.select("[data-facet=verdict]")
    assert gallery.counted(rows([0, 1], [1, 2]), NOTHING) == "All 2 images."


def test_a_tile_shows_its_image_under_the_map_and_knows_the_large_ones():
    page = english(gallery.gallery(rows([1], [1]), [SHOT], above(0.5), "x.max"))
    tile = page.li
    assert [image["src"] for image in tile.select("img")] == ["small.jpg", "heat.webp"]
    assert (tile["data-input"], tile["data-map"], tile["data-reconstruction"]) == (
        "in.jpg", "map.jpg", "")
    assert {path["class"][0]: path["d"] for path in tile.select("path")} == {
        "level": "M0 0", "truth": "M1 1", "ticks": "M2 2V3H4"}
    keys = [key.string for key in page.template.select("kbd")]
    assert keys == ["1", "3", "4", "M", "Z"]  # no reconstruction, no 2
    shot = dataclasses.replace(SHOT, reconstruction="again.jpg")
    page = english(gallery.gallery(rows([1], [1]), [shot], above(0.5), "x.max"))
    assert [key.string for key in page.template.select("kbd")] == ["1", "2", "3", "4", "M", "Z"]


@pytest.mark.parametrize(("labels", "scores", "threshold", "expected"), [
    ([0, 0, 1, 1, 1], [1, 5, 2, 3, 7], above(4.0), {4: "the highest score found",
                                                    2: "the lowest score missed",
                                                    1: "the highest score of a good part"}),
    ([0, 1, 1], [1, 8, 7], above(4.0), {1: "the highest score found",
                                        0: "the highest score of a good part",
                                        2: "the lowest score found"}),
    ([0, 1, 1], [1, 8, 7], NOTHING, {1: "the highest score of an anomalous part",
                                     0: "the highest score of a good part",
                                     2: "the lowest score of an anomalous part"}),
    ([None, None], [1, 8], above(4.0), {1: "the highest score", 0: "the lowest score"}),
    ([], [], above(4.0), {})])
def test_what_tells_most_is_a_rule_and_no_taste(labels, scores, threshold, expected):
    assert gallery.select_informative(rows(labels, scores), threshold) == expected


def test_a_few_images_lead_to_their_places_in_the_gallery():
    some = rows([0, 1, 1], [1, 8, 7])
    page = english(gallery.examples(some.iloc[[2, 0]], [SHOT] * 2, above(4.0), [
        Text("the lowest"), Text("<b>")]))
    assert [link["href"] for link in page.select("li a")] == ["#image-2", "#image-0"]
    assert verdicts(page) == [["found"], ["passed"]] and "<b>" in page.text


# ---- two runs

def run(name, scores, level=4.0, shots=None, labels=(0, 0, 1, 1)):
    some = rows(list(labels), scores)
    return gallery.Compared(Text(name), "ssim.max", some, above(level), shots if shots is not None
                            else dict.fromkeys(some["path"], SHOT))


def told(fragment):
    page = bs4.BeautifulSoup(fragment, "html.parser")
    return page, json.loads(page.template.text)


def test_two_runs_are_compared_by_rank_on_the_images_that_both_saw():
    page, data = told(gallery.compare([run("one", [1, 2, 30, 4]), run("two </script>", [9, 1, 2, 8])]))
    assert [option.text for option in page.select("[data-side=one] option")] == [
        "one", "two </script>"]
    one, two = data["runs"]
    assert one["places"] == [0.125, 0.375, 0.875, 0.625] and one["values"] == ["1", "2", "30", "4"]
    assert two["called"] == [True, False, False, True] and two["line"] == 0.5
    assert [image["kind"] for image in data["images"]] == ["good", "good", "bad", "bad"]
    at = [mark["transform"] for mark in page.select("g[data-i]")]
    assert at[2] == "translate(350 250)" and len(at) == 4  # 0.875 across, 0.375 upwards
    assert "</script>" not in page.template.decode_contents().replace("&lt;", "<").split("runs")[0]


def test_only_runs_with_pictures_of_the_same_images_are_compared():
    assert gallery.compare([]) == gallery.compare([run("one", [1, 2, 3, 4])]) == ""
    assert gallery.compare([run("one", [1, 2, 3, 4]), run("two", [1, 2, 3, 4], shots={})]) == ""
    partly = {"nut/test/0.png": SHOT, "nut/test/3.png": SHOT}
    _, data = told(gallery.compare([run("one", [1, 2, 3, 4]), run("two", [1, 2, 3, 4],
                                                                   shots=partly)]))
    assert [image["name"] for image in data["images"]] == ["good nut/test/0.png", "bad nut/test/3.png"]
    assert data["runs"][0]["places"] == [0.25, 0.75]  # ranks among these


def test_a_run_without_a_threshold_has_no_line_and_an_unlabelled_image_no_kind():
    without = run("two", [1, 2, 3, 4])._replace(threshold=NOTHING)
    _, data = told(gallery.compare([run("one", [1, 2, 3, 4], labels=(0, 1, None, 1)), without]))
    assert data["runs"][1]["line"] is None and data["images"][2]["kind"] == "none"
