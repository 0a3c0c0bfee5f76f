"""Run a notebook template with typed parameters and leave a notebook and a page, whatever happens in between.

papermill executes the cells; the kernel is this interpreter, whatever kernels a user has installed. Cells are named by
their ids: ``step-<name>`` runs a step of the pipeline, ``show-<name>`` draws a view. A step that fails ends the run; a
view that fails (its cell is tagged ``raises-exception``) is reported and the run goes on: a plot loses no science.

The verdict stands in an output of the notebook as JSON (`metrics.VERDICT_MIME`) and nowhere else; the page is made from
the notebook alone, so that it can be made again.
"""

from __future__ import annotations

import base64
import html
import io
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsa110_contimg import views
from dsa110_contimg.exceptions import ContimgError, CorruptFileError, ExternalToolError, InputError
from dsa110_contimg.io.files import beside, make_directory
from dsa110_contimg.records import ImageProduct
from dsa110_contimg.reports.metrics import MARKS, VERDICT_MIME, Verdict

if TYPE_CHECKING:
    from nbformat import NotebookNode

ERROR_TAG = "papermill-error-cell-tag"
"""papermill removes cells with this tag when a notebook is run again; our own failure notice carries it too."""

_LARGE_PICTURE = 700_000

Progress = Callable[[int, int, str], None]
"""Called before each cell: cells done, cells in all, name of the cell (its id)."""


@dataclass(frozen=True)
class ReportProduct:
    """What a run left behind.

    Attributes
    ----------
    status : ``complete``, ``incomplete`` (a view failed) or ``failed`` (a step failed).
    verdict : good, suspect, bad, unknown or failed.
    failed_step : name of the step that failed, or of the first view that did; empty: none.
    error : one paragraph; empty: none.
    thumbnail : a small JPEG of the image beside the page; None without an image.
    summary : numbers for the index, from the verdict.
    """

    notebook: Path
    html: Path
    status: str
    verdict: str
    failed_step: str = ""
    error: str = ""
    thumbnail: Path | None = None
    summary: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Failure:
    """A cell that raised."""

    cell: str
    error: str
    is_view: bool

    @property
    def step(self) -> str:
        """The cell's name as a reader knows it."""
        return self.cell.removeprefix("step-").replace("show-", "view ")


def template_path(name: str) -> Path:
    """The template of that name (``group``, ``night``), installed in the package or lying in the checkout.

    Raises
    ------
    InputError
        There is none.
    """
    package = Path(str(files("dsa110_contimg")))
    places = [folder / "templates" / f"{name}.ipynb" for folder in (package, package.parent)]
    for place in places:
        if place.is_file():
            return place
    raise InputError("No such report template", path=places[-1], found=name, expected="group or night")


def template_parameters(template: Path) -> tuple[str, ...]:
    """Names that the template's ``parameters`` cell sets, in order.

    Raises
    ------
    InputError
        It is not a notebook.
    """
    import papermill
    from nbformat import ValidationError

    try:
        return tuple(papermill.inspect_notebook(template))
    except (OSError, ValueError, AttributeError, ValidationError) as error:
        raise InputError("Not a notebook", path=template, found=error, expected="a template (.ipynb)") from error


def run_template(
    template: Path,
    out_dir: Path,
    parameters: Mapping[str, str],
    *,
    name: str | None = None,
    title: str = "",
    timeout_s: float = 3600.0,
    progress: Progress | None = None,
) -> ReportProduct:
    """Execute a template and write ``<name>.ipynb`` and ``<name>.html`` into a directory.

    A step that fails is not an exception here: the product says so, and both files exist.

    Parameters
    ----------
    template : path of a notebook with a ``parameters`` cell
    out_dir : the night's folder, ``reports/YYYY-MM-DD``
    parameters : values by the names of the parameters cell
    name : stem of the files; default: the template's
    title : heading of the page; default: the name
    timeout_s : longest that one cell may take (s)
    progress : called before each cell

    Raises
    ------
    InputError
        The template is not a notebook, or does not know a parameter.
    OutputError
        The directory cannot be written.
    ExternalToolError
        The notebook's kernel does not start.
    """
    known = template_parameters(template)
    unknown = sorted(set(parameters) - set(known))
    if unknown:
        raise InputError("Unknown report parameter", path=template, found=", ".join(unknown), expected=", ".join(known))
    make_directory(out_dir)
    stem = name or template.stem
    notebook, failures = _execute(template, dict(parameters), timeout_s, progress)
    verdict = find_verdict(notebook)
    stopped = [failure for failure in failures if not failure.is_view]
    if stopped:
        _note_failure(notebook, stopped[0])
    product = ReportProduct(
        notebook=out_dir / f"{stem}.ipynb",
        html=out_dir / f"{stem}.html",
        status="failed" if stopped else "incomplete" if failures else "complete",
        verdict=_level(verdict, failures),
        failed_step=(stopped or failures)[0].step if failures else "",
        error=(stopped or failures)[0].error if failures else "",
        thumbnail=_thumbnail(verdict, out_dir / f"{stem}.jpg"),
        summary=(verdict.summary | {"reasons": list(verdict.reasons)}) if verdict else {},
    )
    _write(product, notebook, page(notebook, product, verdict, title or stem))
    return product


def _level(verdict: Verdict | None, failures: list[Failure]) -> str:
    """A failed step outweighs every number; a figure that is missing leaves something unseen."""
    if any(not failure.is_view for failure in failures):
        return "failed"
    if verdict is None:
        return "unknown"
    return "unknown" if failures and verdict.level == "good" else verdict.level


def _write(product: ReportProduct, notebook: NotebookNode, text: str) -> None:
    import nbformat

    with beside(product.notebook) as partial:
        partial.write_text(nbformat.writes(notebook), encoding="utf-8")
    with beside(product.html) as partial:
        partial.write_text(text, encoding="utf-8")


def _thumbnail(verdict: Verdict | None, path: Path) -> Path | None:
    if verdict is None or "image" not in verdict.summary:
        return None
    try:
        picture = views.thumbnail(ImageProduct.from_json(verdict.summary["image"]))
    except CorruptFileError:
        return None  # the view of the image has said so already; the report must not be lost for its icon
    with beside(path) as partial:
        partial.write_bytes(picture)
    return path


def _execute(
    template: Path, parameters: dict[str, str], timeout_s: float, progress: Progress | None
) -> tuple[NotebookNode, list[Failure]]:
    """Run the cells; the executed notebook comes back even if a cell, or the kernel, failed."""
    import papermill
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from papermill.engines import papermill_engines

    from dsa110_contimg.reports import engine  # needs papermill, which takes a second to import

    papermill_engines.register(engine.NAME, engine.OwnKernelEngine)
    stop = ""
    with tempfile.TemporaryDirectory(prefix="dsa110-kernel-") as folder:
        run = engine.Run(Path(folder), progress)
        try:
            papermill.execute_notebook(
                template, None, parameters=parameters, engine_name=engine.NAME, kernel_name="python3",
                language="python", progress_bar=False, log_output=False, run=run, execution_timeout=int(timeout_s),
            )  # fmt: skip
        except papermill.PapermillExecutionError:
            pass  # the notebook's own error outputs, read below, say more
        except DeadKernelError:
            last = _last_line(run.log) or "none"
            stop = f"The kernel died: out of memory, or killed from outside. Its last words: {last}"
        except RuntimeError as error:
            if run.current:
                raise
            raise ExternalToolError(
                "The kernel of the notebook did not start", found=_last_line(run.log) or error, expected="ipykernel"
            ) from error
        except CellTimeoutError:
            stop = f"The step took longer than {timeout_s:g} s and was stopped."
    notebook = run.notebook
    notebook.cells = [cell for cell in notebook.cells if ERROR_TAG not in cell.metadata.get("tags", [])]
    _compress_pictures(notebook)
    failures = _failures(notebook)
    if stop:
        # before the KeyboardInterrupt that a stopped cell may have shown
        failures.insert(0, Failure(run.current, stop, is_view=False))
    return notebook, failures


def _compress_pictures(notebook: NotebookNode) -> None:
    """Large PNG outputs as JPEG: PNG cannot compress an image of noise, and a month of reports would hold gigabytes."""
    from PIL import Image as Bitmap

    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if len(data.get("image/png", "")) > _LARGE_PICTURE:
                buffer = io.BytesIO()
                with Bitmap.open(io.BytesIO(base64.b64decode(data.pop("image/png")))) as picture:
                    picture.convert("RGB").save(buffer, "JPEG", quality=90, subsampling=0, optimize=True)
                data["image/jpeg"] = base64.b64encode(buffer.getvalue()).decode()
                output["metadata"]["image/jpeg"] = output["metadata"].pop("image/png", {})


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines() if log.is_file() else []
    return lines[-1] if lines else ""


def _failures(notebook: NotebookNode) -> list[Failure]:
    found = []
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                is_view = "raises-exception" in cell.metadata.get("tags", [])
                found.append(Failure(cell.get("id", ""), _paragraph(output), is_view))
    return found


def _paragraph(output: NotebookNode) -> str:
    """An error as one paragraph: ours say it all; of others the kind is part of the message."""
    message = " ".join(str(output.evalue).split())
    ours = {kind.__name__ for kind in _subclasses(ContimgError)}
    return message if output.ename.rsplit(".", 1)[-1] in ours else f"{output.ename}: {message}"


def _subclasses(kind: type[ContimgError]) -> set[type[ContimgError]]:
    found = {kind}
    for child in kind.__subclasses__():
        found |= _subclasses(child)
    return found


def _note_failure(notebook: NotebookNode, failure: Failure) -> None:
    """Say at the top of the notebook what the page says at its top."""
    from nbformat.v4 import new_markdown_cell

    text = f"**FAILED at step {failure.step}.** {failure.error}"
    notebook.cells.insert(0, new_markdown_cell(text, id="failure", metadata={"tags": [ERROR_TAG]}))


def find_verdict(notebook: NotebookNode) -> Verdict | None:
    """The verdict that an executed notebook shows; None if it did not come to one."""
    for cell in reversed(notebook.cells):
        for output in cell.get("outputs", []):
            if VERDICT_MIME in output.get("data", {}):
                return Verdict.from_dict(output.data[VERDICT_MIME])
    return None


def page(notebook: NotebookNode, product: ReportProduct, verdict: Verdict | None, title: str) -> str:
    """The HTML page of an executed notebook: one file, images inside, code folded away but there.

    Parameters
    ----------
    notebook : executed notebook
    product : what the page says on top
    verdict : with the reasons of the verdict
    title : heading
    """
    import nbformat
    from nbconvert import HTMLExporter
    from nbconvert.preprocessors import CoalesceStreamsPreprocessor

    data = files("dsa110_contimg") / "data"
    shown = nbformat.from_dict(notebook)
    shown.cells = _reached(shown, product)
    exporter = HTMLExporter(raw_template=(data / "report.html.j2").read_text(encoding="utf-8"))
    exporter.register_preprocessor(CoalesceStreamsPreprocessor, enabled=True)
    exporter.exclude_input_prompt = exporter.exclude_output_prompt = True
    resources = {
        "report": {
            "title": title,
            "style": (data / "report.css").read_text(encoding="utf-8"),
            "headings": _headings(shown),
            "product": product,
            "mark": MARKS[product.verdict],
            "reasons": list(verdict.reasons) if verdict else [],
            "bounds_date": verdict.bounds_date if verdict else "",
            "is_night": product.html.stem == "night",
        }
    }
    body, _ = exporter.from_notebook_node(shown, resources=resources)
    return str(body)


def _reached(notebook: NotebookNode, product: ReportProduct) -> list[NotebookNode]:
    """The cells up to the one that failed: prose without its figure would only promise. All, if none did.

    Of the parameters only those that were given are shown.
    """
    tags = {tag for cell in notebook.cells for tag in cell.metadata.get("tags", [])}
    left_out = {ERROR_TAG} | ({"parameters"} if "injected-parameters" in tags else set())
    cells = [cell for cell in notebook.cells if left_out.isdisjoint(cell.metadata.get("tags", []))]
    if product.status == "failed":
        names = [cell.get("id", "").removeprefix("step-") for cell in cells]
        if product.failed_step in names:
            return cells[: names.index(product.failed_step) + 1]
    return cells


def _headings(notebook: NotebookNode) -> list[tuple[str, str]]:
    """Anchor and text of every second-level heading, as nbconvert makes the anchors."""
    prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    texts = re.findall(r"^## +(.+?)\s*$", prose, flags=re.MULTILINE)
    return [(html.escape(text.replace(" ", "-"), quote=True), text) for text in texts]
