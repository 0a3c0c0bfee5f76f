"""Simulated gains."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dsa110_contimg import telescope
from dsa110_contimg.simulate import gains


def test_raw_amplitudes_are_on_the_raw_scale() -> None:
    power = np.abs(gains.bandpass(3)) ** 2
    assert 0.8 < np.median(power) / telescope.RAW_UNITS_PER_JY < 1.2


def test_bandpass_shape_is_smooth_and_10_to_15_percent() -> None:
    amplitude = np.abs(gains.bandpass(3))
    shape = amplitude / amplitude.mean(axis=-1, keepdims=True)
    assert 0.04 < shape.std(axis=-1).mean() < 0.15
    assert np.abs(shape - 1).max() < 0.45
    assert np.abs(np.diff(shape, axis=-1)).max() < 0.002


def test_bandpass_phase_turns_slowly_from_channel_to_channel() -> None:
    step = np.diff(np.unwrap(np.angle(gains.bandpass(3)), axis=-1), axis=-1)
    assert np.abs(step).max() < 0.03  # 10 ns, five times the rms delay, is 0.015 rad a channel


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.floats(59000.0, 62000.0))
def test_drift_is_a_function_of_absolute_time_alone(seed: int, mjd: float) -> None:
    times = mjd + np.arange(24) * telescope.INTEGRATION_S / 86400
    together = gains.drift(seed, times, 0.01, 15.0)
    assert np.array_equal(together[7:9], gains.drift(seed, times[7:9], 0.01, 15.0))


def test_drift_has_the_rms_asked_for_and_is_smooth() -> None:
    times = 61000.0 + np.arange(0, 30, 1 / 48)
    drift = gains.drift(5, times, 0.01, 15.0)
    amplitude, phase = np.abs(drift) - 1, np.degrees(np.angle(drift))
    # four sinusoids at 234 antennas and feeds: the rms over all is good to 3 %
    assert np.isclose(amplitude.std(), 0.01, rtol=0.05)
    assert np.isclose(phase.std(), 15.0, rtol=0.05)
    short = gains.drift(5, 61000.0 + np.arange(2) * telescope.GROUP_S / 86400, 0.01, 15.0)
    # the fastest term has a period of 1 h: at most 2 pi 309/3600 of its peak of 4 x 15 / sqrt(2) deg
    assert np.abs(np.degrees(np.angle(short[1] / short[0]))).max() < 2 * np.pi * 309.3 / 3600 * 60 / np.sqrt(2)
