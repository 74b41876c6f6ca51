"""A page on its own, with the looks of the report's and beside none of them."""
from __future__ import annotations

import typing
from pathlib import Path

import nbformat

from adlib.config import project_root
from adlib.report import site
from adlib.report.i18n import Text, chinese

Section = tuple[str, Text, typing.Sequence[str]]  # id, heading, fragments of HTML


def write(folder: Path, heading: Text, sections: typing.Sequence[Section], *, synthetic: bool,
          language: str = "") -> Path:
    """index.html in a folder, which opens in `language` (empty: English); returns its path."""
    cells, other = [nbformat.v4.new_markdown_cell("", id="question")], {}
    for name, title, fragments in sections:
        cells.append(nbformat.v4.new_markdown_cell(f"## {title}", id=name))
        other[name] = f"## {chinese(title)}"
        cells.append(nbformat.v4.new_code_cell("", id=f"{name}-shown", outputs=[
            nbformat.v4.new_output("display_data", data={"text/html": html})
            for html in fragments if html]))
    page = site.shared(language or "en") | {
        "notebook": folder / "notebook.ipynb", "stem": "", "cells": cells, "chinese": other,
        "heading": heading, "title": heading, "synthetic": synthetic,
        "hidden": {str(Path.home()): "~", str(project_root()): project_root().name}}
    site.write(page, {}, folder)
    return folder / "index.html"
