"""The page of a folder of predictions: what is in the tables is on it, in both languages."""
import json
import math
import re
import shutil

import bs4
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from adlib import cli
from adlib.config import InputError
from adlib.report.display import charts
from adlib.report.pages import use_report
from adlib.report.words import use_sentences
from tests.runs.test_recalibration import _pictures, run  # noqa: F401  (a run with a threshold)


@pytest.fixture(scope="module")
def predicted(run, tmp_path_factory):  # noqa: F811
    base = tmp_path_factory.mktemp("use")
    _pictures(base / "a", range(200, 230))
    _pictures(base / "a", range(230, 232), crack=True)
    _pictures(base / "b", range(240, 262), brighter=70)
    (base / "a" / "z.png").write_bytes(b"no picture")
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(base / "b" / "<black>.png")
    cli.main(["predict", str(run), str(base / "a"), str(base / "b"), "--out", str(base / "out")])
    return base / "out"


def text_of(path, lang):
    page = bs4.BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
    for part in page.select(f"style, script, body [lang={'zh-CN' if lang == 'en' else 'en'}]"):
        part.decompose()
    return page, " ".join(page.get_text(" ").split())


def test_the_page_says_what_the_tables_say(predicted, capsys):
    assert cli.main(["report", "--use", str(predicted)]) == 0
    assert str(predicted / "index.html") in capsys.readouterr().out
    page, text = text_of(predicted / "index.html", "en")
    told = json.loads((predicted / "conditions.json").read_text())
    about = json.loads((predicted / "predictions.json").read_text())
    change = told["change"]
    assert change["cause"] == "brighter" and len(told["course"]) == told["pictures"]
    assert f"changed since picture {change['since']}" in text and "are brighter" in text
    brought = [row["verdict"] for row in about["predictions"] if not row["problem"]][
        change["since"] - 1:change["noticed"]]
    refused = sum(verdict in ("anomalous", "foreign") for verdict in brought)
    assert f"{refused} of the {len(brought)} pictures from there to this warning" in text
    rows = about["predictions"]
    assert f"{len(rows)} pictures" in text and "1 cannot be read" in text
    assert f"Threshold {about['threshold']:.6g}, for {100 * about['target_fpr']:g}% of" in text
    assert page.select_one("pre.command").text == f"adlib report --use {predicted.name}"  # no path
    for verdict in ("good", "anomalous", "foreign"):
        n = sum(row["verdict"] == verdict for row in rows)
        assert not n or f"{n} {verdict}" in text
    assert (day := rows[0]["time"][:10]) in [cell.text for cell in page.select("td")], day
    shown = [image["src"] for image in page.select("img")]
    assert shown and all(not source.startswith(("http", "/")) for source in shown)
    best = max((row for row in rows if row["score"] is not None and row["verdict"] != "foreign"),
               key=lambda row: row["score"])
    high, unlike = (page.select(f"#{name} .strip") for name in ("most-anomalous", "foreign"))
    assert high[0].img["alt"] == "/".join(best["path"].split("/")[-2:])  # of which camera
    assert len(high) == min(24, sum(row["verdict"] == "anomalous" for row in rows))
    assert [part.strong.text for part in unlike] == ["foreign (not this part)"]
    assert not page.select('a[href="#cell"]') and not page.select(".sources a[href^='#cell-']")
    assert all(figure.select_one(".sources a")["href"] == "predictions.csv"
               for figure in page.select("figure.fig")), "no code is on this page to lead to"
    assert "<black>" not in (predicted / "index.html").read_text(encoding="utf-8")
    assert len(page.select("script")) == 0  # decomposed: the page's own is the only one
    assert "条件已变化" in text_of(predicted / "index.html", "zh")[1]


def test_a_repaired_file_is_one_picture_as_the_terminal_counts(predicted, tmp_path):
    for name in ("predictions.json", "predictions.csv", "conditions.json"):
        (tmp_path / name).write_bytes((predicted / name).read_bytes())
    rows = pd.read_csv(predicted / "predictions.csv", dtype=str, keep_default_na=False)
    broken = rows[rows["problem"] != ""].iloc[0]
    repaired = rows[rows["problem"] == ""].iloc[0].to_dict() | {"path": broken["path"]}
    pd.concat([rows, pd.DataFrame([repaired])]).to_csv(tmp_path / "predictions.csv", index=False)
    _, text = text_of(use_report.build(tmp_path), "en")
    assert f"{len(rows)} pictures" in text and "0 cannot be read" in text
    assert "unreadable" not in text  # nor is it one of a day


def test_the_evidence_and_its_line_are_in_the_same_number(predicted):
    page, text = text_of(use_report.build(predicted), "en")
    needed = json.loads((predicted / "conditions.json").read_text())["needed"]
    assert f"{needed:g} once in {needed:g} pictures" in text
    assert f"at {math.log10(needed):.1f} as a power of ten, the line" in text
    assert "The highest scores" in text and "The most anomalous" not in text


def test_a_long_number_beside_an_axis_has_room():
    drawn = charts.panels({"a": [("c0", "line", [(1, 0)])]}, [], ("x", 1, 2, (1, 2)),
                          ("", -0.27123, 1, (-0.27123, 1)), "caption", "name")
    left = -float(re.search(r'viewBox="(-[0-9]+)', drawn)[1])
    assert left >= 10 + 7 * len("-0.27123")


def test_only_where_a_quarter_of_the_pictures_were_refused_bad_parts_explain_a_change():
    change = {"since": 3, "path": "a/b.png", "time": "2026-01-01T00:00", "cause": "blurrier",
              "by": 2.0}
    few, many = (use_sentences.changed(change, ["good"] * 6 + kinds) for kinds in (
        ["anomalous"], ["anomalous", "foreign"]))
    assert "Verdicts since then cannot be relied on." in few and "these parts are bad" not in few
    assert "2 of the 8 pictures from there to this warning were refused: if these" in many


def test_what_is_refused_after_a_warning_does_not_explain_it():
    change = {"since": 3, "noticed": 14, "path": "a/b.png", "time": "2026-01-01T00:00",
              "cause": "blurrier", "by": 2.0}
    told = use_report._changed({"change": change}, ["good"] * 14 + ["anomalous"] * 86)
    assert "Verdicts since then cannot be relied on." in told and "these parts are bad" not in told


def test_of_a_threshold_set_anew_it_says_what_the_one_before_refused(predicted, tmp_path):
    for name in ("predictions.csv", "conditions.json"):
        (tmp_path / name).write_bytes((predicted / name).read_bytes())
    about = json.loads((predicted / "predictions.json").read_text())
    about |= {"recalibrated": {"threshold": 1.25, "refused": 7}, "calibration_images": 40}
    (tmp_path / "predictions.json").write_text(json.dumps(about))
    _, text = text_of(use_report.build(tmp_path), "en")
    assert "of the 40 pictures that it rests on, the one before, 1.25, would have called 7" in text
    assert "set anew" not in text_of(use_report.build(predicted), "en")[1]


def test_without_calibration_images_there_is_no_p_value(predicted, tmp_path):
    (tmp_path / "predictions.json").write_bytes((predicted / "predictions.json").read_bytes())
    rows = pd.read_csv(predicted / "predictions.csv", dtype=str, keep_default_na=False)
    rows.assign(p_value="").to_csv(tmp_path / "predictions.csv", index=False)
    _, text = text_of(use_report.build(tmp_path), "en")
    assert "score 0." in text and "nan" not in text.split("Words")[0]


def test_a_folder_without_predictions_is_an_error(tmp_path):
    with pytest.raises(InputError, match="holds no predictions; give the --out"):
        use_report.build(tmp_path)
    (tmp_path / "predictions.json").write_text("{}")
    (tmp_path / "predictions.csv").touch()
    with pytest.raises(InputError, match=r"predictions.csv cannot be read .* into another --out"):
        use_report.build(tmp_path)


@pytest.mark.parametrize(("name", "change", "sentence"), [
    ("predictions.json", lambda text: "{}", "predictions.json is damaged or of an older version"),
    ("predictions.json", lambda text: "[]", "predictions.json is damaged or of an older version"),
    ("predictions.csv", lambda text: re.sub(r",\d\.\d+,", ",abc,", text, count=1),
     r"predictions.csv cannot be read \(.*abc.*\); predict again")])
def test_a_damaged_file_is_named(predicted, tmp_path, name, change, sentence):
    folder = shutil.copytree(predicted, tmp_path / "spoilt")
    text = (folder / name).read_text()
    assert change(text) != text
    (folder / name).write_text(change(text))
    with pytest.raises(InputError, match=sentence):
        use_report.build(folder)


def test_a_picture_is_named_with_its_folder():
    assert [*map(use_sentences.picture, ("line/camera 2/006.png", "006.png", "/006.png"))] == [
        "camera 2/006.png", "006.png", "006.png"]
