"""Threads that do not wait for each other."""

from __future__ import annotations

from threadpoolctl import threadpool_limits


def one_blas_thread() -> threadpool_limits:
    """A context in which matrix products take one thread.

    Between parallel kernels of numba the threads of BLAS spin, waiting for work, and take the processors from those
    that have it: small products then cost many times their own time.
    """
    return threadpool_limits(1, "blas")
