"""Model visibilities of many sources over a wide band, at a tenth of the cost of every channel by itself.

The visibility of a field is band-limited in frequency: no source within an angle rho of the phase centre turns faster
than b rho / c on a baseline b. A few nodes across a run of channels therefore say everything about all of them, few on
short baselines, more on long ones. Sources are summed at the nodes alone, and one matrix of real numbers takes the
nodes to the channels. It is the least-squares interpolator of all delays up to the limit of its class, true to
`ACCURACY` for each of them, so for any sum of sources it errs by that fraction of their fluxes at most.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.constants import speed_of_light

from dsa110_contimg.science.predict import predict
from dsa110_contimg.science.threads import one_blas_thread

ACCURACY = 1e-4
Spectra = Callable[[NDArray[np.float64]], NDArray[np.float32]]
"""(channel,) Hz -> (time, channel, source) apparent flux (Jy)."""

_RUN = 192
"""Channels of a run: 47 MHz, over which the fringe rate, taken at its middle, is true to 2 %."""
_CLASSES = (
    (6, 0.5, 0.0),
    (8, 0.95, 0.0),
    (12, 2.0, 1.0),
    (16, 3.1, 2.0),
    (32, 5.2, 2.0),
    (48, 9.1, 2.0),
    (64, 12.8, 2.0),
    (96, 20.0, 2.0),
    (128, 28.5, 2.0),
)
"""Nodes of a run, the turns over it that they can follow, and how many of them stand beyond either end."""
_RINGS = (0.035,)
"""Angles (rad) that divide the field: sources beyond the image would make nodes dense for those in it."""
_GRID_HZ = 6e6
"""Spacing of the frequencies at which the beam is evaluated; linear between them it is true to 1e-4."""
_BEYOND_HZ = 15e6
"""Two nodes of the class whose nodes are farthest apart, with our channels."""
_EVEN = 1e-6


@lru_cache(maxsize=64)
def interpolator(n_channels: int, n_nodes: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Places of nodes in units of channels, (node,), and the matrix (node, channel) that takes them to channels."""
    turns, margin = next((turns, margin) for nodes, turns, margin in _CLASSES if nodes == n_nodes)
    spacing = (n_channels - 1) / (n_nodes - 1 - 2 * margin)
    places = (np.arange(n_nodes) - margin) * spacing
    delays = np.linspace(-turns, turns, max(8 * n_nodes, 200)) / n_channels
    at_nodes = np.exp(2j * np.pi * np.outer(delays, places))
    at_channels = np.exp(2j * np.pi * np.outer(delays, np.arange(n_channels)))
    both = [np.concatenate([values.real, values.imag]) for values in (at_nodes, at_channels)]
    return np.asarray(places, np.float64), np.asarray(np.linalg.lstsq(both[0], both[1], rcond=1e-10)[0], np.float64)


def predict_band(
    uvw: NDArray[np.float64],
    time_index: NDArray[np.int64],
    frequencies_hz: NDArray[np.float64],
    width_hz: float,
    geometry: tuple[NDArray[np.float64], NDArray[np.float64]],
    spectra: Spectra,
    pole_uvw: NDArray[np.float64],
    integration_s: float,
) -> NDArray[np.complex64]:
    """Model visibilities of any channels: `predict.predict`, to `ACCURACY` of the fluxes.

    Parameters
    ----------
    uvw : (row, 3) m
    time_index : (row,)
    frequencies_hz : (channel,) ascending, with gaps or without
    width_hz : of a channel
    geometry : as from `predict.source_geometry`
    spectra : apparent fluxes at frequencies, which must be defined a little beyond the band
    pole_uvw, integration_s : as of `predict.predict`

    Returns
    -------
    (row, channel) complex64, Jy
    """
    lmn, offset = geometry
    out = np.zeros((len(uvw), len(frequencies_hz)), np.complex64)
    angle = np.sqrt((lmn**2).sum(axis=-1))
    length = np.sqrt((uvw**2).sum(axis=-1))
    fluxes = _tabulated(spectra, frequencies_hz)
    with one_blas_thread():
        for ring in range(len(_RINGS) + 1):
            here = np.searchsorted(_RINGS, angle) == ring
            if not here.any():
                continue
            delay = length * angle[here].max() / speed_of_light
            of = _Part(np.ascontiguousarray(lmn[here]), np.ascontiguousarray(offset[:, here]), fluxes, here, width_hz)
            for first, stop in _runs(frequencies_hz):
                run = frequencies_hz[first:stop]
                of.add(out[:, first:stop], uvw, time_index, delay, run, pole_uvw, integration_s)
    return out


class _Part:
    """Some of the sources."""

    def __init__(
        self,
        lmn: NDArray[np.float64],
        offset: NDArray[np.float64],
        fluxes: Spectra,
        here: NDArray[np.bool_],
        width_hz: float,
    ) -> None:
        self._lmn, self._offset, self._fluxes, self._here, self._width = lmn, offset, fluxes, here, width_hz

    def add(
        self,
        out: NDArray[np.complex64],
        uvw: NDArray[np.float64],
        time_index: NDArray[np.int64],
        delay: NDArray[np.float64],
        frequencies: NDArray[np.float64],
        pole_uvw: NDArray[np.float64],
        integration_s: float,
    ) -> None:
        """One run of equally spaced channels, each class of rows with its own nodes, added to ``out``."""
        n = len(frequencies)
        spacing = frequencies[1] - frequencies[0] if n > 1 else self._width
        turns = delay * spacing * n
        limits = np.array([limit for nodes, limit, _ in _CLASSES if nodes < 0.7 * n])
        kind = np.searchsorted(limits, turns)
        for number in np.unique(kind):
            rows = np.flatnonzero(kind == number)
            matrix: NDArray[np.float64] | None = None
            at = frequencies
            if number < len(limits):
                places, matrix = interpolator(n, _CLASSES[number][0])
                at = frequencies[0] + places * spacing
            apparent = np.ascontiguousarray(self._fluxes(at)[..., self._here])
            shape = np.ascontiguousarray(uvw[rows]), time_index[rows], at, self._lmn, self._offset
            values = predict(*shape, apparent, pole_uvw, integration_s, self._width)
            # a product of strided parts would not go to BLAS
            real, imaginary = np.ascontiguousarray(values.real), np.ascontiguousarray(values.imag)
            if matrix is not None:
                real, imaginary = real @ matrix.astype(np.float32), imaginary @ matrix.astype(np.float32)
            _add(real, imaginary, rows, out)


@njit(nogil=True, cache=True)
def _add(
    real: NDArray[np.float32], imaginary: NDArray[np.float32], rows: NDArray[np.int64], out: NDArray[np.complex64]
) -> None:
    """Add to some rows of ``out``, in one pass."""
    for i in range(len(rows)):
        for channel in range(real.shape[1]):
            out[rows[i], channel] += complex(real[i, channel], imaginary[i, channel])


def _tabulated(spectra: Spectra, frequencies: NDArray[np.float64]) -> Spectra:
    """The same function from a table, so that the beam is not evaluated at every node of every class."""
    grid = np.arange(frequencies[0] - _BEYOND_HZ, frequencies[-1] + _BEYOND_HZ + _GRID_HZ, _GRID_HZ)
    table = spectra(grid)

    def at(wanted: NDArray[np.float64]) -> NDArray[np.float32]:
        place = np.clip((wanted - grid[0]) / _GRID_HZ, 0, len(grid) - 1.000001)
        below = place.astype(np.int64)
        part = (place - below)[None, :, None].astype(np.float32)
        return np.asarray(table[:, below] * (1 - part) + table[:, below + 1] * part, np.float32)

    return at


def _runs(frequencies: NDArray[np.float64]) -> list[tuple[int, int]]:
    """(first, stop) of runs of equally spaced channels, at most `_RUN` long."""
    step = np.diff(frequencies)
    usual = step.min() if step.size else 0.0
    ends = [0, *(np.flatnonzero(step > usual * (1 + _EVEN) + 1.0) + 1), len(frequencies)]
    runs = []
    for begin, end in itertools.pairwise(ends):
        edges = np.linspace(begin, end, -(-(end - begin) // _RUN) + 1).round().astype(int)
        runs += list(itertools.pairwise(edges.tolist()))
    return runs
