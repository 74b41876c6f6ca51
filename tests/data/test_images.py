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
from adlib.data import images, layout, reading
from adlib.data.frame import Frame


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


def test_load_decodes_once(course_root, monkeypatch):
    paths = layout.open_category(course_root, "nut").train
    first = images.load(paths, 64)
    assert first.shape == (8, 3, 64, 64) and first.dtype == torch.uint8
    monkeypatch.setattr(reading, "laid", lambda *args: pytest.fail("decoded again"))
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
    path, sound, read = category.train[3], category.train[3].read_bytes(), reading.laid

    def meanwhile(one, *how):  # somebody writes another picture there, and puts the right one back
        if one != path:
            return read(one, *how)
        path.write_bytes(category.train[4].read_bytes())
        found = read(one, *how)
        path.write_bytes(sound)
        return found

    tiled = Frame("tile", 32)
    pictures = images.Pictures(category.train, tiled, None)
    monkeypatch.setattr(reading, "laid", meanwhile)
    with pytest.raises(InputError, match="003.png changed while being read"):
        images.load(category.train, 32, None, tiled)
    pictures[3]
    monkeypatch.setattr(reading, "laid", read)
    assert np.array_equal(images.load(category.train, 32)[3].numpy(), reading.read(path, 32))
    assert np.array_equal(pictures[3].numpy(), reading.read(path, tiled))


def test_the_sets_that_were_not_used_for_longest_are_forgotten(course_root, monkeypatch):
    paths, kept = layout.open_category(course_root, "nut").train, cache_dir() / "images"
    for size in (32, 64):
        images.load(paths, size)
    assert len(list(kept.iterdir())) == 2
    monkeypatch.setattr(images, "KEPT_SETS", 1)
    images.load(paths, 96)
    assert [np.load(path).shape[-1] for path in kept.iterdir()] == [96]


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


RAMP = np.linspace(0, 1, 64 * 64).reshape(64, 64)


def deep(folder, *highest, dtype=np.uint16):
    """Ramps of 64 x 64 from 0 to each of `highest`, as 16-bit PNG or as TIFF."""
    suffix = "png" if dtype == np.uint16 else "tif"
    return [save(folder / f"{i}.{suffix}", (RAMP * high).astype(dtype))
            for i, high in enumerate(highest)]


@pytest.mark.parametrize(("dtype", "highest"), [
    *((np.uint16, 2**bits - 1) for bits in range(8, 17)), (np.int32, 254), (np.int32, 2**20),
    (np.float32, 1.0), (np.float32, 3000.5)])
def test_a_category_of_any_depth_keeps_its_levels(tmp_path, dtype, highest):
    paths = deep(tmp_path, highest, highest / 2, dtype=dtype)
    found = images.grey_range(paths)
    assert found == pytest.approx((0, highest))
    pictures = images.load(paths, 64, found)
    assert [len(torch.unique(picture)) >= least for picture, least in zip(
        pictures, (250, 120), strict=True)] == [True, True]
    # one range for all: a picture half as bright stays half as bright
    assert pictures[1].float().mean() / pictures[0].float().mean() == pytest.approx(0.5, abs=0.01)


def test_the_range_is_that_of_the_good_images_or_as_given(tmp_path):
    good = deep(tmp_path / "good", 1000, 4095)
    assert images.grey_range(good) == (0, 4095) == images.grey_range(good)  # found, and remembered
    assert images.grey_range(good, "100,65535") == (100, 65535)
    eight = save(tmp_path / "eight.png", (RAMP * 255).astype(np.uint8))
    assert images.grey_range([eight]) is None
    assert images.grey_range([eight, *good]) == (0, 4095)
    (tmp_path / "broken.png").write_bytes(good[0].read_bytes()[:60])
    assert images.grey_range([tmp_path / "broken.png", *good]) == (0, 4095)  # `load` names it
    known, = (cache_dir() / "ranges").glob(f"{images._key(good)}.json")
    for damage in ("", "3", "[1]", '["a", "b"]'):
        known.write_text(damage)
        assert images.grey_range(good) == (0, 4095)


def test_a_constant_image_of_16_bits_has_a_range(tmp_path):
    paths = [save(tmp_path / "a.png", np.full((8, 8), 700, np.uint16))]
    assert images.grey_range(paths) == (700, 701) and not images.load(paths, 32, (700, 701)).any()


def test_hot_pixels_do_not_set_the_range(tmp_path):
    grey = np.full((200, 200), 1000, np.uint16)
    grey[0, :100] = 3000
    grey[50, 50] = 65535  # one of 40,000
    found = images.grey_range([save(tmp_path / "a.png", grey)])
    assert found == (1000, 3000)


def test_values_beyond_the_range_are_told(tmp_path, caplog):
    good, test = deep(tmp_path / "good", 1000, 1000), deep(tmp_path / "test", 1000, 2000, 900)
    assert images.load(test, 64, images.grey_range(good))[1].max() == 255
    assert ("1 of 3 images have values outside the range 0 to 1000, which are clipped (1.png); the "
            "parameter grey_range sets another range") in caplog.text
    caplog.clear()
    images.load(good, 64, images.grey_range(good))
    assert not caplog.text


def test_16_bits_are_not_guessed_at_where_one_learns_from_8(tmp_path):
    with pytest.raises(InputError, match=(
            "0.png .its values, from 0 to 4095, are of more than 8 bits, and those of the good "
            "training images are of 8; save them alike, or give the parameter grey_range")):
        images.load(deep(tmp_path, 4095), 32, None)


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


def test_float_and_brightness():
    pictures = torch.tensor([0, 51, 255], dtype=torch.uint8).view(3, 1, 1, 1).expand(3, 3, 4, 4)
    assert images.to_float(pictures)[:, 0, 0, 0].tolist() == pytest.approx([0, 0.2, 1])
    assert images.brightness(pictures) == pytest.approx([0, 0.2, 1])
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
