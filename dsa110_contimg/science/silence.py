"""Keep the messages of a compiled library out of ours.

radler writes to the process's standard output where Python's own is that, and to ``sys.stdout`` where it is something
else: a cell of a notebook, a test that looks at what a command prints. Both are closed to it here.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO


class _Deaf:
    """A stream that does not hear the threads that are to be silent, and is the stream behind it for all others.

    Where that is the process's own output or error, which is closed, others are written at once to where it went.
    """

    def __init__(self, behind: TextIO) -> None:
        self.behind = behind
        try:
            self.number = behind.fileno()
        except (AttributeError, OSError, ValueError):  # it is no file, or a closed one
            self.number = -1

    def write(self, text: str) -> int:
        if threading.get_ident() in _silenced:
            return len(text)
        with _lock:  # the descriptor stays until all of it is written
            if 1 <= self.number <= len(_kept):
                left = text.encode(self.behind.encoding, self.behind.errors or "strict")
                while left:
                    left = left[os.write(_kept[self.number - 1], left) :]
                return len(text)
        return self.behind.write(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.behind, name)


_lock = threading.RLock()
"""One thread may take it twice: a handler of a signal may write."""
_silenced: list[int] = []
"""Threads within `silence`, once for each time."""
_kept: list[int] = []
"""Where the process's output and error went before the first of them."""


@contextmanager
def silence() -> Iterator[None]:
    """No output of this thread, nor of what is not Python's in any thread, until the end.

    Threads may overlap: the first closes the door, the last opens it. Other threads are heard through ``sys.stdout``
    and ``sys.stderr``, as they find them meanwhile. What keeps one of these streams from before, where it is the
    process's own (a handler of `logging` made earlier, ``sys.__stderr__``, ``sys.stdout.buffer``), is not.
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
