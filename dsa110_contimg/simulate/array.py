"""Which antennas take part, and in which order the correlator lists their baselines.

The order is a trap on purpose: the correlator's antenna list is not sorted (stations 101 and 115 stand in each
other's slot), so a file holds baselines with ant1 > ant2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dsa110_contimg import telescope

SWAPPED = (101, 115)
_SUBSET_SEED = 110
# the outriggers come early in the ranking: a small subset without long baselines would show no smearing
_FIRST_RANK = {"EW": 0.5, "NS": 0.5, "OUT": 0.1}


@dataclass(frozen=True)
class Array:
    """The antennas of a simulation.

    Attributes
    ----------
    order : (antenna,) int
        Station numbers in the correlator's order.
    first, second : (baseline,) int
        Positions in ``order`` of the antennas of each baseline, in file order, autocorrelations included.
    """

    order: NDArray[np.int64]
    first: NDArray[np.int64]
    second: NDArray[np.int64]

    @property
    def n_antennas(self) -> int:
        return len(self.order)

    @property
    def n_baselines(self) -> int:
        return len(self.first)

    @property
    def antenna1(self) -> NDArray[np.int64]:
        """(baseline,) file index (station number - 1) of the first antenna."""
        return self.order[self.first] - 1

    @property
    def antenna2(self) -> NDArray[np.int64]:
        """(baseline,) file index (station number - 1) of the second antenna."""
        return self.order[self.second] - 1

    @property
    def baselines_m(self) -> NDArray[np.float64]:
        """(baseline, 3) position(antenna 2) - position(antenna 1), ITRF (m)."""
        itrf = telescope.stations().itrf
        return itrf[self.antenna2] - itrf[self.antenna1]


def choose_stations(n_antennas: int) -> NDArray[np.int64]:
    """Station numbers of a subset of the active antennas, ascending; a smaller subset lies within a larger one.

    The two arms and the outriggers keep their proportions. Along an arm the choice is irregular (a fixed
    pseudo-random order), because a regular one would give the synthesised beam grating lobes.
    """
    table = telescope.stations()
    rng = np.random.default_rng(_SUBSET_SEED)
    ranked: list[tuple[float, int]] = []
    for arm, first in _FIRST_RANK.items():
        members = [int(n) for n, a, on in zip(table.number, table.arm, table.active, strict=True) if on and a == arm]
        members = [int(n) for n in rng.permutation(members)]
        members.sort(key=lambda n: n not in SWAPPED)  # stable: the out-of-order pair is in every subset it can be in
        ranked += [((k + first) / len(members), n) for k, n in enumerate(members)]
    return np.array(sorted(n for _, n in sorted(ranked)[:n_antennas]), dtype=np.int64)


def build_array(n_antennas: int) -> Array:
    """The array of a simulation: antennas in the correlator's order, baselines ``for i: for j <= i: (j, i)``."""
    order = choose_stations(n_antennas)
    where = [int(np.flatnonzero(order == station)[0]) for station in SWAPPED if station in order]
    if len(where) == 2:
        order[where] = order[where[::-1]]
    second, first = np.tril_indices(n_antennas)
    return Array(order=order, first=first.astype(np.int64), second=second.astype(np.int64))
