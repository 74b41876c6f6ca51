"""How many good pictures it takes, in words and as a row a part."""
import math

import bs4
import numpy as np
import pandas as pd
import pytest

from adlib.evaluation import learning_curve
from adlib.evaluation.results import write_csv
from adlib.report import comparison, few_pictures
from adlib.report.display import charts, render, tables
from adlib.report.study import Study
from adlib.runs import freshness
from tests.handmade import DISTANCE, category, finished, ranks

NUT = category()


def learned(error, counts=(1, 2, 4, 8, 16, 32)):
    return pd.DataFrame([
        {"pictures": 40, "n": n, "draw": draw, "auroc": 1 - error(n), "label_free": 0.9, "good": 20,
         "anomalous": 10, "false_positives": 1 if n > 16 else math.nan,
         "found": 9 if n > 16 else math.nan} for n in counts for draw in range(2)])


def test_how_many_pictures_it_takes():
    said = few_pictures.said(learned(lambda n: 0.4 * n**-0.5))
    assert "4: 0.800 (0.800 to 0.800)" in said and said.zh != said
    assert "50 more than the 40 good pictures there are would bring about 0.021" in said
    assert "By each of these it is below 0.005 from about" in said
    assert "5% [0%, 25%] of the good test images are called anomalous and 90% of the" in said
    assert "of the synthetic anomalies" not in said  # a file of an earlier version
    sized = learned(lambda n: 0.01 * n**-0.5)
    sized["smallest"] = np.where(sized["n"] > 16, 0.0123, math.nan)
    assert "With 32 good pictures, half of the synthetic anomalies that cover 1.23%" in (
        few_pictures.said(sized))
    good_alone = few_pictures.said(sized.assign(found=math.nan))  # no bad test picture
    assert good_alone.endswith("of the good test images are called anomalous.")
    assert "nan" not in good_alone + good_alone.zh
    said = few_pictures.said(learned(lambda n: 0.01 * n**-0.5))
    assert "less than 0.005, so more are not worth taking" in said and said.zh != said
    said = few_pictures.said(learned(lambda n: 0.1, counts=(1, 2)).assign(auroc=math.nan))
    assert "There are no labels of both classes" in said and "1: 0.900" in said and said.zh != said
    assert "too few for a learning curve" in said and "False alarms cannot be counted" in said


@pytest.mark.parametrize(("counts", "names", "panels"), [
    ((1, 2, 4), ["test images", "synthetic anomalies, no label"], 1),
    ((1, 2, 32, 64), ["test images; found", "synthetic anomalies, no label; false alarms"], 2)])
def test_a_legend_names_what_its_panels_draw(counts, names, panels):
    curve = learning_curve.curve(learned(lambda n: 0.4 * n**-0.5, counts=counts))
    page = bs4.BeautifulSoup(charts.learning_curve(curve), "html.parser")
    assert [key.select_one("[lang=en]").text for key in page.select(".key")] == names
    assert len(page.select(".grid svg")) == panels
    assert ("Threshold, from" in page.figcaption.text) == (panels == 2)
    curve = curve.drop(columns=["auroc", "auroc_low", "auroc_high"]).assign(
        auroc=math.nan, auroc_low=math.nan, auroc_high=math.nan)
    page = bs4.BeautifulSoup(charts.learning_curve(curve), "html.parser")
    assert len(page.select(".key")) == panels  # with rates, "found" is drawn


def test_of_seven_lines_each_has_its_own_class_and_the_legend_has_the_same():
    tables = {("nut", f"own_{i}"): learned(lambda n: 0.4 * n**-0.5) for i in range(8)}
    page = bs4.BeautifulSoup(charts.how_many(tables), "html.parser")
    lines = [line["class"][1] for line in page.select(".grid path.line")]
    assert lines == [*(f"c{i}" for i in range(7)), "c0"]
    assert [key["class"][1] for key in page.select(".key")] == lines
    assert all(f".{name} {{ color:" in render.style() for name in lines)


def test_how_many_pictures_every_part_takes(tmp_path):
    for name, scale in (("pca", 0.4), ("own", 0.01)):
        write_csv(learned(lambda n, scale=scale: scale * n**-0.5),
                  tmp_path / "how_many" / "nut" / name / "how_many.csv")
    finished(tmp_path, "pca", {DISTANCE: ranks(NUT, 1.0)})
    found = comparison.after_runs(tmp_path, "how_many", "how_many.csv")
    table = few_pictures.table(found)
    row = table.set_index("configuration").loc["pca"]
    assert (row["auroc_of_4"], row["most"], row["pictures"]) == (0.8, 32, 40)
    assert row["gain"] == pytest.approx(0.4 * (40**-0.5 - 90**-0.5), abs=1e-6)
    assert few_pictures.of_parts(table) == (
        "Pictures enough: nut (50 more would bring less than 0.005). More pictures may help: nut.")
    section = Study(tmp_path).how_many()
    assert "| 0.800 | 32 |" in tables.markdown(table) and len(section.drawn) == 2
    assert section.drawn[0].count('class="line c') == 2
    freshness.fail(tmp_path / "how_many" / "nut" / "pca" / "how_many.json", "the sky fell", "again")
    assert set(comparison.after_runs(tmp_path, "how_many", "how_many.csv")) == {("nut", "own")}
