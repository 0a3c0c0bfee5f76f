"""Flagging against injected interference, and against pure noise."""

import numpy as np
import pytest

from dsa110_contimg.science import flagging

TIMES, BASELINES, CHANNELS = 24, 60, 96


@pytest.fixture
def noise(rng):
    shape = (TIMES * BASELINES, CHANNELS, 2)
    return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)


def detect(data, flags):
    total, count = flagging.spectrogram(data, flags, np.ones(BASELINES, bool), TIMES)
    return flagging.flag_spectrogram(total / np.maximum(count, 1), count, 6.0)


def test_noise_alone_is_hardly_flagged(noise):
    flags = np.zeros(noise.shape, bool)
    found = detect(noise, flags)
    flagging.flag_outliers(noise, flags, TIMES, 7.0)
    # a Rayleigh amplitude exceeds median + 7 x 1.4826 MAD = 5.8 sigma once in 2e7; the spectrogram is normal: 1e-9
    assert found.sum() == 0
    assert flags.mean() < 1e-5


def test_bursts_and_carriers_are_found_where_they_are(noise):
    cube = noise.reshape(TIMES, BASELINES, CHANNELS, 2)
    cube[5:7, :, 20:40] += 3.0
    cube[:, :, 70] += 2.0
    found = detect(noise, np.zeros(noise.shape, bool))[..., 0]
    truth = np.zeros((TIMES, CHANNELS), bool)
    truth[5:7, 20:40] = truth[:, 70] = True
    assert found[truth].mean() > 0.99
    assert found[~truth].mean() < 0.002


def test_a_smooth_bandpass_is_not_interference(noise):
    shape = 1.0 + 0.15 * np.sin(np.linspace(0, 6, CHANNELS))
    found = detect((noise * shape[None, :, None]).astype(np.complex64), np.zeros(noise.shape, bool))
    assert found.mean() < 1e-3


def test_one_wild_visibility_is_flagged_alone(noise):
    noise[100, 10, 1] = 50.0
    flags = np.zeros(noise.shape, bool)
    flagging.flag_outliers(noise, flags, TIMES, 7.0)
    assert flags[100, 10, 1]
    assert flags.sum() <= 2


def test_an_antenna_without_power_in_one_polarisation_is_dead():
    power = np.ones((10, 2))
    power[3, 1] = 0.05
    power[7] = np.nan
    assert np.flatnonzero(flagging.dead_antennas(power, 0.2)).tolist() == [3, 7]
