"""Imaging weights: natural, uniform and Briggs.

Density is counted in cells of the image's own uv grid, 1 / (n_pixels cell) on a side, with the Hermitian half folded,
as WSClean and CASA do, so that a robustness of ours means theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.constants import speed_of_light

from dsa110_contimg.exceptions import ImagingError
from dsa110_contimg.options import ImageOptions
from dsa110_contimg.science.averaging import Channels, ImagingData
from dsa110_contimg.science.casasyntax import UVRange, parse_uvrange

if TYPE_CHECKING:
    import xarray as xr

Scheme = Literal["natural", "uniform", "briggs"]

_SPARSE = 12
"""Channels between those that are looked at before the data are: 3 MHz move the longest baseline by two cells."""


class UVShape(NamedTuple):
    """What of the uv plane is imaged.

    Attributes
    ----------
    uvrange : projected lengths that are taken; the others are left out before densities are counted, as CASA does.
    taper_rad : FWHM of the beam that a Gaussian taper alone would make of an evenly filled uv plane (rad), as WSClean's
        ``-taper-gaussian``; 0 tapers nothing.
    """

    uvrange: UVRange = UVRange()
    taper_rad: float = 0.0

    def limits(self) -> _Limits:
        """For the kernels; exp(-4 ln 2 d^2 / F^2) of angles is exp(-(pi F q)^2 / (4 ln 2)) of wavelengths."""
        taper = (np.pi * self.taper_rad) ** 2 / (4.0 * np.log(2.0))
        return _Limits(self.uvrange.least**2, self.uvrange.most**2, self.uvrange.in_wavelengths, float(taper))


EVERYTHING = UVShape()


def uv_shape(options: ImageOptions) -> UVShape:
    """What the options say.

    Raises
    ------
    InputError
        ``uvrange`` is not one.
    """
    return UVShape(parse_uvrange(options.uvrange), float(np.radians(options.uv_taper_arcsec / 3600.0)))


def described(options: ImageOptions) -> str:
    """Weights in a few words, as they decide the beam."""
    told = f"briggs {options.robust:+.1f}" if options.weighting == "briggs" else options.weighting
    taper = f" taper {options.uv_taper_arcsec:g}" if options.uv_taper_arcsec else ""
    return told + taper + (f" uv {options.uvrange}" if options.uvrange else "")


@dataclass(frozen=True)
class Samples:
    """Where visibilities lie and what they weigh, as `averaging.ImagingData` has it, without the visibilities."""

    uvw: NDArray[np.float64]
    channels_index: NDArray[np.int64]
    offsets: NDArray[np.int64]
    weights: NDArray[np.float32]
    channels: tuple[Channels, ...]


class _Limits(NamedTuple):
    """Squares of the shortest and longest length, whether these are in wavelengths, and k of the taper exp(-k q^2)."""

    least: float
    most: float
    in_wavelengths: bool
    taper: float


class _Where(NamedTuple):
    """Rows (m), their lists of channels, frequencies, where each begins, offsets, weights, and cells per wavelength."""

    uvw: NDArray[np.float64]
    rows_channels: NDArray[np.int64]
    frequencies: NDArray[np.float64]
    first: NDArray[np.int64]
    offsets: NDArray[np.int64]
    weights: NDArray[np.float32]
    scale: float
    limits: _Limits


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
def _taken(u_m: float, v_m: float, per_m: float, limits: _Limits) -> bool:
    """Whether a baseline (m) lies within the limits, at so many wavelengths a metre."""
    square = u_m**2 + v_m**2
    if limits.in_wavelengths:
        square *= per_m**2
    return bool(limits.least <= square <= limits.most)


@njit(cache=True)
def _count(where: _Where, grid: NDArray[np.float64]) -> None:
    for row in range(len(where.uvw)):
        base = where.first[where.rows_channels[row]]
        u, v = where.uvw[row, 0], where.uvw[row, 1]
        for k in range(where.offsets[row + 1] - where.offsets[row]):
            w = where.weights[where.offsets[row] + k]
            f = where.frequencies[base + k] / speed_of_light
            if w > 0.0 and _taken(u, v, f, where.limits):
                y, x = _cell(u * f, v * f, grid.shape[1], where.scale)
                if y >= 0:
                    grid[y, x] += w


@njit(cache=True)
def _apply(where: _Where, grid: NDArray[np.float64], out: NDArray[np.float32]) -> None:
    for row in range(len(where.uvw)):
        base = where.first[where.rows_channels[row]]
        u, v = where.uvw[row, 0], where.uvw[row, 1]
        for k in range(where.offsets[row + 1] - where.offsets[row]):
            w = where.weights[where.offsets[row] + k]
            f = where.frequencies[base + k] / speed_of_light
            if w > 0.0 and _taken(u, v, f, where.limits):
                y, x = _cell(u * f, v * f, grid.shape[1], where.scale)
                if y >= 0:
                    taper = 1.0
                    if where.limits.taper > 0.0:
                        taper = np.exp(-where.limits.taper * (u**2 + v**2) * f**2)
                    out[where.offsets[row] + k] = w * grid[y, x] * taper


def row_importance(
    uvw: NDArray[np.float64],
    frequencies: NDArray[np.float64],
    n_pixels: int,
    cell_rad: float,
    scheme: Scheme,
    robust: float = 0.5,
    shape: UVShape = EVERYTHING,
) -> NDArray[np.float64]:
    """Mean imaging weight of a visibility of each row, before data are read: all natural weights taken as equal.

    Parameters
    ----------
    uvw : (row, 3) m
    frequencies : (channel,) Hz
        One in `_SPARSE` of them stands for all: streaks of a baseline stay longer than the cells between.
    n_pixels, cell_rad, scheme, robust, shape
        As of `imaging_weights`.

    Returns
    -------
    (row,) in arbitrary units.
    """
    some = np.ascontiguousarray(frequencies[_SPARSE // 2 :: _SPARSE] if len(frequencies) > _SPARSE else frequencies)
    offsets = np.arange(len(uvw) + 1) * len(some)
    ones = np.ones(offsets[-1], np.float32)
    one = np.zeros(len(uvw), np.int64)
    where = _Where(uvw, one, some, np.zeros(1, np.int64), offsets, ones, n_pixels * cell_rad, shape.limits())
    out = np.zeros_like(ones)
    _apply(where, _weight_grid(where, n_pixels, cell_rad, scheme, robust), out)
    return np.asarray(out.reshape(len(uvw), -1).mean(axis=1), np.float64)


def imaging_weights(
    data: ImagingData | Samples,
    n_pixels: int,
    cell_rad: float,
    scheme: Scheme,
    robust: float = 0.5,
    shape: UVShape = EVERYTHING,
) -> NDArray[np.float32]:
    """Weights with which the visibilities are gridded.

    With W the sum of natural weights in a cell: natural w; uniform w / W; Briggs w / (1 + f^2 W),
    f^2 = (5 10^-R)^2 / (sum W^2 / sum W) (Briggs 1995, section 3.2; WSClean's and CASA's ``briggs``).

    Parameters
    ----------
    data : ImagingData or Samples
    n_pixels, cell_rad : int, float
        Image size and pixel (rad): they set the cells.
    scheme : natural, uniform or briggs
    robust : float
        R of Briggs: -2 is near uniform, +2 near natural.
    shape : UVShape
        Range of lengths and taper. The taper multiplies weights that were made without it.

    Returns
    -------
    (sample,) weights; 0 where flagged, and where the point lies outside the uv plane of the image or the range.

    Raises
    ------
    ImagingError
        All points lie outside.
    """
    frequencies = np.concatenate([c.frequencies for c in data.channels])
    first = np.cumsum([0] + [len(c.frequencies) for c in data.channels])[:-1]
    scale = n_pixels * cell_rad
    where = _Where(data.uvw, data.channels_index, frequencies, first, data.offsets, data.weights, scale, shape.limits())
    out = np.zeros(len(data.weights), np.float32)
    _apply(where, _weight_grid(where, n_pixels, cell_rad, scheme, robust), out)
    return out


def weighed(
    views: Sequence[xr.Dataset],
    n_pixels: int,
    cell_rad: float,
    scheme: Scheme,
    robust: float = 0.5,
    shape: UVShape = EVERYTHING,
) -> list[xr.Dataset]:
    """Views whose weights are imaging weights, for imagers that are then to take them as natural ones.

    Parameters
    ----------
    views : Visibilities views of one polarisation
        Spectral windows that are imaged together. Their weights and flags are read, not their visibilities.
    n_pixels, cell_rad, scheme, robust, shape
        As of `imaging_weights`.

    Returns
    -------
    list of Visibilities views
        With another WEIGHT; it is 0 where flagged and for autocorrelations.

    Raises
    ------
    ImagingError
        As `imaging_weights`.
    """
    parts = [_samples(view) for view in views]
    first = np.cumsum([0] + [len(part.weights) for part in parts])
    whole = Samples(
        np.concatenate([part.uvw for part in parts]),
        np.repeat(np.arange(len(parts)), [len(part.uvw) for part in parts]),
        np.concatenate([[0]] + [part.offsets[1:] + k for part, k in zip(parts, first[:-1], strict=True)]),
        np.concatenate([part.weights for part in parts]),
        tuple(part.channels[0] for part in parts),
    )
    weights = imaging_weights(whole, n_pixels, cell_rad, scheme, robust, shape)
    return [
        view.assign(WEIGHT=(view["WEIGHT"].dims, weights[begin:end].reshape(view["WEIGHT"].shape)))
        for view, begin, end in zip(views, first[:-1], first[1:], strict=True)
    ]


def weights_made(
    views: Sequence[xr.Dataset], options: ImageOptions, cell_rad: float
) -> tuple[list[xr.Dataset], ImageOptions]:
    """What an imager is given that would make other weights of the same options: views `weighed`, and their options.

    tclean counts densities in the cells of the wider image that it is asked for (`io.tclean`), which is another beam
    and another noise. WSClean makes our weights of the same numbers, to 3e-5 of the image, and needs none of this.
    """
    scheme = options.weighting, options.robust, uv_shape(options)
    taken = options.model_copy(update={"weighting": "natural", "uv_taper_arcsec": 0.0, "uvrange": ""})
    return weighed(views, options.n_pixels, cell_rad, *scheme), taken


def _samples(view: xr.Dataset) -> Samples:
    """Of a view of one polarisation."""
    frequencies = np.asarray(view["frequency"].to_numpy(), np.float64)
    uvw = np.asarray(view["UVW"].to_numpy(), np.float64)
    crossed = view["baseline_antenna1_name"].to_numpy() != view["baseline_antenna2_name"].to_numpy()
    seen = crossed & np.isfinite(uvw).all(axis=-1)
    weights = np.asarray(view["WEIGHT"].to_numpy(), np.float32)
    weights = np.where(view["FLAG"].to_numpy() | ~seen[:, :, None, None], np.float32(0), weights)
    rows = np.nan_to_num(uvw.reshape(-1, 3))
    offsets = np.arange(len(rows) + 1) * len(frequencies)
    channels = (Channels(frequencies, float(view.attrs["channel_width"]), 1),)
    return Samples(rows, np.zeros(len(rows), np.int64), offsets, weights.ravel(), channels)


def _weight_grid(where: _Where, n_pixels: int, cell_rad: float, scheme: Scheme, robust: float) -> NDArray[np.float64]:
    """(n_pixels / 2, n_pixels): what natural weights are multiplied by in each cell of the uv plane."""
    grid = np.zeros((n_pixels // 2, n_pixels))
    if scheme == "natural":
        grid[:] = 1.0
        return grid
    _count(where, grid)
    if not grid.any():
        raise ImagingError(
            "No visibility lies in the uv plane of the image, or in the range of lengths that is imaged",
            found=f"pixels of {np.degrees(cell_rad) * 3600:.3g} arcsec",
            expected="pixels smaller than half a fringe of the shortest baselines, a uvrange that holds baselines",
        )
    if scheme == "uniform":
        np.divide(1.0, grid, out=grid, where=grid > 0.0)
        return grid
    f2 = (5.0 * 10.0**-robust) ** 2 * grid.sum() / np.square(grid).sum()
    return np.asarray(1.0 / (1.0 + f2 * grid))


def thermal_noise(data: ImagingData, weights: NDArray[np.float32]) -> float:
    """Thermal noise of the image that these weights make (Jy/beam); NaN if the telescope's noise is not known.

    sigma = sqrt(sum w^2 sigma_k^2) / sum w, sigma_k^2 the variance of the real part of each visibility
    (Wrobel & Walker 1999, eq. 9-25).
    """
    total, power = _noise_sums(weights, data.weights)
    return float(np.sqrt(data.unit_variance * power) / total)


@njit(cache=True)
def _noise_sums(weights: NDArray[np.float32], natural: NDArray[np.float32]) -> tuple[float, float]:
    """Sums of w, and of w^2 over the natural weight where there is one."""
    total, power = 0.0, 0.0
    for k in range(len(weights)):
        w = np.float64(weights[k])
        total += w
        if natural[k] > 0.0:
            power += w * w / np.float64(natural[k])
    return total, power
