"""The tables that the benchmarks write, from measurements made by hand."""
import math
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from adlib.config import Config
from adlib.data.files import read_json, write_json
from adlib.data.part import open_part
from adlib.evaluation.calibration import calibrate
from adlib.evaluation.conditions import Conditions
from adlib.evaluation.conformal import rate_interval
from adlib.evaluation.results import write_csv
from adlib.models import fused
from adlib.models.detector import fit
from benchmarks import (
    detection,
    dirty,
    disturbed,
    how_many,
    parts,
    peers,
    rates,
    speed,
)
from tests.conftest import picture


def test_detection_is_where_the_mean_of_the_seeds_stays(tmp_path):
    assert detection.stays({1: 0.9, 2: 0.5, 3: 0.8, 4: 0.9}, 0.8) == 3  # an early peak is none
    assert detection.stays({1: 0.9, 2: 0.5}, 0.8) is None and detection.stays({}, 0.8) is None
    # the reference's way is not measured yet
    assert detection.stays({1: 0.9}, float("nan")) is None
    for way, seed, values in (("reference", 0, (0.6, 0.8)), ("reference", 1, (0.8, 0.9)),
                              ("ours", 0, (0.7, 0.84))):
        looks = [{"epoch": epoch, "auroc": value} for epoch, value in enumerate(values, 1)]
        write_json(tmp_path / way / f"nut-cae_mse-{seed}.json", {"looks": looks})
    row = detection.table(tmp_path).iloc[0]
    assert (row["seeds"], row["its epochs to detection"],
            row["our epochs to detection"]) == ("2, 1", 2, 2)
    assert row["the reference's way"] == pytest.approx(0.85) and row["difference"] == pytest.approx(
        -0.01)
    assert math.isnan(row["error"])  # of one seed there is no spread
    write_json(tmp_path / "ours" / "nut-cae_mse-1.json", {"looks": [{"epoch": 2, "auroc": 0.94}]})
    # each way: two values .1 apart
    row = detection.table(tmp_path).iloc[0]
    assert row["error"] == pytest.approx(0.05 * 2**0.5) and row["ours"] == pytest.approx(0.89)


def test_a_seed_of_which_the_end_alone_is_known_has_no_say_in_the_epochs(tmp_path):
    """Its end would be averaged with curves that lie elsewhere: a fall, or a rise, of no seed."""
    for seed, values in enumerate(((0.9, 0.9, 0.9), (0.9, 0.9, 0.9), (0.5, ), (0.6, ))):
        looks = [{"epoch": 4 - len(values) + i, "auroc": value} for i, value in enumerate(values)]
        for way in ("ours", "reference")[:1 + (len(values) > 1)]:
            write_json(tmp_path / way / f"nut-cae_mse-{seed}.json", {"looks": looks})
    row = detection.table(tmp_path).iloc[0]
    assert (row["seeds"], row["curves"]) == ("2, 4", "2, 2")
    assert row["our epochs to detection"] == 1 and row["ours"] == pytest.approx(0.725)


def test_the_kept_measurements_are_read():
    table = detection.table(detection.MEASURED)
    assert len(table) == 8 and table[["the reference's way", "ours"]].notna().all(axis=None)


def test_the_table_holds_the_ratios():
    its = {
        "seconds": 5000.0, "extrapolated": True, "peak_mb": 900.0,
        "cells": {"nut-cae_mse": {"images": 180, "epoch": 6.0, "scored_per_second": 30.0}}
    }
    ours = {
        "seconds": 200.0, "peak_mb": 1800.0, "second_seconds": 3.2, "tasks": 11, "done_again": 0
    }
    result = {
        "machine": "abacus", "cores": 2, "torch": "2.6", "ceiling": {"bf16_gflops": 400.0},
        "sizes": {"256": {"reference": its, "ours": ours}}, "training": {
            "cae_mse": {"images_per_second": 60.0, "precision": "bf16", "share_of_ceiling": 0.5}
        }, "scoring": 90.0, "growth": {"200 x 128": 3.0}
    }
    text = speed.compared(result)
    for said in ("25.0 x", "5000 s (extrapolated)", "30 images/s", "2.0 x", "3.0 x"):
        assert said in text
    assert "abacus" in text and "3.2 s, 0 of 11 tasks" in text


def part_measured(folder, part, seed, fused, memory, threshold=2.5):
    """A cell of benchmarks.parts: three good test images, and two bad ones."""
    labels = [0, 0, 0, 1, 1]
    of = {name: {"scores": scores, "how": "split", "threshold": threshold, "label_free": 0.9}
          for name, scores in {"fused": fused, "memory": memory}.items()}
    others = {name: of["memory"] | {"scores": [5, 4, 3, 2, 1]} for name in parts.DETECTORS[2:]}
    write_json(folder / f"{part}-{seed}.json", {
        "category": part, "seed": seed, "good": 30, "labels": labels, "fit_seconds": 2.0,
        "detectors": of | others})


def test_the_table_of_parts_says_by_how_much_fused_falls_short(tmp_path):
    part_measured(tmp_path, "nut", 0, [0, 1, 2, 3, 4], [0, 1, 3, 2, 4])
    part_measured(tmp_path, "nut", 1, [0, 1, 3, 2, 4], [0, 1, 3, 2, 4])
    part_measured(tmp_path, "tile", 0, [0, 1, 4, 2, 3], [0, 1, 2, 3, 4])
    found = parts.table(tmp_path)
    assert found["seeds"].tolist() == [2, 1, 1.5] and found["pca"].tolist() == [0, 0, 0]
    assert found["fused"].tolist() == pytest.approx([11 / 12, 4 / 6, (11 / 12 + 4 / 6) / 2])
    assert found["short"].tolist() == pytest.approx([0, 1 / 3, 1 / 6])


def test_the_page_of_parts_has_intervals_and_rates_at_the_threshold(tmp_path):
    part_measured(tmp_path, "nut", 0, [0, 1, 3, 2, 4], [0, 1, 3, 2, 4])
    part_measured(tmp_path, "tile", 0, [0, 1, 4, 2, 3], [0, 1, 2, 3, 4])
    text = parts.page(tmp_path)
    assert "| nut | 30 | 1 | 0.833 [" in text and "| mean |  |  | 0.750 | 0.917 | 0.000 |" in text
    low, high = rate_interval(1, 3)
    assert f"| nut | 33% [{low:.0%}, {high:.0%}] / 50% [" in text
    assert "Pixel average precision" not in text  # there are no masks


def test_the_page_of_parts_says_how_often_a_label_free_order_is_the_real_one(tmp_path):
    for part, real in (("nut", [0, 1, 2, 3, 4]), ("tile", [0, 3, 4, 1, 2])):
        part_measured(tmp_path, part, 0, real, [0, 1, 3, 2, 4])
        cell = read_json(tmp_path / f"{part}-0.json")
        for name, shift in zip(parts.DETECTORS, (9, 0.5, 0, 0, 0, 0), strict=True):
            good = np.arange(6.0)
            cell["detectors"][name]["exam"] = {
                "good": good.tolist(), "synthetic": (good[:4] + shift).tolist()}
        write_json(tmp_path / f"{part}-0.json", cell)
    firsts, pairs = parts.choices(parts.cells(tmp_path))
    firsts = firsts.set_index("part")
    assert firsts["sure"].tolist() == [True, True]
    # fused 1, memory 5/6, others 0; on the tile fused 1/3 behind memory's 5/6
    assert firsts.loc["nut", "lost"] == 0 and firsts.loc["tile", "lost"] == pytest.approx(1 / 2)
    sure = pairs[pairs["sure"]].groupby("part")["right"].mean()
    assert sure["nut"] == 1 and sure["tile"] == pytest.approx(8 / 9)
    text = parts.page(tmp_path)
    assert "tells two detectors apart by the exam, its order was the real one in" in text
    assert "The first was sure in 2 of 2 cases, and lost 0.250 on average, 0.500 at most" in text


def test_where_no_mask_says_it_or_one_says_otherwise_no_pixel_counts(monkeypatch):
    """As in a run: an anomalous image without a defect in its mask, a good one with one."""
    masks, seen = torch.zeros(4, 8, 8, dtype=torch.bool), {}
    masks[[1, 2], :4] = True
    part = SimpleNamespace(test=SimpleNamespace(masks=masks), config=SimpleNamespace(image_size=8))
    monkeypatch.setattr(parts, "truth_of", lambda part: np.array([0, 0, 1, 1]))
    monkeypatch.setattr(parts.localization, "measure", lambda maps, masks: seen.update(
        maps=maps, masks=masks) or ({"pixel_ap": 0.5, "au_pro_30": 0.25}, None))
    maps = np.arange(4, dtype=np.float32)[:, None, None] * np.ones((1, 8, 8), np.float32)
    assert parts.located(part, maps) == {"pixel_ap": 0.5, "au_pro_30": 0.25}
    assert seen["maps"][:, 0, 0].tolist() == [0, 2] and seen["masks"].any(axis=(1, 2)).tolist() == [
        False, True]


@pytest.mark.parametrize("target_fpr", [0.2, 0.5])  # two held-out images are enough for the second
def test_the_parts_are_judged_by_the_threshold_of_a_run(course_root, monkeypatch, target_fpr):
    monkeypatch.setattr(fused, "SYNTHETIC", 16)
    config = Config(model="fused", image_size=32, weights="none", device="cpu", category="nut",
                    precision="float32", data_root=str(course_root), held_out=0.25,
                    target_fpr=target_fpr)
    part = open_part(config)
    fitted = fit(parts.WithHalves(config), part.train, part.held_out)
    run = calibrate(fit(config, part.train, part.held_out), part).threshold
    assert run.how == "cross-conformal"
    ours = parts.scored(fitted, part)[0]
    assert ours["how"] == run.how and ours["threshold"] == pytest.approx(run.value, rel=1e-4)


def test_the_table_of_peers_compares_with_fused_on_the_same_images_and_says_who_wins(tmp_path):
    ours, theirs = tmp_path / "parts", tmp_path / "peers"
    part_measured(ours, "nut", 0, [0, 1, 3, 2, 4], [0, 1, 3, 2, 4])
    part_measured(ours, "tile", 0, [0, 1, 2, 3, 4], [0, 1, 2, 3, 4])
    for part, scores in (("nut", [0, 1, 2, 3, 4]), ("tile", [0, 1, 3, 2, 4]), ("new", [1, 2])):
        write_json(theirs / f"{part}-anomalib_padim-0.json", {
            "category": part, "name": "anomalib_padim", "seed": 0,
            "fit_seconds": 20.0 if part == "nut" else None,
            "seconds_an_image": 0.1, "scores": scores, "own": scores})
    found = peers.table(theirs, ours)
    assert found["part"].tolist() == ["nut", "tile"]  # `fused` was not measured on the third
    assert found["difference"].tolist() == pytest.approx([-1 / 6, 1 / 6])
    assert found["auroc"].tolist() == found["own"].tolist() == pytest.approx([1, 5 / 6])
    text = peers.page(found)
    assert "ahead of `fused`: anomalib_padim on nut (by 0.167, p = " in text
    assert "mean AUROC 0.917" in text and "10.0 x that of `fused`" in text
    assert [line.split("|")[-3].strip() for line in text.splitlines() if "padim |" in line] == [
        "20", "-"]
    assert all(settings["model"].startswith("anomalib:")
               for settings in peers.configurations().values()) and peers.configurations()


def test_features_kept_between_epochs_are_those_of_each_picture():
    class Network(torch.nn.Module):
        looked_at = 0

        def forward(self, batch):
            self.looked_at += len(batch)
            return {"layer1": batch.mean(dim=1), "layer2": batch[:, :1] * 2}

    network, pictures = Network(), torch.rand(5, 3, 2, 2)
    with peers.features_once(Network):
        for rows in ([0, 1, 2], [4, 1], [3, 4, 0, 2, 1]):
            kept = network(pictures[rows])
            assert torch.equal(kept["layer1"], pictures[rows].mean(dim=1))
            assert torch.equal(kept["layer2"], pictures[rows, :1] * 2)
    assert network.looked_at == 5
    network(pictures)
    assert network.looked_at == 10


def test_the_table_of_how_many_pictures_has_a_row_a_part(tmp_path):
    rows = [{"pictures": 40, "n": n, "draw": draw, "label_free": 0.9, "auroc": 1 - 0.2 / n,
             "good": 9, "anomalous": 9, "false_positives": math.nan, "found": math.nan}
            for n in (1, 2, 4, 8) for draw in range(2)]
    write_csv(pd.DataFrame(rows), tmp_path / "nut.csv")
    found = how_many.table(tmp_path)
    assert list(found.index) == ["nut", "mean"]
    assert found.loc["nut", ["4", "most"]].tolist() == pytest.approx([0.95, 0.975])
    assert found.loc["nut", "gain"] == pytest.approx(0.2 * (1 / 40 - 1 / 90), abs=1e-6)


def test_rates_are_pooled_over_parts_taken_alike(monkeypatch, capsys):
    rows = {"nut": {"good": 100, 0.01: 1, 0.05: 20, 0.1: 12, "taken otherwise": ""},
            "zip": {"good": 100, 0.01: 1, 0.05: 4, 0.1: 8, "taken otherwise": ""},
            "dim": {"good": 100, 0.01: 90, 0.05: 95, 0.1: 99, "taken otherwise": "darker"}}
    monkeypatch.setattr(rates, "measure", lambda config: rows[config.category] | {
        "category": config.category})
    monkeypatch.setattr(sys, "argv", ["rates", "--weights", "none", "x/nut", "x/zip", "x/dim"])
    rates.main()
    asked = [line for line in capsys.readouterr().out.splitlines() if " asked: " in line]
    assert [line.split("; ")[1] for line in asked] == [
        "above: dim", "above: nut, dim", "above: dim", "above: none", "above: nut", "above: none"]
    assert [line.split(" [")[0] for line in asked] == [
        "all, 1% asked: 92 of 300, 30.7%", "all, 5% asked: 119 of 300, 39.7%",
        "all, 10% asked: 119 of 300, 39.7%", "alike, 1% asked: 2 of 200, 1.0%",
        "alike, 5% asked: 24 of 200, 12.0%", "alike, 10% asked: 20 of 200, 10.0%"]


def test_no_score_decides_over_which_parts_a_rate_is_pooled():
    good, config = torch.from_numpy(np.stack([random_picture(i) for i in range(80)])), Config()
    decision = SimpleNamespace(conditions=Conditions.of(good[:40]))  # whatever its threshold is
    for light, said in ((0, ""), (40, "brighter")):
        tested = SimpleNamespace(tensor=(good[40:].int() + light).clamp(0, 255).byte())
        test = SimpleNamespace(select=lambda index, one=tested: one)
        part = SimpleNamespace(config=config, test=test)
        assert rates.taken_otherwise(decision, part, np.arange(40)) == said
    assert rates.taken_otherwise(decision, part, np.arange(0)) == ""


def random_picture(seed):
    random = np.random.default_rng(seed)
    grey = random.normal(100 + random.normal(0, 3), 20, (1, 64, 64))
    return np.repeat(grey, 3, axis=0).clip(0, 255).astype(np.uint8)


def test_a_part_without_labels_is_a_sentence_before_anything_is_fitted(tmp_path, monkeypatch):
    for place in ("train/good", "test"):
        for i in range(4):
            picture(tmp_path / "nut" / place / f"{i}.png", i)
    monkeypatch.setattr(parts, "fit", None)
    config = Config(category="nut", data_root=str(tmp_path), weights="none", image_size=32)
    with pytest.raises(SystemExit, match="nut: 4 of 4 test images have no label; sort them"):
        parts.measure(config)
    with pytest.raises(SystemExit, match="4 of 4 test images have no label"):
        dirty.dirty(open_part(config).category, tmp_path / "made", 0.1)


def test_of_many_test_images_some_of_every_defect_are_disturbed():
    assert disturbed.some(np.arange(5)).tolist() == [0, 1, 2, 3, 4]
    found = disturbed.some(np.arange(10, 210))
    assert len(found) == len(set(found)) == disturbed.TESTED and (found[0], found[-1]) == (10, 209)
    assert not len(disturbed.some(np.arange(0)))


def test_either_way_an_epoch_is_the_mean_of_the_warm_ones():
    assert (speed.warm_epoch([9, 1, 3]), speed.warm_epoch([5])) == (2, 5)
