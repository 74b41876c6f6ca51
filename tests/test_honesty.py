"""The proof that a run is honest: labels change metrics and nothing else, and nothing is decided by
a test image.

Real, tiny runs by the spine (open_part, fit, calibrate, evaluate, save), in process. To put another
kind of detector through every proof, add its parameters to DETECTORS.
"""
import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from adlib.config import Config, InputError
from adlib.data.part import Part, open_part
from adlib.evaluation import calibration
from adlib.evaluation.calibration import Decision, calibrate
from adlib.evaluation.results import Results, evaluate
from adlib.models import registry
from adlib.models.detector import Detector, fit
from adlib.runs import run_folder
from tests.handmade import spine

JUNK = b"these bytes are no image"
# Of the tiny folders 2 or 3 good images are held out, so that p-values are 1/4 at the least: the
# rate is set to use them.
TINY = {"category": "nut", "image_size": 32, "epochs": 1, "batch_size": 4, "held_out": 0.4,
        "target_fpr": 0.34, "device": "cpu"}
FILES = ("metrics.json", "all_results.csv", "score_study.csv", "regions.csv")
OWN = """
import torch

class MeanImage:
    def fit(self, images): self.mean = images.float().mean(0, keepdim=True)
    def anomaly_maps(self, images):
        difference = (images.float() - self.mean).abs()
        return {"mean": difference.mean(1), "worst": difference.amax(1)}
    def state(self): return {"mean": self.mean.numpy()}
    def load(self, state): self.mean = torch.from_numpy(state["mean"])

def of_maps(maps): return maps["worst"].flatten(1).sum(dim=1)
def loss(images, reconstructions): return (images - reconstructions).abs().mean()
"""
DETECTORS = {
    "cae_mse": {"model": "cae"},
    "cae_ssim": {"model": "cae", "ssim_weight": 0.5},
    # The threshold is cross-conformal.
    "fused": {"model": "fused", "weights": "none", "image_size": 64, "target_fpr": 0.15},
    # A user's own.
    "own": {"model": "own.py:MeanImage"},
    "own_score": {"model": "own.py:MeanImage", "score": "own.py:of_maps"},
    "own_loss": {"model": "cae", "loss": "own.py:loss"}}


@dataclass(frozen=True)
class Complete:
    """A run from the first image to metrics.json."""

    folder: Path
    detector: Detector
    decision: Decision
    results: Results

    @property
    def metrics(self) -> dict:
        return json.loads((self.folder / "metrics.json").read_text())


class Case:
    """A kind of DETECTORS, and the steps of a run with it."""

    def __init__(self, name: str, place: Path, kept: dict[tuple[str, str], Complete]) -> None:
        self.config = Config(name=name, **TINY | DETECTORS[name])
        self.place, self.kept = place, kept

    def undisturbed(self, root: Path) -> Complete:
        """The run of data as they were made, with which several tests compare."""
        key = self.config.name, root.name
        if key not in self.kept:
            self.kept[key] = self.complete(root, self.place / "undisturbed")
        return self.kept[key]

    def opened(self, root: Path) -> Part:
        return open_part(dataclasses.replace(self.config, data_root=str(root)))

    def fitted(self, root: Path, reports: Path) -> tuple[Part, Detector]:
        """All that comes before the first decision, in a run's folder."""
        part = open_part(dataclasses.replace(self.config, data_root=str(root),
                                             reports=str(reports)))
        detector = registry.build(part.config)
        run = run_folder.start(part, detector)
        fit(detector, part.train, part.held_out, run=run)
        run.lock.release(force=True)
        return part, detector

    def complete(self, root: Path, reports: Path) -> Complete:
        """All of a notebook but its figures and sentences."""
        config = dataclasses.replace(self.config, data_root=str(root), reports=str(reports))
        run = Complete(*spine(config))
        cross = config.model == "fused"
        assert run.decision.threshold.how == ("cross-conformal" if cross else "split")
        return run


@pytest.fixture(scope="module")
def kept() -> dict:
    return {}


@pytest.fixture(params=DETECTORS)
def case(request, monkeypatch, tmp_path, kept, small_detectors) -> Case:
    monkeypatch.setattr(calibration, "FOLDS", 3)
    (tmp_path / "own.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    return Case(request.param, tmp_path, kept)


@pytest.fixture(params=["course", "mvtec"])
def root(request) -> Path:
    return request.getfixturevalue(f"{request.param}_root")


def same_training(a: Detector, b: Detector) -> None:
    timeless = [pd.DataFrame(one.history).drop(columns="seconds", errors="ignore")
                for one in (a, b)]
    pd.testing.assert_frame_equal(*timeless, check_exact=True)
    one, other = (flat(detector.state_dict()) for detector in (a, b))
    assert one.keys() == other.keys() and one
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def flat(state: dict) -> dict[str, torch.Tensor]:
    """A state dict with what a user's own object gave among the rest."""
    own = state.get("_extra_state", {})
    return {name: tensor for name, tensor in state.items() if name != "_extra_state"} | own


def same_decisions(a: Decision, b: Decision) -> None:
    """The chosen score, the scale of the maps, the scores of the good images, the threshold."""
    for name in ("reference", "score", "scale", "low", "level"):
        assert getattr(a, name) == getattr(b, name)
    pd.testing.assert_frame_equal(a.ranking, b.ranking, check_exact=True)
    assert a.good_scores.keys() == b.good_scores.keys()
    for split, table in a.good_scores.items():
        pd.testing.assert_frame_equal(table, b.good_scores[split], check_exact=True)
    assert a.thresholds.keys() == b.thresholds.keys()
    for name, threshold in a.thresholds.items():
        assert (threshold.calibration == b.thresholds[name].calibration).all()
        assert threshold.value == b.thresholds[name].value


def spoil(root: Path) -> list[Path]:
    """Every test image and every image of train/bad becomes something that no decoder reads."""
    spoiled = [path for pattern in ("nut/test/**/*.png", "nut/train/bad/*.png")
               for path in root.glob(pattern)]
    for path in spoiled:
        path.write_bytes(JUNK)
    return spoiled


def rotate_labels(root: Path) -> None:
    """Give each test image the label of its neighbour: a permutation that turns every label of the
    tiny folder round."""
    path = root / "image_anomaly_labels.json"
    labels = json.loads(path.read_text())
    keys = sorted(key for key in labels if key.startswith("nut/"))
    words = [labels[key]["label"] for key in keys]
    turned = zip(keys, words[1:] + words[:1], strict=True)
    path.write_text(json.dumps(labels | {key: {"label": word} for key, word in turned}))


def test_permuted_test_labels_change_metrics_and_nothing_else(case, course_root, tmp_path):
    """No test label enters training, scoring, the choice of a score, the threshold or a prediction:
    with the labels permuted all of these are the same bit for bit, while the AUROC, where labels
    belong, turns into 1 - AUROC."""
    before = case.undisturbed(course_root)
    rotate_labels(course_root)
    after = case.complete(course_root, tmp_path / "after")
    same_training(before.detector, after.detector)
    same_decisions(before.decision, after.decision)
    tables = [run.results.table for run in (before, after)]
    unlabelled = [table.drop(columns=["label", "defect"]) for table in tables]
    pd.testing.assert_frame_equal(*unlabelled, check_exact=True)
    assert {"score", "p_value", "prediction", "chosen_score", "chosen_p_value",
            "chosen_prediction"} < set(unlabelled[0])
    assert np.array_equal(before.results.maps, after.results.maps)
    labels = [table.loc[table["split"] == "test", "label"] for table in tables]
    assert (labels[0] == 1 - labels[1]).all()
    # 1 - x in float64.
    turned = 1 - before.results.auroc["test"]["value"]
    assert after.results.auroc["test"]["value"] == pytest.approx(turned) != 0.5
    free = ("score", "label_free", "calibration", "maps", "epochs", "final_loss",
            "final_held_out_loss", "position_share")
    assert {key: before.metrics[key] for key in free} == {key: after.metrics[key] for key in free}
    assert before.metrics["chosen"]["score"] == after.metrics["chosen"]["score"]


def test_labels_are_first_read_by_evaluation(case, course_root, tmp_path):
    """With a label file that nobody can read, everything up to the scores and p-values works;
    evaluation alone complains."""
    (course_root / "image_anomaly_labels.json").write_text("{ no labels")
    part, detector = case.fitted(course_root, tmp_path / "reports")
    decision = calibrate(detector, part)
    scores, _ = calibration.score_with_maps(detector, decision, part.test)
    assert len(decision.threshold.p_values(scores[decision.score].to_numpy())) == 6
    with pytest.raises(InputError, match="image_anomaly_labels.json is not valid JSON"):
        evaluate(detector, decision, part)


def test_without_anomalies_in_the_test_folder_nothing_else_changes(case, root, tmp_path):
    """The anomalies of the test folder influence no training, no choice, no threshold, and no
    score, p-value or prediction of any other image: with all of them removed, each of these is the
    same, bit for bit."""
    before = case.undisturbed(root)
    whole = before.results.table
    for path in whole.loc[(whole["split"] == "test") & (whole["label"] == 1), "path"]:
        (root / path).unlink()
    if (root / "image_anomaly_labels.json").exists():
        labels = json.loads((root / "image_anomaly_labels.json").read_text())
        left = {key: entry for key, entry in labels.items() if (root / key).exists()}
        (root / "image_anomaly_labels.json").write_text(json.dumps(left))
    after = case.complete(root, tmp_path / "after")
    same_training(before.detector, after.detector)
    same_decisions(before.decision, after.decision)
    table = after.results.table
    assert len(table) == len(whole) - 3 and after.results.auroc["test"]["why_absent"]
    remaining = whole[whole["path"].isin(table["path"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(remaining, table, check_exact=True)


def test_no_test_image_is_needed_before_evaluation(case, root, tmp_path):
    """No test image, and none of train/bad, has a say in training, the choice of a score or the
    threshold: with all of them replaced by bytes that are no image, training and calibrate() end as
    with the real ones. Evaluation, which needs them, fails and names them."""
    before, part = case.undisturbed(root), case.opened(root)
    spoiled = spoil(root)
    assert len(spoiled) == len(part.test) + len(part.train_bad)
    part, blind = case.fitted(root, tmp_path / "blind")
    same_training(before.detector, blind)
    same_decisions(before.decision, calibrate(blind, part))
    with pytest.raises(InputError, match="6 of 6 images cannot be read") as error:
        evaluate(blind, before.decision, part)
    assert all(str(path) in str(error.value) for path in part.test.paths)


def test_the_tests_above_would_notice(case, course_root, tmp_path):
    """The comparisons used here are not blind: another good image is another decision and another
    training, and so is another seed."""
    before, part = case.undisturbed(course_root), case.opened(course_root)
    other = (course_root / "zip" / "train" / "good" / "000.png").read_bytes()
    part.held_out.paths[0].write_bytes(other)
    with pytest.raises(AssertionError):
        same_decisions(before.decision, calibrate(before.detector, case.opened(course_root)))
    case.config = dataclasses.replace(case.config, seed=1)  # another split, at least
    with pytest.raises(AssertionError):
        same_training(before.detector, case.fitted(course_root, tmp_path / "b")[1])


def test_equal_parameters_give_equal_bytes(case, root, tmp_path):
    """Same parameters, same machine, CPU: two complete runs write the same bytes, wherever their
    reports go and whatever the global random generators did before. (tests/test_end_to_end.py says
    the same of runs through papermill.)"""
    first = case.undisturbed(root)
    torch.manual_seed(12345)
    np.random.seed(12345)
    second = case.complete(root, tmp_path / "two")
    assert first.folder != second.folder
    same_training(first.detector, second.detector)
    for name in FILES:
        assert (first.folder / name).read_bytes() == (second.folder / name).read_bytes(), name
    assert 0 <= first.metrics["auroc"]["test"]["value"] <= 1
