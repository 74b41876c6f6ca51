"""How a page is laid out from the cells of its notebook: a run's result before its method, and a
number to every figure."""
from __future__ import annotations

import itertools
import re
import typing
from pathlib import Path

import nbformat

from adlib.report.display import components
from adlib.report.words import i18n
from adlib.report.words.i18n import t

Cells = list[nbformat.NotebookNode]
Groups = typing.Mapping[str, list[dict[str, typing.Any]]]  # of links between pages (site)


def result_first(cells: Cells) -> Cells:
    """What was found, then how. In front: cells tagged "lead", then sections (a heading and what
    follows it) whose heading is tagged "result". The others are marked `folded` in their metadata,
    the first of them `opens`, the last `closes`."""
    lead, results, method = [], [], []
    section = method
    for cell in cells:
        if cell.cell_type == "markdown" and cell.source.startswith("## "):
            section = results if "result" in _tags(cell) else method
        (lead if "lead" in _tags(cell) else section).append(cell)
    for i, cell in enumerate(method, 1):
        cell.metadata |= {"folded": True, "opens": i == 1, "closes": i == len(method)}
    return [*lead, *results, *method]


def shown(name: str, *fragments: str, source: str = "") -> nbformat.NotebookNode:
    """A cell of that id with what its source shows: fragments of HTML, empty ones left out."""
    return nbformat.v4.new_code_cell(source, id=name, outputs=[
        nbformat.v4.new_output("display_data", data={"text/html": html})
        for html in fragments if html])


def links(groups: Groups, folder: Path, compare: Path) -> dict[str, typing.Any]:
    """Where one goes from a run's page: `neighbours`, (prev or next, link) in the order of its
    group; `compare`, the address of the page in the folder of that name, "" where there is none."""
    own = next(group for group in groups.values() if any(one["folder"] == folder for one in group))
    at = next(i for i, one in enumerate(own) if one["folder"] == folder)
    near = [("prev", own[at - 1])] * (at > 0) + [("next", one) for one in own[at + 1:at + 2]]
    there = [one["href"] for group in groups.values() for one in group if one["folder"] == compare]
    return {"neighbours": near, "compare": there[0] if there else ""}


def number_figures(cells: Cells) -> None:
    """Give each figure (components.figure) its number, in the order of the page, and the link to
    the code that made it, where the page has it; the components' style is the page's."""
    numbers = itertools.count(1)
    for cell in cells:
        for output in cell.get("outputs", ()):
            if "text/html" in (data := output.get("data", {})):
                html = re.sub(
                    r'(<a class="figno"[^>]*>)(?=</a>)',
                    lambda found: found[1] + i18n.html(t("figure.number", n=next(numbers))),
                    components.unstyled("".join(data["text/html"])))
                data["text/html"] = html.replace(
                    'href="#cell"', f'href="#cell-{cell.id}"') if cell.source else re.sub(
                    r'(?: · )?<a href="#cell">.*?</a>', "", html)


def _tags(cell: nbformat.NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])
