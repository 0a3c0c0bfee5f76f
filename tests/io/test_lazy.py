"""Lazy arrays: what they give is what numpy gives, and a narrowed one asks its source for nothing else."""

from dataclasses import dataclass, field

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from dsa110_contimg.io import lazy

SHAPE = (6, 10, 8, 2)
CHUNKS = ((4, 2), (10,), (4, 4), (2,))


@dataclass(frozen=True)
class Stored:
    """Numbers that know how many of them were read."""

    values: np.ndarray = field(default_factory=lambda: np.arange(np.prod(SHAPE), dtype=np.float64).reshape(SHAPE))
    read_sizes: list[int] = field(default_factory=list)

    @property
    def dtype(self):
        return self.values.dtype

    def read(self, index):
        self.read_sizes.append(int(np.prod([i.size for i in index])))
        return self.values[np.ix_(*index)]


def opened():
    stored = Stored()
    return stored, xr.DataArray(lazy.whole(stored, CHUNKS), dims=("t", "b", "f", "p"))


def narrowed(array, choice):
    """A selection at the source."""
    data = array.data
    key = tuple(np.asarray(c) if isinstance(c, list) else c for c in (choice.get(d, slice(None)) for d in array.dims))
    kept = [d for d in array.dims if not isinstance(choice.get(d), int)]
    return xr.DataArray(data.selection.narrowed(key, data.chunks), dims=kept)


@pytest.mark.parametrize(
    "choice",
    [
        {"b": 3},
        {"b": [1, 4, 7]},
        {"b": [7, 1]},
        {"t": slice(1, 6, 2), "f": slice(2, 5)},
        {"b": np.arange(10) % 3 == 0, "p": 1},
        {"b": [2, 5], "f": [0, 7], "t": -1},
        {"f": slice(None, None, -1)},
        {"b": [0, 1, 2]},
    ],
    ids=str,
)
def test_no_more_is_read_than_was_asked_for(choice):
    stored, array = opened()
    asked = narrowed(array, choice)
    assert stored.read_sizes == []
    assert np.array_equal(
        asked.compute(scheduler="sync").to_numpy(), xr.DataArray(stored.values, dims=array.dims).isel(choice)
    )
    assert sum(stored.read_sizes) == asked.size


def test_one_selection_after_another_reads_what_is_left():
    stored, array = opened()
    left = narrowed(narrowed(narrowed(array, {"b": slice(2, 9)}), {"p": 0}), {"b": [1, 3], "t": slice(0, 3), "f": 5})
    assert np.array_equal(left.to_numpy(), stored.values[0:3, [3, 5], 5, 0])
    assert sum(stored.read_sizes) == 6


def test_it_is_an_ordinary_dask_array_and_so_is_what_is_computed_from_it():
    stored, array = opened()
    assert type(array.data) is da.Array is type((2 * array).data)
    assert not hasattr((2 * array).data, "selection")
    assert np.array_equal(array.isel(b=[7, 1], p=0).to_numpy(), stored.values[..., 0][:, [7, 1]])
    mixed = xr.Dataset({"a": array, "b": array + 1}).compute()
    assert np.array_equal(mixed["b"] - mixed["a"], np.ones(SHAPE))
    assert np.array_equal((2 * array).isel(b=3).to_numpy(), 2 * stored.values[:, 3])
    assert array.data.map_blocks(np.negative).chunks == array.data.chunks
    assert np.array_equal(array.data.rechunk((6, 10, 8, 2)).compute(), stored.values)


slices = st.builds(
    slice, st.none() | st.integers(-12, 12), st.none() | st.integers(-12, 12), st.sampled_from([None, 1, 2, -1, -3])
)


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(
        *(
            st.one_of(slices, st.integers(-n, n - 1), st.lists(st.integers(-n, n - 1), min_size=1, max_size=5))
            for n in SHAPE
        )
    )
)
def test_every_orthogonal_selection_is_numpys(key):
    stored, array = opened()
    choice = dict(zip(array.dims, key, strict=True))
    expected = xr.DataArray(stored.values, dims=array.dims).isel(choice)
    got = narrowed(array, choice)
    assert got.shape == expected.shape
    assert np.array_equal(got.compute(scheduler="sync").to_numpy(), expected.to_numpy())
