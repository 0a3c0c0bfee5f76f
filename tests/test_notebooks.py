"""Notebooks run from top to bottom, and are kept without what they made."""

from __future__ import annotations

import ast
import itertools
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode
from traitlets.config import Config

from dsa110_contimg.reports.engine import OwnKernelManager

ROOT = Path(__file__).parents[1]
SHOWN = sorted((ROOT / "notebooks").glob("*.ipynb"))
ALL = [*SHOWN, *sorted((ROOT / "templates").glob("*.ipynb"))]
CELL_LINES = 12
LONGEST_S = 300


def _read(path: Path) -> NotebookNode:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return notebook


def _code(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def _run(path: Path, folder: Path) -> NotebookNode:
    """The notebook as executed where it lies, by this interpreter and with nobody's IPython profile."""
    notebook = _read(path)
    (folder / "ipython").mkdir()
    connection = {"transport": "ipc", "connection_file": str(folder / "kernel.json")}
    client = NotebookClient(
        notebook,
        timeout=LONGEST_S,
        kernel_manager_class=OwnKernelManager,
        config=Config({"OwnKernelManager": {"log_path": str(folder / "kernel.log"), **connection}}),
        extra_arguments=[f"--ipython-dir={folder / 'ipython'}"],
        resources={"metadata": {"path": str(path.parent)}},
    )
    return client.execute()


def test_there_is_a_notebook_to_begin_with() -> None:
    assert "quickstart.ipynb" in [path.name for path in SHOWN]


@pytest.mark.parametrize("path", SHOWN, ids=lambda path: path.stem)
def test_it_runs_and_every_cell_that_shows_something_does(path: Path, tmp_path: Path) -> None:
    for cell in _code(_run(path, tmp_path)):
        kinds = {kind for output in cell.outputs for kind in output.get("data", {})}
        if cell.id.startswith("show-"):
            assert kinds & {"image/png", "text/html"}, cell.id
        # what a program says on its error channel is a warning that a reader would see
        assert [output.text for output in cell.outputs if output.get("name") == "stderr"] == [], cell.id


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_it_is_kept_without_outputs_and_defines_nothing(path: Path) -> None:
    for cell in _code(_read(path)):
        assert cell.outputs == [], cell.id
        assert cell.execution_count is None, cell.id
        assert len(cell.source.splitlines()) <= CELL_LINES, cell.id
        source = "\n".join(line for line in cell.source.splitlines() if not line.startswith("%"))
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
        assert not [node for node in ast.walk(ast.parse(source)) if isinstance(node, kinds)], cell.id


@pytest.mark.parametrize("path", SHOWN, ids=lambda path: path.stem)
def test_prose_comes_first_and_between_what_is_shown(path: Path) -> None:
    cells = _read(path).cells
    assert cells[0].cell_type == "markdown"
    for before, cell in itertools.pairwise(cells):
        if cell.cell_type == "code" and cell.id.startswith("show-"):
            assert not before.id.startswith("show-"), cell.id


def test_notebooks_pass_nbval():
    """As anybody would check them: every cell runs, in a kernel of this environment."""
    plugins = ["-p", "no:cacheprovider", "-p", "no:xdist"]
    command = [sys.executable, "-m", "pytest", "--nbval-lax", "-q", *plugins, "notebooks"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
