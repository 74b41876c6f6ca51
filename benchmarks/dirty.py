"""Is what does not belong into a folder of good pictures found before anything is fitted, and what
does it cost where it is not? Real defective pictures are put among the good ones.

    python -m benchmarks.dirty --weights FILE [--fit 0.1] ROOT/CATEGORY [ROOT/CATEGORY ...]

A row a category and share of defective pictures (0, 2, 5, 10, 20% of the good ones, at least
one): `listed`, how many of them are in the list of suspects; `good listed`, how many of the good
ones are, copies aside. With --fit these shares alone, and also the AUROC of `fused` and the false
alarms among good test pictures at the 5% asked: fitted on the dirty folder, on what the list
leaves, on the dirty folder with `robust`, and on the clean folder; and how many bad and good ones
`robust` left out.
The defective pictures are train/bad and every other one of the test's; the rest of the test is what
is tested on. Good ones are left out where the defective ones are too few for a fifth.
"""
from __future__ import annotations

import shutil
import tempfile
import typing
from pathlib import Path

import numpy as np

from adlib.config import Config
from adlib.data import layout
from adlib.evaluation import suspects
from adlib.evaluation.auroc import auroc
from adlib.evaluation.calibration import chosen_scores
from adlib.evaluation.conformal import rate_interval
from adlib.evaluation.fits import open_part
from adlib.evaluation.results import truth_of
from benchmarks import common

SHARES = (0.0, 0.02, 0.05, 0.1, 0.2)


def dirty(source: layout.Category, root: Path, share: float) -> tuple[Path, int]:
    """Copy a category with defective pictures among its good ones: its folder, and their number."""
    labels, order = common.labelled(source), np.random.default_rng(0).permutation
    bad = [path for path in source.test if labels[source.key(path)].anomalous]
    bad = [bad[i] for i in order(len(bad))]
    pool, tested = [*source.train_bad, *bad[::2]], bad[1::2]
    good = [source.train[i] for i in order(len(source.train))[:int(len(pool) / SHARES[-1])]]
    pool = [pool[i] for i in order(len(pool))]
    count = max(1, round(share * len(good))) if share else 0
    fine = [path for path in source.test if not labels[source.key(path)].anomalous]
    for split, paths in (("train/good", good), ("test/good", fine), ("test/bad", tested)):
        for i, path in enumerate(paths):
            _copy(path, root / source.name / split / f"{i:03d}{path.suffix}")
    for i, path in enumerate(pool[:count]):
        _copy(path, root / source.name / "train" / "good" / f"bad-{i:03d}{path.suffix}")
    return root / source.name, count


def _copy(path: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, target)


def measure(source: layout.Category, share: float, weights: str,
            fitted: bool) -> dict[str, typing.Any]:
    with tempfile.TemporaryDirectory() as made:
        folder, count = dirty(source, Path(made), share)
        config = common.config(folder, weights)
        part = open_part(config)
        found = suspects.rank(part.good, config)
        bad = found["path"].str.contains("/bad-")
        listed = found["reason"].isin(["anomalous", "unlike", "blurred"])
        row = {"category": folder.name, "share": share, "bad": count, "good": int((~bad).sum()),
               "listed": int((listed & bad).sum()), "good listed": int((listed & ~bad).sum()),
               "copies": int((found["reason"] == "copy").sum()),
               "auroc of the list": auroc(bad.to_numpy(int), found["distance"].to_numpy())
               if count else None}
        if fitted:
            ways = {"dirty": {}, "left": {"exclude": list(found.loc[listed, "path"])},
                    "robust": {"robust": True}, "clean": {"exclude": list(found.loc[bad, "path"])}}
            for name, way in ways.items():
                row |= {f"{name} {key}": value for key, value in _fitted(
                    Config(**config.as_dict() | way)).items()}
    return row


def _fitted(config: Config) -> dict[str, typing.Any]:
    """The labels of the test are read when everything is decided."""
    part = open_part(config)
    gone = ["/bad-" in row["path"] for row in part.left_out or ()]
    detector, decision = common.decided(part)
    scores, truth = chosen_scores(detector, decision, part.test), truth_of(part)
    alarms = int(decision.threshold.exceeded(scores[truth == 0]).sum())
    low, high = rate_interval(alarms, int((truth == 0).sum()))
    return {"auroc": auroc(truth, scores), "alarms": f"{alarms} [{low:.2f}, {high:.2f}]",
            "found": int(decision.threshold.exceeded(scores[truth == 1]).sum())} | (
                {"left out": f"{sum(gone)} + {len(gone) - sum(gone)}"} if config.robust else {})


def main() -> None:
    parser = common.of_categories(__doc__)
    parser.add_argument("--fit", action="append", type=float, default=[],
                        help="a share to fit `fused` at; may be given more than once")
    given = parser.parse_args()
    for path in given.categories:
        source = layout.open_category(path.parent, path.name)
        for share in SHARES:
            if share in given.fit or not given.fit:
                print(measure(source, share, given.weights, share in given.fit), flush=True)


if __name__ == "__main__":
    main()
