"""Visibilities of known point sources, by the sum that defines them; no beam, no smearing, no noise unless asked."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from dsa110_contimg import telescope

LIGHT = 299_792_458.0
DEC = np.radians(16.6)


def station_positions(n_antennas: int) -> np.ndarray:
    """Evenly chosen from the table, so that both arms and outriggers are there."""
    table = telescope.stations()
    active = np.flatnonzero(table.active)
    return table.itrf[active[np.linspace(0, len(active) - 1, n_antennas).round().astype(int)]]


def baselines_uvw(positions: np.ndarray, hour_angles: np.ndarray, dec: float) -> np.ndarray:
    """(time, baseline, 3): position 2 less position 1 towards a direction, by textbook rotation."""
    i, j = np.triu_indices(len(positions), 1)
    baselines = positions[j] - positions[i]
    longitude = np.radians(telescope.LONGITUDE_DEG) - hour_angles
    out = []
    for angle in longitude:
        w = np.array([np.cos(dec) * np.cos(angle), np.cos(dec) * np.sin(angle), np.sin(dec)])
        u = np.array([-np.sin(angle), np.cos(angle), 0.0])
        out.append(baselines @ np.stack([u, np.cross(w, u), w], axis=-1))
    return np.array(out)


@pytest.fixture(scope="session")
def uvw_at():
    """A function (n_antennas, hour angles, dec) -> (time, baseline, 3) m."""
    return lambda n_antennas, hour_angles, dec: baselines_uvw(station_positions(n_antennas), hour_angles, dec)


@pytest.fixture(scope="session")
def observe():
    """A function that makes a Visibilities view of sources (l, m, Jy)."""

    def make(sources, n_antennas=16, n_times=4, n_channels=48, noise_jy=0.0, dec=DEC, seed=0):
        width = telescope.N_CHANNELS // n_channels * telescope.CHANNEL_WIDTH_HZ
        first = telescope.TOP_FREQUENCY_HZ - (telescope.N_CHANNELS - 1) * telescope.CHANNEL_WIDTH_HZ
        frequency = first + (np.arange(n_channels) + 0.5) * width - telescope.CHANNEL_WIDTH_HZ / 2
        seconds = (np.arange(n_times) - (n_times - 1) / 2) * telescope.INTEGRATION_S
        turn = seconds * 2 * np.pi / 86164.0905
        uvw = baselines_uvw(station_positions(n_antennas), turn, dec)
        data = np.zeros((*uvw.shape[:2], n_channels), complex)
        for l, m, flux in sources:
            path = uvw @ np.array([l, m, np.sqrt(1 - l**2 - m**2) - 1])
            data += flux * np.exp(2j * np.pi * path[..., None] * frequency / LIGHT)
        data = np.repeat(data[..., None], 2, axis=-1)
        rng = np.random.default_rng(seed)
        data = data + noise_jy * (rng.normal(size=data.shape) + 1j * rng.normal(size=data.shape))
        dims = ("time", "baseline_id", "frequency", "polarization")
        i, j = np.triu_indices(n_antennas, 1)
        return xr.Dataset(
            {
                "VISIBILITY": (dims, data.astype(np.complex64)),
                "FLAG": (dims, np.zeros(data.shape, bool)),
                "WEIGHT": (dims, np.ones(data.shape, np.float32)),
                "UVW": (("time", "baseline_id", "uvw_label"), uvw),
            },
            coords={
                "time": 61066.2 + seconds / 86400,
                "frequency": frequency,
                "polarization": ["XX", "YY"],
                "baseline_antenna1_name": ("baseline_id", [str(k) for k in i]),
                "baseline_antenna2_name": ("baseline_id", [str(k) for k in j]),
                "pointing_ra": ("time", 1.4 + turn),
                "pointing_dec": ("time", np.full(n_times, dec)),
            },
            attrs={
                "phase_center_ra": 1.4,
                "phase_center_dec": dec,
                "integration_time": telescope.INTEGRATION_S,
                "channel_width": width,
                "telescope_name": "DSA_110",
                "group_id": "2026-01-26T04:48:00",
            },
        )

    return make
