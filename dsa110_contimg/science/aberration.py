"""The scale of an image: annual aberration makes the apparent field larger or smaller than the true one.

Phase centre and baselines are turned from the apparent frame to ICRS as a rigid body, which is exact at the centre and
in orientation; the velocity of the earth towards the field also shrinks angles about the centre by up to 1e-4, which
is 0.5 arcsec at the half-power radius of the beam. Image headers carry the true scale, so positions read from them
are ICRS positions; the Hubble pipelines do the same and call the factor VAFACTOR.
"""

from __future__ import annotations

import numpy as np
from astropy.coordinates import get_body_barycentric_posvel
from astropy.time import Time

_AU_PER_DAY_IN_C = 149_597_870_700.0 / 86_400.0 / 299_792_458.0


def aberration_scale(ra_rad: float, dec_rad: float, mjd_utc: float) -> float:
    """True over apparent angle of small separations about a direction.

    gamma (1 + beta . n), with beta the barycentric velocity of the earth over c and n the true direction: aberration
    is conformal, so one number serves all directions (Green 1985, Spherical Astronomy, section 8.4). The rotation of
    the earth adds at most 1.5e-6, which is left out.

    Parameters
    ----------
    ra_rad, dec_rad : float
        ICRS direction (rad).
    mjd_utc : float

    Returns
    -------
    float, above 1 where the earth moves towards the field.
    """
    _, velocity = get_body_barycentric_posvel("earth", Time(mjd_utc, format="mjd", scale="utc"), ephemeris="builtin")
    beta = velocity.xyz.to_value("AU/day") * _AU_PER_DAY_IN_C
    n = np.array([np.cos(dec_rad) * np.cos(ra_rad), np.cos(dec_rad) * np.sin(ra_rad), np.sin(dec_rad)])
    return float((1.0 + beta @ n) / np.sqrt(1.0 - beta @ beta))
