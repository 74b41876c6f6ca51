"""A user's own detector: run like a built-in, and told about in one sentence."""
import numpy as np
import pytest
import torch

from adlib.config import DETECTORS, MODELS, Config, InputError
from adlib.data import files
from adlib.data.part import open_part
from adlib.evaluation.calibration import calibrate
from adlib.evaluation.results import evaluate
from adlib.models import registry
from adlib.models.detector import fit, load_state
from adlib.runs import inference
from tests.handmade import SMALL, spine

MEAN_IMAGE = '''
class MeanImage:
    """Absolute difference to the mean good image."""
    def fit(self, images): self.mean = images.float().mean(0, keepdim=True); return self
    def anomaly_maps(self, images): return (images.float() - self.mean).abs().mean(1)
'''
WITH_STATE = MEAN_IMAGE + '''
    def state(self): return {"mean": self.mean.numpy()}
    def load(self, state): self.mean = torch.from_numpy(state["mean"])
'''
TORCH = '''
class Scaled(torch.nn.Module):
    """A torch module: two maps of different sizes, one of them learned, options and validation."""
    def __init__(self, gain=1.0, name="fine"):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.tensor(float(gain)))
        self.register_buffer("mean", torch.zeros(0))
        self.name = name
    def fit(self, images, validation=None):
        self.mean = images.float().mean(0, keepdim=True)
        self.seen = None if validation is None else len(validation)
        self.history = [{"epoch": 1, "lr": 0.1, "loss": 0.5, "held_out_loss": 0.4}]
    def anomaly_maps(self, images):
        fine = self.gain * (images.float() - self.mean).abs().mean(1)
        return {self.name: fine, "coarse": torch.nn.functional.avg_pool2d(fine[:, None], 8)[:, 0]}
'''


pytestmark = pytest.mark.usefixtures("small_detectors")


def configured(root, tmp_path, **changes):
    return Config(**SMALL | {"data_root": str(root), "reports": str(tmp_path / "reports"),
                             "name": "own"} | changes)


def test_every_model_of_the_configuration_is_built_in():
    assert set(DETECTORS) == {*MODELS, "anomalib"}


@pytest.mark.parametrize("code", [MEAN_IMAGE, WITH_STATE], ids=["without state", "with state"])
def test_a_detector_in_five_lines_runs_like_a_built_in(course_root, tmp_path, own, code):
    config = configured(course_root, tmp_path, model=own(code) + ":MeanImage")
    folder, detector, decision, results = spine(config)
    assert decision.reference == decision.score == "map.top1" and detector.seconds > 0
    assert decision.threshold.how == "split" and len(decision.threshold.calibration) == 3
    assert results.auroc["test"]["value"] == 1  # white squares
    part = open_part(config)
    expected = (part.test.tensor.float() - part.train.tensor.float().mean(0, keepdim=True))
    maps = detector.anomaly_maps(part.test.tensor)
    assert torch.equal(maps["map"], expected.abs().mean(1))
    assert {"all_results.csv", "metrics.json", "score_study.csv", "run.json"} <= {
        path.name for path in folder.iterdir()}
    if code == MEAN_IMAGE:
        assert not detector.can_be_reopened and not (folder / "model.pt").exists()
        with pytest.raises(InputError, match=r"cannot be reopened: its detector, .*:MeanImage, "
                                             r"offers neither a torch state dict nor state\(\)"):
            inference.reopen(folder)
    else:
        again = inference.reopen(folder)
        assert again.scores(part.test).tolist() == results.table.loc[
            results.table["split"] == "test", "chosen_score"].tolist()
        (folder / "model.pt").unlink()
        with pytest.raises(InputError, match="model.pt is missing; put it there, or run"):
            inference.reopen(folder)


def test_a_torch_module_comes_back_by_its_state_dict(course_root, tmp_path, own):
    config = configured(course_root, tmp_path, model=own(TORCH) + ":Scaled",
                        options='{"gain": 2.5, "name": "sharp"}')
    folder, detector, decision, results = spine(config)
    assert detector.subject.seen == 3 and detector.subject.gain.item() == 2.5
    assert set(decision.ranking["score"]) == {f"{name}.{how}" for name in ("sharp", "coarse", "sum")
                                              for how in ("top1", "max", "mean")}
    assert decision.reference == "sharp.top1" and results.maps.shape == (6, 32, 32)
    assert files.read_json(folder / "metrics.json")["epochs"] == 1
    assert "0.5" in (folder / "history.csv").read_text()
    run, part = inference.reopen_with_data(folder)
    table = results.table[results.table["split"] == "test"]
    assert run.scores(part.test).tolist() == table["chosen_score"].tolist()
    assert run.threshold.exceeded(table["chosen_score"]).tolist() == (
        table["chosen_prediction"] == 1).tolist()


def test_it_can_be_defined_in_a_notebook_cell_and_handed_to_fit(course_root, tmp_path):
    class MeanImage:
        def fit(self, images):
            self.mean = images.float().mean(0, keepdim=True)
            return self

        def anomaly_maps(self, images):
            return ((images.float() - self.mean).abs().mean(1)).numpy()  # an array will do

    part = open_part(configured(course_root, tmp_path))
    detector = fit(MeanImage(), part.train)
    results = evaluate(detector, calibrate(detector, part), part)
    assert results.chosen["score"] == "map.top1" and results.auroc["test"]["value"] == 1


def test_a_detector_may_be_a_function_that_makes_one(own, tmp_path, course_root):
    model = own(MEAN_IMAGE + "\ndef made(): return MeanImage()\n") + ":made"
    detector = registry.build(configured(course_root, tmp_path, model=model))
    assert type(detector.subject).__name__ == "MeanImage"


def test_its_random_numbers_are_the_configurations(own, course_root, tmp_path):
    model = own("""
        class Random:
            def __init__(self): self.a = torch.rand(3); self.b = np.random.rand(3)
            def fit(self, images): pass
            def anomaly_maps(self, images): return images.float().mean(1)
    """) + ":Random"
    first, again, other = (
        registry.build(configured(course_root, tmp_path, model=model, seed=seed)).subject
        for seed in (0, 0, 1))
    assert torch.equal(first.a, again.a) and (first.b == again.b).all()
    assert not torch.equal(first.a, other.a) and not (first.b == other.b).any()


IMAGES = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8,
                       generator=torch.Generator().manual_seed(0))


def returning(what):
    class Returns:
        def fit(self, images):
            return self

        def anomaly_maps(self, images):
            return what(images.float().mean(1))
    return registry.adopt(Returns(), "my.py:Returns")


@pytest.mark.parametrize(("what", "sentence"), [
    (lambda maps: maps[:, None], r"my.py:Returns: anomaly_maps \(test_registry.py, line [1-9]\d*\) "
                                 r"gave shape \(4, 1, 32, 32\) for "
                                 r"'map' of 4 images; give \[N,h,w\], here \(4, h, w\)"),
    (lambda maps: maps[:3], r"gave shape \(3, 32, 32\) for 'map' of 4 images"),
    (lambda maps: maps.mean(dim=(1, 2)), r"gave shape \(4,\) for 'map'"),
    (lambda maps: maps[:, :0], r"gave shape \(4, 0, 32\) for 'map'"),
    (lambda maps: {"fine": maps, "bad": maps.flatten()}, r"for 'bad' of 4 images"),
    (lambda maps: maps / 0 * 0, "gave NaN or infinity in 'map' of 4 of 4 images; give finite"),
    (lambda maps: torch.where(maps == maps[0].max(), torch.inf, maps),
     "gave NaN or infinity in 'map' of [1-4] of 4 images"),
    (lambda maps: "map", "gave str for 'map'; give a tensor or array"),
    (lambda maps: None, "gave NoneType for 'map'; give a tensor or array"),
    (lambda maps: {}, "gave no map"), (lambda maps: {"sum": maps}, "gave a map named 'sum'; give"),
    (lambda maps: {"layer.1": maps}, "gave a map named 'layer.1'; give one map or several"),
    (lambda maps: {"a:b": maps}, "gave a map named 'a:b'; give one map or several")],
    ids=["channels", "images", "scores", "empty", "of two", "nan", "inf", "text", "nothing",
         "no map", "sum", "dot", "colon"])
def test_maps_that_are_none_are_one_sentence(what, sentence):
    with pytest.raises(InputError, match=sentence) as caught:
        returning(what).fit(IMAGES).anomaly_maps(IMAGES)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.float8_e5m2, torch.float16, torch.bfloat16, torch.int64,
                                   torch.bool, torch.float64])
def test_maps_of_any_number_format_are_taken(dtype):
    detector = returning(lambda maps: maps.to(dtype))
    maps = detector.anomaly_maps(IMAGES)["map"]
    assert maps.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert torch.equal(maps, IMAGES.float().mean(1).to(dtype).to(maps.dtype))


def test_maps_that_need_a_gradient_and_maps_of_no_image_are_taken():
    weight = torch.ones((), requires_grad=True)
    assert not returning(lambda maps: maps * weight).anomaly_maps(IMAGES)["map"].requires_grad
    assert returning(lambda maps: maps).anomaly_maps(IMAGES[:0])["map"].shape == (0, 32, 32)


def test_a_fit_that_raises_is_told_with_file_and_line(own, course_root, tmp_path):
    model = own("""
        def deeper(images):
            return images[99999]

        class Raises:
            def fit(self, images):
                return deeper(images)
            def anomaly_maps(self, images): ...
    """) + ":Raises"
    config = configured(course_root, tmp_path, model=model)
    part = open_part(config)
    with pytest.raises(InputError, match=r"my_detector.py:Raises: fit failed with IndexError: .*"
                                         r"\(my_detector.py, line 4\)$") as caught:
        fit(config, part.train)
    assert "\n" not in str(caught.value) and isinstance(caught.value.__cause__, IndexError)


@pytest.mark.parametrize(("history", "sentence"), [
    ("None", ""), ("np.zeros((0, 2))", ""),
    ("3", r"history failed with TypeError: 'int' object is not iterable"),
    ("{'loss': [1]}", "row 1 of its history is 'loss'; give a dict with a loss"),
    ("np.zeros((9, 9, 9))", r"row 1 of its history is array\(\[\[0., 0., .{1,100}; give a dict")])
def test_a_history_that_is_none_is_no_history_or_told(own, history, sentence):
    model = own(MEAN_IMAGE + f"    history = {history}\n") + ":MeanImage"
    detector = registry.build(Config(model=model))
    if not sentence:
        assert detector.fit(IMAGES).history == []
    else:
        with pytest.raises(InputError, match=sentence) as caught:
            detector.fit(IMAGES)
        assert "\n" not in str(caught.value)


def test_what_fails_without_a_word_is_told_without_one(own):
    model = own(MEAN_IMAGE.replace("self.mean =", "assert not len(images); self.mean =")
                ) + ":MeanImage"
    with pytest.raises(InputError, match=r"fit failed with AssertionError \(my_detector.py, line"):
        registry.build(Config(model=model)).fit(IMAGES)


def test_a_parameter_in_its_state_comes_back(own):
    config = Config(model=own(WITH_STATE.replace(
        "self.mean.numpy()", "torch.nn.Parameter(self.mean)")) + ":MeanImage")
    detector, again = registry.build(config).fit(IMAGES), registry.build(config)
    load_state(again, detector.state_dict())
    assert torch.equal(again.anomaly_maps(IMAGES)["map"], detector.anomaly_maps(IMAGES)["map"])


def test_a_fit_that_ends_the_process_is_told_with_file_and_line(own, course_root, tmp_path):
    model = own("""
        import sys
        class Ends:
            def fit(self, images): sys.exit(3)
            def anomaly_maps(self, images): ...
    """) + ":Ends"
    detector = registry.build(configured(course_root, tmp_path, model=model))
    with pytest.raises(InputError, match=r"fit failed with SystemExit: 3 \(my_detector.py, line 5"):
        detector.fit(IMAGES)


def test_what_anomaly_maps_raises_inside_torch_names_the_users_line(own, course_root, tmp_path):
    model = own("""
        class Raises:
            def fit(self, images): pass
            def anomaly_maps(self, images):
                return torch.nn.functional.conv2d(images.float(), torch.ones(1, 5, 3, 3))
    """) + ":Raises"
    config = configured(course_root, tmp_path, model=model)
    part = open_part(config)
    with pytest.raises(InputError, match=r"anomaly_maps failed with RuntimeError: .*"
                                         r"\(my_detector.py, line 6\)"):
        calibrate(fit(config, part.train), part)


@pytest.mark.parametrize(("code", "name", "sentence"), [
    ("class Half:\n    def fit(self, images): pass\n", "Half",
     r"my_detector.py:Half has no method anomaly_maps\(images\); a detector has fit\(images\) and"),
    ("class Half:\n    fit = 3\n    def anomaly_maps(self, images): pass\n", "Half",
     r"has no method fit\(images\)"),
    (MEAN_IMAGE, "MeanImag", "defines no 'MeanImag'; did you mean 'MeanImage'"),
    ("x = 3\n", "x", "my_detector.py defines no 'x'"),
    ("import nothing_of_that_name\n", "X",
     r"import failed with ModuleNotFoundError: .*\(my_detector.py, line 2\)"),
    ("class X:\n    def fit(self images): pass\n", "X",
     r"import failed with SyntaxError: .*\(my_detector.py, line 3\)"),
    ("class X:\n    def __init__(self): raise ValueError('too\\nbad')\n", "X",
     r"constructor failed with ValueError: too bad \(my_detector.py, line 3\)"),
    ("class X:\n    def __init__(self, size): pass\n", "X",
     r"cannot be made with options \{\}: missing a required argument: 'size'"),
    ("X = dict\n", "X", r"cannot be made with options \{\}: no signature found")],
    ids=["no anomaly_maps", "fit is no method", "unknown class", "no class", "import", "syntax",
         "constructor", "options", "no signature"])
def test_what_is_wrong_with_a_file_is_one_sentence(own, course_root, tmp_path, code, name,
                                                   sentence):
    config = configured(course_root, tmp_path, model=f"{own(code)}:{name}")
    with pytest.raises(InputError, match=sentence) as caught:
        registry.build(config)
    assert "\n" not in str(caught.value)


def test_an_option_too_many_and_a_file_that_is_not_there(own, course_root, tmp_path):
    config = configured(course_root, tmp_path, model=own(MEAN_IMAGE) + ":MeanImage",
                        options='{"gain": 2}')
    with pytest.raises(InputError, match="cannot be made with options {'gain': 2}: got an "
                                         "unexpected keyword argument 'gain'"):
        registry.build(config)
    with pytest.raises(InputError, match="there is no file nowhere.py; give FILE.py:NAME"):
        registry.build(configured(course_root, tmp_path, model="nowhere.py:X"))


def test_a_file_is_found_from_the_working_folder(own, course_root, tmp_path, monkeypatch):
    own(MEAN_IMAGE)
    monkeypatch.chdir(tmp_path)
    detector = registry.build(configured(course_root, tmp_path, model="my_detector.py:MeanImage"))
    assert type(detector.subject).__name__ == "MeanImage"


def test_state_and_load_that_raise_are_one_sentence(own, course_root, tmp_path):
    model = own(MEAN_IMAGE + """
    def state(self): return {"mean": object()}
    def load(self, state): raise KeyError("mean")
""") + ":MeanImage"
    detector = registry.build(configured(course_root, tmp_path, model=model))
    detector.fit(IMAGES)
    with pytest.raises(InputError, match="state failed with"):
        detector.state_dict()
    with pytest.raises(InputError, match="load failed with KeyError"):
        load_state(detector, {"_extra_state": {"mean": torch.ones(1)}})


def test_a_state_in_bf16_is_given_back_as_float32(own, course_root, tmp_path):
    model = own(MEAN_IMAGE + """
    def state(self): return {"mean": self.mean.bfloat16()}
    def load(self, state): self.mean = __import__("torch").from_numpy(state["mean"])
""") + ":MeanImage"
    detector = registry.build(configured(course_root, tmp_path, model=model)).fit(IMAGES)
    again = registry.build(configured(course_root, tmp_path, model=model))
    load_state(again, detector.state_dict())
    assert torch.equal(again.subject.mean, detector.subject.mean.bfloat16().float())


def test_a_state_dict_of_buffers_that_fitting_makes_is_loaded():
    class Late(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("grown", torch.zeros(0))
            self.layer = torch.nn.Linear(2, 2)

    fitted = Late()
    fitted.grown = torch.arange(5.0)
    fitted.layer.register_buffer("made", torch.ones(3))
    other = Late()
    load_state(other, fitted.state_dict())
    assert torch.equal(other.grown, fitted.grown) and torch.equal(other.layer.made, torch.ones(3))
    with pytest.raises((RuntimeError, AttributeError, KeyError)):
        load_state(Late(), {"somewhere.else": torch.ones(1)})
    with pytest.raises(RuntimeError, match="size mismatch"):
        load_state(Late(), fitted.state_dict() | {"layer.weight": torch.ones(3, 3)})
    assert np.isfinite(fitted.grown).all()
