"""What made a run's numbers, beside its data and parameters: the code, its revision, the versions
of what it stands on."""
from __future__ import annotations

import ast
import functools
import hashlib
import importlib.metadata
import platform
import subprocess
from pathlib import Path

from adlib.config import project_root
from adlib.data import files

# packages that a number depends on; a changed figure, page or comment makes no run stale
NUMERIC = ("data", "models", "evaluation")


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
        return ask("rev-parse", "--short=12",
                   "HEAD") + ("+" if ask("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def code(notebook: str) -> str:
    """Hash of the packages that make numbers and of a notebook's code cells: comments, docstrings
    and layout do not count."""
    parts = [*_numeric_code()]
    # read each time: in JupyterLab it changes while this process lives
    path = project_root() / "notebooks" / notebook
    if path.is_file():
        parts += [
            "".join(cell["source"]) for cell in files.read_json(path)["cells"]
            if cell["cell_type"] == "code" and "parameters" not in cell["metadata"].get("tags", [])
        ]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


@functools.cache
def _numeric_code() -> tuple[str, ...]:
    root = Path(__file__).parents[1]
    return tuple(
        bare(path.read_text(encoding="utf-8")) for package in NUMERIC
        for path in sorted((root / package).rglob("*.py")))


def bare(source: str) -> str:
    """Source code without what changes no number."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(
                node,
            (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return ast.dump(tree)


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
