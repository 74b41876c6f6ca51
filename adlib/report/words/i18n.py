"""English and Chinese: messages by key, in messages/en.json and messages/zh.json, filled with
values when a page is made."""
from __future__ import annotations

import functools
import html as markup
import json
import re
import string
import typing
from pathlib import Path

if typing.TYPE_CHECKING:
    import pandas as pd

LANGUAGES = {"en": "en", "zh": "zh-CN"}  # as asked for: as HTML names them
MESSAGES = Path(__file__).parent / "messages"  # a language each: {topic: {name: text}}
MARK, HAN = "[，。：；、（）]", r"[\u4e00-\u9fff]"
TIGHT = re.compile(f" (?={MARK})|(?<={MARK}) |(?<={HAN}) (?={HAN})")


class Text(str):
    """An English text that knows its Chinese: a str like any other, whose `zh` goes along when
    texts are added. Without one given it is a name or a number, and the same in both."""

    zh: str

    def __new__(cls, english: str, zh: str | None = None) -> Text:
        text = super().__new__(cls, english)
        text.zh = chinese(english) if zh is None else zh
        return text

    def __add__(self, other: str) -> Text:
        return Text(str(self) + str(other), self.zh + chinese(other).removeprefix(" "))

    def __radd__(self, other: str) -> Text:
        return Text(str(other) + str(self), other + self.zh)


def t(key: str, **values: typing.Any) -> Text:
    """The message of a key ("run.training_loss") in both languages, its {holes} filled as by
    str.format; values that are Texts bring their own Chinese."""
    english, other = messages()[key]
    return Text(english.format(**values), _filled(other, values))


def named(family: str, code: object) -> str:
    """What a code is called, such as named("label", "pca"): the message "label.pca". A code without
    a message, such as the name of a user's own configuration, stays as it is."""
    key = f"{family}.{code}"
    return t(key) if key in messages() else code if isinstance(code, str) else str(code)


def chinese(text: str) -> str:
    """The Chinese of a Text; any other str is a name or a number, and stays as it is."""
    return text.zh if isinstance(text, Text) else text


def join(texts: typing.Iterable[str], separator: str = " ") -> Text:
    """Texts in a row. Chinese sentences follow each other without a space, and its lists are
    separated by their own comma."""
    texts = list(texts)
    between = {" ": "", ", ": "、", "; ": "；"}.get(separator, separator)
    return Text(separator.join(texts), between.join(map(chinese, texts)))


def enumerated(texts: typing.Iterable[str]) -> Text:
    """'a, b and c'."""
    texts = list(texts)
    return t("list.and", most=join(texts[:-1], ", "), last=texts[-1]) if texts[1:] else join(texts)


def with_texts(table: pd.DataFrame, **columns: typing.Iterable[str]) -> pd.DataFrame:
    """A table with columns of Texts, which stay Texts: where pyarrow is installed pandas would copy
    the English alone."""
    import pandas as pd

    return table.assign(**{name: pd.Series(list(texts), table.index, dtype=object)
                           for name, texts in columns.items()})


def html(text: str) -> str:
    """Either language as HTML, escaped: English is shown, Chinese waits hidden until a page asks
    for it (templates/study/page.js)."""
    english, other = (markup.escape(words, quote=False) for words in (str(text), chinese(text)))
    return english if english == other else (f'<span lang="en">{english}</span>'
                                             f'<span lang="zh-CN" hidden>{other}</span>')


@functools.cache
def messages() -> dict[str, tuple[str, str]]:
    """{key: (English, Chinese)}."""
    english, other = (json.loads((MESSAGES / f"{language}.json").read_text(encoding="utf-8"))
                      for language in LANGUAGES)
    return {f"{topic}.{name}": (text, other[topic][name])
            for topic, names in english.items() for name, text in names.items()}


@functools.cache
def notebooks() -> dict[str, dict[str, str]]:
    """{stem of a notebook: {id of a Markdown cell: its Chinese}}; a cell that is not there has none
    and is shown in English."""
    return json.loads((MESSAGES / "notebooks.zh.json").read_text(encoding="utf-8"))


def _filled(template: str, values: dict[str, typing.Any]) -> str:
    """A Chinese template with its holes filled. Beside a hole, a space goes that would separate two
    Chinese characters, or one and its mark."""
    pieces = [""]
    for literal, name, form, _ in string.Formatter().parse(template):
        pieces.append(literal)
        if name is not None:
            value = string.Formatter().get_field(name, (), values)[0]
            pieces.append(chinese(value) if isinstance(value, str) else format(value, form))
    return functools.reduce(
        lambda left, right: left[:-2] + TIGHT.sub("", left[-2:] + right[:2]) + right[2:], pieces)
