"""How well a day is calibrated: which groups have a calibrator's solutions, near or on both sides, and which do not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dsa110_contimg import telescope

Floats = NDArray[np.float64]

OWN, VALID, BRACKETED, ONE_SIDED, NONE = ORIGINS = (
    "own calibrator",
    "gains in their validity",
    "amplitudes between two solutions",
    "amplitudes of one side",
    "not calibrated",
)
"""Where the amplitude gains of a group are from, from best to worst. Phases are every group's own, in all cases."""


@dataclass(frozen=True)
class CalibratedDay:
    """Numbers of groups by what there is to calibrate them with. Phases are every group's own, in all cases.

    Attributes
    ----------
    groups : recorded in the span.
    calibrators : of them, with a transit of a calibrator.
    bandpass : with a bandpass in its validity.
    gains : with gains in their validity, the calibrators' own groups included.
    bracketed : without, but with solutions before and after: amplitudes are interpolated.
    one_sided : without, with a valid bandpass and solutions on one side only: amplitudes are those of the nearest.
    none : without a valid bandpass: not calibrated.
    longest_gap_h : longest time between solutions that a group of the span lies in (h); NaN if none is bracketed.
    """

    groups: int
    calibrators: int
    bandpass: int
    gains: int
    bracketed: int
    one_sided: int
    none: int
    longest_gap_h: float

    def by_origin(self) -> dict[str, int]:
        """Groups by where their amplitude gains are from (`ORIGINS`); they add up to all."""
        counts = (self.calibrators, self.gains - self.calibrators, self.bracketed, self.one_sided, self.none)
        return dict(zip(ORIGINS, counts, strict=True))


def distinct_groups(mjd: Floats, tolerance_s: float = 30.0) -> Floats:
    """Begins of groups from the times in file names, of which one group may have several: the first of each run."""
    ordered = np.unique(np.asarray(mjd, float))
    first = np.diff(ordered, prepend=-np.inf) * 86400 > tolerance_s
    return np.asarray(ordered[first])


def calibrated_day(
    group_mjd: Floats, transit_mjd: Floats, span: tuple[float, float], bandpass_hours: float, gain_minutes: float
) -> CalibratedDay:
    """How the groups of a span of time are calibrated, given when calibrators transit.

    Parameters
    ----------
    group_mjd : (group,)
        Begins of all recorded groups, beyond the span as well: solutions reach in from outside (MJD UTC).
    transit_mjd : (transit,)
        Transits of calibrators; those that no group holds give no solution.
    span : (begin, end)
        Half-open (MJD UTC); counted are the groups that begin in it.
    bandpass_hours, gain_minutes : float
        Half-widths of the validity.
    """
    middle = np.sort(group_mjd) + 0.5 * telescope.GROUP_S / 86400
    begins = middle - 0.5 * telescope.GROUP_S / 86400
    holding = np.searchsorted(begins, transit_mjd, side="right") - 1
    held = (holding >= 0) & (transit_mjd - begins[holding] < telescope.GROUP_S / 86400)
    solved = middle[np.unique(holding[held])]
    asked = middle[(begins >= span[0]) & (begins < span[1])]
    if solved.size == 0:
        return CalibratedDay(asked.size, 0, 0, 0, 0, 0, asked.size, float("nan"))
    after = np.searchsorted(solved, asked, side="left")
    padded = np.concatenate([[-np.inf], solved, [np.inf]])
    since, until = asked - padded[after], padded[after + 1] - asked
    nearest = np.minimum(since, until)
    bandpass, gains = nearest < bandpass_hours / 24, nearest < gain_minutes / 1440
    both = np.isfinite(since) & np.isfinite(until) & bandpass & ~gains
    gaps = (since + until)[both]
    return CalibratedDay(
        groups=asked.size,
        calibrators=int(np.isin(asked, solved).sum()),
        bandpass=int(bandpass.sum()),
        gains=int(gains.sum()),
        bracketed=int(both.sum()),
        one_sided=int((bandpass & ~gains & ~both).sum()),
        none=int((~bandpass).sum()),
        longest_gap_h=float(24 * gaps.max()) if gaps.size else float("nan"),
    )
