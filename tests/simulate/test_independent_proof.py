"""Sign, frame and flux of the simulated files, proven by programs that this project did not write.

A group is simulated, read and phased by pyuvdata, and imaged by WSClean. What the image must show is then written out
from first principles (astropy for places, scipy for the beam, the sum over all visibilities for the response to a
point): none of the package's reading, imaging or beam code takes part. The field crosses 0 h of right ascension.

Fluxes are solved for jointly, from the dirty image at the places of all sources and their exact responses there, so
that sidelobes and blends drop out. CLEAN could not decide to 0.5 %: a source whose flux drifts through the beam by
10 % within the group leaves sidelobes of that order times the PSF's, which no constant component removes.
"""

from __future__ import annotations

import shutil
import subprocess
import warnings
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import astropy.units as u
import numba
import numpy as np
import pytest
from astropy.coordinates import ICRS, EarthLocation, HADec, SkyCoord
from astropy.io import fits
from astropy.time import Time
from scipy.special import j1

from dsa110_contimg.simulate.night import simulate_night
from dsa110_contimg.simulate.plan import NightOptions, transit_start
from dsa110_contimg.simulate.truth import Truth, load_truth

pyuvdata = pytest.importorskip("pyuvdata")
tables = pytest.importorskip("casacore.tables")
pytestmark = pytest.mark.skipif(shutil.which("wsclean") is None, reason="WSClean is not installed (make system)")

C = 299_792_458.0
DEC_DEG = 30.0
N_ANTENNAS = 48
N_AVERAGED = 4
CELL_ARCSEC, N_PIXELS = 8.0, 1800
JY_PER_RAW_UNIT = 220.0
HALF_POWER_DEG = 1.3575
WIDTH_HZ, INTEGRATION_S = 244140.625, 12.884902
OMEGA = 7.292115855e-5
DISH_M = 4.65
SEFD_JY, ETA = 6500.0, 0.9


@dataclass
class Observation:
    """What the Measurement Set says: rows are (time, baseline) in time-major order.

    Attributes
    ----------
    uvw : (time, baseline, 3) m
    baselines : (baseline, 3) ITRF position(antenna 2) - position(antenna 1) (m).
    frequencies : (frequency,) Hz, after averaging by four.
    """

    uvw: np.ndarray
    baselines: np.ndarray
    frequencies: np.ndarray


@dataclass
class Imaged:
    """A dirty image of the group with natural weights, the truth, and what made it."""

    truth: Truth
    sky: np.ndarray
    header: fits.Header
    ra0: float
    dec0: float
    observation: Observation
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
    data.frequency_average(n_chan_to_avg=N_AVERAGED)  # a quarter of the work; the loss is in the expectation
    data.write_ms(str(ms), run_check=False)
    return float(centre.ra.deg), float(centre.dec.deg), location


def _image(ms: Path) -> tuple[np.ndarray, fits.Header]:
    command = ["wsclean", "-name", "group", "-size", str(N_PIXELS), str(N_PIXELS), "-scale", f"{CELL_ARCSEC}asec"]
    command += ["-weight", "natural", "-pol", "I", "-use-wgridder", "-wgridder-accuracy", "1e-5", "-j", "2"]
    command += ["-no-update-model-required", "-no-reorder", "-make-psf", ms.name]
    subprocess.run(command, cwd=ms.parent, check=True, capture_output=True, timeout=300)
    with fits.open(ms.parent / "group-dirty.fits") as image:
        return image[0].data[0, 0].astype(float), image[0].header.copy()


def _observation(ms: Path) -> Observation:
    with tables.table(str(ms), ack=False) as main:
        times, one, two, uvw = (main.getcol(name) for name in ("TIME", "ANTENNA1", "ANTENNA2", "UVW"))
    with tables.table(f"{ms}::ANTENNA", ack=False) as antenna:
        position = antenna.getcol("POSITION")
    with tables.table(f"{ms}::SPECTRAL_WINDOW", ack=False) as window:
        frequency = window.getcol("CHAN_FREQ")[0]
    n_times = len(np.unique(times))
    assert (np.diff(times) >= 0).all()
    assert (np.diff(one.reshape(n_times, -1), axis=0) == 0).all()
    n_baselines = len(one) // n_times
    baselines = position[two[:n_baselines]] - position[one[:n_baselines]]
    return Observation(uvw.reshape(n_times, n_baselines, 3), baselines, frequency)


def _make(directory: Path, *, noise: bool) -> Imaged:
    truth = _simulate(directory, noise=noise)
    ms = directory / "group.ms"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pyuvdata's remarks about a drift file without sidereal times
        ra0, dec0, location = _phase(directory, ms)
    sky, header = _image(ms)
    made = Imaged(truth, sky, header, ra0, dec0, _observation(ms), location)
    shutil.rmtree(ms)
    for path in directory.glob("*.hdf5"):
        path.unlink()
    return made


@pytest.fixture(scope="module")
def noiseless(tmp_path_factory: pytest.TempPathFactory) -> Imaged:
    return _make(tmp_path_factory.mktemp("noiseless"), noise=False)


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> Imaged:
    return _make(tmp_path_factory.mktemp("noisy"), noise=True)


def _places(image: Imaged, ra_deg: np.ndarray, dec_deg: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(time, source) apparent hour angle and declination (rad)."""
    times = Time(image.truth.groups[0].mjd, format="mjd", scale="utc")
    ra, dec = (np.broadcast_to(a, (len(times), len(a))) for a in (ra_deg, dec_deg))
    there = SkyCoord(ra * u.deg, dec * u.deg).transform_to(HADec(obstime=times[:, None], location=image.location))
    return there.ha.rad, there.dec.rad


def _direction(ha: np.ndarray, dec: np.ndarray, longitude: float) -> np.ndarray:
    lon = longitude - ha
    return np.stack([np.cos(dec) * np.cos(lon), np.cos(dec) * np.sin(lon), np.sin(dec)], axis=-1)


def _amplitudes(image: Imaged) -> np.ndarray:
    """(source, time, baseline, frequency) what is left, per Jy at 1.4 GHz, of each source in each visibility: beam,
    spectrum, and what survives the averaging in the correlator (integrations of 12.9 s and channels of 244 kHz,
    fringestopped at the meridian) and here (sums of four channels about the centre of the image)."""
    sources, seen = image.truth.sources, image.observation
    ha, dec = _places(image, sources.ra_deg.to_numpy(), sources.dec_deg.to_numpy())
    centre_ha, centre_dec = _places(image, np.array([image.ra0]), np.array([image.dec0]))
    longitude, dec0, turn = image.location.lon.rad, np.array(np.radians(DEC_DEG)), OMEGA * INTEGRATION_S / 2

    def delay(shift: float, to_ha: np.ndarray, to_dec: np.ndarray) -> np.ndarray:
        """(time, source, baseline) of the sources minus that of a place, all followed by a rotation of the earth."""
        differ = _direction(ha + shift, dec, longitude) - _direction(to_ha + shift, to_dec, longitude)
        return differ @ seen.baselines.T / C

    zero = np.array(0.0)
    kept = np.sinc(delay(0.0, zero, dec0) * WIDTH_HZ)
    in_image = delay(0.0, centre_ha, centre_dec)
    kept *= np.sinc(in_image * N_AVERAGED * WIDTH_HZ) / np.sinc(in_image * WIDTH_HZ)
    turns_per_hz = delay(turn, zero, dec0) - delay(-turn, zero, dec0)
    theta = SkyCoord(ha * u.rad, dec * u.rad).separation(SkyCoord(0 * u.rad, dec0 * u.rad)).rad
    x = np.pi * DISH_M / C * np.sin(theta)[..., None] * seen.frequencies
    power = (2 * j1(x) / x) ** 2 * (seen.frequencies / 1.4e9) ** sources.spectral_index.to_numpy()[:, None]
    out = np.empty((len(sources), *kept[:, 0].shape, len(seen.frequencies)), np.float32)
    for s in range(len(sources)):
        lost = np.sinc(turns_per_hz[:, s, :, None] * seen.frequencies)
        out[s] = power[:, s, None] * kept[:, s, :, None] * lost
    return out


@numba.njit(parallel=True, fastmath=True)
def _respond(amplitudes, metres, frequencies, out):  # type: ignore[no-untyped-def]
    """Sum over rows and channels of amplitude x cos(2 pi metres f / c); metres is (point, row)."""
    for p in numba.prange(metres.shape[0]):
        total = 0.0
        for row in range(metres.shape[1]):
            step = 2 * np.pi * metres[p, row] * (frequencies[1] - frequencies[0]) / C
            phase = 2 * np.pi * metres[p, row] * frequencies[0] / C
            real, imag, turn_real, turn_imag = np.cos(phase), np.sin(phase), np.cos(step), np.sin(step)
            for f in range(frequencies.shape[0]):
                total += amplitudes[row, f] * real
                real, imag = real * turn_real - imag * turn_imag, real * turn_imag + imag * turn_real
        out[p] = total


def _responses(image: Imaged, amplitudes: np.ndarray, lm: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(point, source) dirty image at each point that 1 Jy of each source makes, natural weights being equal."""
    uvw = image.observation.uvw.reshape(-1, 3)
    out = np.empty((len(points), len(lm)))
    for s in range(len(lm)):
        column = np.empty(len(points))
        amplitude = amplitudes[s].reshape(len(uvw), -1)
        _respond(amplitude, _lmn(points) @ uvw.T - _lmn(lm[s : s + 1]) @ uvw.T, image.observation.frequencies, column)
        out[:, s] = column / amplitude.size
    return out


def _lmn(lm: np.ndarray) -> np.ndarray:
    return np.column_stack([lm, np.sqrt(1 - (lm**2).sum(axis=1)) - 1])


def _image_places(image: Imaged) -> np.ndarray:
    """(source, 2) direction cosines l, m in the image.

    The orthographic projection of ICRS positions, stretched by the ratio of apparent to ICRS distance from the
    centre (annual aberration, 1e-4): the uvw are those of the apparent sky, turned rigidly into ICRS.
    """
    sources = image.truth.sources
    centre = SkyCoord(image.ra0 * u.deg, image.dec0 * u.deg)
    where = SkyCoord(sources.ra_deg.to_numpy() * u.deg, sources.dec_deg.to_numpy() * u.deg)
    when = Time(image.truth.groups[0].mjd.mean(), format="mjd", scale="utc")
    frame = HADec(obstime=when, location=image.location)
    stretch = (where.transform_to(frame).separation(centre.transform_to(frame)) / where.separation(centre)).value
    d_ra, dec, dec0 = (where.ra - centre.ra).rad, where.dec.rad, centre.dec.rad
    east = np.cos(dec) * np.sin(d_ra) * stretch
    north = (np.sin(dec) * np.cos(dec0) - np.cos(dec) * np.sin(dec0) * np.cos(d_ra)) * stretch
    return np.stack([east, north], axis=-1)


@dataclass
class Expectation:
    """What the image must show at some pixels.

    Attributes
    ----------
    x, y : (point,) pixels: for each of five shifts, one next to each source; then pixels anywhere.
    response : (point, source) of 1 Jy of each source.
    near : (source,) within the half-power radius.
    """

    x: np.ndarray
    y: np.ndarray
    response: np.ndarray
    near: np.ndarray


@pytest.fixture(scope="module")
def expected(noiseless: Imaged) -> Expectation:
    lm = _image_places(noiseless)
    cell = np.radians(CELL_ARCSEC / 3600)
    middle = np.array([noiseless.header["CRPIX1"] - 1, noiseless.header["CRPIX2"] - 1])
    nearest = np.rint(middle + lm / cell * [-1, 1]).astype(int)
    shifts = np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]])
    elsewhere = np.random.default_rng(0).integers(200, N_PIXELS - 200, (40, 2))
    # pixel centres only: outriggers make fringes of 2.5 pixels, which no interpolation follows to 0.1 %
    pixels = np.concatenate([(nearest[None] + shifts[:, None]).reshape(-1, 2), elsewhere])
    response = _responses(noiseless, _amplitudes(noiseless), lm, (pixels - middle) * [-cell, cell])
    return Expectation(pixels[:, 0], pixels[:, 1], response, np.hypot(*lm.T) < np.radians(HALF_POWER_DEG))


def _solve(image: Imaged, expected: Expectation) -> np.ndarray:
    """(source,) flux densities that explain the pixels next to the sources, jointly."""
    n = expected.response.shape[1]
    return np.linalg.solve(expected.response[:n], image.sky[expected.y, expected.x][:n])


def _offsets(image: Imaged, expected: Expectation) -> np.ndarray:
    """(source,) distance of each source from its place, in beams (minor axis).

    About its peak a response is a parabola of curvature k: a source displaced by d leaves a residual of slope -k d.
    """
    n = expected.response.shape[1]
    flux = _solve(image, expected)
    rest = (image.sky[expected.y, expected.x] - expected.response @ flux)[: 5 * n].reshape(5, n)
    own = np.stack([expected.response[k * n : (k + 1) * n].diagonal() for k in range(5)]) * flux
    pixels = [
        (rest[minus] - rest[plus]) / 2 / (own[plus] + own[minus] - 2 * own[0]) for plus, minus in ((1, 2), (3, 4))
    ]
    return np.asarray(np.hypot(*pixels) * CELL_ARCSEC / 3600 / image.header["BMIN"])


def _flux(image: Imaged) -> np.ndarray:
    return np.asarray(image.truth.sources.flux_jy)


def test_without_noise_every_source_has_its_flux_and_place(noiseless: Imaged, expected: Expectation) -> None:
    ratio = _solve(noiseless, expected) / _flux(noiseless)
    assert expected.near.sum() >= 8
    assert np.abs(ratio - 1).max() < 0.005, ratio
    assert _offsets(noiseless, expected).max() < 0.05, _offsets(noiseless, expected)


def test_without_noise_nothing_else_is_in_the_image(noiseless: Imaged, expected: Expectation) -> None:
    # a conjugated, mirrored or misplaced baseline would leave its share of the flux spread over the image
    unexplained = noiseless.sky[expected.y, expected.x] - expected.response @ _flux(noiseless)
    assert np.abs(unexplained).max() < 1e-3 * noiseless.sky.max()


def test_with_noise_fluxes_are_unbiased_and_scatter_by_the_noise(noisy: Imaged, expected: Expectation) -> None:
    n = expected.response.shape[1]
    ratio = (_solve(noisy, expected) / _flux(noisy))[expected.near]
    sigma = (_thermal() / (expected.response[:n].diagonal() * _flux(noisy)))[expected.near]
    assert abs(np.median(ratio) - 1) < 0.01, ratio
    assert (np.abs(ratio - 1) < np.maximum(0.01, 4 * sigma)).all(), ratio


def _thermal() -> float:
    """The radiometer equation for natural weights (Jy/beam)."""
    samples = 768 * WIDTH_HZ * 24 * INTEGRATION_S
    return float(SEFD_JY / (ETA * np.sqrt(2 * N_ANTENNAS * (N_ANTENNAS - 1) * samples)))


def test_image_noise_is_that_of_the_radiometer_equation(noiseless: Imaged, noisy: Imaged) -> None:
    noise = noisy.sky - noiseless.sky
    # the natural weights of a dense core leave 2300 independent modes (pixels over the sum of the squared PSF), so that
    # the rms is known to 1.5 %: four times that
    assert noise.std() == pytest.approx(_thermal(), rel=0.06)
