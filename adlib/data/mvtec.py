"""MVTec AD from its official archives: fetched with resume, checked by hash, unpacked where nothing
can climb out.

Paul Bergmann et al., "MVTec AD -- A Comprehensive Real-World Dataset for Unsupervised Anomaly
Detection", CVPR 2019. Everything in work lies in ROOT/.downloads; a category appears in ROOT only
when it is whole.
"""
from __future__ import annotations

import contextlib
import hashlib
import lzma
import re
import shutil
import tarfile
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import filelock

from adlib.data import fetch, files
from adlib.config import InputError, did_you_mean

_SHARE = "https://www.mydrive.ch/shares/38536/3830184030e49fe74747669442f0f282/download/"
ARCHIVES = {  # category -> archive; "all" is one archive with every category
    "all": "https://www.mydrive.ch/shares/150996/b52ecdcbf521176e9db9c731f2304b27/download/420938113-1629960298/"
           "mvtec_anomaly_detection.tar.xz",
    "bottle": _SHARE + "420937370-1629951468/bottle.tar.xz",
    "cable": _SHARE + "420937413-1629951498/cable.tar.xz",
    "capsule": _SHARE + "420937454-1629951595/capsule.tar.xz",
    "carpet": _SHARE + "420937484-1629951672/carpet.tar.xz",
    "grid": _SHARE + "420937487-1629951814/grid.tar.xz",
    "hazelnut": _SHARE + "420937545-1629951845/hazelnut.tar.xz",
    "leather": _SHARE + "420937607-1629951964/leather.tar.xz",
    "metal_nut": _SHARE + "420937637-1629952063/metal_nut.tar.xz",
    "pill": "https://www.mydrive.ch/shares/43421/11a215a5749fcfb75e331ddd5f8e43ee/download/420938129-1629953099/"
            "pill.tar.xz",
    "screw": _SHARE + "420938130-1629953152/screw.tar.xz",
    "tile": _SHARE + "420938133-1629953189/tile.tar.xz",
    "toothbrush": _SHARE + "420938134-1629953256/toothbrush.tar.xz",
    "transistor": _SHARE + "420938166-1629953277/transistor.tar.xz",
    "wood": _SHARE + "420938383-1629953354/wood.tar.xz",
    "zipper": _SHARE + "420938385-1629953449/zipper.tar.xz",
}
CATEGORIES = tuple(name for name in ARCHIVES if name != "all")
# Published for the whole archive only. Keyed by file name, so that a mirror or a local copy is held
# to it as well.
SHA256 = {
    "mvtec_anomaly_detection.tar.xz": "cf4313b13603bec67abb49ca959488f7eedce2a9f7795ec54446c649ac98cd3d"
}
LICENSE = (
    "MVTec AD is under CC BY-NC-SA 4.0 (https://creativecommons.org/licenses/by-nc-sa/4.0/): no "
    "commercial use, "
    "share alike, and cite Bergmann et al., 'MVTec AD', CVPR 2019")

MAX_BYTES = 16 * 2**30  # unpacked; the real whole is about 5 GB
MAX_MEMBERS = 100_000  # the real archive has about 7,000


class _BadArchive(Exception):
    """The archive is damaged, hostile or another one than expected: not to be used, and not worth
    keeping."""


def get(categories: Sequence[str], root: Path, *, accept_license: bool, url: str | None = None,
        sha256: str | None = None, say: Callable[[str], object] = print) -> list[Path]:
    """Put categories of MVTec AD into `root` and return their folders, ROOT/<category>, in the
    order asked for.

    categories: names from CATEGORIES; () or ("all",) = all of them, from the one big archive. url:
    another source than the official one: http(s)://, file:// or the path of a .tar.xz that is
    already here. It may hold more than what is asked for. sha256: what that one archive must hash
    to. Without it, the published hash counts, else the one recorded in ROOT/archives.json when an
    archive of that file name was first used.

    Categories already there are left alone. A broken download stays in ROOT/.downloads and is
    resumed by the next call. Raises InputError: unknown category, licence not accepted, source out
    of reach, wrong hash, bad archive, disk full.
    """
    root = Path(root)
    names = _names(categories)
    missing = [name for name in names if not (root / name / "train" / "good").is_dir()]
    for name in names:
        if name not in missing:
            say(f"{name}: already in {root / name}")
        elif (root / name).exists():
            raise InputError(
                f"{root / name} is in the way: it exists without train/good; move it elsewhere")
    if not missing:
        return [root / name for name in names]
    if not accept_license:
        raise InputError(f"{LICENSE}; if you accept that, add --accept-license (from Python: "
                         f"accept_license=True)")
    if url or len(names) == len(CATEGORIES):
        jobs = [(url or ARCHIVES["all"], missing)]
    else:
        jobs = [(ARCHIVES[name], [name]) for name in missing]
    _check_sha256(sha256, len(jobs))
    work = root / ".downloads"
    try:
        work.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(work / "lock", timeout=0):
            for source, wanted in jobs:
                _install(source, wanted, root, work, sha256, say)
    except filelock.Timeout:
        raise InputError(
            f"another download into {root} is running; wait until it is done") from None
    except OSError as error:
        raise InputError(
            f"cannot read or write {error.filename or work}: {error.strerror or error}; free some "
            f"space "
            "or choose another folder and try again (what was downloaded is kept)") from error
    return [root / name for name in names]


def _names(categories: Sequence[str]) -> list[str]:
    names = list(dict.fromkeys(categories))
    for name in names:
        if name not in ARCHIVES:
            raise InputError(f"MVTec AD has no category {name!r}{did_you_mean(name, ARCHIVES)}")
    return list(CATEGORIES) if not names or "all" in names else names


def _check_sha256(sha256: str | None, archives: int) -> None:
    if sha256 is not None and archives > 1:
        raise InputError(
            f"sha256 is for one archive and {archives} are asked for; get the categories one by one"
        )
    if sha256 is not None and not re.fullmatch("[0-9a-fA-F]{64}", sha256):
        raise InputError(f"sha256 is {sha256!r}; give 64 hexadecimal digits")


def _install(source: str, wanted: list[str], root: Path, work: Path, sha256: str | None,
             say: Callable) -> None:
    local = _local_path(source)
    name = local.name if local else PurePosixPath(urlsplit(source).path).name or "archive.tar.xz"
    if local and not local.is_file():
        raise InputError(
            f"there is no archive file {local}; give the path of a .tar.xz or its http(s) address")
    records = root / "archives.json"
    known = files.read_json(records) if records.exists() else {}
    if not isinstance(known, dict):
        raise InputError(
            f"{records} is not a mapping of archive names to hashes; mend or delete it")
    if sha256 or name in SHA256:
        expected, whence = (sha256 or SHA256[name]).lower(), ""
    else:
        expected, whence = known.get(
            name), f" (as recorded in {records}; to trust the new one, delete that entry)"
    archive = local or fetch.fetch(source, work / f"{name}.part", say)
    try:
        say(f"{name}: checking the hash of {fetch.megabytes(archive.stat().st_size)}")
        digest = _sha256(archive)
        if expected and digest != expected:
            raise _BadArchive(f"has the wrong sha256: expected {expected}, got {digest}{whence}")
        say(f"{name}: unpacking {', '.join(wanted)}")
        _unpack(archive, wanted, root, work / "unpacking")
    except _BadArchive as error:
        if not local:
            fetch.discard(archive)
        raise InputError(f"the archive {source} {error}; " + (
            "get it anew" if local else "the download was deleted, nothing was unpacked")) from None
    if name not in SHA256:
        files.write_json(records, {**known, name: digest})
    if not local:
        fetch.discard(archive)
    for category in wanted:
        say(f"{category}: now in {root / category}")


def _local_path(source: str) -> Path | None:
    if "://" not in source:
        return Path(source).expanduser()
    with contextlib.suppress(ValueError):  # of a malformed host
        parts = urlsplit(source)
        if parts.scheme == "file":
            return Path(urllib.request.url2pathname(parts.path))
        if parts.scheme in ("http", "https") and parts.hostname:
            return None
    raise InputError(
        f"cannot download from {source!r}; give an http(s) or file address, or the path of a "
        f".tar.xz")


def _unpack(archive: Path, wanted: list[str], root: Path, temporary: Path) -> None:
    """Unpack the wanted categories beside their places and rename each into place when all of it is
    sound."""
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        _extract(archive, set(wanted), temporary)
        found = {
            name: next((folder for folder in (temporary / name, *temporary.glob(f"*/{name}"))
                        if (folder / "train" / "good").is_dir()), None)
            for name in wanted
        }
        absent = [name for name, folder in found.items() if folder is None]
        if absent:
            raise InputError(
                f"{archive} holds no {', '.join(f'{name}/train/good' for name in absent)}; ask "
                f"only for "
                "categories that it holds, or give another url")
        for name, folder in found.items():
            folder.replace(root / name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


class _Stream(lzma.LZMAFile):
    """tarfile reads a header in one go, as long as the header says: a hostile one could ask for all
    the memory."""
    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= 1 << 24:
            raise tarfile.ReadError("a header of absurd length")
        return super().read(size)


def _extract(archive: Path, wanted: set[str], target: Path) -> None:
    # Python 3.10.12, 3.11.4 and later
    safe = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
    total = 0
    try:
        with _Stream(archive) as stream, tarfile.open(fileobj=stream, mode="r:") as tar:
            for count, member in enumerate(tar, 1):
                _refuse_hostile(member)
                total += member.size
                if total > MAX_BYTES or count > MAX_MEMBERS:
                    raise _BadArchive(f"would unpack to more than {fetch.megabytes(MAX_BYTES)} or "
                                      f"{MAX_MEMBERS:,} "
                                      f"files (at {member.name!r}), so it is not MVTec AD")
                if member.isreg() and wanted.intersection(PurePosixPath(member.name).parts[:2]):
                    tar.extract(member, target, set_attrs=False, **safe)
            # reads on to xz's own checksum at the end
            if stream.read(1 << 20).strip(b"\0") or stream.read(1):
                raise tarfile.ReadError("something follows the end of the tar")
    except (_BadArchive, OSError):
        raise
    # whatever tarfile trips over in a damaged or hostile header: TarError, ValueError,
    # RecursionError, ...
    except Exception as error:
        raise _BadArchive(
            f"is no sound .tar.xz, or not all of it ({str(error) or type(error).__name__})"
        ) from None


def _refuse_hostile(member: tarfile.TarInfo) -> None:
    path = member.name.replace("\\", "/")
    if path.startswith("/") or ".." in path.split("/") or re.match("[A-Za-z]:", path):
        raise _BadArchive(f"is hostile: its member {member.name!r} would land outside the folder")
    if member.issym() or member.islnk():
        raise _BadArchive(
            f"is hostile: its member {member.name!r} is a link (to {member.linkname!r})")
    if member.issparse() or member.size < 0:  # neither says how much it unpacks to
        raise _BadArchive(f"is hostile: its member {member.name!r} hides its size")
    if not (member.isreg() or member.isdir()):
        raise _BadArchive(f"is hostile: its member {member.name!r} is neither a file nor a folder")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        start = file.read(6)
        if start != b"\xfd7zXZ\0":
            raise _BadArchive(f"is no .tar.xz (it begins with {start!r})")
        digest.update(start)
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
