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
    when = np.atleast_1d(np.asarray(mjd_utc, np.float64))
    return _icrs(np.zeros(when.shape), np.full(when.shape, apparent_dec_rad), when)


def _icrs(
    ha_rad: NDArray[np.float64], dec_rad: NDArray[np.float64], mjd_utc: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """ICRS right ascension and declination (rad) of apparent hour angles and declinations at so many times."""
    frame = HADec(obstime=Time(mjd_utc, format="mjd", scale="utc"), location=telescope.location())
    here = SkyCoord(ha_rad * u.rad, dec_rad * u.rad, frame=frame).transform_to(ICRS())
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
        return np.asarray(baselines_m @ np.swapaxes(self.axes, -1, -2))


_OFFSET_RAD = np.pi / 360.0


def uvw_frame(ra_rad: ArrayLike, dec_rad: ArrayLike, mjd_utc: ArrayLike) -> UvwFrame:
    """The uvw axes of an ICRS phase centre at each time.

    w is the apparent direction of the phase centre. v is apparent north there, turned by the angle between apparent
    and ICRS north as pyuvdata defines it (`pyuvdata.utils.phasing.calc_frame_pos_angle`; decision 12): of two points
    half a degree south and north of the *apparent* centre, the ICRS position angle of the second as seen from the
    first. u = v x w. So u, v and w are those that pyuvdata writes, to 0.1 mm.

    The angle grows towards the pole, and theirs is that of a point half a degree south: v is off ICRS north by the
    angle's change, in 2026 at most 7e-6 rad at Dec 16.6 (0.034 arcsec at the half-power radius of 1.36 deg) and
    5.4e-5 rad at Dec 54.6 (0.26 arcsec). The phase centre itself, and w, are not touched.

    Parameters
    ----------
    ra_rad, dec_rad : array_like, scalar or shape (time,)
        Phase centre (rad, ICRS), one for all times or one for each.
    mjd_utc : array_like, shape (time,)
    """
    mjd = np.atleast_1d(np.asarray(mjd_utc, np.float64))
    ha, dec = apparent_hadec(ra_rad, dec_rad, mjd)
    centre, pole = earth_fixed(ha, dec), np.array([0.0, 0.0, 1.0])
    east = np.cross(pole, centre)
    east /= np.linalg.norm(east, axis=-1, keepdims=True)
    north = np.cross(centre, east)
    # as vectors, so that a point beyond the pole is one like any other
    points = np.cos(_OFFSET_RAD) * centre + np.stack([[[-1.0]], [[1.0]]]) * np.sin(_OFFSET_RAD) * north
    hour_angle = np.radians(telescope.LONGITUDE_DEG) - np.arctan2(points[..., 1], points[..., 0])
    (ra_south, ra_north), (dec_south, dec_north) = _icrs(hour_angle, np.arcsin(points[..., 2]), mjd)
    sine, cosine, _ = np.moveaxis(direction_cosines(ra_north, dec_north, ra_south, dec_south), -1, 0)
    angle = np.arctan2(sine, cosine)[:, None]
    v = np.cos(angle) * north - np.sin(angle) * east
    return UvwFrame(np.stack([np.cross(v, centre), v, centre], axis=1))


def direction_cosines(
    ra_rad: ArrayLike, dec_rad: ArrayLike, ra0_rad: ArrayLike, dec0_rad: ArrayLike
) -> NDArray[np.float64]:
    """(..., 3) direction cosines l (east), m (north), n of directions about a phase centre (all rad)."""
    ra, dec, ra0, dec0 = np.broadcast_arrays(
        *(np.asarray(angle, np.float64) for angle in (ra_rad, dec_rad, ra0_rad, dec0_rad))
    )
    d_ra = ra - ra0
    l = np.cos(dec) * np.sin(d_ra)
    m = np.sin(dec) * np.cos(dec0) - np.cos(dec) * np.sin(dec0) * np.cos(d_ra)
    n = np.sin(dec) * np.sin(dec0) + np.cos(dec) * np.cos(dec0) * np.cos(d_ra)
    return np.stack([l, m, n], axis=-1)


def circular_mean(angles_rad: ArrayLike) -> float:
    """Mean direction of angles, safe across 0 h (rad, in [0, 2 pi))."""
    z = np.exp(1j * np.asarray(angles_rad, np.float64)).mean()
    return float(np.angle(z) % (2 * np.pi))
