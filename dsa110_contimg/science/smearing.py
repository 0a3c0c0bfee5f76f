"""Smearing: the part of a source's peak that survives averaging in time and frequency.

The correlator holds the fringes of its own pointing still while it integrates, so a source away from that pointing
turns during an integration and across a channel. Imaging then averages channels about the phase centre of the image.
Both lose amplitude, more on longer baselines and farther out; a flux is divided by what is left.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange
from numpy.typing import ArrayLike, NDArray
from scipy.constants import speed_of_light

from dsa110_contimg.science.averaging import ImagingData
from dsa110_contimg.science.beam import separation
from dsa110_contimg.science.coordinates import direction_cosines

EARTH_ROTATION = 7.292115e-5
"""Sidereal rotation of the earth (rad/s; IERS Conventions 2010, table 1.1)."""

_MAX_SAMPLES = 30_000
"""Enough: the mean loss, about 1 %, has then a sampling error of 1 % of itself."""


@njit(cache=True)
def sinc(turns: float) -> float:
    """sin(pi x) / (pi x), for kernels."""
    x = np.pi * turns
    if abs(x) < 1e-4:
        return 1.0 - x * x / 6.0
    return float(np.sin(x) / x)


@njit(parallel=True, cache=True)
def _surviving(
    lmn: NDArray[np.float64],
    tracking: NDArray[np.float64],
    time: NDArray[np.int64],
    baseline: NDArray[np.float64],
    rate: NDArray[np.float64],
    width: NDArray[np.float64],
    factor: NDArray[np.int64],
    weight: NDArray[np.float64],
    beam: NDArray[np.float64],
) -> NDArray[np.float64]:
    """``lmn`` (source, 3) and ``tracking`` (time, 3): direction cosines less (0, 0, 1); per sample: ``time``,
    ``baseline`` and ``rate`` (sample, 3) in wavelengths and in turns per integration, ``width`` of native channels
    over frequency, ``factor`` channels averaged; ``beam`` (source, time).
    """
    out = np.empty(len(lmn))
    for s in prange(len(lmn)):
        total, norm = 0.0, 0.0
        for k in range(len(weight)):
            turn, delay, plain = 0.0, 0.0, 0.0
            for axis in range(3):
                offset = lmn[s, axis] - tracking[time[k], axis]
                turn += rate[k, axis] * offset
                delay += baseline[k, axis] * offset
                plain += baseline[k, axis] * lmn[s, axis]
            left = sinc(turn) * sinc(delay * width[k])
            if factor[k] > 1:
                # the sum of equally spaced channels: sin(n x) / (n sin x)
                left *= sinc(factor[k] * plain * width[k]) / sinc(plain * width[k])
            total += weight[k] * beam[s, time[k]] * left
            norm += weight[k] * beam[s, time[k]]
        out[s] = total / norm
    return out


def surviving_fraction(
    ra: ArrayLike, dec: ArrayLike, data: ImagingData, weights: NDArray[np.float32], *, averaged: bool = True
) -> NDArray[np.float64]:
    """Fraction of the peak of a point source that is left in an image.

    The mean over visibilities, by imaging weight and primary beam, of sinc(r t) sinc(d tau) sin(n x) / (n sin x): r the
    differential fringe rate
    omega (z x b).(s - s_p) f / c over an integration of length t, tau = b.(s - s_p) / c over a native channel of
    width d, s_p the pointing of that integration; x = pi d b.(s - s_0) / c for n channels averaged by imaging, s_0 the
    phase centre (Thompson, Moran & Swenson 2017, sections 6.4 and 16.2).

    Parameters
    ----------
    ra, dec : array_like, shape (...)
        Directions (rad, ICRS).
    data : ImagingData
    weights : (sample,) imaging weights
    averaged : bool
        Whether the image was made of these averaged channels; else of the correlator's own.

    Returns
    -------
    (...) array in (0, 1].
    """
    ra, dec = np.broadcast_arrays(np.asarray(ra, np.float64), np.asarray(dec, np.float64))
    centre = (data.phase_center_ra, data.phase_center_dec)
    axis_z = np.array([0.0, 0.0, 1.0])
    lmn = direction_cosines(ra.ravel(), dec.ravel(), *centre) - axis_z
    tracking = direction_cosines(data.track.pointing_ra, data.track.pointing_dec, *centre) - axis_z
    sample, row, frequency, channels = _samples(data, weights)
    wavelengths = data.uvw[row] * (frequency / speed_of_light)[:, None]
    pole = np.array([0.0, np.cos(centre[1]), np.sin(centre[1])])
    rate = np.cross(pole, wavelengths) * (EARTH_ROTATION * data.track.integration_s)
    width = np.array([c.native_width_hz for c in data.channels])[channels] / frequency
    factor = np.array([c.factor if averaged else 1 for c in data.channels])[channels]
    time, weight = data.time_index[row], weights[sample].astype(np.float64)
    mean_frequency = float((weight * frequency).sum() / weight.sum())
    theta = separation(ra.reshape(-1, 1), dec.reshape(-1, 1), data.track.pointing_ra, data.track.pointing_dec)
    # where the beam is all but zero throughout, the mean is still to be one
    beam = data.track.primary_beam.power(theta, mean_frequency) + 1e-6
    out = _surviving(lmn, tracking, time, wavelengths, rate, width, factor, weight, beam)
    return np.asarray(out.reshape(ra.shape))


def _samples(
    data: ImagingData, weights: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
    """A stratified choice of samples with weight: (sample, row, frequency, index of channels)."""
    present = np.flatnonzero(weights > 0.0)
    if len(present) > _MAX_SAMPLES:
        # one from each of equal strata, at a place that steps by the golden ratio: no beat with rows or channels
        k = np.arange(_MAX_SAMPLES)
        place = (k + (k * 0.6180339887498949) % 1.0) * (len(present) / _MAX_SAMPLES)
        present = present[place.astype(np.int64)]
    row = np.searchsorted(data.offsets, present, side="right") - 1
    channels = data.channels_index[row]
    first = np.cumsum([0] + [len(c.frequencies) for c in data.channels])
    frequency = np.concatenate([c.frequencies for c in data.channels])[first[channels] + present - data.offsets[row]]
    return present, row, frequency, channels
