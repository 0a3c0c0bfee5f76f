"""Which calibrator crosses the beam in a group. Only sources with a catalogued flux are ever considered."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dsa110_contimg import telescope
from dsa110_contimg.science import beam


@dataclass(frozen=True)
class Transit:
    """A calibrator that crosses the meridian within a group.

    Attributes
    ----------
    flux_jy : at 1.4 GHz.
    apparent_flux_jy : flux times the mean beam response over the group at 1.4 GHz.
    offset_deg : declination minus pointing.
    """

    name: str
    ra_deg: float
    dec_deg: float
    flux_jy: float
    apparent_flux_jy: float
    offset_deg: float


def transits(
    candidates: pd.DataFrame,
    pointing_ra: NDArray[np.float64],
    pointing_dec: NDArray[np.float64],
    min_flux_jy: float,
    max_offset_deg: float,
) -> list[Transit]:
    """Calibrators that cross the meridian while a group is recorded, strongest apparent flux first.

    Parameters
    ----------
    candidates : DataFrame
        ``name``, ``ra_deg``, ``dec_deg``, ``flux_jy``.
    pointing_ra, pointing_dec : (time,)
        Meridian at the centre of each integration (rad, ICRS).
    min_flux_jy, max_offset_deg : float
        Least flux and largest declination offset.
    """
    bright = candidates[candidates["flux_jy"] >= min_flux_jy]
    ra, dec = np.radians(bright["ra_deg"].to_numpy(float)), np.radians(bright["dec_deg"].to_numpy(float))
    # hour angle at the first and last integration, each widened by half an integration: groups tile the sky
    half = 0.5 * telescope.INTEGRATION_S * 2 * np.pi / 86164.09
    since_first = np.angle(np.exp(1j * (ra - pointing_ra[0]))) + half
    to_last = np.angle(np.exp(1j * (pointing_ra[-1] - ra))) + half
    offset = np.degrees(dec - pointing_dec.mean())
    inside = (since_first >= 0) & (to_last > 0) & (np.abs(offset) <= max_offset_deg)
    weights = np.ones((len(pointing_ra), 1))
    found = []
    for index in np.flatnonzero(inside):
        response = beam.drift_averaged(
            ra[index], dec[index], pointing_ra, pointing_dec, np.array([telescope.REFERENCE_FREQUENCY_HZ]), weights
        )
        row = bright.iloc[index]
        found.append(
            Transit(
                name=str(row["name"]),
                ra_deg=float(row["ra_deg"]),
                dec_deg=float(row["dec_deg"]),
                flux_jy=float(row["flux_jy"]),
                apparent_flux_jy=float(row["flux_jy"] * response),
                offset_deg=float(offset[index]),
            )
        )
    return sorted(found, key=lambda transit: -transit.apparent_flux_jy)
