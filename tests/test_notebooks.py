"""The notebooks: what is saved in them, and that they run from the top to the bottom."""

import os
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "tutorials").glob("*.ipynb"))
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path):
    return nbformat.read(path, as_version=4)


def outputs(notebook, kinds):
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.output_type in kinds:
                yield output


def test_they_are_numbered_and_listed():
    assert [path.stem[:2] for path in NOTEBOOKS] == ["01", "02", "03", "04", "05", "06"]
    readme = (ROOT / "README.md").read_text()
    assert all(f"tutorials/{path.name}" in readme for path in NOTEBOOKS)


@each_notebook
def test_what_is_saved(path):
    notebook = read(path)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    # Run in one go, from the top to the bottom, on a fresh kernel.
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert not list(outputs(notebook, ["error"]))
    text = path.read_text()
    assert not re.search(r"/(tmp|home|root|work|opt|Users)/\w", text)
    assert '"name": "stderr"' not in text
    printed = list(outputs(notebook, ["stream"]))
    assert printed
    pictures = list(outputs(notebook, ["display_data", "execute_result"]))
    shown = ["image/png" in output.data for output in pictures]
    # Of migration and of loops there is nothing to draw.
    assert any(shown) or path.stem[:2] in ("03", "05", "06")


@each_notebook
def test_links_lead_somewhere(path):
    for cell in read(path).cells:
        if cell.cell_type == "markdown":
            for target in re.findall(r"\]\((?!http)([^)#]+)\)", cell.source):
                assert (path.parent / target).exists(), target


@pytest.mark.slow
@each_notebook
def test_runs(path, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    notebook = read(path)
    before = [cell.get("outputs", []) for cell in notebook.cells]
    NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    ).execute()
    for cell, old in zip(notebook.cells, before, strict=True):
        new = [o for o in cell.get("outputs", []) if o.get("name") != "stderr"]
        # The same cells print, draw, or do neither.
        assert {o.output_type for o in new} == {o.output_type for o in old}, cell.source
