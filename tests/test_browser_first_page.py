"""The report's first page in a real browser: the matrix sorts and widens, colours give their
numbers, words explain themselves; ten categories fit."""
import json

import nbformat
import numpy as np
import pandas as pd
import pytest

from adlib.data import files
from adlib.evaluation.results import write_csv
from adlib.report import comparison
from adlib.report.display import components, figures
from adlib.report.pages import site
from adlib.report.study import Study
from tests import browser
from tests.handmade import DISTANCE, OTHER, OWN, category, finished, ranks
from tests.test_browser import seen, shown

pytestmark = browser.needed
SECTIONS = ("ranks", "kinds", "better", "roc", "scores", "places")


def study(reports, names, configurations):
    """A study of hand-made runs, and its comparison as the notebook leaves it."""
    for i, where in enumerate(map(category, names)):
        files.write_json(reports / "eda" / where.name / "properties.json", {
            "form": i / 9, "alignment": 0.1 * i, "colour": 0.1, "good": 30})
        for k, name in enumerate(configurations):
            scores = {DISTANCE: ranks(where, 0.4 * k, 10 * i + k)}
            if name.startswith("cae"):
                scores = {OWN: ranks(where, 0.2, i), OTHER: ranks(where, 1.5, i)}
            pixels = dict.fromkeys(comparison.PIXEL_METRICS, 0.5 + 0.01 * k)
            folder = finished(
                reports, name, scores, where=where, chosen=OTHER if OWN in scores else "",
                localisation=pixels | {"groups": [pixels | {"group": "crack", "images": 4}]})
            if OWN in scores:
                values = np.random.default_rng(i).uniform(0.4, 1, (6, 2))
                write_csv(pd.DataFrame(values, columns=["label_free", "test"]).assign(
                    score=[OWN, OTHER, "ssim.mean", "ssim.top1", "squared.max", "squared.top1"],
                    role=["own", "chosen", "", "", "", ""]),
                    folder / "score_study.csv")
    made, shows = Study(reports), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "show", shows.append)
        patch.setattr(figures, "say", lambda text: shows.append(components.paragraph(text)))
        made.show_answer()
        made.show_matrix()
        for name in SECTIONS:
            made.show(name)
    outputs = [nbformat.v4.new_output("display_data", data={"text/html": str(one)})
               for one in shows if one]
    cells = [nbformat.v4.new_markdown_cell("# Which?", id="question"),
             nbformat.v4.new_code_cell("study", id="all", outputs=outputs)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), reports / "comparison.ipynb")
    write = site.write
    with pytest.MonkeyPatch.context() as patch:  # nobody looks at the runs' pages here
        patch.setattr(site, "write", lambda page, links, _: (
            page["stem"] == "06_comparison" and write(page, links, reports)))
        site.build(reports)
    return reports / "index.html"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return study(tmp_path_factory.mktemp("two"), ["nut", "zip"],
                 ["cae_mse", "mean_grey", "pca", "memory", "fused"])


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    return study(tmp_path_factory.mktemp("ten"), [f"part {i} of ten" for i in range(10)],
                 ["cae_mse", "cae_ssim", *(f"detector {i}" for i in range(12))])


def english(part):
    return (part.select_one("[lang=en]") or part).text


def rows(page):
    return [english(row.th) for row in page.select(".matrix tbody tr")]


def test_a_heading_sorts_whole_rows_and_what_is_indented_stays_below_its_own(page, tmp_path):
    found, asked = seen(page, tmp_path=tmp_path)
    before = rows(found)
    assert before.index("mean squared error") == before.index("CAE + MSE") + 1 and asked == set()
    press = "document.querySelectorAll('.matrix thead .sort')[{}].click();"
    auroc = {english(row.th): float(row.select("td[data-value]")[2]["data-value"])
             for row in found.select(".matrix tbody tr:first-child")}
    for column, key, times in ((0, str.lower, 2), (3, auroc.get, 1)):
        down, _ = seen(page, press.format(column) * times, tmp_path=tmp_path)
        after = rows(down)
        names = [name for name in after if name in auroc]
        assert names == sorted(auroc, key=key, reverse=True)
        assert after.index("mean squared error") == after.index("CAE + MSE") + 1
        assert down.select("[aria-sort=descending]")


VISIBLE = """const visible = (selector) => [...document.querySelectorAll(selector)]
        .filter((part) => part.getClientRects().length).length;
    const click = (selector) => document.querySelector(selector).click();"""


def counted(page, script, tmp_path):
    """The numbers that a script makes, with `visible` (how many elements take room) and `click`."""
    found, _ = seen(page, f"{VISIBLE} document.title = JSON.stringify({script});",
                    tmp_path=tmp_path)
    return json.loads(found.title.text)


def test_more_columns_and_the_numbers_of_a_large_heat_map_come_on_demand(page, many, tmp_path):
    assert counted(page, """[visible('.matrix tbody .m'), visible('#pairs-0 td > span'),
        click('.switch input[value=localisation]'), visible('.matrix tbody .m.localisation'),
        visible('.matrix tbody .m.other')]""", tmp_path) == [
            0, 20, None, 4 * 12, 0]  # numbers of five rows are seen at once
    assert counted(many, """[visible('#better td > span'), visible('#all-scores td > span'),
        click('#all-scores input'), visible('#all-scores td > span'), visible('.matrix td .at'),
        click('.switch input[value=rates]'), visible('.matrix td .at')]""", tmp_path) == [
            14 * 13, 0, None, 6 * 20, 0, None, 10 * 16]  # so are numbers of few digits


def test_a_word_says_what_it_means_in_either_language(page, tmp_path):
    act = """const word = [...document.querySelectorAll('.term')].find((one) => one.offsetParent);
        word.focus(); document.title = word.textContent;"""
    for at, said in (("#en", "The chance that a bad image"), ("#zh", "异常图像的分数")):
        found, _ = seen(page, act, tmp_path=tmp_path, at=at)
        tip = found.select_one("#tip")
        assert found.title.text == "AUROC" and not tip.has_attr("hidden") and said in tip.text
    assert found.select_one("#glossary dt") and not found.select("#glossary .term")


@pytest.mark.parametrize("of", ["page", "many"])
def test_nothing_is_wider_than_the_screen(of, tmp_path, request):
    widths = [390, 1024, 1440]
    found, _ = seen(request.getfixturevalue(of), f"""
        const page = document.documentElement.outerHTML
            .replace(/<script[^]*?<.script>/g, '').replace(/<meta http-equiv[^>]*>/, '');
        const needed = {{}};
        document.body.replaceChildren(...{widths}.map((width) => {{
            const frame = document.createElement('iframe');
            frame.style.width = `${{width}}px`;
            frame.srcdoc = page;
            frame.onload = () => {{
                needed[width] = frame.contentDocument.documentElement.scrollWidth;
                document.title = JSON.stringify(needed); }};
            return frame; }}));""", tmp_path=tmp_path)
    needed = json.loads(found.title.text)
    assert [0 < needed[str(width)] <= width for width in widths] == [True] * 3, needed


def test_ten_categories_fit_into_a_megabyte_with_means_ranks_and_kinds(many, tmp_path):
    found, _ = seen(many, tmp_path=tmp_path)
    assert many.stat().st_size < 1e6
    heads = found.select(".matrix thead th[scope=col]")
    assert len(found.select(".answer")) == len(heads) - 3 == 10
    assert {"performance", "average-ranks", "kinds", "better", "roc"} <= {
        figure["id"] for figure in found.select("figure.fig")}
    numbers = [figure.select_one(".figno").text for figure in found.select("figure.fig")]
    assert numbers[0].startswith("Figure 1") and len(set(numbers)) == len(numbers)
    ids = [part["id"] for part in found.select("[id]")]
    assert len(ids) == len(set(ids)) and all(name.isascii() for name in ids)
    over = [cell["data-value"] for cell in found.select(".matrix td.number")]
    assert len(over) == 2 * 14 and np.isfinite(list(map(float, over))).all()
    assert shown(found, "svg .bar")
