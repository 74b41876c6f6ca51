"""Every sentence that a page can say exists in both languages, with the same holes in it, and no
message is left that nobody says."""
import ast
import json
import re
import string

import nbformat
import pandas as pd
import pytest

from adlib.config import KINDS, project_root
from adlib.data import background, corruptions
from adlib.data.synthetic import foreign_pictures
from adlib.evaluation import conditions, suspects
from adlib.models import anomaly_maps
from adlib.report import comparison, study
from adlib.report.display import matrix
from adlib.report.pages import site
from adlib.report.words import i18n

ROOT = project_root()
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# messages that are called by a code: their codes
FAMILIES = {
    "label": set(comparison.CONFIGURATIONS),
    "kind": set(KINDS), "kind_of": {"surface", "aligned", "free"}, "more": set(matrix.MORE),
    "term": set(site.TERMS), "glossary": set(site.TERMS),
    "status": {"waiting", "missing", "running", "finished", "failed", "interrupted"},
    "half_found": {"pixels", "or_less", "beyond"}, "roi": {"found", *background.WHY},
    "fit": {"square", "large", "few", "measured"},
    "claim": {"missed", "reached", "exceeded"}, "how": {"split", "cross-conformal"},
    "appearance": set(comparison.CONFOUNDERS), "disturbance": set(corruptions.CORRUPTIONS),
    "corruption": set(corruptions.CORRUPTIONS),
    "judged_by": {"auroc", "label_free"}, "position": {"per_position", "any_position"},
    "suspect": set(suspects.REASONS),
    "change": set(conditions.CAUSES.values()), "measured": set(conditions.MEASURED),
    "verdict": {"good", "anomalous", "foreign", "none"},
    "map": {"squared", "ssim", "gradient", "sum", "distance", "map"},
    "score": {"reference", *anomaly_maps.REDUCTIONS},
    "picture": {"image", "reconstruction", "squared error", "squared", "1 - SSIM", "ssim",
                "gradient", "the anomaly", "a patch", "its nearest good one", "as it is",
                "disturbed",
                "deviation"},
    "foreign_kind": set(foreign_pictures.KINDS), "why_absent": {"one_class"},
    "labels": {"absent", "in_folders_too", "leads_out", "missing", "neither", "no_json",
               "no_object", "twice", "unlabelled", "unread"},
    "masks": {"nothing_left", "unusable"},
    "weights_why": {"no_connection", "unwritable", "damaged", "unasked"}}
BY_CODE = {*(f"source.{rule}" for rule in ("parameter", "environment", "project", "drawn",
                                           "folder")),
           *(f"problem.{code}" for code in ("unreadable", "unnamed", "outside", "eight_bits",
                                            "coarse", "leak", "duplicate", "no_test", "no_labels",
                                            "all_good", "all_anomalous", "unread", "stray", "bare",
                                            "respelled", "alike", "misfit")),
           *(f"mask.{code}" for code in ("absent", "contradicted", "empty", "most", "levels",
                                         "exif", "turned", "kept")), "answer.n_reached", "answer.n_exceeded", "answer.n_missed",
           *(f"section.{name}" for name in {*study.SECTIONS, *study.RUN_BY, "better"}),
           *(f"page.{kind}{end}" for kind in ("how_many", "limits")
             for end in ("", "_of", "_not_finished")),
           *(f"matrix.{note}" for note in ("random", "reference"))}


def constants(source):
    return {node.value for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)}


@pytest.fixture(scope="module")
def said():
    """What is written as a string in the code, the templates and the notebooks."""
    strings = set(BY_CODE)
    for path in (ROOT / "adlib").rglob("*.py"):
        strings |= constants(path.read_text(encoding="utf-8"))
    for path in (ROOT / "adlib").rglob("*.j2"):
        strings |= set(re.findall(r"""["']([\w.-]+)["']""", path.read_text(encoding="utf-8")))
    for path in NOTEBOOKS:
        code = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells
                         if cell.cell_type == "code")
        strings |= constants(code)
    return strings


def test_no_message_is_left_over(said):
    families = {*FAMILIES, "column"}
    by_name = {"caption", "by_hand"}  # a notebook names the message alone: say("loss", ...)

    def is_said(key):
        topic, _, name = key.partition(".")
        return key in said or topic in by_name and name in said
    assert [key for key in i18n.messages()
            if key.split(".")[0] not in families and not is_said(key)] == []
    columns = {key.partition(".")[2] for key in i18n.messages() if key.startswith("column.")}
    # "epoch:10" is written by f-string, a constant of which ends in the colon
    families = {text.rstrip(":") for text in said if text.endswith(":")}
    ends = {"auroc_test", "auroc_train_bad"}  # f"auroc_{split}"
    assert columns - said - families - ends == set()


def test_every_message_that_is_said_is_there():
    for path in (ROOT / "adlib" / "report").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "t":
                for key in ast.walk(node.args[0]):
                    if isinstance(key, ast.Constant) and re.fullmatch(
                            r"[a-z]+\.[\w-]+", str(key.value)):
                        there = key.value in i18n.messages() or any(
                            known.startswith(key.value) for known in BY_CODE)
                        assert there, f"{path.name}:{node.lineno}: {key.value}"
    for path in (ROOT / "adlib").rglob("*.j2"):
        text = path.read_text(encoding="utf-8")
        for key in re.findall(r"""\bt\(["']([^"']+)["']""", text):
            assert key in i18n.messages(), f"{path.name}: {key}"


@pytest.mark.parametrize("family", FAMILIES)
def test_every_code_has_its_name(family):
    known = {key.partition(".")[2] for key in i18n.messages() if key.startswith(f"{family}.")}
    assert known == FAMILIES[family]
    assert i18n.named(family, "a code of somebody's own") == "a code of somebody's own"


def holes(template):
    return sorted({(name, spec) for _, name, spec, _ in string.Formatter().parse(template)
                   if name is not None})


def test_both_languages_have_the_same_keys_and_holes():
    english, chinese = (json.loads((i18n.MESSAGES / f"{language}.json").read_text(encoding="utf-8"))
                        for language in i18n.LANGUAGES)
    assert {topic: set(names) for topic, names in english.items()} == {
        topic: set(names) for topic, names in chinese.items()}
    assert [key for key, pair in i18n.messages().items() if holes(pair[0]) != holes(pair[1])] == []


def test_no_original_document_is_called_a_seed_in_chinese():
    """That word is the random seed alone (种子)."""
    for key, (english, chinese) in i18n.messages().items():
        assert ("seed" in english.lower()) == ("种子" in chinese), key
        assert "原项目" not in chinese, key


def test_beside_a_hole_chinese_is_set_without_spaces():
    memory, pca, cae = (i18n.named("label", name) for name in ("memory", "pca", "cae_mse"))
    assert i18n.enumerated([memory, pca]).zh == "图块记忆库（PatchCore）和 PCA 残差"
    assert i18n.enumerated([pca, cae]).zh == "PCA 残差和 CAE + MSE"
    assert i18n.enumerated([cae, memory]).zh == "CAE + MSE 和图块记忆库（PatchCore）"
    assert i18n.t("list.value_3", name=memory, value=0.5).zh == "图块记忆库（PatchCore）0.500"


def test_beside_a_hole_chinese_keeps_a_space_from_a_name():
    assert i18n.t("score.max", map="deviation").zh == "deviation 的最大值"
    stuck = re.compile(r"[\u4e00-\u9fff]\{|\}[\u4e00-\u9fff]")
    assert [key for key, (_, chinese) in i18n.messages().items() if stuck.search(chinese)] == []


def test_texts_keep_both_languages_when_they_are_put_together(monkeypatch):
    monkeypatch.setattr(i18n, "messages", lambda: {"a.n": ("{n} parts", "{n} 个零件"),
                                                   "a.good": ("good: {what}.", "正常：{what}。")})
    inner = i18n.t("a.n", n=3)
    text = i18n.t("a.good", what=inner)
    assert (text, text.zh) == ("good: 3 parts.", "正常：3 个零件。")
    assert (text + " Yes.").zh == "正常：3 个零件。Yes." and i18n.join([text, text]).zh == text.zh * 2
    assert ("x " + inner).zh == "x 3 个零件" and i18n.join([inner, "a"], ", ").zh == "3 个零件、a"
    assert i18n.html(i18n.t("a.good", what="<b>")) == (
        '<span lang="en">good: &lt;b&gt;.</span><span lang="zh-CN" hidden>正常：&lt;b&gt;。</span>')
    assert i18n.html("plain & simple") == "plain &amp; simple"


def test_a_text_of_either_language_alone_is_no_text_of_another():
    """A name is not translated because a message happens to read the same."""
    assert i18n.chinese("finished") == "finished" != i18n.named("status", "finished").zh


def cells():
    return [(path.stem, cell) for path in NOTEBOOKS
            for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown"]


def test_every_text_of_the_notebooks_has_its_chinese():
    assert [f"{stem} {cell.id}: {cell.source[:50]}" for stem, cell in cells()
            if cell.id not in i18n.notebooks().get(stem, {})] == []


def test_no_chinese_is_left_of_a_cell_that_is_gone():
    there = {(stem, cell.id) for stem, cell in cells()}
    assert [(stem, name) for stem, texts in i18n.notebooks().items() for name in texts
            if (stem, name) not in there] == []


def test_english_writes_a_percentage_in_one_way():
    """Like the numbers in it, "46%": as format makes it of {share:.0%}."""
    files = [i18n.MESSAGES / "en.json", ROOT / "README.md", *NOTEBOOKS,
             *(ROOT / "docs").glob("*.md")]
    for path in files:
        assert not re.search(r"[\d}] %", path.read_text(encoding="utf-8")), path


def test_a_table_keeps_both_languages_of_its_texts():
    table = pd.DataFrame({"n": [1, 2]}, index=[3, 7])
    kept = i18n.with_texts(table, said=(i18n.t(f"kind.{kind}") for kind in KINDS[:2]))
    assert kept["said"].dtype == object  # of a column of str pandas copies the English alone
    assert [text.zh for text in kept["said"]] == [i18n.t(f"kind.{kind}").zh for kind in KINDS[:2]]
