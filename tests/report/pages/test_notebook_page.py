"""A run's page: what was found in front, the method folded behind it, figures numbered, the way to
other runs; and pages that set two runs beside each other."""
import re

import bs4
import nbformat
import numpy as np
import pytest

from adlib.data import files
from adlib.report.display import components
from adlib.report.pages import notebook_page, site
from adlib.report.words.i18n import Text
from adlib.runs import image_layers
from tests.handmade import DISTANCE, category, finished, ranks


def text_cell(name, source, *tags):
    return nbformat.v4.new_markdown_cell(source, id=name, metadata={"tags": list(tags)})


def code_cell(name, *shown, tags=()):
    return nbformat.v4.new_code_cell("show()", id=name, metadata={"tags": list(tags)}, outputs=[
        nbformat.v4.new_output("display_data", data={"text/html": one}) for one in shown])


def cells():
    return [text_cell("question", "Why?"), code_cell("open", "<p>opened</p>"),
            text_cell("training", "## Training"), code_cell("fit", a_figure("loss")),
            text_cell("evaluation", "## Evaluation\nHow."),
            code_cell("evaluate", a_figure("examples"), tags=["lead"]),
            text_cell("line", "## Where?", "result"),
            code_cell("show-line", a_figure("threshold"), a_figure("roc")),
            text_cell("found", "## What was found", "result"), code_cell("save", "<p>.87</p>")]


def a_figure(name):
    return components.figure("", name, Text(f"of {name}", f"{name} 的"), "all_results.csv")


def test_the_result_comes_first_and_the_method_is_folded():
    found = notebook_page.result_first(cells())
    assert [cell.id for cell in found] == [
        "evaluate", "line", "show-line", "found", "save", "question", "open", "training", "fit",
        "evaluation"]
    assert [cell.id for cell in found if cell.metadata.get("folded")] == [
        "question", "open", "training", "fit", "evaluation"]
    assert [cell.id for cell in found if cell.metadata.get("opens")] == ["question"]
    assert [cell.id for cell in found if cell.metadata.get("closes")] == ["evaluation"]


def test_figures_are_numbered_in_the_order_of_the_page_and_lead_to_their_cell():
    found = notebook_page.result_first(cells())
    notebook_page.number_figures(found)
    told = {}
    for cell in found:
        for output in cell.get("outputs", []):
            page = bs4.BeautifulSoup(output.data["text/html"], "html.parser")
            for each in page.select("figure"):
                told[each["id"]] = ([part.text for part in each.select(".figno span")],
                                    [link["href"] for link in each.select(".sources a")])
    assert told == {name: ([f"Figure {n}.", f"图 {n}。"], ["all_results.csv", f"#cell-{cell}"])
                    for n, (name, cell) in enumerate((
                        ("examples", "evaluate"), ("threshold", "show-line"), ("roc", "show-line"),
                        ("loss", "fit")), 1)}


def test_a_page_leaves_out_the_style_that_a_notebook_brings():
    cell = notebook_page.shown("one", components.styled(components.paragraph("a")))
    notebook_page.number_figures([cell])
    assert cell.outputs[0].data["text/html"] == components.paragraph("a")


@pytest.fixture
def reports(tmp_path):
    """Three finished runs of a category, the first two with pictures, and one of another."""
    reports, own, other = tmp_path / "reports", category(), category("zip")
    for name, where, shift in (("memory", own, 3.0), ("pca", own, 1.0), ("gaussian", own, 0.5),
                               ("memory", other, 2.0)):
        folder = finished(reports, name, {DISTANCE: ranks(where, shift)}, where=where)
        nbformat.write(nbformat.v4.new_notebook(cells=[
            text_cell("question", "# Is it so?\n\nAn introduction."), *cells()[1:]]),
            folder / "notebook.ipynb")
        if where is own and name != "gaussian":
            shot = dict.fromkeys(("input", "thumb", "map", "heat", "reconstruction"), "x.jpg")
            shot |= {"width": 4, "height": 3, "level": "", "truth": "", "ticks": "M1 1"}
            files.write_json(folder / image_layers.FILE, {
                path.relative_to(own.root).as_posix(): shot for path in own.test})
    nbformat.write(nbformat.v4.new_notebook(cells=[text_cell("question", "# Which?")]),
                   reports / "comparison.ipynb")
    site.build(reports)
    return reports


def page_of(reports, *folder):
    return bs4.BeautifulSoup((reports.joinpath(*folder) / "index.html").read_text(), "html.parser")


def english(part):
    return re.sub(r"\s+", " ", " ".join(text for text in part.find_all(string=True) if not
                                         text.find_parent(lang="zh-CN"))).strip()


def test_the_title_of_a_run_is_its_result_and_its_question_goes_with_the_method(reports):
    page = page_of(reports, "runs/nut/memory/seed-0")
    assert re.match(r"Memory of patches \(PatchCore\) on nut: finds \d+ of 15, ", english(page.h1))
    method = page.select_one("details.method")
    assert "Is it so?" in english(method.summary) and "An introduction." in english(method)
    assert [cell["id"] for cell in method.select(".cell")] == ["cell-open", "cell-fit"]
    order = [part["id"] for part in page.select("main .cell, main details.method")]
    assert order == ["cell-evaluate", "cell-show-line", "cell-save", "method", "cell-open",
                     "cell-fit"]
    assert [english(link) for link in page.select(".contents a")] == [
        "Where?", "What was found", "How it was found, cell by cell"]
    for link in page.select(".contents a, .figno, .sources a[href^='#']"):
        assert page.find(id=link["href"][1:]), link["href"]


def test_a_run_leads_to_its_neighbours_and_to_two_runs_beside_each_other(reports):
    def ways(*folder):
        nav = page_of(reports, *folder).select_one("nav.runs")
        return {" ".join(link.get("rel", [])) or "compare": link["href"] for link in nav.select("a")}

    first, middle, last = (ways(f"runs/nut/{name}/seed-0") for name in ("pca", "gaussian", "memory"))
    up = "../../../../"
    assert first == {"next": f"{up}runs/nut/gaussian/seed-0/index.html",
                     "compare": f"{up}compare/nut/index.html"}
    assert (middle["prev"], middle["next"]) == (f"{up}runs/nut/pca/seed-0/index.html",
                                                f"{up}runs/nut/memory/seed-0/index.html")
    assert set(last) == {"prev", "compare"} and ways("runs/zip/memory/seed-0") == {}


def test_two_runs_beside_each_other_have_a_page_where_two_have_pictures(reports):
    page = page_of(reports, "compare/nut")
    assert english(page.h1) == "Where do two runs differ?"
    assert [option.text for option in page.select("[data-side=one] option")] == [
        "Memory of patches (PatchCore), seed 0", "PCA residual, seed 0"]  # the best first
    assert len(page.select("g[data-i]")) == 35 and not (reports / "compare" / "zip").exists()
    assert "../../runs/nut/pca/seed-0/x.jpg" in str(page.template)
    assert "Figure 1." in english(page.select_one(".fig > figcaption"))
    assert "side_by_side.of_category" in page.select_one("details.code").text
    assert page.select_one("pre.command").text == f"adlib report --reports {reports.name}"


def test_a_run_that_failed_has_a_question_for_a_title(reports):
    folder = reports / "runs" / "nut" / "pca" / "seed-0"
    files.write_json(folder / "run.json", files.read_json(folder / "run.json") | {
        "status": "failed", "error": "why"})
    site.build(reports)
    page = page_of(reports, "runs/nut/pca/seed-0")
    assert english(page.h1) == "Is it so?" and not page.select("details.method, nav.runs")
    assert np.all([not cell.has_attr("hidden") for cell in page.select(".cell")])
