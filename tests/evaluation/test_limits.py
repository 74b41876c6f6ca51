"""The limits of a fitted detector: disturbed images, and defects of every size."""
import dataclasses
import json
import math
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from adlib.config import Config
from adlib.data import corruptions, files, layout, reading
from adlib.data.part import open_part
from adlib.data.synthetic import drawing
from adlib.evaluation import calibration, limits, psychometric
from adlib.evaluation.conformal import Threshold
from adlib.runs import inference
from tests.handmade import SMALL, Maps, small_run

pytestmark = pytest.mark.usefixtures("small_detectors")


COLUMNS = ["disturbance", "strength", "auroc", "false_positives", "detections"]


def test_robustness_begins_where_the_run_ended(course_root, tmp_path):
    path = course_root / "image_anomaly_labels.json"
    entries = json.loads(path.read_text())
    entries["nut/test/001.png"], entries["nut/test/002.png"] = (entries["nut/test/002.png"],
                                                                entries["nut/test/001.png"])
    path.write_text(json.dumps(entries))  # two labels exchanged: an AUROC of 1 would hide a mistake
    folder = small_run(course_root, tmp_path / "reports")
    run, part = inference.reopen_with_data(folder)
    table = limits.robustness(run.detector, run.decision, part)
    assert list(table.columns) == COLUMNS
    clean, disturbed = table.iloc[0], table.iloc[1:]
    chosen = files.read_json(folder / "metrics.json")["chosen"]
    assert (clean["disturbance"], clean["strength"]) == ("none", 0)
    assert clean["auroc"] == chosen["auroc"]["test"]["value"]
    assert clean["false_positives"] == chosen["operating"]["test"]["false_positives"]["rate"]
    assert clean["detections"] == chosen["operating"]["test"]["detections"]["rate"]
    assert [(row.disturbance, row.strength) for row in disturbed.itertuples()] == [
        (name, strength) for name in corruptions.CORRUPTIONS for strength in (1, 2, 3, 4, 5)]
    assert 0 < clean["auroc"] < 1
    assert table[COLUMNS[2:]].stack().between(0, 1).all()


def brightness(pictures):
    """The mean grey value, so that what a disturbance does to it is known."""
    return {"distance": pictures.float().mean(dim=(1, 2, 3)).numpy()[:, None, None] / 255}


def at(threshold, score="distance.mean"):
    known = np.zeros(0) if math.isinf(threshold) else np.full(99, threshold)
    decision = calibration.Decision(pd.DataFrame(), score, score, {},
                                    {score: Threshold(known, 0.05)}, {}, 0.0, 1.0)
    assert decision.threshold.value == threshold
    return decision


BRIGHT = Maps(brightness)


@pytest.fixture
def part(course_root):
    return open_part(Config(**SMALL, data_root=str(course_root), name="bright"))


def test_the_threshold_stays_that_of_undisturbed_images(part):
    clean, labels = BRIGHT.maps(part.test.tensor)["distance"], layout.read_labels(part.category)
    good = clean[[not labels[key].anomalous for key in part.test.keys]]
    decision = at(float(good.max()) + 0.03)
    table = limits.robustness(BRIGHT, decision, part).set_index(["disturbance", "strength"])
    assert table.loc[("none", 0), "false_positives"] == 0
    # By 2 %, and 16 %.
    assert table.loc[("brighter", 1), "false_positives"] == 0
    assert table.loc[("brighter", 5), "false_positives"] == 1
    # Nothing is bright enough any more, though all ranks stay.
    assert table.loc[("darker", 5), "detections"] == 0
    assert table.loc["darker", "auroc"].tolist() == table.loc["brighter", "auroc"].tolist() == [
        table.loc[("none", 0), "auroc"]] * 5
    without = limits.robustness(BRIGHT, at(math.inf), part)
    assert without[["false_positives", "detections"]].isna().all(axis=None)
    assert without["auroc"].tolist() == table["auroc"].tolist()


def test_the_detector_sees_every_disturbance_of_the_test_images(part):
    shown = []

    def watch(pictures):
        shown.append(pictures.clone())
        return brightness(pictures)

    other = dataclasses.replace(part, config=dataclasses.replace(part.config, seed=3))
    limits.robustness(Maps(watch), at(0.0), other)
    clean = part.test.tensor
    expected = [clean, *(corruptions.apply(clean, name, strength, seed=3)
                         for name in corruptions.CORRUPTIONS for strength in corruptions.STRENGTHS)]
    assert len(shown) == 41 and all(torch.equal(a, b) for a, b in zip(shown, expected, strict=True))


@pytest.mark.parametrize("labels", [{}, {f"nut/test/{i:03d}.png": {"label": "good"}
                                         for i in range(6)}], ids=["none", "good only"])
def test_without_labels_of_both_classes_robustness_is_empty(course_root, part, labels):
    path = course_root / "image_anomaly_labels.json"
    path.write_text(json.dumps(labels)) if labels else path.unlink()
    if not labels:
        shutil.rmtree(course_root / "nut" / "train" / "bad")
    table = limits.robustness(BRIGHT, at(0.0), open_part(part.config))
    assert table.empty and list(table.columns) == COLUMNS


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """A small drawn data set, and a detector on it that compares a part with itself: every changed
    pixel counts."""
    for name, value in (("EACH", 2), ("SIZES", (0.4, 1.0, 1.5)), ("CONTRASTS", (0.2, 1.0))):
        monkeypatch.setattr(limits, name, value)
    root = drawing.write_dataset(tmp_path / "drawn", train=4, good=2, anomalous=4, pixels=64,
                                 seed=5, categories=["hazelnut"])
    config = Config(**SMALL | {"category": "hazelnut", "image_size": 64}, data_root=str(root))
    good = [drawing.render("hazelnut", seed=5, index=limits.FIRST_PART + number, pixels=64)[0]
            .transpose(2, 0, 1) for number in range(2)]

    def difference(pictures):
        apart = [min(float((other.float() - torch.from_numpy(one.copy()).float()).abs().max())
                     for one in good) for other in pictures]
        return {"distance": np.array(apart, np.float32)[:, None, None]}

    return Maps(difference), open_part(config)


def detected(drawn, threshold=40.0):
    return limits.detectability(drawn[0], at(threshold, "distance.max"), drawn[1])


def test_defects_of_every_size_and_contrast_are_drawn_and_judged(drawn):
    found = detected(drawn)
    assert list(found.columns) == ["defect", "size", "contrast", "area", "found"]
    assert list(dict.fromkeys(found["defect"])) == list(drawing.CATEGORIES["hazelnut"])
    counts = found.groupby(["defect", "size", "contrast"]).size()
    assert set(counts) == {limits.EACH}
    assert {key[1:] for key in counts.index} == {(0.4, 1.0), (1.0, 1.0), (1.5, 1.0), (1.0, 0.2)}
    real = found["contrast"] == 1
    assert found[real].groupby("size")["area"].mean().is_monotonic_increasing
    assert found["area"].between(0, 1).all()
    assert found[real]["found"].mean() > found[found["contrast"] == 0.2]["found"].mean()
    _, mask = drawing.render("hazelnut", seed=5, index=limits.FIRST_PART, defect="crack", size=0.4,
                             pixels=64)
    assert found["area"].iloc[0] == mask.mean()
    pd.testing.assert_frame_equal(found, detected(drawn))


def test_found_is_above_the_runs_threshold(drawn):
    assert detected(drawn, -1.0)["found"].all()
    assert not detected(drawn, 300.0)["found"].any()


def test_the_drawn_parts_are_in_no_data_set_and_look_as_their_files_would(drawn, tmp_path):
    shown = []

    def watch(pictures):
        shown.extend(pictures.numpy())
        return {"distance": np.zeros((len(pictures), 1, 1), np.float32)}

    part = open_part(dataclasses.replace(drawn[1].config, image_size=32))
    detected((Maps(watch), part))
    known = {image.numpy().tobytes() for split in (part.good, part.test) for image in split.tensor}
    assert len(shown) == 4 * 4 * 2 and not known & {image.tobytes() for image in shown}
    first, _ = drawing.render("hazelnut", seed=5, index=limits.FIRST_PART, defect="crack", size=0.4,
                              pixels=64)
    Image.fromarray(first).save(tmp_path / "part.png")
    assert (shown[0] == reading.read(tmp_path / "part.png", 32)).all()


def test_detectability_is_empty_where_no_defect_of_any_size_can_be_had(drawn, part):
    # Real images; and nothing is ever called anomalous.
    for found in (detected((BRIGHT, part)), detected(drawn, math.inf)):
        assert found.empty
        assert list(found.columns) == ["defect", "size", "contrast", "area", "found"]
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
    row = limits.smallest(simulated(STEEP, FAINT), target_fpr=0.05).iloc[0]
    for column, truth in (("area50", STEEP.at(0.5)), ("area95", STEEP.at(0.95)), ("contrast95",
                                                                                  FAINT.at(0.95))):
        assert row[column] == pytest.approx(truth, rel=0.15), column
    assert row["defect"] == "crack" and row["largest"] == pytest.approx(
        0.05, rel=0.02) and row["found_at_real_size"] == 0.75


def test_each_defect_has_a_curve_of_its_own():
    small = psychometric.Curve(0.001, 6.0, 0.05, 0.01, 0)
    sizes = limits.smallest(
        pd.concat([simulated(STEEP, FAINT),
                   simulated(small, FAINT, "hole", seed=1)]), target_fpr=0.05).set_index("defect")
    assert sizes.loc["crack", "area50"] == pytest.approx(STEEP.at(0.5), rel=0.15)
    assert sizes.loc["hole", "area50"] == pytest.approx(small.at(0.5), rel=0.15)


def test_what_never_reaches_95_percent_is_not_a_number():
    row = limits.smallest(simulated(NEVER, NEVER), target_fpr=0.05).iloc[0]
    assert math.isnan(row["area95"]) and math.isnan(row["contrast95"]) and row["area50"] > 0


def curves(found):
    """The two fits, over areas at real contrast and over contrasts at real size."""
    sized, faint = found[(found["contrast"] == 1) & (found["area"] > 0)], found[found["size"] == 1]
    return (psychometric.fit(sized["area"].to_numpy(), sized["found"].to_numpy(), fpr=0.05),
            psychometric.fit(faint["contrast"].to_numpy(), faint["found"].to_numpy(), fpr=0.05))


def test_the_figures_are_those_of_the_fitted_curves():
    found = simulated(STEEP, FAINT)
    (size, contrast), row = curves(found), limits.smallest(found, target_fpr=0.05).iloc[0]
    assert (row["area50"], row["area95"], row["contrast95"]) == (size.at(0.5), size.at(0.95),
                                                                 contrast.at(0.95))


def test_a_size_beyond_those_drawn_is_no_finding():
    found = simulated(psychometric.Curve(0.03, 6.0, 0.05, 0.0, 0),
                      psychometric.Curve(0.7, 5.0, 0.05, 0.0, 0))
    size, contrast = curves(found)
    # the curves do get there, but nothing was drawn there
    assert 0.05 < size.at(0.95) < 1 < contrast.at(0.95)
    row = limits.smallest(found, target_fpr=0.05).iloc[0]
    assert math.isnan(row["area95"]) and math.isnan(
        row["contrast95"]) and row["area50"] == size.at(0.5)


def test_parts_that_the_defect_did_not_change_do_not_count():
    found = simulated(STEEP, FAINT)
    nothing = pd.DataFrame(
        {"defect": "crack", "size": 0.5, "contrast": 1.0, "area": 0.0, "found": [False] * 50})
    pd.testing.assert_frame_equal(limits.smallest(found, 0.05),
                                  limits.smallest(pd.concat([found, nothing]), 0.05))


def test_all_found_is_no_curve_through_zero():
    """Where everything is found, the smallest and the faintest that were drawn are the answer."""
    found = pd.DataFrame({"defect": "crack", "size": [0.4, 1.0, 1.0], "contrast": [1.0, 1.0, 0.2],
                          "area": [0.01, 0.02, 0.01], "found": True})
    row = limits.smallest(found, 0.05).iloc[0]
    assert (row["area50"], row["area95"], row["contrast95"]) == (0.01, 0.01, 0.2)


@pytest.mark.parametrize(("limit", "pixels"), [
    (100, pytest.approx(100, rel=0.1)), (0, 10), (2000, None)])
def test_the_synthetic_anomaly_of_which_half_are_found(limit, pixels):
    sizes = np.r_[np.geomspace(10, 1000, 60), 0]  # of the last nothing can be seen
    scores = pd.DataFrame({"distance.max": 2.0,  # is not the one in use
                           "distance.mean": np.where(sizes > limit, 2.0, 0.0)})
    decision = dataclasses.replace(at(1.0), reference="distance.max", synthetic=scores,
                                   synthetic_pixels=sizes)
    found = psychometric.half_found(decision)
    assert found == {"pixels": pixels, "least": 10, "largest": pytest.approx(1000), "n": 60}
    assert psychometric.half_found(at(1.0)) is None
    assert psychometric.half_found(dataclasses.replace(at(math.inf), synthetic=scores,
                                                 synthetic_pixels=sizes)) is None
    assert psychometric.half_found(
        dataclasses.replace(decision, synthetic_pixels=sizes * 0 + 5)) is None


def test_of_half_found_the_false_alarms_that_were_asked_for_are_no_finding():
    """Three in ten of the anomalies would be called so if nothing of them could be seen."""
    sizes = np.geomspace(10, 1000, 60)
    called = (np.arange(60) % 10 < 3) | (sizes > 150)
    threshold = Threshold(np.full(99, 1.0), 0.3)
    decision = dataclasses.replace(
        at(1.0), thresholds={"distance.mean": threshold}, synthetic_pixels=sizes,
        synthetic=pd.DataFrame({"distance.mean": np.where(called, 2.0, 0.0)}))
    pixels = [psychometric.fit(sizes, called, fpr=fpr).at(0.5) for fpr in (0.3, 0.0)]
    assert psychometric.half_found(decision)["pixels"] == pixels[0] > 1.1 * pixels[1]


def test_no_part_of_these_is_in_a_drawn_set():
    drawn = {index for *_, index in drawing._plan("hazelnut", 500, 500, 500)}
    assert not drawn & set(range(limits.FIRST_PART, limits.FIRST_PART + limits.EACH))
