"""CASA component lists: a user's own model of the field, as CASA's componentlist tool writes it.

Only the list is CASA's. It is read as the table that it is, and predicted like any catalogue (`stages.model`): CASA's
own ``ft`` knows neither the drifting beam nor the averaging of the correlator.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dsa110_contimg import telescope
from dsa110_contimg.exceptions import CatalogError
from dsa110_contimg.io.catalogs import COLUMNS
from dsa110_contimg.io.ms import opened

_UNIT_JY = {"Jy": 1.0, "mJy": 1e-3, "uJy": 1e-6}
_FRAMES = ("ICRS", "J2000")
_COLUMNS = (
    "Flux",
    "Flux_Unit",
    "Flux_Polarisation",
    "Shape",
    "Reference_Direction",
    "Direction_Frame",
    "Spectrum_Shape",
    "Reference_Frequency",
    "Spectral_Parameters",
    "Label",
)


def read_components(path: Path) -> pd.DataFrame:
    """The sources of a CASA component list, as a catalogue (`io.catalogs.COLUMNS`).

    Fluxes are brought to 1.4 GHz with each component's own reference frequency and spectral index; a constant spectrum
    is index 0. The frame of the reference frequency (LSRK, as the tool writes) is not looked at: it moves a flux by
    less than 1e-4. J2000 directions are taken as FK5.

    Raises
    ------
    CatalogError
        There is no list, or a component is not an unpolarised point source of positive flux, with a constant spectrum
        or a spectral index, in ICRS or J2000. All faults are told at once.
    """
    rows = _rows(path)
    if not rows:
        raise CatalogError("The component list is empty", path=path, expected="at least one component")
    faults = [f"component {number}: {fault}" for number, row in enumerate(rows) for fault in _faults(row)]
    if faults:
        raise CatalogError(
            "The component list holds what cannot be predicted",
            path=path,
            found="; ".join(faults),
            expected="unpolarised point sources of positive flux, constant or with a spectral index, in ICRS or J2000",
        )
    table = pd.DataFrame([_source(number, row) for number, row in enumerate(rows)])
    table["ra_deg"], table["dec_deg"] = _icrs(rows)
    return table[list(COLUMNS)]


def _rows(path: Path) -> list[dict[str, Any]]:
    if not path.is_dir():
        raise CatalogError(
            "There is no component list",
            path=path,
            found="a file" if path.exists() else "nothing",
            expected="a directory, as CASA's componentlist tool writes it",
        )
    if not (path / "table.dat").is_file():
        raise CatalogError("Not a component list", path=path, found="a directory without table.dat")
    with opened(path) as main:
        missing = sorted(set(_COLUMNS) - set(main.colnames()))
        if missing:
            raise CatalogError(
                "Not a component list", path=path, found=f"a table without {', '.join(missing)}", expected=_COLUMNS
            )
        return [{name: main.getcell(name, row) for name in _COLUMNS} for row in range(main.nrows())]


def _stokes_i(row: Mapping[str, Any]) -> float:
    """Stokes I in the component's unit; of linear and circular components, half the sum of the parallel hands."""
    flux = np.real(row["Flux"])
    return float(flux[0] if row["Flux_Polarisation"] == "Stokes" else (flux[0] + flux[3]) / 2)


def _faults(row: Mapping[str, Any]) -> list[str]:
    found, flux = [], np.real(row["Flux"])
    unpolarised = not flux[1:].any() if row["Flux_Polarisation"] == "Stokes" else flux[0] == flux[3]
    if row["Shape"] != "Point":
        found.append(f"shape {row['Shape']}")
    if row["Flux_Unit"] not in _UNIT_JY:
        found.append(f"flux in {row['Flux_Unit']}")
    if not (np.isfinite(_stokes_i(row)) and _stokes_i(row) > 0):
        found.append(f"flux {_stokes_i(row):g}")
    elif not unpolarised:
        found.append("a polarised flux")
    if row["Spectrum_Shape"] not in ("Constant", "Spectral Index"):
        found.append(f"spectrum {row['Spectrum_Shape']}")
    if row["Direction_Frame"] not in _FRAMES:
        found.append(f"direction in {row['Direction_Frame']}")
    return found


def _source(number: int, row: Mapping[str, Any]) -> dict[str, Any]:
    index = float(row["Spectral_Parameters"][0]) if row["Spectrum_Shape"] == "Spectral Index" else 0.0
    to_reference = (telescope.REFERENCE_FREQUENCY_HZ / float(row["Reference_Frequency"])) ** index
    return {
        "name": row["Label"] or f"component {number}",
        "flux_jy": _stokes_i(row) * _UNIT_JY[row["Flux_Unit"]] * to_reference,
        "flux_error_jy": 0.0,
        "spectral_index": index,
        "spectral_index_error": 0.0,
        "origin": "componentlist",
    }


def _icrs(rows: Sequence[Mapping[str, Any]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Right ascensions and declinations (deg, ICRS)."""
    from astropy.coordinates import SkyCoord

    ra, dec = np.array([row["Reference_Direction"] for row in rows], np.float64).T
    turned = SkyCoord(ra, dec, unit="rad", frame="fk5").icrs
    already = np.array([row["Direction_Frame"] == "ICRS" for row in rows])
    return np.where(already, np.degrees(ra) % 360, turned.ra.deg), np.where(already, np.degrees(dec), turned.dec.deg)
