"""Images with what a detector makes of them, as pictures that a page lays over each other: input,
reconstruction, anomaly map, and outlines as SVG paths, sharp at any size.

A run keeps its pictures beside its page. An input is kept once for all runs of a category, in
reports/pictures, by the hash of its content and its run's grey_range, and without metadata.
"""
from __future__ import annotations

import dataclasses
import os
import shutil
import typing
from pathlib import Path
from urllib.parse import quote, unquote

import contourpy
import numpy as np
from PIL import Image
from scipy import ndimage

from adlib.data import files, reading
from adlib.data.frame import Frame
from adlib.runs import overlays, run_folder

if typing.TYPE_CHECKING:  # a page need not wait for torch
    import torch

    from adlib.data.part import ImageSet
    from adlib.evaluation.calibration import Decision
    from adlib.models.detector import Detector

VIEW = 200  # the side of the square that outlines are drawn in
FINE = 128  # pixels a side of a map's picture: maps are smooth
LARGEST, SMALL = 1024, 256  # pixels of the longer side of an input that is kept, and of its thumb
SIDES = (SMALL, 192, 144, 96, 64, 48)  # of thumbs inside a page: the largest that keep it below
PAGE, TILE = 2_400_000, 2_000  # so many bytes, so many of them an image's own text
DETAIL = 256  # pixels a side of what is kept of a larger image, around its map's maximum
REGIONS = 12  # regions of one defect that get corners: the largest
FILE = "pictures.json"  # {key of a test image: its Shot}, in a run's folder

Put = typing.Callable[[str, np.ndarray], str]  # (name, uint8 [h,w,3 or 4]) -> its address
Inputs = typing.Sequence[tuple[str, str, tuple[int, int]]]  # addresses of input and thumb; its size


@dataclasses.dataclass(frozen=True)
class Shot:
    """One image: addresses of its pictures, relative to the run's folder or data URIs, and paths in
    a square of VIEW."""

    input: str
    thumb: str
    width: int  # of the input, as it is kept
    height: int
    reconstruction: str  # "" where the detector makes none
    map: str
    heat: str  # the map, to be laid over the input
    level: str  # where the map exceeds what one good image in twenty reaches anywhere
    truth: str  # the rim of the true defect
    ticks: str  # corners around it, which cover none of the heat
    # of an image larger than the input that is kept: its own pixels around the map's maximum, and
    # where they lie in it, as CSS
    detail: str = ""
    box: str = ""


def shots(images: torch.Tensor, maps: np.ndarray, decision: Decision, detector: Detector,
          masks: torch.Tensor | None = None, *, inputs: Inputs = (), frame: Frame | None = None,
          sizes: typing.Sequence[tuple[int, int]] = (),
          put: Put = lambda name, picture: overlays.uri(picture)) -> list[Shot]:
    """Images with their maps, in the run's one colour scale.

    Args:
        images: uint8 [N,3,S,S]. maps: [N,S,S]. masks: bool [N,S,S].
        inputs: addresses and sizes of the inputs, where they are kept; else `images` are shown.
        sizes: then (height, width) of their files, in whose shape they are shown.
        frame: that the inputs or files were laid into; what it adds around them is cut off.
        put: where the other pictures go; by default into the page itself.
    """
    redrawn: typing.Sequence[np.ndarray | None] = [None] * len(images)
    if hasattr(detector, "reconstruct") and len(images):
        redrawn = (detector.reconstruct(images) * 255 + 0.5).byte().permute(0, 2, 3, 1).numpy()
    made = []
    for i, picture in enumerate(images.permute(0, 2, 3, 1).numpy()):
        file = inputs[i][2][::-1] if inputs else sizes[i] if sizes else picture.shape[:2]
        place = frame.place(*file)[1].inside if frame else ...
        map_, low, level = _resized(maps[i][place], FINE), decision.low, decision.level
        truth = np.zeros((1, 1), bool) if masks is None else masks[i].numpy()[place]
        address = "" if inputs else put(f"{i:04d}-input", picture[place])
        input_, thumb, size = inputs[i] if inputs else (address, address, file[::-1])
        made.append(Shot(
            input_, thumb, *size,
            "" if redrawn[i] is None else put(f"{i:04d}-reconstruction", redrawn[i][place]),
            put(f"{i:04d}-map", overlays.heat(map_, low, level)),
            put(f"{i:04d}-heat", overlays.layer(map_, low, level)),
            _outline(map_, level), _outline(_resized(truth.astype(np.float32), FINE), 0.5),
            _corners(truth)))
    return made


def keep(folder: Path, images: ImageSet, maps: np.ndarray, decision: Decision,
         detector: Detector) -> list[Shot]:
    """The pictures of a run's test images as files of its folder, in place of an earlier attempt's.

    Args:
        folder: of the run. maps: float32 [N,S,S], of the images.
    """
    shutil.rmtree(folder / "pictures", ignore_errors=True)

    def put(name: str, picture: np.ndarray) -> str:
        address = f"pictures/{name}.webp"
        files.write_bytes(folder / address, overlays.encoded(picture))
        return address

    home, grey_range = run_folder.home_of(folder), images.read_by
    where = home.parents[3] / "pictures" / images.category.name
    digests = files.content_hashes(images.paths)
    # whose 16 bits one run shows otherwise than another
    by_range = "".join(f"-{value:g}" for value in grey_range or ())
    inputs = files.in_threads(lambda path: _input(
        path, where / f"{digests[path][:16]}{by_range}", grey_range), images.paths)
    inputs = [(*(_relative(path, home) for path in kept), size) for kept, size in inputs]
    frame = Frame.of(images.size)
    made = shots(images.tensor, maps, decision, detector, images.masks, inputs=inputs, frame=frame,
                 put=put)
    for i, (_, _, size) in enumerate(inputs):
        if max(size) == LARGEST:  # no smaller than its file, as a rule
            place = frame.place(size[1], size[0])[1].inside
            made[i] = dataclasses.replace(made[i], **_detail(
                images.paths[i], maps[i][place], grey_range, put, f"{i:04d}-detail"))
    files.write_json(folder / FILE, {key: dataclasses.asdict(shot) for key, shot in
                                     zip(images.keys, made, strict=True)})
    return made


def read(folder: Path, page: Path | None = None,
         keys: typing.Collection[str] | None = None) -> dict[str, Shot]:
    """The pictures that a run has kept, by the keys of its test images; {} where it has none.

    page: the folder of a page to address them from; None = inside the page itself, inputs as their
        thumbs. keys: of these images alone.
    """
    if not (folder / FILE).exists():
        return {}

    def address(kept: str) -> str:
        if not kept:
            return ""
        if page is None:  # an attempt beside standing numbers has its inputs' addresses from home
            return overlays.data_uri(
                ((home if kept.startswith("../") else folder) / unquote(kept)).read_bytes())
        return _relative(Path(os.path.normpath(folder / unquote(kept))), page)

    by_key, home = {}, run_folder.home_of(folder)
    kept = files.read_json(folder / FILE)
    for key, entry in kept.items() if keys is None else ((key, kept[key]) for key in keys
                                                         if key in kept):
        entry["input"] = entry["thumb"] if page is None else entry["input"]
        by_key[key] = Shot(**entry | {name: address(entry.get(name, "")) for name in (
            "input", "thumb", "reconstruction", "map", "heat", "detail")})  # the last is new
    return by_key


def inlined(shots: typing.Sequence[Shot], page: Path) -> list[Shot]:
    """Shots of files (`read` for a page in the folder `page`) with their thumbs and heat inside the
    page, so that it can be passed on alone: smaller the more they are. What is opened large stays
    beside the page."""
    home = run_folder.home_of(page)  # what lies above a page is where it will be seen from there

    def smaller(address: str, side: int) -> str:
        return _small((home if address.startswith("../") else page) / unquote(address), side)

    for side in SIDES:
        made = [dataclasses.replace(shot, **{name: smaller(getattr(shot, name), side)
                                             for name in ("thumb", "heat")}) for shot in shots]
        if sum(len(shot.thumb) + len(shot.heat) + TILE for shot in made) <= PAGE:
            break
    return made


def _small(path: Path, side: int) -> str:
    with Image.open(path) as picture:
        if max(picture.size) <= side:
            return overlays.data_uri(path.read_bytes())
        picture.thumbnail((side, side), Image.Resampling.LANCZOS)
        return overlays.uri(np.asarray(picture))


def _input(path: Path, kept: Path, grey_range: reading.GreyRange | None
           ) -> tuple[tuple[Path, Path], tuple[int, int]]:
    """An input and its thumb in the category's folder, and its size there; made if need be. A small
    one is its own thumb."""
    large, small = (kept.with_name(f"{kept.name}{end}.webp") for end in ("", "-small"))
    if not large.exists():
        picture = reading.upright(path, LARGEST, grey_range)[0]
        picture.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
        thumb = picture.copy()
        thumb.thumbnail((SMALL, SMALL), Image.Resampling.LANCZOS)
        if thumb.size != picture.size:
            files.write_bytes(small, overlays.encoded(thumb))
        files.write_bytes(large, overlays.encoded(picture))
    with Image.open(large) as picture:
        return (large, small if max(picture.size) > SMALL else large), picture.size


def _detail(path: Path, map_: np.ndarray, grey_range: reading.GreyRange | None, put: Put,
            name: str) -> dict[str, str]:
    """The file's own pixels around the maximum of its map, any [h,w]."""
    picture = reading.upright(path, reading.ENTIRE, grey_range)[0]
    peak = np.unravel_index(map_.argmax(), map_.shape)
    (top, height), (left, width) = (
        (min(max(0, round((at + 0.5) * side / n) - DETAIL // 2), max(0, side - DETAIL)),
         min(DETAIL, side))
        for at, n, side in zip(peak, map_.shape, picture.size[::-1], strict=True))
    share = zip(("left", "top", "width", "height"), (left, top, width, height),
                picture.size * 2, strict=True)
    crop = picture.crop((left, top, left + width, top + height))
    return {"detail": put(name, np.asarray(crop)),
            "box": ";".join(f"{key}:{100 * at / side:.4f}%" for key, at, side in share)}


def _relative(path: Path, folder: Path) -> str:
    """The address of a file on a page in a folder."""
    return quote(Path(os.path.relpath(path, folder)).as_posix())


def _resized(array: np.ndarray, side: int) -> np.ndarray:
    return np.asarray(Image.fromarray(array.astype(np.float32)).resize(
        (side, side), Image.Resampling.BILINEAR))


def _outline(array: np.ndarray, level: float) -> str:
    """Where [h,h] exceeds a level, as an SVG path in a square of VIEW."""
    places = (np.arange(len(array)) + 0.5) * VIEW / len(array)
    lines = contourpy.contour_generator(places, places, array).lines(level)
    return "".join(_path(np.rint(line).astype(int)) for line in lines)


def _path(points: np.ndarray) -> str:
    kept = points[np.r_[True, (np.diff(points, axis=0) != 0).any(axis=1)]][::2]
    steps = " ".join(f"{x} {y}" for x, y in np.diff(kept, axis=0))
    return (f"M{kept[0, 0]} {kept[0, 1]}" + (f"l{steps}" if steps else "")
            + ("Z" if (points[0] == points[-1]).all() else ""))


def _corners(truth: np.ndarray) -> str:
    """The corners of boxes around the regions of bool [h,h], near ones in one box."""
    near = ndimage.binary_dilation(truth, iterations=max(1, len(truth) // 50))
    boxes = ndimage.find_objects(ndimage.label(near)[0])
    boxes.sort(key=lambda box: -(box[0].stop - box[0].start) * (box[1].stop - box[1].start))
    path, (down, across) = "", (VIEW / side for side in truth.shape)
    for rows, columns in boxes[:REGIONS]:
        top, bottom, left, right = (min(max(round(at), 1), VIEW - 1) for at in (
            rows.start * down, rows.stop * down, columns.start * across, columns.stop * across))
        arm = max(3, min(bottom - top, right - left, 48) // 4)
        path += "".join(f"M{x} {y + arm * dy}V{y}H{x + arm * dx}" for x, dx, y, dy in (
            (left, 1, top, 1), (right, -1, top, 1), (right, -1, bottom, -1), (left, 1, bottom, -1)))
    return path
