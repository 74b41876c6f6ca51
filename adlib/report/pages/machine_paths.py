"""A page is meant to be passed on: it names no folder of the machine that made it."""
from __future__ import annotations

import html
import itertools
import re
import shlex
import typing
from pathlib import Path

from adlib.config import project_root, study_root
from adlib.runs import run_folder


def hidden(reports: Path, table: typing.Any, commands: typing.Iterable[str]) -> dict[str, str]:
    """{folder of this machine: what a page shows in its place}: one in the project as seen from
    there, so that a command can be given as it stands; of another the name alone. table: of the
    study's runs. commands: those that the pages show."""
    folders, weights = [reports.resolve(), reports.absolute()], []
    for kept in (run_folder.local(reports / folder) for folder in table["folder"]):
        params = kept.get("params", {})
        given = [kept.get("data_root"), params.get("data_root"), params.get("reports")]
        folders += [Path(path) for path in given if path]
        weights += [Path(params["weights"])] if "/" in str(params.get("weights")) else []
    return shown(commands, folders, weights)


def shown(commands: typing.Iterable[str], folders: typing.Iterable[Path] = (),
          weights: typing.Iterable[Path] = ()) -> dict[str, str]:
    """`hidden` of commands and some folders. A file of weights elsewhere gets a path to be filled
    in: its name alone would look like one that can be given. A configuration that adlib brings is
    found by its place in the study from any folder (`runs.grid.read`)."""
    folders, weights = [*folders], [*weights]
    for command in commands:
        folders += (words := list(map(Path, shlex.split(command))))
        weights += [file for given, file in itertools.pairwise(words) if given.name == "--weights"]
    root, study = project_root(), study_root()
    names = {Path.home(): "~", root: root.name} | {
        path: path.relative_to(root).as_posix() if root in path.parents
        else path.relative_to(study).as_posix() if study / "params" in path.parents
        else before + path.name
        for before, some in (("", folders), ("path/to/", weights)) for path in some}
    return {str(folder): name for folder, name in names.items()
            if folder.is_absolute() and folder.name}


def without_paths(content: str, hidden: dict[str, str]) -> str:
    """A page without this machine's folders (`hidden`), and nothing of the project's, to which all
    paths are relative. They stand in cells, logs and reasons of failures, too: this comes last."""
    names = {form: name for path, name in hidden.items() for form in (path, html.escape(path))}
    root = str(project_root())
    # the longest first: a folder in another is called by its own name
    folders = "|".join(re.escape(path) for path in sorted(names, key=len, reverse=True))
    return re.sub(rf"(?<![\w.-])({folders})(?![\w-])(/?)", lambda found: (
        "" if found[2] and found[1] == root else names[found[1]] + found[2]), content)
