"""What a result was made from, and whether that still stands.

A run depends on its parameters, data and weights, on the packages that make numbers, and on its
notebook's code cells; it notes that itself, in run.json. The runner writes the same as a build
manifest, a note, of the executed data notebook (eda.json), of a run's limits (limits.json), of the
comparison (comparison.json) and of the report (report.json), or why they failed.
"""
from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import typing
from pathlib import Path

from adlib.config import Config, InputError, notebook_of, project_root, upgrade
from adlib.data import files, layout

Made = dict[str, typing.Any]
NUMERIC = ("data", "models", "evaluation")  # packages that numbers depend on
# where things lie decides no number; what lies there does
NOT_INPUTS = ("category", "data_root", "reports")
CHANGED = {"data": "the data changed", "weights": "the weights changed",
           "code": "the code that makes the numbers changed", "files": "your own code changed"}


def of_run(config: Config, category: layout.Category) -> Made:
    """Everything a run's numbers depend on: runs of equal inputs have equal numbers (on one
    machine, on CPU)."""
    params = {key: value for key, value in config.as_dict().items() if key not in NOT_INPUTS}
    given = params.pop("weights")
    weights = given if config.uses_weights else "none"
    if weights not in ("imagenet", "none"):
        path = Path(weights)
        weights = f"sha256:{_hash(path)}" if path.is_file() else f"missing {path.name}"
    made = {"params": params, "data": layout.fingerprint(category), "weights": weights,
            "code": code(notebook_of(config.model))}
    own = {name: _hash(path) if path else "missing"
           for name, path in config.own_files.items()}
    return made | ({"files": own} if own else {})


def of_data(notebook: Path, category: layout.Category, image_size: int, weights: str) -> Made:
    """What the data notebook depends on. weights: a configuration's; ImageNet's may have been out
    of reach, and be at hand now."""
    state = _hash(Path(weights)) if Path(weights).is_file() else [
        weights, weights == "imagenet" and imagenet_at_hand()]
    return {"data": layout.fingerprint(category), "image_size": image_size, "weights": state,
            "code": code(notebook.name)}


def of_limits(notebook: Path, run: Path) -> Made:
    """What a run's limits depend on: its numbers, what these were made from, and the code."""
    numbers = [files.read_json(run / "metrics.json"), read(run / "run.json").get("inputs")]
    return {"run": _text_hash(numbers), "code": code(notebook.name)}


def of_comparison(notebook: Path, reports: Path, plan: list[Made]) -> Made:
    """What the comparison depends on: all that lies in the folders it reads, the plan (batch.json),
    and any code."""
    return {"runs": _below(reports), "plan": _text_hash(plan), "notebook": _hash(notebook),
            "code": _all_code()}


def of_report(reports: Path) -> Made:
    """What the pages depend on: the same folders, the executed comparison, any code and template.
    """
    return {"runs": _below(reports), "comparison": _hash(reports / "comparison.ipynb"),
            "code": _all_code()}


def why_stale(about: Made, now: Made) -> str:
    """Why a finished run no longer answers what is asked, in words; "" where it does.

    Args:
        about: the run's manifest.
        now: `of_run` as it would be made from now.
    """
    before = about.get("inputs")
    if not isinstance(before, dict) or not isinstance(before.get("params"), dict):
        return "it was made by another version of adlib"
    if before == now:
        again = str(about.get("weights")).startswith("RANDOM") and imagenet_at_hand()
        return "it ran with random weights, and ImageNet's are at hand now" if again else ""
    old, new = Config().as_dict() | upgrade(before["params"], "run.json"), now["params"]
    changed = [f"{key}: {old.get(key)} -> {value}" for key, value in sorted(new.items())
               if old.get(key) != value]
    changed += [text for key, text in CHANGED.items() if before.get(key) != now.get(key)]
    # a key that this version does not know
    return "; ".join(changed) or "it was made by another version of adlib"


def changed(note: Path, now: Made) -> str:
    """Why what a note speaks of has to be made (again), in words; "" where it is up to date."""
    before = read(note)
    if not before:
        return "never run"
    if "failed" in before:
        return f"failed: {before['failed']}"
    return "; ".join(f"the {name} changed" for name in now if before.get(name) != now[name])


def fail(note: Path, reason: str, retry: str) -> None:
    """Note a failure, and delete the tables and figures beside the note: they are an earlier or an
    unfinished attempt's."""
    for leftover in (*note.parent.glob("*.csv"), *note.parent.glob("*.png")):
        leftover.unlink(missing_ok=True)
    files.write_json(note, {"failed": reason, "retry": retry})


def failure(note: Path) -> dict[str, str] | None:
    """{"failed": reason, "retry": command} where it failed, None where it did not (or was executed
    by hand)."""
    noted = read(note)
    return {key: str(noted.get(key, ""))
            for key in ("failed", "retry")} if "failed" in noted else None


def limits(reports: Path) -> list[Path]:
    """The folders of all limits, failed ones included: reports/limits/<category>/<configuration>.
    """
    return sorted({path.parent for name in ("limits.json", "notebook.ipynb", "robustness.csv")
                   for path in (reports / "limits").glob(f"*/*/{name}")})


def read(path: Path) -> Made:
    """What a note or manifest says; {} where there is none, or a damaged one."""
    try:
        noted = files.read_json(path)
    except InputError:  # missing or damaged: it is made again, and made whole
        return {}
    return noted if isinstance(noted, dict) else {}


def code(notebook: str) -> str:
    """Hash of the packages that make numbers and of a notebook's code cells: comments, docstrings
    and layout do not count."""
    sources = [*_numeric_code()]
    path = project_root() / "notebooks" / notebook
    if path.is_file():  # read each time: in JupyterLab it changes while this process lives
        sources += ["".join(cell["source"]) for cell in files.read_json(path)["cells"]
                    if cell["cell_type"] == "code"
                    and "parameters" not in cell["metadata"].get("tags", [])]
    return _text_hash(sources)


def versions() -> dict[str, str]:
    """{package: version} of Python, adlib, and the packages that make numbers or pages."""
    names = ("torch", "torchvision", "numpy", "scikit-learn", "pillow", "papermill", "nbconvert",
             "adlib")
    return {"python": platform.python_version(), **{name: _version(name) for name in names}}


def revision() -> str:
    """Git's, with '+' when the working tree differs from it; 'unknown' outside a checkout."""
    def ask(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=Path(__file__).parent, capture_output=True,
                              text=True, check=True).stdout.strip()

    try:
        changes = ask("status", "--porcelain", "--untracked-files=no")
        return ask("rev-parse", "--short=12", "HEAD") + ("+" if changes else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def imagenet_at_hand() -> bool:
    """Is torchvision's ResNet18 file in torch's cache? Asked without loading torch."""
    home = os.environ.get("TORCH_HOME") or Path(
        os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "torch"
    return any((Path(home) / "hub" / "checkpoints").glob("resnet18-*.pth"))


def bare(source: str) -> str:
    """Source code without what changes no number."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(
                node) is not None:
            node.body = node.body[1:]
    return ast.dump(tree)


@functools.cache
def _numeric_code() -> tuple[str, ...]:
    root = Path(__file__).parents[1]
    return tuple(bare(path.read_text(encoding="utf-8")) for package in NUMERIC
                 for path in sorted((root / package).rglob("*.py")))


def _all_code() -> str:
    root = Path(__file__).parents[1]
    return _hash(*sorted(path for path in root.rglob("*")
                         if path.suffix in (".py", ".json", ".j2", ".js", ".css")))


def _below(reports: Path) -> str:
    """Every file of runs, limits and data notebooks, pages and hidden files aside: its name, its
    size, and when it was written."""
    states = []
    for path in sorted(path for folder in ("eda", "limits", "runs")
                       for path in (reports / folder).rglob("*")):
        with contextlib.suppress(FileNotFoundError):  # a run under way has just finished with it
            if path.is_file() and path.suffix != ".html" and not path.name.startswith("."):
                states.append((path.relative_to(reports).as_posix(), path.stat().st_size,
                               path.stat().st_mtime_ns))
    return _text_hash(states)


def _hash(*paths: Path) -> str:
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in paths)).hexdigest()[:16]


def _text_hash(values: list[typing.Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
