"""The house rules that a machine can check: imports, parameters, environment."""
import ast
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from adlib.config import Config
from adlib.report import comparison
from adlib.runs import freshness, grid

ROOT = Path(__file__).resolve().parents[1]
LAYERS = ("config", "data", "models", "evaluation", "runs", "report", "cli")  # an import goes down


def imported_layers(path):
    """The names below adlib that a module imports from: "data" of `from adlib.data.images import load`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "adlib":
            yield from (alias.name for alias in node.names if not alias.name.startswith("__"))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("adlib."):
            yield node.module.split(".")[1]


def test_an_import_never_goes_up():
    upward = []
    for path in (ROOT / "adlib").rglob("*.py"):
        own = path.relative_to(ROOT / "adlib").parts[0].removesuffix(".py")
        if own != "__init__":
            upward += [f"{path.relative_to(ROOT)} imports {other}" for other in imported_layers(path)
                       if LAYERS.index(other) > LAYERS.index(own)]
    assert not upward


def test_the_architecture_lists_every_file():
    listed = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    names = set(re.findall(r"[\w/.]+", listed.partition("    adlib/")[2].partition("cli.py")[0]))
    there = {f"{path.name}/" if path.is_dir() else path.stem
             for path in (ROOT / "adlib").glob("[a-z]*/*")  # without the folder of bytecode
             if not path.name.startswith("__")}
    assert {name for name in there if name not in names} == set()


SINGLE = sorted((ROOT / "params" / "configurations").glob("*.yaml"))


@pytest.mark.parametrize("path", SINGLE, ids=lambda path: path.stem)
def test_configuration_files(path):
    config = Config.from_mapping(yaml.safe_load(path.read_text()), path.name)
    assert config.name == path.stem
    assert path.stem in comparison.CONFIGURATIONS, "every configuration has a name to be shown"
    assert config.weights_fallback is False and config.seed == 0 and config.precision == "auto"
    if config.name in comparison.REFERENCE_ROWS:
        assert (config.model
                == "resnet18") == path.stem.startswith("resnet") and config.schedule == "one_cycle"
        assert config.ssim_weight == (0.5 if path.stem.endswith("ssim") else 0.0)


def test_the_references_own_settings(tmp_path):
    for category in ("hazelnut", "zipper"):
        (tmp_path / category / "train" / "good").mkdir(parents=True)
        (tmp_path / category / "test").mkdir()
        (tmp_path / category / "train" / "good" / "0.png").touch()
    planned = [
        task.config for task in grid.plan(ROOT / "params" / "grids" / "reference.yaml", data_root=str(tmp_path))
        if task.config
    ]
    assert {(one.category, one.model, one.epochs, one.lr, one.batch_size, one.schedule)
            for one in planned} == {("hazelnut", "cae", 100, 1e-3, 32, "reference"),
                                    ("hazelnut", "resnet18", 100, 1e-4, 32, "reference"),
                                    ("zipper", "cae", 100, 1e-3, 32, "reference"),
                                    ("zipper", "resnet18", 150, 1e-4, 32, "reference")}


def test_every_grid_but_the_tests_own_is_in_the_table_of_grids():
    table = set(re.findall(r"^\| `(\w+)` \|", (ROOT / "docs" / "cli.md").read_text(), re.MULTILINE))
    grids = {path.stem for path in (ROOT / "params" / "grids").glob("*.yaml")} - {"smoke"}
    assert grids == table - {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}


def test_every_configuration_is_in_a_grid():
    grids = [grid.read(path) for path in (ROOT / "params" / "grids").glob("*.yaml")]
    assert {path.stem for path in SINGLE} == {name for one in grids for name in one.configs}


def test_pixels_or_features_is_a_controlled_experiment():
    one, two, three = (yaml.safe_load((ROOT / "params" / "configurations" / f"{name}.yaml").read_text())
                       for name in ("to_pixels", "to_features", "to_features_squared"))

    def apart(a, b):
        return {key for key in a | b if a.get(key) != b.get(key)}

    assert apart(one, two) == {"name", "model", "distance"} and apart(
        two, three) == {"name", "distance"}


def test_environment_yml_follows_pyproject():
    tomllib = pytest.importorskip("tomllib", reason="needs Python 3.11 to read pyproject.toml")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"], *project["optional-dependencies"]["test"],
        "python" + project["requires-python"]
    ]
    conda = {"torch": "pytorch", "matplotlib": "matplotlib-base", "seaborn": "seaborn-base"}

    def split(text):
        name, version = re.fullmatch(r"([\w-]+)(.*)", text).groups()
        return conda.get(name, name) + version

    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["channels"] == ["conda-forge"]
    listed = {entry for entry in environment["dependencies"] if isinstance(entry, str)} - {"pip"}
    assert listed == {split(text) for text in wanted}


def test_a_file_is_one_idea():
    long = {str(path): lines for folder in ("adlib", "benchmarks", "tests")
            for path in (ROOT / folder).rglob("*.py")
            if (lines := len(path.read_text(encoding="utf-8").splitlines())) > 400}
    assert not long, f"two ideas in one file? {long}"


def packages():
    return {".".join(path.parent.relative_to(ROOT).parts)
            for path in (ROOT / "adlib").rglob("__init__.py")}


def test_what_is_installed_is_complete():
    tomllib = pytest.importorskip("tomllib", reason="needs Python 3.11 to read pyproject.toml")
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert set(listed) == packages() | {"adlib.notebooks", "adlib.params"}
    # what freshness reads are a package's modules
    assert not any(path.stat().st_size for name in freshness.NUMERIC
                   for path in (ROOT / "adlib" / name).rglob("__init__.py"))


def test_an_installed_adlib_plans_a_grid_and_finds_the_configurations_anywhere(tmp_path, mvtec_root):
    pytest.importorskip("setuptools", reason="builds a wheel")
    for name in ("adlib", "notebooks", "params"):
        shutil.copytree(ROOT / name, tmp_path / "source" / name,
                        ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, tmp_path / "source")
    build = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=tmp_path / "source",
                   check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    (tmp_path / "elsewhere" / "notebooks").mkdir(parents=True)  # somebody's own
    said = subprocess.run(
        [sys.executable, "-m", "adlib.cli", "run", "params/grids/quick.yaml", "--data",
         str(mvtec_root), "--dry-run"], cwd=tmp_path / "elsewhere", capture_output=True,
        encoding="utf-8", env=os.environ | {"PYTHONPATH": str(tmp_path / "site")})
    assert said.returncode == 0 and "due: nut fused seed 0 (never run)" in said.stdout, said


NOT_TEXT = {"os", "Image", "zipfile", "tarfile", "webbrowser"}  # whose `open` opens something else


def encodings_missing(source):
    """The lines of a source that read or write text in whatever encoding the system prefers."""
    for call in ast.walk(ast.parse(source)):
        if not isinstance(call, ast.Call):
            continue
        name, _, owner = ast.unparse(call.func).rpartition(".")[::-1]
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        mode = given.get("mode", " ".join(
            argument.value for argument in call.args
            if isinstance(argument, ast.Constant) and isinstance(argument.value, str)))
        text = {"open": "b" not in mode and owner not in NOT_TEXT,
                "TemporaryFile": mode and "b" not in mode,
                "NamedTemporaryFile": mode and "b" not in mode,
                "read_text": owner, "write_text": owner not in ("", "files"),
                **dict.fromkeys(("run", "Popen", "check_output"), "text" in given)}.get(name)
        if text and "encoding" not in given:
            yield call.lineno


def test_text_is_utf_8_whatever_the_system_prefers():
    """Windows prefers another encoding."""
    wrong = {str(path): lines for folder in ("adlib", "benchmarks")
             for path in (ROOT / folder).rglob("*.py")
             if (lines := list(encodings_missing(path.read_text(encoding="utf-8"))))}
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            if cell["cell_type"] == "code" and list(encodings_missing("".join(cell["source"]))):
                wrong[path.name] = cell["id"]
    assert not wrong
    lines = ("open(p)", "open(p, 'w')", "p.open()", "p.read_text()", "p.write_text(t)",
             "TemporaryFile('w+')", "run(c, text=True)")
    assert all(list(encodings_missing(line)) == [1] for line in lines)
    lines = ("open(p, 'rb')", "p.open(mode='wb')", "Image.open(p)", "p.read_text(encoding='u8')",
             "TemporaryFile(dir=d)", "run(c)", "files.write_text(p, t)")
    assert not any(list(encodings_missing(line)) for line in lines)
