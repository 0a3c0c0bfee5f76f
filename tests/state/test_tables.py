"""The schema: equal to its migrations, to the records it keeps, and true to the values put in."""

from __future__ import annotations

import dataclasses
import io
import math
import shutil
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.operations import Operations
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.dialects import postgresql, sqlite

from dsa110_contimg.exceptions import StateError
from dsa110_contimg.records import CalTable, ImageProduct, MeasurementSet
from dsa110_contimg.settings import DATABASE_NAME
from dsa110_contimg.state import tables
from dsa110_contimg.state.database import MIGRATIONS, Database, migrate, open_database, revisions, upsert
from dsa110_contimg.state.products import Report
from dsa110_contimg.state.registry import Registry

BOOKKEEPING = {"run_label", "registered_at", "is_current", "status"}
BOOKKEEPING |= {"reason", "retired_at", "content_hash", "parents", "quality"}
KEPT = [
    (CalTable, tables.caltables),
    (MeasurementSet, tables.ms_index),
    (ImageProduct, tables.images),
    (Report, tables.reports),
]


def _declarations(engine: sa.Engine) -> dict[str, list[str]]:
    """Every table and index with its parts, in no order."""
    with engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").all()
    return {
        name: sorted(line.strip().rstrip(",") for line in sql.splitlines())
        for name, sql in rows
        if name != "alembic_version"
    }


def test_migrations_make_exactly_the_declared_tables(database: Database) -> None:
    with database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        assert compare_metadata(context, tables.metadata) == []
    declared = sa.create_engine("sqlite://", poolclass=sa.StaticPool)
    tables.metadata.create_all(declared)
    # check constraints and cascades too, which compare_metadata does not see
    assert _declarations(database.engine) == _declarations(declared)
    declared.dispose()


def test_migrations_are_valid_on_postgresql() -> None:
    out = io.StringIO()
    script = revisions()
    options = {"as_sql": True, "output_buffer": out, "script": script}
    options["fn"] = lambda *_: script._upgrade_revs("head", "base")
    context = MigrationContext.configure(dialect_name="postgresql", opts=options)
    with Operations.context(context):
        context.run_migrations()
    made = out.getvalue()
    for table in tables.metadata.tables.values():
        declared = str(sa.schema.CreateTable(table).compile(dialect=postgresql.dialect()))
        lines = {line.strip().rstrip(",") for line in declared.splitlines() if line.strip()}
        assert lines <= {line.strip().rstrip(",;") for line in made.splitlines()} | {")"}


@pytest.mark.parametrize(("record", "table"), KEPT, ids=lambda x: getattr(x, "name", ""))
def test_every_field_of_a_record_has_a_column(record: type, table: sa.Table) -> None:
    fields = {field.name for field in dataclasses.fields(record)}
    assert fields == set(table.c.keys()) - BOOKKEEPING, "a new field needs a column in tables.py and a migration"


def test_every_column_says_what_it_is() -> None:
    for table in tables.metadata.tables.values():
        for column in table.c:
            assert column.info["help"], f"{table.name}.{column.name}"


text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
number = st.floats(width=64)
finite = st.floats(allow_nan=False, allow_infinity=False)
whole = st.integers(-(2**63), 2**63 - 1)
path = text.map(lambda name: Path("/data") / name.replace("/", "_"))
subbands = st.lists(st.integers(0, 15), max_size=16).map(tuple)
windows = st.tuples(finite, finite).filter(lambda pair: pair[0] != pair[1]).map(sorted)


@st.composite
def caltables(draw: st.DrawFn) -> CalTable:
    begin, end = draw(windows)
    fixed = {"mjd": finite, "flagged_fraction": number, "median_snr": number, "kind": st.sampled_from(["B", "G"])}
    table = draw(st.builds(CalTable, path=path, set_name=text, apply_order=whole, group_id=text, refant=text, **fixed))
    return dataclasses.replace(table, valid_from=begin, valid_to=end)


@st.composite
def flat_records(draw: st.DrawFn) -> object:
    kind = draw(st.sampled_from([CalTable, MeasurementSet, ImageProduct]))
    if kind is CalTable:
        return draw(caltables())
    by_type = {"Path": path, "str": text, "int": whole, "float": number, "tuple[int, ...]": subbands}
    return kind(**{f.name: draw(by_type[str(f.type)]) for f in dataclasses.fields(kind)})


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Database:
    return open_database(tmp_path_factory.mktemp("store"))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(record=flat_records())
def test_records_come_back_as_they_went_in(record: object, store: Database) -> None:
    table = dict(KEPT)[type(record)]
    ours = {"run_label": "", "registered_at": tables.now(), "is_current": True, "status": "active"}
    ours |= {"reason": "", "content_hash": "", "parents": (), "quality": {}}
    values = tables.record_row(record)
    with store.write() as connection:
        upsert(connection, table, values | {k: v for k, v in ours.items() if k in table.c})
        query = sa.select(table).where(table.c.path == record.path, table.c.registered_at == ours["registered_at"])
        row = connection.execute(query).mappings().one()
    back = type(record)(**{k: v for k, v in row.items() if k not in BOOKKEEPING})
    for field in dataclasses.fields(record):
        stored, given = getattr(back, field.name), getattr(record, field.name)
        assert type(stored) is type(given)
        assert stored == given or (math.isnan(stored) and math.isnan(given))


def test_numpy_scalars_are_stored_as_numbers(database: Database) -> None:
    row = {"path": Path("/a"), "size_bytes": np.int64(7), "mtime_ns": np.uint16(3), "sha256": ""}
    with database.write() as connection:
        connection.execute(sa.insert(tables.file_fingerprints).values(row))
        kinds = connection.exec_driver_sql("SELECT typeof(size_bytes), typeof(mtime_ns) FROM file_fingerprints").one()
    assert tuple(kinds) == ("integer", "integer")
    dialect = sqlite.dialect()
    assert tables.Real().process_bind_param(np.float32(0.5), dialect) == 0.5
    assert type(tables.Real().process_bind_param(np.float32(0.5), dialect)) is float


def test_a_fraction_is_refused_where_an_integer_belongs(database: Database) -> None:
    with pytest.raises(StateError), database.write() as connection:
        upsert(connection, tables.file_fingerprints, {"path": "/a", "size_bytes": 1.5, "mtime_ns": 1, "sha256": ""})


def test_times_come_back_in_utc_and_need_a_zone(database: Database) -> None:
    dialect = sqlite.dialect()
    west = datetime(2026, 1, 25, 14, 26, 5, tzinfo=timezone(timedelta(hours=-8)))
    stored = tables.Utc().process_bind_param(west, dialect)
    assert stored == datetime(2026, 1, 25, 22, 26, 5, tzinfo=UTC)
    assert tables.Utc().process_result_value(stored.replace(tzinfo=None), dialect) == west
    with pytest.raises(ValueError, match="zone"):
        tables.Utc().process_bind_param(west.replace(tzinfo=None), dialect)


def test_plain_rows_hold_only_what_json_can() -> None:
    row = {"a": math.nan, "b": math.inf, "c": Path("/x"), "d": (1, 2), "e": datetime(2026, 1, 1, tzinfo=UTC), "f": True}
    expected = {"a": None, "b": None, "c": "/x", "d": [1, 2], "e": "2026-01-01T00:00:00Z", "f": True}
    assert tables.plain(row) == expected


def test_tables_registered_before_windows_were_kept_are_in_force_as_before(tmp_path: Path) -> None:
    """The third revision: status and validity of every row of the second carry over."""
    older = tmp_path / "migrations"
    shutil.copytree(MIGRATIONS, older, ignore=shutil.ignore_patterns("__pycache__", "0003*", "0004*", "0005*"))
    engine = sa.create_engine(f"sqlite:///{tmp_path / DATABASE_NAME}")
    columns = "path, kind, set_name, apply_order, group_id, refant, mjd, valid_from, valid_to, calibrator, status"
    with engine.begin() as connection:
        migrate(connection, revisions(older))
        for number, status in enumerate(tables.TABLE_STATUSES):
            (tmp_path / status).mkdir()
            row = (
                str(tmp_path / status),
                "B",
                status,
                1,
                "g",
                "24",
                61000.0 + number,
                60999.5,
                61000.5 + number,
                "3C48",
            )
            values = ", ".join(map(repr, (*row, status, "", "2026-01-26 01:02:03.000000")))
            connection.exec_driver_sql(f"INSERT INTO caltables ({columns}, run_label, registered_at) VALUES ({values})")
    engine.dispose()
    database = open_database(tmp_path)
    registry = Registry(database)
    assert {row["set_name"]: row["status"] for row in registry.list_tables()} == {s: s for s in tables.TABLE_STATUSES}
    assert [table.path.name for table in registry.applylist(61000.0)] == ["active"]
    then = datetime(2026, 1, 26, 2, tzinfo=UTC)
    assert [table.path.name for table in registry.applylist(61000.0, then)] == ["active"]
    # a hash that was not kept then is taken from the disk
    assert len(registry.hashes(registry.applylist(61000.0))[0]) == 64
    database.close()


def test_figures_are_stored_as_json_can_hold_them() -> None:
    figures, dialect = tables.Figures(), sqlite.dialect()
    stored = figures.process_bind_param({"snr": math.inf, "path": Path("/a"), "n": 3}, dialect)
    assert figures.process_result_value(stored, dialect) == {"snr": None, "path": "/a", "n": 3}


def test_images_from_before_there_were_tiers_are_standard_and_keep_their_fluxes(tmp_path: Path) -> None:
    """The fourth revision: every row of the third carries over, and fluxes still refer to their image."""
    older = tmp_path / "migrations"
    shutil.copytree(MIGRATIONS, older, ignore=shutil.ignore_patterns("__pycache__", "0004*", "0005*"))
    engine = sa.create_engine(f"sqlite:///{tmp_path / DATABASE_NAME}")
    text = dict.fromkeys(("path", "pbcor_path", "pb_path", "residual_path", "model_path", "psf_path"), "")
    stamp = {"run_label": "", "registered_at": "2026-01-26 01:02:03.000000", "group_id": "g"}
    image = {**text, **stamp, "smearing_path": "", "path": "/a.image.fits", "n_pixels": 128, "is_current": 1}
    flux = {**stamp, "source": "3C48", "mjd": 61000.0, "quality": 0, "image": "/a.image.fits", "flux_jy": 16.0}
    with engine.begin() as connection:
        migrate(connection, revisions(older))
        for table, row in (("images", image), ("photometry_timeseries", flux)):
            values = ", ".join(repr(value) for value in row.values())
            connection.exec_driver_sql(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({values})")
    engine.dispose()
    database = open_database(tmp_path)
    with database.read() as connection:
        assert connection.execute(sa.select(tables.images.c.tier, tables.images.c.imager)).all() == [
            ("standard", "native")
        ]
        assert connection.scalar(sa.select(tables.photometry_timeseries.c.flux_jy)) == 16.0
    database.check()
