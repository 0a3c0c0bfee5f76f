"""The registry: the nearest table that holds, half-open windows, and no default."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dsa110_contimg.exceptions import NoValidCalibrationError, StateError
from dsa110_contimg.records import CalTable
from dsa110_contimg.state import tables
from dsa110_contimg.state.database import Database, open_database
from dsa110_contimg.state.registry import Registry


@pytest.fixture
def registry(database: Database) -> Registry:
    return Registry(database)


def test_tables_come_back_in_order_of_application(registry: Registry, make_caltable) -> None:
    bandpass = make_caltable("a.B", apply_order=0)
    gains = make_caltable("a.G", kind="G", apply_order=1)
    registry.register([gains, bandpass])
    assert registry.valid_tables(61000.1, ["G", "B"]) == (bandpass, gains)


def test_the_window_holds_its_begin_and_not_its_end(registry: Registry, make_caltable) -> None:
    table = make_caltable("a.B", valid_from=60999.5, valid_to=61000.5)
    registry.register([table])
    assert registry.valid_tables(60999.5, ["B"]) == (table,)
    assert registry.valid_tables(np.nextafter(61000.5, 0.0), ["B"]) == (table,)
    for outside in (61000.5, np.nextafter(60999.5, 0.0)):
        with pytest.raises(NoValidCalibrationError):
            registry.valid_tables(outside, ["B"])


SLOTS = 8
day = st.integers(0, 40).map(lambda n: 61000.0 + n / 8)
described = st.tuples(
    st.sampled_from(["B", "G"]), day, day, day, st.sampled_from(["active", "active", "retired", "failed"])
).filter(lambda table: table[1] < table[2])


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> tuple[Database, Path]:
    root = tmp_path_factory.mktemp("store")
    for slot in range(SLOTS):
        (root / str(slot)).mkdir()
    return open_database(root), root


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(several=st.lists(described, max_size=SLOTS), mjd=day)
def test_the_nearest_valid_table_of_each_kind_is_chosen(
    several: list, mjd: float, store: tuple[Database, Path]
) -> None:
    database, root = store
    registry = Registry(database)
    with database.write() as connection:
        connection.execute(sa.delete(tables.caltables))
    made: dict[str, list[CalTable]] = {}
    for slot, (kind, begin, end, solved, status) in enumerate(several):
        table = CalTable(root / str(slot), kind, str(slot), 0, "g", "1", solved, begin, end, 0.0, 9.0)
        made.setdefault(status, []).append(table)
    for status, of_status in made.items():
        registry.register(of_status, status=status)
    expected = {}
    for kind, begin, end, solved, status in several:
        if status == "active" and begin <= mjd < end:
            expected[kind] = min(expected.get(kind, np.inf), abs(solved - mjd))
    if set(expected) == {"B", "G"}:
        chosen = registry.valid_tables(mjd, ["B", "G"])
        assert {table.kind: abs(table.mjd - mjd) for table in chosen} == expected
    else:
        with pytest.raises(NoValidCalibrationError) as error:
            registry.valid_tables(mjd, ["B", "G"])
        for kind in ("B", "G"):
            assert (f"{kind}: " in str(error.value.found)) == (kind not in expected)


def test_of_equally_near_tables_the_later_registered_is_taken(registry: Registry, make_caltable) -> None:
    for name in ("a", "z", "m"):
        registry.register([make_caltable(name)])
    assert registry.valid_tables(61000.0, ["B"])[0].path.name == "m"


def test_the_error_says_for_each_kind_what_there_is(registry: Registry, make_caltable) -> None:
    registry.register([make_caltable("a.B")])
    registry.register([make_caltable("a.G", kind="G", set_name="second")])
    registry.set_status("second", "retired")
    with pytest.raises(NoValidCalibrationError) as error:
        registry.valid_tables(61003.0, ["B", "G", "K"])
    message = str(error.value)
    assert "MJD 61003.0" in message
    assert "B: the nearest of 1, solved on 2026-01-25T22:26:05, is valid for MJD [60999.50000, 61000.50000)" in message
    assert "G: 1 registered, all retired or failed" in message
    assert "K: no table registered" in message


def test_a_table_gone_from_the_disk_is_passed_over(registry: Registry, make_caltable) -> None:
    near, far = make_caltable("near"), make_caltable("far", mjd=60999.7)
    registry.register([near, far])
    near.path.rmdir()
    assert registry.valid_tables(61000.0, ["B"]) == (far,)
    far.path.rmdir()
    with pytest.raises(NoValidCalibrationError, match="2 valid but no longer on disk"):
        registry.valid_tables(61000.0, ["B"])


def test_failed_tables_are_listed_and_never_applied(registry: Registry, make_caltable) -> None:
    registry.register([make_caltable("a.B")], status="failed")
    assert [row["status"] for row in registry.list_tables("B")] == ["failed"]
    with pytest.raises(NoValidCalibrationError, match="retired or failed"):
        registry.valid_tables(61000.0, ["B"])


def test_registering_the_same_again_does_not_undo_a_retirement(registry: Registry, make_caltable) -> None:
    table = make_caltable("a.B", median_snr=float("nan"))
    registry.register([table])
    assert registry.set_status("first", "retired") == 1
    registry.register([table])
    assert registry.list_tables()[0]["status"] == "retired"
    # solved anew, it is another table under the same name
    registry.register([dataclasses.replace(table, median_snr=40.0)])
    assert [(row["status"], row["median_snr"]) for row in registry.list_tables()] == [("active", 40.0)]


def test_a_set_is_registered_whole_or_not_at_all(registry: Registry, make_caltable) -> None:
    bad = make_caltable("a.G", kind="G", valid_from=61000.5, valid_to=61000.5)
    with pytest.raises(StateError, match=r"valid at no time.*a\.G"):
        registry.register([make_caltable("a.B"), bad])
    assert registry.list_tables() == []


def test_labelled_tables_serve_their_own_runs_only(registry: Registry, make_caltable) -> None:
    ours, theirs = make_caltable("ours", mjd=60999.6), make_caltable("theirs")
    registry.register([ours])
    registry.register([theirs], run_label="try")
    assert registry.valid_tables(61000.0, ["B"]) == (ours,)
    assert registry.valid_tables(60999.6, ["B"], run_label="try") == (theirs,)
    assert registry.valid_tables(60999.6, ["B"], run_label="other") == (ours,)
    assert [row["path"] for row in registry.list_tables()] == [str(ours.path)]
    assert len(registry.list_tables(run_label=None)) == 2


def test_a_status_or_set_that_does_not_exist_is_an_error(registry: Registry, make_caltable) -> None:
    with pytest.raises(StateError, match="active, retired, failed"):
        registry.register([make_caltable("a.B")], status="good")
    with pytest.raises(StateError, match="nothing"):
        registry.set_status("nothing", "retired")
