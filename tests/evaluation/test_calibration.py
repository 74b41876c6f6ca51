import copy
import dataclasses
import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage
from sklearn.metrics import roc_auc_score

from adlib.config import REFERENCE_SCORE, Config, InputError
from adlib.data import corruptions
from adlib.data import part as parts
from adlib.data.synthetic import anomalies
from adlib.evaluation import auroc, calibration, refusal
from adlib.evaluation.conformal import Threshold, folds
from adlib.models import anomaly_maps, fused
from adlib.models.closed_forms import PCAResidual
from adlib.models.detector import fit
from tests.conftest import picture
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


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 8), st.integers(1, 5), st.integers(1, 9), st.integers(0, 99))
def test_label_free_is_the_mean_over_the_kinds(n_good, n_a, n_b, seed):
    rng = np.random.default_rng(seed)
    names = ["squared.mean", "ssim.max"]
    good = pd.DataFrame(rng.integers(0, 5, (n_good, 2)).astype(float), columns=names)
    anomalous = pd.DataFrame(rng.integers(1, 7, (n_a + n_b, 2)).astype(float), columns=names)
    kinds = rng.permutation(["scratch"] * n_a + ["perlin"] * n_b).tolist()
    found = calibration.label_free(good, anomalous, kinds)
    assert found["score"].tolist() == names
    assert set(found.columns) == {"score", "all", "scratch", "perlin"}
    for row in found.to_dict("records"):
        for kind in ("scratch", "perlin"):
            values = anomalous[row["score"]][[k == kind for k in kinds]]
            assert row[kind] == pytest.approx(
                roc_auc_score([0] * n_good + [1] * len(values), [*good[row["score"]], *values]))
        # However many there are of each.
        assert row["all"] == pytest.approx((row["scratch"] + row["perlin"]) / 2)


def scores_of(shifts, n=40, seed=0):
    """Good and anomalous tables of scores that separate them by `shifts` deviations; two kinds,
    the same noise in every column."""
    rng = np.random.default_rng(seed)
    good, bad = rng.normal(size=n), rng.normal(size=n)
    noise = {name: (0.1 * rng.normal(size=n), 0.1 * rng.normal(size=n)) for name in shifts}
    return (pd.DataFrame({name: good + noise[name][0] for name in shifts}),
            pd.DataFrame({name: bad + shift + noise[name][1] for name, shift in shifts.items()}),
            ["a", "b"] * (n // 2))


def chosen(shifts, n=40, seed=0, reference="own"):
    return calibration.choose(calibration.label_free(*scores_of(shifts, n, seed)), reference)


def test_the_best_score_is_chosen():
    assert chosen({"own": 0.3, "poor": 0.0, "better": 2.0}) == "better"
    assert chosen({"better": 2.0, "own": 0.3}) == "better"
    assert chosen({"own": 2.0, "poor": 0.3}) == "own"


def test_the_reference_score_stays_where_none_is_better():
    good, anomalous, kinds = scores_of({"own": 1.0})
    good["same"], anomalous["same"] = good["own"], anomalous["own"]
    for order in (["own", "same"], ["same", "own"]):  # a tie, whichever comes first
        ranking = calibration.label_free(good[order], anomalous[order], kinds)
        assert calibration.choose(ranking, "own") == "own"


def test_a_choice_is_sure_where_the_exam_tells_it_apart_from_every_other():
    shifts = {"better": 2.0, "as good": 1.97, "poor": 0.2}
    good, bad, _ = scores_of(shifts)
    both, labels = pd.concat([good, bad]), np.repeat([0, 1], len(good))
    scores = {name: both[name].to_numpy() for name in both}
    assert auroc.undecided("better", labels, scores) == ["as good"]
    assert auroc.undecided("better", labels, {name: scores[name] for name in (
        "better", "poor")}) == []
    one = {name: each[len(good) - 1:] for name, each in scores.items()}  # a single good image
    assert auroc.undecided("better", labels[len(good) - 1:], one) == ["as good", "poor"]


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


def test_what_tells_foreign_images_is_not_blinded_by_one_among_the_good():
    """A black image in the good folder is set aside, and black ones stay foreign."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:64, :64]
    good = torch.from_numpy(np.stack([np.clip(
        40 + 150 * (np.hypot(y - 32 - dy, x - 32 - dx) < 18) + rng.normal(0, 6, (3, 64, 64)), 0,
        255).astype(np.uint8) for dy, dx in rng.integers(-3, 4, (40, 2))]))
    model = calibration.Foreign(Config(weights="none", image_size=64))
    clean = refusal.fit_foreign(model, good, seed=0).calibration.clone()
    assert model.set_aside <= 1
    black = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    refusal.fit_foreign(model, torch.cat([good, black]), seed=0)
    assert model.set_aside >= 1 and model.calibration.max() < 1.5 * clean.max()
    threshold = calibration.TailThreshold(model.calibration.numpy(), refusal.FOREIGN_FPR)
    assert threshold.exceeded(model.distances(model.features(black)).numpy()).all()


class Known:
    """What Foreign has found out, without one."""

    def __init__(self, calibration, of=None):
        self.calibration = self.own = torch.tensor(calibration)
        self.of = torch.arange(len(calibration)) if of is None else of


def test_an_image_that_the_others_call_foreign_uses_up_the_budget():
    near = np.linspace(1, 2, 59).tolist()
    model, distances = Known([*near, 30.0]), np.array([*near, 30.0, 100.0])  # the last: set aside
    scores = np.arange(61.0)[::-1].copy()
    budget = refusal.one_budget(model, distances, scores, 0.05)
    assert budget.tolist() == [*scores[:59], 60.0]
    assert np.flatnonzero(refusal.counted_first(model, distances)).tolist() == [59]
    assert np.flatnonzero(refusal.counted_first(model, distances, new=True)).tolist() == [60]
    assert not refusal.counted_first(Known(near), np.array(near)).any()
    assert not refusal.counted_first(None, np.array(near)).any()
    asked = int(0.05 * 61)  # of sixty and a new one, less the new one itself
    refused = Threshold(budget, 0.05).exceeded(scores[:60]) | (distances[:60] == 30)
    assert refused.sum() == asked - 1
    alone = Threshold(scores[:60], 0.05).exceeded(scores[:60]) | (distances[:60] == 30)
    assert alone.sum() == asked  # without the budget one more


def test_no_copy_of_it_vouches_for_an_image_that_the_others_call_foreign():
    near = np.linspace(1, 2, 29).tolist()
    model = Known([*near, 30.0, *near, 29.0], torch.arange(30).repeat(2))
    held = np.array([1.5, 30.0, 2.0])  # without their copies
    assert refusal.counted_first(model, held).tolist() == [False, True, False]
    assert refusal.one_budget(model, held, np.arange(3.0), 0.05).tolist() == [0, 2, 2]
    # The copy alone is beyond: its image counts as any other.
    model = Known([*near, 2.0, *near, 30.0], torch.arange(30).repeat(2))
    assert not refusal.counted_first(model, np.array([1.5, 2.0])).any()


def test_varied_and_too_few_a_picture_of_something_else_counts_first(course_root):
    """As without copies: what it says of the good pictures does not hang on being attainable."""
    stripes = np.zeros((32, 32, 3), np.uint8)
    stripes[::2] = 255
    for i in range(8, 20):
        picture(course_root / "nut" / "train" / "good" / f"{i:03d}.png", i)
    good = sorted((course_root / "nut" / "train" / "good").glob("*.png"))
    part = opened(course_root, vary=True, target_fpr=0.05, held_out=0.4)
    place = good[int(part.held_out_index[0])]
    Image.fromarray(stripes).save(place)
    part = opened(course_root, vary=True, target_fpr=0.05, held_out=0.4)
    known, of = refusal.known_good(part)
    model = calibration.Foreign(part.config)
    model.fit(model.features(known), of)  # none set aside, as a milder one would not be
    distances = model.distances(model.features(part.held_out.tensor)).numpy()
    assert refusal.counted_first(model, distances).tolist() == [True] + [False] * (
        len(distances) - 1)


def test_where_too_few_would_be_left_none_is_left_out():
    near = np.linspace(1, 2, 18).tolist()
    scores = np.arange(19.0)
    budget = refusal.one_budget(Known(near), np.array([*near, 100.0]), scores, 0.05)
    assert budget.tolist() == scores.tolist() and Threshold(budget, 0.05).is_attainable
    few = refusal.one_budget(Known(near[:9]), np.array([*near, 100.0]), scores, 0.05)
    assert few.tolist() == scores.tolist()  # nine say nothing
    told = refusal.one_budget(Known(near), np.array([*near, 100.0]), scores[::-1].copy(), 0.05,
                                  new=True)
    assert told.tolist() == [*scores[:0:-1], 18.0]  # of new ones, a foreign one has no better rank
    assert refusal.one_budget(None, np.zeros(19), scores, 0.05) is scores


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


def test_varied_no_copy_vouches_for_its_picture_when_foreign_ones_are_told(course_root):
    """With it in, new pictures that are so disturbed were called foreign, half of the noisy."""
    part = opened(course_root, vary=True, target_fpr=0.3)
    model = calibration.calibrate(DISTANCE, part).foreign
    known, of = refusal.known_good(part)
    assert of.tolist() == [*range(len(part.good))] * 2
    alone = refusal.fit_foreign(copy.deepcopy(model), known, seed=CONFIG.seed)
    assert model.calibration.median() > alone.calibration.median()


def test_varied_it_is_fitted_on_a_copy_of_each_beside_it(course_root, monkeypatch):
    seen = []
    monkeypatch.setattr(fused.FeatureDetector, "fit",
                        lambda self, images, validation, **_: seen.append((images, validation)))
    for vary in (False, True):
        fitted(course_root, vary=vary)
    (plain, held), (more, same) = seen
    assert torch.equal(held, same) and torch.equal(more[:len(plain)], plain)
    assert torch.equal(more[len(plain):], corruptions.varied(plain, seed=CONFIG.seed))
