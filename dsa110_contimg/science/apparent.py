"""Visibilities of bright sources as the telescope saw them: through a beam that moves, over a wide band, smeared.

A model image holds one flux per pixel, the mean over the observation. But while a group is taken the beam drifts by
1.3 deg, so a source at the half-power radius grows or fades by a quarter of itself, and over the band its response
and its spectrum change by tens of per cent. Subtracting the mean leaves sidelobes of several parts in a thousand of
every source: more than the thermal noise from the first Jansky on. All of this is known, so it is put into the
prediction, by direct Fourier transform of the brightest sources; the rest goes through the gridder.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dsa110_contimg import telescope
from dsa110_contimg.science.averaging import ImagingData
from dsa110_contimg.science.coordinates import direction_cosines
from dsa110_contimg.science.grid import SkyGrid
from dsa110_contimg.science.gridding import Gridder
from dsa110_contimg.science.point_kernels import (
    LANES,
    Channels,
    Points,
    Rows,
    are_small,
    in_clusters,
    predict_clusters,
    predict_points,
    project,
)
from dsa110_contimg.science.predict import apparent_fluxes, source_geometry
from dsa110_contimg.science.response import image_response
from dsa110_contimg.science.smearing import EARTH_ROTATION, surviving_fraction
from dsa110_contimg.science.subtraction import PointSources

MAX_PIXELS = 1000
"""Most pixels of sources that are predicted by themselves: as much work as gridding, for a group of 96 antennas."""
FEW_PIXELS = 100
"""Of the rest, so many are summed one by one in the time that gridding takes."""
BRIGHT = 20.0
"""Signal to noise above which a source is predicted by itself: the sidelobes that its changes leave, about 0.5 % of it,
are then a tenth of the noise."""
INDEX_PRIOR = (-0.7, 0.3)
"""Spectral index of a source before its own data speak, and its spread (Condon 1984)."""
TELLING = 80.0
"""Signal to noise from which a source's data say more of its spectral index than `INDEX_PRIOR`."""
MIN_RESPONSE = 0.05
"""Where the mean beam is lower, the model of the beam is not good enough to say how it varies."""

_BIN_HZ = 3.0e6
_FINE_BIN_HZ = 1.0e6
"""Of known sources, which may stand in the wing of the beam, where it falls by a per cent in 3 MHz."""
_UNEVEN_HZ = 100.0
_COARSE = 10.0
"""What is left when bright sources are gone may be predicted so many times less accurately."""


@dataclass(frozen=True)
class _Sources:
    """Groups of model pixels that share one direction's beam and one spectrum.

    ``x``, ``y`` (source,) flux-weighted places (pixels); ``flux`` (source,) apparent, the sum of the pixels;
    ``flux_of`` (pixel,); ``index`` (source,) spectral; ``gain`` (time, bin, source) of weighted mean 1.
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    flux: NDArray[np.float64]
    flux_of: NDArray[np.float64]
    points: Points
    index: NDArray[np.float64]
    gain: NDArray[np.float64]


class ApparentSky:
    """Predicts a model image for one gridder.

    Parameters
    ----------
    gridder : Gridder
    grid : SkyGrid
        Directions of its pixels.
    reach : int
        Model pixels within this of a peak (in x and in y) belong to its source.
    """

    def __init__(self, gridder: Gridder, grid: SkyGrid, reach: int) -> None:
        data = gridder.data
        self._gridder, self._grid, self._reach = gridder, grid, reach
        self._response = image_response(data, gridder.weights, _BIN_HZ)
        self._channels = _channels(data, self._response.frequencies)
        self._rows = _rows(data)
        self._sources: _Sources | None = None
        self._known = np.empty((0, 3))

    def predict(self, model: NDArray[np.float32], noise_jy: float) -> NDArray[np.complex64]:
        """Visibilities (sample,) of a model (Jy/pixel, apparent).

        Sources above `BRIGHT` times the noise (Jy/beam) of the image are predicted by themselves, each with a beam
        and a spectrum of its own. The rest goes through the gridder, or is summed pixel by pixel where it has few.
        """
        rest = model.copy()
        self._sources = sources = self._take_sources(rest, BRIGHT * noise_jy)
        x, y = _filled(rest)
        out = np.zeros(len(self._gridder.weights), np.complex64)
        if len(x) > FEW_PIXELS:
            faint = float(np.abs(rest).max()) < BRIGHT * noise_jy
            out = self._gridder.predict(rest, self._gridder.coarser(_COARSE if faint else 1.0))
        elif len(x):
            points = Points(self._lmn(x, y), np.zeros(len(x), np.int64), np.zeros((0, 3)), 0.0)
            steady = np.ones((*self._response.weights.shape, 1), np.float32) * rest[y, x]
            predict_points(self._rows, self._channels, points, steady, out)
        if len(sources.flux):
            together = in_clusters(sources.points, sources.flux_of)
            if are_small(self._rows, self._channels, together):
                gain = np.ascontiguousarray(np.swapaxes(sources.gain, 1, 2), np.float32)
                predict_clusters(self._rows, self._channels, sources.points, together, gain, out)
            else:
                each = np.ascontiguousarray(sources.gain[..., sources.points.source] * sources.flux_of, np.float32)
                predict_points(self._rows, self._channels, sources.points, each, out)
        return out

    def learn(self, residual: NDArray[np.complex64], noise_jy: float) -> None:
        """Improve the spectral indices of the sources last predicted, from residual visibilities (sample,).

        A spectral index wrong by d leaves S d ln f of a source of flux S; the projection of the residual on that gives
        d, and noise in the image its error, to be weighed against `INDEX_PRIOR`.
        """
        sources = self._sources
        if sources is None or not (telling := np.abs(sources.flux) > TELLING * noise_jy).any():
            return
        response, gain, flux = self._response, sources.gain[..., telling], sources.flux[telling]
        log_f = np.log(response.frequencies)
        power = response.weights[:, :, None] * gain**2
        # about this mean, the slope does not mix with an error of the flux itself
        slope = log_f[:, None] - np.einsum("tbs,b->s", power, log_f) / power.sum(axis=(0, 1))
        centre = sources.points.centre[telling]
        points = sources.points._replace(lmn=centre, centre=centre, source=np.arange(len(flux)))
        sums = np.zeros((LANES, 2, len(flux)))
        weights = self._gridder.weights
        along_bins = np.ascontiguousarray(np.swapaxes(gain * slope, 1, 2), np.float32)
        project(self._rows, self._channels, points, along_bins, residual, weights, sums)
        along, norm = sums.sum(axis=0)
        norm = np.maximum(norm, 1e-12 * self._gridder.weight_sum)
        change = along / (flux * norm)
        precision = (flux / noise_jy) ** 2 * norm / self._gridder.weight_sum
        mean, spread = INDEX_PRIOR
        index = (mean / spread**2 + (sources.index[telling] + change) * precision) / (1.0 / spread**2 + precision)
        self._known = np.stack([sources.x[telling], sources.y[telling], np.clip(index, -4.0, 4.0)], axis=-1)

    def _take_sources(self, model: NDArray[np.float32], least_jy: float) -> _Sources:
        """The brightest sources of a model, whose pixels are set to zero in it."""
        x, y = _filled(model)
        flux = model[y, x].astype(np.float64)
        source = _grouped(x, y, flux, self._reach, least_jy)
        here = source >= 0
        x, y, flux, source = x[here], y[here], flux[here], source[here]
        model[y, x] = 0.0
        weight = np.abs(flux)
        mean_x, mean_y = (np.bincount(source, weight * v) / np.bincount(source, weight) for v in (x, y))
        points = Points(self._lmn(x, y), source, self._lmn(mean_x, mean_y), self._gridder.data.track.integration_s)
        index = self._index(mean_x, mean_y)
        gain = self._gain(mean_x, mean_y, index)
        total = np.asarray(np.bincount(source, flux), np.float64)
        return _Sources(mean_x, mean_y, total, flux, points, index, gain)

    def _lmn(self, x: NDArray[np.generic], y: NDArray[np.generic]) -> NDArray[np.float64]:
        """Direction cosines less (0, 0, 1) in the frame of uvw (whose angles are apparent, not true)."""
        half, cell = self._gridder.n_pixels // 2, self._gridder.cell_rad
        l, m = -(x.astype(np.float64) - half) * cell, (y.astype(np.float64) - half) * cell
        r2 = l**2 + m**2
        return np.stack([l, m, -r2 / (1.0 + np.sqrt(1.0 - r2))], axis=-1)

    def _index(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
        """What was learnt about the sources at these places."""
        index = np.full(len(x), INDEX_PRIOR[0])
        if len(self._known) and len(x):
            distance = np.hypot(x[:, None] - self._known[:, 0], y[:, None] - self._known[:, 1])
            nearest = distance.argmin(axis=1)
            close = distance.min(axis=1) <= self._reach
            index[close] = self._known[nearest[close], 2]
        return index

    def _gain(self, x: NDArray[np.float64], y: NDArray[np.float64], index: NDArray[np.float64]) -> NDArray[np.float64]:
        """(time, bin, source): beam times spectrum, over their mean with the image's weights and what smearing leaves.

        The kernel multiplies by each baseline's own smearing, so that the mean over everything is 1.
        """
        ra, dec = self._grid.sky(x, y)
        beam = self._response.by_bin(ra, dec)
        mean = np.einsum("tb,tbs->s", self._response.weights, beam) / self._response.weights.sum()
        beam = np.where(mean > MIN_RESPONSE, beam, 1.0)
        gain = beam * (self._response.frequencies[:, None] / self._response.mean_frequency_hz) ** index
        gain /= np.einsum("tb,tbs->s", self._response.weights, gain) / self._response.weights.sum()
        return np.asarray(gain / surviving_fraction(ra, dec, self._gridder.data, self._gridder.weights))


def _filled(image: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(x, y) of the pixels that are not zero: what ``np.nonzero`` says, several times as fast."""
    y, x = np.divmod(np.flatnonzero(image.ravel() != 0.0), image.shape[1])
    return x, y


def predict_sources(data: ImagingData, sources: PointSources) -> NDArray[np.complex64]:
    """Visibilities (sample,) of known sources through the drifting beam, smeared and averaged as the data are.

    An averaged sample stands at the mean frequency of its channels, so where only some of them are flagged on one
    baseline its fringe is slightly out: not for the brightest sources (`subtraction.subtract` takes those).
    """
    out = np.zeros(len(data.weights), np.complex64)
    if not len(sources):
        return out
    centre, track = (data.phase_center_ra, data.phase_center_dec), data.track
    pointing = track.pointing_ra, track.pointing_dec
    lmn, _ = source_geometry(sources.ra, sources.dec, centre, pointing, float(track.mjd.mean()))
    low, high = min(c.frequencies[0] for c in data.channels), max(c.frequencies[-1] for c in data.channels)
    bins = np.linspace(low, high, max(2, round((high - low) / _FINE_BIN_HZ)))
    amplitude = apparent_fluxes(
        sources.flux_jy,
        sources.spectral_index,
        (sources.ra, sources.dec),
        pointing,
        bins,
        telescope.REFERENCE_FREQUENCY_HZ,
        track.primary_beam,
    )
    points = Points(lmn, np.arange(len(sources)), lmn, track.integration_s)
    predict_points(_rows(data), _channels(data, bins), points, amplitude, out)
    out[data.weights <= 0.0] = 0.0
    return out


def _rows(data: ImagingData) -> Rows:
    centre = (data.phase_center_ra, data.phase_center_dec)
    tracking = direction_cosines(data.track.pointing_ra, data.track.pointing_dec, *centre) - [0.0, 0.0, 1.0]
    pole = np.array([0.0, np.cos(centre[1]), np.sin(centre[1])]) * EARTH_ROTATION
    return Rows(data.uvw, data.time_index, data.channels_index, data.offsets, tracking, pole)


def _channels(data: ImagingData, bins: NDArray[np.float64]) -> Channels:
    frequencies = np.concatenate([c.frequencies for c in data.channels])
    first = np.cumsum([0] + [len(c.frequencies) for c in data.channels])
    step = np.array([np.median(np.diff(c.frequencies)) if len(c.frequencies) > 1 else 0.0 for c in data.channels])
    uneven = np.zeros(len(frequencies), np.bool_)
    for begin, end, even in zip(first[:-1], first[1:], step, strict=True):
        uneven[begin + 1 : end] = np.abs(np.diff(frequencies[begin:end]) - even) > _UNEVEN_HZ
    nearest = np.abs(frequencies[:, None] - bins[None, :]).argmin(axis=1)
    width = np.array([c.native_width_hz for c in data.channels])
    return Channels(frequencies, first, step, uneven, nearest, width, np.array([c.factor for c in data.channels]))


def _grouped(
    x: NDArray[np.int64], y: NDArray[np.int64], flux: NDArray[np.float64], reach: int, least_jy: float
) -> NDArray[np.int64]:
    """Number of the source that each pixel belongs to, brightest first; -1 for none.

    Every source is a peak and the pixels within ``reach`` of it (in x and in y) that no brighter one has. A source
    whose pixels sum to less than ``least_jy`` is left, and so is all that would exceed `MAX_PIXELS`.
    """
    source = np.full(len(x), -1)
    free = np.ones(len(x), np.bool_)
    number, taken = 0, 0
    for peak in np.argsort(-np.abs(flux)):
        if not free[peak]:
            continue
        # a source's brightest pixel may hold a small part of it, but not less than this
        if abs(flux[peak]) < 0.1 * least_jy:
            break
        near = np.flatnonzero(free & (np.abs(x - x[peak]) <= reach) & (np.abs(y - y[peak]) <= reach))
        free[near] = False
        total = flux[near].sum()
        # pixels of both signs that cancel have neither a place nor a spectrum
        if abs(total) < max(least_jy, 0.2 * np.abs(flux[near]).sum()):
            continue
        taken += len(near)
        if taken > MAX_PIXELS:
            break
        source[near] = number
        number += 1
    return source
