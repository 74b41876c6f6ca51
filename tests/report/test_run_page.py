"""What a run's notebook shows: everything about the score in use, the reference's grey beside it; the
reference's four pictures as files; and where something is missing, why."""
import dataclasses
import types

import bs4
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import font_manager
from PIL import Image

from adlib.config import Config
from adlib.data import part
from adlib.evaluation import calibration
from adlib.evaluation import results as evaluation
from adlib.models import by_place, registry
from adlib.report import run_page
from adlib.report.display import charts, gallery, reference_figures
from adlib.report.words.i18n import Text
from tests.handmade import OTHER, OWN, SMALL, category, ranks, scored, spine

PNGS = {"loss_curve.png", "roc_curve.png", "score_distribution.png", "visualization_result.png"}


@pytest.fixture
def displayed(monkeypatch):
    """The HTML of what is displayed."""
    import IPython.display

    shown = []
    monkeypatch.setattr(IPython.display, "display",
                        lambda what, raw=False: shown.append(what["text/html"]))
    return shown


def english(fragment):
    page = bs4.BeautifulSoup(str(fragment), "html.parser")
    for part_ in page.select("[lang=zh-CN]"):
        part_.decompose()
    return page


@pytest.fixture
def run(mvtec_root, tmp_path, monkeypatch):
    """An autoencoder after an epoch, with everything that its notebook shows."""
    monkeypatch.setattr(calibration, "SYNTHETIC", 8)
    config = Config(**SMALL | {"data_root": str(mvtec_root), "reports": str(tmp_path / "reports"),
                               "target_fpr": 0.5})
    folder, detector, decision, results = spine(config)
    return types.SimpleNamespace(folder=folder, part=part.open_part(config), detector=detector,
                                 decision=decision, results=results)


def everything(run):
    run_page.introduce(run.part, run.detector)
    run_page.show_training(run, run.detector)
    run_page.show_decision(run.decision)
    run_page.show_result(run, run.part, run.detector, run.decision, run.results)
    run_page.show_threshold(run, run.decision, run.results)
    run_page.show_images(run, run.part, run.detector, run.decision, run.results)
    run_page.show_misses(run.decision, run.results)
    run_page.show_scores(run, run.decision, run.results)
    run_page.show_confounders(run.results)
    run_page.answer(run.part, run.detector, run.results)


def test_a_run_leaves_the_references_pictures_and_shows_its_figures(run, displayed):
    everything(run)
    assert {path.name for path in run.folder.glob("*.png")} == PNGS
    for name in PNGS:
        assert min(Image.open(run.folder / name).size) > 300, name
    page = english("".join(displayed))
    names = [figure["id"] for figure in page.select("figure.fig")]
    assert names == ["loss-curve", "examples", "threshold", "images", "misses-by-defect",
                     "roc-curve", "score-study", "auroc-over-epochs"]
    assert len(page.select("#images .tiles li")) == len(run.part.test) == 6
    assert all(image["src"].startswith("data:") for image in page.select("#images img[src]"))
    assert "squared.mean" not in page.get_text() and ".max" not in page.get_text()
    links = {link["href"] for link in page.select(".sources a")} - {"#cell"}
    assert links <= {"history.csv", "pictures.json", "all_results.csv", "score_study.csv", "epochs.csv"}


def test_counts_agree_wherever_they_are(run, displayed):
    everything(run)
    page = english("".join(displayed))
    matrix = {cell["data-count"]: int(cell.text) for cell in page.select("#threshold [data-count]")}
    tiles = [tile.select_one(".verdict:not([hidden])")["class"][1]
             for tile in page.select("#images .tiles li")]
    chips = {chip["data-value"]: int(chip.select_one(".n").text)
             for chip in page.select("#images [data-facet=verdict]")}
    for kind, key in (("found", "found"), ("missed", "missed"), ("false-alarm", "false_positives"),
                      ("passed", "passed")):
        assert tiles.count(kind) == chips[kind] == matrix[key]
    entry = run.results.chosen["operating"]["test"]
    assert (entry["detections"]["count"], entry["false_positives"]["count"]) == (
        matrix["found"], matrix["false_positives"])
    rows = [row.select_one(".n").text.split(" / ") for row in page.select(
        "#misses-by-defect tbody tr")]
    assert int(rows[0][0]) == matrix["found"] and int(rows[0][1]) == 3


def test_without_an_attainable_threshold_nothing_counts_as_missed(run, displayed):
    good = sum(map(len, run.decision.good_scores.values()))
    thresholds = {name: threshold.at(0.001) for name, threshold in run.decision.thresholds.items()}
    run_page.show_misses(dataclasses.replace(run.decision, thresholds=thresholds), run.results)
    page = english("".join(displayed))
    assert not page.select("figure, table")
    assert f"takes 999 good pictures, {999 - good} more." in page.text and "Hold" not in page.text


def test_without_test_images_or_training_it_says_so(displayed, tmp_path):
    empty = types.SimpleNamespace(test=(), category=None)
    run_page.show_result(None, empty, None, None, None)
    run_page.show_training(None, types.SimpleNamespace(history=[], of_squares=None))
    assert len(displayed) == 1 and "Nothing was trained" in displayed[0]


@pytest.mark.parametrize(("chosen", "said"), [
    (True, "Squares are compared by place, with good ones from around their own: what belongs "
           "elsewhere comes to lie 150% farther from the nearest good patch by that, and what is "
           "good 2.0%."),
    (False, "All squares share one memory, wherever they lie: compared by place, what belongs "
            "elsewhere would come to lie 150% farther from the nearest good patch, and what is "
            "good 2.0%; that would have to be at least 50%, and 30 times what good "
            "patches lose.")])
def test_it_says_whether_squares_are_compared_by_place(displayed, chosen, said):
    squares = types.SimpleNamespace(by_place=by_place.Found(chosen, 0.02, 1.5))
    run_page.show_training(None, types.SimpleNamespace(history=[], of_squares=squares))
    assert said in english(displayed[0]).text and len(displayed) == 2


def results(where, scores, chosen=""):
    run = scored(where, scores, chosen=chosen)
    return types.SimpleNamespace(
        table=run.table, decision=run.decision, auroc=evaluation.auroc_of(run.table),
        metrics=evaluation.measured(run.table, run.decision, None, {}),
        chosen=evaluation.measured(run.table, run.decision, None, {})["chosen"],
        score_study=evaluation.score_study(run.table, run.decision, run.by_split))


def test_the_roc_curve_is_of_the_score_in_use_and_the_references_is_grey():
    nut = category()
    scores = {OWN: ranks(nut, 0.5), OTHER: np.r_[np.zeros(20), np.full(15, 2.0)]}
    for chosen, grey in ((OTHER, 1), (OWN, 0)):
        found = results(nut, scores, chosen)
        shown = english(charts.roc_of(found, found.decision, Text("ROC.")))
        assert len(shown.select("path.line.grey")) - len(shown.select(".key path.grey")) == grey
        assert len(shown.select("path.crosses")) == 1
    found = results(nut, scores, OTHER)
    perfect = english(charts.roc_of(found, found.decision, Text("ROC.")))
    assert perfect.select_one(".grid path.line.c0")["d"].startswith("M0.0 180.0L0.0 0.0")
    thresholds = {name: one.at(0.001) for name, one in found.decision.thresholds.items()}
    none = dataclasses.replace(found.decision, thresholds=thresholds)
    assert not english(charts.roc_of(found, none, Text("ROC."))).select("path.crosses")
    found.chosen["auroc"]["test"]["value"] = None
    assert charts.roc_of(found, found.decision, Text("ROC.")) == ""


def test_the_loss_has_a_line_for_what_was_measured():
    history = [{"epoch": i, "loss": 1 / i, "held_out_loss": float("nan")} for i in (1, 2, 3)]
    shown = english(charts.loss(history, Text("Loss.")))
    assert len(shown.select(".grid path.line")) == 1 and "held-out" not in shown.get_text()
    history[1]["held_out_loss"] = 0.7
    assert len(english(charts.loss(history, Text("Loss."))).select(".grid path.line")) == 2
    assert charts.loss([], Text("Loss.")) == ""


@pytest.mark.parametrize(("losses", "low", "high"), [
    ((-3.4, -40.0), "-40", "0"), ((5.0, -1.0), "-1", "5"), ((0.0, 0.0), "0", "1"),
    ((np.inf, 2.0), "0", "2")])
def test_a_loss_of_ones_own_may_be_negative_zero_or_infinite(losses, low, high, tmp_path):
    history = [{"epoch": i, "loss": loss, "held_out_loss": np.nan}
               for i, loss in enumerate(losses, 1)]
    page = english(charts.loss(history, Text("Loss.")))
    ticks = [tick.text for tick in page.select("text[text-anchor=end]")]
    assert (ticks[0], ticks[-1]) == (low, high)
    places = [float(word) for word in page.select_one(".grid path.line")["d"][1:].replace(
        "L", " ").split()[1::2]]
    assert all(0 <= place <= 180 for place in places)
    reference_figures.loss_curve(history, tmp_path)
    assert (tmp_path / "loss_curve.png").is_file()


def test_every_score_stands_where_its_two_aurocs_are():
    study = pd.DataFrame({"score": ["squared.mean", "ssim.max"], "label_free": [0.75, 0.6],
                          "test": [1.0, 0.5], "train_bad": [np.nan, 0.9],
                          "role": ["own", "chosen"]})
    page = english(charts.score_study(study, Text("Scores.")))
    assert [[mark["style"] for mark in row.select(".dot")] for row in page.select("tbody tr")] == [
        ["left:50.0%", "left:100.0%"], ["left:20.0%", "left:0.0%", "left:80.0%"]]
    assert [row.th.get("class") for row in page.select("tbody tr")] == [["other"], None]
    assert [row.th.text for row in page.select("tbody tr")] == [
        "mean squared error", "maximum of the 1 - SSIM map"]


def test_pictures_of_a_cell_that_teaches_have_titles_in_both_languages_and_a_box(displayed):
    mask = np.eye(8) > 0
    run_page.pictures("redrawn", {"image": np.zeros((1, 3, 8, 8)), "the anomaly": mask,
                                  "squared error": np.eye(8) / 4},
                      {"image": (1, 2, 4)}, kind="perlin")
    page = bs4.BeautifulSoup(displayed[0], "html.parser")
    assert [title.text for title in page.select(".title [lang=zh-CN]")] == [
        "图像", "异常", "平方误差，0 至 0.25"]
    assert page.select_one(".sources a")["href"] == "all_results.csv"
    assert page.select_one(".framed i")["style"] == "left:50.0%;top:25.0%;width:25.0%;height:25.0%"
    assert page.figure["id"] == "redrawn" and "perlin" in page.figcaption.text


def test_the_four_pictures_are_drawn_of_what_there_is(tmp_path, run):
    nut = category()
    found = results(nut, {OWN: ranks(nut, 1.0)})
    found.table.loc[:, "label"] = pd.NA
    found.auroc["test"]["value"] = found.chosen["auroc"]["test"]["value"] = None
    reference_figures.roc(found, OWN, tmp_path)
    reference_figures.score_distribution(found, OWN, tmp_path)
    reference_figures.loss_curve([{"epoch": 1, "loss": 1.0, "held_out_loss": float("nan")}], tmp_path)
    dollars = gallery.with_scores(run.results.table).assign(defect="$a_1$")
    odd = types.SimpleNamespace(table=dollars.assign(chosen_score=dollars["score"]),
                                maps=run.results.maps)
    reference_figures.visualization(object(), odd, run.decision, run.part, tmp_path)
    assert {path.name for path in tmp_path.glob("*.png")} == PNGS


@pytest.mark.parametrize(("fonts", "drawn"), [
    ([], "\\u88c2\\u7eb9 a_1"), (["the font"], "裂纹 a_1")])
def test_a_name_is_drawn_in_a_font_that_has_it_else_by_its_codes(monkeypatch, caplog, fonts, drawn):
    monkeypatch.setattr(reference_figures, "_fonts", lambda: ["DejaVu Sans", *fonts])
    has_all = types.SimpleNamespace(get_char_index=lambda code: 1)
    known, path = font_manager.get_font, font_manager.findfont
    monkeypatch.setattr(font_manager, "findfont",
                        lambda name: name if name in fonts else path(name))
    monkeypatch.setattr(font_manager, "get_font",
                        lambda name: has_all if name in fonts else known(name))
    assert reference_figures._drawable("裂纹 a_1") == drawn
    assert ("no font here has" in caplog.text) == (not fonts)


def test_siblings_are_told_and_whether_they_are_left_out(run, displayed, monkeypatch):
    numbers = torch.arange(len(run.part.good))
    numbers[2] = 0  # the third picture shows what the first does
    run_page.introduce(run.part, run.detector)
    assert "show the same thing" not in str(english("".join(displayed)))
    monkeypatch.setattr(run_page.siblings, "groups", lambda *sets: numbers)
    frozen = registry.build(dataclasses.replace(run.part.config, model="pca", weights="none"))
    for detector, said in ((run.detector, "the threshold may be too low"),
                           (frozen, "are left out together")):
        displayed.clear()
        run_page.introduce(run.part, detector)
        text = english("".join(displayed)).get_text(" ")
        assert f"2 of the {len(numbers)} good pictures" in text and said in text


def test_what_robust_left_out_is_told_and_shown(run, displayed, monkeypatch):
    rows = [{"path": path, "reason": reason, "distance": 4.2} for path, reason in zip(
        run.part.good.keys[:2], ("anomalous", "unlike"), strict=True)]
    for gone, few, said in ((rows, 2, "2 of 6 good images were left out by robust"),
                            ([], 2, "None of 6 good images was left out by robust"),
                            ([], 10, "Fewer than 10 good training images")):
        displayed.clear()
        monkeypatch.setattr(run_page.suspects.suspects, "LEAST", few)
        run_page.introduce(dataclasses.replace(run.part, left_out=gone), run.detector)
        page = english("".join(displayed))
        assert said in page.get_text().replace("\n", " ")
        assert len(page.select("#suspect-pictures img")) == len(gone)
        for row in gone:
            assert row["path"].rpartition("/")[2] in page.select_one("#suspect-pictures").text
    displayed.clear()
    run_page.introduce(run.part, run.detector)
    assert "robust" not in str(english("".join(displayed)))
