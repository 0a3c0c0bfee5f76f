"""Tables that were solved on top of one another are applied together, and with no others."""

import pytest

from dsa110_contimg.exceptions import NoValidCalibrationError
from dsa110_contimg.state.registry import Registry

ORDER = {"K": 0, "B": 1, "BA": 1, "BP": 1, "G": 2, "GA": 2, "GP": 3, "2G": 4, "FLUX": 5}
HALF = {"K": 0.5, "B": 0.5, "BA": 0.5, "BP": 0.5}


@pytest.fixture
def registry(database):
    return Registry(database)


@pytest.fixture
def solve(registry, make_caltable):
    """Register a calibrator's set of some kinds, solved at a time."""

    def make(name, mjd, kinds, **more):
        made = []
        for kind in kinds.split():
            half = HALF.get(kind, 1 / 48)
            window = {"mjd": mjd, "valid_from": mjd - half, "valid_to": mjd + half}
            made.append(
                make_caltable(
                    f"{name}.{kind}", kind=kind, apply_order=ORDER[kind], set_name=name, group_id=name, **window, **more
                )
            )
        registry.register(made, whole_sets=True)
        return made

    return make


def names(tables):
    return [table.path.name for table in tables]


def target(registry, mjd):
    tables, around = registry.for_target(mjd)
    return names(tables), [names(pair) for pair in around]


def test_delays_are_taken_with_the_bandpass_that_was_solved_on_them(registry, solve):
    solve("one", 61000.0, "K B G")
    solve("two", 61000.1, "B G")
    assert target(registry, 61000.0) == (["one.K", "one.B", "one.G"], [])
    assert target(registry, 61000.1) == (["two.B", "two.G"], [])
    # between them: the bandpass of the nearest, with or without delays as it was solved
    between = [["one.B", "one.G"], ["two.B", "two.G"]]
    assert target(registry, 61000.04) == (["one.K", "one.B"], between)
    assert target(registry, 61000.06) == (["two.B"], between)


def test_a_bandpass_without_the_delays_it_was_solved_on_is_no_bandpass(registry, solve):
    one = solve("one", 61000.0, "K B G")
    solve("two", 61000.1, "B G")
    registry.retire(one[0].path)
    assert target(registry, 61000.0)[0] == ["two.B"]
    registry.restore(one[0].path)
    one[0].path.rmdir()
    assert target(registry, 61000.0)[0] == ["two.B"]
    registry.retire("two")
    with pytest.raises(NoValidCalibrationError, match="K: 1 valid but no longer on disk") as error:
        target(registry, 61000.0)
    assert "B: " not in str(error.value.found)


def test_gains_are_not_applied_on_the_bandpass_of_another_set(registry, solve):
    one = solve("one", 61000.0, "B G")
    solve("two", 61000.1, "B G")
    registry.retire(one[0].path)
    # the gain of the first holds, but its bandpass does not: amplitudes of the second are carried over
    assert target(registry, 61000.0) == (["two.B"], [["two.B", "two.G"]])
    registry.retire("two")
    with pytest.raises(NoValidCalibrationError, match="B: 2 registered, all retired"):
        target(registry, 61000.0)


def test_parts_are_taken_together_and_without_the_calibrators_phases(registry, solve):
    one = solve("one", 61000.0, "K BA BP GA GP")
    assert target(registry, 61000.0) == (["one.K", "one.BA", "one.BP", "one.GA"], [])
    solve("two", 61000.2, "B G")
    assert target(registry, 61000.12) == (["two.B"], [["one.BA", "one.GA"], ["two.B", "two.G"]])
    registry.retire(one[2].path)
    assert target(registry, 61000.0)[0] == ["two.B"]


def test_what_a_group_made_for_itself_serves_no_other(registry, solve, make_caltable):
    solve("one", 61000.0, "BA BP GA GP")
    own = [
        make_caltable(f"g.{kind}", kind=kind, apply_order=ORDER[kind], set_name="g_field", mjd=61000.1, calibrator="")
        for kind in ("GA", "GP", "FLUX")
    ]
    registry.register(own, whole_sets=True)
    assert target(registry, 61000.1) == (["one.BA", "one.BP"], [["one.BA", "one.GA"]])


def test_a_set_solved_anew_is_what_it_is_now(registry, solve):
    solve("one", 61000.0, "K B G")
    solve("one", 61000.0, "B G", median_snr=50.0)
    assert target(registry, 61000.0) == (["one.B", "one.G"], [])
    retired = [row for row in registry.list_tables() if row["status"] == "retired"]
    assert [(row["kind"], row["reason"]) for row in retired] == [("K", "the set was solved anew without it")]
    solve("one", 61000.0, "BA BP GA GP")
    assert target(registry, 61000.0) == (["one.BA", "one.BP", "one.GA"], [])
    assert {row["kind"] for row in registry.list_tables() if row["status"] == "active"} == {"BA", "BP", "GA", "GP"}
    # and back: the very same tables come in again
    solve("one", 61000.0, "K B G")
    assert target(registry, 61000.0) == (["one.K", "one.B", "one.G"], [])


def test_without_kinds_those_of_the_nearest_set_are_wanted(registry, solve):
    solve("one", 61000.0, "K BA BP GA GP")
    solve("two", 61000.02, "B G")
    assert names(registry.applylist(61000.0)) == ["one.K", "one.BA", "one.BP", "one.GA", "one.GP"]
    assert names(registry.applylist(61000.015)) == ["two.B", "two.G"]
    solve("one", 61000.0, "B G", median_snr=50.0)
    assert names(registry.applylist(61000.0)) == ["one.B", "one.G"]


def test_registering_a_set_of_one_run_leaves_that_of_another(registry, make_caltable):
    mine = make_caltable("mine.K", kind="K")
    theirs = make_caltable("theirs.B")
    registry.register([mine], run_label="try", whole_sets=True)
    registry.register([theirs], whole_sets=True)
    assert {row["status"] for row in registry.list_tables(run_label=None)} == {"active"}
