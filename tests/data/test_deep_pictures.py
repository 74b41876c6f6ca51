"""Pictures of more than 8 bits: every number that a PNG or TIFF can hold, on one scale of grey."""
import struct

import numpy as np
import pytest

from adlib.data import reading
from tests.data.test_reading import GREY, decode, png_of, save

TWELVE = np.linspace(0, 4095, 64 * 64).reshape(64, 64).astype(np.uint16)
COLOURS = np.stack([TWELVE, TWELVE.T, 4095 - TWELVE], -1)


def test_a_transparent_value_of_16_bits_is_black(tmp_path):  # Pillow issues 154 and 421
    for values, kind in ((TWELVE, 0), (COLOURS, 2)):
        clear = np.atleast_1d(values[40, 7]).tolist()
        found = decode(png(tmp_path / "a.png", values, kind, clear), 64, (0, 4095))
        plain = decode(png(tmp_path / "b.png", values, kind), 64, (0, 4095))
        hidden = np.atleast_3d(values == values[40, 7]).all(axis=2)
        assert (found == np.where(hidden, 0, plain)).all() and plain[:, 40, 7].any()


def tiff(path, values, *, bits, kind=1, samples=1, tags=()):
    """An uncompressed little-endian TIFF of one strip, which Pillow itself would not write.

    kind: 1 = unsigned, 2 = signed, 3 = floating point. tags: more of them, {tag: SHORT}.
    """
    data, (height, width) = values.tobytes(), values.shape[:2]
    entries = {256: width, 257: height, 259: 1, 262: 2 if samples > 1 else 1, 277: samples,
               278: height, 279: len(data), 284: 1, **dict(tags)}
    count = len(entries) + 3
    after = 8 + 2 + 12 * count + 4  # where what does not fit into an entry goes
    several = struct.pack(f"<{2 * samples}H", *[bits] * samples, *[kind] * samples)
    rows = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries.items()]
    for tag, value, offset in ((258, bits, 0), (339, kind, 2 * samples)):
        rows.append(struct.pack("<HHII", tag, 3, samples, after + offset) if samples > 2 else
                    struct.pack("<HHIHH", tag, 3, 1, value, 0))
    rows.append(struct.pack("<HHII", 273, 4, 1, after + len(several)))
    rows.sort(key=lambda row: struct.unpack("<H", row[:2]))
    path.write_bytes(b"II*\0\x08\0\0\0" + struct.pack("<H", count) + b"".join(rows) + bytes(4)
                     + several + data)
    return path


def png(path, values, colour_type, clear=()):
    path.write_bytes(png_of(values, colour_type, clear=clear))
    return path


def of_12_bits(values):
    return (values / 4095 * 255 + 0.5).astype(np.uint8)


def test_colours_of_16_bits_keep_their_low_bytes(tmp_path):  # Pillow issue 7723
    alpha = np.full_like(TWELVE, 65535)
    for path in (png(tmp_path / "rgb.png", COLOURS, 2),
                 png(tmp_path / "rgba.png", np.dstack([COLOURS, alpha]), 6),
                 tiff(tmp_path / "rgb.tif", COLOURS, bits=16, samples=3)):
        assert reading.extent(path) == (0, 4095)
        found = decode(path, 64, (0, 4095)).transpose(1, 2, 0)
        assert (found == of_12_bits(COLOURS)).all()
        assert reading.examine(path).mode == f"{'RGBA' if 'rgba' in path.name else 'RGB'};16"
    half = png(tmp_path / "half.png", np.dstack([COLOURS, alpha // 2]), 6)
    found = decode(half, 64, (0, 4095)).transpose(1, 2, 0)
    assert np.abs(found - of_12_bits(COLOURS) / 2).max() <= 1


def test_compressed_colours_of_16_bits(tmp_path):
    tifffile = pytest.importorskip("tifffile", reason="comes with scikit-image")
    for name, how in {"zlib": {"compression": "zlib"}, "tiled": {"tile": (16, 16)},
                      "big": {"byteorder": ">"},
                      "predicted": {"compression": "zlib", "predictor": True}}.items():
        path = tmp_path / f"{name}.tif"
        tifffile.imwrite(path, COLOURS, photometric="rgb", **how)
        found = decode(path, 64, (0, 4095)).transpose(1, 2, 0)
        assert (found == of_12_bits(COLOURS)).all(), name


@pytest.mark.parametrize(("values", "bits", "kind"), [
    (TWELVE.astype(np.int32) - 2000, 32, 2), (TWELVE.astype(np.uint32) * 2**20, 32, 1),
    (TWELVE.astype(np.int16) - 2000, 16, 2), ((TWELVE // 16).astype(np.int32), 32, 2),
    ((TWELVE // 16 - 128.0).astype(np.int8), 8, 2), (TWELVE / np.float32(4095), 32, 3),
    (TWELVE / 4095.0, 64, 3)],
    ids=["int32", "uint32", "int16", "int32 of 8 bits", "int8", "float32", "float64"])
def test_tiff_of_every_number(tmp_path, values, bits, kind):
    path = tiff(tmp_path / "a.tif", values, bits=bits, kind=kind)
    low, high = reading.extent(path)
    assert (low, high) == pytest.approx((float(values.min()), float(values.max())))
    found, wanted = decode(path, 64, (low, high))[0], (values.astype(float) - low)
    assert np.abs(found - wanted / (high - low) * 255).max() <= 0.51
    assert len(np.unique(found)) >= 250


def test_where_0_is_white_it_is_white_of_any_bits(tmp_path):
    for bits, values in ((8, GREY), (16, TWELVE)):
        path = tiff(tmp_path / f"{bits}.tif", values, bits=bits, tags={262: 0}.items())
        top = 2**bits - 1
        assert (decode(path, 64, (top - 4095, top))[0] == decode(
            save(tmp_path / f"{bits}.png", top - values), 64, (top - 4095, top))[0]).all()


def test_one_range_for_all_and_values_beyond_it(tmp_path):
    path = save(tmp_path / "a.png", TWELVE)
    assert (decode(path, 64, (0, 8190))[0] == (TWELVE / 8190 * 255 + 0.5).astype(int)).all()
    clipped = decode(path, 64, (1000, 2000))[0]
    assert (clipped[TWELVE <= 1000] == 0).all() and (clipped[TWELVE >= 2000] == 255).all()
    assert reading.is_outside((0, 4095), (0, 4000)) and reading.is_outside((0, 4095), (100, 4095))
    assert not reading.is_outside((0, 4095), (0, 4090))  # by less than a step
    assert not reading.is_outside(None, (0, 4095)) and not reading.is_outside((0, 9), None)
    with pytest.raises(ValueError, match="values, from 0 to 4095, are of more than 8 bits"):
        decode(path, 32)


@pytest.mark.parametrize(("make", "sentence"), [
    (lambda path: tiff(path, np.where(GREY < 9, np.nan, GREY).astype(np.float32), bits=32, kind=3),
     "some of its values are no numbers"),
    (lambda path: tiff(path, COLOURS, bits=16, samples=3, tags={284: 2}.items()),
     "stores the 16 bits of one colour after those of another"),  # Pillow issue 4621
    (lambda path: tiff(path, GREY, bits=8, tags={32997: 16}.items()), "it holds 16 pictures"),
    (lambda path: png(path, np.dstack([TWELVE, TWELVE]), 4), "16 bits with transparency"),
    (lambda path: path.write_bytes(b"<html>404</html>"), "it is damaged, or no picture of a kind"),
    (lambda path: path.write_bytes(b""), "the file is empty"),
    (lambda path: path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
     "it is damaged, or no picture of a kind"),
], ids=["nan", "planar", "volume", "grey and alpha", "a web page", "empty", "postscript"])
def test_what_would_be_misread_is_refused(tmp_path, make, sentence):
    make(tmp_path / "a.tif")
    with pytest.raises(ValueError, match=sentence):
        decode(tmp_path / "a.tif", 32, (0, 4095))
