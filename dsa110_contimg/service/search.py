"""What the calibrator search asks of the store and of the pipeline: which groups there are, and a solution on one.

Plain functions of a path or a group, so that a notebook can hand them to a widget, which knows neither.
"""

from __future__ import annotations

from pathlib import Path

from dsa110_contimg.exceptions import CalibrationError
from dsa110_contimg.io import groups
from dsa110_contimg.pipeline import GroupRun
from dsa110_contimg.records import CalTable, SubbandGroup
from dsa110_contimg.settings import Settings, load_settings
from dsa110_contimg.state.database import open_database
from dsa110_contimg.state.subbands import SubbandIndex


def groups_in(directory: str | Path, settings: Settings | None = None) -> tuple[SubbandGroup, ...]:
    """The groups of a directory, oldest first.

    Headers that the state database remembers are not read again; where there is no database, none is made.

    Raises
    ------
    EmptyInputError
        No subband files, or none that can be used.
    """
    settings = load_settings() if settings is None else settings
    index = SubbandIndex(open_database(settings.state_dir)) if settings.database.is_file() else None
    chunk = groups.Chunk(settings.chunk_duration)
    return groups.discover(Path(directory).expanduser(), chunk=chunk, index=index).groups


def solve(group: SubbandGroup, settings: Settings | None = None) -> tuple[CalTable, ...]:
    """Convert, flag and solve one group, and register its tables; what is done already is not done again.

    Parameters
    ----------
    group : SubbandGroup
        One in which a calibrator crosses the meridian.

    Returns
    -------
    The tables that were solved.

    Raises
    ------
    CalibrationError
        No calibrator crosses the meridian in the group.
    ContimgError
        As the stages raise; nothing is registered then.
    """
    settings = load_settings() if settings is None else settings
    run = GroupRun(group, settings, settings.options)
    if not run.is_calibrator:
        raise CalibrationError(
            f"No calibrator crosses the meridian in the group {group.group_id}",
            found=f"none of at least {settings.options.calibrate.min_calibrator_jy:g} Jy",
            expected="a group that holds a transit",
        )
    for step in ("convert", "flag", "calibrate"):
        run.step(step)
    solved: tuple[CalTable, ...] = run.records["calibrate"].solved
    return solved
