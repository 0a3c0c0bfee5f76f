"""A selection holds what was asked for and nothing else, and reads nothing."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from dsa110_contimg.exceptions import InputError
from dsa110_contimg.science.selection import select

HERE = (1.4, 0.29)


def pairs(view):
    return list(zip(view.baseline_antenna1_name.to_numpy(), view.baseline_antenna2_name.to_numpy(), strict=True))


def test_baselines_of_antennas(looking_at):
    view = looking_at([], HERE)
    assert pairs(select(view, antenna="3")) == [p for p in pairs(view) if "3" in p]
    assert pairs(select(view, antenna=["3", "5"], autocorrelations=False)) == [
        p for p in pairs(view) if {"3", "5"} & set(p) and p[0] != p[1]
    ]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("1-5", [("1", "5")]),
        ("5-1", [("1", "5")]),
        (("5", "1"), [("1", "5")]),
        (["2-3", ("1", "5"), "4-4"], [("1", "5"), ("2", "3"), ("4", "4")]),
        (("1-5", "2-3"), [("1", "5"), ("2", "3")]),
    ],
)
def test_baselines_by_name_in_either_order(looking_at, wanted, found):
    assert pairs(select(looking_at([], HERE), baseline=wanted)) == found


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(limits=st.tuples(st.floats(0, 1500), st.floats(300, 2600)).filter(lambda x: x[0] + 200 < x[1]))
def test_uv_range_leaves_unflagged_what_is_inside_and_nothing_else(looking_at, limits):
    view = looking_at([], HERE, n_antennas=8, n_times=4)
    view["FLAG"][...] = False
    length = np.hypot(view.UVW[..., 0], view.UVW[..., 1]).to_numpy()
    inside = (length >= limits[0]) & (length <= limits[1])
    assume(inside.any())
    out = select(view, uvrange=limits)
    assert pairs(out) == [p for p, kept in zip(pairs(view), inside.any(axis=0), strict=True) if kept]
    np.testing.assert_array_equal(~out.FLAG.to_numpy()[:, :, 0, 0], inside[:, inside.any(axis=0)])
    assert not view.FLAG.any()


def test_open_ends(looking_at):
    view = looking_at([], HERE)
    long = select(view, uvrange=(500.0, None), autocorrelations=False)
    short = select(view, uvrange=(None, 500.0), autocorrelations=False)
    assert sorted(pairs(long) + pairs(short)) == sorted(p for p in pairs(view) if p[0] != p[1])
    assert select(view, frequency=(None, None)).sizes == view.sizes


def test_times_and_frequencies(looking_at):
    view = looking_at([], HERE, n_times=4)
    mjd, hz = view.time.to_numpy(), view.frequency.to_numpy()
    assert select(view, time=(mjd[1], mjd[2])).time.to_numpy().tolist() == mjd[1:3].tolist()
    assert select(view, time=("2026-01-26T04:48:10", None)).time.to_numpy().tolist() == mjd[1:].tolist()
    assert select(view, frequency=(hz[3] - 1, hz[7] + 1)).frequency.to_numpy().tolist() == hz[3:8].tolist()


def test_a_lazy_view_is_not_read(looking_at, nothing_computed):
    lazy = looking_at([], HERE, chunks=(2, 21, 4, 2))
    with nothing_computed():
        out = select(lazy, antenna="2", uvrange=(100.0, 1000.0), frequency=(1.4005e9, None), autocorrelations=False)
    assert out.VISIBILITY.chunks is not None
    plain = select(
        looking_at([], HERE), antenna="2", uvrange=(100.0, 1000.0), frequency=(1.4005e9, None), autocorrelations=False
    )
    np.testing.assert_array_equal(out.FLAG, plain.FLAG)


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ({"antenna": "99"}, "no such antennas.*'99'"),
        ({"baseline": "1-99"}, "no such baselines.*1-99"),
        ({"baseline": "1-2-3"}, "Not a baseline"),
        ({"baseline": ["1", "5"]}, "Not a baseline"),
        ({"time": ("yesterday", None)}, "Not a time.*yesterday"),
        ({"time": (60000.0, 60001.0)}, "Nothing is left.*time from 61066"),
        ({"frequency": (1.5e9, None)}, "Nothing is left.*frequency from 14"),
        ({"uvrange": (1e4, None)}, "Nothing is left"),
        ({"baseline": "4-4", "autocorrelations": False}, "Nothing is left.*21 baselines"),
    ],
)
def test_a_selection_of_nothing_is_an_error_that_says_what_there_is(looking_at, condition, message):
    with pytest.raises(InputError, match=message):
        select(looking_at([], HERE), **condition)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("antenna", (1.5, [1.5], {"a": 1}, [[1]], True, b"2", [None]), "Not antennas. Found: .* Expected: a station"),
        ("baseline", (5, 1.5, [5], [None], (1.5, 2.5), {"a": 1}, [("1", "2", "3")]), "Not a baseline. Found"),
        ("uvrange", (5, "100", (1,), (1, 2, 3), {"a": 1}), "Not a range of uvrange. Found.*lowest, highest"),
        ("uvrange", (("a", "b"), (float("nan"), 1), (1j, 2)), "Not an end of a range of uvrange"),
        ("time", (5, "61066", (1,)), "Not a range of time"),
        ("time", ((None, object()), (np.datetime64("2026-01-26"), None)), "Not an end of a range of time"),
        ("frequency", (1.4e9, slice(1, 2), (1, 2, 3)), "Not a range of frequency"),
        ("frequency", (("1.4", None), (True, None)), "Not an end of a range of frequency"),
        ("autocorrelations", ("no", None, 2), "Not what autocorrelations can be.*True or False"),
    ],
)
def test_a_condition_of_another_form_is_an_error_that_says_what_it_can_be(looking_at, name, values, message):
    view = looking_at([], HERE)
    for value in values:
        with pytest.raises(InputError, match=message):
            select(view, **{name: value})


def test_numbers_of_numpy_and_lists_are_as_good_as_those_of_python(looking_at):
    view = looking_at([], HERE)
    one = select(view, antenna=2, uvrange=(100.0, 1000.0))
    same = select(view, antenna=np.int64(2), uvrange=np.array([100.0, 1000.0]))
    xr.testing.assert_identical(one, same)
    xr.testing.assert_identical(select(view, baseline=(1, 5)), select(view, baseline="1-5"))
