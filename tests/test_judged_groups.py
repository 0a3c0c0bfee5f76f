"""A calibration that is judged bad is not used: nothing is applied, its tables are registered as failed, and why."""

from __future__ import annotations

from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest
import yaml

from dsa110_contimg.exceptions import CalibrationError
from dsa110_contimg.io.caltable import open_caltable, write_caltable
from dsa110_contimg.options import JudgeOptions, PipelineOptions
from dsa110_contimg.pipeline import GroupRun
from dsa110_contimg.records import CalTable
from dsa110_contimg.science import interpolation
from dsa110_contimg.settings import Settings, load_settings

STEPS = ("convert", "flag", "calibrate", "apply")


def options(judge: JudgeOptions | None = None) -> PipelineOptions:
    """Gains are valid for a minute: the group before that of the calibrator lies outside."""
    plain = PipelineOptions()
    calibrate = plain.calibrate.model_copy(update={"gain_minutes": 1.0, "cross_check": False})
    return plain.model_copy(update={"calibrate": calibrate, "judge": judge or plain.judge})


def go(run: GroupRun) -> GroupRun:
    for name in STEPS:
        run.step(name)
    return run


def own_tables(run: GroupRun) -> dict[str, dict]:
    rows = run.registry.list_tables(run_label=run.run_label)
    return {row["kind"]: row for row in rows if row["group"] == run.group_id}


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> Settings:
    base = tmp_path_factory.mktemp("judged")
    return load_settings(**{n: base / n for n in ("output_dir", "scratch_dir", "state_dir", "reports_dir")})


@pytest.fixture(scope="module")
def calibrator(night16, settings) -> GroupRun:
    return go(GroupRun(night16.groups[1], settings, options()))


def impossible(path: Path, figure: str) -> JudgeOptions:
    """Bounds that no data meet in one figure."""
    body = yaml.safe_load((files("dsa110_contimg") / "data" / "bounds.yaml").read_text(encoding="utf-8"))
    body["calibration"][figure] |= {"good": [0.0, 0.01], "suspect": [0.0, 0.02]}
    path.write_text(yaml.safe_dump(body), encoding="utf-8")
    return JudgeOptions(bounds=path)


def test_gains_between_calibrators_are_judged_and_carry_their_bits(night16, settings, calibrator) -> None:
    """Amplitudes of one side, from one solution."""
    run = GroupRun(night16.groups[0], settings, options(JudgeOptions(fail_on="suspect")))
    with pytest.raises(CalibrationError, match=r"GA predicted error of a flux 5\.\d+ %") as failed:
        go(run)
    assert run.group_id in str(failed.value)
    tables = own_tables(run)
    assert {kind: row["status"] for kind, row in tables.items()} == {"GA": "failed", "GP": "failed"}
    assert "predicted error of a flux" in tables["GA"]["reason"]
    assert "apply" not in run.records

    usual = go(GroupRun(night16.groups[0], settings, options()))
    bits = interpolation.EXTRAPOLATED | interpolation.BEYOND_VALIDITY | interpolation.DRIFT_ASSUMED
    assert usual.records["calibrate"].quality == usual.records["apply"].quality == bits
    assert usual.records["apply"].flux_scale_error >= usual.records["calibrate"].flux_scale_error > 0.05
    assert calibrator.records["apply"].quality == 0
    assert calibrator.records["apply"].flux_scale_error < 0.03


def test_what_the_corrected_data_say_is_judged(night16, settings, calibrator, tmp_path) -> None:
    judge = impossible(tmp_path / "bounds.yaml", "residual_over_thermal")
    run = GroupRun(night16.groups[0], settings, options(judge))
    with pytest.raises(CalibrationError, match="data residual over thermal noise"):
        go(run)
    assert {kind: row["status"] for kind, row in own_tables(run).items()} == {"GA": "failed", "GP": "failed"}
    assert {row["status"] for row in own_tables(calibrator).values()} == {"active"}, "those of others stay"


def test_a_calibrator_is_held_against_the_one_before(night16, settings, calibrator, tmp_path) -> None:
    """The array is said to have been half as strong two hours before."""
    (bandpass,) = [table for table in calibrator.records["calibrate"].solved if table.kind == "B"]
    view = open_caltable(bandpass.path)
    view["GAIN"] = 0.5 * view["GAIN"]
    path = write_caltable(view, tmp_path / "earlier.B", like=calibrator.records["convert"].path)
    mjd = bandpass.mjd - 2 / 24
    earlier: CalTable = replace(
        bandpass, path=path, mjd=mjd, group_id="EARLIER", set_name="earlier", valid_from=mjd - 0.5, valid_to=mjd + 0.5
    )
    calibrator.registry.register([earlier], run_label="before")
    run = GroupRun(night16.groups[1], settings, options(), run_label="before")
    with pytest.raises(CalibrationError, match="B mean amplitude against the previous solution 69") as failed:
        go(run)
    assert "EARLIER" in str(failed.value)
    assert {row["status"] for row in own_tables(run).values()} == {"failed"}
