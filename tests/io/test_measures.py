"""CASA's data directory: whole, complete to the last predicted day, and made once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from astropy.utils.iers import IERS_A
from astropy_iers_data import IERS_A_FILE

from dsa110_contimg.exceptions import OutputError
from dsa110_contimg.io.measures import measures_directory, ut1_source


@pytest.mark.parametrize("name", ["IERSpredict", "IERSpredict2000"])
def test_predictions_run_day_by_day_to_the_end_of_finals2000a(tmp_path: Path, name: str) -> None:
    from casacore.tables import table

    directory = measures_directory(tmp_path)
    with table(str(directory / "geodetic" / name), ack=False) as predicted:
        mjd, ut1 = predicted.getcol("MJD"), predicted.getcol("dUT1")
        # casacore refuses a table whose last row is not MJD0 + number of rows
        assert mjd[-1] == predicted.getkeyword("MJD0") + predicted.nrows()
    final = IERS_A.open(IERS_A_FILE)
    assert mjd[-1] == final["MJD"][-1].value
    np.testing.assert_array_equal(np.diff(mjd), 1.0)
    # the length of the day varies by less than 3 ms; a leap second would show as a step of 1 s
    assert np.abs(np.diff(ut1)).max() < 3e-3


def test_a_directory_that_lost_a_file_is_made_anew(tmp_path: Path) -> None:
    directory = measures_directory(tmp_path)
    victim = directory / "geodetic" / "TAI_UTC" / "table.f0"
    size = victim.stat().st_size
    victim.unlink()
    assert measures_directory(tmp_path) == directory
    assert victim.stat().st_size == size
    assert [path.name for path in tmp_path.iterdir()] == [directory.name]


def test_processes_that_start_together_share_one_directory(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from dsa110_contimg.io.measures import measures_directory\n"
        "sys.stdout.write(str(measures_directory(Path(sys.argv[1]))))"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    together = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    answers = {process.communicate(timeout=120)[0] for process in together}
    assert all(process.returncode == 0 for process in together)
    assert answers == {str(path) for path in tmp_path.iterdir()}


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("")
    with pytest.raises(OutputError, match="file"):
        measures_directory(blocker / "cache")


def test_the_source_of_ut1_names_both_packages() -> None:
    assert "python-casacore" in ut1_source()
    assert "astropy-iers-data" in ut1_source()
