"""Gains applied to a Visibilities view, lazily: what CASA's applycal would write, without writing anything.

V_observed = G_1 conj(G_2) V, so visibilities are divided by G_1 conj(G_2). A table has solutions at some times and
frequencies; what an integration and a channel get of them is decided in `interpolated`, once for all tables.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numba import njit
from numpy.typing import NDArray

from dsa110_contimg import schema
from dsa110_contimg.exceptions import CalibrationError, InputError

_HALF_CHANNEL = 0.51
"""Farthest that a channel may lie from a solution's, in spacings of the table: half way between two of them."""


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
        gains = gains * interpolated(table, mjd, frequencies, names.tolist(), receptors)
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
    antennas: list[str],
    receptors: list[str],
) -> NDArray[np.complex128]:
    """Solutions of a table at times and frequencies.

    Frequency: a table of one channel counts for all; of several, the nearest, at most half a channel away.
    Time: one solution counts for all times. Of several, a bandpass (kind ``B``) gives the nearest, the earlier of two
    equally near; any other gives amplitude and phase interpolated linearly, each by itself, the phase the shorter way
    round; before the first and after the last it gives that one. Where a solution that takes part is flagged, there is
    none. These are CASA's ``nearest`` and ``linear``.

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
    there = [str(name) for name in table["polarization"].to_numpy()]
    if not set(receptors) <= set(there) or not table["GAIN"].size:
        raise InputError(
            "The table lacks receptors", found=there if table["GAIN"].size else "nothing", expected=receptors
        )
    order = ("time", "frequency", "antenna_name", "polarization")
    gain, flag = (table[name].transpose(*order).to_numpy() for name in ("GAIN", "FLAG"))
    gain = gain.astype(np.complex128)[..., [there.index(receptor) for receptor in receptors]]
    flag = flag[..., [there.index(receptor) for receptor in receptors]]
    gain[flag | (gain == 0.0)] = np.nan
    # one more antenna, without solutions, for those that the table does not have
    gain = np.pad(gain, ((0, 0), (0, 0), (0, 1), (0, 0)), constant_values=np.nan)
    known = [str(name) for name in table["antenna_name"].to_numpy()]
    gain = gain[:, :, [known.index(name) if name in known else -1 for name in antennas]]
    gain = _in_frequency(gain, np.asarray(table["frequency"].to_numpy(), np.float64), frequencies)
    times = np.asarray(table["time"].to_numpy(), np.float64)
    order_in_time = np.argsort(times)
    bandpass = str(table.attrs["kind"]).startswith("B")
    return (_nearest if bandpass else _linear)(gain[order_in_time], times[order_in_time], mjd)


def _in_frequency(
    gain: NDArray[np.complex128], solved_hz: NDArray[np.float64], wanted_hz: NDArray[np.float64]
) -> NDArray[np.complex128]:
    if solved_hz.size == 1:
        return np.repeat(gain, wanted_hz.size, axis=1)
    order = np.argsort(solved_hz)
    ascending = solved_hz[order]
    middle = (ascending[1:] + ascending[:-1]) / 2.0
    nearest = np.searchsorted(middle, wanted_hz)
    out = gain[:, order[nearest]]
    out[:, np.abs(ascending[nearest] - wanted_hz) > _HALF_CHANNEL * np.median(np.diff(ascending))] = np.nan
    return out


def _nearest(
    gain: NDArray[np.complex128], times: NDArray[np.float64], mjd: NDArray[np.float64]
) -> NDArray[np.complex128]:
    return gain[np.searchsorted((times[1:] + times[:-1]) / 2.0, mjd)]


def _linear(
    gain: NDArray[np.complex128], times: NDArray[np.float64], mjd: NDArray[np.float64]
) -> NDArray[np.complex128]:
    if times.size == 1:
        return np.repeat(gain, mjd.size, axis=0)
    before = np.clip(np.searchsorted(times, mjd, side="right") - 1, 0, times.size - 2)
    part = np.clip((mjd - times[before]) / (times[before + 1] - times[before]), 0.0, 1.0)[:, None, None, None]
    first, second = gain[before], gain[before + 1]
    amplitude = np.abs(first) * (1.0 - part) + np.abs(second) * part
    between = amplitude * np.exp(1j * (np.angle(first) + part * np.angle(second * first.conj())))
    return np.asarray(np.where(part == 0.0, first, np.where(part == 1.0, second, between)))
