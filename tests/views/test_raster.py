"""Every unflagged visibility is on the raster, once, where numpy puts it."""

from __future__ import annotations

import dask
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dsa110_contimg.exceptions import InputError
from dsa110_contimg.views import kernels, raster
from dsa110_contimg.views.columns import AGAINST, cells, columns_of

FINITE = st.floats(-(2.0**20), 2.0**20, width=32, allow_subnormal=False)


def cross(vis: xr.Dataset) -> np.ndarray:
    return (vis["baseline_antenna1_name"] != vis["baseline_antenna2_name"]).values


def unflagged(vis: xr.Dataset) -> np.ndarray:
    return vis["VISIBILITY"].values[:, cross(vis)][~vis["FLAG"].values[:, cross(vis)]]


@pytest.mark.parametrize("x", AGAINST)
def test_the_counts_add_up_to_the_unflagged_cross_correlations(corrected: xr.Dataset, x: str) -> None:
    number = unflagged(corrected).size
    for made in (raster.amplitude(corrected, x), raster.phase(corrected, x)):
        assert made.count.sum() + made.above == made.number == number
        assert made.not_finite == 0
        assert f"{number:,}" in made.caption


@pytest.mark.parametrize("x", AGAINST)
def test_each_pixel_holds_what_numpy_counts_there(raw: xr.Dataset, x: str) -> None:
    keep = cross(raw)
    shape = raw["VISIBILITY"].values[:, keep].shape
    made = raster.amplitude(raw, x), raster.phase(raw, x)
    uvw = raw["UVW"].values[:, keep]
    along = {
        "time": (raw["time"].values - raw["time"].values[0])[:, None, None, None] * 1440,
        "frequency": raw["frequency"].values[None, None, :, None] / 1e6,
        "uvdist": np.hypot(uvw[..., 0], uvw[..., 1])[..., None, None]
        * raw["frequency"].values[None, None, :, None]
        / 299_792_458e3,
    }[x]
    good = ~raw["FLAG"].values[:, keep]
    value = raw["VISIBILITY"].values[:, keep][good]
    x_values = np.broadcast_to(along, shape)[good]
    for one, y in zip(made, (np.abs(value), np.degrees(np.angle(value))), strict=True):
        expected = np.histogram2d(y, x_values, bins=(one.levels, one.columns.edges))[0]
        # one in ten thousand may lie within rounding of an edge
        assert np.abs(expected - one.count).sum() <= 2e-3 * value.size


def test_a_point_source_at_the_phase_centre_has_its_flux_in_every_column(corrected: xr.Dataset) -> None:
    exact = corrected.assign(VISIBILITY=corrected["MODEL"])
    for x in AGAINST:
        made = raster.amplitude(exact, x)
        there = made.count.sum(axis=0) > 0
        (row,) = np.flatnonzero(made.count.any(axis=1))
        assert made.levels[row] <= 2.0 < made.levels[row + 1]
        np.testing.assert_allclose(made.median[there], 2.0, rtol=1 / 128)
        phase = raster.phase(exact, x)
        (row,) = np.flatnonzero(phase.count.any(axis=1))
        assert phase.levels[row] <= 0.0 < phase.levels[row + 1]


def test_a_lazy_dataset_and_any_number_of_threads_give_the_same(corrected: xr.Dataset) -> None:
    lazy = corrected.chunk({"time": 3, "frequency": 7, "baseline_id": 5})
    for draw in (raster.amplitude, raster.phase):
        whole = draw(corrected)
        for threads in (1, 3):
            with dask.config.set(num_workers=threads):
                np.testing.assert_array_equal(draw(lazy).count, whole.count)


def test_what_is_not_finite_is_counted_and_said(corrected: xr.Dataset) -> None:
    value = corrected["VISIBILITY"].values.copy()
    bad = np.flatnonzero(cross(corrected))[0]
    value[0, bad, -3:, 0] = [np.nan, np.inf, complex(0, -np.inf)]
    spoilt = corrected.assign(VISIBILITY=(corrected["VISIBILITY"].dims, value))
    for made in (raster.amplitude(spoilt), raster.phase(spoilt)):
        assert made.not_finite == 3
        assert made.number == unflagged(corrected).size - 3
        assert "3 more are not finite" in made.caption


def test_interference_does_not_squeeze_the_rest_flat_and_is_said(corrected: xr.Dataset) -> None:
    value = corrected["VISIBILITY"].values.copy()
    bad = np.flatnonzero(cross(corrected))[0]
    value[0, bad, -2:, 0] = 1e6
    made = raster.amplitude(corrected.assign(VISIBILITY=(corrected["VISIBILITY"].dims, value)))
    assert made.above >= 2
    assert made.levels[-1] < 10
    assert made.number == unflagged(corrected).size


def test_autocorrelations_and_cross_hands_show_where_there_is_nothing_else(corrected: xr.Dataset) -> None:
    auto = corrected.isel(baseline_id=np.flatnonzero(~cross(corrected)))
    assert raster.amplitude(auto).number == (~auto["FLAG"]).sum()
    hands = corrected.assign_coords(polarization=["XY", "YX"])
    assert raster.amplitude(hands).number == unflagged(corrected).size
    mixed = corrected.assign_coords(polarization=["XX", "XY"])
    assert raster.amplitude(mixed).number == unflagged(corrected.isel(polarization=[0])).size


def test_another_axis_is_refused(corrected: xr.Dataset) -> None:
    with pytest.raises(InputError, match="uvdist, time, frequency"):
        raster.amplitude(corrected, "elevation")


def test_all_flagged_is_an_empty_raster(corrected: xr.Dataset) -> None:
    made = raster.amplitude(corrected.assign(FLAG=corrected["FLAG"] | True))
    assert made.number == 0
    assert np.isnan(made.median).all()


# ---- kernels ------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(arrays(np.complex64, (1, 2, 5, 2), elements=st.builds(complex, FINITE, FINITE)))
def test_an_amplitude_is_in_the_bin_whose_edges_hold_it(value: np.ndarray) -> None:
    out = np.zeros((1, kernels.AMPLITUDE_BINS), np.int64)
    flag = np.zeros(value.shape, bool)
    row_x, channel_x, hands = np.zeros(value.shape[:2]), np.zeros(5), np.ones(2, bool)
    assert kernels.amplitude_counts(value, flag, row_x, channel_x, hands, out) == 0
    edges = kernels.amplitude_edges()
    edges[0], edges[-1] = 0, np.inf
    size = np.sqrt(value.real * value.real + value.imag * value.imag)
    np.testing.assert_array_equal(out[0], np.histogram(size, edges)[0])


@settings(deadline=None)
@given(arrays(np.complex64, 40, elements=st.builds(complex, FINITE, FINITE).filter(lambda z: abs(z) > 1e-3)))
def test_a_phase_is_right_to_a_hundred_thousandth(value: np.ndarray) -> None:
    n = 3600
    for one in value:
        out = np.zeros((1, n), np.int64)
        block = np.full((1, 1, 1, 1), one, np.complex64)
        no = np.zeros((1, 1)), np.zeros(1)
        kernels.phase_counts(block, np.zeros(block.shape, bool), *no, np.ones(1, bool), out)
        width = 2 * np.pi / n
        found = -np.pi + (np.flatnonzero(out[0])[0] + 0.5) * width
        assert abs(np.angle(np.exp(1j * (found - np.angle(one))))) <= width / 2 + 2e-5


def test_zero_has_no_phase() -> None:
    block, out = np.zeros((1, 1, 1, 1), np.complex64), np.zeros((1, 4), np.int64)
    no = np.zeros((1, 1)), np.zeros(1)
    assert kernels.phase_counts(block, np.zeros(block.shape, bool), *no, np.ones(1, bool), out) == 1
    assert out.sum() == 0


@given(st.lists(st.integers(0, kernels.AMPLITUDE_BINS - 1), min_size=1, max_size=200))
def test_even_levels_keep_every_count_in_its_place(bins: list[int]) -> None:
    fine = np.zeros((1, kernels.AMPLITUDE_BINS), np.int64)
    np.add.at(fine[0], bins, 1)
    count, levels, above = raster._even_levels(fine)
    assert count.sum() + above == len(bins)
    lower = kernels.amplitude_edges()[:-1]
    expected = np.histogram(np.where(np.array(bins) == 0, 0.0, lower[bins]), levels)[0]
    np.testing.assert_array_equal(count[:, 0], expected)
    assert np.ptp(np.diff(levels)) <= 1e-9 * levels[-1]


# ---- columns ------------------------------------------------------------------------------------------------------


@given(
    st.lists(st.booleans(), min_size=2, max_size=60).map(lambda gaps: np.cumsum([1 + 5 * gap for gap in gaps])),
    st.integers(2, 30),
)
def test_a_cell_holds_its_members_and_never_reaches_over_a_gap(places: np.ndarray, most: int) -> None:
    centres = places.astype(float)
    edges, index, members = cells(centres, 1.0, most)
    assert (np.diff(edges) > 0).all()
    assert ((edges[index] < centres) & (centres < edges[index + 1])).all()
    assert np.bincount(index).max() <= members
    for cell in np.unique(index):
        assert (np.diff(centres[index == cell]) < 1.5).all()
    gaps = int((np.diff(centres) > 1.5).sum())
    assert edges.size - 1 <= -(-centres.size // members) + 2 * gaps


def test_the_column_of_a_baseline_is_that_of_its_length_in_wavelengths(corrected: xr.Dataset) -> None:
    axis, row_x, channel_x = columns_of(corrected, "uvdist")
    length = np.hypot(corrected["UVW"].values[..., 0], corrected["UVW"].values[..., 1])
    kilo = length[..., None] * corrected["frequency"].values / 299_792_458e3
    column = np.clip((row_x[..., None] + channel_x)[:, cross(corrected)].astype(int), 0, axis.edges.size - 2)
    kilo = kilo[:, cross(corrected)]
    assert (axis.edges[column] <= kilo * (1 + 1e-9)).all()
    assert (kilo <= axis.edges[column + 1] * (1 + 1e-9)).all()


def test_a_missing_subband_is_an_empty_column(corrected: xr.Dataset) -> None:
    holed = corrected.isel(frequency=np.r_[0:30, 40:96])
    made = raster.amplitude(holed, "frequency")
    width = np.diff(made.columns.edges)
    gap = int(np.argmax(width))
    assert width[gap] == pytest.approx(10 * np.median(width))
    assert made.count[:, gap].sum() == 0
