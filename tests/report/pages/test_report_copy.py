"""What a copy of the pages holds, and what it never replaces."""
from pathlib import Path

import nbformat
import numpy as np
import pytest
from PIL import Image

from adlib.config import InputError
from adlib.data import files
from adlib.report.pages import report_copy, site
from adlib.runs import overlays
from tests.report.pages import test_site
from tests.report.pages.test_site import Page

RUN = "runs/nut/memory/seed-0"
reports = test_site.reports


def test_it_holds_what_pages_show_and_nothing_that_names_this_machine(reports, tmp_path):
    run = reports / RUN
    for name in ("pictures/0.webp", "loss_curve.png", "roc_curve.png", "model.pt", "log.txt",
                 "params.yaml"):
        files.write_text(run / name, "x")
    notebook = nbformat.read(run / "notebook.ipynb", 4)
    notebook.cells.append(nbformat.v4.new_markdown_cell('<img src="pictures/0.webp">'
                                                        '<img src="loss_curve.png">'))
    nbformat.write(notebook, run / "notebook.ipynb")
    site.build(reports)
    target = tmp_path / "to pass on"
    size = report_copy.copy(reports, target)
    kept = {path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()}
    assert {"index.html", "summary.csv", f"{RUN}/index.html", f"{RUN}/pictures/0.webp",
            f"{RUN}/loss_curve.png", f"{RUN}/metrics.json"} <= kept
    assert not {path.rpartition("/")[2] for path in kept} & {
        "model.pt", "log.txt", "params.yaml", "run.json", "notebook.ipynb", "comparison.ipynb",
        "roc_curve.png"}
    assert size == sum((target / name).stat().st_size for name in kept - {report_copy.COPY})
    for path in target.rglob("index.html"):  # and no link of a page leads out of it
        for href in Page(path).hrefs:
            assert href.startswith("#") or (path.parent / href.partition("#")[0]).is_file(), href


def test_it_replaces_and_removes_what_it_wrote_and_nothing_else(reports, tmp_path):
    target, old = tmp_path / "published", reports / "eda" / "old" / "index.html"
    site.build(reports)
    files.write_text(old, "<p>of an earlier copy")
    files.write_text(reports / ".ipynb_checkpoints" / "index.html", "<p>hidden")
    files.write_text(reports / RUN / ".again" / "metrics.json", "{}")
    report_copy.copy(reports, target)
    first = {path.relative_to(target) for path in target.rglob("*") if path.is_file()}
    assert old.relative_to(reports) in first and not [
        path for path in first if path.parts[0] != report_copy.COPY and "/." in f"/{path}"]
    mine = (".git/HEAD", "CNAME", "README.md", "about.html", "data.csv", "package.json", "logo.png",
            "pictures/team.jpg", ".ipynb_checkpoints/index.html", f"{RUN}/notes.html")
    for name in mine:  # of a folder that is published
        files.write_text(target / name, "x")
    old.unlink()
    files.write_text(reports / "index.html", "<p>another")
    report_copy.copy(reports, target)
    assert not (target / old.relative_to(reports)).exists()
    assert (target / "index.html").read_text() == "<p>another"
    assert {(target / name).read_text() for name in mine} == {"x"}
    assert {path.relative_to(target) for path in target.rglob("*") if path.is_file()} == {
        *first, *map(Path, mine)} - {old.relative_to(reports)}


def test_what_is_in_the_place_of_a_page_stays_and_is_named(reports, tmp_path):
    target = tmp_path / "published"
    site.build(reports)
    report_copy.copy(reports, target)
    (target / "index.html").write_text("edited by hand")
    for name in ("one.html", "eda/two"):
        files.write_text(target / name, "mine")
    (target / "three.html").mkdir()
    for name in ("one.html", "eda/two/index.html", "three.html"):
        files.write_text(reports / name, "<p>page")
    before = {path: path.read_bytes() for path in target.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match=r"has files in the places of pages .*: eda/two/index."
                                         r"html, index.html, one.html, three.html; move or del"):
        report_copy.copy(reports, target)
    assert before == {path: path.read_bytes() for path in target.rglob("*") if path.is_file()}


def test_no_page_goes_through_a_link_to_another_place(reports, tmp_path):
    target, other = tmp_path / "published", tmp_path / "other"
    files.write_text(reports / "eda/two/index.html", "<p>page")
    site.build(reports)
    report_copy.copy(reports, target)
    (target / "eda").rename(other)
    (target / "eda").symlink_to(other, target_is_directory=True)
    files.write_text(reports / "eda/two/index.html", "<p>another")
    with pytest.raises(InputError, match="eda/two/index.html"):
        report_copy.copy(reports, target)
    assert (other / "two/index.html").read_text() == "<p>page"


def test_a_copy_that_was_killed_goes_on(reports, tmp_path, monkeypatch):
    target, lists = tmp_path / "published", []
    site.build(reports)
    report_copy.copy(reports, target)
    files.write_text(reports / "index.html", "<p>second")
    files.write_text(reports / "more.html", "<p>second")
    atomic = files.atomic_path

    def killed(path):
        lists.extend([path] * (path.name == report_copy.COPY))
        if len(lists) > 1:  # all is written but the list that is shorter
            raise KeyboardInterrupt
        return atomic(path)

    monkeypatch.setattr(files, "atomic_path", killed)
    with pytest.raises(KeyboardInterrupt):
        report_copy.copy(reports, target)
    monkeypatch.undo()
    for name in ("index.html", "more.html"):
        files.write_text(reports / name, "<p>third")
    report_copy.copy(reports, target)
    assert {(target / name).read_text() for name in ("index.html", "more.html")} == {"<p>third"}


def test_a_picture_inside_pages_is_one_file_beside_them(reports, tmp_path):
    """The one that a run has kept as a file is that file."""
    one, other = (overlays.encoded(np.full((8, 8, 3), grey, np.uint8)) for grey in (50, 200))
    (reports / "pictures" / "a nut").mkdir(parents=True)
    (reports / "pictures" / "a nut" / "kept.webp").write_bytes(one)
    shown = "".join(f'<img src="{overlays.data_uri(each)}">' for each in (one, other))
    for path in (reports / "comparison.ipynb", reports / RUN / "notebook.ipynb"):
        notebook = nbformat.read(path, 4)
        notebook.cells.append(nbformat.v4.new_markdown_cell(
            f'{shown}<img src="{"../" * 4 * ("runs" in path.parts)}pictures/a%20nut/kept.webp">'))
        nbformat.write(notebook, path)
    site.build(reports)
    report_copy.copy(reports, tmp_path / "copy")
    for folder in (tmp_path / "copy", tmp_path / "copy" / RUN):
        page = Page(folder / "index.html")
        assert "base64" not in str(page.soup.main)
        seen = [Image.open(folder / src.replace("%20", " ")) for src in page.images[-3:]]
        assert [np.asarray(image)[0, 0, 0] for image in seen] == [50, 200, 50]
        assert page.images[-3] == page.images[-1]
    pictures = list((tmp_path / "copy").rglob("pictures/**/*.webp"))
    assert sorted(path.read_bytes() for path in pictures) == sorted([one, other])


def test_it_replaces_nothing_but_an_earlier_copy(reports, tmp_path):
    own = tmp_path / "a site of one's own"
    own.mkdir()
    (own / "index.html").write_text("dear")
    for there in (own, own / "index.html"):
        with pytest.raises(InputError, match="is no earlier copy of a report; give an empty"):
            report_copy.copy(reports, there)
    site.build(reports)
    before = sorted(reports.rglob("*"))
    for there in (reports, reports.parent, reports / "pages"):
        with pytest.raises(InputError, match="holds the reports or lies among them"):
            report_copy.copy(reports, there)
    assert (own / "index.html").read_text() == "dear" and sorted(reports.rglob("*")) == before
