import dataclasses

import pytest

from adlib.config import Config, InputError, did_you_mean, project_root
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
                          ({"model": 3}, "type str"),
                          ({"model": "mine.py"}, "FILE.py:CLASS, anomalib:NAME"),
                          ({"model": "anomalib:"}, "model is 'anomalib:'"),
                          ({"loss": "mine.py"}, "loss is 'mine.py'; give FILE.py:FUNCTION"),
                          ({"score": "mine:top"}, "score is 'mine:top'"),
                          ({"options": "[1, 2]"}, "options is '[1, 2]'; give a mapping"),
                          ({"options": {1: 2}}, "options is"),
                          ({"options": "{a: [}"}, "options is '{a: [}'")])
def test_bad_values_get_one_sentence(values, words):
    with pytest.raises(InputError) as error:
        Config.from_mapping(values, "params/x.yaml")
    message = str(error.value)
    assert message.startswith("params/x.yaml: ") and words in message and "\n" not in message


def test_did_you_mean():
    assert did_you_mean("zippr", ["zipper", "hazelnut"]) == "; did you mean 'zipper'?"
    assert did_you_mean("x", []) == ""


def test_project_root_is_found_from_the_notebooks_folder(tmp_path, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "params").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    assert project_root() == tmp_path


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
