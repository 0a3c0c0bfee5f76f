"""From a subband file's rows to those of a Measurement Set, in one pass over the data.

A file holds V(ant1, ant2) in its own sense (conjugate), fringestopped at the meridian, channels descending, rows with
ant1 > ant2 among them. One pass turns each visibility to the phase centre, puts it in the Measurement Set's sense and
place, flags what is not a number, and adds up the weights.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray
from scipy.constants import speed_of_light


class Turning(NamedTuple):
    """How rows of a file become rows of a Measurement Set.

    Attributes
    ----------
    delta_w : (row,) w_old - w_new (m) in the file's sense.
    swap : (row,) rows whose antennas change places; all others are conjugated.
    straight, swapped : (polarization,) which polarisation of the file is the n-th of the Measurement Set's.
    """

    delta_w: NDArray[np.float64]
    swap: NDArray[np.bool_]
    straight: NDArray[np.int64]
    swapped: NDArray[np.int64]


class Rows(NamedTuple):
    """Rows of a Measurement Set, or the channels of one subband of them: (row, channel, polarization)."""

    data: NDArray[np.complex64]
    flags: NDArray[np.bool_]
    weights: NDArray[np.float32]


@njit(nogil=True, cache=True)
def place(
    file_rows: Rows, frequencies_hz: NDArray[np.float64], turning: Turning, out: Rows, total: NDArray[np.float64]
) -> None:
    """Turn, conjugate and order the rows of one file; what is not finite, or has a negative weight, is flagged.

    With V = sum S exp(+2 pi i (w_source - w_phase) f / c), moving the phase centre multiplies a visibility by
    exp(+2 pi i (w_old - w_new) f / c). The factor is linear in frequency: a sine and cosine a row and a recurrence in
    double precision, exact to 1e-14, do it.

    Parameters
    ----------
    file_rows : Rows
        As the file has them: its channels, its order of polarisations, its sense.
    frequencies_hz : (channel,)
        Of the file, equally spaced, ascending or descending.
    turning : Turning
    out : Rows
        Filled; channels ascending.
    total : (row, polarization, 2)
        The weights that are not flagged are added to the first, their number to the second.
    """
    raw, raw_flags, samples = file_rows.data, file_rows.flags, file_rows.weights
    data, flags, weights = out.data, out.flags, out.weights
    n_rows, n_channels, n_pols = raw.shape
    descending = n_channels > 1 and frequencies_hz[1] < frequencies_hz[0]
    first, step_hz = frequencies_hz[0], (frequencies_hz[-1] - frequencies_hz[0]) / max(n_channels - 1, 1)
    factors = np.empty(n_channels, np.complex128)
    for row in range(n_rows):
        turns = turning.delta_w[row] * first / speed_of_light
        angle = 2.0 * np.pi * (turns - np.floor(turns))
        factor = complex(np.cos(angle), np.sin(angle))
        angle = 2.0 * np.pi * turning.delta_w[row] * step_hz / speed_of_light
        step = complex(np.cos(angle), np.sin(angle))
        for channel in range(n_channels):
            factors[channel] = factor
            factor *= step
        sense = 1.0 if turning.swap[row] else -1.0
        for pol in range(n_pols):
            source = turning.swapped[pol] if turning.swap[row] else turning.straight[pol]
            sum_weight, count = 0.0, 0
            for channel in range(n_channels):
                to = n_channels - 1 - channel if descending else channel
                value = raw[row, channel, source] * factors[channel]
                weight = samples[row, channel, source]
                # infinity less itself is not a number, nor is anything with one
                size = abs(value.real) + abs(value.imag) + weight
                bad = not (size - size == 0.0 and weight >= 0.0)
                flag = bad or raw_flags[row, channel, source]
                data[row, to, pol] = 0j if bad else complex(value.real, sense * value.imag)
                weights[row, to, pol] = 0.0 if bad else weight
                flags[row, to, pol] = flag
                if not flag:
                    sum_weight += weight
                    count += 1
            total[row, pol, 0] += sum_weight
            total[row, pol, 1] += count


@njit(parallel=True, nogil=True, cache=True)
def count_strange(data: NDArray[np.complex64], flags: NDArray[np.bool_]) -> tuple[int, int]:
    """How many values are flagged, and how many are not flagged and yet no finite numbers; both (value,)."""
    flagged = strange = 0
    for k in prange(len(data)):
        if flags[k]:
            flagged += 1
        elif not (np.isfinite(data[k].real) and np.isfinite(data[k].imag)):
            strange += 1
    return flagged, strange
