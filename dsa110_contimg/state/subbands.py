"""The index of subband files: what the header of each said, so that a store of thousands is read once.

A file is known by its path, its size and its time of modification, and by the code that read it: a file that was
written again, or that newer code may understand otherwise, is read again. Files that cannot be used are kept too, with
the reason. `io.inventory` asks and tells; nothing here opens a file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from dsa110_contimg.records import IndexedFile
from dsa110_contimg.state.database import Database
from dsa110_contimg.state.tables import now, record_row, subband_files

_FEW = 400
"""Paths asked for in one query; engines limit the number of parameters."""
_FIELDS = tuple(name for name in subband_files.c.keys() if name not in ("group_id", "registered_at"))  # noqa: SIM118


class SubbandIndex:
    """The index in one database.

    Parameters
    ----------
    database : Database
    """

    def __init__(self, database: Database) -> None:
        self.database = database

    def known(self, paths: Sequence[Path]) -> dict[Path, IndexedFile]:
        """What is known of files, by path; whether it still holds, the caller sees by size, time and reader."""
        columns = [subband_files.c[name] for name in _FIELDS]
        found: dict[Path, IndexedFile] = {}
        with self.database.read() as connection:
            for first in range(0, len(paths), _FEW):
                some = subband_files.c.path.in_(paths[first : first + _FEW])
                query = sa.select(*columns).where(some, subband_files.c.reader.is_not(None))
                found |= {
                    row[0]: IndexedFile(**dict(zip(_FIELDS, row, strict=True))) for row in connection.execute(query)
                }
        return found

    def remember(self, files: Sequence[IndexedFile]) -> None:
        """Keep what was read, in one transaction.

        A file that changed since the queue was given its group leaves that group: the queue then sees that it is not
        the file it knew.
        """
        if not files:
            return
        moment = now()
        rows = [record_row(file) | {"registered_at": moment} for file in files]
        with self.database.write() as connection:
            store(connection, rows)


def store(connection: sa.Connection, rows: Iterable[Mapping[str, Any]]) -> None:
    """Insert rows of ``subband_files``, or replace those of the same paths, all in one statement.

    Rows name the same columns. What is not given stays; but a file that is no longer the same has lost its group and is
    no longer known to any reader.
    """
    given = [dict(row) for row in rows]
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    insert = dialect.insert(subband_files)
    new, old = insert.excluded, subband_files.c
    same = sa.and_(new.size_bytes == old.size_bytes, new.mtime_ns == old.mtime_ns, new.subband == old.subband)
    values: dict[str, Any] = {name: new[name] for name in given[0] if name != "path"}
    for name in ("group_id", "reader"):
        values.setdefault(name, sa.case((same, old[name]), else_=sa.null()))
    connection.execute(insert.on_conflict_do_update(index_elements=[old.path], set_=values), given)
