import math

import pandas as pd

from adlib.data.quality import Findings
from adlib.report import answers, comparison, eda, tables

HOSTILE = '<script>alert("x")</script>'


def row(columns=comparison.ROW_COLUMNS, **changes):
    base = dict.fromkeys(columns, math.nan) | {
        "category": "nut", "name": "cae_mse", "configuration": "cae_mse", "status": "finished",
        "reason": "", "auroc": 0.8, "low": 0.7, "high": 0.9, "verdict": "", "device": "cpu",
        "weights": "none", "folder": "runs/nut/cae_mse/seed-0", "n_anomalous": 15,
        "with_best": True, "score": "squared.mean", "seeds": 1
    }
    return base | changes


def test_a_hostile_name_stays_text():
    table = pd.DataFrame(
        [row(category=HOSTILE, configuration=HOSTILE, weights=HOSTILE, folder=f'runs/"{HOSTILE}"')])
    page = tables.performance_html(table)
    assert "<script" not in page and "&lt;script&gt;" in page and 'href="runs/%22%3Cscript' in page
    findings = Findings({HOSTILE: 1}, {}, {}, {HOSTILE: 1}, ((HOSTILE, HOSTILE), ), (), (HOSTILE, ),
                        0, HOSTILE)
    assert "<script" not in eda.card(findings).data


def test_fallbacks_are_said_first():
    run = row(comparison.RUN_COLUMNS, fingerprint="f", data="here", synthetic=True,
              weights="RANDOM, not ImageNet's (offline)")
    said = answers.provenance(pd.DataFrame([run]))
    assert said.startswith("SYNTHETIC DATA") and "did not have ImageNet weights: RANDOM" in said


def test_text_table():
    text = tables.performance_markdown(
        pd.DataFrame(
            [row(claim_low=0.7, claim_high=0.8, published=0.812, train_seconds=150, epochs=12)]))
    assert "| 0.800 [0.70, 0.90] ★ |" in text and "| 0.70-0.80 | 0.812 |" in text and "2.5 min" in text
    assert "train/bad" not in text and "Pixel" not in text  # a column without a figure is left out


def test_spread_over_seeds_and_interval_are_different_figures():
    text = tables.performance_markdown(
        pd.DataFrame([
            row(seeds=3, spread=0.0123, false_positives=0.05, false_low=0.0, false_high=0.2,
                with_best=False)
        ]))
    assert "| 0.800 ± 0.012 [0.70, 0.90] |" in text and "| 5% [0%, 20%] |" in text and "★" not in text
