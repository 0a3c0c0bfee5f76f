"""The visibilities, flags and samples of UVH5 files: how HDF5 stores them, and pieces of them read.

The writer's chunks are small (128 rows x 12 channels x 1 polarisation), so a baseline or a polarisation can be had
without the rest. No byte is read of a chunk that nothing was asked of.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np
from numba import njit
from numpy.typing import NDArray

from dsa110_contimg.exceptions import ContimgError, CorruptFileError, UnreadableFileError
from dsa110_contimg.io.chunks import Located, locate, read_plain, read_rows
from dsa110_contimg.io.uvh5_header import Header

_INDEX_NODE = 24 + 64 * 8 + 65 * 48
"""Bytes of a node of the index of chunks of four dimensions (HDF5's version 1 B-tree: 64 addresses, 65 keys)."""
_DAMAGE = (OSError, ValueError, RuntimeError, TypeError, OverflowError, MemoryError, IndexError)
"""What h5py makes of damaged structures depends on which byte it is."""
ARRAYS = {"visdata": "c", "flags": "bui", "nsamples": "fui"}
"""The arrays of Data, with the kinds of numbers (``numpy.dtype.kind``) they may hold."""


@contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """The HDF5 file, closed at the end; whatever HDF5 finds wrong with it is our error.

    Raises
    ------
    CorruptFileError
    """
    try:
        file = h5py.File(path, "r")
    except (OSError, RuntimeError, ValueError) as error:
        if path.is_file() and not getattr(error, "errno", None):
            raise CorruptFileError(
                "The subband file cannot be opened; it is truncated or not HDF5",
                path=path,
                found=f"{path.stat().st_size} bytes, {error}",
                expected="UVH5",
            ) from error
        found = "a directory" if path.is_dir() else error if path.exists() else "no such file"
        raise UnreadableFileError("The subband file cannot be opened", path=path, found=found) from error
    try:
        with file:
            yield file
    except ContimgError:
        raise
    except KeyError as error:
        raise CorruptFileError("The subband file lacks an entry", path=path, found=error.args[0]) from error
    except _DAMAGE as error:
        kind = UnreadableFileError if getattr(error, "errno", None) else CorruptFileError
        raise kind("The subband file cannot be read", path=path, found=error) from error


def check_storage(file: h5py.File, path: Path, shape: tuple[int, int, int]) -> None:
    """Check the shapes and kinds of the arrays of visibilities.

    Raises
    ------
    CorruptFileError
    """
    for name, kind in ARRAYS.items():
        data = file["Data"][name]
        if not isinstance(data, h5py.Dataset):
            raise CorruptFileError(f"Data/{name} is not an array", path=path)
        found = tuple(n for i, n in enumerate(data.shape or ()) if not (i == 1 and data.ndim == 4 and n == 1))
        if found != shape:
            raise CorruptFileError(f"Data/{name} has the wrong shape", path=path, found=found, expected=shape)
        pair = name == "visdata" and data.dtype.names == ("r", "i")
        if data.dtype.kind not in kind and not pair:
            raise CorruptFileError(f"Data/{name} has the wrong type", path=path, found=data.dtype, expected=kind)
        if data.chunks is not None and data.id.get_create_plist().get_nfilters() == 0:
            cells = math.prod(-(-n // c) for n, c in zip(data.shape, data.chunks, strict=True))
            stored, full = data.id.get_storage_size(), cells * math.prod(data.chunks) * data.dtype.itemsize
            if stored != full:
                raise CorruptFileError(
                    f"Data/{name} lacks pieces: the file was not written to its end",
                    path=path,
                    found=f"{stored} bytes",
                    expected=full,
                )


def check_chunks(file: h5py.File, path: Path) -> dict[str, Located | None]:
    """Check that every chunk of the visibilities, flags and samples was written, in a place of its own.

    HDF5 reads zeros where a chunk is absent, and whatever lies there where its address is wrong.

    Returns
    -------
    dict
        Where the chunks of each array are, as of `chunks.locate`.

    Raises
    ------
    CorruptFileError
    """
    located = {name: locate(file["Data"][name]) for name in ARRAYS}
    extents: list[NDArray[np.int64]] = []
    for name, one in located.items():
        if one is None:
            extents.append(np.array(_extents(file["Data"][name], path), np.int64).reshape(-1, 2))
        else:
            size = math.prod(one.chunk) * one.dtype.itemsize
            extents.append(np.stack([one.offsets.ravel(), np.full(one.offsets.size, size)], axis=-1))
    at = np.concatenate(extents)
    at = at[np.argsort(at[:, 0])]
    ends, following = at.sum(axis=1), np.append(at[1:, 0], path.stat().st_size)
    if len(at) and ((ends > following).any() or at[0, 0] <= 0):
        raise CorruptFileError("Pieces of the visibilities lie over each other, or beyond the end", path=path)
    if all(located.values()) and (empty := _vacated(at[:, 1], following - ends)).any():
        raise CorruptFileError(
            "A piece of the visibilities is not where its neighbours are: the file's index is damaged",
            path=path,
            found=f"nothing at byte {ends[empty][0]}",
            expected="a chunk",
        )
    return located


def _vacated(sizes: NDArray[np.int64], gaps: NDArray[np.int64]) -> NDArray[np.bool_]:
    """After which chunks there is room for just one or two more, but for nodes of the index.

    Chunks that are not compressed fill the file without gaps, between nodes of one size. A bit that flips in the
    address of a chunk leaves the room that it had.
    """
    empty = np.zeros(gaps.size, bool)
    for size in np.unique(sizes):
        for nodes in range(4):
            rest = gaps - nodes * _INDEX_NODE
            empty |= (rest == size) | (rest == 2 * size)
    return empty


def _extents(data: h5py.Dataset, path: Path) -> list[tuple[int, int]]:
    """Address and length (bytes) of each chunk; none where an array is stored in one piece."""
    if data.chunks is None or data.size == 0:
        return []
    chunks, shape = data.chunks, data.shape
    expected = math.prod(-(-n // c) for n, c in zip(shape, chunks, strict=True))
    extents: list[tuple[int, int]] = []
    places: set[tuple[int, ...]] = set()

    def note(info: h5py.h5d.StoreInfo) -> None:
        extents.append((info.byte_offset or 0, info.size))
        if all(o % c == 0 and o < n for o, c, n in zip(info.chunk_offset, chunks, shape, strict=True)):
            places.add(tuple(info.chunk_offset))

    data.id.chunk_iter(note)
    if not len(places) == len(extents) == expected:
        raise CorruptFileError(
            f"{data.name} lacks pieces: the file was not written to its end, or is damaged",
            path=path,
            found=f"{len(places)} chunks",
            expected=expected,
        )
    return extents


@lru_cache(maxsize=512)
def _located(path: Path, size: int, changed_ns: int) -> dict[str, Located | None]:  # noqa: ARG001  # they are the key
    """Where the chunks of a file are, after checking that they are all there."""
    with opened(path) as file:
        return check_chunks(file, path)


def read_selection(
    header: Header, name: str, rows: NDArray[np.int64], channels: NDArray[np.int64], pols: NDArray[np.int64]
) -> NDArray[Any]:
    """Values of ``visdata``, ``flags`` or ``nsamples`` as stored: (row, channel, polarization).

    Parameters
    ----------
    header : Header
    name : str
    rows, channels, pols : positions in the file, each in any order.

    Raises
    ------
    CorruptFileError
        The bytes are not there, or the file has changed since its header was read.
    """
    status = header.path.stat() if header.path.is_file() else None
    if status is None:
        raise CorruptFileError("The subband file is gone", path=header.path)
    located = _located(header.path, status.st_size, status.st_mtime_ns)[name]
    if located is not None and located.dtype.names is None:
        if located.shape != header.shape:
            raise CorruptFileError(
                "The file has changed since it was opened", path=header.path, found=located.shape, expected=header.shape
            )
        if _is_run(rows) and _is_all(channels, located.shape[1]) and _is_all(pols, located.shape[2]):
            whole = _read_run(header.path, located, int(rows[0]), int(rows[-1]) + 1)
            if whole is not None:
                return whole[:, :: 1 if channels[0] <= channels[-1] else -1, :: 1 if pols[0] <= pols[-1] else -1]
        return _read_chunks(header.path, located, rows, channels, pols)
    with opened(header.path) as file:
        return _read_by_h5py(file["Data"][name], header.shape, rows, channels, pols)


def _read_run(path: Path, located: Located, start: int, stop: int) -> NDArray[Any] | None:
    try:
        with path.open("rb") as stream:
            return read_plain(located, stream.fileno(), start, stop)
    except OSError as error:
        raise CorruptFileError("The visibilities cannot be read", path=path, found=error) from error


def _is_run(rows: NDArray[np.int64]) -> bool:
    return bool(rows.size and rows[-1] - rows[0] + 1 == rows.size and (np.diff(rows) == 1).all())


def _is_all(index: NDArray[np.int64], size: int) -> bool:
    """Whether it is every place, in order or in reverse."""
    return index.size == size and bool((np.diff(index) == (1 if index[0] <= index[-1] else -1)).all())


def _read_chunks(
    path: Path, located: Located, rows: NDArray[np.int64], channels: NDArray[np.int64], pols: NDArray[np.int64]
) -> NDArray[Any]:
    wanted = (rows, channels, pols)
    cells, places = zip(
        *(np.unique(w // n, return_inverse=True) for w, n in zip(wanted, located.chunk, strict=True)), strict=True
    )
    offsets = located.offsets[np.ix_(*cells)]
    size = int(np.prod(located.chunk)) * located.dtype.itemsize
    block, starts = _fetch(path, offsets.ravel(), size)
    flat = block.view(np.uint8 if located.dtype == np.bool_ else located.dtype)
    out = np.empty((rows.size, channels.size, pols.size), flat.dtype)
    inside = [w % n for w, n in zip(wanted, located.chunk, strict=True)]
    begin = starts.reshape(offsets.shape) // flat.itemsize
    _gather(
        flat, begin, np.array(located.chunk), (places[0], places[1], places[2]), (inside[0], inside[1], inside[2]), out
    )
    return out.view(located.dtype)


def _fetch(path: Path, offsets: NDArray[np.int64], size: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The chunks that begin at ``offsets``, one after the other, and where each begins; neighbours in one reading."""
    order = np.argsort(offsets)
    ahead = offsets[order]
    starts = np.empty(offsets.size, np.int64)
    starts[order] = np.arange(offsets.size) * size
    block = np.empty(offsets.size * size, np.uint8)
    cuts = [0, *(np.flatnonzero(np.diff(ahead) != size) + 1).tolist(), offsets.size]
    descriptor = os.open(path, os.O_RDONLY)
    try:
        for first, stop in itertools.pairwise(cuts):
            _fill(path, descriptor, block.data[first * size : stop * size], int(ahead[first]))
    finally:
        os.close(descriptor)
    return block, starts


def _fill(path: Path, descriptor: int, room: memoryview, offset: int) -> None:
    done = 0
    while done < len(room):
        count = os.preadv(descriptor, [room[done:]], offset + done)
        if count == 0:
            raise CorruptFileError("The file ends before its data", path=path, found=f"{offset + done} bytes")
        done += count


@njit(nogil=True, cache=True)
def _gather(
    flat: NDArray[Any],
    starts: NDArray[np.int64],
    chunk: NDArray[np.int64],
    places: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]],
    inside: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]],
    out: NDArray[Any],
) -> None:
    """``starts`` (row chunk, channel chunk, polarization chunk) in ``flat``; ``places`` chunk of each row, channel and
    polarization wanted, ``inside`` its position there; ``out`` (row, channel, polarization).
    """
    for r in range(out.shape[0]):
        for c in range(out.shape[1]):
            step = (inside[0][r] * chunk[1] + inside[1][c]) * chunk[2]
            for p in range(out.shape[2]):
                out[r, c, p] = flat[starts[places[0][r], places[1][c], places[2][p]] + step + inside[2][p]]


def _read_by_h5py(
    data: h5py.Dataset,
    shape: tuple[int, int, int],
    rows: NDArray[np.int64],
    channels: NDArray[np.int64],
    pols: NDArray[np.int64],
) -> NDArray[Any]:
    """The same of what is compressed or stored in one piece: runs of rows, within the span of channels and hands."""
    if data.size != np.prod(shape):
        raise ValueError(f"the array has become {data.shape}")
    spans = [slice(int(w.min()), int(w.max()) + 1) for w in (channels, pols)]
    middle = (0,) if data.ndim == 4 else ()
    ordered, place = np.unique(rows, return_inverse=True)
    got = np.concatenate([data[(slice(first, stop), *middle, *spans)] for first, stop in _runs(ordered)])
    return np.asarray(got[np.ix_(place, channels - spans[0].start, pols - spans[1].start)])


def _runs(ordered: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    cuts = [0, *(np.flatnonzero(np.diff(ordered) != 1) + 1).tolist(), ordered.size]
    for first, stop in itertools.pairwise(cuts):
        yield int(ordered[first]), int(ordered[stop - 1]) + 1


class SubbandReader:
    """The three data columns of one file, open until closed; threads may share it.

    Parameters
    ----------
    path : Path
        A file whose header has been checked.

    Raises
    ------
    CorruptFileError
        Not HDF5, or a column is not there as a whole.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with ExitStack() as stack:
            file = stack.enter_context(opened(path))
            self._columns = {name: file["Data"][name] for name in ARRAYS}
            status = path.stat()
            self._located = _located(path, status.st_size, status.st_mtime_ns)
            self._descriptor = os.open(path, os.O_RDONLY)
            stack.callback(os.close, self._descriptor)
            self._open = stack.pop_all()

    def rows(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """Rows of ``visdata``, ``flags`` or ``nsamples`` as (row, channel, polarization), in the file's order.

        Raises
        ------
        CorruptFileError
            The bytes are not there, which shows only now.
        """
        try:
            return read_rows(self._columns[name], self._located[name], self._descriptor, start, stop)
        except _DAMAGE as error:
            raise CorruptFileError("The visibilities cannot be read", path=self.path, found=error) from error

    def close(self) -> None:
        self._open.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def as_complex(values: NDArray[Any]) -> NDArray[np.complex64]:
    """Visibilities as stored, also as pairs of integers, which is what some correlators write."""
    if values.dtype.names is not None:
        return (values["r"] + 1j * values["i"]).astype(np.complex64)
    return values.astype(np.complex64, copy=False)


def as_flags(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Flags as stored; any byte but 0 is True, also one that is no boolean."""
    return np.asarray(values.view(np.uint8) if values.dtype == np.bool_ else values) != 0
