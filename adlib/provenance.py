"""What made a run's numbers, beside its data and parameters: the code, its revision, the versions of what it stands on."""
from __future__ import annotations

import ast
import functools
import hashlib
import importlib.metadata
import platform
import subprocess
from pathlib import Path

from adlib import files
from adlib.config import project_root


def versions() -> dict[str, str]:
    """{package: version} of Python, adlib, and the packages that make numbers or pages."""
    names = ("torch", "torchvision", "numpy", "scikit-learn", "pillow", "papermill", "nbconvert", "adlib")
    return {"python": platform.python_version(), **{name: _version(name) for name in names}}


def revision() -> str:
    """Git's, with '+' when the working tree differs from it; 'unknown' outside a checkout."""
    def ask(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=Path(__file__).parent, capture_output=True, text=True, check=True).stdout.strip()
    try:
        return ask("rev-parse", "--short=12", "HEAD") + ("+" if ask("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def code(notebook: str, rooms: tuple[str, ...]) -> str:
    """Hash of some rooms and of a notebook's code cells: comments, docstrings and layout do not count."""
    parts = [*_rooms(rooms)]
    path = project_root() / "notebooks" / notebook  # read each time: in JupyterLab it changes while this process lives
    if path.is_file():
        parts += ["".join(cell["source"]) for cell in files.read_json(path)["cells"]
                  if cell["cell_type"] == "code" and "parameters" not in cell["metadata"].get("tags", [])]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


@functools.cache
def _rooms(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(bare(Path(__file__).with_name(f"{room}.py").read_text(encoding="utf-8")) for room in names)


def bare(source: str) -> str:
    """Source code without what changes no number."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return ast.dump(tree)


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
