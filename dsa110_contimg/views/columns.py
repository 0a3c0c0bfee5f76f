"""The horizontal axes of figures of visibilities: which column each visibility belongs to, and what a column is."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.constants import speed_of_light

from dsa110_contimg.exceptions import InputError
from dsa110_contimg.views.scan import wanted_hands, wanted_rows

Against = Literal["uvdist", "time", "frequency"]
AGAINST: tuple[Against, ...] = ("uvdist", "time", "frequency")
_UV_COLUMNS, _MOST_COLUMNS = 240, 400


@dataclass(frozen=True)
class Columns:
    """The horizontal axis of a raster.

    Attributes
    ----------
    name : what it is.
    edges : (column + 1,) ascending, in the unit of the label.
    label : with its unit.
    log : whether columns are evenly spaced in the logarithm.
    width : what one column is, in words.
    """

    name: str
    edges: NDArray[np.float64]
    label: str
    log: bool
    width: str

    @property
    def centres(self) -> NDArray[np.float64]:
        """(column,) middles, geometric on a logarithmic axis."""
        low, high = self.edges[:-1], self.edges[1:]
        return np.asarray(np.sqrt(low * high) if self.log else (low + high) / 2)


def columns_of(vis: xr.Dataset, x: str) -> tuple[Columns, NDArray[np.float64], NDArray[np.float64]]:
    """The axis, and the column of a datum as the sum of (time, baseline) and (channel,); NaN: not wanted."""
    if x not in AGAINST:
        raise InputError("Visibilities are not drawn against this", found=x, expected=", ".join(AGAINST))
    uvw, frequency = vis["UVW"].values, vis["frequency"].values
    length = np.where(wanted_rows(vis), np.hypot(uvw[..., 0], uvw[..., 1]), np.nan)
    nothing = np.where(np.isnan(length), np.nan, 0.0)
    if x == "time":
        axis, index = time_columns(vis)
        return axis, nothing + index[:, None], np.zeros(frequency.size)
    if x == "frequency":
        axis, index = frequency_columns(vis)
        return axis, nothing, index.astype(np.float64)
    axis, scale = _uvdist(length, frequency)
    # in lengths of the shortest baseline at the lowest frequency; zero belongs to the first column
    first = np.nanmin(length, initial=np.inf, where=length > 1e-3)
    with np.errstate(divide="ignore"):
        along = np.maximum(np.log(length / (first if np.isfinite(first) else 1.0)) * scale, -1e6)
    return axis, along, np.log(frequency / frequency.min()) * scale


def uv_unit(longest_wavelengths: float) -> tuple[float, str]:
    """Wavelengths in the unit that suits the longest baseline, and its name."""
    return (1e3, "kλ") if longest_wavelengths >= 500 else (1.0, "λ")


def _uvdist(length_m: NDArray[np.float64], frequency: NDArray[np.float64]) -> tuple[Columns, float]:
    """Even columns of the logarithm from the shortest to the longest baseline, and columns in a unit of it."""
    good = length_m[length_m > 1e-3]
    low, high = (float(good.min()), float(good.max())) if good.size else (1.0, 10.0)
    size, unit = uv_unit(high * frequency.max() / speed_of_light)
    start, stop = (np.log(x / speed_of_light / size) for x in (low * frequency.min(), high * frequency.max()))
    stop = max(stop, start + 1e-3)
    edges = np.exp(np.linspace(start, stop, _UV_COLUMNS + 1))
    width = f"{np.expm1((stop - start) / _UV_COLUMNS):.1%} of baseline length"
    axis = Columns("projected baseline", edges, f"projected baseline ({unit})", log=True, width=width)
    return axis, _UV_COLUMNS / (stop - start)


def time_columns(vis: xr.Dataset, most: int = _MOST_COLUMNS) -> tuple[Columns, NDArray[np.int64]]:
    """Columns of one integration or of several, and the column of each integration."""
    seconds = (vis["time"].values - vis["time"].values[0]) * 86400.0
    edges, index, members = cells(seconds, step(seconds, vis.attrs.get("integration_time")), most)
    one = step(seconds, vis.attrs.get("integration_time"))
    width = f"{members} integrations ({members * one:.4g} s)" if members > 1 else f"one integration ({one:.3g} s)"
    return Columns("time", edges / 60, "minutes since the first integration", log=False, width=width), index


def frequency_columns(vis: xr.Dataset, most: int = _MOST_COLUMNS) -> tuple[Columns, NDArray[np.int64]]:
    """Columns of one channel or of several, and the column of each channel."""
    frequency = vis["frequency"].values
    one = step(frequency, vis.attrs.get("channel_width"))
    edges, index, members = cells(frequency, one, most)
    width = f"{members} channels ({hertz(members * one)})" if members > 1 else f"one channel ({hertz(one)})"
    return Columns("frequency", edges / 1e6, "frequency (MHz)", log=False, width=width), index


def step(centres: NDArray[np.float64], given: Any) -> float:
    """Spacing of centres; a single one takes the width that the Dataset states."""
    if centres.size > 1:
        return float(np.median(np.diff(centres)))
    return float(given) if given is not None else 1.0


def cells(centres: NDArray[np.float64], width: float, most: int) -> tuple[NDArray[np.float64], NDArray[np.int64], int]:
    """Cells that hold equally many neighbours and never reach over a gap; a gap is a cell of its own, and empty.

    Parameters
    ----------
    centres : ascending
    width : of one member
    most : cells wanted, at most; gaps come on top

    Returns
    -------
    edges : (cell + 1,) ascending
    index : cell of each centre
    members : most that one cell holds
    """
    members = -(-centres.size // most)
    edges, index = [centres[0] - width / 2], np.empty(centres.size, np.int64)
    starts = np.concatenate([[0], np.flatnonzero(np.diff(centres) > 1.5 * width) + 1, [centres.size]])
    for start, stop in itertools.pairwise(starts.tolist()):
        if start > 0:
            edges.append(centres[start] - width / 2)
        for first in range(start, stop, members):
            after = min(first + members, stop)
            index[first:after] = len(edges) - 1
            last = centres[after - 1] + width / 2
            edges.append(last if after == stop else (centres[after - 1] + centres[after]) / 2)
    return np.array(edges), index, members


def hertz(value: float) -> str:
    return f"{value / 1e6:.3g} MHz" if value >= 1e6 else f"{value / 1e3:.4g} kHz"


def datum(vis: xr.Dataset) -> str:
    """What one visibility is, in words: channel, integration, hands."""
    seconds = (vis["time"].values - vis["time"].values[0]) * 86400.0
    channel, time = (
        step(vis["frequency"].values, vis.attrs.get("channel_width")),
        step(seconds, vis.attrs.get("integration_time")),
    )
    hands = ", ".join(str(name) for name in vis["polarization"].values[wanted_hands(vis)])
    names1, names2 = vis["baseline_antenna1_name"].values, vis["baseline_antenna2_name"].values
    kind = "baseline" if (names1 != names2).any() else "antenna (autocorrelation)"
    return f"{hertz(channel)} × {time:.3g} s of one {kind} ({hands})"
