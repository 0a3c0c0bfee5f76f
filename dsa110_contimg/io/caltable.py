"""CASA calibration tables of gains and delays, as CalTable views, and back.

A row of such a table is one antenna, time and spectral window. Windows are joined along frequency (the coordinate
``spectral_window`` keeps their numbers), so that a table of 16 windows is applied like one of a single window.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from dsa110_contimg import schema, telescope
from dsa110_contimg.exceptions import CorruptFileError, InputError
from dsa110_contimg.io import files
from dsa110_contimg.io.ms import MJD_S, opened

if TYPE_CHECKING:
    from casacore.tables import table

GAINS = ("B Jones", "G Jones", "T Jones")
"""Tables with CPARAM that divide the data: bandpass, gains, and gains that both receptors share."""
DELAYS = "K Jones"
"""FPARAM holds delays in ns, about the middle of the window: G = exp(+2 pi i delay (f - f_middle))."""

_DIMS = ("time", "antenna_name", "frequency", "polarization")
_RECEPTORS = ("X", "Y")


class _Rows(NamedTuple):
    """The main table: values and flags (row, channel, receptor), labels (row,)."""

    kind: str
    values: tuple[NDArray[Any], ...]
    shape: tuple[int, int]
    seconds: NDArray[np.float64]
    antenna: NDArray[np.int64]
    window: int


def open_caltable(path: Path) -> xr.Dataset:
    """A bandpass, gain or delay table as a CalTable Dataset.

    Parameters
    ----------
    path : Path
        A CASA table of kind ``B Jones``, ``G Jones``, ``T Jones`` (complex gains; `fluxscale` and phase-only tables
        are of these kinds too) or ``K Jones`` (delays), of DSA-110 or another telescope.

    Returns
    -------
    xarray.Dataset
        ``GAIN``, ``FLAG``, ``SNR`` and ``ERROR`` (time, antenna_name, frequency, polarization). A gain table has one
        frequency a window, its middle. A table of delays has ``DELAY`` (s) too; its GAIN is 1 at its frequency and
        exp(2 pi i DELAY (f - frequency)) elsewhere. What both receptors share stands at both.

    Raises
    ------
    CorruptFileError
        Not a table, empty, or with several solutions for one time and antenna.
    InputError
        A table that is not of gains or delays, as leakages are not.
    """
    with opened(path) as main:
        if "VisCal" not in main.keywordnames() or not {"CPARAM", "FPARAM"} & set(main.colnames()):
            raise CorruptFileError(
                "Not a calibration table", path=path, found=main.colnames(), expected="CPARAM or FPARAM, VisCal"
            )
        kind = str(main.getkeyword("VisCal"))
        if kind not in (*GAINS, DELAYS):
            raise InputError(
                "Not a table of gains or delays", path=path, found=kind, expected=", ".join((*GAINS, DELAYS))
            )
        windows = np.unique(main.getcol("SPECTRAL_WINDOW_ID")).tolist() if main.nrows() else []
        if not windows:
            raise CorruptFileError("The calibration table has no solutions", path=path, found="0 rows")
        parts = [_rows(main, kind, window) for window in windows]
        references = np.asarray(main.getcol("ANTENNA2"))
    with opened(path / "ANTENNA") as sub:
        names = np.array(sub.getcol("NAME"))
    times, when = _times(parts)
    axes = [_frequencies(path, rows) for rows in parts]
    cubes = [_cube(path, rows, index, (times.size, names.size)) for rows, index in zip(parts, when, strict=True)]
    known = references[(references >= 0) & (references < names.size)]
    dataset = xr.Dataset(
        {name: (_DIMS, np.concatenate([cube[name] for cube in cubes], axis=2)) for name in cubes[0]},
        coords={
            "time": ("time", times / MJD_S, {"units": "d", "format": "mjd", "scale": "utc"}),
            "antenna_name": names,
            "frequency": ("frequency", np.concatenate([axis[0] for axis in axes]), {"units": "Hz"}),
            "channel_width": ("frequency", np.concatenate([axis[1] for axis in axes]), {"units": "Hz"}),
            "spectral_window": ("frequency", np.repeat(windows, [axis[0].size for axis in axes])),
            "polarization": list(_RECEPTORS),
        },
        attrs={"kind": kind, "refant": str(names[np.bincount(known).argmax()]) if known.size else ""},
    )
    return schema.check(dataset.sortby("frequency"), schema.CALTABLE)


def _rows(main: table, kind: str, window: int) -> _Rows:
    """The rows of one spectral window."""
    chosen = main.query(f"SPECTRAL_WINDOW_ID == {window}")
    columns = ("FPARAM" if kind == DELAYS else "CPARAM", "FLAG", "SNR", "PARAMERR")
    there = [name for name in columns if name in chosen.colnames() and chosen.iscelldefined(name, 0)]
    got = {name: np.asarray(chosen.getcol(name)) for name in there}
    first = got[columns[0]]
    values = tuple(got.get(name, np.zeros(first.shape, np.float32)) for name in columns)
    seconds = np.asarray(chosen.getcol("TIME"), np.float64)
    return _Rows(kind, values, first.shape[1:], seconds, np.asarray(chosen.getcol("ANTENNA1"), np.int64), window)


def _times(parts: list[_Rows]) -> tuple[NDArray[np.float64], list[NDArray[np.int64]]]:
    """Times (s) of all windows, and which of them each row has.

    A solution's time is the mean of its unflagged data, so windows that were solved together differ by a little; where
    all have equally many, they are taken to be the same ones.
    """
    own = [np.unique(rows.seconds, return_inverse=True) for rows in parts]
    each = [times for times, _ in own]
    if len({times.size for times in each}) == 1:
        mean = np.mean(each, axis=0)
        apart = np.diff(mean).min(initial=np.inf)
        if max(float(np.abs(times - mean).max()) for times in each) < apart / 2:
            return mean, [index for _, index in own]
    union = np.unique(np.concatenate(each))
    return union, [np.searchsorted(union, rows.seconds) for rows in parts]


def _frequencies(path: Path, rows: _Rows) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Channel centres and widths (Hz) of a window; the middle and the whole width for one solution a window."""
    with opened(path / "SPECTRAL_WINDOW") as sub:
        centres = np.asarray(sub.getcell("CHAN_FREQ", rows.window), np.float64)
        widths = np.abs(np.asarray(sub.getcell("CHAN_WIDTH", rows.window), np.float64))
    if rows.shape[0] == 1 and centres.size > 1:
        return np.array([centres.mean()]), np.array([widths.sum()])
    if rows.shape[0] != centres.size:
        raise CorruptFileError(
            "Solutions and channels do not fit", path=path, found=f"{rows.shape[0]} solutions", expected=centres.size
        )
    return centres, widths


def _cube(path: Path, rows: _Rows, when: NDArray[np.int64], size: tuple[int, int]) -> dict[str, NDArray[Any]]:
    """Variables of one window, (time, antenna, frequency, receptor)."""
    if np.unique(when * size[1] + rows.antenna).size != when.size:
        raise CorruptFileError(
            "Several solutions for one time and antenna",
            path=path,
            found=f"{when.size} rows of window {rows.window}",
            expected="one for each",
        )
    values, flag, snr, error = rows.values
    shape = (*size, rows.shape[0], len(_RECEPTORS))
    delay = rows.kind == DELAYS
    cubes: dict[str, NDArray[Any]] = {
        "GAIN": np.full(shape, np.nan + 0j, np.complex64),
        "FLAG": np.ones(shape, bool),
        "SNR": np.zeros(shape, np.float32),
        "ERROR": np.zeros(shape, np.float32),
    }
    gain = np.ones(values.shape, np.complex64) if delay else values
    for name, column in (("GAIN", gain), ("FLAG", flag), ("SNR", snr), ("ERROR", error)):
        cubes[name][when, rows.antenna] = column
    if delay:
        cubes["DELAY"] = np.full(shape, np.nan)
        cubes["DELAY"][when, rows.antenna] = values * 1e-9
    return cubes


# ---- back to CASA -------------------------------------------------------------------------------------------------


def write_caltable(dataset: xr.Dataset, path: Path, like: Path | None = None) -> Path:
    """Write a CalTable Dataset as a CASA table that applycal takes.

    Parameters
    ----------
    dataset : CalTable view
        Its ``kind`` begins with B, G, T or K (delays from ``DELAY``); ``spectral_window``, if it has that coordinate,
        says which frequencies belong together. Values without a solution are written as 1, flagged.
    path : Path
        Replaced if it is there.
    like : Path, optional
        The Measurement Set that it will be applied to, or a table of it. CASA finds antennas by their number: with
        ``like`` they are numbered as there, and antennas without solutions are flagged; without it, as in the Dataset.

    Returns
    -------
    Path

    Raises
    ------
    InputError
        A kind that cannot be written, or antennas that ``like`` does not have.
    OutputError
        The place cannot be written.
    """
    kinds = {kind[0]: kind for kind in (*GAINS, DELAYS)}
    kind = kinds.get(str(dataset.attrs.get("kind", ""))[:1], "")
    if not kind or (kind == DELAYS) != ("DELAY" in dataset):
        raise InputError("Not a kind that can be written", found=dataset.attrs.get("kind"), expected=list(kinds))
    dataset = dataset.transpose(*_DIMS, ...)
    names = [str(name) for name in dataset["antenna_name"].to_numpy()]
    if like is not None:
        with opened(like / "ANTENNA") as sub:
            order = [str(name) for name in sub.getcol("NAME")]
        if not set(names) <= set(order):
            raise InputError(
                "Antennas that are not there", path=like, found=sorted(set(names) - set(order)), expected=order
            )
        names = order
    with files.beside(path) as partial:
        _main_table(partial, dataset, kind, names)
        _subtables(partial, dataset, names, like)
    return path


def _windows(dataset: xr.Dataset) -> list[tuple[int, NDArray[np.int64]]]:
    """Number of each spectral window, and its frequencies' places."""
    if "spectral_window" not in dataset.coords:
        return [(0, np.arange(dataset.sizes["frequency"]))]
    numbers = dataset["spectral_window"].to_numpy()
    return [(int(number), np.flatnonzero(numbers == number)) for number in np.unique(numbers)]


def _main_table(path: Path, dataset: xr.Dataset, kind: str, names: list[str]) -> None:
    from casacore import tables as ct

    delay = kind == DELAYS
    shown = slice(0, 1) if kind == "T Jones" else slice(None)
    parameter = "FPARAM" if delay else "CPARAM"
    columns = [
        ct.makescacoldesc("TIME", 0.0, keywords=_TIME_KEYWORDS),
        *(ct.makescacoldesc(name, 0) for name in ("FIELD_ID", "SPECTRAL_WINDOW_ID", "ANTENNA1", "ANTENNA2")),
        ct.makescacoldesc("INTERVAL", 0.0, keywords={"QuantumUnits": ["s"]}),
        *(ct.makescacoldesc(name, 0) for name in ("SCAN_NUMBER", "OBSERVATION_ID")),
        ct.makearrcoldesc(parameter, 0.0 if delay else 0j, valuetype="float" if delay else "complex"),
        *(ct.makearrcoldesc(name, 0.0, valuetype="float") for name in ("PARAMERR", "SNR", "WEIGHT")),
        ct.makearrcoldesc("FLAG", False),  # noqa: FBT003 (the value says the type)
    ]
    refant = str(dataset.attrs.get("refant", ""))
    places = dict(zip([str(name) for name in dataset["antenna_name"].to_numpy()], range(len(names)), strict=False))
    rows = np.array([places.get(name, -1) for name in names])
    with _created(path, ct.maketabdesc(columns)) as main:
        main.putkeywords(
            {
                "ParType": "Float" if delay else "Complex",
                "MSName": "",
                "VisCal": kind,
                "PolBasis": "unknown",
                "CASA_Version": "",
            }
        )
        main.putinfo({"type": "Calibration", "subType": kind, "readme": ""})
        n = len(names)
        for number, channels in _windows(dataset):
            for time, mjd in enumerate(dataset["time"].to_numpy()):
                start = main.nrows()
                main.addrows(n)
                scalars = {"TIME": np.full(n, float(mjd) * MJD_S), "ANTENNA1": np.arange(n)}
                scalars["SPECTRAL_WINDOW_ID"] = np.full(n, number)
                scalars["ANTENNA2"] = np.full(n, names.index(refant) if refant in names else -1)
                for name, values in scalars.items():
                    main.putcol(name, values, start, n)
                for name, cube in _values(dataset, parameter, time, channels, rows).items():
                    main.putcol(name, np.ascontiguousarray(cube[..., shown]), start, n)


_TIME_KEYWORDS = {"QuantumUnits": ["s"], "MEASINFO": {"type": "epoch", "Ref": "UTC"}}


def _values(
    dataset: xr.Dataset, parameter: str, time: int, channels: NDArray[np.int64], rows: NDArray[np.int64]
) -> dict[str, NDArray[Any]]:
    """Array columns of one time and window, (antenna, channel, receptor)."""

    def taken(name: str, kind: type, missing: object) -> NDArray[Any]:
        whole = dataset[name].to_numpy() if name in dataset else np.zeros(dataset["FLAG"].shape)
        padded = np.concatenate([whole[time][:, channels], np.full((1, channels.size, whole.shape[-1]), missing)])
        return np.asarray(padded[rows], kind)

    flag = taken("FLAG", np.bool_, missing=True)
    values = taken("DELAY", np.float64, 0.0) * 1e9 if parameter == "FPARAM" else taken("GAIN", np.complex64, 1.0)
    flag |= ~np.isfinite(values)
    values[flag & ~np.isfinite(values)] = 0.0 if parameter == "FPARAM" else 1.0
    return {
        parameter: values.astype(np.float32) if parameter == "FPARAM" else values,
        "FLAG": flag,
        "SNR": taken("SNR", np.float32, 0.0),
        "PARAMERR": taken("ERROR", np.float32, 0.0),
    }


def _subtables(path: Path, dataset: xr.Dataset, names: list[str], like: Path | None) -> None:
    from casacore import tables as ct

    for name in ("ANTENNA", "FIELD", "OBSERVATION"):
        if like is not None:
            with opened(like / name) as source:
                source.copy(str(path / name), deep=True, valuecopy=True).close()
        else:
            ct.default_ms_subtable(name, str(path / name)).close()
    for name in ("SPECTRAL_WINDOW", "HISTORY"):
        ct.default_ms_subtable(name, str(path / name)).close()
    if like is None:
        _antennas(path / "ANTENNA", dataset, names)
        with opened(path / "FIELD", writable=True) as sub:
            sub.addrows(1)
            for name in ("DELAY_DIR", "PHASE_DIR", "REFERENCE_DIR"):
                sub.putcell(name, 0, np.zeros((1, 2)))
        with opened(path / "OBSERVATION", writable=True) as sub:
            sub.addrows(1)
            sub.putcell("TELESCOPE_NAME", 0, telescope.TELESCOPE_NAME)
            sub.putcell("TIME_RANGE", 0, np.asarray(dataset["time"].to_numpy()[[0, -1]]) * MJD_S)
    _spectral_windows(path / "SPECTRAL_WINDOW", dataset)
    with opened(path, writable=True) as main:
        for name in ("OBSERVATION", "ANTENNA", "FIELD", "SPECTRAL_WINDOW", "HISTORY"):
            main.putkeyword(name, f"Table: {path / name}")


def _antennas(path: Path, dataset: xr.Dataset, names: list[str]) -> None:
    n = len(names)
    position = dataset["antenna_position"].to_numpy() if "antenna_position" in dataset.coords else np.zeros((n, 3))
    columns: dict[str, Any] = {"NAME": names, "STATION": names, "TYPE": ["GROUND-BASED"] * n, "MOUNT": ["ALT-AZ"] * n}
    columns |= {
        "POSITION": position,
        "OFFSET": np.zeros((n, 3)),
        "DISH_DIAMETER": np.full(n, telescope.DISH_DIAMETER_M),
    }
    with opened(path, writable=True) as sub:
        sub.addrows(n)
        for name, values in columns.items():
            sub.putcol(name, values)


def _spectral_windows(path: Path, dataset: xr.Dataset) -> None:
    """One row for each number up to the last; CASA counts rows."""
    frequencies = dataset["frequency"].to_numpy()
    spacing = np.diff(frequencies)
    width = float(np.median(spacing)) if spacing.size else telescope.N_CHANNELS * telescope.CHANNEL_WIDTH_HZ
    widths = (
        dataset["channel_width"].to_numpy() if "channel_width" in dataset.coords else np.full(len(frequencies), width)
    )
    windows = dict(_windows(dataset))
    with opened(path, writable=True) as sub:
        sub.addrows(max(windows) + 1)
        for row in range(max(windows) + 1):
            where = windows.get(row, next(iter(windows.values())))
            sub.putcell("NUM_CHAN", row, int(where.size))
            sub.putcell("CHAN_FREQ", row, frequencies[where])
            for name in ("CHAN_WIDTH", "EFFECTIVE_BW", "RESOLUTION"):
                sub.putcell(name, row, widths[where])
            sub.putcell("TOTAL_BANDWIDTH", row, float(widths[where].sum()))
            sub.putcell("REF_FREQUENCY", row, float(frequencies[where][0]))
            sub.putcell("MEAS_FREQ_REF", row, 5)


def _created(path: Path, description: Any) -> Any:
    from casacore import tables as ct

    return ct.table(str(path), description, ack=False)
