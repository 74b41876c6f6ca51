"""Downloads from a server on this machine that breaks off, ignores and lies."""
from __future__ import annotations

import hashlib
import http.client
import http.server
import io
import json
import logging
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
from tests.data.conftest import BLOCK


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
                "http://a/\n.tar.xz", "-o/tmp/x://a", "http://a/图.tar.xz", "http://a..b/x"):
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


def test_two_at_once(server, tmp_path):
    (tmp_path / ".downloads").mkdir()
    with filelock.FileLock(tmp_path / ".downloads" / "lock"):
        assert "another download" in fails(tmp_path, server.url)


def test_progress_is_told(server, tmp_path, monkeypatch):
    monkeypatch.setattr(mvtec, "_STEP", 100_000)
    server.body = archive()
    _, said = get(tmp_path, server.url + "hazelnut.tar.xz")
    assert "hazelnut.tar.xz: 0.1 MB of 0.2 MB" in said


def test_importing_is_light():
    script = "import sys, adlib.data.mvtec; sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0
