"""Lazy arrays that can be narrowed: plain dask arrays that know where their values come from.

dask reads whole chunks: the baselines of one antenna taken from a chunk of 8 integrations read all 4656 baselines.
These arrays carry a `Selection` of their source as the attribute ``selection``, and
`science.selection.take` narrows that instead of indexing what was read. Whatever is computed from them, and a copy made
by pickling, is an ordinary dask array without the attribute.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from typing import Any, Protocol

import dask.array as da
import numpy as np
from numpy.typing import NDArray


class Source(Protocol):
    """Something that reads an orthogonal selection of a stored array."""

    @property
    def dtype(self) -> np.dtype[Any]: ...

    def read(self, index: tuple[NDArray[np.int64], ...]) -> NDArray[Any]:
        """The values at these positions along each axis, all combinations of them."""


@dataclass(frozen=True)
class Selection:
    """An orthogonal selection of a source, which is an array to dask.

    Attributes
    ----------
    index : positions in the source, one array an axis.
    kept : axes of the source that this has; the others were indexed by one number.
    """

    source: Source
    index: tuple[NDArray[np.int64], ...]
    kept: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.index[axis].size for axis in self.kept)

    @property
    def ndim(self) -> int:
        return len(self.kept)

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.source.dtype

    def narrowed(self, key: tuple[Any, ...], chunks: tuple[tuple[int, ...], ...]) -> da.Array:
        """The lazy array of a part of this.

        Parameters
        ----------
        key : an integer, slice or one-dimensional array for each axis, independent of one another
        chunks : of the lazy array of this
            What came from one chunk stays in one.
        """
        left = tuple(
            _chunks_after(sizes, part)
            for sizes, part in zip(chunks, key, strict=True)
            if not isinstance(part, (int, np.integer))
        )
        return lazy_array(self._part(key), left)

    def _part(self, key: tuple[Any, ...]) -> Selection:
        index, kept = list(self.index), list(self.kept)
        for axis, part in zip(self.kept, key, strict=True):
            index[axis] = np.atleast_1d(index[axis][part])
            if isinstance(part, (int, np.integer)):
                kept.remove(axis)
        return replace(self, index=tuple(index), kept=tuple(kept))

    def __getitem__(self, key: tuple[Any, ...]) -> NDArray[Any]:
        here = self._part(key)
        if 0 in here.shape:
            return np.empty(here.shape, here.dtype)
        return here.source.read(here.index).reshape(here.shape)


def lazy_array(selection: Selection, chunks: tuple[tuple[int, ...], ...]) -> da.Array:
    """A dask array that reads a selection, chunk by chunk, and has it as its attribute ``selection``."""
    meta = np.empty((0,) * selection.ndim, selection.dtype)
    name = f"visibilities-{uuid.uuid4().hex}"
    array = da.from_array(selection, chunks=chunks, name=name, asarray=False, fancy=False, meta=meta)
    array.selection = selection
    return array


def whole(source: Source, chunks: tuple[tuple[int, ...], ...]) -> da.Array:
    """All of a source, in these chunks."""
    sizes = [sum(part) for part in chunks]
    return lazy_array(Selection(source, tuple(np.arange(n) for n in sizes), tuple(range(len(sizes)))), chunks)


def _chunks_after(sizes: tuple[int, ...], part: Any) -> tuple[int, ...]:
    """Chunks along an axis after indexing: what came from one chunk stays in one."""
    positions = np.atleast_1d(np.arange(sum(sizes))[part])
    if positions.size == 0:
        return (0,)
    block = np.searchsorted(np.cumsum(sizes), positions, side="right")
    edges = np.flatnonzero(np.diff(block)) + 1
    return tuple(int(n) for n in np.diff([0, *edges, positions.size]))
