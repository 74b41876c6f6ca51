"""Files that are whole: a kill at any moment leaves the old one or the new one, never a half, and a
damaged cache is as good as none."""
from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import secrets
import stat
import typing
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import filelock

from adlib.config import InputError, cache_dir

if typing.TYPE_CHECKING:
    import numpy as np

T = typing.TypeVar("T")
NO_FILE = "it is a pipe, a socket or a device, and no file"
_written: dict[Path, float] = {}  # bytes, to a folder since it was looked through


def reason_of(error: BaseException) -> str:
    """What went wrong, in an error's own words."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def is_special(path: Path | str) -> bool:
    """A pipe, a socket or a device? Whoever reads one may wait for ever."""
    try:
        mode = os.stat(path).st_mode
    except OSError:  # whoever opens it will say why
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


@contextlib.contextmanager
def atomic_path(path: Path | str) -> typing.Iterator[Path]:
    """A temporary path beside `path`, with its suffix (matplotlib and others choose the format by
    it): renamed to `path` at the end, removed on an error.

    Raises:
        InputError: the folder cannot be written, or the disk is full.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # no file of `tempfile`: these are private, and a report is for sharing
        beside = path.with_name(f".{path.stem}-{secrets.token_hex(4)}{path.suffix}")
        beside.touch(exist_ok=False)
        temporary = beside
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {reason_of(error)}; free some space or "
                         "choose a folder that can be written") from error
    except RuntimeError as error:  # torch's writer hides the OSError of a full disk
        if "inline_container" not in str(error) and "PytorchStreamWriter" not in str(error):
            raise
        raise InputError(f"cannot write {path}: the disk is full or the file too large; free some "
                         "space") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def saying(what: str, advice: str = "mend or remove it", of: type[Exception] = Exception
           ) -> typing.Iterator[None]:
    """What goes wrong meanwhile, whatever a decoder trips over by default, as an InputError: what
    it means, which names the file, why, and what to do."""
    try:
        yield
    except of as error:
        raise InputError(f"{what} ({reason_of(error)}); {advice}") from error


def taken(path: Path, busy: str, advice: str, **how: typing.Any) -> filelock.FileLock:
    """A lock file, whose folder is made, locked. Raises InputError: `busy` where another process
    has it, or that the folder cannot be written, and `advice`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(path, **how)
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise InputError(busy) from None
    except (OSError, NotImplementedError) as error:  # the latter where nothing can be locked
        raise InputError(
            f"cannot write in {path.parent}: {reason_of(error)}; {advice}") from error
    return lock


def write_bytes(path: Path | str, content: bytes) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path | str, text: str) -> None:
    write_bytes(path, text.encode())


def write_json(path: Path | str, value: object) -> None:
    write_text(path, json.dumps(_plain(value), indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def read_json(path: Path | str) -> typing.Any:
    """The content of a JSON file: UTF-8, or UTF-16 as Windows may write it, with a byte order mark
    or without. InputError if it is missing, not JSON, or has a key twice."""
    if is_special(path):
        raise InputError(f"cannot read {path}: {NO_FILE}", "unread", why=NO_FILE)
    try:
        return json.loads(Path(path).read_bytes(), object_pairs_hook=_unique)
    except OSError as error:
        raise InputError(f"cannot read {path}: {reason_of(error)}", "unread",
                         why=reason_of(error)) from error
    except (ValueError, RecursionError) as error:  # the latter of brackets a thousand deep
        raise InputError(f"{path} is not valid JSON ({error}); mend or delete it", "no_json",
                         why=str(error)) from error


def in_threads(do: typing.Callable[..., T], *values: typing.Iterable) -> list[T]:
    """What `do` gives for each of some values, by all cores: Pillow and NumPy work without holding
    Python's lock."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(do, *values))


def open_mapped(path: Path, shape: tuple[int, ...] | None, dtype: typing.Any) -> np.ndarray | None:
    """The array of a cache's .npy file, mapped into memory; None where there is none, a damaged or
    another one. shape: None = any.

    Copy-on-write: nobody can change the file. Its time of change becomes now, by which a cache can
    forget what was not used for longest.
    """
    import numpy as np  # a command line's --help need not wait for it

    try:
        array = np.load(path, mmap_mode="c", allow_pickle=False)
    except Exception:  # whatever NumPy trips over in a damaged file
        return None
    with contextlib.suppress(OSError):  # a cache that can only be read
        os.utime(path)
    return array if shape in (None, array.shape) and array.dtype == dtype else None


def write_array(path: Path, array: np.ndarray) -> None:
    """For `open_mapped`."""
    import numpy as np

    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.save(stream, array)


def forget(newest: Path, kept_bytes: float, written: float) -> None:
    """Delete what was not used for longest of the .npy files beside `newest`, until the rest
    fits. written: bytes since the last call; a folder of thousands of files is looked through when
    a twentieth of what it may keep was written."""
    folder, states = newest.parent, []
    _written[folder] = _written.get(folder, math.inf) + written
    if _written[folder] < kept_bytes / 20:
        return
    _written[folder] = 0.0
    for path in folder.glob("[!.]*.npy"):
        with contextlib.suppress(OSError):  # another process was quicker
            states.append((path.stat().st_mtime, path.stat().st_size, path))
    total = sum(size for _, size, _ in states)
    for _, size, path in sorted(states):
        if total <= kept_bytes:
            return
        if path != newest:
            with contextlib.suppress(OSError):  # Windows keeps what somebody has mapped
                path.unlink(missing_ok=True)
            total -= size


def _unique(pairs: list[tuple[str, typing.Any]]) -> dict[str, typing.Any]:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        (key, _), = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"it has {key!r} twice")
    return mapping


def _plain(value: object) -> object:
    """NaN and infinity are not JSON: they become null."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def content_hashes(paths: typing.Sequence[Path]) -> dict[Path, str]:
    """The hash of each file's content, remembered by its stamp so that a second look is quick.
    InputError names what cannot be opened."""
    folders = sorted({str(path.parent.resolve()) for path in paths})
    name = hashlib.sha256(os.fsencode("\n".join(folders))).hexdigest()[:32]
    memory, remembered = cache_dir() / "hashes" / f"{name}.json", {}
    with contextlib.suppress(InputError, AttributeError):  # missing, damaged, no mapping
        remembered = {stamp: digest for stamp, digest in read_json(memory).items()
                      if isinstance(digest, str)}
    hashes, stamped = {}, {}
    for path in paths:
        stamp = stamp_of(path)
        try:
            hashes[path] = stamped[stamp] = remembered.get(stamp) or hashlib.sha256(
                path.read_bytes()).hexdigest()
        except OSError as error:
            raise InputError(f"cannot read {path}: {reason_of(error)}") from error
    if not stamped.keys() <= remembered.keys():
        write_json(memory, remembered | stamped)
    return hashes


def stamp_of(path: Path) -> str:
    """What a changed file has another of: place, size, times of change. InputError where it cannot
    be asked."""
    try:
        state = path.stat()
    except OSError as error:
        raise InputError(f"cannot read {path}: {reason_of(error)}") from error
    if is_special(path):
        raise InputError(f"cannot read {path}: {NO_FILE}; take it out")
    # Nobody can set the second time: copies that keep the first one, and clocks put back, change it
    # all the same.
    return f"{str(path.resolve())!a}|{state.st_size}|{state.st_mtime_ns}|{state.st_ctime_ns}"
