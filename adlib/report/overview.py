"""What lies in the project's folder, as tables: its notebooks, its grids and its runs."""
from __future__ import annotations

import shlex
from pathlib import Path

import nbformat
import pandas as pd
import yaml

from adlib.config import study_root
from adlib.data import files
from adlib.report import comparison
from adlib.report.words import i18n
from adlib.report.words.i18n import Text, named, with_texts
from adlib.runs import run_folder


def notebooks() -> pd.DataFrame:
    """A row a notebook that opens with a question: notebook, and the question (Text)."""
    rows = []
    for path in sorted((study_root() / "notebooks").glob("*.ipynb")):
        first = next(iter(nbformat.read(path, as_version=4).cells), None)
        if first is None or first.cell_type != "markdown":
            continue
        other = i18n.notebooks().get(path.stem, {}).get(first.get("id", ""), "")
        rows.append({"notebook": path.name, "asks": Text(_heading(first.source),
                                                         _heading(other) or None)})
    return with_texts(pd.DataFrame(rows, columns=["notebook", "asks"]),
                      asks=[row["asks"] for row in rows])


def grids() -> pd.DataFrame:
    """A row a grid of params/: the command that runs it, and its configurations. Raises InputError
    for a file that is no YAML."""
    rows = []
    for path in sorted((study_root() / "params").rglob("*.yaml")):
        with files.saying(f"{path} is not valid YAML"):
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        names = content.get("configs") if isinstance(content, dict) else None
        if isinstance(names, list):  # else it is a configuration, and no grid
            relative = path.relative_to(study_root()).as_posix()
            rows.append({"command": shlex.join(["adlib", "run", relative]),
                         "runs": ", ".join(map(str, names))})
    return pd.DataFrame(rows, columns=["command", "runs"])


def runs(reports: Path) -> pd.DataFrame:
    """A row a run: category, configuration, seed and state; of a finished one its test AUROC."""
    table = comparison.performance(reports) if run_folder.all_runs(reports) else pd.DataFrame(
        columns=comparison.RUN_COLUMNS)
    table["state"] = [named("status", status) for status in table["status"]]
    return table[["category", "name", "seed", "state", "auroc"]]


def _heading(markdown: str) -> str:
    """The first line of a cell without its marks and its number: "# 01 · Why?" -> "Why?"."""
    return markdown.partition("\n")[0].removeprefix("# ").rpartition(" · ")[2]
