"""CASA tables open as declared, ours and others', and what is written is what was opened."""

import zipfile

import numpy as np
import pytest
import xarray as xr

from dsa110_contimg import schema
from dsa110_contimg.exceptions import CorruptFileError, InputError
from dsa110_contimg.io.caltable import open_caltable, write_caltable
from dsa110_contimg.io.ms import opened
from dsa110_contimg.settings import load_settings


def table(kind="B Jones", n_times=1, frequency=None, seed=0, n_antennas=5):
    """A CalTable view of random gains; the fourth antenna and a channel of the second are flagged."""
    rng = np.random.default_rng(seed)
    frequency = 1.4e9 + 244140.625 * np.arange(8) if frequency is None else np.asarray(frequency)
    shape = (n_times, n_antennas, frequency.size, 2)
    gain = (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)
    flag = np.zeros(shape, bool)
    flag[:, 3], flag[:, 1, 0] = True, True
    dims = ("time", "antenna_name", "frequency", "polarization")
    return xr.Dataset(
        {
            "GAIN": (dims, gain),
            "FLAG": (dims, flag),
            "SNR": (dims, rng.uniform(5, 100, shape).astype(np.float32)),
            "ERROR": (dims, rng.uniform(0.01, 0.1, shape).astype(np.float32)),
        },
        coords={
            "time": 61066.2 + np.arange(n_times) * 1e-3,
            "antenna_name": [str(17 + 3 * k) for k in range(n_antennas)],
            "frequency": frequency,
            "channel_width": ("frequency", np.full(frequency.size, 244140.625)),
            "spectral_window": ("frequency", np.zeros(frequency.size, int)),
            "polarization": ["X", "Y"],
        },
        attrs={"kind": kind, "refant": "20"},
    )


def require_equal(found, expected):
    for name in expected.variables:
        if name == "time":
            # MJD seconds in double precision
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-13)
        else:
            np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
    assert found.attrs["kind"] == expected.attrs["kind"] and found.attrs["refant"] == expected.attrs["refant"]


@pytest.mark.parametrize(("kind", "n_times"), [("B Jones", 1), ("G Jones", 4)])
def test_what_is_written_is_opened_again(tmp_path, kind, n_times):
    expected = table(kind, n_times, frequency=None if kind == "B Jones" else [1.405e9])
    found = open_caltable(write_caltable(expected, tmp_path / "t"))
    require_equal(found, expected)
    assert schema.faults(found, schema.CALTABLE) == []


def test_several_windows_are_joined_along_frequency_and_parted_again(tmp_path):
    expected = table(n_times=2)
    expected = expected.assign_coords(spectral_window=("frequency", np.repeat([2, 1], 4)))
    path = write_caltable(expected, tmp_path / "t")
    with opened(path) as main:
        assert main.nrows() == 2 * 2 * 5
        assert main.getcell("CPARAM", 0).shape == (4, 2)
    require_equal(open_caltable(path), expected)


def test_windows_that_were_solved_together_have_one_time_although_their_means_differ(tmp_path):
    path = write_caltable(
        table(n_times=2).assign_coords(spectral_window=("frequency", np.repeat([0, 1], 4))), tmp_path / "t"
    )
    with opened(path, writable=True) as main:
        main.putcol("TIME", main.getcol("TIME") + 0.5 * main.getcol("SPECTRAL_WINDOW_ID"))
    found = open_caltable(path)
    assert found.sizes["time"] == 2
    assert not found["FLAG"].all(dim=("time", "antenna_name", "polarization")).any()


def test_delays_are_opened_and_written_in_seconds(tmp_path):
    expected = table("K Jones", frequency=[1.405e9])
    delay = np.random.default_rng(1).uniform(-30, 30, expected.GAIN.shape).astype(np.float32).astype(float) * 1e-9
    expected["DELAY"] = (expected.GAIN.dims, delay)
    expected["GAIN"][...] = 1.0
    path = write_caltable(expected, tmp_path / "t")
    with opened(path) as main:
        np.testing.assert_allclose(main.getcol("FPARAM")[:, 0], delay[0, :, 0] * 1e9, rtol=1e-6)
        assert main.getkeyword("ParType") == "Float"
    found = open_caltable(path)
    np.testing.assert_allclose(found.DELAY, delay, rtol=1e-6)
    np.testing.assert_array_equal(found.GAIN, 1.0)


def test_a_gain_of_both_receptors_stands_at_both(tmp_path):
    one = table("T Jones", frequency=[1.405e9])
    found = open_caltable(write_caltable(one, tmp_path / "t"))
    for receptor in range(2):
        np.testing.assert_array_equal(found.GAIN.isel(polarization=receptor), one.GAIN.isel(polarization=0))


def test_antennas_are_numbered_as_in_the_table_that_it_is_to_be_like(tmp_path):
    like = write_caltable(table(n_antennas=7), tmp_path / "like")
    part = table().isel(antenna_name=[4, 0, 2])
    found = open_caltable(write_caltable(part, tmp_path / "t", like))
    assert found.antenna_name.to_numpy().tolist() == [str(17 + 3 * k) for k in range(7)]
    assert found.FLAG.isel(antenna_name=[1, 3, 5, 6]).all()
    require_equal(found.isel(antenna_name=[4, 0, 2])[["GAIN", "FLAG"]], part[["GAIN", "FLAG"]])
    stranger = table().assign_coords(antenna_name=[str(k) for k in range(5)])
    with pytest.raises(InputError, match="Antennas that are not there"):
        write_caltable(stranger, tmp_path / "u", like)
    assert not (tmp_path / "u").exists()


def test_values_without_a_solution_are_written_flagged(tmp_path):
    holed = table()
    holed["GAIN"][0, 0, 3] = np.nan
    found = open_caltable(write_caltable(holed, tmp_path / "t"))
    assert found.FLAG[0, 0, 3].all() and np.isfinite(found.GAIN).all()


def test_what_is_not_a_table_of_gains_is_refused(tmp_path):
    (tmp_path / "file").write_text("no table")
    with pytest.raises(CorruptFileError, match="readable"):
        open_caltable(tmp_path / "file")
    path = write_caltable(table(), tmp_path / "t")
    with pytest.raises(CorruptFileError, match="Not a calibration table"):
        open_caltable(path / "ANTENNA")
    with opened(path, writable=True) as main:
        main.putkeyword("VisCal", "D Jones")
    with pytest.raises(InputError, match="gains or delays"):
        open_caltable(path)
    with pytest.raises(InputError, match="kind that can be written"):
        write_caltable(table("K Jones"), tmp_path / "u")


def test_two_solutions_for_one_antenna_and_time_are_refused(tmp_path):
    path = write_caltable(table(n_times=2), tmp_path / "t")
    with opened(path, writable=True) as main:
        main.putcol("TIME", np.full(main.nrows(), 5e9))
    with pytest.raises(CorruptFileError, match="Several solutions"):
        open_caltable(path)


def test_a_real_table_of_askap_opens_and_survives_writing(tmp_path):
    packed = load_settings().validation_data / "caltable" / "askap_bandpass.zip"
    if not packed.is_file():
        pytest.skip(f"the validation data are not at {packed.parent}; DSA110_VALIDATION_DATA names the folder")
    with zipfile.ZipFile(packed) as archive:
        archive.extractall(tmp_path)
    (path,) = tmp_path.iterdir()
    found = open_caltable(path)
    # what the table itself says: 139 times of 36 antennas, one solution a window of 288 MHz
    assert dict(found.sizes) == {"time": 139, "antenna_name": 36, "frequency": 1, "polarization": 2}
    assert found.antenna_name.to_numpy()[:2].tolist() == ["ak01", "ak02"] and found.attrs["kind"] == "G Jones"
    assert float(found.frequency[0]) == pytest.approx(943.490741e6)
    good = ~found.FLAG.to_numpy()
    # self-calibration of phases: unit amplitudes
    np.testing.assert_allclose(np.abs(found.GAIN.to_numpy()[good]), 1.0, atol=1e-5)
    assert found.GAIN.to_numpy()[0, 1, 0, 0] == pytest.approx(0.99999994 - 0.00031802j, abs=1e-7)
    require_equal(open_caltable(write_caltable(found, tmp_path / "again", path)), found)
