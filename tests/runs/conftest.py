"""A project of notebooks that only pretend to train, for what runs and forecasts them."""
from __future__ import annotations

import logging
from pathlib import Path

import nbformat
import pytest
import yaml

from adlib.config import Config, log
from adlib.data import layout

CONFIGS = ("ok", "boom", "killed", "silent", "hang")
PARAMETERS = "# Parameters\ncategory = ''\ndata_root = ''\nreports = ''\nimage_size = 128\n"
EDA = "assert category == 'nut'"
RUN = """
import os, sys, time, types
from adlib.config import Config
from adlib.data import files, layout
from adlib.runs import run_folder
config = Config.from_notebook()
if name == "boom":
    raise ValueError("\\x1b[31mthe sky\\x1b[0m fell")
if name == "killed":
    os.kill(os.getpid(), 9)
if name != "silent":
    sys.modules["adlib.models.fast.device"] = types.SimpleNamespace(describe=lambda config: {})
    root, source = layout.find_root(data_root)
    category = layout.open_category(root, category)
    run = run_folder.start(types.SimpleNamespace(config=config, requested=config, category=category,
                                                 source=source, grey_range=None, looked_at=None,
                                                 fit_choice=None, left_out=None),
                           types.SimpleNamespace(weights="none"))
if name == "hang":
    run.progress({"epoch": 1, "epochs": 9, "loss": 0.5, "seconds_left": 8.0})
    files.write_text(run.folder / "pid", str(os.getpid()))
    time.sleep(600)
if name == "ok":
    assert "torch" not in sys.modules
    auroc = {"test": {"value": 0.75}}
    run.finish({"auroc": auroc, "chosen": {"auroc": auroc}}, train_seconds=1.0)
"""
# needs its run
LIMITS = ("from adlib.data import files\n"
          "files.read_json(f'{reports}/runs/{category}/{name}/seed-{seed}/metrics.json')")
COMPARISON = ("import json\nplanned = json.load(open(reports + '/batch.json'))\n"
              "print(sorted(p['status'] for p in planned))")


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project whose configurations' names say what becomes of them; the working directory."""
    for folder in ("notebooks", "params", "data/nut/train/good", "data/nut/test"):
        (tmp_path / folder).mkdir(parents=True)
    for i in range(3):
        (tmp_path / "data" / "nut" / "train" / "good" / f"{i}.png").write_bytes(b"%d" % i)
    names = "".join(f"{key} = {value!r}\n" for key, value in Config().as_dict().items()
                    if key + " =" not in PARAMETERS)
    for name, source in (("01_eda", EDA), ("02_cae_baseline", RUN), ("05_limits", LIMITS),
                         ("06_comparison", COMPARISON)):
        cells = [
            nbformat.v4.new_code_cell(PARAMETERS + names, metadata={"tags": ["parameters"]}),
            nbformat.v4.new_code_cell(source)
        ]
        metadata = {
            "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}
        }
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata),
                       tmp_path / "notebooks" / f"{name}.ipynb")
    for name in CONFIGS:
        write(tmp_path, name, {"name": name, "model": "cae"})
    write(tmp_path, "all", {"configs": ["ok", "boom", "killed", "silent"]})
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def said():
    """What adlib logs, line by line."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    yield lines
    log.removeHandler(handler)


def write(project: Path, name: str, content: dict) -> None:
    (project / "params" / f"{name}.yaml").write_text(yaml.safe_dump(content))


@pytest.fixture
def setting(course_root, tmp_path):
    category = layout.open_category(course_root, "nut")
    return Config(category="nut", reports=str(tmp_path / "reports")), category
