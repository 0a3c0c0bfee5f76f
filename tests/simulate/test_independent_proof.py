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
from scipy.optimize import least_squares
from scipy.special import j1

from dsa110_contimg.simulate.night import simulate_night
from dsa110_contimg.simulate.plan import NightOptions, transit_start
from dsa110_contimg.simulate.truth import Truth, load_truth

pyuvdata = pytest.importorskip("pyuvdata")
tables = pytest.importorskip("casacore.tables")
pytestmark = pytest.mark.skipif(shutil.which("wsclean") is None, reason="WSClean is not installed (make system)")

C = 299_792_458.0
DEC_DEG = 30.0
N_ANTENNAS = 44
N_AVERAGED = 4
CELL_ARCSEC, N_PIXELS = 8.0, 1800
JY_PER_RAW_UNIT = 220.0
RADIUS_DEG = 1.35  # the half-power radius at 1.4 GHz
WIDTH_HZ = 244140.625
OMEGA = 7.292115855e-5
DISH_M = 4.65
THERMAL_SEFD_JY, ETA = 6500.0, 0.9


@dataclass
class Weights:
    """The weights that WSClean gave to the visibilities.

    Attributes
    ----------
    baselines : (baseline, 3) ITRF (m).
    values : (time, baseline, frequency), over groups of four channels.
    frequencies : (frequency,) centres of these groups (Hz).
    """

    baselines: np.ndarray
    values: np.ndarray
    frequencies: np.ndarray


@dataclass
class Imaged:
    """An image of the group, with the truth and what made it."""

    truth: Truth
    sky: np.ndarray
    residual: np.ndarray
    header: fits.Header
    ra0: float
    dec0: float
    weights: Weights
    location: EarthLocation


def _simulate(directory: Path, *, noise: bool) -> Truth:
    options = NightOptions(
        start=transit_start(0.0, DEC_DEG, datetime(2026, 2, 11, tzinfo=UTC), 0),
        n_groups=1,
        n_antennas=N_ANTENNAS,
        dec_deg=DEC_DEG,
        seed=7,
        radius_deg=1.2,
        min_flux_jy=0.1,
        noise=noise,
        gains=False,
    )
    simulate_night(options, directory)
    return load_truth(directory)


def _phase(directory: Path, ms: Path) -> tuple[float, float, EarthLocation]:
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
    data.frequency_average(n_chan_to_avg=N_AVERAGED)  # makes the images in a quarter of the time; the loss is known
    data.write_ms(str(ms), run_check=False)
    return float(centre.ra.deg), float(centre.dec.deg), location


def _clean(ms: Path, name: str, *stop: str) -> None:
    command = ["wsclean", "-name", name, "-size", str(N_PIXELS), str(N_PIXELS), "-scale", f"{CELL_ARCSEC}asec"]
    # the taper makes the beam of 44 antennas a clean one: without it, outriggers leave a spike on a pedestal
    command += ["-weight", "briggs", "0", "-taper-gaussian", "45asec", "-store-imaging-weights", "-no-reorder"]
    command += ["-pol", "I", "-use-wgridder", "-j", "2", "-no-update-model-required"]
    command += ["-niter", "30000", "-mgain", "0.8", "-clean-border", "3", *stop, ms.name]
    subprocess.run(command, cwd=ms.parent, check=True, capture_output=True, timeout=300)


def _weights(ms: Path) -> Weights:
    with tables.table(str(ms), ack=False) as main:
        times, one, two = (main.getcol(name) for name in ("TIME", "ANTENNA1", "ANTENNA2"))
        weight = main.getcol("IMAGING_WEIGHT_SPECTRUM")[..., 0].astype(float)
    with tables.table(f"{ms}::ANTENNA", ack=False) as antenna:
        position = antenna.getcol("POSITION")
    with tables.table(f"{ms}::SPECTRAL_WINDOW", ack=False) as window:
        frequency = window.getcol("CHAN_FREQ")[0]
    n_times = len(np.unique(times))
    assert (np.diff(times) >= 0).all()
    assert (np.diff(one.reshape(n_times, -1), axis=0) == 0).all()
    n_baselines = len(one) // n_times
    baselines = position[two[:n_baselines]] - position[one[:n_baselines]]
    grouped = weight.reshape(n_times, n_baselines, -1, 4).sum(axis=-1)
    return Weights(baselines, grouped, frequency.reshape(-1, 4).mean(axis=-1))


def _make(directory: Path, *stop: str, noise: bool) -> Imaged:
    truth = _simulate(directory, noise=noise)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pyuvdata's remarks about a drift file
        ra0, dec0, location = _phase(directory, directory / "group.ms")
    _clean(directory / "group.ms", "group", *stop)
    with fits.open(directory / "group-image.fits") as image:
        sky, header = image[0].data[0, 0].astype(float), image[0].header
    weights = _weights(directory / "group.ms")
    residual = fits.getdata(directory / "group-residual.fits")[0, 0].astype(float)
    for path in (directory / "group.ms", *directory.glob("*.hdf5")):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return Imaged(truth, sky, residual, header, ra0, dec0, weights, location)


@pytest.fixture(scope="module")
def noiseless(tmp_path_factory: pytest.TempPathFactory) -> Imaged:
    return _make(tmp_path_factory.mktemp("noiseless"), "-threshold", "0.001", noise=False)


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
    """Peak of each source: the weighted mean over baselines, times and frequencies of flux x beam x what survives of
    it after averaging in the correlator (integrations of 12.9 s and channels of 244 kHz, fringestopped at the
    meridian) and here (sums of four channels about the centre of the image)."""
    ha, dec = _places(image, sources)
    centre_ha, centre_dec = _places(image, pd.DataFrame({"ra_deg": [image.ra0], "dec_deg": [image.dec0]}))
    longitude, dec0 = image.location.lon.rad, np.radians(DEC_DEG)
    weights, turn = image.weights, OMEGA * 12.884902 / 2

    def delay(s: int, shift: float) -> np.ndarray:
        """(time, baseline) delay of a source minus the phase centre's, both followed by a rotation of the earth."""
        source = _direction(ha[:, s] + shift, dec[:, s], longitude)
        return (source - _direction(np.array(shift), np.array(dec0), longitude)) @ weights.baselines.T / C

    def delay_in_image(s: int) -> np.ndarray:
        there, middle = (_direction(h[:, k], d[:, k], longitude) for h, d, k in ((ha, dec, s), (centre_ha, centre_dec, 0)))
        return (there - middle) @ weights.baselines.T / C

    theta = SkyCoord(ha * u.rad, dec * u.rad).separation(SkyCoord(0 * u.rad, dec0 * u.rad)).rad
    flux = np.zeros(len(sources))
    for s, source in enumerate(sources.itertuples()):
        kept = np.sinc(delay(s, 0.0) * WIDTH_HZ)
        kept *= np.sinc(delay_in_image(s) * N_AVERAGED * WIDTH_HZ) / np.sinc(delay_in_image(s) * WIDTH_HZ)
        turns_per_hz = delay(s, turn) - delay(s, -turn)
        for k, f in enumerate(weights.frequencies):
            x = np.pi * DISH_M * f / C * np.sin(theta[:, s])
            beam = (2 * j1(x) / x) ** 2 * (f / 1.4e9) ** source.spectral_index
            flux[s] += (weights.values[:, :, k] * beam[:, None] * kept * np.sinc(turns_per_hz * f)).sum()
    return flux / weights.values.sum() * sources.flux_jy.to_numpy()


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
    n, band, time = N_ANTENNAS, 768 * 244140.625, 24 * 12.884902
    thermal = THERMAL_SEFD_JY / (ETA * np.sqrt(2 * n * (n - 1) * band * time))
    rms = 1.4826 * np.median(np.abs(noisy.residual - np.median(noisy.residual)))
    # an image of 1200 x 1200 pixels holds some 2e4 independent beams: the rms itself is known to 1 %
    assert rms == pytest.approx(thermal, rel=0.05)
