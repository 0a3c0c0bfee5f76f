"""The registry: the nearest table that holds, half-open windows, and no default."""

from __future__ import annotations

import dataclasses
import itertools
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dsa110_contimg.exceptions import CorruptFileError, NoValidCalibrationError, StateError
from dsa110_contimg.records import CalTable
from dsa110_contimg.state import tables
from dsa110_contimg.state.claims import JUDGED
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


def _empty(database: Database) -> None:
    with database.write() as connection:
        connection.execute(sa.delete(tables.caltable_windows))
        connection.execute(sa.delete(tables.caltables))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(several=st.lists(described, max_size=SLOTS), mjd=day)
def test_the_nearest_valid_table_of_each_kind_is_chosen(
    several: list, mjd: float, store: tuple[Database, Path]
) -> None:
    database, root = store
    registry = Registry(database)
    _empty(database)
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
        registry.register([make_caltable(name, set_name=name)])
    assert registry.valid_tables(61000.0, ["B"])[0].path.name == "m"


def test_the_error_says_for_each_kind_what_there_is(registry: Registry, make_caltable) -> None:
    registry.register([make_caltable("a.B")])
    registry.register([make_caltable("a.G", kind="G", set_name="second")])
    registry.set_status("second", "retired")
    with pytest.raises(NoValidCalibrationError) as error:
        registry.valid_tables(61003.0, ["B", "G", "K"])
    message = str(error.value)
    assert "MJD 61003.0" in message
    assert (
        "B: the nearest before (of 1), solved on 2026-01-25T22:26:05, is valid for MJD [60999.50000, 61000.50000)"
        in message
    )
    assert "G: 1 registered, all retired or failed" in message
    assert "K: no table registered" in message


def test_a_table_gone_from_the_disk_is_passed_over(registry: Registry, make_caltable) -> None:
    near, far = make_caltable("near"), make_caltable("far", set_name="other", mjd=60999.7)
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


# ---- one set: windows that never overlap, and nothing forgotten ----------------------------------------------------

N_CELLS, N_TABLES = 12, 6
cells = st.tuples(st.integers(0, N_CELLS - 1), st.integers(1, N_CELLS)).filter(lambda pair: pair[0] < pair[1])
operations = st.lists(
    st.one_of(
        st.tuples(st.just("register"), st.sampled_from("ab"), st.sampled_from("BG"), cells),
        st.tuples(st.just("fail"), st.sampled_from("ab"), st.sampled_from("BG"), cells),
        st.tuples(st.just("retire"), st.integers(0, N_TABLES - 1)),
        st.tuples(st.just("restore"), st.integers(0, N_TABLES - 1)),
    ),
    max_size=12,
)


class Model:
    """Who owns each eighth of a day, in every set and kind: what the registry must say, with no windows at all."""

    def __init__(self) -> None:
        self.made: list[tuple[str, str, tuple[int, int], bool]] = []
        self.owner: dict[tuple[str, str, int], int] = {}

    def claim(self, number: int) -> None:
        name, kind, (begin, end), _ = self.made[number]
        self.drop(number)
        self.owner |= {(name, kind, cell): number for cell in range(begin, end)}

    def drop(self, number: int) -> None:
        self.owner = {place: who for place, who in self.owner.items() if who != number}


def _apply(registry: Registry, model: Model, root: Path, operation: tuple) -> None:
    word, *rest = operation
    if word in ("register", "fail"):
        name, kind, window = rest
        number = len(model.made)
        if number == N_TABLES:
            return
        begin, end = (61000.0 + cell / 8 for cell in window)
        path = root / str(number)
        table = CalTable(path, kind, name, 0, "g", "1", (begin + end) / 2, begin, end, 0.0, 9.0, "cal")
        registry.register([table], status="failed" if word == "fail" else "active")
        model.made.append((name, kind, window, word == "fail"))
        if word == "register":
            model.claim(number)
    elif rest[0] < len(model.made):
        if word == "retire":
            registry.retire(root / str(rest[0]))
            model.drop(rest[0])
        elif not model.made[rest[0]][3]:
            registry.restore(root / str(rest[0]))
            model.claim(rest[0])


def _told(registry: Registry, kind: str, cell: int, as_of: datetime | None) -> int | None:
    try:
        (table,) = registry.applylist(61000.0 + (cell + 0.5) / 8, as_of, [kind])
    except NoValidCalibrationError:
        return None
    return int(table.path.name)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(todo=operations)
def test_windows_of_a_set_never_overlap_and_the_past_can_be_asked(todo: list, store: tuple[Database, Path]) -> None:
    database, root = store
    registry, model = Registry(database), Model()
    _empty(database)
    past: list[tuple[datetime, dict[tuple[str, str, int], int]]] = []
    for operation in todo:
        _apply(registry, model, root, operation)
        past.append((_latest_change(database), dict(model.owner)))
    windows: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for row in registry.list_tables():
        windows.setdefault((row["set_name"], row["kind"]), []).extend(map(tuple, row["windows"]))
        assert (row["status"] == "active") == bool(row["windows"])
    for held in windows.values():
        held.sort()
        assert all(one[1] <= two[0] for one, two in itertools.pairwise(held)), held
    # what was said then is said again, although everything has changed since
    for moment, owner in past:
        for kind, cell in itertools.product("BG", range(0, N_CELLS, 3)):
            owners = {who for (_, of_kind, at), who in owner.items() if (of_kind, at) == (kind, cell)}
            told = _told(registry, kind, cell, moment)
            assert told in owners if owners else told is None


def _latest_change(database: Database) -> datetime:
    columns = tables.caltable_windows.c
    with database.read() as connection:
        moments = [
            connection.execute(sa.select(sa.func.max(c))).scalar() for c in (columns.opened_at, columns.closed_at)
        ]
    return max([tables.now(), *(moment for moment in moments if moment is not None)])


def test_a_newer_solution_splits_an_older_one_and_supersedes_a_covered_one(registry: Registry, make_caltable) -> None:
    wide = make_caltable("wide", valid_from=61000.0, valid_to=61001.0)
    inner = make_caltable("inner", mjd=61000.5, valid_from=61000.4, valid_to=61000.6)
    registry.register([wide])
    registry.register([inner])
    assert registry.show(wide.path)[0]["windows"] == [[61000.0, 61000.4], [61000.6, 61001.0]]
    assert [t.path.name for t in (registry.applylist(m, kinds=["B"])[0] for m in (61000.39, 61000.4, 61000.6))] == [
        "wide",
        "inner",
        "wide",
    ]
    cover = make_caltable("cover", valid_from=61000.3, valid_to=61000.7)
    registry.register([cover])
    (row,) = registry.show(inner.path)
    assert (row["status"], row["reason"]) == ("retired", f"superseded by {cover.path}")
    assert row["valid_from"] == 61000.4, "the window as solved is kept"


def test_retiring_leaves_a_hole_and_restoring_fills_it(registry: Registry, make_caltable) -> None:
    old, new = make_caltable("old"), make_caltable("new")
    registry.register([old])
    registry.register([new])
    assert registry.retire(new.path, "strange phases") == 1
    assert registry.show(new.path)[0]["reason"] == "strange phases"
    with pytest.raises(NoValidCalibrationError, match="retired or failed"):
        registry.applylist(61000.0, kinds=["B"])
    assert registry.restore(old.path) == 1
    assert registry.applylist(61000.0, kinds=["B"]) == (old,)


def test_a_path_solved_anew_is_another_table_and_the_old_is_not_forgotten(registry: Registry, make_caltable) -> None:
    table = make_caltable("a.B")
    (table.path / "table.f0").write_bytes(b"first")
    registry.register([table])
    then = tables.now()
    assert registry.applylist(61000.0, then, ["B"]) == (table,)
    (table.path / "table.f0").write_bytes(b"second")
    with pytest.raises(NoValidCalibrationError, match="no longer on disk as registered"):
        registry.applylist(61000.0, kinds=["B"])
    before = registry.hashes([table])
    registry.register([table])
    assert registry.applylist(61000.0, kinds=["B"]) == (table,)
    assert registry.hashes([table]) != before
    assert [row["status"] for row in registry.list_tables(history=True)] == ["retired", "active"]
    assert [row["status"] for row in registry.list_tables()] == ["active"]
    with pytest.raises(NoValidCalibrationError, match="no longer on disk as registered"):
        registry.applylist(61000.0, then, ["B"])


def test_lock_files_do_not_count(registry: Registry, make_caltable) -> None:
    table = make_caltable("a.B")
    registry.register([table])
    (table.path / "table.lock").write_bytes(b"a reader was here")
    assert registry.applylist(61000.0, kinds=["B"]) == (table,)


def test_without_kinds_every_kind_solved_on_a_calibrator_is_wanted(registry: Registry, make_caltable) -> None:
    with pytest.raises(NoValidCalibrationError, match="no table solved on a calibrator"):
        registry.applylist(61000.0)
    made = [make_caltable(f"a.{kind}", kind=kind, apply_order=n) for n, kind in enumerate(("K", "BA", "BP", "GA"))]
    phases = make_caltable("g.GP", kind="GP", apply_order=9, calibrator="", set_name="g_field")
    registry.register([*reversed(made), phases])
    assert registry.applylist(61000.0) == tuple(made)
    registry.retire(made[2].path)
    with pytest.raises(NoValidCalibrationError) as error:
        registry.applylist(61000.0)
    assert str(error.value.found).startswith("BP: ")


def test_the_error_names_what_lies_on_either_side(registry: Registry, make_caltable) -> None:
    registry.register(
        [make_caltable("early"), make_caltable("late", mjd=61004.0, valid_from=61003.5, valid_to=61004.5)]
    )
    with pytest.raises(
        NoValidCalibrationError, match=r"nearest before.*61000\.50000\) and the nearest after.*\[61003\.5"
    ):
        registry.applylist(61002.0, kinds=["B"])


def test_solutions_on_both_sides_are_found_beyond_their_validity(registry: Registry, make_caltable) -> None:
    made = [
        make_caltable(name, kind="G", mjd=mjd, valid_from=mjd - 0.02, valid_to=mjd + 0.02, set_name=name)
        for name, mjd in (("one", 61000.0), ("two", 61000.1), ("three", 61000.4))
    ]
    registry.register(made)
    assert registry.bracketing(61000.3, "G") == (made[1], made[2])
    assert registry.bracketing(61000.1, "G") == (made[1], made[2])
    assert registry.bracketing(61000.5, "G") == (made[2], None)
    assert registry.bracketing(60999.9, "G") == (None, made[0])
    assert registry.nearest(61000.3, "G") == tuple(made)
    registry.retire("two")
    assert registry.bracketing(61000.3, "G") == (made[0], made[2])
    with pytest.raises(NoValidCalibrationError, match="no table registered"):
        registry.bracketing(61000.3, "K")
    with pytest.raises(NoValidCalibrationError, match="within 2 h"):
        registry.bracketing(61000.2, "G", within_days=2 / 24)


@pytest.mark.parametrize("what", ["file", "nothing"])
def test_a_table_that_is_no_directory_is_refused_and_nothing_changes(registry, make_caltable, tmp_path, what) -> None:
    path = tmp_path / "bad.B"
    if what == "file":
        path.write_text("not a table")
    good = make_caltable("a.B")
    with pytest.raises(CorruptFileError, match=f"Found: a? ?{what}"):
        registry.register([good, dataclasses.replace(good, path=path)])
    assert registry.list_tables() == []


def test_a_path_given_twice_is_refused(registry: Registry, make_caltable) -> None:
    with pytest.raises(StateError, match="twice"):
        registry.register([make_caltable("a.B"), make_caltable("a.B", kind="G")])


def test_what_has_changed_on_disk_is_not_restored(registry: Registry, make_caltable) -> None:
    table = make_caltable("a.B")
    registry.register([table])
    registry.retire("first")
    (table.path / "more").write_bytes(b"x")
    with pytest.raises(CorruptFileError, match="another content"):
        registry.restore("first")
    assert registry.list_tables()[0]["status"] == "retired"


def test_a_table_found_bad_later_is_failed_and_stays_so(registry: Registry, make_caltable) -> None:
    table = make_caltable("a.B")
    registry.register([table], parents=[Path("/k")], quality={table.path: {"phase_rms_deg": 3.5, "bad": float("nan")}})
    row = registry.show(table.path)[0]
    assert row["parents"] == ["/k"] and row["quality"] == {"phase_rms_deg": 3.5, "bad": None}
    registry.register([table], status="failed", reason="residual 4 times thermal")
    row = registry.show(table.path)[0]
    assert (row["status"], row["reason"], row["windows"]) == ("failed", "residual 4 times thermal", [])
    assert registry.restore("first") == 0


def test_what_was_judged_bad_comes_back_when_it_is_judged_good(registry: Registry, make_caltable) -> None:
    table = make_caltable("a.B")
    for reason, expected in ((f"{JUDGED}closure bad", "active"), ("a person's word", "failed")):
        registry.register([table], status="failed", reason=reason)
        registry.register([table])
        assert registry.show(table.path)[-1]["status"] == expected
    assert registry.list_tables("B")[0]["status"] == "failed"


def test_a_moment_needs_a_zone(registry: Registry) -> None:
    with pytest.raises(StateError, match="zone"):
        registry.applylist(61000.0, datetime(2026, 1, 1))  # noqa: DTZ001 - that is the mistake


def test_a_target_takes_valid_gains_or_else_solutions_with_the_bandpass_of_each(registry, make_caltable) -> None:
    made = []
    for name, mjd in (("one", 61000.0), ("two", 61000.3)):
        for order, (kind, half) in enumerate((("B", 0.5), ("G", 0.02))):
            window = {"mjd": mjd, "valid_from": mjd - half, "valid_to": mjd + half}
            made.append(make_caltable(f"{name}.{kind}", kind=kind, apply_order=order, set_name=name, **window))
    registry.register(made)
    assert registry.for_target(61000.01) == ((made[0], made[1]), [])
    assert registry.for_target(61000.2) == ((made[2],), [(made[0], made[1]), (made[2], made[3])])
    registry.retire(made[0].path)
    assert registry.for_target(61000.2) == ((made[2],), [(made[2], made[3])])
    registry.retire("two")
    with pytest.raises(NoValidCalibrationError, match="B: "):
        registry.for_target(61000.2)
