"""Is what does not show the part refused, and what is good not refused in addition? A category a
row of kinds, `all`, `good` (foreign_exam.exam), `good, test` and `anomalous, test`; a CSV file.

    python -m benchmarks.foreign --weights FILE --out FILE.csv ROOT/CATEGORY [ROOT/CATEGORY ...]

Other parts are the good ones of all other categories given. What the test images' rows say is
measured with labels, after everything is decided: there, `foreign` counts what is called foreign
and not anomalous.
"""
from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from adlib.data.part import Part, open_part
from adlib.evaluation import foreign_exam
from adlib.evaluation.calibration import Decision, chosen_scores
from adlib.evaluation.results import truth_of
from adlib.models.detector import Detector
from benchmarks import common


def on_test(detector: Detector, decision: Decision, part: Part) -> pd.DataFrame:
    """The rows of the test images, as those of `exam`."""
    anomalous = decision.threshold.exceeded(chosen_scores(detector, decision, part.test))
    pictures = pd.DataFrame({
        "kind": np.array(["good, test", "anomalous, test", ""])[truth_of(part)],
        "foreign": decision.calls_foreign(part.test.tensor) & ~anomalous, "anomalous": anomalous})
    return foreign_exam.counted(pictures[pictures["kind"] != ""].sort_values(
        "kind", ascending=False, kind="stable"))


def main() -> None:
    parser = common.of_categories(__doc__)
    parser.add_argument("--model", default="fused")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    parts = {path.name: open_part(common.config(path, given.weights, given.model))
             for path in given.categories}
    tables: list[pd.DataFrame] = []
    for name, part in parts.items():
        others = torch.cat([torch.zeros(0, 3, 256, 256, dtype=torch.uint8), *(
            other.good.tensor[:foreign_exam.EACH] for key, other in parts.items() if key != name)])
        detector, decision = common.decided(part)
        table = pd.concat([foreign_exam.exam(detector, decision, part, others),
                           on_test(detector, decision, part)], ignore_index=True)
        table.insert(0, "category", name)
        print(table.to_string(index=False, float_format="{:.3f}".format), flush=True)
        tables.append(table)
        pd.concat(tables).to_csv(given.out, index=False)


if __name__ == "__main__":
    main()
