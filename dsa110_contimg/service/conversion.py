"""Conversion of many groups: found through the index, converted one after another, what is done is not done again.

A group that fails is said so and the next one goes on; a killed run goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from dsa110_contimg.exceptions import ContimgError
from dsa110_contimg.io.groups import Chunk, Discovery, discover, resolve
from dsa110_contimg.options import ConvertOptions
from dsa110_contimg.pipeline import convert_group
from dsa110_contimg.records import MeasurementSet, SubbandGroup
from dsa110_contimg.settings import Settings
from dsa110_contimg.state.database import open_database
from dsa110_contimg.state.subbands import SubbandIndex

Tell = Callable[[str, int, int], None]
"""Called with a group, and how much of it is done, of how much."""


@dataclass(frozen=True)
class Converted:
    """What became of one group.

    Attributes
    ----------
    status : ``converted``, ``done already`` or ``failed``.
    product : None if it failed.
    """

    group: SubbandGroup
    status: str
    product: MeasurementSet | None = None
    error: ContimgError | None = None


def find_groups(
    directory: Path,
    settings: Settings,
    start: datetime | None = None,
    end: datetime | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Discovery:
    """The groups of a directory that begin in a window; files that are known as they are now are not opened.

    Parameters
    ----------
    progress : callable, optional
        Called with how many files were opened, of how many that had to be.

    Raises
    ------
    EmptyInputError
        No subband files.
    """
    chunk = Chunk(settings.chunk_duration)
    return discover(directory, progress, start=start, end=end, chunk=chunk, index=_index(settings))


def find_one(where: Path, settings: Settings) -> Discovery:
    """The group that a person names, as `io.groups.resolve`."""
    return resolve(where, settings.input_dir, chunk=Chunk(settings.chunk_duration), index=_index(settings))


def convert_groups(
    groups: Sequence[SubbandGroup], settings: Settings, options: ConvertOptions, tell: Tell | None = None
) -> Iterator[Converted]:
    """Convert, validate and register groups, each yielded when it is done.

    A group is done already if its Measurement Set was made of the same files with the same options by the same code.
    """
    for group in groups:

        def progress(done: int, total: int, name: str = group.group_id) -> None:
            if tell is not None:
                tell(name, done, total)

        try:
            made = convert_group(group, settings, options, progress)
        except ContimgError as error:
            yield Converted(group, "failed", error=error)
        else:
            yield Converted(group, "done already" if made.resumed else "converted", made.record)


def _index(settings: Settings) -> SubbandIndex:
    return SubbandIndex(open_database(settings.state_dir))
