"""Interference that is common to the array, in the amplitude averaged over all baselines.

Three searches, each against its own background: bursts, against the same channel at other times; narrow carriers that
never stop, against their neighbours in frequency; wide ones, which are their own neighbours, against the whole band.
The last needs a spectrum without the bandpass: the amplitude of noise on a baseline is proportional to the geometric
mean of its antennas' autocorrelations, so divided by that it has no bandpass, no ripple and no steps at the edges of
subbands, and only what is correlated between antennas is left.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_closing, label, median_filter

from dsa110_contimg.science.flagging import MAD_TO_SIGMA, nanmedian

RAYLEIGH_SCATTER = 0.5227
"""Standard deviation over mean of a Rayleigh distribution, sqrt(4 / pi - 1)."""
_BLOCK = 24
"""Channels whose median is a point of the first fit to the whole band: half a subband."""
_FEWEST_BLOCKS = 8
"""A quarter of the band: with less, a wide carrier cannot be told from the background."""
_REACH = 8
"""Channels on either side of an edge that tell how high it is; shorter gaps do not divide what is found."""
_SHARP = 0.25
"""Least step at an edge of a carrier, of its own height. The sky rises over tens of channels."""
_ROUNDS = 10


def common_interference(
    total: NDArray[np.float64],
    count: NDArray[np.int64],
    seen: NDArray[np.int64],
    sigma: float,
    noise: NDArray[np.float64] | None = None,
    frequencies: NDArray[np.float64] | None = None,
) -> NDArray[np.bool_]:
    """Times and channels that are bad on the whole array: by their mean amplitude, or by most baselines' outliers.

    Strong interference leaves nothing for the mean: it is an outlier on every baseline.

    Parameters
    ----------
    total, count, seen : (time, channel, polarization)
        Of `flagging.examine`, over the whole band.
    sigma : float
        As in `flag_spectrogram`.
    noise : (channel, polarization), optional
        Of `noise_amplitude`. Without it wide steady carriers are not searched for.
    frequencies : (channel,), optional
        Hz. Equally spaced channels without it.

    Returns
    -------
    (time, channel, polarization) bool; one polarisation flags all.
    """
    mean = np.divide(total, count, out=np.full(total.shape, np.nan), where=2 * count > seen)
    most = np.asarray(((2 * count <= seen) & (seen > 0)).any(axis=-1, keepdims=True))
    found: NDArray[np.bool_] = np.logical_or(flag_spectrogram(mean, count, sigma), most)
    if noise is not None:
        where = np.arange(len(noise), dtype=np.float64) if frequencies is None else frequencies
        wide = flag_wide(np.where(found, np.nan, mean), count, noise, where, sigma)
        found |= wide.any(axis=-1, keepdims=True)
    return found


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
        burst = mean / nanmedian(mean, axis=0) - 1.0
        found = burst > sigma * np.maximum(_robust_sigma(burst, axis=(0, 1)), floor)
        calm = np.where(found, np.nan, mean)
    spectrum, empty = _nanmean(calm)
    smooth = median_filter(
        np.where(empty, nanmedian(np.where(empty, np.nan, spectrum), axis=0), spectrum),
        size=(window, 1),
        mode="nearest",
    )
    with np.errstate(invalid="ignore"):
        carrier = np.where(empty, 0.0, spectrum / smooth - 1.0)
        scale = np.maximum(_robust_sigma(carrier, axis=0), floor.mean(axis=0) / np.sqrt(len(mean)))
        always = carrier > sigma * scale
    return np.broadcast_to((found | always[None]).any(axis=-1, keepdims=True), mean.shape).copy()


# ---- wide carriers ------------------------------------------------------------------------------------------------


def noise_amplitude(power: NDArray[np.float64], hands: Sequence[tuple[int, int]]) -> NDArray[np.float64]:
    """Amplitude of noise on the mean baseline, in the arbitrary unit that all channels share.

    The noise of antennas 1 and 2 is proportional to sqrt(A_1 A_2), with A their autocorrelations (radiometer equation).

    Parameters
    ----------
    power : (antenna, channel, feed)
        Of `flagging.autocorrelation_power`; antennas that are NaN are left out.
    hands : (feed of antenna 1, feed of antenna 2) of each polarisation

    Returns
    -------
    (channel, polarization)
        Mean over all pairs of antennas; NaN where fewer than two are left.
    """
    valid = np.isfinite(power).all(axis=-1, keepdims=True)
    root = np.sqrt(np.where(valid, power, 0.0))
    number = valid.sum(axis=0)
    pairs = np.where(number > 1, number * (number - 1.0), np.nan)
    one, two = (root[..., [hand[k] for hand in hands]] for k in (0, 1))
    return np.asarray((one.sum(axis=0) * two.sum(axis=0) - (one * two).sum(axis=0)) / pairs)


def flag_wide(
    mean: NDArray[np.float64],
    count: NDArray[np.int64],
    noise: NDArray[np.float64],
    frequencies: NDArray[np.float64],
    sigma: float,
) -> NDArray[np.bool_]:
    """Channels that are too bright for the whole band, at all times: carriers up to almost half of the band wide.

    The amplitude over that of noise, averaged in time, is a smooth function of frequency: 1 without signals, more with
    a calibrator in the beam. A parabola in its logarithm is fitted to the better half of the band, then to all that is
    near it. What is above it by ``sigma`` times 0.52 / sqrt(B), or the robust scatter where that is more, and has a
    sharp edge, is a carrier.

    The threshold is not the noise's, which averages down over T integrations to 0.52 / sqrt(B T). It is the sky's:
    the pattern of many sources on B independent baselines is one draw of a Rayleigh amplitude, the same in
    neighbouring channels and integrations, and its mean scatters over distant parts of the band by 0.52 / sqrt(B) at
    most. Hence clean channels are flagged with a probability below that of a normal deviate of ``sigma`` under a strong
    sky, and of ``sigma`` sqrt(T) otherwise. A carrier of s sigma a visibility (s of the real part) adds s^2 / 4 while
    s < 1: it is found from s = 3.5 / B^(1/4) x sqrt(sigma / 6) on, 0.43 with 96 antennas and 1.1 with 16.

    Parameters
    ----------
    mean : (time, channel, polarization)
        NaN where nothing is left.
    count : (time, channel, polarization)
        Baselines in each mean.
    noise : (channel, polarization)
        Of `noise_amplitude`; NaN where it is not known: there nothing is found.
    frequencies : (channel,)
    sigma : float

    Returns
    -------
    (channel, polarization) bool
        Nothing, where less than a quarter of the band is there.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.log(mean / noise)
    ratio = np.where(np.isfinite(ratio), ratio, np.nan)
    # the brightness of the beam changes while bursts are left out: each integration has its own level
    spectrum, empty = _nanmean(ratio - nanmedian(ratio, axis=1))
    floor = RAYLEIGH_SCATTER / np.sqrt(np.maximum(np.median(count, axis=0), 1))
    x = (frequencies - frequencies.mean()) / max(float(np.ptp(frequencies)), 1.0)
    found = np.zeros(spectrum.shape, bool)
    for pol in range(spectrum.shape[1]):
        use = ~empty[:, pol]
        fitted = _background(x[use], spectrum[use, pol], floor[use, pol])
        if fitted is None:
            continue
        smooth, scatter = fitted
        excess = np.zeros(len(x))
        excess[use] = np.expm1(spectrum[use, pol] - smooth)
        found[:, pol] = _sharp(excess, excess > sigma * np.maximum(scatter, floor[:, pol]), use)
    return found


def _background(
    x: NDArray[np.float64], y: NDArray[np.float64], floor: NDArray[np.float64]
) -> tuple[NDArray[np.float64], float] | None:
    """Parabola through the better half of a spectrum, at its channels, and the scatter about it."""
    n_blocks = len(x) // _BLOCK
    if n_blocks < _FEWEST_BLOCKS:
        return None
    # blocks, not channels, so that every parabola through three of them can be tried
    parts = np.array_split(np.arange(len(x)), min(n_blocks, 32))
    blocks = np.array([[x[part].mean(), np.median(y[part])] for part in parts])
    threes = np.array(list(itertools.combinations(range(len(blocks)), 3)))
    powers = np.vander(blocks[:, 0], 3)
    curves = np.linalg.solve(powers[threes], blocks[threes, 1][..., None])[..., 0]
    away = np.abs(curves @ powers.T - blocks[:, 1])
    half = np.partition(away, len(blocks) // 2, axis=1)[:, len(blocks) // 2]
    curve, scatter = curves[np.argmin(half)], MAD_TO_SIGMA * float(half.min())
    powers = np.vander(x, 3)
    for _ in range(_ROUNDS):
        near = np.abs(y - powers @ curve) < 3 * np.maximum(scatter, floor)
        curve = np.linalg.lstsq(powers[near], y[near], rcond=None)[0]
        scatter = MAD_TO_SIGMA * float(np.median(np.abs(y - powers @ curve)[near]))
    return powers @ curve, scatter


def _sharp(excess: NDArray[np.float64], found: NDArray[np.bool_], use: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Those runs of what was found that begin or end with a step."""
    runs, number = label(binary_closing(np.pad(found, _REACH), np.ones(_REACH, bool))[_REACH:-_REACH])
    kept = np.zeros(found.shape, bool)
    for run in range(1, number + 1):
        inside = np.flatnonzero((runs == run) & found)
        first, last = inside[0], inside[-1]
        height = np.median(excess[inside])
        for outer, inner in (
            (slice(max(first - _REACH, 0), first), inside[:_REACH]),
            (slice(last + 1, last + 1 + _REACH), inside[-_REACH:]),
        ):
            outside = excess[outer][use[outer]]
            if outside.size and np.median(excess[inner]) - np.median(outside) > _SHARP * height:
                kept[inside] = True
    return kept


def _nanmean(calm: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    valid = np.isfinite(calm)
    number = valid.sum(axis=0)
    return np.where(valid, calm, 0.0).sum(axis=0) / np.maximum(number, 1), number == 0


def _robust_sigma(values: NDArray[np.float64], axis: int | tuple[int, ...]) -> NDArray[np.float64]:
    spread: NDArray[np.float64] = MAD_TO_SIGMA * nanmedian(np.abs(values - nanmedian(values, axis)), axis)
    return np.asarray(spread[0])
