"""The notebooks: thin, with what a reader needs, in two languages, and running on what they may meet."""
import ast
import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml
from nbclient import NotebookClient

import adlib
from adlib.config import Config, InputError
from adlib.data import files
from adlib.data.synthetic import drawing
from adlib.report import explore, overview
from adlib.report.display import render, tables
from adlib.report.words import i18n
from adlib.runs import inference, run_folder
from tests import forked, handmade

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
RUNS = ("02_cae_baseline", "03_resnet_ssim", "04_feature_space")
SPINE = ("Config.from_notebook()", "open_part(config)", "build(part.config)", "start(part, detector)",
         "fit(detector, part.train, part.held_out, run=run)", "calibrate(detector, part)",
         "evaluate(detector, decision, part)", "run.save(detector, decision, results)")
each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def cells(path, kind=""):
    return [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]
            if cell["cell_type"].startswith(kind)]


def source(cell):
    return "".join(cell["source"])


def headings(path):
    return [source(cell).partition("\n")[0] for cell in cells(path, "markdown")]


def committed(path):
    """A notebook as git's index has it, whatever was saved into the file since; the file where this
    is no checkout."""
    try:
        shown = subprocess.run(["git", "show", f":notebooks/{path.name}"], cwd=ROOT, check=True,
                               capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return path.read_text(encoding="utf-8")
    return shown.stdout.decode("utf-8")


@each
def test_a_notebook_is_committed_as_it_was_written(path):
    book = json.loads(text := committed(path))
    assert text == json.dumps(book, indent=1, ensure_ascii=False) + "\n"
    assert (book["nbformat"], book["nbformat_minor"]) == (4, 5)
    assert book["metadata"]["kernelspec"]["name"] == "python3"
    nbformat.validate(nbformat.reads(text, as_version=4))
    assert all(not cell["outputs"] and cell["execution_count"] is None
               for cell in book["cells"] if cell["cell_type"] == "code")


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
def test_make_lab_opens_copies_keeps_what_one_wrote_and_touches_nothing_tracked(tmp_path):
    for name in ("notebooks", "Makefile", ".gitignore", "pyproject.toml"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    jupyter = tmp_path / ".venv" / "bin" / "jupyter"
    jupyter.parent.mkdir(parents=True)
    jupyter.write_text("#!/bin/sh\necho jupyter $*\n")
    jupyter.chmod(0o755)
    (tmp_path / ".venv" / ".installed").touch()

    def run(*words):
        return subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True,
                              encoding="utf-8").stdout

    for words in ("init -q", "add .", "-c user.name=a -c user.email=a@b commit -qm all"):
        run("git", *words.split())
    assert "jupyter lab --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/lab" in run(
        "make", "lab")
    copies = sorted((tmp_path / "lab").iterdir())
    assert [copy.read_bytes() for copy in copies] == [path.read_bytes() for path in NOTEBOOKS]
    copies[0].write_text("mine")
    copies[1].unlink()
    os.utime(tmp_path / "notebooks" / copies[0].name, (2**31, 2**31))
    said = run("make", "lab")
    assert copies[0].read_text() == "mine" and copies[1].exists()
    assert f"lab/{copies[0].name} is older than notebooks/{copies[0].name}; delete it" in said
    assert run("git", "status", "--porcelain") == ""


@each
def test_cells_have_names(path):
    names = [cell["id"] for cell in cells(path)]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name) for name in names), names
    assert names[0] == "question" and headings(path)[0].endswith("?")


@each
def test_a_notebook_tells_and_calls(path):
    for cell in cells(path, "code"):
        for node in ast.walk(ast.parse(source(cell))):
            assert not isinstance(node, (ast.ClassDef, ast.For, ast.While)), source(cell)
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 5, source(cell)
        assert all(len(line) <= 100 for line in source(cell).splitlines() if "  # " not in line)


@each
def test_adlib_is_imported_before_torch_whose_threads_it_tells_how_to_wait(path):
    code = "\n".join(source(cell) for cell in cells(path, "code"))
    first = [match[1] for match in re.finditer(r"^(?:from|import) (adlib|torch)\b", code, re.M)]
    assert first[:1] in ([], ["adlib"])


@each
def test_a_notebook_ends_with_what_was_found_and_exercises(path):
    assert headings(path)[-4:-1] == ["## What was found", "## What this does not show",
                                     "## Exercises"]
    ending = [(cell["id"], cell["cell_type"]) for cell in cells(path)][-4:]
    assert ending == [("exercise-1", "markdown"), ("exercise-1-here", "code"),
                      ("exercise-2", "markdown"), ("exercise-2-here", "code")]
    for cell in cells(path)[-4:]:
        assert cell["metadata"]["tags"] == ["exercise"], "a page of the report leaves these out"
    for cell in cells(path)[-3::2]:
        assert source(cell).startswith("#") and len(source(cell).splitlines()) == 2


def help_texts():
    """{parameter: (type, help text)} of Config: the comment behind it, or in the lines above."""
    fields, above = {}, []
    for line in (ROOT / "adlib" / "config" / "parameters.py").read_text().splitlines():
        if field := re.fullmatch(r"    (\w+): (\w+) = .+?(?:  # (.+))?", line):
            fields[field[1]] = (field[2], field[3] or " ".join(above))
        above = [*above, line.removeprefix("    # ")] if line.startswith("    # ") else []
    return fields


@each
def test_parameter_cells_follow_config(path):
    tagged = [cell for cell in cells(path, "code")
              if "parameters" in cell["metadata"].get("tags", [])]
    assert len(tagged) == 1 and source(tagged[0]).startswith("# Parameters: ")
    fields, names = help_texts(), []
    assert list(fields) == list(Config.__dataclass_fields__) and all(
        text for _, text in fields.values())
    for line in source(tagged[0]).splitlines()[1:]:
        name, kind, value, text = re.fullmatch(r"(\w+): (\w+) = (.+?)  # (.+)", line).groups()
        assert fields[name] == (kind, text)
        assert "=" not in text, "papermill --help-notebook cannot read a help text with '='"
        Config(**{name: ast.literal_eval(value)})
        names.append(name)
    assert names == [name for name in fields if name in names], "in Config's order"
    assert "reports" in names


def test_a_notebook_as_it_stands_is_the_configuration_that_it_is_named_after():
    def configured(name):
        path = ROOT / "params" / "configurations" / f"{name}.yaml"
        return Config.from_mapping(yaml.safe_load(path.read_text(encoding="utf-8")), str(path))

    for path in NOTEBOOKS:
        (cell,) = (cell for cell in cells(path, "code") if cell["id"] == "parameters")
        given = {name: ast.literal_eval(value) for name, value in re.findall(
            r"^(\w+): \w+ = (.+?)  # ", source(cell), re.M)}
        expected = vars(configured(given["name"]) if given.get("name") else Config())
        if path.stem == "04_feature_space":  # of what it shows only these are trained so
            trained = vars(configured("to_features"))
            expected |= {name: trained[name] for name in ("epochs", "batch_size", "lr")}
        expected |= {"weights_fallback": True}  # whoever opens one without a network is told
        assert given == {name: expected[name] for name in given}, path.stem


def test_parameter_cells_hold_what_is_used():
    used = {path.stem: {line.partition(":")[0] for cell in cells(path, "code")
                        if cell["id"] == "parameters" for line in source(cell).splitlines()[1:]}
            for path in NOTEBOOKS}
    features, pixels = {"layers", "distance", "kinds", "options"}, {
        "ssim_weight", "optimizer", "schedule", "loss"}
    assert not used["02_cae_baseline"] & (features | {"weights", "weights_fallback"})
    assert not used["03_resnet_ssim"] & features and not used["04_feature_space"] & pixels
    assert used["02_cae_baseline"] | used["03_resnet_ssim"] | used["04_feature_space"] == set(
        Config.__dataclass_fields__)


@pytest.mark.parametrize("stem", RUNS)
def test_the_spine_is_visible_and_in_order(stem):
    code = "\n".join(source(cell) for cell in cells(ROOT / "notebooks" / f"{stem}.ipynb", "code"))
    places = [code.find(step) for step in SPINE]
    assert -1 not in places and places == sorted(places)


@each
def test_every_markdown_cell_has_its_chinese(path):
    chinese = i18n.notebooks()[path.stem]
    assert set(chinese) == {cell["id"] for cell in cells(path, "markdown")}
    for cell in cells(path, "markdown"):
        text, other = source(cell), chinese[cell["id"]]
        assert re.search(r"[\u4e00-\u9fff]", other)
        assert re.findall(r"\$\$.+?\$\$", text) == re.findall(r"\$\$.+?\$\$", other)
        marks = [re.findall(r"^(#+ |- |\*\*\d\.\*\*)", part, re.M) for part in (text, other)]
        assert marks[0] == marks[1]


def test_the_chinese_is_of_notebooks_that_there_are():
    assert set(i18n.notebooks()) == {path.stem for path in NOTEBOOKS}


@each
def test_formulas_can_be_drawn_in_an_offline_page(path):
    for cell in cells(path, "markdown"):
        formulas = re.findall(r"\$\$(.+?)\$\$|\$([^$\n]+)\$", source(cell), re.DOTALL)
        drawn = render.formulas(source(cell))
        assert drawn.count("<math") == len(formulas)


def test_adlib_offers_names_and_loads_them_late():
    told = subprocess.run([sys.executable, "-c", "import sys, adlib; print('torch' in sys.modules)"],
                          capture_output=True, text=True, check=True, cwd=ROOT)
    assert told.stdout.strip() == "False"
    assert all(callable(getattr(adlib, name)) for name in adlib.__all__)
    assert set(adlib.__all__) <= set(dir(adlib))
    with pytest.raises(AttributeError, match="no attribute 'detekt'"):
        adlib.detekt  # noqa: B018


# ---- executed


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    root = tmp_path_factory.mktemp("drawn")
    drawing.write_dataset(root, train=8, good=3, anomalous=5, pixels=32)
    return root


def execute(notebook, folder, **parameters):
    """Run a notebook as papermill does: {id of a cell: its outputs' texts and kinds}."""
    words = [word for key, value in parameters.items() for word in ("-p", key, value)]
    output = folder / f"{notebook}.ipynb"
    begun = forked.begin("papermill", [ROOT / "notebooks" / f"{notebook}.ipynb", output, "-k",
                                       "python3", "-p", "reports", folder, *words])
    told, _ = begun.communicate(timeout=300)
    assert begun.returncode == 0, told[-3000:]
    return {cell.id: [output.get("data", {"text/plain": output.get("text", "")})
                      for output in cell.outputs]
            for cell in nbformat.read(output, as_version=4).cells if cell.cell_type == "code"}


def text(outputs):
    return "\n".join(str(output["text/plain"]) for output in outputs)


def test_the_autoencoders_notebook_runs(drawn, tmp_path):
    shown = execute("02_cae_baseline", tmp_path, data_root=drawn, category="hazelnut", epochs=2,
                    image_size=32, held_out=0.4, target_fpr=0.3, device="cpu")
    folder = tmp_path / "runs" / "hazelnut" / "cae_mse" / "seed-0"
    assert run_folder.status(folder).state == "finished"
    assert {path.name for path in folder.glob("*.png")} == {
        "loss_curve.png", "roc_curve.png", "score_distribution.png", "visualization_result.png"}
    assert "epoch    2/2" in text(shown["fit"]), "a line an epoch"
    assert "`loss_terms` says the same" in text(shown["loss-by-hand"])
    assert shown["maps-by-hand"][0]["text/html"].count("<img ") == 5
    assert re.search(r"p = \(1 \+ \d\) / \(1 \+ 3\)", text(shown["p-value-by-hand"]))


class Lab(NotebookClient):
    """Executes as JupyterLab does: somebody is there who could be asked."""
    async def async_start_new_kernel_client(self):
        client = await super().async_start_new_kernel_client()
        client.allow_stdin = True
        return client


def test_run_all_in_jupyterlab_leaves_the_runs_of_the_study_alone(drawn, tmp_path, monkeypatch):
    """In a copy below the project, with the defaults: the run's name is that of the study's own."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    given = {"data_root": str(drawn), "category": "hazelnut", "epochs": 1, "image_size": 32,
             "held_out": 0.4, "reports": str(tmp_path / "reports")}
    files.write_json(tmp_path / "reports/runs/hazelnut/cae_mse/seed-0/run.json", {})
    book = nbformat.read(ROOT / "notebooks" / "02_cae_baseline.ipynb", as_version=4)
    (parameters,) = (cell for cell in book.cells if cell.id == "parameters")
    parameters.source = "\n".join(
        f"{line.partition(' =')[0]} = {given[name]!r}" if (name := line.partition(":")[0]) in given
        else line for line in parameters.source.splitlines())
    kept = book.cells.index(next(cell for cell in book.cells if cell.id == "save")) + 1
    book.cells = [cell for cell in book.cells[:kept] if cell.id in (
        "parameters", "open", "fit", "calibrate", "evaluate", "save")]
    (tmp_path / "lab").mkdir()
    Lab(book, resources={"metadata": {"path": str(tmp_path / "lab")}}).execute()
    said = "".join(output.get("text", "") for cell in book.cells
                   for output in cell.get("outputs", []))
    assert "give save_as a name to keep it among the others" in said
    (scratch,) = (tmp_path / "reports" / "scratch" / "runs").glob("*/*/*")
    assert scratch.parts[-3:] == ("hazelnut", "cae_mse", "seed-0")
    assert run_folder.status(scratch).state == "finished"
    (study,) = (tmp_path / "reports" / "runs").glob("*/*/*")
    assert [path.name for path in study.iterdir()] == ["run.json"]


@pytest.mark.parametrize(("model", "held_out"), [("pca", 0.4), ("mean_grey", 0.0)])
def test_the_feature_notebook_runs(drawn, tmp_path, model, held_out):
    """With a backbone of its own and without; with images held out, and with none."""
    shown = execute("04_feature_space", tmp_path, data_root=drawn, category="zipper", name=model,
                    model=model, weights="none", image_size=32, held_out=held_out, device="cpu")
    folder = tmp_path / "runs" / "zipper" / model / "seed-0"
    assert run_folder.status(folder).state == "finished"
    assert {path.name for path in folder.glob("*.png")} == {
        "roc_curve.png", "score_distribution.png", "visualization_result.png"}
    assert "Nothing was trained" in text(shown["fit-detector"])
    assert "components explain all but" in text(shown["pca-by-hand"])
    assert "the patch nearest to it" in text(shown["show-neighbour"])


def test_the_overview_lists_what_lies_there(tmp_path):
    assert list(overview.notebooks()["notebook"]) == [path.name for path in NOTEBOOKS]
    assert overview.notebooks()["asks"][0].zh.startswith("哪个")
    assert "adlib run params/grids/quick.yaml" in set(overview.grids()["command"])
    assert overview.runs(tmp_path).empty
    folder = tmp_path / "runs" / "nut" / "pca" / "seed-3"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text('{"status": "failed", "error": "why"}')
    (run,) = overview.runs(tmp_path).to_dict("records")
    assert (run["category"], run["name"], run["seed"], run["state"]) == ("nut", "pca", 3, "failed")
    scores = {handmade.DISTANCE: handmade.ranks(handmade.category(), 2.0)}
    handmade.finished(tmp_path, "pca", scores)
    shown = tables.html(overview.runs(tmp_path), "Runs.")
    assert shown.count("<tr>") == 3 and "0.9" in shown and "[" not in shown  # no interval
    assert ">3</td>" in shown and "3.000" not in shown


def test_without_a_category_the_first_with_such_a_run_is_looked_at(tmp_path):
    config = Config(reports=str(tmp_path), name="pca")
    with pytest.raises(InputError, match="no finished run in .*; run `adlib run [^;]+ first$"):
        inference.existing(config)
    handmade.finished(tmp_path / "scratch", "pca", {handmade.DISTANCE: handmade.ranks(
        handmade.category("mine"), 2.0)}, where=handmade.category("mine"))
    with pytest.raises(InputError, match="without save_as is in .*scratch: give this folder as"):
        inference.existing(config)  # a newcomer who has gone from 02 to 05
    for name, category in (("pca", "b"), ("pca", "a"), ("memory", "0")):
        nut = handmade.category(category)
        handmade.finished(tmp_path, name, {handmade.DISTANCE: handmade.ranks(nut, 2.0)}, where=nut)
    assert inference.existing(config).category == "a"
    assert inference.existing(dataclasses.replace(config, category="b")).category == "b"
    with pytest.raises(InputError, match="no finished run a/pc/seed-0 in .*; did you mean 'a/pca/"):
        inference.existing(dataclasses.replace(config, category="a", name="pc"))
    for notebook in ("05_limits", "08_how_many"):
        cells = nbformat.read(ROOT / "notebooks" / f"{notebook}.ipynb", as_version=4).cells
        assert "existing(Config.from_notebook())" in "".join(cell.source for cell in cells)


def test_a_run_that_cannot_be_opened_is_told_of_with_why(course_root, tmp_path):
    folder = handmade.small_run(course_root, tmp_path, model="mean_grey", name="mean_grey")
    config = Config(category="nut", name="mean_grey", reports=str(tmp_path))
    table = folder / "all_results.csv"
    whole = table.read_text()
    table.write_text("path,split\n")
    with pytest.raises(InputError, match=r"all_results.csv has no column 'label'; run its"):
        explore.RunSelector(config)
    table.write_text(whole)
    run_folder.fail(folder, "out of memory")
    with pytest.raises(InputError, match=r"holds no finished run \(failed: out of memory\); run"):
        explore.RunSelector(config)
