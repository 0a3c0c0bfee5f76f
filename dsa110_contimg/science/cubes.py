"""Parts of an observation imaged one by one: subbands for spectra, integrations for time series.

The parts are taken from visibilities that are averaged already, so a cube reads the data once. Each is an image like
any other: weights of its own density, a beam and a primary beam of its own.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dsa110_contimg.exceptions import ImagingError
from dsa110_contimg.options import ImageOptions
from dsa110_contimg.science.apparent import ApparentSky
from dsa110_contimg.science.averaging import Channels, ImagingData
from dsa110_contimg.science.beam import half_power_radius
from dsa110_contimg.science.deconvolution import clean, robust_rms
from dsa110_contimg.science.grid import SkyGrid
from dsa110_contimg.science.gridding import Gridder
from dsa110_contimg.science.response import image_response
from dsa110_contimg.science.restoring import Beam, fit_beam, restore
from dsa110_contimg.science.weighting import imaging_weights, thermal_noise, uv_shape

_MAP_STEPS = 12


@dataclass(frozen=True)
class Plane:
    """One plane of a cube; images are ``[y, x]`` as in `gridding`.

    Attributes
    ----------
    restored : Jy/beam, not beam corrected.
    pb : primary beam of this part, averaged over its pointings and frequencies.
    beam : restoring beam, in angles as the pixels have them.
    noise_jy, thermal_noise_jy : robust rms of the residual, and the radiometer's (Jy/beam).
    frequency_hz : weighted mean.
    """

    restored: NDArray[np.float32]
    pb: NDArray[np.float32]
    beam: Beam
    noise_jy: float
    thermal_noise_jy: float
    frequency_hz: float


def band_edges(data: ImagingData, n_parts: int) -> NDArray[np.float64]:
    """(n_parts + 1,) edges of equal shares of the band (Hz)."""
    low = min(c.frequencies[0] - c.native_width_hz * c.factor / 2 for c in data.channels)
    high = max(c.frequencies[-1] + c.native_width_hz * c.factor / 2 for c in data.channels)
    return np.linspace(low, high, n_parts + 1)


def by_frequency(data: ImagingData, n_parts: int) -> Iterator[ImagingData | None]:
    """Equal shares of the band, ascending; None where nothing has weight.

    A channel belongs where its centre is. Averaged channels of 2, 4, 8 or 16 native ones end where subbands end.
    """
    edges = band_edges(data, n_parts)
    every = np.arange(len(data.uvw))
    for low, high in itertools.pairwise(edges):
        taken = [np.flatnonzero((c.frequencies >= low) & (c.frequencies < high)) for c in data.channels]
        yield _part(data, every, taken)


def by_time(data: ImagingData) -> Iterator[ImagingData | None]:
    """Single integrations; None where nothing has weight."""
    whole = [np.arange(len(c.frequencies)) for c in data.channels]
    track = data.track
    for t in range(len(track.mjd)):
        part = _part(data, np.flatnonzero(data.time_index == t), whole)
        one = slice(t, t + 1)
        here = dataclasses.replace(
            track, mjd=track.mjd[one], pointing_ra=track.pointing_ra[one], pointing_dec=track.pointing_dec[one]
        )
        yield part and dataclasses.replace(part, time_index=np.zeros_like(part.time_index), track=here)


def _part(data: ImagingData, rows: NDArray[np.int64], taken: list[NDArray[np.int64]]) -> ImagingData | None:
    """Some rows, and of each list of channels some (contiguous) channels; None if nothing has weight."""
    rows = rows[np.array([len(t) for t in taken])[data.channels_index[rows]] > 0]
    lists = data.channels_index[rows]
    count = np.array([len(t) for t in taken])[lists]
    begin = data.offsets[rows] + np.array([t[0] if len(t) else 0 for t in taken])[lists]
    offsets = np.concatenate([[0], np.cumsum(count)])
    sample = np.arange(offsets[-1]) + np.repeat(begin - offsets[:-1], count)
    weights = data.weights[sample]
    if not weights.any():
        return None
    present = np.flatnonzero([len(t) > 0 for t in taken])
    channels = tuple(_some(data.channels[i], taken[i]) for i in present)
    return dataclasses.replace(
        data,
        uvw=data.uvw[rows],
        time_index=data.time_index[rows],
        channels_index=np.searchsorted(present, lists),
        offsets=offsets,
        visibilities=data.visibilities[sample],
        weights=weights,
        channels=channels,
    )


def _some(channels: Channels, taken: NDArray[np.int64]) -> Channels:
    return dataclasses.replace(channels, frequencies=channels.frequencies[taken])


def image_part(
    data: ImagingData, grid: SkyGrid, cell_rad: float, options: ImageOptions, mask: NDArray[np.bool_] | None = None
) -> Plane:
    """Image, deconvolve and restore one part.

    Parameters
    ----------
    data : ImagingData
        A part.
    grid : SkyGrid
        Directions of the pixels, true angles; those of the whole observation.
    cell_rad : float
        Pixel in the angles of the visibilities (apparent).
    options : ImageOptions
    mask : (n, n), optional
        As of `deconvolution.clean`.

    Raises
    ------
    ImagingError
        Deconvolution diverged, or no visibility lies in the uv plane of the image.
    """
    weights = imaging_weights(data, grid.n_pixels, cell_rad, options.weighting, options.robust, uv_shape(options))
    gridder = Gridder(data, weights, grid.n_pixels, cell_rad, options.accuracy, options.threads)
    psf = gridder.psf()
    beam = fit_beam(psf, cell_rad)
    apparent = ApparentSky(gridder, grid, max(2, round(beam.major / cell_rad / 1.5)))
    result = clean(gridder, psf, options, apparent, mask=mask)
    return finished(data, weights, grid, cell_rad, options, (result.model, result.residual, beam))


def finished(
    data: ImagingData,
    weights: NDArray[np.float32],
    grid: SkyGrid,
    cell_rad: float,
    options: ImageOptions,
    images: tuple[NDArray[np.float32], NDArray[np.float32], Beam],
) -> Plane:
    """The plane of a part that an imager has deconvolved.

    Parameters
    ----------
    data, grid, cell_rad, options
        As of `image_part`.
    weights : (sample,) imaging weights.
    images : model (Jy/pixel), residual (Jy/beam), restoring beam
    """
    model, residual, beam = images
    response = image_response(data, weights)
    spacing = half_power_radius(response.mean_frequency_hz, data.track.dish_diameter_m) / _MAP_STEPS
    return Plane(
        restored=restore(model, residual, beam, cell_rad, options.threads),
        pb=grid.map(response.at, spacing),
        beam=beam,
        noise_jy=robust_rms(residual),
        thermal_noise_jy=thermal_noise(data, weights),
        frequency_hz=response.mean_frequency_hz,
    )


def image_parts(
    parts: Iterator[ImagingData | None], make: Callable[[int, ImagingData], Plane]
) -> Iterator[Plane | None]:
    """A plane for each part, None for those without data; only one is in memory.

    Parameters
    ----------
    parts : of `by_frequency` or `by_time`
    make : function (number of the part, part) -> Plane
        `image_part`, or what another imager does.

    Raises
    ------
    ImagingError
        As of ``make``; or no part has data.
    """
    some = False
    for number, part in enumerate(parts):
        some = some or part is not None
        yield None if part is None else make(number, part)
    if not some:
        raise ImagingError("Every visibility is flagged", found="no part with weight", expected="data to image")
