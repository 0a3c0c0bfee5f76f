"""The primary beam: an Airy pattern, drifting over the sky.

The dishes do not track. Over one group the beam centre moves 1.29 deg in right ascension, so the beam that an image
sees is the weighted mean over the integrations (and channels) that made it, never the beam at mid-time.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.constants import speed_of_light
from scipy.special import j1

from dsa110_contimg import telescope


def airy_power(
    separation_rad: ArrayLike, frequency_hz: ArrayLike, diameter_m: float = telescope.DISH_DIAMETER_M
) -> NDArray[np.float64]:
    """Power response of a uniformly illuminated circular aperture.

    B = [2 J1(x) / x]^2 with x = pi D sin(theta) f / c (Born & Wolf, section 8.5.2); 1 on axis.

    Parameters
    ----------
    separation_rad, frequency_hz : array_like
        Angle from the pointing (rad) and frequency (Hz), broadcast against each other.
    diameter_m : float
        Effective diameter. 4.65 m gives a FWHM of 2.715 deg at 1.4 GHz and a first null at 3.22 deg.
    """
    x = np.pi * diameter_m * np.sin(separation_rad) * np.asarray(frequency_hz) / speed_of_light
    # the limit at x -> 0 is 1; below 1e-4 the pattern differs from it by less than 1e-9
    safe = np.where(np.abs(x) < 1e-4, 1.0, x)
    return np.asarray(np.where(np.abs(x) < 1e-4, 1.0, (2.0 * j1(safe) / safe) ** 2))


def half_power_radius(frequency_hz: float, diameter_m: float = telescope.DISH_DIAMETER_M) -> float:
    """Radius at which the response is one half (rad): x = 1.61634 solves 2 J1(x)/x = sqrt(1/2)."""
    return float(np.arcsin(1.616339948 * speed_of_light / (np.pi * diameter_m * frequency_hz)))


def separation(ra1: ArrayLike, dec1: ArrayLike, ra2: ArrayLike, dec2: ArrayLike) -> NDArray[np.float64]:
    """Angle between directions (rad; all arguments rad), by the haversine formula, accurate when small."""
    ra1, dec1, ra2, dec2 = (np.asarray(a, dtype=np.float64) for a in (ra1, dec1, ra2, dec2))
    hav = np.sin((dec1 - dec2) / 2) ** 2 + np.cos(dec1) * np.cos(dec2) * np.sin((ra1 - ra2) / 2) ** 2
    return np.asarray(2.0 * np.arcsin(np.sqrt(np.clip(hav, 0.0, 1.0))))


def drift_averaged(
    ra: ArrayLike,
    dec: ArrayLike,
    pointing_ra: NDArray[np.float64],
    pointing_dec: NDArray[np.float64],
    frequencies_hz: NDArray[np.float64],
    weights: NDArray[np.float64],
    spectral_index: ArrayLike = 0.0,
    reference_hz: float = telescope.REFERENCE_FREQUENCY_HZ,
    diameter_m: float = telescope.DISH_DIAMETER_M,
) -> NDArray[np.float64]:
    """Response of an image to sources: the mean of B(t, f) (f/f0)^alpha over integrations and channels.

    Parameters
    ----------
    ra, dec : array_like, shape (...)
        Directions (rad, ICRS).
    pointing_ra, pointing_dec : (time,)
        Beam centre of each integration (rad, ICRS).
    frequencies_hz : (frequency,)
    weights : (time, frequency)
        Sum of the imaging weights of each time and frequency.
    spectral_index : array_like, broadcast to (...)
        Source spectral index; 0 gives the beam itself.
    diameter_m : float
        Dish, as in `airy_power`.

    Returns
    -------
    (...) array: apparent flux over flux density at ``reference_hz``.
    """
    ra, dec = np.broadcast_arrays(np.asarray(ra, np.float64), np.asarray(dec, np.float64))
    total = np.zeros(ra.shape)
    for t in range(len(pointing_ra)):
        theta = separation(ra, dec, pointing_ra[t], pointing_dec[t])
        for f, frequency in enumerate(frequencies_hz):
            if weights[t, f] > 0.0:
                spectrum = (frequency / reference_hz) ** np.asarray(spectral_index)
                total += weights[t, f] * spectrum * airy_power(theta, frequency, diameter_m)
    return np.asarray(total / weights.sum())
