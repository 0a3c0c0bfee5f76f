"""Groups of subband files: found in a directory and made by the time in the files, never by their names alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dsa110_contimg import telescope
from dsa110_contimg.exceptions import ContimgError, EmptyInputError, IncompleteGroupError, InputError
from dsa110_contimg.io.uvh5 import NAME, read_header, record_of
from dsa110_contimg.records import SubbandFile, SubbandGroup, group_id

GROUP_TOLERANCE_S = 30.0


@dataclass(frozen=True)
class Discovery:
    """What a directory holds: groups, oldest first, and the files that cannot be used, with the reason."""

    groups: tuple[SubbandGroup, ...]
    problems: tuple[ContimgError, ...]


def discover(directory: Path, progress: Callable[[int, int], None] | None = None) -> Discovery:
    """Find, check and group the subband files of a directory (``_incomplete`` files are still being written: skipped).

    Raises
    ------
    EmptyInputError
        The directory is absent or holds no subband file.
    """
    if not directory.is_dir():
        raise EmptyInputError("The input directory does not exist", path=directory)
    paths = sorted(p for p in directory.iterdir() if NAME.match(p.name))
    if not paths:
        others = sum(1 for _ in directory.iterdir())
        raise EmptyInputError(
            "The directory holds no subband files",
            path=directory,
            found=f"{others} other entries",
            expected="files named YYYY-MM-DDTHH:MM:SS_sbNN.hdf5",
        )
    found: list[tuple[SubbandFile, float]] = []
    problems: list[ContimgError] = []
    for count, path in enumerate(paths):
        try:
            header = read_header(path)
            found.append((record_of(header), header.pointing_dec))
        except InputError as error:
            problems.append(error)
        if progress:
            progress(count + 1, len(paths))
    groups, doubles = group_files(found)
    return Discovery(groups, (*problems, *doubles))


def group_files(
    found: Iterable[tuple[SubbandFile, float]],
) -> tuple[tuple[SubbandGroup, ...], tuple[ContimgError, ...]]:
    """Group files whose first integrations lie within 30 s of the earliest.

    Parameters
    ----------
    found : iterable of (SubbandFile, pointing declination in rad)

    Returns
    -------
    groups : oldest first, files by subband.
    problems : one for each file left out because its subband was there already.
    """
    ordered = sorted(found, key=lambda item: (item[0].mjd_first, item[0].subband))
    groups: list[list[tuple[SubbandFile, float]]] = []
    for item in ordered:
        # to the millisecond: an MJD holds a time to a microsecond, and 30 s must count as within 30 s
        if groups and round((item[0].mjd_first - groups[-1][0][0].mjd_first) * 86400, 3) <= GROUP_TOLERANCE_S:
            groups[-1].append(item)
        else:
            groups.append([item])
    out, problems = [], []
    for members in groups:
        kept: dict[int, SubbandFile] = {}
        for file, _ in members:
            if file.subband in kept:
                problems.append(
                    InputError(
                        "A subband is there twice; the first file is used",
                        path=file.path,
                        found=f"sb{file.subband:02d} also in {kept[file.subband].path.name}",
                        expected="each subband once",
                    )
                )
            else:
                kept[file.subband] = file
        first = members[0][0].mjd_first
        files = tuple(kept[sb] for sb in sorted(kept))
        out.append(SubbandGroup(group_id(first), first, float(np.degrees(members[0][1])), files))
    return tuple(out), tuple(problems)


def find_group(directory: Path, when: str) -> SubbandGroup:
    """The group of a directory whose id, or whose files' names, are within 30 s of a time (``2026-01-25T22:26:05``)."""
    if not directory.is_dir():
        raise EmptyInputError("The input directory does not exist", path=directory)
    try:
        target = np.datetime64(when)
    except ValueError as error:
        raise InputError("Not a time", found=when, expected="YYYY-MM-DDTHH:MM:SS") from error
    tolerance = np.timedelta64(int(GROUP_TOLERANCE_S), "s")
    near = sorted(
        p
        for p in directory.iterdir()
        if (m := NAME.match(p.name)) and abs(np.datetime64(m.group(1)) - target) <= 3 * tolerance
    )
    headers = [read_header(p) for p in near]
    groups, _ = group_files([(record_of(h), h.pointing_dec) for h in headers])
    for group in groups:
        names = [NAME.match(f.path.name) for f in group.files]
        times = [np.datetime64(group.group_id), *(np.datetime64(m.group(1)) for m in names if m)]
        if min(abs(t - target) for t in times) <= tolerance:
            return group
    raise EmptyInputError(
        "No group of that time is here", path=directory, found=f"{len(near)} files near it", expected=when
    )


def require_complete(group: SubbandGroup, minimum: int) -> None:
    """Raise `IncompleteGroupError` if a group has fewer subbands than ``minimum``."""
    if len(group.files) < minimum:
        absent = ", ".join(f"sb{subband:02d}" for subband in group.missing)
        raise IncompleteGroupError(
            f"The group {group.group_id} has too few subbands to be used",
            path=group.files[0].path,
            found=f"{len(group.files)} of {telescope.N_SUBBANDS} (missing {absent})",
            expected=f"at least {minimum}",
        )
