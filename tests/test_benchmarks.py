"""The yardstick is fair and its table is right; what it measures is measured by `make bench`."""
import json
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from PIL import Image

from adlib.config import Config
from adlib.data import layout
from adlib.data.part import open_part
from adlib.data.synthetic import drawing
from adlib.models import fused, ssim
from adlib.runs import grid
from benchmarks import (
    detection,
    gpu,
    neighbour,
    rates,
    reference,
    speed,
    waits,
)
from tests import forked
from tests.conftest import picture
from tests.tiny_study import SMALL_DETECTORS

SMALL = {
    "image_size": 32, "epochs": 3, "batch_size": 4, "lr": 1e-3, "schedule": "reference",
    "device": "cpu"
}
CPU = torch.device("cpu")


@pytest.fixture
def files(tmp_path):
    for i in range(8):
        picture(tmp_path / f"{i}.png", i, size=48)
    return sorted(tmp_path.glob("*.png"))


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_the_references_way_learns_and_is_the_same_every_time(files, weight):
    config = Config(**SMALL, ssim_weight=weight)
    looked: list[int] = []
    _, history = reference.fit(reference.Pictures(files, 32), config, CPU,
                               lambda epoch, model: looked.append(epoch))
    # decoded once: the same numbers
    _, kept = reference.fit(list(reference.Pictures(files, 32)), config, CPU)
    assert looked == [1, 2, 3] and history[-1]["loss"] < history[0]["loss"]
    assert [row["loss"] for row in history] == [row["loss"]
                                                for row in kept] and all(row["seconds"] > 0
                                                                         for row in history)


def test_its_ssim_is_ours_where_no_zero_is_in_the_window():
    x, noise = (torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(i))
                for i in (0, 1))
    y = 0.6 * x + 0.4 * noise
    flat = torch.full((2, 3, 40, 40), 0.5)
    assert reference.PlainSSIM()(flat, flat).item() == pytest.approx(1)
    inside = ssim.ssim_index(x, y, data_range=1.0).mean().item()
    # No rounding: its border of 5 in 96 pixels, 20 % of the image, sees zeros.
    assert reference.PlainSSIM()(x, y).item() == pytest.approx(inside, abs=0.02)


def test_its_frozen_layers_follow_the_batch_as_the_references_do():
    model = reference.build(Config(model="resnet18", weights="none")).train()
    before = model.encoder.bn1.running_mean.clone()
    model(torch.rand(4, 3, 32, 32))
    assert not torch.equal(model.encoder.bn1.running_mean, before)
    assert not any(parameter.requires_grad for parameter in model.encoder.layer1.parameters())


def test_it_finishes_with_all_artefacts(course_root, tmp_path):
    part = open_part(Config(**SMALL, category="nut", data_root=str(course_root)))
    network, _ = reference.fit(reference.Pictures(part.train.paths, 32), part.config, CPU)
    assert reference.finish(network, part, CPU, [1.0, 0.5], tmp_path) > 0
    assert {path.name
            for path in tmp_path.glob("*.*")} >= {
                "all_results.csv", "loss_curve.png", "roc_curve.png", "score_distribution.png",
                "visualization_result.png"
            }


@pytest.mark.parametrize("way", ["reference", "ours"])
def test_both_ways_are_looked_at_alike(course_root, way):
    schedule = "reference" if way == "reference" else "one_cycle"
    part = open_part(Config(**SMALL | {"epochs": 2, "schedule": schedule}, category="nut",
                            held_out=0.5, data_root=str(course_root)))
    found = detection.measure(way, part)
    assert [look["epoch"] for look in found["looks"]] == ([2] if way == "reference" else [1, 2])
    assert all(0 <= look["auroc"] <= 1 and look["chosen"] for look in found["looks"])


def test_the_command_is_watched_and_its_failure_is_shown():
    seen = speed.watched([sys.executable, "-c", "print('said')"])
    assert seen["output"] == "said\n" and seen["seconds"] > 0 and seen["peak_mb"] >= 0
    with pytest.raises(SystemExit, match="the sky fell"):
        speed.watched([sys.executable, "-c", "raise ValueError('the sky fell')"])


def test_the_data_are_enlarged_with_their_labels(course_root, tmp_path, monkeypatch):
    monkeypatch.setattr(speed, "LARGE", 64)
    large = speed.enlarged(course_root, tmp_path / "large")
    category = layout.open_category(large, "zip")
    assert len(category.train) == 8 and len(layout.read_labels(category)) >= 6
    assert {Image.open(path).size for path in large.rglob("*.png")} == {(64, 64)}
    assert {path.relative_to(large)
            for path in large.rglob("*.*")} == {
                path.relative_to(course_root)
                for path in course_root.rglob("*.*")
            }


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """Enough good images for two that are held out, and few synthetic anomalies."""
    monkeypatch.setattr(fused, "SYNTHETIC", 8)
    return drawing.write_dataset(tmp_path / "drawn", train=20, good=2, anomalous=4, pixels=64,
                                 categories=["hazelnut"])


@pytest.fixture
def without_imports(monkeypatch):
    """What is watched has made its imports already."""
    def watched(command, **environment):
        began = time.perf_counter()
        running = forked.begin("python", command[2:], env=environment)
        output, _ = running.communicate(timeout=300)
        assert running.returncode == 0, output
        return {"seconds": time.perf_counter() - began, "output": output}

    monkeypatch.setattr(speed, "watched", watched)


def test_the_best_detector_is_measured_by_the_spine(drawn, without_imports):
    script = speed.TO_METRICS.format(weights="none", root=str(drawn), name="hazelnut")
    seen = speed.watched([sys.executable, "-c", SMALL_DETECTORS + script.replace("256", "64")])
    assert 0 <= float(seen["output"].split()[-1]) <= 1


def test_a_neighbour_is_busy_and_gone_afterwards_and_the_script_beside_it_runs(
        drawn, without_imports):
    with neighbour.neighbours(1):
        (busy,) = (child for child in psutil.Process().children()
                   if neighbour.NEIGHBOUR in child.cmdline())
        script = neighbour.RUN.format(model="mean_grey", size=32, weights="none", root=str(drawn),
                                      name="hazelnut")
        assert neighbour.seconds(script, beside=0) > 0
        assert sum(busy.cpu_times()[:2]) > 0
    assert not busy.is_running()


def test_what_is_measured_warm_is_measured(drawn, monkeypatch):
    """Every function of `make bench` that runs in its own process, on a few small images."""
    configs = [Config(name=name, **SMALL | {"epochs": 1, "schedule": "one_cycle"}, held_out=0.1,
                      category="hazelnut", data_root=str(drawn)) for name in detection.FOUR]
    monkeypatch.setattr(detection, "configs", lambda *args, **options: configs)
    monkeypatch.setattr(speed, "GROWTH", ((0.5, 32), (1, 64), (4, 32)))
    limits = {"float32_gflops": 100.0, "bf16_gflops": 400.0}
    rates = speed.training_rates(drawn, "none", limits)
    assert set(rates) == set(detection.FOUR)
    assert all(rate["images_per_second"] > 0 < rate["share_of_ceiling"] for rate in rates.values())
    assert speed.scoring(drawn, "none") > 0
    grown = speed.growth(drawn, "none")
    assert set(grown) == {"10 x 32", "20 x 64", "80 x 32"}
    assert all(seconds > 0 for seconds in grown.values())


MODELS = (("cae", 32), ("fused", 64))


@pytest.fixture
def commands(monkeypatch):
    """What would be called, and takes a second: {the command: its words}."""
    called = {}

    def cli(words, place):
        called[words[0]] = words
        if words[0] == "run":
            grid.read(words[1])  # with the configurations it names
            (run := Path(place) / "reports" / "runs" / "hazelnut" / "cae" / "seed-0").mkdir(
                parents=True)
            (run / "index.html").write_text("")
            time.sleep(0.5)
        if words[0] == "new":
            called["photographs"] = len(list(Path(words[3]).iterdir()))
        return {"seconds": 1.0}

    monkeypatch.setattr(waits, "cli", cli)
    monkeypatch.setattr(waits, "MODELS", MODELS)
    monkeypatch.setattr(speed, "best_of", lambda function, times=1: speed.seconds_of(function))
    return called


def waited(history, drawn, *rows):
    words = ["--data", str(drawn), "--times", "1", "--history", str(history), "--rows", *rows]
    with pytest.raises(SystemExit) as ended:
        waits.main([*words, "--check"])
    return ended.value.code, json.loads(history.read_text().splitlines()[-1])


def test_what_people_wait_for_is_measured_beside_the_ceiling(
        drawn, commands, tmp_path, monkeypatch):
    monkeypatch.setattr(speed, "modules", lambda: ["adlib.models.fused"])  # all take five seconds
    code, entry = waited(tmp_path / "history.jsonl", drawn, "study", "new", "one_picture",
                         "starting")
    assert code == 0 and {"float32_gflops", "bf16_gflops", "copy_gb", "decode_per_s"} == set(
        entry["ceiling"])
    assert commands["run"][1] == waits.STUDY and commands["photographs"] == 50
    assert entry["rows"]["make study, whole"]["times"] == [1.0]
    assert 0 < entry["rows"]["adlib --help"]["times"][0] < entry["rows"]["import torch"]["times"][0]
    assert 0 < entry["rows"]["make study, to the first page"]["times"][0] < 1
    for model, size in MODELS:
        found = entry["rows"][f"one picture, warm: {model} at {size} px"]
        assert 0 < found["ideal"] < found["times"][0]


def test_a_row_that_got_worse_by_more_than_it_varies_is_told(drawn, commands, tmp_path, capsys,
                                                             monkeypatch):
    monkeypatch.setattr(waits.speed, "ceiling", dict)  # nobody looks at it here
    history = tmp_path / "history.jsonl"
    code, entry = waited(history, drawn, "new")
    name, = entry["rows"]

    def before(times, machine=entry["machine"]):
        history.write_text(json.dumps(entry | {
            "machine": machine, "rows": {name: waits.row(times)}}) + "\n")
        return waited(history, drawn, "new")[0]

    assert (before([0.6, 0.9]), before([0.9, 1.0]), before([0.6], "another")) == (1, 0, 0)
    assert f"{name}: 1 s at best, where it was 0.9 s at most" in capsys.readouterr().out
    assert len(history.read_text().splitlines()) == 2


def test_the_script_for_a_gpu_runs_on_the_processor_in_a_short_form(drawn, commands, tmp_path,
                                                                    capsys):
    history = tmp_path / "gpu.jsonl"
    gpu.main(["--short", "--data", str(drawn), "--times", "1", "--history", str(history)])
    rows = json.loads(history.read_text())["rows"]
    assert {f"one picture: {model} at 64 px" for model, _ in MODELS} < set(rows)
    assert rows[f"the study with 1 seed(s), {gpu.JOBS} runs at a time"]["times"] == [1.0]
    assert "one picture: fused at 64 px" in capsys.readouterr().out
    if not torch.cuda.is_available():
        with pytest.raises(SystemExit):
            gpu.main([])


def test_every_module_is_there_to_be_imported():
    found = speed.modules()
    assert {"adlib.models.fused", "adlib.evaluation.results", "adlib.runs.inference"} <= set(found)
    assert not {name for name in found if name.endswith(("adapter", "dask"))}


def test_what_is_refused_is_counted_for_either_verdict(drawn, small_detectors):
    row = rates.measure(Config(name="fused", model="fused", image_size=64, category="hazelnut",
                               data_root=str(drawn), weights="none"))
    assert (row["good"], row["bad"]) == (2, 4)
    refused = [row[rate] for rate in rates.RATES]
    assert refused == sorted(refused) and row["foreign"] <= refused[0] <= row["good"]
    for either, by_score in row["found"].values():
        assert by_score <= either <= row["bad"]
