"""The limits of a finished run: its detector opened again, disturbed images, defects of every size.
"""
import dataclasses
import json
import math
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from tests.conftest import picture
from tests.handmade import SMALL, small_run
from PIL import Image

from adlib.config import Config, InputError
from adlib.data import corruptions, files, images, layout
from adlib.data.synthetic import drawing
from adlib.evaluation import calibration, conformal, limits, psychometric
from adlib.models import anomaly_maps, autoencoders
from adlib.report import data_sentences
from adlib.runs import run_folder


@pytest.fixture(autouse=True)
def _few_synthetic_anomalies(monkeypatch):
    monkeypatch.setattr(calibration, "SYNTHETIC", 8)


def of(folder, split="test"):
    table = pd.read_csv(folder / "all_results.csv")
    return table[table["split"] == split]


@pytest.mark.parametrize(
    "changes", [{"model": "cae", "name": "cae_mse"}, {
        "model": "cae", "name": "cae_mse", "held_out": 0.0, "seed": 1
    }, {"model": "pca", "name": "pca", "image_size": 64}, {
        "model": "memory", "name": "memory", "image_size": 64, "seed": 1
    }, {"model": "mean_grey", "name": "mean_grey"}, {
        "model": "gaussian", "name": "gaussian", "image_size": 64
    }, {"model": "classifier", "name": "classifier", "image_size": 64}, {
        "model": "fused", "name": "fused", "image_size": 64
    }, {"model": "to_features", "name": "to_features", "image_size": 64, "epochs": 1}],
    ids=lambda changes: f"{changes['model']}-{changes.get('held_out', 'held')}")
def test_a_reopened_run_gives_its_own_scores_again(course_root, tmp_path, changes):
    folder = small_run(course_root, tmp_path / "reports", **changes)
    run = limits.reopen(folder)
    assert run.config.name == changes["name"] and run.category.name == "nut"
    assert run.score == files.read_json(folder / "metrics.json")["chosen"]["score"]
    for split in ("test", "train_bad"):
        paths, rows = getattr(run.category, split), of(folder, split)
        assert [run.category.key(path) for path in paths] == list(rows["path"])
        assert run.scores(images.load(
            paths, run.config.image_size)).tolist() == rows["chosen_score"].tolist()
        # the same threshold, or false alarms on disturbed images would be another detector's
        if run.config.held_out:
            assert (rows["chosen_score"] > run.threshold
                    ).astype(int).tolist() == rows["chosen_prediction"].astype(int).tolist()
    assert math.isinf(run.threshold) == (run.config.held_out == 0)


def test_it_is_the_chosen_score_whichever_it_is(course_root, tmp_path):
    folder = small_run(course_root, tmp_path / "reports")
    category, config = layout.open_category(course_root,
                                            "nut"), Config(**run_folder.manifest(folder)["params"])
    network, _ = autoencoders.build(config)
    network.load_state_dict(torch.load(folder / "model.pt", weights_only=True))
    expected = calibration.scores(anomaly_maps.autoencoder_scorer(network, config), category,
                                  config)
    measured, pictures = files.read_json(folder / "metrics.json"), images.load(category.test, 32)
    for name in ("squared.mean", "sum.max", "gradient.top1"):
        files.write_json(
            folder / "metrics.json", measured | {
                "chosen": measured["chosen"] | {"score": name},
                "calibration": measured["calibration"]
                | {"scores": expected.splits["held_out"][1][name].tolist()}
            })
        run = limits.reopen(folder)
        assert run.scores(pictures).tolist() == expected.splits["test"][1][name].tolist()
        assert run.threshold == conformal.threshold(expected.splits["held_out"][1][name].to_numpy(),
                                                    0.3)


def test_the_data_may_have_moved(course_root, tmp_path):
    folder = small_run(course_root, tmp_path / "reports", model="mean_grey", name="mean_grey")
    course_root.rename(tmp_path / "moved")
    with pytest.raises(InputError):
        limits.reopen(folder)
    run = limits.reopen(folder, str(tmp_path / "moved"))
    assert run.scores(images.load(run.category.test,
                                  32)).tolist() == of(folder)["chosen_score"].tolist()


@pytest.mark.parametrize(("spoil", "sentence"), [
    (lambda folder, root: shutil.rmtree(folder),
     r"seed-0 holds no finished run \(missing: never run\); run its configuration first"),
    (lambda folder, root: run_folder.fail(folder, "the sky fell"),
     r"no finished run \(failed: the sky fell\)"),
    (lambda folder, root:
     (folder / "metrics.json").unlink(), r"no finished run \(failed: cannot read .*metrics.json"),
    (lambda folder, root: picture(root / "nut" / "test" / "001.png", 999),
     "the data of .*seed-0 have changed since it ran"),
    (lambda folder, root: (root / "nut" / "train" / "good" / "007.png").unlink(),
     "have changed since it ran; run its configuration again"),
], ids=["missing", "failed", "unfinished", "another test image", "a training image less"])
def test_what_cannot_be_reopened_is_one_sentence(course_root, tmp_path, spoil, sentence):
    folder = small_run(course_root, tmp_path / "reports", model="mean_grey", name="mean_grey")
    spoil(folder, course_root)
    with pytest.raises(InputError, match=sentence) as caught:
        limits.reopen(folder)
    assert "\n" not in str(caught.value)


def test_other_weights_are_not_passed_off_as_the_runs(course_root, tmp_path):
    from torchvision.models import resnet18
    for seed in (0, 1):
        torch.manual_seed(seed)
        torch.save(resnet18(weights=None).state_dict(), tmp_path / "w.pth")
        if seed == 0:
            folder = small_run(course_root, tmp_path / "reports", model="pca", name="pca",
                               image_size=64, weights=str(tmp_path / "w.pth"))
    with pytest.raises(InputError, match="weights"):
        limits.reopen(folder)


def test_the_folder_is_apart_from_the_runs(tmp_path):
    config = Config(category="nut", name="pca", seed=3, reports=str(tmp_path))
    assert limits.folder(config) == tmp_path / "limits" / "nut" / "pca"


def test_robustness_begins_where_the_run_ended(course_root, tmp_path):
    path = course_root / "image_anomaly_labels.json"
    entries = json.loads(path.read_text())
    entries["nut/test/001.png"], entries["nut/test/002.png"] = entries["nut/test/002.png"], entries[
        "nut/test/001.png"]
    path.write_text(json.dumps(entries))  # two labels exchanged: an AUROC of 1 would hide a mistake
    folder = small_run(course_root, tmp_path / "reports")
    table = limits.robustness(limits.reopen(folder))
    assert list(table.columns) == [
        "disturbance", "strength", "what", "auroc", "false_positives", "detections"
    ]
    clean, disturbed = table.iloc[0], table.iloc[1:]
    chosen = files.read_json(folder / "metrics.json")["chosen"]
    assert (clean["disturbance"],
            clean["strength"]) == ("none", 0) and clean["auroc"] == chosen["auroc"]["test"]["value"]
    assert clean["false_positives"] == chosen["operating"]["test"]["false_positives"]["rate"]
    assert clean["detections"] == chosen["operating"]["test"]["detections"]["rate"]
    assert [(row.disturbance, row.strength) for row in disturbed.itertuples()] == [
        (name, strength) for name in corruptions.CORRUPTIONS for strength in (1, 2, 3, 4, 5)
    ]
    assert all(row.what == data_sentences.corruption(row.disturbance, row.strength)
               for row in disturbed.itertuples())
    assert 0 < clean["auroc"] < 1 and table[["auroc", "false_positives", "detections"
                                             ]].stack().between(0, 1).all()


class Brightness:
    """A detector whose score is the mean grey value, so that what a disturbance does to it is
    known."""
    def __call__(self, pictures):
        return {"distance": pictures.float().mean(dim=(1, 2, 3)).numpy()[:, None, None] / 255}


def at(run, threshold):
    return dataclasses.replace(
        run, calibration=np.zeros(0) if math.isinf(threshold) else np.full(99, threshold))


def opened(config, category, scorer, name, threshold):
    found = limits.Reopened(config, scorer, name, {}, np.full(99, threshold), 0.0, 1.0,
                            category=category)
    assert found.threshold == threshold
    return found


@pytest.fixture
def bright(course_root):
    config = Config(**SMALL, data_root=str(course_root), name="bright")
    return opened(config, layout.open_category(course_root, "nut"), Brightness(), "distance.mean",
                  threshold=0.0)


def test_the_threshold_stays_that_of_undisturbed_images(bright):
    category = bright.category
    clean = bright.scores(images.load(category.test, 32))
    good = clean[[
        not label.anomalous
        for label in map(layout.read_labels(category).get, map(category.key, category.test))
    ]]
    run = at(bright, good.max() + 0.03)
    table = limits.robustness(run).set_index(["disturbance", "strength"])
    assert table.loc[("none", 0), "false_positives"] == 0
    # by 2 %, and 16 %
    assert table.loc[("brighter", 1), "false_positives"] == 0 and table.loc[("brighter", 5),
                                                                            "false_positives"] == 1
    # nothing is bright enough any more, though all ranks stay
    assert table.loc[("darker", 5), "detections"] == 0
    assert table.loc["darker", "auroc"].tolist() == table.loc[
        "brighter", "auroc"].tolist() == [table.loc[("none", 0), "auroc"]] * 5
    without = limits.robustness(at(run, math.inf))
    assert without[["false_positives", "detections"]].isna().all(
        axis=None) and "support no threshold" in limits.robustness_sentence(without)


def test_the_detector_sees_every_disturbance_of_the_test_images(bright):
    shown = []

    def watch(pictures):
        shown.append(pictures.clone())
        return Brightness()(pictures)

    limits.robustness(
        dataclasses.replace(bright, scorer=watch, config=dataclasses.replace(bright.config,
                                                                             seed=3)))
    clean = images.load(bright.category.test, 32)
    expected = [
        clean, *(corruptions.apply(clean, name, strength, seed=3)
                 for name in corruptions.CORRUPTIONS for strength in corruptions.STRENGTHS)
    ]
    assert len(shown) == 41 and all(torch.equal(a, b) for a, b in zip(shown, expected, strict=True))


@pytest.mark.parametrize("labels",
                         [{}, {f"nut/test/{i:03d}.png": {"label": "good"}
                               for i in range(6)}], ids=["none", "good only"])
def test_without_labels_of_both_classes_robustness_is_empty(course_root, tmp_path, labels, bright):
    path = course_root / "image_anomaly_labels.json"
    path.write_text(json.dumps(labels)) if labels else path.unlink()
    if not labels:
        shutil.rmtree(course_root / "nut" / "train" / "bad")
    table = limits.robustness(
        dataclasses.replace(bright, category=layout.open_category(course_root, "nut")))
    assert table.empty and list(table.columns) == [
        "disturbance", "strength", "what", "auroc", "false_positives", "detections"
    ]
    assert "cannot be judged" in limits.robustness_sentence(table)


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """A small drawn data set, and a detector on it that compares a part with itself: every changed
    pixel counts."""
    for name, value in (("EACH", 2), ("SIZES", (0.4, 1.0, 1.5)), ("CONTRASTS", (0.2, 1.0))):
        monkeypatch.setattr(limits, name, value)
    root = drawing.write_dataset(tmp_path / "drawn", train=4, good=2, anomalous=4, pixels=64,
                                 seed=5, categories=["hazelnut"])
    config = Config(**SMALL | {"category": "hazelnut", "image_size": 64}, data_root=str(root))
    good = [
        drawing.render("hazelnut", seed=5, index=limits.FIRST_PART + part, pixels=64)[0].transpose(
            2, 0, 1) for part in range(2)
    ]

    def difference(pictures):
        apart = [
            min(
                float((other.float() - torch.from_numpy(one.copy()).float()).abs().max())
                for one in good) for other in pictures
        ]
        return {"distance": np.array(apart, np.float32)[:, None, None]}

    return opened(config, layout.open_category(root, "hazelnut"), difference, "distance.max",
                  threshold=40.0)


def test_defects_of_every_size_and_contrast_are_drawn_and_judged(drawn):
    found = limits.detectability(drawn)
    assert list(found.columns) == ["defect", "size", "contrast", "area", "found"]
    assert list(dict.fromkeys(found["defect"])) == list(drawing.CATEGORIES["hazelnut"])
    counts = found.groupby(["defect", "size", "contrast"]).size()
    assert set(counts) == {limits.EACH} and {key[1:]
                                             for key in counts.index} == {(0.4, 1.0), (1.0, 1.0),
                                                                          (1.5, 1.0), (1.0, 0.2)}
    areas = found[found["contrast"] == 1].groupby("size")["area"].mean()
    assert areas.is_monotonic_increasing and (found["area"].between(0, 1)).all()
    assert found[found["contrast"] == 1]["found"].mean() > found[found["contrast"] ==
                                                                 0.2]["found"].mean()
    _, mask = drawing.render("hazelnut", seed=5, index=limits.FIRST_PART, defect="crack", size=0.4,
                             pixels=64)
    assert found["area"].iloc[0] == mask.mean()
    pd.testing.assert_frame_equal(found, limits.detectability(drawn))


def test_found_is_above_the_runs_threshold(drawn):
    assert limits.detectability(at(drawn, -1.0))["found"].all()
    assert not limits.detectability(at(drawn, 300.0))["found"].any()


def test_the_drawn_parts_are_in_no_data_set_and_look_as_their_files_would(drawn, tmp_path):
    shown = []

    def watch(pictures):
        shown.extend(pictures.numpy())
        return {"distance": np.zeros((len(pictures), 1, 1), np.float32)}

    limits.detectability(
        dataclasses.replace(drawn, scorer=watch, config=dataclasses.replace(
            drawn.config, image_size=32)))
    known = images.load([*drawn.category.train, *drawn.category.test], 32).numpy()
    assert len(shown) == 4 * 4 * 2 and not {part.tobytes()
                                            for part in known} & {part.tobytes()
                                                                  for part in shown}
    first, _ = drawing.render("hazelnut", seed=5, index=limits.FIRST_PART, defect="crack", size=0.4,
                              pixels=64)
    Image.fromarray(first).save(tmp_path / "part.png")
    assert (shown[0] == images.decode(tmp_path / "part.png", 32)).all()


def test_detectability_is_empty_where_no_defect_of_any_size_can_be_had(drawn, bright):
    for run in (bright, at(drawn, math.inf)):  # real images; and nothing is ever called anomalous
        found = limits.detectability(run)
        assert found.empty and list(
            found.columns) == ["defect", "size", "contrast", "area", "found"]
        assert "No psychometric curves" in limits.detectability_sentence(
            found, limits.smallest(found, 0.05))
        assert limits.smallest(found, 0.05).empty


def simulated(by_area, by_contrast, defect="crack", n=1500, seed=0, largest=0.05):
    """Found or missed as two known curves would have it: over areas at real contrast, and over
    contrasts at real size."""
    rng = np.random.default_rng(seed)
    area = 10**rng.uniform(-4, math.log10(largest), n)
    contrast = rng.uniform(0.05, 0.99, n)
    sized = pd.DataFrame({
        "size": area * 10 + 2, "contrast": 1.0, "area": area, "found": rng.random(n) < by_area(area)
    })
    faint = pd.DataFrame({
        "size": 1.0, "contrast": contrast, "area": 0.01, "found": rng.random(n)
        < by_contrast(contrast)
    })
    real = pd.DataFrame({"size": 1.0, "contrast": 1.0, "area": 0.01, "found": [True] * 3 + [False]})
    return pd.concat([sized, faint, real], ignore_index=True).assign(defect=defect)


STEEP = psychometric.Curve(0.004, 6.0, 0.05, 0.01, 0)
FAINT = psychometric.Curve(0.25, 10.0, 0.05, 0.01, 0)
NEVER = psychometric.Curve(0.004, 6.0, 0.05, 0.4, 0)  # four in ten are missed at any size


def test_smallest_recovers_known_curves():
    row = limits.smallest(simulated(STEEP, FAINT), guess=0.05).iloc[0]
    for column, truth in (("area50", STEEP.at(0.5)), ("area95", STEEP.at(0.95)), ("contrast95",
                                                                                  FAINT.at(0.95))):
        assert row[column] == pytest.approx(truth, rel=0.15), column
    assert row["defect"] == "crack" and row["largest"] == pytest.approx(
        0.05, rel=0.02) and row["found_at_real_size"] == 0.75


def test_each_defect_has_a_curve_of_its_own():
    small = psychometric.Curve(0.001, 6.0, 0.05, 0.01, 0)
    sizes = limits.smallest(
        pd.concat([simulated(STEEP, FAINT),
                   simulated(small, FAINT, "hole", seed=1)]), guess=0.05).set_index("defect")
    assert sizes.loc["crack", "area50"] == pytest.approx(STEEP.at(0.5), rel=0.15)
    assert sizes.loc["hole", "area50"] == pytest.approx(small.at(0.5), rel=0.15)


def test_what_never_reaches_95_percent_is_not_a_number():
    row = limits.smallest(simulated(NEVER, NEVER), guess=0.05).iloc[0]
    assert math.isnan(row["area95"]) and math.isnan(row["contrast95"]) and row["area50"] > 0


def curves(found):
    """The two fits, over areas at real contrast and over contrasts at real size."""
    sized, faint = found[(found["contrast"] == 1) & (found["area"] > 0)], found[found["size"] == 1]
    return (psychometric.fit(sized["area"].to_numpy(), sized["found"].to_numpy(), guess=0.05),
            psychometric.fit(faint["contrast"].to_numpy(), faint["found"].to_numpy(), guess=0.05))


def test_the_figures_are_those_of_the_fitted_curves():
    found = simulated(STEEP, FAINT)
    (size, contrast), row = curves(found), limits.smallest(found, guess=0.05).iloc[0]
    assert (row["area50"], row["area95"], row["contrast95"]) == (size.at(0.5), size.at(0.95),
                                                                 contrast.at(0.95))


def test_a_size_beyond_those_drawn_is_no_finding():
    found = simulated(psychometric.Curve(0.03, 6.0, 0.05, 0.0, 0),
                      psychometric.Curve(0.7, 5.0, 0.05, 0.0, 0))
    size, contrast = curves(found)
    # the curves do get there, but nothing was drawn there
    assert 0.05 < size.at(0.95) < 1 < contrast.at(0.95)
    row = limits.smallest(found, guess=0.05).iloc[0]
    assert math.isnan(row["area95"]) and math.isnan(
        row["contrast95"]) and row["area50"] == size.at(0.5)


def test_parts_that_the_defect_did_not_change_do_not_count():
    found = simulated(STEEP, FAINT)
    nothing = pd.DataFrame(
        {"defect": "crack", "size": 0.5, "contrast": 1.0, "area": 0.0, "found": [False] * 50})
    pd.testing.assert_frame_equal(limits.smallest(found, 0.05),
                                  limits.smallest(pd.concat([found, nothing]), 0.05))


def robust(**alarms):
    rows = [("none", 0, "as they are", 0.9, 0.05, 0.8)]
    rows += [(name, strength, data_sentences.corruption(
        name, strength), 0.9 - 0.1 * strength * (name == "blur"), alarms.get(name, 0.05), 0.5)
             for name in corruptions.CORRUPTIONS for strength in corruptions.STRENGTHS]
    return pd.DataFrame(
        rows, columns=["disturbance", "strength", "what", "auroc", "false_positives", "detections"])


def test_what_disturbs_most_is_named():
    text = limits.robustness_sentence(robust(brighter=0.75))
    assert text.startswith(
        f"AUROC 0.900 as they are; at strength 3 the worst are {data_sentences.corruption('blur', 3)} "
        f"0.600")
    assert f"with {data_sentences.corruption('brighter', 3)}" in text and "75% of the good images" in text


def test_a_threshold_that_does_not_suffer_is_not_said_to():
    assert "suffers" not in limits.robustness_sentence(robust().assign(false_positives=0.0))


def test_what_is_found_and_what_is_not_is_told():
    sizes = pd.DataFrame({
        "defect": ["crack", "hole"], "area50": 0.01, "area95": [0.0123,
                                                                math.nan], "smallest": 0.001,
        "largest": 0.1, "faintest": 0.1, "found_at_real_size": [1.0, 0.625], "contrast95": 0.5
    })
    text = limits.detectability_sentence(pd.DataFrame({"found": [True]}), sizes)
    assert "crack 1.23%" in text and "hole not reached (found 62% at real size)" in text


def test_all_found_is_not_told_as_nothing_needed():
    found = pd.DataFrame({
        "defect": "crack", "size": [0.4, 1.0, 1.0], "contrast": [1.0, 1.0, 0.2],
        "area": [0.01, 0.02, 0.01], "found": True
    })
    assert "0.00%" not in limits.detectability_sentence(found, limits.smallest(found, 0.05))
