"""Where things lie: the study's folder, the cache, a user's own files; and what a folder may be
called."""
from __future__ import annotations

import os
import re
from pathlib import Path

from adlib.config.errors import log


def project_root() -> Path:
    """The study's folder: the nearest one at or above the working directory that holds notebooks/
    and params/, else the working directory.

    JupyterLab starts kernels in lab/ and papermill in the caller's folder: both must find the same
    reports/.
    """
    return _project() or Path.cwd()


def study_root() -> Path:
    """Where notebooks/ and params/ lie: the project's folder; where none is near, what adlib was
    installed with."""
    package = Path(__file__).parents[1]
    return _project() or (package if (package / "notebooks").is_dir() else package.parent)


def _project() -> Path | None:
    here = Path.cwd()
    return next((folder for folder in (here, *here.parents)
                 if (folder / "notebooks").is_dir() and (folder / "params").is_dir()), None)


def cache_dir() -> Path:
    """Where decoded images and the like are kept (ADLIB_CACHE, else the user's cache folder). Safe
    to delete."""
    if base := os.environ.get("ADLIB_CACHE"):
        return Path(os.path.expanduser(base))
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "adlib"


def given_path(given: str) -> Path:
    """What a user named: from the working folder, else, should it be there, from the project's."""
    here = Path(os.path.expanduser(given))  # "~nobody" stays as it is
    there = project_root() / here
    if os.path.exists(here) or not os.path.exists(there):  # what may not be looked at is not there
        return here
    log.info("%s is not here; taking the project's, %s", here, there)
    return there


def own_file(given: str) -> Path | None:
    """The file of "FILE.py:NAME", in the working folder or the project's, or None."""
    path = given_path(given.rpartition(":")[0])
    return path if os.path.isfile(path) else None


def is_folder_name(name: str) -> bool:
    """Can a folder be called so, on any system? A run's folder may be passed on."""
    devices = r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?"
    return (bool(name) and name[-1] not in ". " and not re.search(r'[\0-\x1f/\\<>:"|?*]', name)
            and not re.fullmatch(devices, name))
