"""Kernels of `apparent`: sums over point sources on flat rows of averaged channels."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray
from scipy.constants import speed_of_light

from dsa110_contimg.science.predict import paths, phasors
from dsa110_contimg.science.smearing import sinc

LANES = 16
"""Parts in which the rows are worked through, side by side."""
_TERMS = 16
"""Most terms of the series of `predict_clusters`."""
_HALF_TERMS = 8
"""Terms that are evaluated at once, whether they are needed or not."""
_FARTHEST = 3.7
"""Phase (rad) at the edges of the band up to which so many terms are enough, to 5e-5."""
_TRUNCATION = 1e-5


class Rows(NamedTuple):
    """Where the samples are: uvw (m), indices, offsets; direction cosines less (0, 0, 1) of the tracking centres."""

    uvw: NDArray[np.float64]
    time: NDArray[np.int64]
    channels: NDArray[np.int64]
    offsets: NDArray[np.int64]
    tracking: NDArray[np.float64]
    pole: NDArray[np.float64]


class Channels(NamedTuple):
    """All lists of channels, one after the other; list i is ``first[i]:first[i + 1]``.

    ``step`` is the usual spacing of a list, ``uneven`` marks channels that do not follow the one before by it, ``bins``
    are indices into the bins of the gains, ``width`` (native channel, Hz) and ``factor`` are per list.
    """

    frequencies: NDArray[np.float64]
    first: NDArray[np.int64]
    step: NDArray[np.float64]
    uneven: NDArray[np.bool_]
    bins: NDArray[np.int64]
    width: NDArray[np.float64]
    factor: NDArray[np.int64]


class Points(NamedTuple):
    """Point sources: direction cosines less (0, 0, 1), the source that each belongs to, and those of the sources.

    Points whose source is one past the last belong to none: nothing varies for them.
    """

    lmn: NDArray[np.float64]
    source: NDArray[np.int64]
    centre: NDArray[np.float64]
    integration: float


@njit(cache=True, fastmath=True)
def _smearing(rows: Rows, channels: Channels, points: Points, row: int, left: NDArray[np.float32]) -> None:
    """What is left of each source on one baseline, at the middle of its channels."""
    which = rows.channels[row]
    first, last = channels.first[which], channels.first[which + 1] - 1
    f = 0.5 * (channels.frequencies[first] + channels.frequencies[last]) / speed_of_light
    width, n = channels.width[which] / speed_of_light, channels.factor[which]
    u, v, w = rows.uvw[row]
    _, py, pz = rows.pole
    rate = (py * w - pz * v, pz * u, -py * u)
    for s in range(len(left)):
        l, m, n1 = points.centre[s]
        dl, dm, dn = points.centre[s] - rows.tracking[rows.time[row]]
        turn = (rate[0] * dl + rate[1] * dm + rate[2] * dn) * f * points.integration
        plain = (u * l + v * m + w * n1) * width
        left[s] = sinc(turn) * sinc((u * dl + v * dm + w * dn) * width) * sinc(n * plain) / sinc(plain)


@njit(cache=True, fastmath=True)
def _turn(
    delay: NDArray[np.float64],
    frequency: float,
    turns: NDArray[np.float64],
    re: NDArray[np.float32],
    im: NDArray[np.float32],
) -> None:
    """Phasors exp(2 pi i f tau); ``turns`` is scratch."""
    for p in range(len(delay)):
        turns[p] = delay[p] * frequency
    phasors(turns, re, im)


# a function of its own, without the row's bookkeeping around it, is what the compiler turns into vector instructions
@njit(cache=True, fastmath=True)
def _sum_and_step(
    here: NDArray[np.float32],
    mine: NDArray[np.float32],
    re: NDArray[np.float32],
    im: NDArray[np.float32],
    step_re: NDArray[np.float32],
    step_im: NDArray[np.float32],
) -> complex:
    """Sum of the points on one channel; the phasors move on to the next."""
    real, imaginary = np.float32(0.0), np.float32(0.0)
    for p in range(len(re)):
        a = here[p] * mine[p]
        real += a * re[p]
        imaginary += a * im[p]
        turned = re[p] * step_re[p] - im[p] * step_im[p]
        im[p] = re[p] * step_im[p] + im[p] * step_re[p]
        re[p] = turned
    return complex(real, imaginary)


@njit(parallel=True, cache=True, fastmath=True)
def predict_points(
    rows: Rows, channels: Channels, points: Points, amplitude: NDArray[np.float32], out: NDArray[np.complex64]
) -> None:
    """Add to ``out`` (sample,) the points of ``amplitude`` (time, bin, point)."""
    n_rows, n_points = len(rows.time), len(points.source)
    for lane in prange(LANES):
        left = np.ones(len(points.centre) + 1, np.float32)
        mine = np.empty(n_points, np.float32)
        delay, turns = np.empty(n_points), np.empty(n_points)
        re, im = np.empty(n_points, np.float32), np.empty(n_points, np.float32)
        step_re, step_im = np.empty(n_points, np.float32), np.empty(n_points, np.float32)
        for row in range(lane * n_rows // LANES, (lane + 1) * n_rows // LANES):
            _smearing(rows, channels, points, row, left[:-1])
            u, v, w = rows.uvw[row]
            for p in range(n_points):
                l, m, n1 = points.lmn[p]
                delay[p] = (u * l + v * m + w * n1) / speed_of_light
                mine[p] = left[points.source[p]]
            which = rows.channels[row]
            first = channels.first[which]
            _turn(delay, channels.frequencies[first], turns, re, im)
            _turn(delay, channels.step[which], turns, step_re, step_im)
            for k in range(rows.offsets[row + 1] - rows.offsets[row]):
                if channels.uneven[first + k]:
                    _turn(delay, channels.frequencies[first + k], turns, re, im)
                here = amplitude[rows.time[row], channels.bins[first + k]]
                out[rows.offsets[row] + k] += _sum_and_step(here, mine, re, im, step_re, step_im)


class Clusters(NamedTuple):
    """Points that share a direction's gain and smearing, source by source.

    ``away`` (point, 3) direction cosines less those of the cluster's ``centre`` (source, 3; less (0, 0, 1)); ``first``
    (source + 1,) where each begins among the points; ``flux`` (point,); ``reach`` the largest distance of a point.
    """

    away: NDArray[np.float64]
    first: NDArray[np.int64]
    flux: NDArray[np.float32]
    reach: float


def in_clusters(points: Points, flux: NDArray[np.float64]) -> Clusters:
    """The same points, ordered by their source."""
    order = np.argsort(points.source, kind="stable")
    away = points.lmn[order] - points.centre[points.source[order]]
    first = np.searchsorted(points.source[order], np.arange(len(points.centre) + 1))
    reach = float(np.sqrt((away**2).sum(axis=-1).max(initial=0.0)))
    return Clusters(np.ascontiguousarray(away), first, flux[order].astype(np.float32), reach)


def are_small(rows: Rows, channels: Channels, clusters: Clusters) -> bool:
    """Whether the series of `predict_clusters` holds on every baseline, which it does for clusters of about a beam.

    It does not over an octave of frequencies, or on baselines much longer than those that make the beam.
    """
    last = channels.frequencies[channels.first[1:] - 1]
    half = float((last - channels.frequencies[channels.first[:-1]]).max()) / 2.0
    longest = float(np.sqrt((rows.uvw**2).sum(axis=-1).max(initial=0.0)))
    return bool(2.0 * np.pi * half / speed_of_light * longest * clusters.reach <= _FARTHEST)


@njit(cache=True, fastmath=True)
def _series(
    clusters: Clusters,
    row: NDArray[np.float64],
    middle: float,
    half: float,
    scratch: tuple[NDArray[np.float64], NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]],
    series_re: NDArray[np.float32],
    series_im: NDArray[np.float32],
) -> int:
    """Fill the coefficients (source, term) of each cluster's sum, its centre's phase taken off; returns the terms.

    With x = (f - middle) / half and theta a point's phase against the centre over half of the band, the sum of
    flux exp(i theta (middle / half + x)) is a series in x of the moments of i theta over j!. ``middle`` and ``half``
    are in Hz over c.
    """
    turns, re, im, theta = scratch
    most = 2.0 * np.pi * half * clusters.reach * np.sqrt(row[0] ** 2 + row[1] ** 2 + row[2] ** 2)
    terms, left = 1, most
    while left > _TRUNCATION and terms < _TERMS:
        terms += 1
        left *= most / terms
    paths(row[0], row[1], row[2], clusters.away, turns)
    for p in range(len(turns)):
        theta[p] = 2.0 * np.pi * half * turns[p]
        turns[p] *= middle
    phasors(turns, re, im)
    for p in range(len(turns)):
        re[p] *= clusters.flux[p]
        im[p] *= clusters.flux[p]
    for j in range(terms):
        for s in range(len(clusters.first) - 1):
            a, b = np.float32(0.0), np.float32(0.0)
            for p in range(clusters.first[s], clusters.first[s + 1]):
                a += re[p]
                b += im[p]
            series_re[s, j], series_im[s, j] = a, b
        share = np.float32(1.0 / (j + 1))
        for p in range(len(turns)):
            turned = -im[p] * theta[p] * share
            im[p] = re[p] * theta[p] * share
            re[p] = turned
    series_re[:, terms:] = 0.0
    series_im[:, terms:] = 0.0
    return terms


# a function of its own: straight lines over all channels are what the compiler turns into vector instructions
@njit(cache=True, fastmath=True)
def _add_cluster(
    x: NDArray[np.float32],
    a: NDArray[np.float32],
    b: NDArray[np.float32],
    gain: NDArray[np.float32],
    re: NDArray[np.float32],
    im: NDArray[np.float32],
    sum_re: NDArray[np.float32],
    sum_im: NDArray[np.float32],
) -> None:
    """Add one cluster: its series of `_HALF_TERMS` coefficients ``a`` and ``b``, its gain, its centre's phasors."""
    a0, a1, a2, a3, a4, a5, a6, a7 = a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7]
    b0, b1, b2, b3, b4, b5, b6, b7 = b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]
    for k in range(len(x)):
        y = x[k]
        real = ((((((a7 * y + a6) * y + a5) * y + a4) * y + a3) * y + a2) * y + a1) * y + a0
        imaginary = ((((((b7 * y + b6) * y + b5) * y + b4) * y + b3) * y + b2) * y + b1) * y + b0
        sum_re[k] += gain[k] * (real * re[k] - imaginary * im[k])
        sum_im[k] += gain[k] * (real * im[k] + imaginary * re[k])


# a function of its own, because views of arrays that threads share are counted one by one
@njit(cache=True, fastmath=True)
def _along_row(
    frequencies: NDArray[np.float64],
    gain: NDArray[np.float32],
    delay: NDArray[np.float64],
    series: tuple[int, NDArray[np.float32], NDArray[np.float32]],
    scratch: tuple[NDArray[np.float64], NDArray[np.float32]],
    out: NDArray[np.complex64],
) -> None:
    """Add the clusters to one row.

    ``gain`` (source, channel); ``delay`` (source,) of the centres (s); ``series``: number of terms and coefficients
    (source, term).
    """
    terms, series_re, series_im = series
    n = len(frequencies)
    turns, memory = scratch[0][:n], scratch[1]
    x, high, re, im = memory[0, :n], memory[1, :n], memory[2, :n], memory[3, :n]
    sum_re, sum_im = memory[4, :n], memory[5, :n]
    middle = 0.5 * (frequencies[0] + frequencies[-1])
    half = max(0.5 * (frequencies[-1] - frequencies[0]), 1.0)
    for k in range(n):
        x[k] = (frequencies[k] - middle) / half
        sum_re[k] = sum_im[k] = 0.0
    for s in range(len(delay)):
        for k in range(n):
            turns[k] = delay[s] * frequencies[k]
        phasors(turns, re, im)
        _add_cluster(x, series_re[s], series_im[s], gain[s], re, im, sum_re, sum_im)
        if terms > _HALF_TERMS:
            for k in range(n):
                high[k] = gain[s, k] * x[k] ** _HALF_TERMS
            _add_cluster(x, series_re[s, _HALF_TERMS:], series_im[s, _HALF_TERMS:], high, re, im, sum_re, sum_im)
    for k in range(n):
        out[k] += complex(sum_re[k], sum_im[k])


@njit(parallel=True, cache=True, fastmath=True)
def predict_clusters(
    rows: Rows,
    channels: Channels,
    points: Points,
    clusters: Clusters,
    gain: NDArray[np.float32],
    out: NDArray[np.complex64],
) -> None:
    """Add to ``out`` (sample,) the ``clusters`` of the points, each of which shares one ``gain`` (time, source, bin).

    The points of a cluster lie within a beam of each other, so what they are relative to its centre changes by less
    than a radian over the band: a few terms of a series in frequency say it, and a channel costs one phasor for each
    cluster instead of one for each point. `are_small` says whether they do.
    """
    n_rows, n_sources, n_points = len(rows.time), len(points.centre), len(clusters.flux)
    longest = (channels.first[1:] - channels.first[:-1]).max()
    for lane in prange(LANES):
        left, delay = np.empty(n_sources, np.float32), np.empty(n_sources)
        gain_here = np.empty((n_sources, longest), np.float32)
        of_channels = np.empty(longest), np.empty((6, longest), np.float32)
        series_re, series_im = np.zeros((n_sources, _TERMS), np.float32), np.zeros((n_sources, _TERMS), np.float32)
        of_points = np.empty((3, n_points), np.float32)
        scratch = np.empty(n_points), of_points[0], of_points[1], of_points[2]
        time_, list_ = np.int64(-1), np.int64(-1)
        for row in range(lane * n_rows // LANES, (lane + 1) * n_rows // LANES):
            number = rows.offsets[row + 1] - rows.offsets[row]
            which = rows.channels[row]
            first = channels.first[which]
            if rows.time[row] != time_ or which != list_:
                time_, list_ = rows.time[row], which
                for s in range(n_sources):
                    for k in range(number):
                        gain_here[s, k] = gain[time_, s, channels.bins[first + k]]
            low, high = channels.frequencies[first], channels.frequencies[first + number - 1]
            middle, half = 0.5 * (low + high), max(0.5 * (high - low), 1.0)
            _smearing(rows, channels, points, row, left)
            at = rows.uvw[row]
            terms = _series(clusters, at, middle / speed_of_light, half / speed_of_light, scratch, series_re, series_im)
            paths(at[0] / speed_of_light, at[1] / speed_of_light, at[2] / speed_of_light, points.centre, delay)
            for s in range(n_sources):
                for j in range(terms):
                    series_re[s, j] *= left[s]
                    series_im[s, j] *= left[s]
            _along_row(
                channels.frequencies[first : first + number],
                gain_here,
                delay,
                (terms, series_re, series_im),
                of_channels,
                out[rows.offsets[row] : rows.offsets[row + 1]],
            )


@njit(cache=True, fastmath=True)
def _along_phasors(
    slope: NDArray[np.float32],
    samples: NDArray[np.float32],
    re: NDArray[np.float32],
    im: NDArray[np.float32],
) -> tuple[np.float32, np.float32]:
    """Sums over a row of w x g Re(R conj(phasor)) and w (x g)^2; ``samples`` are w Re(R), w Im(R) and w."""
    along, norm = np.float32(0.0), np.float32(0.0)
    for k in range(len(re)):
        along += slope[k] * (samples[0, k] * re[k] + samples[1, k] * im[k])
        norm += slope[k] ** 2 * samples[2, k]
    return along, norm


@njit(parallel=True, cache=True, fastmath=True)
def project(
    rows: Rows,
    channels: Channels,
    points: Points,
    slope: NDArray[np.float32],
    residual: NDArray[np.complex64],
    weights: NDArray[np.float32],
    sums: NDArray[np.float64],
) -> None:
    """Gather in ``sums`` (lane, 2, source) w x g Re(R conj(phasor)) and w (x g)^2.

    ``slope`` (time, source, bin) is x g; smearing is taken at the middle of a row's channels.
    """
    n_rows, n_points = len(rows.time), len(points.source)
    longest = (channels.first[1:] - channels.first[:-1]).max()
    for lane in prange(LANES):
        left, delay = np.empty(n_points, np.float32), np.empty(n_points)
        slope_here, turns = np.empty((n_points, longest), np.float32), np.empty(longest)
        memory = np.empty((5, longest), np.float32)
        time_, list_ = np.int64(-1), np.int64(-1)
        for row in range(lane * n_rows // LANES, (lane + 1) * n_rows // LANES):
            begin, number = rows.offsets[row], rows.offsets[row + 1] - rows.offsets[row]
            which = rows.channels[row]
            first = channels.first[which]
            if rows.time[row] != time_ or which != list_:
                time_, list_ = rows.time[row], which
                for p in range(n_points):
                    for k in range(number):
                        slope_here[p, k] = slope[time_, p, channels.bins[first + k]]
            _smearing(rows, channels, points, row, left)
            u, v, w = rows.uvw[row] / speed_of_light
            paths(u, v, w, points.lmn, delay)
            samples, re, im = memory[:3, :number], memory[3, :number], memory[4, :number]
            for k in range(number):
                weight = weights[begin + k]
                samples[0, k] = weight * residual[begin + k].real
                samples[1, k] = weight * residual[begin + k].imag
                samples[2, k] = weight
            for p in range(n_points):
                for k in range(number):
                    turns[k] = delay[p] * channels.frequencies[first + k]
                phasors(turns[:number], re, im)
                along, norm = _along_phasors(slope_here[p], samples, re, im)
                sums[lane, 0, p] += left[p] * along
                sums[lane, 1, p] += left[p] ** 2 * norm
