"""MVTec AD from its official archives: fetched with resume, checked by hash, unpacked where nothing
can climb out.

Paul Bergmann et al., "MVTec AD -- A Comprehensive Real-World Dataset for Unsupervised Anomaly
Detection", CVPR 2019. Everything in work lies in ROOT/.downloads; a category appears in ROOT only
when it is whole.
"""
from __future__ import annotations

import contextlib
import hashlib
import http.client
import lzma
import re
import shutil
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import filelock

from adlib.config import InputError, check_known, log
from adlib.data import files

_SHARES = "https://www.mydrive.ch/shares/"
_CODES = {  # category -> its archive's place in one share
    "bottle": "420937370-1629951468", "cable": "420937413-1629951498",
    "capsule": "420937454-1629951595", "carpet": "420937484-1629951672",
    "grid": "420937487-1629951814", "hazelnut": "420937545-1629951845",
    "leather": "420937607-1629951964", "metal_nut": "420937637-1629952063",
    "pill": "420938129-1629953099", "screw": "420938130-1629953152",
    "tile": "420938133-1629953189", "toothbrush": "420938134-1629953256",
    "transistor": "420938166-1629953277", "wood": "420938383-1629953354",
    "zipper": "420938385-1629953449"
}
ARCHIVES = {  # category -> archive; "all" is one archive with every category
    "all": f"{_SHARES}150996/b52ecdcbf521176e9db9c731f2304b27/download/420938113-1629960298/"
           "mvtec_anomaly_detection.tar.xz",
    **{name: f"{_SHARES}38536/3830184030e49fe74747669442f0f282/download/{code}/{name}.tar.xz"
       for name, code in _CODES.items()}
}
ARCHIVES["pill"] = ARCHIVES["pill"].replace("38536/3830184030e49fe74747669442f0f282",
                                            "43421/11a215a5749fcfb75e331ddd5f8e43ee")
CATEGORIES = tuple(name for name in ARCHIVES if name != "all")
# Published for the whole archive only. Keyed by file name, so that a mirror or a local copy is held
# to it as well.
SHA256 = {"mvtec_anomaly_detection.tar.xz":
          "cf4313b13603bec67abb49ca959488f7eedce2a9f7795ec54446c649ac98cd3d"}
LICENSE = ("MVTec AD is under CC BY-NC-SA 4.0 "
           "(https://creativecommons.org/licenses/by-nc-sa/4.0/): no commercial use, share alike, "
           "and cite Bergmann et al., 'MVTec AD', CVPR 2019")

MAX_BYTES = 16 * 2**30  # of an archive, and of what it unpacks to; the real whole is about 5 GB
MAX_MEMBERS = 100_000  # the real archive has about 7,000
PAUSES = (1.0, 3.0, 10.0, 30.0)  # seconds before each new try; from the first where one got further
TIMEOUT = 30  # seconds without a byte
_STEP = 50_000_000  # bytes a line of progress


class _BadArchive(Exception):
    """Damaged, hostile or another archive than expected: not to be used, and not worth keeping."""


def get(categories: Sequence[str], root: Path, *, accept_license: bool, url: str | None = None,
        sha256: str | None = None) -> list[Path]:
    """Put categories of MVTec AD into `root`; those already there are left alone.

    A broken download stays in ROOT/.downloads, and the next call goes on with it.

    Args:
        categories: names from CATEGORIES; () or ("all",) = all of them, from the one big archive.
        url: another source than the official one: http(s)://, file:// or the path of a .tar.xz that
            is already here. It may hold more than what is asked for.
        sha256: what that one archive must hash to. Without it, the published hash counts, else the
            one recorded in ROOT/archives.json when an archive of that file name was first used.

    Returns:
        The categories' folders, ROOT/<category>, in the order asked for.

    Raises:
        InputError: unknown category, licence not accepted, source out of reach, wrong hash, bad
            archive, disk full.
    """
    root, names = Path(root), list(dict.fromkeys(categories))
    check_known(names, ARCHIVES, "MVTec AD has no category")
    names = list(CATEGORIES) if not names or "all" in names else names
    missing = [name for name in names if not (root / name / "train" / "good").is_dir()]
    for name in names:
        if name not in missing:
            log.info("%s: already in %s", name, root / name)
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
    if sha256 is not None and len(jobs) > 1:
        raise InputError(f"sha256 is for one archive and {len(jobs)} are asked for; get the "
                         f"categories one by one")
    if sha256 is not None and not re.fullmatch("[0-9a-fA-F]{64}", sha256):
        raise InputError(f"sha256 is {sha256!r}; give 64 hexadecimal digits")
    work = root / ".downloads"
    try:
        work.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(work / "lock", timeout=0):
            for source, wanted in jobs:
                _install(source, wanted, root, work, sha256)
    except filelock.Timeout:
        raise InputError(
            f"another download into {root} is running; wait until it is done") from None
    except OSError as error:
        raise InputError(
            f"cannot read or write {error.filename or work}: {error.strerror or error}; free some "
            "space or choose another folder and try again (what was downloaded is kept)") from error
    return [root / name for name in names]


def _install(source: str, wanted: list[str], root: Path, work: Path, sha256: str | None) -> None:
    local = _local_path(source)
    name = local.name if local else PurePosixPath(urlsplit(source).path).name or "archive.tar.xz"
    if local and not local.is_file():
        raise InputError(
            f"there is no archive file {local}; give the path of a .tar.xz or its http(s) address")
    records = root / "archives.json"
    recorded = files.read_json(records) if records.exists() else {}
    if not isinstance(recorded, dict):
        raise InputError(
            f"{records} is not a mapping of archive names to hashes; mend or delete it")
    expected, whence = (sha256 or SHA256.get(name, "")).lower(), ""
    if not expected:
        expected = recorded.get(name)
        whence = f" (as recorded in {records}; to trust the new one, delete that entry)"
    # of this address and no other, since it may be gone on with
    address = hashlib.sha256(source.encode()).hexdigest()[:8]
    archive = local or _fetch(source, work / f"{address}-{name}")
    try:
        log.info("%s: checking the hash of %s", name, _megabytes(archive.stat().st_size))
        digest = _sha256(archive)
        if expected and digest != expected:
            raise _BadArchive(f"has the wrong sha256: expected {expected}, got {digest}{whence}")
        log.info("%s: unpacking %s", name, ", ".join(wanted))
        _unpack(archive, wanted, root, work / "unpacking")
    except _BadArchive as error:
        if not local:
            archive.unlink()
        raise InputError(f"the archive {source} {error}; " + (
            "get it anew" if local else "the download was deleted, nothing was unpacked")) from None
    if name not in SHA256:
        files.write_json(records, {**recorded, name: digest})
    if not local:
        archive.unlink()
    for category in wanted:
        log.info("%s: now in %s", category, root / category)


def _local_path(source: str) -> Path | None:
    """The path of an archive that is already here; None for an http(s) address."""
    if "://" not in source:
        return Path(source).expanduser()
    with contextlib.suppress(ValueError):  # of a malformed host
        parts = urlsplit(source)
        if parts.scheme == "file":
            return Path(urllib.request.url2pathname(parts.path))
        if parts.scheme in ("http", "https") and (parts.hostname or "").encode("idna") \
                and source.isascii() and source.isprintable() and " " not in source:
            return None
    raise InputError(f"cannot download from {source!r}; give an http(s) or file address in ASCII "
                     "(percent-encoded), or the path of a .tar.xz")


def _fetch(url: str, target: Path) -> Path:
    """Fetch an http(s) url to `target`, which is there only when it is whole. What came so far lies
    in TARGET.part, and every try goes on after it."""
    part = target.with_name(f"{target.name}.part")
    if target.exists():
        return target
    furthest = idle = 0
    while problem := _once(url, part):
        furthest, idle = (size, 0) if (size := _size(part)) > furthest else (furthest, idle + 1)
        if idle >= len(PAUSES):
            raise InputError(
                f"could not download {url}: {problem}; run the same command again to go on from "
                f"{_megabytes(size)}, or get it by other means and give its path as the url")
        log.info("%s; next try in %g s", problem, PAUSES[idle])
        time.sleep(PAUSES[idle])
    part.replace(target)
    return target


def _once(url: str, part: Path) -> str:
    """One try, from where the last one ended: "" when all is there, else what went wrong that
    another one may mend."""
    start = _size(part)
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        # asked for more than there is: the hash, or the archive's end, says whether that was all
        return "" if error.code == 416 else _refused(url, error.code)
    except (OSError, http.client.HTTPException) as error:
        return f"the connection broke off ({error})"
    with response:
        if response.status == 206 and not response.headers.get("Content-Range", "").startswith(
                f"bytes {start}-"):
            part.unlink()
            return "the server did not go on where it was asked to"
        if response.status != 206:
            part.write_bytes(b"")
        with part.open("ab") as file:
            end = None if response.length is None else file.tell() + response.length
            while block := _read(response):
                file.write(block)
                size = file.tell()
                if size > MAX_BYTES:
                    part.unlink()
                    raise InputError(f"{url} sends more than {_megabytes(MAX_BYTES)}, too much to "
                                     "be right; check it")
                if size // _STEP > (size - len(block)) // _STEP:
                    log.info("%s: %s%s", part.stem, _megabytes(size),
                             f" of {_megabytes(end)}" if end else "")
    if block is not None and end in (None, _size(part)):
        return ""
    return f"the connection broke off after {_size(part):,}" + (
        f" of {end:,} bytes" if end else " bytes")


def _read(response: http.client.HTTPResponse) -> bytes | None:
    """What has come, b"" at the end, None where the connection broke off."""
    try:
        return response.read1(1 << 16)
    except (OSError, http.client.HTTPException):
        return None


def _refused(url: str, status: int) -> str:
    """What to say of an HTTP error that may pass; InputError for one that stays."""
    if status in (408, 429) or status >= 500:
        return f"the server answered {status}"
    raise InputError(
        f"the server answered {status} for {url}; fetch it by other means and give its path as the "
        "url, or get 'all' (the addresses of single categories are older)")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


def _unpack(archive: Path, wanted: list[str], root: Path, temporary: Path) -> None:
    """Unpack the wanted categories beside their places and rename each into place when all of it is
    sound."""
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        _extract(archive, set(wanted), temporary)
        places = {name: [folder for folder in (temporary / name, *temporary.glob(f"*/{name}"))
                         if (folder / "train" / "good").is_dir()] for name in wanted}
        if absent := [f"{name}/train/good" for name in wanted if not places[name]]:
            raise InputError(f"{archive} holds no {', '.join(absent)}; ask only for categories "
                             "that it holds, or give another url")
        for name in wanted:
            places[name][0].replace(root / name)
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
                    raise _BadArchive(
                        f"would unpack to more than {_megabytes(MAX_BYTES)} or {MAX_MEMBERS:,} "
                        f"files (at {member.name!r}), so it is not MVTec AD")
                if member.isreg() and wanted.intersection(PurePosixPath(member.name).parts[:2]):
                    tar.extract(member, target, set_attrs=False, **safe)
            # reads on to xz's own checksum at the end
            if stream.read(1 << 20).strip(b"\0") or stream.read(1):
                raise tarfile.ReadError("something follows the end of the tar")
    except (_BadArchive, OSError):
        raise
    except Exception as error:  # whatever tarfile trips over in a damaged or hostile header
        raise _BadArchive(
            f"is no sound .tar.xz, or not all of it ({files.reason_of(error)})") from None


def _refuse_hostile(member: tarfile.TarInfo) -> None:
    path = member.name.replace("\\", "/")
    if path.startswith("/") or ".." in path.split("/") or re.match("[A-Za-z]:", path):
        why = "would land outside the folder"
    elif member.issym() or member.islnk():
        why = f"is a link (to {member.linkname!r})"
    elif member.issparse() or member.size < 0:  # neither says how much it unpacks to
        why = "hides its size"
    elif not (member.isreg() or member.isdir()):
        why = "is neither a file nor a folder"
    else:
        return
    raise _BadArchive(f"is hostile: its member {member.name!r} {why}")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(6)
        if start != b"\xfd7zXZ\0":
            raise _BadArchive(f"is no .tar.xz (it begins with {start!r})")
        digest = hashlib.sha256(start)
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
