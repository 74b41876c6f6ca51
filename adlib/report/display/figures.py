"""How anything is displayed in a notebook: a component, with its number and caption where it is a
figure, or a sentence."""
from __future__ import annotations

from adlib.report.display import components
from adlib.runs.freshness import attended


def show(shown: str, caption: str = "", name: str = "", data: str = "") -> None:
    """Display HTML of the components; nothing where that is "". In JupyterLab it brings its script.

    Args:
        caption: what it shows, of a figure. name: the figure's id, in ASCII.
        data: the file of its numbers, beside the page.
    """
    from IPython.display import display

    if not shown:
        return
    if caption:
        shown = components.figure(shown, name, caption, data)
    display({"text/html": components.live(shown) if attended() else shown,
             "text/plain": str(caption) or "HTML"}, raw=True)


def say(text: str) -> None:
    """Display a sentence as text of the page; file names and labels in it are shown as they are,
    never as markup; `commands` as code."""
    from IPython.display import display

    display({"text/html": components.paragraph(text), "text/plain": str(text)}, raw=True)
