"""Groups of subband files: found in a directory and made by the time in the files, never by their names alone.

The files of a group were opened within seconds of each other and hold the same integrations of the same baselines. What
does not fit is left out and said, each file or group once, and everything else is used: a group without a file is
incomplete, not lost.
"""

from __future__ import annotations

import warnings
from bisect import bisect
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path

from dsa110_contimg import telescope
from dsa110_contimg.exceptions import (
    ContimgError,
    CorruptFileError,
    EmptyInputError,
    IncompleteGroupError,
    InputError,
)
from dsa110_contimg.io.inventory import Index, Progress, inventory, name_subband, name_time, problem_of, record_of
from dsa110_contimg.records import IndexedFile, SubbandGroup, group_id

GROUP_TOLERANCE_S = 30.0
"""First integrations of one group lie within this of the earliest, in a group of 5 minutes."""
NAME_SPREAD_S = 3 * GROUP_TOLERANCE_S
"""How far the names of one group's files may lie apart: 82 s is the most among 2,231 groups of the observatory."""
_MINUTES = 5.0
_SIMULTANEOUS_S = telescope.INTEGRATION_S / 2
"""Files that begin further apart than half an integration hold different sky."""


class GroupWarning(UserWarning):
    """A group can be used, but not all of its files."""


@dataclass(frozen=True)
class Chunk:
    """How long the groups of a store are, as operators say it, and what follows.

    Attributes
    ----------
    minutes : nominal; 5 stands for the 24 integrations (309.2 s) that the observatory records, others in proportion.

    Raises
    ------
    InputError
        Not between half a minute and an hour.
    """

    minutes: float = _MINUTES

    def __post_init__(self) -> None:
        if not 0.5 <= self.minutes <= 60.0:
            raise InputError("Not a length of groups", found=f"{self.minutes} min", expected="0.5 to 60 min")

    @property
    def n_integrations(self) -> int:
        """Integrations of a group."""
        return round(telescope.N_INTEGRATIONS * self.minutes / _MINUTES)

    @property
    def duration_s(self) -> float:
        """Length of a group (s)."""
        return self.n_integrations * telescope.INTEGRATION_S

    @property
    def tolerance_s(self) -> float:
        """First integrations of one group lie within this of the earliest (s): a tenth of the group."""
        return GROUP_TOLERANCE_S * self.minutes / _MINUTES

    @property
    def name_margin(self) -> timedelta:
        """How far a file's name may be from the begin of its group."""
        return timedelta(seconds=max(NAME_SPREAD_S, 3 * self.tolerance_s))


@dataclass(frozen=True)
class Discovery:
    """What a directory holds.

    Attributes
    ----------
    groups : oldest first.
    problems : files and groups that are not used, each with the reason; those of groups oldest first.
    duplicates : those of the problems that cost nothing, because another file of the same subband is used.
    """

    groups: tuple[SubbandGroup, ...]
    problems: tuple[ContimgError, ...]
    duplicates: tuple[ContimgError, ...] = ()

    @property
    def losses(self) -> tuple[ContimgError, ...]:
        """Problems that cost data."""
        return tuple(problem for problem in self.problems if problem not in self.duplicates)


@dataclass(frozen=True)
class _Cluster:
    """Files that begin together, and files that cannot be used whose names say that they belong to them."""

    files: tuple[IndexedFile, ...]
    bad: tuple[IndexedFile, ...] = ()

    @cached_property
    def start(self) -> datetime | None:
        """Begin of the first integration, or what the names say if no file can be used; None if they say nothing."""
        if self.files:
            return datetime.fromisoformat(group_id(self.files[0].mjd_first)).replace(tzinfo=UTC)
        return min((when for file in self.bad if (when := name_time(file.path))), default=None)

    @cached_property
    def times(self) -> list[datetime]:
        """Every time that a person may call this group by."""
        names = [when for file in (*self.files, *self.bad) if (when := name_time(file.path))]
        return names if self.start is None else [self.start, *names]


def discover(
    directory: Path,
    progress: Progress | None = None,
    *,
    start: datetime | None = None,
    end: datetime | None = None,
    chunk: Chunk = Chunk(),
    any_length: bool = False,
    index: Index | None = None,
) -> Discovery:
    """Find, check and group the subband files of a directory (``_incomplete`` files are still being written: skipped).

    Parameters
    ----------
    directory : Path
    progress : callable, optional
        Called with how many files were opened, of how many that had to be.
    start, end : datetime, optional
        Only groups that begin in this window, both ends included. Files whose names lie further outside than a name can
        be off are not looked at.
    chunk : Chunk
        How long the groups are.
    any_length : bool
        Whether groups of another length than that are used, too. Otherwise each is a problem that names both lengths.
    index : `inventory.Index`, optional
        What remembers files, so that each is opened once.

    Raises
    ------
    EmptyInputError
        The directory is absent, or holds no subband file, or none in the window.
    """
    first, last = (start and start - chunk.name_margin, end and end + chunk.name_margin)
    files = inventory(directory, first, last, index=index, progress=progress)
    groups: list[SubbandGroup] = []
    problems: list[ContimgError] = []
    duplicates: list[ContimgError] = []
    for cluster in _clusters(files, chunk):
        if cluster.start is None or _inside(cluster.start, start, end):
            group, lost, double = _settle(cluster, None if any_length else chunk)
            groups += [] if group is None else [group]
            problems += [*lost, *double]
            duplicates += double
    return Discovery(tuple(groups), tuple(problems), tuple(duplicates))


def group_files(
    files: Iterable[IndexedFile], chunk: Chunk = Chunk()
) -> tuple[tuple[SubbandGroup, ...], tuple[ContimgError, ...]]:
    """Group files whose first integrations lie within the tolerance of the earliest.

    Returns
    -------
    groups : oldest first, files by subband; of any length.
    problems : one for each file left out.
    """
    settled = [_settle(cluster, None) for cluster in _clusters(list(files), chunk)]
    groups = tuple(group for group, _, _ in settled if group is not None)
    return groups, tuple(problem for _, lost, double in settled for problem in (*lost, *double))


def find_group(directory: Path, when: str, *, chunk: Chunk = Chunk(), index: Index | None = None) -> SubbandGroup:
    """The group of a directory whose id, or whose files' names, are within 30 s of a time (``2026-01-25T22:26:05``).

    Its length may be any. A file of it that cannot be used is left out, with a `GroupWarning` that gives the reason;
    files of other groups do not matter.

    Raises
    ------
    EmptyInputError
        There is no such group, or none of its files can be used.
    InputError
        Not a time.
    """
    found = look_up(directory, when, chunk=chunk, index=index)
    for problem in found.problems:
        warnings.warn(str(problem), GroupWarning, stacklevel=2)
    return found.groups[0]


def look_up(directory: Path, when: str, *, chunk: Chunk = Chunk(), index: Index | None = None) -> Discovery:
    """As `find_group`: the group, and what of it cannot be used."""
    target = moment(when)
    nothing = EmptyInputError("No group of that time is here", path=directory, found="no files near it", expected=when)
    try:
        files = inventory(directory, target - chunk.name_margin, target + chunk.name_margin, index=index)
    except EmptyInputError as error:
        raise (error if error.found is None else nothing) from error
    near = [(_distance(cluster, target), cluster) for cluster in _clusters(files, chunk)]
    near = [item for item in near if item[0] <= timedelta(seconds=GROUP_TOLERANCE_S)]
    if not near:
        raise EmptyInputError(nothing.what, path=directory, found=f"{len(files)} files near it", expected=when)
    group, lost, double = _settle(min(near, key=lambda item: item[0])[1], None)
    if group is None:
        reasons = " ".join(str(problem) for problem in lost)
        raise EmptyInputError("No file of the group can be used", path=directory, found=reasons, expected=when)
    return Discovery((group,), (*lost, *double), double)


def resolve(where: Path, input_dir: Path, *, chunk: Chunk = Chunk(), index: Index | None = None) -> Discovery:
    """The one group that a person means, and what of it cannot be used. Its length may be any.

    Parameters
    ----------
    where : Path
        A directory that holds one group, a directory and a time (``raw/2026-01-25T22:26:05``), a time alone, which is
        looked for in ``input_dir``, or one of the group's files.

    Raises
    ------
    EmptyInputError
        Nothing is there, or nothing that can be used.
    InputError
        The directory holds several groups (they are named), or there is no such place.
    """
    if where.is_dir():
        found = discover(where, chunk=chunk, any_length=True, index=index)
        if len(found.groups) == 1:
            return found
        raise InputError(
            "The directory does not hold exactly one group; name its time too",
            path=where,
            found=", ".join(group.group_id for group in found.groups) or "; ".join(str(p) for p in found.problems),
            expected=f"{where}/YYYY-MM-DDTHH:MM:SS",
        )
    when = name_time(where)
    directory = input_dir if str(where) == where.name and when is None else where.parent
    try:
        when = when or moment(where.name)
    except InputError as error:
        raise InputError(
            "Not a group of subband files",
            path=where,
            found="a file of another name" if where.exists() else "no such file or directory",
            expected="a directory, a time (YYYY-MM-DDTHH:MM:SS), a directory and a time, or a subband file",
        ) from error
    return look_up(directory, when.isoformat(), chunk=chunk, index=index)


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


def moment(text: str) -> datetime:
    """A time in UTC from ``2026-01-25T22:26:05``, ``2026-01-25 22:26:05`` or a date.

    Raises
    ------
    InputError
        Not a time.
    """
    try:
        when = datetime.fromisoformat(text)
    except ValueError as error:
        raise InputError("Not a time", found=text, expected="YYYY-MM-DD[THH:MM:SS], UTC") from error
    return when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)


def _inside(when: datetime, start: datetime | None, end: datetime | None) -> bool:
    return (start is None or when >= start) and (end is None or when <= end)


def _distance(cluster: _Cluster, target: datetime) -> timedelta:
    return min((abs(when - target) for when in cluster.times), default=timedelta.max)


def _clusters(files: Sequence[IndexedFile], chunk: Chunk) -> list[_Cluster]:
    """Files that belong together, oldest first."""
    good = sorted(
        (file for file in files if not file.problem), key=lambda file: (file.mjd_first, file.subband, file.path.name)
    )
    together: list[list[IndexedFile]] = []
    for file in good:
        # to the millisecond: an MJD holds a time to a microsecond, and 30 s must count as within 30 s
        if together and round((file.mjd_first - together[-1][0].mjd_first) * 86400, 3) <= chunk.tolerance_s:
            together[-1].append(file)
        else:
            together.append([file])
    clusters = [_Cluster(tuple(members)) for members in together]
    bad = sorted((file for file in files if file.problem), key=lambda file: file.path.name)
    if bad:
        clusters = _with_bad(clusters, bad, chunk)
    return sorted(clusters, key=lambda cluster: cluster.start or datetime.max.replace(tzinfo=UTC))


def _with_bad(clusters: list[_Cluster], bad: Sequence[IndexedFile], chunk: Chunk) -> list[_Cluster]:
    """Give each file that cannot be used to the group whose names are nearest to its own, or to others of its kind."""
    # begins and names of all groups in order of time, so that the nearest are neighbours
    marks = sorted((when, number) for number, cluster in enumerate(clusters) for when in cluster.times)
    members: dict[int, list[IndexedFile]] = {}
    alone: list[list[IndexedFile]] = []
    last: datetime | None = None
    for file in bad:
        when = name_time(file.path)
        place = bisect(marks, (when, 0)) if when is not None else 0
        near = [(abs(mark - when), number) for mark, number in marks[max(0, place - 1) : place + 1] if when is not None]
        if near and min(near)[0] <= chunk.name_margin:
            members.setdefault(min(near)[1], []).append(file)
        elif when is not None and last is not None and when - last <= chunk.name_margin:
            alone[-1].append(file)
        else:
            alone.append([file])
            last = when
    joined = [_Cluster(c.files, tuple(members.get(number, ()))) for number, c in enumerate(clusters)]
    return joined + [_Cluster((), tuple(files)) for files in alone]


def _settle(
    cluster: _Cluster, chunk: Chunk | None
) -> tuple[SubbandGroup | None, tuple[ContimgError, ...], tuple[ContimgError, ...]]:
    """The group of a cluster; why files, or all of it, are not used; and the files that another one stands in for."""
    common = _majority(cluster.files)
    kept = _one_a_subband(common)
    if not kept:
        return None, tuple(problem_of(file) for file in cluster.bad), ()
    first = min(kept.values(), key=lambda file: file.mjd_first)
    files = tuple(record_of(kept[subband]) for subband in sorted(kept))
    group = SubbandGroup(
        group_id(first.mjd_first), first.mjd_first, first.pointing_dec_deg, files, first.n_integrations
    )
    if chunk is not None and abs(_length_s(first) - chunk.duration_s) > first.integration_s:
        return None, (_wrong_length(group, first, chunk),), ()
    lost: list[ContimgError] = []
    double: list[ContimgError] = []
    for file in (*cluster.files, *cluster.bad):
        used = kept.get(name_subband(file.path) if file.subband is None else file.subband)
        fault = _fault(file, first, is_alike=file in common)
        if used is None and fault is not None:
            lost.append(fault)
        elif used is not None and used is not file:
            double.append(_duplicate(file, used, fault))
    return group, tuple(lost), tuple(double)


def _majority(files: Sequence[IndexedFile]) -> tuple[IndexedFile, ...]:
    """The largest set of files that hold the same integrations of the same baselines."""

    def alike(one: IndexedFile) -> tuple[IndexedFile, ...]:
        return tuple(file for file in files if file.layout == one.layout and abs(_lag_s(file, one)) <= _SIMULTANEOUS_S)

    if files and alike(files[0]) == tuple(files):
        return tuple(files)
    # as many subbands as can be; of sets as large, the one that began first
    return max((alike(file) for file in files), key=lambda some: len({file.subband for file in some}), default=())


def _one_a_subband(files: Sequence[IndexedFile]) -> dict[int, IndexedFile]:
    """Of files of one subband the one of the size that most files have; of those as good, the first by name."""
    sizes = Counter(file.size_bytes for file in files)
    ranked = sorted(files, key=lambda file: (-sizes[file.size_bytes], file.path.name))
    kept: dict[int, IndexedFile] = {}
    for file in ranked:
        if file.subband is not None:
            kept.setdefault(file.subband, file)
    return kept


def _lag_s(file: IndexedFile, other: IndexedFile) -> float:
    return (file.mjd_first - other.mjd_first) * 86400


def _length_s(file: IndexedFile) -> float:
    return file.n_integrations * file.integration_s


def _fault(file: IndexedFile, first: IndexedFile, *, is_alike: bool) -> ContimgError | None:
    """What is wrong with a file of a group that begins with ``first``; None if nothing is."""
    if file.problem:
        return problem_of(file)
    if is_alike:
        return None
    if file.layout != first.layout:
        found, expected = file.layout, first.layout
    else:
        found, expected = f"begins {_lag_s(file, first):+.1f} s from {first.path.name}", "the same integrations"
    return CorruptFileError(
        "The file and most others of its group disagree", path=file.path, found=found, expected=expected
    )


def _duplicate(file: IndexedFile, used: IndexedFile, fault: ContimgError | None) -> ContimgError:
    if fault is not None:
        which, reason = "valid", f"; this one: {fault.what}" + (f" ({fault.found})" if fault.found else "")
    elif file.size_bytes != used.size_bytes:
        which, reason = "whole", f" with {used.size_bytes} bytes, this one has {file.size_bytes}"
    else:
        which, reason = "first", ""
    return InputError(
        f"A subband is there twice; the {which} file is used",
        path=file.path,
        found=f"sb{used.subband:02d} also in {used.path.name}{reason}",
        expected="each subband once",
    )


def _wrong_length(group: SubbandGroup, file: IndexedFile, chunk: Chunk) -> ContimgError:
    length, minutes = _length_s(file), _MINUTES * file.n_integrations / telescope.N_INTEGRATIONS
    return InputError(
        f"The group {group.group_id} is not as long as groups are said to be",
        path=file.path,
        found=f"{file.n_integrations} integrations of {file.integration_s:.3f} s, {length:.1f} s",
        expected=f"{chunk.n_integrations} integrations, {chunk.duration_s:.1f} s, for a chunk duration of "
        f"{chunk.minutes:g} min; these files were recorded with {minutes:.3g} min",
    )
