"""The proof that a run is honest: labels change metrics and nothing else, and nothing is decided by
a test image.

Real, tiny trainings through the calls of the run notebooks, in process. A detector is a function
(Config, images, folder, identity) -> Detector; to put another kind through every proof, add it to
DETECTORS.
"""
import json
import typing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from adlib.config import Config, InputError
from adlib.data import images, layout
from adlib.evaluation import calibration, evaluate
from adlib.models import anomaly_maps, autoencoders, featurespace, training
from adlib.report import study
from adlib.runs import run_folder

JUNK = b"these bytes are no image"
# Of the tiny folders 2 or 3 good images are held out, so that p-values are 1/4 at the least: the
# rate is set to use them.
TINY = {
    "category": "nut", "image_size": 32, "epochs": 1, "batch_size": 4, "held_out": 0.4,
    "target_fpr": 0.34, "device": "cpu"
}
FILES = ("metrics.json", "all_results.csv", "score_study.csv", "regions.csv")


@dataclass(frozen=True)
class Detector:
    """What training leaves behind."""

    scorer: anomaly_maps.Scorer
    history: list[dict]
    weights: dict[str, torch.Tensor]


def cae(config: Config, good: torch.Tensor, folder: Path, identity: str) -> Detector:
    """Notebook 02's: the convolutional autoencoder."""
    model, _ = autoencoders.build(config)
    history = training.fit(model, good, config, folder=folder, identity=identity)
    return Detector(anomaly_maps.autoencoder_scorer(model, config), history, model.state_dict())


def in_feature_space(config: Config, good: torch.Tensor, folder: Path, identity: str) -> Detector:
    """Notebook 04's: a detector on a frozen encoder's features, here on random weights."""
    encoder, _ = featurespace.backbone(config)
    fitted = featurespace.fit(encoder, good, *training.split(len(good), config.held_out,
                                                             config.seed), config)
    return Detector(fitted, fitted.history, fitted.detector.state_dict())


DETECTORS = {
    "cae_mse": (cae, {"model": "cae"}),
    "cae_ssim": (cae, {"model": "cae", "ssim_weight": 0.5}),
    # At a rate that 2 or 3 images cannot support: the p-values are cross-conformal.
    "fused": (in_feature_space, {
        "model": "fused", "weights": "none", "image_size": 64, "target_fpr": 0.15
    })
}


@dataclass(frozen=True)
class Complete:
    """A run from the first image to metrics.json."""

    detector: Detector
    scored: calibration.Scored
    results: pd.DataFrame
    auroc: dict[str, dict[str, typing.Any]]
    folder: Path


class Case:
    """A detector of DETECTORS, and the steps of a run with it."""
    def __init__(self, name: str) -> None:
        self.make, changes = DETECTORS[name]
        self.config = Config(name=name, **TINY | changes)

    def trained(self, root: Path, folder: Path,
                identity: str = "x") -> tuple[layout.Category, Detector]:
        category = layout.open_category(root, self.config.category)
        return category, self.make(self.config, images.load(category.train, self.config.image_size),
                                   folder, identity)

    def complete(self, root: Path, reports: Path) -> Complete:
        """All of notebook 02 or 04 but its figures and sentences."""
        config = Config(**self.config.as_dict() | {"data_root": str(root), "reports": str(reports)})
        category, source = layout.open_from(config.data_root, config.category)
        run = run_folder.start(config, category, source=source,
                               weights="none (trained from scratch)", **study.machine(config))
        category, detector = self.trained(root, run.folder, run.identity)
        scored = calibration.scores(detector.scorer, category, config)
        if isinstance(detector.scorer, featurespace.Fitted):
            scored = calibration.cross_p_values(scored, detector.scorer, category, config)
            assert scored.how == "cross-conformal"
        results = evaluate.results(category, scored, config.target_fpr)
        evaluate.write_csv(results, run.folder / "all_results.csv")
        evaluate.write_csv(evaluate.score_study(results, scored), run.folder / "score_study.csv")
        test, good = (images.load(paths, config.image_size)
                      for paths in (category.test, category.train))
        maps = calibration.score_with_maps(detector.scorer, test, scored.chosen, scored.scale)[1]
        localisation, regions = evaluate.localisation(category, maps)
        evaluate.write_csv(regions, run.folder / "regions.csv")
        follows = evaluate.confounders(results, images.appearance(test, good))
        run.finish(study.metrics(detector.history, scored, results, follows, localisation),
                   train_seconds=sum(row["seconds"] for row in detector.history))
        return Complete(detector, scored, results, evaluate.auroc(results), run.folder)


@pytest.fixture(params=DETECTORS)
def case(request, monkeypatch) -> Case:
    # the proofs need a lesson, and not a long one
    monkeypatch.setattr(featurespace, "TAUGHT_ON", 24)
    monkeypatch.setattr(featurespace, "FOLDS", 3)
    return Case(request.param)


@pytest.fixture(params=["course", "mvtec"])
def root(request) -> Path:
    return request.getfixturevalue(f"{request.param}_root")


def same_training(a: Detector, b: Detector) -> None:
    timeless = [pd.DataFrame(one.history).drop(columns="seconds") for one in (a, b)]
    pd.testing.assert_frame_equal(*timeless, check_exact=True)
    assert a.weights.keys() == b.weights.keys() and all(
        torch.equal(tensor, b.weights[name]) for name, tensor in a.weights.items())


def same_decisions(a: calibration.Decided, b: calibration.Decided) -> None:
    """The chosen score, the scale of the maps, and the scores of the good images, from which the
    threshold comes."""
    assert (a.primary, a.chosen, a.scale) == (b.primary, b.chosen, b.scale)
    pd.testing.assert_frame_equal(a.ranking, b.ranking, check_exact=True)
    for split in ("train", "held_out"):
        assert a.splits[split][0] == b.splits[split][0]
        pd.testing.assert_frame_equal(a.splits[split][1], b.splits[split][1], check_exact=True)


def spoil(root: Path) -> list[Path]:
    """Every test image and every image of train/bad becomes something that no decoder reads."""
    spoiled = [
        path for pattern in ("nut/test/**/*.png", "nut/train/bad/*.png")
        for path in root.glob(pattern)
    ]
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
    path.write_text(
        json.dumps(
            labels
            | {key: {"label": word}
               for key, word in zip(keys, words[1:] + words[:1], strict=True)}))


def test_permuted_test_labels_change_metrics_and_nothing_else(case, course_root, tmp_path):
    """No test label enters training, scoring, the choice of a score, the threshold or a prediction:
    with the labels permuted all of these are the same bit for bit, while the AUROC, where labels
    belong, turns into 1 - AUROC."""
    before = case.complete(course_root, tmp_path / "before")
    rotate_labels(course_root)
    after = case.complete(course_root, tmp_path / "after")
    same_training(before.detector, after.detector)
    same_decisions(before.scored, after.scored)
    for split in ("test", "train_bad"):
        pd.testing.assert_frame_equal(before.scored.splits[split][1], after.scored.splits[split][1],
                                      check_exact=True)
    unlabelled = [
        table.drop(columns=["label", "defect"]) for table in (before.results, after.results)
    ]
    # score, p-value and prediction of both scores
    pd.testing.assert_frame_equal(*unlabelled, check_exact=True)
    assert {
        "score", "p_value", "prediction", "chosen_score", "chosen_p_value", "chosen_prediction"
    } < set(unlabelled[0])
    labels = [
        table.loc[table["split"] == "test", "label"] for table in (before.results, after.results)
    ]
    assert (labels[0] == 1 - labels[1]).all()
    assert after.auroc["test"]["value"] == pytest.approx(1 - before.auroc["test"]["value"]) != 0.5
    metrics = [json.loads((run.folder / "metrics.json").read_text()) for run in (before, after)]
    free = ("score", "label_free", "calibration", "epochs", "final_loss", "final_held_out_loss")
    assert {key: metrics[0][key] for key in free} == {key: metrics[1][key] for key in free}
    assert metrics[0]["chosen"]["score"] == metrics[1]["chosen"]["score"]


def test_labels_are_first_read_by_evaluation(case, course_root, tmp_path):
    """With a label file that nobody can read, everything up to the scores and p-values works;
    evaluation alone complains."""
    (course_root / "image_anomaly_labels.json").write_text("{ no labels")
    category, detector = case.trained(course_root, tmp_path)
    scored = calibration.scores(detector.scorer, category, case.config)
    assert len(scored.p_values[scored.chosen]["test"]) == 6
    with pytest.raises(InputError, match="image_anomaly_labels.json is not valid JSON"):
        evaluate.results(category, scored, case.config.target_fpr)


def test_without_anomalies_in_the_test_folder_nothing_else_changes(case, root, tmp_path):
    """The anomalies of the test folder influence no training, no choice, no threshold, and no
    score, p-value or prediction of any other image: with all of them removed, each of these is the
    same, bit for bit."""
    before = case.complete(root, tmp_path / "before")
    test = before.results[before.results["split"] == "test"]
    for path in test.loc[test["label"] == 1, "path"]:
        (root / path).unlink()
    if (root / "image_anomaly_labels.json").exists():
        labels = json.loads((root / "image_anomaly_labels.json").read_text())
        (root / "image_anomaly_labels.json").write_text(
            json.dumps({key: entry
                        for key, entry in labels.items() if (root / key).exists()}))
    after = case.complete(root, tmp_path / "after")
    same_training(before.detector, after.detector)
    same_decisions(before.scored, after.scored)
    assert len(after.results) == len(before.results) - 3 and after.auroc["test"]["why_absent"]
    remaining = before.results[before.results["path"].isin(
        after.results["path"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(remaining, after.results, check_exact=True)


def test_no_test_image_is_needed_before_evaluation(case, root, tmp_path):
    """No test image, and none of train/bad, has a say in training, the choice of a score or the
    threshold: with all of them replaced by bytes that are no image, training and decide() end as
    with the real ones. Scoring, which needs them, fails and names them."""
    category, real = case.trained(root, tmp_path / "real")
    decided = calibration.decide(real.scorer, category, case.config)
    spoiled = spoil(root)
    assert len(spoiled) == len(category.test) + len(category.train_bad)
    category, blind = case.trained(root, tmp_path / "blind")
    same_training(real, blind)
    same_decisions(decided, calibration.decide(blind.scorer, category, case.config))
    with pytest.raises(InputError, match="6 of 6 images cannot be read") as error:
        calibration.scores(blind.scorer, category, case.config)
    assert all(str(path) in str(error.value) for path in category.test)


def test_the_tests_above_would_notice(case, course_root, tmp_path):
    """The comparisons used here are not blind: another seed is another training, and another good
    image other decisions."""
    category, first = case.trained(course_root, tmp_path / "a")
    held_out = calibration.split_of(category, case.config)["held_out"][0]
    decided = calibration.decide(first.scorer, category, case.config)
    held_out.write_bytes((course_root / "zip" / "train" / "good" / "000.png").read_bytes())
    with pytest.raises(AssertionError):
        same_decisions(decided, calibration.decide(first.scorer, category, case.config))
    case.config = Config(**case.config.as_dict() | {"seed": 1})
    with pytest.raises(AssertionError):
        same_training(first, case.trained(course_root, tmp_path / "b")[1])


def test_equal_parameters_give_equal_bytes(case, root, tmp_path):
    """Same parameters, same machine, CPU: two complete runs write the same bytes, wherever their
    reports go and whatever the global random generators did before. (tests/test_end_to_end.py says
    the same of runs through papermill.)"""
    first = case.complete(root, tmp_path / "one")
    torch.manual_seed(12345)
    np.random.seed(12345)
    second = case.complete(root, tmp_path / "two")
    assert first.folder != second.folder
    same_training(first.detector, second.detector)
    for name in FILES:
        assert (first.folder / name).read_bytes() == (second.folder / name).read_bytes(), name
    assert 0 <= json.loads(
        (first.folder / "metrics.json").read_text())["auroc"]["test"]["value"] <= 1
