"""Which mask belongs to which picture, by their places and names alone."""
from __future__ import annotations

import typing
import unicodedata
from pathlib import Path, PurePosixPath

from adlib.config import InputError

FOLDERS = {"masks", "gt", "ground_truth"}  # never a defect; nor is "mask" a batch of one
# What people and published sets call the folders of bad and of good parts.
BAD = {"bad", "ng", "nok", "ko", "anomaly", "anomalous", "defect", "defects", "defective",
       "不良", "不良品", "缺陷", "异常", "次品"}
GOOD = {"good", "ok", "normal", "良品", "正常", "合格", "合格品"}
_TWO_MASKS = "{} and {} are masks of one picture; remove one of them"
Places = typing.Mapping[Path, tuple[str, ...]]  # a file: its path in the folder that is mirrored


def pair(pictures: Places, masks: Places) -> tuple[dict[Path, Path], list[Path]]:
    """({picture: its mask}, the masks of none). A mask has its picture's place and name, or lies
    in the first folder of that place; case, suffix and "_mask" aside.

    Raises:
        InputError: two masks of one picture, two pictures of one mask.
    """
    def at(stem: str) -> list[Path]:
        return [named[name] for name in (stem, f"{stem}_mask") if name in named]

    named: dict[str, Path] = {}
    for mask, place in masks.items():
        if (other := named.setdefault(_stem(place), mask)) is not mask:
            raise InputError(_TWO_MASKS.format(other, mask))
    stems = {picture: _stem(place) for picture, place in pictures.items()}
    taken, paired, claimed = set(stems.values()), dict[Path, Path](), dict[Path, Path]()
    for picture, own in stems.items():
        near = f"{own.partition('/')[0]}/{own.rpartition('/')[2]}"
        if len(found := at(own) or (at(near) if near not in taken else [])) > 1:
            raise InputError(_TWO_MASKS.format(*found))
        for mask in found:
            if (other := claimed.setdefault(mask, picture)) is not picture:
                raise InputError(f"{other} and {picture} share the mask {mask}; rename one of "
                                 "them, or move it to the masks if it is one")
            paired[picture] = mask
    return paired, [mask for mask in masks if mask not in claimed]


def check_good(pictures: Places) -> None:
    """Raises InputError for masks and bad parts among the pictures of good ones, by their folders.
    """
    for path, place in pictures.items():
        if (BAD | FOLDERS) & {*map(folded, place[:-1])}:
            raise InputError(f"{path.parent} lies in the folder of good pictures; move it out of "
                             "there, or give the good ones alone")


def check_defective(pictures: Places) -> None:
    """Raises InputError for masks and good parts among the pictures of defects, and for two
    pictures in a folder that no mask could tell apart."""
    by_stem: dict[str, Path] = {}
    for path, place in pictures.items():
        folders = [folded(name) for name in place[:-1]]
        if FOLDERS & {*folders} or "mask" in folders[1:]:
            raise InputError(f"{path.parent} is a folder of masks among the pictures; move it to "
                             "ground_truth, beside test")
        if GOOD & {*folders}:
            raise InputError(f"{path.parent} calls pictures good that count as a defect there; "
                             "move them to the good ones")
        if (other := by_stem.setdefault(_stem(place).removesuffix("_mask"), path)) is not path:
            near = path.name if path.parent == other.parent else path
            raise InputError(f"{other} and {near} are two pictures of one name, by which "
                             "masks are found; rename one, or move it to the masks if it is one")


def folded(name: str) -> str:
    """A name without what file systems write differently: case, and accents as characters of their
    own (macOS)."""
    return unicodedata.normalize("NFC", name).casefold()


def _stem(place: tuple[str, ...]) -> str:
    return folded(PurePosixPath(*place).with_suffix("").as_posix())
