"""What lies in the project's folder: a user's own files beside the study's are no obstacle, or
named."""
import nbformat
import pytest

from adlib.config import InputError
from adlib.data import files
from adlib.report import overview


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setattr(overview, "study_root", lambda: tmp_path)
    return tmp_path


def test_a_notebook_that_opens_with_no_question_is_no_row(root):
    cells = {"mine": [], "code": [nbformat.v4.new_code_cell("# 1")],
             "asks": [nbformat.v4.new_markdown_cell("# 09 · Why?\n\nText.")]}
    for name, some in cells.items():
        files.write_text(root / "notebooks" / f"{name}.ipynb",
                         nbformat.writes(nbformat.v4.new_notebook(cells=some)))
    assert overview.notebooks().to_dict("records") == [{"notebook": "asks.ipynb", "asks": "Why?"}]


def test_a_file_that_is_no_grid_is_no_row_and_one_that_is_no_yaml_is_named(root):
    for name, text in {"grid": "configs: [pca, memory]", "list": "- a", "empty": "",
                       "one": "configs: pca"}.items():
        files.write_text(root / "params" / f"{name}.yaml", text)
    assert overview.grids().to_dict("records") == [
        {"command": "adlib run params/grid.yaml", "runs": "pca, memory"}]
    files.write_text(root / "params" / "broken.yaml", "a: [")
    with pytest.raises(InputError, match=r"(?s)broken.yaml is not valid YAML \(.*; mend or"):
        overview.grids()
