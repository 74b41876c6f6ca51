"""A report's pages copied to a folder of their own, to be passed on."""
from __future__ import annotations

import base64
import hashlib
import os
import re
from pathlib import Path
from urllib.parse import quote, unquote

from adlib.config import InputError
from adlib.data import files, layout
from adlib.report.pages.site import DOWNLOADS

COPY = ".adlib-pages"  # the marks of what a copy wrote: the next one replaces that alone
PICTURE = re.compile(r"[\w.%-]+\.(?:jpg|png|webp)")  # a file's name on a page
INSIDE = re.compile(r"data:image/(jpeg|png|webp);base64,([A-Za-z0-9+/=]+)")


def copy(reports: Path, target: Path) -> int:
    """The pages, what they show and what they offer as files: no notebook, model, log or manifest,
    which are large or name this machine's folders. A picture is there once, beside the pages that
    hold it. An earlier copy's files go; what else is in the folder, to publish it (.git, CNAME, a
    page of somebody's own), stays. Returns the size in bytes.

    Raises:
        InputError: where the target is not empty and no earlier copy, where something else is in
            the pages' places, where it holds the reports, or cannot be written.
    """
    inside, around = reports.resolve(), target.resolve()
    if inside.is_relative_to(around) or around.is_relative_to(inside):
        raise InputError(f"{target} holds the reports or lies among them; give another folder")
    if target.exists() and not (target / COPY).is_file() and (
            not target.is_dir() or any(target.iterdir())):
        raise InputError(f"{target} is no earlier copy of a report; give an empty folder")
    there = _visible(reports)
    pages = {path: path.read_text(encoding="utf-8") for path in there if path.suffix == ".html"}
    shown = {unquote(name) for page in pages.values() for name in PICTURE.findall(page)}
    copied = {path.relative_to(reports): path.read_bytes() for path in there
              if path.name in shown or path.name in DOWNLOADS}
    places = {hashlib.sha256(content).digest(): place for place, content in copied.items()}

    def outside(found: re.Match[str]) -> str:
        content = base64.b64decode(found[2])
        digest = hashlib.sha256(content).digest()
        place = places.setdefault(digest, Path("pictures") / f"{digest.hex()[:16]}.{found[1]}")
        copied[place] = content
        return quote(Path(os.path.relpath(place, page.parent)).as_posix())

    for path, text in pages.items():
        page = path.relative_to(reports)
        copied[page] = INSIDE.sub(outside, text).encode()
    with files.saying(f"cannot write {target}", "make room, or give another folder", OSError):
        _write(target, {place.as_posix(): content for place, content in copied.items()})
    return sum(map(len, copied.values()))


def _write(target: Path, copied: dict[str, bytes]) -> None:
    """Files {place: content} in the place of those that an earlier copy wrote. Whatever ends it
    between, the list names all that it wrote."""
    made, listed = {_mark(*one) for one in copied.items()}, target / COPY
    written = set(listed.read_bytes().decode(errors="replace").split() if listed.is_file() else ())

    def is_marked(place: str, marks: set[str]) -> bool:
        path = target / place
        return (path.is_file() and _is_inside(target, path)
                and _mark(place, path.read_bytes()) in marks)

    others = [place for place in copied
              if not (_is_free(target, place) or is_marked(place, written | made))]
    if others:
        raise InputError(
            f"{target} has files in the places of pages that are not this version's, or that were "
            f"changed since: {layout.some(others)}; move or delete them, or give another folder")
    files.write_text(listed, "\n".join(sorted(written | made)) + "\n")
    for place, content in copied.items():
        files.write_bytes(target / place, content)
    for path in _visible(target):
        place = path.relative_to(target).as_posix()
        if place not in copied and is_marked(place, written):
            path.unlink()
    files.write_text(listed, "\n".join(sorted(made)) + "\n")


def _mark(place: str, content: bytes) -> str:
    """What the list has of a file: ten digits that another place or content would change."""
    return hashlib.sha256(b"\0".join((os.fsencode(place), content))).hexdigest()[:10]


def _visible(folder: Path) -> list[Path]:
    """What is in a folder to any depth, less what is hidden or lies in a hidden folder."""
    return [path for path in sorted(folder.rglob("*")) if not any(
        name.startswith(".") for name in path.relative_to(folder).parts)]


def _is_free(target: Path, place: str) -> bool:
    """Is nothing there, and is what lies above it folders?"""
    path = target / place
    return not os.path.lexists(path) and _is_inside(target, path) and all(
        parent.is_dir() or not os.path.lexists(parent) for parent in path.parents)


def _is_inside(target: Path, path: Path) -> bool:
    """Not by way of a link that somebody put there, to another place?"""
    return path.parent.resolve().is_relative_to(target.resolve())
