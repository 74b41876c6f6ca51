import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from adlib.evaluation import psychometric
from adlib.evaluation.psychometric import Curve


def simulated(truth, n, seed, low=-3.0, high=0.0):
    rng = np.random.default_rng(seed)
    x = 10**rng.uniform(low, high, n)
    return x, rng.random(n) < truth(x)


def log_posterior(x, detected, place, slope, fpr, lapse):
    """By its definition, of log10 x50, slope and lapse of any one shape."""
    logs = np.log10(x)
    p = fpr + (1 - fpr - lapse)[..., None] * expit(slope[..., None] * (logs - place[..., None]))
    middle, span = (logs.min() + logs.max()) / 2, np.ptp(logs)
    likelihood = np.log(np.maximum(np.where(detected, p, 1 - p), 1e-12)).sum(axis=-1)
    return likelihood - ((place - middle) / span)**2 / 2 - (slope * span / 50)**2 / 2


def parameters(curve):
    return np.log10(curve.x50), np.array(curve.slope), curve.fpr, np.array(curve.lapse)


@pytest.mark.parametrize("truth", [
    Curve(0.02, 5.0, 0.05, 0.02, 0),
    Curve(0.1, 12.0, 0.0, 0.0, 0),
    Curve(0.01, 3.0, 0.2, 0.08, 0)
])
def test_recovers_what_the_data_were_drawn_from(truth):
    x, detected = simulated(truth, 6000, seed=0)
    found = psychometric.fit(x, detected, fpr=truth.fpr)
    assert np.log10(found.x50) == pytest.approx(np.log10(truth.x50), abs=0.06)
    assert found.slope == pytest.approx(truth.slope, rel=0.12)
    assert found.lapse == pytest.approx(truth.lapse, abs=0.025)
    assert (found.fpr, found.n) == (truth.fpr, 6000)
    grid = np.logspace(-3, 0, 50)
    assert np.abs(found(grid) - truth(grid)).max() < 0.03


@pytest.mark.parametrize("seed", range(6))
def test_no_point_of_a_fine_grid_is_likelier(seed):
    x, detected = simulated(Curve(0.03, 4.0, 0.1, 0.03, 0), 60, seed)
    found = psychometric.fit(x, detected, fpr=0.1)
    place, slope, lapse = np.meshgrid(np.linspace(-3, 0, 40), np.geomspace(0.3, 40, 30),
                                      np.linspace(0, 0.1, 6))
    best = log_posterior(x, detected, place, slope, 0.1, lapse).max()
    # the grid is no finer
    assert best - 1e-6 < log_posterior(x, detected, *parameters(found)) < best + 0.3


@pytest.mark.parametrize("n", [5, 9, 25])
def test_where_data_are_few_it_is_the_summit_of_likelihood_and_prior(n):
    """Most sizes are small, so that their middle is neither their mean nor their median."""
    x = 10**(3 * np.linspace(0, 1, n)**3 - 3)
    found = psychometric.fit(x, np.arange(n) % 4 > 1, fpr=0.05)
    at, step = parameters(found), 1e-4
    for one, other in (((at[0] - step, *at[1:]), (at[0] + step, *at[1:])),
                       ((at[0], at[1] - step, *at[2:]), (at[0], at[1] + step, *at[2:]))):
        below, above = (log_posterior(x, np.arange(n) % 4 > 1, *here) for here in (one, other))
        assert abs(above - below) / (2 * step) < 2e-3


def test_of_a_false_alarm_rate_no_more_than_half_counts():
    x, detected = simulated(Curve(0.03, 4.0, 0.5, 0.03, 0), 60, 0)
    assert psychometric.fit(x, detected, fpr=0.9) == psychometric.fit(x, detected, fpr=0.5)


def test_without_guesses_and_lapses_it_is_logistic_regression():
    x, detected = simulated(Curve(0.03, 4.0, 0.0, 0.0, 0), 800, seed=3)
    logs = np.log10(x)[:, None]
    reference = LogisticRegression(C=1e9, tol=1e-9).fit(logs, detected)
    found = psychometric.fit(x, detected, fpr=0.0)
    assert found.lapse < 0.02
    assert np.abs(found(x) - reference.predict_proba(logs)[:, 1]).max() < 0.02


@settings(max_examples=100, deadline=None)
@given(st.floats(1e-4, 10), st.floats(0.5, 50), st.floats(0, 0.5), st.floats(0, 0.1),
       st.floats(0.01, 0.99))
def test_at_inverts_the_curve(x50, slope, fpr, lapse, share):
    curve = Curve(x50, slope, fpr, lapse, 10)
    probability = fpr + (1 - fpr - lapse) * share
    assert curve(np.array([curve.at(probability)]))[0] == pytest.approx(probability, abs=1e-9)


def test_x50_is_halfway_between_the_asymptotes():
    curve = Curve(0.02, 6.0, 0.1, 0.04, 10)
    assert curve(0.02) == pytest.approx((0.1 + 0.96) / 2) and curve.at(0.53) == pytest.approx(0.02)
    assert curve(np.array([[1e-30, 1e30]])) == pytest.approx(np.array([[0.1, 0.96]]))
    # a decade above, and slope is per decade
    assert curve(0.2) == pytest.approx(0.1 + 0.86 / (1 + math.exp(-6)))


def test_a_curve_that_never_gets_there():
    curve = Curve(0.02, 6.0, 0.1, 0.04, 10)
    assert all(math.isnan(curve.at(p)) for p in (0.0, 0.1, 0.96, 1.0))
    assert math.isnan(Curve(0.02, 0.0, 0.1, 0.0, 10).at(0.5))  # flat


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.floats(0.01, 100), st.floats(0.5, 3))
def test_the_unit_of_the_size_does_not_matter(seed, factor, power):
    x, detected = simulated(Curve(0.03, 4.0, 0.05, 0.0, 0), 50, seed)
    one, other = psychometric.fit(x, detected, fpr=0.05), psychometric.fit(
        factor * x**power, detected, fpr=0.05)
    assert np.abs(one(x) - other(factor * x**power)).max() < 5e-3
    assert np.all(np.diff(one(np.sort(x))) >= 0)


def test_perfectly_separated_data_stay_finite():
    x = np.logspace(-3, 0, 20)
    curve = psychometric.fit(x, x > 0.03, fpr=0.0)
    assert x[x <= 0.03].max() < curve.x50 < x[x > 0.03].min()
    assert 10 < curve.slope < 200 and curve.lapse < 0.01
    assert np.abs(curve(x) - (x > 0.03)).max() < 0.3


def test_detection_that_falls_with_size_gives_a_flat_curve():
    x = np.logspace(-3, 0, 40)
    assert psychometric.fit(x, x < 0.03, fpr=0.0).slope < 0.5


def test_all_or_nothing_detected_says_so():
    x = np.logspace(-3, 0, 8)
    everything, nothing = (psychometric.fit(x, np.full(8, found), fpr=0.05)
                           for found in (True, False))
    assert everything.x50 == 0 and everything.at(0.5) == 0 and (everything(x) == 1).all()
    assert everything.slope == nothing.slope == math.inf
    assert nothing.x50 == math.inf and math.isnan(nothing.at(0.5)) and (nothing(x) == 0.05).all()
