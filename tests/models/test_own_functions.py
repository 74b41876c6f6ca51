"""A user's own loss and score: like the study's, and told about in one sentence."""
import dataclasses

import numpy as np
import pytest
import torch

from adlib.config import Config, InputError
from adlib.data.part import open_part
from adlib.evaluation.calibration import score_table
from adlib.models import registry
from adlib.models.detector import fit
from adlib.runs import inference
from tests.handmade import spine
from tests.models.test_registry import configured

pytestmark = pytest.mark.usefixtures("small_detectors")
IMAGES = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8,
                       generator=torch.Generator().manual_seed(0))


LOSS = '''
def darkness(images, reconstructions):
    return reconstructions.mean()

def broken(images, reconstructions):
    return images @ reconstructions[:, :, :5]
'''


def test_a_loss_of_ones_own_trains_an_autoencoder(own, course_root, tmp_path):
    usual = spine(configured(course_root, tmp_path, epochs=2))[1]
    config = configured(course_root, tmp_path, epochs=2, loss=own(LOSS) + ":darkness",
                        reports=str(tmp_path / "other"))
    folder, detector, *_ = spine(config)
    losses = [row["loss"] for row in detector.history]
    assert losses[1] < losses[0] and losses != [row["loss"] for row in usual.history]
    run, part = inference.reopen_with_data(folder)  # which needs no loss
    assert torch.equal(run.detector.reconstruct(part.test.tensor),
                       detector.reconstruct(part.test.tensor))


def test_a_loss_that_raises_and_a_loss_where_there_is_none(own, course_root, tmp_path):
    config = configured(course_root, tmp_path, loss=own(LOSS) + ":broken")
    with pytest.raises(InputError, match=r":broken: call failed with RuntimeError: .*"
                                         r"\(my_detector.py, line 7\)"):
        fit(config, open_part(config).train)
    with pytest.raises(InputError, match=r"loss is .*, and model 'pca' is not trained by a loss"):
        registry.build(dataclasses.replace(config, model="pca"))
    with pytest.raises(InputError, match="loss is .*defines no 'dark'; did you mean 'darkness'"):
        registry.build(dataclasses.replace(config, loss=own(LOSS) + ":dark"))


SCORE = '''
def of_maps(maps):
    return maps["squared"].amax(dim=(1, 2))

def of_images(images, reconstructions):
    assert images.dtype == reconstructions.dtype == torch.float32 and images.max() <= 1
    return (images - reconstructions).abs().amax(dim=(1, 2, 3)).numpy()

def broken(maps):
    return maps["nothing"]
'''


@pytest.mark.parametrize("name", ["of_maps", "of_images"])
def test_a_score_of_ones_own_is_the_one_that_the_study_uses(own, course_root, tmp_path, name):
    score = f"{own(SCORE)}:{name}"
    folder, detector, decision, results = spine(configured(course_root, tmp_path, score=score))
    assert decision.score == score and decision.reference == "squared.mean"
    assert score in set(decision.ranking["score"])
    part = open_part(configured(course_root, tmp_path))
    x, y = part.test.tensor.float() / 255, detector.reconstruct(part.test.tensor)
    expected = ((x - y).square().mean(dim=1).amax(dim=(1, 2)) if name == "of_maps" else
                (x - y).abs().amax(dim=(1, 2, 3)))
    test = results.table[results.table["split"] == "test"]
    assert test["chosen_score"].to_numpy() == pytest.approx(expected.numpy(), rel=2**-20)
    assert decision.threshold.how == "split" and len(decision.threshold.calibration) == 3
    run = inference.reopen(folder)
    assert run.scores(part.test).tolist() == test["chosen_score"].tolist()
    assert run.threshold.value == decision.threshold.value


def test_a_score_that_raises_names_the_line(own, course_root, tmp_path):
    with pytest.raises(InputError, match=r":broken: call failed with KeyError: 'nothing' "
                                         r"\(my_detector.py, line 11\)"):
        spine(configured(course_root, tmp_path, score=own(SCORE) + ":broken"))


def test_a_score_that_is_no_number_an_image_is_told(own, course_root, tmp_path):
    score = own("def odd(maps): return np.zeros(7)\n") + ":odd"
    with pytest.raises(InputError, match=r":odd \(my_detector.py, line \d+\) gave shape \(7,\) "
                                         r"for \d+ images; give \[N\]"):
        spine(configured(course_root, tmp_path, score=score))
    score = own("def odd(maps): return np.full(len(maps['squared']), np.nan)\n") + ":odd"
    with pytest.raises(InputError, match=r":odd \(.*\) gave NaN or infinity"):
        spine(configured(course_root, tmp_path, score=score))


@pytest.mark.parametrize(("loss", "gave"), [
    ("(images - redrawn).square().mean(dim=(1, 2, 3))", r"shape \(4,\)"),
    ("(images - redrawn).square().mean()[None]", r"shape \(1,\)"),
    ("(images - redrawn).square().mean().item()", "no tensor"),
    ("images.mean()", "a number that does not follow from the reconstructions")],
    ids=["an image", "a list of one", "no tensor", "no gradient"])
def test_a_loss_that_cannot_be_learned_from_is_told(own, loss, gave):
    given = own(f"def odd(images, redrawn): return {loss}\n") + ":odd"
    with pytest.raises(InputError, match=rf":odd \(my_detector.py, line 2\) gave {gave}; give a "
                                         "tensor of one number"):
        fit(Config(loss=given, image_size=32, device="cpu"), IMAGES)


SCORES = """
class Of:
    def __call__(self, maps): return self.of(maps)
    def of(self, maps, channel="squared"): return maps[channel].amax(dim=(1, 2))

class Module(torch.nn.Module):
    def forward(self, images, redrawn): return (images - redrawn).abs().amax(dim=(1, 2, 3))

usual, with_a_default, of_module = Of(), Of().of, Module()
def of_images(images, redrawn, power=1): return (images - redrawn).abs().amax(dim=(1, 2, 3))**power
unseen = torch.dist
"""


@pytest.mark.parametrize("name", ["usual", "with_a_default", "of_module", "of_images"])
def test_what_a_score_needs_says_what_it_is_given(own, name):
    """Neither a default nor how it was made does."""
    config = Config(score=f"{own(SCORES)}:{name}", image_size=32, device="cpu", epochs=1)
    detector = fit(config, IMAGES)
    x, maps = IMAGES.float() / 255, detector.anomaly_maps(IMAGES)
    expected = (maps["squared"].amax(dim=(1, 2)) if name in ("usual", "with_a_default") else
                (x - detector.reconstruct(IMAGES)).abs().amax(dim=(1, 2, 3)))
    found = score_table(detector, dict.fromkeys(maps, (0.0, 1.0)), IMAGES)[config.score]
    assert np.array_equal(found, expected.double())


def test_a_score_of_reconstructions_where_there_are_none_and_one_that_shows_no_parameters(own):
    file = own(SCORES)
    config = Config(model="contrast", score=f"{file}:of_images", image_size=32, device="cpu")
    with pytest.raises(InputError, match="'contrast' has none of for a score; give one of maps"):
        registry.build(config)
    detector = fit(dataclasses.replace(config, score=f"{file}:unseen"), IMAGES)
    with pytest.raises(InputError, match=":unseen: call failed with TypeError"):
        score_table(detector, {"distance": (0.0, 1.0)}, IMAGES)
