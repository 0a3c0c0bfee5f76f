"""What a change of the calibration registry does to rows and windows, inside the caller's transaction."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from dsa110_contimg.exceptions import StateError
from dsa110_contimg.records import CalTable
from dsa110_contimg.state.tables import caltable_windows, caltables, now
from dsa110_contimg.state.validity import Window, without

LEFT_OUT = "the set was solved anew without it"
JUDGED = "judged: "
"""How the reason of tables begins that the pipeline itself has found bad: judged good later, they come back."""
"""Why a table is retired that nobody has retired: it comes back when it is solved again."""


def moments(connection: sa.Connection) -> Iterator[datetime]:
    """Times, each later than all in the registry whatever the clock has done; other changes wait from the first on."""
    if connection.dialect.name == "postgresql":
        # SQLite's writers are alone anyway; here, two that claim the same window must not pass each other
        connection.execute(sa.text("LOCK TABLE caltable_windows IN SHARE ROW EXCLUSIVE MODE"))
    table = caltable_windows.c
    latest = [sa.func.max(c) for c in (table.opened_at, table.closed_at, caltables.c.registered_at)]
    seen = [connection.execute(sa.select(value)).scalar() for value in latest]
    tick = timedelta(microseconds=1)
    moment = max([now(), *(last + tick for last in seen if last is not None)])
    while True:
        yield moment
        moment += tick


def same_row(table: sa.Table, row: Mapping[str, Any]) -> sa.ColumnElement[bool]:
    return sa.and_(table.c.path == row["path"], table.c.registered_at == row["registered_at"])


def newest(connection: sa.Connection, path: Path) -> dict[str, Any] | None:
    query = sa.select(caltables).where(caltables.c.path == path).order_by(caltables.c.registered_at.desc()).limit(1)
    row = connection.execute(query).mappings().first()
    return None if row is None else dict(row)


def members(connection: sa.Connection, which: str | Path) -> list[dict[str, Any]]:
    """The newest rows of a set, or of a path, by registration."""
    column = caltables.c.path if isinstance(which, Path) else caltables.c.set_name
    query = sa.select(caltables).where(column == which).order_by(caltables.c.registered_at, caltables.c.path)
    rows = {row["path"]: dict(row) for row in connection.execute(query).mappings()}
    if not rows:
        what = "table" if isinstance(which, Path) else "set of tables"
        raise StateError(f"The registry does not have this {what}", found=str(which))
    return list(rows.values())


def close(connection: sa.Connection, row: Mapping[str, Any], moment: datetime) -> None:
    still = sa.and_(same_row(caltable_windows, row), caltable_windows.c.closed_at.is_(None))
    connection.execute(sa.update(caltable_windows).where(still).values(closed_at=moment))


def end(connection: sa.Connection, row: Mapping[str, Any], moment: datetime, status: str, reason: str) -> None:
    """Make a table retired or failed."""
    close(connection, row, moment)
    change = {"status": status, "reason": reason, "retired_at": moment}
    connection.execute(sa.update(caltables).where(same_row(caltables, row)).values(change))


def end_rest(connection: sa.Connection, tables: Iterable[CalTable], run_label: str, moment: datetime) -> None:
    """Retire what is active in the sets of some tables, of a run, and is none of them."""
    given, column = list(tables), caltables.c
    query = sa.select(caltables).where(
        column.status == "active",
        column.run_label == run_label,
        column.set_name.in_({table.set_name for table in given}),
        column.path.not_in([table.path for table in given]),
    )
    for row in [dict(row) for row in connection.execute(query).mappings()]:
        end(connection, row, moment, "retired", LEFT_OUT)


def _open(connection: sa.Connection, row: Mapping[str, Any], window: Window, moment: datetime) -> None:
    values = {name: row[name] for name in ("path", "registered_at")}
    values |= {"valid_from": window.begin, "valid_to": window.end, "opened_at": moment}
    connection.execute(sa.insert(caltable_windows).values(values))


def claim(connection: sa.Connection, row: Mapping[str, Any], moment: datetime) -> None:
    """Give a table its whole window; others of its set, kind and label keep what is left of theirs, or are retired."""
    claimed, table = Window(row["valid_from"], row["valid_to"]), caltables.c
    query = sa.select(caltables).where(
        table.status == "active",
        *(table[name] == row[name] for name in ("set_name", "kind", "run_label")),
        sa.not_(same_row(caltables, row)),
    )
    for other in [dict(row) for row in connection.execute(query).mappings()]:
        still = caltable_windows.c.closed_at.is_(None)
        held = sa.select(caltable_windows).where(same_row(caltable_windows, other), still)
        before = [Window(w["valid_from"], w["valid_to"]) for w in connection.execute(held).mappings()]
        left = [piece for window in before for piece in without(window, claimed)]
        if left == before:
            continue
        close(connection, other, moment)
        for piece in left:
            _open(connection, other, piece, moment)
        if before and not left:
            end(connection, other, moment, "retired", f"superseded by {row['path']}")
    _open(connection, row, claimed, moment)
