"""The layout of the files, against what the audit of a real file found."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from dsa110_contimg import telescope
from dsa110_contimg.exceptions import OutputError
from dsa110_contimg.simulate import uvh5
from dsa110_contimg.simulate.array import build_array

MJD = 61065.5 + np.arange(24) * 12.884902 / 86400
DEC = np.radians(54.573)


def _header(n_antennas: int, subband: int = 0) -> uvh5.SubbandHeader:
    array = build_array(n_antennas)
    uvw = uvh5.meridian_uvw(array.baselines_m, DEC)
    return uvh5.SubbandHeader(array, subband, MJD, DEC, uvw, "2026-01-25T22:26:05")


def _vis(n_antennas: int, n_pol: int = 2) -> np.ndarray:
    shape = (24, n_antennas * (n_antennas + 1) // 2, 48, n_pol)
    return np.random.default_rng(0).standard_normal((*shape, 2), dtype=np.float32).view(np.complex64)[..., 0]


@pytest.mark.parametrize(("n_antennas", "size"), [(96, 145_348_600), (95, 142_318_592)])
def test_a_full_file_has_the_size_of_a_real_one_to_the_byte(tmp_path: Path, n_antennas: int, size: int) -> None:
    vis = np.zeros((24, n_antennas * (n_antennas + 1) // 2, 48, 2), np.complex64)
    path = uvh5.write_subband(tmp_path, _header(n_antennas), vis)
    assert path.stat().st_size == size
    path.unlink()


@pytest.mark.parametrize("n_pol", [2, 4])
def test_what_is_written_is_read_back_bit_for_bit(tmp_path: Path, n_pol: int) -> None:
    vis = _vis(6, n_pol)
    path = uvh5.write_subband(tmp_path, _header(6), vis)
    with h5py.File(path) as file:
        assert np.array_equal(file["Data/visdata"][:, 0], vis.reshape(-1, 48, n_pol))
        assert not file["Data/flags"][:].any()
        assert (file["Data/nsamples"][:] == 96).all()
        kinds = [file[f"Data/{name}"].dtype for name in ("visdata", "flags", "nsamples")]
        assert kinds == [np.complex64, np.bool_, np.float32]
        assert all(file[f"Data/{name}"].compression is None for name in ("visdata", "flags", "nsamples"))
        assert file["Header/polarization_array"][:].tolist() == ([-5, -6] if n_pol == 2 else [-5, -7, -8, -6])


def test_header_is_that_of_the_observatorys_writer(tmp_path: Path) -> None:
    path = uvh5.write_subband(tmp_path, _header(6, subband=15), _vis(6))
    assert path.name == "2026-01-25T22:26:05_sb15.hdf5"
    with h5py.File(path) as file:
        head = file["Header"]
        scalars = {k: v[()] for k, v in head.items() if isinstance(v, h5py.Dataset) and v.shape == ()}
        assert scalars["telescope_name"] == b"OVRO_MMA"
        assert scalars["instrument"] == b"DSA"
        assert scalars["object_name"] == b"search"
        assert scalars["phase_type"] == b"drift"
        counts = ("Nants_data", "Nants_telescope", "Nbls", "Nblts", "Nfreqs", "Npols", "Ntimes", "Nspws")
        assert [scalars[k] for k in counts] == [6, 117, 21, 504, 48, 2, 24, 1]
        assert scalars["latitude"] == pytest.approx(37.2334051)
        assert scalars["channel_width"] == 244140.625
        assert not {"lst_array", "version", "vis_units"} & set(head)
        frequency = head["freq_array"][:]
        assert frequency.shape == (1, 48)
        assert np.allclose(frequency[0, [0, -1]], [1322.861938e6, 1311.387329e6], atol=1.0)
        assert head["antenna_names"][:].tolist() == [str(n).encode() for n in range(1, 118)]
        assert np.array_equal(head["antenna_numbers"][:], np.arange(117))
        extra = {k: v[()] for k, v in head["extra_keywords"].items()}
        assert extra["phase_center_dec"] == scalars["phase_center_app_dec"] == DEC
        assert extra["ha_phase_center"] == 0.0
        assert extra["phase_center_epoch"] == b"HADEC"
        assert extra["fs_table"] == b"fringestopping_table_dec54.6deg_6ant.npz"
        assert len([int(d) for d in extra["applied_delays_ns"].split()]) == 234


def test_columns_are_time_major_and_tiled(tmp_path: Path) -> None:
    header = _header(5)
    path = uvh5.write_subband(tmp_path, header, _vis(5))
    with h5py.File(path) as file:
        head = file["Header"]
        times = head["time_array"][:].reshape(24, 15)
        assert (times == times[:, :1]).all()
        assert np.allclose(times[:, 0] - 2400000.5, MJD, atol=1e-9)
        assert head["uvw_array"].dtype == np.float32
        uvw = head["uvw_array"][:].reshape(24, 15, 3)
        assert (uvw == uvw[0]).all()
        lengths = np.linalg.norm(header.array.baselines_m, axis=-1)
        assert np.allclose(np.linalg.norm(uvw[0], axis=-1), lengths, atol=1e-3)
        assert head["ant_1_array"].dtype == head["ant_2_array"].dtype == np.int64
        assert (head["integration_time"][:] == np.float64(np.float32(12.884902))).all()


def test_uvw_of_an_east_west_baseline_points_east() -> None:
    lon = np.radians(telescope.LONGITUDE_DEG)
    east = np.array([[-np.sin(lon), np.cos(lon), 0.0]]) * 100
    assert np.allclose(uvh5.meridian_uvw(east, 0.3), [[100, 0, 0]])
    zenith = np.array([[np.cos(0.3) * np.cos(lon), np.cos(0.3) * np.sin(lon), np.sin(0.3)]])
    assert np.allclose(uvh5.meridian_uvw(zenith, 0.3), [[0, 0, 1]])


def test_a_place_that_cannot_be_written_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        uvh5.write_subband(tmp_path / "absent", _header(3), _vis(3))


def test_nothing_called_incomplete_is_left(tmp_path: Path) -> None:
    uvh5.write_subband(tmp_path, _header(3), _vis(3))
    assert [p.name for p in tmp_path.iterdir()] == ["2026-01-25T22:26:05_sb00.hdf5"]
