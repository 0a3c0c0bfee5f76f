"""What the calibrator search asks of the store, and of the pipeline."""

from pathlib import Path

import pytest

from dsa110_contimg.exceptions import CalibrationError, EmptyInputError
from dsa110_contimg.io import groups
from dsa110_contimg.options import CalibrateOptions, PipelineOptions
from dsa110_contimg.service import search
from dsa110_contimg.settings import load_settings
from dsa110_contimg.state.database import open_database
from dsa110_contimg.state.registry import Registry
from dsa110_contimg.state.subbands import SubbandIndex

SAMPLES = Path(__file__).parents[2] / "data-samples"


def settings(tmp_path, **more):
    places = ("input_dir", "output_dir", "scratch_dir", "state_dir", "reports_dir")
    return load_settings(**{name: tmp_path / name for name in places}, **more)


def test_groups_are_found_with_or_without_a_database_and_none_is_made(tmp_path):
    ours = settings(tmp_path)
    (alone,) = search.groups_in(SAMPLES, ours)
    assert alone.group_id == "2026-01-26T04:51:13"
    assert list(tmp_path.iterdir()) == []
    index = SubbandIndex(open_database(ours.state_dir))
    (indexed,) = search.groups_in(str(SAMPLES), ours)
    assert indexed == alone
    assert len(index.known([file.path for file in alone.files])) == 16


def test_a_directory_without_files_is_an_error(tmp_path):
    with pytest.raises(EmptyInputError):
        search.groups_in(tmp_path, settings(tmp_path))


def test_solving_makes_and_registers_tables_of_the_group(tmp_path):
    ours = settings(tmp_path)
    (group,) = groups.discover(SAMPLES).groups
    solved = search.solve(group, ours)
    assert {"B", "G"} <= {table.kind for table in solved}
    assert {table.calibrator for table in solved if table.kind in ("B", "G")} == {"J0521+166"}
    assert all(table.path.is_dir() for table in solved)
    registered = Registry(open_database(ours.state_dir)).list_tables(None)
    assert {row["path"] for row in registered} == {str(table.path) for table in solved}
    # what is done already is not done again
    assert search.solve(group, ours) == solved


def test_a_group_without_a_calibrator_is_refused_before_anything_is_written(tmp_path):
    options = PipelineOptions(calibrate=CalibrateOptions(min_calibrator_jy=50.0))
    (group,) = groups.discover(SAMPLES).groups
    with pytest.raises(CalibrationError, match="No calibrator crosses the meridian in the group"):
        search.solve(group, settings(tmp_path, options=options))
    assert not (tmp_path / "output_dir").exists()
