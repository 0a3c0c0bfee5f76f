"""Measurement Sets: fill one subband by subband, and read it as a view (`io.ms_create` makes it).

Rows are time-major. With V = sum S exp(+2 pi i (u l + v m + w (n - 1)) f / c), UVW is position(ANTENNA1) -
position(ANTENNA2) and ANTENNA1 <= ANTENNA2, which is what CASA, WSClean and pyuvdata's writer agree on.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from dsa110_contimg import schema, telescope
from dsa110_contimg.exceptions import CorruptFileError, InputError

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
    ra, dec : phase centre (rad, ICRS).
    pointing_ra, pointing_dec : (time,) beam centre (rad, ICRS).
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
    ra: float
    dec: float
    pointing_ra: NDArray[np.float64]
    pointing_dec: NDArray[np.float64]
    group_id: str
    history: str

    @property
    def n_rows(self) -> int:
        return self.mjd.size * self.antenna1.size


@contextmanager
def opened(path: Path, writable: bool = False) -> Iterator[table]:
    """A casacore table, closed at the end.

    Raises
    ------
    CorruptFileError
        Not a table.
    """
    from casacore.tables import table

    try:
        handle = table(str(path), readonly=not writable, ack=False, lockoptions="auto")
    except RuntimeError as error:
        raise CorruptFileError("Not a readable CASA table", path=path, found=error, expected="a table") from error
    try:
        yield handle
    finally:
        handle.close()


def write_channels(
    handle: table,
    first_channel: int,
    data: NDArray[np.complex64],
    flags: NDArray[np.bool_],
    weights: NDArray[np.float32],
) -> None:
    """Write a run of channels of all rows: arrays (row, channel, polarization)."""
    low, high = [first_channel, 0], [first_channel + data.shape[1] - 1, data.shape[2] - 1]
    for column, values in (("DATA", data), ("WEIGHT_SPECTRUM", weights)):
        handle.putcolslice(column, values, low, high)
    write_flags(handle, first_channel, flags, FLAG_VERSIONS[0])


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
    from casacore import tables as ct

    with opened(path, writable=True) as main:
        if name not in main.colnames():
            shape = main.getcell("DATA", 0).shape
            column = ct.maketabdesc([tiled_column(name, 0j, "complex", shape)])
            main.addcols(column, {"*1": tiled_manager(name, shape)})


def tiled_column(name: str, value: Any, kind: str, shape: tuple[int, int]) -> Any:
    """Description of a column whose cells are (frequency, polarization)."""
    from casacore import tables as ct

    return ct.makearrcoldesc(
        name,
        value,
        ndim=2,
        shape=list(shape),
        datamanagertype="TiledColumnStMan",
        datamanagergroup=f"Tiled{name}",
        valuetype=kind,
    )


def tiled_manager(name: str, shape: tuple[int, int]) -> dict[str, Any]:
    """Storage of such a column in tiles of one subband and a million values: a subband is written as it comes."""
    channels = min(shape[0], telescope.N_CHANNELS_PER_SUBBAND)
    tile = [shape[1], channels, max(1, 2**20 // (shape[1] * channels * 8))]
    spec = {"DEFAULTTILESHAPE": tile}
    return {"TYPE": "TiledColumnStMan", "NAME": f"Tiled{name}", "COLUMNS": [name], "SPEC": spec}


def read_layout(path: Path) -> Layout:
    """The metadata of a Measurement Set that `io.ms_create` made.

    Raises
    ------
    InputError
        More than one field or spectral window, or rows that are not a rectangle of times and baselines.
    """
    with opened(path / "FIELD") as sub:
        direction = np.asarray(sub.getcol("PHASE_DIR")).reshape(sub.nrows(), 2)
    with opened(path / "SPECTRAL_WINDOW") as sub:
        n_windows = sub.nrows()
        frequencies, widths = sub.getcell("CHAN_FREQ", 0), sub.getcell("CHAN_WIDTH", 0)
    if len(direction) != 1 or n_windows != 1:
        raise InputError(
            "The Measurement Set is not one field and one spectral window",
            path=path,
            found=f"{len(direction)} fields, {n_windows} spectral windows",
            expected="1 and 1",
        )
    with opened(path) as main:
        seconds, one, two = (np.asarray(main.getcol(c)) for c in ("TIME", "ANTENNA1", "ANTENNA2"))
        uvw, interval = np.asarray(main.getcol("UVW")), float(main.getcell("INTERVAL", 0))
    times = np.unique(seconds)
    if times.size == 0 or seconds.size % times.size or (seconds.reshape(times.size, -1) != times[:, None]).any():
        raise InputError("The Measurement Set is not a rectangle of times and baselines", path=path, found=seconds.size)
    per_time = seconds.size // times.size
    with opened(path / "ANTENNA") as sub:
        names, positions, diameters = sub.getcol("NAME"), sub.getcol("POSITION"), sub.getcol("DISH_DIAMETER")
    with opened(path / "POLARIZATION") as sub:
        polarizations = tuple(CORRELATION_NAMES[int(c)] for c in sub.getcell("CORR_TYPE", 0))
    pointing = _pointings(path, direction, times.size)
    with opened(path / "OBSERVATION") as sub:
        project = str(sub.getcell("PROJECT", 0))
    return Layout(
        mjd=times / MJD_S,
        antenna1=one[:per_time].astype(np.int64),
        antenna2=two[:per_time].astype(np.int64),
        uvw=uvw.reshape(times.size, per_time, 3),
        positions=np.asarray(positions),
        names=tuple(names),
        diameters=np.asarray(diameters),
        frequencies=np.asarray(frequencies),
        channel_width=abs(float(widths[0])),
        integration_s=interval,
        polarizations=polarizations,
        ra=float(direction[0, 0] % (2 * np.pi)),
        dec=float(direction[0, 1]),
        pointing_ra=pointing[:, 0],
        pointing_dec=pointing[:, 1],
        group_id=project,
        history="",
    )


def _pointings(path: Path, direction: NDArray[np.float64], n_times: int) -> NDArray[np.float64]:
    """(time, 2) beam centres (rad); the field's own direction where POINTING is empty. Antennas point alike."""
    with opened(path / "POINTING") as sub:
        if not sub.nrows():
            return np.tile(direction, (n_times, 1))
        pointing = np.asarray(sub.getcol("DIRECTION")).reshape(sub.nrows(), 2)
    return pointing[:: max(1, len(pointing) // n_times)]


@dataclass(frozen=True)
class _Cube:
    """One column of one MS, read on demand as (time, baseline, frequency, polarization); picklable."""

    path: Path
    column: str
    shape: tuple[int, int, int, int]
    dtype: np.dtype[Any]

    ndim = 4

    def __getitem__(self, key: tuple[slice | int, ...]) -> NDArray[Any]:
        times = np.arange(self.shape[0])[key[0]]
        start, stop = int(np.min(times, initial=self.shape[0])), int(np.max(times, initial=-1)) + 1
        if stop <= start:
            return (
                np.empty(self.shape, self.dtype)[key]
                if np.prod(self.shape) == 0
                else np.empty((0, *self.shape[1:]), self.dtype)
            )
        with opened(self.path) as main:
            rows = main.getcol(self.column, start * self.shape[1], (stop - start) * self.shape[1])
        cube = np.asarray(rows).reshape(stop - start, *self.shape[1:])
        return np.asarray(
            cube[(times - start, *key[1:])] if np.ndim(times) == 0 else cube[times - start][(slice(None), *key[1:])]
        )


def _lazy_columns(
    path: Path, layout: Layout, column: str, model: bool, times_per_chunk: int
) -> dict[str, tuple[tuple[str, ...], da.Array]]:
    kinds: dict[str, tuple[str, type]] = {
        "VISIBILITY": (column, np.complex64),
        "FLAG": ("FLAG", np.bool_),
        "WEIGHT": ("WEIGHT_SPECTRUM", np.float32),
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
    lazy: dict[str, tuple[tuple[str, ...], da.Array]] = {}
    for name, (source, dtype) in kinds.items():
        cube = _Cube(path, source, shape, np.dtype(dtype))
        array = da.from_array(cube, chunks=chunks, asarray=False, fancy=False, lock=True)
        lazy[name] = (("time", "baseline_id", "frequency", "polarization"), array)
    return lazy


def open_ms(path: Path, column: str = "DATA", *, model: bool = False, times_per_chunk: int = 4) -> xr.Dataset:
    """One of our Measurement Sets as a lazy Visibilities Dataset.

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
        Not a Measurement Set of one field, or the column is absent.
    """
    layout = read_layout(path)
    lazy = _lazy_columns(path, layout, column, model, times_per_chunk)
    names = np.array(layout.names)
    dataset = xr.Dataset(
        {**lazy, "UVW": (("time", "baseline_id", "uvw_label"), layout.uvw)},
        coords={
            "time": ("time", layout.mjd, {"units": "d", "format": "mjd", "scale": "utc"}),
            "frequency": ("frequency", layout.frequencies, {"units": "Hz"}),
            "polarization": list(layout.polarizations),
            "uvw_label": ["u", "v", "w"],
            "baseline_antenna1_name": ("baseline_id", names[layout.antenna1]),
            "baseline_antenna2_name": ("baseline_id", names[layout.antenna2]),
            "pointing_ra": ("time", layout.pointing_ra % (2 * np.pi), {"units": "rad", "frame": "icrs"}),
            "pointing_dec": ("time", layout.pointing_dec, {"units": "rad", "frame": "icrs"}),
        },
        attrs={
            "phase_center_ra": layout.ra,
            "phase_center_dec": layout.dec,
            "integration_time": layout.integration_s,
            "channel_width": layout.channel_width,
            "telescope_name": telescope.TELESCOPE_NAME,
            "group_id": layout.group_id,
        },
    )
    return schema.check(dataset, schema.VISIBILITIES)
