"""The simulated sky: real catalogued sources that the beam passes over, and where they stand in the beam.

Sources are points and unpolarised. Their flux densities are the catalogue's at 1.4 GHz; a spectral index that was
not measured is drawn from N(-0.7, 0.2), from the seed and the source's name alone, so that a source is the same in
every group and every selection.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dsa110_contimg import telescope
from dsa110_contimg.exceptions import CatalogError
from dsa110_contimg.io import catalogs
from dsa110_contimg.science import beam, coordinates

MEAN_INDEX, INDEX_SCATTER = -0.7, 0.2
_MEASURED_INDEX_ERROR = 0.15
_INDEX_STREAM = 3
EARTH_ROTATION_RAD_S = 7.292115855e-5
"""Rate of change of an hour angle (IERS nominal rate of the Earth rotation angle; precession adds 8e-12)."""


@dataclass(frozen=True)
class BeamTrack:
    """Sources as the drifting telescope sees them, in earth-fixed axes.

    Attributes
    ----------
    offset : (time, source, 3)
        Apparent unit vector of a source minus that of the phase centre (hour angle 0, pointing declination).
    rate : (time, source, 3)
        Its rate of change (1/s) while the correlator follows the point that crosses the meridian at mid-integration.
    separation : (time, source)
        Angle from the beam centre (rad).
    """

    offset: NDArray[np.float64]
    rate: NDArray[np.float64]
    separation: NDArray[np.float64]


def choose_sources(
    mjd: NDArray[np.float64],
    dec_rad: float,
    radius_deg: float,
    min_flux_jy: float,
    catalog: pd.DataFrame | None = None,
    min_apparent_jy: float = 0.0,
) -> pd.DataFrame:
    """Catalogue rows within a radius of the pointing at any of the given times, brightest first.

    Parameters
    ----------
    mjd : (time,)
        Centres of the integrations of one group (MJD UTC).
    dec_rad : float
        Apparent pointing declination (rad).
    radius_deg, min_flux_jy : float
        Largest distance from the pointing track; least flux density at 1.4 GHz.
    catalog : DataFrame, optional
        A sky of one's own; the packaged catalogue without it.
    min_apparent_jy : float
        Least apparent flux at 1.4 GHz, through the beam, in any of the integrations.

    Raises
    ------
    CatalogError
        No source is left.
    """
    ra, dec = coordinates.meridian_icrs(mjd, dec_rad)
    half_track_deg = float(np.degrees(beam.separation(ra[0], dec[0], ra[-1], dec[-1]))) / 2 + 0.1
    everything = catalogs.packaged_catalog() if catalog is None else catalog
    middle_ra, middle_dec = float(np.degrees(ra[len(ra) // 2])), float(np.degrees(dec[len(dec) // 2]))
    near = catalogs.within(everything, middle_ra, middle_dec, radius_deg + half_track_deg, min_flux_jy)
    where = np.radians(near[["ra_deg", "dec_deg"]].to_numpy(np.float64))
    distance = beam.separation(where[:, 0, None], where[:, 1, None], ra, dec)
    response = beam.airy_power(distance, telescope.REFERENCE_FREQUENCY_HZ).max(axis=1, initial=0.0)
    inside = distance.min(axis=1, initial=np.inf) <= np.radians(radius_deg)
    chosen = near.loc[inside & (response * near["flux_jy"] >= min_apparent_jy)].reset_index(drop=True)
    if chosen.empty:
        raise CatalogError(
            "No catalogue source is in the beam",
            found=f"0 sources of at least {min_flux_jy} Jy within {radius_deg} deg of RA {middle_ra:.2f}",
            expected="at least one; lower the flux limit or widen the radius",
        )
    return chosen


def with_true_indices(sources: pd.DataFrame, seed: int) -> pd.DataFrame:
    """The sources with a spectral index each: measured, or drawn where it was only assumed."""
    drawn = [
        np.random.default_rng([seed, _INDEX_STREAM, zlib.crc32(name.encode())]).normal(MEAN_INDEX, INDEX_SCATTER)
        for name in sources["name"]
    ]
    measured = (sources["spectral_index_error"] <= _MEASURED_INDEX_ERROR).to_numpy()
    return sources.assign(spectral_index=np.where(measured, sources["spectral_index"], drawn))


def track(sources: pd.DataFrame, mjd: NDArray[np.float64], dec_rad: float) -> BeamTrack:
    """Where sources stand about the beam at each integration, from apparent places (ERFA through astropy).

    The apparent place holds precession, nutation, annual and diurnal aberration, light deflection and polar motion,
    and no refraction. Over an integration the source and the point that the correlator follows rotate together:
    d/dt (s - p) = -omega z x (s - p) in earth-fixed axes.
    """
    ra, dec = np.radians(sources[["ra_deg", "dec_deg"]].to_numpy(np.float64)).T
    ha, app_dec = coordinates.apparent_hadec(ra[None, :], dec[None, :], mjd[:, None])
    offset = coordinates.earth_fixed(ha, app_dec) - coordinates.earth_fixed(0.0, dec_rad)
    rate = EARTH_ROTATION_RAD_S * np.stack([offset[..., 1], -offset[..., 0], np.zeros(ha.shape)], axis=-1)
    return BeamTrack(offset=offset, rate=rate, separation=beam.separation(ha, app_dec, 0.0, dec_rad))


def apparent_flux(
    sources: pd.DataFrame, separation: NDArray[np.float64], frequencies_hz: NDArray[np.float64]
) -> NDArray[np.float32]:
    """(time, frequency, source) flux density times primary beam response (Jy)."""
    flux, index = sources["flux_jy"].to_numpy(np.float64), sources["spectral_index"].to_numpy(np.float64)
    spectrum = flux * (frequencies_hz[:, None] / telescope.REFERENCE_FREQUENCY_HZ) ** index
    response = beam.airy_power(separation[:, None, :], frequencies_hz[None, :, None])
    return np.asarray(spectrum[None] * response, np.float32)
