"""Source catalogues: the packaged ones, and a user's own list.

A catalogue is a DataFrame with the columns of `COLUMNS`; flux densities are in Jy at 1.4 GHz.

The packaged catalogue takes each source's flux from the best of (in this order): Perley & Butler (2017) for the
standard calibrators, the exact NVSS values of Taylor, Stil & Sunstrum (2009), the listed NVSS peak / 1.027 (the list
runs 2.5-2.8 % above NVSS), the VLA calibrator list. It is complete to 50 mJy.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dsa110_contimg.exceptions import CatalogError

COLUMNS = (
    "name",
    "ra_deg",
    "dec_deg",
    "flux_jy",
    "flux_error_jy",
    "spectral_index",
    "spectral_index_error",
    "origin",
)

ASSUMED_INDEX = -0.7
ASSUMED_INDEX_ERROR = 0.3
"""Spectral index S ~ f^alpha of a source without a measured one, and its spread (Condon 1984; Zajacek+ 2019)."""

NVSS_LIST_EXCESS = 1.027
NVSS_LIST_ERROR = 0.03
VLA_LIST_ERROR = 0.05
PACKAGED_LIMIT_JY = 0.05

_MATCH_ARCSEC = 15.0

# Perley & Butler (2017), table 6: log10 S(Jy) = sum a_i (log10 f_GHz)^i, by VLA calibrator (J2000) name
PERLEY_BUTLER = {
    "1331+305": ("3C286", (1.2481, -0.4507, -0.1798, 0.0357)),
    "0137+331": ("3C48", (1.3253, -0.7553, -0.1914, 0.0498)),
    "0542+498": ("3C147", (1.4516, -0.6961, -0.2007, 0.0640, -0.0464, 0.0289)),
    "0521+166": ("3C138", (1.0088, -0.4981, -0.1552, -0.0102, 0.0223)),
}

_BAND_GHZ = {"P": 0.325, "L": 1.4, "C": 4.86}


def perley_butler_flux(name: str, frequency_ghz: float) -> float:
    """Flux density (Jy) of a standard calibrator by its J2000 name."""
    log_f = np.log10(frequency_ghz)
    _, coefficients = PERLEY_BUTLER[name]
    return float(10 ** sum(a * log_f**i for i, a in enumerate(coefficients)))


def _packaged(name: str) -> pd.DataFrame:
    with (files("dsa110_contimg") / "data" / name).open("rb") as stream:
        return pd.read_csv(stream, compression="gzip" if name.endswith(".gz") else None)


@cache
def vla_calibrators() -> pd.DataFrame:
    """VLA calibrators with an L-band flux: the columns of `COLUMNS` plus ``alt_name``.

    The spectral index is that between L and C band (else P and L) where the list gives both.
    """
    rows = _packaged("vla_calibrators.csv")
    flux = rows.pivot_table(index="name", columns="band", values="flux_jy", aggfunc="first")
    flux = flux.where(flux > 0)  # the list writes an unknown flux as empty or as zero
    first = rows.drop_duplicates("name").set_index("name")
    table = first.loc[flux.index[flux["L"].notna()], ["alt_name", "ra_deg", "dec_deg"]].copy()
    flux = flux.loc[table.index]
    ratio_cl = np.log(flux["C"] / flux["L"]) / np.log(_BAND_GHZ["C"] / _BAND_GHZ["L"])
    ratio_lp = np.log(flux["L"] / flux["P"]) / np.log(_BAND_GHZ["L"] / _BAND_GHZ["P"])
    index = ratio_cl.fillna(ratio_lp)
    table["flux_jy"] = flux["L"]
    table["flux_error_jy"] = VLA_LIST_ERROR * flux["L"]
    table["spectral_index"] = index.fillna(ASSUMED_INDEX)
    # two fluxes of 5 % each over a factor 3.5 in frequency
    table["spectral_index_error"] = np.where(index.notna(), 0.06, ASSUMED_INDEX_ERROR)
    table["origin"] = "VLA"
    for name in PERLEY_BUTLER:
        exact = perley_butler_flux(name, 1.4)
        slope = np.log(perley_butler_flux(name, 1.5) / perley_butler_flux(name, 1.31)) / np.log(1.5 / 1.31)
        table.loc[name, ["flux_jy", "flux_error_jy"]] = exact, 0.01 * exact
        table.loc[name, ["spectral_index", "spectral_index_error"]] = slope, 0.01
        table.loc[name, "origin"] = "PB2017"
    return table.reset_index()[[*COLUMNS, "alt_name"]]


@cache
def _nvss() -> pd.DataFrame:
    """Listed NVSS sources, with Taylor's exact fluxes in place of the listed ones where they match."""
    listed = _packaged("nvss_bright.csv.gz")
    exact = _packaged("nvss_taylor2009.csv.gz")
    table = pd.DataFrame({"ra_deg": listed["ra_deg"], "dec_deg": listed["dec_deg"]})
    table["flux_jy"] = listed["peak_jy_per_beam_listed"] / NVSS_LIST_EXCESS
    table["flux_error_jy"] = NVSS_LIST_ERROR * table["flux_jy"]
    table["origin"] = "NVSS"
    nearest, distance = _nearest(table, exact)
    hit = distance < np.radians(_MATCH_ARCSEC / 3600)
    table.loc[hit, "flux_jy"] = exact["flux_1400_jy"].to_numpy()[nearest[hit]]
    table.loc[hit, "flux_error_jy"] = exact["flux_1400_err_jy"].to_numpy()[nearest[hit]]
    table.loc[hit, "origin"] = "Taylor2009"
    return table


def _unit_vectors(table: pd.DataFrame) -> NDArray[np.float64]:
    ra, dec = np.radians(table["ra_deg"].to_numpy(float)), np.radians(table["dec_deg"].to_numpy(float))
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=-1)


def _nearest(table: pd.DataFrame, other: pd.DataFrame) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """For each row of ``table``: the row of ``other`` nearest on the sky, and its distance (rad, small angles)."""
    from scipy.spatial import KDTree

    distance, nearest = KDTree(_unit_vectors(other)).query(_unit_vectors(table))
    return nearest, distance


@cache
def packaged_catalog() -> pd.DataFrame:
    """All packaged sources at or above 50 mJy, Dec -40 to +90, with the columns of `COLUMNS`."""
    table = _nvss().copy()
    calibrators = vla_calibrators()
    table["spectral_index"] = ASSUMED_INDEX
    table["spectral_index_error"] = ASSUMED_INDEX_ERROR
    table["name"] = _iau_names("NVSS", table)
    # where a calibrator has an NVSS counterpart: its precise position and index, and Perley-Butler's flux
    nearest, distance = _nearest(calibrators, table)
    hit = distance < np.radians(_MATCH_ARCSEC / 3600)
    rows = table.index[nearest[hit]]
    for column in ("ra_deg", "dec_deg", "spectral_index", "spectral_index_error"):
        table.loc[rows, column] = calibrators.loc[hit, column].to_numpy()
    table.loc[rows, "name"] = [f"J{name}" for name in calibrators.loc[hit, "name"]]
    standard = hit & (calibrators["origin"] == "PB2017").to_numpy()
    for column in ("flux_jy", "flux_error_jy", "origin"):
        table.loc[table.index[nearest[standard]], column] = calibrators.loc[standard, column].to_numpy()
    rest = calibrators.loc[~hit & (calibrators["flux_jy"] >= PACKAGED_LIMIT_JY)].copy()
    rest["name"] = "J" + rest["name"]
    return pd.concat([table[list(COLUMNS)], rest[list(COLUMNS)]], ignore_index=True)


@cache
def packaged_calibrators() -> pd.DataFrame:
    """Those packaged sources that are VLA calibrators (their names are ``J`` and the list's)."""
    table = packaged_catalog()
    return table[table["name"].isin("J" + vla_calibrators()["name"])].reset_index(drop=True)


def _iau_names(prefix: str, table: pd.DataFrame) -> list[str]:
    """``NVSS J052109+163822``: truncated, not rounded, as the IAU asks."""
    ra_s = np.floor(table["ra_deg"].to_numpy(float) % 360 / 15 * 3600).astype(int)
    dec = table["dec_deg"].to_numpy(float)
    dec_s = np.floor(np.abs(dec) * 3600).astype(int)
    return [
        f"{prefix} J{r // 3600:02d}{r // 60 % 60:02d}{r % 60:02d}{'-' if negative else '+'}"
        f"{d // 3600:02d}{d // 60 % 60:02d}{d % 60:02d}"
        for r, d, negative in zip(ra_s, dec_s, dec < 0, strict=True)
    ]


def within(catalog: pd.DataFrame, ra_deg: float, dec_deg: float, radius_deg: float, min_flux_jy: float) -> pd.DataFrame:
    """Rows of a catalogue within a radius of a direction (deg) and at or above a flux (Jy), brightest first."""
    centre = pd.DataFrame({"ra_deg": [ra_deg], "dec_deg": [dec_deg]})
    chord = np.linalg.norm(_unit_vectors(catalog) - _unit_vectors(centre), axis=-1)
    keep = (chord <= 2 * np.sin(np.radians(radius_deg) / 2)) & (catalog["flux_jy"] >= min_flux_jy).to_numpy()
    return catalog.loc[keep].sort_values("flux_jy", ascending=False, ignore_index=True)


def cone(ra_deg: float, dec_deg: float, radius_deg: float, min_flux_jy: float = PACKAGED_LIMIT_JY) -> pd.DataFrame:
    """Packaged sources within a radius of a direction, brightest first."""
    return within(packaged_catalog(), ra_deg, dec_deg, radius_deg, min_flux_jy)


def read_catalog(path: Path) -> pd.DataFrame:
    """A user's own source list.

    CSV, FITS or VOTable with the columns ``name``, ``ra_deg``, ``dec_deg``, ``flux_jy`` (at 1.4 GHz) and, optionally,
    ``spectral_index``, ``flux_error_jy``, ``spectral_index_error``.

    Raises
    ------
    CatalogError
        The file cannot be read, a column is missing, or a value is not finite or out of range.
    """
    from astropy.table import Table

    if not path.is_file():
        raise CatalogError("The source list does not exist", path=path, expected="a CSV, FITS or VOTable file")
    formats = {".csv": "ascii.csv", ".fits": "fits", ".fit": "fits", ".xml": "votable", ".vot": "votable"}
    kind = formats.get(path.suffix.lower())
    if kind is None:
        raise CatalogError(
            "The source list is of an unknown kind", path=path, found=path.suffix, expected=" ".join(formats)
        )
    try:
        table = Table.read(path, format=kind).to_pandas()
    except (ValueError, OSError, IndexError, KeyError) as error:
        raise CatalogError("The source list cannot be read", path=path, found=error) from error
    return _checked(table, path)


def _checked(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    required = ("name", "ra_deg", "dec_deg", "flux_jy")
    missing = [c for c in required if c not in table]
    if missing:
        raise CatalogError(
            f"The source list lacks the columns {', '.join(missing)}", path=path, found=list(table), expected=required
        )
    if table.empty:
        raise CatalogError("The source list has no rows", path=path)
    table = table.assign(name=[n.decode() if isinstance(n, bytes) else str(n) for n in table["name"]], origin="user")
    defaults = {"spectral_index": ASSUMED_INDEX, "flux_error_jy": 0.0, "spectral_index_error": ASSUMED_INDEX_ERROR}
    if "spectral_index" in table:
        defaults["spectral_index_error"] = 0.0
    for column, value in defaults.items():
        table[column] = pd.to_numeric(table[column], errors="coerce").fillna(value) if column in table else value
    for column, low, high in (("ra_deg", -360, 360), ("dec_deg", -90, 90), ("flux_jy", 0, np.inf)):
        values = pd.to_numeric(table[column], errors="coerce").to_numpy(float)
        bad = ~(np.isfinite(values) & (values >= low) & (values <= high))
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise CatalogError(
                f"The source list has {bad.sum()} bad values of {column}, the first in row {row + 1}",
                path=path,
                found=table[column].iloc[row],
                expected=f"a finite number from {low} to {high}",
            )
        table[column] = values
    if table["name"].duplicated().any():
        again = table.loc[table["name"].duplicated(), "name"].iloc[0]
        raise CatalogError("The source list names a source twice", path=path, found=again, expected="unique names")
    return table[list(COLUMNS)].sort_values("flux_jy", ascending=False, ignore_index=True)
