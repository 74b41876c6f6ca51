"""What is shown in a JupyterLab, in a real browser."""
import json

import numpy as np
import pandas as pd

from adlib.evaluation.conformal import Threshold
from adlib.report.display import components
from adlib.report.display.render import render
from tests import browser
from tests.test_browser import DOT, both, called

pytestmark = browser.needed


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
        for (const [notebook, which] of
             [['one', 0], ['one', 1], ['two', 0], ['one', 0], ['two', 1]])
          output(notebook, which);
        setTimeout(() => {
          const line = document.querySelectorAll('#one .threshold .line')[1];
          for (const key of ['ArrowLeft', 'ArrowLeft'])
            line.dispatchEvent(new KeyboardEvent('keydown', {key}));
          output('one', 1);
        }, 100);"""
    page = tmp_path / "lab.html"
    outputs = json.dumps([threshold, gallery]).replace("</", "<\\/")
    page.write_text(f'<body>{frames}<script type="application/json" id="outputs">{outputs}</script>'
                    f'<script>{act}</script></body>')
    found = browser.opened(page, tmp_path / "profile")
    one, two = (found.select_one(f"#{name}") for name in ("one", "two"))
    assert len(one.select(".threshold")) == 2 and len(one.select(".gallery")) == 2
    assert not [part for part in found.select(".controls") if part.has_attr("hidden")]
    panels = [part["data-level"] for part in one.select(".threshold")]
    assert panels == ["5.5", "3.5"] and two.select_one(".threshold")["data-level"] == "5.5"
    # the panel that was moved takes the galleries of its own notebook along, and no other's
    galleries = one.select(".gallery")
    assert [called(galleries[0])[score] for score in (4, 5, 6)] == ["found", "found", "false-alarm"]
    assert [called(two)[score] for score in (4, 5, 6)] == ["missed", "missed", "false-alarm"]


def test_in_jupyterlab_a_click_says_where_in_the_picture(tmp_path):
    """A corner of a region (report/regions), or the place of an anomaly."""
    picture = render("region.html.j2", picture=DOT, size=(200, 100), name="a", caption="b")
    page = tmp_path / "lab.html"
    page.write_text(f"""<body><div class="jp-Notebook"><div class="adlib-place"><input type="text">
        <input type="text">{components.live(picture)}</div></div><script>
        addEventListener('load', () => {{
          const stack = document.querySelector('.stack'), box = stack.getBoundingClientRect();
          document.querySelector('input').addEventListener('change', (event) => {{
            document.title = event.target.value; }});
          stack.querySelector('img').dispatchEvent(new MouseEvent('click', {{bubbles: true,
            clientX: box.left + box.width / 4, clientY: box.top + box.height * 0.9}}));
          document.body.dataset.ratio = (box.width / box.height).toFixed(2);
        }});</script></body>""")
    found = browser.opened(page, tmp_path / "profile")
    assert found.title.text == "0.250 0.900" and found.body["data-ratio"] == "2.00"


def test_the_threshold_covers_no_label_wherever_it_is(tmp_path):
    """Of good pictures alone the labels are long, and the threshold is at the right."""
    scores = np.linspace(1, 2, 40)
    table = pd.DataFrame({"split": "test", "label": 0, "chosen_score": scores, "score": scores})
    shown = components.live(components.threshold(table, Threshold(scores, 0.05), "ssim.max"))
    page = tmp_path / "lab.html"
    page.write_text(f"""<body><div class="jp-Notebook" style="width:340px">{shown}</div><script>
        addEventListener('load', () => {{
          const box = (name) => document.querySelector(name).getBoundingClientRect();
          const line = document.querySelector('.line'), over = [];
          for (let left = 0; left <= 100; left += 5) {{
            line.style.left = `${{left}}%`;
            for (const side of ['.side.bad', '.side.good']) {{
              const a = box('.line > span'), b = box(side);
              if (a.right > b.left && a.left < b.right && a.bottom > b.top && a.top < b.bottom)
                over.push(`${{side}} at ${{left}}%`);
            }}
          }}
          document.body.dataset.over = over.join(', ');
        }});</script></body>""", encoding="utf-8")
    assert browser.opened(page, tmp_path / "profile").body["data-over"] == ""
