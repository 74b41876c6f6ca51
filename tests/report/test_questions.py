"""The study's questions: tables made by hand-checkable numbers, and a sentence for what was not
asked."""
import math

import bs4
import pandas as pd
import pytest
from scipy import stats

from adlib.data import corruptions, files
from adlib.evaluation.results import write_csv
from adlib.report import comparison, questions, ranking
from adlib.report.display import figures, tables
from adlib.report.study import RUN_BY, Study
from adlib.report.words import answers
from adlib.report.words.data_sentences import corruption
from adlib.runs import freshness
from tests.handmade import DISTANCE, OTHER, OWN, category, failed, finished, ranks

NUT = category()


def table_of(reports):
    return comparison.performance(reports)


def rewrite(folder, **changes):
    files.write_json(folder / "metrics.json", files.read_json(folder / "metrics.json") | changes)


def study(folder, rows, own="a", chosen="b"):
    """A score_study.csv: {score: (label_free, test)}."""
    roles = {own: "own", chosen: "chosen"
             } if own != chosen else {own: "own+chosen"}
    found = [{
        "score": name, "label_free": known, "test": real, "train_bad": math.nan, "role": roles.get(
            name, "")
    } for name, (known, real) in rows.items()]
    write_csv(pd.DataFrame(found), folder / "score_study.csv")


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
    choices = questions.choices(scores)
    (row, ) = choices.to_dict("records")
    rank = stats.spearmanr(scores["label_free"], scores["test"]).statistic
    assert (row["own_score"], row["chosen_score"], row["best_score"]) == ("a", "b, c", "c")
    assert (row["own_auroc"], row["chosen_auroc"], row["best_auroc"]) == pytest.approx(
        (0.65, 0.9, 0.95))
    assert row["rank_correlation"] == pytest.approx(rank)
    said = answers.scores(choices)
    assert "Over 1 autoencoders" in said and "+0.250 on average" in said
    assert "0.050 below the best" in said and f"{rank:+.2f}" in said


def test_all_scores_in_one_table(two_seeds):
    shown = questions.all_scores(questions.scores(table_of(two_seeds), two_seeds))
    wide = questions.wide(shown, "score")
    cells = wide.set_index("score")["nut", "cae_mse"]
    assert cells["b"] == "0.700 (0.700) •" and cells["a"] == "0.650 (0.600)"
    assert tables.markdown(wide).startswith("| Score | nut: CAE + MSE |")
    page = bs4.BeautifulSoup(tables.heat(shown, "scores", "scores", low=0.4, high=1), "html.parser")
    assert [row.th.text for row in page.select("tbody tr")] == list("abcde")
    cell = page.select("tbody tr")[1].td
    assert cell.text == "0.700 (0.700)•" and cell["style"] == "--v:50"  # from .4 to 1


@pytest.mark.parametrize(
    "rows", [{name: FIRST[name]
              for name in "abc"}, FIRST | {"e": (0.3, math.nan)}, FIRST | {"e": (math.nan, 0.4)}],
    ids=["a feature detector", "no labels", "nothing held out"])
def test_where_scores_cannot_be_compared_it_says_so(tmp_path, rows):
    study(finished(tmp_path, "cae_mse", {OWN: ranks(NUT, 1.0)}), rows)
    scores = questions.scores(table_of(tmp_path), tmp_path)
    choices = questions.choices(scores)
    assert scores.empty and choices.empty and tables.html(choices, "none") == ""
    assert Study(tmp_path).scores() is None


def test_a_seed_without_its_study_takes_the_configuration_out(two_seeds):
    finished(two_seeds, "cae_mse", {OWN: ranks(NUT, 1.0)}, seed=2)
    assert questions.scores(table_of(two_seeds), two_seeds).empty


def test_pixels_or_features(tmp_path):
    for name, shift in (("to_pixels", 0.5), ("to_features", 3.0), ("pca", 1.0)):
        finished(tmp_path, name, {DISTANCE: ranks(NUT, shift, len(name))})
    table = table_of(tmp_path)
    rows, pairs = comparison.rows(table, tmp_path), ranking.matrix(table, tmp_path, "nut")
    found = questions.target(rows)
    assert list(found["configuration"]) == ["to_pixels", "to_features"]
    said = answers.target(found, {"nut": pairs})
    p = ranking.p_value(pairs, "to_pixels", "to_features")
    raw = pairs[(pairs["a"].str.startswith("to_")) & (pairs["b"].str.startswith("to_"))].iloc[0]
    assert p == raw["p"] < raw["p_holm"] and f"(p = {p:.2g})" in said and "not corrected" in said
    assert "PCA" not in said


def test_what_saw_other_images_has_no_p(tmp_path):
    for i, name in enumerate(("to_pixels", "to_features", "to_features_squared")):
        finished(tmp_path, name, {DISTANCE: ranks(NUT, i)}, fingerprint="f" if i < 2 else "g")
    table = table_of(tmp_path)
    found = questions.target(comparison.rows(table, tmp_path))
    said = answers.target(found, {"nut": ranking.matrix(table, tmp_path, "nut")})
    assert "(cosine)" in said and "(squared)" not in said and "nan" not in said


@pytest.mark.parametrize("names", [("to_features", ), ("to_pixels", ), ("pca", )])
def test_half_an_experiment_is_none(tmp_path, names):
    for name in names:
        finished(tmp_path, name, {DISTANCE: ranks(NUT, 1.0)})
    table = table_of(tmp_path)
    found = questions.target(comparison.rows(table, tmp_path))
    assert answers.target(found, {}) == "" and Study(tmp_path).target() is None


def positions(reports, known, real, share=0.8, where=NUT):
    for name, label_free, shift in (("gaussian", known[0], real[0]), ("gaussian_anywhere", known[1],
                                                                      real[1])):
        rewrite(
            finished(reports, name, {DISTANCE: ranks(where, shift)}, where=where,
                     label_free=label_free), position_share=share)


@pytest.mark.parametrize(("known", "choice"), [((0.9, 0.8), "per_position"),
                                               ((0.7, 0.8), "any_position")])
@pytest.mark.parametrize(("real", "truth"), [((3.0, 0.5), "per_position"),
                                             ((0.5, 3.0), "any_position")])
def test_does_the_position_matter(tmp_path, known, choice, real, truth):
    positions(tmp_path, known, real)
    position = questions.position(table_of(tmp_path), tmp_path)
    (row, ) = position.to_dict("records")
    assert (row["label_free_choice"], row["better"]) == (choice, truth)
    assert row["position_share"] == pytest.approx(0.8)
    said = answers.position(position)
    assert ("1 of 1 categories (nut)" if choice == truth else "0 of 1 categories.") in said


def test_what_cannot_be_known_is_no_choice(tmp_path):
    # no AUROC: neither is better in truth
    positions(tmp_path, (0.9, 0.8), (1.0, 1.0), where=category(bad=0))
    position = questions.position(table_of(tmp_path), tmp_path)
    assert position.empty and Study(tmp_path).position() is None


def test_an_auroc_of_zero_is_an_auroc(tmp_path):
    positions(tmp_path, (0.9, 0.8), (-99.0, 3.0))
    assert questions.position(table_of(tmp_path), tmp_path).iloc[0]["auroc_per_position"] == 0


def trained_with(reports, name, kinds, shift):
    folder = finished(reports, name, {DISTANCE: ranks(NUT, shift)}, label_free=0.75)
    about = files.read_json(folder / "run.json")
    files.write_json(folder / "run.json", about | {"params": about["params"] | {"kinds": kinds}})


def test_what_each_part_brings(tmp_path):
    trained_with(tmp_path, "fused", "cutpaste, spot", 99.0)
    trained_with(tmp_path, "fused_shape", "cutpaste", -99.0)
    trained_with(tmp_path, "memory", "spot", 1.0)  # is trained with nothing, whatever its parameters say
    finished(tmp_path, "pca", {DISTANCE: ranks(NUT, 1.0)})
    ablation = questions.ablation(table_of(tmp_path), tmp_path)
    found = ablation.set_index("configuration")
    assert found["kind:spot"].to_dict() == {"memory": "0.750", "fused": "0.750*",
                                            "fused_shape": "0.750"}
    assert found.loc["fused_shape", "auroc_test"] == 0 and found["auroc_train_bad"].isna().all()
    assert "| nut | Fused |" in tables.markdown(Study(tmp_path).ablation().tables[0][0])


def test_without_a_variant_there_is_no_ablation(tmp_path):
    for name in ("fused", "memory"):
        finished(tmp_path, name, {DISTANCE: ranks(NUT, 1.0)})
    failed(tmp_path, "classifier", "no disk")
    assert questions.ablation(table_of(tmp_path), tmp_path).empty
    assert Study(tmp_path).ablation() is None


def test_variants_are_in_their_own_table_only(tmp_path):
    for name in ("fused", "fused_shape", "memory"):
        finished(tmp_path, name, {DISTANCE: ranks(NUT, 1.0)})
    table = table_of(tmp_path)
    assert set(comparison.without_ablations(table)["name"]) == {"fused", "memory"}
    without = table[table["name"] != "fused"]  # of a detector that was not run they are its rows
    assert comparison.without_ablations(without).equals(without)


def test_where_by_type_and_size_is_the_mean_over_seeds(tmp_path):
    for seed, value in enumerate((0.5, 0.9)):
        group = {"group": "crack", "images": 4} | dict.fromkeys(comparison.PIXEL_METRICS, value)
        finished(tmp_path, "pca", {DISTANCE: ranks(NUT, 1.0)}, seed=seed,
                 localisation={"groups": [group]})
        # knows no place
        finished(tmp_path, "mean_grey", {DISTANCE: ranks(NUT, 1.0)}, seed=seed,
                 localisation={"groups": [group]})
    finished(tmp_path, "memory", {DISTANCE: ranks(NUT, 1.0)},
             localisation={"why_absent": "one_class"})
    (row, ) = questions.localization(table_of(tmp_path), tmp_path).to_dict("records")
    assert row == {"category": "nut", "configuration": "pca", "group": "crack", "images": 4,
                   **dict.fromkeys(comparison.PIXEL_METRICS, pytest.approx(0.7))}


def test_epochs_are_in_their_order_and_means_over_seeds(tmp_path):
    for seed, (first, last) in enumerate(((0.2, 0.4), (0.4, 0.8))):
        folder = finished(tmp_path, "cae_mse", {OWN: ranks(NUT, 1.0)}, seed=seed)
        write_csv(pd.DataFrame({"epoch": [2, 10], "auroc": [first, last]}),
                           folder / "epochs.csv")
    finished(tmp_path, "pca", {DISTANCE: ranks(NUT, 1.0)})  # has no epochs
    found = questions.epochs(table_of(tmp_path), tmp_path)
    assert list(found.columns[:4]) == ["category", "configuration", "epoch:2", "epoch:10"]
    (row, ) = found.to_dict("records")
    assert (row["epoch:2"], row["epoch:10"]) == pytest.approx((0.3, 0.6))
    assert row["confounder:brightness"] == pytest.approx(1) and math.isnan(row["confounder:size"])
    text = tables.markdown(found)
    assert "| Epoch 10 | Correlation with brightness |" in text and "| 0.600 | +1.00 |" in text
    assert "size" not in text  # a column without a figure is left out


# ---- limits


def disturbed(clean=0.9, at=0.8, false_positives=0.25, **others):
    """A robustness.csv whose AUROC at strength 3 is `at`, but for the disturbances that are named.
    """
    rows = [("none", 0, clean, 0.0, 1.0)]
    rows += [(name, strength, others.get(name, at) if strength == 3 else 0.111, false_positives,
              1.0) for name in corruptions.CORRUPTIONS for strength in corruptions.STRENGTHS]
    return pd.DataFrame(
        rows, columns=["disturbance", "strength", "auroc", "false_positives", "detections"])


def write(reports, name, table, file="robustness.csv"):
    folder = reports / "limits" / "nut" / name
    write_csv(table, folder / file)
    return folder


def test_a_row_a_configuration_at_the_one_strength(tmp_path):
    write(tmp_path, "pca", disturbed(blur=0.6))
    write(tmp_path, "own", disturbed())
    limits = comparison.after_runs(tmp_path, "limits", "robustness.csv")
    assert set(limits) == {("nut", "pca"), ("nut", "own")}
    table = questions.robustness_table(limits)
    row = table.set_index("configuration").loc["pca"]
    assert (row["undisturbed"], row["disturbance:blur"], row["mean_false_positives"]) == (
        0.9, 0.6, 0.25)
    assert {row[f"disturbance:{name}"] for name in corruptions.CORRUPTIONS if name != "blur"} == {
        0.8}
    said = answers.robustness(limits)
    assert f"nut PCA residual 0.900 to 0.600 ({corruption('blur', 3)})" in said
    assert all(corruption(name, 3) in answers.robustness_caption()
               for name in corruptions.CORRUPTIONS)
    shown = tables.markdown(table)
    assert "| As they are | noise | blur |" in shown and "| PCA residual | 0.900 |" in shown


def test_no_threshold_is_not_told_as_no_false_positives(tmp_path):
    write(tmp_path, "pca", disturbed(false_positives=math.nan))
    table = questions.robustness_table(comparison.after_runs(tmp_path, "limits", "robustness.csv"))
    assert "no threshold" in tables.markdown(table)


def test_failed_and_unlabelled_limits_are_no_rows(tmp_path):
    write(tmp_path, "unlabelled", disturbed().iloc[:0])
    folder = write(tmp_path, "broken", disturbed())
    freshness.fail(folder / "limits.json", "the sky fell", "again")
    write(tmp_path, "broken", disturbed())  # even where a table is there
    assert comparison.after_runs(tmp_path, "limits", "robustness.csv") == {}
    assert questions.smallest(tmp_path).empty
    finished(tmp_path, "pca", {DISTANCE: ranks(NUT, 1.0)})
    assert Study(tmp_path).limits() is None


def test_the_numbers_of_a_section_that_is_gone_go_too(tmp_path):
    finished(tmp_path, "pca", {DISTANCE: ranks(NUT, 1.0)})
    folder = write(tmp_path, "pca", disturbed())
    Study(tmp_path).write()
    assert (tmp_path / "limits.csv").is_file() and (tmp_path / "roc.csv").is_file()
    (folder / "robustness.csv").unlink()
    Study(tmp_path).write()
    assert not (tmp_path / "limits.csv").exists() and (tmp_path / "roc.csv").is_file()


def test_what_was_not_asked_vanishes_and_is_named_once_at_the_end(tmp_path, monkeypatch):
    said = []
    monkeypatch.chdir(tmp_path)  # the grids are the study's, also where no project folder is near
    monkeypatch.setattr(figures, "say", said.append)
    monkeypatch.setattr(figures, "show", lambda drawn: drawn and said.append(drawn))
    finished(tmp_path, "pca", {DISTANCE: ranks(NUT, 1.0)})
    study = Study(tmp_path)
    for name in (*RUN_BY, "places", "epochs", "kinds", "ranks", "better"):
        study.show(name)
    assert said == []
    study.show_more()
    (line, ) = said
    assert line.count("<li>") == len(RUN_BY)
    page = bs4.BeautifulSoup(line, "html.parser")
    asked = "".join(node.text for node in page.select("[lang=en]"))
    assert asked.startswith("Not asked here, and what would:Which score? adlib run params/grids/")
    line = asked
    assert {grid: line.count(f"params/grids/{grid}.yaml") for grid in RUN_BY.values()} == {
        "quick": 1, "trained": 1, "detectors": 2, "ablation": 1, "yours": 1}
    write(tmp_path, "pca", disturbed())
    study.show("limits")
    assert len(said) == 4 and said[-1].startswith("AUROC as they are, and under the worst")
    study.show_more()
    assert "how noisy" not in said[-1] and "Which score?" in said[-1]


@pytest.mark.parametrize(("area95", "shown"), [(0.0123, "1.2%"), (0.001, "0.1% or less"),
                                               (math.nan, "not reached")])
@pytest.mark.parametrize(("contrast95", "faint"), [(0.5, "0.50"), (0.1, "0.10 or less"),
                                                   (math.nan, "not reached")])
def test_how_small_and_how_faint(tmp_path, area95, shown, contrast95, faint):
    write(tmp_path, "pca", pd.DataFrame([{
        "defect": "crack", "area50": 0.002, "area95": area95, "smallest": 0.001, "largest": 0.02,
        "faintest": 0.1, "found_at_real_size": 0.875, "contrast95": contrast95}]), "smallest.csv")
    write(tmp_path, "pca", disturbed())
    line = tables.markdown(questions.smallest(tmp_path)).splitlines()[-1]
    assert line == (f"| nut | PCA residual | crack | 0.2% | {shown} | 0.1% | 2% | 88% | {faint} "
                    "| 0.10 |")
    cells = bs4.BeautifulSoup(tables.html(questions.smallest(tmp_path), "caption"),
                              "html.parser").select("tbody td")
    assert [cell.get("class") for cell in cells] == [None] * 3 + [["number"]] * 7
