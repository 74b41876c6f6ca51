"""Finished runs to look through: one that is opened sees what it saw, and the tools follow when
another is chosen; the widgets without a browser: a control is set, and the HTML beside it says what
it should."""
import base64
import json
import math
import re

import bs4
import ipywidgets as w
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from adlib.config import Config, InputError
from adlib.data import files, images, layout, part
from adlib.evaluation import calibration, operating_point, results
from adlib.evaluation.conformal import Threshold
from adlib.report import explore
from adlib.report.display import figures, render
from adlib.runs import image_layers
from adlib.runs.prediction_record import Record
from tests.conftest import picture
from tests.handmade import SMALL, small_run, spine


@pytest.fixture
def reports(tmp_path, monkeypatch):
    monkeypatch.setattr(calibration, "SYNTHETIC", 8)
    return tmp_path / "reports"


@pytest.fixture
def opened(course_root, reports):
    """A run with more test images than two or three."""
    for i in range(6, 14):
        picture(course_root / "nut" / "test" / f"{i:03d}.png", 20 + i, defect=i % 2 == 1)
    path = course_root / "image_anomaly_labels.json"
    labels = [f'"nut/test/{i:03d}.png": {{"original_category": "nut", "label": '
              f'"{("good", "bad")[i % 2]}"}}' for i in range(6, 14)]
    path.write_text(path.read_text().rstrip()[:-1] + ", " + ", ".join(labels) + "}")
    return explore.open_run(small_run(course_root, reports, model="mean_grey", name="mean_grey",
                                      image_size=64))


def soup(fragment):
    page = bs4.BeautifulSoup(fragment, "html.parser")
    for other in page.select("[lang=zh-CN]"):
        other.decompose()
    return page


def test_it_sees_what_the_run_saw(course_root, reports):
    config = Config(**SMALL | {"data_root": str(course_root), "reports": str(reports)})
    folder, detector, decision, results = spine(config)
    opened = explore.open_run(folder)
    test = opened.part.test
    scores, seen = opened.scored(test.tensor)
    assert scores == pytest.approx(opened.test["score"].to_numpy(), rel=1e-5)
    expected = image_layers.shots(test.tensor, results.maps, decision, detector)
    assert [shot.input for shot in seen] == [shot.input for shot in expected]
    assert all(shot.reconstruction.startswith("data:image/webp") for shot in seen)


def test_page_and_predictions_have_one_threshold(course_run, tmp_path):
    folder = course_run(model="pca", name="pca", image_size=64)
    opened = explore.open_run(folder)
    with Record(opened.run, tmp_path / "out"):
        pass
    stated = files.read_json(tmp_path / "out" / "predictions.json")["threshold"]
    page, gallery = soup(explore.threshold(opened)), images_of(opened)
    assert math.isfinite(stated) and stated == float(
        page.output["data-threshold"]) == float(gallery.select_one(".gallery")["data-threshold"])
    assert page.output.text == f"{stated:.6g}"


def images_of(opened):
    return soup(explore.static_html(explore.every_image(opened)))


@pytest.mark.parametrize("changes", [{}, {"target_fpr": 0.05}, {"held_out": 0.0}])
def test_the_threshold_says_of_the_test_images_what_the_run_said(course_run, changes):
    opened = explore.open_run(course_run(**changes))
    said = opened.table.loc[opened.table["split"] == "test", "chosen_prediction"]
    page = images_of(opened)
    if changes.get("held_out") == 0:
        assert said.isna().all() and not page.select(".verdict:not([hidden])")
    else:
        exceeded = opened.run.threshold.exceeded(opened.test["score"])
        assert (exceeded == said.astype(bool)).all()
        assert math.isinf(opened.run.threshold.value) == ("target_fpr" in changes)
        shown = {float(tile["data-score"]): tile.select_one(".verdict:not([hidden])")
                 for tile in page.select("li")}
        if "target_fpr" in changes:  # no verdict where no threshold is attainable
            assert not any(shown.values())
        else:
            assert [shown[score]["class"][1] in ("found", "false-alarm")
                    for score in opened.test["score"]] == list(exceeded)


def test_the_threshold_is_the_component_of_the_page(opened):
    page = soup(explore.threshold(opened))
    labels, scores = results.arrays(opened.table, "test", "chosen_score")
    counts = operating_point.counts(labels, scores, opened.run.threshold.value)
    assert {cell["data-count"]: int(cell.text) for cell in page.select("td[data-count]")} == {
        key: counts[key] for key in ("found", "missed", "false_positives", "passed")}
    opened.table["label"] = pd.NA
    assert "unlabelled" in soup(explore.threshold(opened)).select_one(".side").text
    opened.run.decision.thresholds[opened.run.decision.score] = Threshold(np.zeros(0), 0.05, "none")
    said = soup(explore.threshold(opened)).text
    assert "no labels of both classes" in said and "none is called anomalous" in said


def test_every_image_of_every_split_is_reachable(opened):
    box = explore.every_image(opened)
    split = control(box, "images")
    assert list(split.options) == ["test", "held_out", "train", "train_bad"]
    seen = 0
    for name in split.options:
        split.value = name
        scores = [float(tile["data-score"]) for tile in page(box).select("li")]
        assert scores == sorted(opened.rows(name)["score"], reverse=True)
        seen += len(scores)
    assert seen == len(opened.table)


def test_masks_come_along_and_a_feature_detector_redraws_nothing(mvtec_root, reports):
    folder = small_run(mvtec_root, reports, model="pca", name="pca", image_size=64)
    opened = explore.open_run(folder)
    spot = opened.images(["nut/test/good/000.png", "nut/test/spot/000.png"])
    assert spot.masks.float().mean((1, 2)).tolist() == [0, pytest.approx(1 / 16)]
    good, bad = opened.scored(spot.tensor, spot.masks)[1]
    assert (good.ticks, good.reconstruction, bad.reconstruction) == ("", "", "") and bad.ticks
    assert len(images_of(opened).select("li img")) == 12  # six images under their maps


@pytest.mark.parametrize("fit", ["squeeze", "pad"])
def test_every_tool_shows_pictures_in_the_shape_of_their_files(course_root, reports, fit):
    for path in course_root.rglob("*.png"):
        Image.open(path).resize((96, 48)).save(path)
    opened = explore.open_run(small_run(course_root, reports, model="pca", name="pca",
                                        image_size=64, fit=fit))
    photo = [("a.png", opened.part.category.test[0].read_bytes())]
    for shown in (images_of(opened), page(explore.what_if(opened)), page(explore.notes(opened)),
                  soup(explore.photo_verdicts(opened, photo))):
        assert {stack["style"] for stack in shown.select("li .stack")} == {"aspect-ratio:96/48"}
    box = explore.what_if(opened)
    control(box, "place").value = "0.3 0.7"  # a share of what is seen, without a frame's rim
    assert corners(box) == pytest.approx([0.3, 0.7], abs=0.12)


# ---- the selector

def control(box, description):
    found = [one for one in widgets(box) if getattr(one, "description", None) == description]
    assert len(found) == 1, description
    return found[0]


def widgets(box):
    return [box, *(inner for child in getattr(box, "children", ()) for inner in widgets(child))]


def page(box):
    return soup(explore.static_html(box))


@pytest.fixture
def displayed(monkeypatch):
    """What is displayed where somebody is there: the widgets."""
    shown = []
    monkeypatch.setattr(explore, "_display", shown.append)
    return shown


def test_tools_follow_the_run_that_is_chosen(course_run, reports, displayed):
    for name, where in (("mean_grey", "nut"), ("contrast", "nut"), ("contrast", "zip")):
        course_run(model=name, name=name, category=where)
    selector = explore.RunSelector(Config(name="mean_grey", reports=str(reports)))
    selector.show()
    selector.show(explore.threshold)
    selector.show(lambda opened: explore.w.HTML(opened.run.config.category))
    menus, line, named = displayed
    category, run = control(menus, "category"), control(menus, "run")
    assert (category.options, run.options) == (("nut", "zip"), ("contrast/seed-0",
                                                               "mean_grey/seed-0"))

    def told():
        config = selector.opened.run.config
        assert float(page(line).output["data-threshold"]) == selector.opened.run.threshold.value
        assert f"Configuration {config.name}" in page(menus).text
        return config.category, config.name, explore.static_html(named)

    assert told() == ("nut", "mean_grey", "nut")
    run.value = "contrast/seed-0"
    assert told() == ("nut", "contrast", "nut")
    category.value = "zip"
    assert told() == ("zip", "contrast", "zip") and run.options == ("contrast/seed-0", )
    category.value = "nut"
    assert told() == ("nut", "contrast", "nut")


def test_a_run_that_has_gone_meanwhile_is_told_and_the_one_that_is_open_stays(
        course_run, reports, displayed):
    folders = [course_run(model=name, name=name)
               for name in ("mean_grey", "contrast")]
    selector = explore.RunSelector(Config(name="mean_grey", reports=str(reports)))
    selector.show()
    (folders[1] / "metrics.json").unlink()
    control(displayed[0], "run").value = "contrast/seed-0"
    assert "holds no finished run" in page(displayed[0]).text
    assert selector.opened.run.config.name == "mean_grey"


def test_it_finds_the_run_that_is_meant_or_says_in_one_sentence_what_to_do(course_run, reports):
    config = Config(name="mean_grey", reports=str(reports))
    with pytest.raises(InputError, match=r"there is no finished run in .*; run `adlib run "
                       r"params/grids/quick.yaml` first"):
        explore.RunSelector(config)
    course_run(model="mean_grey", name="mean_grey")
    for wanted in (config, Config(name="mean_grey", category="nut", reports=str(reports))):
        assert explore.RunSelector(wanted).opened.run.config.category == "nut"
    for wrong in ({"name": "mean_gray"}, {"name": "mean_grey", "seed": 1},
                  {"name": "mean_grey", "category": "zip"}, {"name": "grey"}):
        with pytest.raises(InputError,
                           match=r"no finished run .*; (did you mean|known are)") as caught:
            explore.RunSelector(Config(reports=str(reports), **wrong))
        assert "\n" not in str(caught.value)


def test_labels_colour_what_is_seen_and_change_no_map(course_run):
    folder = course_run(model="mean_grey", name="mean_grey")
    opened = explore.open_run(folder)
    other = opened.table.assign(label=1 - opened.table["label"])
    other.to_csv(folder / "all_results.csv", index=False)
    turned = explore.open_run(folder)
    decisions = [(it.run.threshold.value, it.run.decision.low, it.run.decision.level)
                 for it in (opened, turned)]
    assert decisions[0] == decisions[1]
    assert layout.read_labels(opened.part.category)["nut/test/001.png"].anomalous


# ---- tools

def test_two_runs_stand_beside_each_other_once_both_have_kept_pictures(course_run):
    folder = course_run()
    opened = explore.open_run(folder)
    assert "needs two finished runs" in soup(explore.another(opened)).text
    other = course_run(model="mean_grey", name="mean_grey", image_size=64)
    for one in (folder, other):
        again = explore.open_run(one)
        _, maps = again.run.score_with_maps(again.part.test.tensor)
        image_layers.keep(one, again.part.test, maps, again.run.decision, again.run.detector)
    shown = soup(explore.another(opened))
    assert [option.text for option in shown.select("[data-side=one] option")] == [
        "CAE + MSE, seed 0", "Mean grey (no model), seed 0"]
    assert len(shown.select("g[data-i]")) == len(opened.test)
    assert soup(explore.another(explore.open_run(other))).select_one(
        "[data-side=one] option").text == "Mean grey (no model), seed 0"  # the selector's run first


def test_a_dropped_anomaly_moves_the_score_and_none_does_not(course_run):
    opened = explore.open_run(course_run(model="pca", name="pca", image_size=64))
    good = images.load(opened.part.category.train, 64)
    before = opened.scored(good[:1])[0][0]
    options = {"size": 2.0, "seed": 0, "before": before, "file": (64, 64)}
    nothing, something = (soup(explore.with_anomaly(
        opened, good[0], good[1], "cutpaste", place="0.5 0.5", contrast=contrast, **options))
                          for contrast in (0.0, 1.0))
    assert ("0.00% of the image changed; top 1% of the distance to good images "
            f"{before:.4g} before, {before:.4g} now." in nothing.text)
    assert f"{before:.4g} before" in something.text and f"{before:.4g} now" not in something.text
    assert nothing.select_one(".verdict")["class"][1] in ("passed", "false-alarm")
    assert something.select_one(".verdict")["class"][1] in ("found", "missed")


def corners(box):
    """Where the anomaly is, as shares of the side: the middle of its corners."""
    path = page(box).select_one(".ticks")["d"].replace("M", " ")
    numbers = np.array([float(word) for word in path.replace("V", " ").replace("H", " ").split()])
    return numbers.reshape(-1, 4)[:, [3, 2]].mean(axis=0) / image_layers.VIEW


def test_a_defect_is_where_one_clicks_and_follows_every_control(opened):
    box = explore.what_if(opened)
    assert "adlib-place" in box._dom_classes and len(page(box).select(".stack")) == 2
    for place in ("0.3 0.4", "0.6 0.7"):
        control(box, "place").value = place
        assert corners(box) == pytest.approx([float(share) for share in place.split()], abs=0.12)
    seen = {explore.static_html(box)}
    for name, value in (("size", 0.5), ("contrast", 0.6), ("anomaly", "perlin"), ("picture", 1),
                        ("shape", 1)):
        control(box, name).value = value
        seen.add(explore.static_html(box))
    assert len(seen) == 6
    control(box, "contrast").value = 0
    assert "0.00% of the image changed" in page(box).text
    control(box, "place").value = "here"
    assert "place: 'here' is not two numbers from 0 to 1" in page(box).text


def test_an_anomaly_is_dropped_into_a_picture_of_tiles_and_not_where_nothing_counts(
        tmp_path, small_detectors):
    from tests.evaluation import test_frames

    folder, *_ = spine(Config(
        **test_frames.SMALL, model="memory", fit="tile", reports=str(tmp_path / "reports"),
        data_root=str(test_frames.category(tmp_path / "data"))))
    opened = explore.open_run(folder)
    good = opened.part.test.given
    options = {"size": 1.0, "contrast": 1.0, "seed": 0, "before": 0.0,
               "file": opened.part.test.shown_sizes[0]}
    seen = soup(explore.with_anomaly(opened, good[0], good[1], "cutpaste", place="0.8 0.7",
                                    **options))
    numbers = [float(word) for word in re.findall(r"[\d.]+", seen.select_one(".truth")["d"])]
    assert np.abs(np.array(numbers[:2]) / image_layers.VIEW - (0.8, 0.7)).max() < 0.25
    hidden = soup(explore.with_anomaly(opened, good[0], good[1], "cutpaste", place="0.05 0.05",
                                    **options))
    assert "0.00% of the image changed" in hidden.text


def test_any_picture_can_be_judged_and_what_is_none_is_named(course_run, monkeypatch):
    opened = explore.open_run(course_run(model="pca", name="pca", image_size=64))
    sources = list(zip(("../good.png", "a <b>.png"), opened.part.category.test, strict=False))
    files_given = [(name, path.read_bytes()) for name, path in sources]
    shown = soup(explore.photo_verdicts(opened, [*files_given, ("no.png", b"nothing")]))
    scores = {tile.select_one(".file").text: float(tile["data-score"]) for tile in shown.select("li")}
    assert [scores[name] for name in ("good.png", "a <b>.png")] == pytest.approx(
        opened.test["score"][:2].tolist(), rel=1e-6)
    assert {tile.select_one(".verdict:not([hidden])")["class"][1] for tile in shown.select("li")} <= {
        "called", "let-pass"}
    assert "no.png is no picture that can be read" in shown.text
    assert "no.png is no picture" in soup(explore.photo_verdicts(opened, [("no.png", b"")])).text
    with monkeypatch.context() as patch:  # as `adlib predict` would say
        patch.setattr(type(opened.run), "foreign", lambda _, whole: (
            np.zeros(len(whole)), np.array(["absent", ""][:len(whole)], object)))
        shown = soup(explore.photo_verdicts(opened, files_given))
        said = shown.select_one("p").text
        assert said.startswith("Not this part: good.png.") and "a <b>" not in said
        verdicts = {tile.select_one(".file").text: [each["class"][1] for each in tile.select(
            ".verdict")] for tile in shown.select("li")}
        assert verdicts == {"good.png": ["foreign"], "a <b>.png": ["called", "let-pass"]}
        assert shown.select_one('[data-value="foreign"] .n').text == "1"
    box = explore.my_photo(opened)
    assert "Drop pictures here" in page(box).text and "adlib-drop" in box._dom_classes
    given = next(one for one in widgets(box) if isinstance(one, w.Text))
    given.value = json.dumps([["x.png", base64.b64encode(files_given[0][1]).decode()]])
    assert len(page(box).select("li")) == 1
    box.children[0].value = ({"name": "y.png", "content": files_given[0][1], "size": 1,
                              "type": "image/png", "last_modified": pd.Timestamp(0)},)
    assert given.value == "" and page(box).select_one(".file").text == "y.png"  # the last counts
    given.value = "[1]"
    assert "what was dropped is no picture" in page(box).text


def test_every_tool_opens_a_run_without_test_images(course_root, reports):
    for path in (course_root / "nut" / "test").glob("*"):
        path.unlink()
    opened = explore.open_run(small_run(course_root, reports, model="mean_grey", name="mean_grey"))
    for tool in (explore.threshold, explore.every_image, explore.another, explore.what_if,
                 explore.my_photo):
        tool(opened)
    assert "no test images that a note" in soup(explore.notes(opened)).text


def test_any_image_can_be_looked_at_a_kind_at_a_time(course_root, opened):
    config = Config(data_root=str(course_root), category="nut", image_size=64)
    box = explore.browse(part.open_part(config))
    kind, number = control(box, "kind"), control(box, "page")
    assert [label for label, _ in kind.options] == [
        "train, good (8)", "test, good (7)", "test, bad (7)", "train_bad (never trained on) (2)"]
    assert len(page(box).select("img")) == 8
    kind.value = "test, bad"
    assert [caption.text for caption in page(box).select(".caption")] == [
        f"{i:03d}.png" for i in range(1, 14, 2)]
    number.value = 2  # after the last page comes the first
    assert len(page(box).select("img")) == 7


def test_where_somebody_is_there_the_widget_is_shown_and_elsewhere_its_html(monkeypatch):
    import IPython.display

    shown, made = [], []
    monkeypatch.setattr(IPython.display, "display", lambda what, raw=False: shown.append(what))

    def make(text):
        made.append(text)
        return w.VBox([w.IntSlider(), w.HTML(text)])

    explore.show(make, "<b>one</b>")
    explore.show(make, "two", fallback=False)
    assert not figures.attended() and made == ["<b>one</b>"]
    assert [one["text/html"] for one in shown] == ["<b>one</b>"]
    monkeypatch.setattr(figures, "attended", lambda: True)
    explore.show(make, "three", fallback=False)
    assert render.script() in shown[1]["text/html"] and shown[2]["text/html"] == "three"
    assert "application/vnd.jupyter.widget-view+json" in shown[2]
