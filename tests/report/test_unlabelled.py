"""What one would take without labels: chosen by the synthetic anomalies, sure or not, and what that
cost."""
import numpy as np
import pytest

from adlib.report import comparison, unlabelled
from adlib.report.display import tables
from adlib.report.study import Study
from tests.handmade import DISTANCE, category, finished

NUT = category()
GOOD = np.linspace(0, 1, 8)
CLEAR, PARTLY, LOST = GOOD + 2, GOOD + 0.7, GOOD[::-1]  # AUROC 1, in between, .5


def study(tmp_path, exams, aurocs):
    """Of twenty good test images a share `aurocs` lies below all bad ones."""
    for name, synthetic in exams.items():
        tests = np.r_[np.arange(20), np.full(15, 20 * aurocs[name] - 0.5)]
        finished(tmp_path, name, {DISTANCE: tests}, held=GOOD, synthetic=synthetic)
    return Study(tmp_path)


def test_a_sure_choice_and_what_it_cost(tmp_path):
    of = study(tmp_path, {"pca": CLEAR, "memory": LOST, "fused": LOST - 0.2},
               {"pca": 0.75, "memory": 1.0, "fused": 0.5})
    row = unlabelled.table(of.main, tmp_path).iloc[0]
    assert (row["configuration"], row["label_free"], row["unsure"]) == ("pca", 1.0, [])
    assert (row["best"], row["best_auroc"], row["chosen_auroc"]) == ("memory", 1.0, 0.75)
    assert row["kendall"] == pytest.approx(1 / 3)  # one pair of three lies the other way
    said = of.unlabelled().said
    assert said.zh != said
    assert "stays 0.250 of AUROC below the best" in said and "0 of 1 were the best" in said
    assert "others" not in unlabelled.shown(unlabelled.table(of.main, tmp_path))  # than none


def test_an_unsure_choice_names_what_it_might_as_well_have_been(tmp_path):
    of = study(tmp_path, {"pca": PARTLY, "memory": PARTLY - 0.01, "fused": LOST},
               {"pca": 1.0, "memory": 0.9, "fused": 0.5})
    found = unlabelled.table(of.main, tmp_path)
    assert found["unsure"].tolist()[0][:1] == ["memory"]
    shown = tables.html(unlabelled.shown(found), "caption")
    assert "<td class=\"number\">2</td>" in shown  # a count
    assert comparison.label("memory") in tables.markdown(unlabelled.shown(found))
    section = of.unlabelled()
    assert "sure" not in section.said  # none was
    kept = section.data["unlabelled.csv"].iloc[0]  # codes: its readers have no messages
    assert kept["best"] == "pca" and set(kept["unsure"].split("; ")) <= {"memory", "fused"}


def test_two_orders_of_two_have_no_agreement_worth_a_column(tmp_path):
    of = study(tmp_path, {"pca": CLEAR, "memory": LOST}, {"pca": 0.75, "memory": 1.0})
    found = unlabelled.table(of.main, tmp_path)
    assert found["kendall"].isna().all() and "Agreement" not in tables.markdown(
        unlabelled.shown(found))


def test_runs_that_took_no_exam_or_another_are_not_compared(tmp_path):
    assert study(tmp_path, {"pca": CLEAR, "memory": None}, {"pca": 1.0, "memory": 1.0}
                 ).unlabelled() is None
    of = study(tmp_path, {"pca": CLEAR, "gaussian": LOST, "fused": CLEAR[:5]},
               {"pca": 1.0, "gaussian": 0.5, "fused": 1.0})
    assert unlabelled.table(of.main, tmp_path)["others"].tolist() == [1]


def test_without_labels_the_choice_is_said_and_its_cost_is_not(tmp_path):
    for name, synthetic in {"pca": CLEAR, "memory": LOST}.items():
        finished(tmp_path, name, {DISTANCE: np.arange(20.0)}, where=category(bad=0), held=GOOD,
                 synthetic=synthetic)
    found = Study(tmp_path).unlabelled()
    assert found.said == "" and comparison.label("pca") in found.drawn[0]
