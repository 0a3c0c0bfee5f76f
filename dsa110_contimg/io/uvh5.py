"""UVH5 subband files: check them and read them (`io.groups` finds them, `io.uvh5_views` opens them as Datasets).

Each file is trusted only after its header has been checked against what the observatory's writer makes; a fault is an
error that names the file, what was found and what was expected. Files of other telescopes, and files that were phased
since they were recorded, are understood too, but not taken for what the pipeline begins with.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from astropy import units as u
from astropy.coordinates import EarthLocation
from numpy.typing import NDArray

from dsa110_contimg import telescope
from dsa110_contimg.exceptions import CorruptFileError, ForeignTelescopeError, InputError
from dsa110_contimg.io.uvh5_checks import (
    check_any,
    check_fringestopping_table,
    check_ours,
    require_contiguous,
    require_same,
)
from dsa110_contimg.io.uvh5_header import POLARIZATIONS, Header, meridian_uvw, subband_number
from dsa110_contimg.io.uvh5_phase import phase_centres, zenith
from dsa110_contimg.io.uvh5_storage import ARRAYS, as_complex, as_flags, check_storage, opened, read_selection
from dsa110_contimg.records import SubbandFile

__all__ = [
    "NAME",
    "Header",
    "identify",
    "meridian_uvw",
    "opened",
    "read_header",
    "read_visibilities",
    "record_of",
    "require_contiguous",
    "require_same",
    "subband_number",
]

NAME = re.compile(r"^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)_sb(\d\d)\.hdf5$")
_MOST_ROWS = 10**9


@dataclass(frozen=True)
class _Entries:
    """A group of the header, read entry by entry; nothing is read before its size is known to be right."""

    path: Path
    group: h5py.Group

    def has(self, name: str) -> bool:
        return name in self.group

    def _find(self, name: str, kinds: str) -> h5py.Dataset:
        found = self.group[name]
        if not isinstance(found, h5py.Dataset) or found.shape is None or found.dtype.kind not in kinds:
            kind = found.dtype if isinstance(found, h5py.Dataset) else type(found).__name__
            raise CorruptFileError(f"Header/{name} is of the wrong kind", path=self.path, found=kind, expected=kinds)
        return found

    def array(self, name: str, *shapes: tuple[int, ...], kinds: str = "fiu", rows: int | None = None) -> NDArray[Any]:
        """An array of one of these shapes; only its first ``rows`` if given."""
        found = self._find(name, kinds)
        if found.shape not in shapes:
            raise CorruptFileError(
                f"Header/{name} has the wrong shape", path=self.path, found=found.shape, expected=shapes
            )
        return np.asarray(found[:rows] if rows is not None else found[()])

    def number(self, name: str) -> float:
        """A number, alone or the only one of its array."""
        found = self._find(name, "fiu")
        if found.size != 1:
            raise CorruptFileError(f"Header/{name} is not one number", path=self.path, found=found.shape)
        value = float(np.ravel(found[()])[0])
        if not np.isfinite(value):
            raise CorruptFileError(f"Header/{name} is not a number", path=self.path, found=value)
        return value

    def count(self, name: str) -> int:
        value = self.number(name)
        if not (value == int(value) and 0 < value <= _MOST_ROWS):
            raise CorruptFileError(f"Header/{name} is not a count", path=self.path, found=value, expected="1, 2, ...")
        return int(value)

    def text(self, name: str) -> str:
        found = self._find(name, "SO")
        value = found[()] if found.size == 1 else b""
        value = np.ravel(value)[0] if isinstance(value, np.ndarray) else value
        return value.decode() if isinstance(value, bytes) else str(value)


def read_header(path: Path, *, any_telescope: bool = False) -> Header:
    """Read and check everything of a file but its visibilities.

    Parameters
    ----------
    path : Path
    any_telescope : bool
        Read files of other telescopes too; then only what holds for all of them is checked.

    Raises
    ------
    CorruptFileError
        Unreadable, truncated, an entry missing, or entries that contradict each other.
    ForeignTelescopeError
        A file that is not of DSA-110.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise CorruptFileError(
            "The subband file cannot be opened", path=path, found=error.strerror, expected="UVH5"
        ) from error
    # a group is looked for and then opened: the second time a file is the same file, nothing is read again
    return _read_header(path, any_telescope, (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns))


@lru_cache(maxsize=128)
def _read_header(path: Path, any_telescope: bool, _state: tuple[int, ...]) -> Header:
    with opened(path) as file:
        entries = _Entries(path, _group(path, file, "Header"))
        name = entries.text("telescope_name")
        ours = name in (telescope.HEADER_TELESCOPE_NAME, telescope.TELESCOPE_NAME)
        if not (ours or any_telescope):
            raise ForeignTelescopeError(
                "The file is of another telescope", path=path, found=name, expected=telescope.HEADER_TELESCOPE_NAME
            )
        header, uvw = _header(entries, name)
        check_any(header)
        if ours:
            check_ours(header, entries.number("latitude"), entries.number("altitude"), uvw)
            _check_keywords(header, entries)
        _group(path, file, "Data")
        check_storage(file, path, header.shape)
    for array in (header.mjd, header.antenna1, header.antenna2, header.positions, header.frequencies):
        array.setflags(write=False)
    return header


def _group(path: Path, file: h5py.Group, name: str) -> h5py.Group:
    found = file[name]
    if not isinstance(found, h5py.Group):
        raise CorruptFileError("The subband file lacks an entry", path=path, found=name, expected="a group")
    return found


def _header(entries: _Entries, name: str) -> tuple[Header, NDArray[np.floating]]:
    """The header, and uvw of the file: of the first integration if as recorded, else of all."""
    n_times, n_blts = entries.count("Ntimes"), entries.count("Nblts")
    n_channels, n_baselines = entries.count("Nfreqs"), n_blts // n_times
    if n_baselines * n_times != n_blts:
        raise CorruptFileError(
            "The file is not a rectangle of times and baselines",
            path=entries.path,
            found=f"{n_times} times, {n_blts} baseline-times",
            expected="Nblts = Ntimes x Nbls",
        )
    mjd, antenna1, antenna2 = _time_major(entries, n_times, n_baselines)
    numbers, names, diameters, positions, place = _antennas(entries)
    width = np.abs(entries.array("channel_width", (), (1,), (n_channels,)))  # -244140.625 in a real concatenation
    header = Header(
        path=entries.path,
        mjd=mjd,
        antenna1=_index_of(entries.path, numbers, antenna1),
        antenna2=_index_of(entries.path, numbers, antenna2),
        positions=positions,
        names=names,
        diameters=diameters,
        frequencies=entries.array("freq_array", (1, n_channels), (n_channels,)).astype(np.float64).ravel(),
        channel_width=_one_value(entries.path, "channel_width", width),
        integration_s=_one_value(
            entries.path, "integration_time", entries.array("integration_time", (), (1,), (n_blts,))
        ),
        polarizations=_polarizations(entries),
        pointing_dec=np.nan,
        longitude_deg=entries.number("longitude"),
        telescope_name=name,
    )
    centres = phase_centres(entries.path, entries.group, n_times, n_baselines)
    if header.ours:
        extra = _Entries(entries.path, _group(entries.path, entries.group, "extra_keywords"))
        header = replace(header, pointing_dec=extra.number("phase_center_dec"))
    elif centres is None:
        centres = zenith(mjd, place)
    # pyuvdata takes a file as recorded for one whose fringes were never stopped; whether they were, uvw_array says
    if centres is None:
        return header, entries.array("uvw_array", (n_blts, 3), kinds="f", rows=n_baselines)
    uvw = entries.array("uvw_array", (n_blts, 3), kinds="f").astype(np.float64).reshape(n_times, n_baselines, 3)
    return replace(header, uvw=uvw, centres=centres), uvw


def _one_value(path: Path, name: str, values: NDArray[Any]) -> float:
    values = np.ravel(values).astype(np.float64)
    if not np.allclose(values, values[0], rtol=1e-6, atol=0.0):
        raise CorruptFileError(f"Header/{name} is not the same throughout", path=path, found=np.unique(values)[:4])
    return float(values[0])


def _polarizations(entries: _Entries) -> tuple[str, ...]:
    numbers = [int(p) for p in entries.array("polarization_array", (entries.count("Npols"),), kinds="iu")]
    if unknown := [p for p in numbers if p not in POLARIZATIONS]:
        raise CorruptFileError("Not a polarisation", path=entries.path, found=unknown, expected=sorted(POLARIZATIONS))
    return tuple(POLARIZATIONS[p] for p in numbers)


def _antennas(
    entries: _Entries,
) -> tuple[NDArray[np.int64], tuple[str, ...], NDArray[np.float64], NDArray[np.float64], EarthLocation]:
    """Numbers, names, diameters (m) and positions (ITRF, m) of the antennas, and the place of the array."""
    n = entries.count("Nants_telescope")
    latitude, longitude, altitude = (entries.number(k) for k in ("latitude", "longitude", "altitude"))
    if abs(latitude) > 90 or abs(longitude) > 360:
        raise CorruptFileError("The array is not at a place", path=entries.path, found=(latitude, longitude))
    place = _place(longitude, latitude, altitude)
    reference = np.array([c.to_value(u.m) for c in (place.x, place.y, place.z)])
    numbers = entries.array("antenna_numbers", (n,), kinds="iu").astype(np.int64)
    names = tuple(_decoded(name) for name in entries.array("antenna_names", (n,), kinds="SO"))
    positions = reference + entries.array("antenna_positions", (n, 3)).astype(np.float64)
    diameters = np.full(n, telescope.DISH_DIAMETER_M)
    if entries.has("antenna_diameters"):
        diameters = entries.array("antenna_diameters", (n,)).astype(np.float64)
    if len(set(numbers.tolist())) != n or len(set(names)) != n:
        raise CorruptFileError("Two antennas have the same number or name", path=entries.path)
    return numbers, names, diameters, positions, place


@lru_cache(maxsize=8)  # the files of a group say the same
def _place(longitude_deg: float, latitude_deg: float, altitude_m: float) -> EarthLocation:
    return EarthLocation.from_geodetic(longitude_deg * u.deg, latitude_deg * u.deg, altitude_m * u.m)


def _decoded(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


def _index_of(path: Path, numbers: NDArray[np.int64], used: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where the antennas of the baselines stand in the table of antennas."""
    order = np.argsort(numbers)
    place = np.minimum(np.searchsorted(numbers[order], used), numbers.size - 1)
    if absent := sorted(set(used[numbers[order][place] != used].tolist())):
        raise CorruptFileError(
            "An antenna index is outside the station table", path=path, found=absent[:3], expected="antenna_numbers"
        )
    return np.asarray(order[place], np.int64)


def _time_major(
    entries: _Entries, n_times: int, n_baselines: int
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """MJD of each time and antennas of each baseline; every integration must list the same ones in the same order."""
    n = n_times * n_baselines
    when, one, two = (
        entries.array(name, (n,), kinds=kinds).reshape(n_times, n_baselines)
        for name, kinds in (("time_array", "f"), ("ant_1_array", "iu"), ("ant_2_array", "iu"))
    )
    if (
        (one != one[0]).any()
        or (two != two[0]).any()
        or (when != when[:, :1]).any()
        or not (when[1:, 0] > when[:-1, 0]).all()
    ):
        raise CorruptFileError(
            "Baselines or times are shuffled",
            path=entries.path,
            expected="time-major order, the same baselines every time",
        )
    return when[:, 0].astype(np.float64) - 2400000.5, one[0].astype(np.int64), two[0].astype(np.int64)


def _check_keywords(header: Header, entries: _Entries) -> None:
    """Check the declination and hour angle that are written down more than once."""
    extra = _Entries(entries.path, entries.group["extra_keywords"])
    if extra.has("fs_table"):
        check_fringestopping_table(header, extra.text("fs_table"))
    if header.centres is not None:
        return
    if extra.has("ha_phase_center") and abs(extra.number("ha_phase_center")) > 1e-9:
        raise CorruptFileError(
            "The fringes were stopped off the meridian",
            path=header.path,
            found=f"ha_phase_center {extra.number('ha_phase_center')}",
            expected=0.0,
        )


def identify(path: Path) -> SubbandFile:
    """The record of one file, its header checked. Errors as `read_header`."""
    return record_of(read_header(path))


def record_of(header: Header) -> SubbandFile:
    """The record of the file with this header.

    Raises
    ------
    InputError, CorruptFileError
        Its channels are not those of a subband, or not those that its name says.
    """
    match = NAME.match(header.path.name)
    try:
        number = subband_number(header.frequencies)
    except InputError as error:
        raise InputError(error.what, path=header.path, found=error.found, expected=error.expected) from error
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
    """Visibilities, flags and samples of one file, (row, channel, polarization), in the file's order and sense.

    Samples that are not a number, or negative, come as 0 and flagged.

    Raises
    ------
    CorruptFileError
        The arrays cannot be read, which h5py finds only then, or pieces of them are missing.
    """
    everything = tuple(np.arange(n) for n in header.shape)
    raw, flags, samples = (read_selection(header, name, *everything) for name in ARRAYS)
    bad = ~(np.isfinite(samples) & (samples >= 0))
    return (
        as_complex(raw),
        as_flags(flags) | bad,
        np.where(bad, 0, samples).astype(np.float32, copy=False),
    )
