"""What the calibrator search asks of the store, and of the pipeline."""

from pathlib import Path

import pytest

from dsa110_contimg.exceptions import CalibrationError, EmptyInputError, InputError
from dsa110_contimg.io import groups
from dsa110_contimg.records import SubbandGroup
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
    seen = []
    solved = search.solve(group, ours).follow(seen.append)
    assert {"B", "G"} <= {table["kind"] for table in solved}
    assert {table["calibrator"] for table in solved if table["kind"] in ("B", "G")} == {"J0521+166"}
    assert all(Path(table["path"]).is_dir() for table in solved)
    registered = Registry(open_database(ours.state_dir)).list_tables(None)
    assert {str(row["path"]) for row in registered} == {table["path"] for table in solved}
    # its steps were seen while it ran, as on a terminal but without its control codes
    for step in ("convert", "calibrate"):
        assert any(step in screen for screen in seen)
    assert not any("\x1b" in screen or "\r" in screen for screen in seen)


def test_a_solution_that_is_cancelled_stops_and_registers_nothing(tmp_path):
    ours = settings(tmp_path)
    (group,) = groups.discover(SAMPLES).groups
    job = search.solve(group, ours)
    assert "dsa110 calibrate solve 2026-01-26T04:51:13" in job.command
    seen = []

    def cancel_when_begun(screen):
        seen.append(screen)
        if "solving" in screen:
            job.cancel()

    with pytest.raises(CalibrationError, match="cancelled"):
        job.follow(cancel_when_begun)
    assert seen
    assert not ours.database.is_file() or Registry(open_database(ours.state_dir)).list_tables(None) == []
    # to cancel what has ended does nothing
    job.cancel()


def test_a_group_without_a_calibrator_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setenv("PIPELINE_OPTIONS", '{"calibrate": {"min_calibrator_jy": 50}}')
    (group,) = groups.discover(SAMPLES).groups
    job = search.solve(group, settings(tmp_path))
    with pytest.raises(CalibrationError, match=r"^No calibrator crosses the beam in this group"):
        job.follow(lambda _: None)
    assert not (tmp_path / "output_dir").exists()


def test_a_group_that_is_no_files_is_refused():
    with pytest.raises(InputError, match="no files to solve on"):
        search.solve(SubbandGroup("planned", 61066.2, 16.64, ()))
