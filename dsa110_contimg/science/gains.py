"""Gains applied to a Visibilities view, lazily: what CASA's applycal would write, without writing anything.

V_observed = G_1 conj(G_2) V, so visibilities are divided by G_1 conj(G_2). A table has solutions at some times and
frequencies; what an integration and a channel get of them is decided in `interpolated`, once for all tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from numba import njit
from numpy.typing import NDArray

from dsa110_contimg import schema
from dsa110_contimg.exceptions import CalibrationError, InputError

_HALF_CHANNEL = 0.51
"""Farthest that a channel may lie from a solution's, in spacings of the table: half way between two of them."""

_SAME_CHANNEL = 1e-3
"""Nearer than this to a solution's channel (spacings of the table), a channel is that one: nothing is interpolated."""

_HOLE = 1.5
"""Neighbours farther apart than this (spacings of the table) have a hole between them."""

_DELAY_SCALE = 1e6
"""rad / s: delays of up to 3 microseconds, a kilometre of cable, are phases within half a turn."""


@njit(nogil=True, cache=True)
def _correct(
    visibilities: NDArray[np.complex64],
    gains: NDArray[np.complex64],
    antennas: NDArray[np.int64],
    feeds: NDArray[np.int64],
    out: NDArray[np.complex64],
) -> None:
    """Divide (time, baseline, frequency, polarization) by G_1 conj(G_2); leave it where there is none.

    ``gains`` (time, frequency, antenna, feed) are NaN where there is no solution; ``antennas`` (baseline, 2) and
    ``feeds`` (polarization, 2) index them.
    """
    n_time, n_baseline, n_channel, n_pol = visibilities.shape
    for time in range(n_time):
        for baseline in range(n_baseline):
            for channel in range(n_channel):
                for pol in range(n_pol):
                    one = np.complex128(gains[time, channel, antennas[baseline, 0], feeds[pol, 0]])
                    two = np.complex128(gains[time, channel, antennas[baseline, 1], feeds[pol, 1]])
                    gain = one * two.conjugate()
                    value = visibilities[time, baseline, channel, pol]
                    solved = np.isfinite(gain.real) and np.isfinite(gain.imag)
                    out[time, baseline, channel, pol] = value / gain if solved else value


@njit(nogil=True, cache=True)
def _scale(
    weights: NDArray[np.float32],
    power: NDArray[np.float32],
    antennas: NDArray[np.int64],
    feeds: NDArray[np.int64],
    out: NDArray[np.float32],
) -> None:
    """Multiply weights by ``power`` (time, frequency, antenna, feed) of both antennas; arguments as `_correct`."""
    n_time, n_baseline, n_channel, n_pol = weights.shape
    for time in range(n_time):
        for baseline in range(n_baseline):
            for channel in range(n_channel):
                for pol in range(n_pol):
                    one = power[time, channel, antennas[baseline, 0], feeds[pol, 0]]
                    two = power[time, channel, antennas[baseline, 1], feeds[pol, 1]]
                    out[time, baseline, channel, pol] = weights[time, baseline, channel, pol] * one * two


def _corrected(
    values: NDArray[Any], gains: NDArray[Any], antennas: NDArray[Any], feeds: NDArray[Any]
) -> NDArray[np.complex64]:
    """One block; the other arguments have dimensions of length 1 where they do not depend on one of the block's."""
    data = np.ascontiguousarray(values, np.complex64)
    out = np.empty_like(data)
    _correct(data, np.ascontiguousarray(gains[:, 0, :, 0]), *_indices(antennas, feeds), out)
    return out


def _scaled(
    values: NDArray[Any], power: NDArray[Any], antennas: NDArray[Any], feeds: NDArray[Any]
) -> NDArray[np.float32]:
    data = np.ascontiguousarray(values, np.float32)
    out = np.empty_like(data)
    _scale(data, np.ascontiguousarray(power[:, 0, :, 0]), *_indices(antennas, feeds), out)
    return out


def _flagged(values: NDArray[Any], solved: NDArray[Any], antennas: NDArray[Any], feeds: NDArray[Any]) -> NDArray[Any]:
    ends, hands = _indices(antennas, feeds)
    both = np.logical_and(*(solved[:, 0, :, 0][:, :, ends[:, i]][..., hands[:, i]] for i in (0, 1)))
    return np.asarray(values | ~both.swapaxes(1, 2))


def _indices(antennas: NDArray[Any], feeds: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return np.ascontiguousarray(antennas[:, 0, 0]), np.ascontiguousarray(feeds)


def apply_gains(dataset: xr.Dataset, *caltables: xr.Dataset, scale_weights: bool = True) -> xr.Dataset:
    """Correct a Visibilities view with calibration tables.

    V_corrected = V_observed / (G_1 conj(G_2)), with G the product of the tables. Data for which any table has no
    solution (flagged, an antenna or a channel that is not in the table) are flagged and left as they were. How
    solutions get from their times and frequencies to those of the data: `interpolated`. MODEL is not touched.

    Parameters
    ----------
    dataset : Visibilities view
    *caltables : CalTable views
        In any order. They are read; the visibilities are not.
    scale_weights : bool
        WEIGHT x |G_1 G_2|^2: right if it was one over the variance of what was observed. If all antennas are equally
        noisy *after* calibration and the weights count samples, as those in the files of DSA-110 do, they need no
        scaling, and `stages.apply` does none.

    Returns
    -------
    xarray.Dataset
        VISIBILITY in Jy, which is the scale of the tables; lazy where the input is lazy.

    Raises
    ------
    InputError
        No table, or receptors that a table lacks.
    CalibrationError
        The tables leave no antenna with a solution.
    """
    if not caltables:
        raise InputError("No calibration tables to apply", found="none", expected="at least one")
    ends = np.stack([dataset[f"baseline_antenna{i}_name"].to_numpy().astype(str) for i in (1, 2)], axis=-1)
    names, antennas = np.unique(ends, return_inverse=True)
    hands = [str(name) for name in dataset["polarization"].to_numpy()]
    receptors = sorted({letter for hand in hands for letter in hand})
    if any(len(hand) != 2 for hand in hands):
        raise InputError("Gains cannot be applied to Stokes parameters", found=hands, expected="XX, YY and so on")
    mjd, frequencies = dataset["time"].to_numpy(), dataset["frequency"].to_numpy()
    gains = np.ones((1, 1, names.size, len(receptors)), np.complex128)
    for table in caltables:
        gains = gains * solutions(table, mjd, frequencies, names.tolist(), receptors)
    gains = np.broadcast_to(gains, (mjd.size, frequencies.size, *gains.shape[2:]))
    solved = np.isfinite(gains)
    if not solved.any():
        raise CalibrationError("No antenna has a solution", found="flagged solutions only", expected="some")
    core = (("antenna", "feed"), ("end",), ("end",))
    along = [xr.Variable(("time", "frequency", "antenna", "feed"), a) for a in _per_kind(gains, solved)]
    where = (
        xr.Variable(("baseline_id", "end"), antennas.reshape(ends.shape)),
        xr.Variable(
            ("polarization", "end"), np.array([[receptors.index(letter) for letter in hand] for hand in hands])
        ),
    )

    def applied(name: str, function: Any, values: xr.Variable, kind: type) -> xr.DataArray:
        out: xr.DataArray = xr.apply_ufunc(
            function,
            dataset[name],
            values,
            *where,
            input_core_dims=[(), *core],
            dask="parallelized",
            output_dtypes=[kind],
            keep_attrs="override",
        )
        return out

    out = dataset.assign(
        VISIBILITY=applied("VISIBILITY", _corrected, along[0], np.complex64).assign_attrs(units="Jy"),
        FLAG=applied("FLAG", _flagged, along[1], np.bool_),
    )
    if scale_weights:
        out = out.assign(WEIGHT=applied("WEIGHT", _scaled, along[2], np.float32))
    return schema.check(out, schema.VISIBILITIES)


def _per_kind(
    gains: NDArray[np.complex128], solved: NDArray[np.bool_]
) -> tuple[NDArray[np.complex64], NDArray[np.bool_], NDArray[np.float32]]:
    """Gains, whether there are any, and their power, 1 where there are none: weights are kept with the data."""
    power = np.where(solved, np.abs(np.where(solved, gains, 1.0)) ** 2, 1.0)
    return gains.astype(np.complex64), solved, power.astype(np.float32)


def interpolated(
    table: xr.Dataset,
    mjd: NDArray[np.float64],
    frequencies: NDArray[np.float64],
    antennas: Sequence[str],
    receptors: Sequence[str],
) -> NDArray[np.complex128]:
    """Solutions of a table at times and frequencies, as CASA's applycal takes them.

    The rules are those of ``interp='nearest,linearflag'`` for a bandpass and of ``'linear'`` for all else; tests hold
    them against applycal.

    Time: one solution counts for all times. Of several, a bandpass (kind ``B``) gives the nearest, the earlier of two
    equally near; any other gives amplitude and phase interpolated linearly, each by itself, the phase the shorter way
    round; before the first and after the last it gives that one.

    Frequency: a table of one channel counts for all. Of several, amplitude and phase are interpolated linearly between
    the two channels around; a channel that is the table's own is taken as it is. Beyond the ends, and in a hole wider
    than 1.5 channels, the nearest counts, at most half a channel away: CASA would go on without end. A table of delays
    turns as exp(2 pi i DELAY (f - frequency)), of the nearest window where there are several.

    Where a solution that takes part, in time or frequency, is flagged, there is none; CASA's ``linear`` without
    ``flag`` would invent a bandpass where the calibrator had no data.

    Parameters
    ----------
    table : CalTable view
    mjd : (time,) MJD UTC
    frequencies : (frequency,) Hz
    antennas : names, which the table need not have
    receptors : X, Y

    Returns
    -------
    (time, frequency, antenna, receptor), NaN where there is no solution.

    Raises
    ------
    InputError
        The table lacks a receptor, or holds no solution at all.
    """
    shape = (mjd.size, frequencies.size, len(antennas), len(receptors))
    return np.broadcast_to(solutions(table, mjd, frequencies, antennas, receptors), shape).copy()


def solutions(
    table: xr.Dataset,
    mjd: NDArray[np.float64],
    frequencies: NDArray[np.float64],
    antennas: Sequence[str],
    receptors: Sequence[str],
) -> NDArray[np.complex128]:
    """As `interpolated`, but with length 1 along time or frequency where a table has one solution for all."""
    return at_frequencies(table, at_times(table, mjd, antennas, receptors), frequencies)


def at_times(
    table: xr.Dataset, mjd: NDArray[np.float64], antennas: Sequence[str], receptors: Sequence[str]
) -> NDArray[np.complex128]:
    """Solutions at times (or 1, if one is for all), at the table's own frequencies; arguments as `interpolated`."""
    there = [str(name) for name in table["polarization"].to_numpy()]
    if not set(receptors) <= set(there) or not table["GAIN"].size:
        raise InputError(
            "The table lacks receptors", found=there if table["GAIN"].size else "nothing", expected=list(receptors)
        )
    known = [str(name) for name in table["antenna_name"].to_numpy()]
    places = [known.index(name) if name in known else -1 for name in antennas]
    feeds = [there.index(receptor) for receptor in receptors]
    times = np.asarray(table["time"].to_numpy(), np.float64)
    order = np.argsort(times)

    def taken(name: str) -> NDArray[Any]:
        cube = table[name].transpose("time", "frequency", "antenna_name", "polarization").to_numpy()
        return np.asarray(cube[order][..., feeds])

    gain, flag = taken("GAIN").astype(np.complex128), taken("FLAG")
    if "DELAY" in table:
        # a delay is interpolated, not the phases it makes: e^delay, in which the linear rule is linear in the delay
        gain = np.exp(1j * taken("DELAY") * _DELAY_SCALE)
    gain[flag | (gain == 0.0)] = np.nan
    # one more antenna, without solutions, for those that the table does not have
    gain = np.pad(gain, ((0, 0), (0, 0), (0, 1), (0, 0)), constant_values=np.nan)[:, :, places]
    bandpass = str(table.attrs["kind"]).startswith("B")
    return (_nearest if bandpass else _linear)(gain, times[order], mjd)


def at_frequencies(
    table: xr.Dataset, gain: NDArray[np.complex128], frequencies: NDArray[np.float64]
) -> NDArray[np.complex128]:
    """What `at_times` gave, at frequencies (or 1, if one is for all)."""
    solved_hz = np.asarray(table["frequency"].to_numpy(), np.float64)
    if "DELAY" in table:
        return _turned(np.angle(gain) / _DELAY_SCALE, np.isfinite(gain), solved_hz, frequencies)
    return _in_frequency(gain, solved_hz, frequencies)


def _turned(
    delay: NDArray[np.float64],
    solved: NDArray[np.bool_],
    solved_hz: NDArray[np.float64],
    wanted_hz: NDArray[np.float64],
) -> NDArray[np.complex128]:
    """Gains of delays (s) at the frequencies wanted, each from its nearest window."""
    order = np.argsort(solved_hz)
    middles = solved_hz[order]
    window = np.searchsorted((middles[1:] + middles[:-1]) / 2.0, wanted_hz)
    turns = delay[:, order[window]] * (wanted_hz - middles[window])[:, None, None]
    return np.where(solved[:, order[window]], np.exp(2j * np.pi * turns), np.nan)


def _in_frequency(
    gain: NDArray[np.complex128], solved_hz: NDArray[np.float64], wanted_hz: NDArray[np.float64]
) -> NDArray[np.complex128]:
    if solved_hz.size == 1:
        return gain
    order = np.argsort(solved_hz)
    ascending = solved_hz[order]
    step = float(np.median(np.diff(ascending)))
    below = np.clip(np.searchsorted(ascending, wanted_hz, side="right") - 1, 0, ascending.size - 2)
    gap = ascending[below + 1] - ascending[below]
    part = np.clip((wanted_hz - ascending[below]) / gap, 0.0, 1.0)
    # where the neighbours are too far apart the nearest counts alone, and a channel of the table's own always does
    own = np.minimum(part, 1.0 - part) * gap < _SAME_CHANNEL * step
    part = np.where(own | (gap > _HOLE * step), np.round(part), part)
    out = _between(gain[:, order[below]], gain[:, order[below + 1]], part[None, :, None, None])
    nearest = ascending[below + np.round(part).astype(int)]
    alone = (part == 0.0) | (part == 1.0)
    out[:, alone & (np.abs(wanted_hz - nearest) > _HALF_CHANNEL * step)] = np.nan
    return out


def _nearest(
    gain: NDArray[np.complex128], times: NDArray[np.float64], mjd: NDArray[np.float64]
) -> NDArray[np.complex128]:
    return gain if times.size == 1 else gain[np.searchsorted((times[1:] + times[:-1]) / 2.0, mjd)]


def _linear(
    gain: NDArray[np.complex128], times: NDArray[np.float64], mjd: NDArray[np.float64]
) -> NDArray[np.complex128]:
    if times.size == 1:
        return gain
    before = np.clip(np.searchsorted(times, mjd, side="right") - 1, 0, times.size - 2)
    part = np.clip((mjd - times[before]) / (times[before + 1] - times[before]), 0.0, 1.0)[:, None, None, None]
    return _between(gain[before], gain[before + 1], part)


def _between(
    first: NDArray[np.complex128], second: NDArray[np.complex128], part: NDArray[np.float64]
) -> NDArray[np.complex128]:
    """Amplitude and phase, each linearly, from ``first`` (part 0) to ``second`` (part 1); NaN where either is."""
    first, second, part = np.broadcast_arrays(first, second, part)
    out = np.where(part == 1.0, second, first)
    inside = (part > 0.0) & (part < 1.0)
    one, two, share = first[inside], second[inside], part[inside]
    amplitude = np.abs(one) * (1.0 - share) + np.abs(two) * share
    out[inside] = amplitude * np.exp(1j * (np.angle(one) + share * np.angle(two * one.conj())))
    return out
