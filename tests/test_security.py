"""What untrusted input may not do: run code, lead out of their folder, speak HTML or formulas;
and nothing of ours listens.

Hostile archives are in test_download, hostile label files in test_data. What ruff's rules "S" find
is not looked for here again.
"""
import ast
import contextlib
import csv
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import psutil
import pytest

from adlib import cli
from adlib.data import untrusted
from adlib.evaluation import calibration
from adlib.evaluation.conformal import Threshold
from adlib.report.display import charts, components, gallery, scatter, tables
from adlib.report.words.i18n import Text, t
from adlib.runs.image_layers import Shot
from tests import browser, forked
from tests.conftest import picture
from tests.handmade import failed, small_run

ROOT = Path(__file__).resolve().parents[1]
TAG = "<img src=x onerror=\"document.title='owned'\">"  # HTML in markdown, too
ATTRIBUTE = "\"><svg onload=\"document.title='owned'\" x='"  # what breaks out of either kind of quotes
# a template's, an address's, HTML's, matplotlib's and markdown's own signs
OTHER = "{{7*7}} javascript:alert(1) &lt; $\\frac$ ` #%41?"

# ---- no code out of a file


def calls(source):
    """Every call of a source: the full name of what is called, and its keywords as they are
    written."""
    tree, known = ast.parse(source), {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            known |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom):
            known |= {
                alias.asname or alias.name: f"{node.module}.{alias.name}"
                for alias in node.names
            }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            head, dot, tail = ast.unparse(node.func).partition(".")
            yield known.get(head, head) + dot + tail, {
                word.arg: ast.unparse(word.value)
                for word in node.keywords
            }


def loads_code(source):
    """The calls that could run what is in a file, of those that ruff does not know."""
    for name, words in calls(source):
        weights = name == "torch.load" or name.endswith(
            (".get_state_dict", "load_state_dict_from_url"))
        if (words.get("weights_only", "" if weights else "True") != "True" or words.get(
                "allow_pickle", "False"
        ) != "False" or re.fullmatch(
                r"(joblib|cloudpickle)\.loads?|torch\.(hub|jit)\.load|yaml\.(unsafe_|full_)?load(_all)?",
                name)):
            yield name


def test_nothing_is_unpickled_in_any_source():
    sources = {
        path: path.read_text()
        for folder in ("adlib", "benchmarks")
        for path in (ROOT / folder).rglob("*.py")
    }
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        cells = [
            cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"
        ]
        sources[path] = "\n".join("".join(cell["source"]) for cell in cells)
    assert len(sources) > 50 and any(name == "torch.load" for source in sources.values()
                                     for name, _ in calls(source))
    assert {
        path.name: found
        for path, source in sources.items() if (found := list(loads_code(source)))
    } == {}


@pytest.mark.parametrize("source", [
    "torch.load(path)", "torch.load(path, weights_only=False)",
    "from torch import load as read; read(path)", "weights.get_state_dict()",
    "import numpy as np; np.load(path, allow_pickle=True)", "joblib.load(path)",
    "yaml.unsafe_load(text)", "torch.hub.load(a, b)"
])
def test_and_would_be_found(source):
    assert list(loads_code(source))


def ruff(*words, source=None):
    done = subprocess.run([sys.executable, "-m", "ruff", "check", *words], cwd=ROOT, input=source,
                          capture_output=True, text=True)
    return done.stdout + done.stderr


def test_the_linter_looks_for_the_rest_in_modules_and_notebooks():
    bad = ("import marshal, os, pickle, subprocess, yaml\n"
           "pickle.load(f)\nmarshal.load(f)\neval(f)\nexec(f)\nyaml.load(f)\nsubprocess.run(f, "
           "shell=True)\nos.system(f)\n")
    for module in ("adlib/module.py", "benchmarks/module.py"):
        found = ruff("--output-format", "concise", "--stdin-filename", module, "-", source=bad)
        assert set(re.findall(r"\bS\d+",
                              found)) >= {"S301", "S302", "S307", "S102", "S506", "S602", "S605"}
    assert "All checks passed" in ruff("--isolated", "--select", "S", "--ignore", "S101", "notebooks")  # they assert


# ---- no HTML out of a name, and nobody listens: one study, the real way


def listening(process):
    """The addresses that a process and its descendants take connections or packets on."""
    for one in [process, *process.children(recursive=True)]:
        try:
            found = (one.net_connections if hasattr(one, "net_connections") else one.connections)(
                kind="inet")
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        yield from (at.laddr.ip for at in found if at.status == psutil.CONN_LISTEN or (
            at.type == socket.SOCK_DGRAM and at.laddr and not at.raddr))


def followed(words, until=lambda: False, cwd=ROOT, **env):
    """A command of adlib to its end, or interrupted as soon as `until` holds: (exit code, output,
    every address listened on)."""
    running, seen, ends = forked.begin("adlib", words, cwd, env), set(), time.monotonic() + 240
    while running.poll() is None and not until() and time.monotonic() < ends:
        with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
            seen |= set(listening(psutil.Process(running.pid)))
        time.sleep(0.1)
    running.send_signal(signal.SIGINT)  # to one that has ended, nothing
    said, _ = running.communicate(timeout=300)
    return running.returncode, said, seen


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A tiny study with a hostile name wherever one fits, run and rendered."""
    base, names = tmp_path_factory.mktemp("hostile"), (TAG, ATTRIBUTE, OTHER)
    here = base / "data" / (TAG + ATTRIBUTE + OTHER.replace("{", "").replace("}", ""))
    for i in range(9):
        picture(here / "train" / "good" / f"{i}{names[i % 3]}.png", i)
        # the first is one of the training images
        picture(here / "test" / "good" / f"{i}{names[i % 3]}.png", min(i, 1) * (20 + i))
        defect, file = names[i % 3], names[i // 3]
        picture(here / "test" / defect / f"{file}.png", 40 + i, defect=True)
        picture(here / "ground_truth" / defect / f"{file}_mask.png", 40 + i)
    (base / "own.yaml").write_text(
        "configs: [mean_grey]\nset: {image_size: 32, weights: none, held_out: 0.4, target_fpr: "
        "0.3}\n")
    shutil.copy(ROOT / "params" / "configurations" / "mean_grey.yaml", base)
    failed(base / "reports", "mean_grey", TAG + ATTRIBUTE, where=f"line\n{TAG}")  # and no notebook
    code, said, seen = followed([
        "run", base / "own.yaml", "--data", base / "data", "--reports", base / "reports", "--jobs",
        2, "--report"
    ], ADLIB_CACHE=str(base / "cache"))
    assert code == 0, said
    return base, here, seen


def test_a_batch_listens_on_this_machine_alone(study):
    assert study[2] == {"127.0.0.1"}  # where the kernels do


def injected(page):
    """Elements that no page of ours has: with a handler, or from an address; a second script."""
    return page.select("script")[1:] + page.select("iframe, object, embed, base, form, svg[x]") + [
        part for part in page.find_all(True)
        if any(name.startswith("on")
               for name in part.attrs)
        or not re.match(r"data:|(\.\./)*(pictures|runs)/", part.get("src", "data:"))  # what a run kept
        or part.get("href", "").startswith("javascript:")
    ]


@browser.needed
def test_names_are_text_on_every_page(study, tmp_path):
    base, here, _ = study
    pages = {
        page.relative_to(base / "reports").parts[0]: page
        for page in (base / "reports").rglob("index.html")
    }
    assert len(list((base / "reports").rglob("index.html"))) == 4
    failure = next((base / "reports" / "runs").glob("line*/*/*/index.html"))
    run = base / "reports" / "runs" / here.name / "mean_grey" / "seed-0" / "index.html"
    for page, names in ((pages["index.html"], [here.name]), (pages["eda"], [
            here.name, TAG, ATTRIBUTE, OTHER
    ]), (run, [here.name, TAG, ATTRIBUTE, OTHER]), (failure, [f"line {TAG}", TAG + ATTRIBUTE])):
        found = browser.opened(page, tmp_path / "profile")
        assert injected(found) == [] and found.title.text != "owned", page
        text = " ".join(found.body.get_text().split())
        assert [name for name in names if name not in text
                ] == [] and text.count("#%41?") == text.count(OTHER[-8:]), page
        assert [
            link for link in found.select("a[href]")
            if not (page.parent / unquote(link["href"].partition("#")[0])).exists()
        ] == []


@browser.needed
def test_fragments_of_widgets_escape_and_this_browser_would_have_told(tmp_path):
    """What only JupyterLab shows, and a table of any text; then the same name as it is."""
    name, dots = TAG + ATTRIBUTE + OTHER, np.zeros((2, 8, 8, 3), np.uint8)
    threshold = Threshold(np.linspace(0, 1, 19), 0.05)
    images = gallery.with_scores(tables.pd.DataFrame({
        "path": name, "split": "test", "defect": name, "label": [0, 1], "chosen_score": [0.5, 2.0],
        "score": [0.5, 2.0], "chosen_p_value": 0.5}))
    address = f"data:,{name}"
    shot = Shot(address, address, 4, 3, address, address, address, name, name, name)
    runs = [gallery.Compared(Text(name), name, images.assign(path=[name, "b"]), threshold,
                             {name: shot, "b": shot})] * 2
    fragments = [
        components.strip({t("view.input"): dots[0]}, name, name),
        components.paragraph(name), components.figure(name, name, name, name),
        gallery.gallery(images, [shot] * 2, threshold, name, ids=True),
        gallery.examples(images, [shot] * 2, threshold, [name] * 2), gallery.compare(runs),
        components.threshold(images, threshold, name),
        components.with_verdict(name, 1.0, 1, threshold),
        charts.loss([{"epoch": 1, "loss": 1.0, "held_out_loss": 1.0}], name),
        scatter.feature_map(np.eye(2), [name, "good"], [name, name], dots,
                           t("view.kind_name", kind=name, name=name)),
        tables.html(tables.pd.DataFrame({"defect": [name]}), name)
    ]
    (tmp_path / "page.html"
     ).write_text(f"<title>mine</title><body>{''.join(fragments)}<script></script></body>")
    found = browser.opened(tmp_path / "page.html", tmp_path / "profile")
    assert injected(found) == [] and found.title.text == "mine" and found.get_text().count(
        name) >= 8
    (tmp_path / "page.html").write_text(f"<title>mine</title><body>{TAG}</body>")
    found = browser.opened(tmp_path / "page.html", tmp_path / "profile")
    assert len(injected(found)) == 1 and found.title.text == "owned"


def test_tables_name_the_files_as_they_are_and_hold_no_formula(study):
    base, here, _ = study
    tables = [list(csv.reader(path.open(newline=""))) for path in (base / "reports").rglob("*.csv")]
    assert {row[0]
            for table in tables if table[0][0] == "path" for row in table[1:]} == {
                path.relative_to(base / "data").as_posix()
                for path in here.rglob("*.png") if "ground_truth" not in path.parts
            }
    cells = {
        cell
        for table in tables
        for row in table
        for cell in row if cell.startswith(untrusted.FORMULA)
    }
    assert [cell for cell in cells if not re.fullmatch(r"-[\d.]+(e-?\d+)?", cell)] == []


# ---- new pictures, from whoever writes into a watched folder


def test_a_watch_listens_to_nobody_and_its_table_holds_no_formula(course_root, tmp_path,
                                                                  monkeypatch):
    monkeypatch.setattr(calibration, "SYNTHETIC", 8)
    run, out = small_run(course_root, tmp_path / "reports", model="mean_grey",
                         name="mean_grey"), tmp_path / "out"
    for i, name in enumerate(
        ("=1+1.png", "b.png", "c\x1b]0;owned\x07.png", os.fsdecode(b"d\xb5.png"))):
        picture(tmp_path / "camera" / name, i)

    def rows():
        return list(csv.reader(
            (out / "predictions.csv").open(newline=""))) if (out /
                                                             "predictions.csv").exists() else []

    code, said, seen = followed(["predict", run, ".", "--watch", "--out", out],
                                lambda: len(rows()) == 5, cwd=tmp_path / "camera")
    assert seen == set() and code in (1, 3) and "\x1b" not in said and said.count("unreadable") == 2
    listed = ["./=1+1.png", "b.png", "c\ufffd]0;owned\ufffd.png", "d\ufffd.png"]
    assert [row[0] for row in rows()[1:]] == listed
    assert rows()[1][rows()[0].index("overlay")] == "overlays/=1+1.png.jpg"
    assert [one["path"] for one in json.loads(
        (out / "predictions.json").read_text())["predictions"]] == [
        "=1+1.png", *listed[1:]]  # whole, however it was ended
    monkeypatch.chdir(tmp_path / "camera")
    cli.main(["predict", str(run), "=1+1.png", "b.png", "--out", str(out)])
    # known again, and not looked at twice
    assert [row[0] for row in rows()[1:]] == listed
