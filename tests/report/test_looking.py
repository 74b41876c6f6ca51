"""A finished run to look through: it sees what the run saw, in images and in pictures that nobody
has seen."""
import math
import shutil

import bs4
import numpy as np
import pandas as pd
import pytest
import torch
from tests.handmade import small_run

from adlib.config import Config, InputError
from adlib.data import images, layout
from adlib.evaluation import calibration
from adlib.models import anomaly_maps, autoencoders
from adlib.report import looking, panels
from adlib.runs import run_folder


@pytest.fixture
def reports(course_root, tmp_path, monkeypatch):
    monkeypatch.setattr(calibration, "SYNTHETIC", 8)
    return tmp_path / "reports"


def soup(fragment):
    page = bs4.BeautifulSoup(fragment, "html.parser")
    for part in page.select("[lang=zh-CN]"):
        part.decompose()
    return page


def test_it_sees_what_the_run_saw_and_reads_an_image_once(course_root, reports, monkeypatch):
    look = looking.look(small_run(course_root, reports))
    keys = list(look.rows["path"])
    seen = look.images(keys)
    assert [one.score for one in seen] == pytest.approx(list(look.rows["score"]), rel=1e-5)
    config = look.run.config
    network, _ = autoencoders.build(config)
    network.load_state_dict(torch.load(run_folder.folder(config) / "model.pt", weights_only=True))
    test = images.load(look.run.category.test, 32)
    expected = anomaly_maps.examples(network, test, config)
    of_test = look.images([look.run.category.key(path) for path in look.run.category.test])
    maps = calibration.score_with_maps(anomaly_maps.autoencoder_scorer(network, config), test,
                                       look.run.score, look.run.scale)[1]
    for one, x, y, map_ in zip(of_test, expected["input"], expected["reconstruction"], maps,
                               strict=True):
        assert np.abs(one.picture / 255 - x).max() < 1e-6 and np.abs(one.redrawn / 255 -
                                                                     y).max() <= 0.51 / 255
        assert np.allclose(one.map_, map_, rtol=1e-4, atol=1e-6) and one.truth is None
    asked = []
    monkeypatch.setattr(looking.Look, "pictures",
                        lambda self, pictures: asked.extend(pictures) or [])
    assert all(again is one
               for again, one in zip(look.images(keys), seen, strict=True)) and not asked


def test_masks_come_along_and_a_feature_detector_redraws_nothing(mvtec_root, reports):
    look = looking.look(small_run(mvtec_root, reports, model="pca", name="pca", image_size=64))
    good, spot = look.images(["nut/test/good/000.png", "nut/test/spot/000.png"])
    assert good.truth is None and spot.truth.shape == (64,
                                                       64) and spot.truth.mean() == pytest.approx(
                                                           1 / 16)
    assert good.redrawn is None and good.map_.shape == (64, 64)
    page = soup(looking.page(look, look.rows[look.rows["split"] == "test"], 1, 4))
    assert "solid: the true defect" in page.text and len(page.select("figure")) == 4 and len(
        page.select("img")) == 12


@pytest.mark.parametrize("changes", [{}, {"target_fpr": 0.05}, {"held_out": 0.0}])
def test_the_threshold_says_of_the_test_images_what_the_run_said(course_root, reports, changes):
    look = looking.look(small_run(course_root, reports, **changes))
    said = look.results.loc[look.results["split"] == "test", "chosen_prediction"]
    if changes.get("held_out") == 0:
        assert math.isnan(look.line) and said.isna().all()
    else:
        scores = look.rows.loc[look.rows["split"] == "test", "score"]
        assert ((scores >= look.line) == said.astype(bool)).all()
        assert math.isinf(look.line) == ("target_fpr" in changes)


def test_after_the_last_page_comes_the_first(course_root, reports):
    look = looking.look(small_run(course_root, reports))
    rows = look.rows[look.rows["split"] == "test"]
    pages = [[
        image["alt"]
        for image in soup(looking.page(look, rows, number, 4)).select("figure img")[::4]
    ] for number in (1, 2, 3)]
    assert [len(page) for page in pages] == [4, 2, 4] and pages[0] == pages[2]
    assert "5 to 6 of 6 images." in soup(looking.page(look, rows, 2, 4)).text
    assert soup(looking.page(look, rows[:0], 1, 4)).text == "No image is like that."


def test_two_runs_are_set_side_by_side_image_by_image(course_root, reports):
    one, other = (looking.look(small_run(course_root, reports, **changes))
                  for changes in ({},
                                  {"model": "mean_grey", "name": "mean_grey", "image_size": 64}))
    pairs = looking.together(one, other)
    assert sorted(pairs["path"]) == sorted(one.rows.loc[one.rows["split"] == "test", "path"])
    assert pairs["apart"].is_monotonic_increasing and pairs["apart"].between(
        -1, 1).all() and pairs["apart"].sum() == pytest.approx(0)
    for look, column in ((one, "score"), (other, "score_other")):
        assert pairs.set_index("path")[column].to_dict() == look.rows[
            look.rows["split"] == "test"].set_index("path")["score"].to_dict()
    i = looking.farthest(pairs)
    assert pairs["label"][i] == 1 and abs(pairs["apart"][i]) == pairs.loc[pairs["label"] == 1,
                                                                          "apart"].abs().max()
    assert looking.farthest(pairs.assign(label=pd.NA)) == pairs["apart"].abs().argmax()
    drawn = soup(looking.compared(one, other, pairs, i))
    assert [caption.strong.text
            for caption in drawn.select("figcaption")] == ["cae_mse", "mean_grey"]
    assert len(drawn.select("img")) == 4 + 3 and len(
        drawn.select("svg")[0].select("[transform][fill-opacity]")) == 6


def test_a_dropped_anomaly_moves_the_score_and_none_does_not(course_root, reports):
    look = looking.look(small_run(course_root, reports, model="pca", name="pca", image_size=64))
    pictures = images.load(look.run.category.train, 64)
    before = look.pictures(pictures[:1])[0].score
    place = {"centre": (0.5, 0.5), "size": 2.0, "seed": 0, "before": before}
    nothing, something = (soup(
        looking.dropped(look, pictures[0], pictures[1], "cutpaste", contrast=contrast, **place))
                          for contrast in (0.0, 1.0))
    assert f"0.00% of the image changed; distance.top1 {before:.4g} before, {before:.4g} now." in nothing.text
    assert f"{before:.4g} before" in something.text and f"{before:.4g} now" not in something.text
    assert {nothing.select_one(".verdict").text,
            something.select_one(".verdict").text} <= {
                *(str(w) for _, w in panels.VERDICTS.values())
            }
    assert nothing.select_one(".verdict")["class"][1] in ("passed", "false-alarm")
    assert something.select_one(".verdict")["class"][1] in ("found", "missed")


def test_it_finds_the_run_that_is_meant_or_says_in_one_sentence_what_to_do(course_root, reports):
    config = Config(name="mean_grey", reports=str(reports))
    with pytest.raises(
            InputError,
            match=r"there is no finished run in .*; run `adlib run params/grids/quick.yaml` first"):
        looking.find(config)
    folder = small_run(course_root, reports, model="mean_grey", name="mean_grey")
    assert looking.find(config) == looking.find(
        Config(name="mean_grey", category="nut", reports=str(reports))) == folder
    assert looking.others(folder) == {}
    for wrong in ({"name": "mean_gray"}, {"name": "mean_grey",
                                          "seed": 1}, {"name": "mean_grey", "category": "zip"}):
        with pytest.raises(InputError,
                           match=r"has no finished run .*; (did you mean|known are)") as caught:
            looking.find(Config(reports=str(reports), **wrong))
        assert "\n" not in str(caught.value)
    other, again = (small_run(course_root, reports, model="contrast", name="contrast", seed=seed)
                    for seed in (0, 1))
    small_run(course_root, reports, model="contrast", name="contrast", category="zip")
    assert looking.others(folder) == {"contrast": other
                                      } and looking.others(again) == {"mean_grey": folder}
    (other / "metrics.json").unlink()
    assert looking.others(folder) == {"contrast": again}
    shutil.rmtree(folder)
    with pytest.raises(InputError, match="known are|did you mean"):
        looking.find(config)


def test_labels_colour_what_is_seen_and_change_no_map(course_root, reports):
    folder = small_run(course_root, reports, model="mean_grey", name="mean_grey")
    look = looking.look(folder)
    results = look.results.assign(label=1 - look.results["label"])
    results.to_csv(folder / "all_results.csv", index=False)
    turned = looking.look(folder)
    assert turned.line == look.line and (turned.run.low, turned.run.level) == (look.run.low,
                                                                               look.run.level)
    assert layout.read_labels(look.run.category)["nut/test/001.png"].anomalous
