"""English and Chinese. A sentence is written once, in English, where its numbers are; strings.zh.json has its Chinese."""
from __future__ import annotations

import functools
import html as markup
import json
import typing
from pathlib import Path

STRINGS = Path(__file__).parent / "strings.zh.json"  # {room: {English, with {holes}: Chinese, with the same holes}}


class Text(str):
    """An English text that knows its Chinese: a str like any other, whose `zh` goes along when texts are added."""

    zh: str

    def __new__(cls, english: str, zh: str | None = None) -> Text:
        text = super().__new__(cls, english)
        text.zh = chinese(english) if zh is None else zh
        return text

    def __add__(self, other: str) -> Text:
        return Text(str(self) + str(other), self.zh + chinese(other).removeprefix(" "))

    def __radd__(self, other: str) -> Text:
        return Text(str(other) + str(self), other + self.zh)


def t(english: str, **values: typing.Any) -> Text:
    """A text of either language: `english` with its {holes} filled as by str.format; values that are Texts bring their own Chinese."""
    return Text(english.format(**values), strings().get(english, english).format(**{name: chinese(value) if isinstance(value, str) else value
                                                                                   for name, value in values.items()}))


def chinese(text: str) -> str:
    """The Chinese of a Text; any other str as it is: a name or a number."""
    return text.zh if isinstance(text, Text) else text


def join(texts: typing.Iterable[str], separator: str = " ") -> Text:
    """Texts in a row. Chinese sentences follow each other without a space, and its lists are parted by their own comma."""
    parts = list(texts)
    between = {" ": "", ", ": "、", "; ": "；"}.get(separator, separator)
    return Text(separator.join(parts), between.join(map(chinese, parts)))


def html(text: str) -> str:
    """Either language as HTML, escaped: English is shown, Chinese waits hidden until a page asks for it (templates/study/page.js)."""
    english, other = (markup.escape(words, quote=False) for words in (str(text), chinese(text)))
    return english if english == other else f'<span lang="en">{english}</span><span lang="zh-CN" hidden>{other}</span>'


@functools.cache
def strings() -> dict[str, str]:
    """{English: Chinese} of every room."""
    rooms = json.loads(STRINGS.read_text(encoding="utf-8"))
    return {english: other for room in rooms.values() for english, other in room.items()}
