"""What a result was made from, and whether that still stands.

A run depends on its parameters, data and weights, on its notebook's code cells, and on what these
and its detector import of the packages that make numbers; it notes that itself, in run.json. The
runner writes the same as a build manifest, a note, of the executed data notebook (eda.json), of a
run's limits (limits.json), of how many pictures it takes (how_many.json), of the comparison
(comparison.json) and of the report (report.json), or why they failed.
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
import re
import subprocess
import sys
import typing
from pathlib import Path

import adlib
from adlib.config import (
    DETECTORS,
    Config,
    InputError,
    given_path,
    study_root,
    upgrade,
    upgrade_weights,
)
from adlib.data import files, layout

Made = dict[str, typing.Any]
BY_HAND = "by hand: "
NUMERIC = ("data", "models", "evaluation")  # packages that numbers depend on
# where things lie decides no number; what lies there does
NOT_INPUTS = ("category", "data_root", "reports", "save_as", "roi", "ignore")
FIT_BY = {"tile": ["import adlib.models.tiles"],
          "auto": ["import adlib.models.tiles", "import adlib.evaluation.fits"]}
CHANGED = {"data": "the data changed", "weights": "the weights changed",
           "code": "the code that makes the numbers changed", "files": "your own code changed"}


def notebook_of(model: str) -> str:
    """The notebook that runs a model."""
    return {"cae": "02_cae_baseline.ipynb",
            "resnet18": "03_resnet_ssim.ipynb"}.get(model, "04_feature_space.ipynb")


def of_run(config: Config, category: layout.Category) -> Made:
    """Everything a run's numbers depend on: runs of equal inputs have equal numbers (on one
    machine, on CPU)."""
    params = {key: value for key, value in config.as_dict().items() if key not in NOT_INPUTS
              or (key, value) == ("roi", "auto")}
    given = params.pop("weights")
    weights = given if config.uses_weights else "none"
    if weights not in ("imagenet", "none"):
        path = given_path(weights)
        weights = f"sha256:{_hash(path)}" if os.path.isfile(path) else f"missing {path.name}"
    category = category.looking(config.roi, config.ignore)
    detector, _ = DETECTORS.get(config.model.partition(":")[0], ("registry", ""))
    own = {name: path.read_bytes() if path else b"" for name, path in config.own_files.items()}
    made = {"params": params, "data": layout.fingerprint(category), "weights": weights,
            "code": code(notebook_of(config.model), f"import adlib.models.{detector}",
                         *FIT_BY.get(config.fit, []),
                         *(source.decode("utf-8-sig", "replace") for source in own.values()))}
    hashes = {name: _bytes_hash(source) if source else "missing" for name, source in own.items()}
    return made | ({"files": hashes} if own else {})


def attended() -> bool:
    """Can the running cell ask somebody a question? JupyterLab's can, papermill's and nbconvert's
    cannot."""
    if "IPython" not in sys.modules:  # this is no notebook
        return False
    from IPython import get_ipython

    header = getattr(get_ipython(), "parent_header", None) or {}
    return bool(header.get("content", {}).get("allow_stdin", False))


def by_hand() -> str:
    """What stands for the code of a run whose notebook has somebody at it: the cells run so far,
    whatever its file says. No grid asks for such a run."""
    from IPython import get_ipython

    cells = [cell for cell in get_ipython().user_ns["In"] if not cell.startswith("# Parameters")]
    return BY_HAND + _text_hash(cells)


def of_data(notebook: Path, category: layout.Category, weights: str) -> Made:
    """What the data notebook depends on: the data alone, and the code that looks at them. weights:
    what its map of the images is to be drawn with; a page made without any is made again once they
    are at hand."""
    return {"data": layout.fingerprint(category), "code": code(notebook.name)} | at_hand(weights)


def at_hand(weights: str) -> Made:
    """{"weights": "pretrained"} where such weights are there to be read, else {}."""
    there = os.path.isfile(given_path(weights)) or weights == "imagenet" and imagenet_at_hand()
    return {"weights": "pretrained"} if there else {}


def after_a_run(notebook: Path, run: Path) -> Made:
    """What a run's limits, or how many pictures it takes, depend on: its numbers, what these were
    made from, and the code."""
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
        again = upgrade_weights(str(about.get("weights"))).startswith(
            "random") and imagenet_at_hand()
        return "it ran with random weights, and ImageNet's are at hand now" if again else ""
    if str(before.get("code")).startswith(BY_HAND):
        return "it was run by hand, in a notebook"
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


def result_folders(reports: Path, kind: str) -> list[Path]:
    """The folders of what was found out after the runs, failed ones included: of a kind of
    grid.AFTER_A_RUN, reports/<kind>/<category>/<configuration>."""
    return sorted({path.parent for name in (f"{kind}.json", "notebook.ipynb", "*.csv")
                   for path in (reports / kind).glob(f"*/*/{name}")})


def read(path: Path) -> Made:
    """What a note or manifest says; {} where there is none, or a damaged one."""
    try:
        noted = files.read_json(path)
    except InputError:  # missing or damaged: it is made again, and made whole
        return {}
    return noted if isinstance(noted, dict) else {}


def code(notebook: str, *more: str) -> str:
    """Hash of a notebook's code cells and of all that these, and the sources `more`, import of the
    packages that make numbers, directly or not. Comments, docstrings and layout do not count; nor
    do models that a cell imports by itself, to teach with: a run's own one is among `more`."""
    # Read each time: in JupyterLab it changes while this process lives.
    cells = _cells(study_root() / "notebooks" / notebook)
    numeric, reached = numeric_code(), set()
    due = [name for source in cells for name in _imported(source) if ".models." not in name]
    due += [name for source in more for name in _imported(source)]
    while due:
        if (name := due.pop()) in numeric and name not in reached:
            reached.add(name)
            due += numeric[name][1]
    return _text_hash([*(numeric[name][0] for name in sorted(reached)), *cells])


def imported(notebook: Path) -> list[str]:
    """The names of adlib that a notebook's code cells import: modules, and what is in them."""
    return sorted(set().union(*map(_imported, _cells(notebook))))


def versions() -> dict[str, str]:
    """{package: version} of Python, adlib, and the packages that make numbers or pages."""
    names = ("torch", "torchvision", "numpy", "scikit-learn", "pillow", "papermill", "nbconvert",
             "adlib")
    return {"python": platform.python_version(), **{name: _version(name) for name in names}}


def revision() -> str:
    """Git's, with '+' when the working tree differs from it; 'unknown' outside a checkout."""
    def ask(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=Path(__file__).parent, capture_output=True,
                              encoding="utf-8", check=True).stdout.strip()

    try:
        ask("ls-files", "--error-unmatch", Path(__file__).name)  # else it is another project's
        changes = ask("status", "--porcelain", "--untracked-files=no")
        return ask("rev-parse", "--short=12", "HEAD") + ("+" if changes else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def imagenet_at_hand() -> bool:
    """Is torchvision's ResNet18 file in torch's cache? Asked without loading torch."""
    home = Path(os.environ.get("TORCH_HOME") or Path(
        os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "torch").expanduser()
    return any((home / "hub" / "checkpoints").glob("resnet18-*.pth"))


def bare(source: str) -> str:
    """Source code without what changes no number."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(
                node) is not None:
            node.body = node.body[1:]
    return ast.dump(tree)


def _cells(notebook: Path) -> list[str]:
    """The sources of its code cells, but parameters and exercises; none where there is no file."""
    if not notebook.is_file():
        return []
    return ["".join(cell["source"]) for cell in files.read_json(notebook)["cells"]
            if cell["cell_type"] == "code"
            and not {"parameters", "exercise"} & set(cell["metadata"].get("tags", []))]


@functools.cache
def numeric_code() -> dict[str, tuple[str, set[str]]]:
    """{module: (its source without what changes no number, the modules it imports)} of the packages
    that make numbers."""
    root, modules = Path(__file__).parents[1], {}
    for path in (path for package in NUMERIC for path in (root / package).rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        name = ".".join(("adlib", *path.relative_to(root).with_suffix("").parts))
        modules[name] = bare(source), _imported(source)
    return modules


def _imported(source: str) -> set[str]:
    """What may be modules among the names that a source, or a notebook's cell, imports of adlib; of
    what is no Python, nothing: it does not run either."""
    with contextlib.suppress(SyntaxError, ValueError):
        modules, homes = set(), adlib._HOMES
        for node in ast.walk(ast.parse(re.sub(r"(?m)^(\s*)[%!].*$", r"\1pass", source))):
            if isinstance(node, ast.Import):
                modules |= {alias.name for alias in node.names}
                modules |= {f"adlib.{home}" for home in homes.values() if "adlib" in modules}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = {alias.name for alias in node.names}
                names = {homes.get(name) for name in names} if node.module == "adlib" else names
                modules |= {f"{node.module}.{name}" for name in names} | {node.module} - {"adlib"}
        return modules
    return set()


def _all_code() -> str:
    root = Path(__file__).parents[1]
    return _hash(*sorted(path for path in root.rglob("*")
                         if path.suffix in (".py", ".json", ".j2", ".js", ".css")))


def _below(reports: Path) -> str:
    """Every file of runs, of what followed them, and of data notebooks, pages and hidden files
    aside: its name, its size, and when it was written."""
    states = []
    for path in sorted(path for folder in ("eda", "how_many", "limits", "runs")
                       for path in (reports / folder).rglob("*")):
        with contextlib.suppress(FileNotFoundError):  # a run under way has just finished with it
            name = path.relative_to(reports).as_posix()
            if path.is_file() and path.suffix != ".html" and "/." not in name:
                states.append((name, path.stat().st_size, path.stat().st_mtime_ns))
    return _text_hash(states)


def _hash(*paths: Path) -> str:
    return _bytes_hash(b"\0".join(path.read_bytes() for path in paths))


def _text_hash(values: list[typing.Any]) -> str:
    return _bytes_hash(json.dumps(values, sort_keys=True).encode())


def _bytes_hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
