"""HTML from Jinja templates (templates/components), autoescaped: no other module makes markup."""
from __future__ import annotations

import functools
import html as markup
import math
import re
import typing
from pathlib import Path

import jinja2
import markupsafe

from adlib.report.words import i18n

COMPONENTS = Path(__file__).parents[1] / "templates" / "components"


def render(template: str, **data: typing.Any) -> markupsafe.Markup:
    """A template of templates/components, filled with numbers, Texts, data URIs and fragments.

    Filters: `both` (either language, escaped), `aria` (a name), `zh` (Chinese alone), `commands`
    (what is between backticks as code), `number` (for JavaScript, with every digit), `short` (to be
    read). Global: `t`, a message by its key.
    """
    return markupsafe.Markup(_environment().get_template(template).render(data))  # noqa: S704


def script() -> str:
    """What brings the components to life, wherever they are shown."""
    return _joined("js")


def style() -> str:
    """The components' own style, for the report and for JupyterLab."""
    return _joined("css")


def _joined(suffix: str) -> str:
    return "\n".join(path.read_text(encoding="utf-8")
                     for path in sorted(COMPONENTS.glob(f"*.{suffix}")))


def number(value: float) -> str:
    """Exactly, as JavaScript's Number() reads it; "" for NaN."""
    if math.isnan(value):
        return ""
    return repr(float(value)) if math.isfinite(value) else "-Infinity" if value < 0 else "Infinity"


def short(value: float) -> str:
    """Six digits, as base.js shows them."""
    return f"{value:.6g}" if math.isfinite(value) else "−∞" if value < 0 else "∞"


def formulas(text: str) -> str:
    """HTML in which $LaTeX$ and $$LaTeX$$ outside code become MathML, which browsers draw without a
    script; what is no formula stays as it is."""
    from latex2mathml import converter  # here, because only a report needs it

    def drawn(found: re.Match[str]) -> str:
        block, inline = found.groups()
        try:
            return converter.convert(markup.unescape(block or inline),
                                     display="block" if block else "inline")
        except Exception:  # whatever it trips over in a name with dollars in it
            return found.group()

    pieces = re.split(r"(<(?:pre|code)\b.*?</(?:pre|code)>)", text, flags=re.DOTALL)
    pieces[::2] = [re.sub(r"\$\$(.+?)\$\$|\$([^$\n]+)\$", drawn, part, flags=re.DOTALL)
                   for part in pieces[::2]]
    return "".join(pieces)


def both(text: str) -> markupsafe.Markup:
    """Either language, escaped (i18n.html)."""
    return markupsafe.Markup(i18n.html(text))  # noqa: S704


def aria(text: str) -> markupsafe.Markup:
    """What an element is called where it is not seen, as attributes, in either language."""
    return markupsafe.Markup('aria-label="{}" data-aria-zh="{}"').format(
        str(text), i18n.chinese(text))


def hover(text: str) -> markupsafe.Markup:
    """What is read on hovering over an element, as attributes, in either language."""
    return markupsafe.Markup('title="{}" data-title-zh="{}"').format(
        str(text), i18n.chinese(text))


def breaks(markup: markupsafe.Markup) -> markupsafe.Markup:
    """Where a long name may go on in the next line: after each underscore of it."""
    return markupsafe.Markup(str(markup).replace("_", "_<wbr>"))  # noqa: S704


def commands(markup: markupsafe.Markup) -> markupsafe.Markup:
    """What stands between backticks as code."""
    # not from a lone backtick in a name on, across tags or to that of the next name
    return markupsafe.Markup(  # noqa: S704
        re.sub(r"`(?!\s)([^`<]+)(?<!\s)`", r"<code>\1</code>", str(markup)))


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(COMPONENTS), autoescape=True,
                                     trim_blocks=True, lstrip_blocks=True,
                                     undefined=jinja2.StrictUndefined)
    environment.filters |= {
        "both": both, "aria": aria, "hover": hover, "zh": i18n.chinese, "breaks": breaks,
        "commands": commands, "number": number, "short": short,
        "log": math.log, "numbers": lambda values: " ".join(map(number, values))}
    environment.globals |= {"t": i18n.t, "named": i18n.named}
    return environment
