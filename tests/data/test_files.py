import errno
import math
import os
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adlib.config import InputError
from adlib.data import files


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path):
    path = tmp_path / "a.txt"
    files.write_text(path, "old")
    with pytest.raises(RuntimeError), files.atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_disk_full_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match="cannot write .*a.txt: No space left on device; free "
                                         "some space"), \
            files.atomic_path(tmp_path / "a.txt"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert not list(tmp_path.iterdir())


def test_files_that_threads_write_at_once_are_for_whom_the_umask_says(tmp_path):
    before, switch = os.umask(0o027), sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda i: files.write_text(tmp_path / str(i), ""), range(500)))
    finally:
        sys.setswitchinterval(switch)
        after = os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o640}
    assert after == 0o027


def test_a_cache_is_as_good_as_none_whatever_byte_of_its_header_is_damaged(tmp_path):
    path, shape = tmp_path / "a.npy", (3, 4)
    files.write_array(path, np.zeros(shape, np.uint8))
    whole, random = path.read_bytes(), np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[random.integers(128)] = random.integers(256)
        path.write_bytes(damaged)
        assert (found := files.open_mapped(path, shape, np.uint8)) is None or found.shape == shape


def test_a_cache_that_can_only_be_read_is_read(tmp_path, monkeypatch):
    files.write_array(tmp_path / "a.npy", np.arange(3))

    def of_another_user(*_):
        raise PermissionError(1, "Operation not permitted")

    for change in ("utime", "open"):
        monkeypatch.setattr(os, change, of_another_user)
    assert files.open_mapped(tmp_path / "a.npy", None, int).tolist() == [0, 1, 2]


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        files.write_json(tmp_path / "file" / "a.json", {})


def test_json_has_no_nan_and_a_fixed_order(tmp_path):
    files.write_json(tmp_path / "a.json", {"b": math.nan, "a": [1, math.inf]})
    assert files.read_json(tmp_path / "a.json") == {"a": [1, None], "b": None}
    assert (tmp_path / "a.json").read_text().index('"a"') < (tmp_path /
                                                             "a.json").read_text().index('"b"')
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(InputError, match="not valid JSON"):
        files.read_json(tmp_path / "a.json")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_json_of_any_unicode_encoding(tmp_path, encoding):
    (tmp_path / "a.json").write_bytes('{"é":\r\n "缺陷"}\r\n'.encode(encoding))
    assert files.read_json(tmp_path / "a.json") == {"é": "缺陷"}


@pytest.mark.parametrize("text", ['{"a": 1, "b": 2, "a": 1}', '[{"x": {"a": 1, "a": 2}}]'])
def test_json_with_a_key_twice_is_refused(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match="it has 'a' twice"):
        files.read_json(tmp_path / "a.json")


def test_a_file_that_windows_wrote_reads_the_same_and_ours_are_alike_on_any_system(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b"\xef\xbb\xbf{\r\n \"\xc3\xa9\": [1,\r\n2]\r\n}\r\n")
    assert files.read_json(path) == {"\u00e9": [1, 2]}
    files.write_json(path, {"\u00e9": 1})
    assert path.read_bytes() == b"{\n \"\xc3\xa9\": 1\n}\n"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 20), min_size=1, max_size=6), st.integers(0, 60), st.data())
def test_the_oldest_are_forgotten_until_the_rest_fits(tmp_path_factory, sizes, limit, data):
    ages = data.draw(st.permutations(range(len(sizes))))  # the higher, the older
    newest = data.draw(st.integers(0, len(sizes) - 1))  # usually not the youngest: clocks differ
    folder = tmp_path_factory.mktemp("kept")
    paths = [folder / f"{i}.npy" for i in range(len(sizes))]
    for path, size, age in zip(paths, sizes, ages, strict=True):
        path.write_bytes(b"x" * size)
        os.utime(path, (1e9 - age, 1e9 - age))
    files.forget(paths[newest], limit, 1)
    left = {i for i, path in enumerate(paths) if path.exists()}
    gone = set(range(len(sizes))) - left
    assert newest in left
    assert sum(sizes[i] for i in left) <= limit or left == {newest}
    if gone:
        # the oldest first
        assert min(ages[i] for i in gone) > max((ages[i] for i in left - {newest}), default=-1)
        youngest = min(gone, key=lambda i: ages[i])
        assert sum(sizes[i] for i in left | {youngest}) > limit  # and no more than needed


def test_a_folder_is_looked_through_when_a_twentieth_was_written(tmp_path):
    paths = [tmp_path / f"{i}.npy" for i in range(4)]
    for path in paths[:2]:
        path.write_bytes(b"x" * 100)
    files.forget(paths[1], 100, 4)  # what lay there before this process
    assert not paths[0].exists()
    for path, left in ((paths[2], 2), (paths[3], 1)):
        path.write_bytes(b"x" * 100)
        files.forget(path, 100, 3)
        assert len(list(tmp_path.iterdir())) == left


def test_other_files_are_not_features(tmp_path):
    for name in ("new.npy", "old.npy", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    files.forget(tmp_path / "new.npy", 0, 1)
    assert {path.name for path in tmp_path.iterdir()} == {"new.npy", "notes.txt"}


def test_what_goes_wrong_is_said_with_its_reason_and_what_to_do():
    for error, why in ((OSError(28, "No space left on device"), "No space left on device"),
                       (ValueError("of another kind"), "of another kind"),
                       (KeyError(), "KeyError")):
        sentence = f"^a.png cannot be read .{why}.; mend or remove it$"
        with pytest.raises(InputError, match=sentence), files.saying("a.png cannot be read"):
            raise error
    with pytest.raises(ValueError, match="^a mistake of ours$"), files.saying(
            "cannot write b", "make room", OSError):
        raise ValueError("a mistake of ours")
