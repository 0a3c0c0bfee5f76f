"""Stokes I is what imaging takes for it: the weighted mean of the hands that are not flagged."""

import numpy as np
import pytest

from dsa110_contimg import schema
from dsa110_contimg.exceptions import InputError
from dsa110_contimg.science.averaging import from_dataset
from dsa110_contimg.science.stokes import stokes_i

HERE = (1.4, 0.29)


def noisy(view):
    rng = np.random.default_rng(5)
    shape = view.VISIBILITY.shape
    view["VISIBILITY"][...] = (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)
    view["FLAG"][0, 3] = True
    return view


def test_it_is_what_imaging_makes_of_the_same_data(looking_at):
    view = noisy(looking_at([], HERE))
    mine, imaging = stokes_i(view), from_dataset(view, 0.0, 0.02)
    cross = view.baseline_antenna1_name.to_numpy() != view.baseline_antenna2_name.to_numpy()
    # imaging has no samples of autocorrelations: their rows are empty of weight
    shape = (*view.UVW.shape[:2], view.sizes["frequency"])
    np.testing.assert_allclose(
        mine.VISIBILITY[..., 0].to_numpy()[:, cross], imaging.visibilities.reshape(shape)[:, cross], rtol=0, atol=5e-7
    )
    np.testing.assert_array_equal(mine.WEIGHT[..., 0].to_numpy()[:, cross], imaging.weights.reshape(shape)[:, cross])


def test_a_hand_that_is_flagged_is_left_out_and_both_flag_the_result(looking_at):
    view = looking_at([(*HERE, 3.0)], HERE)
    view["WEIGHT"][...] = 1.0
    view["FLAG"][...] = False
    view["FLAG"][:, :, 2, 0], view["VISIBILITY"][:, :, 2, 0] = True, np.nan
    view["FLAG"][:, :, 5] = True
    out = stokes_i(view)
    assert list(out.polarization.to_numpy()) == ["I"]
    np.testing.assert_array_equal(np.flatnonzero(out.FLAG[0, 1, :, 0]), [5])
    np.testing.assert_allclose(out.VISIBILITY.where(~out.FLAG, 3.0), 3.0, rtol=1e-6)
    np.testing.assert_array_equal(out.WEIGHT[0, 1, :7, 0], [2, 2, 1, 2, 2, 0, 2])
    assert schema.faults(out, schema.VISIBILITIES) == []
    np.testing.assert_array_equal(out.UVW, view.UVW)


def test_cross_hands_are_left_out(looking_at):
    two = noisy(looking_at([], HERE))
    four = two.isel(polarization=[0, 0, 1, 1]).assign_coords(polarization=["XX", "XY", "YX", "YY"]).copy(deep=True)
    four["VISIBILITY"][..., 1:3] = 99.0
    np.testing.assert_array_equal(stokes_i(four).VISIBILITY, stokes_i(two).VISIBILITY)
    with pytest.raises(InputError, match=r"parallel hands.*XX.*XY"):
        stokes_i(four.isel(polarization=[0, 1]))


def test_a_lazy_view_stays_lazy_whatever_its_chunks(looking_at, nothing_computed):
    lazy = looking_at([(1.41, 0.3, 1.0)], HERE, chunks=(3, 7, 5, 1))
    with nothing_computed():
        out = stokes_i(lazy)
    expected = stokes_i(looking_at([(1.41, 0.3, 1.0)], HERE))
    for name in ("VISIBILITY", "MODEL", "WEIGHT", "FLAG"):
        np.testing.assert_array_equal(out[name], expected[name])
