"""A calibrator's group is solved and registered on request; a group without one is refused and nothing registered."""

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from dsa110_contimg.commands.calibrate import solve as command
from dsa110_contimg.exceptions import CalibrationError
from dsa110_contimg.io.caltable import open_caltable
from dsa110_contimg.options import CalibrateOptions
from dsa110_contimg.pipeline import GroupRun
from dsa110_contimg.service.solving import solve
from dsa110_contimg.state.database import open_database
from dsa110_contimg.state.registry import Registry


def registered(settings):
    return Registry(open_database(settings.state_dir)).list_tables()


def test_a_flagged_measurement_set_is_solved_and_registered(night16, places):
    run = GroupRun(night16.groups[1], places)
    for step in ("convert", "flag"):
        run.step(step)
    path = run.records["convert"].path
    solved = solve(path, places, CalibrateOptions(solver="stefcal"))
    assert solved.calibrator == "J0521+166"
    assert [table.kind for table in solved.tables] == ["B", "G", "GP"]
    assert len(registered(places)) == 3
    assert solved.tables[0].refant == solved.ranking[0].name
    assert not open_caltable(solved.tables[0].path).FLAG.all()


def test_a_group_without_a_calibrator_is_refused(night16, places):
    settings = places.model_copy(update={"input_dir": night16.directory})
    with pytest.raises(CalibrationError, match="No calibrator crosses the beam"):
        solve(night16.directory.parent / night16.groups[0].group_id, settings, CalibrateOptions())
    assert registered(places) == []


def test_the_command_takes_a_preset_and_what_is_given_over_it(night16, tmp_path):
    app = typer.Typer()
    app.command()(command)
    folders = ("--out", "--state-dir", "--scratch-dir")
    where = [word for flag in folders for word in (flag, str(tmp_path / flag.strip("-")))]
    flags = ["--preset", "fast", "--chanbin", "8", "--solver", "stefcal", "--json"]
    group = night16.groups[1].group_id
    done = CliRunner().invoke(app, [group, "--input", str(night16.directory), *where, *flags])
    assert done.exit_code == 0, done.output
    tables = json.loads(done.stdout)
    assert [table["kind"] for table in tables] == ["B", "G", "GP"]
    assert open_caltable(Path(tables[0]["path"])).sizes["frequency"] == 96
    assert open_caltable(Path(tables[2]["path"])).sizes["time"] == 12


def test_options_of_a_preset_yield_to_what_is_given():
    assert CalibrateOptions(preset="fast").channel_bin == 4
    assert CalibrateOptions(preset="fast", channel_bin=2).channel_bin == 2
    fast = CalibrateOptions(preset="fast", channel_bin=2)
    assert CalibrateOptions.model_validate_json(fast.model_dump_json()) == fast
    assert CalibrateOptions() == CalibrateOptions(preset="standard")
    with pytest.raises(ValueError, match="does not divide"):
        CalibrateOptions(channel_bin=5)
