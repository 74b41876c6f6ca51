import json

import numpy as np
import pytest

from adlib import compare, data, evaluate
from adlib.config import InputError


def table(root, values=None):
    category = data.open_category(root, "nut")
    rng = np.random.default_rng(0)
    scores = {"train": (category.train, rng.random(len(category.train))),
              "test": (category.test, rng.random(len(category.test)) if values is None else np.array(values, float)),
              "train_bad": (category.train_bad, np.full(len(category.train_bad), 0.9))}
    return evaluate.results(category, scores)


def test_both_evaluation_splits(seed_root):
    results = table(seed_root, [1, 6, 2, 5, 4, 3])  # bad at odd places: 6, 5, 3 against 1, 2, 4
    found = evaluate.auroc(results)
    assert found["test"]["value"] == pytest.approx(8 / 9)
    assert found["test"]["low"] < found["test"]["value"] < found["test"]["high"] <= 1
    assert (found["train_bad"]["n_good"], found["train_bad"]["n_anomalous"]) == (3, 2)
    assert found["train_bad"]["value"] == 0.0  # 0.9 lies below 1, 2 and 4


def test_permuted_labels_change_metrics_and_nothing_else(seed_root):
    before = table(seed_root)
    path = seed_root / "image_anomaly_labels.json"
    labels = json.loads(path.read_text())
    keys = sorted(key for key in labels if key.startswith("nut/"))
    words = [labels[key]["label"] for key in keys]
    for key, word in zip(keys, words[1:] + words[:1], strict=True):
        labels[key]["label"] = word
    path.write_text(json.dumps(labels))
    after = table(seed_root)
    assert before[["path", "split", "score"]].equals(after[["path", "split", "score"]])
    assert evaluate.auroc(before)["test"]["value"] != evaluate.auroc(after)["test"]["value"]


def test_one_class_only_says_why(seed_root):
    path = seed_root / "image_anomaly_labels.json"
    path.write_text(json.dumps({key: {"label": "good"} for key in json.loads(path.read_text())}))
    found = evaluate.auroc(table(seed_root))
    assert found["test"]["value"] is None and "6 good and 0 anomalous" in found["test"]["why_absent"]


def test_unlabelled(seed_root):
    (seed_root / "image_anomaly_labels.json").unlink()
    for path in seed_root.glob("*/train/bad/*"):
        path.unlink()
    results = table(seed_root)
    assert results.loc[results["split"] == "test", "label"].isna().all()
    assert evaluate.auroc(results)["test"]["why_absent"] == "this split has no labelled images"
    assert evaluate.auroc_over_epochs(results, {1: np.zeros(6)})["auroc"].isna().all()


def test_missing_labels_are_an_error_and_never_counted_as_bad(seed_root):
    path = seed_root / "image_anomaly_labels.json"
    labels = json.loads(path.read_text())
    del labels["nut/test/003.png"]
    path.write_text(json.dumps(labels))
    with pytest.raises(InputError, match="no entry for 1 test images .nut/test/003.png"):
        table(seed_root)


def test_auroc_over_epochs_uses_each_epochs_scores(seed_root):
    results = table(seed_root)
    curve = evaluate.auroc_over_epochs(results, {2: np.array([0, 1, 0, 1, 0, 1.0]), 1: np.array([1, 0, 1, 0, 1, 0.0])})
    assert curve["epoch"].tolist() == [1, 2] and curve["auroc"].tolist() == [0.0, 1.0]


def test_brightness_correlation(seed_root):
    results = table(seed_root, [1, 2, 3, 4, 5, 6])
    assert evaluate.brightness_correlation(results, np.arange(6)) == pytest.approx(1)
    assert evaluate.brightness_correlation(results, -np.arange(6)) == pytest.approx(-1)


@pytest.mark.parametrize("value, verdict", [(0.696, "reached"), (0.694, "missed"), (0.80, "reached"), (0.81, "exceeded")])
def test_verdict_on_the_seeds_claims(value, verdict):
    assert compare._verdict({"auroc": value, "claim_low": 0.70, "claim_high": 0.80, "epochs": 100, "weights": "none"}) == verdict
