"""A night from the state database: what its groups gave, what they are worth, and what failed."""

from __future__ import annotations

import html
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dsa110_contimg import views
from dsa110_contimg.reports.index import ReportRow
from dsa110_contimg.reports.metrics import LEVELS, MARKS, Judged, Verdict, load_bounds
from dsa110_contimg.science.calibrated import NONE, ORIGINS
from dsa110_contimg.settings import load_settings
from dsa110_contimg.state.checkpoints import code_version
from dsa110_contimg.state.database import open_database
from dsa110_contimg.state.products import Products
from dsa110_contimg.state.registry import Registry


@dataclass(frozen=True)
class NightSummary:
    """The rows of one night.

    Attributes
    ----------
    night : YYYY-MM-DD, the folder the groups' reports are filed under.
    reports : one a group, in time.
    images, photometry : rows as `state.products.Products` lists them.
    interpolated : figures of the gains of groups between calibrators, as the registry keeps them.
    """

    night: str
    reports: tuple[ReportRow, ...]
    images: list[dict[str, Any]]
    photometry: list[dict[str, Any]]
    interpolated: list[dict[str, Any]]
    state_dir: Path

    @classmethod
    def open(cls, night: str, *, state_dir: str = "", run_label: str = "") -> NightSummary:
        """A night from plain text, as the notebook's parameters give it; empty means the configured value."""
        settings = load_settings(**({"state_dir": Path(state_dir)} if state_dir else {}))
        database = open_database(settings.state_dir)
        products = Products(database)
        rows = [ReportRow.from_database(row) for row in products.list_reports(night, run_label=run_label)]
        gains = Registry(database).list_tables("GA", run_label=run_label)
        groups = {row.group_id: row for row in sorted(rows, key=lambda row: row.group_id) if row.kind == "group"}
        return cls(
            night=night,
            reports=tuple(groups.values()),
            images=[row for row in products.list_images(run_label=run_label) if row["group"] in groups],
            photometry=[row for row in products.list_photometry(run_label=run_label) if row["group"] in groups],
            interpolated=[
                row["quality"]
                for row in gains
                if row["group"] in groups and row["status"] == "active" and "gap_hours" in row["quality"]
            ],
            state_dir=settings.state_dir,
        )

    def verdict(self) -> Verdict:
        """The worst of the groups' verdicts, with the reason of each that is not good; unknown without groups."""
        judged = tuple(_judged(row) for row in self.reports)
        worst = max((row.verdict for row in self.reports), key=LEVELS.index, default="unknown")
        # a group that failed makes the night bad; the night's own report did not fail
        level = "bad" if worst == "failed" else worst
        return Verdict(level, judged, load_bounds().date, {"n_groups": len(self.reports)})

    def table(self) -> views.Markup:
        """Groups with their verdicts and numbers, linked to their pages."""
        heads = ("group (UTC)", "verdict", "noise (mJy/beam)", "over thermal", "flux ratio", "bright", "calibrator")
        return views.table(heads, [_cells(row) for row in self.reports], "no groups")

    def calibration(self) -> views.Markup:
        """How many groups were calibrated from what, and how far those between calibrators were from one."""
        origins = [_gains_of(row) for row in self.reports]
        counts = Counter(origin for origin in origins if origin)
        rows = [[name, str(counts[name]), f"{counts[name] / counts.total():.0%}"] for name in ORIGINS if counts]
        for name, figure, scale, unit in (
            ("time to the nearest solution", "gap_hours", 1.0, "h"),
            ("predicted error of a flux", "flux_scale_error", 100.0, "%"),
        ):
            values = [scale * _finite(one.get(figure)) for one in self.interpolated]
            if values:
                told = f"median {np.median(values):.2g}, largest {max(values):.2g} {unit}"
                rows.append([f"interpolated gains: {name}", told, ""])
        return views.table(("gains from", "groups", "fraction"), rows, "No group is known to be calibrated.")

    def failures(self) -> views.Markup:
        """Groups that failed: where, and why."""
        failed = [row for row in self.reports if row.failed_step]
        rows = [[_link(row), html.escape(row.failed_step), html.escape(row.error)] for row in failed]
        return views.table(("group (UTC)", "failed step", "error"), rows, "Nothing failed.")

    def provenance(self) -> dict[str, str]:
        """What a reader needs to make this page again."""
        return {
            "night": self.night,
            "groups": ", ".join(row.group_id for row in self.reports) or "none",
            "state database": str(self.state_dir),
            "bounds of": load_bounds().date,
            "code": code_version(),
        }


def _judged(row: ReportRow) -> Judged:
    """One group as a line of the night's verdict."""
    reasons = [str(reason) for reason in row.summary.get("reasons", [])]
    text = f"failed at step {row.failed_step}" if row.verdict == "failed" else row.verdict
    why = row.error if row.verdict == "failed" else "; ".join(reasons)
    return Judged(row.group_id, row.group_id, None, text, row.verdict, "", why)


def _gains_of(row: ReportRow) -> str:
    """One of `science.calibrated.ORIGINS`; empty if it is not known, as of a group that failed before."""
    return NONE if row.failed_step == "calibrate" else str(row.summary.get("gains", ""))


def _link(row: ReportRow) -> str:
    return f'<a href="{html.escape(row.html_path.name)}">{html.escape(row.group_id[11:] or row.group_id)}</a>'


def _cells(row: ReportRow) -> list[str]:
    numbers = {name: _finite(row.summary.get(name)) for name in ("noise_jy", "thermal_noise_jy", "median_ratio")}
    noise, thermal, ratio = numbers.values()
    return [
        _link(row),
        f'<span class="chip {row.verdict}">{MARKS[row.verdict]} {row.verdict}</span>',
        _number(noise * 1e3, 2),
        _number(noise / thermal, 2),
        _number(ratio, 3),
        html.escape(str(row.summary.get("n_bright", "–"))),
        html.escape(str(row.summary.get("calibrator", ""))),
    ]


def _finite(value: object) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else "–"
