"""Which antennas serve as phase reference, in order, and why.

All phases are told against the reference, so an antenna without data in part of the band or on few baselines makes bad
solutions of good ones. Among antennas that are equally good the one nearest to the middle of the array is best: its
baselines are the shortest, and the least changed by the sky and the atmosphere.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dsa110_contimg.exceptions import CalibrationError

_EQUAL = 0.01
"""Shares of unflagged data that differ by less count as equal."""
_WELL_CONNECTED = 0.5
"""A reference has unflagged data on at least this part of the baselines of the antenna that has most."""


@dataclass(frozen=True)
class Refant:
    """An antenna in the ranking.

    Attributes
    ----------
    share : unflagged part of its cross-correlations, over the subbands that hold any data.
    baselines : to how many antennas it has unflagged data.
    distance_m : from the median position of the array.
    against : why it must not be the reference; empty if it may.
    """

    name: str
    share: float
    baselines: int
    distance_m: float
    against: tuple[str, ...] = ()

    @property
    def reasons(self) -> str:
        """The ranking of this antenna in words."""
        told = f"{self.share:.1%} unflagged, {self.baselines} baselines, {self.distance_m:.0f} m from the middle"
        return "; ".join((told, *self.against))


def rank(
    names: tuple[str, ...],
    share: NDArray[np.float64],
    baselines: NDArray[np.int64],
    positions: NDArray[np.float64],
) -> list[Refant]:
    """All antennas, the best reference first; those that must not be one (`Refant.against`) last.

    Parameters
    ----------
    share : (antenna, subband)
        Unflagged part of each antenna's cross-correlations; a subband in which nobody has any is missing, which is no
        antenna's fault.
    baselines : (antenna,)
        To how many antennas there are unflagged data.
    positions : (antenna, 3) m

    Raises
    ------
    CalibrationError
        Nobody has any unflagged data.
    """
    present = share.any(axis=0)
    if not present.any():
        raise CalibrationError("No antenna has unflagged data", found="all flagged", expected="a reference antenna")
    mean = share[:, present].mean(axis=1)
    distance = np.linalg.norm(positions - np.median(positions, axis=0), axis=-1)
    ranked = []
    for index, name in enumerate(names):
        empty = np.flatnonzero(present & ~share[index].astype(bool))
        against = []
        if empty.size:
            against.append(f"fully flagged in {empty.size} of {int(present.sum())} subbands")
        if baselines[index] < _WELL_CONNECTED * baselines.max():
            against.append(f"data on {baselines[index]} baselines only, others on {baselines.max()}")
        ranked.append(Refant(name, float(mean[index]), int(baselines[index]), float(distance[index]), tuple(against)))
    best = max((a.share for a in ranked if not a.against), default=0.0)
    return sorted(
        ranked, key=lambda a: (bool(a.against), int((best - a.share) / _EQUAL) if a.share < best else 0, a.distance_m)
    )


def chosen(ranking: list[Refant], wanted: str | None, most: int = 5) -> tuple[str, ...]:
    """Names of the reference antennas, in order of preference.

    Parameters
    ----------
    wanted : str, optional
        Names separated by commas, instead of the ranking.
    most : int
        How many of the ranking are given to the solver.

    Raises
    ------
    CalibrationError
        What is wanted does not exist, or must not be a reference; or nobody may be one.
    """
    by_name = {antenna.name: antenna for antenna in ranking}
    usable = tuple(antenna.name for antenna in ranking if not antenna.against)
    if wanted is None:
        if not usable:
            raise CalibrationError(
                "No antenna can be the reference", found=ranking[0].reasons, expected="data in every subband"
            )
        return usable[:most]
    names = tuple(name.strip() for name in wanted.split(",") if name.strip())
    for name in names:
        if name not in by_name:
            raise CalibrationError("The reference antenna is not in the data", found=name, expected=sorted(by_name))
        if by_name[name].against:
            raise CalibrationError(
                f"Antenna {name} cannot be the reference",
                found=by_name[name].reasons,
                expected=f"data in every subband, as {', '.join(usable[:3])} have",
            )
    return names
