"""The NRAO VLA calibrator list as SQLite: built from its table by a command, read-only ever after.

    python -m dsa110_contimg.io.vla TABLE.csv LIST.sqlite

A flux density that the list does not give (it writes such a one as empty or as zero) is NULL: never zero, and never
left out, so that a search can say that a calibrator was passed over for want of it. The source is kept in the database.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sqlite3
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from dsa110_contimg.exceptions import CatalogError, ContimgError, OutputError

BAND_GHZ = {"P": 0.325, "L": 1.4, "C": 4.86, "X": 8.46, "U": 14.94, "K": 22.46, "Q": 43.34}
"""Frequencies of the VLA's bands before its upgrade, at which the list was measured."""
ARRAYS = "ABCD"
_SAME_ARCSEC = 2.0

PROVENANCE = {
    "title": "NRAO VLA calibrator list",
    "source": "VLA Calibrator Manual, National Radio Astronomy Observatory (Perley & Taylor)",
    "url": "https://science.nrao.edu/facilities/vla/observing/callist",
    "licence": "facts (positions, flux densities, quality codes) gathered from the manual; cite it where they are used",
    "units": "ra_deg, dec_deg: deg, J2000; flux_jy: Jy at the band's frequency, NULL where it is not known",
    "quality": "one code for each array A B C D: P closure errors below 3 %, S 3-10 %, W more than 10 %, X do not use, "
    "? unknown",
}

_SCHEMA = """
CREATE TABLE provenance (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE sources (
    name TEXT PRIMARY KEY, b1950 TEXT, alt_name TEXT, ra_deg REAL NOT NULL, dec_deg REAL NOT NULL, position_code TEXT
) WITHOUT ROWID;
CREATE TABLE bands (
    name TEXT NOT NULL REFERENCES sources (name), band TEXT NOT NULL, flux_jy REAL CHECK (flux_jy > 0),
    quality TEXT NOT NULL, PRIMARY KEY (name, band)
) WITHOUT ROWID;
"""
_SOURCE_COLUMNS = ["name", "b1950", "alt_name", "ra_deg", "dec_deg", "position_code"]
_BAND_COLUMNS = ["name", "band", "flux_jy", "quality"]


class VlaList(NamedTuple):
    """The list as two tables.

    Attributes
    ----------
    sources : name (J2000, ``1331+305``), b1950, alt_name, ra_deg, dec_deg, position_code.
    bands : name, band, flux_jy (NaN where not known), quality (a code for each of the arrays A B C D).
    """

    sources: pd.DataFrame
    bands: pd.DataFrame


def from_table(path: Path) -> VlaList:
    """The list from a table with a row a source and band.

    Raises
    ------
    CatalogError
        Unreadable, a column missing, or a position that is none.
    """
    try:
        rows = pd.read_csv(path, dtype={"name": str, "b1950": str, "alt_name": str})
    except (OSError, ValueError) as error:
        raise CatalogError("The calibrator list cannot be read", path=path, found=error) from error
    wanted = [*_SOURCE_COLUMNS, "band", "flux_jy", *(f"quality_{array}" for array in ARRAYS)]
    missing = [column for column in wanted if column not in rows]
    if missing:
        raise CatalogError(
            f"The calibrator list lacks the columns {', '.join(missing)}", path=path, found=list(rows), expected=wanted
        )
    if not (rows["ra_deg"].between(0, 360) & rows["dec_deg"].between(-90, 90)).all():
        raise CatalogError("The calibrator list has a position that is none", path=path, expected="degrees")
    _tell_apart(rows)
    sources = rows.drop_duplicates("name")[_SOURCE_COLUMNS].sort_values("name", ignore_index=True)
    rows["flux_jy"] = rows["flux_jy"].where(rows["flux_jy"] > 0)
    # some lines lack a code; the list's own sign for "not known" keeps their places
    rows["quality"] = rows[[f"quality_{array}" for array in ARRAYS]].fillna("?").astype(str).sum(axis=1).str.upper()
    bands = rows.loc[rows["band"].isin(list(BAND_GHZ)), _BAND_COLUMNS].drop_duplicates(["name", "band"])
    return VlaList(sources, bands.sort_values(["name", "band"], ignore_index=True))


def _tell_apart(rows: pd.DataFrame) -> None:
    """Give the second of two sources of one name, in place, a name of its own.

    Four names of the list are given twice: two are sources 6 arcmin apart, two are one source from two surveys.
    """
    first = rows.groupby("name")[["ra_deg", "dec_deg"]].transform("first")
    cosine = np.cos(np.radians(first["dec_deg"]))
    apart = np.hypot((rows["ra_deg"] - first["ra_deg"]) * cosine, rows["dec_deg"] - first["dec_deg"]) * 3600
    rows.loc[apart >= _SAME_ARCSEC, "name"] += " (2)"


def build(table: Path, target: Path) -> int:
    """Write the list as SQLite, beside its place and then renamed.

    Parameters
    ----------
    table : CSV with a row a source and band: name, b1950, alt_name, ra_deg, dec_deg, position_code, band, quality_A to
        quality_D, flux_jy.
    target : the database; one that is there is replaced.

    Returns
    -------
    Number of sources.

    Raises
    ------
    CatalogError, OutputError
        The table cannot be used, or the database cannot be written.
    """
    listed = from_table(table)
    provenance = PROVENANCE | {
        "table": table.name,
        "table_sha256": hashlib.sha256(table.read_bytes()).hexdigest(),
        "sources": str(len(listed.sources)),
        "sources_with_l_band_flux": str(listed.bands.loc[listed.bands["band"] == "L", "flux_jy"].notna().sum()),
    }
    beside = target.with_name(f".{target.name}.{os.getpid()}.new")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(beside)) as connection:
            connection.executescript(_SCHEMA)
            connection.executemany("INSERT INTO provenance VALUES (?, ?)", sorted(provenance.items()))
            for name, rows in (("sources", listed.sources), ("bands", listed.bands)):
                rows.to_sql(name, connection, if_exists="append", index=False)
            connection.commit()
            connection.execute("VACUUM")
        with beside.open("rb") as stream:
            os.fsync(stream.fileno())
        beside.replace(target)
    except (OSError, sqlite3.Error) as error:
        raise OutputError("The calibrator list cannot be written", path=target, found=error) from error
    finally:
        beside.unlink(missing_ok=True)
    return len(listed.sources)


def is_database(path: Path) -> bool:
    """Whether a file is an SQLite database, by its first bytes."""
    with path.open("rb") as stream:
        return stream.read(16) == b"SQLite format 3\x00"


def tables(path: Path) -> dict[str, list[str]]:
    """Columns of each table and view of a database.

    Raises
    ------
    CatalogError
        Not a database, or a damaged one.
    """
    names = _rows(path, "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') ORDER BY name")["name"]
    return {name: list(_rows(path, "SELECT name FROM pragma_table_info(?)", (name,))["name"]) for name in names}


def read(path: Path) -> VlaList:
    """The list from a database that `build` wrote."""
    sources = _rows(path, f"SELECT {', '.join(_SOURCE_COLUMNS)} FROM sources ORDER BY name")
    return VlaList(sources, _rows(path, f"SELECT {', '.join(_BAND_COLUMNS)} FROM bands ORDER BY name, band"))


def read_table(path: Path, name: str) -> pd.DataFrame:
    """All of one table or view."""
    quoted = name.replace('"', '""')
    return _rows(path, f'SELECT * FROM "{quoted}"')


def provenance(path: Path) -> dict[str, str]:
    """Where the list comes from, what it may be used for, and what is in it."""
    rows = _rows(path, "SELECT key, value FROM provenance")
    return dict(zip(rows["key"], rows["value"], strict=True))


def _rows(path: Path, query: str, values: Sequence[str] = ()) -> pd.DataFrame:
    # immutable: a packaged file lies where nobody may write, and SQLite would want to leave a lock beside it
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as connection:
            return pd.read_sql_query(query, connection, params=list(values))
    except (sqlite3.Error, pd.errors.DatabaseError) as error:
        raise CatalogError("The calibrator list cannot be read", path=path, found=error) from error


def main(words: Sequence[str] | None = None) -> int:
    """Build the database; 1 if it cannot be."""
    parser = argparse.ArgumentParser(
        prog="python -m dsa110_contimg.io.vla", description="Write the VLA calibrator list as SQLite."
    )
    parser.add_argument("table", type=Path, help="CSV with a row a source and band")
    parser.add_argument("target", type=Path, help="the database")
    given = parser.parse_args(words)
    try:
        count = build(given.table, given.target)
    except ContimgError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{count} sources in {given.target}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
