"""The answer of a comparison, in sentences."""
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from adlib.config import STATISTICS
from adlib.report import comparison, ranking
from adlib.report.words import answers, i18n
from tests.handmade import DISTANCE, finished, ranks
from tests.report.test_comparison import NUT, rows_of


def test_the_answer_is_from_the_numbers(tmp_path):
    for name, shift in (("memory", 3.0), ("pca", 2.9), ("gaussian", -2.0), ("mean_grey", 0.3)):
        finished(tmp_path, name, {DISTANCE: ranks(NUT, shift, 5)})
    rows = rows_of(tmp_path)
    best = rows.loc[rows["auroc"].idxmax()]
    said = answers.full(rows)
    found, alarms = round(15 * best["detections"]), round(20 * best["false_positives"])
    assert said.startswith(
        f"nut: {comparison.label(best['configuration'])} is best, AUROC {best['auroc']:.3f} "
        f"[{best['low']:.2f}, {best['high']:.2f}]; finds {found} of 15 bad parts, {alarms} of 20 "
        "good ones are false alarms. Not distinguishable from it: PCA residual.")
    grey = rows.loc["mean_grey", "auroc"]
    assert ("Gaussian per position (PaDiM) does not beat Mean grey (no model) "
            f"({grey:.3f}), which is no model at all.") in said
    besides = answers.footnotes(rows)  # the notebook's end: not the first screen again
    assert besides.startswith("The answer of each category stands at the top. Gaussian per")
    assert "is best" not in besides and "Not distinguishable" not in besides


def test_a_clear_best_is_said_to_be_one_and_a_single_row_is_compared_with_nothing(tmp_path):
    finished(tmp_path, "memory", {DISTANCE: ranks(NUT, 9.0)})
    said = answers.full(rows_of(tmp_path))
    assert "is best, AUROC 1.000" in said and "Nothing to compare it with yet." in said
    finished(tmp_path, "pca", {DISTANCE: ranks(NUT, 0.0)})
    assert "Clearly above the other one, by the paired test." in answers.full(rows_of(tmp_path))
    finished(tmp_path, "memory", {DISTANCE: ranks(NUT, 0.1)})
    assert "not distinguishable from guessing" in answers.full(rows_of(tmp_path))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0, 1), st.booleans(), st.sampled_from(["memory", "pca", *STATISTICS])),
        min_size=1, max_size=8))
def test_the_answer_names_every_row_where_it_belongs(drawn):
    rows = pd.DataFrame(drawn, columns=["auroc", "with_best", "name"]).assign(
        category="nut", low=0.6, high=0.9, n_good=20, n_anomalous=15, status="finished", reason="",
        verdict="", configuration=[f"row {i}" for i in range(len(drawn))], random=False,
        detections=0.5, false_positives=0.1)
    rows["with_best"] |= rows["auroc"] == rows["auroc"].max()
    # equal in print is equal
    found, tied = (ranking.answer(rows, "nut"),
                   rows["auroc"].round(4) == rows["auroc"].max().round(4))
    assert found.tied == list(rows.loc[tied, "configuration"])
    assert found.best["configuration"] == found.tied[0]
    level = rows[rows["with_best"] & ~tied].sort_values("auroc", ascending=False, kind="stable")
    assert sorted(found.level) == sorted(level["configuration"])
    assert found.below == (~rows["with_best"] & ~tied).sum() and not found.random + found.apart
    said, others = answers.full(rows), [*found.tied[1:], *found.level]
    assert said.startswith(f"nut: {found.tied[0]} is best")
    assert ("Not distinguishable" in said) == (len(others) > 0)
    if others:
        named = others if len(others) <= answers.NAMED else [
            *others[:answers.NAMED - 1], f"{len(others) - answers.NAMED + 1} more"]
        assert f"Not distinguishable from it: {i18n.enumerated(named)}." in said
    none = rows["name"].isin(STATISTICS)
    below = rows.loc[~none & (rows["auroc"] <= rows.loc[none, "auroc"].max()), "configuration"]
    assert (f"{i18n.enumerated(below)} do" in said) if len(below) else ("no model at all"
                                                                        not in said)
