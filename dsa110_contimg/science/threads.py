"""Threads that do not wait for each other."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, cast

from threadpoolctl import threadpool_limits

Item = TypeVar("Item")


def one_blas_thread() -> threadpool_limits:
    """A context in which matrix products take one thread.

    Between parallel kernels of numba the threads of BLAS spin, waiting for work, and take the processors from those
    that have it: small products then cost many times their own time.
    """
    return threadpool_limits(1, "blas")


def give_way() -> None:
    """Let threads that were given work begin it, before a long call that holds the interpreter's lock.

    They need the lock to begin; without this they would wait for the end of that call, not work beside it.
    """
    time.sleep(1e-3)


def ahead(items: Iterable[Item]) -> Iterator[Item]:
    """The same items; while one is used the next is made, in a thread."""
    iterator, end = iter(items), object()
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, iterator, end)
        while (item := coming.result()) is not end:
            coming = pool.submit(next, iterator, end)
            yield cast("Item", item)
