import dataclasses
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from adlib.config import Config, InputError
from adlib.data import images, layout
from adlib.data.part import Part, open_part
from adlib.evaluation import psychometric
from adlib.evaluation import results as evaluation
from adlib.evaluation.calibration import Decision, calibrate, score_with_maps
from adlib.evaluation.conditions import Conditions
from adlib.evaluation.conformal import Threshold
from adlib.report import comparison
from adlib.report.words import sentences
from tests.conftest import picture, read_csv
from tests.handmade import Maps, Scored

# the configuration's own score, and the one chosen without labels
OWN, OTHER = "squared.mean", "ssim.max"


def scored(root, values=None, held=(0.5, 0.25), rate=0.4):
    """A decision and scores by hand: `values` are the own scores of the test images, `held` those
    of the first training images; all others are random, and 0.9 for train_bad. Without `held`
    nothing is held out."""
    category, rng = layout.open_category(root, "nut"), np.random.default_rng(0)
    own = {"test": rng.random(len(category.test)) if values is None else np.array(values, float),
           "held_out": np.array(held, float), "train": rng.random(len(category.train) - len(held)),
           "train_bad": np.full(len(category.train_bad), 0.9)}
    # in another unit, so that one's threshold is none of the other's
    by_split = {split: pd.DataFrame({OWN: own[split], OTHER: 10 + rng.random(len(own[split]))})
                for split in ("train", "held_out", "test", "train_bad") if len(own[split])}
    ranking = pd.DataFrame({"score": [OWN, OTHER]}
                           | ({"spot": [0.6, 0.8], "all": [0.6, 0.8]} if held else {}))
    thresholds = {name: Threshold(by_split["held_out"][name].to_numpy() if held else np.zeros(0),
                                  rate, "split" if held else "none") for name in (OWN, OTHER)}
    decision = Decision(ranking, OWN, OTHER, {}, thresholds, {}, 0.0, 1.0)
    return Scored(of(category, len(held)), decision, by_split)


def of(category, held=0, size=32):
    config = Config(category="nut", image_size=size)
    return Part(config, category, "parameter", torch.arange(held, len(category.train)),
                torch.arange(held))


def opened(root):
    return of(layout.open_category(root, "nut"))


def table(root, values=None, **options):
    return scored(root, values, **options).table


def test_a_row_an_image(course_root):
    results = table(course_root, [0.1, 0.6, 0.5, 0.51, 0.3, 0.2])
    assert results["split"].value_counts().to_dict() == {
        "train": 6, "held_out": 2, "test": 6, "train_bad": 2
    }
    assert results.groupby("split")["label"].agg(list).to_dict() == {
        "held_out": [0, 0], "test": [0, 1] * 3, "train": [0] * 6, "train_bad": [1, 1]
    }
    test = results[results["split"] == "test"]
    assert test["path"].tolist() == [f"nut/test/{i:03d}.png" for i in range(6)
                                     ] and test["defect"].tolist() == ["good", "bad"] * 3
    # two held-out images, 0.25 and 0.5
    assert test["p_value"].tolist() == pytest.approx(np.array([3, 1, 2, 1, 2, 3]) / 3)
    assert test["prediction"].tolist() == [0, 1, 0, 1, 0, 0]
    known = results["split"].isin(["train", "held_out"])
    for prefix in ("", "chosen_"):  # a detector says nothing of the images that it was made with
        assert results.loc[known, f"{prefix}prediction"].isna().all() and results.loc[
            known, f"{prefix}p_value"].isna().all()
        assert results[f"{prefix}score"].notna().all() and results.loc[
            ~known, f"{prefix}prediction"].notna().all()


def test_both_scores_keep_their_own_numbers(course_root):
    run = scored(course_root)
    for prefix, name in (("", OWN), ("chosen_", OTHER)):
        scores = pd.concat([part[name] for part in run.by_split.values()])
        assert run.table[f"{prefix}score"].tolist() == scores.tolist()
        test = run.table[run.table["split"] == "test"]
        threshold, values = run.decision.thresholds[name], run.by_split["test"][name].to_numpy()
        assert test[f"{prefix}p_value"].tolist() == threshold.p_values(values).tolist()
        called = threshold.exceeded(values).astype(int).tolist()
        assert test[f"{prefix}prediction"].tolist() == called
        assert called == (threshold.p_values(values) <= 0.4).astype(int).tolist()


def test_predictions_are_empty_where_nothing_is_held_out(course_root):
    results = table(course_root, held=())
    assert results[["prediction", "p_value", "chosen_prediction",
                    "chosen_p_value"]].isna().all(axis=None)
    assert results["score"].notna().all()


def test_both_evaluation_splits(course_root):
    results = table(course_root, [1, 6, 2, 5, 4, 3])  # bad at odd places: 6, 5, 3 against 1, 2, 4
    found = evaluation.auroc_of(results)
    assert found["test"]["value"] == pytest.approx(8 / 9)
    assert found["test"]["low"] < found["test"]["value"] < found["test"]["high"] <= 1
    assert (found["train_bad"]["n_good"], found["train_bad"]["n_anomalous"]) == (3, 2)
    assert found["train_bad"]["value"] == 0.0  # 0.9 lies below 1, 2 and 4


def test_permuted_labels_change_metrics_and_nothing_else(course_root):
    before = table(course_root)
    path = course_root / "image_anomaly_labels.json"
    labels = json.loads(path.read_text())
    keys = sorted(key for key in labels if key.startswith("nut/"))
    words = [labels[key]["label"] for key in keys]
    for key, word in zip(keys, words[1:] + words[:1], strict=True):
        labels[key]["label"] = word
    path.write_text(json.dumps(labels))
    after = table(course_root)
    unlabelled = [name for name in before.columns if name not in ("label", "defect")]
    assert before[unlabelled].equals(after[unlabelled]) and not before.equals(after)
    assert evaluation.auroc_of(before)["test"]["value"] != evaluation.auroc_of(after)["test"]["value"]


@pytest.mark.parametrize(("label", "missing"), [("good", "anomalous"), ("bad", "good")])
def test_of_one_class_only_it_is_said_which_is_missing(course_root, label, missing):
    path = course_root / "image_anomaly_labels.json"
    path.write_text(json.dumps({key: {"label": label} for key in json.loads(path.read_text())}))
    results = table(course_root)
    found = evaluation.auroc_of(results)
    assert found["test"]["value"] is None and found["test"]["why_absent"] == f"no_{missing}"
    operating = evaluation.operating_of(results)["test"]
    assert operating["oracle_f1"] is None
    assert operating["false_positives"]["n"] == (6 if missing == "anomalous" else 0)
    absent = operating["detections" if missing == "anomalous" else "false_positives"]
    assert absent == {"count": 0, "n": 0, "rate": None, "low": 0.0, "high": 1.0}  # of none: no rate


def test_unlabelled(course_root):
    (course_root / "image_anomaly_labels.json").unlink()
    for path in course_root.glob("*/train/bad/*"):
        path.unlink()
    results = table(course_root)
    assert results.loc[results["split"] == "test", "label"].isna().all()
    assert evaluation.auroc_of(results)["test"]["why_absent"] == "no_labels"
    assert evaluation.auroc_over_epochs(results, {1: np.zeros(6)})["auroc"].isna().all()
    assert evaluation.operating_of(results)["test"] == {
        "false_positives": None, "detections": None, "oracle_f1": None
    }
    assert evaluation.confounder_correlation(results, {"brightness": np.arange(6)}) == {"brightness": None}


def test_what_has_no_label_is_no_good_image(course_root):
    assert evaluation.truth_of(opened(course_root)).tolist() == [0, 1] * 3
    (course_root / "image_anomaly_labels.json").unlink()
    shutil.rmtree(course_root / "nut" / "train" / "bad")
    assert evaluation.truth_of(opened(course_root)).tolist() == [-1] * 6


def test_missing_labels_are_an_error_and_never_counted_as_bad(course_root):
    path = course_root / "image_anomaly_labels.json"
    labels = json.loads(path.read_text())
    del labels["nut/test/003.png"]
    path.write_text(json.dumps(labels))
    with pytest.raises(InputError, match="no entry for 1 test images .nut/test/003.png"):
        table(course_root)


def test_auroc_over_epochs_uses_each_epochs_scores(course_root):
    results = table(course_root)
    curve = evaluation.auroc_over_epochs(
        results, {2: np.array([0, 1, 0, 1, 0, 1.0]), 1: np.array([1, 0, 1, 0, 1, 0.0])})
    assert curve["epoch"].tolist() == [1, 2] and curve["auroc"].tolist() == [0.0, 1.0]


def test_operating_counts(course_root):
    # called above 2.5; bad: 6, 5, 3
    results = table(course_root, [1, 6, 2, 5, 4, 3], held=(2.5, 1.0))
    found = evaluation.operating_of(results)
    for name, hits in (("false_positives", 1), ("detections", 3)):
        low, high = stats.binomtest(hits, 3).proportion_ci(method="exact")
        assert found["test"][name] == pytest.approx(
            {"count": hits, "n": 3, "rate": hits / 3, "low": low, "high": high})
    assert found["test"]["oracle_f1"] == pytest.approx(
        {"threshold": 3, "f1": 6 / 7, "false_positives": 1 / 3, "detections": 1})
    # the test set's good; 0.9 twice
    assert [found["train_bad"][name]["count"]
            for name in ("false_positives", "detections")] == [1, 0]
    assert found["train_bad"]["oracle_f1"] == pytest.approx(
        {"threshold": 0.9, "f1": 4 / 7, "false_positives": 1, "detections": 1})


def test_operating_of_the_chosen_score(course_root):
    results = table(course_root, [1, 6, 2, 5, 4, 3])
    swapped = results.rename(
        columns={name: f"chosen_{name}"
                 for name in ("score", "p_value", "prediction")}
        | {f"chosen_{name}": name
           for name in ("score", "p_value", "prediction")})
    assert evaluation.operating_of(results, "chosen_") == evaluation.operating_of(swapped)
    assert evaluation.operating_of(results) == evaluation.operating_of(
        swapped, "chosen_") != evaluation.operating_of(results, "chosen_")


def test_too_few_held_out_images_call_nothing(course_root):
    found = evaluation.operating_of(table(course_root, rate=0.05))["test"]
    assert (found["false_positives"]["count"], found["detections"]["count"]) == (0, 0)


def test_no_operating_point_without_held_out_images_but_an_oracle(course_root):
    found = evaluation.operating_of(table(course_root, [1, 6, 2, 5, 4, 3], held=()))["test"]
    assert found["false_positives"] is None and found["detections"] is None and found["oracle_f1"][
        "threshold"] == 3


def test_score_study(course_root):
    run = scored(course_root, [1, 6, 2, 5, 4, 3])
    study = evaluation.score_study(run.table, run.decision, run.by_split)
    # The label-free order.
    assert study["score"].tolist() == [OTHER, OWN] and study["label_free"].tolist() == [0.8, 0.6]
    assert study["role"].tolist() == ["chosen", "own"]
    assert study.loc[1, "test"] == pytest.approx(8 / 9) and study.loc[1, "train_bad"] == 0
    values, bad = (run.by_split[split][OTHER].to_numpy() for split in ("test", "train_bad"))
    assert study.loc[0, "test"] == pytest.approx(np.mean(values[1::2, None] > values[::2]))
    assert study.loc[0, "train_bad"] == pytest.approx(np.mean(bad[:, None] > values[::2]))


def test_score_study_without_held_out_images_and_without_anomalies(course_root):
    path = course_root / "image_anomaly_labels.json"
    path.write_text(json.dumps({key: {"label": "good"} for key in json.loads(path.read_text())}))
    shutil.rmtree(course_root / "nut" / "train" / "bad")
    run = scored(course_root, held=())
    study = evaluation.score_study(run.table, run.decision, run.by_split)
    assert study["score"].tolist() == [OWN, OTHER]
    assert study[["label_free", "test", "train_bad"]].isna().all(axis=None)
    one = dataclasses.replace(run.decision, score=OWN)
    roles = evaluation.score_study(run.table, one, run.by_split)["role"].tolist()
    assert roles == ["own+chosen", ""]


def test_a_score_that_nothing_was_to_be_chosen_for_is_called_fixed(course_root):
    """Of one map alone the mean of the top 1% is taken, whatever the synthetic anomalies say."""
    run, names = scored(course_root), {OWN: "distance.max", OTHER: "distance.top1"}
    decision = dataclasses.replace(run.decision, ranking=run.decision.ranking.replace(names),
                                   reference="distance.max", score="distance.top1")
    by_split = {split: one.rename(columns=names) for split, one in run.by_split.items()}
    study = evaluation.score_study(run.table, decision, by_split)
    assert study["role"].tolist() == ["fixed", "own"]


def test_the_metrics_of_the_score_in_use_are_its_own(course_root):
    run = scored(course_root, [1, 6, 2, 5, 4, 3])
    synthetic = pd.DataFrame({OWN: [1.0, 2.0], OTHER: [3.0, 4.0]})
    found = evaluation.measured(run.table, dataclasses.replace(run.decision, synthetic=synthetic),
                                None, {})
    assert found["synthetic"] == [3.0, 4.0] and found["maps"]["level"] == 1.0
    assert found["auroc"]["test"]["value"] == pytest.approx(8 / 9)
    own = evaluation.auroc_of(run.table, "chosen_score")
    assert found["chosen"]["auroc"] == own and own["test"]["value"] != pytest.approx(8 / 9)
    assert found["calibration"]["scores"] == run.by_split["held_out"][OTHER].tolist()


@pytest.mark.filterwarnings("ignore:An input array is constant")
def test_confounders(mvtec_root):
    for i in range(3, 6):
        picture(mvtec_root / "nut" / "test" / "good" / f"{i:03d}.png", 40 + i)
    good = [1.0, 2, 3, 5, 4, 9]
    results = table(mvtec_root, [*good, 100, -100, 50])
    # what the defective ones look like does not matter
    ups, flat = [*good, 0, 100, 0], [*[7.0] * 6, 1, 2, 3]
    found = evaluation.confounder_correlation(
        results,
        {"up": np.array(ups), "down": -np.exp(ups), "flat": np.array(flat), "other": np.arange(9)})
    assert found["up"] == pytest.approx(1) and found["down"] == pytest.approx(
        -1) and found["flat"] is None
    assert found["other"] == pytest.approx(stats.spearmanr(good, range(6)).statistic)
    assert evaluation.confounder_correlation(table(mvtec_root, np.ones(9)),
                                {"up": np.array(ups)}) == {"up": None}


@pytest.mark.parametrize("n, known", [(4, False), (5, True)])
def test_four_good_images_follow_nothing(mvtec_root, n, known):
    for i in range(3, n):
        picture(mvtec_root / "nut" / "test" / "good" / f"{i:03d}.png", 40 + i)
    results = table(mvtec_root, range(n + 3))
    assert evaluation.confounder_correlation(
        results, {"rank": np.arange(n + 3)}) == {"rank": pytest.approx(1) if known else None}


def test_a_run_is_what_its_tables_say(mvtec_root):
    """evaluate: the table, the maps and the metrics are of one decision and of one set of
    scores."""
    for i in range(3, 6):  # of fewer than five good ones it is not known what their scores follow
        picture(mvtec_root / "nut" / "test" / "good" / f"{i:03d}.png", 40 + i)
    part = open_part(Config(category="nut", image_size=32, held_out=0.4, target_fpr=0.4,
                            device="cpu", data_root=str(mvtec_root)))

    def brightness(pictures):
        grey = pictures.float().mean(dim=1).numpy()
        return {"light": grey, "dark": 255 - grey}

    detector = Maps(brightness)
    decision = calibrate(detector, part)
    results = evaluation.evaluate(detector, decision, part)
    assert results.maps.shape == (9, 32, 32) and results.maps.dtype == np.float32
    test = results.table[results.table["split"] == "test"]
    scores, maps = score_with_maps(detector, decision, part.test)
    assert test["score"].tolist() == scores[decision.reference].tolist()
    assert test["chosen_score"].tolist() == scores[decision.score].tolist()
    assert (results.maps == maps).all()
    assert results.auroc == results.metrics["auroc"] == evaluation.auroc_of(results.table)
    assert results.chosen["auroc"] == evaluation.auroc_of(results.table, "chosen_score")
    assert results.metrics["operating"] == evaluation.operating_of(results.table)
    assert results.chosen["operating"] == evaluation.operating_of(results.table, "chosen_")
    assert results.metrics["localisation"] == results.localization
    assert results.metrics["confounders"] == results.confounders == (
        evaluation.confounder_correlation(results.table, images.appearance(
            part.test.tensor, part.good.tensor)))
    assert None not in results.confounders.values()
    assert (half := psychometric.half_found(decision)) and results.metrics["half_found"] == half
    assert results.metrics["calibration"] == {
        "images": 2, "how": "split", "foreign": 0,
        "scores": decision.threshold.calibration.tolist()}
    assert results.metrics["epochs"] == 0 and results.epochs.empty
    assert len(results.regions) == 3 and len(results.score_study) == len(decision.ranking) == 9
    json.dumps(results.metrics, allow_nan=False)


def test_csv_keeps_every_digit(course_root, tmp_path):
    results = table(course_root)
    evaluation.write_csv(results, tmp_path / "all_results.csv")
    read = read_csv(tmp_path / "all_results.csv",
                    dtype=dict.fromkeys(("label", "prediction", "chosen_prediction"), "Int64"))
    assert read["score"].tolist() == results["score"].tolist() and read["prediction"].equals(
        results["prediction"])
    assert [path.name for path in tmp_path.glob("*.csv*")] == ["all_results.csv"]


@pytest.mark.parametrize("value, verdict", [(0.696, "reached"), (0.694, "missed"),
                                            (0.80, "reached"), (0.81, "exceeded")])
def test_verdict_on_the_references_claims(value, verdict):
    run = pd.Series({"category": "hazelnut", "name": "cae_mse", "layout": "course", "epochs": 100})
    assert comparison._claims(run, {"auroc": value, "random": False})["verdict"] == verdict
    assert comparison._claims(run, {"auroc": value, "random": True})["verdict"] == ""
    assert comparison._claims(pd.Series(run.to_dict() | {"epochs": 5}), {"auroc": value, "random": False})["verdict"] == ""
    assert comparison._claims(pd.Series(run.to_dict() | {"layout": "mvtec"}), {"auroc": value, "random": False}) == {}


@pytest.mark.parametrize(("higher", "cause"), [(0, None), (6, "more_anomalous")])
def test_of_labelled_test_images_the_scores_of_the_good_ones_are_compared_too(higher, cause):
    """Those of the anomalous ones, which come first, have no say."""
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.normal(90, 8, (84, 3, 32, 32)).clip(0, 255)).to(torch.uint8)
    table = pd.DataFrame({"split": "test", "label": pd.array([1] * 24 + [0] * 24, dtype="Int64"),
                          "chosen_score": np.r_[rng.normal(9, 1, 24), rng.normal(higher, 1, 24)]})
    decision = SimpleNamespace(conditions=Conditions.of(images[:60]),
                               threshold=Threshold(rng.normal(size=60), 0.05))
    part = SimpleNamespace(config=Config(), test=SimpleNamespace(
        select=lambda places: SimpleNamespace(tensor=images[36 + places])))
    assert evaluation.taken_otherwise(table, decision, part)["cause"] == cause


@pytest.mark.parametrize("brighter, labelled", [(0, True), (60, True), (60, False)])
def test_where_good_test_images_are_taken_otherwise_it_is_said(brighter, labelled):
    """24 good test images among 24 white ones, which are anomalous and have no say."""
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.normal(90, 8, (84, 3, 64, 64)).clip(0, 255)
                              + rng.normal(0, 4, (84, 1, 1, 1))).to(torch.uint8)
    good, shown = images[:60], images[60:] + brighter
    test = torch.cat([torch.full((24, 3, 64, 64), 255, dtype=torch.uint8), shown]
                     if labelled else [shown])
    labels = pd.array([1] * 24 * labelled + [0 if labelled else None] * 24, dtype="Int64")
    table = pd.DataFrame({"split": "test", "label": labels,
                          "chosen_score": rng.normal(size=len(test))})
    decision = SimpleNamespace(conditions=Conditions.of(good),
                               threshold=Threshold(rng.normal(size=60), 0.05))
    part = SimpleNamespace(config=Config(), test=SimpleNamespace(
        select=lambda places: SimpleNamespace(tensor=test[places])))
    found = evaluation.taken_otherwise(table, decision, part)
    assert found["pictures"] == 24
    assert found["cause"] == ("brighter" if brighter else None)
    alarms = {"count": 2, "n": 24, "rate": 2 / 24, "low": 0.01, "high": 0.27}
    metrics = {"conditions": found,
               "chosen": {"operating": {"test": {"false_positives": alarms}}}}
    said = sentences.taken_otherwise(metrics, 0.05)
    assert str(said).startswith("The threshold does not hold here: 24 good test images"
                                if brighter else "")
    assert bool(said) == bool(brighter)
    alarms["low"] = 0.06  # in the light of training, and more than chance allows
    assert str(sentences.taken_otherwise(metrics | {"conditions": None}, 0.05)).startswith(
        "The threshold does not hold here: of 24 good test images 2 are")
    metrics["chosen"]["operating"]["test"]["false_positives"] = None
    assert sentences.taken_otherwise(metrics | {"conditions": None}, 0.05) == ""
