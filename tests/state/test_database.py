"""The database stays whole: under several processes, kills, damage, and versions other than ours."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from dsa110_contimg.exceptions import OutputError, StateError
from dsa110_contimg.state import tables
from dsa110_contimg.state.database import MIGRATIONS, Database, migrate, open_database, revisions, upsert
from dsa110_contimg.state.queue import Queue
from dsa110_contimg.state.registry import Registry

N_FILES = 16


class Workers:
    """Processes of ``workers.py``."""

    def __init__(self) -> None:
        command = [sys.executable, str(Path(__file__).with_name("workers.py"))]
        self._program = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def start(self, job: str, directory: Path) -> int:
        """The process id, once the job has begun."""
        answers = {self._ask(f"{job} {directory}"), self._program.stdout.readline().strip()}
        assert "ready" in answers
        return int((answers - {"ready"}).pop())

    def wait(self) -> list[int]:
        """Exit codes of all that were started; a killed process has the negative signal."""
        return [int(code) for code in self._ask("wait").split()]

    def close(self) -> None:
        self._program.stdin.close()
        self._program.wait(60)
        self._program.stdout.close()

    def _ask(self, line: str) -> str:
        self._program.stdin.write(f"{line}\n")
        self._program.stdin.flush()
        return str(self._program.stdout.readline().strip())


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    workers = Workers()
    yield workers
    workers.close()


def _fingerprint_row(name: str, size: int) -> dict[str, object]:
    return {"path": name, "size_bytes": size, "mtime_ns": 0, "sha256": ""}


def test_a_transaction_is_kept_whole_or_not_at_all(database: Database) -> None:
    def change_and_stop() -> None:
        with database.write() as connection:
            upsert(connection, tables.file_fingerprints, _fingerprint_row("/a", 1))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        change_and_stop()
    with database.read() as connection:
        assert connection.execute(sa.select(tables.file_fingerprints)).all() == []


def test_upsert_inserts_once_and_then_replaces(database: Database) -> None:
    for size in (1, 2):
        with database.write() as connection:
            upsert(connection, tables.file_fingerprints, _fingerprint_row("/a", size))
    with database.read() as connection:
        assert connection.execute(sa.select(tables.file_fingerprints.c.size_bytes)).all() == [(2,)]


def test_a_reader_sees_one_state_while_another_writes(database: Database) -> None:
    query = sa.select(sa.func.count()).select_from(tables.file_fingerprints)
    with database.read() as reader:
        assert reader.execute(query).scalar() == 0
        with database.write() as writer:
            upsert(writer, tables.file_fingerprints, _fingerprint_row("/a", 1))
        assert reader.execute(query).scalar() == 0
    with database.read() as reader:
        assert reader.execute(query).scalar() == 1


def test_writers_in_threads_wait_for_each_other(database: Database) -> None:
    with database.write() as connection:
        upsert(connection, tables.file_fingerprints, _fingerprint_row("/a", 0))

    def add() -> None:
        for _ in range(20):
            with database.write() as connection:
                size = connection.execute(sa.select(tables.file_fingerprints.c.size_bytes)).scalar()
                upsert(connection, tables.file_fingerprints, _fingerprint_row("/a", size + 1))

    threads = [threading.Thread(target=add) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.read() as connection:
        assert connection.execute(sa.select(tables.file_fingerprints.c.size_bytes)).scalar() == 60


def test_durability_settings_hold_on_every_connection(database: Database) -> None:
    for _ in range(2):
        with database.read() as connection:
            pragmas = [
                connection.exec_driver_sql(f"PRAGMA {name}").scalar()
                for name in ("journal_mode", "foreign_keys", "synchronous")
            ]
        assert pragmas == ["wal", 1, 2]


def test_a_broken_reference_is_refused_in_words(database: Database) -> None:
    row = {"path": "/a", "group_id": "nowhere", "subband": 1, "size_bytes": 1, "registered_at": tables.now()}
    with pytest.raises(StateError, match="refers to one that is not"), database.write() as connection:
        connection.execute(sa.insert(tables.subband_files).values(row))


def test_no_database_is_made_for_a_command_that_only_lists(tmp_path: Path) -> None:
    with pytest.raises(StateError, match=r"no state database.*contimg\.sqlite3"):
        open_database(tmp_path, create=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["nosuchengine://secret@host/name", "postgresql+psycopg_absent://secret@host/name"])
def test_an_address_that_cannot_be_used_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(StateError, match="driver is installed") as error:
        open_database(url)
    assert "secret" not in str(error.value)


def test_a_state_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file/state"):
        open_database(tmp_path / "file" / "state")


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "contimg.sqlite3"
    file.write_bytes(random.Random(1).randbytes(8192))
    before = file.read_bytes()
    with pytest.raises(StateError, match=r"damaged.*contimg\.sqlite3"):
        open_database(tmp_path)
    assert file.read_bytes() == before


def test_a_truncated_database_is_refused(database: Database) -> None:
    os.truncate(database.path, database.path.stat().st_size // 2)
    with pytest.raises(StateError, match="damaged"):
        open_database(database.path.parent)


def test_damage_inside_is_found_by_the_check(database: Database) -> None:
    with database.write() as connection:
        for i in range(500):
            upsert(connection, tables.file_fingerprints, _fingerprint_row(f"/file/number/{i}", i))
    database.check()
    with database.path.open("r+b") as stream:
        stream.seek(-4096, os.SEEK_END)
        stream.write(b"\xff" * 4096)
    with pytest.raises(StateError, match="damaged"):
        database.check()


def test_a_database_of_another_program_is_left_alone(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "contimg.sqlite3") as connection:
        connection.execute("CREATE TABLE ms_index (path TEXT)")
    connection.close()
    with pytest.raises(StateError, match="another program"):
        open_database(tmp_path)


@pytest.fixture
def next_release(tmp_path: Path) -> Path:
    """The migrations of a version that has one more."""
    folder = tmp_path / "next"
    shutil.copytree(MIGRATIONS, folder, ignore=shutil.ignore_patterns("__pycache__"))
    head = revisions().get_current_head()
    (folder / "9999_next.py").write_text(
        f'import sqlalchemy as sa\nfrom alembic import op\nrevision = "9999"\ndown_revision = "{head}"\n'
        "def upgrade():\n"
        '    op.add_column("images", sa.Column("stokes", sa.Text(), nullable=False, server_default="I"))\n'
    )
    return folder


def test_an_upgrade_keeps_the_data(database: Database, next_release: Path, make_caltable) -> None:
    Registry(database).register([make_caltable("a.B")])
    with database.write() as connection:
        migrate(connection, revisions(next_release))
    assert [row["kind"] for row in Registry(database).list_tables()] == ["B"]
    with database.read() as connection:
        assert "stokes" in {column["name"] for column in sa.inspect(connection).get_columns("images")}


def test_every_older_schema_is_brought_to_the_newest(tmp_path: Path) -> None:
    script = revisions()
    for revision in script.walk_revisions():
        older = tmp_path / revision.revision
        shutil.copytree(MIGRATIONS, older / "migrations", ignore=shutil.ignore_patterns("__pycache__"))
        for later in script.iterate_revisions("head", revision.revision):
            (older / "migrations" / Path(later.path).name).unlink()
        path = older / "contimg.sqlite3"
        engine = sa.create_engine(f"sqlite:///{path}")
        with engine.begin() as connection:
            migrate(connection, revisions(older / "migrations"))
        engine.dispose()
        database = open_database(older)
        database.check()
        with database.read() as connection:
            assert set(tables.metadata.tables) <= set(sa.inspect(connection).get_table_names())


def test_a_database_of_a_newer_version_is_refused(database: Database, next_release: Path) -> None:
    with database.write() as connection:
        migrate(connection, revisions(next_release))
    with pytest.raises(StateError, match=r"newer version.*contimg\.sqlite3.*9999"):
        open_database(database.path.parent)


def test_a_migration_that_fails_changes_nothing(database: Database, next_release: Path) -> None:
    revision = next_release / "9999_next.py"
    revision.write_text(revision.read_text() + '    op.execute("DELETE FROM nowhere")\n')
    with pytest.raises(StateError), database.write() as connection:
        migrate(connection, revisions(next_release))
    reopened = open_database(database.path.parent)
    with reopened.read() as connection:
        assert "stokes" not in {column["name"] for column in sa.inspect(connection).get_columns("images")}


def test_a_lost_table_is_noticed_on_opening(database: Database) -> None:
    with database.write() as connection:
        connection.exec_driver_sql("DROP TABLE checkpoints")
    with pytest.raises(StateError, match=r"gone.*checkpoints"):
        open_database(database.path.parent)


def test_processes_that_start_at_once_share_one_migration(workers: Workers, tmp_path: Path) -> None:
    for _ in range(4):
        workers.start("create_together", tmp_path / "state")
    (tmp_path / "go").touch()
    assert workers.wait() == [0, 0, 0, 0]
    with open_database(tmp_path / "state").read() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(tables.file_fingerprints)).scalar() == 4


def _assert_whole(directory: Path) -> int:
    """The invariants that hold after every transaction of ``workers.write``; returns the number of groups."""
    database = open_database(directory)
    database.check()
    groups = Queue(database).list_groups()
    assert {row["n_files"] for row in groups} <= {N_FILES}
    solved = Registry(database).list_tables()
    by_set: dict[str, set[float]] = {}
    for row in solved:
        by_set.setdefault(row["set_name"], set()).add(row["mjd"])
    assert len(solved) == 2 * len(by_set)
    assert all(len(times) == 1 for times in by_set.values()), "the tables of a set were replaced together"
    for set_name in by_set:
        assert Queue(database).group(set_name).missing == ()
    return len(groups)


def test_processes_killed_amid_writes_leave_the_database_whole(workers: Workers, tmp_path: Path) -> None:
    draw = random.Random(20260125)
    n_groups = 0
    for _ in range(10):
        child = workers.start("write", tmp_path)
        time.sleep(draw.uniform(0.02, 0.2))
        os.kill(child, signal.SIGKILL)
        assert workers.wait() == [-signal.SIGKILL]
        found = _assert_whole(tmp_path)
        assert found >= n_groups, "what was committed before the kill is still there"
        n_groups = found
    assert n_groups > 0


def test_a_kill_amid_the_first_migration_does_not_matter(workers: Workers, tmp_path: Path) -> None:
    draw = random.Random(3)
    for i in range(5):
        child = workers.start("create", tmp_path / str(i))
        time.sleep(draw.uniform(0.0, 0.1))
        os.kill(child, signal.SIGKILL)
        workers.wait()
        assert _assert_whole(tmp_path / str(i)) == 0
