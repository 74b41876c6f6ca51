"""docs/your_detector.md does what it says: its code is run as it stands there."""
import re

import pytest

from adlib.config import Config
from adlib.data.part import open_part
from adlib.evaluation.calibration import calibrate
from adlib.models import contract
from adlib.models.detector import fit
from tests.conftest import ROOT

BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "docs/your_detector.md").read_text(), re.S)
FILES = {match[1]: block for block in BLOCKS if (match := re.match(r"# (\w+\.py)\n", block))}


@pytest.fixture
def written(tmp_path, monkeypatch):
    """The guide's files, in the working folder."""
    for name, source in FILES.items():
        (tmp_path / name).write_text(source)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("given", "options"), [
    ("my_detector.py", ""), ("my_torch_detector.py", ""), ("my_torch_detector.py", '{"ridge": 8}')])
def test_its_detectors_keep_the_protocol(written, given, options):
    assert [finding for finding in contract.check(given, options) if not finding.ok] == []


@pytest.mark.parametrize(("changed", "wrong"), [
    ("self.side = 8", "saved and opened again"), ("self.name = 'other'", "saved and opened again"),
    ("self.of_batch = True", "does not depend on its neighbours")])
def test_maps_of_other_names_and_shapes_are_other_maps(tmp_path, changed, wrong):
    (tmp_path / "own.py").write_text(f"""
import torch
class Own(torch.nn.Module):
    side, name, of_batch = 16, "map", False
    def fit(self, images):
        {changed}
    def anomaly_maps(self, images):
        maps = torch.nn.functional.adaptive_avg_pool2d(images.float().mean(1), self.side)
        return {{self.name + str(len(images)) * self.of_batch: maps}}
""")
    failed = [one.requirement for one in contract.check(str(tmp_path / "own.py")) if not one.ok]
    assert any(wrong in requirement for requirement in failed)


def test_its_loss_trains_and_its_score_decides(written, mvtec_root):
    config = Config(data_root=str(mvtec_root), image_size=32, epochs=1, batch_size=2,
                    loss="my_functions.py:l1", score="my_functions.py:p99")
    part = open_part(config)
    assert calibrate(fit(config, part.train, part.held_out), part).score == config.score


def test_its_notebook_cell_runs(mvtec_root, monkeypatch):
    monkeypatch.setenv("ADLIB_DATA", str(mvtec_root))
    cell, names = BLOCKS[-1], {}
    assert "fit(MeanImage(), part.train)" in cell
    exec(FILES["my_detector.py"], names)  # noqa: S102
    exec(cell, names)  # noqa: S102
    assert names["results"].auroc["test"]["value"] == 1
