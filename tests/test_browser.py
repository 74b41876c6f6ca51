"""The report in a real browser, with the network off: what moves, moves; nothing is asked of any
server; either language, alone."""
import base64
import hashlib
import json
import re
import shutil
import subprocess

import bs4
import nbformat
import numpy as np
import pandas as pd
import pytest

from adlib.evaluation.conformal import Threshold
from adlib.report import components, site
from adlib.report.i18n import t
from tests.handmade import DISTANCE, category, finished, ranks

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))),
               None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="there is no Chromium here")


TABLE = pd.DataFrame({
    "path": [f"nut/{i}.png" for i in range(8)], "split": "test",
    "label": pd.array([0, 0, 0, 0, 0, 1, 1, 1], "Int64"),
    "defect": ["good"] * 5 + ["<b>hole</b>"] * 2 + ["spot"],
    "chosen_score": [0, 1, 2, 3, 6, 4, 5, 7], "chosen_p_value": 0.5})
# 5.5 at 5 %; 5.1 at 10 %, 3.5 at 20 %
THRESHOLD = Threshold(np.array([0.0] * 16 + [3.5, 4.5, 5.1, 5.5]), 0.05)


def both():
    """The threshold and the gallery of the same run."""
    dots = [{t("view.input"): np.zeros((8, 8, 3), np.uint8)}] * 8
    return (components.threshold(TABLE, THRESHOLD, "ssim.max"), components.tiles_of(
        components.with_scores(TABLE), dots, THRESHOLD, "ssim.max", 8))


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    reports = tmp_path_factory.mktemp("browser") / "reports"
    own = category()
    run = finished(reports, "memory", {DISTANCE: ranks(own, 1.0)})
    rows = zip("abcdef", ("", 0.5, 0.9, 0.75, 1, 0.6), strict=True)
    fragments = [
        *both(),
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
    site.build(reports)
    return reports


def seen(page, script="", *, tmp_path, at=""):
    """The page as the browser has it after `script`, and every address that it asked for."""
    copy, log = page.with_name("copy.html"), tmp_path / "net.json"
    act = f"addEventListener('load', () => {{ {script} }});"
    # beside the page's own
    allowed = f"script-src 'sha256-{base64.b64encode(hashlib.sha256(act.encode()).digest()).decode()}'"
    copy.write_text(page.read_text().replace("</body>", f"<script>{act}</script></body>").replace(
        "script-src", allowed, 1))
    found = opened(copy, tmp_path, f"--log-net-log={log}", at=at)
    # the page's requests
    lines = [
        line for line in log.read_text().splitlines()
        if '"initiator"' in line and "not an origin" not in line
    ]
    asked = {address for line in lines for address in re.findall(r'"url":"(https?:[^"]+)"', line)}
    return found, asked


def opened(page, tmp_path, *options, at=""):
    """The page as the browser has it after its scripts."""
    dom = subprocess.run([
        BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom",
        "--virtual-time-budget=4000", f"--user-data-dir={tmp_path / 'profile'}", *options,
        page.as_uri() + at
    ], capture_output=True, text=True, timeout=120, check=True).stdout
    return bs4.BeautifulSoup(dom, "html.parser")


def counts(page):
    return {part["data-count"]: int(part.text) for part in page.select(".threshold [data-count]")}


def shown(page, selector):
    return [part for part in page.select(selector) if not part.has_attr("hidden")]


def called(page):
    """{score: what became of the image} in the gallery."""
    return {float(tile["data-score"]): shown(tile, ".verdict")[0]["class"][1]
            for tile in page.select(".tiles li")}


def test_the_threshold_moves_the_matrix_the_line_and_the_gallery(reports, tmp_path):
    page, _ = seen(reports / "index.html", tmp_path=tmp_path)
    # the label-free one, before anything is touched
    assert counts(page) == {"found": 1, "missed": 2, "false_positives": 1, "passed": 4}
    assert float(page.select_one(".threshold output")["data-threshold"]) == THRESHOLD.value
    assert not page.select_one(".threshold .controls").has_attr("hidden")
    before, verdicts = page.select_one(".threshold .line")["transform"], called(page)
    assert verdicts == {7: "found", 6: "false-alarm", 5: "missed", 4: "missed"} | dict.fromkeys(
        range(4), "passed")
    page, _ = seen(reports / "index.html", tmp_path=tmp_path, script="""
        const slider = document.querySelector('.threshold input');
        slider.value = 4; slider.dispatchEvent(new Event('input'));
        const show = document.querySelector('.gallery select');
        show.value = 'false-alarm'; show.dispatchEvent(new Event('change'));""")
    # of -inf, 0.5, 1.5, 2.5, 3.5, ... the fifth: above it are 4, 5, 6, 7
    assert counts(page) == {"found": 3, "missed": 0, "false_positives": 1, "passed": 4}
    assert page.select_one(".threshold .line")["transform"] != before
    assert page.select_one(".threshold output").text == "3.5"
    assert {part["data-rate"]: part.text for part in page.select("[data-rate]")} == {
        "precision": "75%", "recall": "100%", "fpr": "20%"}
    assert [tile["data-score"] for tile in shown(page, ".tiles li")] == ["6.0"]
    assert called(page) == verdicts | {4: "found", 5: "found"}


def test_it_jumps_to_what_the_buttons_and_the_list_say(reports, tmp_path):
    read = """document.title = document.querySelector('.threshold select').selectedOptions[0].text
        + ' ' + document.querySelector('.threshold output').dataset.threshold;"""
    rate = """const rates = document.querySelector('.threshold select');
        rates.selectedIndex = 3; rates.dispatchEvent(new Event('change'));"""
    oracle, free = (f"document.querySelector('[data-to={to}]').click();"
                    for to in ("oracle", "labelFree"))
    move = """const slider = document.querySelector('.threshold input');
        slider.value = 1; slider.dispatchEvent(new Event('input'));"""
    # the list says a rate only while the line stands where that rate puts it
    for act, said in (("", "5% 5.5"), (rate, "20% 3.5"), (move, "– 0.5"), (oracle, "20% 3.5"),
                      (oracle + free, "5% 5.5")):
        page, _ = seen(reports / "index.html", f"{act} {read}", tmp_path=tmp_path)
        assert page.title.text == said


def test_the_slider_takes_one_image_across_a_step_and_stops_at_the_threshold(reports, tmp_path):
    page, _ = seen(reports / "index.html", tmp_path=tmp_path, script="""
        const slider = document.querySelector('.threshold input'), seen = [];
        for (let i = 0; i <= Number(slider.max); i += 1) {
          slider.value = i; slider.dispatchEvent(new Event('input'));
          seen.push([...document.querySelectorAll('[data-count=found], [data-count=false_positives]')]
            .reduce((sum, cell) => sum + Number(cell.textContent), 0));
        }
        document.title = seen.join(' ');""")
    # 5.5 is a cut itself
    assert page.title.text == "8 7 6 5 4 3 2 1 0"


def test_the_gallery_is_filtered_by_defect_and_sorted_by_nearness(reports, tmp_path):
    def tiles(script):
        page, _ = seen(reports / "index.html", tmp_path=tmp_path, script=f"""
            const set = (key, value) => {{
              const select = document.querySelector(`.gallery select[data-key=${{key}}]`);
              select.value = value; select.dispatchEvent(new Event('change')); }};
            {script}""")
        return [float(tile["data-score"]) for tile in shown(page, ".tiles li")]

    assert tiles("") == [7, 6, 5, 4, 3, 2, 1, 0] and tiles("set('defect', 'spot')") == [7]
    assert tiles("set('order', 'near')")[:4] == [6, 5, 7, 4]
    assert tiles("set('order', 'up'); set('show', 'missed')") == [4, 5]


def test_in_jupyterlab_a_component_moves_however_often_it_is_shown(tmp_path):
    """As JupyterLab shows the outputs of cells: HTML set from a script, its scripts made anew."""
    threshold, gallery = map(components.live, both())
    frames = "".join(f'<div class="jp-Notebook" id="{name}"></div>' for name in ("one", "two"))
    act = """
        const html = JSON.parse(document.getElementById('outputs').textContent);
        const output = (notebook, which) => {
          const host = document.createElement('div');
          host.innerHTML = html[which];
          host.querySelectorAll('script').forEach((script) => {
            const again = document.createElement('script');
            again.textContent = script.textContent;
            script.replaceWith(again);
          });
          document.getElementById(notebook).append(host);
        };
        for (const [notebook, which] of [['one', 0], ['one', 1], ['two', 0], ['one', 0], ['two', 1]])
          output(notebook, which);
        const slider = document.querySelectorAll('#one .threshold input')[1];
        slider.value = 4; slider.dispatchEvent(new Event('input'));
        output('one', 1);"""
    page = tmp_path / "lab.html"
    outputs = json.dumps([threshold, gallery]).replace("</", "<\\/")
    page.write_text(f'<body>{frames}<script type="application/json" id="outputs">{outputs}</script>'
                    f'<script>{act}</script></body>')
    found = opened(page, tmp_path)
    one, two = (found.select_one(f"#{name}") for name in ("one", "two"))
    assert len(one.select(".threshold")) == 2 and len(one.select(".gallery")) == 2
    assert not [part for part in found.select(".controls") if part.has_attr("hidden")]
    panels = [part["data-level"] for part in one.select(".threshold")]
    assert panels == ["5.5", "3.5"] and two.select_one(".threshold")["data-level"] == "5.5"
    # the panel that was moved takes the galleries of its own notebook along, and no other's
    galleries = one.select(".gallery")
    assert [called(galleries[0])[score] for score in (4, 5, 6)] == ["found", "found", "false-alarm"]
    assert [called(two)[score] for score in (4, 5, 6)] == ["missed", "missed", "false-alarm"]


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
        labels = found.select(f"svg [lang={lang}]")
        assert labels and all(label["visibility"] == "visible" for label in labels)
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
