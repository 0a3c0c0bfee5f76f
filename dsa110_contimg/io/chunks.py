"""HDF5 datasets read chunk by chunk, past HDF5's own assembly.

The writer's chunks are small (128 rows x 12 channels x 1 polarisation: 7,000 in a subband), and HDF5 puts each in its
place an element at a time, holding the interpreter's lock. Where a dataset is stored as it is in memory (not
compressed, native byte order, every chunk there), the bytes are read in one piece and a kernel puts them in place,
four times as fast and on all cores. Anything else is left to h5py.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from numba import njit
from numpy.typing import NDArray

_MOST_SLACK = 1.25
"""Bytes read for one byte wanted, at most; where chunks lie farther apart, h5py picks them one by one."""


@dataclass(frozen=True)
class Located:
    """Where the chunks of a dataset (row[, window], channel, polarization) lie.

    Attributes
    ----------
    shape : (row, channel, polarization); a spectral-window axis of length 1 is dropped.
    chunk : shape of a chunk, likewise.
    offsets : (row chunk, channel chunk, polarization chunk) in the file (bytes).
    """

    shape: tuple[int, int, int]
    chunk: tuple[int, int, int]
    offsets: NDArray[np.int64]
    dtype: np.dtype[Any]


def locate(dataset: h5py.Dataset) -> Located | None:
    """Where the chunks of a dataset are, or None if only h5py can read it."""
    plain = dataset.chunks is not None and dataset.id.get_create_plist().get_nfilters() == 0
    if not plain or not dataset.dtype.isnative or dataset.ndim not in (3, 4):
        return None
    axes = [0, 1, 2] if dataset.ndim == 3 else [0, 2, 3]
    if dataset.ndim == 4 and dataset.shape[1] != 1:
        return None
    shape, chunk = ([sizes[a] for a in axes] for sizes in (dataset.shape, dataset.chunks))
    offsets = np.full([-(-n // c) for n, c in zip(shape, chunk, strict=True)], -1, np.int64)
    size = int(np.prod(chunk)) * dataset.dtype.itemsize

    found: list[tuple[tuple[int, ...], int]] = []

    def note(info: Any) -> None:
        if info.size == size and info.filter_mask == 0:
            found.append((info.chunk_offset, info.byte_offset))

    dataset.id.chunk_iter(note)
    if found:
        places = np.array([place for place, _ in found], np.int64)[:, axes] // chunk
        offsets[tuple(places.T)] = [at for _, at in found]
    if offsets.size == 0 or (offsets < 0).any():
        return None
    # bool is an enumeration in HDF5, of which h5py makes the numpy type
    return Located(tuple(shape), tuple(chunk), offsets, dataset.dtype)  # type: ignore[arg-type]


@njit(nogil=True, cache=True)
def _gather(
    block: NDArray[Any], places: NDArray[np.int64], chunk: NDArray[np.int64], first_row: int, out: NDArray[Any]
) -> None:
    """``block`` flat; ``places`` (row chunk, channel chunk, polarization chunk) in it, in elements; ``out`` (row,
    channel, polarization) begins ``first_row`` rows after the first chunk does.
    """
    rows, channels, pols = out.shape
    n_r, n_c, n_p = chunk
    for i in range(places.shape[0]):
        low, high = max(0, i * n_r - first_row), min(rows, (i + 1) * n_r - first_row)
        for row in range(low, high):
            line = (row + first_row - i * n_r) * n_c * n_p
            for j in range(places.shape[1]):
                first, width = j * n_c, min(channels - j * n_c, n_c)
                for k in range(places.shape[2]):
                    here = places[i, j, k] + line
                    if n_p == 1:  # the writer's: a plain run, six times as fast
                        for channel in range(width):
                            out[row, first + channel, k] = block[here + channel]
                    else:
                        for channel in range(width):
                            for pol in range(k * n_p, min(pols, (k + 1) * n_p)):
                                out[row, first + channel, pol] = block[here + channel * n_p + pol - k * n_p]


def read_rows(dataset: h5py.Dataset, located: Located | None, descriptor: int, start: int, stop: int) -> NDArray[Any]:
    """Rows ``start`` to ``stop - 1`` of a dataset as (row, channel, polarization).

    Parameters
    ----------
    dataset : h5py.Dataset
        For what cannot be read directly.
    located : Located or None
        Of `locate`.
    descriptor : int
        The same file, open for reading. It is read with ``pread``: threads may share it, and a file that has become
        shorter is an error, not a crash.

    Raises
    ------
    OSError
        The file ends before the chunks do.
    """
    plain = None if located is None else read_plain(located, descriptor, start, stop)
    if plain is not None:
        return plain
    values = dataset[start:stop]
    return np.asarray(values[:, 0] if values.ndim == 4 else values)


def read_plain(located: Located, descriptor: int, start: int, stop: int) -> NDArray[Any] | None:
    """The same without h5py; None where the chunks lie too far apart, or are of a kind that the kernel does not know.

    Raises
    ------
    OSError
        As `read_rows`.
    """
    if stop <= start or located.dtype.names is not None:
        return None
    places = located.offsets[start // located.chunk[0] : -(-stop // located.chunk[0])]
    size = int(np.prod(located.chunk)) * located.dtype.itemsize
    first, last = int(places.min()), int(places.max()) + size
    if last - first > _MOST_SLACK * places.size * size or ((places - first) % located.dtype.itemsize).any():
        return None
    block = os.pread(descriptor, last - first, first)
    if len(block) != last - first:
        raise OSError(f"the file ends at byte {first + len(block)}, before its data")
    # a byte that is stored as a boolean and is neither 0 nor 1 must stay what it is
    kind = np.dtype(np.uint8) if located.dtype == np.bool_ else located.dtype
    out = np.empty((stop - start, *located.shape[1:]), kind)
    inside = (places - first) // kind.itemsize
    _gather(np.frombuffer(block, kind), inside, np.array(located.chunk), start % located.chunk[0], out)
    return out.view(located.dtype)
