from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dsa110_contimg.views.blocks import block_averages, block_frequencies, counts, time_slices


def test_every_unflagged_cross_correlation_enters_the_average(corrected: xr.Dataset) -> None:
    blocks = block_averages(corrected, channels=16)
    cross = corrected["baseline_antenna1_name"].values != corrected["baseline_antenna2_name"].values
    value = np.ma.masked_array(corrected["VISIBILITY"].values, corrected["FLAG"].values)[:, cross]
    model = np.ma.masked_array(corrected["MODEL"].values, corrected["FLAG"].values)[:, cross]
    shape = (value.shape[0], value.shape[1], -1, 16, value.shape[3])
    np.testing.assert_allclose(blocks.value, value.reshape(shape).mean(axis=3).filled(np.nan), rtol=1e-5)
    against = (value * model.conj()).reshape(shape).mean(axis=3).filled(np.nan)
    np.testing.assert_allclose(blocks.residual_phase, np.angle(against), atol=1e-4)


def test_a_block_with_all_flagged_is_missing_not_zero(corrected: xr.Dataset) -> None:
    flagged = corrected.assign(FLAG=corrected["FLAG"] | True)
    assert np.isnan(block_averages(flagged).value).all()


def test_a_lazy_dataset_gives_the_same_as_one_in_memory(corrected: xr.Dataset) -> None:
    lazy = block_averages(corrected.chunk({"time": 3}))
    np.testing.assert_array_equal(lazy.value, block_averages(corrected).value)
    assert list(time_slices(corrected.chunk({"time": 3}))) == [slice(0, 3), slice(3, 4)]


def test_phases_align_after_calibration_and_not_before(raw: xr.Dataset, corrected: xr.Dataset) -> None:
    assert block_averages(corrected).alignment > 0.99
    assert block_averages(raw).alignment < 0.5


def test_without_a_model_the_phase_is_that_of_the_data(corrected: xr.Dataset) -> None:
    blocks = block_averages(corrected.drop_vars("MODEL"))
    assert not blocks.has_model
    np.testing.assert_allclose(blocks.residual_phase, np.angle(blocks.value))


def test_the_last_block_may_be_shorter() -> None:
    np.testing.assert_allclose(block_frequencies(np.arange(5.0), 2), [0.5, 2.5, 4.0])


# multiples of 2^-10 are exact, so that rounding cannot put a value on different sides of an edge
EXACT = st.integers(-2048, 2048).map(lambda number: number / 1024)


@given(arrays(float, 40, elements=EXACT), arrays(float, 40, elements=EXACT | st.just(float("nan"))))
def test_counts_are_those_of_numpy(x: np.ndarray, y: np.ndarray) -> None:
    edges = np.linspace(-1, 1, 9)
    good = np.isfinite(y)
    expected = np.histogram2d(y[good], x[good], bins=(edges, edges))[0]
    np.testing.assert_array_equal(counts(x, y, edges, edges), expected)


def test_weighted_counts_sum_the_weights() -> None:
    edges = np.linspace(0, 1, 3)
    weighted = counts(np.array([0.1, 0.2, 9.0]), np.array([0.1, 0.2, 0.1]), edges, edges, np.array([2.0, 3.0, 7.0]))
    assert weighted[0, 0] == pytest.approx(5.0)
    assert weighted.sum() == pytest.approx(5.0)
