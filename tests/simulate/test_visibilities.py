"""The kernels, against sums written out."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import j1

from dsa110_contimg import telescope
from dsa110_contimg.io import catalogs
from dsa110_contimg.simulate import sky, visibilities
from dsa110_contimg.simulate.array import build_array

C = 299_792_458.0
DEC = np.radians(16.6)
MJD = 61066.2 + np.arange(3) * telescope.INTEGRATION_S / 86400
FREQUENCIES = telescope.subband_frequencies(2)


@pytest.fixture(scope="module")
def scene() -> tuple[np.ndarray, np.ndarray, sky.BeamTrack, np.ndarray]:
    baselines = build_array(8).baselines_m
    sources = sky.choose_sources(MJD, DEC, 3.0, 0.2)
    seen = sky.track(sources, MJD, DEC)
    flux = sky.apparent_flux(sources, seen.separation, FREQUENCIES)
    out = np.empty((3, len(baselines), 48), np.complex64)
    first, step = FREQUENCIES[0], FREQUENCIES[1] - FREQUENCIES[0]
    visibilities.predict(baselines, seen.offset, seen.rate, flux, first, step, telescope.INTEGRATION_S, out)
    return baselines, flux, seen, out


def test_prediction_is_the_sum_over_fast_samples_and_fine_channels(scene) -> None:  # type: ignore[no-untyped-def]
    baselines, flux, seen, out = scene
    t, worst = 1, 0.0
    samples = (np.arange(96) - 47.5) * telescope.INTEGRATION_S / 96
    fine = (np.arange(32) - 15.5) / 32 * telescope.CHANNEL_WIDTH_HZ
    for b in range(0, len(baselines), 5):
        for f in (0, 23, 47):
            turned = seen.offset[t][:, None] + seen.rate[t][:, None] * samples[None, :, None]
            delay = turned @ baselines[b] / C
            phase = 2 * np.pi * (FREQUENCIES[f] + fine)[None, None] * delay[..., None]
            expected = (flux[t, f] * np.exp(1j * phase).mean(axis=(1, 2))).sum()
            worst = max(worst, abs(out[t, b, f] - expected))
    # single precision of 48 steps (3e-6) and the discrete sums against their integrals (1e-4) of the summed flux
    assert worst < 3e-4 * flux[t].sum(axis=-1).max()


def test_a_zero_baseline_sees_the_sum_of_all_fluxes(scene) -> None:  # type: ignore[no-untyped-def]
    baselines, flux, _, out = scene
    auto = np.flatnonzero(np.linalg.norm(baselines, axis=-1) == 0)[0]
    assert np.allclose(out[:, auto], flux.sum(axis=-1), rtol=1e-5)


def test_rate_is_the_motion_that_apparent_places_show() -> None:
    sources = sky.choose_sources(MJD, DEC, 2.0, 0.3)
    half = telescope.INTEGRATION_S / 2 / 86400
    before, now, after = (sky.track(sources, MJD + h, DEC) for h in (-half, 0.0, half))
    # the followed point moves with the earth-fixed rate too: take its motion off the sources' own
    turn = sky.EARTH_ROTATION_RAD_S * telescope.INTEGRATION_S / 2
    lon = np.radians(telescope.LONGITUDE_DEG)

    def followed(angle: float) -> np.ndarray:
        return np.array([np.cos(DEC) * np.cos(lon - angle), np.cos(DEC) * np.sin(lon - angle), np.sin(DEC)])

    moved = (after.offset - before.offset) - (followed(turn) - followed(-turn))
    # diurnal aberration and precession move the apparent place by 1e-10 rad/s, 4e-5 turns at most on 2.6 km in 13 s
    assert np.allclose(moved / telescope.INTEGRATION_S, now.rate, rtol=0, atol=3e-10)


def test_apparent_flux_is_spectrum_times_airy_beam() -> None:
    sources = sky.with_true_indices(sky.choose_sources(MJD, DEC, 2.0, 0.3), seed=4)
    separation = sky.track(sources, MJD, DEC).separation
    flux = sky.apparent_flux(sources, separation, FREQUENCIES)
    x = np.pi * 4.65 * np.sin(separation[1, 2]) * FREQUENCIES[5] / C
    spectrum = sources.flux_jy[2] * (FREQUENCIES[5] / 1.4e9) ** sources.spectral_index[2]
    assert flux[1, 5, 2] == pytest.approx(spectrum * (2 * j1(x) / x) ** 2, rel=1e-5)


def test_gains_noise_and_dead_antennas_enter_as_described() -> None:
    rng = np.random.default_rng(0)
    first, second = np.array([0, 0, 1, 0, 1, 2]), np.array([0, 1, 1, 2, 2, 2])
    model = (rng.standard_normal((2, 6, 48)) + 1j * rng.standard_normal((2, 6, 48))).astype(np.complex64)
    model[:, first == second] = 5.0
    gains = (rng.standard_normal((2, 3, 2, 48)) + 1j * rng.standard_normal((2, 3, 2, 48))).astype(np.complex64)
    levels = np.array([2.0, 7000.0, 1e-3], np.float32)
    vis = np.zeros((2, 6, 48, 2), np.complex64)
    visibilities.corrupt(model, first, second, gains, np.array([1, 1, 1e-3], np.float32), levels, vis)
    for p in range(2):
        assert np.allclose(vis[:, 1, :, p], np.conj(gains[:, 0, p]) * gains[:, 1, p] * model[:, 1], rtol=1e-4)
        assert np.allclose(vis[:, 0, :, p], np.abs(gains[:, 0, p]) ** 2 * 7005.0, rtol=1e-5)
        assert np.allclose(vis[:, 5, :, p], np.abs(gains[:, 2, p]) ** 2 * 7.0, rtol=1e-4)
    assert (vis[:, 3:5] == 0).all()  # no sky on the baselines of the dead antenna
    assert (vis[:, first == second].imag == 0).all()


def test_noise_does_not_depend_on_the_number_of_threads_and_is_of_unit_variance() -> None:
    one = visibilities.unit_noise((4, 30, 48, 2), [1, 2], 1)
    assert np.array_equal(one, visibilities.unit_noise((4, 30, 48, 2), [1, 2], 2))
    parts = one.view(np.float32)
    assert parts.std() == pytest.approx(1.0, abs=5 / np.sqrt(2 * parts.size))
    assert abs(parts.mean()) < 5 / np.sqrt(parts.size)


def test_an_assumed_spectral_index_is_drawn_by_name_and_a_measured_one_kept() -> None:
    sources = catalogs.cone(80.29, 16.64, 2.0, 0.1)
    drawn = sky.with_true_indices(sources, seed=1)
    part = sky.with_true_indices(sources.iloc[5:9].reset_index(drop=True), seed=1)
    assert np.array_equal(drawn.spectral_index[5:9], part.spectral_index)
    measured = sources.spectral_index_error < 0.1
    assert measured.any()
    assert np.array_equal(drawn.spectral_index[measured], sources.spectral_index[measured])
    many = sky.with_true_indices(catalogs.cone(80.29, 16.64, 15.0, 0.05), seed=1)
    free = many.spectral_index[many.spectral_index_error > 0.2]
    assert free.mean() == pytest.approx(-0.7, abs=5 * 0.2 / np.sqrt(len(free)))
    assert free.std() == pytest.approx(0.2, rel=5 / np.sqrt(2 * len(free)))


def test_cosine_sine_and_sinc_are_good_to_single_precision() -> None:
    turns = np.random.default_rng(0).uniform(-1e4, 1e4, 2000)
    units = np.array([visibilities._unit(t) for t in turns])
    assert np.abs(units - np.stack([np.cos(2 * np.pi * turns), np.sin(2 * np.pi * turns)], axis=1)).max() < 2e-9
    x = np.linspace(-3, 3, 2001)
    assert np.abs(np.array([visibilities._sinc(t) for t in x]) - np.sinc(x)).max() < 2e-9
