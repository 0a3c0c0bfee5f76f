"""The primary beam: an Airy pattern or a measured table, drifting over the sky.

The dishes do not track. Over one group the beam centre moves 1.29 deg in right ascension, so the beam that an image
sees is the weighted mean over the integrations (and channels) that made it, never the beam at mid-time.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.constants import speed_of_light
from scipy.interpolate import CubicSpline
from scipy.ndimage import map_coordinates
from scipy.special import j1

from dsa110_contimg import telescope
from dsa110_contimg.exceptions import InputError

if TYPE_CHECKING:
    from astropy.table import Table

_HALF_POWER_X = 1.616339948
"""2 J1(x) / x = sqrt(1/2)."""
_FIRST_NULL_X = 3.831705970
_GRID_POINTS = 16384
_GRID_END = 0.35
"""Sine of the angle (20 deg at mid-band) that a table is prepared for; nothing is known beyond, and nothing is seen."""


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
    return _airy(x)


def half_power_radius(frequency_hz: float, diameter_m: float = telescope.DISH_DIAMETER_M) -> float:
    """Radius at which the response is one half (rad): x = 1.61634 solves 2 J1(x)/x = sqrt(1/2).

    Raises
    ------
    InputError
        Nowhere: dipoles are no dishes.
    """
    sine = _HALF_POWER_X * speed_of_light / (np.pi * diameter_m * frequency_hz)
    if not sine < 1.0:
        raise InputError(
            "Antennas so small have no half-power radius: their beam is not a dish's",
            found=f"{diameter_m:g} m at {frequency_hz / 1e6:g} MHz",
            expected=f"at least {diameter_m * sine:.2g} m",
        )
    return float(np.arcsin(sine))


class PrimaryBeam(Protocol):
    """What a prediction, an image and a measurement ask of a beam. Radial: the feeds' average, Stokes I."""

    @property
    def diameter_m(self) -> float:
        """Diameter of the Airy pattern that has the same half-power radius at mid-band."""

    def power(self, separation_rad: ArrayLike, frequency_hz: ArrayLike) -> NDArray[np.float64]:
        """Power response, 1 on axis, at angles from the pointing (rad) and frequencies (Hz), which broadcast."""


@dataclass(frozen=True)
class AiryBeam:
    """The pattern of a uniformly illuminated dish (`airy_power`)."""

    diameter_m: float = telescope.DISH_DIAMETER_M

    def power(self, separation_rad: ArrayLike, frequency_hz: ArrayLike) -> NDArray[np.float64]:
        """`airy_power` of this dish."""
        return airy_power(separation_rad, frequency_hz, self.diameter_m)


AIRY = AiryBeam()


@dataclass(frozen=True, eq=False)
class TabulatedBeam:
    """A measured beam: radial profiles at one or more frequencies.

    Within the table, cubic splines in angle. Between its frequencies, linear at equal angle times frequency, in which a
    dish's beam hardly changes; outside of them the nearest profile is scaled with frequency. Beyond its last angle, the
    Airy pattern of the diameter that has the table's power there.

    Attributes
    ----------
    angle_rad : (angle,) from the pointing, ascending from 0.
    frequency_hz : (frequency,) ascending.
    profile : (frequency, angle) power, 1 on axis, in [0, 1.1].
    error : (frequency, angle) 1 sigma of it; not used here.
    """

    angle_rad: NDArray[np.float64]
    frequency_hz: NDArray[np.float64]
    profile: NDArray[np.float64]
    error: NDArray[np.float64]

    @cached_property
    def _grid(self) -> NDArray[np.float64]:
        """(frequency, point) profiles at equal steps of sin(angle) f / f0, f0 the middle of the band."""
        u = np.linspace(0.0, _GRID_END, _GRID_POINTS)
        out = np.empty((len(self.frequency_hz), _GRID_POINTS))
        for row, frequency, values in zip(out, self.frequency_hz, self.profile, strict=True):
            sine = u * telescope.REFERENCE_FREQUENCY_HZ / frequency
            inside = sine <= np.sin(self.angle_rad[-1])
            # a beam is even in angle: its slope on axis is zero
            spline = CubicSpline(self.angle_rad, values, bc_type=((1, 0.0), "not-a-knot"))
            row[inside] = np.clip(spline(np.arcsin(sine[inside])), 0.0, None)
            row[~inside] = _airy(sine[~inside] / np.sin(self.angle_rad[-1]) * _main_lobe_x(values[-1]))
        return out

    @cached_property
    def diameter_m(self) -> float:
        """As `PrimaryBeam` has it."""
        angle = np.linspace(0.0, np.arcsin(_GRID_END * 0.9), 4096)
        below = np.flatnonzero(self.power(angle, telescope.REFERENCE_FREQUENCY_HZ) < 0.5)[0]
        power = self.power(angle[below - 1 : below + 1], telescope.REFERENCE_FREQUENCY_HZ)
        radius = np.interp(-0.5, -power, angle[below - 1 : below + 1])
        return float(_HALF_POWER_X * speed_of_light / (np.pi * np.sin(radius) * telescope.REFERENCE_FREQUENCY_HZ))

    def power(self, separation_rad: ArrayLike, frequency_hz: ArrayLike) -> NDArray[np.float64]:
        """Power response, as `PrimaryBeam` has it; 0 beyond 20 deg, of which the table says nothing."""
        theta, frequency = np.asarray(separation_rad, np.float64), np.asarray(frequency_hz, np.float64)
        # behind the dish is beyond the grid
        sine = np.sin(np.minimum(theta, np.pi / 2))
        u = sine * frequency / telescope.REFERENCE_FREQUENCY_HZ
        row = np.interp(frequency, self.frequency_hz, np.arange(len(self.frequency_hz)))
        at = np.stack(np.broadcast_arrays(row, u * ((_GRID_POINTS - 1) / _GRID_END)))
        flat = map_coordinates(self._grid, at.reshape(2, -1), order=1, mode="constant", cval=0.0)
        return np.asarray(flat.reshape(at.shape[1:]), np.float64)


def primary_beam(table: Table | None, diameter_m: float = telescope.DISH_DIAMETER_M) -> PrimaryBeam:
    """The measured beam of a table (`io.beams`: sorted by frequency and angle), or without one the Airy pattern."""
    if table is None:
        return AiryBeam(diameter_m)
    angle, frequency = np.unique(table["angle_deg"]), np.unique(table["frequency_hz"])
    power, error = (np.asarray(table[n], np.float64).reshape(len(frequency), len(angle)) for n in ("power", "error"))
    return TabulatedBeam(np.radians(np.asarray(angle, np.float64)), np.asarray(frequency, np.float64), power, error)


def _airy(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """[2 J1(x) / x]^2; the limit at x -> 0 is 1, and below 1e-4 the pattern differs from it by less than 1e-8."""
    safe = np.where(np.abs(x) < 1e-4, 1.0, x)
    return np.asarray(np.where(np.abs(x) < 1e-4, 1.0, (2.0 * j1(safe) / safe) ** 2))


def _main_lobe_x(power: float) -> float:
    """Where in its main lobe the Airy pattern has some power in [0, 1)."""
    x = np.linspace(1e-3, _FIRST_NULL_X, 20_000)
    return float(np.interp(-power, -_airy(x), x))


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
    beam: PrimaryBeam = AIRY,
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
    beam : PrimaryBeam

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
                total += weights[t, f] * spectrum * beam.power(theta, frequency)
    return np.asarray(total / weights.sum())
