"""Gains between calibrators as a table: what is written is what the solutions say, with the bandpass applied."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from dsa110_contimg.exceptions import CalibrationError
from dsa110_contimg.io.caltable import open_caltable, write_caltable
from dsa110_contimg.records import CalTable, MeasurementSet
from dsa110_contimg.science import interpolation
from dsa110_contimg.stages.interpolate import interpolate

MJD, N_ANTENNAS, N_CHANNELS = 61065.9, 6, 16
GROUP = "2026-01-26T01:00:00"


def caltable(path: Path, kind: str, mjd: float, gain: np.ndarray, snr: float) -> CalTable:
    dims = ("time", "antenna_name", "frequency", "polarization")
    cube = gain.astype(np.complex64)[None]
    dead = np.zeros(cube.shape, bool)
    dead[:, 4] = True
    view = xr.Dataset(
        {"GAIN": (dims, cube), "FLAG": (dims, dead), "SNR": (dims, np.full(cube.shape, snr, np.float32))},
        {
            "time": [mjd],
            "antenna_name": [str(10 + n) for n in range(N_ANTENNAS)],
            "frequency": np.linspace(1.31e9, 1.49e9, cube.shape[2]),
            "polarization": ["X", "Y"],
        },
        {"kind": kind, "refant": "11"},
    )
    write_caltable(view, path)
    half = 0.5 if kind == "B" else 1 / 48
    order = {"B": 1, "G": 2}[kind]
    return CalTable(path, kind, path.stem, order, path.stem, "11", mjd, mjd - half, mjd + half, 0.0, snr, path.stem)


@pytest.fixture
def solutions(tmp_path, rng) -> list[tuple[CalTable, CalTable]]:
    """Two calibrators 8 h apart; amplitudes grow by 2 % in between, half of it in the bandpass and half in the gain."""
    shape = rng.uniform(0.8, 1.2, (N_ANTENNAS, N_CHANNELS, 2)) * np.exp(1j * rng.uniform(0, 6, (N_ANTENNAS, 1, 2)))
    made = []
    for number, name in enumerate(("early", "late")):
        mjd, size = MJD + number / 3, 1.01**number
        gain = size * np.exp(1j * rng.uniform(0, 6, (N_ANTENNAS, 1, 2)))
        made.append(
            (
                caltable(tmp_path / f"{name}.B", "B", mjd, size * shape, 40.0),
                caltable(tmp_path / f"{name}.G", "G", mjd, gain, 400.0),
            )
        )
    return made


def group(solutions, hours: float) -> MeasurementSet:
    """A group whose antennas are those of a table: what is read of its Measurement Set is their names."""
    middle, half = MJD + hours / 24, 150 / 86400
    return MeasurementSet(solutions[0][0].path, GROUP, 80.0, 16.6, middle - half, middle + half, N_ANTENNAS)


@pytest.mark.parametrize("hours", [2.0, 6.0])
def test_what_is_applied_is_the_interpolated_amplitude_whichever_bandpass_is_taken(solutions, tmp_path, hours) -> None:
    record = group(solutions, hours)
    for number in (0, 1):
        made = interpolate(record, solutions, solutions[number][0], tmp_path / f"out{number}", 30.0)
        gain, bandpass = open_caltable(made.table.path), open_caltable(solutions[number][0].path)
        first = open_caltable(solutions[0][0].path)
        alive = ~gain["FLAG"].to_numpy()[0, :, 0, 0]
        total = np.abs(gain["GAIN"].to_numpy() * bandpass["GAIN"].to_numpy())[0, alive]
        # 1.01 in the bandpass and 1.01 in the gain of the late solution
        expected = np.abs(first["GAIN"].to_numpy())[0, alive] * 1.01 ** (2 * hours / 8)
        assert total == pytest.approx(expected, rel=1e-4)
        assert list(np.flatnonzero(~alive)) == [4]
        assert np.angle(gain["GAIN"].to_numpy()[0, alive]) == pytest.approx(0.0, abs=1e-6)


def test_the_table_serves_its_group_alone_and_says_what_it_is_worth(solutions, tmp_path) -> None:
    record = group(solutions, 2.0)
    made = interpolate(record, solutions, solutions[0][0], tmp_path / "out", 30.0)
    table = made.table
    assert (table.kind, table.group_id, table.set_name, table.calibrator) == ("GA", GROUP, f"{GROUP}_field", "")
    assert (table.valid_from, table.valid_to) == pytest.approx((record.mjd_start, record.mjd_end))
    # the dead antenna is none that the bandpass has
    assert table.flagged_fraction == 0.0
    # three quarters of one and a quarter of the other, each of SNR 400
    assert table.median_snr == pytest.approx(400 / np.hypot(0.75, 0.25), rel=1e-3)
    assert made.quality["gap_hours"] == pytest.approx(2.0)
    assert made.quality["quality"] == interpolation.BEYOND_VALIDITY | interpolation.DRIFT_ASSUMED
    assert made.flux_scale_error > 2 / 400 / np.sqrt(2 * 5)


def test_without_solutions_there_is_nothing_to_write(solutions, tmp_path) -> None:
    with pytest.raises(CalibrationError, match="No solutions"):
        interpolate(group(solutions, 2.0), [], solutions[0][0], tmp_path / "out", 30.0)
    assert not (tmp_path / "out").exists()
    gone = [(dataclasses.replace(solutions[0][0], path=tmp_path / "gone"), solutions[0][1])]
    with pytest.raises(Exception, match="gone"):
        interpolate(group(solutions, 2.0), gone, solutions[0][0], tmp_path / "out", 30.0)
    assert not (tmp_path / "out").exists()
