import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from adlib.evaluation import conformal
from adlib.evaluation.conformal import TailThreshold, Threshold

scores = st.lists(st.integers(0, 12), min_size=1,
                  max_size=40).map(lambda values: np.array(values, float))
rates = st.integers(1, 99).map(lambda percent: percent / 100)


def test_p_values_by_hand():
    calibration = np.array([3.0, 1, 2, 2])
    # ties count
    assert conformal.p_values(calibration, [0, 1, 1.5, 2, 2.5, 3, 4]) == pytest.approx(
        np.array([5, 5, 4, 4, 2, 2, 1]) / 5)
    # nothing to compare with: nothing is anomalous
    assert conformal.p_values([], [7.0, 8.0]).tolist() == [1, 1]
    assert len(conformal.p_values(calibration, [])) == 0


@settings(max_examples=100, deadline=None)
@given(scores, scores)
def test_p_values_are_their_definition(calibration, images):
    expected = [(1 + sum(calibration >= score)) / (len(calibration) + 1) for score in images]
    found = conformal.p_values(calibration, images)
    assert found.tolist() == expected and (0 < found).all() and (found <= 1).all()
    # only the order counts
    assert conformal.p_values(calibration**3 - 5, images**3 - 5).tolist() == expected
    assert conformal.p_values(calibration[::-1], images).tolist() == expected


@settings(max_examples=100, deadline=None)
@given(scores, scores, rates)
def test_exceeded_says_what_the_p_values_say(calibration, images, rate):
    threshold = Threshold(calibration, rate)
    assert (threshold.exceeded(images) == (threshold.p_values(images) <= rate)).all()
    assert (threshold.exceeded(images) == (images > threshold.value)).all()
    assert math.isinf(threshold.value) == (not threshold.is_attainable)
    assert threshold.value in calibration or threshold.value == math.inf


# Where the rate times n + 1 is a whole number the product may come out just below it, as 1/49 of 49
# does: the two sides must still round alike.
def test_exceeded_says_so_for_every_rate_that_the_images_can_support():
    for n in range(1, 121):
        calibration = np.random.default_rng(n).permutation(n) + 0.5  # of 0.5 to n - 0.5
        for k in range(1, n + 1):
            threshold = Threshold(calibration, k / (n + 1))
            # k - 1 of them reach it: with its own it is the k-th
            assert threshold.rank == k and threshold.value == n - k + 0.5
            assert threshold.is_attainable
        p = threshold.p_values(np.arange(n + 1.0))
        assert p.tolist() == [(1 + n - i) / (n + 1) for i in range(n + 1)]
        for k in (1, (n + 1) // 2, n):
            assert (Threshold(calibration, k / (n + 1)).exceeded(np.arange(n + 1.0)) == (
                p <= k / (n + 1))).all()
        assert conformal.min_calibration_size(1 / (n + 1)) == n


@settings(max_examples=100, deadline=None)
@given(scores, scores, rates, rates)
def test_at_another_rate_the_images_stay_and_a_higher_rate_calls_more(calibration, images, low,
                                                                      high):
    low, high = sorted((low, high))
    threshold = Threshold(calibration, low, "cross-conformal")
    other = threshold.at(high)
    assert (other.target_fpr, other.how) == (high, "cross-conformal")
    assert other.calibration is threshold.calibration and other.at(low).value == threshold.value
    assert other.value == Threshold(calibration, high).value <= threshold.value
    assert (threshold.exceeded(images) <= other.exceeded(images)).all()
    assert threshold.p_values(images).tolist() == other.p_values(images).tolist()


@settings(max_examples=100, deadline=None)
@given(scores, rates)
def test_at_most_the_asked_share_of_the_calibration_images_is_called(calibration, rate):
    threshold = Threshold(calibration, rate)
    assert threshold.exceeded(calibration).sum() <= rate * (len(calibration) + 1) + 1e-9


def test_without_calibration_images_nothing_is_called_and_nothing_is_known():
    threshold = Threshold(np.zeros(0), 0.05, "none")
    assert math.isinf(threshold.value) and not threshold.is_attainable
    assert not threshold.exceeded([1e300, -1.0]).any()
    assert np.isnan(threshold.p_values([1.0, 2.0])).all() and len(threshold.p_values([])) == 0


def test_a_rate_of_next_to_nothing_takes_more_images_than_anybody_has():
    assert conformal.min_calibration_size(1e-320) == 10**12 - 1
    assert not Threshold(np.arange(99.0), 1e-320).is_attainable


@pytest.mark.parametrize("rate, fewest", [(0.05, 19), (0.01, 99), (0.1, 9), (0.5, 1), (0.03, 33),
                                          (1 / 3, 2)])
def test_the_fewest_good_images(rate, fewest):
    assert conformal.min_calibration_size(rate) == fewest
    enough, fewer = (Threshold(np.arange(float(n)), rate) for n in (fewest, fewest - 1))
    assert enough.is_attainable and not fewer.is_attainable
    assert enough.value == fewest - 1 and fewer.value == math.inf
    assert conformal.p_values(np.zeros(fewest), [1.0])[0] <= rate < conformal.p_values(
        np.zeros(fewest - 1), [1.0])[0]


@pytest.mark.parametrize("n, rate, digits", [(19, 0.05, 9), (25, 0.1, 9), (40, 0.2, 9),
                                             (25, 0.1, 0)])
def test_good_images_are_rarely_called(n, rate, digits):
    drawn = np.round(np.random.default_rng(n).normal(size=(4000, n + 1)), digits)
    called = np.mean([conformal.p_values(row[:n], row[n:])[0] <= rate for row in drawn])
    error = (rate * (1 - rate) / len(drawn))**0.5
    assert called <= rate + 3 * error
    if digits == 9:  # without ties the rate is floor(rate (n+1)) / (n+1) exactly
        assert called == pytest.approx(math.floor(rate * (n + 1) + 1e-9) / (n + 1), abs=3 * error)


def test_cross_conformal_false_positives():
    # A nearest-neighbour detector: its own images score 0, so that only images it has not seen can
    # calibrate it.
    rng, rate, called, naive = np.random.default_rng(7), 0.1, [], []

    def nearest(images, good):
        return np.linalg.norm(images[:, None] - good, axis=2).min(axis=1)

    for seed in range(150):
        good, images = rng.normal(size=(30, 2)), rng.normal(size=(20, 2))
        held = np.concatenate([nearest(good[out], good[fit])
                               for fit, out in conformal.folds(30, 5, seed)])
        test = nearest(images, good)
        called.extend(Threshold(held, rate, "cross-conformal").exceeded(test))
        naive.extend(Threshold(nearest(good, good), rate).exceeded(test))
    assert 0.5 * rate < np.mean(called) < 1.2 * rate
    assert np.mean(naive) == 1


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 60), st.integers(1, 8), st.integers(0, 5))
def test_each_image_is_held_once(n, k, seed):
    folds = conformal.folds(n, k, seed)
    assert len(folds) == k and sorted(np.concatenate([held for _, held in folds]).tolist()) == list(
        range(n))
    sizes = [len(held) for _, held in folds]
    assert max(sizes) - min(sizes) <= 1
    for fit, held in folds:
        assert fit.dtype == held.dtype == np.int64
        assert sorted([*fit, *held]) == list(
            range(n)) and (np.diff(fit) > 0).all() and (np.diff(held) > 0).all()
    again = conformal.folds(n, k, seed)
    assert all((a == b).all() for one, other in zip(folds, again, strict=True)
               for a, b in zip(one, other, strict=True))


def test_folds_are_shuffled():
    held = [tuple(conformal.folds(40, 5, seed)[0][1]) for seed in range(3)]
    assert len(set(held)) == 3 and tuple(range(0, 40, 5)) not in held


def test_the_least_rate_that_is_told_can_be_asked_for_and_hardly_less():
    for n in (*range(1, 300), 999, 1000, 1249, 1999, 12345, 30000):
        threshold = Threshold(np.arange(n, dtype=float), 0.05)
        least = threshold.least_target_fpr
        assert float(f"{least:g}") == least and threshold.at(least).is_attainable
        assert math.isfinite(threshold.at(least).value)
        assert not threshold.at(0.99 * least).is_attainable
    assert Threshold(np.zeros(0), 0.05).least_target_fpr == 1
    assert Threshold(np.zeros(1999), 0.05).least_target_fpr == 0.0005  # and not 0.000501


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 80), st.floats(0, 1), st.sampled_from([0.9, 0.95, 0.99]))
def test_rate_interval_is_clopper_and_pearsons(n, share, level):
    hits = round(share * n)
    low, high = conformal.rate_interval(hits, n, level=level)
    assert low <= (hits / n if n else 0.5) <= high
    expected = stats.binomtest(hits, n).proportion_ci(level, method="exact") if n else (0, 1)
    assert (low, high) == pytest.approx(tuple(expected), abs=1e-9)
    assert conformal.rate_interval(n - hits, n, level=level) == pytest.approx((1 - high, 1 - low))


def test_the_tail_threshold_finds_the_quantile_of_an_exponential_tail():
    drawn = np.random.default_rng(0).exponential(2.0, 4000) + 5
    threshold = TailThreshold(drawn[:80], 0.001)
    assert threshold.value == pytest.approx(5 + 2 * np.log(1000), rel=0.25)
    assert threshold.value >= drawn[:80].max() and not threshold.exceeded(drawn[:80]).any()
    assert threshold.exceeded(drawn[80:]).mean() < 0.01


@pytest.mark.parametrize("calibration", [np.r_[1.0, 2, 3, 4, 5, 6, 7, 8, 9, 10],
                                         np.r_[np.ones(30), 50.0], np.ones(12)])
def test_the_tails_p_values_say_the_same_as_the_threshold(calibration):
    threshold = TailThreshold(calibration, 0.001)
    values = np.sort(np.r_[np.linspace(0, 200, 4001), calibration, threshold.value])
    p = threshold.p_values(values)
    assert (np.diff(p) <= 1e-12).all() and (p >= 0).all() and (p <= 1).all()
    beyond = threshold.exceeded(values)
    assert (p[beyond] <= 0.001 + 1e-12).all()
    assert (p[values < threshold.value * (1 - 1e-9)] > 0.001).all()


def test_the_tail_by_hand():
    """The upper quarter of 13 begins at the tenth, and three are beyond it, by 1, 2 and 9."""
    values = np.array([9.0, 1, 2, 3, 4, 5, 16, 5.5, 6, 6.2, 6.5, 7, 8])
    threshold = TailThreshold(values, 0.001)
    assert threshold.tail == (7, 4)
    assert threshold.value == pytest.approx(7 + 4 * math.log(0.25 / 0.001))
    # (1 + those that reach it) / 14; the tail beyond all
    assert threshold.p_values([6.5, 7, 9, 16, 18]) == pytest.approx(
        [6 / 14, 5 / 14, 3 / 14, 2 / 14, 0.25 * math.exp(-11 / 4)])
    # half of an exponential tail lies within log(2) of its mean: of these, 2 is the middle
    for excess, is_outlying in ((8.9, True), (9.1, False)):
        rate = 0.25 * math.exp(-excess / (2 / math.log(2)))
        assert conformal.outlying(values, rate).tolist() == ((values > 9) & is_outlying).tolist()
    assert not conformal.outlying(np.ones(12), 1e-4).any()


def test_a_good_image_far_out_is_not_foreign_itself_and_one_in_ten_hide_nothing():
    usual = np.random.default_rng(0).exponential(size=90)
    assert TailThreshold(np.r_[usual[:39], 60.0], 0.001).value == 60  # beyond where the tail ends
    outlying = conformal.outlying(np.r_[usual, np.full(10, 60.0)], 1e-4)
    assert outlying.tolist() == [False] * 90 + [True] * 10
