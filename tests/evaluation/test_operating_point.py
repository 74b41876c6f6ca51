"""What a threshold does, against scikit-learn, and the thresholds to jump to."""
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix, f1_score

from adlib.evaluation import operating_point, results
from adlib.evaluation.conformal import Threshold

scored = st.lists(st.tuples(st.integers(0, 1), st.integers(-5, 5)), min_size=1, max_size=40)


@given(scored, st.integers(-6, 6))
def test_counts_are_scikit_learns(rows, threshold):
    labels, scores = (np.array(column) for column in zip(*rows, strict=True))
    counted = operating_point.counts(labels, scores, threshold)
    passed, false_positives, missed, hits = confusion_matrix(labels, scores > threshold,
                                                             labels=[0, 1]).ravel()
    assert (counted["passed"], counted["false_positives"], counted["missed"],
            counted["found"]) == (passed, false_positives, missed, hits)
    for name, some, rest in (("precision", hits, false_positives), ("recall", hits, missed),
                             ("fpr", false_positives, passed)):
        np.testing.assert_equal(counted[name], some / (some + rest) if some + rest else math.nan)


@given(st.lists(st.integers(-20, 20), min_size=1, max_size=30),
       st.lists(st.integers(-20, 20), min_size=19, max_size=40),
       st.sampled_from([0.05, 0.1, 0.3, 0.9]))
def test_it_counts_what_the_label_free_threshold_calls_anomalous(scores, held_out, rate):
    threshold = Threshold(np.array(held_out, float), rate)
    counted = operating_point.counts([0] * len(scores), scores, threshold.value)
    assert counted["false_positives"] == threshold.exceeded(scores).sum() == (
        threshold.p_values(np.array(scores, float)) <= rate).sum()


def test_a_rate_of_nothing_is_not_a_number():
    assert operating_point.counts([0], [1], 2)["fpr"] == 0
    assert math.isnan(operating_point.counts([0], [1], 2)["recall"])
    assert math.isnan(operating_point.counts([0], [1], 2)["precision"])


@given(scored)
def test_the_oracle_is_the_best_f1_and_that_of_the_run_and_needs_labels(rows):
    labels, scores = (np.array(column, float) for column in zip(*rows, strict=True))
    best = operating_point.oracle(labels, scores)
    if not 0 < labels.sum() < len(labels):
        assert math.isnan(best)
        return
    assert f1_score(labels, scores > best) == pytest.approx(
        max(f1_score(labels, scores >= level) for level in scores))
    table = pd.DataFrame({"split": "test", "label": pd.array(labels.astype(int), "Int64"),
                          "score": scores, "prediction": pd.array([None] * len(rows), "Int64")})
    reported = results.operating_of(table)["test"]["oracle_f1"]["threshold"]
    assert ((scores > best) == (scores >= reported)).all()


@given(scored)
def test_the_cuts_part_the_scores_in_every_way_and_each_in_its_own(rows):
    scores = np.array([score for _, score in rows], float)
    cuts = operating_point.cuts(scores)
    parted = [tuple(scores > cut) for cut in cuts]
    assert len(set(parted)) == len(cuts) == len(set(scores)) + 1 and list(cuts) == sorted(cuts)
    assert {tuple(scores > level) for level in [*scores, -np.inf]} == set(parted)


def test_neighbouring_floats_are_parted():
    scores = np.array([1.0, np.nextafter(1.0, 2), np.nextafter(np.nextafter(1.0, 2), 2)])
    assert [int((scores > cut).sum()) for cut in operating_point.cuts(scores)] == [3, 2, 1, 0]
    assert operating_point.oracle([0, 1, 1], scores) == 1


def test_a_cut_is_midway_and_the_oracle_the_lowest_of_the_best():
    assert operating_point.cuts([4, 1, 3, 3]).tolist() == [-math.inf, 2, 3.5, math.inf]
    # F1 is two thirds with one of two found and no false alarm, and with both and two
    assert operating_point.oracle([1, 0, 0, 1], [1, 2, 3, 4]) == -math.inf
