"""Reading params/grids/*.yaml and planning: the right notebooks with the right parameters; one sentence
for every mistake."""
from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import yaml

from adlib.config import InputError, deprecated
from adlib.runs import grid

ROOT = Path(__file__).resolve().parents[2]
STUDY = {
    "configs": ["cae_mse",
                "resnet_ssim"], "categories": "all", "seeds": [0, 1], "set": {"precision": "bf16"},
    "overrides": [{"when": {"category": "zipper", "model": "resnet18"}, "set": {"epochs": 150}}]
}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project of empty notebooks, two configurations and two categories; the working directory.
    """
    for name in ("notebooks", "params/grids", "params/configurations", "data/hazelnut/train/good", "data/hazelnut/test",
                 "data/zipper/train/good", "data/zipper/test"):
        (tmp_path / name).mkdir(parents=True)
    for category in ("hazelnut", "zipper"):
        for i in range(3):
            (tmp_path / "data" / category / "train" / "good" / f"{i}.png").write_bytes(b"%d" % i)
    for name in ("01_eda", "02_cae_baseline", "03_resnet_ssim", "04_feature_space", "05_limits",
                 "06_comparison", "08_how_many"):
        (tmp_path / "notebooks" / f"{name}.ipynb").touch()
    write(tmp_path, "cae_mse", {"name": "cae_mse", "model": "cae", "lr": "1e-3"})
    write(tmp_path, "resnet_ssim", {
        "name": "resnet_ssim", "model": "resnet18", "lr": 1e-3, "ssim_weight": 0.5, "image_size": 64
    })
    write(tmp_path, "study", STUDY)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(project: Path, name: str, content: object) -> Path:
    is_grid = isinstance(content, dict) and "configs" in content or name in ("study", "bad")
    path = project / "params" / ("grids" if is_grid else "configurations") / f"{name}.yaml"
    path.write_text(
        content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False))
    return path


def test_plan_orders_data_then_runs_then_comparison(project):
    tasks = grid.plan("params/grids/study.yaml")
    assert [task.kind for task in tasks] == ["eda", *["run"] * 4] * 2 + ["comparison"]
    assert [task.params.get("category")
            for task in tasks] == ["hazelnut"] * 5 + ["zipper"] * 5 + [None]
    reports = project / "reports"
    assert tasks[0].notebook == project / "notebooks" / "01_eda.ipynb"
    assert tasks[0].output == reports / "eda" / "hazelnut" / "notebook.ipynb"
    assert set(tasks[0].params) == {
        "category", "data_root", "reports", "weights", "weights_fallback", "exclude"
    }
    assert tasks[1].notebook.name == "02_cae_baseline.ipynb" and tasks[
        3].notebook.name == "03_resnet_ssim.ipynb"
    assert tasks[
        2].output == reports / "runs" / "hazelnut" / "cae_mse" / "seed-1" / "notebook.ipynb"
    assert tasks[1].params == tasks[1].config.as_dict()
    assert tasks[-1].output == reports / "comparison.ipynb" and tasks[-1].params == {
        "reports": str(reports)
    }


def test_set_reaches_every_run_and_overrides_only_those_they_name(project):
    configs = [task.config for task in grid.plan("params/grids/study.yaml") if task.config]
    assert {config.precision for config in configs} == {"bf16"}
    assert {(c.category, c.model): c.epochs
            for c in configs} == {("hazelnut", "cae"): 5, ("hazelnut", "resnet18"): 5,
                                  ("zipper", "cae"): 5, ("zipper", "resnet18"): 150}
    assert {config.lr for config in configs} == {1e-3}


def test_an_override_finds_a_number_however_yaml_reads_it(project):
    write(project, "study",
          "configs: [cae_mse]\noverrides:\n  - when: {lr: 1e-3}\n    set: {epochs: 7}\n")
    assert {task.config.epochs for task in grid.plan("params/grids/study.yaml") if task.config} == {7}


def test_a_configuration_alone_is_a_grid_of_one(project):
    write(project, "own", {"name": "own", "category": "zipper", "seed": 3, "epochs": 7})
    tasks = grid.plan("params/configurations/own.yaml")
    assert [task.kind for task in tasks] == ["eda", "run", "comparison"]
    config = tasks[1].config
    assert (config.name, config.category, config.seed, config.epochs) == ("own", "zipper", 3, 7)


def test_a_runs_limits_come_after_the_runs_of_its_category_and_for_the_first_seed_only(project):
    write(project, "study", {**STUDY, "seeds": [1, 0], "limits": ["resnet_ssim"]})
    tasks = grid.plan("params/grids/study.yaml")
    assert [task.kind for task in tasks] == ["eda", *["run"] * 4, "limits"] * 2 + ["comparison"]
    limits, runs = tasks[5], tasks[1:5]
    assert limits.after is next(
        run for run in runs if run.config.name == "resnet_ssim" and run.config.seed == 1)
    assert limits.title == "hazelnut resnet_ssim limits" and limits.config is None and limits.retry == limits.after.retry
    assert limits.notebook == project / "notebooks" / "05_limits.ipynb"
    assert limits.output == project / "reports" / "limits" / "hazelnut" / "resnet_ssim" / "notebook.ipynb"
    assert limits.note == limits.output.with_name(
        "limits.json") and tasks[0].note == tasks[0].output.with_name("eda.json")
    assert limits.params == {
        "category": "hazelnut", "name": "resnet_ssim", "seed": 1, "data_root": "", "reports": str(
            project / "reports")
    }
    assert all(task.after is None
               for task in tasks if task.kind != "limits") and all(run.note is None for run in runs)


@pytest.mark.parametrize(("only", "limits"), [("config=resnet_ssim", 2), ("config=cae_mse", 0),
                                              ("seed=1", 0), ("seed=0,category=zipper", 1)])
def test_limits_are_planned_with_their_run_only(project, only, limits):
    write(project, "study", {**STUDY, "limits": ["resnet_ssim"]})
    tasks = grid.plan("params/grids/study.yaml", only=only)
    found = [task for task in tasks if task.kind == "limits"]
    assert len(found) == limits and all(task.after in tasks for task in found)


def test_how_many_pictures_a_run_takes_is_a_task_of_its_own(project):
    write(project, "patches", {"name": "patches", "model": "memory"})
    write(project, "study", {**STUDY, "configs": ["cae_mse", "patches"], "limits": ["cae_mse"],
                             "how_many": ["patches"]})
    tasks = grid.plan("params/grids/study.yaml", only="category=zipper,seed=0")
    assert [task.kind for task in tasks] == ["eda", "run", "run", "limits", "how_many",
                                             "comparison"]
    found = tasks[4]
    assert found.title == "zipper patches how many" and found.after is tasks[2]
    assert found.notebook == project / "notebooks" / "08_how_many.ipynb"
    assert found.note == project / "reports" / "how_many" / "zipper" / "patches" / (
        "how_many.json") == found.output.with_name("how_many.json")


def test_without_limits_their_notebook_is_not_asked_for(project):
    (project / "notebooks" / "05_limits.ipynb").unlink()
    assert grid.plan("params/grids/study.yaml")
    write(project, "study", {**STUDY, "limits": ["cae_mse"]})
    with pytest.raises(InputError, match="there is no .*05_limits.ipynb"):
        grid.plan("params/grids/study.yaml")


def test_only_keeps_the_named_runs_and_the_look_at_their_data(project):
    titles = [
        task.title
        for task in grid.plan("params/grids/study.yaml", only="category=zipper, config=cae_mse,seed=1")
    ]
    assert titles == ["zipper: the data", "zipper cae_mse seed 1", "comparison"]
    both = grid.plan("params/grids/study.yaml", only="category=zipper,category=hazelnut,seed=0")
    assert [task.config.seed for task in both if task.config] == [0, 0, 0, 0]


@pytest.mark.parametrize(("before", "only", "shown"), [
    ("", "", ""),
    ("", "category=zipper", "category=zipper"),  # of the rest there is nothing to be seen
    ("category=hazelnut", "category=zipper", ""),
    ("category=hazelnut,seed=0", "category=zipper,seed=0", "seed=0"),
    ("category=zipper,config=cae_mse", "category=zipper,config=resnet_ssim", "category=zipper"),
    ("seed=0", "category=zipper,config=cae_mse,seed=0", "seed=0")])
def test_a_comparison_says_the_command_that_makes_what_it_shows(project, before, only, shown):
    ran = grid.plan("params/grids/study.yaml", only=before) if before else []
    for task in ran:
        if task.config:
            task.output.parent.mkdir(parents=True)
            task.output.with_name("run.json").touch()
    *_, comparison = grid.plan("params/grids/study.yaml", only=only)
    command = ["adlib", "run", "params/grids/study.yaml"]
    assert shlex.split(comparison.made_by) == command + ["--only", shown] * bool(shown)
    assert shlex.split(comparison.retry) == command + ["--only", only] * bool(only)


@pytest.mark.parametrize("only", ["category=hazelnut, sed=0", "sed=0,category=hazelnut"])
def test_a_misspelt_key_is_told_wherever_it_stands(project, only):
    with pytest.raises(InputError, match="sed.*did you mean 'seed'"):
        grid.plan("params/grids/study.yaml", only=only)


@pytest.mark.parametrize("category", ["hazelnut", "nut, large", "a,b c", "a,b=c", " a", "a,"])
def test_the_retry_command_plans_exactly_that_run(project, category):
    (project / "data" / "hazelnut").rename(project / "data" / category)
    tasks = grid.plan("params/grids/study.yaml", data_root="data", reports="elsewhere")
    task = next(task for task in tasks if task.title == f"{category} resnet_ssim seed 1")
    words = shlex.split(task.retry)
    assert words[:3] == ["adlib", "run", "params/grids/study.yaml"
                         ] and words[words.index("--reports") + 1] == "elsewhere"
    again = grid.plan(words[2], data_root=words[words.index("--data") + 1], reports="elsewhere",
                      only=words[words.index("--only") + 1])
    assert [other.params for other in again if other.config] == [task.params]


def test_paths_are_those_of_the_caller_and_of_the_project(project, monkeypatch):
    write(project, "resnet_ssim", {"model": "resnet18", "weights": "weights/r18.pth"})
    for path in ("weights/r18.pth", "notebooks/w.pth"):
        (project / path).parent.mkdir(exist_ok=True)
        (project / path).touch()
    monkeypatch.chdir(project / "notebooks")
    tasks = grid.plan("../params/grids/study.yaml", data_root="../data", reports="out")
    run = next(task for task in tasks if task.config and task.config.model == "resnet18")
    assert run.config.weights == str(project / "weights" / "r18.pth")
    assert Path(run.config.data_root).samefile(project / "data") and run.config.reports == str(
        project / "notebooks" / "out")
    tasks = grid.plan("../params/grids/study.yaml", weights="w.pth")
    assert {task.config.weights
            for task in tasks if task.config} == {"imagenet",
                                                  str(project / "notebooks" / "w.pth")}


def test_a_weights_file_that_is_not_there_is_said_before_a_run_is_touched(project):
    with pytest.raises(InputError, match="--weights: weights file .*nowhere.pth is missing; give"):
        grid.plan("params/grids/study.yaml", weights="nowhere.pth")
    write(project, "resnet_ssim", {"model": "resnet18", "weights": "weights"})
    with pytest.raises(InputError, match="study.yaml, resnet_ssim on .*: weights file .* missing"):
        grid.plan("params/grids/study.yaml")


@pytest.mark.parametrize(("content", "sentence"), [
    ({**STUDY, "sedes": [0]}, "unknown key 'sedes'; did you mean 'seeds'"),
    ({**STUDY, "configs": ["cae_msee"]}, "no configuration file cae_msee.yaml .*did you mean 'cae_mse'"),
    ({**STUDY, "configs": []}, "configs is .*at least one"),
    ({**STUDY, "configs": "cae_mse"}, "configs is 'cae_mse'; give a list"),
    ({**STUDY, "categories": ["ziper"]}, "no category 'ziper'; did you mean 'zipper'"),
    ({**STUDY, "seeds": ["one"]}, "seeds is .*whole numbers"),
    ({**STUDY, "set": {"epoch": 3}}, "set: unknown key 'epoch'; did you mean 'epochs'"),
    ({**STUDY, "set": {"seed": 3}}, "set: seed cannot be set here; use seeds:"),
    ({**STUDY, "set": {"ssim_weight": 1.5}}, "cae_mse on hazelnut: ssim_weight is 1.5"),
    ({**STUDY, "overrides": [{"when": {"categry": "zipper"}, "set": {"epochs": 3}}]
      }, "override 1: when.*did you mean 'category'"),
    ({**STUDY, "overrides": [{"set": {"epochs": 3}}]}, "override 1 is .*when"),
    ({**STUDY, "overrides": [{"when": {"model": "resnet8"}, "set": {"epochs": 3}}]
      }, "override 1: when.*'resnet8'.*'resnet18'"),
    ({**STUDY, "overrides": [{"when": {"name": "cae_ms"}, "set": {"epochs": 3}}]
      }, "override 1: when.*'cae_ms'.*'cae_mse'"),
    ({**STUDY, "overrides": {"epochs": 3}}, "overrides is .*list"),
    ({**STUDY, "limits": ["cae_ms"]}, "limits: no configuration 'cae_ms'; did you mean 'cae_mse'"),
    ({**STUDY, "limits": []}, "limits is .*at least one"),
    ({**STUDY, "limits": "cae_mse"}, "limits is 'cae_mse'; give a list"),
    ({**STUDY, "how_many": ["fuse"]}, "how_many: no configuration 'fuse'"),
    ({**STUDY, "how_many": ["cae_mse"]}, "how_many: cae_mse is cae, .* features; take .* fused"),
    ({**STUDY, "limit": ["cae_mse"]}, "unknown key 'limit'; did you mean 'limits'"),
    ({"config": ["cae_mse"]}, "unknown key 'config'; did you mean 'configs'"),
    ({"name": "other"}, "name is 'other'.*'bad'"),
    ("configs: [a\n", "is not valid YAML"),
    ("just words", "holds no mapping"),
    ("", "holds no mapping"),
])
def test_a_mistake_in_a_grid_is_one_sentence(project, content, sentence):
    write(project, "bad", content)
    with pytest.raises(InputError, match=sentence) as caught:
        grid.plan("params/grids/bad.yaml")
    assert "\n" not in str(caught.value) and "bad.yaml" in str(caught.value)


@pytest.mark.parametrize(("only", "sentence"), [
    ("categry=zipper", "did you mean 'category'"),
    ("category=ziper", "no category 'ziper'; did you mean 'zipper'"),
    ("seed=7", "no seed '7'"),
    ("zipper", "KEY=VALUE"),
    ("config=", "no config ''"),
])
def test_a_mistake_in_only_is_one_sentence(project, only, sentence):
    with pytest.raises(InputError, match=sentence):
        grid.plan("params/grids/study.yaml", only=only)


def test_outside_the_project_that_is_said(project):
    (project / "notebooks" / "03_resnet_ssim.ipynb").unlink()
    assert grid.plan("params/grids/study.yaml", only="config=cae_mse")
    with pytest.raises(
            InputError,
            match="there is no .*03_resnet_ssim.ipynb; run adlib inside the project's folder"):
        grid.plan("params/grids/study.yaml")


def test_a_missing_grid_suggests_one_that_is_there(project):
    with pytest.raises(InputError, match="did you mean 'params/grids/study.yaml'"):
        grid.plan("params/grids/studdy.yaml")


def test_a_configuration_that_names_a_place_cannot_be_in_a_grid(project):
    write(project, "cae_mse", {"model": "cae", "data_root": "/somewhere"})
    with pytest.raises(InputError, match="cae_mse.yaml: data_root cannot be set here; use --data"):
        grid.plan("params/grids/study.yaml")


@pytest.mark.parametrize("path", sorted((ROOT / "params").glob("*/*.yaml")),
                         ids=lambda path: path.stem)
def test_every_file_of_params_can_be_planned(project, path):
    tasks = grid.plan(path, data_root=str(project / "data"))
    assert tasks[-1].kind == "comparison" and {task.params.get("category")
                                               for task in tasks[:-1]} == {"hazelnut", "zipper"}


def test_a_grid_may_say_which_language_its_report_opens_in(tmp_path):
    (tmp_path / "cae_mse.yaml").write_text("model: cae\n")
    grid_file = tmp_path / "own.yaml"
    for content, language in (("", ""), ("lang: zh\n", "zh")):
        grid_file.write_text("configs: [cae_mse]\n" + content)
        assert grid.read(grid_file).lang == language
    grid_file.write_text("configs: [cae_mse]\nlang: cn\n")
    with pytest.raises(InputError, match="lang is 'cn'; give en or zh"):
        grid.read(grid_file)


@pytest.fixture
def deprecations(caplog):
    deprecated.cache_clear()
    yield caplog
    deprecated.cache_clear()


@pytest.mark.parametrize("old, new", [("quick", "grids/quick"), ("study", "grids/reference"),
                                      ("fused", "configurations/fused"),
                                      ("taught", "configurations/classifier")])
def test_the_places_of_an_earlier_version_are_read_with_a_sentence(deprecations, old, new):
    content = grid.read(ROOT / "params" / f"{old}.yaml")
    assert content.path == ROOT / "params" / f"{new}.yaml"
    assert deprecations.messages == [
        f"deprecated: {ROOT}/params/{old}.yaml is now {ROOT}/params/{new}.yaml; the next version "
        f"of adlib will not read it"]


def test_old_words_in_a_users_own_grid_are_read_with_a_sentence_each(project, deprecations):
    write(project, "classifier", {"model": "taught", "false_alarms": 0.1})
    path = write(project, "own", {
        "configs": ["taught", "cae_mse"], "limits": ["taught"], "set": {"false_alarms": 0.2},
        "overrides": [{"when": {"model": "taught"}, "set": {"schedule": "seed"}}]})
    plan = grid.plan(path, only="category=zipper")
    configs = {task.config.name: task.config for task in plan if task.config}
    assert {(name, one.model, one.target_fpr, one.schedule) for name, one in configs.items()} == {
        ("classifier", "classifier", 0.2, "reference"), ("cae_mse", "cae", 0.2, "one_cycle")}
    assert [task.title for task in plan if task.kind == "limits"] == ["zipper classifier limits"]
    text = "\n".join(deprecations.messages)
    for said in ("the configuration taught is now classifier",
                 "set: false_alarms: 0.2 is now target_fpr: 0.2",
                 "model: taught is now model: classifier",
                 "schedule: seed is now schedule: reference"):
        assert said in text


@pytest.mark.parametrize("place", ["", "configurations", "../configurations"])
def test_a_grid_finds_its_configurations_beside_it(project, place):
    folder = project / "mine" / "grids"
    (folder / place).mkdir(parents=True)
    (folder / place / "one.yaml").write_text("model: cae\nepochs: 7\n")
    (folder / "all.yaml").write_text("configs: [one]\n")
    assert grid.read(folder / "all.yaml").configs == {"one": {"model": "cae", "epochs": 7}}


def test_a_grid_of_ones_own_folder_may_name_the_studys_configurations(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "all.yaml"
    place.write_text("configs: [fused, mine]\n")
    (tmp_path / "mine.yaml").write_text("model: mine.py:Mean\n")
    assert [values["model"] for values in grid.read(place).configs.values()] == [
        "fused", "mine.py:Mean"]
    (tmp_path / "fused.yaml").write_text("model: memory\n")  # its own comes first
    assert grid.read(place).configs["fused"]["model"] == "memory"


def test_a_detector_of_ones_own_runs_in_the_feature_notebook_with_its_options(project):
    path = write(project, "mine", {"model": "mine.py:Mean", "options": {"k": 3},
                                   "score": "mine.py:top"})
    task = next(task for task in grid.plan(path) if task.config)
    assert task.notebook.name == "04_feature_space.ipynb"
    assert task.params["options"] == '{"k": 3}' and task.params["score"] == "mine.py:top"


def test_a_grid_that_windows_wrote_is_the_same(tmp_path):
    text = "configs: [cae_mse]\nseeds: [0, 1]\nset:\n  epochs: 7\n"
    for name, content in (("a", text.encode()),
                          ("b", b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())):
        (tmp_path / f"{name}.yaml").write_bytes(content)
    (tmp_path / "cae_mse.yaml").write_bytes(b"name: cae_mse\r\nmodel: cae\r\n")
    one, other = (grid.read(tmp_path / f"{name}.yaml") for name in "ab")
    assert one.configs == other.configs and (one.seeds, one.common) == (other.seeds, other.common)


def test_what_is_excluded_goes_to_every_run_and_to_the_look_at_the_data(course_root, tmp_path):
    listed = tmp_path / "bad.txt"
    listed.write_text("nut/train/good/003.png\n")
    tasks = grid.plan("params/grids/quick.yaml", data_root=str(course_root), exclude=str(listed),
                      only="category=nut,config=cae_mse")
    look, run = tasks[0], tasks[1]
    assert (look.kind, run.kind) == ("eda", "run")
    assert look.params["exclude"] == run.config.exclude == '["nut/train/good/003.png"]'
    assert "--exclude" in run.retry


def test_a_home_that_is_nobodys_is_one_sentence(project):
    path = write(project, "own", {"name": "own", "model": "cae",
                                  "data_root": "~nobody-has-this-name/data"})
    with pytest.raises(InputError, match="nobody-has-this-name"):
        grid.plan(path)
    path = write(project, "bad", STUDY)
    with pytest.raises(InputError, match="weights file .*nobody-has-this-name.* is missing"):
        grid.plan(path, weights="~nobody-has-this-name/w.pth")
