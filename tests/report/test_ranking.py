"""Which configuration is best, what is no worse, what cannot be compared; over categories, too."""
import math
import tempfile
from pathlib import Path

import bs4
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adlib.data import files
from adlib.evaluation.auroc import LEVEL, holm, paired_test
from adlib.report import comparison, ranking
from adlib.report.display import matrix
from adlib.report.study import Study
from adlib.report.words import answers
from tests.handmade import DISTANCE, OTHER, OWN, category, finished, ranks
from tests.report.test_comparison import LABELS, NUT, matrix_of, rows_of


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


def test_the_best_on_other_test_images_is_not_the_best(tmp_path):
    for name, shift in (("pca", 1.0), ("gaussian", 0.8)):
        finished(tmp_path, name, {DISTANCE: ranks(NUT, shift, len(name))})
    finished(tmp_path, "memory", {DISTANCE: ranks(NUT, 99.0)}, fingerprint="another")
    said = answers.full(rows_of(tmp_path).reset_index(drop=True))
    memory = comparison.label("memory")
    assert f"Not compared on nut, having seen other test images: {memory}." in said
    assert "nut: PCA residual is best" in said


def over(reports, shifts):
    """A detector a name, with its shift in the categories a, b, ...: the rows of all."""
    for name, by_category in shifts.items():
        for i, shift in enumerate(by_category):
            where = category("abcdefgh"[i])
            scores = ranks(where, shift, 10 * i + len(name))
            finished(reports, name, {DISTANCE: scores}, where=where)
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
    unjudged = rows[rows["category"] == "a"].assign(category="c", auroc=math.nan,
                                                 with_best=False)
    assert answers.overall(pd.concat([rows, unjudged])) == answers.overall(rows)
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
