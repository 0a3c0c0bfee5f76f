"""One look at one place of an image: its peak, where exactly that is, and the noise about it.

For pointing at things. Fluxes that are kept come from `photometry`, at positions that are known beforehand.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dsa110_contimg.science.deconvolution import robust_rms
from dsa110_contimg.science.photometry import interpolate


@dataclass(frozen=True)
class Spot:
    """A peak.

    Attributes
    ----------
    x, y : pixels, from 0.
    peak : of the image there, between its pixels (Jy/beam); biased high by up to a sigma, as all found peaks are.
    noise : robust rms about it, the spot left out (Jy/beam); NaN where too little of the image is there.
    """

    x: float
    y: float
    peak: float
    noise: float


def spot_at(values: NDArray[np.float32], x: float, y: float, reach: float) -> Spot | None:
    """The highest peak within ``reach`` of a place; None where the image has no values.

    The maximum of the parabolas through the highest pixel and its neighbours, whose error is a few hundredths of a
    pixel for beams of three pixels and more.

    Parameters
    ----------
    values : (n_y, n_x) ``[y, x]``; NaN where blank.
    x, y : pixels, from 0.
    reach : pixels, the radius that is searched: about a beam.
    """
    n_y, n_x = values.shape
    half = int(np.ceil(reach))
    row, column = round(y), round(x)
    rows = np.arange(max(row - half, 0), min(row + half + 1, n_y))
    columns = np.arange(max(column - half, 0), min(column + half + 1, n_x))
    if not (rows.size and columns.size):
        return None
    cut = values[np.ix_(rows, columns)].astype(np.float64)
    cut[np.hypot(columns - x, (rows - y)[:, None]) > max(reach, 1.0)] = np.nan
    if not np.isfinite(cut).any():
        return None
    i, j = np.unravel_index(int(np.nanargmax(cut)), cut.shape)
    row, column = int(rows[i]), int(columns[j])
    place = (column + _vertex(values[row], column), row + _vertex(values[:, column], row))
    peak = float(interpolate(values, np.array([place[0]]), np.array([place[1]]))[0])
    # blank neighbours count as zero between pixels, which is no measurement: the pixel itself is
    around = values[max(row - 14, 0) : row + 15, max(column - 14, 0) : column + 15]
    peak = peak if np.isfinite(around).all() else float(values[row, column])
    return Spot(*place, peak, _noise(values, row, column, reach))


def _vertex(line: NDArray[np.float32], at: int) -> float:
    """Offset of the top of the parabola through a pixel and its neighbours; 0 where there is none."""
    if not 0 < at < len(line) - 1:
        return 0.0
    before, here, after = (float(line[k]) for k in (at - 1, at, at + 1))
    bend = before - 2 * here + after
    offset = 0.5 * (before - after) / bend if bend < 0 else 0.0
    return offset if np.isfinite(offset) and abs(offset) <= 1.0 else 0.0


def _noise(values: NDArray[np.float32], row: int, column: int, reach: float) -> float:
    half = int(np.ceil(max(10 * reach, 30)))
    rows = np.arange(max(row - half, 0), min(row + half + 1, values.shape[0]))
    columns = np.arange(max(column - half, 0), min(column + half + 1, values.shape[1]))
    cut = values[np.ix_(rows, columns)].astype(np.float64)
    cut[np.hypot(columns - column, (rows - row)[:, None]) < 2.5 * reach] = np.nan
    good = cut[np.isfinite(cut)]
    return float(robust_rms(good)) if good.size >= 50 else float("nan")
