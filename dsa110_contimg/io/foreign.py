"""Measurement Sets that others made: any telescope, several spectral windows, times that lack baselines.

Our own are opened lazily by `io.ms`. These are read whole, one Visibilities view for each spectral window, made
rectangular by flagging what is not there.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from dsa110_contimg import schema
from dsa110_contimg.exceptions import InputError
from dsa110_contimg.io import ms

_KEEP_ROWS = "FIELD_ID == {field} && DATA_DESC_ID == {window}"


@dataclass(frozen=True)
class _Whole:
    """What is common to the spectral windows."""

    path: Path
    column: str
    ra: float
    dec: float
    names: NDArray[Any]
    diameter: float
    telescope_name: str


def open_foreign(path: Path, column: str = "DATA", field: int = 0) -> list[xr.Dataset]:
    """The spectral windows of one field of any Measurement Set, as Visibilities views in memory.

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
    with ms.opened(path) as main:
        if column not in main.colnames():
            raise InputError("The Measurement Set lacks a column", path=path, found=main.colnames(), expected=column)
        windows = sorted(set(main.getcol("DATA_DESC_ID")))
    with ms.opened(path / "FIELD") as sub:
        if not 0 <= field < sub.nrows():
            raise InputError(
                "The Measurement Set has no such field", path=path, found=field, expected=f"0 to {sub.nrows() - 1}"
            )
        # an array cell is (n, 2) or (n, 1, 2) by its writer; the first pair is the direction
        ra, dec = (float(v) for v in np.asarray(sub.getcell("PHASE_DIR", field)).reshape(-1, 2)[0])
    with ms.opened(path / "ANTENNA") as sub:
        names, diameter = np.array(sub.getcol("NAME")), float(np.median(sub.getcol("DISH_DIAMETER")))
    with ms.opened(path / "OBSERVATION") as sub:
        telescope_name = str(sub.getcell("TELESCOPE_NAME", 0))
    whole = _Whole(path, column, ra % (2 * np.pi), dec, names, diameter, telescope_name)
    views = [view for window in windows if (view := _window(whole, field, int(window))) is not None]
    if not views:
        raise InputError("The field has no rows", path=path, found=f"field {field}", expected="visibilities")
    return views


def _window(whole: _Whole, field: int, window: int) -> xr.Dataset | None:
    with ms.opened(whole.path) as main:
        rows = main.query(_KEEP_ROWS.format(field=field, window=window))
        if rows.nrows() == 0:
            return None
        columns = {name: np.asarray(rows.getcol(name)) for name in ("TIME", "ANTENNA1", "ANTENNA2", "UVW", "INTERVAL")}
        data, flags = np.asarray(rows.getcol(whole.column)), np.asarray(rows.getcol("FLAG"))
        flags = flags | np.asarray(rows.getcol("FLAG_ROW"))[:, None, None]
        name = "WEIGHT_SPECTRUM"
        spectral = name in main.colnames() and rows.iscelldefined(name, 0)
        weight = np.asarray(rows.getcol(name if spectral else "WEIGHT"))
        weight = weight if weight.ndim == 3 else np.broadcast_to(weight[:, None, :], data.shape)
    with ms.opened(whole.path / "DATA_DESCRIPTION") as sub:
        spw, pol = sub.getcell("SPECTRAL_WINDOW_ID", window), sub.getcell("POLARIZATION_ID", window)
    with ms.opened(whole.path / "SPECTRAL_WINDOW") as sub:
        frequencies = np.asarray(sub.getcell("CHAN_FREQ", spw))
        width = abs(float(np.asarray(sub.getcell("CHAN_WIDTH", spw))[0]))
    with ms.opened(whole.path / "POLARIZATION") as sub:
        hands = [ms.CORRELATION_NAMES[int(c)] for c in sub.getcell("CORR_TYPE", pol)]
    times, t = np.unique(columns["TIME"], return_inverse=True)
    pairs, b = np.unique(np.stack([columns["ANTENNA1"], columns["ANTENNA2"]], axis=-1), axis=0, return_inverse=True)
    b = b.ravel()
    order = np.argsort(frequencies)
    shape = (times.size, len(pairs), frequencies.size, len(hands))
    cubes = {
        "VISIBILITY": np.zeros(shape, np.complex64),
        "FLAG": np.ones(shape, bool),
        "WEIGHT": np.zeros(shape, np.float32),
    }
    for key, values in (("VISIBILITY", data), ("FLAG", flags), ("WEIGHT", weight)):
        cubes[key][t, b] = values[:, order]
    uvw = np.full((times.size, len(pairs), 3), np.nan)
    uvw[t, b] = columns["UVW"]
    return _dataset(
        whole,
        cubes,
        uvw,
        (times / ms.MJD_S, frequencies[order], hands, pairs),
        (width, float(np.median(columns["INTERVAL"]))),
    )


def _dataset(
    whole: _Whole,
    cubes: dict[str, NDArray[Any]],
    uvw: NDArray[np.float64],
    axes: tuple[NDArray[np.float64], NDArray[np.float64], list[str], NDArray[Any]],
    widths: tuple[float, float],
) -> xr.Dataset:
    mjd, frequencies, hands, pairs = axes
    dims = ("time", "baseline_id", "frequency", "polarization")
    dataset = xr.Dataset(
        {**{k: (dims, v) for k, v in cubes.items()}, "UVW": (("time", "baseline_id", "uvw_label"), uvw)},
        coords={
            "time": ("time", mjd, {"units": "d", "format": "mjd", "scale": "utc"}),
            "frequency": ("frequency", frequencies, {"units": "Hz"}),
            "polarization": hands,
            "uvw_label": ["u", "v", "w"],
            "baseline_antenna1_name": ("baseline_id", whole.names[pairs[:, 0]]),
            "baseline_antenna2_name": ("baseline_id", whole.names[pairs[:, 1]]),
            "pointing_ra": ("time", np.full(mjd.size, whole.ra), {"units": "rad", "frame": "icrs"}),
            "pointing_dec": ("time", np.full(mjd.size, whole.dec), {"units": "rad", "frame": "icrs"}),
        },
        attrs={
            "phase_center_ra": whole.ra,
            "phase_center_dec": whole.dec,
            "channel_width": widths[0],
            "integration_time": widths[1],
            "telescope_name": whole.telescope_name,
            "dish_diameter": whole.diameter,
            "group_id": whole.path.stem,
        },
    )
    return schema.check(dataset, schema.VISIBILITIES)
