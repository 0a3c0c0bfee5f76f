"""Forced photometry: flux densities at given positions of an image, neighbours solved for together.

A flux measured where a source is known to be, instead of at a peak that noise has moved, is unbiased at any signal to
noise, which is what light curves and their upper limits need.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage, optimize
from scipy.spatial import KDTree

from dsa110_contimg.science import interpolation
from dsa110_contimg.science.deconvolution import robust_rms
from dsa110_contimg.science.restoring import Beam

_MEDIAN_OVER_MEAN = float(np.sqrt(np.pi / 2))
"""Error of a median over that of a mean, of many Gaussian values."""

_KERNEL_RADIUS = 14
_KERNEL_SHAPE = 9.0


class Quality(IntFlag):
    """What to know about a measured flux; 0 is nothing to report."""

    BLENDED = 1
    """A neighbour's beam covers more than 1 % of it; the two were solved for together."""
    CONFUSED = 2
    """Neighbours so close that the joint solution more than doubles the error."""
    NEAR_EDGE = 4
    """Within three beams of the edge of the image."""
    LOW_BEAM = 8
    """Primary beam response below 0.3, where pointing errors matter most."""
    FAINT = 16
    """Below five times its error: a flux for light curves, not a detection."""
    DISPLACED = 32
    """A bright source whose fitted position is more than half a beam from the catalogue's."""
    GAINS_EXTRAPOLATED = 64
    """Amplitude gains from calibrators on one side in time only."""
    GAINS_OLD = 128
    """Amplitude gains interpolated: the nearest solution is out of its validity (30 min)."""
    DRIFT_ASSUMED = 256
    """Too few solutions to tell how gains drift: the error of the flux scale rests on an assumption."""

    def in_words(self) -> str:
        """The bits by name, for readers: ``faint, gains old``; empty for 0."""
        return ", ".join(str(bit.name).lower().replace("_", " ") for bit in Quality if bit in self)


OF_CALIBRATION = Quality.GAINS_EXTRAPOLATED | Quality.GAINS_OLD | Quality.DRIFT_ASSUMED
"""The bits that all fluxes of a group share."""

_FROM_INTERPOLATION = {
    interpolation.EXTRAPOLATED: Quality.GAINS_EXTRAPOLATED,
    interpolation.BEYOND_VALIDITY: Quality.GAINS_OLD,
    interpolation.DRIFT_ASSUMED: Quality.DRIFT_ASSUMED,
}

_LEAST_SOURCES = 5
"""Fewer do not tell their own scatter."""


def of_calibration(quality: int) -> Quality:
    """The bits of a flux that the bits of its group's interpolated gains make (`science.interpolation`)."""
    found = Quality(0)
    for bit, meant in _FROM_INTERPOLATION.items():
        found |= meant if quality & bit else Quality(0)
    return found


def scale_error(predicted: float, ratios: NDArray[np.float64]) -> float:
    """Error of the flux scale of one group where its prediction is a guess: what the field's own sources say of it.

    The scale is off by x, expected to be of the size s that is predicted. The median ratio of measured to catalogued
    fluxes, 1 + d, tells it with an error e = 1.25 x (scatter) / sqrt(n): of the median, which one flaring source does
    not move. Fluxes are not corrected by it, so they err by what is expected of x^2 now,

        E[x^2] = (s^2 d / (s^2 + e^2))^2 + s^2 e^2 / (s^2 + e^2).

    Parameters
    ----------
    predicted : s, relative; without it (NaN), and with fewer than 5 ratios, there is nothing to add.
    ratios : (source,) of bright sources.
    """
    known = ratios[np.isfinite(ratios)]
    if known.size < _LEAST_SOURCES or not predicted > 0:
        return predicted
    error2 = (_MEDIAN_OVER_MEAN * robust_rms(known)) ** 2 / known.size
    told = predicted**2 / (predicted**2 + error2)
    return float(np.sqrt((told * (np.median(known) - 1.0)) ** 2 + told * error2))


@dataclass(frozen=True)
class Pixels:
    """An image's pixels: values and the scale that turns offsets into angles.

    Attributes
    ----------
    values : (n, n) ``[y, x]`` (north, west), Jy/beam.
    cell : rad.
    beam : restoring beam.
    """

    values: NDArray[np.float32]
    cell: float
    beam: Beam

    def overlap(self, dx: ArrayLike, dy: ArrayLike) -> NDArray[np.float64]:
        """Beam response at an offset in pixels (x west, y north)."""
        return self.beam.value(-np.asarray(dx, np.float64) * self.cell, np.asarray(dy, np.float64) * self.cell)

    @property
    def beam_pixels(self) -> float:
        """Geometric mean FWHM (pixels)."""
        return float(np.sqrt(self.beam.major * self.beam.minor) / self.cell)


@dataclass(frozen=True)
class Planes:
    """What deconvolution left: ``residual`` (Jy/beam), ``model`` (Jy/pixel), ``psf``, all (n, n) ``[y, x]``.

    ``known`` are the sources that were subtracted before: x, y (pixels, not whole), peak (Jy/beam), each (source,).
    """

    residual: NDArray[np.float32]
    model: NDArray[np.float32]
    psf: NDArray[np.float32]
    known: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]

    def spread(self, dx: NDArray[np.float64], dy: NDArray[np.float64]) -> NDArray[np.float64]:
        """Point spread function at offsets in pixels (x west, y north)."""
        centre = len(self.psf) // 2
        return interpolate(self.psf, centre + np.atleast_1d(dx), centre + np.atleast_1d(dy))


def interpolate(values: NDArray[np.float32], x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Image values between pixels, by a sinc function under a Kaiser-Bessel taper.

    A synthesised image holds no spatial frequency above that of the longest baseline, so a sinc is exact up to its
    truncation: for waves longer than 2.6 pixels (2601 m in pixels of 6 arcsec) the error is below 5e-4 of the
    amplitude, for the beams of the default images below 1e-4 of the peak.

    Parameters
    ----------
    values : (n, n)
        ``[y, x]``; taken as 0 outside.
    x, y : (source,)
        Pixels, from 0.

    Returns
    -------
    (source,) array.
    """
    n = len(values)
    steps = np.arange(-_KERNEL_RADIUS + 1, _KERNEL_RADIUS + 1)
    column, row = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    columns, rows = column[:, None] + steps, row[:, None] + steps
    inside = ((rows >= 0) & (rows < n))[:, :, None] & ((columns >= 0) & (columns < n))[:, None, :]
    cut = values[np.clip(rows, 0, n - 1)[:, :, None], np.clip(columns, 0, n - 1)[:, None, :]].astype(np.float64)
    weights = _kernel(rows - y[:, None])[:, :, None] * _kernel(columns - x[:, None])[:, None, :]
    return np.asarray(np.sum(np.where(inside & np.isfinite(cut), cut, 0.0) * weights, axis=(1, 2)))


def _kernel(offset: NDArray[np.float64]) -> NDArray[np.float64]:
    taper = np.i0(_KERNEL_SHAPE * np.sqrt(np.clip(1.0 - (offset / _KERNEL_RADIUS) ** 2, 0.0, 1.0)))
    weights = np.sinc(offset) * taper
    return np.asarray(weights / weights.sum(axis=-1, keepdims=True))


@dataclass(frozen=True)
class Peaks:
    """Joint solution for sources in an image.

    Attributes
    ----------
    flux : (source,) apparent flux (Jy/beam of a point source).
    error_factor : (source,) its error over the noise of a pixel: 1 for an isolated source.
    neighbour : (source,) largest response of another source's beam at this one.
    """

    flux: NDArray[np.float64]
    error_factor: NDArray[np.float64]
    neighbour: NDArray[np.float64]


def forced_peaks(pixels: Pixels, planes: Planes, x: NDArray[np.float64], y: NDArray[np.float64], reach: float) -> Peaks:
    """Apparent fluxes of point sources at known positions, neighbours jointly.

    A restored image is not measured here: between its pixels CLEAN draws a bright source with components of both
    signs, which a Gaussian does not put together to quite the peak that the point spread function does (up to 1 %).
    So the sources' own components go back through the point spread function P, onto the residual, and d = P s is
    solved for those within ``reach`` of each other. Farther sources stay deconvolved. Noise has the correlation of P:
    cov(s) = sigma^2 P^-1. Positions that cannot be told apart share their flux (pseudo-inverse).

    Parameters
    ----------
    pixels : Pixels
        For the beam.
    planes : Planes
        Residual, model and point spread function.
    x, y : (source,)
        Pixels, from 0, inside the image.
    reach : float
        Pixels; also how far a source's components are looked for (each belongs to the source nearest to it). CLEAN
        scatters a few thousandths of a bright source to four beams from it.
    """
    distance = np.hypot(x[:, None] - x[None, :], y[:, None] - y[None, :])
    near = distance <= reach
    value = interpolate(planes.residual, x, y)
    for k, (column, row, flux) in enumerate(_components(planes, x, y, reach)):
        for i in np.flatnonzero(near[k]):
            value[i] += flux @ planes.spread(x[i] - column, y[i] - row)
    one, other = np.nonzero(near)
    g = np.zeros(near.shape)
    g[one, other] = planes.spread(x[one] - x[other], y[one] - y[other])
    overlap = np.where(near & ~np.eye(len(x), dtype=bool), pixels.overlap(x[:, None] - x, y[:, None] - y), 0.0)
    inverse = np.linalg.pinv((g + g.T) / 2, rcond=1e-4, hermitian=True)
    error = np.sqrt(np.clip(np.diag(inverse), 0.0, None))
    return Peaks(inverse @ value, error, overlap.max(axis=1, initial=0.0))


def _components(
    planes: Planes, x: NDArray[np.float64], y: NDArray[np.float64], reach: float
) -> list[tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]]:
    """For each source the components (x, y, flux) that are nearer to it than to any other, and within ``reach``."""
    pixel_rows, pixel_columns = np.nonzero(planes.model)
    columns = np.concatenate([pixel_columns, planes.known[0]])
    rows = np.concatenate([pixel_rows, planes.known[1]])
    flux = np.concatenate([planes.model[pixel_rows, pixel_columns], planes.known[2]]).astype(np.float64)
    sources = KDTree(np.stack([x, y], axis=-1))
    distance, owner = sources.query(np.stack([columns, rows], axis=-1).reshape(-1, 2))
    mine = [np.flatnonzero((owner == k) & (distance <= reach)) for k in range(len(x))]
    return [(columns[m], rows[m], flux[m]) for m in mine]


def local_noise(
    residual: NDArray[np.float32], x: NDArray[np.float64], y: NDArray[np.float64], half_width: int
) -> NDArray[np.float64]:
    """Robust rms of the residual in a box of 2 half_width + 1 pixels about each position, cut at the image's edge."""
    out = np.empty(len(x))
    for k in range(len(x)):
        row, column = round(float(y[k])), round(float(x[k]))
        box = residual[
            max(row - half_width, 0) : row + half_width + 1, max(column - half_width, 0) : column + half_width + 1
        ]
        out[k] = robust_rms(box)
    return out


def fit_offsets(
    pixels: Pixels, x: NDArray[np.float64], y: NDArray[np.float64], flux: NDArray[np.float64], wanted: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Free positions of bright sources, less the given ones.

    Least squares of a Gaussian of the restoring beam's shape, other sources (at their given positions) taken out,
    over the pixels within half a FWHM and a pixel.

    Parameters
    ----------
    pixels : Pixels
    x, y, flux : (source,)
        All sources.
    wanted : (source,)
        Which are fitted.

    Returns
    -------
    east, north : (source,) rad; NaN where not wanted, or where the fit leaves the beam.
    """
    east, north = np.full(len(x), np.nan), np.full(len(x), np.nan)
    reach = pixels.beam.major / pixels.cell / 2 + 1.0
    half = int(np.ceil(reach))
    for k in np.flatnonzero(wanted):
        column, row = round(float(x[k])), round(float(y[k]))
        if not (half <= row < len(pixels.values) - half and half <= column < len(pixels.values) - half):
            continue
        yy, xx = np.mgrid[row - half : row + half + 1, column - half : column + half + 1]
        near = pixels.overlap(xx - x[k], yy - y[k]) > 0.4
        xs, ys = xx[near].astype(float), yy[near].astype(float)
        values = pixels.values[yy[near], xx[near]].astype(float)
        for other in np.flatnonzero((np.hypot(x - x[k], y - y[k]) < 5 * reach) & (np.arange(len(x)) != k)):
            values -= flux[other] * pixels.overlap(xs - x[other], ys - y[other])
        shift = _fit_shift(pixels, (xs - x[k], ys - y[k]), values, float(flux[k]))
        if shift is not None:
            east[k], north[k] = -shift[0] * pixels.cell, shift[1] * pixels.cell
    return east, north


def _fit_shift(
    pixels: Pixels, at: tuple[NDArray[np.float64], NDArray[np.float64]], values: NDArray[np.float64], flux: float
) -> NDArray[np.float64] | None:
    """Offset (x, y) in pixels of the Gaussian that fits best; None where it does not settle within the beam."""
    dx, dy = at

    def misfit(p: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(p[2] * pixels.overlap(dx - p[0], dy - p[1]) - values / flux)

    fit = optimize.least_squares(misfit, [0.0, 0.0, 1.0])
    if not fit.success or np.hypot(fit.x[0], fit.x[1]) > pixels.beam.major / pixels.cell:
        return None
    return np.asarray(fit.x[:2])


def sample(plane: NDArray[np.float32], x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """A smooth map (the smearing map) between pixels, linearly."""
    return np.asarray(ndimage.map_coordinates(plane, [y, x], order=1, mode="nearest"), dtype=np.float64)
