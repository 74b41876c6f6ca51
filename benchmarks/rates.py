"""How many good test pictures are refused, as anomalous or as foreign, beside what was asked for
both together, and how many bad ones? A row a category (`foreign`: good ones called foreign, at any
rate; `found`: bad ones refused at each rate, of them by the score alone), then those pooled whose
good test pictures are taken like the training ones (results.taken_otherwise).

    python -m benchmarks.rates --weights FILE ROOT/CATEGORY [ROOT/CATEGORY ...]

Labels are read when everything is decided. `above` are the categories significantly above the asked
rate (one-sided binomial test, Holm over the categories).
"""
from __future__ import annotations

import time
import typing

import pandas as pd
from scipy import stats

from adlib.config import Config
from adlib.data.part import open_part
from adlib.evaluation.auroc import holm
from adlib.evaluation.calibration import calibrate
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
            "taken otherwise": (results.metrics["conditions"] or {}).get("cause") or "",
            "foreign": int(unlike[good].sum()), "bad": int(bad.sum()), "found": {
                rate: (int((above[rate] | unlike)[bad].sum()), int(above[rate][bad].sum()))
                for rate in RATES},
            **{rate: int((above[rate] | unlike)[good].sum()) for rate in RATES}}


def main() -> None:
    given, rows = common.of_categories(__doc__).parse_args(), []
    for path in given.categories:
        rows.append(measure(common.config(path, given.weights)))
        print(rows[-1], flush=True)
    table = pd.DataFrame(rows)
    alike = table[(table["taken otherwise"] == "") & (table["good"] > 0)]
    for rate in RATES:
        hits, n = int(alike[rate].sum()), int(alike["good"].sum())
        low, high = rate_interval(hits, n)
        p = [stats.binomtest(k, of, rate, alternative="greater").pvalue
             for k, of in zip(alike[rate], alike["good"], strict=True)]
        above = alike["category"][[value < 0.05 for value in holm(p)]] if p else []
        print(f"{rate:.0%} asked: {hits} of {n}, {hits / max(n, 1):.1%} [{low:.1%}, {high:.1%}]; "
              f"above: {', '.join(above) or 'none'}")


if __name__ == "__main__":
    main()
