"""The telescope: site, dishes, stations, band. Constants with their sources, and nothing that computes.

Sources: observatory station table of 2022-02-15, header of a real file of 2026-01-25, header of a real
concatenation of 2025-10-03 (band edges, integration time).
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from astropy.coordinates import EarthLocation

TELESCOPE_NAME = "DSA_110"
"""Our name for the array in products."""
HEADER_TELESCOPE_NAME = "OVRO_MMA"
"""What the observatory writes into UVH5 headers. Never look up a location by it."""

LATITUDE_DEG = 37.2334051
LONGITUDE_DEG = -118.283002
"""East positive. The value that the sidereal times of a real file imply (to 0.001 arcsec)."""
HEIGHT_M = 1188.05

DISH_DIAMETER_M = 4.65
SEFD_JY = 6500.0
"""System equivalent flux density of one antenna."""
EFFICIENCY = 0.9
"""Correlator and sampling efficiency eta of the radiometer equation."""

N_SUBBANDS = 16
N_CHANNELS_PER_SUBBAND = 48
N_CHANNELS = N_SUBBANDS * N_CHANNELS_PER_SUBBAND
CHANNEL_WIDTH_HZ = 244140.625
TOP_FREQUENCY_HZ = 1498643188.4765625
"""Centre of the first (highest) channel of sb00; channels descend from here."""

N_INTEGRATIONS = 24
INTEGRATION_S = float(np.float32(12.884902))
FAST_SAMPLES_PER_INTEGRATION = 96
"""Samples of 0.134217728 s that the correlator fringestops one by one and sums."""
GROUP_S = N_INTEGRATIONS * INTEGRATION_S
"""Length of one group of 16 files, 309.2 s."""

REFERENCE_FREQUENCY_HZ = 1.4e9
"""Frequency at which the catalogues give, and we report, flux densities."""

RAW_UNITS_PER_JY = 1.0 / 220.0
"""Raw visibility units are arbitrary; 1 unit is about 220 Jy."""


@dataclass(frozen=True)
class Stations:
    """The station table, one entry per slot, ordered by station number.

    Attributes
    ----------
    number : (117,) int
        Station number, 1 to 117. The name of an antenna is this number as text; files index it as number - 1.
    itrf : (117, 3) float
        Geocentric position (m).
    arm : tuple of str
        ``EW``, ``NS`` or ``OUT``, as the table has it.
    active : (117,) bool
        Whether the station took part on 2026-01-25.
    """

    number: NDArray[np.int64]
    itrf: NDArray[np.float64]
    arm: tuple[str, ...]
    active: NDArray[np.bool_]


def location() -> EarthLocation:
    """The array reference position (WGS84).

    Whoever turns the sky over it needs the orientation of the Earth, so with it astropy is told to take that of the
    installed astropy-iers-data, measured and predicted, and nothing else. As it comes, astropy fetches a newer table
    once that of the package is 30 days old, and fails where there is no network. Predictions are good to 10 ms of UT1
    (0.15 arcsec) for some months, and reach a year ahead.
    """
    from astropy import units as u  # kept out of module import, which must stay fast
    from astropy.coordinates import EarthLocation
    from astropy.utils.iers import conf

    conf.auto_download, conf.auto_max_age = False, None
    return EarthLocation.from_geodetic(LONGITUDE_DEG * u.deg, LATITUDE_DEG * u.deg, HEIGHT_M * u.m, ellipsoid="WGS84")


@cache
def stations() -> Stations:
    """The 117 station slots, from the packaged table."""
    from astropy import units as u
    from astropy.coordinates import EarthLocation

    text = (files("dsa110_contimg") / "data" / "stations.csv").read_text()
    rows = list(csv.DictReader(text.splitlines()))
    where = EarthLocation.from_geodetic(
        [float(r["longitude_deg"]) for r in rows] * u.deg,
        [float(r["latitude_deg"]) for r in rows] * u.deg,
        [float(r["height_m"]) for r in rows] * u.m,
        ellipsoid="WGS84",
    )
    itrf = np.stack([where.x.to_value(u.m), where.y.to_value(u.m), where.z.to_value(u.m)], axis=-1)
    return Stations(
        number=np.array([int(r["station"]) for r in rows]),
        itrf=itrf,
        arm=tuple(r["arm"] for r in rows),
        active=np.array([r["active_2026_01_25"] == "1" for r in rows]),
    )


def subband_frequencies(subband: int) -> NDArray[np.float64]:
    """Channel centres of one subband (Hz), descending as in the files.

    Parameters
    ----------
    subband : int
        0 (highest frequencies) to 15.
    """
    first = subband * N_CHANNELS_PER_SUBBAND
    channel = np.arange(first, first + N_CHANNELS_PER_SUBBAND, dtype=np.float64)
    return TOP_FREQUENCY_HZ - CHANNEL_WIDTH_HZ * channel


def radiometer_noise(n_antennas: int, bandwidth_hz: float, duration_s: float, n_polarizations: int = 2) -> float:
    """Thermal noise of a naturally weighted image (Jy/beam).

    sigma = SEFD / (eta sqrt(n_pol N (N - 1) B t)), the radiometer equation (Wrobel & Walker 1999, eq. 9-23).
    """
    samples = n_polarizations * n_antennas * (n_antennas - 1) * bandwidth_hz * duration_s
    return float(SEFD_JY / (EFFICIENCY * np.sqrt(samples)))


def visibility_noise(channel_width_hz: float, integration_s: float) -> float:
    """Thermal noise of the real (and of the imaginary) part of one visibility of one polarisation (Jy)."""
    return float(SEFD_JY / (EFFICIENCY * np.sqrt(2.0 * channel_width_hz * integration_s)))
