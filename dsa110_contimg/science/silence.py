"""Keep the messages of a compiled library out of ours.

radler writes to the process's standard output where Python's own is that, and to ``sys.stdout`` where it is something
else: a cell of a notebook, a test that looks at what a command prints. Both are closed to it here.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO


class _Deaf:
    """A stream that does not hear the threads that are to be silent, and is the stream behind it for all others."""

    def __init__(self, behind: TextIO) -> None:
        self.behind = behind

    def write(self, text: str) -> int:
        return len(text) if threading.get_ident() in _silenced else self.behind.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.behind, name)


_lock = threading.Lock()
_silenced: list[int] = []
"""Threads within `silence`, once for each time."""
_kept: list[int] = []
"""Where the process's output and error went before the first of them."""


@contextmanager
def silence() -> Iterator[None]:
    """No output of this thread, nor of what is not Python's in any thread, until the end.

    Threads may overlap: the first closes the door, the last opens it.
    """
    with _lock:
        if not _silenced:
            _close()
        _silenced.append(threading.get_ident())
    try:
        yield
    finally:
        with _lock:
            _silenced.remove(threading.get_ident())
            if not _silenced:
                _open()


def _close() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    ctypes.CDLL(None).fflush(None)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for number in (1, 2):
        _kept.append(os.dup(number))
        os.dup2(nowhere, number)
    os.close(nowhere)
    sys.stdout, sys.stderr = _Deaf(sys.stdout), _Deaf(sys.stderr)


def _open() -> None:
    # someone else may have put a stream of his own there, within
    sys.stdout, sys.stderr = (s.behind if isinstance(s, _Deaf) else s for s in (sys.stdout, sys.stderr))
    ctypes.CDLL(None).fflush(None)  # what the library has not written yet still goes nowhere
    for number in (2, 1):
        handle = _kept.pop()
        os.dup2(handle, number)
        os.close(handle)
