"""A night from the database, and its report."""

from __future__ import annotations

import json
from pathlib import Path

import nbformat
import pytest

from dsa110_contimg.records import CalTable
from dsa110_contimg.reports import NightSummary, run_template, template_path
from dsa110_contimg.science.calibrated import BRACKETED, ONE_SIDED, ORIGINS, OWN
from dsa110_contimg.state.database import open_database
from dsa110_contimg.state.products import Products, Report
from dsa110_contimg.state.registry import Registry

NIGHT = "2026-01-25"
ERROR = "No table covers the time. Expected: a bandpass."


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    products = Products(open_database(tmp_path / "state"))
    numbers = {"noise_jy": 3.3e-4, "thermal_noise_jy": 3e-4, "median_ratio": 1.002, "n_bright": 20, "reasons": []}
    for clock, verdict, step, error in (("05:01:12", "good", "", ""), ("05:06:22", "failed", "calibrate", ERROR)):
        page = tmp_path / NIGHT / f"{NIGHT}T{clock}.html"
        summary = {} if step else numbers
        products.record_report(
            Report(page, page.with_suffix(".ipynb"), "group", NIGHT, page.stem, verdict, step, error, summary)
        )
    for clock, gains in (("05:11:31", BRACKETED), ("05:16:40", BRACKETED), ("05:21:50", ONE_SIDED), ("05:27:00", OWN)):
        page = tmp_path / NIGHT / f"{NIGHT}T{clock}.html"
        body = numbers | {"gains": gains}
        products.record_report(
            Report(page, page.with_suffix(".ipynb"), "group", NIGHT, page.stem, "good", summary=body)
        )
    _register_interpolated(tmp_path, (("05:11:31", 1.5, 0.004), ("05:16:40", 2.5, 0.008), ("05:21:50", 6.0, 0.03)))
    other = tmp_path / "other.html"
    products.record_report(Report(other, other, "group", "2026-01-26", "2026-01-26T00:00:00", "bad"))
    return tmp_path / "state"


def _register_interpolated(base: Path, groups: tuple[tuple[str, float, float], ...]) -> None:
    registry = Registry(open_database(base / "state"))
    for clock, hours, error in groups:
        group = f"{NIGHT}T{clock}"
        path = base / f"{group}.GA"
        path.mkdir()
        table = CalTable(path, "GA", f"{group}_field", 2, group, "", 61065.2, 61065.19, 61065.21, 0.0, 400.0)
        registry.register([table], quality={path: {"gap_hours": hours, "flux_scale_error": error, "quality": 2}})


def test_a_night_holds_its_own_groups(state_dir: Path) -> None:
    summary = NightSummary.open(NIGHT, state_dir=str(state_dir))
    assert [row.group_id[11:] for row in summary.reports][:2] == ["05:01:12", "05:06:22"]
    assert "1.10" in summary.table().body
    assert ERROR in summary.failures().body


def test_a_failed_group_makes_the_night_bad_and_is_named(state_dir: Path) -> None:
    verdict = NightSummary.open(NIGHT, state_dir=str(state_dir)).verdict()
    assert verdict.level == "bad"
    assert verdict.reasons == (f"{NIGHT}T05:06:22 failed at step calibrate",)
    json.dumps(verdict.to_dict(), allow_nan=False)


def test_the_calibrated_fraction_is_told_by_where_gains_are_from(state_dir: Path) -> None:
    """Of a group that was processed before its page said where its gains are from, nothing is claimed."""
    told = NightSummary.open(NIGHT, state_dir=str(state_dir)).calibration().text.splitlines()
    counts = dict(line.split("  ", 1) for line in told)
    assert [counts[name] for name in ORIGINS] == ["1  20%", "0  0%", "2  40%", "1  20%", "1  20%"]
    assert counts["interpolated gains: time to the nearest solution"].strip() == "median 2.5, largest 6 h"
    assert counts["interpolated gains: predicted error of a flux"].strip() == "median 0.8, largest 3 %"


def test_a_night_without_groups_is_unknown(state_dir: Path) -> None:
    summary = NightSummary.open("2025-01-01", state_dir=str(state_dir))
    assert summary.verdict().level == "unknown"
    assert repr(summary.failures()) == "nothing" or "Nothing failed" in summary.failures().text


def test_the_night_report_runs_on_the_database(state_dir: Path, tmp_path: Path) -> None:
    product = run_template(template_path("night"), tmp_path / NIGHT, {"night": NIGHT, "state_dir": str(state_dir)})
    assert (product.status, product.verdict, product.error) == ("complete", "bad", "")
    text = product.html.read_text()
    assert "failed at step calibrate" in text
    assert 'href="2026-01-25T05:01:12.html"' in text
    notebook = nbformat.read(product.notebook, as_version=4)
    assert not [o for cell in notebook.cells for o in cell.get("outputs", []) if o.output_type in ("error", "stream")]
