"""The threshold and the gallery as HTML: what they count, in which order, and that no name in them
becomes markup."""
import math

import bs4
import pandas as pd
import pytest

from adlib.evaluation import verdicts
from adlib.report import panels
from adlib.report.i18n import t

DOT = "data:image/gif;base64,R0lGODlhAQABAAAAACw="


def results(labels, scores, p_values, defect="bad"):
    table = pd.DataFrame({
        "path": [f"nut/test/{i}.png" for i in range(len(labels))], "split": "test",
        "label": pd.array(labels, "Int64"), "defect": [
            defect if label else "good" for label in labels
        ], "chosen_score": [float(s) for s in scores], "chosen_p_value": p_values
    })
    return table.assign(chosen_prediction=(
        table["chosen_p_value"] <= 0.05).astype("Int64").where(table["chosen_p_value"].notna()))


def test_the_matrix_is_that_of_the_label_free_threshold():
    page = bs4.BeautifulSoup(
        panels.threshold(results([0, 0, 1, 1], [1, 3, 2, 4], [0.9, 0.05, 0.3, 0.01]), 0.05,
                         "ssim.max"), "html.parser")
    assert {cell["data-count"]: cell.text
            for cell in page.select("[data-count]")} == {
                "found": "1", "missed": "1", "false_positives": "1", "passed": "1"
            }
    panel = page.select_one(".threshold")
    assert (panel["data-good"], panel["data-anomalous"], panel["data-label-free"],
            panel["data-oracle"]) == ("1 3", "2 4", "2.5", "2")
    assert {dd["data-rate"]: dd.text
            for dd in page.select("dd")} == {"precision": "50%", "recall": "50%", "fpr": "50%"}
    assert [(option["value"], option.text) for option in page.select("option")] == [("", "–"),
                                                                                    ("3.5", "1%"),
                                                                                    ("3.5", "2%"),
                                                                                    ("2.5", "5%"),
                                                                                    ("2.5", "10%"),
                                                                                    ("2.5", "20%")]
    assert [option.text for option in page.select("option[selected]")] == ["5%"]
    assert len(page.select("rect[fill*=bad]")) == len(page.select("rect[fill*=good]")) == 2


def test_a_rate_of_ones_own_is_among_those_to_ask_for():
    page = bs4.BeautifulSoup(
        panels.threshold(results([0, 1], [1, 2], [0.9, 0.06]), 0.07, "ssim.max"), "html.parser")
    assert [option.text for option in page.select("option[selected]")
            ] == ["7%"] and "10%" in page.select_one("select").text


def test_without_a_threshold_it_stands_at_the_oracle_and_without_labels_there_is_none():
    page = bs4.BeautifulSoup(
        panels.threshold(results([0, 1], [1, 2], [math.nan] * 2), 0.05, "ssim.max"), "html.parser")
    assert page.select_one("[data-count=found]").text == "1" and not page.select(
        "[data-to=label-free]") and not page.select("select")
    assert panels.threshold(results([0, 0], [1, 2], [0.5, 0.5]), 0.05, "ssim.max") == ""


def test_a_threshold_that_calls_nothing_anomalous_lies_at_the_edge():
    page = bs4.BeautifulSoup(
        panels.threshold(results([0, 1], [1, 2], [0.5, 0.2]), 0.05, "ssim.max"), "html.parser")
    assert page.select_one(".threshold")["data-label-free"] == "Infinity" and page.select_one(
        "[data-count=missed]").text == "1"
    assert page.select_one(".line")["transform"] == f"translate({panels.WIDTH - 12}.0 0)"


def test_the_gallery_is_sorted_and_says_what_became_of_each_image():
    table = results([0, 1, 1, None], [3, 4, 1, 9], [0.1, 0.05, 0.9, 0.01],
                    defect="<script>alert(1)</script>")
    rows = table.assign(score=table["chosen_score"], p_value=table["chosen_p_value"])
    source = panels.gallery(rows, [{t("input"): DOT}] * 4, 3.5, "ssim.max", 4)
    page = bs4.BeautifulSoup(source, "html.parser")
    assert [tile["data-score"] for tile in page.select("li")] == ["9", "4", "3", "1"]
    assert [tile.select_one(".verdict")["class"][1]
            for tile in page.select("li")] == ["called", "found", "passed", "missed"]
    assert "<script" not in source and all(
        len(image["alt"]) > 10 and image["data-alt-zh"] for image in page.select("img"))


@pytest.mark.parametrize("most", [3, 6, 10, 99])
def test_of_many_images_the_most_telling_are_kept(most):
    rows = pd.DataFrame(
        {"score": [float(i) for i in range(20)], "label": pd.array([0] * 10 + [1] * 10, "Int64")})
    kept = verdicts.select_informative(rows, 9.4, most)
    assert len(kept) == min(most, 20) and kept.index.is_monotonic_increasing
    if most < 20:
        # the hardest of both kinds
        assert set(range(9, 9 - most // 3, -1)) | set(range(10, 10 + most // 3)) <= set(kept.index)
