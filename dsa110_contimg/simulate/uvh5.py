"""Subband files in the layout of the observatory's writer, to the byte.

The writer (dsa110-meridian-fs) grows a file by one integration at a time; this one writes the same chunks in the same
order at once, which gives a file of the same size and structure a hundred times faster. Like the writer's, a file is
called ``_incomplete`` until it is whole. It is not fsynced: simulated data can be made again.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import DTypeLike, NDArray

from dsa110_contimg import telescope
from dsa110_contimg.exceptions import OutputError
from dsa110_contimg.simulate.array import Array

POLARIZATIONS = {2: (-5, -6), 4: (-5, -7, -8, -6)}
"""AIPS numbers: XX -5, YY -6, XY -7, YX -8."""
_APPLIED_DELAY_NS = 15_600


@dataclass(frozen=True)
class SubbandHeader:
    """What the header of a file says.

    Attributes
    ----------
    mjd : (time,) centres of the integrations (MJD UTC).
    dec_rad : apparent declination of the pointing.
    uvw_m : (baseline, 3) at hour angle 0 and that declination.
    opened : wall clock when the file was opened, ``YYYY-MM-DDTHH:MM:SS``; the file is named by it.
    """

    array: Array
    subband: int
    mjd: NDArray[np.float64]
    dec_rad: float
    uvw_m: NDArray[np.float64]
    opened: str

    @property
    def file_name(self) -> str:
        return f"{self.opened}_sb{self.subband:02d}.hdf5"


def meridian_uvw(baselines_m: NDArray[np.float64], dec_rad: float) -> NDArray[np.float64]:
    """(baseline, 3) u (east), v (north), w (to the phase centre) at hour angle 0 of earth-fixed baselines (m)."""
    longitude = np.radians(telescope.LONGITUDE_DEG)
    east = np.array([-np.sin(longitude), np.cos(longitude), 0.0])
    out = np.array([np.cos(longitude), np.sin(longitude), 0.0])  # where the meridian crosses the equator
    pole = np.array([0.0, 0.0, 1.0])
    north = np.cos(dec_rad) * pole - np.sin(dec_rad) * out
    towards = np.sin(dec_rad) * pole + np.cos(dec_rad) * out
    return baselines_m @ np.stack([east, north, towards], axis=1)


def write_subband(out_dir: Path, header: SubbandHeader, vis: NDArray[np.complex64]) -> Path:
    """Write one file and return its path.

    Parameters
    ----------
    out_dir : Path
    header : SubbandHeader
    vis : (time, baseline, 48, polarization) complex64
        Raw visibilities, channels descending.

    Raises
    ------
    OutputError
        The directory cannot be written.
    """
    path = out_dir / header.file_name
    partial = path.with_name(f"{path.stem}_incomplete.hdf5")
    try:
        with h5py.File(partial, "w") as file:
            # the writer makes every entry empty before it appends data; the order decides the file's structure
            head, data = file.create_group("Header"), file.create_group("Data")
            _create_header(head, header, vis.shape)
            _create_data(data, vis.shape)
            _fill_header(head, header, len(vis))
            _fill_data(data, vis)
        partial.replace(path)
    except OSError as error:
        raise OutputError("The subband file cannot be written", path=path, found=error) from error
    return path


def truncate(path: Path, fraction: float = 0.6) -> None:
    """Cut a file off, as a full disk or a broken transfer leaves it."""
    os.truncate(path, int(path.stat().st_size * fraction))


def _growing(group: h5py.Group, name: str, dtype: DTypeLike, tail: tuple[int, ...] = ()) -> None:
    """An empty dataset along an unlimited first axis; h5py chooses its chunks, as it did for the writer."""
    group.create_dataset(name, (0, *tail), maxshape=(None, *tail), dtype=dtype, chunks=True)


def _create_header(head: h5py.Group, header: SubbandHeader, shape: tuple[int, ...]) -> None:
    n_times, n_baselines, n_channels, n_pol = shape
    stations = telescope.stations()
    head["latitude"] = telescope.LATITUDE_DEG
    head["longitude"] = telescope.LONGITUDE_DEG
    head["altitude"] = telescope.HEIGHT_M
    head["telescope_name"] = np.bytes_(telescope.HEADER_TELESCOPE_NAME)
    head["instrument"] = np.bytes_("DSA")
    head["object_name"] = np.bytes_("search")
    head["history"] = np.bytes_(f"simulated, in the layout of dsa110-meridian-fringestopping, {header.opened}")
    head["phase_type"] = np.bytes_("drift")
    head["phase_center_app_dec"] = header.dec_rad
    head["Nants_data"] = header.array.n_antennas
    head["Nants_telescope"] = len(stations.number)
    head["antenna_diameters"] = np.full(len(stations.number), telescope.DISH_DIAMETER_M)
    _growing(head, "ant_1_array", np.int64)
    _growing(head, "ant_2_array", np.int64)
    head["antenna_names"] = stations.number.astype("S4")
    head["antenna_numbers"] = stations.number - 1
    counts = {"Nbls": n_baselines, "Nblts": n_times * n_baselines, "Nfreqs": n_channels, "Npols": n_pol}
    for name, count in {**counts, "Ntimes": n_times, "Nspws": 1}.items():
        head[name] = count
    _growing(head, "uvw_array", np.float32, (3,))
    _growing(head, "time_array", np.float64)
    _growing(head, "integration_time", np.float64)
    head["freq_array"] = telescope.subband_frequencies(header.subband)[None, :]
    head["channel_width"] = telescope.CHANNEL_WIDTH_HZ
    head["spw_array"] = np.array([1])
    head["polarization_array"] = np.array(POLARIZATIONS[n_pol])
    location = telescope.location()
    head["antenna_positions"] = stations.itrf - np.array([c.to_value("m") for c in location.to_geocentric()])
    _create_extra(head.create_group("extra_keywords"), header)


def _create_extra(extra: h5py.Group, header: SubbandHeader) -> None:
    extra["phase_center_dec"] = header.dec_rad
    extra["ha_phase_center"] = 0.0
    extra["phase_center_epoch"] = "HADEC"
    name = f"fringestopping_table_dec{np.degrees(header.dec_rad):.1f}deg_{header.array.n_antennas}ant.npz"
    extra["fs_table"] = np.bytes_(name)
    # two integers (X, Y) a station; the writer has 0 for a station that took no part
    delays = np.zeros((len(telescope.stations().number), 2), int)
    delays[header.array.order - 1] = _APPLIED_DELAY_NS
    extra["applied_delays_ns"] = np.bytes_(" ".join(str(d) for d in delays.ravel()))


def _create_data(group: h5py.Group, shape: tuple[int, ...]) -> None:
    for name, dtype in (("visdata", np.complex64), ("flags", np.bool_), ("nsamples", np.float32)):
        _growing(group, name, dtype, (1, *shape[2:]))


def _fill_header(head: h5py.Group, header: SubbandHeader, n_times: int) -> None:
    array = header.array
    columns = {
        "time_array": np.repeat(header.mjd + 2400000.5, array.n_baselines),
        "integration_time": np.full(n_times * array.n_baselines, telescope.INTEGRATION_S),
        "uvw_array": np.tile(header.uvw_m.astype(np.float32), (n_times, 1)),
        "ant_1_array": np.tile(array.antenna1, n_times),
        "ant_2_array": np.tile(array.antenna2, n_times),
    }
    for name, values in columns.items():
        head[name].resize(len(values), axis=0)
        head[name][...] = values


def _fill_data(group: h5py.Group, vis: NDArray[np.complex64]) -> None:
    n_times, n_baselines, n_channels, n_pol = vis.shape
    for data in (group["visdata"], group["flags"], group["nsamples"]):
        data.resize(n_times * n_baselines, axis=0)
    _write_chunks(group["visdata"], vis.reshape(n_times * n_baselines, n_channels, n_pol))
    _write_constant(group["flags"], 0)
    _write_constant(group["nsamples"], telescope.FAST_SAMPLES_PER_INTEGRATION)


def _write_chunks(data: h5py.Dataset, rows: NDArray[np.complex64]) -> None:
    """Whole chunks, past HDF5's chunk cache, in the order in which HDF5 itself would make them."""
    step, _, width, depth = data.chunks
    n_rows, n_channels, n_pol = rows.shape
    padded = -(-n_rows // step) * step
    columns = {}
    for f in range(0, n_channels, width):
        for p in range(0, n_pol, depth):
            block = np.zeros((padded, width, depth), rows.dtype)
            part = rows[:, f : f + width, p : p + depth]
            block[:n_rows, : part.shape[1], : part.shape[2]] = part
            columns[f, p] = block
    for r in range(0, padded, step):
        for (f, p), block in columns.items():
            data.id.write_direct_chunk((r, 0, f, p), block[r : r + step])


def _write_constant(data: h5py.Dataset, value: int) -> None:
    n_rows, _, n_channels, n_pol = data.shape
    step, _, width, depth = data.chunks
    inside = np.full(data.chunks, value, data.dtype)
    last = inside.copy()
    last[n_rows % step or step :] = 0  # beyond the end of the data a chunk holds the fill value
    for r in range(0, n_rows, step):
        for f in range(0, n_channels, width):
            for p in range(0, n_pol, depth):
                data.id.write_direct_chunk((r, 0, f, p), inside if r + step <= n_rows else last)
