"""nbconvert's own page of any notebook, for which nothing is fetched: formulas are drawn here, and
no script is linked.

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
        return re.sub(r'<script src="https?://[^>]*>\s*</script>', "", page), resources
