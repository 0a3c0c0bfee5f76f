"""The index of subband files: what was read stays known while a file stays, and the queue's groups with it."""

from __future__ import annotations

import dataclasses
import math
import os
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.operations import Operations
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dsa110_contimg.records import IndexedFile, SubbandGroup
from dsa110_contimg.state import tables
from dsa110_contimg.state.database import Database, open_database, revisions
from dsa110_contimg.state.queue import Queue
from dsa110_contimg.state.subbands import SubbandIndex


@pytest.fixture
def index(database: Database) -> SubbandIndex:
    return SubbandIndex(database)


@pytest.fixture
def group(make_group) -> SubbandGroup:
    """A group whose files are there."""
    made = make_group()
    for file in made.files:
        file.path.write_bytes(b"data")
    return made


def indexed(group: SubbandGroup) -> list[IndexedFile]:
    """Its files as the index would have read them."""
    stats = [file.path.stat() for file in group.files]
    return [
        IndexedFile(f.path, f.size_bytes, s.st_mtime_ns, "code", f.subband, f.mjd_first, 16.64, 24, 12.885, "as ever")
        for f, s in zip(group.files, stats, strict=True)
    ]


def test_every_field_has_a_column() -> None:
    ours = {"group_id", "registered_at"}
    assert {field.name for field in dataclasses.fields(IndexedFile)} == set(tables.subband_files.c.keys()) - ours


text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
files = st.builds(
    IndexedFile,
    path=text.map(lambda name: Path("/data") / name.replace("/", "_")),
    size_bytes=st.integers(0, 2**63 - 1),
    mtime_ns=st.integers(-(2**63), 2**63 - 1),
    reader=text.map(lambda name: name[:16]),
    subband=st.none() | st.integers(0, 15),
    mjd_first=st.floats(),
    pointing_dec_deg=st.floats(),
    n_integrations=st.integers(0, 2**63 - 1),
    integration_s=st.floats(),
    layout=text,
    problem=st.lists(text, max_size=4).map(tuple),
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> SubbandIndex:
    return SubbandIndex(open_database(tmp_path_factory.mktemp("index")))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(given_files=st.lists(files, max_size=5, unique_by=lambda file: file.path))
def test_what_is_remembered_is_known(given_files: list[IndexedFile], store: SubbandIndex) -> None:
    store.remember(given_files)
    known = store.known([file.path for file in given_files])
    assert len(known) == len(given_files)
    for file in given_files:
        for field in dataclasses.fields(file):
            stored, told = getattr(known[file.path], field.name), getattr(file, field.name)
            assert stored == told or (math.isnan(stored) and math.isnan(told))


def test_reading_the_files_of_a_group_again_does_not_take_them_from_it(
    database: Database, index: SubbandIndex, group: SubbandGroup
) -> None:
    queue = Queue(database)
    index.remember(indexed(group))
    queue.register(group)
    index.remember([dataclasses.replace(file, reader="newer code") for file in indexed(group)])
    assert queue.group(group.group_id) == group
    queue.claim()
    queue.complete(group.group_id)
    assert queue.register(group).state == "completed"


def test_a_changed_file_that_the_index_saw_first_still_makes_its_group_pending(
    database: Database, index: SubbandIndex, group: SubbandGroup
) -> None:
    queue = Queue(database)
    queue.register(group)
    queue.claim()
    queue.complete(group.group_id)
    os.utime(group.files[3].path, ns=(1, 1))
    index.remember(indexed(group))
    assert queue.register(group).state == "pending"
    assert queue.group(group.group_id) == group


def test_a_file_that_is_registered_after_it_changed_is_no_longer_known(
    database: Database, index: SubbandIndex, group: SubbandGroup
) -> None:
    index.remember(indexed(group))
    changed = group.files[3].path
    os.utime(changed, ns=(1, 1))
    Queue(database).register(group)
    assert set(index.known([file.path for file in group.files])) == {f.path for f in group.files} - {changed}


def test_the_length_of_a_group_comes_back_from_the_queue(database: Database, group: SubbandGroup) -> None:
    short = dataclasses.replace(group, n_integrations=12)
    Queue(database).register(short)
    assert Queue(database).group(group.group_id) == short


def test_files_that_the_queue_knew_before_there_was_an_index_are_kept(tmp_path: Path, group: SubbandGroup) -> None:
    """A database of the first schema, with a group in it, comes to the newest."""
    older = sa.create_engine(f"sqlite:///{tmp_path / 'contimg.sqlite3'}", poolclass=sa.NullPool)
    script = revisions()
    with older.begin() as connection:
        steps = {"fn": lambda *_: script._upgrade_revs("0001", "base"), "script": script}
        context = MigrationContext.configure(connection, opts=steps)
        with Operations.context(context):
            context.run_migrations()
        connection.execute(
            sa.text(
                "INSERT INTO ingest_queue (group_id, state, is_calibrator, mjd_first, pointing_dec_deg, attempts,"
                " owner, error, created_at, updated_at) VALUES (:g, 'completed', 0, :m, :d, 1, '', '', :t, :t)"
            ),
            {"g": group.group_id, "m": group.mjd_first, "d": group.pointing_dec_deg, "t": "2026-01-26 00:00:00.000000"},
        )
        for file in group.files:
            connection.execute(
                sa.text("INSERT INTO subband_files VALUES (:p, :g, :s, :m, :b, :n, '2026-01-26 00:00:00.000000')"),
                {
                    "p": str(file.path),
                    "g": group.group_id,
                    "s": file.subband,
                    "m": file.mjd_first,
                    "b": file.size_bytes,
                    "n": file.path.stat().st_mtime_ns,
                },
            )
    older.dispose()
    database = open_database(tmp_path)
    database.check()
    queue = Queue(database)
    assert queue.group(group.group_id) == group
    assert queue.register(group).state == "completed"
    assert SubbandIndex(database).known([file.path for file in group.files]) == {}
    database.close()
