"""A few test images of a run and their maps, kept in its folder: what the first page shows of what
was found, missed and falsely called, without opening a detector or an image again.

The choice is a rule, not a taste: of what was found the highest score and the lowest, of the missed
the lowest, of the good ones the highest.
"""
from __future__ import annotations

import base64
import io
import typing
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from adlib.data import files
from adlib.report import components
from adlib.report.i18n import t
from adlib.runs import freshness

if typing.TYPE_CHECKING:
    from adlib.data.part import Part
    from adlib.evaluation.calibration import Decision
    from adlib.evaluation.results import Results

FILE, SIDE = "examples.json", 128
KINDS = {("found", "high"): (1, 1, False), ("found", "low"): (1, 1, True),
         ("missed", "low"): (1, 0, True), ("false-alarm", "high"): (0, 1, False),
         ("passed", "high"): (0, 0, False)}  # label, called anomalous; lowest score first?


def pick(table: pd.DataFrame) -> dict[tuple[str, str], int]:
    """{(verdict, which): place among the test images}, for those of KINDS that there are.

    table: Results.table. Of two kinds that are the same image, the first alone.
    """
    test = table[table["split"] == "test"].reset_index(drop=True)
    chosen: dict[tuple[str, str], int] = {}
    for kind, (label, called, ascending) in KINDS.items():
        rows = test[(test["label"] == label) & (test["chosen_prediction"] == called)]
        places = rows.sort_values("chosen_score", ascending=ascending, kind="stable").index
        if len(places) and places[0] not in chosen.values():
            chosen[kind] = int(places[0])
    return chosen


def save(folder: Path, part: Part, decision: Decision, results: Results) -> None:
    """Write FILE into a run's folder: {"images": [{verdict, file, defect, input, map}]}, the last
    two data URIs of SIDE pixels a side."""
    test, entries = results.table[results.table["split"] == "test"], []
    for (verdict, _), place in pick(results.table).items():
        image = part.test.select([place])
        views = components.views(
            image.tensor[0].permute(1, 2, 0).numpy(), results.maps[place], low=decision.low,
            level=decision.level, size=SIDE, truth=image.masks[0].numpy())
        row = test.iloc[place]
        entries.append({"verdict": verdict, "file": Path(row["path"]).name,
                        "defect": row["defect"] or "", "input": _uri(views[t("view.input")]),
                        "map": _uri(views[t("view.anomaly_map_over_input")])})
    files.write_json(folder / FILE, {"images": entries})


def of(folder: Path, most: int = 3) -> list[dict[str, str]]:
    """Up to `most` of a run's examples, what went wrong always among them; [] where it has none
    (it is of an earlier version, say)."""
    kept = freshness.read(folder / FILE).get("images", [])
    by_verdict = {verdict: [one for one in kept if one["verdict"] == verdict]
                  for verdict, _ in KINDS}
    wrong = [*by_verdict["missed"][:1], *by_verdict["false-alarm"][:1]]
    right = [*by_verdict["found"], *by_verdict["passed"]]
    return [*right[:most - len(wrong)], *wrong]


def _uri(picture: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "webp", quality=80, method=6)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
