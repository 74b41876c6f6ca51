"""What a copy of the pages holds, and what it never replaces."""
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
    (target / "old.html").write_text("of an earlier copy")
    mine = (".git/HEAD", ".git/index.json", "CNAME", "README.md")  # of a folder that is published
    for name in mine:
        files.write_text(target / name, "x")
    report_copy.copy(reports, target)
    assert not (target / "old.html").exists() and all((target / name).is_file() for name in mine)


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
