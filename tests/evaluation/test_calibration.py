import dataclasses
import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import ndimage

from adlib.config import REFERENCE_SCORE, Config, InputError
from adlib.data import corruptions
from adlib.data import part as parts
from adlib.data.synthetic import anomalies
from adlib.evaluation import calibration
from adlib.evaluation.conformal import Threshold, folds
from adlib.models import anomaly_maps, fused
from adlib.models.closed_forms import PCAResidual
from adlib.models.detector import fit
from tests.handmade import Maps

CONFIG = Config(category="nut", image_size=32, held_out=0.4, device="cpu", target_fpr=0.3)


def contrast(pictures):
    """Local contrast, as a squared and as an absolute difference."""
    grey = pictures.float().mean(dim=1).numpy() / 255
    difference = grey - ndimage.uniform_filter(grey, (0, 5, 5))
    return {"squared": (difference**2).astype(np.float32),
            "absolute": np.abs(difference).astype(np.float32)}


def distance(pictures):
    """A feature detector's: one coarse map."""
    return {"distance": np.ascontiguousarray(contrast(pictures)["absolute"][:, ::4, ::4])}


CONTRAST, DISTANCE = Maps(contrast), Maps(distance)


def opened(root, **changes):
    return parts.open_part(dataclasses.replace(CONFIG, data_root=str(root), **changes))


@pytest.fixture(params=["course", "mvtec"])
def root(request):
    return request.getfixturevalue(f"{request.param}_root")


@pytest.fixture
def part(root):
    return opened(root)


def table_of(maps, scale):
    return anomaly_maps.score_table(maps, anomaly_maps.smoothed_maps(maps, scale))


def test_the_parts_sets_are_the_split(part):
    kept, held = parts.split(len(part.good), 0.4, 0)
    good = part.category.train
    assert part.train.paths == tuple(good[i] for i in kept)
    assert part.held_out.paths == tuple(good[i] for i in held) and len(held) >= 2
    assert sorted(part.train.paths + part.held_out.paths) == list(good)
    assert part.test.paths == part.category.test and part.train_bad.paths == part.category.train_bad


def test_every_image_has_its_scores(part):
    decision = calibration.calibrate(CONTRAST, part)
    assert set(decision.good_scores) == {"train", "held_out"}
    for images in (part.train, part.held_out, part.test, part.train_bad):
        expected = (table_of(contrast(images.tensor), decision.scale) if len(images) else
                    pd.DataFrame())
        table = calibration.score_table(CONTRAST, decision.scale, images)
        assert len(table) == len(images)
        if len(images):
            pd.testing.assert_frame_equal(table, expected, check_exact=True)
            assert list(table.columns) == [f"{name}.{how}"
                                           for name in ("squared", "absolute", "sum")
                                           for how in anomaly_maps.REDUCTIONS]
    for split in ("train", "held_out"):
        pd.testing.assert_frame_equal(
            decision.good_scores[split],
            calibration.score_table(CONTRAST, decision.scale, getattr(part, split)))


def test_thresholds_are_from_held_out_images_only(part):
    decision = calibration.calibrate(CONTRAST, part)
    held = decision.good_scores["held_out"]
    assert set(decision.thresholds) == {decision.reference, decision.score}
    assert decision.reference == REFERENCE_SCORE
    assert decision.threshold is decision.thresholds[decision.score]
    for name, threshold in decision.thresholds.items():
        assert threshold.calibration.tolist() == held[name].tolist()
        assert (threshold.how, threshold.target_fpr) == ("split", CONFIG.target_fpr)


def test_the_images_it_was_fitted_on_decide_nothing(part):
    fitted = {image.numpy().tobytes() for image in part.train.tensor}

    def overfitted(pictures):
        maps = contrast(pictures)
        known = np.array([image.numpy().tobytes() in fitted for image in pictures])[:, None, None]
        return {name: np.where(known, np.float32(0), values) for name, values in maps.items()}

    honest, flattered = (calibration.calibrate(one, part) for one in (CONTRAST, Maps(overfitted)))
    assert (flattered.good_scores["train"] < honest.good_scores["train"]).any(axis=None)
    assert (flattered.scale, flattered.score) == (honest.scale, honest.score)
    pd.testing.assert_frame_equal(flattered.ranking, honest.ranking, check_exact=True)
    for name, threshold in honest.thresholds.items():
        assert (flattered.thresholds[name].calibration == threshold.calibration).all()


def test_the_ranking_is_that_of_anomalies_in_held_out_images(part):
    decision = calibration.calibrate(CONTRAST, part)
    held = part.held_out.tensor
    scale = anomaly_maps.scale_of([(contrast(held), anomaly_maps.WHOLE)])
    assert decision.scale == scale
    changed, _, kinds = anomalies.insert(held, calibration.SYNTHETIC, seed=0)
    good, anomalous = (table_of(contrast(images), scale) for images in (held, changed))
    expected = calibration.label_free(good, anomalous, kinds)
    pd.testing.assert_frame_equal(decision.ranking, expected)
    assert decision.score == calibration.choose(expected, REFERENCE_SCORE)


def test_of_many_held_out_images_some_give_the_scale_and_all_are_scored(part, monkeypatch):
    monkeypatch.setattr(calibration, "SCALED_BY", 1)
    decision = calibration.calibrate(CONTRAST, part)
    held = part.held_out.tensor
    first = contrast(held[:1])
    assert len(held) > 1 and decision.scale == anomaly_maps.scale_of([(first, anomaly_maps.WHOLE)])
    pd.testing.assert_frame_equal(decision.good_scores["held_out"],
                                  table_of(contrast(held), decision.scale))
    seen = anomaly_maps.smoothed_maps(first, decision.scale)[decision.score.split(".")[0]]
    assert decision.low == float(np.median(seen))
    assert decision.level == float(np.quantile(seen.max(axis=(1, 2)), 0.95))


def test_maps_that_are_too_large_to_be_kept_are_made_again(part, monkeypatch):
    calls = []

    def counted(pictures):
        calls.append(len(pictures))
        return contrast(pictures)

    kept = calibration.calibrate(Maps(counted), part)
    few = sum(calls)
    monkeypatch.setattr(calibration, "FIRST_BYTES", 0)
    again = calibration.calibrate(Maps(counted), part)
    assert sum(calls) - few == few + len(part.held_out)  # and not one of them was kept
    assert again.scale == kept.scale and (again.low, again.level) == (kept.low, kept.level)
    pd.testing.assert_frame_equal(again.good_scores["held_out"], kept.good_scores["held_out"])


def test_another_score_is_chosen_where_the_reference_score_is_blind(course_root):
    part = opened(course_root)
    usual = part.good.tensor.float().mean(dim=(0, 1)).numpy()

    def blind(pictures):
        away = np.abs(pictures.float().mean(dim=1).numpy() - usual) / 255
        return {"squared": np.zeros_like(away), "away": away}

    decision = calibration.calibrate(Maps(blind), part)
    assert decision.reference == "squared.mean" and decision.score.startswith(("away.", "sum."))
    test = calibration.score_table(Maps(blind), decision.scale, part.test)
    bad = calibration.score_table(Maps(blind), decision.scale, part.train_bad)
    own = decision.thresholds[decision.reference]
    assert not own.exceeded(test[decision.reference]).any()  # a blind score calls nothing anomalous
    # The defect is above all three held-out images.
    assert (decision.threshold.p_values(bad[decision.score]) == 1 / 4).all()


def test_a_feature_detectors_own_score_is_distance_top1(part):
    decision = calibration.calibrate(DISTANCE, part)
    assert decision.reference == "distance.top1"
    assert decision.ranking["score"].tolist() == ["distance.top1", "distance.max", "distance.mean"]


def test_a_feature_detectors_score_is_fixed_in_advance(part):
    """Whichever reduction the synthetic anomalies prefer: an autoencoder's choice is a remedy for
    the reference's weak score."""
    def only_the_mean_knows(pictures):
        found = distance(pictures)["distance"].mean(axis=(1, 2), keepdims=True)
        found = found.repeat(8, axis=1).repeat(8, axis=2)
        noise = (pictures.long().sum(dim=(1, 2, 3)) % 97).numpy()
        found[:, 0, 0] += noise  # in two corners, where it leaves the mean as it is
        found[:, -1, -1] -= noise
        return {"distance": found.astype(np.float32)}

    decision = calibration.calibrate(Maps(only_the_mean_knows), part)
    assert decision.reference == decision.score == "distance.top1"
    assert len(decision.ranking) == len(anomaly_maps.REDUCTIONS)
    # A choice would have been another.
    assert calibration.choose(decision.ranking, decision.reference) == "distance.mean"


@pytest.mark.parametrize("detector, reference", [(CONTRAST, "squared.mean"),
                                                 (DISTANCE, "distance.top1")])
def test_nothing_held_out_decides_nothing(root, detector, reference):
    part = opened(root, held_out=0)
    decision = calibration.calibrate(detector, part)
    assert (decision.reference, decision.score, decision.threshold.how) == (reference, reference,
                                                                           "none")
    assert set(decision.good_scores) == {"train"} and part.train.paths == part.category.train
    assert list(decision.ranking.columns) == ["score"]
    assert len(decision.threshold.calibration) == 0 and math.isinf(decision.threshold.value)
    assert not decision.threshold.at(0.5).is_attainable
    assert np.isnan(decision.threshold.p_values(np.ones(3))).all()


def test_no_test_image_is_needed(course_root):
    for path in [*course_root.glob("nut/test/*"), *course_root.glob("nut/train/bad/*")]:
        path.unlink()
    (course_root / "image_anomaly_labels.json").write_text(json.dumps({}))
    decision = calibration.calibrate(CONTRAST, opened(course_root))
    assert set(decision.good_scores) == {"train", "held_out"}


def test_labels_are_not_asked_for(course_root):
    (course_root / "image_anomaly_labels.json").write_text("{ no labels")
    part = opened(course_root)
    decision = calibration.calibrate(CONTRAST, part)
    assert len(calibration.score_table(CONTRAST, decision.scale, part.test)) == 6


def test_a_test_image_that_is_none_is_named(course_root):
    (course_root / "nut" / "test" / "003.png").write_bytes(b"no image")
    part = opened(course_root)
    decision = calibration.calibrate(CONTRAST, part)  # which looks at no test image
    with pytest.raises(InputError, match=r"1 of 6 images cannot be read: .*nut/test/003.png"):
        calibration.score_with_maps(CONTRAST, decision, part.test)


def pictures(n, size=32):
    return torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8,
                         generator=torch.Generator().manual_seed(n))


def test_tables_do_not_depend_on_the_batch(monkeypatch):
    scale = anomaly_maps.scale_of([(contrast(pictures(9)), anomaly_maps.WHOLE)])
    whole = calibration.score_table(CONTRAST, scale, pictures(9))
    monkeypatch.setattr(calibration, "CHUNK", 4)
    pd.testing.assert_frame_equal(calibration.score_table(CONTRAST, scale, pictures(9)), whole,
                                  check_exact=True)


def decided(score, scale):
    return calibration.Decision(pd.DataFrame(), score, score, scale,
                                {score: Threshold(np.zeros(0), 0.05)}, {}, 0.0, 1.0)


@pytest.mark.parametrize("n", [0, 1, 5])
def test_maps_are_of_the_images_size(n, monkeypatch):
    monkeypatch.setattr(calibration, "CHUNK", 2)
    scale = anomaly_maps.scale_of([(contrast(pictures(4)), anomaly_maps.WHOLE)])
    for name in ("squared.max", "absolute.mean", "sum.top1"):
        maps = calibration.score_with_maps(CONTRAST, decided(name, scale), pictures(n))[1]
        assert maps.shape == (n, 32, 32) and maps.dtype == np.float32
        if n:  # at the images' own size already, so that nothing is interpolated
            smoothed = anomaly_maps.smoothed_maps(contrast(pictures(n)), scale)
            assert (maps == smoothed[name.split(".")[0]].astype(np.float32)).all()
    of_distance = calibration.score_with_maps(DISTANCE, decided("distance.top1", {}), pictures(n))
    assert of_distance[1].shape == (n, 32, 32)


def test_a_coarse_map_keeps_its_place():
    def corner(pictures):
        found = np.zeros((len(pictures), 8, 8), np.float32)
        found[:, 1, 6] = 1
        return {"distance": found}

    maps = calibration.score_with_maps(Maps(corner), decided("distance.top1", {}), pictures(2))[1]
    row, column = np.unravel_index(maps[0].argmax(), maps[0].shape)
    assert 4 <= row < 8 and 24 <= column < 28 and (maps[0] == maps[1]).all()


@pytest.mark.parametrize("values", [{"score": 1}, ["high", "low"], None])
def test_a_score_that_gives_no_numbers_is_refused_in_a_sentence(values):
    def own(maps):
        return values

    own.parameters, own.where, own.line = 1, "mine.py:own", " (mine.py, line 3)"
    detector = Maps(distance)
    detector.own_score = own
    with pytest.raises(InputError, match=r"^mine.py:own \(mine.py, line 3\) gave "):
        calibration.score_table(detector, {}, pictures(2))


FITTED = {"model": "pca", "weights": "none", "image_size": 64, "precision": "float32"}


def fitted(root, **changes):
    part = opened(root, **FITTED | changes)
    return fit(part.config, part.train, part.held_out), part


def test_the_threshold_is_of_all_good_images(course_root, monkeypatch):
    """Each good image is scored by a detector that was fitted on the other folds."""
    monkeypatch.setattr(calibration, "FOLDS", 3)
    detector, part = fitted(course_root, target_fpr=0.15)
    threshold = calibration.calibrate(detector, part).threshold
    assert threshold.how == "cross-conformal" and len(threshold.calibration) == 8
    assert threshold.is_attainable and threshold.value == max(threshold.calibration)
    features, expected = detector.features(part.good.tensor), []
    for rest, held in folds(8, 3, 0):
        maps = {"distance": PCAResidual().fit(features[rest])(features[held]).numpy()}
        expected += table_of(maps, {})["distance.top1"].tolist()
    assert threshold.calibration.tolist() == expected


def test_where_few_are_held_out_all_good_images_count_even_if_these_are_enough(course_root):
    detector, part = fitted(course_root, target_fpr=0.4, held_out=0.25)
    threshold = calibration.calibrate(detector, part).threshold
    assert (threshold.how, len(threshold.calibration)) == ("cross-conformal", 8)


@pytest.mark.parametrize("changes", [{"target_fpr": 0.3}, {"target_fpr": 0.15, "held_out": 0},
                                     {"target_fpr": 0.05, "model": "mean_grey"}],
                         ids=["enough, and more than a fold", "nothing held out", "not refitted"])
def test_else_the_threshold_is_of_the_held_out_images(course_root, monkeypatch, changes):
    monkeypatch.setattr(calibration, "FOLDS", 3)
    detector, part = fitted(course_root, **changes)
    threshold = calibration.calibrate(detector, part).threshold
    assert threshold.how == ("split" if part.config.held_out else "none")
    assert len(threshold.calibration) == len(part.held_out)


def test_of_too_many_images_no_detector_is_refitted(course_root, monkeypatch):
    monkeypatch.setattr(calibration, "FOLDS", 3)
    monkeypatch.setattr(fused, "MOST", 7)
    detector, part = fitted(course_root, target_fpr=0.15)
    threshold = calibration.calibrate(detector, part).threshold
    assert threshold.how == "split" and math.isinf(threshold.value)


@pytest.mark.parametrize(("target_fpr", "copies"), [(0.3, 9), (0.05, 1)])
def test_varied_it_is_calibrated_on_disturbed_copies_if_the_images_are_enough(
        course_root, target_fpr, copies):
    part = opened(course_root, vary=True, target_fpr=target_fpr)
    decision = calibration.calibrate(DISTANCE, part)
    given = part.held_out.tensor if copies == 1 else corruptions.every(part.held_out.tensor)
    expected = calibration.score_table(DISTANCE, decision.scale, given)[decision.score]
    threshold = decision.threshold
    unlike = decision.foreign_threshold.exceeded(
        decision.foreign.distances(decision.foreign.features(given)).numpy()) if (
            decision.foreign_threshold) else np.zeros(len(given), bool)
    assert threshold.calibration.tolist() == expected.where(~unlike, expected.max()).tolist()
    assert len(expected) == copies * len(part.held_out) and threshold.how == "split"
    assert math.isinf(threshold.value) == (copies == 1)


def test_varied_it_is_fitted_on_a_copy_of_each_beside_it(course_root, monkeypatch):
    seen = []
    monkeypatch.setattr(fused.FeatureDetector, "fit",
                        lambda self, images, validation, **_: seen.append((images, validation)))
    for vary in (False, True):
        fitted(course_root, vary=vary)
    (plain, held), (more, same) = seen
    assert torch.equal(held, same) and torch.equal(more[:len(plain)], plain)
    assert torch.equal(more[len(plain):], corruptions.varied(plain, seed=CONFIG.seed))
