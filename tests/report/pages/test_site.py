"""Executed notebooks and run folders to pages: one run that finished, one that failed, limits of
either."""
import re
import shutil
from pathlib import Path

import bs4
import nbformat
import pandas as pd
import pytest

from adlib.config import InputError
from adlib.data import files, layout
from adlib.report import comparison
from adlib.report.pages import machine_paths, site
from adlib.runs import freshness
from tests.handmade import DISTANCE, category, failed, finished, ranks

RETRY = "adlib run params/own.yaml --only category=nut,config=pca,seed=0"


class Page:
    """What a reader of one language finds: the text of a page, its links, its groups of links
    {title: [(href, "here" or "note", text)]}."""
    def __init__(self, path, lang="en"):
        self.source = path.read_text()
        page = bs4.BeautifulSoup(self.source, "html.parser")
        for part in page.select(f"style, script, body [lang={'zh-CN' if lang == 'en' else 'en'}]"):
            part.decompose()
        self.soup, self.text = page, re.sub(r"\s+", " ", page.get_text(" "))
        self.hrefs, self.images = [link["href"] for link in page.select("a[href]")], [
            image["src"] for image in page.select("img")
        ]
        self.groups = {
            menu.summary.get_text(strip=True): [
                (part.get("href") or ("here" if part.has_attr("aria-current") else "note"),
                 part.get_text(strip=True))
                for part in menu.select("li > a, li > [aria-current], li > .note")
            ]
            for menu in page.select("nav details.menu")
        }


def notebook(path, said, *, error=""):
    """A tiny notebook as papermill leaves it."""
    outputs = [
        nbformat.v4.new_output("display_data",
                               data={"text/html": f"<p>{said}</p>", "text/plain": said})
    ]
    if error:
        outputs.append(
            nbformat.v4.new_output("error", ename="ValueError", evalue=error,
                                   traceback=[f"\x1b[31mValueError\x1b[0m: {error}"]))
    cells = [
        nbformat.v4.new_markdown_cell(f"# What is {said}?"),
        nbformat.v4.new_code_cell("show()", outputs=outputs)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)


@pytest.fixture
def reports(tmp_path):
    reports = tmp_path / "reports"
    notebook(reports / "comparison.ipynb", "compared")
    notebook(reports / "eda" / "nut" / "notebook.ipynb", "looked at")
    notebook(
        finished(reports, "memory", {DISTANCE: ranks(category(), 1.0)}) / "notebook.ipynb",
        "remembered")
    folder = failed(reports, "pca", "ValueError: the <sky> fell")
    files.write_text(folder / "log.txt", "begin\n\x1b[31mValueError: the <sky> fell\x1b[0m\n")
    notebook(reports / "limits" / "nut" / "memory" / "notebook.ipynb", "found at its limits")
    files.write_json(reports / "limits" / "nut" / "memory" / "limits.json",
                     {"run": "1", "notebook": "2", "code": "3"})
    freshness.fail(reports / "limits" / "nut" / "pca" / "limits.json",
                   "its run, nut pca seed 0, has not finished", RETRY)
    return reports


@pytest.fixture
def said(caplog):
    """What adlib has logged, as a function."""
    caplog.set_level("INFO", "adlib")
    return lambda: caplog.messages


def built(reports):
    index = site.build(reports)
    assert index == reports / "index.html"
    return {
        path.parent.relative_to(reports).as_posix(): Page(path)
        for path in reports.rglob("index.html")
    }


def test_everything_has_its_page_and_the_pages_find_each_other(reports):
    pages = built(reports)
    assert set(pages) == {
        ".", "eda/nut", "runs/nut/memory/seed-0", "runs/nut/pca/seed-0", "limits/nut/memory",
        "limits/nut/pca"
    }
    for here, page in pages.items():
        assert list(page.groups) == ["The data", "Runs: nut", "Limits"], here
        for href in page.hrefs:
            assert href.startswith("#") or (reports / here / href).is_file(), (here, href)
    for here, said in ((".", "compared"), ("eda/nut", "looked at"),
                       ("runs/nut/memory/seed-0", "remembered"), ("limits/nut/memory",
                                                                  "found at its limits")):
        assert [page for page in pages if said in pages[page].text] == [here]
        assert "did not finish" not in pages[here].text


def test_only_pages_of_mvtecs_pictures_name_its_licence(reports):
    finished(reports, "memory", {DISTANCE: ranks(category("screw"), 1.0)}, where=category("screw"))
    pages = built(reports)
    assert {here for here, page in pages.items() if "CC BY-NC-SA" in page.text} == {
        ".", "runs/screw/memory/seed-0"}
    runs = pd.DataFrame([("nut", "data", "mvtec"), ("nut", "mvtec_ad", "mvtec"),
                         ("screw", "data", "plain"), ("hazelnut", "data", "course")],
                        columns=["category", "data", "layout"])
    assert [comparison.of_mvtec(runs[i:i + 1]) for i in range(4)] == [
        set(), {"nut"}, set(), {"hazelnut"}]


def test_limits_are_a_group_of_their_own(reports):
    pages = built(reports)
    assert pages["."].groups["Limits"] == [("limits/nut/memory/index.html",
                                            "nut: Memory of patches (PatchCore)"),
                                           ("limits/nut/pca/index.html", "nut: PCA residual"),
                                           ("note", "failed")]
    assert pages["limits/nut/memory"].groups["Limits"][0] == ("here",
                                                              "nut: Memory of patches (PatchCore)")
    assert "../../../runs/nut/memory/seed-0/index.html" in pages["limits/nut/memory"].hrefs
    assert pages["limits/nut/pca"].soup.title.text == "nut: the limits of PCA residual"


def test_how_many_pictures_a_run_takes_has_a_page_and_a_group(reports):
    folder = reports / "how_many" / "nut" / "memory"
    notebook(folder / "notebook.ipynb", "a learning curve")
    files.write_text(folder / "how_many.csv", "n\n")
    pages = built(reports)
    page = pages["how_many/nut/memory"]
    assert list(page.groups) == ["The data", "Runs: nut", "Limits", "How many pictures"]
    assert page.soup.title.text == (
        "nut: how many pictures Memory of patches (PatchCore) takes")
    assert "how_many.csv" in page.hrefs and "a learning curve" in page.text
    assert "how_many/nut/memory/index.html" in pages["."].hrefs
    freshness.fail(folder / "how_many.json", "the sky fell", RETRY)
    assert "The work on how many pictures it takes did not finish" in built(reports)[
        "how_many/nut/memory"].text


def test_failed_limits_say_why_and_how_to_try_again(reports):
    files.write_text(reports / "limits" / "nut" / "pca" / "log.txt",
                     "first\n" * 30 + "\x1b[31mthe last line\x1b[0m\n")
    page = built(reports)["limits/nut/pca"]
    assert "failed: its run, nut pca seed 0, has not finished" in page.text and f"To try again: {RETRY}" in page.text
    assert "the last line" in page.text and page.text.count(
        "first") == 19 and "\x1b" not in page.source


def test_what_a_user_can_mend_is_one_sentence_without_the_end_of_the_log(reports):
    folder = failed(reports, "fused", "InputError: the folder nut is empty; add pictures")
    files.write_text(folder / "log.txt", "Traceback (most recent call last):\n")
    page = built(reports)["runs/nut/fused/seed-0"]
    assert "failed: the folder nut is empty; add pictures" in page.text
    assert "Traceback" not in page.text and "InputError" not in page.text


def test_a_failed_run_says_why_and_how_to_try_again(reports):
    page = built(reports)["runs/nut/pca/seed-0"]
    assert "failed: ValueError: the <sky> fell" in page.text and "the <sky> fell" not in page.source
    assert "To try again: papermill notebooks/02_cae_baseline.ipynb" in page.text
    assert "-p name pca" in page.text and "-p epochs" not in page.text  # as by default
    assert "begin ValueError" in page.text and "\x1b" not in page.source


def test_a_failed_run_without_a_notebook_is_headed_in_either_language(reports):
    page = built(reports)["runs/nut/pca/seed-0"].soup
    assert page.h1.text == "nut: PCA residual" and not page.select(".eyebrow")
    other = Page(reports / "runs" / "nut" / "pca" / "seed-0" / "index.html", "zh").soup
    assert other.h1.text == "nut：PCA 残差"


def test_a_partial_notebook_is_shown_below_the_reason(reports):
    notebook(reports / "limits" / "nut" / "pca" / "notebook.ipynb", "begun", error="too dark")
    page = built(reports)["limits/nut/pca"]
    assert page.text.index("has not finished") < page.text.index("begun") < page.text.index(
        "too dark")


def test_limits_that_were_run_by_hand_show_their_figures(reports):
    shutil.rmtree(reports / "limits" / "nut" / "memory")
    files.write_text(reports / "limits" / "nut" / "memory" / "robustness.csv", "disturbance\n")
    (reports / "limits" / "nut" / "memory" / "robustness.png").write_bytes(b"png")
    page = built(reports)["limits/nut/memory"]
    assert page.images == [
        "robustness.png"
    ] and "did not finish" not in page.text and "not in its folder" in page.text


def test_failed_limits_show_no_figure_of_an_earlier_run(reports):
    (reports / "limits" / "nut" / "pca" / "robustness.png").write_bytes(b"of an earlier run")
    assert built(reports)["limits/nut/pca"].images == []


def test_without_limits_there_is_no_such_group(reports):
    shutil.rmtree(reports / "limits")
    pages = built(reports)
    assert len(pages) == 4 and "Limits" not in pages["."].groups


def test_limits_of_a_run_that_is_gone_still_have_their_page(reports):
    shutil.rmtree(reports / "runs" / "nut" / "pca")
    page = built(reports)["limits/nut/pca"]
    assert "did not finish" in page.text and "SYNTHETIC DATA" not in page.text


def test_drawn_data_are_marked_on_every_page_that_shows_them(reports):
    own = category("zip")
    drawn = layout.Category(own.root, "zip", "mvtec", True, own.train, own.test, ())
    notebook(
        finished(reports, "memory", {DISTANCE: ranks(own, 1.0)}, where=drawn) / "notebook.ipynb",
        "drawn")
    for kind in ("limits/zip/memory", "eda/zip"):
        notebook(reports / kind / "notebook.ipynb", "drawn")
    pages = built(reports)
    marked = {here for here, page in pages.items() if "SYNTHETIC DATA" in page.text}
    assert marked == {".", "eda/zip", "limits/zip/memory", "runs/zip/memory/seed-0"}
    for here, page in pages.items():
        assert ("drawn by adlib's own generator" in page.text) == (here in marked)


def test_an_output_of_any_kind_is_shown(reports):
    """What a detector of one's own may draw or print: nbconvert leaves out what a template does not
    name, and fails on widgets whose state was not saved (nbconvert issues 1849, 2127, 1731)."""
    path = reports / "eda" / "nut" / "notebook.ipynb"
    book = nbformat.read(path, as_version=4)
    book.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": {"version_major": 2}}
    svg = "<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"
    book.cells[-1].outputs = [
        nbformat.v4.new_output("display_data", data={kind: value, "text/plain": "as text"})
        for kind, value in (("image/svg+xml", svg), ("image/jpeg", "/9j/4A=="),
                            ("text/markdown", "**bold** of {{ 7 * 7 }}"),
                            ("text/latex", "$\\frac{a}{b}$ <xyz>"),
                            ("application/javascript", "alert(2)"),
                            ("application/vnd.jupyter.widget-view+json", {"model_id": "a"}))]
    nbformat.write(book, path)
    site.build(reports)
    text = (reports / "eda" / "nut" / "index.html").read_text(encoding="utf-8")
    assert "data:image/svg+xml;base64," in text and "data:image/jpeg;base64,/9j/4A==" in text
    assert "<strong>bold</strong> of {{ 7 * 7 }}" in text and "<mfrac>" in text
    assert text.count("as text") == 2 and "alert(" not in text and "<xyz>" not in text


def test_without_a_comparison_the_command_is_named(reports):
    (reports / "comparison.ipynb").unlink()
    with pytest.raises(
            InputError, match="there is no .*comparison.ipynb; run `adlib run params/grids/quick.yaml` "
            "first.*06_comparison.ipynb"):
        site.build(reports)


@pytest.mark.parametrize("content", ["", "{ half", "[]", "{}"])
def test_a_damaged_notebook_is_named(reports, content):
    path = reports / "limits" / "nut" / "memory" / "notebook.ipynb"
    path.write_text(content)
    with pytest.raises(InputError,
                       match=f"{path} is not a notebook .*; delete it and run it again"):
        site.build(reports)


def test_the_language_that_pages_open_in_is_asked_for_and_either_is_in_the_page(reports, said):
    pages = built(reports)
    assert all(page.soup.html["lang"] == "en" for page in pages.values())
    site.build(reports, again=False, language="zh")
    assert said()[-1] == f"6 pages; open {reports / 'index.html'}"
    pages = {path: Page(path, "zh-CN") for path in reports.rglob("index.html")}
    assert all(page.soup.html["lang"] == "zh-CN" for page in pages.values())
    site.build(reports, again=False)
    assert "up to date" in said()[-1]  # it stays as it was asked for
    assert any("如何复现本页" in page.text for page in pages.values())
    assert list(pages[reports / "index.html"].groups) == ["数据", "运行：nut", "极限"]


def test_every_page_says_how_to_make_it_again_and_offers_its_numbers(reports):
    files.write_json(reports / "comparison.json", {"made_by": "adlib run params/own.yaml"})
    files.write_text(reports / "summary.json", "[]")
    pages = built(reports)
    assert "adlib run params/own.yaml --report" in pages["."].text and "summary.json" in pages[
        "."].hrefs
    run = pages["runs/nut/memory/seed-0"]
    assert "papermill notebooks/" in run.text and {"metrics.json", "all_results.csv"} <= set(run.hrefs)
    # which hold paths of the machine
    assert not {"run.json", "notebook.ipynb"} & set(run.hrefs)
    assert "Data fingerprint" in run.text
    assert "AUROC, top 1% of the distance to good images" in run.soup.select_one(
        ".figures").get_text(" ")


def test_pages_are_rendered_again_only_where_something_changed(reports, said):
    index = site.build(reports, again=False)
    index.write_text("looked at since")
    site.build(reports, again=False)
    assert "6 pages" in said()[-2] and "up to date" in said()[-1] and index.read_text(
    ) == "looked at since"
    site.build(reports)  # asked for by a user
    assert index.read_text() != "looked at since"
    for change in (lambda: files.write_text(reports / "runs" / "nut" / "pca" / "seed-0" / "log.txt",
                                            "another end"),
                   lambda: notebook(reports / "comparison.ipynb", "compared anew"), index.unlink):
        change()
        site.build(reports, again=False)
        assert "6 pages" in said()[-1]
        site.build(reports, again=False)
        assert "up to date" in said()[-1]


@pytest.mark.parametrize("kept", [".local.json", "run.json"])
def test_no_page_names_a_folder_of_this_machine(reports, tmp_path, monkeypatch, kept):
    """Wherever a path may stand: parameters, what a cell shows, a log, the reason of a failure."""
    root, project = tmp_path / "my data", tmp_path / "project"
    monkeypatch.setattr(machine_paths, "project_root", lambda: project)
    folder = reports / "runs" / "nut" / "memory" / "seed-0"
    about = files.read_json(folder / "run.json")
    params = {"data_root": str(root), "reports": str(reports), "weights": str(tmp_path / "a b.pth")}
    if kept == ".local.json":
        files.write_json(folder / kept, {"host": "h", "data_root": str(root), "params": params})
        params, place = {key: Path(value).name for key, value in params.items()}, root.name
    else:  # as an earlier version did
        about, place = about | {"host": "h"}, str(root)
    files.write_json(folder / "run.json", about | {
        "params": about["params"] | params, "data": about["data"] | {"root": place},
        "weights": f"RANDOM, not ImageNet's ({project}/weights is missing)"})
    notebook(folder / "notebook.ipynb", f"in {root}/nut/0.png and {project}/params/own.yaml",
             error=f"cannot read {root}/nut")
    cells = nbformat.read(folder / "notebook.ipynb", as_version=4)
    cells.cells.insert(1, nbformat.v4.new_code_cell(f'data_root = "{root}"'))
    cells.metadata["papermill"] = {"input_path": f"{project}/notebooks/04.ipynb"}
    nbformat.write(cells, folder / "notebook.ipynb")
    failed(reports, "pca", f"no space left on {reports}/runs, nor in {tmp_path}/project/x")
    files.write_json(reports / "batch.json", [{
        "folder": "runs/nut/pca/seed-0", "retry": f"adlib run {tmp_path}/grids/own.yaml"}])
    files.write_text(reports / "runs/nut/pca/seed-0/log.txt", f"File \"{project}/adlib/cli.py\"\n")
    pages = built(reports)
    assert [here for here, page in pages.items() if str(tmp_path) in page.source] == []
    run, failure = pages["runs/nut/memory/seed-0"], pages["runs/nut/pca/seed-0"]
    assert "my data (mvtec)" in run.text and "-p data_root 'my data'" in run.text
    assert "-p weights 'path/to/a b.pth'" in run.text and "cannot read my data/nut" in run.text
    assert "my data/nut/0.png and params/own.yaml" in run.text
    assert "no space left on reports/runs, nor in x" in failure.text
    assert 'File "adlib/cli.py"' in failure.text and "adlib run own.yaml" in failure.text


def test_a_cell_is_shown_in_chinese_where_there_is_one_and_in_english_where_not(reports, monkeypatch):
    path = reports / "eda" / "nut" / "notebook.ipynb"
    cells = nbformat.read(path, as_version=4)
    cells.cells[0].source += "\n\nAn introduction."
    cells.cells += map(nbformat.v4.new_markdown_cell, ("Known.", "New."))
    nbformat.write(cells, path)
    first, second = (cells.cells[i].id for i in (0, 2))
    monkeypatch.setattr(site.i18n, "notebooks", lambda: {
        "01_eda": {first: "# 问题？\n\n引言。", second: "已知。", "gone": "无。"}})
    built(reports)
    page = Page(path.parent / "index.html", "zh-CN")
    assert page.soup.select_one("h1").get_text(strip=True) == "nut"  # its runs come first
    assert page.soup.select_one("h2").get_text(strip=True).startswith("问题？")
    assert "引言。" in page.text and "已知。" in page.text and "New." in page.text
    assert "Known." not in page.text and "An intro" not in page.text and "无。" not in page.text


def test_where_no_bad_picture_is_known_no_page_asks_what_was_missed(tmp_path):
    """Of good pictures only: the sections that labels of both classes answer are left out, and the
    first page asks what can be known."""
    reports, good = tmp_path / "reports", category(bad=0)
    run = finished(reports, "memory", {DISTANCE: ranks(good, 1.0)}, where=good)
    notebook(reports / "comparison.ipynb", "compared")
    sections = [nbformat.v4.new_markdown_cell(f"## {title}", metadata={"tags": tags})
                for title, tags in (("Where is the line?", ["result"]),
                                    ("What does it miss?", ["result", "judged"]))]
    cells = [nbformat.v4.new_markdown_cell("# Which?"), *sections]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), run / "notebook.ipynb")
    pages = built(reports)
    page = pages["runs/nut/memory/seed-0"].text
    assert "Where is the line?" in page and "miss" not in page
    index = pages["."].soup
    assert index.h1.text == "What is known before a bad part is seen?"
    assert "has an AUROC" not in pages["."].text
    bad = finished(reports, "pca", {DISTANCE: ranks(category(), 1.0)})
    nbformat.write(nbformat.v4.new_notebook(cells=cells), bad / "notebook.ipynb")
    pages = built(reports)
    assert "What does it miss?" in pages["runs/nut/pca/seed-0"].text
    assert pages["."].soup.h1.text == "What is compared?"
