"""The antennas of a simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsa110_contimg import telescope
from dsa110_contimg.simulate.array import SWAPPED, build_array, choose_stations


def test_all_96_active_stations_take_part() -> None:
    table = telescope.stations()
    assert choose_stations(96).tolist() == table.number[table.active].tolist()


@settings(max_examples=20, deadline=None)
@given(st.integers(min_value=2, max_value=95))
def test_a_smaller_array_is_part_of_a_larger_one_and_keeps_the_arms(n: int) -> None:
    chosen = choose_stations(n)
    assert set(chosen) < set(choose_stations(n + 1))
    arms = np.array(telescope.stations().arm)[chosen - 1]
    for arm, share in (("EW", 47 / 96), ("NS", 35 / 96), ("OUT", 14 / 96)):
        assert abs((arms == arm).sum() - n * share) <= 2


def test_eight_antennas_reach_beyond_the_core() -> None:
    assert np.linalg.norm(build_array(8).baselines_m, axis=-1).max() > 1000.0


@pytest.mark.parametrize("n", [16, 96])
def test_baselines_come_in_the_correlators_order(n: int) -> None:
    array = build_array(n)
    order = array.order
    expected = [(order[j] - 1, order[i] - 1) for i in range(n) for j in range(i + 1)]
    assert list(zip(array.antenna1, array.antenna2, strict=True)) == expected
    assert array.n_baselines == n * (n + 1) // 2


def test_two_stations_are_out_of_order_so_that_ant1_exceeds_ant2_somewhere() -> None:
    array = build_array(96)
    swapped = array.antenna1 > array.antenna2
    assert swapped.any()
    pairs = np.stack([array.antenna1, array.antenna2])[:, swapped] + 1
    assert np.isin(pairs, SWAPPED).any(axis=0).all()
