"""What a directory of subband files holds, each file read once: a store has 100,000 of them in one directory.

Only files that are named as complete subband files count, only those whose names lie in the window asked for are looked
at, and only those that the index does not know as they are now are opened. The index is whatever can answer for files
read before (`state.subbands`); without one, every file of the window is opened.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Protocol

import numpy as np

from dsa110_contimg import exceptions
from dsa110_contimg.exceptions import EmptyInputError, InputError, UnreadableFileError
from dsa110_contimg.io import uvh5
from dsa110_contimg.records import IndexedFile, SubbandFile

BATCH = 256
"""Files read between two transactions of the index: what is lost when a first scan is interrupted."""

Progress = Callable[[int, int], None]
"""Called with how many files were opened, of how many to open."""


class Index(Protocol):
    """What remembers the headers of files."""

    def known(self, paths: Sequence[Path]) -> dict[Path, IndexedFile]: ...

    def remember(self, files: Sequence[IndexedFile]) -> None: ...


def inventory(
    directory: Path,
    first: datetime | None = None,
    last: datetime | None = None,
    *,
    index: Index | None = None,
    progress: Progress | None = None,
) -> list[IndexedFile]:
    """The subband files of a directory by name, each with what its header says or why it cannot be used.

    Parameters
    ----------
    directory : Path
    first, last : datetime, optional
        Bounds on the times in the names, inclusive. A name is the wall clock when the file was opened, up to 82 s off.
    index : Index, optional
        Asked first, and told what it did not know. With one, paths are absolute.

    Raises
    ------
    EmptyInputError
        The directory is absent, or holds no subband file, or none in the window.
    """
    # one file must have one name in the index, from wherever it is looked at
    entries = _entries(directory if index is None else Path(os.path.normpath(directory.absolute())), first, last)
    known = index.known([entry for entry, _ in entries]) if index is not None else {}
    found: dict[Path, IndexedFile] = {}
    waiting: list[tuple[Path, os.stat_result | None]] = []
    for path, status in entries:
        before = known.get(path)
        if before is not None and status is not None and _is_same(before, status):
            found[path] = before
        else:
            waiting.append((path, status))
    for start in range(0, len(waiting), BATCH):
        batch = []
        for count, (path, status) in enumerate(waiting[start : start + BATCH], start + 1):
            batch.append(examine(path, status))
            if progress:
                progress(count, len(waiting))
        if index is not None:
            # a link to nowhere has no state that could be compared the next time
            index.remember([file for file in batch if file.mtime_ns and not _may_be_good(file)])
        found |= {file.path: file for file in batch}
    return [found[path] for path, _ in entries]


def _may_be_good(file: IndexedFile) -> bool:
    """Whether it could only not be looked at, which may pass without a trace in its state."""
    return file.problem[:1] == (UnreadableFileError.__name__,)


def examine(path: Path, status: os.stat_result | None = None) -> IndexedFile:
    """Open one file and say what its header holds, or why it cannot be used; never raises for a bad file.

    Parameters
    ----------
    status : os.stat_result, optional
        Taken before the file is opened: if it is written to meanwhile, it is read again the next time.
    """
    size, mtime = (status.st_size, status.st_mtime_ns) if status is not None else (0, 0)
    try:
        header = uvh5.read_header(path)
        file = uvh5.record_of(header)
    except InputError as error:
        words = ("" if value is None else str(value) for value in (error.found, error.expected))
        problem = (type(error).__name__, error.what, *words)
        return IndexedFile(path, size, mtime, reader_version(), problem=problem)
    except OSError as error:  # it was moved away while it was read
        problem = (UnreadableFileError.__name__, "The subband file cannot be read", str(error.strerror), "a file")
        return IndexedFile(path, size, mtime, reader_version(), problem=problem)
    return IndexedFile(
        path=path,
        size_bytes=size,
        mtime_ns=mtime,
        reader=reader_version(),
        subband=file.subband,
        mjd_first=file.mjd_first,
        pointing_dec_deg=float(np.degrees(header.pointing_dec)),
        n_integrations=int(header.mjd.size),
        integration_s=header.integration_s,
        layout=_layout(header),
    )


def problem_of(file: IndexedFile) -> InputError:
    """The error of a file that cannot be used, as it was when the file was read."""
    kind, what, found, expected = file.problem
    made: InputError = getattr(exceptions, kind)(what, path=file.path, found=found or None, expected=expected or None)
    return made


def record_of(file: IndexedFile) -> SubbandFile:
    """The record of a file that can be used."""
    if file.subband is None:
        raise problem_of(file)
    return SubbandFile(file.path, file.subband, file.mjd_first, file.size_bytes)


def name_time(path: Path) -> datetime | None:
    """When a file was opened, by its name; None if that is no time."""
    match = uvh5.NAME.match(path.name)
    try:
        return None if match is None else datetime.fromisoformat(match.group(1)).replace(tzinfo=UTC)
    except ValueError:
        return None


def name_subband(path: Path) -> int:
    """Which subband a file is, by its name; -1 if that says nothing."""
    match = uvh5.NAME.match(path.name)
    return -1 if match is None else int(match.group(2))


@cache
def reader_version() -> str:
    """Hash of the code that reads and checks headers: what it said of a file may differ from what other code says."""
    sources = [Path(__file__), *sorted(Path(__file__).parent.glob("uvh5*.py"))]
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:16]


def _entries(
    directory: Path, first: datetime | None, last: datetime | None
) -> list[tuple[Path, os.stat_result | None]]:
    """Paths and states of the complete subband files in a window of names, by name."""
    if not directory.is_dir():
        raise EmptyInputError("The input directory does not exist", path=directory)
    low, high = (None if when is None else when.strftime("%Y-%m-%dT%H:%M:%S") for when in (first, last))
    inside: list[tuple[str, os.stat_result | None]] = []
    outside = others = 0
    for entry in _scan(directory):
        match = uvh5.NAME.match(entry.name)
        if match is None:
            others += 1
        elif (low is not None and match.group(1) < low) or (high is not None and match.group(1) > high):
            # names of one form are in the order of their times: none is parsed
            outside += 1
        else:
            inside.append((entry.name, _status(entry)))
    if not inside:
        among = f" between {low or 'the first'} and {high or 'the last'}" if outside else ""
        raise EmptyInputError(
            f"The directory holds no subband files{among}",
            path=directory,
            found=f"{outside} subband files outside" if outside else f"{others} other entries",
            expected="files named YYYY-MM-DDTHH:MM:SS_sbNN.hdf5",
        )
    return [(directory / name, status) for name, status in sorted(inside, key=lambda item: item[0])]


def _scan(directory: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            yield from entries
    except OSError as error:
        raise EmptyInputError(
            "The input directory cannot be read", path=directory, found=error.strerror, expected="a readable directory"
        ) from error


def _status(entry: os.DirEntry[str]) -> os.stat_result | None:
    """Size and time of a file, following links; None for a link to nowhere, or a file that has just gone."""
    try:
        return entry.stat()
    except OSError:
        return None


def _is_same(file: IndexedFile, status: os.stat_result) -> bool:
    return (file.size_bytes, file.mtime_ns, file.reader) == (status.st_size, status.st_mtime_ns, reader_version())


def _layout(header: uvh5.Header) -> str:
    """What the files of a group must have in common, in words that tell two apart."""
    pairs = hashlib.sha256(np.stack([header.antenna1, header.antenna2]).astype("<i8").tobytes()).hexdigest()[:8]
    n_antennas = np.unique([header.antenna1, header.antenna2]).size
    return (
        f"{header.mjd.size} integrations of {header.integration_s:.6f} s, {' '.join(header.polarizations)}, "
        f"{n_antennas} antennas (baselines {pairs}), Dec {np.degrees(header.pointing_dec):.4f} deg, "
        f"{'as recorded' if header.centres is None else 'phased'}"
    )
