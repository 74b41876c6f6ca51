"""The exam of "foreign": what is counted, and that an empty detector is helped by it."""
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from adlib.config import Config
from adlib.data import siblings
from adlib.data.part import open_part
from adlib.evaluation import calibration, foreign_exam, refusal
from adlib.models.foreign import Foreign
from tests.conftest import picture
from tests.data import test_siblings
from tests.handmade import Maps

BLIND = Maps(lambda images: {"distance": np.zeros((len(images), 8, 8), np.float32)})


@pytest.fixture(autouse=True)
def few_synthetic_anomalies(monkeypatch):
    monkeypatch.setattr(calibration, "SYNTHETIC", 8)


@pytest.fixture
def part(course_root):
    for i in range(8, 24):
        picture(course_root / "nut" / "train" / "good" / f"{i:03d}.png", 1000 + i)
    return open_part(Config(category="nut", data_root=str(course_root), image_size=32,
                            weights="none", held_out=0.2))


def test_what_a_score_calls_good_is_refused_as_foreign(part, monkeypatch):
    decision = calibration.calibrate(BLIND, part)
    exam = foreign_exam.exam(BLIND, decision, part, n=60).set_index("kind")
    assert exam["anomalous"].sum() == 0 and exam.loc["all", "pictures"] == 60
    for kind in ("black", "white", "covered", "blurred", "gradient"):
        assert exam.loc[kind, "refused"] == exam.loc[kind, "pictures"] > 0
    assert (exam["refused"] == exam["foreign"]).all()
    kinds = exam.drop(["all", "good"])
    assert exam.loc["all", "refused"] == kinds["refused"].sum()
    assert exam.loc["good", "pictures"] == 24 and exam.loc["good", "refused"] <= 2
    assert (exam["low"] <= exam["rate"]).all() and (exam["rate"] <= exam["high"]).all()


def test_what_the_score_refuses_counts_once(part, monkeypatch):
    def brightness(images):
        return {"distance": images.float().mean(dim=1).numpy()}
    decision = calibration.calibrate(Maps(brightness), part)
    decision = calibration.dataclasses.replace(decision, thresholds={
        decision.score: calibration.Threshold(np.full(99, 200.0), 0.05)})
    exam = foreign_exam.exam(Maps(brightness), decision, part, n=60).set_index("kind")
    assert exam.loc["white", "anomalous"] == exam.loc["white", "refused"]
    assert exam.loc["black", "anomalous"] == 0 < exam.loc["black", "refused"]


def test_a_run_of_tiles_scores_what_it_does_not_call_foreign(part, monkeypatch):
    seen = []
    def brightness(images):
        seen.append(len(images))
        return {"distance": images.float().mean(dim=1).numpy()}
    decision = calibration.calibrate(Maps(brightness), part)
    decision = calibration.dataclasses.replace(decision, thresholds={
        decision.score: calibration.Threshold(np.full(99, 200.0), 0.05)})
    tiled = Maps(brightness)
    tiled.tile = 32
    seen.clear()
    exam = foreign_exam.exam(tiled, decision, part, n=60).set_index("kind")
    passed = exam.loc["all", "pictures"] - exam.loc["all", "foreign"]
    assert seen == [1] * passed  # one by one, in their own sizes
    decision.foreign.calibration = torch.full((24, ), 1e9, dtype=torch.float64)
    every = foreign_exam.exam(tiled, calibration.dataclasses.replace(decision), part, n=60)
    every = every.set_index("kind")
    assert every.loc["all", "foreign"] == 0 and every.loc["black", "anomalous"] == 0
    assert every.loc["white", "anomalous"] == every.loc["white", "pictures"] > 0


def test_of_very_many_good_pictures_a_fold_is_fitted_on_a_sample_as_the_run_is(part, monkeypatch):
    monkeypatch.setattr(refusal, "MOST", 12)
    decision, fitted, fit = calibration.calibrate(BLIND, part), [], Foreign.fit
    monkeypatch.setattr(Foreign, "fit", lambda self, features, of=None: fitted.append(
        len(features)) or fit(self, features, of))
    assert len(foreign_exam.cross_fitted(decision, part)) == 24 and max(fitted) == 12


def test_no_picture_is_judged_by_what_has_learned_another_of_the_same_thing(monkeypatch):
    pictures, fitted, judged = test_siblings.pictures(), [], []
    model = SimpleNamespace(calibration=torch.ones(24), distances=lambda features: judged.append(
        features) or torch.zeros(len(features)), features=lambda images: torch.arange(len(images)))
    monkeypatch.setattr(foreign_exam.copy, "deepcopy", lambda one: one)
    monkeypatch.setattr(foreign_exam, "fit_foreign_features",
                        lambda model, features, of: fitted.append(features))
    decision = SimpleNamespace(foreign=model, foreign_threshold=SimpleNamespace(target_fpr=0.001))
    good = pd.Series(range(len(pictures)))
    good.tensor = pictures
    foreign_exam.cross_fitted(decision, SimpleNamespace(good=good, config=Config()))
    thing = siblings.groups(pictures)
    assert torch.cat(judged).sort().values.tolist() == list(range(29))
    for learned, left in zip(fitted, judged, strict=True):
        assert not set(thing[learned].tolist()) & set(thing[left].tolist())


def test_of_a_few_good_pictures_nothing_is_said(course_root, monkeypatch):
    part = open_part(Config(category="nut", data_root=str(course_root), image_size=32,
                            weights="none"))
    decision = calibration.calibrate(BLIND, part)
    assert decision.foreign_threshold is None
    assert foreign_exam.exam(BLIND, decision, part).empty


def test_other_parts_are_of_the_categories_beside_it(part):
    others = foreign_exam.other_parts(part)
    assert others.shape == (8, 3, 32, 32) and others.dtype == torch.uint8


def test_what_is_broken_in_other_categories_is_said_and_left_out(part, course_root, caplog):
    (course_root / "zip" / "train" / "good" / "003.png").write_bytes(b"no picture")
    deep = np.linspace(0, 4095, 32 * 32).reshape(32, 32).astype(np.uint16)
    for i in range(2):  # of more bits than the run's own
        path = course_root / "deep" / "train" / "good" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(deep).save(path)
    for place in ("train/good", "test", "test/crack"):
        picture(course_root / "mixed" / place / "1.png", 1)
    others = foreign_exam.other_parts(part)
    assert len(others) == 2 + 7 and others[0].max() == 255
    assert [record.message.partition(" is left out")[0].rpartition("/")[2]
            for record in caplog.records] == ["mixed", "003.png"]
    assert "holds both images and folders of images" in caplog.text


def test_what_is_refused_beside_the_score_is_counted_by_label(part, monkeypatch):
    decision = calibration.calibrate(BLIND, part)
    table = pd.DataFrame({"path": part.test.keys, "split": "test", "chosen_prediction": 0,
                          "label": pd.array([0, 1] * (len(part.test) // 2) + [None] * (
                              len(part.test) % 2), dtype="Int64")})
    monkeypatch.setattr(decision.foreign, "distances",
                        lambda features: torch.full((len(features), ), 1e9, dtype=torch.float64))
    half = len(part.test) // 2
    assert foreign_exam.refused_in_addition(table, decision, part) == {
        "good": half, "anomalous": half}
    table["chosen_prediction"] = table["label"]
    assert foreign_exam.refused_in_addition(table, decision, part) == {"good": half, "anomalous": 0}
    assert foreign_exam.refused_in_addition(table.assign(label=pd.NA), decision, part) is None
