"""A page on its own, with the looks of the report's and beside none of them."""
from __future__ import annotations

import typing
from pathlib import Path

import nbformat

from adlib.config import project_root
from adlib.report import arrangement, site
from adlib.report.i18n import Text, chinese

Section = tuple[str, Text, typing.Sequence[str]]  # id, heading, fragments of HTML


def write(folder: Path, heading: Text, sections: typing.Sequence[Section], *, synthetic: bool,
          language: str = "") -> Path:
    """index.html in a folder, which opens in `language` (empty: English); returns its path."""
    cells = [cell for name, title, fragments in sections for cell in (
        nbformat.v4.new_markdown_cell(f"## {title}", id=name),
        arrangement.shown(f"{name}-shown", *fragments))]
    other = {name: f"## {chinese(title)}" for name, title, _ in sections}
    page = site.shared(language or "en") | {
        "notebook": folder / "notebook.ipynb", "stem": "", "cells": cells, "chinese": other,
        "heading": heading, "title": heading, "synthetic": synthetic,
        "hidden": {str(Path.home()): "~", str(project_root()): project_root().name}}
    site.write(page, {}, folder)
    return folder / "index.html"
