"""Half-open windows of time: what is left of one when another takes its part, and what lies about a time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, TypeVar

T = TypeVar("T")


class Window(NamedTuple):
    """Times t with begin <= t < end (MJD UTC)."""

    begin: float
    end: float

    def holds(self, mjd: float) -> bool:
        return self.begin <= mjd < self.end


def without(window: Window, taken: Window) -> list[Window]:
    """What is left of a window: itself, one piece, two, or nothing."""
    if taken.end <= window.begin or window.end <= taken.begin:
        return [window]
    pieces = (Window(window.begin, taken.begin), Window(taken.end, window.end))
    return [piece for piece in pieces if piece.begin < piece.end]


def gaps_between(windows: Iterable[tuple[Window, T]], mjd: float) -> dict[str, tuple[Window, T]]:
    """The windows nearest to a time that none of them holds: under ``before``, ``after`` or both."""
    found = list(windows)
    before = [item for item in found if item[0].end <= mjd]
    after = [item for item in found if item[0].begin > mjd]
    sides = {}
    if before:
        sides["before"] = max(before, key=lambda item: item[0].end)
    if after:
        sides["after"] = min(after, key=lambda item: item[0].begin)
    return sides
