"""Selections as CASA writes them: fields by number, range, list or name, and ranges of baseline length."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
from numpy.typing import NDArray
from scipy.constants import speed_of_light

from dsa110_contimg.exceptions import InputError

_NUMBER = r"\d+(?:\.\d*)?(?:[eE][+-]?\d+)?"
_UNITS = {"m": (1.0, False), "km": (1e3, False), "lambda": (1.0, True), "klambda": (1e3, True)}


def parse_fields(text: str, names: Sequence[str]) -> tuple[int, ...]:
    """Numbers of the fields that a selection names, ascending, each once.

    Comma-separated items, each a number (``3``), a range with both ends (``0~15``), an open one (``<5``, ``>20``, the
    end not included), a name, or a pattern of names (``*_t1?``). Nothing selects all. A name that looks like one of
    the others is taken by name, as CASA does.

    Raises
    ------
    InputError
        An item that selects nothing.
    """
    items = [item.strip() for item in text.split(",") if item.strip()]
    if not items:
        return tuple(range(len(names)))
    chosen: set[int] = set()
    for item in items:
        found = _one_item(item, names)
        if not found:
            shown = f"{names[0]} to {names[-1]}" if names else "no field"
            raise InputError(
                "The field selection names nothing", found=item, expected=f"0~{len(names) - 1}, or names: {shown}"
            )
        chosen |= found
    return tuple(sorted(chosen))


def _one_item(item: str, names: Sequence[str]) -> set[int]:
    by_name = {index for index, name in enumerate(names) if fnmatchcase(name, item)}
    if by_name:
        return by_name
    everything = range(len(names))
    if re.fullmatch(r"\d+", item):
        wanted = range(int(item), int(item) + 1)
    elif match := re.fullmatch(r"(\d+)\s*~\s*(\d+)", item):
        wanted = range(int(match[1]), int(match[2]) + 1)
    elif match := re.fullmatch(r"<\s*(\d+)", item):
        wanted = range(int(match[1]))
    elif match := re.fullmatch(r">\s*(\d+)", item):
        wanted = range(int(match[1]) + 1, len(names))
    else:
        return set()
    # a range that reaches past the end is a mistake, not a shorter range
    return set(wanted) if set(wanted) <= set(everything) else set()


@dataclass(frozen=True)
class UVRange:
    """Baseline lengths between two limits, in m or in wavelengths."""

    least: float = 0.0
    most: float = float("inf")
    in_wavelengths: bool = False

    def holds(self, length_m: NDArray[np.float64], frequency_hz: float) -> NDArray[np.bool_]:
        """Which projected lengths (m) lie within, at this frequency."""
        length = length_m * (frequency_hz / speed_of_light) if self.in_wavelengths else length_m
        return np.asarray((length >= self.least) & (length <= self.most))


def parse_uvrange(text: str) -> UVRange:
    """A range of projected baseline lengths: ``>1klambda``, ``<300m``, ``0.5~20klambda``; nothing is no limit.

    Without a unit the numbers are metres, as in CASA.

    Raises
    ------
    InputError
        Not of this form, or a range that holds nothing.
    """
    plain = text.strip()
    if not plain:
        return UVRange()
    unit = r"\s*(klambda|lambda|km|m)?"
    one = re.fullmatch(rf"([<>])\s*({_NUMBER}){unit}", plain)
    two = re.fullmatch(rf"({_NUMBER})\s*~\s*({_NUMBER}){unit}", plain)
    if one:
        scale, wavelengths = _UNITS[one[3] or "m"]
        limit = float(one[2]) * scale
        return UVRange(limit, in_wavelengths=wavelengths) if one[1] == ">" else UVRange(0.0, limit, wavelengths)
    if two and float(two[1]) < float(two[2]):
        scale, wavelengths = _UNITS[two[3] or "m"]
        return UVRange(float(two[1]) * scale, float(two[2]) * scale, wavelengths)
    raise InputError("Not a range of baseline lengths", found=text, expected=">1klambda, <300m or 0.5~20klambda")
