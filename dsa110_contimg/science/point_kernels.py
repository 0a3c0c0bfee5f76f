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
    """Fill the coefficients (term, source) of each cluster's sum, its centre's phase taken off; returns the terms.

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
            series_re[j, s], series_im[j, s] = a, b
        share = np.float32(1.0 / (j + 1))
        for p in range(len(turns)):
            turned = -im[p] * theta[p] * share
            im[p] = re[p] * theta[p] * share
            re[p] = turned
    return terms


@njit(cache=True, fastmath=True)
def _evaluate(coefficients: NDArray[np.float32], terms: int, x: np.float32, out: NDArray[np.float32]) -> None:
    """Horner's rule, term after term for all sources, which is what the compiler turns into vector instructions."""
    for s in range(len(out)):
        out[s] = coefficients[terms - 1, s]
    for j in range(terms - 2, -1, -1):
        of = coefficients[j]
        for s in range(len(out)):
            out[s] = out[s] * x + of[s]


# sums and steps apart: with all of these arrays in one loop the compiler no longer proves that they do not overlap
@njit(cache=True, fastmath=True)
def _sum_clusters(
    gain: NDArray[np.float32],
    bin_: int,
    a: NDArray[np.float32],
    b: NDArray[np.float32],
    re: NDArray[np.float32],
    im: NDArray[np.float32],
) -> complex:
    """Sum of the clusters on one channel; ``gain`` (bin, source)."""
    real, imaginary = np.float32(0.0), np.float32(0.0)
    for s in range(len(re)):
        real += gain[bin_, s] * (a[s] * re[s] - b[s] * im[s])
        imaginary += gain[bin_, s] * (a[s] * im[s] + b[s] * re[s])
    return complex(real, imaginary)


@njit(cache=True, fastmath=True)
def _step(
    re: NDArray[np.float32], im: NDArray[np.float32], step_re: NDArray[np.float32], step_im: NDArray[np.float32]
) -> None:
    """Phasors move on to the next channel."""
    for s in range(len(re)):
        turned = re[s] * step_re[s] - im[s] * step_im[s]
        im[s] = re[s] * step_im[s] + im[s] * step_re[s]
        re[s] = turned


# a function of its own, for the same reason, and because views of arrays that threads share are counted one by one
@njit(cache=True, fastmath=True)
def _along_row(
    channels: tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.int64]],
    gain: NDArray[np.float32],
    delays: tuple[NDArray[np.float64], NDArray[np.float64]],
    series: tuple[NDArray[np.float32], NDArray[np.float32]],
    memory: NDArray[np.float32],
    out: NDArray[np.complex64],
) -> None:
    """Add the clusters to one row.

    ``delays`` of their centres (s), and scratch; ``memory`` holds scratch, phasors of the centres and of their steps.
    """
    frequencies, uneven, bins = channels
    delay, turns = delays
    a, b, re, im, step_re, step_im = memory[0], memory[1], memory[2], memory[3], memory[4], memory[5]
    middle = 0.5 * (frequencies[0] + frequencies[-1])
    half = max(0.5 * (frequencies[-1] - frequencies[0]), 1.0)
    terms = len(series[0])
    for k in range(len(frequencies)):
        if uneven[k]:
            _turn(delay, frequencies[k], turns, re, im)
        x = np.float32((frequencies[k] - middle) / half)
        _evaluate(series[0], terms, x, a)
        _evaluate(series[1], terms, x, b)
        out[k] += _sum_clusters(gain, bins[k], a, b, re, im)
        _step(re, im, step_re, step_im)


@njit(parallel=True, cache=True, fastmath=True)
def predict_clusters(
    rows: Rows,
    channels: Channels,
    points: Points,
    clusters: Clusters,
    gain: NDArray[np.float32],
    out: NDArray[np.complex64],
) -> None:
    """Add to ``out`` (sample,) the ``clusters`` of the points, each of which shares one ``gain`` (time, bin, source).

    The points of a cluster lie within a beam of each other, so what they are relative to its centre changes by less
    than a radian over the band: a few terms of a series in frequency say it, and a channel costs one step for each
    cluster instead of one for each point. `are_small` says whether they do.
    """
    n_rows, n_sources, n_points = len(rows.time), len(points.centre), len(clusters.flux)
    for lane in prange(LANES):
        left, delay, turns = np.empty(n_sources, np.float32), np.empty(n_sources), np.empty(n_sources)
        memory = np.empty((6, n_sources), np.float32)
        series_re, series_im = np.empty((_TERMS, n_sources), np.float32), np.empty((_TERMS, n_sources), np.float32)
        of_points = np.empty((3, n_points), np.float32)
        scratch = np.empty(n_points), of_points[0], of_points[1], of_points[2]
        for row in range(lane * n_rows // LANES, (lane + 1) * n_rows // LANES):
            number = rows.offsets[row + 1] - rows.offsets[row]
            which = rows.channels[row]
            first = channels.first[which]
            low, high = channels.frequencies[first], channels.frequencies[first + number - 1]
            middle, half = 0.5 * (low + high), max(0.5 * (high - low), 1.0)
            _smearing(rows, channels, points, row, left)
            at = rows.uvw[row]
            terms = _series(clusters, at, middle / speed_of_light, half / speed_of_light, scratch, series_re, series_im)
            paths(at[0] / speed_of_light, at[1] / speed_of_light, at[2] / speed_of_light, points.centre, delay)
            _turn(delay, low, turns, memory[2], memory[3])
            _turn(delay, channels.step[which], turns, memory[4], memory[5])
            for j in range(terms):
                series_re[j] *= left
                series_im[j] *= left
            here = slice(first, first + number)
            _along_row(
                (channels.frequencies[here], channels.uneven[here], channels.bins[here]),
                gain[rows.time[row]],
                (delay, turns),
                (series_re[:terms], series_im[:terms]),
                memory,
                out[rows.offsets[row] : rows.offsets[row + 1]],
            )


@njit(parallel=True, cache=True, fastmath=True)
def project(
    rows: Rows,
    channels: Channels,
    points: Points,
    gain: NDArray[np.float32],
    slope: NDArray[np.float64],
    residual: NDArray[np.complex64],
    weights: NDArray[np.float32],
    sums: NDArray[np.float64],
) -> None:
    """Gather in ``sums`` (lane, 2, source) w x g Re(R conj(phasor)) and w (x g)^2, x the ``slope`` (bin, source)."""
    n_rows, n_points = len(rows.time), len(points.source)
    for lane in prange(LANES):
        left = np.empty(n_points, np.float32)
        delay, turns = np.empty(n_points), np.empty(n_points)
        re, im = np.empty(n_points, np.float32), np.empty(n_points, np.float32)
        step_re, step_im = np.empty(n_points, np.float32), np.empty(n_points, np.float32)
        for row in range(lane * n_rows // LANES, (lane + 1) * n_rows // LANES):
            _smearing(rows, channels, points, row, left)
            u, v, w = rows.uvw[row]
            for p in range(n_points):
                l, m, n1 = points.lmn[p]
                delay[p] = (u * l + v * m + w * n1) / speed_of_light
            which = rows.channels[row]
            first = channels.first[which]
            _turn(delay, channels.frequencies[first], turns, re, im)
            _turn(delay, channels.step[which], turns, step_re, step_im)
            for k in range(rows.offsets[row + 1] - rows.offsets[row]):
                if channels.uneven[first + k]:
                    _turn(delay, channels.frequencies[first + k], turns, re, im)
                here, x = gain[rows.time[row], channels.bins[first + k]], slope[channels.bins[first + k]]
                v_re, v_im = residual[rows.offsets[row] + k].real, residual[rows.offsets[row] + k].imag
                weight = weights[rows.offsets[row] + k]
                for p in range(n_points):
                    a = here[p] * left[p] * x[p]
                    sums[lane, 0, p] += weight * a * (v_re * re[p] + v_im * im[p])
                    sums[lane, 1, p] += weight * a * a
                    turned = re[p] * step_re[p] - im[p] * step_im[p]
                    im[p] = re[p] * step_im[p] + im[p] * step_re[p]
                    re[p] = turned
