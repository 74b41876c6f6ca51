"""What is displayed and how; and the figures that need pictures, with their captions."""
import types

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from adlib.config import Config
from adlib.data import part
from adlib.evaluation import results as evaluation
from adlib.evaluation.conformal import Threshold
from adlib.report import components, figures, render
from adlib.report.i18n import Text
from tests.handmade import OTHER, OWN, category, ranks, scored


@pytest.fixture
def displayed(monkeypatch):
    import IPython.display

    shown = []
    monkeypatch.setattr(
        IPython.display, "display", lambda what, raw=False, metadata=None: shown.append(
            (what if raw else what.data, metadata)))
    return shown


def test_a_figure_is_saved_with_its_caption_inside_and_shown_with_both_languages(
        displayed, tmp_path):
    figure, axes = plt.subplots()
    axes.set_title("a $1 part for $2")
    figures.show(figure, Text("A curve.", "曲线。"), tmp_path / "curve.png")
    ((data, metadata), ) = displayed
    assert metadata["image/png"] == {"alt": "A curve.", "alt_zh": "曲线。"}
    assert (tmp_path / "curve.png").read_bytes() == data["image/png"]
    with Image.open(tmp_path / "curve.png") as image:
        assert image.text["Description"] == "A curve." and image.mode == "P"
    assert not plt.fignum_exists(figure.number)


def test_a_component_moves_in_jupyterlab_and_comes_alone_elsewhere(displayed, monkeypatch):
    figures.show(None)
    figures.show(components.localization(None))
    assert displayed == []
    fragment = components.paragraph("a < b")
    figures.show(fragment)
    monkeypatch.setattr(figures, "attended", lambda: True)
    figures.show(fragment)
    assert displayed[0][0] == fragment and render.script() in displayed[1][0]


def test_a_sentence_shows_names_as_they_are_and_commands_as_code(displayed):
    figures.say("run `adlib run` on <b>")
    assert "<code>adlib run</code> on &lt;b&gt;" in displayed[0][0]["text/html"]


@pytest.mark.parametrize(("header", "there"), [({"content": {"allow_stdin": True}}, True),
                                               ({"content": {"allow_stdin": False}}, False),
                                               ({}, False), (None, False)])
def test_somebody_is_there_where_the_front_end_takes_questions(monkeypatch, header, there):
    import IPython

    monkeypatch.setattr(IPython, "get_ipython",
                        lambda: type("Shell", (), {"parent_header": header})())
    assert figures.attended() is there


def test_a_runs_figure_is_saved_and_displayed_and_its_caption_said_once(displayed, tmp_path):
    history = [{"epoch": i, "loss": 1 / i, "held_out_loss": float("nan"), "lr": 0.1}
               for i in (1, 2)]
    figures.loss_curve(history).show(tmp_path)
    picture, said = displayed
    assert (tmp_path / "loss_curve.png").is_file() and picture[0]["text/plain"] in said[0][
        "text/plain"] and len(displayed) == 2
    figures.loss_curve([]).show(tmp_path / "elsewhere")  # nothing was trained: a sentence alone
    assert len(displayed) == 3 and "Nothing was trained" in displayed[2][0]["text/plain"]


def test_every_figure_of_a_run_has_the_name_of_its_file(displayed, tmp_path):
    NUT = category()
    run = scored(NUT, {OWN: ranks(NUT, 1.0), OTHER: ranks(NUT, 2.0, 1)})
    results = types.SimpleNamespace(
        table=run.table, auroc=evaluation.auroc_of(run.table),
        score_study=evaluation.score_study(run.table, run.decision, run.by_split),
        epochs=pd.DataFrame({"epoch": [1, 2], "auroc": [0.6, 0.7]}))
    for make in (figures.roc, figures.score_distribution, figures.score_study,
                 figures.auroc_over_epochs):
        make(results).show(tmp_path)
    assert {path.name for path in tmp_path.glob("*.png")} == {
        "roc_curve.png", "score_distribution.png", "score_study.png", "auroc_over_epochs.png"}
    unlabelled = results.table.assign(label=pd.array([None] * len(results.table), "Int64"))
    results.auroc = evaluation.auroc_of(unlabelled)
    assert "none" in figures.roc(results).caption


class Darker:
    """Reconstructs everything a little darker."""

    def reconstruct(self, images):
        return (images.float() / 255 - 0.1).clamp(0, 1)


@pytest.fixture
def evaluated(mvtec_root):
    opened = part.open_part(Config(data_root=str(mvtec_root), image_size=32, held_out=0.2))
    table = pd.DataFrame({
        "path": opened.test.keys, "split": "test", "label": pd.array([0, 0, 0, 1, 1, 1], "Int64"),
        "defect": ["good"] * 3 + ["spot"] * 3, "score": [3.0, 1, 2, 6, 4, 5],
        "chosen_score": [3.0, 1, 2, 6, 4, 5], "chosen_p_value": 0.5})
    train = pd.DataFrame({"path": opened.train.keys, "split": "train", "score": 0.0,
                          "chosen_score": 0.0, "label": 0, "defect": "good"})
    maps = torch.rand(6, 32, 32, generator=torch.Generator().manual_seed(0)).numpy()
    results = types.SimpleNamespace(table=pd.concat([train, table], ignore_index=True), maps=maps)
    decision = types.SimpleNamespace(score="ssim.max", low=0.1, level=0.8,
                                     threshold=Threshold(np.linspace(0, 3.5, 19), 0.05))
    return results, decision, opened


def test_maps_stand_below_their_own_images_and_the_masks_are_drawn(evaluated):
    results, decision, opened = evaluated
    captioned = figures.heat_maps(results, decision, opened)
    figure, caption = captioned.plot, captioned.caption
    assert (captioned.file, captioned.said) == ("anomaly_maps.png", False)
    drawn = figure.axes[:12]
    titles = [axes.get_title() for axes in drawn[:6]]
    assert titles == ["spot\n000.png", "spot\n002.png", "spot\n001.png", "good\n000.png",
                      "good\n002.png", "good\n001.png"]
    for place, column in ((3, 0), (5, 1), (4, 2), (0, 3), (2, 4), (1, 5)):
        assert (drawn[6 + column].images[0].get_array() == results.maps[place]).all()
        assert (drawn[column].images[0].get_array()
                == opened.test.tensor[place].permute(1, 2, 0).numpy()).all()
    assert "Anomaly maps (ssim.max) of 6 test images: spot 000.png" in caption
    assert "solid: the true defect" in caption and "实线" in caption.zh
    plt.close(figure)


def test_reconstructions_stand_between_input_and_residual(evaluated):
    results, _, opened = evaluated
    captioned = figures.visualization(Darker(), results, opened, each=2)
    figure, caption = captioned.plot, captioned.caption
    rows = np.array(figure.axes[:12], object).reshape(3, 4)
    assert [axes.get_title() for axes in rows[0]] == [
        "good\n001.png\n1.0000", "good\n000.png\n3.0000", "spot\n001.png\n4.0000",
        "spot\n000.png\n6.0000"]
    x, y, residual = (np.asarray(axes.images[0].get_array()) for axes in rows[:, 0])
    assert np.allclose(np.clip(x - 0.1, 0, 1), y, atol=1e-6)
    assert np.allclose(np.abs(x - y).mean(-1), residual, atol=1e-6)
    assert "of 4 test images" in caption and "to 0.100" in caption
    plt.close(figure)


def test_the_gallery_is_made_of_the_results(evaluated):
    results, decision, opened = evaluated
    page = components.gallery(results, decision, opened, Darker())
    assert page.count("<li ") == 6 and page.count("<img ") == 18 and "reconstruction" in page
    assert components.gallery(results, decision, opened, object()).count("<img ") == 12
