"""One search for calibrators: a declination and a span of time in; candidates, transits and how well they cover it out.

The command line and the notebook ask the same question, here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime

import numpy as np
import pandas as pd

from dsa110_contimg import telescope
from dsa110_contimg.exceptions import InputError
from dsa110_contimg.options import SearchOptions
from dsa110_contimg.records import SubbandGroup
from dsa110_contimg.science import calibrators

_UNIX_EPOCH_MJD = 40587.0
_SAME_POINTING_DEG = 0.1
_LONGEST_DAYS = 32.0


@dataclass(frozen=True)
class Span:
    """Where the telescope points, and from when to when.

    Attributes
    ----------
    dec_deg : apparent declination (deg).
    mjd_start, mjd_end : half-open (UTC).
    groups : what was recorded then; none for a day that is only planned.
    """

    dec_deg: float
    mjd_start: float
    mjd_end: float
    groups: tuple[SubbandGroup, ...] = ()


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes
    ----------
    candidates : from `calibrators.find_calibrators`, the best first.
    transits : from `calibrators.find_transits`, in order of time.
    """

    span: Span
    candidates: pd.DataFrame
    transits: pd.DataFrame
    coverage: calibrators.Coverage


def span_of_day(day: str, dec_deg: float) -> Span:
    """A day (UTC) at an apparent declination (deg).

    Raises
    ------
    InputError
        ``day`` is not written as YYYY-MM-DD.
    """
    try:
        begin = datetime.combine(date.fromisoformat(day.strip()), datetime.min.time(), UTC)
    except ValueError as error:
        raise InputError("Not a date", found=day, expected="YYYY-MM-DD") from error
    start = begin.timestamp() / 86400 + _UNIX_EPOCH_MJD
    return Span(dec_deg, start, start + 1.0)


def span_of_groups(groups: Sequence[SubbandGroup]) -> Span:
    """The time from the first group to the end of the last, but a day at least, at their declination.

    Raises
    ------
    InputError
        There are no groups, they point to several declinations, or they lie months apart.
    """
    if not groups:
        raise InputError("There are no groups to search", found="none", expected="at least one")
    ordered = sorted(groups, key=lambda group: group.mjd_first)
    decs = np.array([group.pointing_dec_deg for group in ordered])
    if np.ptp(decs) > _SAME_POINTING_DEG:
        raise InputError(
            "The groups point to several declinations; search each on its own",
            found=", ".join(f"{dec:g}" for dec in np.unique(np.round(decs, 1))),
            expected="one declination",
        )
    half = telescope.INTEGRATION_S / 2 / 86400
    start, last = ordered[0].mjd_first - half, ordered[-1]
    end = last.mjd_first - half + last.n_integrations * telescope.INTEGRATION_S / 86400
    if end - start > _LONGEST_DAYS:
        raise InputError(
            "The groups lie too far apart for one search", found=f"{end - start:.0f} days", expected="a month at most"
        )
    return Span(float(np.median(decs)), start, max(start + 1.0, end), tuple(ordered))


def search(catalog: pd.DataFrame, span: Span, options: SearchOptions) -> Found:
    """Calibrators for a span of time, their transits, and what is left without one.

    Parameters
    ----------
    catalog : DataFrame
        See `calibrators.find_calibrators`.

    Raises
    ------
    CalibrationError
        No calibrator crosses the beam, or the pointing is below the horizon.
    """
    dec_rad, start, end = np.radians(span.dec_deg), span.mjd_start, span.mjd_end
    candidates = calibrators.find_calibrators(catalog, dec_rad, options, mjd=(start + end) / 2)
    table = calibrators.find_transits(candidates, dec_rad, start, end, span.groups)
    ra, dec = np.radians(candidates[["ra_deg", "dec_deg"]].to_numpy(float).T)
    # those just outside count for what is near one
    _, around = calibrators.transit_times(ra, dec, start - 0.05, end + 0.05)
    return Found(span, candidates, table, calibrators.coverage(around, start, end))
