"""Normal equations of antenna gains: everything that a least-squares solution needs, and a fraction of the data.

The gains that minimise sum w |V - g_i conj(g_j) M|^2 over the visibilities of a solution cell (some integrations and
channels of a baseline) depend on them through two sums alone,

    C_ij = sum w V conj(M)        P_ij = sum w |M|^2,

so a cell can be replaced by one visibility C / P of model 1 and weight P, and every solver comes to the gains that it
would find in the full data. Gains known beforehand belong to M: with g' given, M is g'_i conj(g'_j) times the model,
which is what CASA does when it corrects data and their weights on the fly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

Sums = tuple[NDArray[np.complex128], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]


@dataclass(frozen=True)
class Normal:
    """The sums of solution cells.

    Attributes
    ----------
    cross : (time, baseline, channel, polarization) complex128
        C = sum w V conj(M).
    power : the same shape, float64
        P = sum w |M|^2; 0 where a cell holds nothing.
    total, number : the same shape, float64
        Sum of w |V|^2 and how many visibilities there were: with them chi-square is known.
    """

    cross: NDArray[np.complex128]
    power: NDArray[np.float64]
    total: NDArray[np.float64]
    number: NDArray[np.float64]

    @classmethod
    def empty(cls, n_times: int, n_baselines: int, n_channels: int, n_pols: int) -> Normal:
        """Cells that hold nothing yet; `accumulate` adds to them."""
        shape = n_times, n_baselines, n_channels, n_pols
        return cls(np.zeros(shape, complex), np.zeros(shape), np.zeros(shape), np.zeros(shape))

    @property
    def sums(self) -> Sums:
        """All four, for `accumulate`."""
        return self.cross, self.power, self.total, self.number

    def add_channels(self, number: int = 0) -> Normal:
        """So many channels as one; 0 for all."""
        per = number or self.power.shape[2]

        def added(values: NDArray[Any]) -> NDArray[Any]:
            n_times, n_baselines, n_channels, n_pols = values.shape
            return np.asarray(values.reshape(n_times, n_baselines, n_channels // per, per, n_pols).sum(axis=3))

        return Normal(added(self.cross), added(self.power), added(self.total), added(self.number))

    def with_gains(self, gains: NDArray[np.complex128], antennas: NDArray[np.int64]) -> Normal:
        """The sums for a model that has these gains in it: what is solved from them comes on top.

        Parameters
        ----------
        gains : (time, antenna, channel, polarization), an axis of length 1 holding for all; where there is none (NaN)
            the cell is left out.
        antennas : (baseline, 2)
        """
        factor = gains[:, antennas[:, 0]] * gains[:, antennas[:, 1]].conj()
        known = np.isfinite(factor)
        factor = np.where(known, factor, 0.0)
        return Normal(
            self.cross * factor.conj(), self.power * np.abs(factor) ** 2, self.total * known, self.number * known
        )


def cell_centres(
    normal: Normal, mjd: NDArray[np.float64], used: NDArray[np.bool_], frequencies: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Times and frequencies of cells, of those integrations that are ``used`` (time,) where any is."""
    n_times, _, n_channels, _ = normal.cross.shape
    cells = np.arange(mjd.size) // -(-mjd.size // n_times)
    members = [cells == number for number in range(n_times)]
    times = [mjd[here & used if (here & used).any() else here].mean() for here in members]
    return np.array(times), frequencies.reshape(n_channels, -1).mean(axis=1)


def corrected(
    data: NDArray[np.complex64], gains: NDArray[np.complex64], antennas: NDArray[np.int64]
) -> NDArray[np.complex64]:
    """Visibilities (time, baseline, channel, polarization) over the gains of both ends, NaN where there are none.

    Noise in the gains of other data does not bias these: the mean of 1 / (1 + n) is 1 for complex noise n of random
    phase. In sums that hold the gains with the model, |1 + n|^2 stands below.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        out: NDArray[np.complex64] = data / (gains[:, antennas[:, 0]] * gains[:, antennas[:, 1]].conj())
    return out.astype(np.complex64)


@njit(parallel=True, nogil=True, cache=True)
def accumulate(
    visibilities: tuple[NDArray[np.complex64], NDArray[np.complex64], NDArray[np.bool_]],
    weights: NDArray[np.float32],
    gains: NDArray[np.complex64],
    antennas: NDArray[np.int64],
    bins: tuple[int, int],
    first_channel: int,
    sums: Sums,
) -> None:
    """Add visibilities to the sums of their cells (`Normal`).

    Flagged visibilities, those without weight, those that are not finite and those whose antennas have no gain do not
    count; nor do autocorrelations, whose noise is biased.

    Parameters
    ----------
    visibilities : data, model and flags, each (time, baseline, channel, polarization)
    weights : the same, or one channel for all
    gains : (time, antenna, channel, polarization), known beforehand; axes of length 1 hold for all; NaN is none
    antennas : (baseline, 2)
    bins : integrations and channels of a cell; 0 for all of them in one
    first_channel : of these visibilities among all: cells are counted from channel 0
    sums : of `Normal`, added to
    """
    data, model, flags = visibilities
    cross, power, total, number = sums
    n_time, n_channel = data.shape[0], data.shape[2]
    # a cell belongs to one baseline, so that no two threads add to the same
    for baseline in prange(data.shape[1]):
        i, j = antennas[baseline, 0], antennas[baseline, 1]
        if i == j:
            continue
        for time in range(n_time):
            t = time // bins[0] if bins[0] > 0 else 0
            at = time if gains.shape[0] > 1 else 0
            for channel in range(n_channel):
                c = (first_channel + channel) // bins[1] if bins[1] > 0 else 0
                here = channel if gains.shape[2] > 1 else 0
                told = channel if weights.shape[2] > 1 else 0
                for pol in range(data.shape[3]):
                    w = np.float64(weights[time, baseline, told, pol])
                    if flags[time, baseline, channel, pol] or not w > 0.0:
                        continue
                    gain = np.complex128(gains[at, i, here, pol]) * np.complex128(gains[at, j, here, pol]).conjugate()
                    m = np.complex128(model[time, baseline, channel, pol]) * gain
                    v = np.complex128(data[time, baseline, channel, pol])
                    norm = w * (m.real * m.real + m.imag * m.imag)
                    energy = w * (v.real * v.real + v.imag * v.imag)
                    if not np.isfinite(norm + energy):
                        continue
                    cross[t, baseline, c, pol] += w * v * m.conjugate()
                    power[t, baseline, c, pol] += norm
                    total[t, baseline, c, pol] += energy
                    number[t, baseline, c, pol] += 1.0
