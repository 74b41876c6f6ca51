"""The list of suspects is what `exclude` takes, and its page shows each with why."""
import bs4
import pandas as pd
import pytest
from PIL import Image

from adlib.config import Config, InputError
from adlib.data import layout
from adlib.data.part import open_part
from adlib.report import suspects
from adlib.report.display import components

FOUND = pd.DataFrame([
    ("nut/train/good/003.png", "copy", "nut/train/good/001.png", 0.1),
    ("nut/train/good/005.png", "anomalous", "", 4.2),
    *((f"nut/train/good/{i:03d}.png", "", "", 0.0) for i in (0, 1, 2, 4, 6, 7))],
    columns=["path", "reason", "of", "distance"])


def test_the_list_can_be_given_as_exclude(course_root, tmp_path):
    category = layout.open_category(course_root, "nut")
    written = suspects.page(category, FOUND, tmp_path / "out")
    config = Config(exclude=written, data_root=str(course_root), category="nut")
    assert config.excluded == ["nut/train/good/003.png", "nut/train/good/005.png"]
    part = open_part(config)
    assert part.good.keys == [f"nut/train/good/{i:03d}.png" for i in (0, 1, 2, 4, 6, 7)]
    assert "2 good images are left out" in components.banner(part)
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert "the most suspect first (2 shown)" in page
    assert 'href="suspects.txt"' in page  # written before it
    assert page.count("<img") == 2 and "nearly a copy of 001.png" in page
    assert "(4.2 deviations)" in page and "可疑图像" in page


def test_a_suspect_picture_is_shown_in_its_own_shape(course_root):
    """As a camera's EXIF tag turns it: 3000 pixels by 400 squeezed to a square show nothing."""
    long = course_root / "nut" / "train" / "good" / "003.png"
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", (400, 3000)).save(long, exif=exif)
    shown = suspects.gallery(FOUND, layout.open_category(course_root, "nut"))
    first = bs4.BeautifulSoup(shown, "html.parser").select_one("img")
    assert (first["width"], first["height"]) == ("288", "38")


def test_a_category_may_begin_with_what_begins_a_comment(course_root, tmp_path):
    (course_root / "nut").rename(course_root / "#1")
    found = FOUND.assign(path=FOUND["path"].str.replace("nut", "#1"))
    written = suspects.write_list(found, tmp_path)
    category = layout.open_category(course_root, "#1", Config(exclude=written).excluded)
    assert [path.name for path in category.excluded] == ["003.png", "005.png"]


def test_the_page_leads_back_to_the_report_and_says_how_to_make_it_again(course_root, tmp_path):
    category, where = layout.open_category(course_root, "nut"), tmp_path / "suspects" / "nut"
    suspects.page(category, FOUND[2:], where)
    page = bs4.BeautifulSoup((where / "index.html").read_text(encoding="utf-8"), "html.parser")
    assert page.select_one("header .home")["href"] == "../../index.html"
    assert page.select_one("pre.command").text == (
        f"adlib check --data {course_root.name} --reports {tmp_path.name}")
    assert "None of 6" in page.text and str(tmp_path) not in str(page)


def test_it_is_said_how_many_there_are_of_each_kind():
    assert suspects.said(FOUND).startswith(
        "2 of 8 good training images may not be good: 1 nearly a copy of another one, "
        "1 unlike the others in one place.")
    assert "None of 6" in suspects.said(FOUND[2:])
    assert "Fewer than 10" in suspects.said(FOUND[:0])


def test_an_empty_list_excludes_nothing(tmp_path):
    written = suspects.write_list(FOUND[2:], tmp_path)
    assert Config(exclude=str(written)).exclude == ""


def test_a_name_that_is_not_there_is_an_error(course_root):
    with pytest.raises(InputError, match=r"exclude names 1 images .* \(nosuch.png\)"):
        open_part(Config(exclude="['nosuch.png', '003.png']", data_root=str(course_root),
                         category="nut"))


def test_in_jupyterlab_the_list_is_named_by_the_path_that_exclude_takes(
        course_root, tmp_path, monkeypatch):
    part = open_part(Config(data_root=str(course_root), category="nut", reports=str(tmp_path)))
    assert "; `suspects.txt` lists them" in suspects.said(FOUND, part)
    monkeypatch.setattr(suspects.freshness, "attended", lambda: True)
    written = suspects.write_list(FOUND, tmp_path / "eda" / "nut")
    assert f"; `{written}` lists them" in suspects.said(FOUND, part)
