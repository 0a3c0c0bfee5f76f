"""Tables of the registry that belong together: what was solved on top of one another is applied together.

A gain is relative to the bandpass under it, and a bandpass to the delays: one of them without the others, or with those
of another set, is not a calibration. Amplitudes alone can be referred to another bandpass, which is how gains between
calibrators are made (`science.interpolation`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from dsa110_contimg.exceptions import NoValidCalibrationError
from dsa110_contimg.records import CalTable
from dsa110_contimg.state.validity import Window, gaps_between

SCHEMES = ((("B",), "G"), (("BA", "BP"), "GA"))
"""A bandpass, that with the amplitudes first, and the gains on top of it: in one, or amplitudes and phases apart.

The phases of gains that are apart (GP) are not for targets, which solve their own."""

_KINDS = ("K", "B", "BA", "BP", "G", "GA")


class Entry(Protocol):
    """A table with its row in the registry, and the windows in which it is in force."""

    @property
    def row(self) -> dict[str, Any]: ...

    @property
    def windows(self) -> tuple[Window, ...]: ...

    @property
    def table(self) -> CalTable: ...

    def holds(self, mjd: float) -> bool: ...

    def on_disk(self) -> bool: ...


@dataclass(frozen=True)
class Target:
    """What a group without calibrator takes.

    Attributes
    ----------
    tables : in order of application; of one set.
    around : (bandpass, gain) of the solutions to interpolate between, by time, where no gain is among the tables.
    """

    tables: tuple[CalTable, ...]
    around: tuple[tuple[CalTable, CalTable], ...]


def for_target(entries: Sequence[Entry], mjd: float, run_label: str, within_days: float) -> Target:
    """The set solved nearest in time of which all holds; else its bandpass, and gains of all sets to interpolate.

    Raises
    ------
    NoValidCalibrationError
        No bandpass holds (with the delays that it was solved on), or there is no gain to interpolate from.
    """
    solved = [entry for entry in entries if entry.row["calibrator"] and entry.row["kind"] in _KINDS]
    whole, under = [], []
    for members in _sets(solved):
        for bandpass, gain in SCHEMES:
            below = _together(members, bandpass, mjd)
            if not below:
                continue
            under.append(below)
            on_top = _in_force(members, gain, mjd)
            if on_top is not None:
                whole.append((*below, on_top))
    # by what was solved last of each: the gain, or the bandpass
    for choice in (whole, under):
        choice.sort(key=lambda found: preference(found[-1].row, mjd, run_label))
    if whole:
        return Target(_ordered(whole[0]), ())
    around = _to_interpolate(solved, mjd, run_label, within_days) if under else ()
    if not around:
        raise NoValidCalibrationError(
            f"No valid calibration for MJD {mjd:.5f}",
            found=_missing(solved, mjd),
            expected=f"a bandpass with what it was solved on, and its gains or others within {24 * within_days:g} h",
        )
    return Target(_ordered(under[0]), around)


def preference(row: dict[str, Any], mjd: float, run_label: str) -> tuple[Any, ...]:
    """A run's own tables first, then the nearest in time, then those registered later."""
    return (row["run_label"] != run_label, abs(row["mjd"] - mjd), -row["registered_at"].timestamp(), str(row["path"]))


def kinds_near(entries: Iterable[Entry], mjd: float, run_label: str) -> tuple[str, ...]:
    """Kinds of the set that was solved on a calibrator nearest in time, in order of application."""
    solved = [entry for entry in entries if entry.row["calibrator"]]
    solved = [entry for entry in solved if entry.row["status"] != "failed"] or solved
    if not solved:
        return ()
    nearest = min(_sets(solved), key=lambda members: min(preference(e.row, mjd, run_label) for e in members))
    latest = max(nearest, key=lambda entry: entry.row["registered_at"])
    rows = [entry.row for entry in nearest if _together_with(entry, latest)]
    return tuple(dict.fromkeys(row["kind"] for row in sorted(rows, key=lambda r: (r["apply_order"], r["kind"]))))


def _sets(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    found: dict[tuple[str, str], list[Entry]] = {}
    for entry in entries:
        found.setdefault((entry.row["set_name"], entry.row["run_label"]), []).append(entry)
    yield from found.values()


def _together(members: list[Entry], kinds: tuple[str, ...], mjd: float) -> tuple[Entry, ...]:
    """A bandpass of a set in force, with the delays that it was solved on; nothing if a part of that is not."""
    parts = [_in_force(members, kind, mjd) for kind in kinds]
    if any(part is None for part in parts):
        return ()
    bandpass = tuple(part for part in parts if part is not None)
    delays = [entry for entry in members if entry.row["kind"] == "K" and entry.row["status"] != "failed"]
    if any(_together_with(entry, bandpass[0]) for entry in delays):
        delay = _in_force(members, "K", mjd)
        return () if delay is None else (delay, *bandpass)
    return bandpass


def _together_with(entry: Entry, other: Entry) -> bool:
    """Whether an entry of a set is of the same solution as another: it had not ended when that was registered.

    One that a person has retired since is still a part of it.
    """
    ended = entry.row["retired_at"]
    return bool(ended is None or ended > other.row["registered_at"])


def _in_force(members: list[Entry], kind: str, mjd: float) -> Entry | None:
    holding = (entry for entry in members if entry.row["kind"] == kind and entry.holds(mjd) and entry.on_disk())
    return max(holding, key=lambda entry: entry.row["registered_at"], default=None)


def _to_interpolate(
    entries: list[Entry], mjd: float, run_label: str, within_days: float
) -> tuple[tuple[CalTable, CalTable], ...]:
    """Gains near in time, each with the bandpass of its set that holds the amplitudes; a run's own if it has any."""
    near = [e for e in entries if e.windows and abs(e.row["mjd"] - mjd) <= within_days]
    pairs = []
    for members in _sets(near):
        for (amplitudes, *_), kind in SCHEMES:
            below = [e for e in members if e.row["kind"] == amplitudes and e.on_disk()]
            for gain in (e for e in members if e.row["kind"] == kind and below and e.on_disk()):
                own = min(below, key=lambda e: (abs(e.row["mjd"] - gain.row["mjd"]), str(e.row["path"])))
                pairs.append((own, gain))
    mine = [pair for pair in pairs if pair[1].row["run_label"] == run_label] or pairs
    mine.sort(key=lambda pair: pair[1].row["mjd"])
    return tuple((bandpass.table, gain.table) for bandpass, gain in mine)


def _ordered(entries: tuple[Entry, ...]) -> tuple[CalTable, ...]:
    return tuple(sorted((entry.table for entry in entries), key=lambda table: (table.apply_order, table.kind)))


def _missing(entries: list[Entry], mjd: float) -> str:
    """For each kind that has been solved, or B and G, why none serves."""
    kinds = [kind for kind in _KINDS if any(entry.row["kind"] == kind for entry in entries)] or ["B", "G"]
    told = []
    for kind in kinds:
        of_kind = [entry for entry in entries if entry.row["kind"] == kind]
        if _in_force(of_kind, kind, mjd) is None:
            told.append(f"{kind}: {what_there_is(of_kind, mjd)}")
    return "; ".join(told) or "tables in force, but of no set all that belong together"


def what_there_is(entries: Sequence[Entry], mjd: float) -> str:
    """Why none of the tables of a kind serves, in a few words."""
    active = [entry for entry in entries if entry.windows]
    if not entries:
        return "no table registered"
    if not active:
        return f"{len(entries)} registered, all retired or failed"
    gone = [entry for entry in active if entry.holds(mjd)]
    if gone:
        return f"{len(gone)} valid but no longer on disk as registered, such as {gone[0].row['path']}"
    sides = gaps_between([(window, entry.row) for entry in active for window in entry.windows], mjd)
    told = [
        f"the nearest {side} (of {len(active)}), solved on {row['group_id']}, is valid for MJD "
        f"[{window.begin:.5f}, {window.end:.5f})"
        for side, (window, row) in sides.items()
    ]
    return " and ".join(told)
