"""Components where other pages' rules are in force: JupyterLab, nbconvert's own template, paper,
and a phone; in a real browser."""
import json
import re

import pandas as pd
import pytest

from adlib.report.display import charts, components, render, tables
from adlib.report.pages import site
from adlib.report.words.i18n import Text
from tests import browser
from tests.test_browser import DOT, both

pytestmark = browser.needed
# what JupyterLab has for tables and lists in outputs (its package rendermime)
JUPYTERLAB = """<style>:not(.jp-RenderedMarkdown).jp-RenderedHTMLCommon td { text-align: right; }
    .jp-RenderedHTMLCommon tbody tr:nth-child(odd) { background: rgb(1, 2, 3); }
    .jp-RenderedHTMLCommon ul:not(.list-inline) { padding-left: 2em; }</style>"""


def told(page, tmp_path, script, *options):
    """What a script in the page, an expression, comes to."""
    page.write_text(page.read_text() + f"""<script>addEventListener("load", () => setTimeout(
        () => {{ document.title = JSON.stringify({script}); }}, 50));</script>""")
    return json.loads(browser.opened(page, tmp_path / "profile", *options).title.text)


@pytest.mark.parametrize("bring", [components.live, components.styled], ids=["lab", "nbconvert"])
def test_tables_and_lists_look_in_a_notebook_as_on_a_page(tmp_path, bring):
    table = tables.html(pd.DataFrame({"category": ["nut"] * 2, "images": [1, 2]}), "All.")
    page = tmp_path / "lab.html"
    page.write_text(f'<meta charset="utf-8"><title>a</title>{JUPYTERLAB}<div class='
                    f'"jp-RenderedHTMLCommon">{bring(table + both()[1])}</div>')
    look = told(page, tmp_path, """(() => {
        const of = (selector) => getComputedStyle(document.querySelector(selector));
        return [of("td").textAlign, of("td.number").textAlign, of("tbody tr").backgroundColor,
                of(".tiles").paddingLeft, of(".tiles").display]; })()""")
    assert look == ["left", "right", "rgba(0, 0, 0, 0)", "0px", "grid"]


def test_an_image_opened_large_in_jupyterlab_ends_at_the_windows_edge(tmp_path):
    page = tmp_path / "lab.html"
    page.write_text(f'<meta charset="utf-8"><title>a</title>{components.live(both()[1])}')
    right = told(page, tmp_path, """(() => { document.querySelector(".tiles a").click();
        const dialog = document.querySelector("dialog");
        return dialog.getBoundingClientRect().right <= innerWidth; })()""")
    assert right is True


def test_a_long_formula_scrolls_on_a_phone_and_not_the_page(tmp_path):
    sections = [("one", "One", [components.paragraph("a")])]
    page = site.standalone_page(tmp_path, "Which?", sections, synthetic=False, command=["adlib"])
    long = " + ".join(f"x_{{{i}}}^{{2}}" for i in range(60))
    text = page.read_text().replace("</main>", '<section class="text">' + str(
        render.formulas(f"<p>$${long}$$</p>")) + "</section></main>")
    page.write_text(text.replace("script-src", "script-src 'unsafe-inline'", 1).replace(
        "'sha256-", "'sha256-x", 1))
    wide = told(page, tmp_path, "[document.documentElement.scrollWidth - innerWidth, "
                "document.querySelector('.text p').scrollWidth > innerWidth]",
                "--window-size=500,800")
    assert wide == [0, True]


def test_on_paper_two_sections_with_a_threshold_fit_on_a_sheet(tmp_path):
    shown = [components.paragraph("It was decided from good images alone. " * 3),
             components.figure(both()[0], "threshold", "The scores of the test images.")]
    sections = [(f"n{i}", "Where is the line?", shown) for i in range(2)]
    page = site.standalone_page(tmp_path, "Which?", sections, synthetic=False, command=["adlib"])
    browser.run(tmp_path / "profile", f"--print-to-pdf={tmp_path / 'page.pdf'}", page.as_uri())
    assert len(re.findall(rb"/Type /Page\b", (tmp_path / "page.pdf").read_bytes())) == 1


def test_no_name_lies_on_the_bars_of_a_threshold(tmp_path):
    page = site.standalone_page(tmp_path, "Which?", [("n", "Where is the line?", [both()[0]])],
                      synthetic=False, command=["adlib"])
    script = page.read_text(encoding="utf-8")  # its policy allows its own script alone
    page.write_text(re.sub(r"<meta [^>]*Security-Policy[^>]*>", "", script), encoding="utf-8")
    top, bottom, above, below = told(page, tmp_path, """(() => {
        const box = (name) => document.querySelector(name).getBoundingClientRect();
        return [box(".plot svg").top, box(".plot svg").bottom, box(".side.bad").bottom,
                box(".side.good").top]; })()""")
    assert above <= top and below >= bottom


def test_on_paper_many_panels_begin_below_their_heading(tmp_path):
    line, axis = [("c0", "line", [(0, 0), (1, 1)])], ("", 0, 1, [0, 1])
    shown = [components.paragraph("Two things can go wrong. " * 40), charts.panels(
        {f"noise {i}": line for i in range(8)}, ["AUROC"], axis, axis, "All.", "noise")]
    page = site.standalone_page(tmp_path, "How noisy?", [("n", "In every way", shown)],
                                synthetic=False, command=["adlib"])
    browser.run(tmp_path / "profile", f"--print-to-pdf={tmp_path / 'page.pdf'}", page.as_uri())
    assert len(re.findall(rb"/Type /Page\b", (tmp_path / "page.pdf").read_bytes())) == 2


def test_where_its_files_are_out_of_reach_a_page_says_so_and_its_links_lead_on(tmp_path):
    """As JupyterLab shows it: no picture, and no page without the query of its own link."""
    def finds(picture):
        return (f'<ul class="finds"><li><img src="{picture}" alt=""></li></ul><p><a href='
                '"other/index.html#image-1">other</a> <a href="https://there.org/">there</a></p>')

    for picture, hidden in (("gone.webp", False), (DOT, True)):
        written = site.standalone_page(tmp_path, Text("Found", "检出"), [
            ("a", Text("A", "甲"), [finds(picture)])], synthetic=False, command=["adlib"])
        page = browser.opened(written, tmp_path / "profile", at="" if hidden else "?_xsrf=1")
        assert page.select_one("#beside").has_attr("hidden") == hidden
        assert page.select_one(".finds li").has_attr("hidden") != hidden
        inside, outside = page.select("main p > a")
        assert inside["href"].endswith("other/index.html" + "?_xsrf=1" * (not hidden) + "#image-1")
        assert outside["href"] == "https://there.org/"
