"""Flagging against injected interference, and against pure noise."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsa110_contimg.science import flagging, spectrogram

TIMES, BASELINES, CHANNELS = 24, 60, 96
CUBE = (TIMES, BASELINES, CHANNELS, 2)


@pytest.fixture
def noise(rng):
    return (rng.normal(size=CUBE) + 1j * rng.normal(size=CUBE)).astype(np.complex64)


def examine(data, sigma=7.0, flags=None, known=None):
    """(causes, total, count, seen) of a cube, which is one run of channels."""
    n_times, n_baselines, n_channels, n_pols = data.shape
    flat = (n_times, n_baselines, n_channels * n_pols)
    causes = np.empty(flat, np.uint8)
    flags = np.zeros(data.shape, bool) if flags is None else flags
    known = np.zeros(n_baselines, np.uint8) if known is None else known
    sums = flagging.examine(data.reshape(flat), flags.reshape(flat), known, n_pols, sigma, causes)
    return causes.reshape(data.shape), *(s.reshape(n_times, n_channels, n_pols) for s in sums)


def detect(data):
    return spectrogram.common_interference(*examine(data)[1:], 6.0)


def test_noise_alone_is_hardly_flagged(noise):
    # a Rayleigh amplitude exceeds median + 7 x 1.4826 MAD = 5.8 sigma once in 2e7; the spectrogram is normal: 1e-9
    assert detect(noise).sum() == 0
    assert (examine(noise)[0] != 0).mean() < 1e-5


def test_false_alarms_are_those_of_a_rayleigh_amplitude(noise):
    """At 4.2 robust sigma enough of them are there to be counted."""
    expected = np.exp(-((1.17741 + 0.66481 * 4.2) ** 2) / 2) * noise.size
    found = (examine(noise, 4.2)[0] == flagging.OUTLIER).sum()
    # Poisson, and the scatter of 2304 samples' MAD (2.5 %), which moves the exponent by 4.0 x 0.66 x 4.2 x 0.025 each
    assert expected > 100
    assert abs(found / expected - 1) < 5 / np.sqrt(expected) + 0.05


def test_bursts_and_carriers_are_found_where_they_are(noise):
    noise[5:7, :, 20:40] += 3.0
    noise[:, :, 70] += 2.0
    found = detect(noise)[..., 0]
    truth = np.zeros((TIMES, CHANNELS), bool)
    truth[5:7, 20:40] = truth[:, 70] = True
    assert found[truth].mean() > 0.99
    assert found[~truth].mean() < 0.002


def test_interference_that_leaves_nothing_for_the_mean_is_found(noise):
    """Every sample of a strong carrier is an outlier: the channel has no mean."""
    noise[:, :, 50] += 1000.0
    noise[3, :, 10:20] += 1000.0
    truth = np.zeros((TIMES, CHANNELS), bool)
    truth[:, 50] = truth[3, 10:20] = True
    np.testing.assert_array_equal(detect(noise)[..., 0], truth)


def test_a_smooth_bandpass_is_not_interference(noise):
    shape = 1.0 + 0.15 * np.sin(np.linspace(0, 6, CHANNELS))
    assert detect((noise * shape[:, None]).astype(np.complex64)).mean() < 1e-3


def test_one_wild_visibility_is_flagged_alone(noise):
    noise[1, 40, 10, 1] = 50.0
    causes = examine(noise)[0]
    assert causes[1, 40, 10, 1] == flagging.OUTLIER
    assert (causes != 0).sum() <= 2


def test_what_is_empty_or_known_has_its_own_cause_and_stays_out_of_the_sums(noise):
    noise[0, 0, 0], noise[0, 0, 1, 0], noise[0, 0, 2, 1] = 0, np.nan, np.inf
    flags, known = np.zeros(CUBE, bool), np.zeros(BASELINES, np.uint8)
    flags[1, 2, 3], known[5], known[6] = True, flagging.DEAD, flagging.AUTOCORRELATION
    causes, total, count, seen = examine(noise, flags=flags, known=known)
    assert (causes[0, 0, 0] == flagging.EMPTY).all()
    assert causes[0, 0, 1].tolist() == [flagging.EMPTY, 0]
    assert causes[0, 0, 2].tolist() == [0, flagging.EMPTY]
    assert (causes[1, 2, 3] == flagging.CONVERTED).all()
    assert (causes[:, 5] == flagging.DEAD).all()
    assert (causes[:, 6] == flagging.AUTOCORRELATION).all()
    assert np.isfinite(total).all()
    np.testing.assert_array_equal(count, (causes == 0).sum(axis=1))
    np.testing.assert_array_equal(seen, ((causes == 0) | (causes == flagging.OUTLIER)).sum(axis=1))
    np.testing.assert_allclose(total, np.where(causes == 0, np.abs(noise), 0).sum(axis=1), rtol=1e-6)


def test_a_baseline_with_nothing_left_is_no_error(noise):
    flags = np.zeros(CUBE, bool)
    flags[:, 7] = True
    causes = examine(noise, flags=flags)[0]
    assert (causes[:, 7] == flagging.CONVERTED).all()
    assert (causes[:, 8] == 0).all()


@given(st.lists(st.floats(0, 2.0**100, width=32), min_size=1, max_size=60), st.data())
def test_selection_is_exact(numbers, data):
    values = np.array(numbers, np.float32)
    k = data.draw(st.integers(0, values.size - 1))
    counts, few = np.zeros(1 << 15, np.int32), np.empty(values.size + 1, np.int32)
    assert flagging._select(values, k, counts, few) == np.sort(values)[k]
    assert not counts.any()


# ---- dead antennas ------------------------------------------------------------------------------------------------


def test_an_antenna_without_power_in_one_polarisation_is_dead():
    power = np.ones((10, 2))
    power[3, 1] = 0.05
    power[7] = np.nan
    assert np.flatnonzero(flagging.dead_antennas(power, 0.2)).tolist() == [3, 7]


def test_an_antenna_flagged_in_a_part_of_the_band_is_not_dead(rng):
    """It is judged by what was measured; one that was never measured is dead, one dead in most runs too."""
    levels = rng.uniform(0.8, 1.2, (16, 10, 2))
    levels[:12, 2] = np.nan
    levels[:, 4] = np.nan
    levels[:9, 6] = 0.01
    levels[:7, 8] = 0.01
    assert np.flatnonzero(flagging.dead_by_band(levels, 0.2)).tolist() == [4, 6]


def test_levels_are_relative_to_the_median_antenna_and_leave_flags_out(rng):
    data = np.ones((4, 5, 8, 2), np.complex64) * np.array([1, 2, 4, 8, 16], np.float32)[:, None, None]
    flags = np.zeros(data.shape, bool)
    data[0, 1], flags[0, 1] = 1e9, True
    flags[:, 4] = True
    level = flagging.autocorrelation_level(flagging.autocorrelation_power(data, flags))
    np.testing.assert_allclose(level[:4, 0], np.array([1, 2, 4, 8]) / 3)
    assert np.isnan(level[4]).all()


# ---- extending ----------------------------------------------------------------------------------------------------


def _blank():
    return np.zeros((6, 2, 10, 2), np.uint8)


def _extended(causes, both=False, fraction=1.0, times=0, channels=0):
    tally = flagging.extend(causes, both, fraction, times, channels)
    for number in range(8):
        np.testing.assert_array_equal(tally[:, number], (causes == number).sum(axis=(0, 2, 3)))
    return np.argwhere(causes == flagging.EXTENDED).tolist()


def test_nothing_is_extended_where_no_option_says_so():
    causes = _blank()
    causes[1, 0, :, 0] = flagging.OUTLIER
    assert _extended(causes) == []


def test_one_polarisation_extends_to_the_other():
    causes = _blank()
    causes[1, 0, 3, 1] = flagging.INTERFERENCE
    assert _extended(causes, both=True) == [[1, 0, 3, 0]]


def test_a_channel_mostly_found_is_flagged_whole_on_its_baseline_alone():
    causes = _blank()
    causes[:4, 1, 3, 0] = flagging.OUTLIER
    assert _extended(causes, fraction=0.5) == [[4, 1, 3, 0], [5, 1, 3, 0]]
    causes[:4, 1, 3, 0], causes[4:] = flagging.OUTLIER, 0
    assert _extended(causes, fraction=0.7) == []


def test_an_integration_mostly_found_is_flagged_whole():
    causes = _blank()
    causes[2, 0, :8, 1] = flagging.INTERFERENCE
    assert _extended(causes, fraction=0.5) == [[2, 0, 8, 1], [2, 0, 9, 1]]


@pytest.mark.parametrize("known", [flagging.CONVERTED, flagging.EMPTY, flagging.DEAD])
def test_what_was_known_before_neither_spreads_nor_counts(known):
    """A missing subband is half of every integration here: neither a detection, nor seen."""
    causes = _blank()
    causes[:, :, :5] = known
    causes[2, 0, 5:7] = flagging.OUTLIER
    assert _extended(causes, both=True, fraction=0.5, channels=0) == []
    causes[2, 0, 7] = flagging.OUTLIER
    assert _extended(causes, both=True, fraction=0.5) == [[2, 0, c, p] for c in (8, 9) for p in (0, 1)]
    assert (causes[:, :, :5] == known).all()


def test_growing_takes_neighbours_and_stops_at_the_edges():
    causes = _blank()
    causes[0, 0, 9, 0] = flagging.OUTLIER
    causes[3, 1, 4, 1] = flagging.OUTLIER
    found = _extended(causes, times=1, channels=2)
    first = [[t, 0, c, 0] for t in (0, 1) for c in (7, 8, 9) if (t, c) != (0, 9)]
    second = [[t, 1, c, 1] for t in (2, 3, 4) for c in (2, 3, 4, 5, 6) if (t, c) != (3, 4)]
    assert sorted(found) == sorted(first + second)


def test_settling_gives_dead_antennas_and_interference_their_cause_and_keeps_what_came_before():
    causes = _blank()
    causes[0, 0, 0], causes[0, 0, 1], causes[0, 0, 2] = flagging.CONVERTED, flagging.EMPTY, flagging.OUTLIER
    found = np.zeros((6, 1, 10, 2), bool)
    found[0, 0, :4] = True
    flagging.settle(causes, np.array([0, flagging.DEAD], np.uint8), found)
    expected = [flagging.CONVERTED, flagging.EMPTY, flagging.INTERFERENCE, flagging.INTERFERENCE, 0]
    assert causes[0, 0, :5, 0].tolist() == expected
    assert (causes[:, 1] == flagging.DEAD).all()


def test_the_median_of_nothing_is_nan_without_a_warning_in_any_thread(rng):
    values = rng.normal(size=(20, 7, 3))
    values[:, 2] = np.nan
    values[3:9, 5] = np.nan

    def median(_):
        return flagging.nanmedian(values, axis=0)

    # a warning is an error here; filters that one thread sets another takes back
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(median, range(200)):
            assert np.isnan(found[0, 2]).all()
            with_data = np.delete(values, 2, axis=1)
            np.testing.assert_array_equal(np.delete(found, 2, axis=1), np.nanmedian(with_data, axis=0, keepdims=True))
    assert flagging.dead_antennas(np.full((4, 2), np.nan), 0.1).all()
