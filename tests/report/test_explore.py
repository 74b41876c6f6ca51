"""A finished run to look through: it sees what the run saw; the widgets without a browser: a control is
set, and the HTML beside it says what it should; and what is shown where nobody is there."""
import math
import shutil

import bs4
import ipywidgets as w
import numpy as np
import pandas as pd
import pytest

from adlib.config import Config, InputError
from adlib.data import files, images, layout, part
from adlib.evaluation import calibration, operating_point, results
from adlib.report import components, explore, figures
from adlib.runs import predictions
from tests.conftest import picture
from tests.handmade import SMALL, small_run, spine


@pytest.fixture
def reports(tmp_path, monkeypatch):
    monkeypatch.setattr(calibration, "SYNTHETIC", 8)
    return tmp_path / "reports"


@pytest.fixture
def look(course_root, reports):
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
    look = explore.open_run(folder)
    test = look.part.test.tensor
    scores, seen = look.seen(test, 32)
    assert scores == pytest.approx(look.test["score"].to_numpy(), rel=1e-5)
    expected = components.seen(test, results.maps, decision, detector, 32)
    for views, known in zip(seen, expected, strict=True):
        assert list(views) == list(known) == ["input", "reconstruction", "anomaly map",
                                              "anomaly map over the input"]
        for what in views:
            difference = np.abs(views[what].astype(int) - known[what])
            assert np.median(difference) == 0 and difference.max() <= 8, what  # colours by rounding
    x = test.permute(0, 2, 3, 1).numpy()
    assert all((views["input"] == image).all() for views, image in zip(seen, x, strict=True))


def test_page_and_predictions_have_one_threshold(course_root, reports, tmp_path):
    folder = small_run(course_root, reports, model="pca", name="pca", image_size=64)
    look = explore.open_run(folder)
    with predictions.Record(look.run, tmp_path / "out"):
        pass
    stated = files.read_json(tmp_path / "out" / "predictions.json")["threshold"]
    page, gallery = soup(explore.threshold(look)), soup(explore.gallery(look))
    assert math.isfinite(stated) and stated == float(
        page.output["data-threshold"]) == float(gallery.div["data-threshold"])
    assert page.output.text == f"{stated:.6g}"


@pytest.mark.parametrize("changes", [{}, {"target_fpr": 0.05}, {"held_out": 0.0}])
def test_the_threshold_says_of_the_test_images_what_the_run_said(course_root, reports, changes):
    look = explore.open_run(small_run(course_root, reports, **changes))
    said = look.table.loc[look.table["split"] == "test", "chosen_prediction"]
    tiles = soup(explore.gallery(look)).select("li")
    if changes.get("held_out") == 0:
        assert said.isna().all() and not soup(explore.gallery(look)).select(
            ".verdict:not([hidden])")
    else:
        exceeded = look.run.threshold.exceeded(look.test["score"])
        assert (exceeded == said.astype(bool)).all()
        assert math.isinf(look.run.threshold.value) == ("target_fpr" in changes)
        called = {float(tile["data-score"]): tile.select_one(".verdict:not([hidden])")["class"][1]
                  in ("found", "false-alarm") for tile in tiles}
        assert [called[score] for score in look.test["score"]] == list(exceeded)


def test_the_threshold_is_the_component_of_the_page(look):
    page = soup(explore.threshold(look))
    labels, scores = results.arrays(look.table, "test", "chosen_score")
    counts = operating_point.counts(labels, scores, look.run.threshold.value)
    assert {cell["data-count"]: int(cell.text) for cell in page.select("td[data-count]")} == {
        key: getattr(counts, key) for key in ("found", "missed", "false_positives", "passed")}
    look.table["label"] = pd.NA
    assert "no labels of both classes" in soup(explore.threshold(look)).text


def test_the_gallery_shows_a_split_in_an_order(look):
    def scores(**options):
        return [float(tile["data-score"]) for tile in soup(explore.gallery(look, **options)).select(
            "li")]

    test = look.test["score"].to_numpy()
    assert scores() == sorted(test, reverse=True) and len(scores(split="train")) + len(
        scores(split="held_out")) == 8
    bad = look.test.loc[(look.test["label"] == 1).fillna(False), "score"]
    assert scores(what="worst misses", most=3) == sorted(bad.nsmallest(3), reverse=True)
    assert len(scores(most=6)) == 6
    assert "6 of 14 test images" in soup(explore.gallery(look, most=6)).text
    assert soup(explore.gallery(look, split="nowhere")).text == "No image is like that."


def test_masks_come_along_and_a_feature_detector_redraws_nothing(mvtec_root, reports):
    look = explore.open_run(small_run(mvtec_root, reports, model="pca", name="pca", image_size=64))
    spot = look.images(["nut/test/good/000.png", "nut/test/spot/000.png"])
    assert spot.masks.float().mean((1, 2)).tolist() == [0, pytest.approx(1 / 16)]
    tiles = soup(explore.gallery(look)).select("li")
    assert len(tiles) == 6 and len(soup(explore.gallery(look)).select("img")) == 12
    _, (with_mask, ) = look.seen(spot.tensor[1:], 64, spot.masks[1:])
    _, (without, ) = look.seen(spot.tensor[1:], 64)
    assert (with_mask["anomaly map over the input"] != without["anomaly map over the input"]).any()


def test_two_runs_are_set_side_by_side_image_by_image(course_root, reports):
    one, other = (explore.open_run(small_run(course_root, reports, **changes)) for changes in (
        {}, {"model": "mean_grey", "name": "mean_grey", "image_size": 64}))
    pairs = explore.together(one, other)
    assert sorted(pairs["path"]) == sorted(one.test["path"])
    assert pairs["apart"].is_monotonic_increasing and pairs["apart"].between(-1, 1).all()
    assert pairs["apart"].sum() == pytest.approx(0)
    for look, column in ((one, "score"), (other, "score_other")):
        assert pairs.set_index("path")[column].to_dict() == look.test.set_index("path")[
            "score"].to_dict()
    i = explore.farthest(pairs)
    assert pairs["label"][i] == 1 and abs(pairs["apart"][i]) == pairs.loc[
        pairs["label"] == 1, "apart"].abs().max()
    assert explore.farthest(pairs.assign(label=pd.NA)) == pairs["apart"].abs().argmax()
    drawn = soup(explore.compared(one, other, pairs, i))
    assert [caption.strong.text for caption in drawn.select("figcaption")] == ["cae_mse",
                                                                               "mean_grey"]
    assert len(drawn.select("img")) == 4 + 3
    assert len(drawn.select("svg")[0].select("[transform][fill-opacity]")) == 6


def test_a_dropped_anomaly_moves_the_score_and_none_does_not(course_root, reports):
    look = explore.open_run(small_run(course_root, reports, model="pca", name="pca", image_size=64))
    good = images.load(look.part.category.train, 64)
    before = look.seen(good[:1], 64)[0][0]
    place = {"centre": (0.5, 0.5), "size": 2.0, "seed": 0, "before": before}
    nothing, something = (soup(explore.dropped(look, good[0], good[1], "cutpaste",
                                               contrast=contrast, **place))
                          for contrast in (0.0, 1.0))
    assert (f"0.00% of the image changed; distance.top1 {before:.4g} before, {before:.4g} now."
            in nothing.text)
    assert f"{before:.4g} before" in something.text and f"{before:.4g} now" not in something.text
    assert nothing.select_one(".verdict")["class"][1] in ("passed", "false-alarm")
    assert something.select_one(".verdict")["class"][1] in ("found", "missed")


def test_it_finds_the_run_that_is_meant_or_says_in_one_sentence_what_to_do(course_root, reports):
    config = Config(name="mean_grey", reports=str(reports))
    with pytest.raises(InputError, match=r"there is no finished run in .*; run `adlib run "
                       r"params/grids/quick.yaml` first"):
        explore.find(config)
    folder = small_run(course_root, reports, model="mean_grey", name="mean_grey")
    assert explore.find(config) == explore.find(
        Config(name="mean_grey", category="nut", reports=str(reports))) == folder
    assert explore.others(folder) == {}
    for wrong in ({"name": "mean_gray"}, {"name": "mean_grey", "seed": 1},
                  {"name": "mean_grey", "category": "zip"}):
        with pytest.raises(InputError,
                           match=r"has no finished run .*; (did you mean|known are)") as caught:
            explore.find(Config(reports=str(reports), **wrong))
        assert "\n" not in str(caught.value)
    other, again = (small_run(course_root, reports, model="contrast", name="contrast", seed=seed)
                    for seed in (0, 1))
    small_run(course_root, reports, model="contrast", name="contrast", category="zip")
    assert explore.others(folder) == {"contrast": other}
    assert explore.others(again) == {"mean_grey": folder}
    (other / "metrics.json").unlink()
    assert explore.others(folder) == {"contrast": again}
    shutil.rmtree(folder)
    with pytest.raises(InputError, match="known are|did you mean"):
        explore.find(config)


def test_labels_colour_what_is_seen_and_change_no_map(course_root, reports):
    folder = small_run(course_root, reports, model="mean_grey", name="mean_grey")
    look = explore.open_run(folder)
    look.table.assign(label=1 - look.table["label"]).to_csv(folder / "all_results.csv", index=False)
    turned = explore.open_run(folder)
    decisions = [(it.run.threshold.value, it.run.decision.low, it.run.decision.level)
                 for it in (look, turned)]
    assert decisions[0] == decisions[1]
    assert layout.read_labels(look.part.category)["nut/test/001.png"].anomalous


# ---- widgets

def control(box, description):
    found = [one for one in widgets(box) if getattr(one, "description", None) == description]
    assert len(found) == 1, description
    return found[0]


def widgets(box):
    return [box, *(inner for child in getattr(box, "children", ()) for inner in widgets(child))]


def page(box):
    return soup(explore.still(box))


def test_two_configurations_are_compared_and_another_is_opened(course_root, reports, look,
                                                               monkeypatch):
    folder = reports / "runs" / "nut" / "mean_grey" / "seed-0"
    assert "Only mean_grey has a finished run of nut" in page(
        explore.compare(look, explore.others(folder))).text
    for name in ("contrast", "laplacian_variance"):
        other = small_run(course_root, reports, model=name, name=name, image_size=64)
    opened, real = [], explore.open_run
    monkeypatch.setattr(
        explore, "open_run",
        lambda folder, data_root: opened.append(folder.parent.name) or real(folder, data_root))
    box = explore.compare(look, explore.others(folder))
    second, image = control(box, "mean_grey beside"), next(
        one for one in widgets(box) if isinstance(one, w.IntSlider))
    pairs = explore.together(look, real(explore.others(folder)["contrast"]))
    assert image.value == explore.farthest(pairs) and image.max == len(pairs) - 1
    for i in (0, image.max):
        image.value = i
        assert pairs["path"][i] in page(box).text and [
            name.text for name in page(box).select("figcaption strong")][::2] == ["mean_grey",
                                                                                  "contrast"]
    second.value = "laplacian_variance"
    assert "laplacian_variance" in page(box).select("figcaption")[1].text
    assert opened == ["contrast", "laplacian_variance"]
    shutil.rmtree(other)  # the other run is gone meanwhile: told, and the next choice works
    second.value = "contrast"
    assert opened[-1] == "laplacian_variance"
    assert "contrast" in page(box).select("figcaption")[1].text


def test_a_run_that_cannot_be_opened_is_told(course_root, reports, look):
    other = small_run(course_root, reports, model="contrast", name="contrast")
    others = explore.others(reports / "runs" / "nut" / "mean_grey" / "seed-0")
    (other / "metrics.json").unlink()
    assert "holds no finished run" in page(explore.compare(look, others)).text


def test_what_if_follows_every_control(look):
    box = explore.what_if(look)
    before = page(box)
    assert len(before.select("img")) == 3 and "of the image changed" in before.text
    seen = {str(before)}
    for name, value in (("across", 0.3), ("down", 0.6), ("size", 0.5), ("contrast", 0.6),
                        ("anomaly", "perlin"), ("picture", 1)):
        control(box, name).value = value
        seen.add(explore.still(box))
    control(box, "another one").click()
    seen.add(explore.still(box))
    assert len(seen) == 8
    control(box, "contrast").value = 0
    assert "0.00% of the image changed" in page(box).text


def test_any_image_can_be_looked_at_a_kind_at_a_time(course_root, look):
    config = Config(data_root=str(course_root), category="nut", image_size=64)
    box = explore.browse(part.open_part(config))
    kind, number = control(box, "kind"), control(box, "page")
    assert [label for label, _ in kind.options] == [
        "train, good (8)", "test, good (7)", "test, bad (7)", "train_bad (never trained on) (2)"]
    assert len(page(box).select("img")) == 8
    kind.value = "test, bad"
    assert [caption.text for caption in page(box).select("figcaption")] == [
        f"{i:03d}.png" for i in range(1, 14, 2)]
    number.value = 2  # after the last page comes the first
    assert len(page(box).select("img")) == 7


def test_where_somebody_is_there_the_widget_is_shown_and_elsewhere_its_html(monkeypatch):
    import IPython.display

    shown, made = [], []
    monkeypatch.setattr(IPython.display, "display",
                        lambda what, raw=False: shown.append(what if raw else what.data))

    def make(text):
        made.append(text)
        return w.VBox([w.IntSlider(), w.HTML(text)])

    explore.show(make, "<b>one</b>")
    explore.show(make, "two", fallback=False)
    assert not figures.attended() and shown == ["<b>one</b>"] and made == ["<b>one</b>"]
    monkeypatch.setattr(figures, "attended", lambda: True)
    explore.show(make, "three", fallback=False)
    assert shown[1]["text/html"] == "three"
    assert "application/vnd.jupyter.widget-view+json" in shown[1]


def test_a_moving_picture_brings_its_style_and_its_html_alone_does_not(look):
    box = explore.what_if(look)
    assert components.style() in box.children[-1].value
    assert "<style" not in explore.still(box)
