"""Files as cameras, phones and editors write them: read rightly, or refused in one sentence."""
import io
import struct
import subprocess
import sys
import threading
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps, PngImagePlugin

from adlib.data import layout, reading


def save(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return path


def decode(path, size, grey_range=None):
    return reading.read(path, size, grey_range)


GREY = np.linspace(0, 255, 64 * 64).reshape(64, 64).astype(np.uint8)
RGB = np.stack([GREY, GREY.T, 255 - GREY], -1)
LOSSY = {"jpg": {"quality": 98, "subsampling": 0}, "webp": {"quality": 98}, "avif": {"quality": 98}}


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "TIFF", "jpg", "JPEG", "jfif", "jpe",
                                    "webp", "avif", "jp2", "ppm", "gif"])
def test_formats(tmp_path, suffix):
    lossy = LOSSY.get({"jpeg": "jpg", "jfif": "jpg", "jpe": "jpg"}.get(suffix.lower(), suffix), {})
    path = save(tmp_path / f"a.{suffix}", RGB, **lossy)
    found = decode(path, 64)
    assert found.shape == (3, 64, 64) and found.dtype == np.uint8
    # 256 colours of a GIF are fewer than RGB has
    assert np.abs(found.transpose(1, 2, 0).astype(int) - RGB).mean() < (12 if suffix == "gif" else 2)
    assert layout.below(tmp_path) == [path]
    assert reading.examine(path)[::2] == ((64, 64), None) and reading.extent(path) is None


def test_heic_is_read_where_its_package_is(tmp_path):
    heif = pytest.importorskip("pillow_heif", reason="needs the extra: pip install -e '.[heic]'")
    heif.register_heif_opener()
    path = save(tmp_path / "a.heic", RGB, quality=100)
    found = decode(path, 64).transpose(1, 2, 0)
    assert np.abs(found.astype(int) - RGB).mean() < 4


def test_heic_is_refused_by_name_where_its_package_is_not(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # which cannot be imported
    reading._formats.cache_clear()
    monkeypatch.delitem(Image.OPEN, "HEIF", raising=False)
    path = tmp_path / "IMG_0001.HEIC"
    path.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64))
    with pytest.raises(ValueError, match="HEIC is read where the package pillow-heif is: pip inst"):
        decode(path, 32)
    assert layout.below(tmp_path) == [path]
    reading._formats.cache_clear()


def test_modes_that_show_the_same_picture_decode_alike(tmp_path):
    grey = decode(save(tmp_path / "l.png", GREY), 64)
    assert (grey == GREY).all()
    deep = save(tmp_path / "i16.png", GREY.astype(np.uint16) * 257)
    assert (decode(deep, 64, (0, 65535)) == GREY).all()
    Image.fromarray(GREY).convert("P").save(tmp_path / "p.png")
    Image.fromarray(GREY).convert("CMYK").save(tmp_path / "cmyk.tif")
    Image.fromarray(GREY).convert("CMYK").save(tmp_path / "cmyk.jpg", quality=98)
    Image.fromarray(np.dstack([RGB, np.full_like(GREY, 255)])).save(tmp_path / "rgba.png")
    assert np.abs(decode(tmp_path / "p.png", 64).astype(int) - GREY).max() <= 1
    assert np.abs(decode(tmp_path / "cmyk.tif", 64).astype(int) - GREY).max() <= 2
    assert np.abs(decode(tmp_path / "cmyk.jpg", 64).astype(int) - GREY).mean() <= 2
    assert (decode(tmp_path / "rgba.png", 64).transpose(1, 2, 0) == RGB).all()
    Image.fromarray(GREY > 127).save(tmp_path / "one.png")
    assert set(np.unique(decode(tmp_path / "one.png", 64))) == {0, 255}


def test_a_bitmap_of_16_bits_a_pixel_has_no_more_than_8_a_colour(tmp_path):
    red, green, blue = (RGB.astype(int) >> (3, 2, 3)).transpose(2, 0, 1)
    pixels = (red << 11 | green << 5 | blue).astype("<u2")[::-1].tobytes()
    masks = struct.pack("<III", 0xF800, 0x07E0, 0x001F)
    path = tmp_path / "a.bmp"
    path.write_bytes(b"BM" + struct.pack("<IHHI", 66 + len(pixels), 0, 0, 66) + struct.pack(
        "<IiiHHIIiiII", 40, 64, 64, 1, 16, 3, len(pixels), 0, 0, 0, 0) + masks + pixels)
    assert reading.extent(path) is None
    assert np.abs(decode(path, 64).transpose(1, 2, 0).astype(int) - RGB).max() <= 8


def test_alpha_lies_over_black(tmp_path):
    path = save(tmp_path / "a.png", np.dstack([RGB, np.zeros_like(GREY)]))
    assert decode(path, 32).max() == 0
    half = Image.merge("LA", [Image.fromarray(GREY), Image.new("L", (64, 64), 128)])
    half.save(tmp_path / "la.png")
    assert np.abs(decode(tmp_path / "la.png", 64) - GREY / 255 * 128).max() <= 1
    Image.fromarray(GREY).convert("P").save(tmp_path / "p.png", transparency=bytes(256))
    assert decode(tmp_path / "p.png", 32).max() == 0


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp", "avif"])
def test_exif_rotation(tmp_path, suffix):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    path = save(tmp_path / f"a.{suffix}", RGB, exif=exif, **LOSSY.get(suffix, {}))
    off = decode(path, 64).transpose(1, 2, 0).astype(int) - np.rot90(RGB, -1)
    assert np.abs(off).mean() < (2 if suffix in LOSSY else 0.01)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_pillows(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "a.png", RGB, exif=exif)
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    assert (decode(path, 64).transpose(1, 2, 0) == expected).all()


@pytest.mark.parametrize("exif", [
    b"Exif\0\0", b"Exif\0\0Exif\0\0II*\0", b"Exif\0\0II*\0\xff\xff\xff\x7f",
    b"Exif\0\0II*\0\x08\0\0\0\x10\0\x12\x01\x03\0\x01\0\0\0\x06\0", bytes(range(256)),
    b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x09\0\0\0\0\0\0\0"],
    ids=["blank", "twice", "lost", "cut", "noise", "an orientation that there is not"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damaged_exif_hides_no_picture(tmp_path, exif):  # Pillow issues 8348 and 6123
    plain = save(tmp_path / "plain.jpg", RGB, quality=95)
    path = save(tmp_path / "a.jpg", RGB, quality=95, exif=exif)
    assert (decode(path, 64) == decode(plain, 64)).all()


def test_what_pillow_finds_odd_is_no_word_to_a_user(tmp_path):
    path = save(tmp_path / "a.jpg", RGB, exif=b"Exif\0\0II*\0\x08\0\0\0\x10\0\x12\x01\x03\0")
    look = "import pathlib, sys, adlib.data.reading as r; r.read(pathlib.Path(sys.argv[1]), 8)"
    done = subprocess.run([sys.executable, "-c", look, str(path)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_resizing_is_antialiased(tmp_path):
    stripes = np.tile(np.array([[0, 255]], np.uint8), (128, 64))
    # the border sees half a stripe more
    inside = decode(save(tmp_path / "a.png", stripes), 32)[:, :, 1:-1]
    assert np.abs(inside.astype(int) - 127).max() < 8


@pytest.mark.parametrize("shape", [(500, 1), (1, 500), (1, 1)])
def test_a_picture_of_one_row_or_column(tmp_path, shape):
    path = save(tmp_path / "a.png", np.full(shape, 90, np.uint8))
    assert (decode(path, 32) == 90).all()


# ---- more than 8 bits


def png_of(values, colour_type, height=0, clear=()):
    """A 16-bit PNG, of kinds that Pillow cannot write: colour_type 0 = grey, 2 = RGB, 4 = grey and
    alpha, 6 = RGBA. height: another than the values have. clear: the value that is transparent."""
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(
            ">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", values.shape[1], height or len(values), 16, colour_type, 0, 0,
                         0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    hidden = chunk(b"tRNS", struct.pack(f">{len(clear)}H", *clear)) if clear else b""
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + hidden + chunk(
        b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("suffix", [".CR2", ".dng", ".svg", ".psd"])
def test_pictures_that_are_never_read_are_named(tmp_path, suffix):
    save(tmp_path / "raw.tif", GREY)  # the raw formats of cameras are TIFF, with a small preview
    path = (tmp_path / "raw.tif").rename(tmp_path / f"raw{suffix}")
    assert layout.below(tmp_path) == [path]
    with pytest.raises(ValueError, match=f"{suffix} files are not read; save it as PNG"):
        decode(path, 32)


# ---- more than one picture, too much of one, too little of one


def test_a_file_of_several_pictures_is_refused(tmp_path):
    first, second = Image.fromarray(RGB), Image.fromarray(255 - RGB)
    for name in ("pages.tif", "anim.gif", "anim.webp", "anim.png", "anim.avif"):
        first.save(tmp_path / name, save_all=True, append_images=[second, first])
        with pytest.raises(ValueError, match="it holds 3 pictures; save each as a file of its own"):
            decode(tmp_path / name, 32)
    # ImageJ may write the pages of a stack behind the header of the first
    first.save(tmp_path / "stack.tif", tiffinfo={270: "ImageJ=1.53\nimages=40\n"})
    with pytest.raises(ValueError, match="it holds 40 pictures"):
        decode(tmp_path / "stack.tif", 32)


def test_previews_and_gain_maps_are_no_second_picture(tmp_path):
    first, preview = Image.fromarray(RGB), Image.fromarray(255 - RGB).resize((16, 16))
    first.save(tmp_path / "phone.jpg", format="MPO", quality=98, save_all=True,
               append_images=[preview])
    found = decode(tmp_path / "phone.jpg", 64).transpose(1, 2, 0)
    assert np.abs(found.astype(int) - RGB).mean() < 4
    for name, pages in {"last": (RGB, RGB[::4, ::4]), "first": (RGB[::4, ::4], RGB)}.items():
        pages = list(map(Image.fromarray, pages))
        for page in pages:  # 1 = a smaller copy of another page
            page.encoderinfo = {"tiffinfo": {254: int(page.width < 64)}}
        path = tmp_path / f"{name}.tif"
        pages[0].save(path, save_all=True, append_images=pages[1:], **pages[0].encoderinfo)
        with Image.open(path) as saved:
            assert saved.n_frames == 2
        assert (decode(path, 64).transpose(1, 2, 0) == RGB).all(), name


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif"])
def test_the_size_of_a_picture_is_that_as_it_is_shown(tmp_path, name):
    """A phone held upright: the data's page counted each size of its pictures twice."""
    exif = Image.Exif()
    for tag, size in ((1, (40, 20)), (3, (40, 20)), (6, (20, 40)), (8, (20, 40))):
        exif[reading.ORIENTATION] = tag
        Image.new("RGB", (40, 20)).save(tmp_path / name, exif=exif)
        assert reading.examine(tmp_path / name).size == size
        assert reading.upright(tmp_path / name, 40)[0].size == size


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif"])
def test_a_large_picture_is_read_up_to_a_limit(tmp_path, monkeypatch, name):
    monkeypatch.setattr(reading, "LARGE", 1000)
    wide = np.tile(np.linspace(0, 255, 1600).astype(np.uint8), (800, 1))
    path = save(tmp_path / name, wide)
    found = decode(path, 32)[0].astype(int)
    assert np.abs(found - (np.arange(32) * 8 + 4)).max() <= 3
    assert reading.examine(path).size == (1600, 800)  # the file's, however little was decoded
    monkeypatch.setenv("ADLIB_MEGAPIXELS", "1.2")
    with pytest.raises(ValueError, match="it has 1 megapixels, and up to 1.2 are read; cut it into "
                                         "several pictures, or set ADLIB_MEGAPIXELS=2"):
        decode(path, 32)
    for given in ("many", "0", "-1", "nan"):
        monkeypatch.setenv("ADLIB_MEGAPIXELS", given)
        with pytest.raises(ValueError, match=f"ADLIB_MEGAPIXELS is '{given}'; set it to a number "):
            decode(path, 32)


def test_a_large_jpeg_is_reduced_while_it_is_decoded(tmp_path, monkeypatch):
    path = save(tmp_path / "a.jpg", np.zeros((512, 1024), np.uint8))
    sizes = []
    resize = Image.Image.resize
    monkeypatch.setattr(Image.Image, "resize", lambda image, *how: sizes.append(image.size)
                        or resize(image, *how))
    decode(path, 16)
    monkeypatch.setattr(reading, "LARGE", 1000)
    decode(path, 16)
    assert sizes[0::2] == [(1024, 512), (128, 64)]


def test_large_pictures_are_decoded_one_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "LARGE", 1000)
    path, at_work, most = save(tmp_path / "a.png", RGB), [], []
    load = reading.load

    def noted(*given):
        at_work.append(1)
        most.append(len(at_work))
        load(*given)
        at_work.pop()

    monkeypatch.setattr(reading, "load", noted)
    threads = [threading.Thread(target=decode, args=(path, 32)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 8


def test_more_pixels_than_pillow_allows(tmp_path):
    """20,000 x 10,000 is refused by Pillow as a bomb; here the header is enough to know."""
    path = tmp_path / "a.png"
    path.write_bytes(png_of(np.zeros((0, 20_000)), 0, height=10_000))
    with reading.opened(path) as image:
        assert image.size == (20_000, 10_000)
    path.write_bytes(png_of(np.zeros((0, 20_000)), 0, height=20_000))
    with pytest.raises(ValueError, match="it has 400 megapixels, and up to 300 are read"):
        with reading.opened(path):
            pass


@pytest.mark.parametrize("form", ["PNG", "JPEG", "BMP", "TIFF", "WEBP", "AVIF", "GIF", "PPM",
                                  "JPEG2000"])
def test_half_a_file_is_no_picture(tmp_path, form):
    buffer = io.BytesIO()
    noisy = np.random.default_rng(0).integers(0, 255, RGB.shape, dtype=np.uint8)
    Image.fromarray(noisy).save(buffer, form)
    path, whole = tmp_path / "a.png", buffer.getvalue()
    path.write_bytes(whole)
    assert decode(path, 32).shape == (3, 32, 32)  # a wrong suffix is nothing
    for end in (len(whole) // 2, len(whole) * 9 // 10):
        path.write_bytes(whole[:end])
        with pytest.raises(ValueError, match="^it (is damaged|cannot be decoded).* save it "):
            decode(path, 32)


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_a_file_whose_end_was_never_written_is_no_picture(tmp_path, form):  # Pillow issue 5800
    """A copy that was broken off leaves zeros where the rest was to be."""
    buffer = io.BytesIO()
    noisy = (RGB + np.random.default_rng(0).integers(0, 20, RGB.shape)).clip(0, 255)
    Image.fromarray(noisy.astype(np.uint8)).save(buffer, form)
    whole = buffer.getvalue()
    for end in (len(whole) // 2, len(whole) - 200):
        (tmp_path / "a.png").write_bytes(whole[:end] + bytes(len(whole) - end))
        for look in (lambda path: decode(path, 32), reading.examine):
            with pytest.raises((OSError, ValueError)):
                look(tmp_path / "a.png")


def test_an_editors_long_notes_hide_no_picture(tmp_path):  # Pillow issue 8363
    notes = PngImagePlugin.PngInfo()
    notes.add_text("history", "x" * 3_000_000, zip=True)
    path = save(tmp_path / "a.png", RGB, pnginfo=notes, icc_profile=bytes(2_000_000))
    assert (decode(path, 64).transpose(1, 2, 0) == RGB).all()


def test_a_picture_is_known_by_its_content(tmp_path):
    path = save(tmp_path / "a.png", RGB)
    assert reading.is_picture(path.rename(tmp_path / "IMG_0001"))
    for content in (b"", b"BM is how a text may begin", b"\xd0\xcf\x11\xe0 Thumbs.db", b"[desktop]"):
        (tmp_path / "other").write_bytes(content)
        assert not reading.is_picture(tmp_path / "other")
    assert not reading.is_picture(tmp_path / "absent")


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
    assert (decode(tmp_path / "a.png", 64) == expected).all()
