"""nbconvert's own page of any notebook, whose text's formulas need no network: they are drawn here,
and the scripts that nbconvert links for them are left out. What a notebook itself links stays.

    jupyter nbconvert --to adlib.report.offline.Page FILE.ipynb
"""
from __future__ import annotations

import re
import typing

import jinja2
from nbconvert import HTMLExporter

from adlib.report.display.render import formulas


class Page(HTMLExporter):
    """What `--to html` writes, with MathML for MathJax."""

    @jinja2.pass_context
    def markdown2html(self, context: jinja2.runtime.Context, source: str) -> str:
        """Markdown and its $LaTeX$ -> HTML."""
        return formulas(super().markdown2html(context, source))

    def from_notebook_node(self, *args: typing.Any, **options: typing.Any) -> tuple[str, dict]:
        page, resources = super().from_notebook_node(*args, **options)
        linked = r'<script src="https?://[^">]*(?i:require|mathjax|mermaid)[^>]*>\s*</script>'
        return re.sub(linked, "", page), resources
