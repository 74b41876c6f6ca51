"""Every sentence that a page can say exists in both languages, with the same numbers in it."""
import ast
import json
import re
import string

import nbformat
import pytest

from adlib.config import project_root
from adlib.report import i18n

# of a run: said as they are, beside a link
STATES = {"missing", "failed", "interrupted", "running"}
ROOMS = sorted((project_root() / "adlib").glob("*.py"))


def said(path):
    """The first argument of every call of t() or tr() in a room."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr",
                                                                           "")) == "t":
            yield node.args[0]


def holes(template):
    return sorted(
        (name, spec) for _, name, spec, _ in string.Formatter().parse(template) if name is not None)


@pytest.mark.parametrize("room", ROOMS, ids=lambda path: path.stem)
def test_every_sentence_of_a_room_is_a_literal_and_has_its_chinese(room):
    for argument in said(room):
        assert isinstance(argument, ast.Constant) and isinstance(
            argument.value, str), f"{room.name}:{argument.lineno}"
        assert argument.value in i18n.strings(
        ), f"{room.name}:{argument.lineno}: no Chinese for {argument.value!r}"


def test_no_string_is_left_over_or_said_twice_in_two_ways():
    rooms = json.loads(i18n.STRINGS.read_text(encoding="utf-8"))
    template = (project_root() / "adlib" / "templates" / "study" /
                "index.html.j2").read_text(encoding="utf-8")
    on_the_page = set(re.findall(r"""tr\("([^"]+)"\)""", template))
    assert on_the_page - set(i18n.strings()) == set()
    used = {argument.value
            for room in ROOMS
            for argument in said(room)} | set(cells()) | on_the_page | STATES
    template = (project_root() / "adlib" / "templates" / "study" /
                "index.html.j2").read_text(encoding="utf-8")
    on_the_page = set(re.findall(r"""tr\("([^"]+)"\)""", template))
    assert on_the_page - set(i18n.strings()) == set()
    elsewhere = on_the_page | STATES | {*rooms["stored"]}
    assert [english for english in i18n.strings() if english not in used | elsewhere] == []
    pairs = {(english, other) for room in rooms.values() for english, other in room.items()}
    assert len(pairs) == len(i18n.strings())


def test_what_tables_and_files_hold_as_plain_text_is_still_said_somewhere():
    """The words of the room "stored" go through a table or a file, and are known again where a page
    says them (lang.chinese)."""
    notebooks = [
        "".join(cell.source for cell in nbformat.read(path, as_version=4).cells
                if cell.cell_type == "code")
        for path in (project_root() / "notebooks").glob("*.ipynb")
    ]
    source = "\n".join([room.read_text(encoding="utf-8") for room in ROOMS] + notebooks)
    stored = json.loads(i18n.STRINGS.read_text(encoding="utf-8"))["stored"]
    assert [
        english for english in stored for literal, *_ in string.Formatter().parse(english)
        if literal not in source
    ] == []


def test_a_text_is_known_again_after_a_table_or_a_file():
    label = i18n.t("PCA residual")
    for text in (label, i18n.t("{label} (chosen score)",
                               label=label), i18n.t("{least} or less",
                                                    least="1 %"), i18n.t("{n} more", n=3)):
        assert i18n.chinese(json.loads(json.dumps(text))) == text.zh != str(text)
    for name in ("hazelnut", "0.80 [0.70, 0.90]", "a and b", "a: b", ""):
        assert i18n.chinese(name) == name


def test_beside_a_hole_chinese_is_set_without_spaces():
    rows = [i18n.t("Memory of patches (PatchCore)"), i18n.t("PCA residual"), "CAE + MSE"]
    assert i18n.t("{most} and {last}", most=rows[0], last=rows[1]).zh == "图块记忆库（PatchCore）和 PCA 残差"
    assert i18n.t("{most} and {last}", most=rows[1], last=rows[2]).zh == "PCA 残差和 CAE + MSE"
    assert i18n.t("{most} and {last}", most=rows[2],
                  last=rows[0]).zh == "CAE + MSE 和图块记忆库（PatchCore）"
    assert i18n.t("{label} {auroc:.2f}", label=rows[0], auroc=0.5).zh == "图块记忆库（PatchCore）0.50"


def test_both_languages_have_the_same_holes():
    for english, chinese in i18n.strings().items():
        if english not in cells():
            assert sorted(set(holes(english))) == sorted(set(holes(chinese))), english


def cells():
    return [
        cell.source for path in sorted((project_root() / "notebooks").glob("*.ipynb"))
        for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown"
    ]


def test_every_text_of_the_notebooks_has_its_chinese():
    assert [text for text in cells() if text not in i18n.strings()] == []


def test_texts_keep_both_languages_when_they_are_put_together(monkeypatch):
    monkeypatch.setattr(i18n, "strings",
                        lambda: {"{n} parts": "{n} 个零件", "good: {what}.": "正常：{what}。"})
    monkeypatch.setattr(i18n, "_templates", list)
    inner = i18n.t("{n} parts", n=3)
    text = i18n.t("good: {what}.", what=inner)
    assert (text, text.zh) == ("good: 3 parts.", "正常：3 个零件。")
    assert (text + " Yes.").zh == "正常：3 个零件。Yes." and i18n.join([text, text]).zh == text.zh * 2
    assert ("x " + inner).zh == "x 3 个零件" and i18n.join([inner, "a"], ", ").zh == "3 个零件、a"
    assert i18n.html(i18n.t("good: {what}.",
                            what="<b>")) == ('<span lang="en">good: &lt;b&gt;.</span>'
                                             '<span lang="zh-CN" hidden>正常：&lt;b&gt;。</span>')
    assert i18n.html("plain & simple") == "plain &amp; simple"
