"""A report's pages copied to a folder of their own, to be passed on."""
from __future__ import annotations

import base64
import hashlib
import os
import re
from pathlib import Path
from urllib.parse import quote, unquote

from adlib.config import InputError
from adlib.data import files
from adlib.report.pages.site import DOWNLOADS

COPY = ".adlib-pages"  # says that a folder's pages may be replaced by the next copy
KINDS = (".html", ".csv", ".json", ".webp", ".png", ".jpg")  # of files in a copy
PICTURE = re.compile(r"[\w.%-]+\.(?:jpg|png|webp)")  # a file's name on a page
INSIDE = re.compile(r"data:image/(jpeg|png|webp);base64,([A-Za-z0-9+/=]+)")


def copy(reports: Path, target: Path) -> int:
    """The pages, what they show and what they offer as files: no notebook, model, log or manifest,
    which are large or name this machine's folders. A picture is there once, beside the pages that
    hold it. An earlier copy's files go. Returns the size in bytes.

    Raises:
        InputError: where the target holds anything but an earlier copy, or the reports themselves,
            or cannot be written.
    """
    inside, around = reports.resolve(), target.resolve()
    if inside.is_relative_to(around) or around.is_relative_to(inside):
        raise InputError(f"{target} holds the reports or lies among them; give another folder")
    if target.exists() and not (target / COPY).is_file() and (
            not target.is_dir() or any(target.iterdir())):
        raise InputError(f"{target} is no earlier copy of a report; give an empty folder")
    pages = {path: path.read_text(encoding="utf-8") for path in sorted(reports.rglob("*.html"))}
    shown = {unquote(name) for page in pages.values() for name in PICTURE.findall(page)}
    copied = {path.relative_to(reports): path.read_bytes() for path in sorted(reports.rglob("*"))
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
        # what somebody puts beside the pages to publish them (.git, CNAME, a README) stays
        for old in list(target.rglob("*")) if target.exists() else ():
            hidden = any(name.startswith(".") for name in old.relative_to(target).parts)
            if old.suffix in KINDS and old.is_file() and not hidden:
                old.unlink()
        files.write_text(target / COPY,
                         "Pages that adlib report --pages copied; made anew each time.")
        for place, content in copied.items():
            (target / place).parent.mkdir(parents=True, exist_ok=True)
            (target / place).write_bytes(content)
    return sum(map(len, copied.values()))
