"""Imaging weights: natural, uniform and Briggs.

Density is counted in cells of the image's own uv grid, 1 / (n_pixels cell) on a side, with the Hermitian half folded,
as WSClean and CASA do, so that a robustness of ours means theirs.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.constants import speed_of_light

from dsa110_contimg.exceptions import ImagingError
from dsa110_contimg.science.averaging import ImagingData

Scheme = Literal["natural", "uniform", "briggs"]


@njit(cache=True)
def _cell(u: float, v: float, n: int, scale: float) -> tuple[int, int]:
    """Cell of a point of the uv plane (wavelengths) on the folded grid; (-1, -1) where it lies outside."""
    if v < 0.0:
        u, v = -u, -v
    x = int(np.floor(u * scale)) + n // 2
    y = int(np.floor(v * scale))
    if x < 0 or x >= n or y >= n // 2:
        return -1, -1
    return y, x


@njit(cache=True)
def _count(
    uvw: NDArray[np.float64],
    rows_channels: NDArray[np.int64],
    frequencies: NDArray[np.float64],
    first: NDArray[np.int64],
    offsets: NDArray[np.int64],
    weights: NDArray[np.float32],
    scale: float,
    grid: NDArray[np.float64],
) -> None:
    for row in range(len(uvw)):
        base = first[rows_channels[row]]
        for k in range(offsets[row + 1] - offsets[row]):
            w = weights[offsets[row] + k]
            if w > 0.0:
                f = frequencies[base + k] / speed_of_light
                y, x = _cell(uvw[row, 0] * f, uvw[row, 1] * f, grid.shape[1], scale)
                if y >= 0:
                    grid[y, x] += w


@njit(cache=True)
def _apply(
    uvw: NDArray[np.float64],
    rows_channels: NDArray[np.int64],
    frequencies: NDArray[np.float64],
    first: NDArray[np.int64],
    offsets: NDArray[np.int64],
    weights: NDArray[np.float32],
    scale: float,
    grid: NDArray[np.float64],
    out: NDArray[np.float32],
) -> None:
    for row in range(len(uvw)):
        base = first[rows_channels[row]]
        for k in range(offsets[row + 1] - offsets[row]):
            w = weights[offsets[row] + k]
            if w > 0.0:
                f = frequencies[base + k] / speed_of_light
                y, x = _cell(uvw[row, 0] * f, uvw[row, 1] * f, grid.shape[1], scale)
                if y >= 0:
                    out[offsets[row] + k] = w * grid[y, x]


def imaging_weights(
    data: ImagingData, n_pixels: int, cell_rad: float, scheme: Scheme, robust: float = 0.5
) -> NDArray[np.float32]:
    """Weights with which the visibilities are gridded.

    With W the sum of natural weights in a cell: natural w; uniform w / W; Briggs w / (1 + f^2 W),
    f^2 = (5 10^-R)^2 / (sum W^2 / sum W) (Briggs 1995, section 3.2; WSClean's and CASA's ``briggs``).

    Parameters
    ----------
    data : ImagingData
    n_pixels, cell_rad : int, float
        Image size and pixel (rad): they set the cells.
    scheme : natural, uniform or briggs
    robust : float
        R of Briggs: -2 is near uniform, +2 near natural.

    Returns
    -------
    (sample,) weights; 0 where flagged, and where the point lies outside the uv plane of the image.

    Raises
    ------
    ImagingError
        All points lie outside.
    """
    frequencies = np.concatenate([c.frequencies for c in data.channels])
    first = np.cumsum([0] + [len(c.frequencies) for c in data.channels])[:-1]
    where = (data.uvw, data.channels_index, frequencies, first, data.offsets, data.weights, n_pixels * cell_rad)
    grid = np.zeros((n_pixels // 2, n_pixels))
    if scheme == "natural":
        grid[:] = 1.0
    else:
        _count(*where, grid)
        if not grid.any():
            raise ImagingError(
                "No visibility lies in the uv plane of the image",
                found=f"pixels of {np.degrees(cell_rad) * 3600:.3g} arcsec",
                expected="pixels smaller than half a fringe of the shortest baselines",
            )
        if scheme == "uniform":
            np.divide(1.0, grid, out=grid, where=grid > 0.0)
        else:
            f2 = (5.0 * 10.0**-robust) ** 2 * grid.sum() / np.square(grid).sum()
            grid = 1.0 / (1.0 + f2 * grid)
    out = np.zeros(len(data.weights), np.float32)
    _apply(*where, grid, out)
    return out


def thermal_noise(data: ImagingData, weights: NDArray[np.float32]) -> float:
    """Thermal noise of the image that these weights make (Jy/beam); NaN if the telescope's noise is not known.

    sigma = sqrt(sum w^2 sigma_k^2) / sum w, sigma_k^2 the variance of the real part of each visibility
    (Wrobel & Walker 1999, eq. 9-25).
    """
    w = weights.astype(np.float64)
    natural = data.weights.astype(np.float64)
    variance = np.divide(data.unit_variance, natural, out=np.zeros_like(natural), where=natural > 0.0)
    return float(np.sqrt(np.sum(w**2 * variance)) / w.sum())
