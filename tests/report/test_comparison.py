"""Runs to rows: what the summary says of runs whose scores are known, because they were made by
hand."""
import math
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adlib.config import STATISTICS
from adlib.data import files
from adlib.evaluation import conformal
from adlib.evaluation.auroc import auroc, auroc_interval
from adlib.evaluation.results import auroc_of
from adlib.report import answers, comparison, comparison_figures, i18n
from tests import handmade
from tests.handmade import DISTANCE, OTHER, OWN, category, failed, finished, ranks

NUT = category()
LABELS = np.array([0] * 20 + [1] * 15)


def rows_of(reports):
    rows = comparison.rows(comparison.performance(reports), reports)
    assert list(rows.columns) == list(comparison.ROW_COLUMNS)
    return rows.set_index("configuration", drop=False)


def matrix_of(reports, category="nut"):
    return comparison.matrix(comparison.performance(reports), reports, category)


def test_mean_and_spread_are_over_seeds_and_the_interval_is_that_of_all_seeds_together(tmp_path):
    scores = [ranks(NUT, 1.0, seed) for seed in range(3)]
    for seed, values in enumerate(scores):
        finished(tmp_path, "memory", {DISTANCE: values}, seed=seed)
    finished(tmp_path, "pca", {DISTANCE: scores[0]})
    rows = rows_of(tmp_path)
    row, one = rows.loc["memory"], rows.loc["pca"]
    values = [auroc(LABELS, each) for each in scores]
    assert len(set(values)) == 3 and row["seeds"] == 3 and row["score"] == DISTANCE
    assert row["auroc"] == pytest.approx(sum(values) / 3)
    assert row["spread"] == pytest.approx(
        math.sqrt(sum((value - sum(values) / 3)**2 for value in values) / 2))
    assert (row["low"], row["high"]) == auroc_interval(LABELS, np.stack(scores))
    assert (row["n_good"], row["n_anomalous"]) == (20, 15)
    assert row["train_seconds"] == 11 and row["brightness"] == 1.5 and math.isnan(row["size"])
    # of one seed nothing is known, and 0 would say the opposite
    assert one["seeds"] == 1 and math.isnan(one["spread"])
    assert (one["low"], one["high"]) == auroc_interval(LABELS, scores[0])


def test_equal_seeds_have_no_spread(tmp_path):
    for seed in range(3):
        finished(tmp_path, "memory", {DISTANCE: ranks(NUT, 1.0)}, seed=seed)
    row = rows_of(tmp_path).iloc[0]
    assert row["spread"] == pytest.approx(0, abs=1e-12)
    # three equal networks are one
    assert (row["low"], row["high"]) == pytest.approx(auroc_interval(LABELS, ranks(NUT, 1.0)))


def test_an_autoencoder_has_a_row_for_its_own_score_and_one_for_that_chosen_without_labels(
        tmp_path):
    tests = [{OWN: ranks(NUT, 0.5, seed), OTHER: ranks(NUT, 1.5, seed + 10)} for seed in range(2)]
    for seed, each in enumerate(tests):  # the second seed keeps its own score
        finished(tmp_path, "cae_mse", each, seed=seed, chosen=OTHER if seed == 0 else OWN,
                 label_free=0.7 + 0.05 * seed)
    rows = rows_of(tmp_path)
    assert list(rows["configuration"]) == ["cae_mse", "cae_mse/chosen"] and set(
        rows["name"]) == {"cae_mse"}
    own, chosen = rows.iloc[0], rows.iloc[1]
    assert own["score"] == OWN and chosen["score"] == f"{OWN}, {OTHER}"
    picked = [tests[0][OTHER], tests[1][OWN]]
    for row, scores in ((own, [each[OWN] for each in tests]), (chosen, picked)):
        assert row["auroc"] == pytest.approx(
            np.mean([auroc(LABELS, each) for each in scores]))
        assert (row["low"], row["high"]) == auroc_interval(LABELS, np.stack(scores))
    assert own["label_free"] == pytest.approx(
        (0.7 + 0.75) / 2) and chosen["label_free"] == pytest.approx((0.8 + 0.75) / 2)
    # what the own score follows says nothing of another
    assert own["brightness"] == 1.0 and math.isnan(chosen["brightness"])


def test_a_detector_that_keeps_its_own_score_has_one_row(tmp_path):
    finished(tmp_path, "memory", {DISTANCE: ranks(NUT, 1), "distance.max": ranks(NUT, 2)})
    assert len(rows_of(tmp_path)) == 1


def test_the_claims_are_about_the_references_own_score(tmp_path):
    folder = finished(tmp_path, "cae_mse",
                      {OWN: ranks(category("hazelnut"), 1), OTHER: ranks(category("hazelnut"), 2)},
                      chosen=OTHER, where=category("hazelnut"))
    about = files.read_json(folder / "run.json")
    about["data"]["layout"] = "course"
    files.write_json(folder / "run.json", about)
    files.write_json(folder / "metrics.json",
                     files.read_json(folder / "metrics.json") | {"epochs": 100})
    own, chosen = rows_of(tmp_path).iloc
    assert (own["claim_low"],
            own["claim_high"]) == (0.70, 0.80) and own["verdict"] in ("missed", "reached",
                                                                      "exceeded")
    assert math.isnan(chosen["claim_low"]) and chosen["verdict"] != chosen["verdict"]
    assert f"Of the 1 AUROC ranges that the reference claims for these cells, 1 {own['verdict']}." in answers.full(
        rows_of(tmp_path))


@settings(max_examples=6, deadline=None)
@given(st.lists(st.floats(-1, 4), min_size=2, max_size=3), st.integers(1, 2), st.integers(0, 9))
def test_with_best_is_what_the_matrix_says(shifts, seeds, start):
    with tempfile.TemporaryDirectory() as folder:
        reports = Path(folder)
        for i, shift in enumerate(shifts):
            for seed in range(seeds):
                finished(reports, f"d{i}",
                         {DISTANCE: ranks(NUT, shift, 100 * start + 10 * i + seed)}, seed=seed)
        rows, pairs = rows_of(reports), matrix_of(reports)
    best = rows["auroc"].idxmax()
    assert len(pairs) == len(shifts) * (len(shifts) - 1) / 2 and rows.loc[best, "with_best"]
    for pair in pairs.itertuples():
        assert pair.difference == pytest.approx(rows.loc[pair.a, "auroc"] -
                                                rows.loc[pair.b, "auroc"])
        if best in (pair.a, pair.b):
            assert rows.loc[pair.a if pair.b == best else pair.b, "with_best"] == (pair.p_holm
                                                                                   >= comparison.LEVEL)
        assert comparison.p_value(pairs, pair.b, pair.a) == pair.p
    assert math.isnan(comparison.p_value(pairs, best, "nobody"))


def test_the_best_and_its_equals_are_marked_and_what_is_significantly_below_is_not(tmp_path):
    finished(tmp_path, "memory", {DISTANCE: ranks(NUT, 2.2, 1)})
    finished(tmp_path, "pca", {DISTANCE: ranks(NUT, 2.0, 2)})
    finished(tmp_path, "gaussian", {DISTANCE: ranks(NUT, 0.0, 3)})
    finished(tmp_path, "cae_mse", {OWN: ranks(NUT, 0.1, 4), OTHER: ranks(NUT, 2.1, 5)},
             chosen=OTHER)
    rows = rows_of(tmp_path)
    assert rows["with_best"].to_dict() == {
        "cae_mse": False, "cae_mse/chosen": True, "pca": True,
        "gaussian": False, "memory": True
    }


def test_a_lead_that_chance_explains_among_so_many_pairs_is_none(tmp_path):
    for i, (name, shift) in enumerate(
        (("memory", 2.0), ("pca", 1.0), ("gaussian", 1.6), ("classifier", 1.7))):
        finished(tmp_path, name, {DISTANCE: ranks(NUT, shift, 50 + i)})
    pair = matrix_of(tmp_path).set_index(["a",
                                          "b"]).loc[("pca", "memory")]
    assert pair["p"] < 0.05 < pair["p_holm"]  # the uncorrected test would distinguish them
    assert rows_of(tmp_path).loc["pca", "with_best"]


def test_categories_do_not_mix(tmp_path):
    for name, shift in (("memory", 3.0), ("pca", 0.0)):
        for i, where in enumerate((category("nut"), category("zip"))):
            finished(tmp_path, name, {DISTANCE: ranks(where, shift if i == 0 else 3.0 - shift, 7)},
                     where=where)
    rows = comparison.rows(comparison.performance(tmp_path), tmp_path)
    assert list(rows["category"]) == ["nut", "nut", "zip", "zip"]
    assert rows.set_index(["category", "name"])["with_best"].to_dict() == {("nut", "memory"): True,
                                                                           ("nut", "pca"): False,
                                                                           ("zip", "memory"): False,
                                                                           ("zip", "pca"): True}


def test_rates_are_means_over_seeds_with_the_interval_of_that_mean(tmp_path):
    called = [(1, 9), (4, 12)]  # of 20 good and 15 bad images
    for seed, (false, found) in enumerate(called):
        # held-out images reach 1
        scores = np.r_[np.arange(20) < false, np.arange(15) < found].astype(float) * 2
        finished(tmp_path, "memory", {DISTANCE: scores}, seed=seed)
    row = rows_of(tmp_path).iloc[0]
    assert row["false_positives"] == pytest.approx(2.5 / 20) and row["detections"] == pytest.approx(
        10.5 / 15)
    assert (row["false_low"], row["false_high"]) == conformal.rate_interval(round(2.5), 20)
    assert (row["found_low"], row["found_high"]) == conformal.rate_interval(round(10.5), 15)


def test_the_chosen_score_has_its_own_rates(tmp_path):
    tests = {OWN: np.zeros(35), OTHER: np.where(LABELS == 1, 2.0, 0.0)}
    finished(tmp_path, "cae_mse", tests, chosen=OTHER)
    own, chosen = rows_of(tmp_path).iloc
    assert (own["detections"], chosen["detections"]) == (
        0, 1) and own["false_positives"] == chosen["false_positives"] == 0


def test_without_held_out_images_there_are_no_rates_and_no_label_free_figure(tmp_path):
    finished(tmp_path, "memory", {DISTANCE: ranks(NUT, 1)}, held=np.zeros(0))
    row = rows_of(tmp_path).iloc[0]
    assert row[["false_positives", "false_low", "detections", "found_high", "label_free"
                ]].isna().all() and row["auroc"] > 0.5


def test_failed_seeds_are_named_and_do_not_count(tmp_path):
    finished(tmp_path, "memory", {DISTANCE: ranks(NUT, 1)}, seed=0)
    failed(tmp_path, "memory", "the kernel died (out of memory?)", seed=2)
    row = rows_of(tmp_path).iloc[0]
    assert row["seeds"] == 1 and row["status"] == "finished" and row[
        "reason"] == "seed 2 failed: the kernel died (out of memory?)"


def test_a_configuration_without_a_finished_seed_has_a_row_with_its_reason(tmp_path):
    finished(tmp_path, "pca", {DISTANCE: ranks(NUT, 1)})
    failed(tmp_path, "memory", "the sky fell")
    # planned, and never begun
    files.write_json(tmp_path / "batch.json",
                     [{"name": "fused", "folder": "runs/nut/fused/seed-0"}])
    rows = rows_of(tmp_path)
    memory, fused = rows.loc["memory"], rows.loc["fused"]
    assert (memory["seeds"], memory["status"],
            memory["reason"]) == (0, "failed", "the sky fell") and math.isnan(memory["auroc"])
    assert (fused["seeds"], fused["status"], fused["reason"]) == (0, "missing", "never run")
    assert memory["with_best"] is not True and rows.loc["pca", "with_best"] is True
    said = answers.full(rows)
    assert f"Without a result: nut / {comparison.label('memory')} (failed: the sky fell); nut / {comparison.label('fused')} (missing: never run)." in said


def test_a_run_without_labels_has_a_row_that_says_so(tmp_path):
    where = category(bad=0)
    finished(tmp_path, "memory", {DISTANCE: ranks(where, 0)}, where=where)
    finished(tmp_path, "pca", {DISTANCE: ranks(where, 0)}, where=where)
    rows = rows_of(tmp_path)
    assert rows["auroc"].isna().all() and (rows["status"] == "finished").all()
    assert rows["reason"].str.contains("20 good and 0 anomalous").all() and matrix_of(
        tmp_path).empty
    # of bad images there is none to detect
    assert rows["detections"].isna().all() and rows["false_positives"].notna().all()
    assert "ranks best" not in answers.full(rows) and answers.full(rows).count(
        "20 good and 0 anomalous") == 2


def test_runs_on_other_test_images_are_left_out_of_the_matrix(tmp_path):
    other = category(start=100)
    for name, where in (("memory", other), ("pca", NUT), ("gaussian", NUT)):
        finished(tmp_path, name, {DISTANCE: ranks(where, 1.0, len(name))}, where=where)
    assert set(
        matrix_of(tmp_path)[["a",
                             "b"]].iloc[0]) == {"pca", "gaussian"}
    assert len(matrix_of(tmp_path)) == 1


def test_a_row_on_other_test_images_is_not_marked(tmp_path):
    finished(tmp_path, "pca", {DISTANCE: ranks(NUT, 3.0)})
    finished(tmp_path, "memory", {DISTANCE: ranks(category(start=100), -2.0)},
             where=category(start=100))
    rows = rows_of(tmp_path)
    assert rows["with_best"].to_dict()[
        "memory"] is not True and "cannot distinguish" not in answers.full(rows)


def test_the_same_names_with_other_content_are_other_test_images(tmp_path):
    finished(tmp_path, "pca", {DISTANCE: ranks(NUT, 3.0)})
    finished(tmp_path, "memory", {DISTANCE: ranks(NUT, 0.0)}, fingerprint="another")
    assert matrix_of(tmp_path).empty


def test_a_seed_without_an_auroc_is_no_crash(tmp_path):
    for name in ("pca", "memory"):
        for seed, where in enumerate((NUT, category(bad=0))):
            finished(tmp_path, name, {DISTANCE: ranks(where, 1.0)}, where=where, seed=seed)
    rows_of(tmp_path)


def test_a_seed_on_other_test_images_takes_its_configuration_out(tmp_path):
    for name, seeds in (("pca", [NUT]), ("gaussian", [NUT]), ("memory", [NUT,
                                                                         category(start=100)])):
        for seed, where in enumerate(seeds):
            finished(tmp_path, name, {DISTANCE: ranks(where, 1.0, len(name))}, where=where,
                     seed=seed)
    assert len(matrix_of(tmp_path)) == 1 and rows_of(tmp_path).loc["memory",
                                                                   "seeds"] == 2


def test_train_bad_is_apart_from_test(tmp_path):
    where = category(train_bad=6)
    finished(tmp_path, "memory", {DISTANCE: ranks(where, 1.0)}, where=where, bad=0.0)
    finished(tmp_path, "memory", {DISTANCE: ranks(where, 1.0, 1)}, where=where, bad=3.0, seed=1)
    row = rows_of(tmp_path).iloc[0]
    good = [ranks(where, 1.0, seed)[:20] for seed in range(2)]
    labels, scores = np.r_[np.zeros(20, int), np.ones(6, int)], np.stack(
        [np.r_[good[0], [0.0] * 6], np.r_[good[1], [3.0] * 6]])
    values = [auroc(labels, each) for each in scores]
    assert row["bad_auroc"] == pytest.approx(
        np.mean(values)) and row["bad_spread"] == pytest.approx(np.std(values, ddof=1))
    assert (row["bad_low"], row["bad_high"]) == auroc_interval(labels,
                                                                scores) and row["n_bad"] == 6
    assert row["auroc"] == pytest.approx(
        np.mean([auroc(LABELS, ranks(where, 1.0, seed)) for seed in range(2)]))


def test_without_train_bad_its_columns_are_empty(tmp_path):
    finished(tmp_path, "memory", {DISTANCE: ranks(NUT, 1.0)})
    assert rows_of(tmp_path).iloc[0][["bad_auroc", "bad_spread", "bad_low",
                                      "bad_high"]].isna().all()


def test_pixel_figures_belong_to_the_score_whose_map_was_measured(tmp_path):
    found = {"pixel_auroc": 0.9, "pixel_ap": 0.4, "au_pro_30": 0.8, "au_pro_05": 0.5}
    finished(tmp_path, "cae_mse", {OWN: ranks(NUT, 1), OTHER: ranks(NUT, 2)}, chosen=OTHER,
             localisation=found)
    finished(tmp_path, "memory", {DISTANCE: ranks(NUT, 1)}, localisation=found)
    finished(tmp_path, "memory", {DISTANCE: ranks(NUT, 1)},
             localisation=found | {"pixel_auroc": 0.7}, seed=1)
    finished(tmp_path, "pca", {DISTANCE: ranks(NUT, 1)},
             localisation={"why_absent": "no defect in any mask"})
    rows = rows_of(tmp_path)
    assert math.isnan(rows.loc["cae_mse", "pixel_auroc"]) and rows.loc["cae_mse/chosen",
                                                                         "au_pro_05"] == 0.5
    assert rows.loc["memory",
                    "pixel_auroc"] == pytest.approx(0.8) and math.isnan(rows.loc["pca",
                                                                                 "pixel_ap"])


def test_the_answer_is_from_the_numbers(tmp_path):
    for name, shift in (("memory", 3.0), ("pca", 2.9), ("gaussian", -2.0), ("mean_grey", 0.3)):
        finished(tmp_path, name, {DISTANCE: ranks(NUT, shift, 5)})
    rows = rows_of(tmp_path)
    best = rows.loc[rows["auroc"].idxmax()]
    said = answers.full(rows)
    assert said.startswith(
        f"On nut, {comparison.label(best['configuration'])} ranks best with an AUROC of {best['auroc']:.3f} "
        f"[{best['low']:.2f}, {best['high']:.2f}]; with 15 anomalous test images")
    assert "cannot distinguish 1 of 3 other rows from it: PCA residual." in said
    grey = rows.loc["mean_grey", "auroc"]
    assert f"Gaussian per position (PaDiM) does not beat Mean grey (no model) ({grey:.3f}), which is no model at all." in said


def test_a_clear_best_is_said_to_be_one_and_a_single_row_is_compared_with_nothing(tmp_path):
    finished(tmp_path, "memory", {DISTANCE: ranks(NUT, 9.0)})
    said = answers.full(rows_of(tmp_path))
    assert "ranks best with an AUROC of 1.000" in said and "distinguish" not in said and "below" not in said
    finished(tmp_path, "pca", {DISTANCE: ranks(NUT, 0.0)})
    assert "and the other row is significantly below it" in answers.full(rows_of(tmp_path))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0, 1), st.booleans(), st.sampled_from(["memory", "pca", *STATISTICS])),
        min_size=1, max_size=8))
def test_the_answer_names_every_row_where_it_belongs(drawn):
    rows = pd.DataFrame(drawn, columns=["auroc", "with_best", "name"]).assign(
        category="nut", low=0.1, high=0.9, n_anomalous=15, status="finished", reason="", verdict="",
        configuration=[f"row {i}" for i in range(len(drawn))])
    rows["with_best"] |= rows["auroc"] == rows["auroc"].max()
    # equal in print is equal
    said, tied = answers.full(rows), rows["auroc"].round(4) == rows["auroc"].max().round(4)
    assert f"On nut, {i18n.enumerated(rows.loc[tied, 'configuration'])} rank" in said
    level, others = list(rows.loc[rows["with_best"] & ~tied, "configuration"]), (~tied).sum()
    assert ("cannot distinguish" in said) == (len(level) > 0) and ("significantly below"
                                                            in said) == (not level and others > 0)
    if others > 1 and level:
        named = level if len(level) <= answers.NAMED else [
            *level[:answers.NAMED], f"{len(level) - answers.NAMED} more"
        ]
        assert f"cannot distinguish {len(level)} of {others} other rows from it: {i18n.enumerated(named)}." in said
    none = rows["name"].isin(STATISTICS)
    below = rows.loc[~none & (rows["auroc"] <= rows.loc[none, "auroc"].max()), "configuration"]
    assert (f"{i18n.enumerated(below)} do" in said) if len(below) else ("no model at all"
                                                                        not in said)


def test_every_category_has_its_matrix_shown(tmp_path, capsys):
    finished(tmp_path, "memory", {DISTANCE: ranks(NUT, 9.0)})
    finished(tmp_path, "pca", {DISTANCE: ranks(NUT, 0.0)})
    finished(tmp_path, "pca", {DISTANCE: ranks(category("zip"), 0.0)}, where=category("zip"))
    comparison_figures.show_matrices(comparison.performance(tmp_path), tmp_path)
    said = capsys.readouterr().out
    assert "nut: 1 of 1 pairs of rows are distinguishable" in said and "zip: there are no two rows to compare" in said


def test_handmade_runs_are_what_the_notebooks_leave(tmp_path):
    """The folders above are worth something only as long as they hold what a run holds."""
    folder = finished(tmp_path, "memory", {DISTANCE: ranks(NUT, 1.0)})
    again = pd.read_csv(folder / "all_results.csv")
    assert auroc_of(again)["test"] == files.read_json(
        folder / "metrics.json")["auroc"]["test"]
    assert set(again["split"]) == {"train", "held_out", "test"} and len(
        handmade.HELD) == conformal.min_calibration_size(0.05)


def test_the_best_on_other_test_images_is_not_the_best(tmp_path):
    for name, shift in (("pca", 1.0), ("gaussian", 0.8)):
        finished(tmp_path, name, {DISTANCE: ranks(NUT, shift, len(name))})
    finished(tmp_path, "memory", {DISTANCE: ranks(NUT, 99.0)}, fingerprint="another")
    said = answers.full(rows_of(tmp_path).reset_index(drop=True))
    assert f"Not compared on nut, having seen other test images: {comparison.label('memory')}." in said
    assert "PCA residual ranks best" in said and "of 0 other" not in said


@pytest.mark.parametrize(("n", "shown"), [(19, True), (18, False)])
def test_rates_are_empty_where_the_held_out_images_support_no_threshold(tmp_path, n, shown):
    finished(tmp_path, "pca", {DISTANCE: ranks(NUT, 3.0)}, held=np.linspace(0, 1, n))
    row = rows_of(tmp_path).iloc[0]
    assert math.isnan(row["false_positives"]) == math.isnan(row["detections"]) == (not shown)


def test_the_headline_is_the_best_of_all_categories_and_what_it_cannot_be_told_from():
    known = [("nut", "a", 0.9, True), ("nut", "b", 0.85, True), ("nut", "c", 0.5, False),
             ("zip", "a", 0.7, True), ("zip", "b", 0.6, False), ("zip", "d", 0.8, True)]
    rows = pd.DataFrame([{
        "category": category, "configuration": label, "auroc": auroc, "low": auroc - 0.1,
        "high": auroc + 0.1, "with_best": with_best, "name": "memory"
    } for category, label, auroc, with_best in known])
    said = answers.headline(rows)
    assert said == (
        "a does best: an image AUROC of 0.900 [0.80, 1.00] on nut and 0.700 [0.60, 0.80] on zip, "
        "the brackets being what so "
        "small a test set leaves open. Of the other rows, the paired test cannot distinguish 1 of 2 on "
        "nut and 1 of 2 on zip from "
        "the best.")
    assert "Of the other" not in answers.headline(
        rows[rows["configuration"] == "a"]) and "a 表现最好" in said.zh
    assert answers.headline(rows.assign(auroc=float("nan"))) == "No run has an AUROC yet."
