"""calibrate: predict the field, solve with CASA, judge the solutions.

The calibrator's group gives the bandpass (B) and the gains (G); every group then solves its own phases (GP) against
the catalogue sources in its field, because the phases of the array do not stay for half an hour, but amplitudes do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from dsa110_contimg import telescope
from dsa110_contimg.exceptions import CalibrationError
from dsa110_contimg.io import ms
from dsa110_contimg.io.caltable import open_caltable
from dsa110_contimg.io.casa import CasaTask, run_tasks
from dsa110_contimg.options import CalibrateOptions
from dsa110_contimg.records import CalTable, MeasurementSet
from dsa110_contimg.science import beam, predict, subtraction

Progress = Callable[[int, int], None]
APPLY_ORDER = {"B": 1, "G": 2, "GP": 3}


@dataclass(frozen=True)
class Workplace:
    """Where solving happens: products in ``out_dir``, CASA's scratch in ``work_dir``, its data in ``measures``."""

    out_dir: Path
    work_dir: Path
    measures: Path


def predict_field(
    record: MeasurementSet, field: pd.DataFrame, options: CalibrateOptions, progress: Progress | None = None
) -> int:
    """Write MODEL_DATA: catalogue sources through the drifting beam; take FLAG back to what `flag` left.

    Returns the number of sources.

    Parameters
    ----------
    field : DataFrame
        A catalogue (`io.catalogs.COLUMNS`) of the sources about the field; cut here by ``options.model_min_jy`` and by
        ``options.model_radius_deg`` about the pointings.

    Raises
    ------
    CalibrationError
        No source is left: there is nothing to calibrate on.
    """
    layout = ms.read_layout(record.path)
    pointing = (layout.pointing_ra, layout.pointing_dec)
    ra, dec, flux, index = (np.asarray(a) for a in _in_field(field, pointing, options))
    if flux.size == 0:
        raise CalibrationError(
            "The field model is empty: no catalogue source near the pointing",
            path=record.path,
            found=f"0 of {len(field)} sources",
            expected=f"at least one of {options.model_min_jy} Jy within {options.model_radius_deg} deg",
        )
    lmn, offset = predict.source_geometry(ra, dec, (layout.ra, layout.dec), pointing, float(layout.mjd.mean()))
    uvw = np.ascontiguousarray(layout.uvw.reshape(-1, 3))
    time_index = np.repeat(np.arange(layout.mjd.size), layout.antenna1.size)
    parallel = [i for i, p in enumerate(layout.polarizations) if p in ("XX", "YY")]
    ms.ensure_column(record.path, "MODEL_DATA")
    step, total = telescope.N_CHANNELS_PER_SUBBAND, layout.frequencies.size
    with ms.opened(record.path, writable=True) as main:
        for first in range(0, total, step):
            channels = layout.frequencies[first : first + step]
            apparent = predict.apparent_fluxes(
                flux, index, (ra, dec), pointing, channels, telescope.REFERENCE_FREQUENCY_HZ
            )
            model = predict.predict(
                uvw, time_index, channels, lmn, offset, apparent, predict.pole(layout.dec), layout.integration_s
            )
            full = np.zeros((*model.shape, len(layout.polarizations)), np.complex64)
            full[..., parallel] = model[..., None]
            ms.write_column(main, "MODEL_DATA", first, full)
            # an earlier try may have added the flags of its solutions
            kept = main.getcolslice(ms.FLAG_VERSIONS[1], [first, 0], [first + len(channels) - 1, full.shape[2] - 1])
            ms.write_flags(main, first, kept)
            if progress:
                progress(min(first + step, total), total)
    return int(flux.size)


def _in_field(
    field: pd.DataFrame, pointing: tuple[NDArray[np.float64], NDArray[np.float64]], options: CalibrateOptions
) -> tuple[NDArray[Any], ...]:
    sources = subtraction.point_sources(field)
    nearest = np.min([beam.separation(sources.ra, sources.dec, *p) for p in zip(*pointing, strict=True)], axis=0)
    keep = (nearest <= np.radians(options.model_radius_deg)) & (sources.flux_jy >= options.model_min_jy)
    keep &= subtraction.matters(sources, pointing, options.model_min_apparent_jy)
    return sources.ra[keep], sources.dec[keep], sources.flux_jy[keep], sources.spectral_index[keep]


def choose_refant(record: MeasurementSet) -> str:
    """The antenna with most unflagged data and, among equals, nearest to the middle of the array."""
    layout = ms.read_layout(record.path)
    n_channels = layout.frequencies.size
    _, flags = ms.read_channels(record.path, "DATA", n_channels // 2, n_channels // 2 + 1)
    good = (~flags).reshape(layout.mjd.size, layout.antenna1.size, -1).sum(axis=(0, 2)).astype(float)
    usable = np.zeros(len(layout.names))
    np.add.at(usable, layout.antenna1, good)
    np.add.at(usable, layout.antenna2, good)
    if usable.max() <= 0:
        raise CalibrationError("No antenna has unflagged data", path=record.path, expected="a reference antenna")
    distance = np.linalg.norm(layout.positions - np.median(layout.positions, axis=0), axis=-1)
    near_best = usable >= 0.99 * usable.max()
    return layout.names[int(np.argmin(np.where(near_best, distance, np.inf)))]


def solve_calibrator(
    record: MeasurementSet, calibrator: str, options: CalibrateOptions, place: Workplace
) -> tuple[CalTable, CalTable]:
    """Bandpass and gains of a calibrator's group, whose MODEL_DATA is predicted.

    Phases over ``phase_interval_s`` are taken out first, so that they do not decorrelate the bandpass (solved over the
    whole group); then one complex gain an antenna and polarisation.

    Raises
    ------
    CalibrationError
        Too many solutions are flagged; the tables are not made.
    ExternalToolError
        CASA failed; the tables are not made.
    """
    refant = options.refant or choose_refant(record)
    stem = f"{record.group_id}.{calibrator.replace(' ', '_')}"
    pre = place.work_dir / f"{stem}.prebandpass"
    paths = {kind: place.out_dir / f"{stem}.{kind}" for kind in ("B", "G")}
    common: dict[str, Any] = {"vis": record.path, "refant": refant, "parang": False}
    gain = common | {"gaintype": "G", "minsnr": options.gain_min_snr}
    whole = {"solint": "inf", "combine": "scan,field"}
    first = gain | {"caltable": pre, "calmode": "p", "solint": _interval(options)}
    bandpass = common | whole | {"caltable": paths["B"], "bandtype": "B", "gaintable": [pre], "solnorm": False}
    bandpass["minsnr"] = options.bandpass_min_snr
    gains = gain | whole | {"caltable": paths["G"], "calmode": "ap", "gaintable": [paths["B"]]}
    calls = (("gaincal", first), ("bandpass", bandpass), ("gaincal", gains))
    tasks = [CasaTask(name, arguments, "caltable") for name, arguments in calls]
    run_tasks(tasks, workdir=place.work_dir, measures_cache=place.measures)
    half = {"B": options.bandpass_hours / 24, "G": options.gain_minutes / 1440}
    made = [_judged(paths[kind], kind, record, refant, calibrator, half[kind], options) for kind in ("B", "G")]
    return made[0], made[1]


def _interval(options: CalibrateOptions) -> str:
    """CASA's solution interval: single integrations have a name of their own."""
    return "int" if options.phase_interval_s < 1.5 * telescope.INTEGRATION_S else f"{options.phase_interval_s}s"


def solve_phases(
    record: MeasurementSet, tables: tuple[CalTable, ...], options: CalibrateOptions, place: Workplace
) -> CalTable:
    """Phases of a group in its own field, on top of the bandpass and gains; valid for this group alone.

    Raises
    ------
    CalibrationError
        The field is too weak: too many solutions are flagged.
    ExternalToolError
        CASA failed.
    """
    refant = options.refant or choose_refant(record)
    path = place.out_dir / f"{record.group_id}.GP"
    task = CasaTask(
        "gaincal",
        {
            "vis": record.path,
            "caltable": path,
            "refant": refant,
            "gaintype": "G",
            "calmode": "p",
            "solint": _interval(options),
            "minsnr": options.gain_min_snr,
            "gaintable": [t.path for t in tables],
            "parang": False,
        },
        "caltable",
    )
    run_tasks([task], workdir=place.work_dir, measures_cache=place.measures)
    half = (record.mjd_end - record.mjd_start) / 2
    return _judged(path, "GP", record, refant, "", half, options)


def _judged(
    path: Path,
    kind: str,
    record: MeasurementSet,
    refant: str,
    calibrator: str,
    half_days: float,
    options: CalibrateOptions,
) -> CalTable:
    flagged, snr = judge(open_caltable(path))
    if not flagged <= options.max_flagged_fraction:
        raise CalibrationError(
            f"The {kind} solutions of group {record.group_id} have failed",
            path=path,
            found=f"{flagged:.0%} of the solutions flagged",
            expected=f"at most {options.max_flagged_fraction:.0%}",
        )
    return CalTable(
        path=path,
        kind=kind,
        set_name=f"{record.group_id}_{calibrator.replace(' ', '_') or 'field'}",
        apply_order=APPLY_ORDER[kind],
        group_id=record.group_id,
        refant=refant,
        mjd=record.mjd_mid,
        valid_from=record.mjd_mid - half_days,
        valid_to=record.mjd_mid + half_days,
        flagged_fraction=flagged,
        median_snr=snr,
        calibrator=calibrator,
    )


def judge(table: xr.Dataset) -> tuple[float, float]:
    """Flagged fraction and median SNR, counting only antennas that have a solution at all.

    Dead antennas are not the solution's fault; missing subbands are not either, so only channels that some antenna
    solved count.
    """
    good = ~table["FLAG"].to_numpy()
    alive, channels = good.any(axis=(0, 2, 3)), good.any(axis=(0, 1, 3))
    counted = good[:, alive][:, :, channels]
    if counted.size == 0:
        return 1.0, 0.0
    snr = table["SNR"].to_numpy()[:, alive][:, :, channels][counted]
    return float(1.0 - counted.mean()), float(np.median(snr))
