import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from skimage.filters import threshold_otsu

from adlib.config import InputError, cache_dir
from adlib.data import images, layout


def save(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return path


GREY = np.linspace(0, 255, 64 * 64).reshape(64, 64).astype(np.uint8)
RGB = np.stack([GREY, GREY.T, 255 - GREY], -1)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "TIFF", "jpg", "JPEG"])
def test_formats(tmp_path, suffix):
    path = save(tmp_path / f"a.{suffix}", RGB,
                **({"quality": 98, "subsampling": 0} if suffix.lower().startswith("j") else {}))
    found = images.decode(path, 64)
    assert found.shape == (3, 64, 64) and found.dtype == np.uint8
    assert np.abs(found.transpose(1, 2, 0).astype(int) - RGB).mean() < 1.5


def test_modes_that_show_the_same_picture_decode_alike(tmp_path):
    grey = images.decode(save(tmp_path / "l.png", GREY), 64)
    assert (grey == GREY).all()
    deep = save(tmp_path / "i16.png", GREY.astype(np.uint16) * 257)
    assert (images.decode(deep, 64) == GREY).all()
    Image.fromarray(GREY).convert("P").save(tmp_path / "p.png")
    Image.fromarray(GREY).convert("CMYK").save(tmp_path / "cmyk.tif")
    Image.fromarray(np.dstack([RGB, np.full_like(GREY, 255)])).save(tmp_path / "rgba.png")
    assert np.abs(images.decode(tmp_path / "p.png", 64).astype(int) - GREY).max() <= 1
    assert np.abs(images.decode(tmp_path / "cmyk.tif", 64).astype(int) - GREY).max() <= 2
    assert (images.decode(tmp_path / "rgba.png", 64).transpose(1, 2, 0) == RGB).all()
    Image.fromarray(GREY > 127).save(tmp_path / "one.png")
    assert set(np.unique(images.decode(tmp_path / "one.png", 64))) == {0, 255}


def test_alpha_lies_over_black(tmp_path):
    path = save(tmp_path / "a.png", np.dstack([RGB, np.zeros_like(GREY)]))
    assert images.decode(path, 32).max() == 0


def test_exif_rotation(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    Image.fromarray(RGB).save(tmp_path / "a.png", exif=exif)
    assert (images.decode(tmp_path / "a.png", 64).transpose(1, 2, 0) == np.rot90(RGB, -1)).all()


def test_float_images_are_refused_in_words(tmp_path):
    path = save(tmp_path / "a.tif", GREY.astype(np.float32))
    with pytest.raises(
            InputError,
            match="1 of 1 images cannot be read: .*a.tif .its grey values are not 8-bit or 16-bit"):
        images.load([path], 32)


def test_resizing_is_antialiased(tmp_path):
    stripes = np.tile(np.array([[0, 255]], np.uint8), (128, 64))
    # the border sees half a stripe more
    inside = images.decode(save(tmp_path / "a.png", stripes), 32)[:, :, 1:-1]
    assert np.abs(inside.astype(int) - 127).max() < 8


@pytest.mark.parametrize(("height", "width"), [(300, 100), (100, 300), (300, 40), (40, 50)])
def test_resizing_is_across_and_then_down_whichever_pillow(tmp_path, height, width):
    """Pillow from version 13 on would take some tall pictures down first (python-pillow/Pillow,
    9549), and round other numbers. By its formula, in integers: units of 2^-22, a triangle."""
    def resampled(lines, size):
        scale = lines.shape[1] / size
        offsets = np.arange(lines.shape[1])[:, None] + 0.5 - (np.arange(size) + 0.5) * scale
        weights = np.maximum(1 - np.abs(offsets) / max(scale, 1), 0)
        units = (weights / weights.sum(axis=0) * 2**22 + 0.5).astype(np.int64)
        return (lines.astype(np.int64) @ units + 2**21) >> 22

    grey = np.random.default_rng(0).integers(0, 256, (height, width), dtype=np.uint8)
    Image.fromarray(grey).save(tmp_path / "a.png")
    expected = resampled(resampled(grey, 64).T, 64).T
    assert (images.decode(tmp_path / "a.png", 64) == expected).all()


def test_load_decodes_once(course_root, monkeypatch):
    paths = layout.open_category(course_root, "nut").train
    first = images.load(paths, 64)
    assert first.shape == (8, 3, 64, 64) and first.dtype == torch.uint8
    monkeypatch.setattr(images, "decode", lambda *args: pytest.fail("decoded again"))
    assert torch.equal(images.load(paths, 64), first)
    with pytest.raises(pytest.fail.Exception):
        images.load(paths, 32)  # another size is another cache entry


def test_a_changed_file_is_noticed(course_root):
    paths = layout.open_category(course_root, "nut").train
    first = images.load(paths, 32).clone()
    paths[0].write_bytes(paths[1].read_bytes())
    again = images.load(paths, 32)
    assert torch.equal(again[0], again[1]) and not torch.equal(first, again)


def test_a_file_that_changes_while_it_is_read_is_named_and_nothing_of_it_is_kept(
        course_root, monkeypatch):
    category = layout.open_category(course_root, "nut")
    path, sound, decode = category.train[3], category.train[3].read_bytes(), images.decode

    def meanwhile(one, size):  # somebody writes another picture there, and puts the right one back
        if one != path:
            return decode(one, size)
        path.write_bytes(category.train[4].read_bytes())
        found = decode(one, size)
        path.write_bytes(sound)
        return found

    monkeypatch.setattr(images, "decode", meanwhile)
    with pytest.raises(InputError, match="003.png changed while being read"):
        images.load(category.train, 32)
    monkeypatch.setattr(images, "decode", decode)
    assert np.array_equal(images.load(category.train, 32)[3].numpy(), decode(path, 32))


@pytest.mark.parametrize("damage", [b"", b"PK rubbish", b"\x93NUMPY rubbish", None])
def test_a_damaged_cache_is_rebuilt(course_root, damage):
    paths = layout.open_category(course_root, "nut").train
    first = images.load(paths, 32).clone()
    cached, = (cache_dir() / "images").iterdir()
    cached.write_bytes(cached.read_bytes()[:-100] if damage is None else damage)
    assert torch.equal(images.load(paths, 32), first)


def test_all_unreadable_files_are_named(course_root):
    paths = layout.open_category(course_root, "nut").train
    paths[0].write_bytes(b"")
    paths[3].write_bytes(paths[3].read_bytes()[:200])
    paths[5].write_text("no picture")
    with pytest.raises(InputError) as error:
        images.load(paths, 32)
    assert "3 of 8 images cannot be read" in str(error.value) and all(
        paths[i].name in str(error.value) for i in (0, 3, 5))
    assert not list((cache_dir() / "images").iterdir())  # nothing half-decoded stays


def test_two_processes_at_once(course_root):
    code = f"""if True:
        import sys; from pathlib import Path; from adlib.data import images
        print(int(images.load(sorted(Path({str(course_root / "nut" / "train" / "good")!r}).iterdir()), 64).long().sum()))"""
    both = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    sums = {process.communicate()[0] for process in both}
    expected = images.load(sorted((course_root / "nut" / "train" / "good").iterdir()),
                           64).long().sum().item()
    assert sums == {f"{expected}\n"} and all(process.returncode == 0 for process in both)


def test_float_brightness_and_masks(mvtec_root):
    pictures = torch.tensor([0, 51, 255], dtype=torch.uint8).view(3, 1, 1, 1).expand(3, 3, 4, 4)
    assert images.to_float(pictures)[:, 0, 0, 0].tolist() == pytest.approx([0, 0.2, 1])
    assert images.brightness(pictures) == pytest.approx([0, 0.2, 1])
    category = layout.open_category(mvtec_root, "nut")
    masks = images.load_masks([layout.mask_path(category, path) for path in category.test], 64)
    assert masks.dtype == torch.bool and masks.sum(dim=(1, 2)).tolist() == [0, 0, 0, 256, 256, 256]
    assert images.load([], 32).shape == (0, 3, 32, 32)


def between(grey, threshold):
    """Variance between the two classes that a threshold makes; `>` is the bright one."""
    dark, bright = grey[grey <= threshold], grey[grey > threshold]
    return len(dark) * len(bright) * (dark.mean() -
                                      bright.mean())**2 if len(dark) and len(bright) else 0.0


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(np.uint8, (5, 6), elements=st.one_of(st.integers(0, 255),
                                                    st.sampled_from([0, 7, 200, 255]))))
def test_otsu_is_the_best_threshold(grey):
    # scikit-image's convention is the same (`>` is the bright class), but for images of one grey
    # value: it gives that value.
    found = images.otsu(grey)
    assert between(grey, found) == pytest.approx(
        max(between(grey, threshold) for threshold in range(256)))
    if np.ptp(grey):
        assert between(grey, found) == pytest.approx(between(grey, threshold_otsu(grey)))
        assert grey.min() <= found < grey.max()


@pytest.mark.parametrize("seed", range(5))
def test_otsu_is_scikit_images(seed):
    rng = np.random.default_rng(seed)
    grey = np.clip(
        np.where(
            rng.random((40, 40)) < 0.3, rng.normal(180, 25, (40, 40)), rng.normal(
                70, 20, (40, 40))), 0, 255)
    assert images.otsu(grey.astype(np.uint8)) == threshold_otsu(grey.astype(np.uint8))


@pytest.mark.parametrize("level", [0, 7, 255])
def test_an_image_of_one_grey_value_has_an_appearance(level):
    flat = torch.full((1, 3, 8, 8), level, dtype=torch.uint8)
    # not scikit-image's: it gives the value itself
    assert images.otsu(np.full((8, 8), level, np.uint8)) == 0
    found = images.appearance(flat, flat)
    assert found["brightness"].tolist() == pytest.approx([level / 255])
    assert found["size"].tolist() == [float(level > 0)] and found["pose"].tolist() == [0]


def part(top, left, height=8, width=8, level=200):
    """A bright rectangle on a dark ground: uint8 [3,32,32]."""
    picture = torch.full((3, 32, 32), 30, dtype=torch.uint8)
    picture[:, top:top + height, left:left + width] = level
    return picture


def test_appearance():
    good = torch.stack([part(8, 8), part(8, 8)])
    pictures = torch.stack(
        [part(8, 8),
         part(8, 8, level=250),
         part(8, 8, width=16),
         part(20, 20),
         part(8, 10)])
    found = images.appearance(pictures, good)
    assert list(found) == ["brightness", "size", "pose"] and all(values.dtype == np.float64
                                                                 for values in found.values())
    assert found["brightness"].tolist() == pytest.approx([(30 + 170 / 16) / 255, (30 + 220 / 16) /
                                                          255, (30 + 170 / 8) / 255] +
                                                         [(30 + 170 / 16) / 255] * 2)
    # the light does not change it
    assert found["size"].tolist() == [1 / 16, 1 / 16, 1 / 8, 1 / 16, 1 / 16]
    # what is there and not usual, and the other way round
    assert found["pose"].tolist() == [0, 0, 1 / 16, 1 / 8, 2 * 16 / 1024]
    mixed = images.appearance(pictures[:1], torch.stack([part(8, 8), part(20, 20)]))
    # the usual is the mean of the good ones
    assert mixed["pose"].tolist() == [(64 * 0.5 + 64 * 0.5) / 1024]
    assert images.appearance(pictures[:0], good)["size"].shape == (0, )


def test_appearance_sees_the_mean_of_the_channels():
    coloured = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    coloured[0, 0, :4], coloured[0, 2, 4:] = 255, 255  # red above blue: one grey value
    assert images.appearance(coloured, coloured)["size"].tolist() == [1]
