"""The uvw of a phase centre by another way than `coordinates`: ERFA's own astrometry, without astropy's frames.

A Measurement Set is checked after writing with what did not make it.
"""

from __future__ import annotations

import erfa
import numpy as np
from astropy import units as u
from astropy.time import Time
from astropy.utils.iers import earth_orientation_table
from numpy.typing import NDArray

from dsa110_contimg import telescope

_HALF_A_DEGREE = np.radians(0.5)


def _conditions(mjd_utc: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """What ERFA asks for after the date: UT1 - UTC (s), place (rad, m), polar motion (rad), no atmosphere."""
    when, place = Time(mjd_utc, format="mjd", scale="utc"), telescope.location()
    x, y = earth_orientation_table.get().pm_xy(when)
    height, nothing = np.asarray(place.height.to_value(u.m)), np.zeros(mjd_utc.shape)
    longitude, latitude = np.asarray(place.lon.rad), np.asarray(place.lat.rad)
    return (
        np.asarray(when.delta_ut1_utc),
        longitude,
        latitude,
        height,
        x.to_value(u.rad),
        y.to_value(u.rad),
        nothing,
        nothing,
        nothing,
        nothing + 1.0,
    )


def uvw(
    ra_rad: NDArray[np.float64],
    dec_rad: NDArray[np.float64],
    mjd_utc: NDArray[np.float64],
    baselines_m: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Coordinates of baselines about ICRS phase centres, by ERFA's ``atco13`` and ``atoc13``.

    The orientation of v is pyuvdata's (decision 12).

    Parameters
    ----------
    ra_rad, dec_rad, mjd_utc : (time,)
        Phase centre (ICRS) at each time (UTC).
    baselines_m : (baseline, 3)
        ITRF.

    Returns
    -------
    (time, baseline, 3) m
    """
    zero = np.zeros(mjd_utc.shape)
    date, around = (np.full(mjd_utc.shape, 2400000.5), mjd_utc), _conditions(mjd_utc)
    _, _, hour_angle, dec, _, _ = erfa.atco13(ra_rad, dec_rad, zero, zero, zero, zero, *date, *around)
    ra_south, dec_south = erfa.atoc13("H", hour_angle, dec - _HALF_A_DEGREE, *date, *around)
    ra_north, dec_north = erfa.atoc13("H", hour_angle, dec + _HALF_A_DEGREE, *date, *around)
    angle = erfa.pas(ra_south, dec_south, ra_north, dec_north)
    # Thompson, Moran & Swenson 2017, equation 4.1, with the x axis towards our meridian
    longitude = np.radians(telescope.LONGITUDE_DEG)
    x = baselines_m @ [np.cos(longitude), np.sin(longitude), 0.0]
    y = baselines_m @ [-np.sin(longitude), np.cos(longitude), 0.0]
    z = baselines_m[:, 2]
    h, d = hour_angle[:, None], dec[:, None]
    east = np.sin(h) * x + np.cos(h) * y
    north = -np.sin(d) * np.cos(h) * x + np.sin(d) * np.sin(h) * y + np.cos(d) * z
    w = np.cos(d) * np.cos(h) * x - np.cos(d) * np.sin(h) * y + np.sin(d) * z
    cosine, sine = np.cos(angle)[:, None], np.sin(angle)[:, None]
    return np.stack([cosine * east + sine * north, cosine * north - sine * east, w], axis=-1)
