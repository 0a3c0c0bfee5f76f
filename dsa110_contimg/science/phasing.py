"""Phase rotation: from the fringestopped meridian to one phase centre.

With V = sum S exp(+2 pi i (w_source - w_phase) f / c), moving the phase centre multiplies a visibility by
exp(+2 pi i (w_old - w_new) f / c). The factor is linear in frequency, so one sine and cosine per baseline and time and
a recurrence over the channels do it. The recurrence runs in double precision: over 48 channels it is exact to 1e-14.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

SPEED_OF_LIGHT = 299_792_458.0


@njit(parallel=True, cache=True, fastmath=False)
def rotate(
    visibilities: NDArray[np.complex64],
    delta_w_m: NDArray[np.float64],
    frequencies_hz: NDArray[np.float64],
    conjugate: NDArray[np.bool_],
    out: NDArray[np.complex64],
) -> None:
    """Multiply by exp(2 pi i delta_w f / c), reverse descending channels, conjugate where asked.

    Parameters
    ----------
    visibilities : (row, channel, polarization)
        Channels as in ``frequencies_hz``, equally spaced, ascending or descending.
    delta_w_m : (row,)
        w_old - w_new (m).
    conjugate : (row,)
        Rows whose result is conjugated.
    out : (row, channel, polarization)
        Channels ascending.
    """
    n_rows, n_channels, n_pols = visibilities.shape
    descending = n_channels > 1 and frequencies_hz[1] < frequencies_hz[0]
    first = frequencies_hz[0]
    step_hz = (frequencies_hz[-1] - first) / max(n_channels - 1, 1)
    for row in prange(n_rows):
        turns = delta_w_m[row] * first / SPEED_OF_LIGHT
        angle = 2.0 * np.pi * (turns - np.floor(turns))
        factor = complex(np.cos(angle), np.sin(angle))
        angle = 2.0 * np.pi * delta_w_m[row] * step_hz / SPEED_OF_LIGHT
        step = complex(np.cos(angle), np.sin(angle))
        for channel in range(n_channels):
            to = n_channels - 1 - channel if descending else channel
            for pol in range(n_pols):
                value = visibilities[row, channel, pol] * factor
                out[row, to, pol] = value.conjugate() if conjugate[row] else value
            factor *= step
