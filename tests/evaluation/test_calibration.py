import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import ndimage

from adlib.config import REFERENCE_SCORE, Config, InputError
from adlib.data import images, layout
from adlib.data.synthetic import anomalies
from adlib.evaluation import calibration, conformal
from adlib.models import anomaly_maps, training

CONFIG = Config(category="nut", image_size=32, held_out=0.4, device="cpu")


def contrast(pictures):
    """A scorer without training: local contrast, as a squared and as an absolute difference."""
    grey = pictures.float().mean(dim=1).numpy() / 255
    difference = grey - ndimage.uniform_filter(grey, (0, 5, 5))
    return {
        "squared": (difference**2).astype(np.float32), "absolute": np.abs(difference).astype(
            np.float32)
    }


def distance(pictures):
    """A detector's scorer: one coarse map."""
    return {"distance": np.ascontiguousarray(contrast(pictures)["absolute"][:, ::4, ::4])}


@pytest.fixture(params=["course", "mvtec"])
def category(request):
    return layout.open_category(request.getfixturevalue(f"{request.param}_root"), "nut")


def test_splits_are_the_trainings(category):
    found = calibration.split_of(category, CONFIG)
    kept, held = training.split(len(category.train), 0.4, 0)
    assert found["train"] == [category.train[i] for i in kept
                              ] and found["held_out"] == [category.train[i] for i in held]
    assert sorted(found["train"] + found["held_out"]) == list(category.train) and len(
        found["held_out"]) >= 2
    assert found["test"] == list(category.test) and found["train_bad"] == list(category.train_bad)


def test_every_image_has_its_scores(category):
    scored = calibration.scores(contrast, category, CONFIG)
    assert {name: paths
            for name, (paths, _) in scored.splits.items()} == {
                name: paths
                for name, paths in calibration.split_of(category, CONFIG).items() if paths
            }
    for paths, table in scored.splits.values():
        expected = anomaly_maps.table(contrast(images.load(paths, 32)), scored.scale)
        pd.testing.assert_frame_equal(table, expected, check_exact=True)
        assert list(table.columns) == [
            f"{name}.{how}" for name in ("squared", "absolute", "sum")
            for how in anomaly_maps.REDUCTIONS
        ]


def test_p_values_are_from_held_out_images_only(category):
    scored = calibration.scores(contrast, category, CONFIG)
    held = scored.splits["held_out"][1]
    assert scored.calibration == len(held) and scored.how == "split"
    assert set(scored.p_values) == {scored.primary, scored.chosen
                                    } and scored.primary == REFERENCE_SCORE
    for name, by_split in scored.p_values.items():
        assert set(by_split) == set(scored.splits) - {"train", "held_out"}
        for split, values in by_split.items():
            expected = [(1 + sum(held[name] >= one)) / (len(held) + 1)
                        for one in scored.splits[split][1][name]]
            assert values.tolist() == expected


def test_the_images_it_was_fitted_on_decide_nothing(category):
    fitted = {
        image.numpy().tobytes()
        for image in images.load(calibration.split_of(category, CONFIG)["train"], 32)
    }

    def overfitted(pictures):
        maps = contrast(pictures)
        known = np.array([image.numpy().tobytes() in fitted for image in pictures])[:, None, None]
        return {name: np.where(known, np.float32(0), values) for name, values in maps.items()}

    honest, flattered = (calibration.scores(scorer, category, CONFIG)
                         for scorer in (contrast, overfitted))
    assert (flattered.splits["train"][1] < honest.splits["train"][1]).any(axis=None)
    assert flattered.scale == honest.scale and flattered.chosen == honest.chosen
    pd.testing.assert_frame_equal(flattered.ranking, honest.ranking, check_exact=True)
    for name, by_split in honest.p_values.items():
        assert all(
            (flattered.p_values[name][split] == values).all() for split, values in by_split.items())


def test_the_ranking_is_that_of_anomalies_in_held_out_images(category):
    decided = calibration.decide(contrast, category, CONFIG)
    held = images.load(calibration.split_of(category, CONFIG)["held_out"], 32)
    scale = anomaly_maps.scale_of(contrast(held))
    assert decided.scale == scale
    changed, _, kinds = anomalies.insert(held, calibration.SYNTHETIC, seed=0)
    good, anomalous = anomaly_maps.table(contrast(held), scale), anomaly_maps.table(
        contrast(changed), scale)
    expected = anomaly_maps.label_free(good, anomalous, kinds)
    pd.testing.assert_frame_equal(decided.ranking, expected)
    assert decided.chosen == anomaly_maps.choose(expected, REFERENCE_SCORE)


def test_of_many_held_out_images_some_give_the_scale_and_all_are_scored(category, monkeypatch):
    monkeypatch.setattr(calibration, "SCALED_BY", 1)
    decided = calibration.decide(contrast, category, CONFIG)
    paths, table = decided.splits["held_out"]
    held = images.load(paths, 32)
    assert len(paths) > 1 and decided.scale == anomaly_maps.scale_of(contrast(held[:1]))
    pd.testing.assert_frame_equal(table, anomaly_maps.table(contrast(held), decided.scale))
    seen = anomaly_maps.all_maps(contrast(held[:1]), decided.scale)[decided.chosen.split(".")[0]]
    assert decided.low == pytest.approx(np.median(seen)) and decided.level == pytest.approx(
        np.quantile(seen.max(axis=(1, 2)), 0.95))


def test_deciding_is_the_first_half_of_scoring(category):
    decided, scored = calibration.decide(contrast, category, CONFIG), calibration.scores(
        contrast, category, CONFIG)
    assert set(decided.splits) == {"train", "held_out"}
    assert (decided.primary, decided.chosen, decided.scale) == (scored.primary, scored.chosen,
                                                                scored.scale)
    pd.testing.assert_frame_equal(decided.ranking, scored.ranking, check_exact=True)


def test_another_score_is_chosen_where_the_own_one_is_blind(course_root):
    category = layout.open_category(course_root, "nut")
    usual = images.load(category.train, 32).float().mean(dim=(0, 1)).numpy()

    def blind(pictures):
        away = np.abs(pictures.float().mean(dim=1).numpy() - usual) / 255
        return {"squared": np.zeros_like(away), "away": away}

    scored = calibration.scores(blind, category, CONFIG)
    assert scored.primary == "squared.mean" and scored.chosen.startswith(("away.", "sum."))
    assert set(scored.p_values) == {scored.primary, scored.chosen}
    # a blind score calls nothing anomalous
    assert (scored.p_values[scored.primary]["test"] == 1).all()
    # the defect is above all three held-out images
    assert (scored.p_values[scored.chosen]["train_bad"] == 1 / 4).all()


def test_a_detectors_own_score_is_distance_top1(category):
    scored = calibration.scores(distance, category, CONFIG)
    assert scored.primary == "distance.top1" and scored.ranking["score"].tolist() == [
        "distance.top1", "distance.max", "distance.mean"
    ]


@pytest.mark.parametrize("scorer, primary", [(contrast, "squared.mean"),
                                             (distance, "distance.top1")])
def test_nothing_held_out_decides_nothing(category, scorer, primary):
    scored = calibration.scores(scorer, category, dataclasses.replace(CONFIG, held_out=0))
    assert (scored.primary, scored.chosen, scored.how, scored.calibration) == (primary, primary,
                                                                               "none", 0)
    assert "held_out" not in scored.splits and scored.splits["train"][0] == list(category.train)
    assert list(scored.ranking.columns) == [
        "score"
    ] and not conformal.is_attainable(scored.calibration, 0.5)
    for split, values in scored.p_values[primary].items():
        assert np.isnan(values).all() and len(values) == len(scored.splits[split][0])


def test_a_category_without_test_images_is_decided(course_root):
    for path in [*course_root.glob("nut/test/*"), *course_root.glob("nut/train/bad/*")]:
        path.unlink()
    scored = calibration.scores(contrast, layout.open_category(course_root, "nut"), CONFIG)
    assert set(scored.splits) == {"train", "held_out"} and scored.p_values[scored.primary] == {}


def test_labels_are_not_asked_for(course_root):
    (course_root / "image_anomaly_labels.json").write_text("{ no labels")
    assert len(
        calibration.scores(contrast, layout.open_category(course_root, "nut"),
                           CONFIG).splits["test"][1]) == 6


def test_a_test_image_that_is_none_is_named(course_root):
    (course_root / "nut" / "test" / "003.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"1 of 6 images cannot be read: .*nut/test/003.png"):
        calibration.scores(contrast, layout.open_category(course_root, "nut"), CONFIG)


def pictures(n, size=32):
    return torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8,
                         generator=torch.Generator().manual_seed(n))


def test_tables_do_not_depend_on_the_batch(monkeypatch):
    scale = anomaly_maps.scale_of(contrast(pictures(9)))
    whole = calibration.tables(contrast, pictures(9), scale)
    monkeypatch.setattr(calibration, "BATCH", 4)
    pd.testing.assert_frame_equal(calibration.tables(contrast, pictures(9), scale), whole,
                                  check_exact=True)


@pytest.mark.parametrize("n", [0, 1, 5])
def test_maps_are_of_the_images_size(n, monkeypatch):
    monkeypatch.setattr(calibration, "BATCH", 2)
    scale = anomaly_maps.scale_of(contrast(pictures(4)))
    for name in ("squared.max", "absolute.mean", "sum.top1"):
        found = calibration.score_with_maps(contrast, pictures(n), name, scale)[1]
        assert found.shape == (n, 32, 32) and found.dtype == np.float32
        if n:
            assert found == pytest.approx(
                anomaly_maps.all_maps(contrast(pictures(n)), scale)[name.split(".")[0]], rel=1e-4,
                abs=1e-5)
    assert calibration.score_with_maps(distance, pictures(n), "distance.top1",
                                       {})[1].shape == (n, 32, 32)


def test_a_coarse_map_keeps_its_place():
    def corner(pictures):
        found = np.zeros((len(pictures), 8, 8), np.float32)
        found[:, 1, 6] = 1
        return {"distance": found}

    found = calibration.score_with_maps(corner, pictures(2), "distance.top1", {})[1]
    row, column = np.unravel_index(found[0].argmax(), found[0].shape)
    assert 4 <= row < 8 and 24 <= column < 28 and (found[0] == found[1]).all()


CPU = torch.device("cpu")


@pytest.mark.parametrize("native, word", [(False, "float32"), (True, "bf16")])
def test_auto_precision_is_bf16_only_where_the_processor_has_it(native, word, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native, raising=False)
    assert training.precision(Config(precision="auto"), CPU) == word
    assert training.autocast(Config(precision="auto"), CPU)._enabled == native
    for asked in ("float32", "bf16"):  # what was asked for is what one gets
        assert training.precision(Config(precision=asked), CPU) == asked


def test_auto_precision_is_float32_where_torch_cannot_tell(monkeypatch):
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported", raising=False)
    assert training.precision(Config(), CPU) == training.precision(Config(),
                                                                   torch.device("mps")) == "float32"


@pytest.mark.parametrize("native, word", [(False, "float32"), (True, "bf16")])
def test_auto_precision_on_cuda(native, word, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: native)
    assert training.precision(Config(), torch.device("cuda")) == word


def test_a_feature_detectors_score_is_fixed_in_advance(category):
    """Whichever reduction the synthetic anomalies prefer: an autoencoder's choice is a remedy for
    the reference's weak score."""
    def only_the_mean_knows(pictures):
        found = distance(pictures)["distance"].mean(axis=(1, 2), keepdims=True).repeat(
            8, axis=1).repeat(8, axis=2)
        # in two corners, where it leaves the mean as it is
        noise = (pictures.long().sum(dim=(1, 2, 3)) % 97).numpy()
        found[:, 0, 0] += noise
        found[:, -1, -1] -= noise
        return {"distance": found.astype(np.float32)}

    decided = calibration.decide(only_the_mean_knows, category, CONFIG)
    assert decided.primary == decided.chosen == "distance.top1" and len(decided.ranking) == len(
        anomaly_maps.REDUCTIONS)
    # a choice would have been another
    assert anomaly_maps.choose(decided.ranking, decided.primary) == "distance.mean"
