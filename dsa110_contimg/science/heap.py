"""Memory that stays with the process between large arrays.

The C library takes every large array from the system and gives it back when it is freed; the system clears each page
before it hands it out again. An imager that makes images of 100 MB by the dozen spends a tenth of its time on that.
"""

from __future__ import annotations

import ctypes
import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# of mallopt(3)
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
_MANY_MAPS, _NO_MAPS = 65536, 0
_LARGE = 32 * 2**20
"""Bytes of an array from which it is taken from the system by itself. The library raises this from 128 kB to as much
when arrays are freed, but no longer once one of its settings was touched."""
_GIVE_BACK, _KEEP = 2 * _LARGE, 2**31 - 1
"""Bytes at the top of the heap above which they go back to the system."""

_lock = threading.Lock()
_users = 0


@contextmanager
def kept_memory() -> Iterator[None]:
    """Large arrays that are freed leave their memory to the next, in all threads; at the end it is given back.

    Where the C library is not GNU's nothing changes.
    """
    global _users  # noqa: PLW0603  (the heap is one for the whole process)
    if platform.libc_ver()[0] != "glibc":
        yield
        return
    library = ctypes.CDLL(None)
    with _lock:
        _users += 1
        library.mallopt(_MMAP_MAX, _NO_MAPS)
        library.mallopt(_TRIM_THRESHOLD, _KEEP)
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if not _users:
                library.mallopt(_MMAP_MAX, _MANY_MAPS)
                library.mallopt(_MMAP_THRESHOLD, _LARGE)
                library.mallopt(_TRIM_THRESHOLD, _GIVE_BACK)
                library.malloc_trim(0)
