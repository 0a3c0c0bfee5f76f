"""Measurement Sets that others made: any telescope, several fields and spectral windows, times that lack baselines.

Our own are opened by `io.ms`, which knows how their rows lie. Here the rows of one field and spectral window are looked
up, and read when they are asked for; a baseline that has no row at some time is flagged there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import dask.array as da
import numpy as np
import xarray as xr
from astropy import units as u
from astropy.coordinates import FK4, ICRS, SkyCoord
from astropy.time import Time
from dask.utils import SerializableLock
from numpy.typing import NDArray

from dsa110_contimg.exceptions import CorruptFileError, InputError
from dsa110_contimg.io import dataset, lazy, ms

_DATA = ("DATA", "MODEL_DATA", "CORRECTED_DATA", "FLOAT_DATA")
_CHUNK_VALUES = 2**22
"""Visibilities in one dask chunk, about."""
_B1950 = FK4(equinox=Time("B1950"))
_FRAMES: dict[str, Any] = {"ICRS": ICRS(), "J2000": "fk5", "B1950": _B1950, "GALACTIC": "galactic"}
# casacore is not safe in threads; a lock of this name is one and the same for all Measurement Sets, also in io.ms
_CASACORE = SerializableLock("casacore")


@dataclass(frozen=True)
class Field:
    """One row of FIELD: where it is phased to (rad, ICRS)."""

    number: int
    name: str
    ra: float
    dec: float

    def __str__(self) -> str:
        return f"{self.number} {self.name}"


@dataclass(frozen=True)
class Window:
    """One row of DATA_DESCRIPTION with what it stands for; frequencies (Hz) as they are stored."""

    number: int
    frequencies: NDArray[np.float64]
    width: float
    polarizations: tuple[str, ...]

    def __str__(self) -> str:
        low, high = self.frequencies.min() / 1e6, self.frequencies.max() / 1e6
        return f"{self.number} ({self.frequencies.size} channels, {low:.3f}-{high:.3f} MHz)"


@dataclass(frozen=True)
class Contents:
    """What a Measurement Set holds: fields and spectral windows that have rows."""

    path: Path
    telescope_name: str
    observer: str
    project: str
    names: NDArray[np.str_]
    positions: NDArray[np.float64]
    diameter: float
    columns: tuple[str, ...]
    fields: tuple[Field, ...]
    windows: tuple[Window, ...]


def contents(path: Path) -> Contents:
    """Read the subtables of any Measurement Set.

    Raises
    ------
    CorruptFileError
        Not a Measurement Set.
    InputError
        It has no rows, or a phase centre that moves.
    """
    with ms.opened(path) as main:
        columns = tuple(main.colnames())
        if missing := {"TIME", "ANTENNA1", "ANTENNA2", "FIELD_ID", "DATA_DESC_ID", "UVW", "FLAG"} - set(columns):
            raise CorruptFileError("Not a Measurement Set", path=path, found=columns, expected=sorted(missing))
        used_fields, used_windows = (sorted(set(main.getcol(c))) for c in ("FIELD_ID", "DATA_DESC_ID"))
        if not used_fields:
            raise InputError("The Measurement Set has no rows", path=path)
    with ms.opened(path / "ANTENNA") as sub:
        names, positions = _unique(list(sub.getcol("NAME")), list(sub.getcol("STATION"))), sub.getcol("POSITION")
        diameter = float(np.median(sub.getcol("DISH_DIAMETER")))
    with ms.opened(path / "OBSERVATION") as sub:
        about = [str(sub.getcell(c, 0)) if sub.nrows() else "" for c in ("TELESCOPE_NAME", "OBSERVER", "PROJECT")]
    return Contents(
        path=path,
        telescope_name=about[0],
        observer=about[1],
        project=about[2],
        names=names,
        positions=np.asarray(positions),
        diameter=diameter,
        columns=columns,
        fields=tuple(_field(path, int(number)) for number in used_fields),
        windows=tuple(_window(path, int(number)) for number in used_windows),
    )


def telescope_name(path: Path) -> str:
    """The telescope of a Measurement Set's first observation. Errors as `contents`."""
    with ms.opened(path / "OBSERVATION") as sub:
        return str(sub.getcell("TELESCOPE_NAME", 0)) if sub.nrows() else ""


def _unique(names: list[str], stations: list[str]) -> NDArray[np.str_]:
    """Antenna names; with the station's, or the row's number, where they are not unique."""
    for candidate in (names, [f"{n}@{s}" for n, s in zip(names, stations, strict=True)]):
        if len(set(candidate)) == len(candidate):
            return np.array(candidate)
    return np.array([f"{n}#{i}" for i, n in enumerate(names)])


def _field(path: Path, number: int) -> Field:
    with ms.opened(path / "FIELD") as sub:
        if number >= sub.nrows():
            raise CorruptFileError("Rows refer to a field that is not there", path=path, found=number)
        if sub.getcell("NUM_POLY", number) > 0:
            raise InputError("The phase centre of a field moves", path=path, found=sub.getcell("NAME", number))
        # an array cell is (n, 2) or (n, 1, 2) by its writer; the first pair is the direction
        lon, lat = (float(v) for v in np.asarray(sub.getcell("PHASE_DIR", number)).reshape(-1, 2)[0])
        about = sub.getcolkeywords("PHASE_DIR").get("MEASINFO", {})
        frame = str(about.get("Ref", "J2000"))
        if about.get("VarRefCol") in sub.colnames():
            code = int(sub.getcell(about["VarRefCol"], number))
            known = dict(zip(about.get("TabRefCodes", []), about.get("TabRefTypes", []), strict=False))
            frame = str(known.get(code, frame))
        name = str(sub.getcell("NAME", number))
    if frame not in _FRAMES:
        raise InputError(
            "The phase centre is in a frame that is not read", path=path, found=frame, expected=list(_FRAMES)
        )
    there = SkyCoord(lon * u.rad, lat * u.rad, frame=_FRAMES[frame]).transform_to(ICRS())
    return Field(number, name, float(there.ra.rad), float(there.dec.rad))


def _window(path: Path, number: int) -> Window:
    with ms.opened(path / "DATA_DESCRIPTION") as sub:
        spw, pol = sub.getcell("SPECTRAL_WINDOW_ID", number), sub.getcell("POLARIZATION_ID", number)
    with ms.opened(path / "SPECTRAL_WINDOW") as sub:
        frequencies = np.asarray(sub.getcell("CHAN_FREQ", spw))
        width = abs(float(np.asarray(sub.getcell("CHAN_WIDTH", spw))[0]))
    with ms.opened(path / "POLARIZATION") as sub:
        codes = [int(c) for c in sub.getcell("CORR_TYPE", pol)]
    if unknown := [c for c in codes if c not in ms.CORRELATION_NAMES]:
        raise InputError("A correlation that is not read", path=path, found=unknown, expected=ms.CORRELATION_NAMES)
    return Window(number, frequencies, width, tuple(ms.CORRELATION_NAMES[c] for c in codes))


def open_foreign(path: Path, column: str = "DATA", field: int = 0) -> list[xr.Dataset]:
    """The spectral windows of one field of any Measurement Set, as lazy Visibilities views.

    The dishes are taken to track the field's phase centre. Weights are WEIGHT_SPECTRUM, else WEIGHT for every channel.

    Parameters
    ----------
    path : Path
    column : str
        DATA, MODEL_DATA or CORRECTED_DATA.
    field : int

    Raises
    ------
    InputError
        No such field, column or rows.
    CorruptFileError
        Not a Measurement Set.
    """
    whole = contents(path)
    if field not in [f.number for f in whole.fields]:
        raise InputError("No such field has rows", path=path, found=field, expected="; ".join(map(str, whole.fields)))
    views = [_open(whole, column, field, window, model=False) for window in whole.windows]
    return [view for view in views if view is not None]


def open_window(
    path: Path, column: str = "DATA", *, model: bool = False, field: int | None = None, spw: int | None = None
) -> xr.Dataset:
    """One spectral window of one field of any Measurement Set, as a lazy Visibilities view.

    Parameters
    ----------
    path, column : as in `open_foreign`
    model : bool
        Whether MODEL_DATA comes with it, as MODEL.
    field, spw : int or None
        Row of FIELD, and of DATA_DESCRIPTION; None if there is only one.

    Raises
    ------
    InputError
        There are several and none was named (the error lists them), or what was named is not there.
    CorruptFileError
        Not a Measurement Set.
    """
    whole = contents(path)
    chosen_field = _choose(path, "field", field, whole.fields)
    view = _open(whole, column, chosen_field.number, _choose(path, "spw", spw, whole.windows), model)
    if view is None:
        raise InputError("The field has no rows in this spectral window", path=path, found=f"field {field}, spw {spw}")
    return view


Kind = TypeVar("Kind", Field, Window)


def _choose(path: Path, what: str, number: int | None, there: tuple[Kind, ...]) -> Kind:
    kinds = {"field": "field", "spw": "spectral window"}
    listed = "; ".join(str(one) for one in there)
    if number is None:
        if len(there) > 1:
            raise InputError(
                f"The Measurement Set has several {kinds[what]}s", path=path, found=listed, expected=f"{what}=NUMBER"
            )
        return there[0]
    for one in there:
        if one.number == number:
            return one
    raise InputError(f"No such {kinds[what]} has rows", path=path, found=number, expected=listed)


@dataclass(frozen=True)
class _Column:
    """One column of the rows of a field and window: (time, baseline, frequency ascending, polarization).

    Attributes
    ----------
    rows : (time, baseline) row of the main table, or -1.
    order : (frequency,) stored channel of each.
    fill : value where there is no row.
    """

    path: Path
    name: str
    rows: NDArray[np.int64]
    order: NDArray[np.int64]
    fill: Any

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(type(self.fill))

    def read(self, index: tuple[NDArray[np.int64], ...]) -> NDArray[Any]:
        """The values at these times, baselines, channels and polarisations."""
        times, baselines, channels, pols = index
        rows = self.rows[np.ix_(times, baselines)].ravel()
        out = np.full((rows.size, channels.size, pols.size), self.fill, self.dtype)
        there = np.flatnonzero(rows >= 0)
        if there.size:
            stored = self.order[channels]
            with _CASACORE, ms.opened(self.path) as main:
                out[there] = self._cells(main.selectrows(rows[there].tolist()), stored, pols)
        return out.reshape(times.size, baselines.size, channels.size, pols.size)

    def _cells(self, main: Any, channels: NDArray[np.int64], pols: NDArray[np.int64]) -> NDArray[Any]:
        """(row, channel, polarization); columns that have no channels or polarisations are repeated over them."""
        name, shape = self.name, (main.nrows(), channels.size, pols.size)
        if name in ("WEIGHT", "FLAG_ROW"):
            values = np.asarray(main.getcol(name))
            values = values[:, pols] if values.ndim == 2 else values[:, None]
            return np.broadcast_to(values[:, None, :], shape)
        low, high = [int(channels.min()), int(pols.min())], [int(channels.max()), int(pols.max())]
        values = np.asarray(main.getcolslice(name, low, high))[:, channels - low[0]][:, :, pols - low[1]]
        if name == "FLAG":
            values = values | np.asarray(main.getcol("FLAG_ROW"))[:, None, None]
        return values


def _open(whole: Contents, column: str, field: int, window: Window, model: bool) -> xr.Dataset | None:
    if missing := [c for c in (column, *(["MODEL_DATA"] if model else [])) if c not in whole.columns]:
        has = [c for c in whole.columns if c in _DATA]
        raise InputError("The Measurement Set lacks a column", path=whole.path, found=has, expected=missing)
    with _CASACORE, ms.opened(whole.path) as main:
        here = (main.getcol("FIELD_ID") == field) & (main.getcol("DATA_DESC_ID") == window.number)
        numbers = np.flatnonzero(here)
        if numbers.size == 0:
            return None
        names = ("TIME", "ANTENNA1", "ANTENNA2", "UVW", "INTERVAL")
        columns = {name: np.asarray(main.getcol(name))[here] for name in names}
        spectral = "WEIGHT_SPECTRUM" in whole.columns and main.iscelldefined("WEIGHT_SPECTRUM", int(numbers[0]))
    times, t = np.unique(columns["TIME"], return_inverse=True)
    n = whole.names.size
    pairs, b = _in_order(columns["ANTENNA1"].astype(np.int64) * n + columns["ANTENNA2"])
    rows = np.full((times.size, pairs.size), -1)
    rows[t, b] = numbers
    if (rows >= 0).sum() != numbers.size:
        raise InputError(
            "A baseline has several rows at one time",
            path=whole.path,
            found=f"{numbers.size} rows, {(rows >= 0).sum()} baselines and times",
            expected="one row each",
        )
    uvw = np.full((times.size, pairs.size, 3), np.nan)
    uvw[t, b] = columns["UVW"]
    order = np.argsort(window.frequencies)
    read = _reader(whole.path, rows, order, len(window.polarizations))
    arrays = {
        "VISIBILITY": read(column, np.complex64(0)),
        "FLAG": read("FLAG", np.True_),
        "WEIGHT": read("WEIGHT_SPECTRUM" if spectral else "WEIGHT", np.float32(0)),
    }
    if model:
        arrays["MODEL"] = read("MODEL_DATA", np.complex64(0))
    antennas = dataset.Antennas(whole.names, whole.positions, pairs // n, pairs % n)
    return _dataset(whole, (field, window), antennas, (times, columns["INTERVAL"], order), (arrays, uvw), column)


def _in_order(values: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Each value once, as they first appear, and which of these each is."""
    ordered, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    order = np.argsort(first)
    place = np.empty(order.size, np.int64)
    place[order] = np.arange(order.size)
    return ordered[order], place[inverse]


def _reader(
    path: Path, rows: NDArray[np.int64], order: NDArray[np.int64], n_polarizations: int
) -> Callable[[str, Any], da.Array]:
    n_times, n_baselines = rows.shape
    step = max(1, _CHUNK_VALUES // (n_baselines * order.size * n_polarizations))
    sizes = [min(step, n_times - first) for first in range(0, n_times, step)]
    chunks = (tuple(sizes), (n_baselines,), (order.size,), (n_polarizations,))
    return lambda name, fill: lazy.whole(_Column(path, name, rows, order, fill), chunks)


def _dataset(
    whole: Contents,
    which: tuple[int, Window],
    antennas: dataset.Antennas,
    along: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]],
    values: tuple[dict[str, da.Array], NDArray[np.float64]],
    column: str,
) -> xr.Dataset:
    number, window = which
    seconds, intervals, order = along
    field = next(f for f in whole.fields if f.number == number)
    centre = np.tile([field.ra, field.dec], (seconds.size, 1))
    axes = dataset.Axes(
        mjd=seconds / ms.MJD_S,
        frequencies=window.frequencies[order],
        polarizations=window.polarizations,
        antennas=antennas,
        centre=centre,
        pointing=centre,
        per_integration=False,
        channel_width=window.width,
        integration_s=float(np.median(intervals)),
    )
    origin = dataset.Origin(
        telescope_name=whole.telescope_name,
        group_id=whole.path.stem,
        unit="arbitrary" if column == "DATA" else "Jy",
        fields=np.full(seconds.size, field.name),
        observer=whole.observer,
        project=whole.project,
        extra={"dish_diameter": whole.diameter},
    )
    return dataset.visibilities(values[0], values[1], axes, origin)
