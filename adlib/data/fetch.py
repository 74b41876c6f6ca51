"""One file over HTTP into one file on disk: resumed, retried, and never taken for whole when it is
not.

Beside the file, <file>.json notes where the bytes come from and how many there should be, for
resuming to agree with.
"""
from __future__ import annotations

import contextlib
import http.client
import re
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from adlib.data import files
from adlib.config import InputError

# seconds before each new try; they start over whenever a try got further
PAUSES = (1.0, 3.0, 10.0, 30.0)
TIMEOUT = 30.0  # seconds without a byte
MAX_BYTES = 16 * 2**30  # more than this is refused; the largest archive has about 5 GB
_BLOCK = 1 << 16


class _Broken(Exception):
    """The transfer failed in a way that another try may mend."""


def fetch(url: str, part: Path, say: Callable) -> Path:
    """Fetch an http(s) url to `part`, going on after what is there and trying again while that
    helps; returns `part`.

    Raises InputError when it cannot be had; what there is stays, unless the server's later answers
    contradict it.
    """
    furthest, idle = _size(part), 0
    while True:
        try:
            _transfer(url, part, say)
            return part
        except _Broken as error:
            size = _size(part)
            furthest, idle = (size, 0) if size > furthest else (furthest, idle + 1)
            if idle >= len(PAUSES):
                raise InputError(
                    f"could not download {url}: {error}; run the same command again to go on from "
                    f"{megabytes(size)}, or get it by other means and give its path as the url"
                ) from None
            say(f"{error}; next try in {PAUSES[idle]:g} s")
            time.sleep(PAUSES[idle])


def _transfer(url: str, part: Path, say: Callable) -> None:
    """One request: go on after the bytes in `part` if server and notes allow, else afresh. _Broken
    if cut off."""
    notes = _notes(part, url)
    start = _size(part) if notes else 0
    if start and start == notes["total"]:
        return
    headers = {"User-Agent": "adlib"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if notes["validator"]:
            headers["If-Range"] = notes["validator"]
    with _open(url, headers, part) as response:
        if response.status == 206:
            total = _resumed_total(response, start, notes.get("total"), part)
        else:  # a fresh start, or a server that ignores Range or has another version by now
            start, total = 0, response.length
        with open(part, "ab" if start else "wb") as file:
            if not start:  # only after the old bytes are gone may the notes speak of new ones
                files.write_json(_notes_path(part),
                                 {"url": url, "total": total, "validator": _validator(response)})
            for block in _shown(_blocks(response), part.stem, start, total, say):
                file.write(block)
                if max(file.tell(), total or 0) > MAX_BYTES:
                    discard(part)
                    raise InputError(
                        f"{url} sends more than {megabytes(MAX_BYTES)}, too much to be right; "
                        f"check it")
    size = _size(part)
    if total is not None and size != total:
        raise _Broken(
            f"the connection broke off after {size:,} of the {total:,} bytes that the server "
            f"announced")
    files.write_json(_notes_path(part), {"url": url, "total": size, "validator": None})


@contextlib.contextmanager
def _open(url: str, headers: dict[str, str], part: Path) -> Iterator[http.client.HTTPResponse]:
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers),
                                          timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:  # the server's file is shorter than what we hold: not the same file
            discard(part)
        if error.code in (408, 416, 429) or error.code >= 500:
            raise _Broken(f"the server answered {error.code} {error.reason}") from None
        raise InputError(
            f"the server answered {error.code} {error.reason} for {url}; fetch it by other means "
            f"and give "
            "its path as the url, or get 'all' (the addresses of single categories are older)"
        ) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, (ssl.SSLCertVerificationError, http.client.InvalidURL, UnicodeError)):
            raise InputError(
                f"cannot download {url}: {reason}; check the url and your certificates") from None
        raise _Broken(f"no connection ({reason or type(reason).__name__})") from None
    with response:
        yield response


def _resumed_total(response: http.client.HTTPResponse, start: int, total: int | None,
                   part: Path) -> int | None:
    """The whole length that a 206 speaks of, having checked that it goes on where we stopped."""
    match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)",
                         response.headers.get("Content-Range", "").strip())
    if match:
        first, last = int(match[1]), int(match[2])
        now = total if match[3] == "*" else int(match[3])
        if first == start > 0 and total in (None, now) and response.length in (None,
                                                                               last - first + 1):
            return now
    discard(part)
    raise _Broken("the server's answer to resuming does not fit what is here, so starting afresh")


def _blocks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    while True:
        try:
            block = response.read(_BLOCK)
        except (OSError, http.client.HTTPException) as error:  # a reset, a time-out
            raise _Broken(f"the connection broke off ({error or type(error).__name__})") from None
        if not block:
            return
        yield block


def _shown(blocks: Iterator[bytes], name: str, start: int, total: int | None,
           say: Callable) -> Iterator[bytes]:
    """Pass blocks on, with a bar where there is a terminal and a line for every tenth (or 100 MB)
    elsewhere."""
    if sys.stderr.isatty():
        from tqdm import tqdm  # only where it is seen

        with tqdm(total=total, initial=start, unit="B", unit_scale=True, desc=name) as bar:
            for block in blocks:
                yield block
                bar.update(len(block))
        return
    done, step = start, max(total // 10, 1) if total else 100_000_000
    for block in blocks:
        yield block
        before, done = done, done + len(block)
        if done // step > before // step:
            say(f"{name}: {megabytes(done)}" + (f" of {megabytes(total)}" if total else ""))


def _notes_path(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _notes(part: Path, url: str) -> dict:
    """What is known of a part: {"url", "total", "validator"}; {} if it cannot be resumed from this
    url."""
    try:
        notes = files.read_json(_notes_path(part))
    except InputError:
        return {}
    usable = isinstance(notes, dict) and notes.get("url") == url and (notes.get("total")
                                                                      or notes.get("validator"))
    return {"total": notes.get("total"), "validator": notes.get("validator")} if usable else {}


def _validator(response: http.client.HTTPResponse) -> str | None:
    """What If-Range may carry: a strong ETag or a date."""
    etag = response.headers.get("ETag", "")
    return etag if etag.startswith('"') else response.headers.get("Last-Modified")


def discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _notes_path(part).unlink(missing_ok=True)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
