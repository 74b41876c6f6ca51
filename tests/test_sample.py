"""docs/sample, the report that one can look at before anything is installed: `make sample` makes it
from drawn parts."""
import re
from pathlib import Path
from urllib.parse import unquote

import bs4
import pytest

SAMPLE = Path(__file__).resolve().parents[1] / "docs" / "sample"
PAGES = sorted(SAMPLE.rglob("*.html"))
MACHINE = re.compile(r"(?<![\w.])/(?:home|root|tmp|Users|work|private|var)/|[A-Z]:\\\\")
ADDRESS = re.compile(r"\b(?:https?:)?//(?!www\.w3\.org/1998/Math/MathML)[\w-]+\.\w")


def soup(page):
    return bs4.BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")


def test_it_has_two_drawn_categories_several_detectors_and_is_small():
    runs = {path.parts[-4:-2] for path in SAMPLE.glob("runs/*/*/seed-0/index.html")}
    assert {category for category, _ in runs} == {"hazelnut", "zipper"} and len(runs) == 6
    index = soup(SAMPLE / "index.html")
    verdicts = {part["class"][1] for part in index.select(".finds .verdict")}
    assert {"found", "missed"} <= verdicts and index.select(".badge")
    assert sum(path.stat().st_size for path in SAMPLE.rglob("*") if path.is_file()) < 3e6
    assert (SAMPLE / "index.html").stat().st_size < 1e6


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(SAMPLE).as_posix())
def test_what_a_page_leads_to_is_there_and_nothing_elsewhere_or_of_one_machine(page):
    found, text = soup(page), page.read_text(encoding="utf-8")
    addresses = [part[name] for name in ("href", "src", "data-input", "data-map",
                                         "data-reconstruction") for part in found.select(f"[{name}]")]
    ids = {part["id"] for part in found.select("[id]")}
    for address in filter(None, addresses):
        file, _, place = address.partition("#")
        if file and file != "data:,":
            assert (page.parent / unquote(file)).is_file(), address
        elif place:
            assert place in ids | {"cell"}, address  # page.js leads to the figure's own cell
    assert not MACHINE.search(text) and not ADDRESS.search(text)
    assert found.select("[lang=en]") and found.select("[lang=zh-CN]")


def test_its_pages_name_the_command_that_made_them():
    for page in (SAMPLE / "index.html", *SAMPLE.glob("runs/*/*/seed-0/index.html")):
        command = soup(page).select_one(".command").text.split()
        assert command[:3] == ["adlib", "run", "params/grids/sample.yaml"]
        assert command[command.index("--data") + 1] == "data/sample"
