"""Runs to rows: what the summary says of runs whose scores are known, because they were made by
hand."""
import math
import shutil
import tempfile
from pathlib import Path

import bs4
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adlib.config import STATISTICS
from adlib.data import files
from adlib.evaluation import conformal
from adlib.evaluation.auroc import LEVEL, auroc, auroc_interval, holm, paired_test
from adlib.evaluation.results import auroc_of
from adlib.report import comparison, ranking
from adlib.report.display import matrix
from adlib.report.study import Study
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


def against_best(rows, best):
    """Holm-corrected p-values of the paired tests of the best against each other row of a table of
    configurations that were made from ranks(NUT, shift, seed): {name: (shift, seed)}."""
    scores = {name: ranks(NUT, *drawn) for name, drawn in rows.items()}
    p = {name: paired_test(LABELS, scores[best], scores[name])[1] for name in rows if name != best}
    return dict(zip(p, holm(list(p.values())), strict=True))


@settings(max_examples=6, deadline=None)
@given(st.lists(st.floats(-1, 4), min_size=2, max_size=4), st.integers(0, 9))
def test_stars_are_by_the_planned_tests_of_the_best_against_each(shifts, start):
    drawn = {f"d{i}": (shift, 100 * start + i) for i, shift in enumerate(shifts)}
    with tempfile.TemporaryDirectory() as folder:
        for name, of in drawn.items():
            finished(Path(folder), name, {DISTANCE: ranks(NUT, *of)})
        rows, pairs = rows_of(Path(folder)), matrix_of(Path(folder))
    best = rows["auroc"].idxmax()
    assert len(pairs) == len(shifts) * (len(shifts) - 1) / 2 and rows.loc[best, "with_best"]
    for name, p in against_best(drawn, best).items():
        assert rows.loc[name, "with_best"] == (p >= LEVEL or rows.loc[
            name, "auroc"] == rows.loc[best, "auroc"])
    for pair in pairs.itertuples():
        assert pair.difference == pytest.approx(rows.loc[pair.a, "auroc"] -
                                                rows.loc[pair.b, "auroc"])
        assert ranking.p_value(pairs, pair.b, pair.a) == pair.p
    assert math.isnan(ranking.p_value(pairs, best, "nobody"))


def test_the_best_and_its_equals_are_marked_and_what_is_significantly_below_is_not(tmp_path):
    finished(tmp_path, "memory", {DISTANCE: ranks(NUT, 2.2, 1)})
    finished(tmp_path, "pca", {DISTANCE: ranks(NUT, 2.0, 2)})
    finished(tmp_path, "gaussian", {DISTANCE: ranks(NUT, 0.0, 3)})
    finished(tmp_path, "cae_mse", {OWN: ranks(NUT, 0.1, 4), OTHER: ranks(NUT, 2.1, 5)},
             chosen=OTHER)
    rows = rows_of(tmp_path)
    assert rows["with_best"].to_dict() == {
        "cae_mse/reference": False, "cae_mse": True, "pca": True,
        "gaussian": False, "memory": True
    }


def test_an_irrelevant_row_changes_no_other_rows_star(tmp_path):
    """Among six pairs this lead is none; among three planned tests it is one, and a row far below
    leaves it so."""
    drawn = {"memory": (2.0, 50), "pca": (0.9, 51), "gaussian": (1.6, 52), "classifier": (1.7, 53)}
    for name, of in drawn.items():
        finished(tmp_path, name, {DISTANCE: ranks(NUT, *of)})
    pair = matrix_of(tmp_path).set_index(["a", "b"]).loc[("pca", "memory")]
    assert pair["p"] < 0.05 < pair["p_holm"]  # the matrix corrects for its six pairs
    before = rows_of(tmp_path)["with_best"].to_dict()
    assert against_best(drawn, "memory")["pca"] < 0.05 and before["pca"] is False
    finished(tmp_path, "mean_grey", {DISTANCE: ranks(NUT, -3.0, 54)})
    after = rows_of(tmp_path)["with_best"].to_dict()
    assert after == before | {"mean_grey": False}


def test_the_references_score_is_never_the_best_but_can_be_above_it(tmp_path):
    finished(tmp_path, "cae_mse", {OWN: ranks(NUT, 3.0), OTHER: ranks(NUT, 0.8)}, chosen=OTHER)
    rows = rows_of(tmp_path)
    assert rows["with_best"].to_dict() == {"cae_mse": True, "cae_mse/reference": True}
    assert ranking.answer(rows, "nut").best["configuration"] == "cae_mse"


def with_random_weights(folder):
    about = files.read_json(folder / "run.json")
    files.write_json(folder / "run.json", about | {
        "weights": "random:no_connection"})


def test_random_weights_stay_out_of_headline_and_tests(tmp_path):
    finished(tmp_path, "pca", {DISTANCE: ranks(NUT, 1.0)})
    with_random_weights(finished(tmp_path, "memory", {DISTANCE: ranks(NUT, 9.0)}))
    rows = rows_of(tmp_path)
    assert rows.loc["memory", "random"] and not rows.loc["pca", "random"]
    assert rows.loc["pca", "with_best"] is True and rows.loc["memory", "with_best"] not in (
        True, False)
    found = ranking.answer(rows, "nut")
    assert found.best["configuration"] == "pca" and found.random == ["memory"] and not found.apart
    said = answers.full(rows)
    assert "nut: PCA residual is best" in said and said.count("Memory of patches") == 1
    assert "Left out of the comparison on nut for their random weights: Memory of" in said
    assert [name for name, _, _ in matrix.closing(rows)] == [
        "PCA residual", "Memory of patches (PatchCore) (random weights)"]
    finished(tmp_path, "gaussian", {DISTANCE: ranks(NUT, 0.5)})
    pairs = Study(tmp_path).pairs("nut")
    assert [{pair.a, pair.b} for pair in pairs.itertuples()] == [{"pca", "gaussian"}]
    for name in ("pca", "gaussian"):
        with_random_weights(tmp_path / "runs" / "nut" / name / "seed-0")
    assert answers.full(rows_of(tmp_path)).startswith(
        "nut: no answer, as every row that can be compared ran with random weights.")
    assert ranking.order(rows_of(tmp_path)) == ["memory", "pca", "gaussian"]


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


def test_the_best_is_the_same_wherever_it_is_named(tmp_path):
    for name, shift, seed in (("memory", 1.5, 1), ("pca", 1.4, 2), ("gaussian", 0.0, 3)):
        finished(tmp_path, name, {DISTANCE: ranks(NUT, shift, seed)})
    rows = rows_of(tmp_path).reset_index(drop=True)
    best = comparison.label(ranking.answer(rows, "nut").best["configuration"])
    card, table = (bs4.BeautifulSoup(shown(rows, tmp_path), "html.parser")
                   for shown in (matrix.cards, matrix.matrix))
    first = table.select_one("tbody tr")
    assert card.select_one(".best [lang=en]").text == best == first.select_one("[lang=en]").text
    assert first.select_one(".star").text == "★"
    name, _, said = matrix.closing(rows)[0]
    row = ranking.answer(rows, "nut").best
    assert name == best and said.split("\n")[0] == (
        f"{row['auroc']:.3f} [{row['low']:.2f}, {row['high']:.2f}] ★")
    assert answers.full(rows).startswith(f"nut: {best} is best")
    said = Study(tmp_path).markdown()
    assert f"nut: {best} is best" in said


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
    assert not table.select(".status, .axis") and "1 of 8 called bad" in table.text
    assert [str(note) for note in matrix.notes(rows)] == [str(i18n.t("matrix.read_known"))]
    beyond = answers.known(row | {"half_found": math.inf, "threshold": math.nan})
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
        "memory"] is not True and "Not distinguishable" not in answers.full(rows)


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
             localisation={"why_absent": "one_class"})
    rows = rows_of(tmp_path)
    assert math.isnan(rows.loc["cae_mse/reference", "pixel_auroc"])
    assert rows.loc["cae_mse", "au_pro_05"] == 0.5
    assert rows.loc["memory",
                    "pixel_auroc"] == pytest.approx(0.8) and math.isnan(rows.loc["pca",
                                                                                 "pixel_ap"])


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
    assert f"Gaussian per position (PaDiM) does not beat Mean grey (no model) ({grey:.3f}), which is no model at all." in said
    besides = answers.besides(rows)  # the notebook's end, which does not say the first screen again
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
    found, tied = ranking.answer(rows, "nut"), rows["auroc"].round(4) == rows["auroc"].max().round(4)
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


def test_handmade_runs_are_what_the_notebooks_leave(tmp_path):
    """The folders above are worth something only as long as they hold what a run holds."""
    folder = finished(tmp_path, "memory", {DISTANCE: ranks(NUT, 1.0)})
    again = read_csv(folder / "all_results.csv")
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
    assert "nut: PCA residual is best" in said


@pytest.mark.parametrize(("n", "shown"), [(19, True), (18, False)])
def test_rates_are_empty_where_the_held_out_images_support_no_threshold(tmp_path, n, shown):
    finished(tmp_path, "pca", {DISTANCE: ranks(NUT, 3.0)}, held=np.linspace(0, 1, n))
    row = rows_of(tmp_path).iloc[0]
    assert math.isnan(row["false_positives"]) == math.isnan(row["detections"]) == (not shown)


def over(reports, shifts):
    """A detector a name, with its shift in the categories a, b, ...: the rows of all."""
    for name, by_category in shifts.items():
        for i, shift in enumerate(by_category):
            where = category("abcdefgh"[i])
            finished(reports, name, {DISTANCE: ranks(where, shift, 10 * i + len(name))}, where=where)
    return comparison.rows(comparison.performance(reports), reports)


def test_over_categories_the_best_mean_leads_and_a_gap_is_no_rank(tmp_path):
    rows = over(tmp_path, {"memory": (2.5, 2.5), "pca": (0.5, 3.5), "gaussian": (4.0,)})
    found = ranking.standing(rows)
    assert set(found.index) == {"memory", "pca"}  # the third is unknown on b
    wide = rows.pivot(index="category", columns="name", values="auroc")[["memory", "pca"]]
    assert found["mean"].to_dict() == pytest.approx(wide.mean().to_dict())
    assert found["rank"].to_dict() == pytest.approx(
        wide.rank(axis=1, ascending=False).mean().to_dict())
    assert found.index[0] == found["mean"].idxmax()
    best = comparison.label(found.index[0])
    assert answers.overall(rows).startswith(f"Over 2 categories, {best} has the best mean AUROC")
    assert "在 2 个类别上" in answers.overall(rows).zh
    assert answers.overall(rows[rows["category"] == "a"]) is None


def test_ranks_over_categories_say_how_many_a_verdict_would_take(tmp_path):
    rows = over(tmp_path, {"memory": (2.0,) * 4, "pca": (1.0,) * 4, "gaussian": (0.5,) * 4})
    section = Study(tmp_path).ranks()
    assert section.said.startswith("Over 4 categories, ")
    assert "0 of the 3 pairs of the 3 detectors are distinguishable at 5%" in section.said
    assert "No pair could be: it would take 7" in section.said
    page = bs4.BeautifulSoup(section.drawn[0], "html.parser")
    average = ranking.standing(rows)["rank"].sort_values(kind="stable")
    names = [text.contents[0].strip() for text in page.select("svg text[lang=en]")]
    assert names == [comparison.label(code) for code in average.index]
    assert len(page.select("path.bar")) == 1  # joins all of them


def test_of_few_categories_there_are_no_ranks(tmp_path):
    over(tmp_path, {"memory": (2.0,) * 3, "pca": (1.0,) * 3, "gaussian": (0.5,) * 3})
    assert Study(tmp_path).ranks() is None


def test_which_detector_for_which_kind_of_part(tmp_path):
    rows = over(tmp_path, {"memory": (3.0, 3.0, 0.5, 0.5), "pca": (0.5, 0.5, 3.0, 3.0)})
    assert Study(tmp_path).kinds() is None  # nobody has measured the parts
    kinds = {"a": (0.9, 0.9), "b": (0.9, 0.8), "c": (0.1, 0.0), "d": (0.9, 0.1)}
    for name, (form, alignment) in kinds.items():
        files.write_json(tmp_path / "eda" / name / "properties.json",
                         {"form": form, "alignment": alignment, "colour": 0.1, "good": 30})
    section = Study(tmp_path).kinds()
    auroc_of = rows.set_index(["name", "category"])["auroc"]
    best = (auroc_of["memory", "a"] + auroc_of["memory", "b"]) / 2
    assert f"object, aligned (2): Memory of patches (PatchCore) {best:.3f}" in section.said
    assert f"surface (1): PCA residual {auroc_of['pca', 'c']:.3f}" in section.said
    assert section.tables[0][0]["kind_of"].tolist() == [
        "object, aligned", "object, aligned", "surface", "object, lying freely"]
