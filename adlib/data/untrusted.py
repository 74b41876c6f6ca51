"""Untrusted input: a folder of images that somebody else has made must not traverse paths out of
itself, nor inject formulas into CSV files or control characters by its names."""
from __future__ import annotations

import os
import re
from pathlib import Path

from adlib.config import InputError

# Control characters, which a terminal obeys and which end a line of a table, those that turn the
# direction of writing included; bytes that are no UTF-8, which no table can hold.
UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
# CSV injection: a spreadsheet takes a cell for a formula that begins so. Our tables are read again
# and name files, so that no name can be escaped in them: the names that begin a cell (a category's,
# a defect's) are asked to be others.
FORMULA = ("=", "+", "-", "@")


def check_category(name: str) -> None:
    """Raises InputError for a folder name that cannot be a category's."""
    check_name(name)
    _check_formula(name)


def check_paths(root: Path, name: str, paths: list[Path]) -> None:
    """Raises InputError for an image of category `name` that lies outside the data folder, or that
    has a name, or a defect's name, that it cannot have."""
    for path in paths:
        check_name(path.relative_to(root).as_posix())
        check_inside(root, name, path)
    for folder in {folder for path in paths for folder in path.relative_to(root).parts[2:-1][:1]}:
        _check_formula(folder)


def check_inside(root: Path, name: str, path: Path) -> None:
    """Raises InputError for path traversal by an image, mask or label file of category `name`.

    It must lie in root/name or elsewhere in `root`, links followed. Both folders may be links
    themselves, to another disk say: whoever asks for them by name sees where they lie. A link below
    them, which an archive may have brought, would show what its maker chose of this machine's
    images in a report that is passed on.
    """
    real = Path(os.path.realpath(path))
    if not any(real.is_relative_to(os.path.realpath(home)) for home in (root / name, root)):
        raise InputError(
            f"{path} is a link that leads out of the data folder, to {real}; put a copy in "
            f"its place, or link {root / name} as a whole")
    if not real.exists():
        raise InputError(f"{path} is a link to {real}, which is not there; put it there, or remove "
                         "the link")


def check_name(name: str) -> None:
    """Raises InputError for a name that no table can hold or no terminal should print."""
    if UNFIT.search(name):
        raise InputError(
            f"the name {name!r} holds control characters, or bytes that are no UTF-8; rename it")


def sanitized(name: str | Path, instead: str = "\N{REPLACEMENT CHARACTER}") -> str:
    """Any name with what a terminal or table cannot hold replaced, to print or for a new file."""
    return UNFIT.sub(instead, str(name))


def _check_formula(name: str) -> None:
    if name.startswith(FORMULA):
        raise InputError(f"the folder name {name!r} begins like a formula, which a spreadsheet "
                         f"would run in the tables; rename it")


def no_formula(typed: str) -> str:
    """What was typed, which no spreadsheet takes for a formula."""
    text = typed.strip()
    return f"'{text}" if text.startswith(FORMULA) else text
