"""What a threshold does, against scikit-learn, and the thresholds to jump to."""
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix, precision_score, recall_score

from adlib.evaluation import conformal, verdicts

scored = st.lists(st.tuples(st.integers(0, 1), st.integers(-5, 5)), min_size=1, max_size=40)


@given(scored, st.integers(-6, 6))
def test_counts_are_scikit_learns(rows, threshold):
    labels, scores = (np.array(column) for column in zip(*rows, strict=True))
    found = verdicts.counts(labels, scores, threshold)
    passed, false_positives, missed, hits = confusion_matrix(labels, scores >= threshold,
                                                             labels=[0, 1]).ravel()
    assert (found.passed, found.false_positives, found.missed,
            found.found) == (passed, false_positives, missed, hits)
    for mine, its in ((found.precision, precision_score), (found.recall, recall_score)):
        assert mine == pytest.approx(its(labels, scores >= threshold, zero_division=np.nan),
                                     nan_ok=True)


def results(labels, scores, p_values):
    return pd.DataFrame({
        "path": [f"{i}.png" for i in range(len(labels))], "split": "test", "label": pd.array(
            labels,
            "Int64"), "defect": "", "score": np.asarray(scores, float), "p_value": np.asarray(
                p_values, float), "prediction": pd.array([None] * len(labels), "Int64")
    })


@given(st.lists(st.integers(-20, 20), min_size=1, max_size=30),
       st.lists(st.integers(-20, 20), min_size=19, max_size=40),
       st.sampled_from([0.05, 0.1, 0.3, 1.0]))
def test_the_asked_threshold_says_what_split_p_values_say(scores, held_out, rate):
    p_values = conformal.p_values(np.array(held_out, float), np.array(scores, float))
    threshold = verdicts.asked(results([None] * len(scores), scores, p_values), rate)
    assert ((np.array(scores) >= threshold) == (p_values <= rate)).all()


def test_where_the_orders_differ_the_fewest_images_change_sides():
    table = results([0] * 4, [1, 2, 3, 4], [0.5, 0.04, 0.2, 0.01])
    assert verdicts.asked(table, 0.05) == 3.5
    assert verdicts.asked(table, 0.001) == math.inf and verdicts.asked(table, 1) == 1
    assert math.isnan(verdicts.asked(results([0], [1], [math.nan]), 0.05))


def test_the_oracle_is_the_best_f1_and_needs_labels():
    table = results([0, 0, 1, 1], [1, 3, 2, 4], [0.9, 0.1, 0.5, 0.01])
    best = verdicts.oracle(table)
    assert best == 2 and verdicts.counts([0, 0, 1, 1], [1, 3, 2, 4], best) == verdicts.Counts(
        2, 0, 1, 1)
    assert math.isnan(verdicts.oracle(table.assign(label=pd.array([0] * 4, "Int64"))))
    assert verdicts.counts([0], [1], 2).fpr == 0 and math.isnan(verdicts.counts([0], [1], 2).recall)


@given(scored)
def test_the_cuts_part_the_scores_in_every_way_and_each_in_its_own(rows):
    scores = np.array([score for _, score in rows], float)
    cuts = verdicts.cuts(scores)
    parted = [tuple(scores >= cut) for cut in cuts]
    assert len(set(parted)) == len(cuts) == len(set(scores)) + 1 and list(cuts) == sorted(cuts)
    assert {tuple(scores >= level) for level in [*scores, np.inf]} == set(parted)


def test_a_pick_is_in_the_order_that_its_name_says():
    rows = pd.DataFrame(
        {"label": pd.array([1, 0, 1, 0, None], "Int64"), "score": [5.0, 4.0, 1.0, 9.0, 2.0]})
    order = {what: list(verdicts.pick(rows, what, 4.4).index) for what in verdicts.PICKS}
    assert order["worst misses"] == [2, 0] and order["worst false alarms"] == [3, 1]
    assert order["borderline"] == [1, 0, 4, 2, 3] and sorted(order["random"]) == [0, 1, 2, 3, 4]
    assert list(verdicts.pick(rows, "borderline", math.inf).index)[0] == 1  # nearest the median
    assert order["random"] == list(verdicts.pick(rows, "random", 0).index) != list(
        verdicts.pick(rows, "random", 0, seed=1).index)
