"""The index of all reports: one static page, made anew from the rows of the ``reports`` table each time."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from dsa110_contimg.io.files import beside
from dsa110_contimg.reports.metrics import LEVELS, MARKS
from dsa110_contimg.reports.render import ReportProduct


@dataclass(frozen=True)
class ReportRow:
    """One report, as the ``reports`` table holds it.

    Attributes
    ----------
    html_path, notebook_path : the page and the executed notebook.
    kind : ``group``, ``night`` or ``calibration``.
    night : YYYY-MM-DD, the folder it is filed under.
    group_id : empty for a night.
    verdict : good, unknown, suspect, bad or failed.
    failed_step, error : empty unless something failed.
    summary : numbers of the verdict: ``noise_jy``, ``thermal_noise_jy``, ``median_ratio``, ``n_sources``, ``n_bright``,
        ``calibrator``, ``reasons``, ``thumbnail``; any may be missing.
    """

    html_path: Path
    notebook_path: Path
    kind: str
    night: str
    group_id: str = ""
    verdict: str = "unknown"
    failed_step: str = ""
    error: str = ""
    summary: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_product(
        cls,
        product: ReportProduct,
        *,
        kind: str,
        night: str,
        group_id: str = "",
        extra: Mapping[str, Any] | None = None,
    ) -> ReportRow:
        """The row of a report just made.

        Parameters
        ----------
        product : ReportProduct
        kind, night, group_id : as the attributes
        extra : mapping, optional
            More for the index, such as the ``calibrator`` of the group.
        """
        summary = {key: value for key, value in product.summary.items() if key != "image"} | dict(extra or {})
        if product.thumbnail is not None:
            summary["thumbnail"] = product.thumbnail.name
        return cls(
            product.html, product.notebook, kind, night, group_id, product.verdict, product.failed_step, product.error,
            summary,
        )  # fmt: skip

    @classmethod
    def from_database(cls, row: Mapping[str, Any]) -> ReportRow:
        """A row as the state database lists it (``group`` or ``group_id``; ``summary`` as a mapping or as JSON)."""
        summary = row.get("summary") or {}
        return cls(
            html_path=Path(row["html_path"]),
            notebook_path=Path(row["notebook_path"]),
            kind=row["kind"],
            night=row["night"],
            group_id=row.get("group", row.get("group_id", "")),
            verdict=row["verdict"],
            failed_step=row["failed_step"],
            error=row["error"],
            summary=json.loads(summary) if isinstance(summary, str) else dict(summary),
        )


@dataclass(frozen=True)
class Night:
    """The reports of one night; ``counts`` by verdict, worst first; ``calibrations`` by group."""

    date: str
    page: ReportRow | None
    groups: tuple[ReportRow, ...]
    calibrations: Mapping[str, ReportRow] = field(default_factory=dict)

    @property
    def counts(self) -> tuple[tuple[str, int], ...]:
        """How many groups have each verdict, the worst first."""
        levels = [row.verdict for row in self.groups]
        return tuple((level, levels.count(level)) for level in reversed(LEVELS) if level in levels)


def nights(rows: Iterable[ReportRow]) -> list[Night]:
    """Reports by night, the newest night first, the groups of a night in time."""
    by_date: dict[str, list[ReportRow]] = {}
    for row in rows:
        by_date.setdefault(row.night, []).append(row)
    found = []
    for date in sorted(by_date, reverse=True):
        groups = sorted((row for row in by_date[date] if row.kind == "group"), key=lambda row: row.group_id)
        page = next((row for row in by_date[date] if row.kind == "night"), None)
        solved = {row.group_id: row for row in by_date[date] if row.kind == "calibration"}
        found.append(Night(date, page, tuple(groups), solved))
    return found


def write_index(reports_dir: Path, rows: Iterable[ReportRow]) -> Path:
    """Write ``index.html``: every night with its groups, verdicts, thumbnails and numbers.

    Links are relative to the directory, so that it can be moved or served as it is.

    Parameters
    ----------
    reports_dir : root of the reports
    rows : every report

    Returns
    -------
    Path of the page.

    Raises
    ------
    OutputError
        The directory cannot be written.
    """
    import jinja2

    data = files("dsa110_contimg") / "data"
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters |= {"mjy": _millijansky, "ratio": _ratio}
    template = environment.from_string((data / "index.html.j2").read_text(encoding="utf-8"))
    listed = nights(rows)
    text = template.render(
        style=(data / "report.css").read_text(encoding="utf-8"),
        nights=listed,
        marks=MARKS,
        number=sum(len(night.groups) for night in listed),
        link=lambda path: _relative(Path(path), reports_dir),
    )
    path = reports_dir / "index.html"
    with beside(path) as partial:
        partial.write_text(text, encoding="utf-8")
    return path


def _relative(path: Path, root: Path) -> str:
    """Path from the index to a report; one that lies elsewhere keeps its full path."""
    whole, base = path.absolute(), root.absolute()
    return whole.relative_to(base).as_posix() if whole.is_relative_to(base) else whole.as_uri()


def _millijansky(value: float | None) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value * 1e3:.2f}"


def _ratio(value: float | None) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.3f}"
