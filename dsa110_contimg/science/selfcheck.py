"""What is left of each antenna's amplitude after calibration: the data's own word on its flux scale.

For antenna i, r_i = Re sum_j V_ij conj(M_ij) / sum_j |M_ij|^2 is the first-order amplitude error of the antenna plus
the mean of the others'. Its scatter over antennas, less what thermal noise makes, is the scatter of the amplitudes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

MAD_TO_SIGMA = 1.482602218505602


@dataclass(frozen=True)
class Sums:
    """Accumulated per antenna and polarisation: Re(V conj M) (Jy^2), |M|^2 (Jy^2)."""

    cross: NDArray[np.float64]
    power: NDArray[np.float64]

    @classmethod
    def zero(cls, n_antennas: int, n_polarizations: int) -> Sums:
        return cls(np.zeros((n_antennas, n_polarizations)), np.zeros((n_antennas, n_polarizations)))

    def __add__(self, other: Sums) -> Sums:
        return Sums(self.cross + other.cross, self.power + other.power)


@njit(cache=True, fastmath=True)
def _accumulate(
    data: NDArray[np.complex64],
    model: NDArray[np.complex64],
    flags: NDArray[np.bool_],
    rows: NDArray[np.int64],
    cross: NDArray[np.float64],
    power: NDArray[np.float64],
) -> None:
    n_rows, n_channels, n_pols = data.shape
    for row in range(n_rows):
        one, two = rows[0, row], rows[1, row]
        if one == two:
            continue
        for pol in range(n_pols):
            c, p = 0.0, 0.0
            for channel in range(n_channels):
                if not flags[row, channel, pol]:
                    v, m = data[row, channel, pol], model[row, channel, pol]
                    c += v.real * m.real + v.imag * m.imag
                    p += m.real * m.real + m.imag * m.imag
            cross[one, pol] += c
            cross[two, pol] += c
            power[one, pol] += p
            power[two, pol] += p


def accumulate(
    data: NDArray[np.complex64],
    model: NDArray[np.complex64],
    flags: NDArray[np.bool_],
    rows: NDArray[np.int64],
    n_antennas: int,
) -> Sums:
    """Sums of a run of channels.

    Parameters
    ----------
    data, model, flags : (row, channel, polarization)
    rows : (2, row) antenna indices
    """
    sums = Sums.zero(n_antennas, data.shape[-1])
    _accumulate(data, model, flags, rows, sums.cross, sums.power)
    return sums


def antenna_amplitudes(sums: Sums) -> NDArray[np.float64]:
    """r of each antenna and polarisation, (antenna, polarization); NaN without data. 1 is perfect."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(sums.power > 0, sums.cross / sums.power, np.nan))


def amplitude_scatter(sums: Sums, noise_jy: float) -> tuple[float, int]:
    """Scatter of the antennas' amplitude errors, and the number of living antennas.

    The thermal variance of r_i is noise^2 / sum |M|^2, which is taken off in quadrature; the result is never less than
    that noise over sqrt(antennas), the least that can be told.
    """
    ratio = antenna_amplitudes(sums)
    alive = np.isfinite(ratio)
    if alive.sum() < 3:
        return float("nan"), int(alive.any(axis=-1).sum())
    middle = np.nanmedian(ratio, axis=0, keepdims=True)
    scatter = MAD_TO_SIGMA * float(np.nanmedian(np.abs(ratio - middle)))
    thermal = float(np.median(noise_jy / np.sqrt(sums.power[alive])))
    least = thermal / np.sqrt(alive.sum())
    return float(np.sqrt(max(scatter**2 - thermal**2, least**2))), int(alive.any(axis=-1).sum())
