"""A mask's pixels are where they belong, none is lost or added in silence, and what was assumed is
told. Every expected value is counted by hand or by plain loops."""
import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageOps, features
from scipy import ndimage

from adlib.config import InputError
from adlib.data import masks, reading

DISC = np.hypot(*(np.mgrid[:40, :40] - 17.3)) < 10.4  # 341 pixels


@pytest.fixture
def place(tmp_path):
    Image.new("RGB", (40, 40)).save(tmp_path / "picture.png")
    return tmp_path


def read(place, mask, name="mask.png", **options):
    image = mask if isinstance(mask, Image.Image) else Image.fromarray(mask)
    image.save(place / name, **options)
    return masks.read(place / name, place / "picture.png")


def drawn(level=255, dtype=np.uint8):
    return (DISC * level).astype(dtype)


# ---- which pixels


@pytest.mark.parametrize(("mask", "name"), [
    (drawn(), "a.png"), (drawn(1), "a.png"), (DISC, "a.png"), (drawn(), "a.bmp"),
    (drawn(), "a.tif"), (drawn(1, np.uint16), "a.png"), (drawn(65535, np.uint16), "a.tif"),
    (drawn(1, np.int32), "a.tif"), (drawn(1, np.float32), "a.tif"),
    (drawn(0.3, np.float32), "a.tif"), (np.dstack([drawn(0), drawn(0), drawn(1)]), "a.png"),
    (np.dstack([drawn(0), drawn(128), drawn(0)]), "a.png")])
def test_two_values_are_two_values_whatever_they_are(place, mask, name):
    pixels, notes = read(place, mask, name)
    assert (pixels == DISC).all() and notes == {}


def test_palettes_of_labelling_tools(place):
    """PASCAL VOC's colours, as labelme and CVAT write them: 1 is dark red."""
    mask = Image.fromarray(drawn(1), "P")
    mask.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    pixels, notes = read(place, mask)
    assert (pixels == DISC).all() and notes == {}


@pytest.mark.parametrize("colour", [0, 255])
def test_what_is_transparent_is_no_defect(place, colour):
    """White on nothing, as drawing programs save it, and the nothing may be white, too."""
    paint = np.where(DISC, 255, colour).astype(np.uint8)
    pixels, notes = read(place, np.dstack([paint] * 3 + [drawn()]))
    assert (pixels == DISC).all() and notes == {}
    pixels, notes = read(place, np.dstack([paint, drawn()]))
    assert (pixels == DISC).all() and notes == {}


@pytest.mark.parametrize("level", [255, 200, 60])
@pytest.mark.parametrize(("name", "options"), [
    ("a.jpg", {"quality": 60}), ("a.jpg", {"quality": 95}), ("a.webp", {"quality": 70}),
    ("a.tif", {"compression": "jpeg"})])
def test_the_ringing_of_a_lossy_format_is_no_defect(place, name, options, level):
    if name.endswith("webp") and not features.check("webp"):
        pytest.skip("this Pillow does not write WebP")
    pixels, notes = read(place, drawn(level), name, **options)
    assert (np.asarray(Image.open(place / name).convert("L")) > 0).sum() > DISC.sum() + 20  # it does ring
    assert (pixels ^ DISC).sum() <= 8
    assert notes == {"levels": 1}


@pytest.mark.parametrize("values", [(1, 2), (128, 255), (236, 255)])
def test_more_levels_are_told_and_all_count(place, values):
    """Classes, or MVTec LOCO's 236 to 255 (anomalib 2803)."""
    mask = drawn(values[0])
    mask[8:12] = np.where(DISC[8:12], values[1], 0)
    pixels, notes = read(place, mask)
    assert (pixels == DISC).all() and notes == {"levels": 1}


def test_masks_that_mark_nothing_or_almost_all_are_told(place):
    assert read(place, drawn(0))[1] == {"empty": 1}
    pixels, notes = read(place, 255 - drawn())
    assert notes == {"most": 1} and (pixels == ~DISC).all()  # nothing is turned over


def test_a_mask_of_several_pages_is_refused(place):
    Image.fromarray(drawn()).save(place / "a.tif", save_all=True,
                                  append_images=[Image.fromarray(drawn())])
    with pytest.raises(ValueError, match="it holds .* save each as"):
        masks.read(place / "a.tif", place / "picture.png")


@pytest.mark.parametrize("name", ["m.png", "m.jpg", "m.bmp", "m.tif"])
@pytest.mark.parametrize("kept", [0.6, 0.9])
def test_a_truncated_mask_is_refused_in_the_words_of_a_truncated_picture(place, name, kept):
    path = place / name
    Image.fromarray(np.random.default_rng(0).integers(0, 2, (40, 40), np.uint8) * 255).save(path)
    path.write_bytes(path.read_bytes()[:int(kept * path.stat().st_size)])
    with pytest.raises(ValueError, match="^it (is damaged|cannot be decoded).* save it ") as told:
        masks.region(path)
    with pytest.raises(ValueError) as of_picture:
        reading.read(path, 64)
    assert str(told.value) == str(of_picture.value)
    with pytest.raises(InputError, match="^1 masks cannot be used: .*; mend or remove them"):
        masks.load([place / "picture.png"], [path], 32)


def test_the_limit_of_size_holds_for_masks(place, monkeypatch):
    Image.fromarray(drawn()).save(place / "a.png")
    monkeypatch.setenv("ADLIB_MEGAPIXELS", "0.001")
    with pytest.raises(ValueError, match="up to 0.001 are read"):
        masks.read(place / "a.png", place / "picture.png")


# ---- the shape


def photograph(path, orientation, size=(60, 40), corner=(0, 0)):
    """As a camera writes it: white in one corner of the sensor, and how to turn it."""
    sensor = np.zeros((size[1], size[0], 3), np.uint8)
    sensor[corner[0]:corner[0] + 20, corner[1]:corner[1] + 20] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(sensor).save(path, exif=exif, quality=95)
    return sensor[..., 0]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif"])
def test_a_mask_in_the_sensors_orientation_is_turned_as_the_image_is(tmp_path, orientation, name):
    sensor = photograph(tmp_path / name, orientation)
    Image.fromarray(sensor).save(tmp_path / "mask.png")
    pixels, notes = masks.read(tmp_path / "mask.png", tmp_path / name)
    with Image.open(tmp_path / name) as image:
        shown = np.asarray(ImageOps.exif_transpose(image))[..., 0] > 127
    if orientation >= 5:  # the sides are swapped, so there is no doubt
        assert (pixels == shown).all() and notes == {"turned": 1}
    else:
        assert (pixels == (sensor > 0)).all() and notes == ({"exif": 1} if orientation > 1 else {})
    Image.fromarray(shown).save(tmp_path / "mask.png")
    pixels, notes = masks.read(tmp_path / "mask.png", tmp_path / name)
    assert (pixels == shown).all() and notes == (
        {"exif": 1} if 1 < orientation < 5 else {})


def test_where_a_square_fits_either_way_it_is_told(tmp_path):
    photograph(tmp_path / "a.jpg", 6, (40, 40))
    Image.fromarray(DISC).save(tmp_path / "mask.png")
    pixels, notes = masks.read(tmp_path / "mask.png", tmp_path / "a.jpg")
    assert (pixels == DISC).all() and notes == {"exif": 1}


def test_a_masks_own_tag_turns_it(tmp_path):
    photograph(tmp_path / "a.jpg", 6)
    photograph(tmp_path / "mask.jpg", 6)
    pixels, notes = masks.read(tmp_path / "mask.jpg", tmp_path / "a.jpg")
    assert pixels.shape == (60, 40) and pixels[:20, 20:].all() and pixels.sum() == pytest.approx(
        400, abs=40) and notes == {"levels": 1}


@pytest.mark.parametrize(("size", "fits"), [
    ((60, 40), True), ((30, 20), True), ((120, 80), True), ((20, 13), True), ((20, 14), True),
    ((40, 60), False), ((40, 40), False), ((60, 42), False), ((62, 40), False)])
def test_a_mask_of_another_shape_is_refused(tmp_path, size, fits):
    Image.new("RGB", (60, 40)).save(tmp_path / "a.png")
    Image.new("L", size).save(tmp_path / "mask.png")
    if fits:
        masks.read(tmp_path / "mask.png", tmp_path / "a.png")
        return
    with pytest.raises(ValueError, match=f"its {size[0]}x{size[1]} pixels do not have the shape of "
                       "the image's 60x40"):
        masks.read(tmp_path / "mask.png", tmp_path / "a.png")


def test_all_masks_that_cannot_be_used_are_named(place):
    for name, size in (("good.png", 40), ("odd.png", 42)):
        Image.new("L", (size, 40)).save(place / name)
    (place / "broken.png").write_text("no picture")
    names = [place / "good.png", None, place / "odd.png", place / "broken.png"]
    with pytest.raises(InputError) as error:
        masks.load([place / "picture.png"] * 4, names, 32)
    assert "2 masks cannot be used" in str(error.value) and "odd.png (its 42x40" in str(error.value)
    assert "broken.png (" in str(error.value) and "good.png" not in str(error.value)


# ---- on the grid of the maps


def shares(pixels, size):
    """The share of each cell, pixel by pixel and cell by cell, in exact numbers."""
    height, width = pixels.shape

    def overlap(pixel, n, cell):  # in units of 1 / (n * size) of a side
        return max(0, min((pixel + 1) * size, (cell + 1) * n) - max(pixel * size, cell * n))

    found = np.zeros((size, size), int)
    for y, x in zip(*np.nonzero(pixels), strict=True):
        for row, column in itertools.product(range(size), repeat=2):
            found[row, column] += overlap(y, height, row) * overlap(x, width, column)
    return found  # of height * width


@settings(max_examples=60)
@given(hnp.arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))), st.integers(1, 7))
def test_at_least_half_of_a_cell_decides_and_no_defect_is_lost(pixels, size):
    grid, kept = masks.on_grid(pixels, (size, size))
    expected = 2 * shares(pixels, size) >= pixels.size
    labels, count = ndimage.label(pixels, np.ones((3, 3)))
    held, lost = expected.copy(), 0
    for number in range(1, count + 1):
        share = shares(labels == number, size)
        if not expected[share > 0].any():
            held.flat[share.argmax()], lost = True, lost + 1
    assert (grid == held).all() and kept == lost


def test_a_mask_of_noise_is_read_as_fast_as_any():
    """Each of its 29,000 specks was once looked at by itself: 20 s. Two may keep one cell."""
    pixels = np.zeros((1024, 1024), bool)
    pixels[::6, ::6] = True
    grid, kept = masks.on_grid(pixels, (256, 256))
    assert kept == pixels.sum() == 171 ** 2 and grid.sum() == 171 ** 2
    assert masks.on_grid(np.kron(pixels[:512, :512], np.eye(2, dtype=bool)), (64, 64))[1] > 7000


def test_small_defects_keep_the_cell_that_holds_most_of_them():
    """3 x 3 pixels in 1024: the nearest neighbour at 256 loses nearly half of such defects, and
    share alone those that no cell holds by half."""
    rng, lost = np.random.default_rng(0), 0
    for _ in range(30):
        pixels = np.zeros((1024, 1024), bool)
        y, x = rng.integers(0, 1021, 2)
        pixels[y:y + 3, x:x + 3] = True
        grid, kept = masks.on_grid(pixels, (256, 256))
        cells = Counter((i // 4, j // 4) for i in range(y, y + 3) for j in range(x, x + 3))
        assert [tuple(cell) for cell in np.argwhere(grid)] == [
            cell for cell, most in cells.items() if most == max(cells.values())][:1]
        assert kept == (max(cells.values()) < 8)
        lost += kept
    assert 0 < lost < 30


def test_neighbours_are_kept_apart_and_counted_each():
    pixels = np.zeros((64, 64), bool)
    pixels[::16, ::16] = True  # 16 single pixels
    grid, kept = masks.on_grid(pixels, (16, 16))
    assert kept == 16 and grid.sum() == 16 and grid[::4, ::4].all()
    pixels[0:4, 0:4] = True  # the first is a whole cell now
    assert masks.on_grid(pixels, (16, 16))[1] == 15


def test_the_same_size_changes_nothing_and_a_larger_one_repeats():
    rng = np.random.default_rng(0)
    pixels = rng.random((24, 24)) > 0.6
    for size in (24, 48):
        grid, kept = masks.on_grid(pixels, (size, size))
        assert kept == 0 and (grid == np.kron(pixels, np.ones((size // 24,) * 2, bool))).all()


def test_loading_tells_of_each_mask(place):
    tiny = np.zeros((40, 40), np.uint8)
    tiny[3, 3], tiny[30, 30] = 255, 120
    Image.fromarray(tiny).save(place / "tiny.png")
    Image.fromarray(drawn(0)).save(place / "none.png")
    grids, notes = masks.load([place / "picture.png"] * 3,
                              [place / "tiny.png", None, place / "none.png"], 10)
    assert grids.shape == (3, 10, 10) and grids.sum((1, 2)).tolist() == [2, 0, 0]
    assert notes == [{"levels": 1, "kept": 2}, {}, {"empty": 1}]
    assert masks.load([], [], 10)[0].shape == (0, 10, 10)


def test_real_masks_keep_their_area(shared):
    """Resized by share, a mask's area stays within the cells along its outline."""
    paths = sorted((shared / "data" / "real").glob("*/ground_truth/*/*.png"))[::15]
    for path in paths:
        category, defect = path.parents[2], path.parent.name
        picture, = (category / "test" / defect).glob(f"{path.stem.removesuffix('_mask')}.*")
        pixels, _ = masks.read(Path(path), picture)
        grid, _ = masks.on_grid(pixels, (256, 256))
        border = pixels.mean() > 0 and (pixels ^ ndimage.binary_erosion(pixels)).mean()
        assert abs(grid.mean() - pixels.mean()) <= border + 1 / 256**2, path.name
