"""Measurement Sets: make one, fill it subband by subband, read it as a view. The only module that knows CASA's tables.

Rows are time-major. With V = sum S exp(+2 pi i (u l + v m + w (n - 1)) f / c), UVW is position(ANTENNA1) -
position(ANTENNA2) and ANTENNA1 <= ANTENNA2, which is what CASA, WSClean and pyuvdata's writer agree on.
"""

from __future__ import annotations

import shutil
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
_CORRELATIONS = {"XX": 9, "XY": 10, "YX": 11, "YY": 12}
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


def create(path: Path, layout: Layout) -> None:
    """Make a Measurement Set with all rows and metadata; every channel must then be written with `write_channels`."""
    from casacore import tables as ct

    if path.exists():
        shutil.rmtree(path)
    shape = [layout.frequencies.size, len(layout.polarizations)]
    tile = [shape[1], telescope.N_CHANNELS_PER_SUBBAND, max(1, 2**20 // (shape[1] * 48 * 8))]
    columns = [
        ct.makearrcoldesc(
            "DATA",
            0j,
            ndim=2,
            shape=shape,
            datamanagertype="TiledColumnStMan",
            datamanagergroup="TiledData",
            valuetype="complex",
        ),
        ct.makearrcoldesc(
            "WEIGHT_SPECTRUM",
            0.0,
            ndim=2,
            shape=shape,
            datamanagertype="TiledColumnStMan",
            datamanagergroup="TiledWgt",
            valuetype="float",
        ),
    ]
    managers = {
        f"*{i}": {"TYPE": "TiledColumnStMan", "NAME": name, "COLUMNS": [column], "SPEC": {"DEFAULTTILESHAPE": tile}}
        for i, (name, column) in enumerate((("TiledData", "DATA"), ("TiledWgt", "WEIGHT_SPECTRUM")))
    }
    flag = ct.makearrcoldesc(
        "FLAG",
        value=False,
        ndim=2,
        shape=shape,
        datamanagertype="TiledColumnStMan",
        datamanagergroup="TiledFlag",
        valuetype="bool",
    )
    managers["*2"] = {
        "TYPE": "TiledColumnStMan",
        "NAME": "TiledFlag",
        "COLUMNS": ["FLAG"],
        "SPEC": {"DEFAULTTILESHAPE": tile},
    }
    description = ct.required_ms_desc()
    description.pop("FLAG", None)
    description.update(ct.maketabdesc([*columns, flag]))
    main = ct.default_ms(str(path), description, ct.makedminfo(description, managers))
    try:
        main.addrows(layout.n_rows)
        _main_columns(main, layout)
    finally:
        main.close()
    _subtables(path, layout)


def _main_columns(main: table, layout: Layout) -> None:
    n_times, n_baselines = layout.mjd.size, layout.antenna1.size
    rows = layout.n_rows
    seconds = np.repeat(layout.mjd * MJD_S, n_baselines)
    for name in ("TIME", "TIME_CENTROID"):
        main.putcol(name, seconds)
    for name in ("INTERVAL", "EXPOSURE"):
        main.putcol(name, np.full(rows, layout.integration_s))
    main.putcol("ANTENNA1", np.tile(layout.antenna1, n_times).astype(np.int32))
    main.putcol("ANTENNA2", np.tile(layout.antenna2, n_times).astype(np.int32))
    main.putcol("UVW", layout.uvw.reshape(rows, 3))
    main.putcol("SCAN_NUMBER", np.ones(rows, np.int32))
    for name in (
        "ARRAY_ID",
        "DATA_DESC_ID",
        "FEED1",
        "FEED2",
        "FIELD_ID",
        "OBSERVATION_ID",
        "PROCESSOR_ID",
        "STATE_ID",
    ):
        main.putcol(name, np.zeros(rows, np.int32))
    main.putcol("FLAG_ROW", np.zeros(rows, bool))
    for name in ("WEIGHT", "SIGMA"):
        main.putcol(name, np.ones((rows, len(layout.polarizations)), np.float32))


def _subtables(path: Path, layout: Layout) -> None:
    span = [layout.mjd[0] * MJD_S - layout.integration_s / 2, layout.mjd[-1] * MJD_S + layout.integration_s / 2]
    one = np.zeros(1, np.int32)
    kept = {"FLAG_ROW": np.zeros(1, bool)}
    tables: dict[str, dict[str, Any]] = {
        "ANTENNA": _antennas(layout),
        "FIELD": _field(layout),
        "SPECTRAL_WINDOW": _spectral_window(layout),
        "POLARIZATION": {
            "NUM_CORR": np.array([len(layout.polarizations)], np.int32),
            "CORR_TYPE": np.array([[_CORRELATIONS[p] for p in layout.polarizations]], np.int32),
            "CORR_PRODUCT": np.array([[["XY".index(c) for c in p] for p in layout.polarizations]], np.int32),
            **kept,
        },
        "DATA_DESCRIPTION": {"SPECTRAL_WINDOW_ID": one, "POLARIZATION_ID": one, **kept},
        "OBSERVATION": {
            "TELESCOPE_NAME": [telescope.TELESCOPE_NAME],
            "TIME_RANGE": np.array([span]),
            "OBSERVER": ["DSA-110"],
            "PROJECT": [layout.group_id],
            "SCHEDULE_TYPE": [""],
            "RELEASE_DATE": np.array([span[1]]),
            **kept,
        },
        "FEED": _feeds(len(layout.names), span),
        "POINTING": _pointing(layout, len(layout.names)),
        "STATE": {"SIG": np.ones(1, bool), "REF": np.zeros(1, bool), "OBS_MODE": ["OBSERVE_TARGET#ON_SOURCE"], **kept},
        "PROCESSOR": {"TYPE": ["CORRELATOR"], "SUB_TYPE": ["DSA-110"], **kept},
        "HISTORY": {
            "TIME": np.array([span[0]]),
            "MESSAGE": [layout.history],
            "PRIORITY": ["INFO"],
            "ORIGIN": ["dsa110_contimg"],
            "APPLICATION": ["dsa110_contimg"],
            "OBSERVATION_ID": one,
        },
    }
    for name, columns in tables.items():
        with opened(path / name, writable=True) as sub:
            sub.addrows(len(next(iter(columns.values()))))
            for column, values in columns.items():
                sub.putcol(column, values)


def _antennas(layout: Layout) -> dict[str, Any]:
    n = len(layout.names)
    return {
        "NAME": list(layout.names),
        "STATION": list(layout.names),
        "TYPE": ["GROUND-BASED"] * n,
        "MOUNT": ["ALT-AZ"] * n,
        "POSITION": layout.positions,
        "OFFSET": np.zeros((n, 3)),
        "DISH_DIAMETER": layout.diameters,
        "FLAG_ROW": np.zeros(n, bool),
    }


def _field(layout: Layout) -> dict[str, Any]:
    direction = np.array([[[layout.ra, layout.dec]]])
    return {
        "NAME": [f"meridian_{layout.group_id}"],
        "CODE": [""],
        "TIME": np.array([layout.mjd.mean() * MJD_S]),
        "NUM_POLY": np.zeros(1, np.int32),
        "DELAY_DIR": direction,
        "PHASE_DIR": direction,
        "REFERENCE_DIR": direction,
        "SOURCE_ID": np.zeros(1, np.int32),
        "FLAG_ROW": np.zeros(1, bool),
    }


def _feeds(n: int, span: list[float]) -> dict[str, Any]:
    return {
        "ANTENNA_ID": np.arange(n, dtype=np.int32),
        "FEED_ID": np.zeros(n, np.int32),
        "SPECTRAL_WINDOW_ID": np.full(n, -1, np.int32),
        "TIME": np.full(n, np.mean(span)),
        "INTERVAL": np.full(n, span[1] - span[0]),
        "NUM_RECEPTORS": np.full(n, 2, np.int32),
        "BEAM_ID": np.full(n, -1, np.int32),
        "BEAM_OFFSET": np.zeros((n, 2, 2)),
        "POLARIZATION_TYPE": {"shape": [n, 2], "array": ["X", "Y"] * n},
        "POL_RESPONSE": np.tile(np.eye(2, dtype=np.complex64), (n, 1, 1)),
        "POSITION": np.zeros((n, 3)),
        "RECEPTOR_ANGLE": np.zeros((n, 2)),
    }


def _spectral_window(layout: Layout) -> dict[str, Any]:
    n = layout.frequencies.size
    widths = np.full((1, n), layout.channel_width)
    return {
        "NAME": ["L-band"],
        "NUM_CHAN": np.array([n], np.int32),
        "CHAN_FREQ": layout.frequencies[None],
        "CHAN_WIDTH": widths,
        "EFFECTIVE_BW": widths,
        "RESOLUTION": widths,
        "REF_FREQUENCY": layout.frequencies[:1],
        "TOTAL_BANDWIDTH": np.array([n * layout.channel_width]),
        "MEAS_FREQ_REF": np.array([5], np.int32),  # TOPO
        "NET_SIDEBAND": np.ones(1, np.int32),
        "FLAG_ROW": np.zeros(1, bool),
    }


def _pointing(layout: Layout, n_ant: int) -> dict[str, Any]:
    """One row per antenna and integration: the drift of the beam."""
    n = layout.mjd.size * n_ant
    direction = np.stack([layout.pointing_ra, layout.pointing_dec], axis=-1)
    direction = np.repeat(direction, n_ant, axis=0).reshape(n, 1, 2)
    return {
        "ANTENNA_ID": np.tile(np.arange(n_ant, dtype=np.int32), layout.mjd.size),
        "TIME": np.repeat(layout.mjd * MJD_S, n_ant),
        "INTERVAL": np.full(n, layout.integration_s),
        "NAME": ["meridian"] * n,
        "NUM_POLY": np.zeros(n, np.int32),
        "TIME_ORIGIN": np.repeat(layout.mjd * MJD_S, n_ant),
        "DIRECTION": direction,
        "TARGET": direction,
        "TRACKING": np.zeros(n, bool),
    }


def write_channels(
    handle: table,
    first_channel: int,
    data: NDArray[np.complex64],
    flags: NDArray[np.bool_],
    weights: NDArray[np.float32],
) -> None:
    """Write a run of channels of all rows: arrays (row, channel, polarization)."""
    low, high = [first_channel, 0], [first_channel + data.shape[1] - 1, data.shape[2] - 1]
    for column, values in (("DATA", data), ("FLAG", flags), ("WEIGHT_SPECTRUM", weights)):
        handle.putcolslice(column, values, low, high)


def write_flags(handle: table, first_channel: int, flags: NDArray[np.bool_]) -> None:
    """Write FLAG of a run of channels of all rows: (row, channel, polarization)."""
    handle.putcolslice("FLAG", flags, [first_channel, 0], [first_channel + flags.shape[1] - 1, flags.shape[2] - 1])


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
) -> tuple[NDArray[np.complex64], NDArray[np.bool_]]:
    """A run of channels of a data column and its flags, (row, channel, polarization).

    Parameters
    ----------
    first, stop : channels ``first`` to ``stop - 1``.
    rows_of, n_baselines : only these baselines of each time, of so many.
    """
    with opened(path) as whole:
        main = whole
        if rows_of is not None:
            n_times = whole.nrows() // n_baselines
            rows = (np.arange(n_times)[:, None] * n_baselines + rows_of).ravel()
            main = whole.selectrows(rows.tolist())
        shape = main.getcell("FLAG", 0).shape
        low, high = [first, 0], [stop - 1, shape[1] - 1]
        return main.getcolslice(column, low, high), main.getcolslice("FLAG", low, high)


def ensure_column(path: Path, name: str) -> None:
    """Add a complex data column of DATA's shape if it is not there."""
    from casacore import tables as ct

    with opened(path, writable=True) as main:
        if name in main.colnames():
            return
        n_channels, n_pols = main.getcell("DATA", 0).shape
        tile = [n_pols, min(n_channels, telescope.N_CHANNELS_PER_SUBBAND), max(1, 2**20 // (n_pols * 48 * 8))]
        column = ct.makearrcoldesc(
            name,
            0j,
            ndim=2,
            shape=[n_channels, n_pols],
            datamanagertype="TiledColumnStMan",
            datamanagergroup=f"Tiled{name}",
            valuetype="complex",
        )
        manager = {
            "*1": {
                "TYPE": "TiledColumnStMan",
                "NAME": f"Tiled{name}",
                "COLUMNS": [name],
                "SPEC": {"DEFAULTTILESHAPE": tile},
            }
        }
        main.addcols(ct.maketabdesc([column]), manager)


def read_layout(path: Path) -> Layout:
    """The metadata of a Measurement Set that `create` made.

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
    with opened(path / "POINTING") as sub:
        pointing = (
            np.asarray(sub.getcol("DIRECTION")).reshape(sub.nrows(), 2)
            if sub.nrows()
            else np.tile(direction, (times.size, 1))
        )
        step = max(1, len(pointing) // times.size)
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
        pointing_ra=pointing[::step, 0],
        pointing_dec=pointing[::step, 1],
        group_id=project,
        history="",
    )


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
    kinds = {
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
    dims = ("time", "baseline_id", "frequency", "polarization")
    lazy = {
        name: (
            dims,
            da.from_array(
                _Cube(path, source, shape, np.dtype(dtype)),
                chunks=(times_per_chunk, -1, -1, -1),
                asarray=False,
                fancy=False,
                lock=True,
            ),
        )
        for name, (source, dtype) in kinds.items()
    }
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
