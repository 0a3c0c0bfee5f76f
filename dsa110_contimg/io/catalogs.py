"""Source catalogues: the packaged ones, and a user's own list.

A catalogue is a DataFrame with the columns of `COLUMNS`; flux densities are in Jy at 1.4 GHz.

The packaged catalogue takes each source's flux from the best of (in this order): Perley & Butler (2017) for the
standard calibrators, the exact NVSS values of Taylor, Stil & Sunstrum (2009), the listed NVSS peak / 1.027 (the list
runs 2.5-2.8 % above NVSS), the VLA calibrator list. It is complete to 50 mJy, and every report says which catalogue
was used and how deep that is (`describe`).

Spectral indices come from the bands of the VLA list. What a pair of bands says of 1.4 GHz is off by the curvature of
the spectrum between them, so that is part of the error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dsa110_contimg.exceptions import CatalogError
from dsa110_contimg.io import vla

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

CALIBRATOR_COLUMNS = (*COLUMNS, "alt_name", "position_code", "codes", "index_origin", "index_lc")
"""Of a list of calibrators. ``codes``: quality by band and array (``L:SSPP C:SSSP``); ``index_origin``: the bands that
the spectral index is from, or ``assumed``; ``index_lc``: the index from L to C (else X) band, NaN where unknown."""

ASSUMED_INDEX = -0.7
ASSUMED_INDEX_ERROR = 0.3
"""Spectral index S ~ f^alpha of a source without a measured one, and its spread (Condon 1984; Zajacek+ 2019)."""

NVSS_LIST_EXCESS = 1.027
NVSS_LIST_ERROR = 0.03
VLA_LIST_ERROR = 0.05
PACKAGED_LIMIT_JY = 0.05

_MATCH_ARCSEC = 15.0
_SAME_FLUX = 0.2

# Perley & Butler (2017), table 6: log10 S(Jy) = sum a_i (log10 f_GHz)^i, by VLA calibrator (J2000) name
PERLEY_BUTLER = {
    "1331+305": ("3C286", (1.2481, -0.4507, -0.1798, 0.0357)),
    "0137+331": ("3C48", (1.3253, -0.7553, -0.1914, 0.0498)),
    "0542+498": ("3C147", (1.4516, -0.6961, -0.2007, 0.0640, -0.0464, 0.0289)),
    "0521+166": ("3C138", (1.0088, -0.4981, -0.1552, -0.0102, 0.0223)),
}

_CURVATURE_ERROR = {"P-L-C": 0.03, "L-C": 0.08, "L-X": 0.11, "P-L": 0.14}
"""How far the index that these bands give lies from that at 1.4 GHz, rms over the four standard calibrators."""


def perley_butler_spectrum(name: str, frequencies_hz: NDArray[np.float64]) -> NDArray[np.float64]:
    """Flux densities (Jy) of a standard calibrator, by its J2000 name, at frequencies in Hz."""
    log_f = np.log10(np.asarray(frequencies_hz) / 1e9)
    _, coefficients = PERLEY_BUTLER[name]
    return np.asarray(10 ** np.polynomial.polynomial.polyval(log_f, coefficients))


def perley_butler_flux(name: str, frequency_ghz: float) -> float:
    """Flux density (Jy) of a standard calibrator by its J2000 name."""
    return float(perley_butler_spectrum(name, np.array([frequency_ghz * 1e9]))[0])


def standard_calibrator(name: str) -> str | None:
    """J2000 name in `PERLEY_BUTLER` of a source called 1331+305, J1331+305 or 3C286; None if it is not a standard."""
    plain = name.replace(" ", "").upper()
    known = {also: own for own, (also, _) in PERLEY_BUTLER.items()}
    known |= {form: own for own in PERLEY_BUTLER for form in (own, f"J{own}")}
    return known.get(plain)


def _packaged(name: str) -> pd.DataFrame:
    with (files("dsa110_contimg") / "data" / name).open("rb") as stream:
        return pd.read_csv(stream, compression="gzip" if name.endswith(".gz") else None)


@cache
def vla_calibrators() -> pd.DataFrame:
    """VLA calibrators with an L-band flux: the columns of `COLUMNS` plus ``alt_name``; fluxes of the list itself.

    The spectral index is that at L band through P, L and C band, else between two of the bands.
    """
    table = _vla_table(_packaged_vla())
    return table.loc[table["flux_jy"].notna(), [*COLUMNS, "alt_name"]].reset_index(drop=True)


def _packaged_vla() -> vla.VlaList:
    with as_file(files("dsa110_contimg") / "data" / "vla_calibrators.sqlite") as path:
        return vla.read(path)


def _vla_table(listed: vla.VlaList) -> pd.DataFrame:
    """Every source of the VLA list (`CALIBRATOR_COLUMNS`), with Perley & Butler's values for the standard ones."""
    table = listed.sources.set_index("name")
    flux = listed.bands.pivot(index="name", columns="band", values="flux_jy").reindex(table.index, columns=list("PLCX"))
    table["flux_jy"], table["flux_error_jy"], table["origin"] = flux["L"], VLA_LIST_ERROR * flux["L"], "VLA"
    table = table.join(_spectral_indices(flux))
    codes = (listed.bands["band"] + ":" + listed.bands["quality"]).groupby(listed.bands["name"]).agg(" ".join)
    table["codes"] = codes.reindex(table.index).fillna("")
    for name in table.index.intersection(list(PERLEY_BUTLER)):
        exact = perley_butler_flux(name, 1.4)
        slope = np.log(perley_butler_flux(name, 1.5) / perley_butler_flux(name, 1.31)) / np.log(1.5 / 1.31)
        table.loc[name, ["flux_jy", "flux_error_jy"]] = exact, 0.01 * exact
        table.loc[name, ["spectral_index", "spectral_index_error"]] = slope, 0.01
        table.loc[name, ["origin", "index_origin"]] = "PB2017", "PB2017"
    text = ["alt_name", "position_code"]
    table[text] = table[text].fillna("")
    return table.reset_index()[list(CALIBRATOR_COLUMNS)]


def _spectral_indices(flux: pd.DataFrame) -> pd.DataFrame:
    """Index at L band, its error and where it is from, from fluxes by band (columns P L C X, NaN where not known).

    Through P, L and C goes a parabola in log S against log f, whose slope at L band is taken; through two bands a line.
    """
    log_f = {band: np.log(vla.BAND_GHZ[band]) for band in "PLCX"}
    log_s = np.log(flux)
    left, right = log_f["P"] - log_f["L"], log_f["C"] - log_f["L"]
    # the derivative, at L band, of Lagrange's polynomials through the three bands
    slopes = {
        "P-L-C": {
            "P": -right / (left * (left - right)),
            "L": -(left + right) / (left * right),
            "C": -left / (right * (right - left)),
        }
    }
    for pair in ("L-C", "L-X", "P-L"):
        low, high = pair.split("-")
        slopes[pair] = {low: -1 / (log_f[high] - log_f[low]), high: 1 / (log_f[high] - log_f[low])}
    found = pd.DataFrame(
        {"spectral_index": ASSUMED_INDEX, "spectral_index_error": ASSUMED_INDEX_ERROR, "index_origin": "assumed"},
        index=flux.index,
    )
    value = {bands: sum(weight * log_s[band] for band, weight in by.items()) for bands, by in slopes.items()}
    for bands in reversed(_CURVATURE_ERROR):
        error = np.hypot(VLA_LIST_ERROR * np.linalg.norm(list(slopes[bands].values())), _CURVATURE_ERROR[bands])
        known = value[bands].notna()
        found.loc[known, "spectral_index"] = value[bands][known]
        found.loc[known, ["spectral_index_error", "index_origin"]] = error, bands
    found["index_lc"] = value["L-C"].fillna(value["L-X"])
    return found


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
    # of two components within a beam one may be polarised: a flux that is far from the listed one is the other's
    ratio = exact["flux_1400_jy"].to_numpy()[nearest] / table["flux_jy"].to_numpy()
    hit = (distance < np.radians(_MATCH_ARCSEC / 3600)) & (np.abs(ratio - 1.0) < _SAME_FLUX)
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
    # the list was cut before its fluxes were divided: below the limit it holds but a part of what there is
    table = table[table["flux_jy"] >= PACKAGED_LIMIT_JY]
    return pd.concat([table[list(COLUMNS)], rest[list(COLUMNS)]], ignore_index=True)


@cache
def packaged_calibrators() -> pd.DataFrame:
    """Those packaged sources that are VLA calibrators (their names are ``J`` and the list's)."""
    table = packaged_catalog()
    return table[table["name"].isin("J" + vla_calibrators()["name"])].reset_index(drop=True)


@cache
def calibrators(path: Path | None = None) -> pd.DataFrame:
    """All known calibrators, also those without a flux at 1.4 GHz, which is NaN then.

    Fluxes of the packaged list and of a list in its form come from the best origin, as the packaged catalogue's. Those
    of a user's own plain list are as it says.

    Parameters
    ----------
    path : Path, optional
        Instead of the packaged VLA list: SQLite as `io.vla` writes it, the VLA list as CSV (a row a source and band),
        or any list of sources with their fluxes at 1.4 GHz (`read_catalog`; in SQLite the table or view
        ``vla_20cm``, or the only one that has ``name``, ``ra_deg``, ``dec_deg`` and ``flux_jy``).

    Returns
    -------
    DataFrame
        `CALIBRATOR_COLUMNS`; names of the VLA list as ``J1331+305``.

    Raises
    ------
    CatalogError
        The list cannot be used.
    """
    if path is None:
        return _with_best_fluxes(_packaged_vla())
    if not path.is_file():
        raise CatalogError("The list of calibrators does not exist", path=path, expected="a CSV or SQLite file")
    if vla.is_database(path):
        columns = vla.tables(path)
        if {"sources", "bands"} <= set(columns):
            return _with_best_fluxes(vla.read(path))
        return _plain_calibrators(_checked(vla.read_table(path, _plain_table(columns, path)), path))
    if path.suffix.lower() == ".csv" and "band" in pd.read_csv(path, nrows=0):
        return _with_best_fluxes(vla.from_table(path))
    return _plain_calibrators(read_catalog(path))


def _with_best_fluxes(listed: vla.VlaList) -> pd.DataFrame:
    table = _vla_table(listed)
    nearest, distance = _nearest(table, _nvss())
    hit = (distance < np.radians(_MATCH_ARCSEC / 3600)) & (table["origin"] != "PB2017").to_numpy()
    for column in ("flux_jy", "flux_error_jy", "origin"):
        table.loc[hit, column] = _nvss()[column].to_numpy()[nearest[hit]]
    table["name"] = "J" + table["name"]
    return table


def _plain_table(columns: Mapping[str, Sequence[str]], path: Path) -> str:
    """The table or view of a user's database that holds the sources."""
    fit = [name for name, has in columns.items() if {"name", "ra_deg", "dec_deg", "flux_jy"} <= set(has)]
    if "vla_20cm" in fit or len(fit) == 1:
        return "vla_20cm" if "vla_20cm" in fit else fit[0]
    raise CatalogError(
        "It cannot be told which table of the database is the list of calibrators",
        path=path,
        found="; ".join(f"{name} ({', '.join(has)})" for name, has in columns.items()) or "no tables",
        expected="vla_20cm, or one table with name, ra_deg, dec_deg and flux_jy",
    )


def _plain_calibrators(table: pd.DataFrame) -> pd.DataFrame:
    origin = np.where(table["spectral_index_error"] == ASSUMED_INDEX_ERROR, "assumed", "user")
    return table.assign(alt_name="", position_code="", codes="", index_origin=origin, index_lc=np.nan)


def describe(path: Path | None = None) -> str:
    """One line for provenance: which source catalogue, from where its fluxes are, and how deep it goes.

    Parameters
    ----------
    path : Path, optional
        A user's own list; by default the packaged catalogue.
    """
    if path is None:
        return f"packaged: PB2017, Taylor 2009, NVSS / 1.027, VLA; complete to {PACKAGED_LIMIT_JY * 1e3:.0f} mJy"
    table = read_catalog(path)
    faintest = table["flux_jy"].min() * 1e3
    return f"{path}: {len(table)} sources, the faintest {faintest:.3g} mJy; how complete, it does not say"


def _iau_names(prefix: str, table: pd.DataFrame) -> list[str]:
    """``NVSS J052109+163822``: truncated, not rounded, as the IAU asks."""
    ra_s = np.floor(table["ra_deg"].to_numpy(float) % 360 / 15 * 3600).astype(int)
    dec = table["dec_deg"].to_numpy(float)
    dec_s = np.floor(np.abs(dec) * 3600).astype(int)
    # all at once, as characters: a format of each takes longer than reading the list
    numbers = [n // step % base for n in (ra_s, dec_s) for step, base in ((3600, 100), (60, 60), (1, 60))]
    digits = [ord("0") + n // tens % 10 for n in numbers for tens in (10, 1)]
    letters = [np.full(len(table), ord(letter)) for letter in f"{prefix} J"]
    sign = np.where(dec < 0, ord("-"), ord("+"))
    names = np.stack([*letters, *digits[:6], sign, *digits[6:]], axis=-1).astype(np.uint32)
    return list(names.view(f"U{names.shape[1]}")[:, 0].tolist())


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
