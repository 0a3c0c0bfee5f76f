"""calibrate: solve for the gains, judge the solutions.

Solvers are not given the data but their normal equations (`science.condense`), from which they find the same gains
several times as fast. CASA gets them as a small Measurement Set; `science.stefcal` solves the single channels of the
bandpass, for which CASA alone takes longer than for all the rest, and the two are held against each other.

The calibrator's group gives the bandpass (B) and the gains (G), on request amplitudes and phases apart (BA BP, GA GP)
and a delay (K) before them; every group then solves its own phases (GP) against the catalogue sources in its field,
because the phases of the array do not stay for half an hour, but amplitudes do. On request come on top gains in short
intervals of a calibrator's group (2G), and one scale of the whole array (FLUX).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from dsa110_contimg import telescope
from dsa110_contimg.exceptions import CalibrationError
from dsa110_contimg.io import blocks, fieldmodel, files, gaincal, ms
from dsa110_contimg.io.caltable import open_caltable, write_caltable
from dsa110_contimg.io.casa import CasaTask, run_tasks
from dsa110_contimg.io.condensed import write_condensed
from dsa110_contimg.io.discovery import APPLY_ORDER
from dsa110_contimg.options import CalibrateOptions
from dsa110_contimg.records import CalTable, MeasurementSet
from dsa110_contimg.science import casasyntax, condense, gains, kinds, refants, stefcal, window

_COLUMNS = ("DATA", "MODEL_DATA", "FLAG")
_CHECKED_CHANNELS = 48
"""Channels that are one where CASA solves what a channel by channel bandpass leaves."""
_EARLY_SUBBANDS = 4
"""Subbands in which phases are solved before the bandpass."""


@dataclass(frozen=True)
class Workplace:
    """Where solving happens: products in ``out_dir``, CASA's scratch in ``work_dir``, its data in ``measures``."""

    out_dir: Path
    work_dir: Path
    measures: Path


def rank_refants(record: MeasurementSet) -> list[refants.Refant]:
    """All antennas of a Measurement Set, the best phase reference first, each with the reasons.

    Raises
    ------
    CalibrationError
        Everything is flagged.
    """
    layout = ms.read_layout(record.path)
    n_antennas, cross = len(layout.names), layout.antenna1 != layout.antenna2
    ends = np.stack([layout.antenna1, layout.antenna2])[:, cross]
    runs = blocks.subbands(layout)
    good = np.zeros((len(runs), ends.shape[1]))
    with blocks.reading(record.path, layout, ("FLAG",)) as read:
        for number, run in enumerate(runs):
            good[number] = 1.0 - read(run)[0].mean(axis=(0, 2, 3))[cross]
    share = np.zeros((n_antennas, len(runs)))
    baselines = np.zeros(n_antennas, np.int64)
    for end in ends:
        np.add.at(share, end, good.T)
        np.add.at(baselines, end, good.any(axis=0))
    return refants.rank(layout.names, share / max(n_antennas - 1, 1), baselines, layout.positions)


def choose_refant(record: MeasurementSet) -> str:
    """The best reference antenna (`rank_refants`)."""
    return refants.chosen(rank_refants(record), None)[0]


def solve_calibrator(
    record: MeasurementSet,
    calibrator: str,
    options: CalibrateOptions,
    place: Workplace,
    position: tuple[float, float] | None = None,
) -> tuple[CalTable, ...]:
    """Bandpass and gains of a calibrator's group, whose MODEL_DATA is predicted.

    Phases over ``phase_interval_s`` are taken out first, so that they do not decorrelate the bandpass (solved over the
    whole group); then one complex gain an antenna and polarisation. With ``do_k`` a delay comes before both. With
    ``split_amplitude_phase`` the tables are BA and BP, GA and GP, whose products are B and G.

    What an earlier solution of the group left under names that this one does not make is removed.

    Parameters
    ----------
    position : (right ascension, declination) of the calibrator (rad, ICRS)
        With it only the integrations in which the beam still responds to it are solved on
        (``options.window_response``); the whole group otherwise.

    Raises
    ------
    CalibrationError
        Nothing to solve on, a reference antenna that cannot be one, too many solutions flagged, or two solvers that
        disagree; the tables are not made.
    ExternalToolError
        CASA failed; the tables are not made.
    """
    if options.do_k and options.solver == "stefcal":
        raise CalibrationError("Delays are solved by CASA", found="solver stefcal", expected="casa or casa-only")
    use = _selection(record, options, position)
    stem = f"{record.group_id}.{calibrator.replace(' ', '_')}"
    solved = (*(("K",) if options.do_k else ()), "B", "G")
    normal = _sums(record, use, (0, options.channel_bin), _early_phases(record, use, options))
    solve = _by_casa_only if options.solver == "casa-only" or options.do_k else _by_channels
    half = {"K": options.bandpass_hours, "B": options.bandpass_hours, "G": options.gain_minutes / 60}
    # one table without the other would look like a solution: they get their names when all are good
    with tempfile.TemporaryDirectory(prefix=f".{stem}.", dir=place.out_dir) as unfinished:
        paths = {kind: Path(unfinished) / f"{stem}.{kind}" for kind in solved}
        solve(record, use, normal, paths, options, place)
        made = [
            _judged(paths[kind], kind, record, use.refants[0], calibrator, half[kind] / 24, options) for kind in solved
        ]
        if options.split_amplitude_phase:
            made = [part for table in made for part in _apart(table, record)]
        final = [replace(table, path=place.out_dir / table.path.name) for table in made]
        for old, new in zip(made, final, strict=True):
            files.sync(old.path)
            files.remove(new.path)
            old.path.rename(new.path)
        for kind in APPLY_ORDER.keys() - {table.kind for table in final}:
            files.remove(place.out_dir / f"{stem}.{kind}")
        files.sync_directory(place.out_dir)
    return tuple(final)


def _apart(table: CalTable, record: MeasurementSet) -> list[CalTable]:
    """A complex table as one of amplitudes and one of phases beside it; any other as it is."""
    if table.kind not in kinds.PARTS:
        return [table]
    made = []
    for kind, view in zip(kinds.PARTS[table.kind], kinds.amplitude_and_phase(open_caltable(table.path)), strict=True):
        path = write_caltable(view, table.path.with_name(f"{table.path.stem}.{kind}"), like=record.path)
        made.append(replace(table, path=path, kind=kind, apply_order=APPLY_ORDER[kind]))
    return made


def solve_field(
    record: MeasurementSet, tables: tuple[CalTable, ...], options: CalibrateOptions, place: Workplace
) -> tuple[CalTable, ...]:
    """What a group solves for itself alone, on top of what it takes: GP; with options 2G and FLUX, each on all before.

    Parameters
    ----------
    tables : of a calibrator, or interpolated between some
        The calibrator's own phases, if it has them apart (GP), are left out: phases in the field take their place, of
        which they are a constant part. 2G is solved where a calibrator of these is in the group itself: another field
        is too weak for amplitudes in short intervals.

    Returns
    -------
    tuple of CalTable
        With ``tables`` less their GP, one of each kind to apply.

    Raises
    ------
    CalibrationError
        The field is too weak: too many solutions are flagged, or the data have another sign than the model.
    ExternalToolError
        CASA failed.
    """
    before = tuple(table for table in tables if table.kind != "GP")
    made = [solve_phases(record, before, options, place)]
    own = any(table.calibrator and table.group_id == record.group_id for table in before)
    if options.short_interval_s is not None and own:
        made.append(_gains_on_top(record, (*before, *made), ("2G", options.short_interval_s), options, place))
    if options.do_flux:
        made.append(_scale_on_top(record, (*before, *made), options, place))
    return tuple(made)


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
    return _gains_on_top(record, tables, ("GP", options.phase_interval_s), options, place)


def _gains_on_top(
    record: MeasurementSet,
    tables: tuple[CalTable, ...],
    what: tuple[str, float],
    options: CalibrateOptions,
    place: Workplace,
) -> CalTable:
    """Gains of a kind, of all channels and so many seconds; of the kind GP, phases alone."""
    kind, interval_s = what
    use, known = _on_top(record, tables, options)
    path = place.out_dir / f"{record.group_id}.{kind}"
    normal = _sums(record, use, (_integrations(interval_s, use.layout), 0), known)
    if options.solver == "stefcal":
        write_caltable(_stefcal(use, normal, "G Jones", options, phase_only=kind == "GP"), path, like=record.path)
    else:
        small, arguments = _condensed(record, use, normal, place)
        task = gaincal.solution_each_time(path, arguments, options, phase_only=kind == "GP")
        _run_on(small, [task], place)
    return _judged(path, kind, record, use.refants[0], "", _half_days(record), options)


def _scale_on_top(
    record: MeasurementSet, tables: tuple[CalTable, ...], options: CalibrateOptions, place: Workplace
) -> CalTable:
    use, known = _on_top(record, tables, options)
    # the scale of the corrected data, which are imaged
    normal = _sums(record, use, (0, 0), known, correct=True)
    path = place.out_dir / f"{record.group_id}.FLUX"
    table = kinds.scale_table(kinds.array_scale(normal), use.coords(normal), use.refants[0], options.gain_min_snr)
    write_caltable(table, path, like=record.path)
    return _judged(path, "FLUX", record, use.refants[0], "", _half_days(record), options)


def _half_days(record: MeasurementSet) -> float:
    return (record.mjd_end - record.mjd_start) / 2


def _on_top(
    record: MeasurementSet, tables: tuple[CalTable, ...], options: CalibrateOptions
) -> tuple[_Selection, Callable[[int, int], NDArray[np.complex64]]]:
    """All integrations of a group, and the product of its tables in a range of channels."""
    use = _selection(record, options.model_copy(update={"fields": ""}))
    layout, receptors = use.layout, [hand[0] for hand in use.hands]
    views = [open_caltable(table.path) for table in sorted(tables, key=lambda t: t.apply_order)]

    def known(first: int, stop: int) -> NDArray[np.complex64]:
        product = np.ones((1, 1, len(layout.names), len(receptors)), complex)
        channels = layout.frequencies[first:stop]
        for view in views:
            product = product * gains.solutions(view, layout.mjd, channels, layout.names, receptors)
        return np.ascontiguousarray(np.moveaxis(product, 2, 1), np.complex64)

    return use, known


@dataclass(frozen=True)
class _Selection:
    """The data that are solved on.

    Attributes
    ----------
    weight : (time, baseline, 1, polarization), 0 for what is left out.
    hands : the parallel hands.
    refants : in order of preference.
    """

    layout: ms.Layout
    weight: NDArray[np.float32]
    hands: tuple[str, ...]
    refants: tuple[str, ...]

    @property
    def antennas(self) -> NDArray[np.int64]:
        return np.stack([self.layout.antenna1, self.layout.antenna2], axis=-1)

    @property
    def order(self) -> tuple[int, ...]:
        return tuple(self.layout.names.index(name) for name in self.refants)

    def centres(self, normal: condense.Normal) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        used = self.weight.any(axis=(1, 2, 3))
        return condense.cell_centres(normal, self.layout.mjd, np.asarray(used), self.layout.frequencies)

    def coords(self, normal: condense.Normal) -> dict[str, NDArray[Any]]:
        """Axes of the solutions."""
        mjd, frequencies = self.centres(normal)
        receptors = np.array([hand[0] for hand in self.hands])
        names = np.array(self.layout.names)
        return {"time": mjd, "frequency": frequencies, "antenna_name": names, "polarization": receptors}


def _selection(
    record: MeasurementSet, options: CalibrateOptions, position: tuple[float, float] | None = None
) -> _Selection:
    layout = ms.read_layout(record.path)
    fieldmodel.require_own_field(record.path, layout.group_id)
    weight = blocks.row_weights(record.path, layout)
    names = [f"meridian_{layout.group_id}_t{number}" for number in range(layout.mjd.size)]
    times = np.isin(np.arange(layout.mjd.size), casasyntax.parse_fields(options.fields, names))
    if position is not None and not options.fields:
        pointing = layout.pointing_ra, layout.pointing_dec
        times = window.solving_window(position, pointing, options.window_response, options.window_integrations)
    lengths = np.hypot(layout.uvw[..., 0], layout.uvw[..., 1])
    inside = casasyntax.parse_uvrange(options.solved_uvrange).holds(lengths, float(layout.frequencies.mean()))
    kept = inside & times[:, None]
    hands = tuple(layout.polarizations[column] for column in blocks.parallel_hands(layout))
    chosen = refants.chosen(rank_refants(record), options.refant)
    return _Selection(layout, np.where(kept[..., None, None], weight, 0).astype(np.float32), hands, chosen)


def _integrations(interval_s: float, layout: ms.Layout) -> int:
    """Of a solution."""
    return max(1, round(interval_s / layout.integration_s))


def _sums(
    record: MeasurementSet,
    use: _Selection,
    bins: tuple[int, int],
    known: NDArray[np.complex64] | Callable[[int, int], NDArray[np.complex64]],
    runs: list[tuple[int, int]] | None = None,
    *,
    correct: bool = False,
) -> condense.Normal:
    """Normal equations of cells of ``bins`` integrations and channels (0: all), for gains on top of the ``known``.

    These are in the model, or with ``correct`` taken out of the data.

    One subband is read while the one before is summed.
    """
    layout = use.layout
    n_times, n_baselines, n_pols = layout.mjd.size, layout.antenna1.size, len(use.hands)
    cells = [-(-size // b) if b else 1 for size, b in zip((n_times, layout.frequencies.size), bins, strict=True)]
    normal = condense.Normal.empty(cells[0], n_baselines, cells[1], n_pols)
    with ThreadPoolExecutor(1) as pool, blocks.reading(record.path, layout, _COLUMNS) as read:
        summing: Future[None] | None = None
        for run in blocks.subbands(layout, record.missing_subbands) if runs is None else runs:
            data, model, flags = read(run)
            fieldmodel.require_predicted(model, record.path)
            gain = known(*run) if callable(known) else known
            if correct:
                data, gain = condense.corrected(data, gain, use.antennas), np.ones_like(gain)
            if summing is not None:
                summing.result()
            summing = pool.submit(
                condense.accumulate, (data, model, flags), use.weight, gain, use.antennas, bins, run[0], normal.sums
            )
        if summing is not None:
            summing.result()
    if not normal.number.any():
        raise CalibrationError("There is nothing to solve on", path=record.path, found="all flagged or deselected")
    if not normal.power.any():
        raise CalibrationError("The model to solve against is empty", path=record.path, found="zeros in MODEL_DATA")
    return normal


def _early_phases(record: MeasurementSet, use: _Selection, options: CalibrateOptions) -> NDArray[np.complex64]:
    """How phases move within the group, (time, antenna, 1, polarization); NaN where there is no solution.

    A few subbands are enough: phases that are wrong by e take e^2 / 2 from the amplitude of the bandpass.
    """
    runs, per = (
        blocks.subbands(use.layout, record.missing_subbands),
        _integrations(options.phase_interval_s, use.layout),
    )
    some = [runs[i] for i in np.unique(np.linspace(0, len(runs) - 1, _EARLY_SUBBANDS + 2).round().astype(int)[1:-1])]
    n_antennas = len(use.layout.names)
    ones = np.ones((1, n_antennas, 1, len(use.hands)), np.complex64)
    normal = _sums(record, use, (per, telescope.N_CHANNELS_PER_SUBBAND), ones, some)
    phases = stefcal.common_phases(normal, use.antennas, n_antennas, use.order)
    return np.ascontiguousarray(phases[np.arange(use.layout.mjd.size) // per])


def _condensed(
    record: MeasurementSet, use: _Selection, normal: condense.Normal, place: Workplace
) -> tuple[Path, dict[str, Any]]:
    """The sums as a Measurement Set in scratch, and what every call on it has in common."""
    small = files.make_directory(place.work_dir) / f"{record.group_id}.condensed.ms"
    mjd, frequencies = use.centres(normal)
    widths = (
        use.layout.integration_s * use.layout.mjd.size / mjd.size,
        use.layout.channel_width * use.layout.frequencies.size / frequencies.size,
    )
    write_condensed(small, use.layout, normal.cross, normal.power, (mjd, frequencies), widths)
    return small, {"vis": small, "refant": ",".join(use.refants), "parang": False}


def _run_on(small: Path, tasks: list[CasaTask], place: Workplace) -> None:
    try:
        run_tasks(tasks, workdir=place.work_dir, measures_cache=place.measures)
    finally:
        files.remove(small)


def _by_casa_only(
    record: MeasurementSet,
    use: _Selection,
    normal: condense.Normal,
    paths: dict[str, Path],
    options: CalibrateOptions,
    place: Workplace,
) -> None:
    """All of a calibrator's tables by CASA, one on top of the other."""
    small, common = _condensed(record, use, normal, place)
    tasks: list[CasaTask] = []
    for kind, path in paths.items():
        before = [task.kwargs["caltable"] for task in tasks]
        tasks.append(gaincal.solution(kind, path, common | {"gaintable": before}, options))
    _run_on(small, tasks, place)
    if options.cross_check and "K" not in paths:
        _cross_check(_stefcal(use, normal, "B Jones", options), paths["B"], options)


def _by_channels(
    record: MeasurementSet,
    use: _Selection,
    normal: condense.Normal,
    paths: dict[str, Path],
    options: CalibrateOptions,
    place: Workplace,
) -> None:
    """The bandpass by stefcal; with it in the model channels can be added without loss, and CASA solves the rest."""
    bandpass = _stefcal(use, normal, "B Jones", options)
    write_caltable(bandpass, paths["B"], like=record.path)
    gain = np.where(bandpass["FLAG"], np.nan, bandpass["GAIN"]).astype(complex)
    coarse = normal.with_gains(gain, use.antennas).add_channels(_CHECKED_CHANNELS // options.channel_bin)
    if options.solver == "stefcal":
        rest = _stefcal(use, coarse.add_channels(), "G Jones", options, phase_only=options.phase_only_gains)
        write_caltable(rest, paths["G"], like=record.path)
        return
    small, common = _condensed(record, use, coarse, place)
    tasks, checked = [gaincal.solution("G", paths["G"], common, options)], place.work_dir / f"{record.group_id}.checked"
    if options.cross_check:
        tasks.append(gaincal.solution("B", checked, common, options))
    _run_on(small, tasks, place)
    if options.cross_check:
        _cross_check(_stefcal(use, coarse, "B Jones", options), checked, options)
        files.remove(checked)


def _stefcal(
    use: _Selection, normal: condense.Normal, kind: str, options: CalibrateOptions, *, phase_only: bool = False
) -> xr.Dataset:
    """Our own solutions as a view, called as CASA calls its tables."""
    solutions = stefcal.solve_normal(
        normal, use.antennas, len(use.layout.names), phase_only=phase_only, refants=use.order
    )
    least = options.bandpass_min_snr if kind.startswith("B") else options.gain_min_snr
    return stefcal.as_caltable(solutions, use.coords(normal), kind, use.refants[0], least)


def _cross_check(ours: xr.Dataset, path: Path, options: CalibrateOptions) -> None:
    """Hold CASA's bandpass against ours, on the same sums.

    Raises
    ------
    CalibrationError
        They differ by more than ``cross_check_sigma`` standard errors.
    """
    told = stefcal.agreement(ours, open_caltable(path))
    if not told.rms_sigma <= options.cross_check_sigma:
        raise CalibrationError(
            "Two solvers disagree on the bandpass",
            path=path,
            found=f"{told.rms_sigma:.2f} standard errors rms ({told.rms_relative:.2%} of the gains) between CASA and "
            f"stefcal, over {told.compared} solutions",
            expected=f"at most {options.cross_check_sigma:g}",
        )


def _judged(
    path: Path,
    kind: str,
    record: MeasurementSet,
    refant: str,
    calibrator: str,
    half_days: float,
    options: CalibrateOptions,
) -> CalTable:
    flagged, snr = kinds.figures(open_caltable(path))
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
