"""Downloads from a server on this machine that breaks off, ignores, lies and serves hostile
archives."""
from __future__ import annotations

import hashlib
import http.client
import http.server
import io
import json
import logging
import lzma
import re
import subprocess
import sys
import tarfile
import threading

import filelock
import numpy as np
import pytest

from adlib.config import InputError, log
from adlib.data import mvtec

BLOCK = 1 << 16


class Server(http.server.ThreadingHTTPServer):
    """Serves `body` at every path. Its faults are attributes; `requests` keeps the headers of each
    request."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.body, self.requests, self.paths = b"", [], []
        # after so many bytes of the first, second, ... answer the connection is cut
        self.breaks = []
        self.declared = []  # false lengths of the first, second, ... answer
        self.ranges, self.content_range, self.silent = True, None, False
        self.stall = self.redirect = None
        self.statuses = []  # of the first, second, ... answer, instead of the file
        self.url = f"http://127.0.0.1:{self.server_address[1]}/"

    def handle_error(self, request, client_address):
        pass  # a client that hangs up is part of the tests


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        server = self.server
        server.requests.append(dict(self.headers))
        server.paths.append(self.path)
        if server.statuses and (status := server.statuses.pop(0)) != 200:
            return self.send_error(status)
        if server.redirect and server.redirect != server.url + self.path[1:]:
            self.send_response(302)
            self.send_header("Location", server.redirect)
            return self.end_headers()
        body, asked = server.body, self.headers.get("Range")
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        if asked and server.ranges:
            if start >= len(body):
                return self.send_error(416)
            self.send_response(206)
            whole = f"bytes {start}-{len(body) - 1}/{len(body)}"
            self.send_header("Content-Range", server.content_range or whole)
            body = body[start:]
        else:
            self.send_response(200)
        if not server.silent:
            self.send_header("Content-Length",
                             str(server.declared.pop(0) if server.declared else len(body)))
        self.end_headers()
        if server.stall and not server.stall.is_set():
            self.wfile.write(body[:BLOCK])
            server.stall.wait(20)
        else:
            self.wfile.write(body[:server.breaks.pop(0)] if server.breaks else body)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(mvtec, "PAUSES", (0.0, 0.01, 0.01))
    monkeypatch.setenv("no_proxy", "*")
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.01, ), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def archive(*members, categories=("hazelnut", ), top="") -> bytes:
    """A .tar.xz of tiny categories in MVTec's layout (incompressible, so a few blocks long) and odd
    members."""
    noise = np.random.default_rng(0)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:xz") as tar:
        for category in categories:
            for name in ("train/good/000.png", "train/good/001.png", "test/good/000.png",
                         "test/crack/000.png", "ground_truth/crack/000_mask.png", "license.txt"):
                info = tarfile.TarInfo(f"{top}{category}/{name}")
                info.size = 40_000
                tar.addfile(info, io.BytesIO(noise.bytes(info.size)))
        for info in members:
            tar.addfile(info, io.BytesIO(b"x" * info.size) if info.isreg() else None)
    return buffer.getvalue()


def digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def member(name, kind=tarfile.REGTYPE, link="", size=0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, size
    return info


def get(root, url=None, categories=("hazelnut", ), **options):
    handler = logging.StreamHandler(said := io.StringIO())
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        folders = mvtec.get(categories, root, accept_license=True, url=url, **options)
    finally:
        log.removeHandler(handler)
    return folders, said.getvalue().strip()


def fails(root, url, **options) -> str:
    """The error's sentence, having checked that nothing came into being outside the working folder.
    """
    with pytest.raises(InputError) as caught:
        get(root, url, **options)
    here = {path.name for path in root.iterdir()} if root.exists() else set()
    assert here <= {".downloads", "archives.json"}
    assert not (root / ".downloads" / "unpacking").exists()
    return str(caught.value)


def test_good_path_gives_the_layout_and_leaves_no_archive(server, tmp_path):
    server.body = archive()
    root = tmp_path / "data"
    folders, said = get(root, server.url + "hazelnut.tar.xz")
    assert folders == [root / "hazelnut"]
    for name in ("train/good/000.png", "test/crack/000.png", "ground_truth/crack/000_mask.png",
                 "license.txt"):
        assert (root / "hazelnut" / name).stat().st_size == 40_000
    assert {path.name for path in (root / ".downloads").iterdir()} <= {"lock"}
    assert json.loads(
        (root / "archives.json").read_text()) == {"hazelnut.tar.xz": digest(server.body)}
    assert "hazelnut.tar.xz: checking the hash of 0.2 MB" in said
    assert get(root,
               server.url + "hazelnut.tar.xz")[1] == f"hazelnut: already in {root / 'hazelnut'}"
    assert len(server.requests) == 1


def test_the_table_is_used_category_by_category_or_whole(server, tmp_path, monkeypatch):
    monkeypatch.setattr(
        mvtec, "ARCHIVES",
        {name: server.url + url.rsplit("/", 1)[1]
         for name, url in mvtec.ARCHIVES.items()})
    server.body = archive(categories=mvtec.CATEGORIES)
    get(tmp_path / "a", categories=("zipper", "hazelnut", "zipper"))
    assert server.paths == ["/zipper.tar.xz", "/hazelnut.tar.xz"]
    assert not (tmp_path / "a" / "bottle").exists()
    message = fails(tmp_path / "b", None, categories=())
    assert server.paths[2:] == ["/mvtec_anomaly_detection.tar.xz"]
    # the published one
    assert "expected cf4313b13603bec67abb49ca959488f7eedce2a9f7795ec54446c649ac98cd3d" in message
    monkeypatch.setattr(mvtec, "SHA256", {"mvtec_anomaly_detection.tar.xz": digest(server.body)})
    folders, _ = get(tmp_path / "b", categories=("all", ))
    assert [folder.name for folder in folders] == list(mvtec.CATEGORIES)
    assert not (tmp_path / "b" / "archives.json").exists()


@pytest.mark.parametrize("form", ["path", "file"])
def test_an_archive_that_is_already_here_is_used_and_left_alone(tmp_path, form):
    local = tmp_path / "some name.tar.xz"
    local.write_bytes(archive(categories=("hazelnut", "zipper", "wood"), top="mvtec/"))
    url = str(local) if form == "path" else local.as_uri()
    get(tmp_path / "data", url, categories=("zipper", "hazelnut"))
    assert sorted(path.name for path in (tmp_path / "data").iterdir()
                  if path.name[0] != ".") == ["archives.json", "hazelnut", "zipper"]
    assert local.exists()


def test_licence_and_names_come_before_any_request(server, tmp_path):
    with pytest.raises(InputError,
                       match=r"CC BY-NC-SA 4.0.*no commercial use.*Bergmann.*--accept-license"):
        mvtec.get(["hazelnut"], tmp_path, accept_license=False, url=server.url)
    assert "did you mean 'hazelnut'" in fails(tmp_path, server.url, categories=("hazlenut", ))
    assert "64 hexadecimal" in fails(tmp_path, server.url, sha256="abc")
    assert "one by one" in fails(tmp_path, None, categories=("wood", "tile"), sha256="0" * 64)
    assert server.requests == []


def downloads(root, pattern="*.part*"):
    return sorted((root / ".downloads").glob(pattern))


def test_goes_on_where_the_connection_broke_off(server, tmp_path):
    server.body, server.breaks = archive(), [BLOCK + 7, 0, BLOCK]
    _, said = get(tmp_path, server.url + "hazelnut.tar.xz")
    asked = [request.get("Range") for request in server.requests]
    assert asked == [None, f"bytes={BLOCK + 7}-", f"bytes={BLOCK + 7}-", f"bytes={2 * BLOCK + 7}-"]
    assert f"broke off after {BLOCK + 7:,} of {len(server.body):,} bytes" in said


def test_a_later_call_goes_on_where_an_earlier_one_gave_up(server, tmp_path):
    server.body, server.breaks = archive(), [BLOCK, 0, 0, 0]
    message = fails(tmp_path, server.url + "hazelnut.tar.xz")
    assert "broke off" in message and "run the same command again" in message
    assert [path.stat().st_size for path in downloads(tmp_path)] == [BLOCK]
    get(tmp_path, server.url + "hazelnut.tar.xz")
    assert server.requests[-1]["Range"] == f"bytes={BLOCK}-"


def test_an_interrupted_download_is_kept(server, tmp_path, monkeypatch):
    server.body, read = archive(), http.client.HTTPResponse.read1

    def interrupted(response, most):
        if downloads(tmp_path)[0].stat().st_size or server.interrupted:
            raise KeyboardInterrupt
        server.interrupted = True
        return read(response, most)

    server.interrupted = False
    monkeypatch.setattr(http.client.HTTPResponse, "read1", interrupted)
    with pytest.raises(KeyboardInterrupt):
        get(tmp_path, server.url + "hazelnut.tar.xz")
    kept = downloads(tmp_path)[0].stat().st_size
    assert 0 < kept < len(server.body)
    monkeypatch.undo()
    get(tmp_path, server.url + "hazelnut.tar.xz")
    assert server.requests[-1]["Range"] == f"bytes={kept}-"


def test_a_server_that_falls_silent_is_asked_again(server, tmp_path, monkeypatch):
    monkeypatch.setattr(mvtec, "TIMEOUT", 0.2)
    server.body, server.stall = archive(), threading.Event()
    pauses = []
    monkeypatch.setattr(mvtec.time, "sleep", lambda s: pauses.append(s) or server.stall.set())
    get(tmp_path, server.url + "hazelnut.tar.xz")
    assert len(pauses) == 1 and re.fullmatch(r"bytes=\d+-", server.requests[-1]["Range"])


def test_a_server_that_ignores_range_gives_the_whole_anew(server, tmp_path):
    server.body, server.breaks, server.ranges = archive(), [BLOCK], False
    get(tmp_path, server.url + "hazelnut.tar.xz")
    assert (tmp_path / "hazelnut").is_dir() and len(server.requests) == 2


def test_ignoring_range_and_always_breaking_off_ends(server, tmp_path):
    server.body, server.breaks, server.ranges = archive(), [BLOCK] * 50, False
    assert "could not download" in fails(tmp_path, server.url)
    assert len(server.requests) <= 6


def test_another_address_is_never_gone_on_with(server, tmp_path):
    server.body, server.breaks = b"\xfd" * 3 * BLOCK, [BLOCK, 0, 0, 0]
    fails(tmp_path, server.url + "old/x.tar.xz")
    server.body = archive()
    get(tmp_path, server.url + "new/x.tar.xz")
    assert "Range" not in server.requests[-1]


def test_a_file_that_changed_between_two_parts_is_not_unpacked(server, tmp_path):
    server.body, server.breaks = b"\xfd" * 3 * BLOCK, [BLOCK, 0, 0, 0]
    fails(tmp_path, server.url + "x.tar.xz")
    server.body = archive()
    assert "the download was deleted" in fails(tmp_path, server.url + "x.tar.xz")
    get(tmp_path, server.url + "x.tar.xz")
    assert (tmp_path / "hazelnut").is_dir()


def test_a_206_that_starts_elsewhere_is_not_appended(server, tmp_path):
    server.body, server.breaks = archive(), [BLOCK]
    server.content_range = f"bytes {BLOCK - 1}-{len(server.body) - 2}/{len(server.body)}"
    get(tmp_path, server.url)
    assert "Range" not in server.requests[-1]


def test_an_announced_length_that_never_comes_is_noticed(server, tmp_path):
    server.body, server.declared, server.ranges = archive(), [10_000_000] * 9, False
    assert "could not download" in fails(tmp_path, server.url)


def test_a_part_that_is_already_all_of_the_file_is_whole(server, tmp_path):
    # a lie, taken back with a 416 when asked for the rest
    server.body, server.declared = archive(), [10_000_000]
    get(tmp_path, server.url + "x.tar.xz", sha256=digest(server.body))
    assert len(server.requests) == 2


def test_an_announced_length_that_is_too_short_is_noticed(server, tmp_path):
    server.body, server.declared = archive(), [100_000] * 9
    assert "not all of it" in fails(tmp_path, server.url)
    right = digest(server.body)
    assert f"expected {right}, got " in fails(tmp_path, server.url, sha256=right)


def test_no_length_announced_is_fine(server, tmp_path):
    server.body, server.silent = archive(), True
    get(tmp_path, server.url)
    assert (tmp_path / "hazelnut").is_dir()


@pytest.mark.parametrize("announced", [True, False])
def test_a_flood_is_cut_off(server, tmp_path, monkeypatch, announced):
    monkeypatch.setattr(mvtec, "MAX_BYTES", 100_000)
    server.body, server.silent = archive(), not announced
    assert "sends more than 0.1 MB" in fails(tmp_path, server.url)
    assert downloads(tmp_path) == []


def test_statuses(server, tmp_path):
    server.body, server.statuses = archive(), [404]
    message = fails(tmp_path, server.url + "hazelnut.tar.xz")
    assert "404" in message and server.url in message and len(server.requests) == 1
    server.statuses = [503, 429, 200]
    _, said = get(tmp_path, server.url + "hazelnut.tar.xz")
    assert len(server.requests) == 4 and "the server answered 503; next try" in said


def test_a_redirect_to_a_file_is_not_followed(server, tmp_path):
    (tmp_path / "secret.tar.xz").write_bytes(archive())
    server.redirect = (tmp_path / "secret.tar.xz").as_uri()
    fails(tmp_path / "data", server.url + "hazelnut.tar.xz")
    server.redirect = server.url + "elsewhere.tar.xz"
    server.body = archive()
    get(tmp_path / "data", server.url + "hazelnut.tar.xz")
    assert server.paths[-1] == "/elsewhere.tar.xz"


def test_nobody_listening_and_bad_addresses(server, tmp_path):
    url = server.url
    server.shutdown()
    server.server_close()
    message = fails(tmp_path, url)
    assert "could not download" in message and "onnect" in message
    for bad in ("ftp://example.com/x.tar.xz", "http://", "http://[1/x.tar.xz", "http://a b/x.tar.xz",
                "http://a/\n.tar.xz", "-o/tmp/x://a"):
        assert "http(s) or file" in fails(tmp_path, bad)
    assert "no archive file" in fails(tmp_path, str(tmp_path / "absent.tar.xz"))


def test_an_error_that_no_other_try_mends_is_one_sentence(server, tmp_path):
    server.body = archive()
    address = hashlib.sha256((server.url + "x.tar.xz").encode()).hexdigest()[:8]
    (tmp_path / ".downloads" / f"{address}-x.tar.xz.part").mkdir(parents=True)
    with pytest.raises(InputError, match="cannot read or write .*x.tar.xz.part: Is a directory"):
        get(tmp_path, server.url + "x.tar.xz")


def test_a_wrong_hash_deletes_the_download(server, tmp_path):
    server.body = archive()
    message = fails(tmp_path, server.url + "hazelnut.tar.xz", sha256="A" * 64)
    assert f"expected {'a' * 64}, got {digest(server.body)}" in message
    assert downloads(tmp_path, "*.tar.xz*") == []


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


def test_two_at_once(server, tmp_path):
    (tmp_path / ".downloads").mkdir()
    with filelock.FileLock(tmp_path / ".downloads" / "lock"):
        assert "another download" in fails(tmp_path, server.url)


def test_disk_full_is_a_sentence_and_keeps_the_download(server, tmp_path, monkeypatch):
    server.body = archive()

    def full(*_args, **_options):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(tarfile.TarFile, "extract", full)
        assert "No space left on device" in fails(tmp_path, server.url + "x.tar.xz")
    get(tmp_path, server.url + "x.tar.xz")
    assert len(server.requests) == 1  # the whole archive was still there


def test_progress_is_told(server, tmp_path, monkeypatch):
    monkeypatch.setattr(mvtec, "_STEP", 100_000)
    server.body = archive()
    _, said = get(tmp_path, server.url + "hazelnut.tar.xz")
    assert "hazelnut.tar.xz: 0.1 MB of 0.2 MB" in said


def test_importing_is_light():
    script = "import sys, adlib.data.mvtec; sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0
