"""What a page shows in place of this machine's folders, so that its command can be given."""
import shlex

from adlib.config import study_root
from adlib.report.pages import machine_paths
from adlib.runs import grid


def given(*words: str) -> list[str]:
    """A command as a page shows it."""
    command = shlex.join(["adlib", *map(str, words)])
    return shlex.split(machine_paths.without_paths(command, machine_paths.shown([command])))


def test_a_configuration_that_adlib_brings_is_named_by_a_path_that_can_be_given(tmp_path,
                                                                               monkeypatch):
    """`adlib new` works in any folder, and names the configuration by where adlib is installed."""
    monkeypatch.chdir(tmp_path)
    named = given("run", study_root() / "params" / "configurations" / "fused.yaml")[2]
    assert named == "params/configurations/fused.yaml" and "fused" in grid.read(named).configs


def test_a_file_of_weights_elsewhere_gets_a_path_to_be_filled_in(tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    assert given("check", "--data", tmp_path / "parts", "--weights", tmp_path / "r.pth") == [
        "adlib", "check", "--data", "parts", "--weights", "path/to/r.pth"]
    assert given("check", "--weights", tmp_path / "work" / "r.pth")[3] == "r.pth"
