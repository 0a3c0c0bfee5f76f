"""UVH5 subband files: check them, read them, open them (`io.groups` finds them).

Each file is trusted only after its header has been checked against what the observatory's writer makes; a fault is an
error that names the file, what was found and what was expected. Groups are made by the time *in* the files.

Sign of the visibilities (pyuvdata's): V(ant1, ant2) = sum S exp(+2 pi i (w_source - w_phase) f / c), with w the
component of position(ant2) - position(ant1). In a file the phase direction of every integration is hour angle 0 at
the pointing declination.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask.array as da
import h5py
import numpy as np
import xarray as xr
from astropy import units as u
from astropy.coordinates import EarthLocation
from numpy.typing import NDArray

from dsa110_contimg import schema, telescope
from dsa110_contimg.exceptions import (
    CorruptFileError,
    ForeignTelescopeError,
    InputError,
)
from dsa110_contimg.records import SubbandFile, SubbandGroup

NAME = re.compile(r"^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)_sb(\d\d)\.hdf5$")
_POLARIZATIONS = {-5: "XX", -6: "YY", -7: "XY", -8: "YX"}
_UVW_TOLERANCE_M = 2e-3  # float32 of 2.6 km is good to 0.12 mm; a wrong frame is off by metres


@dataclass(frozen=True)
class Header:
    """The checked header of one file.

    Attributes
    ----------
    mjd : (time,) centres of the integrations (MJD UTC).
    antenna1, antenna2 : (baseline,) index into the 117 slots, in the file's order, which is not sorted.
    positions : (117, 3) ITRF (m), absolute.
    frequencies : (frequency,) Hz, in the file's order (descending in the writer).
    longitude_deg : of the meridian that hour angles refer to.
    """

    path: Path
    mjd: NDArray[np.float64]
    antenna1: NDArray[np.int64]
    antenna2: NDArray[np.int64]
    positions: NDArray[np.float64]
    names: tuple[str, ...]
    diameters: NDArray[np.float64]
    frequencies: NDArray[np.float64]
    channel_width: float
    integration_s: float
    polarizations: tuple[str, ...]
    pointing_dec: float
    longitude_deg: float

    @property
    def baselines(self) -> NDArray[np.float64]:
        """(baseline, 3) position(antenna 2) - position(antenna 1), ITRF (m)."""
        return self.positions[self.antenna2] - self.positions[self.antenna1]


def _text(value: Any) -> str:
    value = value[()] if isinstance(value, h5py.Dataset) else value
    return value.decode() if isinstance(value, bytes) else str(value)


def _open(path: Path) -> h5py.File:
    try:
        return h5py.File(path, "r")
    except OSError as error:
        size = f"{path.stat().st_size} bytes, {error}" if path.is_file() else "no such file"
        raise CorruptFileError(
            "The subband file cannot be opened; it is truncated or not HDF5", path=path, found=size, expected="UVH5"
        ) from error


def read_header(path: Path) -> Header:
    """Read and check everything of a file but its visibilities.

    Raises
    ------
    CorruptFileError
        Unreadable, truncated, an entry missing, or entries that contradict each other.
    ForeignTelescopeError
        A file that is not of DSA-110.
    """
    with _open(path) as file:
        try:
            return _header(path, file)
        except KeyError as error:
            raise CorruptFileError("The subband file lacks an entry", path=path, found=error.args[0]) from error
        except (OSError, ValueError, RuntimeError) as error:
            raise CorruptFileError("The header of the subband file cannot be read", path=path, found=error) from error


def _header(path: Path, file: h5py.File) -> Header:
    head = file["Header"]
    name = _text(head["telescope_name"])
    if name not in (telescope.HEADER_TELESCOPE_NAME, telescope.TELESCOPE_NAME):
        raise ForeignTelescopeError(
            "The file is of another telescope", path=path, found=name, expected=telescope.HEADER_TELESCOPE_NAME
        )
    n_times, n_blts = int(head["Ntimes"][()]), int(head["Nblts"][()])
    times = np.asarray(head["time_array"][:], np.float64)
    antenna1, antenna2 = (np.asarray(head[f"ant_{i}_array"][:], np.int64) for i in (1, 2))
    n_baselines = n_blts // max(n_times, 1)
    if not times.size == antenna1.size == antenna2.size == n_blts == n_baselines * n_times > 0:
        raise CorruptFileError(
            "The file is not a rectangle of times and baselines",
            path=path,
            found=f"{n_times} times, {n_blts} baseline-times, {times.size} time entries",
            expected="Nblts = Ntimes x Nbls",
        )
    antenna1, antenna2 = _time_major(path, times, antenna1, antenna2, n_times)
    location = EarthLocation.from_geodetic(
        float(head["longitude"][()]) * u.deg, float(head["latitude"][()]) * u.deg, float(head["altitude"][()]) * u.m
    )
    reference = np.array([c.to_value(u.m) for c in (location.x, location.y, location.z)])
    numbers = np.asarray(head["antenna_numbers"][:], np.int64)
    if not np.array_equal(numbers, np.arange(numbers.size)):
        raise CorruptFileError("Antenna numbers are not 0, 1, 2, ...", path=path, found=numbers[:5].tolist())
    header = Header(
        path=path,
        mjd=times.reshape(n_times, n_baselines)[:, 0] - 2400000.5,
        antenna1=antenna1,
        antenna2=antenna2,
        positions=reference + np.asarray(head["antenna_positions"][:], np.float64),
        names=tuple(_text(n) for n in head["antenna_names"][:]),
        diameters=np.asarray(head["antenna_diameters"][:], np.float64)
        if "antenna_diameters" in head
        else np.full(numbers.size, telescope.DISH_DIAMETER_M),
        frequencies=np.asarray(head["freq_array"][:], np.float64).ravel(),
        # the writer stores +244140.625, a real concatenation -244140.625
        channel_width=abs(float(np.ravel(head["channel_width"][()])[0])),
        integration_s=float(np.ravel(head["integration_time"][()])[0]),
        polarizations=tuple(_POLARIZATIONS[int(p)] for p in head["polarization_array"][:]),
        pointing_dec=float(np.ravel(head["extra_keywords"]["phase_center_dec"][()])[0]),
        longitude_deg=float(head["longitude"][()]),
    )
    _check(header, file)
    return header


def _time_major(
    path: Path,
    times: NDArray[np.float64],
    antenna1: NDArray[np.int64],
    antenna2: NDArray[np.int64],
    n_times: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Antennas of each baseline, after checking that every integration lists the same ones in the same order."""
    one, two, when = (a.reshape(n_times, -1) for a in (antenna1, antenna2, times))
    if (
        (one != one[0]).any()
        or (two != two[0]).any()
        or (when != when[:, :1]).any()
        or (np.diff(when[:, 0]) <= 0).any()
    ):
        raise CorruptFileError(
            "Baselines or times are shuffled", path=path, expected="time-major order, the same baselines every time"
        )
    return one[0].copy(), two[0].copy()


def _check(header: Header, file: h5py.File) -> None:
    shape = (header.mjd.size * header.antenna1.size, header.frequencies.size, len(header.polarizations))
    for name in ("visdata", "flags", "nsamples"):
        found = tuple(
            n for i, n in enumerate(file["Data"][name].shape) if not (i == 1 and file["Data"][name].ndim == 4)
        )
        if found != shape:
            raise CorruptFileError(f"Data/{name} has the wrong shape", path=header.path, found=found, expected=shape)
    wrong: list[tuple[str, object, object]] = []
    steps = np.diff(header.frequencies)
    if not np.allclose(np.abs(steps), header.channel_width, rtol=1e-6) or np.unique(np.sign(steps)).size > 1:
        wrong.append(
            ("Frequencies are not equally spaced by the channel width", steps[:3].tolist(), header.channel_width)
        )
    if not (header.frequencies.min() > 1.2e9 and header.frequencies.max() < 1.6e9):
        wrong.append(("Frequencies are outside the band", header.frequencies[[0, -1]].tolist(), "1.31e9 to 1.50e9 Hz"))
    if not -np.pi / 2 < header.pointing_dec < np.pi / 2:
        wrong.append(("phase_center_dec is not an angle in radians", header.pointing_dec, "-1.57 to 1.57"))
    if max(header.antenna1.max(), header.antenna2.max()) >= len(header.names) or header.antenna1.min() < 0:
        wrong.append(("An antenna index is outside the station table", int(header.antenna2.max()), len(header.names)))
    elif not wrong:
        offset = float(np.abs(file["Header"]["uvw_array"][: header.antenna1.size] - meridian_uvw(header)).max())
        if not offset <= _UVW_TOLERANCE_M:
            wrong.append(("uvw_array is not that of hour angle 0 at the pointing", f"{offset:.4f} m off", "below 2 mm"))
    if not 1.0 < header.integration_s < 60.0 or not np.isfinite(header.mjd).all():
        wrong.append(("Times or integration time are not sane", header.integration_s, telescope.INTEGRATION_S))
    for what, found_value, expected in wrong:
        raise CorruptFileError(what, path=header.path, found=found_value, expected=expected)


def meridian_uvw(header: Header) -> NDArray[np.float64]:
    """(baseline, 3) uvw (m, double precision) at hour angle 0 and the apparent pointing declination."""
    lon, dec = np.radians(header.longitude_deg), header.pointing_dec
    u_axis = np.array([-np.sin(lon), np.cos(lon), 0.0])
    v_axis = np.array([-np.sin(dec) * np.cos(lon), -np.sin(dec) * np.sin(lon), np.cos(dec)])
    w_axis = np.array([np.cos(dec) * np.cos(lon), np.cos(dec) * np.sin(lon), np.sin(dec)])
    return header.baselines @ np.stack([u_axis, v_axis, w_axis], axis=-1)


def subband_number(frequencies_hz: NDArray[np.float64]) -> int:
    """Which of the 16 subbands a set of channels is (0 is the highest).

    Raises
    ------
    InputError
        Channels that lie between two subbands.
    """
    channel = (telescope.TOP_FREQUENCY_HZ - float(frequencies_hz.max())) / telescope.CHANNEL_WIDTH_HZ
    number = round(channel / telescope.N_CHANNELS_PER_SUBBAND)
    if abs(channel - number * telescope.N_CHANNELS_PER_SUBBAND) > 0.5 or not 0 <= number < telescope.N_SUBBANDS:
        raise InputError("Channels are not those of a subband", found=f"{frequencies_hz.max():.0f} Hz at the top")
    return number


def identify(path: Path) -> SubbandFile:
    """The record of one file, its header checked. Errors as `read_header`."""
    return record_of(read_header(path))


def record_of(header: Header) -> SubbandFile:
    match = NAME.match(header.path.name)
    number = subband_number(header.frequencies)
    if match and int(match.group(2)) != number:
        raise CorruptFileError(
            "The file's name and its frequencies disagree",
            path=header.path,
            found=f"channels of sb{number:02d}",
            expected=f"channels of sb{match.group(2)}",
        )
    return SubbandFile(header.path, number, float(header.mjd[0]), header.path.stat().st_size)


def read_visibilities(
    header: Header,
) -> tuple[NDArray[np.complex64], NDArray[np.bool_], NDArray[np.float32]]:
    """Visibilities, flags and samples of one file, (row, channel, polarization), in the file's order.

    Raises
    ------
    CorruptFileError
        The arrays cannot be read, which h5py finds only then.
    """

    def column(file: h5py.File, name: str) -> NDArray[Any]:
        values = file["Data"][name][:]
        return np.asarray(values[:, 0] if values.ndim == 4 else values)

    with _open(header.path) as file:
        try:
            return (
                column(file, "visdata").astype(np.complex64, copy=False),
                column(file, "flags").astype(bool, copy=False),
                column(file, "nsamples").astype(np.float32, copy=False),
            )
        except OSError as error:
            raise CorruptFileError("The visibilities cannot be read", path=header.path, found=error) from error


@dataclass(frozen=True)
class _Column:
    """One dataset of one file, read on demand as (time, baseline, frequency ascending, polarization); picklable."""

    path: Path
    name: str
    n_baselines: int
    shape: tuple[int, int, int, int]
    dtype: np.dtype[Any]
    descending: bool

    ndim = 4

    def __getitem__(self, key: tuple[slice | int, ...]) -> NDArray[Any]:
        times = np.arange(self.shape[0])[key[0]]
        start, stop = int(np.min(times, initial=self.shape[0])), int(np.max(times, initial=-1)) + 1
        if stop <= start:
            start = stop = 0
        with _open(self.path) as file:
            rows = file["Data"][self.name][start * self.n_baselines : stop * self.n_baselines]
        cube = rows.reshape(stop - start, self.n_baselines, self.shape[2], self.shape[3])
        cube = cube[:, :, ::-1] if self.descending else cube
        return np.asarray(
            cube[(times - start, *key[1:])] if np.ndim(times) == 0 else cube[times - start][(slice(None), *key[1:])]
        )


def _lazy(header: Header, name: str, times_per_chunk: int) -> da.Array:
    shape = (header.mjd.size, header.antenna1.size, header.frequencies.size, len(header.polarizations))
    with _open(header.path) as file:
        dtype = file["Data"][name].dtype
    column = _Column(header.path, name, shape[1], shape, dtype, bool(header.frequencies[0] > header.frequencies[-1]))
    return da.from_array(column, chunks=(times_per_chunk, -1, -1, -1), asarray=False, fancy=False)


Meridian = Callable[[NDArray[np.float64], float], tuple[NDArray[np.float64], NDArray[np.float64]]]
"""(MJD UTC, apparent declination in rad) -> ICRS right ascension and declination of hour angle 0 (rad)."""


def open_group(group: SubbandGroup, meridian: Meridian, times_per_chunk: int = 8) -> xr.Dataset:
    """The observation of a group as a lazy Visibilities Dataset, as recorded (raw, fringestopped at the meridian).

    Frequencies ascend. Subbands without a file are absent from the frequency axis. ``UVW`` is that of the files: at
    hour angle 0 and the pointing declination, the same for every time.

    Parameters
    ----------
    group : SubbandGroup
    meridian : callable
        `science.coordinates.meridian_icrs`, which says where the telescope pointed.
    times_per_chunk : int
        Integrations in one dask chunk; a chunk holds one subband.

    Raises
    ------
    CorruptFileError
        A file is bad, or the files of the group disagree on times or antennas.
    """
    headers = [read_header(f.path) for f in sorted(group.files, key=lambda f: -f.subband)]
    first = headers[0]
    for other in headers[1:]:
        require_same(first, other)
    cubes = {
        name: da.concatenate([_lazy(h, name, times_per_chunk) for h in headers], axis=2)
        for name in ("visdata", "flags", "nsamples")
    }
    ra, dec = meridian(first.mjd, first.pointing_dec)
    names = np.array(first.names)
    dims = ("time", "baseline_id", "frequency", "polarization")
    uvw = np.broadcast_to(meridian_uvw(first), (first.mjd.size, first.antenna1.size, 3))
    dataset = xr.Dataset(
        {
            "VISIBILITY": (dims, cubes["visdata"]),
            "FLAG": (dims, cubes["flags"]),
            "WEIGHT": (dims, cubes["nsamples"]),
            "UVW": (("time", "baseline_id", "uvw_label"), uvw),
        },
        coords={
            "time": ("time", first.mjd, {"units": "d", "format": "mjd", "scale": "utc"}),
            "frequency": ("frequency", np.concatenate([np.sort(h.frequencies) for h in headers]), {"units": "Hz"}),
            "polarization": list(first.polarizations),
            "uvw_label": ["u", "v", "w"],
            "baseline_antenna1_name": ("baseline_id", names[first.antenna1]),
            "baseline_antenna2_name": ("baseline_id", names[first.antenna2]),
            "pointing_ra": ("time", ra, {"units": "rad", "frame": "icrs"}),
            "pointing_dec": ("time", dec, {"units": "rad", "frame": "icrs"}),
        },
        attrs={
            "phase_center_ra": float(ra[0]),
            "phase_center_dec": float(dec[0]),
            "integration_time": first.integration_s,
            "channel_width": first.channel_width,
            "telescope_name": telescope.TELESCOPE_NAME,
            "group_id": group.group_id,
            "missing_subbands": list(group.missing),
        },
    )
    return schema.check(dataset, schema.VISIBILITIES)


def require_same(first: Header, other: Header) -> None:
    """Raise `CorruptFileError` unless two files of a group share times, baselines, polarisations and declination."""
    for what, one, two in (
        ("numbers of integrations", first.mjd.size, other.mjd.size),
        ("numbers of baselines", first.antenna1.size, other.antenna1.size),
        ("polarisations", first.polarizations, other.polarizations),
        ("pointing declinations (rad)", round(first.pointing_dec, 6), round(other.pointing_dec, 6)),
    ):
        if one != two:
            raise CorruptFileError(
                f"Two subbands of a group have different {what}", path=other.path, found=two, expected=one
            )
    if (first.antenna1 != other.antenna1).any() or (first.antenna2 != other.antenna2).any():
        raise CorruptFileError("Two subbands of a group have different baselines", path=other.path, expected=first.path)
    lag = float(np.abs(first.mjd - other.mjd).max() * 86400)
    # subbands are started within seconds of each other; half an integration would mix different sky
    if lag > telescope.INTEGRATION_S / 2:
        raise CorruptFileError(
            "Two subbands of a group are not simultaneous",
            path=other.path,
            found=f"{lag:.1f} s apart",
            expected=first.path,
        )
