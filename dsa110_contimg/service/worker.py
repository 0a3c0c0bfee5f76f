"""The worker: a directory of subband files becomes reports, group by group.

Calibrators' groups come first, because the others need their solutions; then the oldest. Each group is executed as a
notebook of its own, in a process of its own, several at a time: half of the work (CASA, files) uses one core. Who has
nothing to do while the calibrators are solved converts and flags the first of the others, which find that done. A group
that fails leaves its report, naming the failed step, and the next one goes on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from dsa110_contimg.exceptions import ContimgError
from dsa110_contimg.io import files
from dsa110_contimg.options import PipelineOptions
from dsa110_contimg.pipeline import STEPS, GroupRun, register
from dsa110_contimg.reports import ReportProduct, ReportRow, run_template, template_path, write_index
from dsa110_contimg.settings import Settings
from dsa110_contimg.state.database import open_database
from dsa110_contimg.state.products import Products, Report
from dsa110_contimg.state.queue import Queue

Tell = Callable[[str, int, int, str], None]
"""Called with a group, how many cells of its notebook are done, of how many, and the cell."""


@dataclass(frozen=True)
class Outcome:
    """What became of one group.

    Attributes
    ----------
    status : ``made``, ``nothing to do`` or ``failed``.
    """

    group_id: str
    is_calibrator: bool
    status: str
    verdict: str
    page: Path
    error: str = ""


@dataclass(frozen=True)
class Processed:
    """What `process` did: one outcome a group, and the input that could not be used."""

    outcomes: tuple[Outcome, ...]
    problems: tuple[ContimgError, ...]
    index: Path

    @property
    def ok(self) -> bool:
        """Whether nothing failed and no input was refused."""
        return not self.problems and all(o.status != "failed" for o in self.outcomes)


def process(
    directory: Path,
    settings: Settings,
    options: PipelineOptions,
    catalog_path: Path | None = None,
    tell: Tell | None = None,
    workers: int = 2,
) -> Processed:
    """Process every complete group of a directory, and write the reports.

    Parameters
    ----------
    directory : Path
        Where the subband files are.
    catalog_path : Path, optional
        A user's source list (see `io.catalogs.read_catalog`).
    tell : callable, optional
        From several threads.
    workers : int
        Groups at a time; their imagers share ``settings.threads``.

    Raises
    ------
    EmptyInputError
        No subband files.
    CatalogError
        The source list cannot be used.
    OutputError
        An output directory cannot be written; nothing has been touched then.
    """
    for place in (settings.output_dir, settings.scratch_dir, settings.state_dir, settings.reports_dir):
        files.make_directory(place)
    shared = {"threads": min(options.image.threads, max(1, settings.threads // workers))}
    options = options.model_copy(update={"image": options.image.model_copy(update=shared)})
    runs, problems = register(directory, settings, options, catalog_path)
    queue = Queue(open_database(settings.state_dir))
    queue.release_abandoned()
    outcomes = _all(runs, queue, settings, tell, workers)
    products = Products(queue.database)
    nights = [night for night in sorted({o.group_id[:10] for o in outcomes}) if _is_stale(settings.reports_dir / night)]
    for night in nights:
        made = _night(night, settings, products)
        if made.status == "failed":
            problems.append(ContimgError(f"The report of the night failed: {made.error}", path=made.html))
    index = settings.reports_dir / "index.html"
    if nights or not index.is_file():
        index = write_index(settings.reports_dir, [ReportRow.from_database(row) for row in products.list_reports()])
    return Processed(tuple(sorted(outcomes, key=lambda o: o.group_id)), tuple(problems), index)


_AFTER_CALIBRATION = f"step-{STEPS[STEPS.index('calibrate') + 1]}"
"""The cell that begins when a group's tables are registered."""
_AHEAD = 3
"""Groups that each worker may convert before the calibrators are solved; each is 2 GB on disk."""


def _all(runs: Sequence[GroupRun], queue: Queue, settings: Settings, tell: Tell | None, workers: int) -> list[Outcome]:
    """Calibrators, then the others as soon as the calibrators' tables are there.

    Work is taken in the order in which it is handed in, so nobody waits for the tables before all calibrators have
    been begun.
    """
    calibrators = [run for run in runs if run.is_calibrator]
    others = [run for run in runs if not run.is_calibrator]
    solved = {run.group_id: threading.Event() for run in calibrators}

    def calibrator(run: GroupRun) -> Outcome:
        def watch(group: str, done: int, total: int, cell: str) -> None:
            if cell == _AFTER_CALIBRATION:
                solved[group].set()
            if tell is not None:
                tell(group, done, total, cell)

        try:
            return _group(run, queue, settings, watch)
        finally:
            solved[run.group_id].set()

    ahead: dict[str, Future[None]] = {}

    def other(run: GroupRun) -> Outcome:
        for event in solved.values():
            event.wait()
        if run.group_id in ahead:  # handed in earlier, so it is being worked on or done
            ahead[run.group_id].result()
        return _group(run, queue, settings, tell)

    with ThreadPoolExecutor(workers) as pool:
        pending = [pool.submit(calibrator, run) for run in calibrators]
        if calibrators and workers > 1:
            ahead |= {run.group_id: pool.submit(_prepare, run) for run in others[: _AHEAD * workers]}
        pending += [pool.submit(other, run) for run in others]
        return [future.result() for future in pending]


def _prepare(run: GroupRun) -> None:
    """Convert and flag a group ahead of its notebook, which takes both from their checkpoints.

    What fails here fails there again, and is told there.
    """
    try:
        run.step("convert")
        run.step("flag")
    except ContimgError:
        return


def _is_stale(night: Path) -> bool:
    """Whether the night's page is absent, or older than a group's: a run may have been killed before it was made."""
    page = night / "night.html"
    groups = [other for other in night.glob("*.html") if other != page]
    made = page.stat().st_mtime if page.is_file() else 0.0
    return any(other.stat().st_mtime > made for other in groups)


def _group(run: GroupRun, queue: Queue, settings: Settings, tell: Tell | None) -> Outcome:
    """One group; an error outside its notebook (a report that cannot be written) is its own, and the others go on."""
    try:
        return _claimed(run, queue, settings, tell)
    except ContimgError as error:
        if queue.entry(run.group_id).state == "in_progress":
            queue.fail(run.group_id, str(error))
        page = settings.reports_dir / run.group_id[:10] / f"{run.group_id}.html"
        return Outcome(run.group_id, run.is_calibrator, "failed", "unknown", page, str(error))


def _claimed(run: GroupRun, queue: Queue, settings: Settings, tell: Tell | None) -> Outcome:
    night = settings.reports_dir / run.group_id[:10]
    page = night / f"{run.group_id}.html"
    rows = [row for row in run.products.list_reports(run.group_id[:10]) if row["kind"] == "group"]
    known = {row["group"]: row for row in rows}.get(run.group_id)
    if page.is_file() and known is not None and known["verdict"] != "failed" and run.is_done():
        return Outcome(run.group_id, run.is_calibrator, "nothing to do", known["verdict"], page)
    queue.retry(run.group_id)
    if queue.claim(run.group_id) is None:
        return Outcome(run.group_id, run.is_calibrator, "failed", "unknown", page, "Another worker has this group.")

    def progress(done: int, total: int, cell: str) -> None:
        if tell is not None:
            tell(run.group_id, done, total, cell)

    product = run_template(
        template_path("group"),
        night,
        parameters(run, settings),
        name=run.group_id,
        title=run.group_id,
        progress=progress,
    )
    run.products.record_report(_report(product, "group", run.group_id[:10], run.group_id))
    if product.status == "failed":
        queue.fail(run.group_id, product.error)
        error = f"step {product.failed_step}: {product.error}"
        return Outcome(run.group_id, run.is_calibrator, "failed", product.verdict, product.html, error)
    queue.complete(run.group_id)
    if run.is_calibrator:
        _calibration(run, settings)
    return Outcome(run.group_id, run.is_calibrator, "made", product.verdict, product.html)


def _calibration(run: GroupRun, settings: Settings) -> None:
    """The page of a calibrator's solutions, in the night's folder calibration; one that fails says so itself."""
    night = run.group_id[:10]
    values = {
        "group_id": run.group_id,
        "measurement_set": str(run.products_dir / "ms" / f"{run.group_id}.ms"),
        "state_dir": str(settings.state_dir),
        "bounds": str(run.options.judge.bounds or ""),
    }
    product = run_template(
        template_path("calibration_qa"),
        settings.reports_dir / night / "calibration",
        values,
        name=run.group_id,
        title=f"Calibration of {run.group_id}",
    )
    run.products.record_report(_report(product, "calibration", night, run.group_id))


def parameters(run: GroupRun, settings: Settings) -> dict[str, str]:
    """The parameters of ``templates/group.ipynb`` that make this run."""
    return {
        "group_id": run.group_id,
        "input_dir": str(run.group.files[0].path.parent),
        "output_dir": str(settings.output_dir),
        "scratch_dir": str(settings.scratch_dir),
        "state_dir": str(settings.state_dir),
        "reports_dir": str(settings.reports_dir),
        "catalog": str(run.catalog_path or ""),
        "run_label": run.run_label,
        "options_json": run.options.model_dump_json(),
    }


def _night(night: str, settings: Settings, products: Products) -> ReportProduct:
    values = {"night": night, "state_dir": str(settings.state_dir)}
    product = run_template(
        template_path("night"), settings.reports_dir / night, values, name="night", title=f"Night of {night}"
    )
    products.record_report(_report(product, "night", night, ""))
    return product


def _report(product: ReportProduct, kind: str, night: str, group_id: str) -> Report:
    thumbnail = {} if product.thumbnail is None else {"thumbnail": str(product.thumbnail)}
    return Report(
        html_path=product.html,
        notebook_path=product.notebook,
        kind=kind,
        night=night,
        group_id=group_id,
        verdict=product.verdict,
        failed_step=product.failed_step,
        error=product.error,
        summary=product.summary | thumbnail,
    )
