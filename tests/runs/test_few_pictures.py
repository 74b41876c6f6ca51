"""From one good picture on: ranked, without a threshold, and told how many more one takes."""
import math

import numpy as np
import pytest
import torch

from adlib.config import Config
from adlib.data import images
from adlib.models import fused
from adlib.report.words import sentences
from adlib.runs import inference
from tests.handmade import SMALL, spine


@pytest.fixture(autouse=True)
def _few_anomalies(monkeypatch):
    monkeypatch.setattr(fused, "SYNTHETIC", 16)
    monkeypatch.setattr(fused, "VIEWS", 8)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_the_fused_detector_ranks_from_one_good_picture_on(course_root, tmp_path, caplog, n):
    paths = sorted((course_root / "nut" / "train" / "good").iterdir())
    for path in paths[n:]:
        path.unlink()
    folder, _, decision, _ = spine(Config(**SMALL | {
        "name": "fused", "model": "fused", "image_size": 64, "target_fpr": 0.05,
        "data_root": str(course_root), "reports": str(tmp_path / "reports")}))
    run, part = inference.reopen_with_data(folder)
    scores = run.scores(part.test.tensor)
    assert np.isfinite(scores).all() and len(set(scores)) == len(scores)
    assert run.detector.head.spread.gt(0).all() and math.isinf(run.threshold.value)
    assert run.decision.foreign_threshold is None
    said = sentences.decisions(decision)
    assert f"takes 19 good pictures, {19 - n} more" in said and "ranked" in said
    good = images.load(paths[:1], 64)
    assert run.scores(good)[0] < scores.max()  # what was learned is not what is most anomalous
    assert not caplog.messages
    assert torch.isfinite(run.detector.anomaly_maps(good)["distance"]).all()
