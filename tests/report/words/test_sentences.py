"""The sentences of the run notebooks: the numbers that matter are in them, and where a number is
missing they say why."""
import dataclasses
import math
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adlib.config import Config
from adlib.data import layout
from adlib.data.part import open_part
from adlib.evaluation import conformal
from adlib.evaluation import results as evaluation
from adlib.evaluation.auroc import auroc
from adlib.report.words import i18n, sentences
from adlib.report.words.i18n import t
from tests.handmade import OTHER, OWN, category, ranks, results, scored

NUT, CONFIG, NOTHING = category(), Config(category="nut", name="own"), np.zeros(0)
UNLABELLED = layout.Category(NUT.root, "nut", "plain", False, NUT.train, NUT.test, ())
ABSENT = {
    "all labels": UNLABELLED, "good test images": category(good=0),
    "anomalous ones": category(bad=0), "test images": category(good=0, bad=0)
}


def drawn(where):
    return {OWN: ranks(where, 1.0), OTHER: ranks(where, 2.0), "ssim.mean": ranks(where, 1.5)}


def everything_said(where, **options):
    """What a run notebook says, by function."""
    run, n = scored(where, drawn(where), **options), len(where.test)
    table, auroc = run.table, evaluation.auroc_of(run.table, "chosen_score")
    looks = evaluation.confounder_correlation(table, {"brightness": np.arange(n)})
    epochs = {1: ranks(where, 0.1), 5: ranks(where, 1.0)}
    curve = evaluation.auroc_over_epochs(table, epochs).dropna()
    return {
        "decisions": sentences.decisions(run.decision),
        "scores": sentences.scores(evaluation.score_study(table, run.decision, run.by_split)),
        "operating": sentences.operating(evaluation.operating_of(table, "chosen_")),
        "roc": sentences.roc(auroc, run.decision.score), "misses": sentences.misses(table),
        "confounders": sentences.confounders(looks, 20),
        "epochs": sentences.epochs(curve) if len(curve) else t("run.no_masks"),
        "localization": sentences.localization(evaluation.locate(
            run.part, np.zeros((n, 4, 4)))[0]),
        "answer": sentences.answer(CONFIG, where.name, auroc, "none")}


def told(text):
    """A sentence, and no number that is none."""
    return text.endswith(".") and not re.search(r"\bnan\b|\bNone\b|  ", text)


@pytest.mark.parametrize(
    "options", [{}, {"chosen": OTHER}, {"held": NOTHING}, {"held": np.linspace(0, 1, 5)}], ids=str)
def test_a_labelled_run_is_told_in_sentences(options):
    assert not {
        name: text
        for name, text in everything_said(NUT, **options).items() if not told(text)
    }


@pytest.mark.parametrize("held", [NOTHING, np.linspace(0, 1, 19)],
                         ids=["none held out", "held out"])
@pytest.mark.parametrize("absent", ABSENT)
def test_what_is_absent_is_no_error_and_no_nan(absent, held):
    said = everything_said(ABSENT[absent], held=held)
    del said["scores"]  # see below
    assert not {name: text for name, text in said.items() if not told(text)}


@pytest.mark.parametrize("absent", ABSENT)
def test_scores_without_an_auroc_are_told_without_nan(absent):
    assert "nan" not in everything_said(ABSENT[absent])["scores"]


def test_scores_that_are_all_perfect_have_no_rank_correlation():
    perfect = pd.DataFrame({
        "score": ["a", "b", "c"], "label_free": [0.9, 0.8, 0.7], "test": 1.0,
        "role": ["own", "", ""]
    })
    assert sentences.scores(perfect) == (
        "3 scores, the one in use in bold; on the test split: a 1.000.")


@pytest.mark.parametrize("name", ["roc", "answer"])
@pytest.mark.parametrize(("absent", "why"), [
    ("all labels", "no label"), ("good test images", "the test set has no good image"),
    ("anomalous ones", "the test set has no anomalous image")])
def test_why_there_is_no_auroc(name, absent, why):
    text = everything_said(ABSENT[absent])[name]
    assert why in text and not re.search(r"0\.\d\d\d", text)


def test_the_score_that_was_chosen_and_what_decided_it():
    text = sentences.decisions(scored(NUT, drawn(NUT), chosen=OTHER).decision)
    assert ("Of 3 scores, the maximum of the 1 - SSIM map is chosen without labels: it "
            "distinguishes") in text and "AUROC of 0.800 (spot 0.800)" in text
    assert "rests on 19 good images (split)" in text and "fewer than 5% of good ones" in text
    half = conformal.Threshold(np.arange(300.0), 0.005)
    assert "fewer than 0.5% of good ones" in sentences.threshold_rests_on(half, 300)
    few = conformal.Threshold(np.arange(5.0), 0.05)  # of 50 more can be held out, of 12 not enough
    assert "there are 5: no part is called anomalous. Hold" in sentences.threshold_rests_on(few, 50)
    assert sentences.threshold_rests_on(few, 12).endswith("takes 19 good pictures, 7 more.")
    assert "unsure" not in text  # the exam itself is not kept


def test_a_choice_among_scores_that_look_alike_is_called_unsure():
    alike = scored(NUT, drawn(NUT), chosen=OTHER, synthetic=np.linspace(0.5, 2, 80)).decision
    text = sentences.decisions(alike)
    assert "The choice is unsure: 2 of the 2 others are not distinguishable" in text
    assert text.zh != text


@pytest.mark.parametrize("n", [0, 5, 18])
def test_too_few_held_out_images_are_said_to_be_too_few(n):
    text = sentences.decisions(
        scored(NUT, drawn(NUT), held=np.linspace(0, 1, n)).decision)
    assert f"at least 19 good images that set the threshold, and there are {n}:" in text
    assert "threshold rests" not in text
    assert ("is chosen" in text) == (n > 0)  # without held-out images there is nothing to choose by


def test_what_the_label_free_order_was_worth():
    table = pd.DataFrame({
        "score": ["a.own", "b.own", "c.own"], "label_free": [0.9, 0.8, 0.7],
        "test": [0.6, 0.5, 0.95], "role": ["chosen", "own", ""]
    })
    text = sentences.scores(table)
    assert "3 scores" in text and "a.own 0.600, b.own 0.500." in text
    assert "rank correlation of -0.50" in text and "would have taken c.own (0.950)" in text
    best = sentences.scores(table.assign(role=["", "", "own+chosen"]))
    assert "would have taken" not in best and "no score is better" in best
    # none held out; and two scores have no order to speak of
    for change in ({"label_free": math.nan}, {"score": table["score"]}):
        assert "correlation" not in sentences.scores(
            table.assign(**change).head(3 if "label_free" in change else 2))


def test_false_alarms_and_detections_with_counts_interval_and_oracle():
    scores = np.r_[np.arange(20) < 3, np.arange(15) < 12] * 2.0  # held-out images reach 1
    table = results(NUT, {OWN: scores})
    text = sentences.operating(evaluation.operating_of(table))
    low, high = conformal.rate_interval(3, 20)
    assert text.startswith("With the label-free threshold, 3 of 20 good test images are called anomalous "
                           f"(15%, 95% interval {low:.0%} to {high:.0%})")
    assert "12 of 15 anomalous ones are found (80%" in text and "best F1 would have 15% false positives and 80% detections." in text


@pytest.mark.parametrize(
    ("absent", "said", "unsaid"),
    [("good test images", "of 15 anomalous ones", "good test images are called"),
     ("anomalous ones", "of 20 good test images", "anomalous ones are found")])
def test_of_one_class_only_its_own_rate_is_told(absent, said, unsaid):
    text = everything_said(ABSENT[absent])["operating"]
    assert said in text and unsaid not in text and "oracle" not in text


def test_without_held_out_images_there_is_no_threshold_to_tell_of():
    assert everything_said(
        NUT,
        held=NOTHING)["operating"].startswith("There is no label-free threshold, because no good")


def test_without_labels_the_held_out_images_are_not_to_blame():
    assert "no good image was held out" not in everything_said(UNLABELLED)["operating"]


def test_both_splits_are_told_and_only_where_they_are():
    where = category(train_bad=6)
    found = evaluation.auroc_of(results(where, drawn(where)))
    text = sentences.roc(found, OWN)
    for split in ("test", "train_bad"):
        entry = found[split]
        assert (f"{entry['value']:.3f} (95% interval {entry['low']:.3f} to "
                f"{entry['high']:.3f}; 20 good, {entry['n_anomalous']} ano") in text
    assert text.startswith("ROC curve of the mean squared error on the test images: AUROC ")
    assert "train/bad" not in sentences.roc(evaluation.auroc_of(results(NUT, drawn(NUT))), OWN)


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.booleans())
def test_the_answer_claims_no_more_than_the_interval_allows(a, b, c, random):
    low, value, high = sorted((a, b, c))
    entry = {
        "test": {
            "value": value, "low": low, "high": high, "n_good": 20, "n_anomalous": 15,
            "why_absent": None
        }
    }
    text = sentences.answer(CONFIG, "nut", entry, "random:damaged" if random else "none")
    assert "On nut, own " in text and f"AUROC {value:.3f} (" in text
    assert ("better than guessing" in text) == (low > 0.5) and ("is not distinguishable from guessing"
                                                                in text) == (low <= 0.5 <= high)
    assert ("ranks good parts above bad ones" in text) == (high < 0.5) and ("RANDOM"
                                                                            in text) == random


def metrics(scores, **options):
    """metrics.json of a run of these scores, and the run."""
    run = scored(options.pop("where", NUT), scores, **options)
    return evaluation.measured(run.table, run.decision, None, {}), run


@pytest.mark.parametrize(("bad", "good", "said"), [
    (12, 0, "finds 12 of 15, no false alarm"), (15, 1, "finds 15 of 15, one false alarm in 20"),
    (0, 3, "finds 0 of 15, 3 false alarms in 20")])
def test_the_title_is_the_result(bad, good, said):
    scores = np.r_[np.arange(20) < good, np.arange(15) < bad] * 2.0  # held-out images reach 1
    found, _ = metrics({OWN: scores})
    assert sentences.result("nut", "Own", found, 0.05) == f"Own on nut: {said}"


def test_the_title_is_of_the_score_in_use():
    tests = {OWN: np.zeros(35), OTHER: np.r_[np.zeros(20), np.full(15, 2.0)]}
    for chosen, n in ((OWN, 0), (OTHER, 15)):
        found, _ = metrics(tests, chosen=chosen)
        assert f"finds {n} of 15" in sentences.result("nut", "Own", found, 0.05)


def test_a_title_claims_nothing_that_was_not_counted():
    scores = {OWN: ranks(NUT, 1.0)}
    few, _ = metrics(scores, held=np.linspace(0, 1, 5))  # they support no 5 %
    assert re.fullmatch(r"Own on nut: AUROC 0\.\d{3}, and no threshold",
                        sentences.result("nut", "Own", few, 0.05))
    for where, said in ((UNLABELLED, "no labels to judge it by"),
                        (category(bad=0), "20 of 20 good images raise an alarm"),
                        (category(good=0), "finds 15 of 15")):
        found, _ = metrics({OWN: np.full(len(where.test), 5.0)}, where=where)
        assert sentences.result("nut", "Own", found, 0.05) == f"Own on nut: {said}"


def test_what_is_missed_by_kind_and_what_the_reference_says_of_it():
    defects = ["cut"] * 10 + ["hole"] * 5
    tests = {OWN: np.r_[np.zeros(20), 2.0, 2.0, np.zeros(13)],
             OTHER: np.r_[np.zeros(20), np.zeros(6), np.full(9, 2.0)]}
    _, run = metrics(tests, chosen=OTHER)
    table = run.table
    table.loc[table["label"].eq(1).fillna(False) & (table["split"] == "test"), "defect"] = defects
    assert sentences.misses(table) == (
        "Missed: 6 of 15 anomalous test images. 6 of the 6 are of the kind cut (10 in all). "
        "Never missed: hole. At its own threshold the mean squared error would find 2 of these 6.")
    found, kinds = table["chosen_prediction"] == 1, table["defect"].copy()
    missed = table.index[(table["split"] == "test") & (table["label"] == 1) & ~found]
    kinds[missed] = ["cut", "hole"] * 3  # three of either: no kind is most of them
    assert "are of the kind" not in sentences.misses(table.assign(defect=kinds))
    _, run = metrics({OWN: tests[OTHER] + 2})
    assert sentences.misses(run.table) == (
        "Nothing is missed: all 15 anomalous test images are found.")
    assert "cannot be counted" in sentences.misses(run.table[run.table["label"] != 1])


@pytest.mark.parametrize(("code", "said", "other"), [
    ("squared.mean", "mean squared error", "均方误差"),
    ("squared.max", "maximum of the squared error", "平方误差的最大值"),
    ("distance.top1", "top 1% of the distance to good images", "与正常图像的距离最高 1% 的均值"),
    ("sharpness.mean", "mean of the sharpness", "sharpness 的均值"),
    ("mine.py:score", "mine.py:score", "mine.py:score")])
def test_a_score_is_called_in_words(code, said, other):
    assert sentences.score(code) == said
    assert i18n.chinese(sentences.score(code)).replace(" 的均值", "的均值") == other.replace(
        " 的均值", "的均值")


@pytest.mark.parametrize("held_out", [0.4, math.nan])
def test_the_loss_from_first_to_last(held_out):
    history = [{
        "loss": loss, "held_out_loss": held_out / 2 if loss < 0.5 else held_out, "lr": 1e-3
    } for loss in (0.9, 0.5, 0.125)]
    text = sentences.loss(history)
    assert "Over 3 epochs the training loss went from 0.9000 to 0.1250" in text and text.endswith(
        "began at a learning rate of 1.0e-03.")
    assert ("from 0.4000 to 0.2000" in text) == (held_out == held_out) and told(text)


def test_auroc_over_epochs_first_last_and_highest():
    text = sentences.epochs(pd.DataFrame({"epoch": [1, 2, 5], "auroc": [0.6, 0.9, 0.7]}))
    assert "0.600 after epoch 1 and 0.700 after epoch 5" in text and "is 0.900, after epoch 2" in text


def test_good_pictures_that_the_others_call_foreign_are_counted_beside_what_the_rate_allows():
    decision = scored(NUT, drawn(NUT)).decision
    usual = dataclasses.replace(decision.threshold, calibration=np.linspace(0, 1, 39))
    decision = dataclasses.replace(decision, thresholds={decision.score: usual})
    said, threshold = sentences.decisions(decision), dataclasses.replace(usual, foreign=1)
    first = dataclasses.replace(decision, thresholds={decision.score: threshold})
    added = sentences.decisions(first).removeprefix(said)
    assert "1 of these 39 good pictures" in added and "among these (1 of 1)" in added
    assert "`adlib check` lists suspects" in added and told(sentences.decisions(first))
    assert "`exclude`" in sentences.decisions(first).zh
    few, = sentences.foreign_first(dataclasses.replace(threshold, calibration=np.zeros(25)))
    assert "1 of these 25" in few and "allows no refusal" in few and "0 of 0" not in few
    assert sentences.foreign_first(decision.threshold) == []
    assert sentences.foreign_first(dataclasses.replace(threshold, calibration=np.zeros(3))) == []


def test_confounders():
    confounders = {"brightness": -0.254, "size": None, "pose": 0.0}
    text = sentences.confounders(confounders, 100)
    assert "the 100 good test images look like: brightness -0.25, size none, pose +0.00" in text
    assert "chance alone gives up to 0.20 either way" in text  # tanh(1.96 / sqrt(97))


FOUND = {
    "images": 12, "pixel_auroc": 0.91, "pixel_ap": 0.42, "au_pro_30": 0.83, "au_pro_05": 0.54,
    "without_mask": 0, "groups": []
}


def test_localisation_with_all_its_figures():
    text = sentences.localization(FOUND)
    assert all(part in text for part in ("12 test images", "0.910", "0.420", "0.830",
                                         "0.540")) and "left out" not in text
    assert "Masks: 3 anomalous images have no mask and are left out" in sentences.localization(
        FOUND | {"without_mask": 3})
    text = sentences.localization(FOUND | {"masks": {"empty": 1, "kept": 4, "contradicted": 2}})
    assert all(part in text for part in (
        "Masks: 1 anomalous images have a mask that marks nothing", "count as one cell each: 4",
        "; 2 good images have a mask that marks a defect"))


def test_missing_and_empty_masks_are_distinguished():
    assert "no masks" in sentences.localization(None)
    assert sentences.localization({"why_absent": "one_class"}).endswith(
        "cannot be judged: the masks mark no pixel, or every one.")


def test_masks_on_disk_reach_the_sentence(mvtec_root):
    def said():
        part = open_part(Config(category="nut", data_root=str(mvtec_root), image_size=32))
        return sentences.localization(evaluation.locate(
            part, np.random.default_rng(0).random((6, 32, 32)))[0])

    assert "Over all pixels of 6 test images" in said() and "left out" not in said()
    (mvtec_root / "nut" / "ground_truth" / "spot" / "000.png").unlink()
    assert "of 5 test images" in said() and "1 anomalous images have no mask" in said()
    for path in mvtec_root.glob("nut/ground_truth/spot/*"):
        path.unlink()
    assert "no masks" in said()


def test_the_auroc_that_is_told_is_that_of_the_score_in_use():
    value = auroc(np.r_[np.zeros(20, int), np.ones(15, int)], drawn(NUT)[OTHER])
    said = everything_said(NUT, chosen=OTHER)
    assert all(f"{value:.3f}" in said[name] for name in ("roc", "answer", "scores"))


CASES = [(NUT, {}), (NUT, {"chosen": OTHER}), (NUT, {"held": NOTHING}),
         (NUT, {"held": np.linspace(0, 1, 5)}), (category(train_bad=6), {}),
         *((where, {}) for where in ABSENT.values())]


@pytest.mark.parametrize(("where", "options"), CASES)
def test_no_sentence_has_lost_its_chinese(where, options):
    found = scored(where, drawn(where), chosen=OTHER)
    threshold = dataclasses.replace(found.decision.threshold, how="cross-conformal")
    crossed = dataclasses.replace(found.decision, thresholds={OTHER: threshold})
    auroc = evaluation.auroc_of(results(NUT, drawn(NUT)))
    said = everything_said(where, **options) | {
        "result": sentences.result("nut", "own", metrics(drawn(where), where=where)[0], 0.05)
        + i18n.Text(".", "。"),
        "cross": sentences.decisions(crossed),
        "confounders": sentences.confounders({"brightness": -0.25, "size": None, "pose": 0.0}, 40),
        "found": sentences.localization(FOUND | {"without_mask": 3}),
        "masks": sentences.localization(FOUND | {"masks": dict.fromkeys(
            ("empty", "most", "levels", "exif", "turned", "kept", "contradicted"), 3)}),
        "loss": sentences.loss([{"loss": 0.5, "held_out_loss": 0.4, "lr": 1e-3}]),
        "random": sentences.answer(CONFIG, "nut", auroc, "random:no_connection")}
    for name, text in said.items():
        assert text.zh.endswith("。") and not re.search(r"([A-Za-z']+[ ,]+){2}[A-Za-z']+",
                                                       text.zh), f"{name}: {text.zh}"
        assert sorted(re.findall(r"\d\.\d+", text)) == sorted(re.findall(
            r"\d\.\d+", text.zh)), f"{name}: other numbers: {text.zh}"


def test_where_weights_came_from():
    random = "RANDOM, not ImageNet's"
    for code, long, short in (
            ("none", "none (trained from scratch)", ""),
            ("random", random, random),
            ("random:no_connection", f"{random} (no connection)", random),
            ("random:unasked", f"{random} (the run has none)", random),
            ("file:a:b.pth:01", "file a:b.pth sha256:01", "file a:b.pth"),
            ("imagenet:IMAGENET1K_V1", "torchvision IMAGENET1K_V1", "torchvision IMAGENET1K_V1")):
        assert (sentences.weights(code), sentences.weights(code, short=True)) == (long, short)
    for code, why in (("random:no_connection", "无网络连接"), ("random:offline", "offline")):
        assert i18n.chinese(sentences.weights(code)).endswith(f"（{why}）")


# ---- limits


def test_a_reopened_run_without_a_threshold_does_not_name_infinity():
    said = sentences.reopened(Config(name="pca"), "distance.top1", float("inf"))
    assert "no threshold" in said and "inf" not in said and "3.5" in sentences.reopened(
        Config(name="pca"), "distance.top1", 3.5)
