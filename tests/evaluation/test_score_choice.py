"""Which score is used: the one that tells synthetic anomalies best, and how sure that is."""
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from adlib.evaluation import auroc, calibration


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 8), st.integers(1, 5), st.integers(1, 9), st.integers(0, 99))
def test_label_free_is_the_mean_over_the_kinds(n_good, n_a, n_b, seed):
    rng = np.random.default_rng(seed)
    names = ["squared.mean", "ssim.max"]
    good = pd.DataFrame(rng.integers(0, 5, (n_good, 2)).astype(float), columns=names)
    anomalous = pd.DataFrame(rng.integers(1, 7, (n_a + n_b, 2)).astype(float), columns=names)
    kinds = rng.permutation(["scratch"] * n_a + ["perlin"] * n_b).tolist()
    found = calibration.label_free(good, anomalous, kinds)
    assert found["score"].tolist() == names
    assert set(found.columns) == {"score", "all", "scratch", "perlin"}
    for row in found.to_dict("records"):
        for kind in ("scratch", "perlin"):
            values = anomalous[row["score"]][[k == kind for k in kinds]]
            assert row[kind] == pytest.approx(
                roc_auc_score([0] * n_good + [1] * len(values), [*good[row["score"]], *values]))
        # However many there are of each.
        assert row["all"] == pytest.approx((row["scratch"] + row["perlin"]) / 2)


def scores_of(shifts, n=40, seed=0):
    """Good and anomalous tables of scores that separate them by `shifts` deviations; two kinds,
    the same noise in every column."""
    rng = np.random.default_rng(seed)
    good, bad = rng.normal(size=n), rng.normal(size=n)
    noise = {name: (0.1 * rng.normal(size=n), 0.1 * rng.normal(size=n)) for name in shifts}
    return (pd.DataFrame({name: good + noise[name][0] for name in shifts}),
            pd.DataFrame({name: bad + shift + noise[name][1] for name, shift in shifts.items()}),
            ["a", "b"] * (n // 2))


def chosen(shifts, n=40, seed=0, reference="own"):
    return calibration.choose(calibration.label_free(*scores_of(shifts, n, seed)), reference)


def test_the_best_score_is_chosen():
    assert chosen({"own": 0.3, "poor": 0.0, "better": 2.0}) == "better"
    assert chosen({"better": 2.0, "own": 0.3}) == "better"
    assert chosen({"own": 2.0, "poor": 0.3}) == "own"


def test_the_reference_score_stays_where_none_is_better():
    good, anomalous, kinds = scores_of({"own": 1.0})
    good["same"], anomalous["same"] = good["own"], anomalous["own"]
    for order in (["own", "same"], ["same", "own"]):  # a tie, whichever comes first
        ranking = calibration.label_free(good[order], anomalous[order], kinds)
        assert calibration.choose(ranking, "own") == "own"


def test_a_choice_is_sure_where_the_exam_tells_it_apart_from_every_other():
    shifts = {"better": 2.0, "as good": 1.97, "poor": 0.2}
    good, bad, _ = scores_of(shifts)
    both, labels = pd.concat([good, bad]), np.repeat([0, 1], len(good))
    scores = {name: both[name].to_numpy() for name in both}
    assert auroc.undecided("better", labels, scores) == ["as good"]
    assert auroc.undecided("better", labels, {name: scores[name] for name in (
        "better", "poor")}) == []
    one = {name: each[len(good) - 1:] for name, each in scores.items()}  # a single good image
    assert auroc.undecided("better", labels[len(good) - 1:], one) == ["as good", "poor"]
