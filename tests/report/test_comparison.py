"""Runs to rows: what the summary says of runs whose scores are known, because they were made by
hand."""
import math
import shutil

import bs4
import numpy as np
import pandas as pd
import pytest

from adlib.config import InputError
from adlib.data import files
from adlib.evaluation import conformal
from adlib.evaluation.auroc import auroc, auroc_interval
from adlib.evaluation.results import auroc_of
from adlib.report import comparison, ranking
from adlib.report.display import matrix
from adlib.report.words import answers, i18n
from tests import handmade
from tests.conftest import read_csv
from tests.handmade import DISTANCE, OTHER, OWN, category, failed, finished, ranks

NUT = category()
LABELS = np.array([0] * 20 + [1] * 15)


def rows_of(reports):
    rows = comparison.rows(comparison.performance(reports), reports)
    assert list(rows.columns) == list(comparison.ROW_COLUMNS)
    return rows.set_index("configuration", drop=False)


def matrix_of(reports, category="nut"):
    return ranking.matrix(comparison.performance(reports), reports, category)


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


def test_an_autoencoder_has_a_row_of_the_score_in_use_and_one_of_the_references(tmp_path):
    tests = [{OWN: ranks(NUT, 0.5, seed), OTHER: ranks(NUT, 1.5, seed + 10)} for seed in range(2)]
    for seed, each in enumerate(tests):  # the second seed keeps the reference's score
        finished(tmp_path, "cae_mse", each, seed=seed, chosen=OTHER if seed == 0 else OWN,
                 label_free=0.7 + 0.05 * seed)
    rows = rows_of(tmp_path)
    assert list(rows["configuration"]) == ["cae_mse", "cae_mse/reference"] and set(
        rows["name"]) == {"cae_mse"}
    in_use, reference = rows.iloc[0], rows.iloc[1]
    assert reference["score"] == OWN and in_use["score"] == f"{OWN}, {OTHER}"
    picked = [tests[0][OTHER], tests[1][OWN]]
    for row, scores in ((reference, [each[OWN] for each in tests]), (in_use, picked)):
        assert row["auroc"] == pytest.approx(
            np.mean([auroc(LABELS, each) for each in scores]))
        assert (row["low"], row["high"]) == auroc_interval(LABELS, np.stack(scores))
    assert reference["label_free"] == pytest.approx(
        (0.7 + 0.75) / 2) and in_use["label_free"] == pytest.approx((0.8 + 0.75) / 2)
    # what the reference's score follows says nothing of another
    assert reference["brightness"] == 1.0 and math.isnan(in_use["brightness"])
    table = comparison.performance(tmp_path)  # a run, too, is about the score in use
    assert table["auroc"].tolist() == [auroc(LABELS, each) for each in picked]
    assert comparison.label("cae_mse/reference") == "CAE + MSE by mean squared error"


def test_another_map_than_the_first_can_be_in_use(tmp_path):
    """Of a detector of one's own with several maps, the row is about the one that decides."""
    finished(tmp_path, "mine", {DISTANCE: ranks(NUT, 0.0), "other.top1": ranks(NUT, 3.0)},
             chosen="other.top1")
    row, = rows_of(tmp_path).iloc
    assert row["score"] == "other.top1" and row["auroc"] > 0.9


def test_a_run_of_an_earlier_version_has_the_same_row(tmp_path):
    metrics = finished(tmp_path, "memory", {DISTANCE: ranks(NUT, 1)}) / "metrics.json"
    now = rows_of(tmp_path)
    old = metrics.read_text().replace("false_positives", "false_alarms")
    metrics.write_text(old.replace("confounders", "follows"))
    pd.testing.assert_frame_equal(rows_of(tmp_path), now)
    assert now["false_positives"].notna().all() and "false_alarms" in metrics.read_text()


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
    chosen, own = rows_of(tmp_path).iloc
    assert (own["claim_low"],
            own["claim_high"]) == (0.70, 0.80) and own["verdict"] in ("missed", "reached",
                                                                      "exceeded")
    assert math.isnan(chosen["claim_low"]) and chosen["verdict"] != chosen["verdict"]
    assert f"Of the 1 AUROC ranges that the reference claims for these cells, 1 {own['verdict']}." in answers.full(
        rows_of(tmp_path))


def test_the_closing_matrix_says_what_every_cell_is(tmp_path):
    """Where the score in use is the reference's, its row says the same as the one above."""
    for where in ("nut", "zip"):
        scores = {OWN: ranks(category(where), 1.0, 1), OTHER: ranks(category(where), 1.5, 2)}
        finished(tmp_path, "cae_mse", scores, where=category(where),
                 chosen=OTHER if where == "nut" else OWN)
    finished(tmp_path, "pca", {DISTANCE: ranks(NUT, 2.0)})
    cells = {(name, where): said
             for name, where, said in matrix.closing(rows_of(tmp_path).reset_index(drop=True))}
    assert len(cells) == 6 and all(cells.values())
    assert cells["PCA residual", "zip"] == "not run"
    assert [(name, where) for (name, where), said in cells.items() if said == "as above"] == [
        (comparison.label(f"cae_mse{comparison.REFERENCE}"), "zip")]


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
    chosen, own = rows_of(tmp_path).iloc
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
    assert (rows["reason"] == "no_anomalous").all() and matrix_of(tmp_path).empty
    # of bad images there is none to detect
    assert rows["detections"].isna().all() and rows["false_positives"].notna().all()
    assert "is best" not in answers.full(rows) and "no_anomalous" not in answers.full(rows)


def test_good_pictures_only_are_told_by_what_is_known(tmp_path):
    where = category(good=8, bad=0)
    scores = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 5.0])  # HELD's highest is 1
    for name, free in (("memory", 0.6), ("fused", 0.9)):
        folder = finished(tmp_path, name, {DISTANCE: scores}, where=where, label_free=free)
        found = files.read_json(folder / "metrics.json") | {"half_found": {
            "pixels": 836.4, "least": 100.0, "largest": 9000.0, "n": 80}}
        files.write_json(folder / "metrics.json", found)
    finished(tmp_path, "pca", {DISTANCE: scores}, where=where, label_free=0.95, held=np.zeros(0))
    rows = comparison.rows(comparison.performance(tmp_path), tmp_path)
    answer = ranking.answer(rows, "nut")
    row = answer.unjudged
    assert answer.best is None and (row["name"], row["threshold"], row["calibrated_on"]) == (
        "fused", 1.0, 19)
    said = answers.short(answer)
    assert said == answers.full(rows) and said.startswith("nut, Fused: Threshold 1, from 19 good")
    low, high = conformal.rate_interval(1, 8)
    for told in ("1 of 8 good pictures kept for testing are called bad (95% interval "
                 f"{low:.0%} to {high:.0%})", "defects of 836 of the file's pixels",
                 "AUROC 0.900 against"):
        assert told in said
    cells = {name: text for name, _, text in matrix.closing(rows)}
    assert cells == {"Fused": "1 of 8 called bad", "Memory of patches (PatchCore)":
                     "1 of 8 called bad", "PCA residual": "scored"}
    card, table = (bs4.BeautifulSoup(shown(rows, tmp_path), "html.parser")
                   for shown in (matrix.cards, matrix.matrix))
    assert card.select_one(".best a")["href"] == "runs/nut/fused/seed-0/index.html"
    assert not card.select(".number") and "Best on" not in card.text
    assert f"adlib predict {tmp_path}" in card.select_one(".level code").text
    spaced = tmp_path / "my reports"
    shutil.copytree(tmp_path / "runs", spaced / "runs")
    assert f"adlib predict '{spaced}/runs/nut/fused/seed-0' FOLDER" in matrix.cards(rows, spaced)
    assert not table.select(".status, .axis") and "1 of 8 called bad" in table.text
    assert [str(note) for note in matrix.notes(rows)] == [str(i18n.t("matrix.read_known"))]
    beyond = answers.without_auroc(row | {"half_found": math.inf, "threshold": math.nan})
    assert beyond.startswith("no threshold") and "fewer than half are found" in beyond


def test_of_several_bests_the_find_is_said_of_the_one_that_is_linked(tmp_path):
    for name, held in (("memory", handmade.HELD), ("fused", handmade.HELD + 2)):
        finished(tmp_path, name, {DISTANCE: LABELS + 0.5}, held=held)  # both 1.000
    finished(tmp_path, "pca", {DISTANCE: ranks(NUT, 0.0)}, held=np.zeros(3))
    rows = comparison.rows(comparison.performance(tmp_path), tmp_path)
    answer = ranking.answer(rows, "nut")
    assert answer.tied == ["memory", "fused"]
    card = bs4.BeautifulSoup(matrix.cards(rows, tmp_path), "html.parser")
    for part in card.select("[lang=zh-CN]"):
        part.decompose()
    assert card.select_one(".best a").text == "Memory of patches (PatchCore) and Fused"
    assert card.select_one(".gains").text.startswith(
        "Memory of patches (PatchCore): finds 15 of 15 bad parts")
    assert "memory" in card.select_one(".best a")["href"]
    assert "Fused" not in card.select_one(".level").text
    assert "Not distinguishable from it: Fused." in answers.short(answer)  # which names one alone
    bare = bs4.BeautifulSoup(matrix.matrix(rows, tmp_path), "html.parser")
    assert "too few good images" in bare.select("tbody")[-1].select_one(".at .note")["title"]


def test_where_the_score_in_use_is_the_mean_squared_error_its_own_row_says_so(tmp_path):
    for where, chosen in ((category("nut"), OWN), (category("zip"), OTHER)):
        finished(tmp_path, "cae_mse", {OWN: ranks(where, 1.0), OTHER: ranks(where, 1.5)},
                 where=where, chosen=chosen)
    rows = comparison.rows(comparison.performance(tmp_path), tmp_path)
    table = bs4.BeautifulSoup(matrix.matrix(rows, tmp_path), "html.parser")
    child = table.select("tr.child td")
    assert "as above" in child[-2].text and "as above" not in child[-1].text
    assert child[-2]["data-name"]  # on a phone, where no head stands above it
    shutil.rmtree(tmp_path / "runs" / "nut")  # where it did not run, nothing is as above
    finished(tmp_path, "memory", {DISTANCE: ranks(category("nut"), 1.0)}, where=category("nut"))
    rows = comparison.rows(comparison.performance(tmp_path), tmp_path)
    assert "as above" not in matrix.matrix(rows, tmp_path)


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
             localisation={"why_absent": "one_class"})
    rows = rows_of(tmp_path)
    assert math.isnan(rows.loc["cae_mse/reference", "pixel_auroc"])
    assert rows.loc["cae_mse", "au_pro_05"] == 0.5
    assert rows.loc["memory",
                    "pixel_auroc"] == pytest.approx(0.8) and math.isnan(rows.loc["pca",
                                                                                 "pixel_ap"])


def test_a_defect_may_be_called_na_and_a_damaged_table_is_named(tmp_path):
    folder = finished(tmp_path, "memory", {DISTANCE: ranks(NUT, 1.0)})
    path = folder / "all_results.csv"
    files.write_text(path, path.read_text().replace(",spot,", ",NA,"))
    table = comparison.read_results(folder)
    assert set(table["defect"]) == {"good", "NA"} and table["p_value"].isna().any()
    limits = tmp_path / "limits" / "nut" / "memory" / "robustness.csv"
    files.write_text(limits, "")
    with pytest.raises(InputError, match=r"cannot read .*robustness.csv \(.*; run its config"):
        comparison.after_runs(tmp_path, "limits", "robustness.csv")


def test_handmade_runs_are_what_the_notebooks_leave(tmp_path):
    """The folders above are worth something only as long as they hold what a run holds."""
    folder = finished(tmp_path, "memory", {DISTANCE: ranks(NUT, 1.0)})
    again = read_csv(folder / "all_results.csv")
    assert auroc_of(again)["test"] == files.read_json(
        folder / "metrics.json")["auroc"]["test"]
    assert set(again["split"]) == {"train", "held_out", "test"} and len(
        handmade.HELD) == conformal.min_calibration_size(0.05)


@pytest.mark.parametrize(("n", "shown"), [(19, True), (18, False)])
def test_rates_are_empty_where_the_held_out_images_support_no_threshold(tmp_path, n, shown):
    finished(tmp_path, "pca", {DISTANCE: ranks(NUT, 3.0)}, held=np.linspace(0, 1, n))
    row = rows_of(tmp_path).iloc[0]
    assert math.isnan(row["false_positives"]) == math.isnan(row["detections"]) == (not shown)
