"""What is in an archive of MVTec AD: nothing hostile is unpacked, and nothing damaged."""
from __future__ import annotations

import io
import lzma
import re
import tarfile

import pytest

from adlib.config import InputError
from adlib.data import mvtec
from tests.data.test_mvtec import archive, digest, downloads, fails, get


def member(name, kind=tarfile.REGTYPE, link="", size=0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, size
    return info


def test_a_recorded_hash_that_changed_is_refused(server, tmp_path):
    server.body = archive()
    get(tmp_path / "one", server.url + "hazelnut.tar.xz")
    root = tmp_path / "two"
    root.mkdir()
    (tmp_path / "one" / "archives.json").rename(root / "archives.json")
    server.body = archive(member("hazelnut/new", size=1))
    message = fails(root, server.url + "hazelnut.tar.xz")
    assert "wrong sha256" in message and str(root / "archives.json") in message
    get(root, server.url + "hazelnut.tar.xz", sha256=digest(server.body))  # said so: trusted
    assert digest(server.body) in (root / "archives.json").read_text()


HOSTILE = {
    "parent": (member("../evil", size=1), "'../evil' would land outside"),
    "deep parent": (member("hazelnut/../../evil", size=1), "would land outside"),
    "backslashes": (member("..\\evil", size=1), "would land outside"),
    "absolute": (member("/tmp/adlib-evil", size=1), "'/tmp/adlib-evil' would land outside"),
    "drive": (member("C:evil", size=1), "would land outside"),
    "symlink": (member("hazelnut/link", tarfile.SYMTYPE,
                       "/etc"), r"'hazelnut/link' is a link (to '/etc')"),
    "hardlink": (member("hazelnut/link", tarfile.LNKTYPE,
                        "../../x"), r"'hazelnut/link' is a link (to '../../x')"),
    "device": (member("hazelnut/null",
                      tarfile.CHRTYPE), "'hazelnut/null' is neither a file nor a folder"),
    "pipe": (member("hazelnut/pipe", tarfile.FIFOTYPE), "neither a file nor a folder"),
    "sparse": (member("hazelnut/sparse.png",
                      tarfile.GNUTYPE_SPARSE), "'hazelnut/sparse.png' hides its size"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_members_are_named_and_nothing_is_unpacked(server, tmp_path, kind):
    odd, expected = HOSTILE[kind]
    server.body = archive(odd)
    message = fails(tmp_path / "in" / "root", server.url)
    assert expected in message
    assert [path.name for path in tmp_path.rglob("*") if "evil" in path.name] == []
    # what was not used is not trusted
    assert not (tmp_path / "in" / "root" / "archives.json").exists()


def test_size_bombs(server, tmp_path, monkeypatch):
    monkeypatch.setattr(mvtec, "MAX_BYTES", 1_000_000)
    server.body = archive(member("hazelnut/bomb.png", size=2_000_000))
    assert "more than 1.0 MB" in fails(tmp_path, server.url) and len(server.body) < 500_000
    monkeypatch.setattr(mvtec, "MAX_MEMBERS", 3)
    server.body = archive()
    assert "3 files" in fails(tmp_path, server.url)
    with pytest.raises(tarfile.ReadError), mvtec._Stream(io.BytesIO(server.body)) as stream:
        stream.read(1 << 30)


@pytest.mark.parametrize(
    "odd",
    [
        # sends the reader back for ever, and makes room below the limit
        member("hazelnut/minus.png", size=-2**40).tobuf(tarfile.GNU_FORMAT),
        member("hazelnut", tarfile.XHDTYPE).tobuf() * 5000,  # a header to a header to a header ...
        member("hazelnut", tarfile.XHDTYPE, size=28).tobuf() +
        b"28 GNU.sparse.map=1,2,three\n".ljust(512, b"\0"),
    ],
    ids=["negative size", "headers without end", "no number"])
def test_hostile_headers_are_one_sentence(tmp_path, odd):
    (tmp_path / "a.tar.xz").write_bytes(lzma.compress(odd + lzma.decompress(archive())))
    assert re.search("hides its size|no sound .tar.xz",
                     fails(tmp_path / "root", str(tmp_path / "a.tar.xz")))


def _damaged(what: str) -> bytes:
    body = bytearray(archive())
    if what == "flipped":
        body[len(body) // 2] ^= 0xFF
    if what == "checksum":  # of the xz's index, which comes after all of the tar
        body[-16] ^= 0xFF
    if what == "tail":
        return lzma.compress(lzma.decompress(body) + b"more")
    other = {
        "cut": bytes(body[:-5]), "no tar": lzma.compress(b"hello" * 999),
        "html": b"<!DOCTYPE html>", "empty": b""
    }
    return other.get(what, bytes(body))


@pytest.mark.parametrize("what", ["flipped", "checksum", "cut", "no tar", "html", "empty", "tail"])
def test_a_damaged_archive_is_one_sentence(server, tmp_path, what):
    server.body = _damaged(what)
    message = fails(tmp_path, server.url + "x.tar.xz")
    assert ("is no .tar.xz" if what in ("html", "empty") else "no sound .tar.xz") in message
    assert "the download was deleted" in message
    assert downloads(tmp_path, "*.tar.xz*") == []
    local = tmp_path / ".downloads" / "mine.tar.xz"
    local.write_bytes(server.body)
    assert "get it anew" in fails(tmp_path, str(local)) and local.exists()


def test_an_archive_without_the_category(server, tmp_path):
    server.body = archive(categories=("zipper", ))
    assert "holds no hazelnut/train/good" in fails(tmp_path, server.url)


def test_folders_and_files_in_the_way(server, tmp_path):
    server.body = archive()
    (tmp_path / "a" / "hazelnut" / "mine").mkdir(parents=True)
    with pytest.raises(InputError, match="in the way"):
        get(tmp_path / "a", server.url)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot read or write"):
        get(tmp_path / "file", server.url)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "archives.json").write_text("[]")
    assert "archives.json is not a mapping" in fails(tmp_path / "b", server.url)


def test_disk_full_is_a_sentence_and_keeps_the_download(server, tmp_path, monkeypatch):
    server.body = archive()

    def full(*_args, **_options):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(tarfile.TarFile, "extract", full)
        assert "No space left on device" in fails(tmp_path, server.url + "x.tar.xz")
    get(tmp_path, server.url + "x.tar.xz")
    assert len(server.requests) == 1  # the whole archive was still there
