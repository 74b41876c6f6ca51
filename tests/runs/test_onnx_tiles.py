"""A run of tiles as ONNX, and the script beside it: what they say of a picture is what the run
says."""
import importlib.util
import json
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from adlib import cli
from adlib.config import Config
from adlib.data import files, reading
from adlib.runs import inference, onnx_export
from tests import handmade
from tests.data.test_reading import png_of
from tests.evaluation.test_frames import SMALL, category
from tests.models.test_by_place import two_zones

ort = pytest.importorskip("onnxruntime", reason="needs the extra: pip install -e '.[onnx]'")
pytest.importorskip("onnxscript", reason="needs the extra: pip install -e '.[onnx]'")
pytestmark = pytest.mark.usefixtures("small_detectors", "exporter")
SHAPES = [(90, 200), (201, 77), (40, 50), (64, 64)]  # odd ones, and smaller than a square


def exported(folder, path):
    """The session, and the script as a module."""
    assert cli.main(["export", str(folder), "--onnx", str(path)]) == 0
    spec = importlib.util.spec_from_file_location("beside", onnx_export.script_beside(path))
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return ort.InferenceSession(path), script


@pytest.mark.parametrize(("model", "score", "scale"), [
    ("fused", "", 1.0), ("memory", "distance.mean", 0.5), ("gaussian", "distance.max", 1.0),
    ("cae", "sum.top1", 1.0), ("to_features", "", 1.0)])
def test_the_script_says_what_the_run_says(tmp_path, model, score, scale):
    root = category(tmp_path / "data")
    folder, *_ = handmade.spine(Config(**SMALL, model=model, fit="tile", scale=scale,
                                       data_root=str(root), reports=str(tmp_path / "reports")))
    if score:
        measured = files.read_json(folder / "metrics.json")
        files.write_json(folder / "metrics.json",
                         measured | {"chosen": measured["chosen"] | {"score": score}})
    run = inference.reopen(folder)
    session, script = exported(folder, tmp_path / "out.onnx")
    rng = np.random.default_rng(0)
    for shape in SHAPES:
        coarse = rng.integers(40, 200, (6, 8, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize(shape[::-1], Image.Resampling.BICUBIC)
        picture.save(tmp_path / "a.png")
        given = run.decode(tmp_path / "a.png").given[None]
        expected = run.scores(given)[0]
        found, map_, cells = script.look(session, picture)
        assert found == pytest.approx(expected, rel=2e-3, abs=2e-3), shape
        assert map_.shape == cells.shape and not cells.all() and np.isfinite(map_).all()
    known = session.get_modelmeta().custom_metadata_map
    assert json.loads(known["threshold"]) == run.threshold.value
    assert json.loads(known["score"]) == run.decision.score


def test_a_memory_that_compares_by_place_is_told_where_squares_begin(tmp_path):
    for i, split in enumerate(["train/good"] * 12 + ["test/good", "test/swapped"]):
        path = tmp_path / "data" / "strip" / split / f"{i:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(two_zones(i, swapped="swapped" in split)[0].numpy()).save(path)
    folder, *_ = handmade.spine(Config(**SMALL, model="fused", fit="tile", data_root=str(
        tmp_path / "data"), reports=str(tmp_path / "reports")))
    run = inference.reopen(folder)
    assert run.detector.asks_origins
    session, script = exported(folder, tmp_path / "out.onnx")
    assert [one.name for one in session.get_inputs()] == ["tiles", "origins"]
    scores = []
    for path in sorted((tmp_path / "data").rglob("test/*/*.png")):
        expected = run.scores(run.decode(path).given[None])[0]
        with Image.open(path) as picture:
            found, *_ = script.look(session, picture.convert("RGB"))
        assert found == pytest.approx(expected, rel=2e-3, abs=2e-3)
        scores.append(expected)
    assert scores[0] < scores[1]  # good, swapped


def test_it_needs_no_adlib(tmp_path):
    root = category(tmp_path / "data")
    folder, _, _, results = handmade.spine(Config(**SMALL, model="pca", fit="tile", data_root=str(
        root), reports=str(tmp_path / "reports")))
    exported(folder, tmp_path / "part.onnx")
    assert "adlib" not in re.sub(r'""".*?"""', "", onnx_export.SCRIPT.read_text(), flags=re.DOTALL)
    tests = results.table[results.table["split"] == "test"]
    said = subprocess.run(
        [sys.executable, "-I", tmp_path / "part_tiles.py", tmp_path / "part.onnx",
         *(root / path for path in tests["path"])], check=True, capture_output=True, text=True)
    rows = [line.split("\t") for line in said.stdout.splitlines()]
    assert [float(row[1]) for row in rows] == pytest.approx(
        tests["chosen_score"].tolist(), rel=2e-3)
    threshold = inference.reopen(folder).threshold
    assert [row[2] for row in rows] == np.where(
        threshold.exceeded(tests["chosen_score"].to_numpy()), "anomalous", "good").tolist()


def test_the_script_reads_files_as_the_run_does(tmp_path):
    _, script = exported(handmade.small_run(
        category(tmp_path / "data"), tmp_path / "reports", **SMALL | {"model": "pca"}, fit="tile"),
        tmp_path / "part.onnx")
    rng = np.random.default_rng(0)
    for mode, name in (("RGBA", "a.png"), ("LA", "b.png"), ("CMYK", "c.tif"), ("L", "d.png")):
        values = rng.integers(0, 256, (20, 30, len(Image.new(mode, (1, 1)).getbands())), np.uint8)
        Image.fromarray(values.squeeze(), mode).save(tmp_path / name)
        expected, _ = reading.upright(tmp_path / name, 32)
        assert np.array_equal(script.upright(tmp_path / name, None), expected), mode
    deep = tmp_path / "deep.png"
    Image.fromarray(rng.integers(0, 5000, (20, 30)).astype(np.uint16)).save(deep)
    expected, _ = reading.upright(deep, 32, (100, 4095))
    assert np.array_equal(script.upright(deep, (100, 4095)), expected)
    with pytest.raises(SystemExit, match="deep.png: it has more than 8 bits"):
        script.upright(deep, None)
    expected, _ = reading.upright(tmp_path / "d.png", 32, (0, 4095))  # predict says what is odd
    assert np.array_equal(script.upright(tmp_path / "d.png", (0, 4095)), expected)
    colour = tmp_path / "colour.png"
    colour.write_bytes(png_of(rng.integers(0, 65536, (20, 30, 3)).astype(np.uint16), 2))
    with pytest.raises(SystemExit, match="colour.png: it has more than 8 bits"):
        script.upright(colour, None)
    Image.fromarray(np.full((20, 30), np.nan, np.float32)).save(tmp_path / "nan.tif")
    with pytest.raises(SystemExit, match="nan.tif: some of its values are no numbers"):
        script.upright(tmp_path / "nan.tif", (0, 1))
