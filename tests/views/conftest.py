"""Small synthetic views: a point source and noise on a few real stations, its image and its fluxes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from astropy.io import fits

from dsa110_contimg import records, telescope

SPEED_OF_LIGHT = 299_792_458.0
MJD = 61065.2
RA_DEG, DEC_DEG = 80.3, 16.6


def visibilities(
    n_antennas: int = 8, n_times: int = 4, n_channels: int = 96, *, calibrated: bool = True, noise_jy: float = 0.3
) -> xr.Dataset:
    """A 2 Jy source at the phase centre; uncalibrated has random constant phases and raw units."""
    rng = np.random.default_rng(11)
    stations = telescope.stations()
    chosen = np.flatnonzero(stations.active)[:: max(1, 96 // n_antennas)][:n_antennas]
    positions = stations.itrf[chosen]
    one, two = np.triu_indices(n_antennas)
    width = telescope.CHANNEL_WIDTH_HZ * telescope.N_CHANNELS / n_channels
    frequency = 1.3114e9 + width * np.arange(n_channels)
    shape = (n_times, one.size, n_channels, 2)
    model = np.full(shape, 2.0 + 0.0j, np.complex64)
    noise = rng.normal(size=shape) + 1j * rng.normal(size=shape)
    value = model + noise_jy * noise
    if not calibrated:
        gain = np.exp(2j * np.pi * rng.random((n_antennas, 2))) / np.sqrt(telescope.RAW_UNITS_PER_JY**-1)
        value = value * (gain[one] * gain[two].conj())[None, :, None, :]
    flag = np.zeros(shape, bool)
    flag[:, :, : n_channels // 16] = True
    uvw = np.broadcast_to((positions[two] - positions[one])[None, :, [1, 2, 0]], (n_times, one.size, 3))
    dims = ("time", "baseline_id", "frequency", "polarization")
    names = stations.number[chosen].astype(str)
    time = MJD + np.arange(n_times) * telescope.GROUP_S / n_times / 86400
    return xr.Dataset(
        {
            "VISIBILITY": (dims, value.astype(np.complex64)),
            "MODEL": (dims, model),
            "FLAG": (dims, flag),
            "WEIGHT": (dims, np.ones(shape, np.float32)),
            "UVW": (("time", "baseline_id", "uvw_label"), uvw.copy()),
        },
        coords={
            "time": time,
            "frequency": frequency,
            "polarization": ["XX", "YY"],
            "baseline_antenna1_name": ("baseline_id", names[one]),
            "baseline_antenna2_name": ("baseline_id", names[two]),
            "pointing_ra": ("time", np.full(n_times, np.radians(RA_DEG))),
            "pointing_dec": ("time", np.full(n_times, np.radians(DEC_DEG))),
        },
        attrs={
            "phase_center_ra": np.radians(RA_DEG),
            "phase_center_dec": np.radians(DEC_DEG),
            "integration_time": telescope.GROUP_S / n_times,
            "channel_width": width,
            "telescope_name": "DSA_110",
            "group_id": "2026-01-25T04:48:00",
        },
    )


def caltable(kind: str, n_times: int, n_channels: int, n_antennas: int = 8) -> xr.Dataset:
    """Gains of unit amplitude within 5 % and antenna phases; one antenna flagged."""
    rng = np.random.default_rng(5)
    shape = (n_times, n_antennas, n_channels, 2)
    ramp = np.linspace(-1, 1, n_channels)[None, None, :, None] * rng.normal(size=(1, n_antennas, 1, 2))
    phase = 2 * np.pi * rng.random((1, n_antennas, 1, 2)) + ramp + 0.05 * rng.normal(size=shape)
    size = np.ones(shape) if kind == "GP" else 1 + 0.05 * rng.normal(size=shape)
    flag = np.zeros(shape, bool)
    flag[:, 3] = True
    dims = ("time", "antenna_name", "frequency", "polarization")
    return xr.Dataset(
        {
            "GAIN": (dims, size * np.exp(1j * phase)),
            "FLAG": (dims, flag),
            "SNR": (dims, np.full(shape, 50.0)),
        },
        coords={
            "time": MJD + np.arange(n_times) * 1e-3,
            "antenna_name": [str(n + 1) for n in range(n_antennas)],
            "frequency": np.linspace(1.311e9, 1.498e9, n_channels),
            "polarization": ["X", "Y"],
        },
        attrs={"kind": kind, "refant": "3"},
    )


def photometry(
    n_sources: int = 40, group: str = "2026-01-25T05:01:12", mjd: float = MJD, seed: int = 3
) -> pd.DataFrame:
    """Fluxes that scatter as their errors say."""
    fixed, rng = np.random.default_rng(1), np.random.default_rng(seed)
    catalogue = np.minimum(0.05 * fixed.pareto(1.1, n_sources) + 0.05, 3.0)
    offset = fixed.uniform(-1.6, 1.6, (2, n_sources))
    response = np.exp(-4 * np.log(2) * (offset**2).sum(axis=0) / 2.7**2)
    noise = np.full(n_sources, 6e-4)
    error = np.hypot(noise / response, 0.01 * catalogue)
    flux = catalogue + error * rng.normal(size=n_sources)
    east, north = rng.normal(size=(2, n_sources)) * 20 * noise / (catalogue * response)
    fitted = catalogue * response > 10 * noise
    return pd.DataFrame(
        {
            "source": [f"NVSS J0520{i:02d}+16{i:02d}" for i in range(n_sources)],
            "group": group,
            "mjd": mjd,
            "ra_deg": RA_DEG + offset[0] / np.cos(np.radians(DEC_DEG)),
            "dec_deg": DEC_DEG + offset[1],
            "flux_jy": flux,
            "flux_error_jy": error,
            "flux_raw_jy": flux * response,
            "local_noise_jy": noise,
            "beam_response": response,
            "smearing": 0.99,
            "catalog_flux_jy": catalogue,
            "ratio": flux / catalogue,
            "offset_ra_arcsec": np.where(fitted, east, np.nan),
            "offset_dec_arcsec": np.where(fitted, north, np.nan),
            "quality": 0,
            "image": "image.fits",
        }
    )


def image_product(
    folder: Path, sources: pd.DataFrame, n_pixels: int = 240, cell_arcsec: float = 60.0
) -> records.ImageProduct:
    """A restored image of these sources with correlated noise, and its primary beam."""
    rng = np.random.default_rng(2)
    y, x = np.mgrid[:n_pixels, :n_pixels] - n_pixels / 2
    major, minor = 2.2 * cell_arcsec * 1.5, cell_arcsec * 1.5
    kernel = np.exp(-4 * np.log(2) * ((y * cell_arcsec / major) ** 2 + (x * cell_arcsec / minor) ** 2))
    transform = np.fft.rfft2(np.fft.ifftshift(kernel))
    noise = np.fft.irfft2(np.fft.rfft2(rng.normal(size=x.shape)) * transform, s=x.shape)
    model = np.zeros_like(noise)
    header = _header(n_pixels, cell_arcsec)
    from astropy.wcs import WCS

    column, row = WCS(header).celestial.world_to_pixel_values(sources["ra_deg"], sources["dec_deg"])
    for i, j, flux in zip(row, column, sources["flux_raw_jy"], strict=True):
        if 0 <= round(i) < n_pixels and 0 <= round(j) < n_pixels:
            model[round(i), round(j)] += flux
    sky = 6e-4 * noise / noise.std() + np.fft.irfft2(np.fft.rfft2(model) * transform, s=x.shape)
    beam = np.exp(-4 * np.log(2) * (x**2 + y**2) * (cell_arcsec / 3600) ** 2 / 2.7**2)
    paths = {name: folder / f"{name}.fits" for name in ("image", "pb")}
    for name, data in (("image", sky), ("pb", beam)):
        fits.writeto(paths[name], data[None, None].astype(">f4"), header, overwrite=True)
    other = folder / "none.fits"
    return records.ImageProduct(
        paths["image"], other, paths["pb"], other, other, other, other, "2026-01-25T05:01:12", RA_DEG, DEC_DEG,
        MJD, MJD + telescope.GROUP_S / 86400, n_pixels, cell_arcsec, major / 3600, minor / 3600, 4.0, 6e-4, 5.5e-4,
        1.405e9, 0.01,
    )  # fmt: skip


def _header(n_pixels: int, cell_arcsec: float) -> fits.Header:
    header = fits.Header()
    axes = (
        ("RA---SIN", RA_DEG, -cell_arcsec / 3600, n_pixels / 2 + 1, "deg"),
        ("DEC--SIN", DEC_DEG, cell_arcsec / 3600, n_pixels / 2 + 1, "deg"),
        ("FREQ", 1.405e9, 1.875e8, 1, "Hz"),
        ("STOKES", 1, 1, 1, ""),
    )
    for i, (kind, value, step, pixel, unit) in enumerate(axes, start=1):
        header[f"CTYPE{i}"], header[f"CRVAL{i}"], header[f"CDELT{i}"] = kind, value, step
        header[f"CRPIX{i}"], header[f"CUNIT{i}"] = pixel, unit
    header["RADESYS"], header["BUNIT"] = "ICRS", "Jy/beam"
    return header


@pytest.fixture(scope="session")
def raw() -> xr.Dataset:
    return visibilities(calibrated=False)


@pytest.fixture(scope="session")
def corrected() -> xr.Dataset:
    return visibilities(calibrated=True)


@pytest.fixture
def fluxes() -> pd.DataFrame:
    return photometry()


@pytest.fixture
def image(tmp_path: Path, fluxes: pd.DataFrame) -> records.ImageProduct:
    return image_product(tmp_path, fluxes)


@pytest.fixture
def tables() -> list[xr.Dataset]:
    return [caltable("B", 1, 48), caltable("G", 1, 1), caltable("GP", 5, 1)]


@pytest.fixture
def night() -> pd.DataFrame:
    """Three groups of one night; the faintest source is in the first alone."""
    groups = [photometry(30, f"2026-01-25T05:{5 * i:02d}:12", MJD + 0.0036 * i, seed=i) for i in range(3)]
    faintest = groups[0].loc[groups[0]["flux_jy"].idxmin(), "source"]
    return pd.concat([groups[0], *(group[group["source"] != faintest] for group in groups[1:])], ignore_index=True)
