"""Templates run: what a good, a failing and a dying one leave behind."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from dsa110_contimg.exceptions import InputError
from dsa110_contimg.records import ImageProduct
from dsa110_contimg.reports.metrics import judge
from dsa110_contimg.reports.render import (
    ReportProduct,
    _thumbnail,
    find_verdict,
    run_template,
    template_parameters,
    template_path,
)

KERNEL = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
VERDICT = """
from dsa110_contimg.reports.metrics import judge, load_bounds
middle = {b.name: 1.0 if b.good[0] else 0.0 for b in load_bounds().metrics}
judge(middle, {"n_sources": 7})
"""


def template(folder: Path, *cells: tuple[str, str]) -> Path:
    """A notebook with a parameters cell and these cells (id, source); views may raise."""
    made = [new_code_cell('greeting = ""\nother = ""', id="parameters", metadata={"tags": ["parameters"]})]
    for name, source in cells:
        if name.startswith("text"):
            made.append(new_markdown_cell(source, id=name))
        else:
            tags = {"tags": ["raises-exception"]} if name.startswith("show-") else {}
            made.append(new_code_cell(source, id=name, metadata=tags))
    path = folder / "small.ipynb"
    nbformat.write(new_notebook(cells=made, metadata=KERNEL), path)
    return path


def outputs(product: ReportProduct) -> str:
    notebook = nbformat.read(product.notebook, as_version=4)
    return "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> tuple[ReportProduct, list[tuple[int, int, str]]]:
    folder = tmp_path_factory.mktemp("good")
    path = template(
        folder,
        ("text-1", "## First part\n\nGood: it works."),
        ("step-one", "import sys\nprint(greeting, sys.executable)"),
        ("show-figure", "%matplotlib inline\nfrom matplotlib.figure import Figure\nf = Figure()\nf.subplots()\nf"),
        ("verdict", VERDICT),
    )
    told: list[tuple[int, int, str]] = []
    product = run_template(
        path, folder / "2026-01-25", {"greeting": "hello"}, name="g", title="Group <g>",
        progress=lambda *where: told.append(where),
    )  # fmt: skip
    return product, told


def test_a_good_run_leaves_notebook_page_and_verdict(good: tuple[ReportProduct, object]) -> None:
    product = good[0]
    assert (product.status, product.verdict, product.failed_step, product.error) == ("complete", "good", "", "")
    assert product.summary["n_sources"] == 7
    assert sorted(p.name for p in product.html.parent.iterdir()) == ["g.html", "g.ipynb"]
    assert find_verdict(nbformat.read(product.notebook, as_version=4)) is not None


def test_parameters_arrive_and_the_kernel_is_this_interpreter(good: tuple[ReportProduct, object]) -> None:
    assert f"hello {sys.executable}" in outputs(good[0])


def test_progress_names_every_cell_in_order(good: tuple[ReportProduct, list[tuple[int, int, str]]]) -> None:
    told = good[1]
    assert [where[0] for where in told] == list(range(len(told)))
    assert {where[1] for where in told} == {len(told)}
    assert [where[2] for where in told][-3:] == ["step-one", "show-figure", "verdict"]


def test_the_page_opens_with_the_verdict_and_needs_nothing_else(good: tuple[ReportProduct, object]) -> None:
    text = good[0].html.read_text()
    assert text.index("All numbers are within their bounds") < text.index("Good: it works.")
    assert 'href="../index.html"' in text
    assert 'href="#First-part"' in text
    assert 'id="First-part"' in text
    assert "Group &lt;g&gt;" in text
    assert not re.findall(r"""(?:src|href)=["'](?:https?:)?//""", text)
    assert "<script" not in text
    assert "data:image/png;base64" in text
    assert "<details" in text


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> ReportProduct:
    folder = tmp_path_factory.mktemp("failed")
    boom = (
        "from dsa110_contimg.exceptions import ImagingError\n"
        "raise ImagingError('It <diverged>', path='a.ms', found='1e30 Jy', expected='less')"
    )
    cells = (
        ("text-1", "## Before"), ("step-one", "1"), ("show-broken", "1 / 0"), ("step-image", boom),
        ("text-2", "## Never reached"), ("step-measure", "print('ran')"),
    )  # fmt: skip
    return run_template(template(folder, *cells), folder / "out", {})


def test_a_failed_step_is_named_with_its_paragraph(failed: ReportProduct) -> None:
    assert (failed.status, failed.verdict, failed.failed_step) == ("failed", "failed", "image")
    assert failed.error == "It <diverged>. File: a.ms. Found: 1e30 Jy. Expected: less."


def test_a_failed_run_still_has_its_page_and_notebook_which_say_so_on_top(failed: ReportProduct) -> None:
    text = failed.html.read_text()
    assert text.index("FAILED at step image") < text.index("Before")
    assert "It &lt;diverged&gt;. File: a.ms." in text
    assert "Never reached" not in text
    notebook = nbformat.read(failed.notebook, as_version=4)
    assert "FAILED at step image" in notebook.cells[0].source
    assert "ran" not in outputs(failed)


def test_a_view_that_fails_loses_no_step_and_no_verdict(tmp_path: Path) -> None:
    path = template(tmp_path, ("show-uv", "1 / 0"), ("step-two", "print('ran')"), ("verdict", VERDICT))
    product = run_template(path, tmp_path / "out", {})
    assert (product.status, product.failed_step) == ("incomplete", "view uv")
    assert product.error == "ZeroDivisionError: division by zero"
    assert product.verdict == "unknown"  # a figure that nobody saw is not good
    assert "ran" in outputs(product)
    assert "View uv could not be drawn" in product.html.read_text()


@pytest.mark.parametrize(
    ("source", "timeout_s", "says"),
    [("import os\nos._exit(9)", 60.0, "kernel died"), ("import time\ntime.sleep(60)", 1.0, "longer than 1 s")],
)
def test_a_kernel_that_dies_or_hangs_is_a_failed_step(tmp_path: Path, source: str, timeout_s: float, says: str) -> None:
    path = template(tmp_path, ("step-one", "1"), ("step-two", source), ("step-three", "1"))
    product = run_template(path, tmp_path / "out", {}, timeout_s=timeout_s)
    assert (product.status, product.failed_step) == ("failed", "two")
    assert says in product.error
    assert "FAILED at step two" in product.html.read_text()


def test_a_parameter_that_the_template_does_not_know_is_an_error(tmp_path: Path) -> None:
    path = template(tmp_path)
    assert template_parameters(path) == ("greeting", "other")
    with pytest.raises(InputError, match=r"grating.*greeting, other"):
        run_template(path, tmp_path / "out", {"grating": "hello"})
    assert not (tmp_path / "out").exists()


def test_what_is_not_a_notebook_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.ipynb"
    with pytest.raises(InputError, match=r"x\.ipynb"):
        template_parameters(path)
    path.write_text("{")
    with pytest.raises(InputError, match=r"x\.ipynb"):
        template_parameters(path)
    with pytest.raises(InputError, match="mosaic-of-cats"):
        template_path("mosaic-of-cats")


def test_an_image_that_is_gone_costs_the_thumbnail_and_not_the_report(tmp_path: Path) -> None:
    gone = tmp_path / "gone.fits"
    image = ImageProduct(*[gone] * 7, "g", 0.0, 0.0, 1.0, 2.0, 128, 6.0, 0.01, 0.01, 0.0, 1e-3, 1e-3, 1.4e9, 0.01)
    assert _thumbnail(judge({}, {"image": image.to_json()}), tmp_path / "g.jpg") is None
    assert _thumbnail(judge({}), tmp_path / "g.jpg") is None
    assert list(tmp_path.iterdir()) == []
