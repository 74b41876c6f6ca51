"""Bad input at the command line: one sentence, exit code not 0, nothing lost. And `adlib check`,
line by line."""
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from adlib import cli, config
from adlib.report.pages import site
from tests.handmade import DISTANCE, category, finished, ranks


def fails(capsys, *words):
    code = cli.main([str(word) for word in words])
    err = capsys.readouterr().err
    assert code == 2 and err.startswith("adlib: ") and err.count("\n") == 1, (code, err)
    return err


@pytest.fixture
def reports(tmp_path):
    return tmp_path / "reports"


@pytest.mark.parametrize(
    "words, said", [(["--data", "/nowhere"], "parameter data_root is '/nowhere', which is missing"),
                    (["--only", "category=nutt"], "did you mean 'nut'"),
                    (["--only", "config=cae_mes"], "did you mean 'cae_mse'"),
                    (["--only", "colour=red"], "colour")])
def test_run_says_what_is_wrong(capsys, course_root, reports, words, said):
    data = [] if "--data" in words else ["--data", course_root]
    assert said in fails(capsys, "run", "params/grids/smoke.yaml", "--reports", reports, *data, *words)
    assert not (reports / "runs").exists()


def test_a_data_folder_that_is_a_file_or_empty(capsys, tmp_path, reports):
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    assert "a file" in fails(capsys, "run", "params/grids/smoke.yaml", "--reports", reports, "--data",
                             tmp_path / "file")
    empty = fails(capsys, "run", "params/grids/smoke.yaml", "--reports", reports, "--data",
                  tmp_path / "empty")
    assert "no folder <category>/train/good" in empty


@pytest.mark.parametrize("text, said",
                         [("confgs: [cae_mse]", "did you mean 'configs'"),
                          ("configs: [cae_mes]", "cae_mes"), ("configs: [", "YAML"),
                          ("configs: [cae_mse]\nset: {epocs: 3}", "did you mean 'epochs'"),
                          ("configs: [cae_mse]\nset: {image_size: 100}", "multiple of 32")])
def test_a_bad_grid(capsys, tmp_path, course_root, reports, text, said):
    (tmp_path / "cae_mse.yaml").write_text("name: cae_mse\nmodel: cae\n")
    (tmp_path / "grid.yaml").write_text(text)
    assert said in fails(capsys, "run", tmp_path / "grid.yaml", "--reports", reports, "--data",
                         course_root)


def test_a_grid_that_is_not_there(capsys, reports):
    assert "params/grids/none.yaml" in fails(capsys, "run", "params/grids/none.yaml", "--reports", reports)


def test_report_without_runs(capsys, reports):
    assert "there is no" in fails(capsys, "report", "--reports", reports)


def test_what_is_said_at_the_end_is_of_the_parts_that_were_asked_for(capsys, reports, monkeypatch):
    """After `adlib new zip`, the next command is zip's, whatever else was once run here."""
    monkeypatch.setattr(site, "build", lambda reports, **_: reports / "index.html")
    for name in ("nut", "zip"):
        finished(reports, "memory", {DISTANCE: ranks(category(), 1.0)},
                 where=category(name))
    cli._report(reports, language="en", only={"zip"})
    out = capsys.readouterr().out
    assert "zip/memory/seed-0 FOLDER" in out and "nut" not in out
    cli._report(reports, language="en")
    out = capsys.readouterr().out
    assert "nut/memory/seed-0 FOLDER" in out and "zip" in out


def test_check_ready(capsys, course_root, reports):
    assert cli.main(
        ["check", "--data",
         str(course_root), "--reports",
         str(reports), "--weights", "none"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0].strip() for line in lines if not line.startswith(" ")] == [
        "versions", "device", "data", "weights", "suspects", "write access", "ready"
    ]
    assert any("nut: images train/good (8), test (6), train/bad (2)" in line for line in lines)


def test_check_not_ready(capsys, course_root, reports, tmp_path):
    (course_root / "nut" / "test" / "000.png").write_bytes(b"")
    (course_root / "zip" / "train" / "good" / "001.png").write_bytes(b"")
    assert cli.main([
        "check", "--data",
        str(course_root), "--reports",
        str(reports), "--weights",
        str(tmp_path / "none.pth")
    ]) == 1
    out = capsys.readouterr().out
    assert "NOT READY" in out and "000.png" in out and "zip/train/good/001.png" in out and "none.pth is missing" in out


def test_help_is_quick_and_loads_no_torch():
    code = (
        "import sys; from adlib import cli\ntry: cli.main(['--help'])\nexcept SystemExit: pass\n"
        "print(sorted({'torch', 'matplotlib', 'pandas'} & set(sys.modules)))")
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                         check=True).stdout
    assert out.splitlines()[-1] == "[]"


def test_what_compares_and_reports_loads_no_torch():
    code = ("import sys; from adlib.evaluation import results; from adlib.report import "
            "questions, study; from adlib.report.display import charts, tables; "
            "from adlib.report.pages import site; from adlib.report.words import answers\n"
            "print('torch' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          check=True).stdout == "False\n"


def test_data_synthesize(capsys, tmp_path):
    words = [
        "--root",
        str(tmp_path / "s"), "--train", "2", "--good", "1", "--anomalous", "2", "--pixels", "32"
    ]
    assert cli.main(["data", "synthesize", *words]) == 0
    assert json.loads((tmp_path / "s" / "synthetic.json").read_text())["anomalous"] == 2


def test_data_get_wants_the_licence_accepted(capsys, tmp_path):
    assert "CC BY-NC-SA 4.0" in fails(capsys, "data", "get", "hazelnut", "--root", tmp_path)


DETECTOR = """
class MeanImage:
    def fit(self, images):
        self.mean = images.float().mean(0, keepdim=True)
        return self
    def anomaly_maps(self, images):
        return (images.float() - self.mean).abs().mean(1)
"""


def test_check_of_a_detector_of_ones_own(capsys, tmp_path):
    path = tmp_path / "mean_image.py"
    path.write_text(DETECTOR)
    assert cli.main(["check", str(path)]) == 0
    out = capsys.readouterr().out
    assert "FAIL" not in out and (
        out.splitlines()[-1] == f"ready: give model: {path}:MeanImage in a configuration")
    path.write_text(DETECTOR.replace(".mean(1)", ""))
    assert cli.main(["check", f"{path}:MeanImage"]) == 1
    out = capsys.readouterr().out
    assert "FAIL  its maps are [N,h,w]" in out and "not ready" in out
    path.write_text(DETECTOR.replace("def fit(", "def train("))
    assert cli.main(["check", str(path)]) == 1
    assert "MeanImage has no method fit(images)" in capsys.readouterr().out
    assert "no file" in fails(capsys, "check", tmp_path / "gone.py")
    (tmp_path / "picture.png").touch()
    assert "is no Python file" in fails(capsys, "check", tmp_path / "picture.png")
    path.write_text("")
    assert "holds no class with fit(images)" in fails(capsys, "check", path)


def test_the_log_is_shown_once_on_whatever_standard_output_is_now(capsys):
    for _ in range(2):
        config.show_log()
    config.log.info("one line")
    assert capsys.readouterr().out == "one line\n"


def test_a_pipe_without_all_characters_ends_no_command(tmp_path):
    """As Windows' pipes are."""
    done = subprocess.run(
        [sys.executable, "-m", "adlib.cli", "data", "synthesize", "--root",
         str(tmp_path / "\u87ba\u6bcd"), "--train", "2", "--good", "1", "--anomalous", "1",
         "--pixels", "32"], capture_output=True, cwd=tmp_path,
        env=os.environ | {"PYTHONIOENCODING": "cp1252", "PYTHONPATH": str(Path(cli.__file__).parents[1])})
    assert done.returncode == 0 and done.stdout.rstrip().endswith(b"??"), done


def test_a_reader_that_has_seen_enough_ends_a_command_without_a_trace(tmp_path):
    code = ("import sys; from adlib import cli; sys.stdin.read(); "
            "sys.exit(cli.main(['check', '--data', 'nowhere', '--weights', 'none']))")
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, cwd=tmp_path,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        process.stdin.close()
        assert (process.stderr.read(), process.wait()) == (b"", 141)
