"""Calibration of rows of a Measurement Set in place, and what the corrected data say against the model, in one pass.

`science.gains` says what the solutions are at a time and frequency; here they meet the rows of one integration, while
these are in memory. What is added up on the way (`Comparison`) is all that judging a calibration needs, so the data are
never read again for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import xarray as xr
from numba import njit
from numpy.typing import NDArray

from dsa110_contimg.exceptions import CalibrationError, InputError
from dsa110_contimg.science import gains, selfcheck


@dataclass(frozen=True)
class Solutions:
    """The product of several tables at the times and channels of an observation.

    Attributes
    ----------
    parts : of each table (time or 1, frequency or 1, antenna, feed), NaN without a solution.
    power : of each table (time or 1, antenna, feed): mean |G|^2 over those of its own channels that have a solution.
    feeds : (polarization, 2) feed of each end.
    n_channels : of the observation.
    """

    parts: tuple[NDArray[np.complex128], ...]
    power: tuple[NDArray[np.float64], ...]
    feeds: NDArray[np.int64]
    n_channels: int

    def inverse(self, time: int) -> NDArray[np.complex64]:
        """1 / G at an integration, (antenna, frequency, feed), NaN without a solution."""
        product = self.parts[0][time if len(self.parts[0]) > 1 else 0]
        for part in self.parts[1:]:
            product = product * part[time if len(part) > 1 else 0]
        with np.errstate(invalid="ignore"):
            product = 1.0 / product
        inverse = np.broadcast_to(product, (self.n_channels, *product.shape[1:]))
        return np.ascontiguousarray(inverse.swapaxes(0, 1), np.complex64)

    def weight_factor(self, time: int) -> NDArray[np.float64]:
        """|G|^2 of each antenna and feed at an integration, as CASA's ``calwt`` scales WEIGHT: channels averaged."""
        product = self.power[0][time if len(self.power[0]) > 1 else 0]
        for part in self.power[1:]:
            product = product * part[time if len(part) > 1 else 0]
        return np.asarray(product)


def solutions(
    tables: Sequence[xr.Dataset],
    mjd: NDArray[np.float64],
    frequencies: NDArray[np.float64],
    antennas: Sequence[str],
    polarizations: Sequence[str],
) -> Solutions:
    """Tables at the times (MJD) and channels (Hz) of an observation; the rules are those of `gains.interpolated`.

    Raises
    ------
    InputError
        No table, Stokes parameters, or receptors that a table lacks.
    CalibrationError
        The tables leave no antenna with a solution.
    """
    if not tables:
        raise InputError("No calibration tables to apply", found="none", expected="at least one")
    if any(len(hand) != 2 for hand in polarizations):
        raise InputError(
            "Gains cannot be applied to Stokes parameters", found=list(polarizations), expected="XX, YY and so on"
        )
    receptors = sorted({letter for hand in polarizations for letter in hand})
    own = [gains.at_times(table, mjd, antennas, receptors) for table in tables]
    parts = tuple(gains.at_frequencies(table, gain, frequencies) for table, gain in zip(tables, own, strict=True))
    found = [np.isfinite(part).any(axis=(0, 1)) for part in parts]
    if not np.logical_and.reduce(found).any():
        raise CalibrationError("No antenna has a solution", found="flagged solutions only", expected="some")
    feeds = np.array([[receptors.index(letter) for letter in hand] for hand in polarizations])
    return Solutions(parts, tuple(_mean_power(gain) for gain in own), feeds, frequencies.size)


def _mean_power(part: NDArray[np.complex128]) -> NDArray[np.float64]:
    solved = np.isfinite(part)
    total = np.where(solved, np.abs(part) ** 2, 0.0).sum(axis=1)
    count = solved.sum(axis=1)
    mean: NDArray[np.float64] = np.divide(total, count, out=np.ones(total.shape), where=count > 0)
    return mean


class Block(NamedTuple):
    """Rows of one integration: (row, channel, polarization). ``data`` and ``flags`` are changed in place."""

    data: NDArray[np.complex64]
    model: NDArray[np.complex64]
    flags: NDArray[np.bool_]


N_SUMS = 6
"""Re and Im of sum V conj(M), sum |M|^2, sum |V - M|^2 (Jy^2), number of unflagged visibilities, of exact zeros."""


@njit(nogil=True, cache=True)
def correct(
    block: Block,
    inverse: NDArray[np.complex64],
    ends: NDArray[np.int64],
    feeds: NDArray[np.int64],
    sums: NDArray[np.float64],
) -> bool:
    """Divide visibilities by G_1 conj(G_2), flag those without a solution, and compare the rest with the model.

    V_corrected = V_observed / (G_1 conj(G_2)) (Hamaker, Bregman & Sault 1996, for diagonal Jones matrices). Data
    without a solution stay as they are, flagged.

    Parameters
    ----------
    block : Block
        ``model`` may be of no channels: then nothing is compared.
    inverse : (antenna, channel, feed)
        1 / G, NaN where there is no solution.
    ends : (row, 2)
        Antennas.
    feeds : (polarization, 2)
    sums : (row, polarization, N_SUMS)
        Replaced.

    Returns
    -------
    bool
        Whether a flag was added.
    """
    n_rows, n_channels, n_pols = block.data.shape
    compared = block.model.shape[1] == n_channels
    added = False
    for row in range(n_rows):
        one, two = ends[row, 0], ends[row, 1]
        for pol in range(n_pols):
            first, second = feeds[pol, 0], feeds[pol, 1]
            real, imag, power, residual, count, zeros = 0.0, 0.0, 0.0, 0.0, 0, 0
            for channel in range(n_channels):
                factor = inverse[one, channel, first] * np.conj(inverse[two, channel, second])
                # NaN less itself is not zero
                if factor.real - factor.real != 0.0:
                    added |= not block.flags[row, channel, pol]
                    block.flags[row, channel, pol] = True
                    continue
                value = block.data[row, channel, pol] * factor
                block.data[row, channel, pol] = value
                if block.flags[row, channel, pol]:
                    continue
                count += 1
                zeros += value.real == 0.0 and value.imag == 0.0
                if compared:
                    model = block.model[row, channel, pol]
                    real += value.real * model.real + value.imag * model.imag
                    imag += value.imag * model.real - value.real * model.imag
                    power += model.real * model.real + model.imag * model.imag
                    x, y = value.real - model.real, value.imag - model.imag
                    residual += x * x + y * y
            sums[row, pol, 0], sums[row, pol, 1], sums[row, pol, 2] = real, imag, power
            sums[row, pol, 3], sums[row, pol, 4], sums[row, pol, 5] = residual, count, zeros
    return added


@dataclass(frozen=True)
class Comparison:
    """Corrected data against the model, added up over channels.

    Attributes
    ----------
    sums : (time, baseline, polarization, N_SUMS); autocorrelations are among them.
    antenna1, antenna2 : (baseline,)
    antennas : names.
    polarizations : XX and so on.
    noise_jy : thermal noise of the real part of one visibility.
    mjd : (time,)
    """

    sums: NDArray[np.float64]
    antenna1: NDArray[np.int64]
    antenna2: NDArray[np.int64]
    antennas: tuple[str, ...]
    polarizations: tuple[str, ...]
    noise_jy: float
    mjd: NDArray[np.float64]

    @property
    def parallel(self) -> list[int]:
        """Places of the parallel hands."""
        return [i for i, hand in enumerate(self.polarizations) if hand in ("XX", "YY")]

    @property
    def cross(self) -> Comparison:
        """Without autocorrelations, and the parallel hands alone."""
        different = self.antenna1 != self.antenna2
        hands = self.parallel
        return Comparison(
            self.sums[:, different][:, :, hands],
            self.antenna1[different],
            self.antenna2[different],
            self.antennas,
            tuple(self.polarizations[i] for i in hands),
            self.noise_jy,
            self.mjd,
        )

    def per_antenna(self) -> selfcheck.Sums:
        """Sums over each antenna's baselines and all times, of the parallel hands."""
        cross = self.cross
        total = cross.sums.sum(axis=0)
        out = selfcheck.Sums.zero(len(self.antennas), total.shape[1])
        for ends in (cross.antenna1, cross.antenna2):
            np.add.at(out.cross, ends, total[..., 0])
            np.add.at(out.power, ends, total[..., 2])
        return out
