"""The comparison in Chinese: nothing that it says of runs, in a sentence or in a table, is left in
English."""
import html
import re

import numpy as np
import pandas as pd
import pytest
from tests.handmade import DISTANCE, OTHER, OWN, category, failed, finished, ranks

from adlib.config import KINDS
from adlib.data import corruptions, files
from adlib.evaluation import evaluate
from adlib.report import (answers, compare_limits, comparison, data_sentences, i18n, questions,
                          summary, tables)

NUT = category()
CHINESE = re.compile(r"[\u4e00-\u9fff（：。]")
ENGLISH = re.compile(r"[A-Za-z]{2,}(?:[ ,;:]+[A-Za-z]{2,}){2,}")  # three words or more in a row
NAMES = {
    "nut", "crack", "cpu", "gpu", "CAE + MSE", "CAE + SSIM", "ResNet18 + SSIM", "AU-PRO .30",
    "AU-PRO .05", "JPEG"
}


def whole(text):
    """Whether a text can be read as Chinese; commands in backticks aside."""
    chinese = re.sub("`[^`]*`", "", i18n.chinese(text))
    return bool(CHINESE.search(chinese)) and not ENGLISH.search(chinese) and not re.search(
        r"[A-Za-z][.;] *$", chinese)


def cells(page):
    """What a reader of Chinese sees of an HTML table, cell by cell."""
    for _, cell in re.findall(r"<(caption|th|td)\b[^>]*>(.*?)</\1>", page, re.S):
        shown = re.search(r'<span lang="zh-CN" hidden>(.*?)</span>', cell)
        yield html.unescape(re.sub("<[^>]*>", "", shown[1] if shown else cell))


def unread(page):
    """The cells that are neither Chinese nor a name, a score or a number."""
    known = re.compile(r"((squared|ssim|distance)\.\w+(, )?)+( [\d.]+)?|[\d.]+ (s|min)")
    return [
        cell for cell in cells(page) if not whole(cell) and cell.removeprefix("nut: ") not in NAMES
        and re.search("[A-Za-z]{2}", cell) and not known.fullmatch(cell)
    ]


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """A study in which everything was asked: autoencoders, detectors, statistics, an ablation,
    limits; with a run that failed."""
    reports = tmp_path_factory.mktemp("reports")
    group = {"images": 4} | dict.fromkeys(questions.PIXEL, 0.7)
    groups = ("crack", "defects up to 0.73% of the image", "defects above 0.73% of the image")
    where = dict.fromkeys(questions.PIXEL,
                          0.7) | {"groups": [group | {"group": name} for name in groups]}
    names = [name for name in comparison.LABELS if name not in comparison.REFERENCE_ROWS]
    for i, name in enumerate(names):
        folder = finished(reports, name, {DISTANCE: ranks(NUT, 1 + i / 9, i)}, localisation=where,
                          label_free=0.9 - i / 99)
        files.write_json(folder / "metrics.json",
                         files.read_json(folder / "metrics.json") | {"position_share": 0.4})
    for name in ("cae_mse", "resnet_ssim"):
        for seed in (0, 1):
            folder = finished(reports, name,
                              {OWN: ranks(NUT, 0.3, seed), OTHER: ranks(NUT, 1.5, seed)},
                              chosen=OTHER, seed=seed)
            scores = [(OWN, 0.5, 0.6, "its own"), (OTHER, 0.9, 0.8, "chosen without labels"),
                      *((f"ssim.{kind}", 0.6, 0.5 + seed / 9, "")
                        for kind in ("mean", "top1", "other"))]
            evaluate.write_csv(
                pd.DataFrame(scores, columns=["score", "label_free", "test", "role"]),
                folder / "score_study.csv")
            evaluate.write_csv(pd.DataFrame({"epoch": [1, 10], "auroc": [0.5, 0.7]}),
                               folder / "epochs.csv")
    for path in (reports / "runs").glob("*/*/*/run.json"):
        about = files.read_json(path)
        weights = "RANDOM, not ImageNet's (offline)" if "resnet" in str(
            path) else "file a.pth sha256:0"
        source = {"synthetic": True, "source": "parameter"}
        files.write_json(path, about | {"weights": weights, "data": about["data"] | source})
    failed(reports, "cae_ssim", "boom")
    failed(reports, "cae_mse", "boom", seed=2)
    rows = [("none", 0, "as they are", 0.9, 0.0, 1.0),
            *((name, strength, data_sentences.corruption(name, strength), 0.8, np.nan, 1.0)
              for name in corruptions.CORRUPTIONS for strength in corruptions.STRENGTHS)]
    limits = pd.DataFrame(
        rows, columns=["disturbance", "strength", "what", "auroc", "false_positives", "detections"])
    sizes = pd.DataFrame([{
        "defect": "crack", "area50": 0.001, "area95": np.nan, "smallest": 0.001, "largest": 0.02,
        "faintest": 0.1, "found_at_real_size": 0.875, "contrast95": 0.1
    }])
    for name, table in (("robustness.csv", limits), ("smallest.csv", sizes)):
        evaluate.write_csv(table, reports / "limits" / "nut" / "memory" / name)
    return reports


@pytest.fixture(scope="module")
def sentences(reports):
    table = comparison.performance(reports)
    main = comparison.without_ablations(table)
    rows, pairs = summary.rows(main, reports), summary.matrix(main, reports, "nut")
    scores, limits = questions.scores(table, reports), compare_limits.robustness(reports)
    apart = rows.assign(with_best=rows["with_best"].where(rows["name"] != "pca"),
                        verdict=["missed", "reached"] + [""] * (len(rows) - 2))
    results, epochs = comparison.results_of(table, reports), comparison.results_of(
        table, reports, "epochs.csv")
    return [
        answers.full(rows),
        answers.full(apart),
        answers.full(rows.assign(with_best=rows.index == rows["auroc"].idxmax())),
        answers.full(rows[rows["name"].isin(["memory", "pca"])]),
        summary.bootstrap_sentence(main, reports),
        summary.bootstrap_sentence(main[:0], reports),
        comparison.provenance(table),
        comparison.bars_sentence(rows),
        comparison.bars_sentence(rows.assign(claim_low=0.7)),
        comparison.matrix_sentence(pairs, "nut"),
        comparison.roc_sentence(table),
        comparison.distributions_sentence(results),
        comparison.distributions_sentence({}),
        comparison.epochs_sentence(epochs),
        comparison.epochs_sentence({}),
        questions.scores_sentence(scores),
        questions.scores_sentence(scores[:0]),
        questions.target_sentence(main, rows, reports),
        questions.target_sentence(main, rows[:0], reports),
        questions.place_sentence(questions.place(table, reports)),
        questions.place_sentence(pd.DataFrame()),
        questions.parts_sentence(questions.parts(table, reports)),
        questions.parts_sentence(pd.DataFrame()),
        compare_limits.robustness_sentence(limits),
        compare_limits.robustness_sentence({}),
        compare_limits.robustness_caption(), tables.CAPTION,
        tables.notes(), tables.SCORES, tables.PARTS, tables.PLACES, tables.SMALLEST, tables.EPOCHS
    ]


def test_every_sentence_is_chinese_to_its_end(sentences):
    assert [i18n.chinese(text) for text in sentences if not whole(text)] == []
    # nor is there Chinese in the English
    assert [text for text in sentences if re.search("[，。；：（） ]$", text)] == []
    assert [text for text in sentences if CHINESE.search(text)] == []


def test_every_cell_is_chinese_a_name_or_a_number(reports):
    table = comparison.performance(reports)
    main = comparison.without_ablations(table)
    rows, scores = summary.rows(main, reports), questions.scores(table, reports)
    every_column = rows.assign(device=["cpu", *["gpu"] * (len(rows) - 1)], verdict="missed",
                               claim_low=0.7, claim_high=0.8, published=0.8, bad_auroc=0.7,
                               bad_spread=0.1, bad_low=0.6, bad_high=0.8)
    assert unread(tables.as_html(every_column)) == []
    for found, caption in ((questions.choices(scores), "What the label-free choice is worth"),
                           (questions.scores_table(scores), tables.SCORES),
                           (questions.target(rows), "The controlled experiment"), (questions.place(
                               table,
                               reports), "A Gaussian per position, or one for all positions"),
                           (questions.parts(table, reports), tables.PARTS), (questions.localisation(
                               main,
                               reports), tables.PLACES), (compare_limits.robustness_table(
                                   compare_limits.robustness(reports)),
                                                          compare_limits.robustness_caption()),
                           (compare_limits.smallest(reports), tables.SMALLEST), (questions.epochs(
                               table, reports), tables.EPOCHS)):
        assert len(found) and unread(tables.html_of(found, caption)) == [], caption
        assert not CHINESE.search(tables.text_of(found)), "markdown stays English"


@pytest.mark.parametrize("word", [
    "missing", "running", "finished", "failed", "interrupted", "reached", "exceeded",
    *corruptions.CORRUPTIONS, *KINDS, *questions.FOLLOWS
])
def test_words_that_come_out_of_files_are_known(word):
    assert i18n.chinese(word) != word
