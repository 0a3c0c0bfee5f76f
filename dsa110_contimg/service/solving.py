"""Solve one calibrator's group on request: a group of the input directory, or a Measurement Set that is there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dsa110_contimg.exceptions import CalibrationError
from dsa110_contimg.io import catalogs, files, groups, ms
from dsa110_contimg.options import CalibrateOptions
from dsa110_contimg.pipeline import GroupRun
from dsa110_contimg.records import CalTable, MeasurementSet
from dsa110_contimg.science import calibrators
from dsa110_contimg.science.refants import Refant
from dsa110_contimg.settings import Settings
from dsa110_contimg.stages import calibrate, model
from dsa110_contimg.state.database import open_database
from dsa110_contimg.state.registry import Registry

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Solved:
    """What was solved, registered and is ready to apply, with the ranking of the reference antennas."""

    group_id: str
    calibrator: str
    tables: tuple[CalTable, ...]
    ranking: tuple[Refant, ...]


def solve(target: Path, settings: Settings, options: CalibrateOptions, progress: Progress | None = None) -> Solved:
    """Predict, solve and register the tables of a calibrator's group.

    A Measurement Set is solved as it is flagged, and its MODEL_DATA written anew. A group is converted and flagged
    first, where that is not done already.

    Parameters
    ----------
    target : Path
        A Measurement Set, or the id of a group (the begin of the observation) in the input directory.

    Raises
    ------
    CalibrationError
        No calibrator crosses the beam in this group, or the solution has failed; nothing is registered then.
    ContimgError
        As the stages raise.
    """
    return (
        _solve_ms(target, settings, options, progress)
        if target.is_dir()
        else _solve_group(target, settings, options, progress)
    )


def _solve_group(target: Path, settings: Settings, options: CalibrateOptions, progress: Progress | None) -> Solved:
    group = groups.find_group(settings.input_dir, target.name)
    run = GroupRun(group, settings, settings.options.model_copy(update={"calibrate": options}), progress=progress)
    if not run.is_calibrator:
        raise _no_calibrator(target, options)
    for step in ("convert", "flag", "calibrate"):
        run.step(step)
    ranking = calibrate.rank_refants(run.records["convert"])
    return Solved(run.group_id, run.calibrator, run.records["calibrate"].tables, tuple(ranking))


def _solve_ms(path: Path, settings: Settings, options: CalibrateOptions, progress: Progress | None) -> Solved:
    layout = ms.read_layout(path)
    half = layout.integration_s / 2 / 86400
    record = MeasurementSet(
        path=path.absolute(),
        group_id=layout.group_id,
        ra_deg=float(np.degrees(layout.ra)),
        dec_deg=float(np.degrees(layout.dec)),
        mjd_start=float(layout.mjd[0] - half),
        mjd_end=float(layout.mjd[-1] + half),
        n_antennas=len(layout.names),
    )
    found = calibrators.transits(
        catalogs.calibrators(settings.vla_catalog),
        layout.pointing_ra,
        layout.pointing_dec,
        options.min_calibrator_jy,
        options.max_calibrator_offset_deg,
    )
    if not found:
        raise _no_calibrator(path, options)
    transit = found[0]
    place = calibrate.Workplace(
        files.make_directory(settings.output_dir / "caltables"),
        files.make_directory(settings.scratch_dir / "casa" / record.group_id),
        settings.state_dir / "measures",
    )
    field = catalogs.cone(record.ra_deg, record.dec_deg, options.model_radius_deg + 1.5, options.model_min_jy)
    tell = None if progress is None else lambda *n: progress("predict", *n)
    model.predict_field(record, field, options, tell, calibrator=transit, catalog=catalogs.describe())
    position = (float(np.radians(transit.ra_deg)), float(np.radians(transit.dec_deg)))
    tables = calibrate.solve_calibrator(record, transit.name, options, place, position)
    made = (*tables, *calibrate.solve_field(record, tables, options, place))
    Registry(open_database(settings.state_dir)).register(made, whole_sets=True)
    return Solved(record.group_id, transit.name, made, tuple(calibrate.rank_refants(record)))


def _no_calibrator(target: Path, options: CalibrateOptions) -> CalibrationError:
    return CalibrationError(
        "No calibrator crosses the beam in this group",
        path=target,
        found="no catalogued source that is bright and near enough",
        expected=f"{options.min_calibrator_jy} Jy within {options.max_calibrator_offset_deg} deg of the pointing",
    )
