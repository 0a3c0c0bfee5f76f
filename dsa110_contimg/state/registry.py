"""The calibration registry: which tables there are, which hold for a time, and which held when an old run was made.

A table is in force in half-open windows [valid_from, valid_to) of MJD. Within a set, windows of one kind never overlap:
a newer solution takes its window from the older ones, which keep what is left of theirs or are retired. Between sets,
the table solved nearest in time is applied; where there is none there is no default: the error says for each kind what
was looked for and what is there. Nothing is deleted: a window is closed at a time, so that the tables of an old run are
found again with ``as_of``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sa

from dsa110_contimg.exceptions import CorruptFileError, NoValidCalibrationError, StateError
from dsa110_contimg.records import CalTable
from dsa110_contimg.state import sets
from dsa110_contimg.state.claims import (
    JUDGED,
    LEFT_OUT,
    claim,
    close,
    end,
    end_rest,
    members,
    moments,
    newest,
    same_row,
)
from dsa110_contimg.state.database import Database
from dsa110_contimg.state.tables import TABLE_STATUSES, caltable_windows, caltables, plain, record_row
from dsa110_contimg.state.validity import Window

_RECORD = tuple(CalTable.__dataclass_fields__)


class Bracket(NamedTuple):
    """The solutions before and after a time; None where there is none on that side."""

    before: CalTable | None
    after: CalTable | None


@dataclass(frozen=True)
class _Entry:
    """A row of ``caltables`` with the windows in which it is in force."""

    row: dict[str, Any]
    windows: tuple[Window, ...]

    @property
    def table(self) -> CalTable:
        return CalTable(**{name: self.row[name] for name in _RECORD})

    def holds(self, mjd: float) -> bool:
        return any(window.holds(mjd) for window in self.windows)

    def on_disk(self) -> bool:
        """Whether the path still holds this solution, and not another one or none."""
        known = self.row["content_hash"]
        return self.row["path"].is_dir() and (not known or content_hash(self.row["path"]) == known)


class Registry:
    """The calibration tables in one database."""

    def __init__(self, database: Database) -> None:
        self.database = database

    # ---- changes --------------------------------------------------------------------------------------------------

    def register(
        self,
        tables: Iterable[CalTable],
        *,
        status: str = "active",
        run_label: str = "",
        parents: Sequence[Path] = (),
        quality: Mapping[Path, Mapping[str, Any]] | None = None,
        reason: str = "",
        whole_sets: bool = False,
    ) -> None:
        """Enter tables, all or none, and take their windows from older tables of their set and kind.

        A table that is already there, with the same values and content, keeps its status: registering again what a
        person has retired or failed does not bring it back (`restore` does the former); what the pipeline had judged
        bad (`claims.JUDGED`) and now registers as active comes back. Under a path that was solved anew, the earlier
        solution is retired.

        Parameters
        ----------
        status : str
            ``active``, or ``failed`` for tables that are kept to be looked at and never applied.
        run_label : str
            Whose run solved them. Those of a label serve runs of that label only, and supersede only its own.
        parents : sequence of Path
            Tables that were applied when these were solved.
        quality : mapping of path to mapping, optional
            Figures of quality by table, kept as JSON.
        reason : str
            Why they have failed.
        whole_sets : bool
            These are all there is of their sets: what else is active in them was solved before, and is retired.

        Raises
        ------
        StateError
            If a table's validity window is empty, a path is given twice, or the status is not one.
        CorruptFileError
            If a table is not a directory that can be read.
        """
        _check_status(status)
        given = list(tables)
        _check_tables(given)
        hashes = {table.path: content_hash(table.path) for table in given}
        with self.database.write() as connection:
            times = moments(connection)
            if whole_sets:
                end_rest(connection, given, run_label, next(times))
            for moment, table in zip(times, given, strict=False):
                values = record_row(table) | {"run_label": run_label, "content_hash": hashes[table.path]}
                latest = newest(connection, table.path)
                if latest is not None and _is_known(latest, values) and not _comes_back(latest, status):
                    if status == "failed" and latest["status"] != "failed":
                        end(connection, latest, moment, "failed", reason)
                    continue
                if latest is not None and latest["status"] == "active":
                    end(connection, latest, moment, "retired", "solved anew under the same path")
                figures = dict((quality or {}).get(table.path, {}))
                more = {"parents": [str(p) for p in parents], "quality": figures, "reason": reason}
                row = values | more | {"status": status, "registered_at": moment}
                connection.execute(sa.insert(caltables).values(row))
                if status == "active":
                    claim(connection, row, moment)

    def retire(self, which: str | Path, reason: str = "") -> int:
        """Apply no longer the tables of a set, or the one at a path. Their windows do not pass to older tables.

        Returns
        -------
        int
            How many tables were active and are no longer.

        Raises
        ------
        StateError
            If there is neither such a set nor such a path.
        """
        with self.database.write() as connection:
            moment = next(moments(connection))
            active = [row for row in members(connection, which) if row["status"] == "active"]
            for row in active:
                end(connection, row, moment, "retired", reason)
        return len(active)

    def restore(self, which: str | Path) -> int:
        """Bring back retired tables, of a set or at a path, with their whole windows; failed ones stay failed.

        In the order in which they were registered, each as if it came in now: the last has its whole window.

        Raises
        ------
        StateError
            If there is neither such a set nor such a path.
        CorruptFileError
            If a table's content is no longer what was registered.
        """
        with self.database.write() as connection:
            times = moments(connection)
            back = [row for row in members(connection, which) if row["status"] != "failed"]
            for row in back:
                if not _Entry(row, ()).on_disk():
                    raise CorruptFileError(
                        "The calibration table is not what was registered",
                        path=row["path"],
                        found="another content" if row["path"].exists() else "nothing",
                        expected=f"content {row['content_hash'][:16]}",
                    )
            begun = next(times)
            for row in back:
                change = {"status": "active", "reason": "", "retired_at": None}
                connection.execute(sa.update(caltables).where(same_row(caltables, row)).values(change))
                close(connection, row, begun)
            for moment, row in zip(times, back, strict=False):
                claim(connection, row, moment)
        return len(back)

    def set_status(self, set_name: str, status: str) -> int:
        """Change the status of all tables of a set: ``retired`` and ``failed`` end them, ``active`` restores them.

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
        if status == "active":
            self.restore(set_name)
        with self.database.write() as connection:
            moment, rows = next(moments(connection)), members(connection, set_name)
            for row in rows:
                if status != "active" and row["status"] != status:
                    end(connection, row, moment, status, "")
        return len(rows)

    # ---- questions ------------------------------------------------------------------------------------------------

    def applylist(
        self, mjd: float, as_of: datetime | None = None, kinds: Sequence[str] | None = None, *, run_label: str = ""
    ) -> tuple[CalTable, ...]:
        """The tables to apply at a time, one of each kind: of those in force, the one solved nearest in time.

        Tables whose content is gone from the disk, or is no longer what was registered, are passed over. Of two
        equally near, the one registered later is taken. A labelled run prefers its own and falls back on the
        pipeline's.

        Parameters
        ----------
        mjd : float
            Time of the observation (MJD UTC).
        as_of : datetime, optional
            What would have been applied at that moment (aware); default: now.
        kinds : sequence of str, optional
            Kinds wanted, e.g. ``("B", "G")``; default: those of the set solved on a calibrator nearest in time.

        Returns
        -------
        tuple of CalTable
            One of each kind, in order of application.

        Raises
        ------
        NoValidCalibrationError
            If a kind has none, saying for each such kind what there is on either side.
        """
        entries = self._entries(as_of, run_label)
        wanted = tuple(dict.fromkeys(kinds)) if kinds is not None else sets.kinds_near(entries, mjd, run_label)
        if not wanted:
            raise NoValidCalibrationError(
                f"No valid calibration for MJD {mjd:.5f}",
                path=self.database.path,
                found="no table solved on a calibrator",
                expected="tables registered by `calibrate` or `dsa110 caltables discover`",
            )
        chosen, faults = [], []
        for kind in wanted:
            of_kind = [entry for entry in entries if entry.row["kind"] == kind]
            holding = sorted((e for e in of_kind if e.holds(mjd)), key=lambda e: sets.preference(e.row, mjd, run_label))
            usable = next((entry for entry in holding if entry.on_disk()), None)
            if usable is None:
                faults.append(f"{kind}: {sets.what_there_is(of_kind, mjd)}")
            else:
                chosen.append(usable)
        if faults:
            raise NoValidCalibrationError(
                f"No valid calibration for MJD {mjd:.5f}" + ("" if as_of is None else f" as of {as_of.isoformat()}"),
                found="; ".join(faults),
                expected=f"an active table of each kind ({', '.join(wanted)}) whose validity holds it",
            )
        chosen.sort(key=lambda entry: (entry.row["apply_order"], entry.row["kind"]))
        return tuple(entry.table for entry in chosen)

    def valid_tables(self, mjd: float, kinds: Sequence[str], *, run_label: str = "") -> tuple[CalTable, ...]:
        """The tables of some kinds to apply at a time, as things are now: `applylist` of just these kinds.

        Raises
        ------
        NoValidCalibrationError
            If a kind has none.
        """
        return self.applylist(mjd, None, kinds, run_label=run_label)

    def nearest(
        self, mjd: float, kind: str, *, as_of: datetime | None = None, run_label: str = "", within_days: float = 1.0
    ) -> tuple[CalTable, ...]:
        """All active tables of a kind solved on a calibrator within some days of a time, by time, valid or not.

        What holds between calibrators is learnt from all of them (`science.interpolation`).
        """
        entries = [
            entry
            for entry in self._entries(as_of, run_label)
            if entry.windows
            and entry.row["kind"] == kind
            and entry.row["calibrator"]
            and abs(entry.row["mjd"] - mjd) <= within_days
            and entry.on_disk()
        ]
        own = [entry for entry in entries if entry.row["run_label"] == run_label]
        return tuple(entry.table for entry in sorted(own or entries, key=lambda entry: entry.row["mjd"]))

    def bracketing(
        self, mjd: float, kind: str, *, as_of: datetime | None = None, run_label: str = "", within_days: float = 1.0
    ) -> Bracket:
        """The solutions of a kind nearest before and after a time, whether their windows hold it or not.

        Parameters
        ----------
        within_days : float
            How far away a solution may be on either side.

        Raises
        ------
        NoValidCalibrationError
            If there is none on either side.
        """
        tables = self.nearest(mjd, kind, as_of=as_of, run_label=run_label, within_days=within_days)
        if not tables:
            entries = [entry for entry in self._entries(as_of, run_label) if entry.row["kind"] == kind]
            raise NoValidCalibrationError(
                f"No solution of kind {kind} to interpolate from at MJD {mjd:.5f}",
                found=sets.what_there_is(entries, mjd),
                expected=f"an active table solved on a calibrator within {24 * within_days:g} h",
            )
        before = [table for table in tables if table.mjd <= mjd]
        after = [table for table in tables if table.mjd > mjd]
        return Bracket(before[-1] if before else None, after[0] if after else None)

    def for_target(
        self, mjd: float, *, run_label: str = ""
    ) -> tuple[tuple[CalTable, ...], list[tuple[CalTable, CalTable]]]:
        """Valid tables for a group without calibrator; and, if no gain is valid, solutions to interpolate from.

        The tables are of one set: bandpass (B, or BA and BP), delays (K) where it was solved on some, and gains (G, or
        GA). Of the solutions each is a gain with the amplitudes of its bandpass.

        Raises
        ------
        NoValidCalibrationError
            If no bandpass is valid, or there is neither a valid gain nor one to interpolate from.
        """
        found = sets.for_target(self._entries(None, run_label), mjd, run_label, within_days=1.0)
        return found.tables, list(found.around)

    def hashes(self, tables: Iterable[CalTable]) -> tuple[str, ...]:
        """Hashes of the content of registered tables, for the key of what is made with them.

        Raises
        ------
        StateError
            If a table is not registered.
        """
        found = []
        with self.database.read() as connection:
            for table in tables:
                row = newest(connection, table.path)
                if row is None:
                    raise StateError("The registry does not have this table", path=table.path)
                found.append(row["content_hash"] or content_hash(table.path))
        return tuple(found)

    def list_tables(
        self, kind: str | None = None, *, run_label: str | None = "", history: bool = False
    ) -> list[dict[str, Any]]:
        """Rows of the registry by time, JSON-ready, with the ``windows`` in which each is in force now.

        Parameters
        ----------
        run_label : str or None
            None lists every run's.
        history : bool
            Also solutions that another one has replaced under their path.
        """
        entries = self._entries(None, run_label)
        if not history:
            entries = list({entry.row["path"]: entry for entry in entries}.values())
        entries = [entry for entry in entries if kind is None or entry.row["kind"] == kind]
        entries.sort(key=lambda e: (e.row["mjd"], e.row["apply_order"], str(e.row["path"])))
        return [_listed(entry) for entry in entries]

    def show(self, path: Path) -> list[dict[str, Any]]:
        """All that is known of a table, JSON-ready: a row for each solution under its path, oldest first.

        Raises
        ------
        StateError
            If the registry does not have it.
        """
        found = [_listed(entry) for entry in self._entries(None, None) if entry.row["path"] == path]
        if not found:
            raise StateError("The registry does not have this table", path=path)
        return found

    def _entries(self, as_of: datetime | None, run_label: str | None) -> list[_Entry]:
        """All tables as they were at a moment, by registration."""
        if as_of is not None and as_of.tzinfo is None:
            raise StateError("A moment needs a zone", found=as_of.isoformat(), expected="an aware UTC datetime")
        rows = sa.select(caltables).order_by(caltables.c.registered_at, caltables.c.path)
        windows = sa.select(caltable_windows).order_by(caltable_windows.c.valid_from)
        if run_label is not None:
            rows = rows.where(caltables.c.run_label.in_(("", run_label) if run_label else ("",)))
        if as_of is None:
            windows = windows.where(caltable_windows.c.closed_at.is_(None))
        else:
            rows = rows.where(caltables.c.registered_at <= as_of)
            closed = caltable_windows.c.closed_at
            windows = windows.where(caltable_windows.c.opened_at <= as_of, sa.or_(closed.is_(None), closed > as_of))
        with self.database.read() as connection:
            held: dict[tuple[Path, datetime], list[Window]] = {}
            for row in connection.execute(windows).mappings():
                held.setdefault((row["path"], row["registered_at"]), []).append(
                    Window(row["valid_from"], row["valid_to"])
                )
            found = [dict(row) for row in connection.execute(rows).mappings()]
        return [_Entry(row, tuple(held.get((row["path"], row["registered_at"]), ()))) for row in found]


def content_hash(path: Path) -> str:
    """SHA-256 of the files of a table by relative name; casacore's lock files, which readers rewrite, are left out.

    Raises
    ------
    CorruptFileError
        If it is not a directory, or cannot be read.
    """
    if not path.is_dir():
        raise CorruptFileError(
            "A calibration table is not a directory",
            path=path,
            found="a file" if path.exists() else "nothing",
            expected="a directory that CASA has written",
        )
    digest = hashlib.sha256()
    try:
        for item in sorted(path.rglob("*")):
            if item.is_file() and item.name != "table.lock":
                digest.update(f"{item.relative_to(path)}\0".encode())
                with item.open("rb") as stream:
                    digest.update(hashlib.file_digest(stream, "sha256").digest())
    except OSError as error:
        raise CorruptFileError("A calibration table cannot be read", path=path, found=error) from error
    return digest.hexdigest()


# ---- rows ---------------------------------------------------------------------------------------------------------


def _check_tables(tables: Sequence[CalTable]) -> None:
    paths = [table.path for table in tables]
    for table in tables:
        if not table.valid_from < table.valid_to:
            raise StateError(
                "A calibration table is valid at no time",
                path=table.path,
                found=f"[{table.valid_from}, {table.valid_to})",
                expected="valid_from < valid_to (MJD)",
            )
        if paths.count(table.path) > 1:
            raise StateError("A calibration table is registered twice at once", path=table.path)


def _is_known(row: Mapping[str, Any], values: Mapping[str, Any]) -> bool:
    """Whether a row holds the same; a missing number (NaN) equals itself, and a hash that is not known any."""
    unknown = {"content_hash"} if not row["content_hash"] else set()
    return all(_same(row[name], value) for name, value in values.items() if name not in unknown)


def _comes_back(row: Mapping[str, Any], status: str) -> bool:
    """Whether a known table is entered anew: its set is whole again, or what judged it bad now finds it good."""
    found_good = row["status"] == "failed" and status == "active" and str(row["reason"]).startswith(JUDGED)
    return bool(row["reason"] == LEFT_OUT or found_good)


def _same(stored: Any, given: Any) -> bool:
    return bool(stored == given or (stored != stored and given != given))


def _check_status(status: str) -> None:
    if status not in TABLE_STATUSES:
        raise StateError(
            "Not a status of a calibration table", found=repr(status), expected=f"one of {', '.join(TABLE_STATUSES)}"
        )


def _listed(entry: _Entry) -> dict[str, Any]:
    row = plain({"group" if k == "group_id" else k: v for k, v in entry.row.items()})
    return row | {"windows": [[window.begin, window.end] for window in entry.windows]}
