import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from adlib.config import InputError
from adlib.evaluation import metrics


def brute_force(labels, scores):
    bad, good = scores[labels == 1], scores[labels == 0]
    return np.mean([[1.0 if b > g else 0.5 if b == g else 0.0 for g in good] for b in bad])


scored = st.lists(
    st.tuples(st.integers(0, 1), st.integers(0, 5)), min_size=6,
    max_size=40).filter(lambda rows: 2 <= sum(label for label, _ in rows) <= len(rows) - 2)


@settings(max_examples=60, deadline=None)
@given(scored)
def test_auroc_is_the_share_of_pairs_ranked_right(rows):
    labels, scores = np.array(rows).T
    assert metrics.auroc(labels, scores) == pytest.approx(brute_force(labels, scores))
    assert metrics.auroc(1 - labels, -scores) == pytest.approx(metrics.auroc(labels, scores))


def test_bad_input():
    with pytest.raises(metrics.OneClassError, match="3 good and 0 anomalous"):
        metrics.auroc([0, 0, 0], [1.0, 2.0, 3.0])
    with pytest.raises(InputError, match="not finite"):
        metrics.auroc([0, 1], [1.0, np.nan])
    with pytest.raises(ValueError, match="one length"):
        metrics.auroc([0, 1, 1], [1.0, 2.0])


@pytest.mark.parametrize("labels", [[0, 1, 2], [0, 1, np.nan], [0, 0.5, 1], ["good", "bad", "bad"]])
def test_labels_are_0_or_1(labels):
    with pytest.raises(ValueError, match="0 .good. or 1 .anomalous."):
        metrics.auroc(labels, [1.0, 2.0, 3.0])


def test_roc_curve_has_the_area_of_auroc():
    rng = np.random.default_rng(2)
    labels, scores = rng.integers(0, 2, 50), rng.integers(0, 9, 50)
    fpr, tpr, thresholds = metrics.roc_curve(labels, scores)
    assert len(fpr) == len(tpr) == len(thresholds) and (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0,
                                                                                              1, 1)
    assert np.sum(np.diff(fpr) * (tpr[1:] + tpr[:-1]) / 2) == pytest.approx(
        metrics.auroc(labels, scores))


@settings(max_examples=60, deadline=None)
@given(scored)
def test_the_numbers_are_scikit_learns(rows):
    labels, scores = np.array(rows).T
    assert metrics.auroc(labels, scores) == pytest.approx(
        sklearn.metrics.roc_auc_score(labels, scores))
    for ours, theirs in zip(metrics.roc_curve(labels, scores),
                            sklearn.metrics.roc_curve(labels, scores), strict=True):
        np.testing.assert_allclose(ours, theirs)
