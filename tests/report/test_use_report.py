"""The page of a folder of predictions: what is in the tables is on it, in both languages."""
import json

import bs4
import numpy as np
import pytest
from PIL import Image

from adlib import cli
from adlib.config import InputError
from adlib.report import use_report
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
    refused = sum(row["verdict"] in ("anomalous", "foreign") for row in about["predictions"])
    seen = sum(not row["problem"] for row in about["predictions"])
    assert f"{refused} of {seen} pictures were refused: if these parts are bad" in text
    rows = about["predictions"]
    assert f"{len(rows)} rows" in text and "1 unreadable" in text
    assert f"Threshold {about['threshold']:.6g}" in text
    for verdict in ("good", "anomalous", "foreign"):
        n = sum(row["verdict"] == verdict for row in rows)
        assert not n or f"{n} {verdict}" in text
    assert (day := rows[0]["time"][:10]) in [cell.text for cell in page.select("td")], day
    shown = [image["src"] for image in page.select("img")]
    assert shown and all(not source.startswith(("http", "/")) for source in shown)
    best = max((row for row in rows if row["score"] is not None), key=lambda row: row["score"])
    section = page.select_one("#cell-most-anomalous-shown img")
    assert section["alt"] == best["path"].rpartition("/")[2]
    assert "<black>" not in (predicted / "index.html").read_text(encoding="utf-8")
    assert len(page.select("script")) == 0  # decomposed: the page's own is the only one
    assert "条件已变化" in text_of(predicted / "index.html", "zh")[1]


def test_one_bad_part_in_twenty_explains_no_change():
    change = {"since": 3, "path": "a/b.png", "time": "2026-01-01T00:00", "cause": "blurrier", "by": 2.0}
    few, many = (use_report._told(change, refused, 40) for refused in (2, 3))
    assert "Verdicts since then cannot be relied on." in few and "bad part in twenty" not in few
    assert "3 of 40 pictures were refused: if these parts are bad" in many


def test_a_folder_without_predictions_is_an_error(tmp_path):
    with pytest.raises(InputError, match="holds no predictions; give the --out"):
        use_report.build(tmp_path)
