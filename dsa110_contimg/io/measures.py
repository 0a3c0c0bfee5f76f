"""Reference data for CASA and casacore: Earth orientation, leap seconds, ephemerides, observatories.

CASA refuses to start without them, offers to download them, and keeps them in the home directory. A pipeline must do
none of that, and the tables bundled with python-casacore predict the Earth's rotation for a few months only. So one
private directory is made from three sources that are installed with the package and therefore pinned: the tables of
python-casacore, the Earth orientation of astropy-iers-data, and the position of the array.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dsa110_contimg import telescope
from dsa110_contimg.exceptions import ExternalToolError, OutputError

if TYPE_CHECKING:
    from astropy.table import QTable

_LAYOUT = 1
"""Raise when the content made here changes, so that caches made before are not used."""
_MANIFEST = "manifest.json"
_PREDICTED = ("IERSpredict", "IERSpredict2000")


def ut1_source() -> str:
    """Where UT1 comes from when CASA needs it, for provenance records."""
    return (
        f"python-casacore {version('python-casacore')} IERS EOP C04, then finals2000A of "
        f"astropy-iers-data {version('astropy-iers-data')}"
    )


def measures_directory(cache_dir: Path) -> Path:
    """The private data directory for CASA, made on first use.

    Made beside and renamed, so that two processes that start together both find a whole one. A directory that has lost
    files (to a cleaner of temporary space) is made anew.

    Parameters
    ----------
    cache_dir : Path
        Directory that may hold it (about 27 MB); created if absent.

    Raises
    ------
    OutputError
        If ``cache_dir`` cannot be written.
    ExternalToolError
        If python-casacore is not installed.
    """
    name = f"measures-{_LAYOUT}-{version('python-casacore')}-{version('astropy-iers-data')}"
    target = cache_dir / name
    if _is_whole(target):
        return target
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=cache_dir))
    except OSError as error:
        raise OutputError(
            "The data directory for CASA cannot be made",
            path=cache_dir,
            found=error.strerror,
            expected="a writable directory",
        ) from error
    try:
        _fill(building)
        _move_into_place(building, target)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return target


def _is_whole(directory: Path) -> bool:
    """Whether every file of the manifest is there with its size. Lock files change as readers come and go."""
    try:
        sizes = json.loads((directory / _MANIFEST).read_text())
        return all((directory / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, json.JSONDecodeError):
        return False


def _move_into_place(building: Path, target: Path) -> None:
    """Rename to the final name. Who comes second finds a whole directory there and leaves it."""
    if target.exists() and not _is_whole(target):
        damaged = Path(tempfile.mkdtemp(prefix=f".{target.name}-damaged-", dir=target.parent))
        target.rename(damaged)
        shutil.rmtree(damaged, ignore_errors=True)
    try:
        building.rename(target)
    except OSError as error:
        if not _is_whole(target):
            raise OutputError("The data directory for CASA cannot be put in place", path=target, found=error) from error


def _fill(building: Path) -> None:
    found = find_spec("casacore")
    if found is None or not found.submodule_search_locations:
        raise ExternalToolError("python-casacore is not installed", expected="pip install 'dsa110_contimg[casa]'")
    source = Path(found.submodule_search_locations[0]) / "data"
    for entry in source.iterdir():
        if entry.is_dir():
            shutil.copytree(entry, building / entry.name, ignore=shutil.ignore_patterns("*.old", "table.lock*"))
    _extend_earth_orientation(building / "geodetic")
    _add_observatory(building / "geodetic" / "Observatories")
    files = (p for p in building.rglob("*") if p.is_file() and p.name != "table.lock")
    sizes = {str(p.relative_to(building)): p.stat().st_size for p in files}
    (building / _MANIFEST).write_text(json.dumps(sizes, indent=1))
    building.chmod(0o755)
    for path in building.rglob("*"):
        if path.is_file():
            with path.open("rb") as handle:
                os.fsync(handle.fileno())


def _extend_earth_orientation(geodetic: Path) -> None:
    """Replace the predicted tables by finals2000A, which reaches further.

    casacore takes the measured table for dates more than five days in the past, and the predicted one otherwise or
    where the measured one ends; it demands one row a day without gaps (``MeasIERS::get``).
    """
    from casacore.tables import table

    for name in _PREDICTED:
        with table(str(geodetic / name), readonly=False, ack=False) as predicted:
            rows = _finals2000a(float(predicted.getcell("MJD", 0)))
            n_rows = len(rows["MJD"])
            if n_rows > predicted.nrows():
                predicted.addrows(n_rows - predicted.nrows())
            else:
                predicted.removerows(list(range(n_rows, predicted.nrows())))
            for column in predicted.colnames():
                # pole offsets (dPsi/dEps, dX/dY) are zero, as in any prediction; CASA does not use them by default
                predicted.putcol(column, rows.get(column, np.zeros(n_rows)))
            predicted.putkeyword("VS_TYPE", f"{predicted.getkeyword('VS_TYPE')}; {ut1_source()}")


def _finals2000a(first_mjd: float) -> dict[str, NDArray[np.float64]]:
    """Earth orientation from ``first_mjd`` on: columns and units (d, arcsec, s) as casacore's tables have them."""
    from astropy import units as u
    from astropy.utils.iers import IERS_A
    from astropy_iers_data import IERS_A_FILE

    final: QTable = IERS_A.open(IERS_A_FILE)
    final = final[final["MJD"].to_value(u.d) >= first_mjd]
    columns: dict[str, tuple[str, Any]] = {
        "MJD": ("MJD", u.d),
        "x": ("PM_x", u.arcsec),
        "Dx": ("e_PM_x_A", u.arcsec),
        "y": ("PM_y", u.arcsec),
        "Dy": ("e_PM_y_A", u.arcsec),
        "dUT1": ("UT1_UTC", u.s),
        "DdUT1": ("e_UT1_UTC_A", u.s),
    }
    rows = {ours: np.asarray(final[theirs].to_value(unit), np.float64) for ours, (theirs, unit) in columns.items()}
    if len(rows["MJD"]) == 0 or not np.array_equal(rows["MJD"], first_mjd + np.arange(len(rows["MJD"]))):
        raise ExternalToolError(
            "The Earth orientation data have gaps",
            path=IERS_A_FILE,
            found=f"{len(rows['MJD'])} days",
            expected=f"every day from MJD {first_mjd:.0f}",
        )
    return rows


def _add_observatory(path: Path) -> None:
    """Add the array to the table of observatories, which does not have it."""
    from casacore.tables import table

    where = telescope.location()
    row = {
        "MJD": 59625.0,  # 2022-02-15, the date of the station table
        "Name": telescope.TELESCOPE_NAME,
        "Type": "WGS84",
        "Long": telescope.LONGITUDE_DEG,
        "Lat": telescope.LATITUDE_DEG,
        "Height": telescope.HEIGHT_M,
        "X": float(where.x.value),
        "Y": float(where.y.value),
        "Z": float(where.z.value),
        "Source": "dsa110_contimg",
        "Comment": "array reference position",
    }
    with table(str(path), readonly=False, ack=False) as observatories:
        observatories.addrows(1)
        last = observatories.nrows() - 1
        for column, value in row.items():
            observatories.putcell(column, last, value)
