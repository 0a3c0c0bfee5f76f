"""Complex gains of the simulated antennas: a bandpass that is fixed, times a drift that is smooth in time.

Both are functions of the seed, the station, the polarisation and (the drift) the absolute time alone, so they are
continuous over the groups of a night and do not depend on which other antennas take part.

Convention: g multiplies the signal of an antenna. A file holds V(ant1, ant2) = conj(g1) g2 V_true (the order of
conjugation that goes with pyuvdata's sign), a Measurement Set, whose visibilities are the conjugates, g1 conj(g2)
V_true for the conjugate gains: the phases that CASA solves are minus those given here.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dsa110_contimg import telescope

N_STATIONS = 117
N_FEEDS = 2

_BANDPASS_TERMS = 3
_BANDPASS_AMPLITUDE = 0.12
_ANTENNA_AMPLITUDE = 0.08
_DELAY_RMS_S = 2e-9
_CURVATURE_RMS_RAD = 0.35
_DRIFT_TERMS = 4
_DRIFT_PERIODS_H = (1.0, 8.0)
_BANDPASS_STREAM, _DRIFT_STREAM = 1, 2


def _frequencies() -> NDArray[np.float64]:
    return np.concatenate([telescope.subband_frequencies(sb) for sb in range(telescope.N_SUBBANDS)])


def bandpass(seed: int) -> NDArray[np.complex64]:
    """(117, 2, 768) gain of every station, feed (X, Y) and channel, channels in file order (descending).

    The amplitude is a smooth curve of 10-15 % about a level that differs between antennas by 8 %; the phase is a
    random constant, a residual delay (2 ns rms) and a curvature (20 deg rms at the band edges). The square of the
    level is `telescope.RAW_UNITS_PER_JY`: the raw scale is arbitrary.
    """
    rng = np.random.default_rng([seed, _BANDPASS_STREAM])
    shape = (N_STATIONS, N_FEEDS, 1)
    x = np.linspace(-1.0, 1.0, telescope.N_CHANNELS)
    amplitude = 1.0 + _ANTENNA_AMPLITUDE * rng.uniform(-1, 1, shape)
    for k in range(1, _BANDPASS_TERMS + 1):
        size = _BANDPASS_AMPLITUDE * rng.uniform(0.7, 1.0, shape) / k
        amplitude = amplitude + size * np.cos(np.pi * (k * x / 2 + rng.uniform(-1, 1, shape)))
    delay = rng.normal(0, _DELAY_RMS_S, shape)
    frequency = _frequencies()
    phase = rng.uniform(-np.pi, np.pi, shape) + 2 * np.pi * delay * (frequency - frequency.mean())
    phase = phase + rng.normal(0, _CURVATURE_RMS_RAD, shape) * x**2
    return np.asarray(np.sqrt(telescope.RAW_UNITS_PER_JY) * amplitude * np.exp(1j * phase), np.complex64)


def drift(seed: int, mjd: NDArray[np.float64], amplitude_rms: float, phase_rms_deg: float) -> NDArray[np.complex64]:
    """(time, 117, 2) factor about 1 by which the gains wander: sums of sinusoids with periods of 1 to 8 h.

    Parameters
    ----------
    seed : int
    mjd : (time,)
        Absolute time (MJD UTC).
    amplitude_rms, phase_rms_deg : float
        Rms over a long time (relative; deg).
    """
    rng = np.random.default_rng([seed, _DRIFT_STREAM])
    low, high = np.log(_DRIFT_PERIODS_H)
    walk = np.zeros((2, len(mjd), N_STATIONS, N_FEEDS))
    for _ in range(_DRIFT_TERMS):
        period_h = np.exp(rng.uniform(low, high, (2, 1, N_STATIONS, N_FEEDS)))
        phase = rng.uniform(0, 2 * np.pi, (2, 1, N_STATIONS, N_FEEDS))
        walk += np.cos(2 * np.pi * 24.0 * mjd[None, :, None, None] / period_h + phase)
    walk *= np.sqrt(2.0 / _DRIFT_TERMS)  # unit rms: each cosine has a variance of one half
    gain = (1.0 + amplitude_rms * walk[0]) * np.exp(1j * np.radians(phase_rms_deg) * walk[1])
    return np.asarray(gain, np.complex64)


def flat_bandpass() -> NDArray[np.complex64]:
    """(117, 2, 768) the raw scale alone, of a perfectly calibrated array."""
    level = np.sqrt(telescope.RAW_UNITS_PER_JY)
    return np.full((N_STATIONS, N_FEEDS, telescope.N_CHANNELS), level, np.complex64)


def no_drift(n_times: int) -> NDArray[np.complex64]:
    """(time, 117, 2) ones."""
    return np.ones((n_times, N_STATIONS, N_FEEDS), np.complex64)
