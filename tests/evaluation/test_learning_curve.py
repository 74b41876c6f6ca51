"""A curve through what was measured with few good pictures and with more."""
import math

import numpy as np
import pandas as pd
import pytest

from adlib.evaluation import learning_curve
from adlib.evaluation.conformal import rate_interval


def measured(error, counts=(1, 2, 4, 8, 16, 32), draws=3, spread=0.0, pictures=40):
    return pd.DataFrame([
        {"pictures": pictures, "n": n, "draw": draw, "label_free": math.nan,
         "auroc": 1 - error(n) * (1 + spread * draw), "good": 20.0, "false_positives": math.nan,
         "anomalous": 10.0, "found": math.nan} for n in counts for draw in range(draws)])


@pytest.mark.parametrize(("a", "b", "c"), [(0.02, 0.3, 0.5), (0.0, 0.1, 1.0), (0.1, 0.0, 1.0)])
def test_the_gain_of_a_power_law_is_found(a, b, c):
    found = learning_curve.gain(measured(lambda n: a + b * n**-c), "auroc")
    right = b * (40**-c - 90**-c)
    assert (found.gain, found.low, found.high) == pytest.approx([right] * 3, abs=1e-6)
    assert found.pictures == 40 and found.stop == (right < 0.005)


def test_enough_is_where_fifty_more_bring_too_little():
    found = learning_curve.gain(measured(lambda n: 0.3 * n**-0.5), "auroc")
    for n, least in ((found.enough, 0.0048), (0.97 * found.enough, 0.005)):
        assert least <= 0.3 * (n**-0.5 - (n + 50)**-0.5) < 0.0052


def test_the_draws_say_how_sure_it_is_and_one_that_gains_forbids_to_stop():
    found = learning_curve.gain(measured(lambda n: 0.22 * n**-0.5, spread=0.4), "auroc")
    assert [found.low, found.high] == pytest.approx(
        [times * 0.22 * (40**-0.5 - 90**-0.5) for times in (1, 1.8)], abs=1e-6)
    small = learning_curve.gain(measured(lambda n: 0.065 * n**-0.5, spread=0.4), "auroc")
    assert small.gain < learning_curve.WORTH < small.high and not small.stop


def test_three_numbers_of_pictures_fix_no_curve():
    assert learning_curve.gain(measured(lambda n: 0.1, counts=(1, 2, 4)), "auroc") is None
    assert learning_curve.gain(measured(lambda n: 0.1), "label_free") is None


def test_the_curve_has_the_draws_extremes_and_the_rates_intervals():
    table = measured(lambda n: 0.1 / n, counts=(1, 32), spread=0.5)
    table.loc[table["n"] == 32, ["false_positives", "found"]] = [[1, 9], [2, 10], [3, 8]]
    one, last = (row for _, row in learning_curve.curve(table).iterrows())
    assert [one["auroc_low"], one["auroc"], one["auroc_high"]] == pytest.approx([0.8, 0.85, 0.9])
    assert np.isnan(one[["false_positives", "false_positives_low", "found"]].to_numpy(float)).all()
    assert [last["false_positives"], last["found"]] == pytest.approx([0.1, 0.9])
    assert [last["false_positives_low"], last["false_positives_high"]] == pytest.approx(
        rate_interval(2, 20))


def test_judged_by_the_labels_where_there_are_any():
    table = measured(lambda n: 0.1)
    assert learning_curve.judged_by(table) == "auroc"
    assert learning_curve.judged_by(table.assign(auroc=math.nan)) == "label_free"
