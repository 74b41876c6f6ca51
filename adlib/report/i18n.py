"""English and Chinese: messages by key, in messages/en.json and messages/zh.json, filled with
numbers when a page is made."""
from __future__ import annotations

import functools
import html as markup
import json
import re
import string
import typing
from pathlib import Path

LEAST = 4  # letters of a template by which a text is known again
TIGHT = re.compile(r" (?=[，。：；、（）])|(?<=[，。：；、（）]) |(?<=[\u4e00-\u9fff]) (?=[\u4e00-\u9fff])")
LANGUAGES = {"en": "en", "zh": "zh-CN"}  # as asked for: as HTML names them
# a file a language: {topic: {name: text with {holes}}}
MESSAGES = Path(__file__).parent / "messages"


class Text(str):
    """An English text that knows its Chinese: a str like any other, whose `zh` goes along when
    texts are added."""

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
    """The message of a key ("run.auroc_test_split_auroc") in either language, its {holes} filled as
    by str.format; values that are Texts bring their own Chinese."""
    english, other = messages()[key]
    return Text(english.format(**values), _filled(other, values))


def chinese(text: str) -> str:
    """The Chinese of a Text. Of another str that of the sentence or template that it was made from,
    so that a text is known again after it went through a table, a CSV or a JSON file; where there
    is none, as it is: a name or a number."""
    if isinstance(text, Text):
        return text.zh
    if text in strings():
        return strings()[text]
    for pattern, holes, other in _templates():
        if found := pattern.fullmatch(text):
            return _filled(other, dict(zip(holes, found.groups(), strict=True)))
    return text


def join(texts: typing.Iterable[str], separator: str = " ") -> Text:
    """Texts in a row. Chinese sentences follow each other without a space, and its lists are parted
    by their own comma."""
    parts = list(texts)
    between = {" ": "", ", ": "、", "; ": "；"}.get(separator, separator)
    return Text(separator.join(parts), between.join(map(chinese, parts)))


def html(text: str) -> str:
    """Either language as HTML, escaped: English is shown, Chinese waits hidden until a page asks
    for it (templates/study/page.js)."""
    english, other = (markup.escape(words, quote=False) for words in (str(text), chinese(text)))
    return english if english == other else f'<span lang="en">{english}</span><span lang="zh-CN" hidden>{other}</span>'


@functools.cache
def messages() -> dict[str, tuple[str, str]]:
    """{key: (English, Chinese)}."""
    english, other = (json.loads((MESSAGES / f"{language}.json").read_text(encoding="utf-8"))
                      for language in LANGUAGES)
    return {
        f"{topic}.{name}": (text, other[topic][name])
        for topic, names in english.items()
        for name, text in names.items()
    }


@functools.cache
def strings() -> dict[str, str]:
    """{English: Chinese}."""
    return dict(messages().values())


@functools.cache
def _templates() -> list[tuple[re.Pattern[str], list[str], str]]:
    """(what texts made from it look like, its holes in their order, its Chinese) of every template;
    the most telling first."""
    found = []
    for english, other in strings().items():
        parts = re.split(r"\{(\w+)(?::[^{}]*)?\}", english)
        letters = sum(map(str.isalpha, "".join(parts[::2])))
        if len(parts) > 1 and letters >= LEAST:
            found.append((-letters, len(parts),
                          re.compile("(.+?)".join(map(re.escape, parts[::2])),
                                     re.DOTALL), parts[1::2], other))
    return [entry[2:] for entry in sorted(found, key=lambda entry: entry[:2])]


def _filled(template: str, values: dict[str, typing.Any]) -> str:
    """A Chinese template with its holes filled. Beside a hole, a space goes that would part two
    Chinese characters, or one and its mark."""
    parts = [""]
    for literal, name, form, _ in string.Formatter().parse(template):
        parts.append(literal)
        if name is not None:
            value = string.Formatter().get_field(name, (), values)[0]
            parts.append(chinese(value) if isinstance(value, str) else format(value, form))
    return functools.reduce(
        lambda left, right: left[:-2] + TIGHT.sub("", left[-2:] + right[:2]) + right[2:], parts)
