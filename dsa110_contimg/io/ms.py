"""Measurement Sets: fill one subband by subband, and read it as a view (`io.ms_create` makes it).

Rows are time-major. With V = sum S exp(+2 pi i (u l + v m + w (n - 1)) f / c), UVW is position(ANTENNA1) -
position(ANTENNA2) and ANTENNA1 <= ANTENNA2, which is what CASA, WSClean and pyuvdata's writer agree on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import dask.array as da
import numpy as np
import xarray as xr
from dask.utils import SerializableLock
from numpy.typing import NDArray

from dsa110_contimg import telescope
from dsa110_contimg.exceptions import CorruptFileError, InputError, OutputError
from dsa110_contimg.io.dataset import Antennas, Axes, Origin, visibilities

if TYPE_CHECKING:
    from casacore.tables import table

MJD_S = 86400.0
CORRELATIONS = {"XX": 9, "XY": 10, "YX": 11, "YY": 12}
FLAG_VERSIONS = ("FLAG_CONVERTED", "FLAG_FLAGGED")
"""FLAG as `convert` and as `flag` left it. A step starts from these, not from what an earlier try added."""
CORRELATION_NAMES = {9: "XX", 10: "XY", 11: "YX", 12: "YY", 5: "RR", 6: "RL", 7: "LR", 8: "LL", 1: "I"}


@dataclass(frozen=True)
class Layout:
    """Everything of a Measurement Set but its visibilities.

    Attributes
    ----------
    mjd : (time,) centres (MJD UTC).
    antenna1, antenna2 : (baseline,) rows of the ANTENNA table, antenna1 <= antenna2.
    uvw : (time, baseline, 3) m, position(antenna 1) - position(antenna 2).
    positions : (antenna, 3) ITRF (m).
    frequencies : (frequency,) Hz, ascending.
    polarizations : correlation names, in the MS's order.
    centers : (field, 2) phase centres, right ascension and declination (rad, ICRS): one, or one for each time.
    pointing_ra, pointing_dec : (time,) beam centre (rad, ICRS).
    n_windows : spectral windows that the frequencies are cut into, equally.
    weight_spectrum : whether there is a weight for each channel.
    """

    mjd: NDArray[np.float64]
    antenna1: NDArray[np.int64]
    antenna2: NDArray[np.int64]
    uvw: NDArray[np.float64]
    positions: NDArray[np.float64]
    names: tuple[str, ...]
    diameters: NDArray[np.float64]
    frequencies: NDArray[np.float64]
    channel_width: float
    integration_s: float
    polarizations: tuple[str, ...]
    centers: NDArray[np.float64]
    pointing_ra: NDArray[np.float64]
    pointing_dec: NDArray[np.float64]
    group_id: str
    history: str
    n_windows: int = 1
    weight_spectrum: bool = True

    @property
    def n_rows(self) -> int:
        """Rows are ordered by time, then spectral window, then baseline."""
        return self.mjd.size * self.n_windows * self.antenna1.size

    @property
    def cell(self) -> tuple[int, int]:
        """Shape of one row's data: (frequency, polarization)."""
        return self.frequencies.size // self.n_windows, len(self.polarizations)

    @property
    def ra(self) -> float:
        """Right ascension of the phase centre (rad); raises InputError where there are several."""
        return float(self._center[0])

    @property
    def dec(self) -> float:
        """Declination of the phase centre (rad); raises InputError where there are several."""
        return float(self._center[1])

    @property
    def _center(self) -> NDArray[np.float64]:
        if len(self.centers) != 1:
            raise InputError(
                "There are several phase centres; rephase to one first", found=len(self.centers), expected="one"
            )
        return np.asarray(self.centers[0])


@contextmanager
def opened(path: Path, writable: bool = False) -> Iterator[table]:
    """A casacore table, closed at the end.

    Raises
    ------
    CorruptFileError
        Not a table, or not one that can be read to its end.
    OutputError
        It cannot be written.
    """
    from casacore.tables import table

    try:
        handle = table(str(path), readonly=not writable, ack=False, lockoptions="auto")
    except RuntimeError as error:
        raise CorruptFileError("Not a readable CASA table", path=path, found=error, expected="a table") from error
    try:
        yield handle
        if writable:
            handle.flush()
    except RuntimeError as error:  # what casacore raises of a full disk, or of a damaged column
        if writable:
            raise OutputError("The table cannot be written", path=path, found=error) from error
        raise CorruptFileError("The table cannot be read", path=path, found=error) from error
    finally:
        handle.close()


def write_rows(
    handle: table,
    start: int,
    data: NDArray[np.complex64],
    flags: NDArray[np.bool_],
    weights: NDArray[np.float32],
    row_weight: NDArray[np.float32],
) -> None:
    """Write whole rows from ``start`` on: (row, channel, polarization), and (row, polarization) of WEIGHT.

    WEIGHT_SPECTRUM is written where the column is there.
    """
    count, there = len(data), handle.colnames()
    for column, values in (("DATA", data), ("WEIGHT_SPECTRUM", weights), ("FLAG", flags), (FLAG_VERSIONS[0], flags)):
        if column in there:
            handle.putcol(column, values, start, count)
    put_row_weights(handle, start, row_weight)


def put_row_weights(handle: table, start: int, weight: NDArray[Any]) -> None:
    """Write WEIGHT (row, polarization) from row ``start`` on, and SIGMA = 1 / sqrt(WEIGHT), 0 where there is none."""
    sigma = np.divide(1.0, np.sqrt(weight), out=np.zeros(weight.shape), where=weight > 0)
    handle.putcol("WEIGHT", np.ascontiguousarray(weight, np.float32), start, len(weight))
    handle.putcol("SIGMA", sigma.astype(np.float32), start, len(weight))


def write_flags(handle: table, first_channel: int, flags: NDArray[np.bool_], version: str = "") -> None:
    """Write FLAG of a run of channels of all rows: (row, channel, polarization); a ``version`` keeps it too."""
    high = [first_channel + flags.shape[1] - 1, flags.shape[2] - 1]
    for column in ("FLAG", version) if version else ("FLAG",):
        handle.putcolslice(column, flags, [first_channel, 0], high)


def write_column(handle: table, column: str, first_channel: int, values: NDArray[np.complex64]) -> None:
    """Write a run of channels of all rows of a data column: (row, channel, polarization)."""
    high = [first_channel + values.shape[1] - 1, values.shape[2] - 1]
    handle.putcolslice(column, values, [first_channel, 0], high)


def read_channels(
    path: Path,
    column: str,
    first: int,
    stop: int,
    rows_of: NDArray[np.int64] | None = None,
    n_baselines: int = 0,
    flags: str = "FLAG",
) -> tuple[NDArray[np.complex64], NDArray[np.bool_]]:
    """A run of channels of a data column and its flags, (row, channel, polarization).

    Parameters
    ----------
    first, stop : channels ``first`` to ``stop - 1``.
    rows_of, n_baselines : only these baselines of each time, of so many.
    flags : FLAG or one of `FLAG_VERSIONS`.
    """
    with opened(path) as whole:
        main = whole
        if rows_of is not None:
            n_times = whole.nrows() // n_baselines
            rows = (np.arange(n_times)[:, None] * n_baselines + rows_of).ravel()
            main = whole.selectrows(rows.tolist())
        shape = main.getcell("FLAG", 0).shape
        low, high = [first, 0], [stop - 1, shape[1] - 1]
        return main.getcolslice(column, low, high), main.getcolslice(flags, low, high)


def ensure_column(path: Path, name: str) -> None:
    """Add a complex data column of DATA's shape if it is not there."""
    with opened(path, writable=True) as main:
        add_column(main, name)


def add_column(main: table, name: str) -> None:
    """Add it to an open table. What is written before that is closed saves casacore the writing of zeros."""
    from casacore import tables as ct

    if name not in main.colnames():
        cell = main.getcell("DATA", 0).shape
        per_time = int((main.getcol("TIME", 0, min(main.nrows(), 2**16)) == main.getcell("TIME", 0)).sum())
        column = ct.maketabdesc([tiled_column(name, 0j, "complex", cell)])
        main.addcols(column, ct.makedminfo(column, tiles([name], cell, per_time)))


def tiled_column(name: str, value: Any, kind: str, cell: tuple[int, int]) -> Any:
    """Description of a column whose cells are (frequency, polarization)."""
    from casacore import tables as ct

    return ct.makearrcoldesc(
        name,
        value,
        ndim=2,
        shape=list(cell),
        datamanagertype="TiledColumnStMan",
        datamanagergroup=f"Tiled{name}",
        valuetype=kind,
    )


def tiles(names: Iterable[str], cell: tuple[int, int], rows_per_time: int) -> dict[str, dict[str, Any]]:
    """Tiles of such columns: one subband wide and a whole fraction of an integration long, about a million bytes.

    The direct writer fills whole tiles, and a stage that takes one subband after another reads no other's.
    """
    channels = min(cell[0], telescope.N_CHANNELS_PER_SUBBAND)
    parts = max(1, round(rows_per_time * channels * cell[1] * 8 / 2**20))
    shape = np.array([cell[1], channels, max(1, -(-rows_per_time // parts))], np.int32)
    return {f"Tiled{name}": {"DEFAULTTILESHAPE": shape} for name in names}


def read_layout(path: Path, *, several: bool = False) -> Layout:
    """The metadata of a Measurement Set that `io.ms_create` made.

    Parameters
    ----------
    several : bool
        Whether a field for each integration and several spectral windows are accepted. The stages after `convert`
        work on one of each.

    Raises
    ------
    InputError
        More than one field or spectral window, or rows that are not a rectangle of times, windows and baselines.
    """
    with opened(path / "FIELD") as sub:
        direction = np.asarray(sub.getcol("PHASE_DIR")).reshape(sub.nrows(), 2)
    with opened(path / "SPECTRAL_WINDOW") as sub:
        n_windows, lengths = sub.nrows(), sub.getcol("NUM_CHAN").tolist()
        if len(set(lengths)) != 1:
            raise InputError("The spectral windows are of different lengths", path=path, found=lengths)
        frequencies, widths = sub.getcol("CHAN_FREQ").ravel(), sub.getcell("CHAN_WIDTH", 0)
    if not several and (len(direction) != 1 or n_windows != 1):
        raise InputError(
            "The Measurement Set is not one field and one spectral window",
            path=path,
            found=f"{len(direction)} fields, {n_windows} spectral windows",
            expected="1 and 1",
        )
    rows = _read_rows(path, n_windows, len(direction))
    if (np.diff(frequencies) <= 0).any():
        raise InputError("The channels do not ascend", path=path, found=frequencies[:3].tolist())
    with opened(path / "ANTENNA") as sub:
        names, positions, diameters = sub.getcol("NAME"), sub.getcol("POSITION"), sub.getcol("DISH_DIAMETER")
    with opened(path / "POLARIZATION") as sub:
        polarizations = tuple(CORRELATION_NAMES[int(c)] for c in sub.getcell("CORR_TYPE", 0))
    pointing = _pointings(path, direction, rows.seconds.size)
    with opened(path / "OBSERVATION") as sub:
        project = str(sub.getcell("PROJECT", 0))
    return Layout(
        mjd=rows.seconds / MJD_S,
        antenna1=rows.antenna1,
        antenna2=rows.antenna2,
        uvw=rows.uvw,
        positions=np.asarray(positions),
        names=tuple(names),
        diameters=np.asarray(diameters),
        frequencies=np.asarray(frequencies),
        channel_width=abs(float(widths[0])),
        integration_s=rows.interval,
        polarizations=polarizations,
        centers=np.stack([direction[:, 0] % (2 * np.pi), direction[:, 1]], axis=-1),
        pointing_ra=pointing[:, 0],
        pointing_dec=pointing[:, 1],
        group_id=project,
        history="",
        n_windows=n_windows,
        weight_spectrum=rows.weight_spectrum,
    )


class _MainRows(NamedTuple):
    """What the rows say: (time,) seconds; (baseline,) antennas; (time, baseline, 3) uvw."""

    seconds: NDArray[np.float64]
    antenna1: NDArray[np.int64]
    antenna2: NDArray[np.int64]
    uvw: NDArray[np.float64]
    interval: float
    weight_spectrum: bool


def _read_rows(path: Path, n_windows: int, n_fields: int) -> _MainRows:
    """The labels of the rows, after checking that they come by time, window and baseline, all of each."""
    with opened(path) as main:
        seconds, fields = (np.asarray(main.getcol(name)) for name in ("TIME", "FIELD_ID"))
        labels = [np.asarray(main.getcol(name)) for name in ("ANTENNA1", "ANTENNA2", "DATA_DESC_ID")]
        uvw, there = np.asarray(main.getcol("UVW")), main.colnames()
        interval = float(main.getcell("INTERVAL", 0)) if main.nrows() else float("nan")
    times = np.unique(seconds)
    whole = times.size > 0 and seconds.size % (times.size * n_windows) == 0 and n_fields in (1, times.size)
    if whole:
        shape = times.size, n_windows, -1
        one, two, windows = (label.reshape(shape) for label in labels)
        each = np.arange(times.size) if n_fields > 1 else np.zeros(times.size)
        whole = bool(
            (seconds.reshape(shape) == times[:, None, None]).all()
            and (one == one[0, 0]).all()
            and (two == two[0, 0]).all()
            and (windows == np.arange(n_windows)[:, None]).all()
            and (fields.reshape(shape) == each[:, None, None]).all()
        )
    if not whole:
        raise InputError(
            "The Measurement Set is not a rectangle of times, spectral windows and baselines",
            path=path,
            found=f"{seconds.size} rows, {times.size} times, {n_windows} windows, {n_fields} fields",
        )
    baselines = uvw.reshape(*shape, 3)[:, 0]
    first, second = (label[0, 0].astype(np.int64) for label in (one, two))
    return _MainRows(times, first, second, baselines, interval, "WEIGHT_SPECTRUM" in there)


def _pointings(path: Path, direction: NDArray[np.float64], n_times: int) -> NDArray[np.float64]:
    """(time, 2) beam centres (rad); the field's own direction where POINTING is empty. Antennas point alike."""
    with opened(path / "POINTING") as sub:
        if not sub.nrows():
            return np.broadcast_to(direction, (n_times, 2)).copy()
        pointing = np.asarray(sub.getcol("DIRECTION")).reshape(sub.nrows(), 2)
    return pointing[:: max(1, len(pointing) // n_times)]


@dataclass(frozen=True)
class _Cube:
    """One column of one MS, read on demand as (time, baseline, frequency, polarization); picklable.

    WEIGHT, which has no channels, is repeated over them.
    """

    path: Path
    column: str
    shape: tuple[int, int, int, int]
    dtype: np.dtype[Any]
    n_windows: int

    ndim = 4

    def __getitem__(self, key: tuple[slice | int, ...]) -> NDArray[Any]:
        times = np.arange(self.shape[0])[key[0]]
        start, stop = int(np.min(times, initial=self.shape[0])), int(np.max(times, initial=-1)) + 1
        if stop <= start:
            return np.empty((0, *self.shape[1:]), self.dtype)[(slice(None), *key[1:])]
        cube = self._times(start, stop)
        return np.asarray(
            cube[(times - start, *key[1:])] if np.ndim(times) == 0 else cube[times - start][(slice(None), *key[1:])]
        )

    def _times(self, start: int, stop: int) -> NDArray[Any]:
        _, n_baselines, n_frequencies, n_pols = self.shape
        per_time = n_baselines * self.n_windows
        with opened(self.path) as main:
            rows = np.asarray(main.getcol(self.column, start * per_time, (stop - start) * per_time))
        if rows.ndim == 2:
            rows = np.repeat(rows[:, None], n_frequencies // self.n_windows, axis=1)
        windows = rows.reshape(stop - start, self.n_windows, n_baselines, -1, n_pols)
        return np.moveaxis(windows, 1, 2).reshape(stop - start, n_baselines, n_frequencies, n_pols)


def _lazy_columns(path: Path, layout: Layout, column: str, model: bool, times_per_chunk: int) -> dict[str, da.Array]:
    kinds: dict[str, tuple[str, type]] = {
        "VISIBILITY": (column, np.complex64),
        "FLAG": ("FLAG", np.bool_),
        "WEIGHT": ("WEIGHT_SPECTRUM" if layout.weight_spectrum else "WEIGHT", np.float32),
    }
    if model:
        kinds["MODEL"] = ("MODEL_DATA", np.complex64)
    with opened(path) as main:
        there = main.colnames()
    for wanted, _ in kinds.values():
        if wanted not in there:
            raise InputError("The Measurement Set lacks a column", path=path, found=there, expected=wanted)
    shape = (layout.mjd.size, layout.antenna1.size, layout.frequencies.size, len(layout.polarizations))
    chunks = (times_per_chunk, -1, -1, -1)
    lazy: dict[str, da.Array] = {}
    for name, (source, dtype) in kinds.items():
        cube = _Cube(path, source, shape, np.dtype(dtype), layout.n_windows)
        lazy[name] = da.from_array(cube, chunks=chunks, asarray=False, fancy=False, lock=_CASACORE)
    return lazy


_CASACORE = SerializableLock("casacore")
"""casacore is not safe in threads: its readers take turns, over all Measurement Sets."""


def open_ms(path: Path, column: str = "DATA", *, model: bool = False, times_per_chunk: int = 4) -> xr.Dataset:
    """One of our Measurement Sets as a lazy Visibilities Dataset.

    Spectral windows are joined along frequency. Where each integration is a field of its own, the Dataset has the
    coordinates ``phase_center_ra`` and ``phase_center_dec`` along time.

    Parameters
    ----------
    path : Path
    column : str
        DATA, MODEL_DATA or CORRECTED_DATA, becomes VISIBILITY.
    model : bool
        Whether MODEL_DATA comes with it, as MODEL.

    Raises
    ------
    InputError, CorruptFileError
        Not a Measurement Set of ours, or the column is absent.
    """
    layout = read_layout(path, several=True)
    n_times, several = layout.mjd.size, len(layout.centers) > 1
    axes = Axes(
        mjd=layout.mjd,
        frequencies=layout.frequencies,
        polarizations=layout.polarizations,
        antennas=Antennas(np.array(layout.names), layout.positions, layout.antenna1, layout.antenna2),
        centre=np.broadcast_to(layout.centers, (n_times, 2)),
        pointing=np.stack([layout.pointing_ra % (2 * np.pi), layout.pointing_dec], axis=-1),
        per_integration=several,
        channel_width=layout.channel_width,
        integration_s=layout.integration_s,
    )
    fields = [f"meridian_{layout.group_id}" + (f"_t{i}" if several else "") for i in range(n_times)]
    raw = column == "DATA"
    origin = Origin(telescope.TELESCOPE_NAME, layout.group_id, "arbitrary" if raw else "Jy", np.array(fields))
    return visibilities(_lazy_columns(path, layout, column, model, times_per_chunk), layout.uvw, axes, origin)
