import math

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from adlib.config import InputError
from adlib.evaluation import auroc

# aSAH, 113 patients (Turck et al., Intensive Care Medicine 2010), as shipped with the R package
# pROC: 72 with a good outcome, then 41 with a poor one. The WFNS grade, and S100B in hundredths,
# read off pROC's published placements (tests/testthat/ helper-deLongPlacementsCpp-expected.R):
# where these leave the order within one outcome open it is arbitrary, and changes no result.
WFNS = "111151221221112121134141551124112212122111121211324214115422111312244111" "32455552521254425552525245441442255225555"
S100B = """13 14 10 4 45 17 10 10 4 8 4 9 11 7 17 7 11 13 18 4 16 14 34 9 50 46 16 7 43 47 11 8 9 8 4 13 10 14 15 5 5 9 5 9 8 16 9 8 33 11
    28 7 10 32 7 6 24 38 10 15 8 14 10 7 6 19 15 47 19 15 50 48
    13 10 16 12 44 52 49 7 33 9 7 41 35 48 56 25 58 70 71 7 71 30 3 9 22 74 26 77 8 27 13 10 11 23 82 14 86 32 96 207 44"""


def labelled(m, n):
    return np.r_[np.ones(m, int), np.zeros(n, int)]


def slow(labels, scores):
    """DeLong et al. 1988, equations 4 to 6, pair by pair: [K,N] -> AUROCs [K], covariance [K,K]."""
    pairs = np.array([[[1.0 if b > g else 0.5 if b == g else 0.0 for g in row[labels == 0]]
                       for b in row[labels == 1]] for row in scores])
    aucs = pairs.mean(axis=(1, 2))
    rows, columns = pairs.mean(axis=2) - aucs[:, None], pairs.mean(axis=1) - aucs[:, None]
    m, n = rows.shape[1], columns.shape[1]
    return aucs, rows @ rows.T / (m - 1) / m + columns @ columns.T / (n - 1) / n


def sets(seeds):
    """labels [N] with at least two of each class, and scores [seeds,N] with many ties."""
    rows = st.lists(st.tuples(st.integers(0, 1), *[st.integers(0, 5)] * seeds), min_size=5,
                    max_size=16)
    known = rows.filter(lambda rows: 2 <= sum(row[0] for row in rows) <= len(rows) - 2)
    return known.map(lambda rows: (np.array(rows).T[0], np.array(rows, float).T[1:]))


def test_delong_of_a_published_data_set():
    # The values pROC is tested with: tests/testthat/test-auc.R, test-var.R, test-cov.R and
    # test-roc.test.R.
    labels = np.r_[np.zeros(72, int), np.ones(41, int)]
    scores = np.array([[int(digit) for digit in WFNS], [int(word) for word in S100B.split()]],
                      float)
    aucs, covariance = auroc.delong_covariance(labels, scores)
    assert aucs == pytest.approx([0.823678861788618, 0.731368563685637], rel=1e-12)
    assert covariance.ravel() == pytest.approx(
        [0.00146991470882363, 0.00119615567376754, 0.00119615567376754, 0.00266868245717244],
        rel=1e-12)
    difference, p = auroc.paired_test(labels, *scores)
    assert p == pytest.approx(0.0271757822291882, rel=1e-12)
    # the middle of pROC's interval
    assert difference == pytest.approx((0.0104061769564846 + 0.174214419249478) / 2)


@settings(max_examples=60, deadline=None)
@given(sets(seeds=3))
def test_delong_is_its_definition(data):
    labels, scores = data
    aucs, covariance = auroc.delong_covariance(labels, scores)
    expected, expected_covariance = slow(labels, scores)
    assert aucs == pytest.approx(expected) and aucs == pytest.approx(
        [auroc.auroc(labels, row) for row in scores])
    assert covariance == pytest.approx(expected_covariance, abs=1e-12)


def test_one_class_and_one_image_of_a_class():
    for labels in ([0, 0, 0], [1, 1, 1]):
        with pytest.raises(ValueError, match="both classes"):
            auroc.delong_covariance(labels, [1.0, 2.0, 3.0])
    _, covariance = auroc.delong_covariance([1, 0, 0, 0], [2.0, 1, 2, 3])
    # the single bad image's own share is counted as 0
    assert covariance[0, 0] == pytest.approx(np.var([1, 0.5, 0], ddof=1) / 3)
    assert auroc.delong_covariance([1, 0], [2.0, 1])[1].tolist() == [[0]]
    assert auroc.auroc_interval([1, 0, 0, 0], np.arange(4.0)) == (0, 1)
    assert auroc.auroc_interval([1, 1, 1, 0], np.arange(4.0)) == (0, 1)


@pytest.mark.parametrize(
    "auc, m, n, error",
    [
        # the R package auctestr, ?se_auc
        (0.75, 20, 200, 0.06498283),
        (0.75, 110, 110, 0.03282048),
        (0.75, 20, 20, 0.07789072),
        # real-statistics.com, "AUC Confidence Interval", Example 1
        (0.889515, 527, 279, (0.911263 - 0.867767) / 2 / 1.959964),
        (0.893, 51, 58, 0.032)
    ])  # the paper itself: 109 CT images
def test_hanley_mcneil_against_published_standard_errors(auc, m, n, error):
    assert auroc.hanley_mcneil(auc, m, n)**0.5 == pytest.approx(
        error, abs=6e-4 if error == 0.032 else 2e-8 if m < 500 else 1e-6)


def test_hanley_mcneil_knows_no_direction():
    assert auroc.hanley_mcneil(0.9, 15, 40) == pytest.approx(auroc.hanley_mcneil(0.1, 40, 15))


@settings(max_examples=60, deadline=None)
@given(sets(seeds=2))
def test_interval_holds_the_auroc(data):
    labels, scores = data
    for given_scores in (scores[0], scores):
        aucs, _ = auroc.delong_covariance(labels, given_scores)
        low, high = auroc.auroc_interval(labels, given_scores)
        assert 0 <= low <= aucs.mean() <= high <= 1 and low < high
        wide = auroc.auroc_interval(labels, given_scores, level=0.99)
        assert wide[0] <= low and high <= wide[1]


@settings(max_examples=60, deadline=None)
@given(sets(seeds=1))
def test_interval_upside_down(data):
    labels, scores = data
    low, high = auroc.auroc_interval(labels, scores[0])
    assert auroc.auroc_interval(1 - labels, scores[0]) == pytest.approx((1 - high, 1 - low))
    if abs(auroc.auroc(labels, scores[0]) - 0.5) < 0.5 - 0.25 / min(labels.sum(),
                                                                      len(labels) - labels.sum()):
        # Nearer to the ends the variance may be Hanley and McNeil's, which tells the classes apart.
        assert auroc.auroc_interval(labels, -scores[0]) == pytest.approx((1 - high, 1 - low))


@settings(max_examples=60, deadline=None)
@given(sets(seeds=1), st.integers(2, 6))
def test_more_images_are_surer(data, times):
    labels, scores = data
    low, high = auroc.auroc_interval(labels, scores[0])
    assume((low, high) != (0, 1))
    more = auroc.auroc_interval(np.tile(labels, times), np.tile(scores[0], times))
    assert more[1] - more[0] < high - low


def test_interval_is_delongs_on_the_logit_scale():
    rng = np.random.default_rng(0)
    labels, scores = labelled(20, 30), rng.normal(size=(3, 50)) + labelled(20, 30)
    for rows in (scores[:1], scores):
        aucs, covariance = slow(labels, rows)
        auc = aucs.mean()
        low, high = auroc.auroc_interval(labels, rows)
        half = 1.959964 * covariance.mean()**0.5 / (auc * (1 - auc))
        assert [np.log(x / (1 - x)) for x in (low, high)] == pytest.approx(
            [np.log(auc / (1 - auc)) + side * half for side in (-1, 1)])


def test_interval_of_several_seeds_is_that_of_their_mean_auroc():
    rng = np.random.default_rng(1)
    labels = labelled(20, 30)
    shared, own = rng.normal(size=50) + labels, rng.normal(size=(5, 50))
    one = auroc.auroc_interval(labels, shared)
    # five times the same seed says nothing new
    assert auroc.auroc_interval(labels, np.tile(shared, (5, 1))) == pytest.approx(one)
    alone, mean = auroc.auroc_interval(labels, shared + own[0]), auroc.auroc_interval(labels, shared + own)
    assert mean[1] - mean[0] < alone[1] - alone[0]


def test_perfect_separation_is_not_certainty():
    low, high = auroc.auroc_interval([0] * 20 + [1] * 5, np.arange(25.0))
    assert high == 1 and 0.4 < low < 0.9
    more_low, more_high = auroc.auroc_interval([0] * 200 + [1] * 50, np.arange(250.0))
    assert more_high == 1 and low < more_low < 1


def test_equal_scores_say_nothing():
    assert auroc.auroc_interval([0, 0, 0, 1, 1, 1], np.ones(6)) == (0, 1)
    assert auroc.auroc_interval([0, 0, 0, 1, 1, 1], np.ones((2, 6))) == (0, 1)


@pytest.mark.parametrize("auc", [0.9, 0.97])
def test_interval_covers(auc):
    rng, labels = np.random.default_rng(2), labelled(15, 40)
    shift = {0.9: 1.812388, 0.97: 2.659847}[auc]  # sqrt(2) times the normal quantile
    scores = rng.normal(size=(600, 55)) + shift * labels
    intervals = np.array([auroc.auroc_interval(labels, row) for row in scores])
    covered = (intervals[:, 0] <= auc) & (auc <= intervals[:, 1])
    assert covered.mean() >= 0.92
    assert np.diff(intervals).mean() < 0.3  # and not by saying nothing


def bootstrapped(labels, scores, repeats=600):
    """The stratified percentile bootstrap's interval."""
    rng, good, bad = np.random.default_rng(0), scores[labels == 0], scores[labels == 1]
    pairs = (bad[:, None] > good) + 0.5 * (bad[:, None] == good)
    means = [pairs[np.ix_(rng.integers(len(bad), size=len(bad)),
                          rng.integers(len(good), size=len(good)))].mean() for _ in range(repeats)]
    return np.quantile(means, [0.025, 0.975])


def test_the_bootstrap_gives_the_same_interval():
    rng, labels = np.random.default_rng(3), labelled(40, 60)
    for _ in range(3):
        scores = rng.normal(size=100) + 1.2 * labels
        for some in (scores, np.round(scores)):
            assert bootstrapped(labels, some) == pytest.approx(
                auroc.auroc_interval(labels, some), abs=0.03)


@settings(max_examples=60, deadline=None)
@given(sets(seeds=2))
def test_a_test_has_two_sides_and_looks_at_ranks_only(data):
    labels, (a, b) = data
    difference, p = auroc.paired_test(labels, a, b)
    assert 0 <= p <= 1 and difference == pytest.approx(
        auroc.auroc(labels, a) - auroc.auroc(labels, b))
    assert auroc.paired_test(labels, b, a) == pytest.approx((-difference, p))
    assert auroc.paired_test(labels, np.exp(a), 3 * b**3 - 7) == (difference, p)
    assert auroc.paired_test(1 - labels, a, b) == pytest.approx((-difference, p))
    assert auroc.paired_test(labels, a, 2 * a + 1) == (0, 1)
    turned = labels[::-1], a[::-1], b[::-1]
    assert auroc.paired_test(*turned) == pytest.approx((difference, p))


def test_seeds_are_compared_by_their_means():
    rng, labels = np.random.default_rng(4), labelled(12, 20)
    a, b = rng.normal(size=(3, 32)) + labels, rng.normal(size=(2, 32)) + 2 * labels
    aucs, covariance = slow(labels, np.concatenate([a, b]))
    weights = np.array([1, 1, 1, 0, 0]) / 3 - np.array([0, 0, 0, 1, 1]) / 2
    difference, p = auroc.paired_test(labels, a, b)
    assert difference == pytest.approx(weights @ aucs)
    z = abs(difference) / (weights @ covariance @ weights)**0.5
    assert p == pytest.approx(math.erfc(z / 2**0.5))
    # the same seeds in another order
    assert auroc.paired_test(labels, a, a[[2, 0, 1]]) == pytest.approx((0, 1), abs=1e-6)
    assert auroc.paired_test(labels, np.tile(a[0], (4, 1)), b[0]) == pytest.approx(
        auroc.paired_test(labels, a[0], b[0]))


def test_differences_without_variance():
    labels, scores = labelled(3, 4), np.r_[5.0, 6, 7, 1, 2, 3, 4]
    assert auroc.paired_test(labels, scores, scores**2) == (0, 1)
    assert auroc.paired_test(labels, scores, -scores) == (1, 0)
    assert auroc.paired_test(labels, np.ones(7), np.zeros(7)) == (0, 1)


@pytest.mark.parametrize("shift", [1.0, 1.8])
def test_rejects_five_percent_of_true_nulls(shift):
    rng, labels = np.random.default_rng(5), labelled(40, 60)
    part = rng.normal(size=(800, 1, 100))
    # two equally good detectors that see the same images
    scores = part + rng.normal(size=(800, 2, 100)) + 2**0.5 * shift * labels
    p = np.array([auroc.paired_test(labels, a, b)[1] for a, b in scores])
    assert 0.03 < (p < 0.05).mean() < 0.075
    assert 0.43 < (p < 0.5).mean() < 0.57


def test_holm_worked_example():
    # en.wikipedia.org, "Holm-Bonferroni method": of .01, .04, .03, .005 at 5 % only the first and
    # the last are rejected.
    assert auroc.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert auroc.holm([0.5, 0.9]).tolist() == [1, 1] and auroc.holm(
        [0.2]).tolist() == [0.2] and len(auroc.holm([])) == 0


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.one_of(st.just(np.nan),
                       st.integers(0, 1000).map(lambda i: i / 1000)), max_size=8))
def test_holm_laws(p_values):
    adjusted, p = auroc.holm(p_values), np.array(p_values, float)
    known = ~np.isnan(p)
    assert (np.isnan(adjusted) == ~known).all()
    assert (adjusted[known] >= p[known]).all() and (adjusted[known] <= 1).all()
    assert (np.diff(adjusted[known][np.argsort(p[known], kind="stable")]) >= 0).all()
    # what is not known is not counted
    assert auroc.holm(p[known]).tolist() == adjusted[known].tolist()
    assert auroc.holm(p[::-1])[::-1][known] == pytest.approx(adjusted[known])
    # Holm's own procedure: step down, stop at the first that is not below alpha / (those left)
    alpha, rejected = 0.0503, set()
    for step, i in enumerate(sorted(np.flatnonzero(known), key=lambda i: p[i])):
        if p[i] > alpha / (known.sum() - step):
            break
        rejected.add(int(i))
    assert rejected == set(np.flatnonzero(adjusted <= alpha).tolist())


def test_matrix_has_every_pair_once():
    rng, labels = np.random.default_rng(6), labelled(20, 30)
    scores = {
        name: rng.normal(size=50) + shift * labels
        for name, shift in (("good", 2.0), ("fair", 1.0), ("poor", 0.0))
    }
    found = auroc.pairwise_tests(labels, scores)
    assert list(found.columns) == ["a", "b", "difference", "p", "p_holm"]
    assert list(zip(found["a"], found["b"], strict=True)) == [("good", "fair"), ("good", "poor"),
                                                              ("fair", "poor")]
    for row in found.itertuples():
        assert (row.difference, row.p) == auroc.paired_test(labels, scores[row.a], scores[row.b])
    assert found["p_holm"].tolist() == auroc.holm(found["p"]).tolist()
    assert auroc.pairwise_tests(labels, {"good": scores["good"]}).empty
    assert list(auroc.pairwise_tests(labels, {}).columns) == list(found.columns)


def test_bad_input():
    with pytest.raises(auroc.OneClassError, match="3 good and 0 anomalous"):
        auroc.auroc([0, 0, 0], [1.0, 2.0, 3.0])
    with pytest.raises(InputError, match="not finite"):
        auroc.auroc([0, 1], [1.0, np.nan])
    with pytest.raises(ValueError, match="one length"):
        auroc.auroc([0, 1, 1], [1.0, 2.0])
    labels, broken = np.array([0, 0, 1, 1]), np.array([np.nan, 1, 2, 3])
    for uncertain in (auroc.auroc_interval,
                      lambda *given: auroc.paired_test(*given, np.arange(4.0))):
        with pytest.raises(InputError, match="1 of . scores are not finite"):
            uncertain(labels, broken)
        with pytest.raises(ValueError, match="0 .good. or 1 .anomalous."):  # -1: it has no label
            uncertain(np.array([0, 0, 1, -1]), np.arange(4.0))


@pytest.mark.parametrize("labels", [[0, 1, 2], [0, 1, np.nan], [0, 0.5, 1], ["good", "bad", "bad"]])
def test_labels_are_0_or_1(labels):
    with pytest.raises(ValueError, match="0 .good. or 1 .anomalous."):
        auroc.auroc(labels, [1.0, 2.0, 3.0])


@settings(max_examples=60, deadline=None)
@given(sets(seeds=1))
def test_the_numbers_are_scikit_learns(data):
    labels, (scores,) = data
    assert [auroc.auroc(labels, scores), auroc.auroc(1 - labels, -scores)] == pytest.approx(
        [sklearn.metrics.roc_auc_score(labels, scores)] * 2)
    for ours, theirs in zip(auroc.roc_curve(labels, scores),
                            sklearn.metrics.roc_curve(labels, scores), strict=True):
        np.testing.assert_allclose(ours, theirs)
