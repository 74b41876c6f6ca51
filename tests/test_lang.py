"""Every sentence that a page can say exists in both languages, with the same numbers in it."""
import ast
import json
import string

import nbformat
import pytest
from adlib import lang
from adlib.config import project_root

ROOMS = sorted((project_root() / "adlib").glob("*.py"))


def said(path):
    """The first argument of every call of t() or tr() in a room."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) == "t":
            yield node.args[0]


def holes(template):
    return sorted((name, spec) for _, name, spec, _ in string.Formatter().parse(template) if name is not None)


@pytest.mark.parametrize("room", ROOMS, ids=lambda path: path.stem)
def test_every_sentence_of_a_room_is_a_literal_and_has_its_chinese(room):
    for argument in said(room):
        assert isinstance(argument, ast.Constant) and isinstance(argument.value, str), f"{room.name}:{argument.lineno}"
        assert argument.value in lang.strings(), f"{room.name}:{argument.lineno}: no Chinese for {argument.value!r}"


def test_no_string_is_left_over_or_said_twice_in_two_ways():
    rooms = json.loads(lang.STRINGS.read_text(encoding="utf-8"))
    used = {argument.value for room in ROOMS for argument in said(room)} | set(cells())
    assert [english for english in lang.strings() if english not in used and english not in rooms.get("page", {})] == []
    everything = [english for room in rooms.values() for english in room]
    assert len(everything) == len(set(everything))


def test_both_languages_have_the_same_holes():
    for english, chinese in lang.strings().items():
        if english not in cells():
            assert sorted(set(holes(english))) == sorted(set(holes(chinese))), english


def cells():
    return [cell.source for path in sorted((project_root() / "notebooks").glob("*.ipynb"))
            for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown"]


def test_every_text_of_the_notebooks_has_its_chinese():
    assert [text for text in cells() if text not in lang.strings()] == []


def test_texts_keep_both_languages_when_they_are_put_together(monkeypatch):
    monkeypatch.setattr(lang, "strings", lambda: {"{n} parts": "{n} 个零件", "good: {what}.": "正常：{what}。"})
    inner = lang.t("{n} parts", n=3)
    text = lang.t("good: {what}.", what=inner)
    assert (text, text.zh) == ("good: 3 parts.", "正常：3 个零件。")
    assert (text + " Yes.").zh == "正常：3 个零件。Yes." and lang.join([text, text]).zh == text.zh * 2
    assert ("x " + inner).zh == "x 3 个零件" and lang.join([inner, "a"], ", ").zh == "3 个零件、a"
    assert lang.html(lang.t("good: {what}.", what="<b>")) == ('<span lang="en">good: &lt;b&gt;.</span>'
                                                              '<span lang="zh-CN" hidden>正常：&lt;b&gt;。</span>')
    assert lang.html("plain & simple") == "plain &amp; simple"
