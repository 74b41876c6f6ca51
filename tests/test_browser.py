"""The report in a real browser, with the network off: what moves, moves; nothing is asked of any
server; either language, alone."""
import base64
import hashlib
import re
import shutil
import subprocess

import bs4
import nbformat
import pandas as pd
import pytest
from tests.handmade import DISTANCE, category, finished, ranks

from adlib.report import panels, site
from adlib.report.i18n import t

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))),
               None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="there is no Chromium here")


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    reports = tmp_path_factory.mktemp("browser") / "reports"
    own = category()
    run = finished(reports, "memory", {DISTANCE: ranks(own, 1.0)})
    table = pd.DataFrame({
        "path": [f"nut/{i}.png" for i in range(8)], "split": "test", "label": pd.array(
            [0, 0, 0, 0, 0, 1, 1, 1], "Int64"), "defect": ["good"] * 5 + ["<b>hole</b>"] * 3,
        "chosen_score": [0, 1, 2, 3, 6, 4, 5,
                         7], "chosen_p_value": [0.9, 0.8, 0.5, 0.4, 0.05, 0.2, 0.1, 0.01]
    })
    table["chosen_prediction"] = (table["chosen_p_value"] <= 0.05).astype("Int64")
    dot = "data:image/gif;base64,R0lGODlhAQABAAAAACw="
    rows = zip("abcdef", ("", 0.5, 0.9, 0.75, 1, 0.6), strict=True)
    named = table.assign(score=table["chosen_score"], p_value=table["chosen_p_value"])
    fragments = [
        panels.threshold(table, 0.05, "ssim.max"),
        panels.gallery(named, [{t("input"): dot}] * 8, 6, "ssim.max", 8),
        '<table class="performance"><thead><tr><th>Name</th><th>AUROC</th></tr></thead><tbody>' +
        "".join(f"<tr><td>row {name}</td><td>{value}</td></tr>"
                for name, value in rows) + "</tbody></table>"
    ]
    cells = [
        nbformat.v4.new_markdown_cell("# Which?\n\nThis one."),
        nbformat.v4.new_code_cell(
            "show()", outputs=[
                nbformat.v4.new_output("display_data",
                                       data={"text/html": fragment, "text/plain": "-"})
                for fragment in fragments
            ])
    ]
    for path in (reports / "comparison.ipynb", run / "notebook.ipynb"):
        nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    site.build(reports, lambda text: None)
    return reports


def seen(page, script="", *, tmp_path, at=""):
    """The page as the browser has it after `script`, and every address that it asked for."""
    copy, log = page.with_name("copy.html"), tmp_path / "net.json"
    act = f"addEventListener('load', () => {{ {script} }});"
    # beside the page's own
    allowed = f"script-src 'sha256-{base64.b64encode(hashlib.sha256(act.encode()).digest()).decode()}'"
    copy.write_text(page.read_text().replace("</body>", f"<script>{act}</script></body>").replace(
        "script-src", allowed, 1))
    dom = subprocess.run([
        BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom",
        "--virtual-time-budget=4000", f"--user-data-dir={tmp_path / 'profile'}",
        f"--log-net-log={log}",
        copy.as_uri() + at
    ], capture_output=True, text=True, timeout=120, check=True).stdout
    # the page's requests
    lines = [
        line for line in log.read_text().splitlines()
        if '"initiator"' in line and "not an origin" not in line
    ]
    asked = {address for line in lines for address in re.findall(r'"url":"(https?:[^"]+)"', line)}
    return bs4.BeautifulSoup(dom, "html.parser"), asked


def counts(page):
    return {part["data-count"]: int(part.text) for part in page.select(".threshold [data-count]")}


def shown(page, selector):
    return [part for part in page.select(selector) if not part.has_attr("hidden")]


def test_the_threshold_moves_the_matrix_the_line_and_the_gallery(reports, tmp_path):
    page, _ = seen(reports / "index.html", tmp_path=tmp_path)
    # the label-free one, before anything is touched
    assert counts(page) == {"found": 1, "missed": 2, "false_positives": 1, "passed": 4}
    assert not page.select_one(".threshold .controls").has_attr("hidden")
    before = page.select_one(".threshold .line")["transform"]
    page, _ = seen(
        reports / "index.html", tmp_path=tmp_path, script="""
        const slider = document.querySelector('.threshold input'); slider.value = 4; slider.dispatchEvent(new Event('input'));
        const show = document.querySelector('.gallery select'); show.value = 'false-alarm'; show.dispatchEvent(new Event('change'));"""
    )
    # from the fifth score on: 4, 5, 6, 7
    assert counts(page) == {"found": 3, "missed": 0, "false_positives": 1, "passed": 4}
    assert page.select_one(".threshold .line")["transform"] != before
    assert {part["data-rate"]: part.text
            for part in page.select("[data-rate]")} == {
                "precision": "75%", "recall": "100%", "fpr": "20%"
            }
    assert [tile["data-score"] for tile in shown(page, ".tiles li")] == ["6"]
    page, _ = seen(reports / "index.html", tmp_path=tmp_path,
                   script="document.querySelector('[data-to=oracle]').click();")
    assert counts(page)["found"] == 3
    read = "document.title = document.querySelector('.threshold select').selectedOptions[0].text;"
    for act, rate in (("", "5%"), ("document.querySelector('[data-to=oracle]').click();", "–"), (
            "const asked = document.querySelector('.threshold select'); asked.selectedIndex = 5; "
            "asked.dispatchEvent(new Event('change'));", "20%")):
        page, _ = seen(reports / "index.html", f"{act} {read}", tmp_path=tmp_path)
        assert page.title.text == rate


def test_a_heading_sorts_and_the_box_filters_and_empty_cells_stay_last(reports, tmp_path):
    press = "document.querySelectorAll('.performance thead button')[1].click();"

    def names(script):
        page, _ = seen(reports / "index.html", script, tmp_path=tmp_path)
        return "".join(row.td.text[-1] for row in shown(page, ".performance tbody tr"))

    assert (names(""), names(press), names(press * 2)) == ("abcdef", "ecdfba", "bfdcea")
    assert names("const box = document.querySelector('input[type=search]'); box.value = 'row d'; "
                 "box.dispatchEvent(new Event('input'));") == "d"


@pytest.mark.parametrize("page", ["index.html", "runs/nut/memory/seed-0/index.html"])
def test_either_language_is_shown_alone_and_no_server_is_asked(reports, tmp_path, page):
    for at, lang, other in (("#en", "en", "zh-CN"), ("#zh", "zh-CN", "en")):
        found, asked = seen(reports / page, tmp_path=tmp_path, at=at)
        assert found.html["lang"] == lang
        parts = found.select(f"body [lang={other}]:not(#language)")
        assert parts and all(
            part.has_attr("hidden") or part.get("visibility") == "hidden" for part in parts)
        assert shown(found, f"body [lang={lang}]:not(#language)")
        assert asked == set()
    assert "<b>hole" not in (reports / page).read_text()


def test_this_browser_would_have_told_on_a_page_that_asks_a_server(tmp_path):
    page = tmp_path / "asks.html"
    page.write_text('<body><img src="http://nowhere.invalid/x.png"></body>')
    assert seen(page, tmp_path=tmp_path)[1] == {"http://nowhere.invalid/x.png"}


def test_a_page_without_a_script_still_shows_everything(reports):
    page = bs4.BeautifulSoup((reports / "index.html").read_text(), "html.parser")
    assert counts(page) == {"found": 1, "missed": 2, "false_positives": 1, "passed": 4}
    assert page.select_one(".controls").has_attr("hidden") and len(page.select(".tiles li")) == 8
    policy = page.select_one("meta[http-equiv=Content-Security-Policy]")["content"]
    assert policy.startswith(
        "default-src 'none'") and "http" not in policy and "script-src 'sha256-" in policy


def test_no_script_runs_but_the_pages_own(reports, tmp_path):
    page = reports / "index.html"
    copy = page.with_name("handler.html")
    smuggled = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
    copy.write_text(page.read_text().replace("</body>", f"{smuggled}</body>"))
    assert seen(copy, tmp_path=tmp_path)[0].title.text == seen(
        page, tmp_path=tmp_path)[0].title.text != "owned"
