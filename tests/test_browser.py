"""The report in a real browser, with the network off: what moves, moves; nothing is asked of any
server; either language, alone."""
import base64
import dataclasses
import hashlib
import json
import re

import bs4
import nbformat
import numpy as np
import pandas as pd
import pytest

from adlib.evaluation.conformal import Threshold
from adlib.report.display import charts, components, gallery
from adlib.report.pages import site
from adlib.report.words.i18n import Text
from adlib.runs import overlays
from adlib.runs.image_layers import Shot
from tests import browser
from tests.handmade import DISTANCE, category, finished, ranks

pytestmark = browser.needed
TABLE = pd.DataFrame({
    "path": [f"nut/{i}.png" for i in range(8)], "split": "test",
    "label": pd.array([0, 0, 0, 0, 0, 1, 1, 1], "Int64"),
    "defect": ["good"] * 5 + ["<b>hole</b>"] * 2 + ["spot"],
    "chosen_score": [0.0, 1, 2, 3, 6, 4, 5, 7], "score": [0.0, 1, 2, 3, 6, 4, 5, 7],
    "chosen_p_value": 0.5})
# 5.5 at 5 %; 5.1 at 10 %, 3.5 at 20 %
THRESHOLD = Threshold(np.array([0.0] * 16 + [3.5, 4.5, 5.1, 5.5]), 0.05)


DOT = "data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA="  # with what it is behind a #
SHOT = Shot(DOT, DOT, 4, 3, f"{DOT}#again", f"{DOT}#map", f"{DOT}#heat", "M0 0", "M1 1", "M2 2")


BOX = "left:50%;top:25%;width:10%;height:10%"


def both():
    """The threshold and the gallery of the same run."""
    rows = gallery.with_scores(TABLE)
    shots = [dataclasses.replace(SHOT, input=f"{DOT}#{i}") for i in range(8)]
    square = overlays.uri(np.zeros((8, 8, 3), np.uint8))  # a tenth of a picture 80 pixels wide
    shots[7] = dataclasses.replace(shots[7], detail=square, box=BOX)
    return (components.threshold(TABLE, THRESHOLD, "ssim.max"),
            gallery.gallery(rows, shots, THRESHOLD, "ssim.max", ids=True))


def two_runs():
    rows = gallery.with_scores(TABLE)
    other = rows.assign(score=[7.0, 6, 5, 4, 3, 2, 1, 0])
    return gallery.compare([
        gallery.Compared(Text(name, chinese), "ssim.max", some, THRESHOLD, {
            path: dataclasses.replace(SHOT, heat=f"{DOT}#{name}{i}")
            for i, path in enumerate(some["path"])})
        for name, chinese, some in (("one", "甲", rows), ("two", "乙", other))])


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    reports = tmp_path_factory.mktemp("browser") / "reports"
    own = category()
    run = finished(reports, "memory", {DISTANCE: ranks(own, 1.0)})
    finished(reports, "fused", {DISTANCE: ranks(own, 2.0)})
    rows = zip("abcdef", ("", 0.5, 0.9, 0.75, 1, 0.6),
               ("45 s", "2.2 min", "3 s", "119 s", "10.0 min", ""), strict=True)
    fragments = [
        *both(), two_runs(), charts.loss([{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 1.0}],
                                         Text("The loss.", "损失。")),
        '<div class="adlib"><table class="sortable"><thead><tr><th>Name</th><th>AUROC</th>'
        "<th>Training</th></tr></thead><tbody>" + "".join(
            f"<tr><td>row {name}</td><td>{value}</td><td>{time}</td></tr>"
            for name, value, time in rows) + "</tbody></table></div>"
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
    found = browser.opened(copy, tmp_path / "profile", f"--log-net-log={log}", at=at)
    # the page's requests
    lines = [
        line for line in log.read_text().splitlines()
        if '"initiator"' in line and "not an origin" not in line
    ]
    asked = {address for line in lines for address in re.findall(r'"url":"(https?:[^"]+)"', line)}
    return found, asked


def counts(page):
    return {part["data-count"]: int(part.text) for part in page.select(".threshold [data-count]")}


def shown(page, selector):
    return [part for part in page.select(selector) if not part.has_attr("hidden")]


def called(page):
    """{score: what became of the image} in the gallery."""
    return {float(tile["data-score"]): shown(tile, ".verdict")[0]["class"][1]
            for tile in page.select(".tiles li")}


PRESS = """const press = (part, key) => (typeof part === 'string' ? document.querySelector(part) : part)
    .dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true, cancelable: true}));
    const line = document.querySelector('.threshold .line');
    const chip = (facet, value) => document.querySelector(`[data-facet=${facet}][data-value="${value}"]`);"""


def test_a_photograph_of_something_else_keeps_its_one_verdict(tmp_path):
    rows = gallery.with_scores(TABLE).assign(verdict=["foreign", *[""] * 6, "foreign"],
                                             label=pd.array([None] * 8, "Int64"))
    page = tmp_path / "page.html"
    fragment = components.live(gallery.gallery(rows, [SHOT] * 8, THRESHOLD, "photographs"))
    page.write_text(f"<meta charset=utf-8>{fragment}", encoding="utf-8")
    found = browser.opened(page, tmp_path / "profile")
    assert called(found) == {score: "foreign" if score in (0, 7) else
                             "called" if score > 5.5 else "let-pass" for score in range(8)}
    assert [chip.select_one(".n").text for chip in found.select("[data-facet=verdict]")] == [
        "8", "1", "5", "2"]
    assert found.select_one(".gallery .controls > output").text == "8 / 8"


def test_without_a_threshold_no_image_has_a_verdict_until_one_is_chosen(tmp_path):
    none, rows = THRESHOLD.at(0.001), gallery.with_scores(TABLE)
    fragment = components.threshold(TABLE, none, "ssim.max") + gallery.gallery(
        rows, [SHOT] * 8, none, "ssim.max")
    page = tmp_path / "page.html"
    for script, verdicts in (("", 0), ("document.querySelector('[data-to=oracle]').click();", 8)):
        page.write_text(f"<meta charset=utf-8>{components.live(fragment)}<script>addEventListener("
                        f"'load', () => {{ {script} }});</script>", encoding="utf-8")
        assert len(shown(browser.opened(page, tmp_path / "profile"), ".tiles .verdict")) == verdicts


def test_the_threshold_moves_the_matrix_the_line_and_the_gallery(reports, tmp_path):
    page, _ = seen(reports / "index.html", tmp_path=tmp_path)
    # the label-free one, before anything is touched
    assert counts(page) == {"found": 1, "missed": 2, "false_positives": 1, "passed": 4}
    assert float(page.select_one(".threshold output")["data-threshold"]) == THRESHOLD.value
    assert not page.select_one(".threshold .controls").has_attr("hidden")
    before, verdicts = page.select_one(".threshold .line")["style"], called(page)
    assert verdicts == {7: "found", 6: "false-alarm", 5: "missed", 4: "missed"} | dict.fromkeys(
        range(4), "passed")
    page, _ = seen(reports / "index.html", tmp_path=tmp_path, script=f"""{PRESS}
        press(line, 'ArrowLeft'); press(line, 'ArrowLeft');
        chip('verdict', 'false-alarm').click();""")
    # past 5 and past 4: above 3.5 are 4, 5, 6, 7
    assert counts(page) == {"found": 3, "missed": 0, "false_positives": 1, "passed": 4}
    assert page.select_one(".threshold .line")["style"] != before
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
    move = f"{PRESS} press(line, 'Home'); press(line, 'ArrowRight');"
    # the list says a rate only while the line stands where that rate puts it
    for act, said in (("", "5% 5.5"), (rate, "20% 3.5"), (move, "– 0.5"), (oracle, "20% 3.5"),
                      (oracle + free, "5% 5.5")):
        page, _ = seen(reports / "index.html", f"{act} {read}", tmp_path=tmp_path)
        assert page.title.text == said


def test_a_step_of_the_keyboard_takes_one_image_across(reports, tmp_path):
    page, _ = seen(reports / "index.html", tmp_path=tmp_path, script=f"""{PRESS}
        const called = () => [...document.querySelectorAll('[data-count=found], [data-count=false_positives]')]
          .reduce((sum, cell) => sum + Number(cell.textContent), 0);
        press(line, 'Home');
        const seen = [called()];
        for (let i = 0; i < 9; i += 1) {{ press(line, 'ArrowRight'); seen.push(called()); }}
        document.title = seen.join(' ') + ' ' + line.ariaValueText;""")
    # 5.5 and 5.1 part the images in the same way: one step past both; at the end nothing is called
    assert page.title.text == "8 7 6 5 4 3 2 1 0 0 ∞"


def test_the_line_goes_where_it_is_dragged_and_stands_there_on_either_axis(reports, tmp_path):
    """What stands on the axis is the handle itself."""
    page, _ = seen(reports / "index.html", tmp_path=tmp_path, script="""
        const plot = document.querySelector('.plot'), box = plot.getBoundingClientRect(), said = [];
        const line = document.querySelector('.threshold .line');
        const at = () => (line.getBoundingClientRect().left + 1 - box.left) / box.width;
        for (const share of [0.5, 0.07, 0.93]) {
          try { plot.dispatchEvent(new PointerEvent('pointerdown', {clientX: box.left + share * box.width, bubbles: true})); } catch {}
          said.push(Math.abs(at() - share) < 0.08, Number(document.querySelector('.threshold output').dataset.threshold) / 7 - share);
        }
        const before = document.querySelector('.threshold output').dataset.threshold, place = at();
        document.querySelector('.threshold [type=checkbox]').click();
        said.push(before === document.querySelector('.threshold output').dataset.threshold, at() !== place);
        document.title = JSON.stringify(said);""")
    said = json.loads(page.title.text)
    assert [said[i] for i in (0, 2, 4, 6, 7)] == [True] * 5
    assert all(abs(said[i]) < 0.08 for i in (1, 3, 5))  # the score at that place of the axis
    shown_axes = [part["class"] for part in page.select(".threshold g")
                  if page.select_one(".threshold")["data-axis"] in part["class"]]
    assert len(shown_axes) == 1


def test_the_gallery_is_filtered_with_counts_and_sorted_by_nearness(reports, tmp_path):
    def tiles(script):
        page, _ = seen(reports / "index.html", f"{PRESS} {script}", tmp_path=tmp_path)
        return page, [float(tile["data-score"]) for tile in shown(page, ".tiles li")]

    order = "const order = document.querySelector('.gallery select'); order.value = '{}'; order.dispatchEvent(new Event('change'));"
    assert tiles("")[1] == [7, 6, 5, 4, 3, 2, 1, 0]
    page, found = tiles("chip('defect', 'spot').click();")
    assert found == [7]
    assert {chip["data-value"]: chip.select_one(".n").text
            for chip in page.select("[data-facet=verdict]")} == {
        "": "1", "found": "1", "missed": "0", "false-alarm": "0", "passed": "0"}
    assert page.select_one(".gallery .controls > output").text == "1 / 8"
    assert [chip["data-value"] for chip in page.select("[data-facet][aria-pressed=true]")] == [
        "", "spot"]
    assert tiles(order.format("near"))[1][:4] == [6, 5, 7, 4]
    assert tiles(order.format("up") + "chip('verdict', 'missed').click();")[1] == [4, 5]


def test_a_large_image_is_zoomed_to_its_own_pixels_around_the_maximum(reports, tmp_path):
    first = "document.querySelectorAll('.tiles a')[0].click();"
    # as if it were there already: a dump does not wait for pictures
    loaded = ("Object.defineProperty(document.querySelector('dialog img.detail'), "
              "'naturalWidth', {value: 8});")
    for script, near in ((f"{first} {loaded} press(document.querySelector('dialog'), 'z');", True),
                         (f"{first} press(document.querySelector('dialog'), 'ArrowRight');"
                          "press(document.querySelector('dialog'), 'z');", False)):
        page, _ = seen(reports / "index.html", f"{PRESS} {script}", tmp_path=tmp_path)
        opened_large = page.select_one("dialog[open]")
        detail, stack = (opened_large.select_one(what) for what in ("img.detail", ".stack"))
        assert detail.has_attr("hidden") != near
        if near:
            assert detail["style"].replace(" ", "").rstrip(";") == BOX
            assert "zoom" in opened_large["class"]
            width = float(re.search(r"--width: ([\d.]+)px", stack["style"])[1])
            assert width >= 80 and width % 80 == pytest.approx(0, abs=0.5)


def test_an_image_opens_large_and_keys_show_what_they_say(reports, tmp_path):
    def box(script, at=""):
        page, _ = seen(reports / "index.html", f"{PRESS} {script}", tmp_path=tmp_path, at=at)
        return page.select_one("dialog[open]")

    assert box("") is None
    first = "document.querySelectorAll('.tiles a')[0].click();"
    dialog = box(first)
    assert (dialog["data-view"], dialog.output.text) == ("over", "1 / 8")
    assert dialog.select_one("img.input")["src"] == f"{DOT}#7" and "spot" in dialog.text
    assert [path["class"][0] for path in dialog.select("path")] == ["level", "truth", "ticks"]
    for keys, view, at, classes in (("1", "input", "1 / 8", ()), ("2", "reconstruction", "1 / 8", ()),
                                    ("3", "map", "1 / 8", ()), (["3", "4"], "over", "1 / 8", ()),
                                    (["ArrowRight", "m"], "over", "2 / 8", ("mask", )),
                                    (["ArrowLeft", "z"], "over", "8 / 8", ("zoom", ))):
        pressed = "".join(f"press(document.querySelector('dialog'), '{key}');" for key in keys)
        dialog = box(first + pressed)
        assert (dialog["data-view"], dialog.output.text) == (view, at), keys
        assert all(name in dialog["class"] for name in classes)
    # of what the filters show, and by the address of an image
    visible = "document.querySelector('.tiles li:not([hidden]) a').click();"
    assert box(f"chip('defect', '<b>hole</b>').click(); {visible}").output.text == "1 / 2"
    linked = box("", at="#image-4")
    assert linked.output.text == "2 / 8" and linked.select_one("img.input")["src"] == f"{DOT}#4"
    assert box(first + "document.querySelector('dialog [data-close]').click();") is None


def test_two_runs_are_chosen_and_an_image_that_they_rank_differently(reports, tmp_path):
    def told(script):
        page, _ = seen(reports / "index.html", f"{PRESS} {script}", tmp_path=tmp_path)
        panel = page.select_one(".compare")
        images = [part["src"].partition("#")[2] for part in panel.select("figure .heat")]
        return page, panel, images, panel.select_one("output").text

    page, panel, images, at = told("")
    assert len(names := panel.select("svg title")) == 8 and all(name.text for name in names)
    # the anomalous one that is the highest of one run and the lowest of the other
    assert images == ["one7", "two7"] and at == "spot nut/7.png (1 / 8)"
    assert [cell.text for cell in panel.select("td[data-kind]")] == [
        "0", "0", "1", "1", "0", "2", "2", "2"]
    captions = [part.select_one(".verdict")["class"][1] for part in panel.select(".panels figcaption")
                if part.select_one(".verdict")]
    assert captions == ["found", "missed"]
    assert panel.select_one(".ring")["transform"] == panel.select("g[data-i]")[7]["transform"]
    assert told("press('.compare .pair button', 'ArrowRight');")[2] == ["one6", "two6"]
    click = "document.querySelectorAll('.compare g[data-i]')[2].dispatchEvent(new MouseEvent('click', {bubbles: true}));"
    assert told(click)[2] == ["one2", "two2"]
    swap = """const menu = document.querySelector('.compare [data-side=other]');
        menu.value = '0'; menu.dispatchEvent(new Event('change'));"""
    _, panel, images, _ = told(swap)
    assert images[0] == images[1] and {
        mark["transform"] for mark in panel.select("g[data-i]")} == {
        f"translate({50 * i + 25} {375 - 50 * i})" for i in range(8)}


def test_the_arrow_keys_lead_from_run_to_run_and_not_where_something_else_is_meant(reports, tmp_path):
    here = reports / "runs/nut/memory/seed-0/index.html"
    for key, script, to in (("ArrowRight", "press(document.body, 'ArrowRight');", "pca"),
                            ("in a menu", "press('.gallery select', 'ArrowRight');", "memory"),
                            ("on the line", "press(line, 'ArrowRight');", "memory"),
                            ("in a wide table", "const area = document.querySelector('.sortable')"
                             ".parentElement; area.className = 'scroll'; "
                             "press(area, 'ArrowRight');", "memory")):
        watch = "document.querySelector('a[rel=next], a[rel=prev]').addEventListener('click', (event) => { event.preventDefault(); document.title = 'went'; });"
        page, _ = seen(here, f"{PRESS} document.title = 'stayed'; {watch} {script}", tmp_path=tmp_path)
        assert page.title.text == ("went" if to == "pca" else "stayed"), key


def test_a_heading_sorts_and_empty_cells_stay_last(reports, tmp_path):
    press = "document.querySelectorAll('.sortable thead button')[1].click();"

    def names(script):
        page, _ = seen(reports / "index.html", script, tmp_path=tmp_path)
        return "".join(row.td.text[-1] for row in shown(page, ".sortable tbody tr"))

    assert (names(""), names(press), names(press * 2)) == ("abcdef", "ecdfba", "bfdcea")
    assert names(press.replace("1", "2")) == "ebdacf"  # minutes are more than seconds


@pytest.mark.parametrize("page", ["index.html", "runs/nut/memory/seed-0/index.html"])
def test_either_language_is_shown_alone_and_no_server_is_asked(reports, tmp_path, page):
    for at, lang, other in (("#en", "en", "zh-CN"), ("#zh", "zh-CN", "en")):
        found, asked = seen(reports / page, tmp_path=tmp_path, at=at)
        assert found.html["lang"] == lang
        parts = found.select(f"body [lang={other}]:not(#language)")
        assert parts and all(
            part.has_attr("hidden") or part.get("visibility") == "hidden" for part in parts)
        assert shown(found, f"body [lang={lang}]:not(#language)")
        sides = [part.text for part in found.select(".plot .side span") if not part.has_attr("hidden")]
        assert sides == (["anomalous", "good"] if lang == "en" else ["异常", "正常"])
        # what is written in a drawing is in this language, or no word
        for text in found.select("svg text"):
            if text.get("lang"):
                assert (text.get("visibility") != "hidden") == (text["lang"] == lang)
            else:
                assert not re.search(r"[A-Za-z\u4e00-\u9fff]{2}", text.text), text
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
