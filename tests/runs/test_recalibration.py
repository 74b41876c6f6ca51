"""A run's threshold from other pictures, and the warning that asks for it."""
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from adlib import cli
from adlib.config import InputError
from adlib.data import files, frame
from adlib.evaluation import calibration
from adlib.report.words import i18n
from adlib.runs import inference, predictions, recalibration, run_folder
from adlib.runs.prediction_record import Source
from tests.conftest import picture
from tests.handmade import of_earlier_version, small_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    base = tmp_path_factory.mktemp("recalibration")
    good = base / "data" / "nut" / "train" / "good"
    _pictures(good, range(30))
    _pictures(base / "data" / "nut" / "test" / "good", range(30, 34))
    _pictures(base / "data" / "nut" / "test" / "crack", range(40, 44), crack=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibration, "SYNTHETIC", 8)
        return small_run(base / "data", base / "reports", model="pca", name="pca", image_size=64,
                         held_out=0.7, target_fpr=0.05)


def _pictures(folder, seeds, crack=False, brighter=0):
    for seed in seeds:
        file = folder / f"{seed:03}.png"
        picture(file, seed, defect=crack, size=64)
        pixels = np.asarray(Image.open(file)).astype(int) // 2 + brighter
        Image.fromarray(pixels.astype(np.uint8)).save(file)


def test_a_recalibrated_run_predicts_by_its_own_pictures(run, tmp_path, capsys, caplog,
                                                         monkeypatch):
    _pictures(tmp_path / "now", range(100, 125), brighter=60)
    out = tmp_path / "made" / "again"
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    assert cli.main(["recalibrate", str(run), str(tmp_path / "now"), "--out", str(out)]) == 0
    assert "from 25 pictures" in capsys.readouterr().out
    parent = inference.reopen(run)
    scores = [parent.scores(parent.decode(path).given[None])[0]
              for path in (tmp_path / "now").iterdir()]
    refused = parent.threshold.exceeded(np.array(scores)).sum()
    told = f"{refused} of these 25 pictures are anomalous" in caplog.text
    assert told == (refused > 1) and "else look at them" in caplog.text
    assert {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()} == before
    new, old = inference.reopen(out), inference.reopen(run)
    assert run_folder.manifest(out)["parent"] == run.name and new.threshold.how == "recalibrated"
    found = new.threshold.calibration
    shown = [Source(path, path.name) for path in sorted((tmp_path / "now").iterdir())]
    assert found.tolist() == [float(old.scores(old.decode(one.path).given[None])[0]) for one in shown]
    assert new.threshold.exceeded(found).mean() <= 0.05
    assert new.before == {"threshold": old.threshold.value, "refused": refused}
    measured = files.read_json(out / "metrics.json")  # nothing was tested by this threshold
    assert measured["chosen"] == {"score": old.decision.score} and measured["auroc"] == {}
    assert set(measured) == {"score", "chosen", "label_free", "maps", "auroc", "calibration"}
    # what the light is, and what the part looks like, is as these pictures are
    usual = new.decision.conditions.calibration["brightness"]
    assert usual.mean() > old.decision.conditions.calibration["brightness"].mean() + 50
    assert len(usual) == len(new.decision.foreign.calibration) == 25
    assert len(old.decision.foreign.calibration) == 30
    cli.main(["predict", str(out), str(tmp_path / "now"), "--out", str(tmp_path / "seen")])
    assert json.loads((tmp_path / "seen" / "predictions.json").read_text())[
        "recalibrated"] == new.before and old.before is None
    with pytest.raises(InputError, match="is there already"):
        recalibration.recalibrate(run, shown, out)
    monkeypatch.chdir(run)
    recalibration.recalibrate(Path(), shown, tmp_path / "third")
    assert run_folder.manifest(tmp_path / "third")["parent"] == run.name


def test_a_picture_without_the_part_is_none_to_calibrate_by(run, tmp_path):
    """Its score, low or high, would be one of the good ones' that the threshold is among."""
    seen = np.ones((64, 64), bool)
    run = shutil.copytree(run, tmp_path / "masked")
    frame.keep(seen, run / run_folder.LOOKED_AT)
    _pictures(tmp_path / "now", range(100, 125))
    good = predictions.sources([tmp_path / "now"])
    Image.new("RGB", (64, 64), (60, 60, 60)).save(tmp_path / "grey.png")
    grey = predictions.sources([tmp_path / "grey.png"])
    new = recalibration.recalibrate(run, [*good, *grey], tmp_path / "out")
    assert len(new.threshold.calibration) == 25
    assert (new.looked_at == seen).all()  # and it looks where the run does
    other = new.at(0.2)  # of all else it is the same
    assert other.threshold.value == new.threshold.at(0.2).value < new.threshold.value
    assert other.detector is new.detector and other.before == new.before
    assert (other.looked_at == seen).all() and other.decision.foreign is new.decision.foreign
    assert new.foreign(new.decode(tmp_path / "grey.png").whole[None, :3])[1].tolist() == ["absent"]


def test_pictures_that_the_run_has_learned_from_do_not_calibrate(run, tmp_path):
    table = pd.read_csv(run / "all_results.csv")
    learned = [Source(Path(run_folder.data_root(run)) / path, path) for path in
               table.loc[table["split"] == "train", "path"]]
    _pictures(tmp_path / "now", range(100, 112))
    taken = predictions.sources([tmp_path / "now"])
    assert len(learned) == 9
    with pytest.raises(InputError, match="18 of these 30 pictures .* has learned"):
        recalibration.recalibrate(run, [*learned, *learned, *taken], tmp_path / "out")
    recalibration.recalibrate(run, [*learned, *taken], tmp_path / "out")


def test_copies_of_one_picture_do_not_calibrate(run, tmp_path):
    _pictures(tmp_path / "now", range(18))
    for copy in range(3):
        shutil.copy(tmp_path / "now" / "000.png", tmp_path / "now" / f"again{copy}.png")
    with pytest.raises(InputError, match="only 18 of these 21 pictures differ, .* give 19 or more"):
        recalibration.recalibrate(run, predictions.sources([tmp_path / "now"]), tmp_path / "out")
    _pictures(tmp_path / "now", [18])
    recalibration.recalibrate(run, predictions.sources([tmp_path / "now"]), tmp_path / "out")


def test_too_few_pictures_and_an_unreadable_one_are_named(run, tmp_path):
    _pictures(tmp_path / "now", range(18))
    with pytest.raises(InputError, match="18 pictures cannot support .* 0.05; give 19 or more"):
        recalibration.recalibrate(run, predictions.sources([tmp_path / "now"]), tmp_path / "out")
    (tmp_path / "now" / "bad.png").write_bytes(b"no")
    with pytest.raises(InputError, match=r"bad\.png cannot be read"):
        recalibration.recalibrate(run, predictions.sources([tmp_path / "now"]), tmp_path / "out")
    picture(tmp_path / "now" / "bad.png", 99)
    (tmp_path / "file").write_text("where a folder is needed")
    with pytest.raises(InputError, match="cannot write .*file/out .*give another --out"):
        recalibration.recalibrate(run, predictions.sources([tmp_path / "now"]),
                                  tmp_path / "file" / "out")
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".recal*"))


def test_a_changed_light_is_told_in_terminal_file_and_exit_code(run, tmp_path, capsys):
    _pictures(tmp_path / "a", range(200, 240))
    _pictures(tmp_path / "b", range(240, 270), brighter=70)
    words = ["predict", str(run), str(tmp_path / "a"), str(tmp_path / "b"), "--out",
             str(tmp_path / "out")]
    code = cli.main(words)
    said, told = capsys.readouterr().out, json.loads((tmp_path / "out" / "conditions.json"
                                                      ).read_text())
    assert said.count("The conditions have changed since picture") == 2, said
    assert "the pictures are brighter" in said, said[-600:]
    assert told["change"]["cause"] == "brighter" and 38 <= told["change"]["since"] <= 43
    assert told["pictures"] <= 70 and code in (1, 4, 5)
    # The same again adds nothing, and says the same; a stream that is as it was says nothing.
    assert cli.main(words) == code and "The conditions have changed" in capsys.readouterr().out
    assert files.read_json(tmp_path / "out" / "conditions.json") == told
    assert cli.main(["predict", str(run), str(tmp_path / "a"), "--out", str(tmp_path / "o2")]) != 5
    assert "conditions have changed" not in capsys.readouterr().out
    assert files.read_json(tmp_path / "o2" / "conditions.json")["change"] is None


def test_every_cause_has_its_words():
    from adlib.evaluation.conditions import CAUSES

    assert {f"change.{cause}" for cause in CAUSES.values()} <= set(i18n.messages())


def test_a_run_of_an_earlier_version_predicts_without_the_test(run, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    (folder / "conditions.json").unlink()
    of_earlier_version(folder)
    _pictures(tmp_path / "a", range(2))
    assert cli.main(["predict", str(folder), str(tmp_path / "a"), "--out",
                     str(tmp_path / "out")]) in (0, 1, 4)
    assert not (tmp_path / "out" / "conditions.json").exists()


def test_a_score_that_is_no_number_does_not_calibrate(run, tmp_path, monkeypatch):
    _pictures(tmp_path / "now", range(100, 125))
    monkeypatch.setattr(inference.Reopened, "scores", lambda self, given: np.array([np.nan]))
    with pytest.raises(InputError, match=r"100\.png has the score nan; take it out"):
        recalibration.recalibrate(run, predictions.sources([tmp_path / "now"]), tmp_path / "out")
