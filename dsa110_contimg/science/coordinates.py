"""Directions: the drifting meridian in ICRS, and the orientation of uvw.

The telescope fringestops at hour angle 0 and the *apparent* pointing declination, an earth-fixed direction. Sources
have ICRS positions. Between the two stand precession, nutation, aberration and earth rotation, all from astropy/ERFA.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from astropy import units as u
from astropy.coordinates import ICRS, HADec, SkyCoord
from astropy.time import Time
from numpy.typing import ArrayLike, NDArray

from dsa110_contimg import telescope


def meridian_icrs(mjd_utc: ArrayLike, apparent_dec_rad: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """ICRS direction of hour angle 0 at an apparent declination.

    Parameters
    ----------
    mjd_utc : array_like, shape (time,)
    apparent_dec_rad : float
        Apparent (of date, no refraction) declination (rad).

    Returns
    -------
    ra, dec : (time,) rad
    """
    when = Time(np.atleast_1d(np.asarray(mjd_utc, np.float64)), format="mjd", scale="utc")
    zero = np.zeros(when.shape)
    frame = HADec(obstime=when, location=telescope.location())
    here = SkyCoord(zero * u.rad, (zero + apparent_dec_rad) * u.rad, frame=frame).transform_to(ICRS())
    return here.ra.rad, here.dec.rad


def apparent_hadec(
    ra_rad: ArrayLike, dec_rad: ArrayLike, mjd_utc: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Apparent hour angle and declination (rad) of ICRS directions; arguments broadcast against each other."""
    ra, dec, mjd = np.broadcast_arrays(
        np.asarray(ra_rad, np.float64), np.asarray(dec_rad, np.float64), np.asarray(mjd_utc, np.float64)
    )
    when = Time(mjd, format="mjd", scale="utc")
    frame = HADec(obstime=when, location=telescope.location())
    there = SkyCoord(ra * u.rad, dec * u.rad, frame=ICRS()).transform_to(frame)
    return there.ha.rad, there.dec.rad


def earth_fixed(ha_rad: ArrayLike, dec_rad: ArrayLike) -> NDArray[np.float64]:
    """Unit vectors (..., 3) in the ITRF axes of hour angles (west positive) and declinations at our longitude."""
    ha, dec = np.broadcast_arrays(np.asarray(ha_rad, np.float64), np.asarray(dec_rad, np.float64))
    longitude = np.radians(telescope.LONGITUDE_DEG) - ha
    return np.stack([np.cos(dec) * np.cos(longitude), np.cos(dec) * np.sin(longitude), np.sin(dec)], axis=-1)


@dataclass(frozen=True)
class UvwFrame:
    """Axes of (u, v, w) in earth-fixed coordinates, one triad per integration.

    Attributes
    ----------
    axes : (time, 3, 3)
        Rows are the unit vectors u (east), v (north), w (towards the phase centre); the east-north pair is turned so
        that north is ICRS north although w is the apparent direction. ``uvw = axes @ baseline``.
    """

    axes: NDArray[np.float64]

    def uvw(self, baselines_m: NDArray[np.float64]) -> NDArray[np.float64]:
        """(time, baseline, 3) coordinates (m) of earth-fixed baseline vectors (baseline, 3)."""
        return np.asarray(np.einsum("tij,bj->tbi", self.axes, baselines_m))


_STEP_RAD = 1e-4


def uvw_frame(ra_rad: float, dec_rad: float, mjd_utc: NDArray[np.float64]) -> UvwFrame:
    """The uvw axes of an ICRS phase centre at each time (MJD UTC).

    w is the apparent direction of the phase centre; v points along the apparent image of the ICRS meridian through it
    (found by displacing it 20 arcsec north and south), which holds the precession and aberration of the frame's
    orientation to first order; u = v x w.
    """
    mjd = np.atleast_1d(np.asarray(mjd_utc, np.float64))
    centre = earth_fixed(*apparent_hadec(ra_rad, dec_rad, mjd))
    north = earth_fixed(*apparent_hadec(ra_rad, dec_rad + _STEP_RAD, mjd))
    south = earth_fixed(*apparent_hadec(ra_rad, dec_rad - _STEP_RAD, mjd))
    v = north - south
    v -= np.sum(v * centre, axis=-1, keepdims=True) * centre
    v /= np.linalg.norm(v, axis=-1, keepdims=True)
    return UvwFrame(np.stack([np.cross(v, centre), v, centre], axis=1))


def direction_cosines(ra_rad: ArrayLike, dec_rad: ArrayLike, ra0_rad: float, dec0_rad: float) -> NDArray[np.float64]:
    """(..., 3) direction cosines l (east), m (north), n of directions about a phase centre (all rad)."""
    ra, dec = np.broadcast_arrays(np.asarray(ra_rad, np.float64), np.asarray(dec_rad, np.float64))
    d_ra = ra - ra0_rad
    l = np.cos(dec) * np.sin(d_ra)
    m = np.sin(dec) * np.cos(dec0_rad) - np.cos(dec) * np.sin(dec0_rad) * np.cos(d_ra)
    n = np.sin(dec) * np.sin(dec0_rad) + np.cos(dec) * np.cos(dec0_rad) * np.cos(d_ra)
    return np.stack([l, m, n], axis=-1)


def circular_mean(angles_rad: ArrayLike) -> float:
    """Mean direction of angles, safe across 0 h (rad, in [0, 2 pi))."""
    z = np.exp(1j * np.asarray(angles_rad, np.float64)).mean()
    return float(np.angle(z) % (2 * np.pi))
