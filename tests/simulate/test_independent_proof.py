"""Sign, frame and flux of the simulated files, proven by programs that this project did not write.

A group is simulated, read and phased by pyuvdata, imaged by WSClean, and each source is compared with what astropy
and scipy say it must look like. None of the package's reading, imaging or beam code takes part. The field crosses
0 h of right ascension.
"""

from __future__ import annotations

import shutil
import subprocess
import warnings
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import astropy.units as u
import numpy as np
import pandas as pd
import pytest
from astropy.coordinates import ICRS, EarthLocation, HADec, SkyCoord
from astropy.io import fits
from astropy.time import Time
from scipy.ndimage import map_coordinates
from scipy.optimize import least_squares
from scipy.special import j1

from dsa110_contimg.simulate.night import simulate_night
from dsa110_contimg.simulate.plan import NightOptions, transit_start
from dsa110_contimg.simulate.truth import Truth, load_truth

pyuvdata = pytest.importorskip("pyuvdata")
pytestmark = pytest.mark.skipif(shutil.which("wsclean") is None, reason="WSClean is not installed (make system)")

C = 299_792_458.0
DEC_DEG = 30.0
CELL_ARCSEC, N_PIXELS = 12.0, 1200
JY_PER_RAW_UNIT = 220.0
RADIUS_DEG = 1.35  # the half-power radius at 1.4 GHz
OMEGA = 7.292115855e-5
DISH_M = 4.65
THERMAL_SEFD_JY, ETA = 6500.0, 0.9


@dataclass
class Imaged:
    """An image of the group, with the truth and what the file says of the array."""

    truth: Truth
    sky: np.ndarray
    residual: np.ndarray
    header: fits.Header
    ra0: float
    dec0: float
    baselines: np.ndarray
    location: EarthLocation


def _simulate(directory: Path, *, noise: bool) -> Truth:
    options = NightOptions(
        start=transit_start(0.0, DEC_DEG, datetime(2026, 2, 11, tzinfo=UTC), 0),
        n_groups=1,
        n_antennas=48,
        dec_deg=DEC_DEG,
        seed=7,
        radius_deg=1.8,
        min_flux_jy=0.12,
        noise=noise,
        gains=False,
    )
    simulate_night(options, directory)
    return load_truth(directory)


def _phase(directory: Path, ms: Path) -> tuple[float, float, np.ndarray, EarthLocation]:
    """Read the 16 files, undo the fringestopping, phase to the meridian at mid-group, write a Measurement Set."""
    parts = []
    for path in sorted(directory.glob("*_sb??.hdf5"), key=lambda p: p.name[-7:]):
        part = pyuvdata.UVData()
        part.read(path, file_type="uvh5", run_check=False)
        part.uvw_array = part.uvw_array.astype(np.float64)
        part.select(ant_str="cross", run_check=False)
        parts.append(part)
    data = parts[0]
    data.fast_concat(parts[1:], axis="freq", inplace=True, run_check=False)
    turns = data.uvw_array[:, 2, None] * data.freq_array[None, :] / C
    data.data_array *= (JY_PER_RAW_UNIT * np.exp(2j * np.pi * turns)).astype(np.complex64)[..., None]
    data.set_uvws_from_antenna_positions(update_vis=False)
    location = data.telescope.location
    middle = Time((data.time_array.min() + data.time_array.max()) / 2, format="jd", scale="utc")
    meridian = HADec(0 * u.deg, data.extra_keywords["phase_center_dec"] * u.rad, obstime=middle, location=location)
    centre = meridian.transform_to(ICRS())
    data.phase(lon=centre.ra.rad, lat=centre.dec.rad, phase_frame="icrs", cat_name="meridian")
    first = data.time_array == data.time_array[0]
    positions = data.telescope.antenna_positions
    baselines = positions[data.ant_2_array[first]] - positions[data.ant_1_array[first]]
    data.write_ms(str(ms), run_check=False)
    return float(centre.ra.deg), float(centre.dec.deg), baselines, location


def _clean(ms: Path, name: str, *stop: str) -> None:
    command = ["wsclean", "-name", name, "-size", str(N_PIXELS), str(N_PIXELS), "-scale", f"{CELL_ARCSEC}asec"]
    command += ["-weight", "natural", "-pol", "I", "-niter", "100000", "-mgain", "0.85", "-use-wgridder", "-j", "2"]
    command += ["-no-update-model-required", "-gain", "0.1", *stop, ms.name]
    subprocess.run(command, cwd=ms.parent, check=True, capture_output=True, timeout=300)


def _make(directory: Path, *stop: str, noise: bool) -> Imaged:
    truth = _simulate(directory, noise=noise)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pyuvdata's remarks about a drift file
        ra0, dec0, baselines, location = _phase(directory, directory / "group.ms")
    _clean(directory / "group.ms", "group", *stop)
    with fits.open(directory / "group-image.fits") as image:
        sky, header = image[0].data[0, 0].astype(float), image[0].header
    residual = fits.getdata(directory / "group-residual.fits")[0, 0].astype(float)
    for path in (directory / "group.ms", *directory.glob("*.hdf5")):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return Imaged(truth, sky, residual, header, ra0, dec0, baselines, location)


@pytest.fixture(scope="module")
def noiseless(tmp_path_factory: pytest.TempPathFactory) -> Imaged:
    return _make(tmp_path_factory.mktemp("noiseless"), "-threshold", "0.0005", noise=False)


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> Imaged:
    return _make(tmp_path_factory.mktemp("noisy"), "-auto-threshold", "2", "-auto-mask", "4", noise=True)


def _places(image: Imaged, sources: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """(time, source) apparent hour angle and declination (rad)."""
    times = Time(image.truth.groups[0].mjd, format="mjd", scale="utc")
    frame = HADec(obstime=times[:, None], location=image.location)
    there = SkyCoord(
        sources.ra_deg.to_numpy()[None] * u.deg * np.ones((len(times), 1)), sources.dec_deg.to_numpy()[None] * u.deg * np.ones((len(times), 1))
    ).transform_to(frame)
    return there.ha.rad, there.dec.rad


def _direction(ha: np.ndarray, dec: np.ndarray, longitude: float) -> np.ndarray:
    lon = longitude - ha
    return np.stack([np.cos(dec) * np.cos(lon), np.cos(dec) * np.sin(lon), np.sin(dec)], axis=-1)


def _expected_flux(image: Imaged, sources: pd.DataFrame) -> np.ndarray:
    """Peak of each source with natural weights: the mean over every baseline, time and (every 16th) channel of
    flux x beam x losses by averaging, all weights being equal."""
    ha, dec = _places(image, sources)
    longitude, dec0 = image.location.lon.rad, np.radians(DEC_DEG)
    pointing = SkyCoord(0 * u.rad, dec0 * u.rad)
    theta = SkyCoord(ha * u.rad, dec * u.rad).separation(pointing).rad
    frequencies = 1498643188.4765625 - 244140.625 * (np.arange(0, 768, 16) + 7.5)
    turn = OMEGA * 12.884902 / 2

    def delay(shift: float) -> np.ndarray:
        """(time, source, baseline) delay of source minus phase centre, both followed by a rotation of the earth."""
        differ = _direction(ha + shift, dec, longitude) - _direction(np.array(shift), np.array(dec0), longitude)
        return differ @ image.baselines.T / C

    channel_loss = np.sinc(delay(0.0) * 244140.625)
    turns_per_hz = delay(turn) - delay(-turn)
    total = np.zeros(len(sources))
    for f in frequencies:
        x = np.pi * DISH_M * f / C * np.sin(theta)
        beam = (2 * j1(x) / x) ** 2
        kept = (np.sinc(turns_per_hz * f) * channel_loss).mean(axis=-1)
        total += (beam * kept).mean(axis=0) * (f / 1.4e9) ** sources.spectral_index.to_numpy()
    return total / len(frequencies) * sources.flux_jy.to_numpy()


def _expected_pixels(image: Imaged, sources: pd.DataFrame) -> np.ndarray:
    """(source, 2) pixel x, y.

    The orthographic projection of ICRS positions, stretched by the ratio of apparent to ICRS distance from the
    centre (annual aberration, 1e-4): the uvw are those of the apparent sky, turned rigidly into ICRS.
    """
    centre = SkyCoord(image.ra0 * u.deg, image.dec0 * u.deg)
    where = SkyCoord(sources.ra_deg.to_numpy() * u.deg, sources.dec_deg.to_numpy() * u.deg)
    when = Time(image.truth.groups[0].mjd.mean(), format="mjd", scale="utc")
    frame = HADec(obstime=when, location=image.location)
    stretch = where.transform_to(frame).separation(centre.transform_to(frame)) / where.separation(centre)
    d_ra, dec, dec0 = (where.ra - centre.ra).rad, where.dec.rad, centre.dec.rad
    l = np.cos(dec) * np.sin(d_ra) * stretch.value  # noqa: E741
    m = (np.sin(dec) * np.cos(dec0) - np.cos(dec) * np.sin(dec0) * np.cos(d_ra)) * stretch.value
    cell = np.radians(CELL_ARCSEC / 3600)
    return np.stack([image.header["CRPIX1"] - 1 - l / cell, image.header["CRPIX2"] - 1 + m / cell], axis=-1)


def _isolated(image: Imaged) -> pd.DataFrame:
    """Sources within the half-power radius of the centre and at least three beams from any other."""
    everything = image.truth.sources
    where = SkyCoord(everything.ra_deg.to_numpy() * u.deg, everything.dec_deg.to_numpy() * u.deg)
    apart = where[:, None].separation(where[None]).deg + 180 * np.eye(len(where))
    near = where.separation(SkyCoord(image.ra0 * u.deg, image.dec0 * u.deg)).deg < RADIUS_DEG
    return everything[near & (apart.min(axis=1) > 3 * image.header["BMAJ"])].reset_index(drop=True)


def _fit(image: Imaged, x: float, y: float) -> tuple[float, float, float]:
    """Peak and position of the restoring beam fitted to the pixels around a place."""
    ix, iy = round(x), round(y)
    py, px = np.mgrid[iy - 3 : iy + 4, ix - 3 : ix + 4]
    values = image.sky[py, px]
    cell = CELL_ARCSEC / 3600
    major, minor = (image.header[k] / cell / np.sqrt(8 * np.log(2)) for k in ("BMAJ", "BMIN"))
    angle = np.radians(image.header["BPA"])

    def shape(p: np.ndarray) -> np.ndarray:
        east, north = -(px - p[1]), py - p[2]
        along, across = north * np.cos(angle) + east * np.sin(angle), east * np.cos(angle) - north * np.sin(angle)
        return (p[0] * np.exp(-(along**2) / 2 / major**2 - across**2 / 2 / minor**2) - values).ravel()

    return tuple(least_squares(shape, [values.max(), x, y]).x)


def _measure(image: Imaged) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    sources = _isolated(image)
    pixels = _expected_pixels(image, sources)
    fitted = np.array([_fit(image, x, y) for x, y in pixels])
    beam_pixels = image.header["BMIN"] * 3600 / CELL_ARCSEC
    return sources, fitted[:, 0] / _expected_flux(image, sources), (fitted[:, 1:] - pixels) / beam_pixels


def test_without_noise_every_source_has_its_flux_and_place(noiseless: Imaged) -> None:
    sources, ratio, offset = _measure(noiseless)
    assert len(sources) >= 8
    assert np.abs(ratio - 1).max() < 0.005, dict(zip(sources.name, ratio, strict=True))
    assert np.hypot(*offset.T).max() < 0.05, dict(zip(sources.name, offset.tolist(), strict=True))


def test_without_noise_nothing_else_is_in_the_image(noiseless: Imaged) -> None:
    # a conjugated, mirrored or misplaced baseline would leave its share of the flux spread over the image
    assert np.abs(noiseless.residual).max() < 0.01 * noiseless.sky.max()


def test_with_noise_fluxes_are_unbiased_and_scatter_by_the_noise(noisy: Imaged) -> None:
    sources, ratio, _ = _measure(noisy)
    rms = 1.4826 * np.median(np.abs(noisy.residual - np.median(noisy.residual)))
    sigma = rms / _expected_flux(noisy, sources)
    assert abs(np.median(ratio) - 1) < 0.01
    assert (np.abs(ratio - 1) < np.maximum(0.01, 4 * sigma)).all(), dict(zip(sources.name, ratio, strict=True))


def test_image_noise_is_that_of_the_radiometer_equation(noisy: Imaged) -> None:
    n, band, time = 48, 768 * 244140.625, 24 * 12.884902
    thermal = THERMAL_SEFD_JY / (ETA * np.sqrt(2 * n * (n - 1) * band * time))
    rms = 1.4826 * np.median(np.abs(noisy.residual - np.median(noisy.residual)))
    # an image of 1200 x 1200 pixels holds some 2e4 independent beams: the rms itself is known to 1 %
    assert rms == pytest.approx(thermal, rel=0.05)
