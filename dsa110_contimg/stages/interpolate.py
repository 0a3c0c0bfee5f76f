"""interpolate: amplitude gains of a group between calibrators, as a table like any other.

Most groups have no calibrator within the validity of a gain. They take the bandpass that is valid, amplitudes
interpolated between the solutions on either side, and phases of their own field (`stages.calibrate.solve_phases`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from dsa110_contimg.exceptions import CalibrationError
from dsa110_contimg.io.caltable import open_caltable, write_caltable
from dsa110_contimg.records import CalTable, MeasurementSet
from dsa110_contimg.science import interpolation


@dataclass(frozen=True)
class Interpolated:
    """A table of interpolated gains, and what it is worth.

    Attributes
    ----------
    table : kind ``GA``, valid for its group alone. Its ``median_snr`` is of the solutions' noise, without the drift:
        how far antennas have drifted apart, `apply` measures in the corrected data where the field is bright enough.
    flux_scale_error : predicted relative 1-sigma error of a flux, from noise and drift.
    quality : figures for the registry: the error, the gap, the law of drift, and the bits that hold for a flux.
    """

    table: CalTable
    flux_scale_error: float
    quality: dict[str, float | int | str]

    @property
    def bits(self) -> int:
        """Bits of QUALITY that hold for a flux."""
        return int(self.quality["quality"])

    @property
    def figures(self) -> dict[str, float]:
        """What it is judged by."""
        names = ("gap_hours", "flux_scale_error")
        return {"flagged_fraction": self.table.flagged_fraction} | {name: float(self.quality[name]) for name in names}


def interpolate(
    record: MeasurementSet,
    solutions: Sequence[tuple[CalTable, CalTable]],
    bandpass: CalTable,
    out_dir: Path,
    gain_minutes: float,
) -> Interpolated:
    """Write the amplitude gains of a group, interpolated between solutions on calibrators.

    Parameters
    ----------
    record : MeasurementSet
        The group; antennas of the table are numbered as in it.
    solutions : sequence of (bandpass, gain)
        Those of the calibrators around, each gain with the bandpass that it was solved on.
    bandpass : CalTable
        The one that will be applied with the result.
    out_dir : Path
        The table is ``<group>.GA`` there, and appears whole or not at all.
    gain_minutes : float
        Half-width of the validity of gains: beyond, quality says so.

    Raises
    ------
    CalibrationError
        No solutions, or no antenna has one.
    CorruptFileError
        A table cannot be read.
    """
    if not solutions:
        raise CalibrationError("No solutions to interpolate gains from", path=record.path, expected="at least one")
    pairs = [[open_caltable(table.path) for table in pair] for pair in solutions]
    reference = open_caltable(bandpass.path)
    levels = interpolation.amplitude_levels([gain for _, gain in pairs], [own for own, _ in pairs], reference)
    made = interpolation.interpolate(levels, record.mjd_mid, gain_minutes / 1440)
    path = write_caltable(made, out_dir / f"{record.group_id}.GA", like=record.path)
    alive = ~made["FLAG"].to_numpy()
    half = (record.mjd_end - record.mjd_start) / 2
    table = CalTable(
        path=path,
        kind="GA",
        set_name=f"{record.group_id}_field",
        apply_order=solutions[0][1].apply_order,
        group_id=record.group_id,
        refant="",
        mjd=record.mjd_mid,
        valid_from=record.mjd_mid - half,
        valid_to=record.mjd_mid + half,
        flagged_fraction=_flagged_fraction(made, reference),
        median_snr=float(made.attrs["solution_snr"]),
    )
    quality: dict[str, float | int | str] = {
        "flux_scale_error": float(made.attrs["flux_scale_error"]),
        "median_error": float(np.median(made["ERROR"].to_numpy()[alive])),
        "gap_hours": 24 * float(made.attrs["gap_days"]),
        "n_solutions": int(made.attrs["n_solutions"]),
        "drift": str(made.attrs["drift"]),
        "quality": interpolation.shared_quality(made),
    }
    return Interpolated(table, float(made.attrs["flux_scale_error"]), quality)


def _flagged_fraction(made: xr.Dataset, bandpass: xr.Dataset) -> float:
    """Of the antennas and polarisations that the bandpass has, those without a gain."""
    alive = (~bandpass["FLAG"]).any(("time", "frequency"))
    known = (~made["FLAG"]).any(("time", "frequency")).reindex_like(alive, fill_value=False)
    counted = known.to_numpy()[alive.to_numpy()]
    return float(1 - counted.mean()) if counted.size else 1.0
