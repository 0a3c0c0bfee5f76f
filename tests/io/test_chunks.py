"""Direct reading of chunks gives what h5py gives, and only errors of ours."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsa110_contimg.exceptions import CorruptFileError
from dsa110_contimg.io import chunks
from dsa110_contimg.io.uvh5_storage import SubbandReader

DTYPES = (np.complex64, np.float32, np.bool_)


@st.composite
def layouts(draw):
    shape = tuple(draw(st.integers(1, 40)) for _ in range(3))
    chunk = tuple(draw(st.integers(1, n)) for n in shape)
    start = draw(st.integers(0, shape[0]))
    return shape, chunk, start, draw(st.integers(start, shape[0]))


@settings(max_examples=60, deadline=None)
@given(layouts(), st.sampled_from(DTYPES), st.booleans(), st.sampled_from([None, "gzip", "shuffle"]))
def test_any_layout_reads_as_h5py_does(tmp_path_factory, layout, dtype, window, filtering):
    shape, chunk, start, stop = layout
    values = np.random.default_rng(1).integers(0, 2, shape).astype(dtype)
    place = tmp_path_factory.mktemp("chunks") / "a.h5"
    full, full_chunk = ((s[0], 1, *s[1:]) if window else s for s in (shape, chunk))
    how = {"shuffle": True} if filtering == "shuffle" else {"compression": filtering}
    with h5py.File(place, "w") as file:
        file.create_dataset("d", data=values.reshape(full), chunks=full_chunk, **how)
    with h5py.File(place) as file, place.open("rb") as stream:
        located = chunks.locate(file["d"])
        assert (located is None) == (filtering is not None)
        read = chunks.read_rows(file["d"], located, stream.fileno(), start, stop)
    assert read.dtype == dtype
    assert (read == values[start:stop]).all()


@pytest.mark.parametrize(
    "how", [{}, {"chunks": (4, 6, 1), "dtype": ">c8"}, {"chunks": (4, 6, 1), "maxshape": (None, 6, 2)}]
)
def test_contiguous_foreign_and_unwritten_data_are_left_to_h5py(tmp_path, how):
    values = np.arange(12 * 6 * 2).reshape(12, 6, 2).astype(np.complex64)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        if "maxshape" in how:
            file.create_dataset("d", (12, 6, 2), np.complex64, **how)[:4] = values[:4]
            values[4:] = 0
        else:
            file.create_dataset("d", data=values, **how)
    with h5py.File(tmp_path / "a.h5") as file, (tmp_path / "a.h5").open("rb") as stream:
        located = chunks.locate(file["d"])
        assert located is None
        assert (chunks.read_rows(file["d"], located, stream.fileno(), 1, 11) == values[1:11]).all()


def test_a_file_cut_while_it_is_read_is_our_error(night16, tmp_path):
    source = night16.groups[1].files[0].path
    path = tmp_path / source.name
    path.write_bytes(source.read_bytes())
    with SubbandReader(path) as reader:
        with path.open("r+b") as stream:
            stream.truncate(path.stat().st_size // 3)
        with pytest.raises(CorruptFileError, match=f"cannot be read.*{path.name}"):
            reader.rows("visdata", 0, 24 * 136)


def test_every_row_of_a_subband_is_what_h5py_reads(night16):
    path = night16.groups[1].files[0].path
    with SubbandReader(path) as reader, h5py.File(path) as file:
        for name in ("visdata", "flags", "nsamples"):
            assert (reader.rows(name, 100, 2001) == file["Data"][name][100:2001, 0]).all()
