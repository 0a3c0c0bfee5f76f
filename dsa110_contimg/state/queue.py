"""The ingest queue: which groups there are, which are being worked on, and how each ended.

``ingest_queue`` alone decides what is to be done. A group goes

    collecting -> pending -> in_progress -> completed | failed

and every arrow is one transaction, so a group is never in two places and never lost. Whoever claims a group owns it:
only the owner may finish it, and a group whose owner died can be taken back.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from dsa110_contimg import telescope
from dsa110_contimg.exceptions import StateError
from dsa110_contimg.records import SubbandFile, SubbandGroup
from dsa110_contimg.state.database import Database
from dsa110_contimg.state.subbands import store
from dsa110_contimg.state.tables import QUEUE_STATES, ingest_queue, now, plain, subband_files


@dataclass(frozen=True)
class QueueEntry:
    """One group in the queue.

    Attributes
    ----------
    state : collecting, pending, in_progress, completed or failed.
    attempts : how often work on it was started.
    error : why it failed last; empty if it did not.
    created_at, updated_at, started_at, finished_at : UTC.
    """

    group_id: str
    state: str
    is_calibrator: bool
    mjd_first: float
    pointing_dec_deg: float
    attempts: int
    owner: str
    error: str
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class Queue:
    """The queue in one database.

    Parameters
    ----------
    database : Database
    owner : str, optional
        Who claims groups; by default this process (host, process id, and when it started).
    """

    def __init__(self, database: Database, owner: str | None = None) -> None:
        self.database = database
        self.owner = this_process() if owner is None else owner

    def register(self, group: SubbandGroup, *, is_calibrator: bool = False, collecting: bool = False) -> QueueEntry:
        """Enter a group and its files, or bring them up to date.

        A group that is done stays done as long as its files are the same; if they changed it is pending again.
        A group that someone works on is left alone: register it again afterwards.

        Parameters
        ----------
        collecting : bool
            Whether more files are expected, so that nobody may claim it yet.
        """
        state = "collecting" if collecting else "pending"
        moment = now()
        values: dict[str, Any] = {
            "is_calibrator": is_calibrator,
            "mjd_first": group.mjd_first,
            "pointing_dec_deg": group.pointing_dec_deg,
        }
        row = ingest_queue.c.group_id == group.group_id
        with self.database.write() as connection:
            found = connection.execute(sa.select(ingest_queue).where(row).with_for_update()).mappings().first()
            if found is None:
                fresh: dict[str, Any] = {
                    "group_id": group.group_id,
                    "state": state,
                    "created_at": moment,
                    "updated_at": moment,
                }
                fresh |= {"attempts": 0, "owner": "", "error": ""}
                connection.execute(sa.insert(ingest_queue).values(**fresh, **values))
                _replace_files(connection, group)
            elif found["state"] != "in_progress":
                if _changed(connection, group):
                    _replace_files(connection, group)
                    values |= {"state": state, "attempts": 0, "error": "", "updated_at": moment}
                elif found["state"] == "collecting" and not collecting:
                    values |= {"state": state, "updated_at": moment}
                connection.execute(sa.update(ingest_queue).where(row).values(**values))
            return _entry(connection, group.group_id)

    def claim(self, group_id: str | None = None) -> QueueEntry | None:
        """Take a pending group to work on: the one named, or the next (calibrators first, then the oldest).

        Returns
        -------
        QueueEntry or None
            None if no group is pending (or not the one named): two workers never get the same group.
        """
        wanted = sa.select(ingest_queue.c.group_id).where(ingest_queue.c.state == "pending")
        if group_id is not None:
            wanted = wanted.where(ingest_queue.c.group_id == group_id)
        wanted = wanted.order_by(ingest_queue.c.is_calibrator.desc(), ingest_queue.c.group_id).limit(1)
        with self.database.write() as connection:
            taken = connection.execute(wanted.with_for_update(skip_locked=True)).scalar()
            if taken is None:
                return None
            connection.execute(
                sa.update(ingest_queue)
                .where(ingest_queue.c.group_id == taken)
                .values(
                    state="in_progress",
                    owner=self.owner,
                    attempts=ingest_queue.c.attempts + 1,
                    started_at=now(),
                    finished_at=None,
                    updated_at=now(),
                )
            )
            return _entry(connection, taken)

    def complete(self, group_id: str) -> QueueEntry:
        """End the work on a group that this owner claimed.

        Raises
        ------
        StateError
            If it is not in progress, or another owner has it.
        """
        return self._finish(group_id, "completed", "")

    def fail(self, group_id: str, error: str) -> QueueEntry:
        """End the work on a group that this owner claimed, and say why.

        Raises
        ------
        StateError
            If it is not in progress, or another owner has it.
        """
        return self._finish(group_id, "failed", error)

    def retry(self, group_id: str) -> QueueEntry:
        """Make a failed or completed group pending again.

        Raises
        ------
        StateError
            If it is not there, or is being worked on.
        """
        with self.database.write() as connection:
            changed = connection.execute(
                sa.update(ingest_queue)
                .where(
                    ingest_queue.c.group_id == group_id, ingest_queue.c.state.in_(("failed", "completed", "pending"))
                )
                .values(state="pending", error="", updated_at=now())
            )
            entry = _entry(connection, group_id)
            if not changed.rowcount:
                raise _refused("The group cannot be tried again", entry, "completed, failed or pending")
            return entry

    def release_abandoned(self) -> tuple[str, ...]:
        """Make pending again what a process of this host claimed and did not live to finish.

        Returns
        -------
        tuple of str
            The groups given back.
        """
        released = []
        working = sa.select(ingest_queue).where(ingest_queue.c.state == "in_progress").order_by(ingest_queue.c.group_id)
        with self.database.write() as connection:
            for row in connection.execute(working).mappings().all():
                if process_is_gone(row["owner"]):
                    connection.execute(
                        sa.update(ingest_queue)
                        .where(ingest_queue.c.group_id == row["group_id"])
                        .values(state="pending", updated_at=now())
                    )
                    released.append(row["group_id"])
        return tuple(released)

    def entry(self, group_id: str) -> QueueEntry:
        """One group.

        Raises
        ------
        StateError
            If the queue does not have it.
        """
        with self.database.read() as connection:
            return _entry(connection, group_id)

    def group(self, group_id: str) -> SubbandGroup:
        """The record of a group, as it was registered.

        Raises
        ------
        StateError
            If the queue does not have it.
        """
        with self.database.read() as connection:
            entry = _entry(connection, group_id)
            files = _files(connection, group_id)
            length = sa.select(sa.func.max(subband_files.c.n_integrations)).where(subband_files.c.group_id == group_id)
            n_integrations = connection.execute(length).scalar() or telescope.N_INTEGRATIONS
        return SubbandGroup(entry.group_id, entry.mjd_first, entry.pointing_dec_deg, files, n_integrations)

    def list_groups(self, states: Iterable[str] = QUEUE_STATES) -> list[dict[str, Any]]:
        """Rows of the queue, oldest first, each with the number of its files as ``n_files``."""
        counted = (
            sa.select(sa.func.count())
            .where(subband_files.c.group_id == ingest_queue.c.group_id)
            .scalar_subquery()
            .label("n_files")
        )
        query = (
            sa.select(ingest_queue, counted)
            .where(ingest_queue.c.state.in_(tuple(states)))
            .order_by(ingest_queue.c.group_id)
        )
        with self.database.read() as connection:
            rows = connection.execute(query).mappings().all()
        return [plain({"group": row["group_id"], **{k: v for k, v in row.items() if k != "group_id"}}) for row in rows]

    def _finish(self, group_id: str, state: str, error: str) -> QueueEntry:
        mine = sa.and_(
            ingest_queue.c.group_id == group_id,
            ingest_queue.c.state == "in_progress",
            ingest_queue.c.owner == self.owner,
        )
        with self.database.write() as connection:
            changed = connection.execute(
                sa.update(ingest_queue)
                .where(mine)
                .values(state=state, error=error, finished_at=now(), updated_at=now())
            )
            entry = _entry(connection, group_id)
            if not changed.rowcount:
                raise _refused(f"The group cannot become {state}", entry, f"in_progress, owned by {self.owner}")
            return entry


def this_process() -> str:
    """Name of this process that no later process bears: host, process id, start."""
    return f"{socket.gethostname()}/{os.getpid()}/{_start(os.getpid())}"


def process_is_gone(owner: str) -> bool:
    """Whether the process that `this_process` named has ended. False if it runs, or ran on another host."""
    host, _, rest = owner.rpartition("/")[0].rpartition("/")
    started = owner.rpartition("/")[2]
    if host != socket.gethostname() or not rest.isdecimal():
        return False
    return _start(int(rest)) != started


def _start(pid: int) -> str:
    """When a process started, in clock ticks since boot; ``-`` if there is no such process.

    Process ids are used again, starts are not. Field 22 of proc(5) ``stat``, counted behind the command's parenthesis.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return "-"
    # a zombie has ended; it only waits for its parent to notice
    return "-" if fields[0] == "Z" else fields[19]


def _refused(what: str, entry: QueueEntry, expected: str) -> StateError:
    owner = f", owned by {entry.owner}" if entry.owner else ""
    return StateError(what, found=f"group {entry.group_id} {entry.state}{owner}", expected=expected)


def _entry(connection: sa.Connection, group_id: str) -> QueueEntry:
    row = connection.execute(sa.select(ingest_queue).where(ingest_queue.c.group_id == group_id)).mappings().first()
    if row is None:
        raise StateError("The queue does not have this group", found=group_id, expected="a registered group")
    return QueueEntry(**row)


def _files(connection: sa.Connection, group_id: str) -> tuple[SubbandFile, ...]:
    query = sa.select(subband_files).where(subband_files.c.group_id == group_id).order_by(subband_files.c.subband)
    return tuple(
        SubbandFile(row["path"], row["subband"], row["mjd_first"], row["size_bytes"])
        for row in connection.execute(query).mappings()
    )


def _changed(connection: sa.Connection, group: SubbandGroup) -> bool:
    """Whether a group's files are others than those registered, or were written to since: sizes are all alike."""
    if set(_files(connection, group.group_id)) != set(group.files):
        return True
    query = sa.select(subband_files.c.path, subband_files.c.mtime_ns).where(subband_files.c.group_id == group.group_id)
    return any(mtime_ns != _mtime_ns(path) for path, mtime_ns in connection.execute(query))


def _mtime_ns(path: Path) -> int | None:
    return path.stat().st_mtime_ns if path.exists() else None


def _replace_files(connection: sa.Connection, group: SubbandGroup) -> None:
    """Let the rows of a group's files name it, and no other rows; what the index knows of the files stays."""
    leaves = sa.update(subband_files).where(subband_files.c.group_id == group.group_id).values(group_id=None)
    connection.execute(leaves)
    if group.files:
        moment = now()
        rows = [
            {
                "path": file.path,
                "group_id": group.group_id,
                "subband": file.subband,
                "mjd_first": file.mjd_first,
                "size_bytes": file.size_bytes,
                "mtime_ns": _mtime_ns(file.path),
                "n_integrations": group.n_integrations,
                "registered_at": moment,
            }
            for file in group.files
        ]
        store(connection, rows)
