import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from adlib import data, images
from adlib.config import InputError, cache_dir


def save(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return path


GREY = np.linspace(0, 255, 64 * 64).reshape(64, 64).astype(np.uint8)
RGB = np.stack([GREY, GREY.T, 255 - GREY], -1)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "TIFF", "jpg", "JPEG"])
def test_formats(tmp_path, suffix):
    path = save(tmp_path / f"a.{suffix}", RGB, **({"quality": 98, "subsampling": 0} if suffix.lower().startswith("j") else {}))
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
    with pytest.raises(InputError, match="1 of 1 images cannot be read: .*a.tif .its grey values are not 8-bit or 16-bit"):
        images.load([path], 32)


def test_resizing_is_antialiased(tmp_path):
    stripes = np.tile(np.array([[0, 255]], np.uint8), (128, 64))
    inside = images.decode(save(tmp_path / "a.png", stripes), 32)[:, :, 1:-1]  # the border sees half a stripe more
    assert np.abs(inside.astype(int) - 127).max() < 8


def test_load_decodes_once(seed_root, monkeypatch):
    paths = data.open_category(seed_root, "nut").train
    first = images.load(paths, 64)
    assert first.shape == (8, 3, 64, 64) and first.dtype == torch.uint8
    monkeypatch.setattr(images, "decode", lambda *args: pytest.fail("decoded again"))
    assert torch.equal(images.load(paths, 64), first)
    with pytest.raises(pytest.fail.Exception):
        images.load(paths, 32)  # another size is another cache entry


def test_a_changed_file_is_noticed(seed_root):
    paths = data.open_category(seed_root, "nut").train
    first = images.load(paths, 32).clone()
    paths[0].write_bytes(paths[1].read_bytes())
    again = images.load(paths, 32)
    assert torch.equal(again[0], again[1]) and not torch.equal(first, again)


@pytest.mark.parametrize("damage", [b"", b"PK rubbish", b"\x93NUMPY rubbish", None])
def test_a_damaged_cache_is_rebuilt(seed_root, damage):
    paths = data.open_category(seed_root, "nut").train
    first = images.load(paths, 32).clone()
    cached, = (cache_dir() / "images").iterdir()
    cached.write_bytes(cached.read_bytes()[:-100] if damage is None else damage)
    assert torch.equal(images.load(paths, 32), first)


def test_all_unreadable_files_are_named(seed_root):
    paths = data.open_category(seed_root, "nut").train
    paths[0].write_bytes(b"")
    paths[3].write_bytes(paths[3].read_bytes()[:200])
    paths[5].write_text("no picture")
    with pytest.raises(InputError) as error:
        images.load(paths, 32)
    assert "3 of 8 images cannot be read" in str(error.value) and all(paths[i].name in str(error.value) for i in (0, 3, 5))
    assert not list((cache_dir() / "images").iterdir())  # nothing half-decoded stays


def test_two_processes_at_once(seed_root):
    code = f"""if True:
        import sys; from pathlib import Path; from adlib import images
        print(int(images.load(sorted(Path({str(seed_root / "nut" / "train" / "good")!r}).iterdir()), 64).long().sum()))"""
    both = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    sums = {process.communicate()[0] for process in both}
    expected = images.load(sorted((seed_root / "nut" / "train" / "good").iterdir()), 64).long().sum().item()
    assert sums == {f"{expected}\n"} and all(process.returncode == 0 for process in both)


def test_float_brightness_and_masks(mvtec_root):
    pictures = torch.tensor([0, 51, 255], dtype=torch.uint8).view(3, 1, 1, 1).expand(3, 3, 4, 4)
    assert images.to_float(pictures)[:, 0, 0, 0].tolist() == pytest.approx([0, 0.2, 1])
    assert images.brightness(pictures) == pytest.approx([0, 0.2, 1])
    category = data.open_category(mvtec_root, "nut")
    masks = images.load_masks([data.mask_path(category, path) for path in category.test], 64)
    assert masks.dtype == torch.bool and masks.sum(dim=(1, 2)).tolist() == [0, 0, 0, 256, 256, 256]
    assert images.load([], 32).shape == (0, 3, 32, 32)
