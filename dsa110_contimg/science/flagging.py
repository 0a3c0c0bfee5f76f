"""Flagging of raw visibilities, on bare arrays, one run of channels at a time.

Two detectors complement each other. The *spectrogram*, the amplitude averaged over all baselines, sees weak
interference that is common to the array: with B baselines its scatter is 0.52 / sqrt(B) of its mean (Rayleigh). The
*visibility* detector sees what strikes one baseline.
"""

from __future__ import annotations

import warnings

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray
from scipy.ndimage import median_filter

MAD_TO_SIGMA = 1.482602218505602
RAYLEIGH_SCATTER = 0.5227
"""Standard deviation over mean of a Rayleigh distribution, sqrt(4 / pi - 1)."""


@njit(parallel=True, cache=True)
def flag_outliers(visibilities: NDArray[np.complex64], flags: NDArray[np.bool_], n_times: int, sigma: float) -> None:
    """Flag, in place, amplitudes far above the median of their baseline and polarisation in this run of channels.

    Parameters
    ----------
    visibilities, flags : (time * baseline, channel, polarization), time-major
    sigma : float
        Threshold in robust standard deviations (1.4826 MAD) of the amplitude.
    """
    n_rows, n_channels, n_pols = visibilities.shape
    n_baselines = n_rows // n_times
    for baseline in prange(n_baselines):
        values = np.empty(n_times * n_channels, np.float32)
        for pol in range(n_pols):
            count = 0
            for t in range(n_times):
                row = t * n_baselines + baseline
                for channel in range(n_channels):
                    if not flags[row, channel, pol]:
                        values[count] = abs(visibilities[row, channel, pol])
                        count += 1
            if count < 8:
                continue
            middle = np.median(values[:count])
            scale = 1.482602218505602 * np.median(np.abs(values[:count] - middle))
            limit = middle + sigma * scale
            for t in range(n_times):
                row = t * n_baselines + baseline
                for channel in range(n_channels):
                    if abs(visibilities[row, channel, pol]) > limit:
                        flags[row, channel, pol] = True


@njit(parallel=True, cache=True)
def spectrogram(
    visibilities: NDArray[np.complex64], flags: NDArray[np.bool_], use: NDArray[np.bool_], n_times: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Sum over baselines of the amplitude, and the number of them.

    Parameters
    ----------
    visibilities, flags : (time * baseline, channel, polarization)
    use : (baseline,)
        Baselines that count: cross-correlations of living antennas.

    Returns
    -------
    total, count : (time, channel, polarization)
    """
    n_rows, n_channels, n_pols = visibilities.shape
    n_baselines = n_rows // n_times
    total = np.zeros((n_times, n_channels, n_pols))
    count = np.zeros((n_times, n_channels, n_pols), np.int64)
    for t in prange(n_times):
        for baseline in range(n_baselines):
            if use[baseline]:
                row = t * n_baselines + baseline
                for channel in range(n_channels):
                    for pol in range(n_pols):
                        if not flags[row, channel, pol]:
                            total[t, channel, pol] += abs(visibilities[row, channel, pol])
                            count[t, channel, pol] += 1
    return total, count


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
    level = autocorrelations / np.nanmedian(autocorrelations, axis=0, keepdims=True)
    return np.asarray(~(level >= ratio).all(axis=-1))


def flag_spectrogram(
    mean: NDArray[np.float64], count: NDArray[np.int64], sigma: float, window: int = 31
) -> NDArray[np.bool_]:
    """Times and channels whose baseline-averaged amplitude stands out.

    Against the median of the same channel over time (bursts), then, averaged in time, against the running median over
    neighbouring channels (carriers that never stop). The scatter is the robust one, never below the theoretical
    0.52 / sqrt(baselines), so that a clean group is not chased into its noise.

    Parameters
    ----------
    mean : (time, channel, polarization)
        NaN where nothing is left.
    count : (time, channel, polarization)
        Baselines in each mean.
    sigma : float
    window : int
        Channels of the running median.

    Returns
    -------
    (time, channel, polarization) bool; one polarisation flags all.
    """
    floor = RAYLEIGH_SCATTER / np.sqrt(np.maximum(count, 1))
    with np.errstate(invalid="ignore"):
        burst = mean / _nanmedian(mean, axis=0) - 1.0
        found = burst > sigma * np.maximum(_robust_sigma(burst, axis=(0, 1)), floor)
        calm = np.where(found, np.nan, mean)
    spectrum, empty = _nanmean(calm)
    smooth = median_filter(
        np.where(empty, _nanmedian(np.where(empty, np.nan, spectrum), axis=0), spectrum),
        size=(window, 1),
        mode="nearest",
    )
    with np.errstate(invalid="ignore"):
        carrier = np.where(empty, 0.0, spectrum / smooth - 1.0)
        scale = np.maximum(_robust_sigma(carrier, axis=0), floor.mean(axis=0) / np.sqrt(len(mean)))
        always = carrier > sigma * scale
    return np.broadcast_to((found | always[None]).any(axis=-1, keepdims=True), mean.shape).copy()


def _nanmean(calm: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    valid = np.isfinite(calm)
    number = valid.sum(axis=0)
    return np.where(valid, calm, 0.0).sum(axis=0) / np.maximum(number, 1), number == 0


def _robust_sigma(values: NDArray[np.float64], axis: int | tuple[int, ...]) -> NDArray[np.float64]:
    spread: NDArray[np.float64] = MAD_TO_SIGMA * _nanmedian(np.abs(values - _nanmedian(values, axis)), axis)
    return np.asarray(spread[0])


def _nanmedian(values: NDArray[np.float64], axis: int | tuple[int, ...]) -> NDArray[np.float64]:
    """Median of what there is, NaN where there is nothing (a subband that was not recorded), without a warning."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN slice", RuntimeWarning)
        return np.asarray(np.nanmedian(values, axis=axis, keepdims=True))
