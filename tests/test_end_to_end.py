"""The real thing, small: `adlib run params/grids/smoke.yaml` through papermill on synthetic data, and the
HTML it makes."""
import csv
import html.parser
import json
import re
import shutil
from pathlib import Path

import bs4
import pytest

from adlib.data.synthetic import drawing
from adlib.runs import inference
from tests import forked
from tests.tiny_study import SMALL_DETECTORS, Study

ROOT = Path(__file__).resolve().parents[1]
FEW_PARTS = "from adlib.evaluation import limits\nlimits.EACH = 2"
# what of a page's data for its scripts is shown in English alone
IN_JSON = r'\\u003cspan lang=\\"en\\"\\u003e.*?\\u003c/span\\u003e'
PNGS = ("loss_curve.png", "roc_curve.png", "visualization_result.png", "score_distribution.png")


def adlib(*words, code=0, cwd=ROOT, start=forked.begin):
    begun = start("adlib", words, cwd)
    said, _ = begun.communicate(timeout=600)
    assert begun.returncode == code, said
    return said


class Page(html.parser.HTMLParser):
    """What a test wants to know of a page: tags with their attributes, and the text."""
    def __init__(self, path):
        super().__init__()
        self.tags, self.words = [], []
        self.source = path.read_text()
        self.feed(self.source)
        self.text = re.sub(r"\s+", " ", " ".join(self.words))

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture
def study(once):
    """One batch over both synthetic categories, rendered: its project, the data, what was said."""
    def made(base):
        Study(base).made(drawn=False).insert("05_limits", FEW_PARTS)
        data = drawing.write_dataset(base / "data", train=8, good=3, anomalous=7, pixels=64)
        (base / "said").write_text(adlib(
            "run", "params/grids/smoke.yaml", "--data", data, "--reports", base / "reports",
            "--report", "--jobs", 2, cwd=base, start=forked.cold))

    base = once("end_to_end", made)
    return base / "reports", base / "data", (base / "said").read_text()


def test_every_run_leaves_its_artefacts(study):
    reports, _, said = study
    folders = sorted(path.parent for path in (reports / "runs").rglob("run.json"))
    assert [tuple(f.parts[-3:]) for f in folders] == [(category, name, "seed-0")
                                                      for category in ("hazelnut", "zipper")
                                                      for name in ("cae_mse", "resnet_ssim")]
    for folder in folders:
        for name in (*PNGS, "notebook.ipynb", "score_study.csv", "regions.csv", "log.txt",
                     "history.csv", "epochs.csv", "pictures.json", "index.html"):
            assert (folder / name).stat().st_size > 30, name
        assert not (folder / "checkpoint.pt").exists() and not (folder / "snapshots").exists()
        rows = list(csv.DictReader((folder / "all_results.csv").open()))
        assert {row["split"] for row in rows} == {"train", "held_out", "test"} and len(rows) == 18
        assert sum(row["label"] == "1" for row in rows) == 7 and all(0 < float(row["score"]) < 1
                                                                     for row in rows)
        auroc = json.loads((folder / "metrics.json").read_text())["auroc"]["test"]
        assert 0 <= auroc["low"] <= auroc["value"] <= auroc["high"] <= 1
        manifest = json.loads((folder / "run.json").read_text())
        assert manifest["status"] == "finished" and manifest["data"]["synthetic"] is True
        assert inference.reopen(folder).config.model == manifest["params"]["model"]
    assert "CAE + MSE" in said and str((reports / "index.html").resolve()) in said


def test_pages_are_offline_described_and_marked_synthetic(study):
    reports, _, _ = study
    pages = sorted(reports.rglob("index.html"))
    assert len(pages) == 1 + 2 + 4 + 2 + 2  # index, data, runs, limits, two runs beside each other
    for path in pages:
        page = Page(path)
        assert [script.get("src")
                for script in page.all("script")] == [None] and not page.all("iframe"), path
        assert path.stat().st_size < 3e6
        for tag, attrs in page.tags:
            for key in ("src", "href"):
                target = attrs.get(key) or ""
                assert not re.match(r"(https?:)?//", target), f"{path}: <{tag} {key}={target}>"
                if target and not target.startswith(("data:", "#")):
                    assert (path.parent / target.split("#")[0]
                            ).exists(), f"{path} links to {target}, which is not there"
        assert not re.search(r"url\((?!data:)|@import", page.source)
        images = page.all("img")
        assert all(len(image["alt"]) > 8 or image["alt"] == "" and image["class"] for image in images)
        assert "without a description" not in page.source  # a layer over a picture has none
        assert "SYNTHETIC DATA" in page.text and "<object object" not in page.text
        assert len(page.all("main")) == 1 and len(
            page.all("h1")) == 1 and page.all("html")[0]["lang"] == "en"


def test_in_chinese_no_sentence_stays_english(study):
    reports, _, _ = study
    for path in sorted(reports.rglob("index.html")):
        page = bs4.BeautifulSoup(path.read_text(), "html.parser")
        for part in [*page.select(
                "style, script, title, pre, code, option, footer, .code, body [lang=en]"), *(
                    part for within in page.select("template") for part in within.select("[lang=en]"))]:
            part.decompose()
        said = [re.sub(IN_JSON, "", text) for text in page.find_all(string=True)
                ] + [image.get("data-alt-zh", image["alt"]) for image in page.select("img")]
        assert [text for text in said
                if re.search(r"([A-Za-z][a-z']+ ){3}[a-z]+", text)] == [], path


def test_the_index_has_the_matrix_and_links_to_every_run(study):
    reports, _, _ = study
    page = Page(reports / "index.html")
    assert "Which score?" in page.text and "How small, how faint, how noisy?" in page.text
    hrefs = {attrs.get("href") for attrs in page.all("a")}
    for category in ("hazelnut", "zipper"):
        assert f"Best on {category}" in page.text
        for name in ("cae_mse", "resnet_ssim"):
            assert f"runs/{category}/{name}/seed-0/index.html" in hrefs
            value = json.loads((reports / "runs" / category / name / "seed-0" / "metrics.json"
                                ).read_text())["chosen"]["auroc"]["test"]["value"]
            assert f"{value:.3f}".removeprefix("0") in page.text
    assert (reports / "all_runs.csv").exists() and (reports / "index.html").stat().st_size < 1e6


def test_again_nothing_is_recomputed_and_forced_metrics_are_the_same_bytes(study):
    reports, data, _ = study
    folder = reports / "runs" / "zipper" / "resnet_ssim" / "seed-0"
    before = {
        name: (folder / name).read_bytes()
        for name in ("metrics.json", "all_results.csv", "epochs.csv")
    }
    stamp = (folder / "metrics.json").stat().st_mtime_ns
    words = ["run", "params/grids/smoke.yaml", "--data", data, "--reports", reports]
    said = adlib(*words, cwd=reports.parent)
    assert "all 9 steps are up to date" in said and (folder / "metrics.json").stat().st_mtime_ns == stamp
    adlib(*words, "--force", "--only", "category=zipper,config=resnet_ssim", "--jobs", 2,
          cwd=reports.parent)
    assert (folder / "metrics.json").stat().st_mtime_ns != stamp
    assert {name: (folder / name).read_bytes() for name in before} == before


def test_a_failing_run_is_named_and_does_not_sink_the_rest(study, tmp_path):
    _, data, _ = study
    own = tmp_path / "data"
    shutil.copytree(data, own)
    (own / "zipper" / "test" / "good" / "001.png").write_bytes(b"")
    reports, grid = tmp_path / "reports", tmp_path / "grid.yaml"
    shutil.copy(ROOT / "params" / "configurations" / "mean_grey.yaml", tmp_path)
    grid.write_text("{configs: [mean_grey], set: {image_size: 64, held_out: 0.4, target_fpr: 0.3}}")
    said = adlib("run", grid, "--data", own, "--reports", reports, "--report", "--jobs", 2, code=1)
    assert "001.png" in said and "cannot be read" in said
    index, page = Page(reports / "index.html"), Page(
        reports / "runs" / "zipper" / "mean_grey" / "seed-0" / "index.html")
    assert "Without a result: zipper / Mean grey (no model) (failed" in index.text
    assert "This run did not finish" in page.text and "001.png" in page.text and "To try again" in page.text
    assert json.loads((reports / "runs" / "hazelnut" / "mean_grey" / "seed-0" /
                       "run.json").read_text())["status"] == "finished"


def papermill(notebook, out, *words, code=0, start=forked.begin):
    begun = start("papermill", [f"notebooks/{notebook}", out, "-k", "python3", *words])
    said, _ = begun.communicate(timeout=600)
    assert begun.returncode == code, said
    return said


def test_papermill_by_hand_on_the_seeds_layout_and_an_unknown_parameter(course_root, tmp_path):
    words = [
        "-f", "params/configurations/cae_ssim.yaml", "-p", "category", "zip", "-p", "data_root", course_root, "-p",
        "epochs", 1, "-p", "image_size", 32, "-p", "batch_size", 4, "-p", "reports",
        tmp_path / "reports"
    ]
    papermill("02_cae_baseline.ipynb", tmp_path / "out.ipynb", *words, start=forked.cold)
    auroc = json.loads((tmp_path / "reports" / "runs" / "zip" / "cae_ssim" / "seed-0" /
                        "metrics.json").read_text())["auroc"]
    assert auroc["train_bad"]["n_anomalous"] == 2 and auroc["test"]["n_anomalous"] == 3
    # the comparison was not executed yet
    adlib("report", "--reports", tmp_path / "reports", code=2)
    papermill("06_comparison.ipynb", tmp_path / "reports" / "comparison.ipynb", "-p", "reports",
              tmp_path / "reports")
    adlib("report", "--reports", tmp_path / "reports")
    page = Page(tmp_path / "reports" / "runs" / "zip" / "cae_ssim" / "seed-0" / "index.html")
    assert {image["src"]
            for image in page.all("img")} == set(PNGS) and "not in its folder" in page.text
    said = papermill("02_cae_baseline.ipynb", tmp_path / "bad.ipynb", *words, "-p", "epocs", 3,
                     code=1)
    assert "unknown parameter 'epocs'; did you mean 'epochs'?" in said


def test_exploring_with_nobody_there_shows_every_tool_as_it_starts(study, tmp_path):
    reports, _, _ = study
    made = tmp_path / "out.ipynb"
    papermill("07_explore.ipynb", made, "-p", "category", "zipper", "-p", "name", "cae_mse", "-p",
              "reports", reports)
    outputs = [
        output["data"] for cell in json.loads(made.read_text())["cells"]
        for output in cell.get("outputs", [])
    ]
    assert not any("application/vnd.jupyter.widget-view+json" in data for data in outputs)
    _, threshold, gallery, compared, what_if, photo, notes = (
        bs4.BeautifulSoup("".join(data["text/html"]), "html.parser") for data in outputs)
    assert threshold.select("svg") and sum(
        int(cell.text) for cell in threshold.select("td[data-count]")) == 10
    assert len(gallery.select("li")) == 10 and all(
        tile["data-reconstruction"].startswith("data:") for tile in gallery.select("li"))
    assert len(compared.select("[data-side=one] option")) == 2 and len(
        compared.select("g[data-i]")) == 10
    assert len(what_if.select(".stack")) == 2 and "of the image changed" in what_if.text
    assert "Drop pictures here" in photo.text and notes.select(".stack")
    eda = Page(reports / "eda" / "zipper" / "index.html")
    assert "images by the features of a frozen ResNet18" in eda.text and "RANDOM" in eda.text and not list(
        reports.rglob("*explore*"))


def test_unlabelled_images_are_scored_without_metrics(course_root, tmp_path):
    (course_root / "image_anomaly_labels.json").unlink()
    shutil.rmtree(course_root / "nut" / "train" / "bad")
    papermill("02_cae_baseline.ipynb", tmp_path / "out.ipynb", "-p", "category", "nut", "-p",
              "data_root", course_root, "-p", "epochs", 1, "-p", "image_size", 32, "-p",
              "batch_size", 4, "-p", "reports", tmp_path / "reports")
    folder = tmp_path / "reports" / "runs" / "nut" / "cae_mse" / "seed-0"
    assert json.loads(
        (folder / "metrics.json"
         ).read_text())["auroc"]["test"]["why_absent"] == "no_labels"
    assert sum(
        row["split"] == "test" for row in csv.DictReader((folder / "all_results.csv").open())) == 6


def test_ones_own_photographs_to_a_report_and_new_ones_checked(tmp_path):
    drawn = drawing.write_dataset(tmp_path / "drawn", train=24, good=0, anomalous=4, pixels=64,
                                  seed=3, categories=["hazelnut"])
    drawn, project = drawn / "hazelnut", Study(tmp_path / "project").made(drawn=False)
    project.insert("04_feature_space", SMALL_DETECTORS)
    best = project.place / "params" / "configurations" / "fused.yaml"
    best.write_text(best.read_text().replace("image_size: 256", "image_size: 64"))
    said = adlib("new", "my-nut", "--good", drawn / "train" / "good", "--bad", drawn / "test",
                 "--data", tmp_path / "data", "--weights", "none", "--reports",
                 tmp_path / "reports", cwd=project.place)
    assert "19 good pictures to learn from, 5 good ones to test with" in said and "Next: adlib predict" in said
    run = tmp_path / "reports" / "runs" / "my-nut" / "fused" / "seed-0"
    page = Page(run / "index.html")
    assert "cross-conformal" in page.text and (tmp_path / "reports" / "index.html").is_file()
    checked = forked.begin("adlib", ["predict", run, drawn / "train" / "good", "--out",
                                     tmp_path / "out"])
    checked.communicate(timeout=600)
    rows = list(csv.DictReader((tmp_path / "out" / "predictions.csv").open()))
    assert checked.returncode in (0, 1) and len(rows) == 24 and {row["verdict"]
                                                   for row in rows} <= {"good", "anomalous"}
