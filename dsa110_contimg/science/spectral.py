"""Spectra of what is in an image: the band in shares, the slope over it, and the spectral index of the sky.

The image of a band is the weighted mean over frequency, with one spectral term or several. Beside it stands the slope:
with x = (f - f0) / f0, f0 the weighted mean frequency, the weighted least-squares line through a spectrum S is
T0 + T1 x,

    T0 = sum w S / sum w        T1 = sum w x S / sum w x^2,

and since sum w x = 0 the mean is T0 for a spectrum of any shape. T1 / T0 is the spectral index of what
the telescope saw, which is the sky times a primary beam that is narrower at higher frequencies. At the half-power
radius the beam's own index is -1.5, so it is taken out (`spectral_index`). What is left is the index of the sky to 0.01
between -2 and 2, to 0.04 at -4 (a line is not a power law); smearing, which grows with frequency, is not taken out and
is another 0.01.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray

from dsa110_contimg.exceptions import ImagingError
from dsa110_contimg.options import ImageOptions
from dsa110_contimg.science.apparent import ApparentSky
from dsa110_contimg.science.averaging import ImagingData
from dsa110_contimg.science.cubes import by_frequency
from dsa110_contimg.science.deconvolution import Share, robust_rms
from dsa110_contimg.science.grid import SkyGrid
from dsa110_contimg.science.gridding import Gridder
from dsa110_contimg.science.imaging import Cleaned
from dsa110_contimg.science.response import Response, image_response
from dsa110_contimg.science.restoring import add_points, restore


@dataclass(frozen=True)
class SpectralIndex:
    """Images ``[y, x]`` of the spectral index of the sky, S ~ f^alpha, and of its standard error; NaN where blank."""

    alpha: NDArray[np.float32]
    error: NDArray[np.float32]


def shares_of_band(
    data: ImagingData, weights: NDArray[np.float32], grid: SkyGrid, cell_rad: float, reach: int, options: ImageOptions
) -> tuple[Share, ...]:
    """Equal shares of the band to clean jointly (`deconvolution.clean_jointly`).

    Parameters
    ----------
    data : ImagingData
    weights : (sample,)
        Imaging weights of the whole band: then the mean of the shares' images, by their sums, is the band's image.
    grid : SkyGrid
        Directions of the pixels.
    cell_rad : float
        Pixel in the angles of the visibilities.
    reach : int
        As of `ApparentSky`.
    options : ImageOptions
        ``channel_groups``; shares without weight are left out.

    Raises
    ------
    ImagingError
        Fewer shares have data than a spectrum has terms.
    """
    shares = []
    for part in by_frequency(replace(data, weights=weights), options.channel_groups):
        if part is None:
            continue
        gridder = Gridder(part, part.weights, grid.n_pixels, cell_rad, options.accuracy, options.threads)
        frequency = image_response(part, part.weights).mean_frequency_hz
        shares.append(Share(gridder, gridder.psf(), ApparentSky(gridder, grid, reach), frequency))
    if len(shares) < options.spectral_terms:
        raise ImagingError(
            "Too little of the band has data for so many spectral terms",
            found=f"{len(shares)} of {options.channel_groups} channel groups",
            expected=f"{options.spectral_terms} (spectral_terms), or fewer terms",
        )
    return tuple(shares)


def slope(
    images: NDArray[np.float32], frequencies_hz: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float32]:
    """T1 of images ``[share, y, x]``, in their unit, with respect to the weighted mean frequency."""
    x = frequencies_hz / np.average(frequencies_hz, weights=weights) - 1.0
    factors = weights * x / (weights * x**2).sum()
    return np.asarray(np.tensordot(factors.astype(np.float32), images, axes=1), np.float32)


def spectral_index(
    restored: tuple[NDArray[np.float32], NDArray[np.float32]],
    noises_jy: tuple[float, float],
    beam_index: NDArray[np.float32],
    max_error: float,
) -> SpectralIndex:
    """Spectral index of the sky, where it is known.

    Parameters
    ----------
    restored : T0 and T1, (n, n) Jy/beam
    noises_jy : their noise (Jy/beam)
    beam_index : (n, n)
        T1 / T0 of the primary beam (`Response.terms`); NaN where nothing is to be told.
    max_error : float
        Blank where the error is larger: sigma = sqrt(sigma_1^2 + (alpha sigma_0)^2) / T0 with the apparent alpha, for
        the noises of T0 and T1 are independent.
    """
    mean, along = restored
    with np.errstate(divide="ignore", invalid="ignore"):
        apparent = along / mean
        error = np.hypot(noises_jy[1], apparent * noises_jy[0]) / mean
    known = (mean > 0.0) & (error <= max_error) & np.isfinite(beam_index)
    blank = np.float32(np.nan)
    return SpectralIndex(
        np.where(known, apparent - beam_index, blank).astype(np.float32),
        np.where(known, error, blank).astype(np.float32),
    )


def index_maps(
    cleaned: Cleaned,
    planes: tuple[NDArray[np.float32], NDArray[np.float32]],
    seen: tuple[SkyGrid, float, Response],
    options: ImageOptions,
    known: Table,
    spacing: float,
) -> dict[str, NDArray[np.float32]]:
    """The spectral index of the sky and its error, where it is known; none if the spectra are flat.

    Parameters
    ----------
    cleaned : Cleaned
    planes : restored image, primary beam.
    seen : grid, apparent cell (rad), response.
    options : ImageOptions
    known : Table
        `subtraction.known_table`: sources that were subtracted and are restored.
    spacing : float
        Of the coarse points at which the beam's own index is evaluated (rad).
    """
    (restored, pb), (grid, cell, response) = planes, seen
    if cleaned.slope is None:
        return {}
    model, residual = cleaned.slope
    along = restore(model, residual, cleaned.beam, cell, options.threads)
    add_points(along, cleaned.beam, cell, (known["X"], known["Y"]), known["SLOPE"])
    own = grid.map(response.index_at, spacing)
    own = np.where(pb >= options.pb_cut, own, np.float32(np.nan))
    noises = robust_rms(cleaned.residual), robust_rms(residual)
    found = spectral_index((restored, along), noises, own, options.index_max_error)
    return {"alpha": found.alpha, "alpha_error": found.error}
