"""apply: correct a Measurement Set with its tables, and measure from the result what the calibration is worth."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from dsa110_contimg import telescope
from dsa110_contimg.exceptions import CalibrationError
from dsa110_contimg.io import ms
from dsa110_contimg.io.casa import CasaTask, run_tasks
from dsa110_contimg.records import CalTable, CalTableSet, MeasurementSet
from dsa110_contimg.science import selfcheck

Progress = Callable[[int, int], None]


def apply(
    record: MeasurementSet,
    tables: tuple[CalTable, ...],
    work_dir: Path,
    measures: Path,
    progress: Progress | None = None,
) -> CalTableSet:
    """Write CORRECTED_DATA with CASA applycal, flags propagated, and check it against MODEL_DATA.

    Weights stay as they are: all antennas have the same system temperature to our knowledge, so scaling the weights
    with the gains would be wrong.

    Parameters
    ----------
    work_dir, measures : Path
        CASA's scratch, and its data (`io.casa.run_tasks`).

    Raises
    ------
    CalibrationError
        Nothing is left unflagged, or the corrected data are zero.
    ExternalToolError
        CASA failed.
    """
    ordered = tuple(sorted(tables, key=lambda t: t.apply_order))
    ms.ensure_column(record.path, "CORRECTED_DATA")
    task = CasaTask(
        "applycal",
        {
            "vis": record.path,
            "gaintable": [t.path for t in ordered],
            "interp": ["nearest" if t.kind == "B" else "linear" for t in ordered],
            "calwt": False,
            "applymode": "calflag",
            "parang": False,
            "flagbackup": False,
        },
    )
    run_tasks([task], workdir=work_dir, measures_cache=measures)
    solutions = sum(t.median_snr**-2 for t in ordered if t.kind == "G" and t.median_snr > 0)
    # phases wrong by 1 / SNR at both ends of a baseline lose that squared of a peak
    phases = sum(t.median_snr**-2 for t in ordered if t.kind == "GP" and t.median_snr > 0)
    drift = flux_scale_error(record, progress)
    return CalTableSet(ordered, float(np.sqrt(drift**2 + 4.0 * solutions / record.n_antennas + phases**2)))


def flux_scale_error(record: MeasurementSet, progress: Progress | None = None) -> float:
    """Relative 1-sigma error of the flux scale of a corrected group, from the antennas' own amplitudes.

    What is left of each antenna's amplitude against the model (`selfcheck.antenna_amplitudes`) scatters by the drift
    since the calibrator and by the noise of the solutions. A flux is a mean over baselines g_i g_j, so independent
    errors of scatter s in N antennas move it by 2 s / sqrt(N).

    Raises
    ------
    CalibrationError
        No unflagged data, or corrected data that are zero.
    """
    layout = ms.read_layout(record.path)
    n_antennas, step = len(layout.names), telescope.N_CHANNELS_PER_SUBBAND
    rows = np.tile(np.stack([layout.antenna1, layout.antenna2]), layout.mjd.size)
    parallel = [i for i, p in enumerate(layout.polarizations) if p in ("XX", "YY")]
    sums = selfcheck.Sums.zero(n_antennas, len(parallel))
    for first in range(0, layout.frequencies.size, step):
        stop = min(first + step, layout.frequencies.size)
        data, flags = ms.read_channels(record.path, "CORRECTED_DATA", first, stop)
        model, _ = ms.read_channels(record.path, "MODEL_DATA", first, stop)
        sums += selfcheck.accumulate(
            np.ascontiguousarray(data[..., parallel]),
            np.ascontiguousarray(model[..., parallel]),
            np.ascontiguousarray(flags[..., parallel]),
            rows,
            n_antennas,
        )
        if progress:
            progress(stop, layout.frequencies.size)
    if not sums.power.sum() > 0 or not np.abs(sums.cross).sum() > 0:
        raise CalibrationError(
            "Calibration left nothing to image", path=record.path, found="no unflagged corrected data", expected="some"
        )
    scatter, alive = selfcheck.amplitude_scatter(sums, layout_noise(layout))
    return float(2.0 * scatter / np.sqrt(alive))


def layout_noise(layout: ms.Layout) -> float:
    """Thermal noise of the real part of one visibility (Jy)."""
    return telescope.visibility_noise(layout.channel_width, layout.integration_s)
