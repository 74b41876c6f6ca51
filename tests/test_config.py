import dataclasses
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from adlib.config import (
    Config,
    InputError,
    cache_dir,
    deprecated,
    did_you_mean,
    given_path,
    parameters,
    project_root,
    upgrade_weights,
)
from adlib.data import layout
from adlib.runs.freshness import notebook_of


def test_yaml_spelling_of_numbers():
    config = Config.from_mapping({"lr": "1e-3", "epochs": 5.0, "seed": "3"})
    assert (config.lr, config.epochs, config.seed) == (0.001, 5, 3)
    assert isinstance(config.epochs, int)


def test_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().epochs = 3


@pytest.mark.parametrize("values, words",
                         [({"epocs": 3}, "unknown parameter 'epocs'; did you mean 'epochs'?"),
                          ({"zzz": 3}, "known are: batch_size"),
                          ({"epochs": "many"}, "epochs is 'many'; give a value of type int"),
                          ({"category": 7}, "category is 7; give a value of type str (in quotes; "
                                            "to papermill with -r category"),  # -p category 007
                          ({"epochs": 1.5}, "epochs is 1.5"), ({"epochs": True}, "epochs is True"),
                          ({"epochs": 0}, "at least 1"), ({"lr": "nan"}, "lr is 'nan'"),
                          ({"lr": 0}, "above 0"), ({"weights_fallback": "yes"}, "type bool"),
                          ({"image_size": 0}, "multiple of 32"),
                          ({"image_size": 100}, "multiple of 32"),
                          ({"image_size": -32}, "multiple of 32"),
                          ({"ssim_weight": 1.5}, "ssim_weight is 1.5; give a number from 0"),
                          ({"held_out": 1}, "held_out"), ({"batch_size": 1}, "two images"),
                          ({"vary": True, "fit": "tile"}, "vary is for fit: squeeze and pad"),
                          ({"model": "resnet"}, "did you mean 'resnet18'?"),
                          ({"device": "gpu"}, "known: auto, cpu, cuda, mps"),
                          ({"precision": "fp16"}, "precision is 'fp16'"),
                          ({"seed": -1}, "seed is -1"), ({"name": "../up"}, "a folder's"),
                          ({"seed": 2**64}, "give 0 or more, below 2**32"),  # a generator's most
                          ({"seed": 2**53 + 1}, "below 2**32"),
                          ({"epochs": 10**400}, "epochs is 1"),
                          ({"model": 3}, "type str"),
                          ({"model": "mine.py"}, "FILE.py:CLASS, anomalib:NAME"),
                          ({"model": "anomalib:"}, "model is 'anomalib:'"),
                          ({"loss": "mine.py"}, "loss is 'mine.py'; give FILE.py:FUNCTION"),
                          ({"score": "mine:top"}, "score is 'mine:top'"),
                          ({"options": "[1, 2]"}, "options is '[1, 2]'; give a mapping"),
                          ({"options": {1: 2}}, "options is"),
                          ({"options": "{a: [}"}, "options is '{a: [}'"),
                          ({"options": "{a: 2020-13-45}"}, "options is '{a: 2020-13-45}'"),
                          ({"options": "&a {k: *a}"}, "options is '&a {k: *a}'"),
                          ({"options": "[" * 3000}, "give a mapping of plain values"),
                          ({"exclude": "[2020-13-45]"}, "exclude is '[2020-13-45]'")])
def test_bad_values_get_one_sentence(values, words):
    with pytest.raises(InputError) as error:
        Config.from_mapping(values, "params/x.yaml")
    message = str(error.value)
    assert message.startswith("params/x.yaml: ") and words in message and "\n" not in message


def test_did_you_mean():
    assert did_you_mean("zippr", ["zipper", "hazelnut"]) == "; did you mean 'zipper'?"
    assert did_you_mean("x", []) == ""
    assert did_you_mean("cea", ["pca", "cae"]) == "; did you mean 'cae'?"  # two changed places
    with pytest.raises(InputError, match=r"known: .*; did you mean 'cae'\?"):
        Config(model="cea")


def test_project_root_is_found_from_the_notebooks_folder(tmp_path, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "params").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    assert project_root() == tmp_path


def test_a_path_in_a_notebook_may_be_from_the_projects_folder(tmp_path, monkeypatch):
    """JupyterLab starts a notebook's kernel in lab/, papermill in the project's folder."""
    for name in ("notebooks", "params", "lab", "photos/nut/train/good"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "w.pth").touch()
    monkeypatch.chdir(tmp_path / "lab")
    assert layout.find_root("photos")[0].samefile(tmp_path / "photos")
    assert given_path("w.pth") == tmp_path / "w.pth"
    (tmp_path / "lab" / "w.pth").touch()  # what lies beside the notebook comes first
    assert given_path("w.pth").samefile(tmp_path / "lab" / "w.pth")
    with pytest.raises(InputError, match="is 'none', which is missing"):
        layout.find_root("none")


def test_a_path_that_cannot_be_looked_at_is_not_there(monkeypatch):
    """A stranger's home, a name longer than any file's, a folder of another user."""
    stat = os.stat

    def guarded(path, **how):
        if str(path).endswith("secret"):
            raise PermissionError(13, "Permission denied")
        return stat(path, **how)

    monkeypatch.setattr(os, "stat", guarded)
    for given in ("~nosuch/x", "x" * 300, "secret"):
        assert given_path(given) == Path(given)
        with pytest.raises(InputError, match=f"is '{given}', which is missing, or may not be look"):
            layout.find_root(given)


@pytest.mark.parametrize("set_to", [None, ""])
def test_the_cache_is_in_the_users_folder_whether_that_is_set_empty_or_not(monkeypatch, set_to):
    monkeypatch.delenv("ADLIB_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    if set_to is not None:
        monkeypatch.setenv("XDG_CACHE_HOME", set_to)
    assert cache_dir() == Path.home() / ".cache" / "adlib"


@pytest.mark.parametrize("line", ["epochs, seed = 3, 1", "epochs = {[]: 1}", "epochs = 2 * n",
                                  "config.epochs = 3"])
def test_a_parameter_cell_gives_each_name_one_plain_value(line):
    assert parameters._assigned("# Parameters\nepochs: int = 3\nseed = 1") == {
        "epochs": 3, "seed": 1}
    with pytest.raises(InputError, match="^notebook parameters: '.*' does not give one name"):
        parameters._assigned(f"# Parameters\n{line}")


def test_a_parameter_cell_that_cannot_be_read_or_was_not_run_is_said_in_a_sentence(monkeypatch):
    shell = SimpleNamespace(user_ns={"In": ["", "# Parameters\nepochs: int = 3 x", "x = 1"]})
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)
    with pytest.raises(InputError, match="cannot be read: epochs: int = 3 x; mend it and run"):
        Config.from_notebook()
    shell.user_ns["In"] += ["# Parameters\nepochs: int = 3"]
    assert Config.from_notebook().epochs == 3
    shell.user_ns["In"] = ["", "config = Config.from_notebook()"]  # after a restart
    with pytest.raises(InputError, match="begins with '# Parameters' first"):
        Config.from_notebook()


def test_a_users_own_code_is_named_by_file_and_name(tmp_path, monkeypatch):
    for name in ("notebooks", "params", "lib"):
        (tmp_path / name).mkdir()
    for name in ("mine.py", "lib/loss.py"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path / "notebooks")  # found from the project's folder as well
    for model in ("mine.py:Mean", "../shelf/my detector.py:Mean2", "anomalib:Patchcore"):
        assert Config(model=model).model == model and notebook_of(model) == "04_feature_space.ipynb"
    config = Config(model="mine.py:Mean", loss="lib/loss.py:huber", score="gone.py:top")
    assert config.own_files == {"mine.py": tmp_path / "mine.py",
                                "lib/loss.py": tmp_path / "lib" / "loss.py", "gone.py": None}
    assert Config().own_files == {} and Config(model="anomalib:Padim").own_files == {}


@pytest.mark.parametrize("given", [{"b": [1], "a": "x"}, "{b: [1], a: x}", '{"b": [1], "a": "x"}',
                                   "a: x\nb:\n- 1"])
def test_options_are_kept_as_one_text_however_they_are_given(given):
    assert Config(options=given).options == '{"a": "x", "b": [1]}'


@pytest.mark.parametrize("nothing", ["", None, {}, "{}"])
def test_no_options(nothing):
    assert Config(options=nothing).options == ""


def test_old_words_are_read_and_told_once(caplog):
    deprecated.cache_clear()
    for _ in range(2):
        config = Config.from_mapping({"false_alarms": 0.1, "schedule": "seed", "model": "taught",
                                      "name": "taught_texture"}, "mine.yaml")
    assert (config.target_fpr, config.schedule, config.model, config.name) == (
        0.1, "reference", "classifier", "classifier_texture")
    assert [message.split(";")[0] for message in caplog.messages] == [
        "deprecated: mine.yaml: false_alarms: 0.1 is now target_fpr: 0.1",
        "deprecated: mine.yaml: schedule: seed is now schedule: reference",
        "deprecated: mine.yaml: model: taught is now model: classifier",
        "deprecated: mine.yaml: name: taught_texture is now name: classifier_texture"]
    deprecated.cache_clear()


@pytest.mark.parametrize("word, code", [
    ("none (trained from scratch)", "none"), ("none (no network)", "none"), ("none", "none"),
    ("torchvision IMAGENET1K_V1", "imagenet:IMAGENET1K_V1"), ("file:a.pth:01", "file:a.pth:01"),
    ("file:torchvision a.pth:01", "file:torchvision a.pth:01"),
    ("RANDOM, not ImageNet's", "random"), ("RANDOM, not ImageNet's (why (so))", "random:why (so)"),
    ("file a sha256:b.pth sha256:01", "file:a sha256:b.pth:01")])
def test_where_weights_came_from_was_said_in_english_once(word, code):
    assert upgrade_weights(word) == code


@pytest.mark.parametrize("name", ["a:b", "what?", "con", "Aux.1", "lpt1", "ends.", "ends ", "a|b",
                                  "two\nlines", "a\x1b"])
def test_a_name_that_is_no_folders_on_windows_is_refused_everywhere(name):
    with pytest.raises(InputError, match="name is .*a folder's on any system"):
        Config(name=name)


def test_a_run_is_kept_under_the_name_that_it_is_saved_as():
    assert Config(name="cae_mse", save_as="mine").name == "mine"
    with pytest.raises(InputError, match="a folder's"):
        Config(save_as="../up")


def test_names_to_exclude_are_a_list_or_the_path_of_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.txt").write_text("# why\nb.png\n\na, 1.png\r\nb.png\n", encoding="utf-8")
    for given in ("bad.txt", tmp_path / "bad.txt", ["b.png", "a, 1.png"], '["b.png", "a, 1.png"]'):
        config = Config(exclude=given)
        assert config.excluded == ["a, 1.png", "b.png"]
        assert Config(**config.as_dict()) == config
    for encoding in ("utf-8-sig", "utf-16", "utf-16-le"):  # as Windows writes it
        (tmp_path / "bad.txt").write_text("b.png\r\n\u00e4.png\r\n", encoding=encoding)
        assert Config(exclude="bad.txt").excluded == ["b.png", "\u00e4.png"]
    assert Config(exclude="").excluded == Config(exclude=[]).excluded == []
    for given in ("nosuch.txt", "b.png", [3], {"a": 1}, "[a"):
        with pytest.raises(InputError, match="^exclude is .*; give names"):
            Config(exclude=given)
