"""Flagging of raw visibilities, on bare arrays.

Every sample carries the *cause* it is flagged for, one byte, the first that applied: so each cause is counted once, and
what was known beforehand is never mistaken for what a detector found. `examine` looks at one run of channels, sees what
strikes one baseline there, and sums up the rest for `science.spectrogram`, which sees what is common to the array.
`extend` needs the whole band.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

CAUSES = ("already flagged", "zeros and NaNs", "dead antennas", "outliers", "interference", "extended")
"""In the order they are applied; cause n + 1 is CAUSES[n], and 0 a sample that is not flagged."""
CONVERTED, EMPTY, DEAD, OUTLIER, INTERFERENCE, EXTENDED, AUTOCORRELATION = range(1, 8)

MAD_TO_SIGMA = 1.482602218505602
_FEWEST = 8
"""A baseline with fewer samples in a run of channels says nothing about its own scatter."""
_N_KEYS = 1 << 15
"""Values of the upper half of a non-negative float32."""


@njit(nogil=True, cache=True)
def _select(values: NDArray[np.float32], k: int, counts: NDArray[np.int32], few: NDArray[np.int32]) -> float:
    """The k-th smallest of non-negative numbers, exactly.

    Non-negative floats are ordered as their bits are: a count of the upper halves finds a bin 0.8 % wide, in which
    quickselect has little left to do. Five times as fast as quickselect alone on a thousand numbers, and outliers do
    not disturb it.
    """
    keys = values.view(np.int32)
    at = 0
    for i in range(keys.size):
        key = keys[i] >> 16
        counts[key] += 1
        at = max(at, key)
    before = keys.size - counts[at]
    while before > k:  # from the top: of distances from a median one is 0, thousands of empty bins below the others
        at -= 1
        before -= counts[at]
    n = 0
    for i in range(keys.size):
        few[n] = keys[i]
        n += (keys[i] >> 16) == at
        counts[keys[i] >> 16] = 0
    left, right, k = 0, n - 1, k - before
    while left < right:  # quickselect, of what is left
        pivot, i, j = few[k], left, right
        while i <= j:
            while few[i] < pivot:
                i += 1
            while pivot < few[j]:
                j -= 1
            if i <= j:
                few[i], few[j] = few[j], few[i]
                i, j = i + 1, j - 1
        left, right = i if j < k else left, j if k < i else right
    return float(few[k : k + 1].view(np.float32)[0])


@njit(nogil=True, cache=True)
def _limit(values: NDArray[np.float32], sigma: float, counts: NDArray[np.int32], few: NDArray[np.int32]) -> np.float32:
    """Median plus ``sigma`` robust standard deviations; the numbers become their distances from the median."""
    middle = np.float32(_select(values, values.size // 2, counts, few))
    for i in range(values.size):
        values[i] = abs(values[i] - middle)
    return np.float32(middle + sigma * MAD_TO_SIGMA * _select(values, values.size // 2, counts, few))


@njit(nogil=True, cache=True)
def _amplitudes(
    row: NDArray[np.complex64], flags: NDArray[np.bool_], known: int, out: NDArray[np.float32], cause: NDArray[np.uint8]
) -> None:
    """Amplitudes of one baseline and time, and what is known of them."""
    for k in range(row.size):
        a = np.sqrt(row[k].real * row[k].real + row[k].imag * row[k].imag)
        out[k] = a
        cause[k] = CONVERTED if flags[k] else (known if 0 < a < np.inf else EMPTY)


@njit(nogil=True, cache=True)
def examine(
    visibilities: NDArray[np.complex64],
    flags: NDArray[np.bool_],
    known: NDArray[np.uint8],
    n_pols: int,
    sigma: float,
    causes: NDArray[np.uint8],
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Find what is empty and what stands out of one run of channels; sum up the rest over baselines.

    A sample stands out if its amplitude is above the median of its baseline and polarisation in this run by more than
    ``sigma`` robust standard deviations (1.4826 MAD). Gaussian noise has a Rayleigh amplitude of median 1.177 s and
    robust deviation 0.665 s (s of the real part): clean samples are flagged with probability
    exp(-(1.177 + 0.665 sigma)^2 / 2).

    Parameters
    ----------
    visibilities, flags : (time, baseline, channel * polarization)
    known : (baseline,) uint8
        0 for cross-correlations of living antennas; others get this cause and are not examined.
    n_pols : int
    sigma : float
    causes : the same as the flags, uint8
        Filled here.

    Returns
    -------
    total, count, seen : (time, channel * polarization)
        Sum over the baselines that are left of the amplitude, the number of them, and how many there were before
        outliers were taken out.
    """
    n_times, n_baselines, n_samples = visibilities.shape
    total = np.zeros((n_times, n_samples))
    count, seen = np.zeros((n_times, n_samples), np.int64), np.zeros((n_times, n_samples), np.int64)
    amplitude, cause = np.empty((n_times, n_samples), np.float32), np.empty((n_times, n_samples), np.uint8)
    values = np.empty(n_times * n_samples, np.float32)
    few, counts = np.empty(values.size + 1, np.int32), np.zeros(_N_KEYS, np.int32)
    limits = np.empty(n_samples, np.float32)
    for baseline in range(n_baselines):
        for t in range(n_times):
            _amplitudes(visibilities[t, baseline], flags[t, baseline], known[baseline], amplitude[t], cause[t])
        if known[baseline] == 0:
            for p in range(n_pols):
                n = 0
                for t in range(n_times):
                    for k in range(p, n_samples, n_pols):
                        values[n] = amplitude[t, k]
                        n += cause[t, k] == 0
                limits[p::n_pols] = _limit(values[:n], sigma, counts, few) if n >= _FEWEST else np.float32(np.inf)
            for t in range(n_times):
                for k in range(n_samples):
                    here = cause[t, k] == 0
                    good = here and amplitude[t, k] <= limits[k]
                    total[t, k] += amplitude[t, k] if good else np.float32(0)
                    count[t, k] += good
                    seen[t, k] += here
                    cause[t, k] = OUTLIER if here and not good else cause[t, k]
        causes[:, baseline] = cause
    return total, count, seen


@njit(nogil=True, cache=True)
def settle(causes: NDArray[np.uint8], known: NDArray[np.uint8], found: NDArray[np.bool_]) -> None:
    """Give, in place, samples the cause of their baseline, and those that are in ``found``, interference.

    Parameters
    ----------
    causes : (time, baseline, channel, polarization) uint8
    known : (baseline,) uint8
        As in `examine`. That an antenna is dead is certain only after the whole band has been seen: it takes the place
        of what a detector said.
    found : (time, baseline or 1, channel, polarization)
        One baseline stands for all.
    """
    n_times, n_baselines, n_channels, n_pols = causes.shape
    for t in range(n_times):
        for b in range(n_baselines):
            k = b if found.shape[1] > 1 else 0
            if known[b] == 0 and not found[t, k].any():
                continue
            for c in range(n_channels):
                for p in range(n_pols):
                    cause = causes[t, b, c, p]
                    if cause == 0 or cause > EMPTY:
                        if known[b] != 0:
                            causes[t, b, c, p] = known[b]
                        elif found[t, k, c, p] and cause != DEAD:
                            causes[t, b, c, p] = INTERFERENCE


@njit(nogil=True, cache=True)
def extend(
    causes: NDArray[np.uint8], both: bool, fraction: float, near_times: int, near_channels: int
) -> NDArray[np.int64]:
    """Extend, in place, what the detectors found, baseline by baseline, and count the causes.

    From one polarisation to all; to a whole channel or a whole integration where more than ``fraction`` of what the
    detectors could see was found; and to neighbours.

    Parameters
    ----------
    causes : (time, baseline, channel, polarization) uint8
    both : bool
        Whether what is found in one polarisation is flagged in all.
    fraction : float
        1 extends nothing.
    near_times, near_channels : int
        Integrations and channels on either side that are flagged too.

    Returns
    -------
    (baseline, 8)
        Samples of each cause, 0 first.
    """
    n_times, n_baselines, n_channels, n_pols = causes.shape
    tally = np.zeros((n_baselines, AUTOCORRELATION + 1), np.int64)
    one = np.empty((n_times, n_channels, n_pols), np.uint8)
    for b in range(n_baselines):
        for t in range(n_times):
            for c in range(n_channels):
                for p in range(n_pols):
                    one[t, c, p] = causes[t, b, c, p]
                    tally[b, one[t, c, p]] += 1
        if tally[b, OUTLIER] + tally[b, INTERFERENCE] == 0:
            continue
        if both and n_pols > 1:
            _across(one)
        if fraction < 1:
            _fill(one, fraction)
        if near_times > 0 or near_channels > 0:
            _grow(one, near_times, near_channels)
        tally[b] = 0
        for t in range(n_times):
            for c in range(n_channels):
                for p in range(n_pols):
                    causes[t, b, c, p] = one[t, c, p]
                    tally[b, one[t, c, p]] += 1
    return tally


@njit(nogil=True, cache=True)
def _across(one: NDArray[np.uint8]) -> None:
    """To all polarisations."""
    for t in range(one.shape[0]):
        for c in range(one.shape[1]):
            found = False
            for p in range(one.shape[2]):
                found |= OUTLIER <= one[t, c, p] <= EXTENDED
            if found:
                for p in range(one.shape[2]):
                    if one[t, c, p] == 0:
                        one[t, c, p] = EXTENDED


@njit(nogil=True, cache=True)
def _fill(one: NDArray[np.uint8], fraction: float) -> None:
    """To whole channels and integrations; both are decided before either is flagged, or they would spread."""
    n_times, n_channels, n_pols = one.shape
    for p in range(n_pols):
        by_channel, by_time = np.zeros((n_channels, 2), np.int64), np.zeros((n_times, 2), np.int64)
        for t in range(n_times):
            for c in range(n_channels):
                seen = one[t, c, p] == 0 or one[t, c, p] >= OUTLIER
                found = OUTLIER <= one[t, c, p] <= EXTENDED
                by_channel[c, 0] += seen
                by_channel[c, 1] += found
                by_time[t, 0] += seen
                by_time[t, 1] += found
        for t in range(n_times):
            whole = by_time[t, 1] > fraction * by_time[t, 0]
            for c in range(n_channels):
                if one[t, c, p] == 0 and (whole or by_channel[c, 1] > fraction * by_channel[c, 0]):
                    one[t, c, p] = EXTENDED


@njit(nogil=True, cache=True)
def _grow(one: NDArray[np.uint8], near_times: int, near_channels: int) -> None:
    """To neighbours."""
    n_times, n_channels, n_pols = one.shape
    before = one.copy()
    for t in range(n_times):
        for c in range(n_channels):
            for p in range(n_pols):
                if OUTLIER <= before[t, c, p] <= EXTENDED:
                    for s in range(max(0, t - near_times), min(n_times, t + near_times + 1)):
                        for d in range(max(0, c - near_channels), min(n_channels, c + near_channels + 1)):
                            if one[s, d, p] == 0:
                                one[s, d, p] = EXTENDED


def autocorrelation_power(visibilities: NDArray[np.complex64], flags: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Mean amplitude over time of autocorrelations.

    Parameters
    ----------
    visibilities, flags : (time, antenna, channel, polarization)

    Returns
    -------
    (antenna, channel, polarization)
        NaN where there is none.
    """
    amplitude = np.abs(visibilities)
    valid = ~flags & np.isfinite(amplitude)
    number = valid.sum(axis=0)
    total = amplitude.sum(axis=0, where=valid, dtype=np.float64)
    return np.asarray(np.divide(total, number, out=np.full(total.shape, np.nan), where=number > 0))


def autocorrelation_level(power: NDArray[np.float64]) -> NDArray[np.float64]:
    """Power of antennas in a run of channels, relative to the median antenna.

    Parameters
    ----------
    power : (antenna, channel, polarization)
        Of `autocorrelation_power`.

    Returns
    -------
    (antenna, polarization)
        NaN where there is none.
    """
    valid = np.isfinite(power)
    number = valid.sum(axis=1)
    level = np.divide(power.sum(axis=1, where=valid), number, out=np.full(number.shape, np.nan), where=number > 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(level / nanmedian(level, axis=0))


def dead_by_band(levels: NDArray[np.float64], ratio: float) -> NDArray[np.bool_]:
    """Antennas that are dead in the median of the band, from the levels of runs of channels.

    Parameters
    ----------
    levels : (run, antenna, polarization)
        Of `autocorrelation_level`; a run in which an antenna was not measured does not count for it.
    ratio : float
        As in `dead_antennas`.

    Returns
    -------
    (antenna,) bool
    """
    return dead_antennas(nanmedian(levels, axis=0)[0], ratio)


def dead_antennas(autocorrelations: NDArray[np.float64], ratio: float) -> NDArray[np.bool_]:
    """Antennas without power.

    Parameters
    ----------
    autocorrelations : (antenna, polarization)
        Median amplitude; NaN where there is none.
    ratio : float
        Dead is below this fraction of the median antenna, in any polarisation, or not measured.

    Returns
    -------
    (antenna,) bool
    """
    level = autocorrelations / nanmedian(autocorrelations, axis=0)
    return np.asarray(~(level >= ratio).all(axis=-1))


def nanmedian(values: NDArray[np.float64], axis: int | tuple[int, ...]) -> NDArray[np.float64]:
    """Median of what there is, NaN where there is nothing (a subband that was not recorded), without a warning.

    The axis is kept, with length 1.
    """
    # numpy's warning cannot be caught in threads: they share one list of filters
    nothing = np.isnan(values).all(axis=axis, keepdims=True)
    return np.asarray(np.where(nothing, np.nan, np.nanmedian(np.where(nothing, 0.0, values), axis, keepdims=True)))
