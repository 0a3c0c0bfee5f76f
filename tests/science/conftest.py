"""Visibilities of known point sources, by the sum that defines them; no beam, no smearing, no noise unless asked."""

from __future__ import annotations

import astropy.units as u
import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from astropy.coordinates import AltAz, SkyCoord
from astropy.time import Time

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
        east = np.array([-np.sin(angle), np.cos(angle), 0.0])
        out.append(baselines @ np.stack([east, np.cross(w, east), w], axis=-1))
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


def toward(ra: np.ndarray, dec: np.ndarray, mjd: np.ndarray) -> np.ndarray:
    """(time, 3) ITRF unit vectors towards one ICRS direction at each time, through astropy's altitude and azimuth."""
    where = telescope.location()
    frame = AltAz(obstime=Time(mjd, format="mjd", scale="utc"), location=where)
    here = SkyCoord(np.full(len(mjd), ra) * u.rad, np.full(len(mjd), dec) * u.rad).transform_to(frame)
    az, alt, lon, lat = here.az.rad, here.alt.rad, where.lon.rad, where.lat.rad
    enu = np.stack([np.cos(alt) * np.sin(az), np.cos(alt) * np.cos(az), np.sin(alt)], axis=-1)
    return enu @ np.array(
        [
            [-np.sin(lon), np.cos(lon), 0.0],
            [-np.sin(lat) * np.cos(lon), -np.sin(lat) * np.sin(lon), np.cos(lat)],
            [np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)],
        ]
    )


@pytest.fixture(scope="session")
def direction_vectors():
    """The function (ra, dec, mjd) -> (time, 3) ITRF unit vectors."""
    return toward


@pytest.fixture(scope="session")
def looking_at():
    """A function that makes a Visibilities view of ICRS point sources (rad, rad, Jy), as a Measurement Set has it.

    ``centre`` is a phase centre (rad), or None for a raw group: hour angle 0 and declination ``DEC`` at every time.
    Autocorrelations are there; with ``chunks`` the cubes are lazy.
    """

    def make(sources, centre=None, n_antennas=6, n_times=4, n_channels=16, chunks=None, seed=0):
        positions = station_positions(n_antennas)
        i, j = np.triu_indices(n_antennas)
        mjd = 61066.2 + np.arange(n_times) * telescope.INTEGRATION_S / 86400
        frequency = 1.4e9 + np.arange(n_channels) * telescope.CHANNEL_WIDTH_HZ
        baselines = positions[i] - positions[j]
        pole, longitude = np.array([0.0, 0.0, 1.0]), np.radians(telescope.LONGITUDE_DEG)
        meridian = np.array([np.cos(DEC) * np.cos(longitude), np.cos(DEC) * np.sin(longitude), np.sin(DEC)])
        w = np.tile(meridian, (n_times, 1)) if centre is None else toward(*centre, mjd)
        east = np.cross(pole, w) / np.linalg.norm(np.cross(pole, w), axis=-1, keepdims=True)
        uvw = np.einsum("tij,bj->tbi", np.stack([east, np.cross(w, east), w], axis=1), baselines)
        data = np.zeros((*uvw.shape[:2], n_channels), complex)
        for ra, dec, flux in sources:
            path = (toward(ra, dec, mjd) - w) @ baselines.T
            data += flux * np.exp(2j * np.pi * path[..., None] * frequency / LIGHT)
        rng = np.random.default_rng(seed)
        data = np.repeat(data[..., None], 2, axis=-1)
        arrays = {
            "VISIBILITY": data.astype(np.complex64),
            "MODEL": data.astype(np.complex64),
            "FLAG": rng.random(data.shape) < 0.1,
            "WEIGHT": rng.uniform(0.5, 2.0, data.shape).astype(np.float32),
        }
        if chunks is not None:
            arrays = {name: da.from_array(array, chunks=chunks) for name, array in arrays.items()}
        dims = ("time", "baseline_id", "frequency", "polarization")
        lst = 1.4 + 7.2921e-5 * 86400 * (mjd - mjd[0])
        own = (
            {}
            if centre is not None
            else {"phase_center_ra": ("time", lst), "phase_center_dec": ("time", lst * 0 + DEC)}
        )
        first = centre or (lst[0], DEC)
        return xr.Dataset(
            {name: (dims, array) for name, array in arrays.items()}
            | {"UVW": (("time", "baseline_id", "uvw_label"), uvw)},
            coords={
                "time": mjd,
                "frequency": frequency,
                "polarization": ["XX", "YY"],
                "uvw_label": ["u", "v", "w"],
                "baseline_antenna1_name": ("baseline_id", [str(k + 1) for k in i]),
                "baseline_antenna2_name": ("baseline_id", [str(k + 1) for k in j]),
                "pointing_ra": ("time", lst),
                "pointing_dec": ("time", np.full(n_times, DEC)),
                "antenna_name": [str(k + 1) for k in range(n_antennas)],
                "cartesian_pos_label": ["x", "y", "z"],
                "antenna_position": (("antenna_name", "cartesian_pos_label"), positions),
                **own,
            },
            attrs={
                "phase_center_ra": first[0],
                "phase_center_dec": first[1],
                "integration_time": telescope.INTEGRATION_S,
                "channel_width": telescope.CHANNEL_WIDTH_HZ,
                "telescope_name": "DSA_110",
                "group_id": "2026-01-26T04:48:00",
            },
        )

    return make


@pytest.fixture
def nothing_computed():
    """A context in which dask may compute nothing."""

    def refuse(*_args, **_kwargs):
        raise AssertionError("something was computed")

    return lambda: dask.config.set(scheduler=refuse)


class FlatSky:
    """Sources that are the same in every visibility, as `observe` makes them; predicts as `ApparentSky` does."""

    def __init__(self, gridder):
        self.gridder = gridder

    def predict(self, model, noise_jy):  # noqa: ARG002  (the signature of ApparentSky)
        return self.gridder.predict(model)

    def learn(self, residual, noise_jy):
        pass


@pytest.fixture(scope="session")
def flat_sky():
    return FlatSky
