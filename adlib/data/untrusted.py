"""What a folder of images that somebody else has made may not do: lead out of itself, or bear names
that are taken for more than names."""
from __future__ import annotations

import os
import re
import typing
from pathlib import Path

from adlib.config import InputError

# Control characters, which a terminal obeys and which end a line of a table; bytes that are no
# UTF-8, which no table can hold.
UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
# A spreadsheet takes a cell of a CSV file for a formula that begins so. Our tables are read again
# and name files, so that no name can be written otherwise in them than it is: the names that begin
# a cell (a category's, a defect's) are asked to be others.
FORMULA = ("=", "+", "-", "@")
BRACES = ("{", "}")  # papermill fills them in, in the paths of its notebooks


def category(root: Path, name: str) -> None:
    """Raises InputError for the name of a category that cannot be one."""
    legible(name)
    _no_formula(name)
    if any(brace in name for brace in BRACES):
        raise InputError(
            f"the folder {name!r} in {root} has braces in its name, which papermill would fill "
            f"in; rename it")


def pictures(root: Path, name: str, paths: typing.Sequence[Path]) -> None:
    """Raises InputError for a picture of a category that lies elsewhere, or that has a name, or a
    defect's name, that it cannot have."""
    for path in paths:
        legible(path.relative_to(root).as_posix())
        inside(root, name, path)
    for folder in dict.fromkeys(path.parent.name for path in paths):
        _no_formula(folder)


def inside(root: Path, name: str, path: Path) -> Path:
    """The path of a picture or mask, which must lie in its category or elsewhere in the data
    folder, links followed; else InputError.

    Both folders may be links themselves, to another disk say: whoever asks for them by name sees
    where they lie. A link below them, which an archive may have brought, would show a stranger's
    choice of this machine's pictures in a report that is passed on.
    """
    real = Path(os.path.realpath(path))
    if not any(real.is_relative_to(os.path.realpath(home)) for home in (root / name, root)):
        raise InputError(
            f"{path} is a link that leads out of the data folder, to {real}; copy the pictures to "
            f"where the link is, or link "
            f"{root / name} as a whole")
    return path


def legible(name: str) -> None:
    """Raises InputError for a name that no table can hold or no terminal should print."""
    if UNFIT.search(name):
        raise InputError(
            f"the name {name!r} holds control characters, or bytes that are no UTF-8; rename it")


def shown(name: str | Path, instead: str = "\N{REPLACEMENT CHARACTER}") -> str:
    """A name for a person, or for a new file, whatever it holds."""
    return UNFIT.sub(instead, str(name))


def _no_formula(name: str) -> None:
    if name.startswith(FORMULA):
        raise InputError(
            f"the folder name {name!r} begins like a formula, which a spreadsheet would run in "
            f"the tables; rename it")
