"""A check of a folder says what would be read wrongly, or not at all."""
import shutil

import numpy as np
import pytest
from PIL import Image

from adlib import cli
from adlib.data import layout, quality
from adlib.report.words import data_sentences
from tests.conftest import picture
from tests.handmade import small_run

RAMP = np.linspace(0, 1, 32 * 32).reshape(32, 32)


def deep(path, highest):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((RAMP * highest).astype(np.uint16)).save(path)


@pytest.fixture
def twelve_bits(tmp_path):
    """A category of 12-bit images: highest values 4000 to 4095, one test image of 8 bits, one
    beyond."""
    for i in range(4):
        deep(tmp_path / "nut" / "train" / "good" / f"{i}.png", 4095 - i)
        deep(tmp_path / "nut" / "test" / "good" / f"{i}.png", 4000 + i)
    deep(tmp_path / "nut" / "test" / "hot" / "0.png", 9000)
    picture(tmp_path / "nut" / "test" / "hot" / "1.png", 1)
    return tmp_path


def test_more_than_8_bits_are_told(twelve_bits):
    findings = quality.check(layout.open_category(twelve_bits, "nut"))
    assert findings.grey_range == (0, 4095) and findings.modes == {"I;16": 9, "RGB": 1}
    assert findings.problems() == [("outside", ("nut/test/hot/0.png", )),
                                   ("eight_bits", ("nut/test/hot/1.png", ))]
    rows = dict(data_sentences.findings_rows(findings))
    assert rows["values that become 0 to 255"] == "0 to 4095"
    assert data_sentences.findings_problems(findings) == [
        "clipped, for values outside the range (1): nut/test/hot/0.png",
        "of 8 bits, where those to learn from have more (1): nut/test/hot/1.png"]


def test_a_range_that_leaves_most_pictures_few_levels_is_told(tmp_path):
    """One image of another camera's bits, among those of 12."""
    for i in range(4):
        deep(tmp_path / "nut" / "train" / "good" / f"{i}.png", 4095 - i)
        deep(tmp_path / "nut" / "test" / "good" / f"{i}.png", 4000 + i)
        deep(tmp_path / "nut" / "test" / "hot" / f"{i}.png", 3900 + i)
    assert quality.check(layout.open_category(tmp_path, "nut")).problems() == []
    deep(tmp_path / "nut" / "train" / "good" / "9.png", 65535)
    findings = quality.check(layout.open_category(tmp_path, "nut"))
    assert findings.problems() == [("coarse", tuple(f"nut/train/good/{i}.png" for i in range(4)))]
    assert data_sentences.findings_problems(findings)[0].startswith("few grey levels are left")


def test_more_bits_than_one_learns_from_would_stop_a_run(course_root, capsys):
    assert quality.check(layout.open_category(course_root, "nut")).grey_range is None
    deep(course_root / "nut" / "test" / "001.png", 4095)
    findings = quality.check(layout.open_category(course_root, "nut"))
    why, = findings.unreadable
    assert why.startswith("nut/test/001.png (its values, from 0 to 4095, are of more than 8 bits")
    assert cli.main(["check", "--data", str(course_root), "--reports",
                     str(course_root.parent / "reports")]) == 1
    assert "1 of these problems would stop a run" in capsys.readouterr().out


def test_files_that_look_like_pictures_are_named_and_a_systems_own_are_not(course_root):
    good = course_root / "nut" / "train" / "good"
    shutil.copy(good / "000.png", good / "IMG_0001")  # a picture without a picture's name
    (good / "IMG_2.CR2").write_bytes(b"II*\0" + bytes(64))
    for name in ("Thumbs.db", "desktop.ini", "notes.txt"):
        (good / name).write_bytes(b"\xd0\xcf\x11\xe0")
    for name in (".DS_Store", "._000.png"):
        (good / name).write_bytes(b"\0\5\x16\7")
    for folder in (good, course_root / "nut" / "test"):  # what a NAS puts beside each picture
        picture(folder / "@eaDir" / "000.png" / "SYNOPHOTO_THUMB_M.jpg", 1)
    category = layout.open_category(course_root, "nut")
    assert category.layout == "course" and len(category.train) == 9 and len(category.test) == 6
    findings = quality.check(category)
    assert findings.ignored == 3 and findings.problems() == [
        ("unreadable", ("nut/train/good/IMG_2.CR2 (.CR2 files are not read; save it as PNG, TIFF "
                        "or JPEG)", )), ("unnamed", ("nut/train/good/IMG_0001", ))]


def test_neither_a_look_nor_a_run_changes_the_data(course_root, tmp_path):
    """A data folder may lie on a file system that cannot be written."""
    def state():
        return {path: path.stat().st_mtime_ns for path in course_root.rglob("*")}

    before = state()
    category = layout.open_category(course_root, "nut")
    quality.check(category)
    small_run(course_root, tmp_path / "reports", model="mean_grey", name="mean_grey")
    assert state() == before
