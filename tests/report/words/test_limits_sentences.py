"""Where a detector stops working, in sentences."""
import math

import pandas as pd

from adlib.data import corruptions
from adlib.report.words import sentences
from adlib.report.words.data_sentences import corruption
from tests.report.words.test_sentences import told


def disturbed(clean, false_positives, **aurocs):
    rows = [("none", 0, clean, 0.0)] + [
        (name, strength, aurocs.get(name, 0.8) if strength == 3 else 0.1, false_positives)
        for name in corruptions.CORRUPTIONS for strength in corruptions.STRENGTHS]
    return pd.DataFrame(rows, columns=["disturbance", "strength", "auroc", "false_positives"])


def test_the_worst_disturbances_and_the_most_false_positives():
    said = sentences.robustness(disturbed(0.9, 0.25, blur=0.6))
    worst = f"{corruption('blur', 3)} 0.600"
    assert f"AUROC 0.900 as they are; at strength 3 the worst are {worst}" in said
    assert "are 25% of the good images, with" in said and told(said)
    assert "none of the good images is called anomalous" in sentences.robustness(disturbed(0.9, 0))
    assert "support no threshold" in sentences.robustness(disturbed(0.9, math.nan))
    assert "no labels of both classes" in sentences.robustness(disturbed(0.9, 0).iloc[:0])


def test_how_large_a_defect_must_be():
    sizes = pd.DataFrame([("crack", 0.012, 0.001, 1.0), ("hole", 0.001, 0.001, 1.0),
                          ("cut", math.nan, 0.001, 0.25)],
                         columns=["defect", "area95", "smallest", "found_at_real_size"])
    said = sentences.detectability(pd.DataFrame({"defect": ["crack"]}), sizes)
    assert "crack 1.20%, hole 0.10% or less, cut not reached (found 25% at real size)." in said
    assert "No psychometric curves" in sentences.detectability(pd.DataFrame(), sizes)


def test_what_chance_could_have_ordered_is_said_to_be_like_guessing():
    for value, low, high, said in ((0.6, 0.4, 0.8, True), (0.8, 0.6, 0.9, False),
                                   (0.2, 0.1, 0.3, False), (None, None, None, False)):
        entry = {"value": value, "low": low, "high": high}
        assert bool(sentences.guessing({"chosen": {"auroc": {"test": entry}}})) == said
