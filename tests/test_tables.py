import math

import pandas as pd

from adlib import compare, eda, tables
from adlib.datacheck import Findings

HOSTILE = '<script>alert("x")</script>'


def row(**changes):
    base = dict.fromkeys(compare.COLUMNS, math.nan) | {
        "category": "nut", "name": "cae_mse", "label": "CAE + MSE", "seed": 0, "status": "finished", "reason": "", "auroc": 0.8, "low": 0.7,
        "high": 0.9, "verdict": "", "device": "cpu", "weights": "none", "synthetic": False, "fingerprint": "f", "source": "Data: here.",
        "folder": "runs/nut/cae_mse/seed-0", "n_anomalous": 15}
    return base | changes


def test_a_hostile_name_stays_text():
    table = pd.DataFrame([row(category=HOSTILE, label=HOSTILE, weights=HOSTILE, folder=f'runs/"{HOSTILE}"')])
    page = tables.as_html(table)
    assert "<script" not in page and "&lt;script&gt;" in page and 'href="runs/&quot;' in page
    findings = Findings({HOSTILE: 1}, {}, {}, {HOSTILE: 1}, ((HOSTILE, HOSTILE),), (), (HOSTILE,), 0, HOSTILE)
    assert "<script" not in eda.card(findings).data


def test_the_answer_is_made_from_the_numbers():
    table = pd.DataFrame([row(), row(name="cae_ssim", label="CAE + SSIM", auroc=0.6, low=0.5, high=0.69, verdict="missed"),
                          row(name="x", label="x", auroc=math.nan, status="failed", reason="no disk")])
    said = compare.answer(table)
    assert "CAE + MSE ranks best with an AUROC of 0.800 [0.70, 0.90]." in said and "1 missed" in said
    assert "nut / x (failed: no disk)" in said
    rival = pd.DataFrame([row(), row(name="cae_ssim", label="CAE + SSIM", auroc=0.75, low=0.6, high=0.85)])
    assert "overlaps that of CAE + SSIM, so this order is not settled" in compare.answer(rival)


def test_fallbacks_are_said_first():
    said = compare.provenance(pd.DataFrame([row(synthetic=True, weights="RANDOM, not ImageNet's (offline)")]))
    assert said.startswith("SYNTHETIC DATA") and "did not have ImageNet weights: RANDOM" in said


def test_text_table():
    text = tables.as_text(pd.DataFrame([row(claim_low=0.7, claim_high=0.8, published=0.812, train_seconds=150, epochs=12)]))
    assert "0.800 [0.70, 0.90] | 0.70-0.80 | 0.812 |" in text and "2.5 min" in text
    assert "train/bad" not in text  # a column without a figure is left out
