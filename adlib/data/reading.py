"""One picture's file -> pixels: its format, its pages, its size, its bit depth and its orientation.

Pillow decodes. What it would read wrongly without a word is read rightly here, or refused in one
sentence that says what to do.
"""
from __future__ import annotations

import contextlib
import functools
import io
import math
import os
import sys
import threading
import typing
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin, TiffImagePlugin, UnidentifiedImageError

from adlib.data import files, layout
from adlib.data.frame import Frame

DECODER = "5"  # part of every cache key: raise it when a file gives other pixels than before
# A file is what its content says. What is not in this list (PostScript, say) starts no decoder.
FORMATS = ("PNG", "JPEG", "MPO", "BMP", "TIFF", "WEBP", "AVIF", "HEIF", "JPEG2000", "PPM", "GIF")
MEGAPIXELS = 300  # of a picture at most, unless ADLIB_MEGAPIXELS says otherwise: 1.2 GB in colour
LARGE = 50e6  # pixels from which on pictures are decoded one at a time, JPEG reduced on the way
ENTIRE = 2**24  # pixels a side, of which no JPEG is reduced
TAIL = 1e-4  # share of a picture's values that may lie below its extent, and above it
BLOCK = 2**22  # values that are converted at a time
OTHER_BYTE = {";16L": ";16B", ";16B": ";16L",
              ";16N": ";16B" if sys.byteorder == "little" else ";16L"}
# tags of TIFF
SUBFILE, BITS, PHOTOMETRIC, PAGE_TEXT, PLANAR, SAMPLES, DEPTH = (
    254, 258, 262, 270, 284, 339, 32997)
ORIENTATION = 274  # EXIF's, and what turns a picture upright that has it
UPRIGHT = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
           4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
           6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
           8: Image.Transpose.ROTATE_90}
SWAPPED = range(5, 9)  # of these, width and height change places

File = Path | io.BytesIO  # a file, or what was read of one; then with a `name`, its path
GreyRange = tuple[float, float]  # the values, of more than 8 bits, that become 0 and 255

Image.MAX_IMAGE_PIXELS = None  # `opened` has a limit that is said in words and can be raised
# Editors write a history of megabytes beside a small picture; Pillow's limit of 64 MB a file stays.
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY
# Pillow can unpack float64, and does not know that TIFF has it.
TiffImagePlugin.OPEN_INFO[b"II", 1, (3, ), 1, (64, ), ()] = ("F", "F;64F")
# What Pillow finds odd and reads all the same (a broken EXIF tag, say) is no word to a user.
warnings.filterwarnings("ignore", module=r"PIL\.")
_one_at_a_time = threading.Lock()


class Header(typing.NamedTuple):
    """What a file says of itself, and its values' extent."""

    size: tuple[int, int]  # width, height, as it is shown
    mode: str  # Pillow's, with ";16" for colours of 16 bits
    extent: GreyRange | None


def read(file: File, size: int | Frame, grey_range: GreyRange | None = None) -> np.ndarray:
    """One picture's file -> uint8 [3,size,size], RGB; [4,h,w] in a frame that marks what counts.

    Turned as its EXIF tag says, alpha laid over black, resized with antialiasing (Pillow's
    bilinear): to a square, or as a frame says.

    Args:
        grey_range: what becomes 0 and 255 in pictures of more than 8 bits; values beyond are
            clipped. Pictures of 8 bits stay as they are.

    Raises:
        ValueError: it is no picture, holds several, is too large, or has more than 8 bits and no
            grey_range is given.
        OSError, or whatever else a decoder trips over in a damaged file.
    """
    return laid(file, [size], grey_range)[0][0]


def laid(file: File, frames: typing.Sequence[int | Frame], grey_range: GreyRange | None = None
         ) -> tuple[list[np.ndarray], GreyRange | None]:
    """The same in several frames, decoded once, and the extent of its values; None for 8 bits."""
    made = [*map(Frame.of, frames)]
    whole = any(frame.fit == "tile" for frame in made)
    side = max(ENTIRE if whole else 2 * frame.size for frame in made)
    image, extent = upright(file, side, grey_range)
    return [frame.lay(image) for frame in made], extent


def upright(file: File, side: int, grey_range: GreyRange | None = None
            ) -> tuple[Image.Image, GreyRange | None]:
    """The picture as it is shown, RGB at its own size, and its values' extent. Of a large JPEG no
    more is decoded than gives `side` pixels a side. Arguments and errors: as `read`."""
    with opened(file) as image:
        raw = _raw_mode(image)
        load(image, side, file)
        turn = UPRIGHT.get(orientation(image))
        values, extent = _deep(image, raw, file), None
        if values is not None:
            extent = _extent(values)
            if grey_range is None:
                raise ValueError(without_range(extent))
            image = Image.fromarray(_to_8_bits(values, grey_range))
        image = over_black(image).convert("RGB")
    return (image if turn is None else image.transpose(turn)), extent


def over_black(image: Image.Image) -> Image.Image:
    """A picture with its transparency, if it has any, laid over black."""
    if not image.has_transparency_data:
        return image
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "black"), rgba)


def examine(file: File) -> Header:
    """A picture's size, mode and extent, after decoding it to its end. Raises as `read`."""
    with opened(file) as image:
        size, mode, raw = image.size, image.mode, _raw_mode(image)
        load(image, 1024, file)
        values = _deep(image, raw, file)
        size = size[::-1] if _is_swapped(image) else size  # of a PNG, to ask that loads it
    coloured = values is not None and values.ndim == 3
    return Header(size, f"{mode};16" if coloured else mode,
                  None if values is None else _extent(values))


def extent(file: File) -> GreyRange | None:
    """The (lowest, highest) of a picture's values, one in 10,000 at either end aside; None for a
    picture of 8 bits, of which only the header is read. Raises as `read`."""
    with opened(file) as image:
        raw = _raw_mode(image)
        if not _is_deep(image, raw):
            return None
        load(image, 1024, file)
        return _extent(_deep(image, raw, file))


def parsed(given: str) -> GreyRange | None:
    """The parameter grey_range, "low,high"; None where nothing is given."""
    if not given:
        return None
    low, high = map(float, given.split(","))
    return low, high


def without_range(extent: GreyRange) -> str:
    """Why a picture of more than 8 bits cannot be read where no grey_range is known."""
    return (f"its values, from {extent[0]:g} to {extent[1]:g}, are of more than 8 bits, and those "
            "of the good training images are of 8; save them alike, or give the parameter "
            "grey_range, such as 0,4095")


def union(extents: typing.Iterable[GreyRange | None]) -> GreyRange | None:
    """The range that holds all extents; None where all pictures are of 8 bits."""
    deep = [extent for extent in extents if extent]
    if not deep:
        return None
    low, high = min(low for low, _ in deep), max(high for _, high in deep)
    return low, high if high > low else low + 1


def is_outside(extent: GreyRange | None, grey_range: GreyRange | None) -> bool:
    """Are values clipped, by more than one of the 255 steps, of more than one pixel in 10,000?"""
    if extent is None or grey_range is None:
        return False
    step = (grey_range[1] - grey_range[0]) / 255
    return extent[0] < grey_range[0] - step or extent[1] > grey_range[1] + step


def is_coarse(extent: GreyRange | None, grey_range: GreyRange | None) -> bool:
    """Does a picture use less than a quarter of the range, of 256 grey levels fewer than 64?"""
    return extent is not None and grey_range is not None and (
        4 * (extent[1] - extent[0]) < grey_range[1] - grey_range[0])


def is_picture(path: Path) -> bool:
    """Does a file's content begin as a picture's, whatever its name is?"""
    if not path.is_file():  # whoever reads a pipe may wait for ever
        return False
    try:
        with Image.open(path, formats=_formats()):
            return True
    except Exception:  # whatever a decoder trips over, it is no picture
        return False


@contextlib.contextmanager
def opened(file: File) -> typing.Iterator[Image.Image]:
    """A file of one picture, its header read and its pixels not yet. Raises as `read`."""
    path = Path(file.name) if isinstance(file, io.BytesIO) else file
    if path.suffix.lower() in layout.NOT_READ:
        raise ValueError(f"{path.suffix} files are not read; save it as PNG, TIFF or JPEG")
    if file is path and files.is_special(path):
        raise ValueError(files.NO_FILE)
    try:
        with _decoding():
            image = Image.open(file, formats=_formats())
    except UnidentifiedImageError:
        raise ValueError(_why_unidentified(path, _again(file))) from None
    with image:
        with _decoding():
            pages = _pages(image)
        if pages > 1:
            raise ValueError(f"it holds {pages} pictures; save each as a file of its own")
        pixels, most = math.prod(image.size), _megapixels()
        if pixels > most * 1e6:
            raise ValueError(
                f"it has {pixels / 1e6:.0f} megapixels, and up to {most:g} are read; cut it into "
                f"several pictures, or set ADLIB_MEGAPIXELS={math.ceil(pixels / 1e6)}, which takes "
                f"up to {math.ceil(pixels * 8 / 1e9)} GB of memory")
        with _one_at_a_time if pixels > LARGE else contextlib.nullcontext():
            yield image


@contextlib.contextmanager
def _decoding() -> typing.Iterator[None]:
    """Whatever a decoder trips over in a damaged file, as a sentence."""
    try:
        yield
    except (UnidentifiedImageError, MemoryError):
        raise
    except Exception as error:
        if getattr(error, "errno", None) is not None:  # the disk's own words
            raise
        why = str(error) or type(error).__name__
        raise ValueError(f"it cannot be decoded ({why}): damaged, or of a kind that is not read; "
                         "save it again, as PNG say") from error


@functools.cache
def _formats() -> tuple[str, ...]:
    with contextlib.suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _why_unidentified(path: Path, file: File) -> str:
    if path.suffix.lower() in layout.HEIC and "HEIF" not in _formats():
        return "HEIC is read where the package pillow-heif is: pip install pillow-heif"
    if not (file.getbuffer().nbytes if isinstance(file, io.BytesIO) else path.stat().st_size):
        return "the file is empty"
    return ("it is damaged, or no picture of a kind that is read; save it as PNG, TIFF of 8 or 16 "
            "bits, or JPEG")


def _megapixels() -> float:
    given = os.environ.get("ADLIB_MEGAPIXELS", "")
    with contextlib.suppress(ValueError):
        if (most := float(given or MEGAPIXELS)) > 0:
            return most
    raise ValueError(f"ADLIB_MEGAPIXELS is {given!r}; set it to a number above 0, such as "
                     f"{2 * MEGAPIXELS}")


def _pages(image: Image.Image) -> int:
    """How many pictures a file holds; of a TIFF's pages, smaller copies and masks of another one
    aside."""
    count = getattr(image, "n_frames", 1)
    if image.format == "MPO":  # a phone's JPEG: what follows it is a preview or a gain map
        return 1
    if image.format != "TIFF":
        return count
    described = str(image.tag_v2.get(PAGE_TEXT, ""))
    if count == 1 and described.startswith("ImageJ="):  # it may write the header of the first only
        lines = dict(line.partition("=")[::2] for line in described.splitlines())
        return int(lines.get("images", "1"))
    pages = []
    for page in range(count):
        image.seek(page)
        if not image.tag_v2.get(SUBFILE, 0) & 5:
            pages.append(page)
    image.seek(pages[0] if pages else 0)
    return max(len(pages), image.tag_v2.get(DEPTH, 1))  # a volume has its slices in one page


def load(image: Image.Image, side: int, file: File) -> None:
    """Decode what is `opened` to its end; of a large JPEG no more than gives `side` pixels a side.
    Raises as `read`."""
    if math.prod(image.size) > LARGE:
        image.draft(None, (side, side))
    with _decoding():
        if image.format == "PNG":  # Pillow does not look at the checksums of the pixels
            with Image.open(_again(file), formats=("PNG", )) as checked:
                try:
                    checked.verify()
                except SyntaxError:
                    raise SyntaxError("its checksums do not fit") from None
        image.load()


def _again(file: File) -> File:
    """To read from its beginning, beside whoever reads it already."""
    return io.BytesIO(file.getvalue()) if isinstance(file, io.BytesIO) else file


def orientation(image: Image.Image) -> int | None:
    """The EXIF tag by which a picture is turned; None where there is none, or it is damaged."""
    with contextlib.suppress(Exception):
        return image.getexif().get(ORIENTATION)


def shown_size(image: Image.Image) -> tuple[int, int]:
    """The width and height of an opened picture as it is shown."""
    return image.size[::-1] if _is_swapped(image) else image.size


def _is_swapped(image: Image.Image) -> bool:
    return orientation(image) in SWAPPED and image.format != "TIFF"  # of which Pillow sees to that


def _raw_mode(image: Image.Image) -> str:
    """How the file stores its pixels, such as RGB;16B; known until it is loaded."""
    given = image.tile[0][3] if image.tile else ""
    return str(given if isinstance(given, str) else (*given, "")[0])


def _is_deep(image: Image.Image, raw: str) -> bool:
    """Has a picture more than 8 bits, or a sign?"""
    coloured = raw[-4:] in OTHER_BYTE and image.mode != "CMYK"
    return image.mode[0] in "IF" or coloured or _is_signed(image)


def _is_signed(image: Image.Image) -> bool:
    return image.mode == "L" and image.format == "TIFF" and image.tag_v2.get(SAMPLES) == (2, )


def _deep(image: Image.Image, raw: str, file: File) -> np.ndarray | None:
    """The values of a loaded picture of more than 8 bits, [H,W] or [H,W,3]; None for 8 bits.

    Raises:
        ValueError: they are not finite, or stored as Pillow cannot read them.
    """
    if image.format == "TIFF" and image.tag_v2.get(PLANAR) == 2 and len(
            bits := image.tag_v2.get(BITS, ())) > 1 and max(bits) > 8:
        raise ValueError("it stores the 16 bits of one colour after those of another, which is "
                         "not read; save it interleaved, or as PNG")
    if not _is_deep(image, raw):
        return None
    values = np.asarray(image)
    if _is_signed(image):
        return values.view(np.int8)
    if raw == "I;32N":  # unsigned
        return values.view(np.uint32)
    if values.dtype.itemsize == 2 and image.format == "TIFF" and image.tag_v2.get(PHOTOMETRIC) == 0:
        return 65535 - values  # 0 is white, which Pillow knows of 8 bits alone
    if image.mode[0] == "F" and not np.isfinite(values).all():
        raise ValueError("some of its values are no numbers; replace them")
    if image.mode[0] in "IF":
        return _hidden_black(values, image)
    if raw[:-4] not in ("RGB", "RGBX", "RGBA"):
        raise ValueError(f"16 bits with transparency, stored as {raw}, are not read; save it "
                         "without transparency")
    # Of 16 bits Pillow keeps the first byte; told the other order of bytes, the second one.
    with Image.open(_again(file), formats=(image.format, )) as again:
        again.seek(image.tell())
        again.tile = [tile._replace(args=_other_byte(tile.args)) for tile in again.tile]
        values = values.astype(np.uint16) * 256 + np.asarray(again)
    if values.shape[2] == 4:
        alpha = values[..., 3:]
        return values[..., :3] * (alpha / 65535) if alpha.min() < 65535 else values[..., :3]
    return _hidden_black(values, image)


def _hidden_black(values: np.ndarray, image: Image.Image) -> np.ndarray:
    """The values of a PNG without an alpha channel, 0 where they are the one that it calls
    transparent."""
    if (key := image.info.get("transparency")) is None:
        return values
    hidden = np.atleast_3d(values == np.array(key)).all(axis=2, keepdims=True)
    return np.where(hidden if values.ndim == 3 else hidden[..., 0], 0, values)


def _other_byte(args: typing.Any) -> typing.Any:
    raw, *rest = [args] if isinstance(args, str) else args
    swapped = raw[:-4] + OTHER_BYTE[raw[-4:]]
    return (swapped, *rest) if rest else swapped


def _extent(values: np.ndarray) -> GreyRange:
    low = np.quantile(values, TAIL, method="lower")
    return float(low), float(np.quantile(values, 1 - TAIL, method="higher"))


def _to_8_bits(values: np.ndarray, grey_range: GreyRange) -> np.ndarray:
    low, high = map(float, grey_range)
    scale = 255 / (high - low)
    converted = np.empty(values.shape, np.uint8)
    rows = max(1, BLOCK // math.prod(values.shape[1:]))
    for start in range(0, len(values), rows):
        block = (values[start:start + rows] - low) * scale + 0.5
        converted[start:start + rows] = block.clip(0, 255)
    return converted
