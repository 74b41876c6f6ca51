"""How many good pictures does every part take? One CSV file a part, kept; a table of what is there.

    python -m benchmarks.how_many --data ROOT/CATEGORY... --weights FILE

The same as notebooks/08_how_many.ipynb measures, without a run that it looks at.
"""
from __future__ import annotations

import argparse
import time
from pathlib import Path

import pandas as pd

from adlib.data.part import open_part
from adlib.evaluation import how_many, learning_curve
from adlib.evaluation.results import write_csv
from adlib.models import registry
from benchmarks import common

MEASURED = Path(__file__).parent / "measured" / "how_many"


def table(folder: Path) -> pd.DataFrame:
    """A row a part: the mean AUROC by the number of pictures, and what 50 more would bring."""
    rows = []
    for path in sorted(folder.glob("*.csv")):
        measured = pd.read_csv(path)
        column = learning_curve.judged_by(measured)
        curve = learning_curve.curve(measured).set_index("n")[column]
        gain = learning_curve.gain(measured, column)
        rows.append({"part": path.stem, "good": measured["pictures"].iloc[0],
                     **{str(n): value for n, value in curve.items()}, "most": curve.iloc[-1],
                     **({"gain": gain.gain, "low": gain.low, "high": gain.high,
                         "enough": gain.enough} if gain else {})})
    found = pd.DataFrame(rows).set_index("part")
    return pd.concat([found, found.mean().to_frame("mean").T])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, nargs="+", default=[], help="folders of categories")
    parser.add_argument("--weights")
    parser.add_argument("--folder", type=Path, default=MEASURED)
    given = parser.parse_args()
    for folder in given.data:
        target = given.folder / f"{folder.name}.csv"
        if not target.exists():
            started, wall = time.process_time(), time.perf_counter()
            part = open_part(common.config(folder, given.weights, "memory"))
            write_csv(how_many.measure(registry.build(part.config), part), target)
            print(f"{folder.name}: {time.process_time() - started:.0f} s of the processor, "
                  f"{time.perf_counter() - wall:.0f} s", flush=True)
    print(table(given.folder).round(3).to_string())


if __name__ == "__main__":
    main()
