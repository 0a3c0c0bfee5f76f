"""A night from the database, and its report."""

from __future__ import annotations

import json
from pathlib import Path

import nbformat
import pytest

from dsa110_contimg.reports import NightSummary, run_template, template_path
from dsa110_contimg.state.database import open_database
from dsa110_contimg.state.products import Products, Report

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
    other = tmp_path / "other.html"
    products.record_report(Report(other, other, "group", "2026-01-26", "2026-01-26T00:00:00", "bad"))
    return tmp_path / "state"


def test_a_night_holds_its_own_groups(state_dir: Path) -> None:
    summary = NightSummary.open(NIGHT, state_dir=str(state_dir))
    assert [row.group_id[11:] for row in summary.reports] == ["05:01:12", "05:06:22"]
    assert "1.10" in summary.table().body
    assert ERROR in summary.failures().body


def test_a_failed_group_makes_the_night_bad_and_is_named(state_dir: Path) -> None:
    verdict = NightSummary.open(NIGHT, state_dir=str(state_dir)).verdict()
    assert verdict.level == "bad"
    assert verdict.reasons == (f"{NIGHT}T05:06:22 failed at step calibrate",)
    json.dumps(verdict.to_dict(), allow_nan=False)


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
