"""The kernel that corrects rows in place does what the equation says, for every hand, and adds up what it saw."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from dsa110_contimg.exceptions import CalibrationError, InputError
from dsa110_contimg.science import applying

HANDS = ("XX", "XY", "YX", "YY")
NAMES = ("1", "2", "3", "4")


def rows(seed, n_channels=5):
    rng = np.random.default_rng(seed)
    one, two = np.triu_indices(4)
    shape = (one.size, n_channels, 4)
    data, model = ((rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64) for _ in range(2))
    inverse = (rng.uniform(0.5, 2, (4, n_channels, 2)) * np.exp(6j * rng.random((4, n_channels, 2)))).astype(
        np.complex64
    )
    inverse[rng.random(inverse.shape) < 0.1] = np.nan
    return applying.Block(data, model, rng.random(shape) < 0.2), inverse, np.stack([one, two], axis=-1)


FEEDS = np.array([["XY".index(letter) for letter in hand] for hand in HANDS])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_rows_are_divided_by_the_gains_of_both_receptors(seed):
    block, inverse, ends = rows(seed)
    before = applying.Block(*(array.copy() for array in block))
    sums = np.empty((len(ends), 4, applying.N_SUMS))
    added = applying.correct(block, inverse, ends, FEEDS, sums)
    one, two = (inverse[ends[:, i]][..., FEEDS[:, i]].astype(complex) for i in (0, 1))
    factor = one * two.conj()
    solved = np.isfinite(factor)
    np.testing.assert_allclose(block.data[solved], (before.data * factor)[solved], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(block.data[~solved], before.data[~solved])
    np.testing.assert_array_equal(block.flags, before.flags | ~solved)
    np.testing.assert_array_equal(block.model, before.model)
    assert added == bool((~before.flags & ~solved).any())
    good = ~block.flags
    data, model = block.data.astype(complex) * good, block.model.astype(complex) * good
    np.testing.assert_allclose(
        sums[..., 0] + 1j * sums[..., 1], (data * model.conj()).sum(axis=1), rtol=1e-6, atol=1e-6
    )
    np.testing.assert_allclose(sums[..., 2], (np.abs(model) ** 2).sum(axis=1), rtol=1e-6)
    np.testing.assert_allclose(sums[..., 3], (np.abs(data - model) ** 2).sum(axis=1), rtol=1e-5, atol=1e-9)
    np.testing.assert_array_equal(sums[..., 4], good.sum(axis=1))


def test_zeros_are_counted_and_no_model_is_no_comparison():
    block, inverse, ends = rows(1)
    block.data[:, 2], block.flags[...], inverse[...] = 0.0, False, 1.0
    sums = np.empty((len(ends), 4, applying.N_SUMS))
    applying.correct(block._replace(model=block.model[:, :0]), inverse, ends, FEEDS, sums)
    np.testing.assert_array_equal(sums[..., 5], 1.0)
    np.testing.assert_array_equal(sums[..., :4], 0.0)


def table(gain, kind="G Jones", flag=False):
    gain = np.asarray(gain, np.complex64)
    dims = ("time", "antenna_name", "frequency", "polarization")
    return xr.Dataset(
        {"GAIN": (dims, gain), "FLAG": (dims, np.full(gain.shape, flag)), "SNR": (dims, np.ones(gain.shape))},
        coords={
            "time": 61066.0 + np.arange(gain.shape[0]),
            "antenna_name": list(NAMES),
            "frequency": 1.4e9 + 1e6 * np.arange(gain.shape[2]),
            "polarization": ["X", "Y"],
        },
        attrs={"kind": kind, "refant": "1"},
    )


def test_tables_are_multiplied_and_weights_take_the_mean_power_of_each():
    rng = np.random.default_rng(4)
    band, level = rng.uniform(0.5, 2, (1, 4, 3, 2)), rng.uniform(0.5, 2, (2, 4, 1, 2))
    mjd, frequencies = np.array([61066.0, 61067.0]), 1.4e9 + 1e6 * np.arange(3)
    found = applying.solutions([table(band, "B Jones"), table(level)], mjd, frequencies, NAMES, HANDS)
    for time in range(2):
        np.testing.assert_allclose(1 / found.inverse(time), (band[0] * level[time]), rtol=1e-6)
        expected = (band[0] ** 2).mean(axis=1) * level[time, :, 0] ** 2
        np.testing.assert_allclose(found.weight_factor(time), expected, rtol=1e-6)


def test_tables_that_cannot_be_applied_are_an_error():
    mjd, frequencies = np.array([61066.0]), np.array([1.4e9])
    with pytest.raises(InputError, match="No calibration tables"):
        applying.solutions([], mjd, frequencies, NAMES, HANDS)
    with pytest.raises(InputError, match="Stokes"):
        applying.solutions([table(np.ones((1, 4, 1, 2)))], mjd, frequencies, NAMES, ("I",))
    with pytest.raises(CalibrationError, match="No antenna has a solution"):
        applying.solutions([table(np.ones((1, 4, 1, 2)), flag=True)], mjd, frequencies, NAMES, HANDS)
