"""Is what does not show the part refused, and what is good not refused in addition? A category a
row of kinds, `all`, `good` (foreign_exam.exam), `good, test` and `anomalous, test`; a CSV file.

    python -m benchmarks.foreign --weights FILE --out FILE.csv ROOT/CATEGORY [ROOT/CATEGORY ...]

Other parts are the good ones of all other categories given. What the test images' rows say is
measured with labels, after everything is decided: there, `foreign` counts what is called foreign
and not anomalous.
"""
from __future__ import annotations

import argparse
import typing
from pathlib import Path

import pandas as pd
import torch

from adlib.config import Config
from adlib.data import layout
from adlib.data.part import Part, open_part
from adlib.evaluation import foreign_exam
from adlib.evaluation.calibration import Decision, calibrate, score_table
from adlib.evaluation.conformal import rate_interval
from adlib.models import registry
from adlib.models.detector import Detector, fit


def on_test(detector: Detector, decision: Decision, part: Part) -> pd.DataFrame:
    """The rows of the test images, as those of `exam`."""
    labels, model = layout.read_labels(part.category), decision.foreign
    scores = score_table(detector, decision.scale, part.test)[decision.score].to_numpy()
    anomalous = decision.threshold.exceeded(scores)
    unlike = decision.foreign_threshold.exceeded(
        model.distances(model.features(part.test.tensor)).numpy())
    rows: list[dict[str, typing.Any]] = []
    for kind, truth in (("good, test", False), ("anomalous, test", True)):
        of = [i for i, key in enumerate(part.test.keys)
              if key in labels and labels[key].anomalous == truth]
        if not of:
            continue
        refused = int((anomalous | unlike)[of].sum())
        low, high = rate_interval(refused, len(of))
        rows.append({"kind": kind, "pictures": len(of), "refused": refused, "low": low,
                     "foreign": int((unlike & ~anomalous)[of].sum()), "high": high,
                     "anomalous": int(anomalous[of].sum()), "rate": refused / len(of)})
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("categories", nargs="+", type=Path)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--model", default="fused")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    parts = {path.name: open_part(Config(
        category=path.name, data_root=str(path.parent), model=given.model, name=given.model,
        weights=given.weights, image_size=256)) for path in given.categories}
    tables: list[pd.DataFrame] = []
    for name, part in parts.items():
        others = torch.cat([torch.zeros(0, 3, 256, 256, dtype=torch.uint8), *(
            other.good.tensor[:foreign_exam.EACH] for key, other in parts.items() if key != name)])
        detector = fit(registry.build(part.config), part.train, part.held_out)
        decision = calibrate(detector, part)
        table = pd.concat([foreign_exam.exam(detector, decision, part, others),
                           on_test(detector, decision, part)], ignore_index=True)
        table.insert(0, "category", name)
        print(table.to_string(index=False, float_format="{:.3f}".format), flush=True)
        tables.append(table)
        pd.concat(tables).to_csv(given.out, index=False)


if __name__ == "__main__":
    main()
