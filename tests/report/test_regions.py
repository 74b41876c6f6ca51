"""A region drawn by hand: corners come by clicks, the mask is on disk, and the next run has it."""
import bs4
import numpy as np
import pytest
from PIL import Image

from adlib.config import Config, InputError
from adlib.data import masks
from adlib.data.part import open_part
from adlib.report import explore, regions


@pytest.fixture
def part(mvtec_root):
    """Of a picture that is twice as wide as high."""
    path = mvtec_root / "nut" / "train" / "good" / "000.png"
    Image.open(path).resize((200, 100)).save(path)
    return open_part(Config(data_root=str(mvtec_root), image_size=32, held_out=0))


def control(box, name):
    found = [one for one in widgets(box) if getattr(one, "description", None) == name]
    return found[0]


def widgets(box):
    yield box
    for child in getattr(box, "children", ()):
        yield from widgets(child)


def click(box, *corners):
    for corner in corners:
        control(box, "corner").value = corner  # as lab.js does


def said(box):
    page = bs4.BeautifulSoup(explore.static_html(box), "html.parser")
    for other in page.select("[lang=zh-CN]"):
        other.decompose()
    return page


def test_two_clicks_are_a_rectangle_and_the_next_run_looks_there(part):
    box = regions.draw(part)
    assert "adlib-place" in box._dom_classes and said(box).select(".stack")
    assert [one for one in widgets(box) if type(one).__name__ == "Text"][0].description == "corner"
    before = explore.static_html(box)
    click(box, "0.100 0.200", "0.600 0.700")
    assert control(box, "corners").value == "0.100 0.200, 0.600 0.700" != control(
        box, "corner").value
    assert explore.static_html(box) != before
    control(box, "save").click()
    path = part.category.root / "nut" / "roi" / "drawn.png"
    mask = masks.region(path)
    expected = np.zeros((100, 200), bool)
    expected[20:71, 20:121] = True
    assert (mask == expected).all() and "Kept as nut/roi/drawn.png" in said(box).text
    again = open_part(part.config)
    assert (again.looked_at == expected).all() and again.category.roi == (path, )
    assert "26% is looked at now" in said(box).text and control(box, "corners").value == ""


def test_more_are_a_polygon_and_what_is_ignored_is_its_own_folder(part):
    box = regions.draw(part)
    control(box, "mask").value, control(box, "name").value = "ignore", "number-1"
    click(box, "0 0", "1 0")
    control(box, "clear").click()
    click(box, "0.0 0.0", "1.0 0.0", "0.0 1.0")
    control(box, "save").click()
    left = open_part(part.config).looked_at
    assert left.mean() == pytest.approx(0.5, abs=0.02) and left[-1, -1] and not left[0, 0]


@pytest.mark.parametrize(("corners", "name", "why"), [
    ("", "a", "'' enclose nothing"), ("0.1 0.1", "a", "enclose nothing"),
    ("0.1 0.1, 0.5 0.5, 0.9 0.9", "a", "enclose nothing"),
    ("0.1 0.1, 0.1 0.9", "a", "enclose nothing"),
    ("0.1 0.1, 1.1 0.9", "a", "are not pairs of numbers"),
    ("0.1 0.1, nan 0.9", "a", "are not pairs of numbers"),
    ("0.1, 0.9", "a", "are not pairs of numbers"), ("here", "a", "are not pairs of numbers"),
    ("0 0, 1 1", "../a", "is no file's name"), ("0 0, 1 1", "", "is no file's name"),
    ("0 0, 1 1", "a.png", "is no file's name"), ("0 0, 1 1", "taken", "is there already")])
def test_what_cannot_be_saved_is_said_and_nothing_is_written(part, corners, name, why):
    taken = part.category.root / "nut" / "roi" / "taken.png"
    taken.parent.mkdir()
    Image.new("1", (4, 4), 1).save(taken)
    before = taken.read_bytes()
    box = regions.draw(part)
    control(box, "corners").value, control(box, "name").value = corners, name
    control(box, "save").click()
    assert why in said(box).text
    assert list(taken.parent.iterdir()) == [taken] and taken.read_bytes() == before
    with pytest.raises(InputError):
        regions.keep_mask(part, "roi", name, corners, (100, 200))


def test_what_was_said_of_corners_goes_when_they_change(part):
    box = regions.draw(part)
    click(box, "0.100 0.200")
    control(box, "save").click()
    assert "enclose nothing" in said(box).text
    click(box, "0.600 0.700")
    assert "enclose nothing" not in said(box).text
    control(box, "save").click()
    assert "Kept as nut/roi/drawn.png" in said(box).text
