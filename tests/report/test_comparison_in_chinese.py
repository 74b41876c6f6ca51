"""The comparison in Chinese: nothing that it says of runs, in a sentence or in a table, is left in
English."""
import dataclasses
import html
import math
import re

import numpy as np
import pandas as pd
import pytest

from adlib.data import corruptions, files
from adlib.evaluation import ranks as ranks_over
from adlib.evaluation.results import write_csv
from adlib.report import comparison, ranking
from adlib.report.display import matrix, tables
from adlib.report.study import SECTIONS, Study
from adlib.report.words import answers, i18n
from adlib.report.words.i18n import t
from tests.handmade import DISTANCE, OTHER, OWN, category, failed, finished, ranks

NUT = category()
CHINESE = re.compile(r"[\u4e00-\u9fff（：。]")
ENGLISH = re.compile(r"[A-Za-z]{2,}(?:[ ,;:]+[A-Za-z]{2,}){2,}")  # three words or more in a row
NAMES = {
    "nut", "crack", "cpu", "gpu", "CAE + MSE", "CAE + SSIM", "ResNet18 + SSIM", "AU-PRO 0.30",
    "AU-PRO 0.05", "JPEG"
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
    group = {"images": 4} | dict.fromkeys(comparison.PIXEL_METRICS, 0.7)
    groups = ("crack", "<=0.73%", ">0.73%")
    where = dict.fromkeys(comparison.PIXEL_METRICS,
                          0.7) | {"groups": [group | {"group": name} for name in groups]}
    names = [name for name in comparison.CONFIGURATIONS if name not in comparison.REFERENCE_ROWS]
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
            scores = [(OWN, 0.5, 0.6, "own"), (OTHER, 0.9, 0.8, "chosen"),
                      *((f"ssim.{kind}", 0.6, 0.5 + seed / 9, "")
                        for kind in ("mean", "top1", "other"))]
            write_csv(
                pd.DataFrame(scores, columns=["score", "label_free", "test", "role"]),
                folder / "score_study.csv")
            write_csv(pd.DataFrame({"epoch": [1, 10], "auroc": [0.5, 0.7]}),
                               folder / "epochs.csv")
    for path in (reports / "runs").glob("*/*/*/run.json"):
        about = files.read_json(path)
        weights = "random:no_connection" if "resnet" in str(
            path) else "file:a.pth:0"
        source = {"synthetic": True, "source": "parameter"}
        files.write_json(path, about | {
            "weights": weights, "data": about["data"] | source, "versions": {"torch": "2"}})
    failed(reports, "cae_ssim", "boom")
    failed(reports, "cae_mse", "boom", seed=2)
    rows = [("none", 0, 0.9, 0.0, 1.0),
            *((name, strength, 0.8, np.nan, 1.0)
              for name in corruptions.CORRUPTIONS for strength in corruptions.STRENGTHS)]
    limits = pd.DataFrame(
        rows, columns=["disturbance", "strength", "auroc", "false_positives", "detections"])
    sizes = pd.DataFrame([{
        "defect": "crack", "area50": 0.001, "area95": np.nan, "smallest": 0.001, "largest": 0.02,
        "faintest": 0.1, "found_at_real_size": 0.875, "contrast95": 0.1
    }])
    for name, table in (("robustness.csv", limits), ("smallest.csv", sizes)):
        write_csv(table, reports / "limits" / "nut" / "memory" / name)
    return reports


@pytest.fixture(scope="module")
def sentences(reports):
    study = Study(reports)
    table, rows = study.table, study.rows
    apart = rows.assign(with_best=rows["with_best"].where(rows["name"] != "pca"),
                        verdict=["missed", "reached"] + [""] * (len(rows) - 2))
    wide = pd.DataFrame(np.random.default_rng(0).uniform(size=(9, 4))).rename(columns=str)
    kinds = pd.DataFrame({"category": list("abc"), "kind_of": ["surface", "aligned", "free"]})
    cells = pd.DataFrame({"row": ["pca"] * 3, "value": [0.5] * 3, "column": [
        f"kind_of:{kind}" for kind in kinds["kind_of"]]})
    sections = [getattr(study, name)() for name in SECTIONS]
    answer, without = ranking.answer(rows, "nut"), rows.assign(auroc=math.nan, half_found=9.0)
    return [
        answers.full(rows), answers.footnotes(rows), answers.full(apart),
        answers.full(rows.assign(auroc=math.nan)),
        answers.full(rows.assign(random=True, with_best=math.nan)),
        answers.full(rows.assign(random=rows["name"] == "pca")),
        answers.full(rows[rows["name"].isin(["memory", "pca"])]), answers.short(answer),
        answers.overall(pd.concat([rows, rows.assign(category="zip")])),
        answers.short(ranking.answer(without, "nut")), answers.gains(dataclasses.replace(
            answer, tied=["memory", "fused"])), *matrix.notes(without),
        answers.rates(answer.best), answers.rates(answer.best | {"detections": math.nan}),
        answers.equivalents(dataclasses.replace(answer, level=[], tied=[])),
        answers.equivalents(dataclasses.replace(answer, level=[], tied=[], below=0)),
        answers.equivalents(dataclasses.replace(answer, best=answer.best | {"low": 0.4})),
        answers.provenance(table), answers.ranks(wide, ranks_over.pairs(wide)),
        answers.ranks(wide[:4], ranks_over.pairs(wide[:4])), answers.kinds(cells, kinds),
        *(section.said for section in sections if section and section.said),
        *(caption for section in sections if section for _, caption in section.tables),
        *matrix.notes(rows.assign(random=True)), answers.robustness_caption(),
        t("data.properties", kind=i18n.named("kind_of", "free"), form=0.5, alignment=0.5, colour=0.1,
          good=9), t("study.more"), study._how_to_ask("scores"),
        *(t(key) for key in i18n.messages() if key.startswith(("caption.", "glossary."))
          and "{" not in str(i18n.messages()[key][0]))]


def test_every_sentence_is_chinese_to_its_end(sentences):
    assert [i18n.chinese(text) for text in sentences if not whole(text)] == []
    # nor is there Chinese in the English
    assert [text for text in sentences if re.search("[，。；：（） ]$", text)] == []
    assert [text for text in sentences if CHINESE.search(text)] == []


def test_every_cell_is_chinese_a_name_or_a_number(reports):
    study = Study(reports)
    every_column = study.rows.assign(
        device=["cpu", *["gpu"] * (len(study.rows) - 1)], verdict="missed", claim_low=0.7,
        claim_high=0.8, published=0.8, bad_auroc=0.7, bad_spread=0.1, bad_low=0.6, bad_high=0.8)
    assert unread(matrix.matrix(every_column, reports)) == []
    for name in (*SECTIONS, "better"):
        for drawn in section.drawn if (section := getattr(study, name)()) else ():
            assert unread(drawn) == [] and not re.search(r"column\.\w", drawn), name
        for table, _ in section.tables if section else ():
            assert not CHINESE.search(tables.markdown(table)), "markdown stays English"


def test_the_page_of_results_is_english_and_whole(reports):
    page = Study(reports).markdown()
    assert not CHINESE.search(page) and "nan" not in page and "/data" not in page
    assert "\n\n\n" not in page and page.startswith("# Measured results\n\nWritten by")
    assert [line for line in page.splitlines() if line.startswith("## ")] == [
        "## Performance", "## What is distinguishable", "## Which score?", "## Pixels or features?",
        "## Does the position matter?", "## What does each component of the best detector bring?",
        "## Where is it?", "## How small, how faint, how noisy?", "## Does training help?",
        "## How it was measured"]
    assert "pairs are distinguishable at 5%" in page
    told = page.partition("## What is distinguishable")[2].partition("## Which")[0]
    assert "\n- " in told and not re.search(r"[^\n]- \w", told), "an item a line"
    assert "Indented" not in page and "The line is" not in page, "that is of the page's matrix"
    assert re.search(r"\n- seeds 0; 0 epochs, float32, .*: nut / .*\bmemory\b", page)
