"""The report while its study runs: pages of what has finished, a first page that reloads."""
import dataclasses
from pathlib import Path

import bs4
import pytest

from adlib.data import files
from adlib.report.pages import site
from adlib.report.pages.live_report import LiveReport
from adlib.runs.batch import Outcome
from tests.handmade import DISTANCE, category, finished, ranks
from tests.report.pages.test_site import notebook


@dataclasses.dataclass(frozen=True, eq=False)
class Step:
    title: str
    output: object
    kind: str = "run"
    retry: str = "adlib run it"


@pytest.fixture
def steps(tmp_path):
    folder = finished(tmp_path, "memory", {DISTANCE: ranks(category(), 1.0)})
    notebook(folder / "notebook.ipynb", "remembered")
    return [Step("nut memory seed 0", folder / "notebook.ipynb"),
            Step("nut pca seed 0", folder.parents[1] / "pca" / "seed-0" / "notebook.ipynb")]


def drawn(growing, outcomes):
    growing(outcomes)
    growing.close()
    return bs4.BeautifulSoup(growing.index.read_text(encoding="utf-8"), "html.parser")


def test_the_first_page_lists_the_steps_links_what_is_done_and_reloads(steps, tmp_path, caplog):
    caplog.set_level("INFO", "adlib")
    memory, pca = steps
    page = drawn(LiveReport(tmp_path, "zh"), {memory: Outcome("finished"), pca: Outcome("running")})
    assert page.select_one("meta[http-equiv=refresh]")["content"] == "5"
    first, second = page.select("ol.steps li")
    assert first.a["href"] == "runs/nut/memory/seed-0/index.html" and "finished" in first.text
    assert second.a is None and "running" in second.text and page.html["lang"] == "zh-CN"
    assert "共 2 步，已完成 1 步" in page.text and "图块记忆库（PatchCore），随机种子 0" in first.text
    run = bs4.BeautifulSoup((tmp_path / first.a["href"]).read_text(encoding="utf-8"), "html.parser")
    assert "remembered" in run.text and not run.select("meta[http-equiv=refresh]")
    assert "index.html" in caplog.text and "no page" not in caplog.text
    assert LiveReport(tmp_path, "").language == "zh"  # of the last, even if broken off


def test_a_folder_may_be_given_from_here(steps, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path.parent)
    page = drawn(LiveReport(Path(tmp_path.name), ""), {steps[0]: Outcome("finished")})
    assert page.select_one("ol.steps a")["href"] == "runs/nut/memory/seed-0/index.html"
    assert "no page" not in caplog.text


def test_before_anything_has_finished_there_is_a_page_of_what_is_to_come(tmp_path):
    step = Step("nut pca seed 0", tmp_path / "runs" / "nut" / "pca" / "seed-0" / "notebook.ipynb")
    page = drawn(LiveReport(tmp_path, ""), {step: Outcome("waiting")})
    assert "0 of 1 steps" in page.text and not page.select("ol.steps a")


def test_the_whole_report_takes_its_place_and_is_not_replaced(steps, tmp_path):
    drawn(LiveReport(tmp_path, ""), {one: Outcome("finished") for one in steps[:1]})
    notebook(tmp_path / "comparison.ipynb", "compared")
    site.build(tmp_path, again=False)
    whole = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "compared" in whole and "http-equiv=\"refresh\"" not in whole
    assert "growing" not in files.read_json(tmp_path / "report.json")
    drawn(LiveReport(tmp_path, ""), {one: Outcome("waiting") for one in steps})
    assert (tmp_path / "index.html").read_text(encoding="utf-8") == whole


def test_what_goes_wrong_is_told_and_ends_nothing(steps, tmp_path, caplog):
    steps[0].output.write_text("{", encoding="utf-8")
    growing = LiveReport(tmp_path, "")
    growing({steps[0]: Outcome("finished")})
    growing.close()
    assert "no page while the study runs" in caplog.text
