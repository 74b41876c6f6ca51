"""Images of more than 8 bits: the range that a run was made with is the one its predictions use."""
import csv
import json
import logging

import numpy as np
import pytest
from PIL import Image

from adlib import cli
from adlib.config import Config, InputError
from adlib.data import files
from adlib.data.part import open_part
from adlib.report.words import sentences
from adlib.runs import inference
from tests import tolerances
from tests.conftest import read_csv
from tests.handmade import SMALL, small_run

PCA = {"model": "pca", "name": "pca", "image_size": 64}


pytestmark = pytest.mark.usefixtures("small_detectors")


def twelve_bits(path, seed, defect=False, brighter=1.0):
    rng = np.random.default_rng(seed)
    grey = np.linspace(900, 1900, 64)[None] + rng.normal(0, 60, (64, 64))
    grey[30, 30:40] = 4095, *[0] * 9  # every image reaches both ends of the range
    if defect:
        grey[8:24, 8:24] = 3900
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((brighter * grey).clip(0, 65535).astype(np.uint16)).save(path)
    return path


@pytest.fixture
def root(tmp_path):
    for i in range(8):
        twelve_bits(tmp_path / "data" / "nut" / "train" / "good" / f"{i}.png", i)
    for i in range(3):
        twelve_bits(tmp_path / "data" / "nut" / "test" / "good" / f"{i}.png", 20 + i)
        twelve_bits(tmp_path / "data" / "nut" / "test" / "spot" / f"{i}.png", 30 + i, defect=True)
    return tmp_path / "data"


def predicted(run, path, out):
    code = cli.main(["predict", str(run), str(path), "--out", str(out)])
    with (out / "predictions.csv").open(newline="") as stream:
        return code, list(csv.DictReader(stream))


def test_the_range_is_in_the_run_on_its_page_and_in_its_predictions(root, tmp_path, caplog):
    folder = small_run(root, tmp_path / "reports", **PCA)
    assert files.read_json(folder / "run.json")["data"]["grey_range"] == [0, 4095]
    run, part = inference.reopen_with_data(folder)
    assert part.grey_range == (0, 4095) and run.config.grey_range == "0.0,4095.0"
    said = sentences.facts(part, run.detector, {"device": "cpu", "threads": 1,
                                                "precision": "float32"})
    assert said.endswith("Images have more than 8 bits: values of 0 to 4095 become 0 to 255.")
    assert said.zh.endswith("0 至 4095 的值映射到 0 至 255。")
    table = read_csv(folder / "all_results.csv")
    table = table[table["split"] == "test"].sort_values("path")
    _, rows = predicted(folder, root / "nut" / "test", tmp_path / "out")
    tolerance, _ = tolerances.of_rounding(run, part.test.tensor)
    scores = np.array([float(row["score"]) for row in rows])
    assert (np.abs(scores - table["chosen_score"].to_numpy()) <= tolerance).all()
    assert not caplog.text
    brighter = twelve_bits(tmp_path / "new" / "0.png", 99, brighter=3)
    with caplog.at_level(logging.WARNING):
        predicted(folder, brighter, tmp_path / "brighter")
    assert ("0.png: its values, from 0 to 12285, exceed those of the run, which are from 0 to 4095, "
            "and are clipped") in caplog.text


def test_8_bits_for_a_run_of_12_are_told(root, tmp_path, caplog):
    folder = small_run(root, tmp_path / "reports", **PCA)
    Image.new("L", (64, 64), 90).save(tmp_path / "eight.png")
    with caplog.at_level(logging.WARNING):
        predicted(folder, tmp_path / "eight.png", tmp_path / "out")
    assert "eight.png has 8 bits, and what the run learned from has more" in caplog.text


def test_a_range_may_be_given(root, tmp_path):
    folder = small_run(root, tmp_path / "reports", **PCA, grey_range="0,16383")
    assert files.read_json(folder / "run.json")["data"]["grey_range"] == [0, 16383]
    part = inference.reopen_with_data(folder)[1]
    assert part.test.tensor.max() == round(4095 / 16383 * 255)
    for wrong in ("4095", "4095,0", "0,inf", "a,b", "0,1,2"):
        with pytest.raises(InputError, match="grey_range is .*; give two numbers, the lower first"):
            Config(grey_range=wrong)


def test_a_run_of_8_bits_does_not_guess_at_12(course_root, tmp_path):
    folder = small_run(course_root, tmp_path / "reports", **PCA)
    assert files.read_json(folder / "run.json")["data"]["grey_range"] is None
    assert inference.reopen(folder).config.grey_range == ""
    code, (row, ) = predicted(folder, twelve_bits(tmp_path / "new" / "0.png", 1), tmp_path / "out")
    assert code == 3 and row["problem"].startswith("its values, from 0 to 4095, are of more than 8")


def test_the_onnx_file_says_its_range(root, tmp_path, exporter):
    ort = pytest.importorskip("onnxruntime", reason="needs the extra: pip install -e '.[onnx]'")
    pytest.importorskip("onnxscript", reason="needs the extra: pip install -e '.[onnx]'")
    folder = small_run(root, tmp_path / "reports", **PCA)
    assert cli.main(["export", str(folder), "--onnx", str(tmp_path / "out.onnx")]) == 0
    session = ort.InferenceSession(tmp_path / "out.onnx")
    known = session.get_modelmeta().custom_metadata_map
    assert json.loads(known["grey_range"]) == [0, 4095]
    assert "of more than 8 bits" in json.loads(known["input"])


def test_the_range_is_the_same_whatever_is_held_out(root):
    parts = [open_part(Config(**SMALL | {"data_root": str(root), "seed": seed, "held_out": share}))
             for seed, share in ((0, 0.4), (1, 0.25), (2, 0))]
    assert {part.grey_range for part in parts} == {(0, 4095)}
