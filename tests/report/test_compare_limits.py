"""The limits of several configurations side by side: what is in the tables, and what an absent
threshold is not told as."""
import math

import pandas as pd
import pytest

from adlib.data import corruptions
from adlib.evaluation import evaluate
from adlib.report import compare_limits, comparison, data_sentences
from adlib.runs import freshness


def disturbed(clean=0.9, at=0.8, alarms=0.25, **others):
    """A robustness.csv whose AUROC at strength 3 is `at`, but for the disturbances that are named.
    """
    rows = [("none", 0, "as they are", clean, 0.0, 1.0)]
    rows += [(name, strength, data_sentences.corruption(
        name, strength), (others.get(name, at) if strength == 3 else 0.111), alarms, 1.0)
             for name in corruptions.CORRUPTIONS for strength in corruptions.STRENGTHS]
    return pd.DataFrame(
        rows, columns=["disturbance", "strength", "what", "auroc", "false_positives", "detections"])


def write(reports, name, table, file="robustness.csv"):
    folder = reports / "limits" / "nut" / name
    evaluate.write_csv(table, folder / file)
    return folder


def test_a_row_a_configuration_at_the_one_strength(tmp_path):
    write(tmp_path, "pca", disturbed(blur=0.6))
    write(tmp_path, "own", disturbed())
    tables = compare_limits.robustness(tmp_path)
    assert set(tables) == {("nut", comparison.LABELS["pca"]), ("nut", "own")}
    row = compare_limits.robustness_table(tables).set_index("Configuration").loc[
        comparison.LABELS["pca"]]
    assert row["As they are"] == "0.900" and row["blur"] == "0.600" and row[
        "False alarms, mean"] == "25%"
    assert {row[name] for name in corruptions.CORRUPTIONS if name != "blur"} == {"0.800"}
    said = compare_limits.robustness_sentence(tables)
    assert f"nut PCA residual 0.900 to 0.600 ({data_sentences.corruption('blur', 3)})" in said
    assert all(
        data_sentences.corruption(name, 3) in compare_limits.robustness_caption()
        for name in corruptions.CORRUPTIONS)


def test_no_threshold_is_not_told_as_no_false_alarms(tmp_path):
    write(tmp_path, "pca", disturbed(alarms=math.nan))
    assert compare_limits.robustness_table(
        compare_limits.robustness(tmp_path)).iloc[0]["False alarms, mean"] == "no threshold"


def test_failed_and_unlabelled_limits_are_no_rows(tmp_path):
    write(tmp_path, "unlabelled", disturbed().iloc[:0])
    folder = write(tmp_path, "broken", disturbed())
    freshness.fail(folder / "limits.json", "the sky fell", "again")
    write(tmp_path, "broken", disturbed())  # even where a table is there
    assert compare_limits.robustness(tmp_path) == {} and compare_limits.smallest(tmp_path).empty
    assert "Not asked here" in compare_limits.robustness_sentence({})


@pytest.mark.parametrize(("area95", "shown"), [(0.0123, "1.2 %"), (0.001, "0.1 % or less"),
                                               (math.nan, "not reached")])
@pytest.mark.parametrize(("contrast95", "faint"), [(0.5, "0.50"), (0.1, "0.10 or less"),
                                                   (math.nan, "not reached")])
def test_how_small_and_how_faint(tmp_path, area95, shown, contrast95, faint):
    write(
        tmp_path, "pca",
        pd.DataFrame([{
            "defect": "crack", "area50": 0.002, "area95": area95, "smallest": 0.001,
            "largest": 0.02, "faintest": 0.1, "found_at_real_size": 0.875, "contrast95": contrast95
        }]), "smallest.csv")
    write(tmp_path, "pca", disturbed())
    (row, ) = compare_limits.smallest(tmp_path).to_dict("records")
    assert row["Found 95 % of the time at"] == shown and row["Contrast for 95 %"] == faint
    assert (row["Found half the time at"], row["Largest drawn"],
            row["Share found at real size"]) == ("0.2 %", "2 %", "88%")
