"""Reading a Dataset once, block by block, on all cores, in bounded memory.

A block follows the dask chunks of VISIBILITY (of a file: a few integrations of one subband), or is a few integrations
of what is in memory. As many blocks are in memory as there are threads. Each thread adds to its own arrays.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import dask
import numpy as np
import xarray as xr
from dask.system import CPU_COUNT
from numpy.typing import NDArray

_BLOCK_BYTES = 32_000_000
PARALLEL_HANDS = ("XX", "YY", "RR", "LL", "I")


@dataclass(frozen=True)
class Block:
    """A part of a Dataset that fits in memory: slices of time, baseline and frequency, all polarisations."""

    vis: xr.Dataset
    time: slice
    baseline: slice
    frequency: slice

    @property
    def value(self) -> NDArray[np.complex64]:
        """(time, baseline, channel, polarization), read now."""
        return np.ascontiguousarray(self._read("VISIBILITY"), np.complex64)

    @property
    def flag(self) -> NDArray[np.bool_]:
        """(time, baseline, channel, polarization), read now."""
        return np.ascontiguousarray(self._read("FLAG"), np.bool_)

    def _read(self, name: str) -> NDArray[Any]:
        part = self.vis[name].data[self.time, self.baseline, self.frequency]
        # the threads are ours: a scheduler of its own for each block would contend with them
        return np.asarray(part.compute(scheduler="synchronous") if dask.is_dask_collection(part) else part)


def blocks(vis: xr.Dataset) -> Iterator[Block]:
    """All blocks of a Dataset, in the order in which files hold them."""
    chunks = vis["VISIBILITY"].chunks
    if chunks is None:
        per_time = max(1, vis["VISIBILITY"].nbytes // max(1, vis.sizes["time"]))
        step = max(1, _BLOCK_BYTES // per_time)
        n_time = vis.sizes["time"]
        times = [slice(i, min(i + step, n_time)) for i in range(0, n_time, step)]
        parts: list[list[slice]] = [times, [slice(None)], [slice(None)]]
    else:
        parts = [_slices(lengths) for lengths in chunks[:3]]
    for frequency, time, baseline in itertools.product(parts[2], parts[0], parts[1]):
        yield Block(vis, time, baseline, frequency)


def _slices(lengths: tuple[int, ...]) -> list[slice]:
    edges = [0, *itertools.accumulate(lengths)]
    return [slice(a, b) for a, b in itertools.pairwise(edges) if b > a]


def gather(
    vis: xr.Dataset, fresh: Callable[[], dict[str, NDArray[Any]]], add: Callable[[Block, dict[str, NDArray[Any]]], None]
) -> dict[str, NDArray[Any]]:
    """Sum over all blocks what ``add`` counts in each.

    Parameters
    ----------
    vis : Visibilities view
    fresh : makes the arrays to count in, all zero; called once a thread
    add : adds one block to them; releases the interpreter's lock where it takes long

    Returns
    -------
    The arrays of ``fresh``, summed over all threads.
    """
    waiting, lock = blocks(vis), threading.Lock()

    def work() -> dict[str, NDArray[Any]]:
        sums = fresh()
        while True:
            with lock:
                block = next(waiting, None)
            if block is None:
                return sums
            add(block, sums)

    threads = max(1, int(dask.config.get("num_workers", None) or CPU_COUNT))
    with ThreadPoolExecutor(threads) as pool:
        totals = [done.result() for done in [pool.submit(work) for _ in range(threads)]]
    return {name: np.sum([sums[name] for sums in totals], axis=0) for name in totals[0]}


def wanted_rows(vis: xr.Dataset) -> NDArray[np.bool_]:
    """(baseline,) the cross-correlations; all, where there are none."""
    cross = vis["baseline_antenna1_name"].values != vis["baseline_antenna2_name"].values
    return np.asarray(cross if cross.any() else ~cross)


def wanted_hands(vis: xr.Dataset) -> NDArray[np.bool_]:
    """(polarization,) the parallel hands, for cross-hands hold no Stokes I; all, where there are none."""
    parallel = np.array([str(name) in PARALLEL_HANDS for name in vis["polarization"].values])
    return parallel if parallel.any() else ~parallel
