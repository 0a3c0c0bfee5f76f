"""One door to the database: open it, bring it to the newest schema, change it in whole transactions.

SQLite in WAL mode by default: readers never wait for the writer, and a killed process leaves the last whole
transaction. Anything SQLAlchemy can address serves as well; what differs between engines is in this module only.
The file must lie on a local disk: WAL needs shared memory, which network file systems do not give.
"""

from __future__ import annotations

import fcntl
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from dsa110_contimg.exceptions import OutputError, StateError
from dsa110_contimg.settings import DATABASE_NAME
from dsa110_contimg.state import tables

LOCK_WAIT_S = 60.0
"""How long a process waits for another one's transaction or migration. Transactions here take milliseconds."""
MIGRATIONS = Path(__file__).parent.parent / "migrations"
_WRITE = "contimg_write"
_ADVISORY_LOCK = 0x64736131_31300000
"""PostgreSQL's lock for migrations is a number: ``dsa110`` in ASCII."""


@dataclass(frozen=True)
class Database:
    """An open database at the newest schema. Safe to share between threads; open a new one in a new process.

    Attributes
    ----------
    engine : where SQLAlchemy connects.
    path : the SQLite file; None for another engine.
    """

    engine: sa.Engine
    path: Path | None

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A transaction that sees one state of the database throughout and changes nothing.

        Raises
        ------
        StateError
            If the database cannot be read.
        """
        # SQLite reads are like this by nature
        options = {} if self.engine.dialect.name == "sqlite" else {"isolation_level": "REPEATABLE READ"}
        with (
            _own_errors(self.path),
            self.engine.connect().execution_options(**options) as connection,
            connection.begin(),
        ):
            yield connection

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """A transaction that is kept whole at the end of the block, and not at all if the block raises.

        Raises
        ------
        StateError
            If the database refuses: locked for longer than ``LOCK_WAIT_S``, damaged, or a constraint does not hold.
        """
        with (
            _own_errors(self.path),
            self.engine.connect().execution_options(**{_WRITE: True}) as connection,
            connection.begin(),
        ):
            yield connection

    def check(self) -> None:
        """Read every page and every reference of an SQLite database (other engines look after themselves).

        Raises
        ------
        StateError
            Naming what is damaged.
        """
        if self.engine.dialect.name != "sqlite":
            return
        with self.read() as connection:
            damage = [row[0] for row in connection.exec_driver_sql("PRAGMA integrity_check(5)")]
            loose = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
        if damage != ["ok"]:
            raise StateError("The state database is damaged", path=self.path, found="; ".join(damage), expected="ok")
        if loose:
            raise StateError("Rows of the state database refer to rows that are gone", path=self.path, found=loose[:5])

    def close(self) -> None:
        """Give back all connections."""
        self.engine.dispose()


def open_database(where: str | Path, *, create: bool = True) -> Database:
    """Open the state database, creating it or migrating it to the newest schema as needed.

    Two processes may do this at once: one migrates, the other waits.

    Parameters
    ----------
    where : path-like or str
        The state directory, which will hold ``contimg.sqlite3``; or a SQLAlchemy URL (``postgresql+psycopg://...``).
    create : bool
        Whether a database that is not there is made; commands that only list ask for False.

    Raises
    ------
    OutputError
        If the state directory cannot be made or written.
    StateError
        If there is no database and ``create`` is False; if the URL cannot be used; if the file is damaged or belongs
        to another program; if a newer version of this package wrote it.
    """
    if isinstance(where, str) and "://" in where:
        engine, path = _remote_engine(where), None
        lock: AbstractContextManager[None] = nullcontext()
    else:
        path = Path(where) / DATABASE_NAME
        if not create and not path.exists():
            raise StateError("There is no state database", path=path, expected="a directory that a run has filled")
        engine = _sqlite_engine(path)
        lock = _file_lock(path)
    database = Database(engine, path)
    try:
        with lock:
            _prepare(database)
    except BaseException:
        database.close()
        raise
    return database


def upsert(connection: sa.Connection, table: sa.Table, values: Mapping[str, Any]) -> None:
    """Insert a row, or replace the values of the row with its primary key, in standard SQL."""
    keys = {column.name for column in table.primary_key}
    same = sa.and_(*(table.c[name] == values[name] for name in sorted(keys)))
    change = sa.update(table).where(same).values({k: v for k, v in values.items() if k not in keys})
    if connection.execute(change).rowcount:
        return
    try:
        with connection.begin_nested():
            connection.execute(sa.insert(table).values(dict(values)))
    except IntegrityError:
        # another process inserted the same key in between; if it was something else, there is nothing to update
        if not connection.execute(change).rowcount:
            raise


def migrate(connection: sa.Connection, script: ScriptDirectory) -> None:
    """Apply the revisions that the database lacks, inside the caller's transaction.

    Raises
    ------
    StateError
        If the database has a revision that ``script`` does not know.
    """

    def steps(current: Any, _: MigrationContext) -> Any:
        return script._upgrade_revs(head or "base", current)  # noqa: SLF001 - as Alembic's own manual has it

    head = script.get_current_head()
    context = MigrationContext.configure(connection, opts={"fn": steps, "script": script})
    found = context.get_current_heads()
    for revision in found:
        try:
            script.get_revision(revision)
        except CommandError as error:
            raise StateError(
                "The state database was written by a newer version of dsa110_contimg; upgrade the package",
                found=f"schema {revision}",
                expected=f"schema {head} or older",
            ) from error
    if found == (head,):
        return
    with Operations.context(context):
        context.run_migrations()


def revisions(location: Path = MIGRATIONS) -> ScriptDirectory:
    """The chain of revisions, without Alembic's configuration files."""
    return ScriptDirectory(location, version_locations=[location])


def _prepare(database: Database) -> None:
    """Bring the schema to its newest revision; refuse a database that is not ours."""
    if database.path is not None:
        with _own_errors(database.path), database.engine.connect() as connection:
            # permanent in the file; outside a transaction, which the driver has not begun yet
            connection.connection.cursor().execute("PRAGMA journal_mode=WAL").close()
    with database.write() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_ADVISORY_LOCK)))
        present = set(sa.inspect(connection).get_table_names())
        if present and "alembic_version" not in present:
            raise StateError(
                "This database belongs to another program",
                path=database.path,
                found=f"tables {', '.join(sorted(present)[:5])}",
                expected="a database of dsa110_contimg, or none",
            )
        try:
            migrate(connection, revisions())
        except StateError as error:
            raise StateError(error.what, path=database.path, found=error.found, expected=error.expected) from error
        missing = set(tables.metadata.tables) - set(sa.inspect(connection).get_table_names())
        if missing:
            raise StateError("Tables of the state database are gone", path=database.path, found=sorted(missing))


def _remote_engine(url: str) -> sa.Engine:
    try:
        return sa.create_engine(url)
    except (SQLAlchemyError, ImportError) as error:
        # the URL itself stays out of the message: it may hold a password
        raise StateError(
            "The address of the state database cannot be used",
            found=error,
            expected="a SQLAlchemy URL whose driver is installed, such as postgresql+psycopg://host/name",
        ) from error


def _sqlite_engine(path: Path) -> sa.Engine:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError("The state directory cannot be made", path=path.parent, found=error.strerror) from error
    # NullPool: no connection outlives its transaction, so none is ever carried across a fork
    engine = sa.create_engine(
        sa.URL.create("sqlite", database=str(path)),
        poolclass=sa.NullPool,
        connect_args={"timeout": LOCK_WAIT_S, "isolation_level": None},
    )
    sa.event.listen(engine, "connect", _on_connect)
    sa.event.listen(engine, "begin", _on_begin)
    return engine


def _on_connect(connection: sqlite3.Connection, _: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys=ON")
    # a product is registered once it is fsynced: its row must survive a power cut too, which NORMAL does not promise
    # in WAL mode. The cost is one fsync a transaction, and a group makes tens of transactions in minutes.
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()


def _on_begin(connection: sa.Connection) -> None:
    # a writer takes the lock at once: a transaction that reads first and writes later would fail instead of waiting
    write = connection.get_execution_options().get(_WRITE, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


@contextmanager
def _file_lock(path: Path) -> Iterator[None]:
    """Hold ``<database>.lock``: switching a new file to WAL is the one thing SQLite itself does not wait for."""
    lock = path.with_name(path.name + ".lock")
    try:
        handle = lock.open("a")
    except OSError as error:
        raise OutputError("The state directory cannot be written", path=lock, found=error.strerror) from error
    with handle:
        give_up = time.monotonic() + LOCK_WAIT_S
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > give_up:
                    raise StateError(
                        "Another process holds the lock on the state database",
                        path=lock,
                        expected=f"it to be free within {LOCK_WAIT_S:.0f} s",
                    ) from error
                time.sleep(0.02)
        yield


@contextmanager
def _own_errors(path: Path | None) -> Iterator[None]:
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error) as error:
        raise _state_error(error, path) from error


def _state_error(error: Exception, path: Path | None) -> StateError:
    """What an engine's error means to a person."""
    text = str(getattr(error, "orig", None) or error)
    if "not a database" in text or "malformed" in text:
        return StateError("The state database is damaged", path=path, found=text, expected="an SQLite database")
    if "locked" in text:
        return StateError("The state database stayed locked by another process", path=path, found=text)
    if "FOREIGN KEY" in text or "foreign key" in text:
        return StateError("A row refers to one that is not in the state database", path=path, found=text)
    return StateError("The state database refused", path=path, found=text)
