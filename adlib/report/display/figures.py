"""How anything is displayed in a notebook: a component, with its number and caption where it is a
figure, or a sentence."""
from __future__ import annotations

from adlib.report.display import components
from adlib.runs.freshness import attended

_first = iter([True])  # of a kernel: its first output brings the style, the others have it then


def show(shown: str, caption: str = "", name: str = "", data: str = "") -> None:
    """Display HTML of the components; nothing where that is "". In JupyterLab it brings its script;
    executed with nobody there, the first brings the style, for `jupyter nbconvert --to html`.

    Args:
        caption: what it shows, of a figure. name: the figure's id, in ASCII.
        data: the file of its numbers, beside the page.
    """
    from IPython import get_ipython
    from IPython.display import display

    if not shown:
        return
    if caption:
        shown = components.figure(shown, name, caption, data)
    if attended():
        shown = components.live(shown)
    elif get_ipython() and next(_first, False):
        shown = components.styled(shown)
    display({"text/html": shown, "text/plain": str(caption) or "HTML"}, raw=True)


def say(text: str) -> None:
    """Display a sentence as text of the page; file names and labels in it are shown as they are,
    never as markup; `commands` as code."""
    from IPython.display import display

    display({"text/html": components.paragraph(text), "text/plain": str(text)}, raw=True)
