"""A sky through a drifting telescope, from first principles: astropy's angles, the Airy formula and explicit sincs.

None of the package's science is used, so what `image` and `measure` recover is compared with something independent.
"""

from __future__ import annotations

import astropy.units as u
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from astropy.coordinates import CIRS, EarthLocation, SkyCoord
from astropy.time import Time
from scipy.special import j1

from dsa110_contimg import telescope

LIGHT, OMEGA = 299_792_458.0, 2 * np.pi / 86164.0905
MJD, RA, DEC = 61066.2, np.radians(80.3), np.radians(16.6)
WIDTH = 8 * telescope.CHANNEL_WIDTH_HZ
FREQUENCY = 1.3124e9 + WIDTH * np.arange(96)
SECONDS = (np.arange(24) - 11.5) * telescope.INTEGRATION_S


def _positions(n_antennas: int, reach_m: float) -> np.ndarray:
    table = telescope.stations()
    near = np.linalg.norm(table.itrf - np.median(table.itrf[table.active], axis=0), axis=1) < reach_m
    chosen = np.flatnonzero(near & table.active)
    return table.itrf[chosen[np.linspace(0, len(chosen) - 1, n_antennas).round().astype(int)]]


def _uvw(baselines: np.ndarray) -> np.ndarray:
    out = []
    for angle in np.radians(telescope.LONGITUDE_DEG) - OMEGA * SECONDS:
        w = np.array([np.cos(DEC) * np.cos(angle), np.cos(DEC) * np.sin(angle), np.sin(DEC)])
        east = np.array([-np.sin(angle), np.cos(angle), 0.0])
        out.append(baselines @ np.stack([east, np.cross(w, east), w], axis=-1))
    return np.array(out)


def _cosines(places: SkyCoord, centre: SkyCoord) -> np.ndarray:
    """(..., 3) l, m, n - 1 about a centre, from astropy's offsets on the sphere."""
    distance, angle = centre.separation(places).rad, centre.position_angle(places).rad
    sine = np.sin(distance)
    return np.stack([sine * np.sin(angle), sine * np.cos(angle), -2 * np.sin(distance / 2) ** 2], axis=-1)


def _scale(centre: SkyCoord) -> float:
    """Apparent over true size of the field, from apparent places."""
    location = EarthLocation.from_geodetic(telescope.LONGITUDE_DEG, telescope.LATITUDE_DEG, telescope.HEIGHT_M)
    frame = CIRS(obstime=Time(MJD, format="mjd"), location=location)
    around = centre.directional_offset_by(np.arange(0, 360, 30) * u.deg, 1 * u.deg)
    return float(centre.transform_to(frame).separation(around.transform_to(frame)).deg.mean())


@pytest.fixture(scope="session")
def drifting_sky():
    """A function (catalogue, noise factor, …) -> Visibilities view of one group of a small array."""

    def make(catalog: pd.DataFrame, noise: float = 0.0, n_antennas: int = 32, reach_m: float = 1300.0, seed: int = 0):
        centre = SkyCoord(RA * u.rad, DEC * u.rad)
        pointing = SkyCoord((RA + OMEGA * SECONDS) * u.rad, np.full(24, DEC) * u.rad)
        tracked = _cosines(pointing, centre)
        i, j = np.triu_indices(n_antennas, 1)
        positions = _positions(n_antennas, reach_m)
        uvw, scale = _uvw(positions[j] - positions[i]), _scale(centre)
        pole = np.array([0.0, np.cos(DEC), np.sin(DEC)])
        data = np.zeros((*uvw.shape[:2], len(FREQUENCY)), complex)
        for row in catalog.itertuples():
            place = SkyCoord(row.ra_deg * u.deg, row.dec_deg * u.deg)
            apparent = _cosines(place, centre) * scale
            for t in range(24):
                x = np.pi * 4.65 * np.sin(place.separation(pointing[t]).rad) * FREQUENCY / LIGHT
                seen = row.flux_jy * (FREQUENCY / 1.4e9) ** row.spectral_index * (2 * j1(x) / x) ** 2
                offset = apparent - tracked[t]
                rate = OMEGA * (np.cross(pole, uvw[t]) @ offset)[:, None] * FREQUENCY / LIGHT
                smeared = np.sinc(rate * telescope.INTEGRATION_S) * np.sinc((uvw[t] @ offset)[:, None] * WIDTH / LIGHT)
                data[t] += seen * smeared * np.exp(2j * np.pi * (uvw[t] @ apparent)[:, None] * FREQUENCY / LIGHT)
        data = np.repeat(data[..., None], 2, axis=-1)
        rng = np.random.default_rng(seed)
        sigma = noise * 6500.0 / (0.9 * np.sqrt(2 * WIDTH * telescope.INTEGRATION_S))
        data = data + sigma * (rng.normal(size=data.shape) + 1j * rng.normal(size=data.shape))
        dims = ("time", "baseline_id", "frequency", "polarization")
        return xr.Dataset(
            {
                "VISIBILITY": (dims, data.astype(np.complex64)),
                "FLAG": (dims, np.zeros(data.shape, bool)),
                "WEIGHT": (dims, np.ones(data.shape, np.float32)),
                "UVW": (("time", "baseline_id", "uvw_label"), uvw),
            },
            coords={
                "time": MJD + SECONDS / 86400,
                "frequency": FREQUENCY,
                "polarization": ["XX", "YY"],
                "antenna_name": [str(k) for k in range(n_antennas)],
                "antenna_position": (("antenna_name", "cartesian_pos_label"), positions),
                "baseline_antenna1_name": ("baseline_id", [str(k) for k in i]),
                "baseline_antenna2_name": ("baseline_id", [str(k) for k in j]),
                "pointing_ra": ("time", pointing.ra.rad),
                "pointing_dec": ("time", pointing.dec.rad),
            },
            attrs={
                "phase_center_ra": RA,
                "phase_center_dec": DEC,
                "integration_time": telescope.INTEGRATION_S,
                "channel_width": WIDTH,
                "telescope_name": "DSA_110",
                "group_id": "2026-01-26T04:45:25",
            },
        )

    return make


@pytest.fixture(scope="session")
def field_catalog() -> pd.DataFrame:
    """Twelve sources out to 1.6 deg, one of several Jy, two of them 2.3 beams apart, spectra from -1.2 to 0."""
    rng = np.random.default_rng(110)
    radius = np.sqrt(rng.uniform(0.001, 1.6**2, 12))
    angle = rng.uniform(0, 2 * np.pi, 12)
    east, north = radius * np.sin(angle), radius * np.cos(angle)
    east[11], north[11] = east[10] + 0.05, north[10] + 0.03
    return pd.DataFrame(
        {
            "name": [f"S{k:02d}" for k in range(12)],
            "ra_deg": np.degrees(RA) + east / np.cos(DEC),
            "dec_deg": np.degrees(DEC) + north,
            "flux_jy": np.concatenate([[4.0, 1.5], 10 ** rng.uniform(-0.7, 0.0, 10)]),
            "flux_error_jy": 0.0,
            "spectral_index": rng.uniform(-1.2, 0.0, 12),
            "spectral_index_error": 0.0,
            "origin": "test",
        }
    )
