"""The study's questions: tables made by hand-checkable numbers, and a sentence for what was not
asked."""
import math

import numpy as np
import pandas as pd
import pytest
from tests.handmade import DISTANCE, OTHER, OWN, category, failed, finished, ranks
from scipy import stats

from adlib.data import files
from adlib.evaluation import evaluate
from adlib.report import comparison, questions, summary

NUT = category()


def table_of(reports):
    return comparison.performance(reports)


def rewrite(folder, **changes):
    files.write_json(folder / "metrics.json", files.read_json(folder / "metrics.json") | changes)


def study(folder, rows, own="a", chosen="b"):
    """A score_study.csv: {score: (label_free, test)}."""
    roles = {own: "its own", chosen: "chosen without labels"
             } if own != chosen else {own: "its own and chosen without labels"}
    found = [{
        "score": name, "label_free": known, "test": real, "train_bad": math.nan, "role": roles.get(
            name, "")
    } for name, (known, real) in rows.items()]
    evaluate.write_csv(pd.DataFrame(found), folder / "score_study.csv")


FIRST = {"a": (0.5, 0.60), "b": (0.9, 0.80), "c": (0.6, 0.90), "d": (0.4, 0.50), "e": (0.3, 0.40)}
SECOND = {"a": (0.7, 0.70), "b": (0.5, 0.60), "c": (0.8, 1.00), "d": (0.2, 0.30), "e": (0.1, 0.20)}


@pytest.fixture
def two_seeds(tmp_path):
    for seed, rows, chosen in ((0, FIRST, "b"), (1, SECOND, "c")):
        study(
            finished(tmp_path, "cae_mse",
                     {OWN: ranks(NUT, 1.0, seed), OTHER: ranks(NUT, 2.0, seed)}, seed=seed), rows,
            chosen=chosen)
    return tmp_path


def test_which_score_is_the_mean_over_seeds_and_the_choice_is_each_seeds_own(two_seeds):
    found = questions.scores(table_of(two_seeds), two_seeds).set_index("score")
    assert found.loc["a", ["label_free", "test"]].tolist() == pytest.approx([0.6, 0.65])
    assert found["chosen"].to_dict() == {"a": 0, "b": 0.5, "c": 0.5, "d": 0, "e": 0}
    assert found["own"].to_dict() == {name: name == "a" for name in "abcde"}
    # b's .80 of the first seed, c's 1.00 of the second
    assert found["picked"].tolist() == pytest.approx([0.9] * 5)


def test_the_choices_and_their_sentence(two_seeds):
    scores = questions.scores(table_of(two_seeds), two_seeds)
    (row, ) = questions.choices(scores).to_dict("records")
    rank = stats.spearmanr(scores["label_free"], scores["test"]).statistic
    assert row["Own score"] == "a 0.650" and row[
        "Chosen without labels"] == "b and c 0.900" and row["Best in hindsight"] == "c 0.950"
    assert row["Rank correlation, label-free and real"] == f"{rank:+.2f}"
    said = questions.scores_sentence(scores)
    assert "Over 1 autoencoders" in said and "+0.250 on average" in said and "0.050 below the best" in said and f"{rank:+.2f}" in said


def test_all_scores_in_one_table(two_seeds):
    wide = questions.scores_table(questions.scores(table_of(two_seeds),
                                                   two_seeds)).set_index("Score")["nut: CAE + MSE"]
    assert wide["b"] == "0.700 (0.700) •" and wide["a"] == "0.650 (0.600)"


@pytest.mark.parametrize(
    "rows", [{name: FIRST[name]
              for name in "abc"}, FIRST | {"e": (0.3, math.nan)}, FIRST | {"e": (math.nan, 0.4)}],
    ids=["a feature detector", "no labels", "nothing held out"])
def test_where_scores_cannot_be_compared_it_says_so(tmp_path, rows):
    study(finished(tmp_path, "cae_mse", {OWN: ranks(NUT, 1.0)}), rows)
    scores = questions.scores(table_of(tmp_path), tmp_path)
    assert scores.empty and questions.choices(
        scores).empty and "Not asked here" in questions.scores_sentence(scores)


def test_a_seed_without_its_study_takes_the_configuration_out(two_seeds):
    finished(two_seeds, "cae_mse", {OWN: ranks(NUT, 1.0)}, seed=2)
    assert questions.scores(table_of(two_seeds), two_seeds).empty


def test_pixels_or_features(tmp_path):
    for name, shift in (("to_pixels", 0.5), ("to_features", 3.0), ("pca", 1.0)):
        finished(tmp_path, name, {DISTANCE: ranks(NUT, shift, len(name))})
    table = table_of(tmp_path)
    rows, pairs = summary.rows(table, tmp_path), summary.matrix(table, tmp_path, "nut")
    found = questions.target(rows)
    assert list(found["Configuration"]) == [
        comparison.LABELS["to_pixels"], comparison.LABELS["to_features"]
    ]
    said = questions.target_sentence(table, rows, tmp_path)
    p = summary.p_value(pairs, comparison.LABELS["to_pixels"], comparison.LABELS["to_features"])
    raw = pairs[(pairs["a"].str.startswith("Frozen"))
                & (pairs["b"].str.startswith("Frozen"))].iloc[0]
    assert p == raw["p"] < raw["p_holm"] and f"(p = {p:.2g})" in said and "not corrected" in said
    assert "PCA" not in said


@pytest.mark.parametrize("names", [("to_features", ), ("to_pixels", ), ("pca", )])
def test_half_an_experiment_is_none(tmp_path, names):
    for name in names:
        finished(tmp_path, name, {DISTANCE: ranks(NUT, 1.0)})
    table = table_of(tmp_path)
    assert "Not asked here" in questions.target_sentence(table, summary.rows(table, tmp_path),
                                                         tmp_path)


def places(reports, known, real, share=0.8, where=NUT):
    for name, label_free, shift in (("gaussian", known[0], real[0]), ("gaussian_anywhere", known[1],
                                                                      real[1])):
        rewrite(
            finished(reports, name, {DISTANCE: ranks(where, shift)}, where=where,
                     label_free=label_free), position_share=share)


@pytest.mark.parametrize(("known", "choice"), [((0.9, 0.8), "per position"),
                                               ((0.7, 0.8), "any position")])
@pytest.mark.parametrize(("real", "truth"), [((3.0, 0.5), "per position"),
                                             ((0.5, 3.0), "any position")])
def test_does_the_place_matter(tmp_path, known, choice, real, truth):
    places(tmp_path, known, real)
    (row, ) = questions.place(table_of(tmp_path), tmp_path).to_dict("records")
    assert (row["Label-free choice"], row["Better in truth"]) == (choice,
                                                                  truth) and "0.80" in row.values()
    said = questions.place_sentence(questions.place(table_of(tmp_path), tmp_path))
    assert ("1 of 1 categories (nut)" if choice == truth else "0 of 1 categories.") in said


def test_what_cannot_be_known_is_no_choice(tmp_path):
    # no AUROC: neither is better in truth
    places(tmp_path, (0.9, 0.8), (1.0, 1.0), where=category(bad=0))
    assert questions.place(table_of(tmp_path), tmp_path).empty
    assert "Not asked here" in questions.place_sentence(pd.DataFrame())


def test_an_auroc_of_zero_is_an_auroc(tmp_path):
    places(tmp_path, (0.9, 0.8), (-99.0, 3.0))
    assert questions.place(table_of(tmp_path), tmp_path).iloc[0]["AUROC, per position"] == "0.000"


def taught(reports, name, kinds, shift):
    folder = finished(reports, name, {DISTANCE: ranks(NUT, shift)}, label_free=0.75)
    about = files.read_json(folder / "run.json")
    files.write_json(folder / "run.json", about | {"params": about["params"] | {"kinds": kinds}})


def test_what_each_part_brings(tmp_path):
    taught(tmp_path, "fused", "cutpaste, spot", 99.0)
    taught(tmp_path, "fused_shape", "cutpaste", -99.0)
    taught(tmp_path, "memory", "spot", 1.0)  # is taught nothing, whatever its parameters say
    finished(tmp_path, "pca", {DISTANCE: ranks(NUT, 1.0)})
    found = questions.parts(table_of(tmp_path), tmp_path).set_index("Configuration")
    marks = found["Label-free, spot"].to_dict()
    assert marks == {
        comparison.LABELS["memory"]: "0.750", comparison.LABELS["fused"]: "0.750*",
        comparison.LABELS["fused_shape"]: "0.750"
    }
    assert found.loc[comparison.LABELS["fused_shape"],
                     "AUROC, test"] == "0.000" and (found["AUROC, train/bad"] == "").all()
    said = questions.parts_sentence(found.reset_index())
    assert f"from 0.000 ({comparison.LABELS['fused_shape']}) to 1.000 ({comparison.LABELS['fused']})" in said


def test_without_a_variant_there_is_no_ablation(tmp_path):
    for name in ("fused", "memory"):
        finished(tmp_path, name, {DISTANCE: ranks(NUT, 1.0)})
    failed(tmp_path, "classifier", "no disk")
    parts = questions.parts(table_of(tmp_path), tmp_path)
    assert parts.empty and "Not asked here" in questions.parts_sentence(parts)


def test_an_ablation_without_labels_says_so(tmp_path):
    where = category(bad=0)
    finished(tmp_path, "fused_shape", {DISTANCE: ranks(where, 1.0)}, where=where)
    assert "no labels of both classes" in questions.parts_sentence(
        questions.parts(table_of(tmp_path), tmp_path))


def test_variants_are_in_their_own_table_only(tmp_path):
    for name in ("fused", "fused_shape"):
        finished(tmp_path, name, {DISTANCE: ranks(NUT, 1.0)})
    assert list(comparison.without_ablations(table_of(tmp_path))["name"]) == ["fused"]
    only = table_of(tmp_path)[lambda table: table["name"] == "fused_shape"]
    assert len(comparison.without_ablations(only)) == 1  # nothing else was run: they are the study


def test_where_by_type_and_size_is_the_mean_over_seeds(tmp_path):
    for seed, value in enumerate((0.5, 0.9)):
        group = {"group": "crack", "images": 4} | dict.fromkeys(questions.PIXEL, value)
        finished(tmp_path, "pca", {DISTANCE: ranks(NUT, 1.0)}, seed=seed,
                 localisation={"groups": [group]})
        # knows no place
        finished(tmp_path, "mean_grey", {DISTANCE: ranks(NUT, 1.0)}, seed=seed,
                 localisation={"groups": [group]})
    finished(tmp_path, "memory", {DISTANCE: ranks(NUT, 1.0)},
             localisation={"why_absent": "masks that are all empty"})
    (row, ) = questions.localisation(table_of(tmp_path), tmp_path).to_dict("records")
    assert row == {
        "Category": "nut", "Configuration": "PCA residual", "Good images with": "crack",
        "Images": "4", "Pixel AUROC": "0.700", "Pixel AP": "0.700", "AU-PRO .30": "0.700",
        "AU-PRO .05": "0.700"
    }


def test_epochs_are_in_their_order_and_means_over_seeds(tmp_path):
    for seed, (first, last) in enumerate(((0.2, 0.4), (0.4, 0.8))):
        folder = finished(tmp_path, "cae_mse", {OWN: ranks(NUT, 1.0)}, seed=seed)
        evaluate.write_csv(pd.DataFrame({"epoch": [2, 10], "auroc": [first, last]}),
                           folder / "epochs.csv")
    finished(tmp_path, "pca", {DISTANCE: ranks(NUT, 1.0)})  # has no epochs
    found = questions.epochs(table_of(tmp_path), tmp_path)
    assert list(found.columns[:4]) == ["Category", "Configuration", "Epoch 2", "Epoch 10"]
    (row, ) = found.to_dict("records")
    assert (row["Epoch 2"], row["Epoch 10"]) == ("0.300", "0.600")
    assert row["Score and brightness"] == f"{np.mean([0.5, 1.5]):+.2f}" and row[
        "Score and size"] == ""
