"""What the runner notes of a look at the data (eda.json), of a run's limits (limits.json), of the
comparison and of the report (comparison.json, report.json): what it was made from, or why it
failed.

A run notes that itself (see runs); these are executed notebooks, tables and pages, and the runner
keeps the book for them.
"""
from __future__ import annotations

import contextlib
import hashlib
import json
import typing
from pathlib import Path

from adlib.config import InputError
from adlib.data import files, layout
from adlib.runs import provenance, run_folder


def of_data(notebook: Path, category: layout.Category, image_size: int,
            weights: str) -> dict[str, typing.Any]:
    """What a look at the data depends on. weights: a configuration's; ImageNet's may have been out
    of reach, and be at hand now."""
    known = _hash(Path(weights)) if Path(weights).is_file() else [
        weights, weights == "imagenet" and run_folder.imagenet_at_hand()
    ]
    return {
        "data": layout.fingerprint(category), "notebook": _hash(notebook), "image_size": image_size,
        "weights": known
    }


def of_limits(notebook: Path, run: Path) -> dict[str, typing.Any]:
    """What the limits of the run in a folder depend on: its numbers, what these were made from, and
    the code of the limits."""
    made = {
        "metrics": files.read_json(run / "metrics.json"),
        "inputs": run_folder.manifest(run).get("inputs")
    }
    return {
        "run": hashlib.sha256(repr(made).encode()).hexdigest()[:16], "code": provenance.code(
            notebook.name)
    }


def of_comparison(notebook: Path, reports: Path,
                  plan: list[dict[str, typing.Any]]) -> dict[str, typing.Any]:
    """What the comparison depends on: all that lies in the folders it reads, the plan (batch.json),
    and any code."""
    return {
        "runs": _below(reports), "plan": hashlib.sha256(json.dumps(
            plan, sort_keys=True).encode()).hexdigest()[:16], "notebook": _hash(notebook),
        "code": _all_code()
    }


def of_report(reports: Path) -> dict[str, typing.Any]:
    """What the pages depend on: the same folders, the executed comparison, and any code and
    template."""
    return {
        "runs": _below(reports), "comparison": _hash(reports / "comparison.ipynb"),
        "code": _all_code()
    }


def fail(note: Path, reason: str, retry: str) -> None:
    """Note a failure, and delete the tables and figures beside the note: they are an earlier or an
    unfinished attempt's."""
    for made in (*note.parent.glob("*.csv"), *note.parent.glob("*.png")):
        made.unlink(missing_ok=True)
    files.write_json(note, {"failed": reason, "retry": retry})


def failure(note: Path) -> dict[str, str] | None:
    """{"failed": reason, "retry": command} where it failed, None where it did not (or was executed
    by hand)."""
    found = read(note)
    return {key: str(found.get(key, ""))
            for key in ("failed", "retry")} if "failed" in found else None


def changed(note: Path, now: dict[str, typing.Any]) -> str:
    """Why what a note speaks of has to be made (again), in words; "" where it is up to date."""
    before = read(note)
    if not before:
        return "never run"
    if "failed" in before:
        return f"failed: {before['failed']}"
    return "; ".join(f"the {name} changed" for name in now if before.get(name) != now[name])


def limits(reports: Path) -> list[Path]:
    """The folders of all limits, failed ones included: reports/limits/<category>/<configuration>.
    """
    files_of_one = ("limits.json", "notebook.ipynb", "robustness.csv")
    return sorted(
        {path.parent
         for name in files_of_one
         for path in (reports / "limits").glob(f"*/*/{name}")})


def read(note: Path) -> dict[str, typing.Any]:
    """What a note says; {} where there is none, or a damaged one."""
    try:
        found = files.read_json(note)
    except InputError:  # missing or damaged: it is made again, and made whole
        return {}
    return found if isinstance(found, dict) else {}


def _below(reports: Path) -> str:
    """Every file of runs, limits and looks at the data, pages and locks aside: its name, its size,
    and when it was written."""
    states = []
    for path in sorted(
            path for folder in ("eda", "limits", "runs") for path in (reports / folder).rglob("*")):
        with contextlib.suppress(FileNotFoundError):  # a run under way has just finished with it
            if path.is_file() and path.suffix != ".html" and not path.name.startswith("."):
                states.append((path.relative_to(reports).as_posix(), path.stat().st_size,
                               path.stat().st_mtime_ns))
    return hashlib.sha256(repr(states).encode()).hexdigest()[:16]


def _all_code() -> str:
    root = Path(__file__).parents[1]
    return _hash(*sorted(
        path for path in root.rglob("*") if path.suffix in (".py", ".json", ".j2", ".js", ".css")))


def _hash(*paths: Path) -> str:
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in paths)).hexdigest()[:16]
