"""How soon is a changed camera noticed, and how often is a warning false? On replayed streams.

    python -m benchmarks.conditions --data ROOT [ROOT ...] [--streams 50]

Good training pictures are split by the seed: four fifths calibrate, one fifth is replayed (each
picture once in every round, in another order). A stream of 1,000 good pictures should never warn;
one with every twentieth picture a defective one (from the test set) neither; one that changes at
its 101st picture at once. The good pictures of the test set are replayed as well: where they warn,
the test pictures were taken under other conditions than the training pictures.
"""
from __future__ import annotations

import argparse
import collections
import statistics
import typing

import numpy as np
import torch

from adlib.config import Config
from adlib.data import corruptions, layout
from adlib.data.part import open_part
from adlib.evaluation import conditions
from adlib.evaluation.conditions import Conditions, ConditionsTest
from adlib.evaluation.results import truth_of

LENGTH, CHANGED_AT, DEFECTIVE = 1000, 100, 20
EXPECTED = {"brighter": "brighter", "darker": "darker", "blur": "blurrier", "noise": "noisier",
            "contrast": "less_contrast", "shift": "moved"}
Values = dict[str, np.ndarray]


def replay(calibration: Values, good: Values, seed: int, *, others: Values | None = None,
           every: int = 0, after: int = LENGTH) -> conditions.Change | None:
    """One stream of `good`; from picture `after` on, or `every` so many pictures, of `others`."""
    random, test = np.random.default_rng(seed), ConditionsTest(calibration, seed=seed)
    order: list[int] = []
    for n in range(LENGTH if others is None or every else after + 200):
        changed = others is not None and (n >= after or every and n % every == every - 1)
        source = others if changed else good
        order = order or list(random.permutation(len(good["brightness"])))
        i = random.integers(len(source["brightness"])) if changed and every else order.pop()
        if change := test.add({name: values[i] for name, values in source.items()}):
            return change
    return None


def measure(root: str, category: str, streams: int) -> dict[str, typing.Any]:
    part = open_part(Config(name="-", category=category, data_root=root, held_out=0.2,
                            image_size=256))
    usual, pool = Conditions.of(part.train.tensor), part.held_out.tensor
    calibration, good = usual.calibration, usual.measure(pool)
    labels = truth_of(part)
    seeds = range(streams)
    false = [replay(calibration, good, seed) for seed in seeds]
    row: dict[str, typing.Any] = {"category": category, "calibration": len(part.train),
                                  "false": sum(c is not None for c in false)}
    if (labels == 1).any():
        bad = usual.measure(part.test.tensor[torch.from_numpy(labels == 1)])
        row["false, 5% defects"] = sum(
            replay(calibration, good, seed, others=bad, every=DEFECTIVE) is not None
            for seed in seeds)
    if (labels == 0).any():
        tested = usual.measure(part.test.tensor[torch.from_numpy(labels == 0)])
        found = [c for seed in seeds if (c := replay(calibration, tested, seed)) is not None]
        row["test good"] = f"{len(found)} " + _most(found)
    for name, expected in EXPECTED.items():
        other = usual.measure(corruptions.apply(pool, name, 3))
        found = [replay(calibration, good, seed, others=other, after=CHANGED_AT) for seed in seeds]
        delay = statistics.median(c.noticed - CHANGED_AT if c else np.inf for c in found)
        named = sum(c is not None and c.cause == expected for c in found)
        by = statistics.median([change.by for change in found if change] or [0.0])
        row[name] = f"{delay:.0f} ({named}, {by:.1f} sd)"
    return row


def _most(found: list[conditions.Change]) -> str:
    causes = collections.Counter(change.cause for change in found).most_common(1)
    by = statistics.median([change.by for change in found] or [0.0])
    return f"{causes[0][0]} {by:.1f} sd" if causes else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", required=True, metavar="ROOT")
    parser.add_argument("--streams", type=int, default=50)
    asked = parser.parse_args()
    head = None
    for root in asked.data:
        for category in layout.categories(layout.find_root(root)[0]):
            row = measure(root, category, asked.streams)
            if head is None:
                head = [*row]
                print("| " + " | ".join(head) + " |\n" + "|---" * len(head) + "|")
            print("| " + " | ".join(str(row.get(name, "-")) for name in head) + " |", flush=True)


if __name__ == "__main__":
    main()
