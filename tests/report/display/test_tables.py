import math
import types

import bs4
import pandas as pd
import pytest

from adlib.config import Config
from adlib.data.quality import Findings
from adlib.report import comparison, eda
from adlib.report.display import matrix, tables
from adlib.report.words import answers
from tests.handmade import category

HOSTILE = '<script>alert("x")</script>'


def row(columns=comparison.ROW_COLUMNS, **changes):
    base = dict.fromkeys(columns, math.nan) | {
        "category": "nut", "name": "cae_mse", "configuration": "cae_mse", "status": "finished",
        "reason": "", "auroc": 0.8, "low": 0.7, "high": 0.9, "verdict": "", "device": "cpu",
        "weights": "none", "folder": "runs/nut/cae_mse/seed-0", "n_anomalous": 15,
        "with_best": True, "score": "squared.mean", "seeds": 1
    }
    return base | changes


def test_a_hostile_name_stays_text(tmp_path):
    table = pd.DataFrame(
        [row(category=HOSTILE, configuration=HOSTILE, name=HOSTILE, weights=HOSTILE, folder=f'runs/"{HOSTILE}"')])
    table["random"] = False
    page = matrix.matrix(table, tmp_path)
    assert "<script" not in page and "&lt;script&gt;" in page and 'href="runs/%22%3Cscript' in page
    findings = Findings({HOSTILE: 1}, {}, {}, {HOSTILE: 1}, ((HOSTILE, HOSTILE), ), (), (HOSTILE, ),
                        0, ("labels.absent", {"names": [HOSTILE]}))
    part = types.SimpleNamespace(config=Config(reports=str(tmp_path)), category=category())
    assert "<script" not in eda.card(part, findings)


def test_a_score_of_ones_own_is_a_row_of_a_heat_map_by_its_name():
    assert tables.title("disturbance:blur") == "blur"
    assert tables.title("mine.py:p99") == "mine.py:p99"
    cells = pd.DataFrame({"row": ["my_functions.py:p99"], "column": ["nut"], "value": [0.5],
                          "text": ["0.500"]})
    heat = tables.heat(cells, "Scores.", "scores", "scores.csv", low=0, high=1)
    assert "my_functions.py:p99" in heat


@pytest.mark.parametrize("name", ["kind", "epoch", "mean", "score", "reference_score"])
def test_a_configuration_of_ones_own_keeps_its_name_even_if_a_column_is_called_so(name):
    cells = pd.DataFrame({"row": ["pca", name], "column": [name, "pca"], "value": [0.5, -0.5]})
    page = bs4.BeautifulSoup(tables.heat(cells, "pairs", "pairs", low=-1, high=1), "html.parser")
    assert [row.th.text for row in page.select("tbody tr")][1] == name
    assert [head.text for head in page.select("thead th")][1] == name
    assert comparison.label(name) == name


def test_fallbacks_are_said_first():
    run = row(comparison.RUN_COLUMNS, fingerprint="f", data="here", synthetic=True,
              weights="random:no_connection")
    said = answers.provenance(pd.DataFrame([run]))
    assert said.startswith("SYNTHETIC DATA") and "did not have ImageNet weights: RANDOM" in said


def test_text_table():
    text = tables.markdown(tables.performance(
        pd.DataFrame(
            [row(claim_low=0.7, claim_high=0.8, published=0.812, train_seconds=150, epochs=12)])))
    assert "| 0.800 [0.70, 0.90] ★ |" in text and "| 0.70-0.80 | 0.812 |" in text and "2.5 min" in text
    assert "train/bad" not in text and "Pixel" not in text  # a column without a figure is left out


def test_spread_over_seeds_and_interval_are_different_figures():
    text = tables.markdown(tables.performance(
        pd.DataFrame([
            row(seeds=3, spread=0.0123, false_positives=0.05, false_low=0.0, false_high=0.2,
                with_best=False)
        ])))
    assert "| 0.800 ± 0.012 [0.70, 0.90] |" in text and "| 5% [0%, 20%] |" in text and "★" not in text


@pytest.mark.parametrize(("value", "shown"), [
    (0.87, "0.870"), (1.0, "1.000"), (0.99951, "0.999"), (0.0, "0.000"), (-0.25, "-0.250"),
    (10.5, "10.500"), (math.nan, "")])
def test_a_decimal_has_three_digits_and_only_one_is_one(value, shown):
    assert tables.decimal(value) == shown


def test_numbers_stand_at_the_right_and_words_at_the_left():
    page = bs4.BeautifulSoup(tables.html(pd.DataFrame({
        "configuration": ["pca", "memory"], "auroc_test": [0.5, math.nan],
        "score": ["squared.mean", "ssim.max"]}), "a caption", "some"), "html.parser")
    assert page.figure["id"] == "some" and "a caption" in page.figcaption.text
    assert ["number" in cell.get("class", []) for cell in page.select("tbody tr")[0].select("td")
            ] == [False, True, False]


def test_a_heat_map_has_colours_marks_and_its_numbers_on_demand():
    cells = pd.DataFrame({"row": ["pca", "pca", "memory"], "column": ["pca", "memory", "pca"],
                          "value": [math.nan, -0.25, 0.5], "text": ["", "-0.250 (p = 1)", "x"],
                          "mark": ["", "", "★"]})
    page = bs4.BeautifulSoup(tables.heat(cells, "pairs", "pairs", low=-0.5, high=0.5),
                             "html.parser")
    first, second = page.select("tbody tr")
    assert [cell.get("style") for cell in first.select("td")] == [None, "--v:50"]  # as the rows
    _, cell = first.select("td")
    assert "minus" in cell["class"] and cell.text == "-0.250 (p = 1)"
    assert "PCA residual" in cell["title"] and "PCA 残差，" in cell["data-title-zh"]
    assert second.td.text == "x★"
    assert page.select_one(".key").text.split() == ["-0.5", "0.5"] and page.select(".shades.two")
    assert page.select(".few")
    assert tables.heat(cells[:1], "none", "none", low=0, high=1) == ""
    same = tables.heat(cells.assign(value=1.0), "all alike", "alike", low=1, high=1)
    assert same.count("--v:0") == 3  # and no division by their difference


def test_the_matrix_shows_each_figure_once_and_says_what_is_the_same_everywhere(tmp_path):
    made = [row(category=name, configuration=code, name=code, auroc=auroc, detections=0.76,
                false_positives=0.02, found_low=0.6, found_high=0.9, n_good=60, train_seconds=seconds,
                random=False, with_best=auroc > 0.8, au_pro_30=auroc / 2)
            for name in ("nut", "zip") for code, auroc, seconds in (("pca", 0.7, 3), ("memory", 0.9, 130))]
    made.append(made[0] | {"configuration": "fused", "name": "fused", "status": "failed", "seeds": 0,
                           "auroc": math.nan, "low": math.nan, "high": math.nan, "reason": "boom",
                           "with_best": math.nan})
    page = bs4.BeautifulSoup(matrix.matrix(pd.DataFrame(made), tmp_path), "html.parser")
    assert [body.th.select_one("[lang=en]").text for body in page.select("tbody")] == [
        "Memory of patches (PatchCore)", "PCA residual", "Fused"]
    first = page.select_one("tbody tr")
    assert [cell.text for cell in first.select("td.number")] == ["Mean平均 0.900",
                                                                 "Rank排名 1.0"]
    assert [cell.select_one(".n").text for cell in first.select("td[data-name]")] == ["0.900"] * 2
    assert first.select_one(".at").text == "76% @ 2%"
    assert [part["style"] for part in first.select(".s")] == ["--l:40;--v:80;--h:80"] * 2
    assert [part.text for part in first.select(".m.cost")] == ["2.2 min"] * 2
    assert [part.text for part in first.select(".m.localisation")] == ["0.450"] * 2
    assert page.select(".m.claims") == []
    assert all(f"{device} cpu" in page.select_one("p.note").text for device in ("Device", "设备"))
    assert page.select_one("a.status")["title"] == "failed: boom"
    assert {link["href"] for link in page.select("tbody a")} == {"runs/nut/cae_mse/seed-0/index.html"}
