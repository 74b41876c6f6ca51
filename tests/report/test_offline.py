"""A notebook as a page of nbconvert's, for which nothing is fetched."""
import re

import bs4
import nbformat
from nbconvert import HTMLExporter

from adlib.report.offline import Page


def test_its_formulas_are_drawn_and_nothing_is_fetched(tmp_path):
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(
        "# Losses\nWith $a < 1$ and `$b$`:\n\n$$\\frac{1}{n} \\sum_i x_i$$")])
    assert 'src="https://' in (usual := HTMLExporter().from_notebook_node(book)[0])
    written, _ = Page().from_notebook_node(book)
    page = bs4.BeautifulSoup(written, "html.parser")
    assert [formula["display"] for formula in page("math")] == ["inline", "block"]
    assert page.h1.text.startswith("Losses") and page.find("code").text == "$b$"
    assert not re.findall(r'(?:src|href)="https?://', written)
    # nothing else is missing
    assert len(page("script")) == len(bs4.BeautifulSoup(usual, "html.parser")("script")) - 2
