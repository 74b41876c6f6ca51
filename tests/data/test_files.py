import errno
import math

import pytest

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
