import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adlib import metrics
from adlib.config import InputError


def brute_force(labels, scores):
    bad, good = scores[labels == 1], scores[labels == 0]
    return np.mean([[1.0 if b > g else 0.5 if b == g else 0.0 for g in good] for b in bad])


scored = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 5)), min_size=6, max_size=40).filter(
    lambda rows: 2 <= sum(label for label, _ in rows) <= len(rows) - 2)


@settings(max_examples=60, deadline=None)
@given(scored)
def test_auroc_is_the_share_of_pairs_ranked_right(rows):
    labels, scores = np.array(rows).T
    assert metrics.auroc(labels, scores) == pytest.approx(brute_force(labels, scores))
    assert metrics.auroc(1 - labels, -scores) == pytest.approx(metrics.auroc(labels, scores))


@settings(max_examples=60, deadline=None)
@given(scored)
def test_interval_holds_the_value(rows):
    labels, scores = np.array(rows).T
    low, high = metrics.delong_interval(labels, scores)
    assert 0 <= low <= metrics.auroc(labels, scores) <= high <= 1


def test_delong_variance_against_its_definition():
    # DeLong et al. 1988, equations 4 to 6, written out pair by pair.
    rng = np.random.default_rng(0)
    labels = np.r_[np.ones(15, int), np.zeros(40, int)]
    scores = np.round(np.r_[rng.normal(1, 1, 15), rng.normal(0, 1, 40)], 1)  # rounded, so that there are ties
    bad, good = scores[:15], scores[15:]
    kernel = (bad[:, None] > good) + 0.5 * (bad[:, None] == good)
    variance = kernel.mean(1).var(ddof=1) / 15 + kernel.mean(0).var(ddof=1) / 40
    low, high = metrics.delong_interval(labels, scores)
    assert (high - low) / 2 == pytest.approx(1.959964 * np.sqrt(variance), rel=1e-6)


def test_delong_against_the_stratified_bootstrap():
    rng = np.random.default_rng(1)
    bad, good = rng.normal(0.8, 1, 30), rng.normal(0, 1, 50)
    labels = np.r_[np.ones(30, int), np.zeros(50, int)]
    draws = [brute_force(labels, np.r_[rng.choice(bad, 30), rng.choice(good, 50)]) for _ in range(400)]
    low, high = metrics.delong_interval(labels, np.r_[bad, good])
    assert (high - low) / 2 / 1.96 == pytest.approx(np.std(draws), rel=0.15)


def test_perfect_separation_is_not_certainty():
    low, high = metrics.delong_interval([0] * 20 + [1] * 5, np.arange(25.0))
    assert high == 1 and 0.4 < low < 0.6
    low, high = metrics.delong_interval([1] * 5 + [0] * 20, np.arange(25.0))
    assert low == 0 and 0.4 < high < 0.6


def test_bad_input():
    with pytest.raises(metrics.OneClassError, match="3 good and 0 anomalous"):
        metrics.auroc([0, 0, 0], [1.0, 2.0, 3.0])
    with pytest.raises(InputError, match="not finite"):
        metrics.auroc([0, 1], [1.0, np.nan])
    with pytest.raises(ValueError, match="one length"):
        metrics.auroc([0, 1, 1], [1.0, 2.0])


def test_equal_scores_say_nothing():
    assert metrics.delong_interval([0, 0, 0, 1, 1, 1], np.ones(6)) == (0.0, 1.0)


@pytest.mark.parametrize("labels", [[0, 1, 2], [0, 1, np.nan], [0, 0.5, 1], ["good", "bad", "bad"]])
def test_labels_are_0_or_1(labels):
    with pytest.raises(ValueError, match="0 .good. or 1 .anomalous."):
        metrics.auroc(labels, [1.0, 2.0, 3.0])


def test_roc_curve_has_the_area_of_auroc():
    rng = np.random.default_rng(2)
    labels, scores = rng.integers(0, 2, 50), rng.integers(0, 9, 50)
    fpr, tpr, thresholds = metrics.roc_curve(labels, scores)
    assert len(fpr) == len(tpr) == len(thresholds) and (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)
    assert np.sum(np.diff(fpr) * (tpr[1:] + tpr[:-1]) / 2) == pytest.approx(metrics.auroc(labels, scores))
