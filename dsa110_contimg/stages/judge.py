"""judge: whether a calibration may be used; its tables before they are registered, the data after they are applied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dsa110_contimg.exceptions import CalibrationError
from dsa110_contimg.io.bounds import calibration_bounds
from dsa110_contimg.io.caltable import open_caltable
from dsa110_contimg.options import JudgeOptions
from dsa110_contimg.records import CalTable
from dsa110_contimg.science import judging
from dsa110_contimg.science.applying import Comparison


def judge(
    group_id: str,
    tables: Sequence[CalTable],
    options: JudgeOptions,
    *,
    previous: Sequence[CalTable] = (),
    interpolated: Mapping[str, float] | None = None,
    comparison: Comparison | None = None,
) -> judging.Verdict:
    """Hold what a group was calibrated with against the bounds.

    Parameters
    ----------
    group_id : text
        For the error.
    tables : solutions of the group, one of a kind
        None, if only the data are judged.
    options : JudgeOptions
    previous : those of the calibrator before
        What they are compared with, kind by kind.
    interpolated : mapping, optional
        Figures of gains interpolated between calibrators (`stages.interpolate.Interpolated.figures`).
    comparison : Comparison, optional
        The corrected data against the field model.

    Raises
    ------
    CalibrationError
        The verdict is as bad as ``options.fail_on`` or worse. ``found`` holds it, with the reasons.
    CorruptFileError
        A table cannot be read.
    """
    verdict = judging.judge_calibration(
        {table.kind: open_caltable(table.path) for table in tables},
        calibration_bounds(options.bounds),
        previous={table.kind: open_caltable(table.path) for table in previous},
        interpolated=interpolated,
        comparison=comparison,
    )
    if verdict.failed(options.fail_on):
        against = ", ".join(sorted({table.group_id for table in previous}))
        raise CalibrationError(
            f"The calibration of group {group_id} has failed",
            path=tables[0].path if tables else None,
            found=str(verdict) + (f"; the previous solution is that of {against}" if against else ""),
            expected=f"no figure judged {options.fail_on}",
        )
    return verdict
