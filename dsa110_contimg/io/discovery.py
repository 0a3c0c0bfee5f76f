"""Calibration tables that lie in a directory, as records: what each is, and when it was solved.

Ours are known by their names (``2026-01-25T22:26:05.J0521+166.B``), others by CASA's keyword ``VisCal``. The times are
those of the solutions, never of the file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dsa110_contimg import telescope
from dsa110_contimg.exceptions import ContimgError, CorruptFileError, EmptyInputError
from dsa110_contimg.io.ms import MJD_S, opened
from dsa110_contimg.records import CalTable

APPLY_ORDER = {"K": 0, "B": 1, "BA": 1, "BP": 1, "G": 2, "GA": 2, "GP": 3, "2G": 4, "FLUX": 5}
"""Kinds in the order of application, equal ones by name. B is BA and BP in one, G is GA and GP of a calibrator."""
HALF_WINDOW_DAYS = {"K": 0.5, "BA": 0.5, "B": 0.5, "BP": 0.5, "GA": 1 / 48, "G": 1 / 48, "GP": 1 / 48, "2G": 1 / 48}
"""Validity before the first and after the last solution: 12 h of what is fixed, 30 min of gains."""
_FLUX_DAYS = 0.5

_JONES = {"K Jones": ("K",), "B Jones": ("B", "BA", "BP"), "G Jones": ("G", "GA", "GP", "2G", "FLUX")}
_NAME = re.compile(r"(?P<group>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.(?P<calibrator>[^.].*?))?\.(?P<kind>[A-Z0-9]+)")


@dataclass(frozen=True)
class _Solutions:
    """What is read of a table: CASA's kind, times (MJD) by solution, and those figures that judge it at a glance."""

    jones: str
    mjd: NDArray[np.float64]
    flagged_fraction: float
    median_snr: float
    refant: str
    phases_alone: bool


def discover_caltables(
    directory: Path, half_window_days: Mapping[str, float] | None = None
) -> tuple[list[CalTable], list[ContimgError]]:
    """The calibration tables of a directory, by time, and what there cannot be used.

    A directory below that is not a CASA table at all is passed over; one that looks like a table and cannot be read is
    a problem.

    Parameters
    ----------
    directory : Path
    half_window_days : mapping of kind to float, optional
        Validity before the first and after the last solution (days), over `HALF_WINDOW_DAYS`. Phases of the field
        itself (``GP`` without a calibrator in the name) are valid for the time they were solved on alone.

    Raises
    ------
    EmptyInputError
        The directory does not exist, or nothing in it is a table.
    CorruptFileError
        It is a file, or cannot be listed.
    """
    if directory.exists() and not directory.is_dir():
        raise CorruptFileError("Not a directory", path=directory, found="a file", expected="a directory of tables")
    try:
        children = sorted(directory.iterdir())
    except FileNotFoundError as error:
        raise EmptyInputError("The directory of tables does not exist", path=directory) from error
    except OSError as error:
        raise CorruptFileError(
            "The directory of tables cannot be read", path=directory, found=error.strerror
        ) from error
    halves = HALF_WINDOW_DAYS | {"FLUX": _FLUX_DAYS} | dict(half_window_days or {})
    found, problems = [], []
    for child in children:
        if not (child / "table.dat").exists() and _NAME.fullmatch(child.name) is None:
            continue
        try:
            found.append(read_record(child, halves))
        except ContimgError as error:
            problems.append(error)
    if not found and not problems:
        raise EmptyInputError("No calibration table in the directory", path=directory, found=f"{len(children)} entries")
    return sorted(found, key=lambda table: (table.mjd, table.apply_order, str(table.path))), problems


def read_record(path: Path, half_window_days: Mapping[str, float]) -> CalTable:
    """A calibration table as a record.

    Raises
    ------
    CorruptFileError
        It is a file, not a CASA calibration table, has no rows, is of a kind that is not applied, or its name and its
        content contradict each other.
    """
    if not path.is_dir():
        raise CorruptFileError("A calibration table is not a directory", path=path, found="a file")
    read = _read(path)
    name = _NAME.fullmatch(path.name)
    allowed = _JONES.get(read.jones)
    if allowed is None:
        raise CorruptFileError(
            "Not a kind of calibration table that is applied here", path=path, found=read.jones, expected=list(_JONES)
        )
    kind = name["kind"] if name else (f"{allowed[0]}P" if read.phases_alone else allowed[0])
    if kind not in allowed:
        raise CorruptFileError(
            "Name and content of a calibration table contradict each other",
            path=path,
            found=f"{read.jones} under a name that says {kind}",
            expected=" or ".join(allowed),
        )
    calibrator = (name["calibrator"] or "") if name else path.stem
    group = name["group"] if name else _moment(float(read.mjd[0]))
    middle, half = (read.mjd[0] + read.mjd[-1]) / 2, (read.mjd[-1] - read.mjd[0]) / 2
    half += half_window_days[kind] if calibrator else _interval_days(read.mjd) / 2
    return CalTable(
        path=path,
        kind=kind,
        set_name=f"{group}_{calibrator or 'field'}" if name else path.stem,
        apply_order=APPLY_ORDER[kind],
        group_id=group,
        refant=read.refant,
        mjd=float(middle),
        valid_from=float(middle - half),
        valid_to=float(middle + half),
        flagged_fraction=read.flagged_fraction,
        median_snr=read.median_snr,
        calibrator=calibrator,
    )


def _read(path: Path) -> _Solutions:
    with opened(path) as main:
        columns = set(main.colnames())
        if "VisCal" not in main.keywordnames() or not {"TIME", "FLAG", "ANTENNA1"} <= columns:
            raise CorruptFileError("Not a CASA calibration table", path=path, found=sorted(columns), expected="VisCal")
        if main.nrows() == 0:
            raise CorruptFileError("A calibration table without solutions", path=path, found="no rows")
        jones = str(main.getkeyword("VisCal"))
        seconds, antenna = np.asarray(main.getcol("TIME")), np.asarray(main.getcol("ANTENNA1"))
        good = ~np.asarray(main.getcol("FLAG"))
        snr = np.asarray(main.getcol("SNR")) if "SNR" in columns else np.full(good.shape, np.nan)
        refant = int(np.asarray(main.getcol("ANTENNA2"))[0]) if "ANTENNA2" in columns else -1
        size = np.abs(np.asarray(main.getcol("CPARAM"))) if "CPARAM" in columns else None
    if not np.isfinite(seconds).all() or not (seconds > 0).all():
        raise CorruptFileError("A calibration table without times", path=path, found=float(seconds.min()))
    with opened(path / "ANTENNA") as sub:
        names = list(sub.getcol("NAME"))
    flagged, median_snr = _figures(good, snr, antenna)
    alone = size is not None and bool(good.any() and np.allclose(size[good], 1.0, atol=1e-5))
    name = names[refant] if 0 <= refant < len(names) else ""
    return _Solutions(jones, np.unique(seconds) / MJD_S, flagged, median_snr, name, alone)


def _figures(good: NDArray[np.bool_], snr: NDArray[np.float32], antenna: NDArray[np.int32]) -> tuple[float, float]:
    """Flagged fraction and median SNR over antennas and channels that have a solution at all."""
    alive = np.isin(antenna, np.unique(antenna[good.any(axis=(1, 2))]))
    channels = good.any(axis=(0, 2))
    counted = good[alive][:, channels]
    if not counted.any():
        return 1.0, float("nan")
    return float(1 - counted.mean()), float(np.median(snr[alive][:, channels][counted]))


def _interval_days(mjd: NDArray[np.float64]) -> float:
    """Length of one solution."""
    return float(np.median(np.diff(mjd))) if mjd.size > 1 else telescope.GROUP_S / MJD_S


def _moment(mjd: float) -> str:
    """A time as group ids have it."""
    from astropy.time import Time

    return str(Time(mjd, format="mjd", scale="utc", precision=0).isot)
