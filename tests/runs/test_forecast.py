"""What a batch says before it begins, steps, time, data, weights; and what comes first by it."""
from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from adlib.models import weights
from adlib.runs import batch, forecast, freshness, grid
from adlib.runs.engines import local
from tests.runs.conftest import write


def test_the_quickest_run_is_the_first(project, said, monkeypatch):
    """It brings the first page."""
    write(project, "other", {"name": "other", "model": "cae"})
    write(project, "all", {"configs": ["ok", "other"]})
    tasks = grid.plan("params/all.yaml")
    monkeypatch.setattr(forecast, "of_tasks", lambda due: {
        task: 1.0 if "other" in task.title else 9.0 for task in due})
    batch.run(tasks, local.Local(1), reports=project / "reports")
    started = [line.removeprefix("start: ") for line in said if line.startswith("start: ")]
    assert started == ["nut other seed 0", "nut: the data", "nut ok seed 0", "comparison"]


def test_a_batch_says_what_it_will_do_and_learns_how_long_it_took(project, said, monkeypatch,
                                                                 tmp_path):
    monkeypatch.setenv("ADLIB_CACHE", str(tmp_path / "cache"))
    write(project, "all", {"configs": ["ok"]})
    assert batch.run(grid.plan("params/all.yaml"), local.Local(1), reports=project / "reports") == 0
    assert said[0].splitlines()[0] == "due: 3 of 3 steps: 1 data page, 1 run, 1 comparison, on nut"
    assert "the first batch here, so this may be off" in said[0].splitlines()[1]
    assert said[0].splitlines()[2:] == ["data: data", "weights: none needed"]
    assert not any(line.startswith("due: nut") for line in said)  # never run: no word about it
    tasks = grid.plan("params/all.yaml")
    before = sum(forecast.seconds(task.kind, task.config, (3, 0)) for task in tasks)
    assert 0 < sum(forecast.of_tasks(tasks).values()) != before  # at this machine's pace
    said.clear()
    assert batch.run(tasks, local.Local(1), reports=project / "reports") == 0
    assert said == ["all 3 steps are up to date"]


def test_the_forecast_grows_with_the_work(project):
    write(project, "more", {"configs": ["ok"], "set": {"epochs": 50}})
    few, many = ([task.config for task in grid.plan(f"params/{name}.yaml") if task.config][0]
                 for name in ("ok", "more"))
    assert (forecast.seconds("run", few, (100, 10)) < forecast.seconds("run", few, (200, 10))
            < forecast.seconds("run", many, (200, 10)))
    assert forecast.of_grid(Path("params/all.yaml"), [(3, 0)]) < forecast.of_grid(
        Path("params/all.yaml"), [(3, 0), (3, 0)])
    said = [forecast.duration(seconds) for seconds in (3, 62, 100, 3700)]
    assert said == ["10 s", "60 s", "2 min", "1 h 2 min"]


@pytest.mark.parametrize("fallback", [True, False])
def test_random_weights_are_told_before_the_first_run_with_the_ways_out(project, monkeypatch,
                                                                        fallback):
    write(project, "fused", {"name": "fused", "model": "fused", "weights_fallback": fallback})
    (project / "notebooks" / "04_feature_space.ipynb").write_text(
        (project / "notebooks" / "02_cae_baseline.ipynb").read_text())
    tasks = grid.plan("params/fused.yaml")
    monkeypatch.setattr(freshness, "imagenet_at_hand", lambda: False)
    cached = Path("/cache/resnet18-f37072fd.pth")
    monkeypatch.setattr(weights, "fetch", lambda: (
        "no connection", "https://host.invalid/resnet18-f37072fd.pth", cached))
    said = forecast.weights_out_of_reach(tasks)
    assert "out of reach (no connection)" in said and "so 1 run will" in said
    assert ("RANDOM weights, be grey on every page" if fallback else "fail. ") in said
    for way in ("https://host.invalid/resnet18-f37072fd.pth", "begins with f37072fd",
                "--weights FILE", "WEIGHTS=FILE", str(cached)):
        assert way in said
    monkeypatch.setattr(weights, "fetch", lambda: ("", "", cached))
    assert forecast.weights_out_of_reach(tasks) == ""
    assert forecast.weights_out_of_reach(grid.plan("params/ok.yaml")) == ""


def test_a_detector_of_ones_own_does_not_run_with_random_weights(project, monkeypatch):
    write(project, "own", {"name": "own", "model": "mine.py:Mine"})
    shutil.copy(project / "notebooks" / "02_cae_baseline.ipynb",
                project / "notebooks" / "04_feature_space.ipynb")
    (project / "mine.py").write_text("class Mine: pass")
    monkeypatch.setattr(freshness, "imagenet_at_hand", lambda: False)
    monkeypatch.setattr(weights, "fetch", lambda: ("no connection", "resnet18-x.pth", Path("x")))
    assert forecast.weights_out_of_reach(grid.plan("params/own.yaml")) == ""
