"""How many good test pictures are refused, as anomalous or as foreign, beside what was asked for
both together, and how many bad ones? A row a category (`foreign`: good ones called foreign, at any
rate; `found`: bad ones refused at each rate, of them by the score alone), then all of them pooled,
and those whose good test pictures' light and focus are those of the training ones: their scores,
which a page's warning looks at as well, may not decide by which of them the rate is judged.

    python -m benchmarks.rates --weights FILE ROOT/CATEGORY [ROOT/CATEGORY ...]

Labels are read when everything is decided. `above` are the categories significantly above the asked
rate (one-sided binomial test, Holm over the categories).
"""
from __future__ import annotations

import time
import typing

import numpy as np
import pandas as pd
from scipy import stats

from adlib.config import Config
from adlib.data.part import Part, open_part
from adlib.evaluation import conditions
from adlib.evaluation.auroc import holm
from adlib.evaluation.calibration import Decision, calibrate
from adlib.evaluation.conformal import rate_interval
from adlib.evaluation.results import evaluate, truth_of
from adlib.models.detector import fit
from benchmarks import common

RATES = (0.01, 0.05, 0.1)


def measure(config: Config) -> dict[str, typing.Any]:
    part = open_part(config)
    started = time.process_time()
    detector = fit(config, part.train, part.held_out)
    fitted = time.process_time() - started
    decision = calibrate(detector, part)
    results = evaluate(detector, decision, part)
    test, threshold = results.table[results.table["split"] == "test"], decision.threshold
    unlike, labels = decision.calls_foreign(part.test.tensor), truth_of(part)
    good, bad = labels == 0, labels == 1
    above = {rate: threshold.at(rate).exceeded(test["chosen_score"].to_numpy(float))
             for rate in RATES}
    return {"category": config.category, "calibration": len(threshold.calibration),
            "least": threshold.least_target_fpr, "good": int(good.sum()), "fit_s": round(fitted),
            "taken otherwise": taken_otherwise(decision, part, np.flatnonzero(good)),
            "warned": (results.metrics["conditions"] or {}).get("cause") or "",
            "foreign": int(unlike[good].sum()), "bad": int(bad.sum()), "found": {
                rate: (int((above[rate] | unlike)[bad].sum()), int(above[rate][bad].sum()))
                for rate in RATES},
            **{rate: int((above[rate] | unlike)[good].sum()) for rate in RATES}}


def taken_otherwise(decision: Decision, part: Part, good: np.ndarray) -> str:
    """What has changed on those good test pictures, a value of conditions.CAUSES; "" for nothing.
    """
    if decision.conditions is None or not len(good):
        return ""
    change = conditions.compare(decision.conditions.calibration, decision.conditions.measure(
        part.test.select(good).tensor), seed=part.config.seed)
    return change.cause if change else ""


def main() -> None:
    given, rows = common.of_categories(__doc__).parse_args(), []
    for path in given.categories:
        rows.append(measure(common.config(path, given.weights)))
        print(rows[-1], flush=True)
    table = pd.DataFrame(rows)
    table = table[table["good"] > 0]
    for name, some in (("all", table), ("alike", table[table["taken otherwise"] == ""])):
        for rate in RATES:
            print(f"{name}, {rate:.0%} asked: {pooled(some, rate)}")


def pooled(table: pd.DataFrame, rate: float) -> str:
    hits, n = int(table[rate].sum()), int(table["good"].sum())
    low, high = rate_interval(hits, n)
    p = [stats.binomtest(k, of, rate, alternative="greater").pvalue
         for k, of in zip(table[rate], table["good"], strict=True)]
    above = table["category"][[value < 0.05 for value in holm(p)]] if p else []
    return (f"{hits} of {n}, {hits / max(n, 1):.1%} [{low:.1%}, {high:.1%}]; above: "
            f"{', '.join(above) or 'none'}")


if __name__ == "__main__":
    main()
