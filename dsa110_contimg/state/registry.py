"""The calibration registry: which tables there are, and which of them hold for a time.

A table holds for the half-open window [valid_from, valid_to). Of several that hold, the one solved nearest in time is
applied; of none, there is no default: the error says for each kind what was looked for and what is there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa

from dsa110_contimg.exceptions import NoValidCalibrationError, StateError
from dsa110_contimg.records import CalTable
from dsa110_contimg.state.database import Database, upsert
from dsa110_contimg.state.tables import TABLE_STATUSES, caltables, now, plain, record_row


class Registry:
    """The calibration tables in one database."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def register(self, tables: Iterable[CalTable], *, status: str = "active", run_label: str = "") -> None:
        """Enter tables, all or none.

        A table that is already there with the same values keeps its status: registering again what a person has
        retired does not bring it back.

        Parameters
        ----------
        status : str
            ``active``, or ``failed`` for tables that are kept to be looked at and never applied.
        run_label : str
            Whose run solved them. Those of a label serve runs of that label only.

        Raises
        ------
        StateError
            If a table's validity window is empty, or the status is not one.
        """
        _check_status(status)
        with self.database.write() as connection:
            for table in tables:
                if not table.valid_from < table.valid_to:
                    raise StateError(
                        "A calibration table is valid at no time",
                        path=table.path,
                        found=f"[{table.valid_from}, {table.valid_to})",
                        expected="valid_from < valid_to (MJD)",
                    )
                values = record_row(table) | {"run_label": run_label}
                found = (
                    connection.execute(sa.select(caltables).where(caltables.c.path == table.path)).mappings().first()
                )
                if found is None or not all(_same(found[name], value) for name, value in values.items()):
                    upsert(connection, caltables, values | {"status": status, "registered_at": now()})

    def set_status(self, set_name: str, status: str) -> int:
        """Change the status of all tables of a set (``retired``: no longer applied).

        Returns
        -------
        int
            How many tables the set has.

        Raises
        ------
        StateError
            If there is no such set, or the status is not one.
        """
        _check_status(status)
        with self.database.write() as connection:
            changed = connection.execute(
                sa.update(caltables).where(caltables.c.set_name == set_name).values(status=status)
            ).rowcount
            if not changed:
                raise StateError("The registry does not have this set of tables", found=set_name)
            return changed

    def valid_tables(self, mjd: float, kinds: Sequence[str], *, run_label: str = "") -> tuple[CalTable, ...]:
        """The tables to apply at a time: of each kind the active one nearest in time whose window holds it.

        Tables that are gone from the disk are passed over. Of two equally near, the one registered later is taken.
        A labelled run prefers its own tables and falls back on the pipeline's.

        Parameters
        ----------
        mjd : float
            Time of the observation (MJD UTC).
        kinds : sequence of str
            Kinds wanted, e.g. ``("B", "G")``.

        Returns
        -------
        tuple of CalTable
            One of each kind, in order of application.

        Raises
        ------
        NoValidCalibrationError
            If a kind has none, saying for each such kind what there is instead.
        """
        query = sa.select(caltables).where(
            caltables.c.kind.in_(tuple(kinds)), caltables.c.run_label.in_(("", run_label))
        )
        with self.database.read() as connection:
            rows = [dict(row) for row in connection.execute(query).mappings()]
        chosen, faults = [], []
        for kind in dict.fromkeys(kinds):
            of_kind = [row for row in rows if row["kind"] == kind]
            holding = [row for row in of_kind if _holds(row, mjd) and row["path"].exists()]
            if holding:
                chosen.append(min(holding, key=lambda row: _preference(row, mjd, run_label)))
            else:
                faults.append(f"{kind}: {_what_there_is(of_kind, mjd)}")
        if faults:
            raise NoValidCalibrationError(
                f"No valid calibration for MJD {mjd:.5f}",
                found="; ".join(faults),
                expected=f"an active table of each kind ({', '.join(dict.fromkeys(kinds))}) whose validity holds it",
            )
        return tuple(_table(row) for row in sorted(chosen, key=lambda row: (row["apply_order"], row["kind"])))

    def list_tables(self, kind: str | None = None, *, run_label: str | None = "") -> list[dict[str, Any]]:
        """Rows of the registry by time, JSON-ready; ``run_label=None`` lists every run's."""
        query = sa.select(caltables).order_by(caltables.c.mjd, caltables.c.apply_order, caltables.c.path)
        if kind is not None:
            query = query.where(caltables.c.kind == kind)
        if run_label is not None:
            query = query.where(caltables.c.run_label == run_label)
        with self.database.read() as connection:
            rows = connection.execute(query).mappings().all()
        return [plain({"group" if k == "group_id" else k: v for k, v in row.items()}) for row in rows]


def _same(stored: Any, given: Any) -> bool:
    """Equality under which a missing number (NaN) equals itself."""
    return bool(stored == given or (stored != stored and given != given))


def _check_status(status: str) -> None:
    if status not in TABLE_STATUSES:
        raise StateError(
            "Not a status of a calibration table", found=repr(status), expected=f"one of {', '.join(TABLE_STATUSES)}"
        )


def _holds(row: dict[str, Any], mjd: float) -> bool:
    return row["status"] == "active" and bool(row["valid_from"] <= mjd < row["valid_to"])


def _preference(row: dict[str, Any], mjd: float, run_label: str) -> tuple[Any, ...]:
    return (row["run_label"] != run_label, abs(row["mjd"] - mjd), -row["registered_at"].timestamp(), str(row["path"]))


def _table(row: dict[str, Any]) -> CalTable:
    extra = ("status", "run_label", "registered_at")
    return CalTable(**{name: value for name, value in row.items() if name not in extra})


def _what_there_is(rows: list[dict[str, Any]], mjd: float) -> str:
    """Why none of the tables of a kind serves, in a few words."""
    active = [row for row in rows if row["status"] == "active"]
    if not rows:
        return "no table registered"
    if not active:
        return f"{len(rows)} registered, all retired or failed"
    gone = [row for row in active if _holds(row, mjd)]
    if gone:
        return f"{len(gone)} valid but no longer on disk, such as {gone[0]['path']}"
    near = min(active, key=lambda row: max(row["valid_from"] - mjd, mjd - row["valid_to"]))
    return (
        f"the nearest of {len(active)}, solved on {near['group_id']}, "
        f"is valid for MJD [{near['valid_from']:.5f}, {near['valid_to']:.5f})"
    )
