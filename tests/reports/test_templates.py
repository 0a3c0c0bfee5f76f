"""The contract of the notebooks that papermill runs."""

from __future__ import annotations

import ast
import inspect

import nbformat
import pytest
from nbformat import NotebookNode

from dsa110_contimg.pipeline import STEPS, GroupRun
from dsa110_contimg.reports import NightSummary, template_parameters, template_path

NAMES = ("group", "night")
SELF_EXPLAINED = {"show-brightest", "show-provenance"}


def read(name: str) -> NotebookNode:
    notebook = nbformat.read(template_path(name), as_version=4)
    nbformat.validate(notebook)
    return notebook


def code(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def python(cell: NotebookNode) -> ast.Module:
    """The cell without magics."""
    return ast.parse("\n".join(line for line in cell.source.splitlines() if not line.startswith("%")))


@pytest.mark.parametrize(("name", "opens"), [("group", GroupRun.open), ("night", NightSummary.open)])
def test_the_parameters_are_those_of_the_function_that_takes_them(name: str, opens: object) -> None:
    signature = inspect.signature(opens)  # type: ignore[arg-type]
    assert set(template_parameters(template_path(name))) == set(signature.parameters)
    assert all(p.annotation == "str" for p in signature.parameters.values())


@pytest.mark.parametrize("name", NAMES)
def test_one_parameters_cell_of_empty_strings(name: str) -> None:
    cells = [cell for cell in code(read(name)) if "parameters" in cell.metadata.get("tags", [])]
    assert len(cells) == 1
    assert all(isinstance(node, ast.Assign) and ast.literal_eval(node.value) == "" for node in python(cells[0]).body)


@pytest.mark.parametrize("name", NAMES)
def test_cells_are_short_define_nothing_and_keep_no_outputs(name: str) -> None:
    for cell in code(read(name)):
        assert len(cell.source.splitlines()) <= 12, cell.id
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
        assert not [node for node in ast.walk(python(cell)) if isinstance(node, kinds)], cell.id
        assert cell.outputs == [], cell.id
        assert cell.execution_count is None, cell.id


def test_each_step_is_one_cell_in_the_order_of_the_pipeline() -> None:
    steps = [cell for cell in code(read("group")) if cell.id.startswith("step-")]
    assert tuple(cell.id.removeprefix("step-") for cell in steps) == STEPS
    assert [cell.source for cell in steps] == [f'run.step("{step}")' for step in STEPS]


@pytest.mark.parametrize("name", NAMES)
def test_every_cell_is_a_step_a_view_or_the_frame(name: str) -> None:
    cells = code(read(name))
    assert len({cell.id for cell in cells}) == len(cells)
    frame = [cell.id for cell in cells if not cell.id.startswith(("step-", "show-"))]
    assert frame == ["parameters", f"open-{name}", "verdict"]
    last_step = max((i for i, cell in enumerate(cells) if cell.id.startswith("step-")), default=0)
    assert [cell.id for cell in cells].index("verdict") > last_step


@pytest.mark.parametrize("name", NAMES)
def test_a_view_may_fail_and_a_step_may_not(name: str) -> None:
    for cell in code(read(name)):
        may_fail = "raises-exception" in cell.metadata.get("tags", [])
        assert may_fail == cell.id.startswith("show-"), cell.id


@pytest.mark.parametrize("name", NAMES)
def test_prose_before_each_figure_says_what_good_looks_like(name: str) -> None:
    cells = read(name).cells
    for i, cell in enumerate(cells):
        if cell.get("id", "").startswith("show-") and cell.id not in SELF_EXPLAINED:
            before = cells[i - 1]
            assert before.cell_type == "markdown", cell.id
            assert "Good" in before.source, cell.id
