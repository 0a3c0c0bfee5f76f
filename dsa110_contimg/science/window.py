"""Which integrations of a drifting group a calibrator is solved on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dsa110_contimg import telescope
from dsa110_contimg.science import beam


def solving_window(
    position: tuple[float, float],
    pointing: tuple[NDArray[np.float64], NDArray[np.float64]],
    least_response: float,
    n_integrations: int = 0,
) -> NDArray[np.bool_]:
    """Integrations in which the beam still responds to a source, at 1.4 GHz.

    Parameters
    ----------
    position : right ascension and declination (rad, ICRS).
    pointing : (time,) right ascensions and declinations of the beam centre (rad, ICRS).
    least_response : float
        Relative to the best response in the group.
    n_integrations : int
        Instead, so many about the best response; 0: follow ``least_response``.

    Returns
    -------
    (time,) bool
    """
    theta = beam.separation(*position, *pointing)
    response = beam.airy_power(theta, telescope.REFERENCE_FREQUENCY_HZ)
    if n_integrations:
        best = np.argsort(-response, kind="stable")[:n_integrations]
        return np.isin(np.arange(response.size), best)
    return np.asarray(response >= least_response * response.max())
