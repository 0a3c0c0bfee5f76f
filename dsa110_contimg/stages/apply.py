"""apply: correct a Measurement Set with its tables, and measure from the result what the calibration is worth.

Our own kernel does it in one pass: integration n + 2 is read, n + 1 is corrected in threads, n is written. What the
corrected data say against the model is added up on the way. CASA's applycal, which does the same to the rounding of
single precision, is there to compare with.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dsa110_contimg import telescope
from dsa110_contimg.exceptions import CalibrationError, CorruptFileError, InputError
from dsa110_contimg.io import ms, tiles
from dsa110_contimg.io.caltable import open_caltable
from dsa110_contimg.io.casa import CasaTask, run_tasks
from dsa110_contimg.options import ApplyOptions
from dsa110_contimg.records import CalTable, CalTableSet, MeasurementSet
from dsa110_contimg.science import applying, selfcheck
from dsa110_contimg.science.threads import give_way

if TYPE_CHECKING:
    from casacore.tables import table

Progress = Callable[[int, int], None]

THREADS = 2
"""Of the kernel; another reads, and casacore writes in the thread of the caller."""

SAME = 1e-4
"""Largest difference, relative to the largest visibility, between what was written and what the tables ask for: CASA
multiplies its gains in single precision, and rounds each."""


def apply(
    record: MeasurementSet,
    tables: tuple[CalTable, ...],
    work_dir: Path,
    measures: Path,
    progress: Progress | None = None,
    options: ApplyOptions | None = None,
    judge: Callable[[applying.Comparison], object] | None = None,
) -> CalTableSet:
    """Write CORRECTED_DATA, propagate flags, read an integration of it back, and compare all with MODEL_DATA.

    CORRECTED_DATA = DATA / (G_1 conj(G_2)), G the product of all tables; parallactic angles are not applied. Where a
    table has no solution, data are flagged and left as observed (`science.gains.interpolated` tells what a solution
    at a time and frequency is). FLAG only grows: flags of an earlier try are taken back by `predict_field`.

    Parameters
    ----------
    work_dir, measures : Path
        CASA's scratch, and its data (`io.casa.run_tasks`); used by the engine ``casa``.
    progress : callable, optional
        Called with the number of integrations done, of how many.
    options : ApplyOptions, optional
    judge : callable, optional
        Called with what the corrected data say against the model; what it raises is raised.

    Raises
    ------
    CalibrationError
        Nothing is left unflagged, or the corrected data are zero.
    CorruptFileError
        What stands in the Measurement Set afterwards is not what the tables ask for.
    ExternalToolError
        CASA failed.
    """
    options = options or ApplyOptions()
    ordered = tuple(sorted(tables, key=lambda t: t.apply_order))
    solutions, layout = _solutions(record.path, tuple(t.path for t in ordered))
    if options.engine == "casa":
        _with_casa(record, ordered, options, (work_dir, measures))
        found = compare(record.path, progress)
    else:
        found = _stream(record.path, layout, solutions, progress, calwt=options.calwt)
    _require_data(record.path, found)
    _verify(record.path, layout, solutions, calwt=options.calwt)
    if judge:
        judge(found)
    solved = sum(t.median_snr**-2 for t in ordered if t.kind in ("G", "GA") and t.median_snr > 0)
    # phases wrong by 1 / SNR at both ends of a baseline lose that squared of a peak
    phases = sum(t.median_snr**-2 for t in ordered if t.kind in ("GP", "2G") and t.median_snr > 0)
    # the scale of the array enters every baseline twice, and averages over polarisations alone
    hands = sum(name[0] == name[1] for name in layout.polarizations)
    common = sum(t.median_snr**-2 for t in ordered if t.kind == "FLUX" and t.median_snr > 0) / hands
    drift = flux_scale_error(found)
    noise = 4.0 * (solved / record.n_antennas + common)
    return CalTableSet(ordered, float(np.sqrt(drift**2 + noise + phases**2)))


def correct(path: Path, tables: tuple[Path, ...], *, calwt: bool = False, progress: Progress | None = None) -> None:
    """Correct a Measurement Set of ours with tables of any origin, without judging the result.

    Parameters
    ----------
    path : Path
        MODEL_DATA is not needed.
    tables : CASA tables, in any order.

    Raises
    ------
    InputError, CorruptFileError
        A table that cannot be applied, or a Measurement Set of more than one field or window.
    CalibrationError
        No antenna has a solution, or nothing is left unflagged.
    """
    solutions, layout = _solutions(path, tables)
    found = _stream(path, layout, solutions, progress, calwt=calwt)
    _require_data(path, found)
    _verify(path, layout, solutions, calwt=calwt)


def compare(path: Path, progress: Progress | None = None) -> applying.Comparison:
    """CORRECTED_DATA against MODEL_DATA of a calibrated Measurement Set, in one pass; nothing is written.

    Raises
    ------
    InputError
        It is not calibrated: one of the columns is not there.
    """
    layout = ms.read_layout(path)
    ones = np.ones((1, 1, len(layout.names), 2), np.complex128)
    hands = sorted({letter for hand in layout.polarizations for letter in hand})
    feeds = np.array([[hands.index(letter) for letter in hand] for hand in layout.polarizations])
    nothing = applying.Solutions((ones,), (ones.real[:, 0],), feeds, layout.frequencies.size)
    return _stream(path, layout, nothing, progress, read="CORRECTED_DATA")


def flux_scale_error(found: applying.Comparison) -> float:
    """Relative 1-sigma error of the flux scale of a corrected group, from the antennas' own amplitudes.

    What is left of each antenna's amplitude against the model (`selfcheck.antenna_amplitudes`) scatters by the drift
    since the calibrator and by the noise of the solutions. A flux is a mean over baselines g_i g_j, so independent
    errors of scatter s in N antennas move it by 2 s / sqrt(N).
    """
    scatter, alive = selfcheck.amplitude_scatter(found.per_antenna(), found.noise_jy)
    return float(2.0 * scatter / np.sqrt(alive))


def layout_noise(layout: ms.Layout) -> float:
    """Thermal noise of the real part of one visibility (Jy)."""
    return telescope.visibility_noise(layout.channel_width, layout.integration_s)


def _solutions(path: Path, tables: tuple[Path, ...]) -> tuple[applying.Solutions, ms.Layout]:
    layout = ms.read_layout(path)
    opened = [open_caltable(table) for table in tables]
    return applying.solutions(opened, layout.mjd, layout.frequencies, layout.names, layout.polarizations), layout


# ---- one pass -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Pass:
    """One pass over a Measurement Set: what every integration needs.

    Attributes
    ----------
    sums : (time, baseline, polarization, N_SUMS), filled on the way.
    """

    main: table
    layout: ms.Layout
    solutions: applying.Solutions
    observed: tiles.Read
    model: tiles.Read | None
    sums: NDArray[np.float64]

    @property
    def ends(self) -> NDArray[np.int64]:
        return np.stack([self.layout.antenna1, self.layout.antenna2], axis=-1)

    def read(
        self, pool: ThreadPoolExecutor, time: int, spare: applying.Block | None
    ) -> tuple[applying.Block, list[Future[None]]]:
        """An integration, into the memory of one that is done with; it is there when the futures are done."""
        n = self.layout.antenna1.size
        shape = (n, *self.layout.cell)
        data = np.empty(shape, np.complex64) if spare is None else spare.data
        copies = [pool.submit(self.observed, data, time * n, 0)]
        if self.model is None:
            model = np.empty((n, 0, shape[2]), np.complex64)
        else:
            model = np.empty(shape, np.complex64) if spare is None else spare.model
            copies.append(pool.submit(self.model, model, time * n, 0))
        return applying.Block(data, model, self.main.getcol("FLAG", time * n, n)), copies

    def begin(self, pool: ThreadPoolExecutor, time: int, block: applying.Block) -> list[Future[bool]]:
        inverse, ends = self.solutions.inverse(time), self.ends
        edges = np.linspace(0, len(ends), THREADS + 1).astype(int)
        parts = [slice(low, high) for low, high in itertools.pairwise(edges)]
        feeds = self.solutions.feeds
        return [
            pool.submit(
                applying.correct,
                applying.Block(block.data[part], block.model[part], block.flags[part]),
                inverse,
                ends[part],
                feeds,
                self.sums[time, part],
            )
            for part in parts
        ]


@contextmanager
def _pass(path: Path, layout: ms.Layout, solutions: applying.Solutions, column: str) -> Iterator[_Pass]:
    sums = np.zeros((layout.mjd.size, layout.antenna1.size, layout.cell[1], applying.N_SUMS))
    needed = {column} if column == "DATA" else {column, "MODEL_DATA"}
    with ms.opened(path, writable=column == "DATA") as main:
        if not needed <= set(main.colnames()):
            raise InputError(
                "The Measurement Set lacks a column", path=path, found=main.colnames(), expected=sorted(needed)
            )
        model = tiles.reading(main, path, "MODEL_DATA") if "MODEL_DATA" in main.colnames() else None
        yield _Pass(main, layout, solutions, tiles.reading(main, path, column), model, sums)


def _stream(
    path: Path,
    layout: ms.Layout,
    solutions: applying.Solutions,
    progress: Progress | None,
    *,
    read: str = "DATA",
    calwt: bool = False,
) -> applying.Comparison:
    """In each step an integration is read and the one before corrected, in threads, while the one before that is
    written; nothing is written if not DATA is read.
    """
    n_times = layout.mjd.size
    with _pass(path, layout, solutions, read) as whole, ThreadPoolExecutor(THREADS + 1) as pool:
        if read == "DATA":
            ms.add_column(whole.main, "CORRECTED_DATA")
        blocks: deque[applying.Block] = deque()
        copies: list[Future[None]] = []
        corrections: list[Future[bool]] = []
        spare: applying.Block | None = None
        for step in range(n_times + 2):
            added = [future.result() for future in corrections]
            for copy in copies:
                copy.result()
            corrections = whole.begin(pool, step - 1, blocks[-1]) if 1 <= step <= n_times else []
            copies = []
            if step < n_times:
                block, copies = whole.read(pool, step, spare)
                blocks.append(block)
            if step < 2:
                continue
            spare = blocks.popleft()
            if read == "DATA":
                give_way()
                _write(whole, step - 2, spare, added=any(added), calwt=calwt)
            if progress:
                progress(step - 1, n_times)
    return applying.Comparison(
        whole.sums,
        layout.antenna1,
        layout.antenna2,
        layout.names,
        layout.polarizations,
        layout_noise(layout),
        layout.mjd,
    )


def _write(whole: _Pass, time: int, block: applying.Block, *, added: bool, calwt: bool) -> None:
    n = len(block.data)
    whole.main.putcol("CORRECTED_DATA", block.data, time * n, n)
    if added:
        whole.main.putcol("FLAG", block.flags, time * n, n)
    if calwt:
        weight = _weights(whole.main, whole.solutions, whole.ends, time)
        whole.main.putcol("WEIGHT", weight, time * n, n)
        if whole.layout.weight_spectrum:
            spectrum = np.repeat(weight[:, None], whole.layout.cell[0], axis=1)
            whole.main.putcol("WEIGHT_SPECTRUM", spectrum, time * n, n)


def _weights(main: table, solutions: applying.Solutions, ends: NDArray[np.int64], time: int) -> NDArray[np.float32]:
    """(row, polarization) WEIGHT of an integration: from SIGMA, which stays, so that it can be done again."""
    sigma = np.asarray(main.getcol("SIGMA", time * len(ends), len(ends)), np.float64)
    power, feeds = solutions.weight_factor(time), solutions.feeds
    one, two = (power[ends[:, i]][:, feeds[:, i]] for i in (0, 1))
    weight = np.divide(one * two, sigma**2, out=np.zeros(sigma.shape), where=sigma > 0)
    return weight.astype(np.float32)


# ---- CASA, and checks of both -------------------------------------------------------------------------------------


def _with_casa(
    record: MeasurementSet, tables: tuple[CalTable, ...], options: ApplyOptions, places: tuple[Path, Path]
) -> None:
    ms.ensure_column(record.path, "CORRECTED_DATA")
    task = CasaTask(
        "applycal",
        {
            "vis": record.path,
            "gaintable": [t.path for t in tables],
            # flagged solutions flag data: CASA's plain `linear` would interpolate a bandpass over them
            "interp": ["nearest,linearflag" if t.kind.startswith("B") else "linear" for t in tables],
            "calwt": options.calwt,
            "applymode": "calflag",
            "parang": False,
            "flagbackup": False,
        },
    )
    run_tasks([task], workdir=places[0], measures_cache=places[1])


def _require_data(path: Path, found: applying.Comparison) -> None:
    """Existing is not populated: some data must be unflagged, and these not zero."""
    cross = found.cross.sums.sum(axis=(0, 1, 2))
    count, zeros = float(cross[4]), float(cross[5])
    if not count > zeros:
        raise CalibrationError(
            "Calibration left nothing to image",
            path=path,
            found=f"{count:.0f} unflagged visibilities, {zeros:.0f} of them zero",
            expected="some that are not",
        )


def _verify(path: Path, layout: ms.Layout, solutions: applying.Solutions, *, calwt: bool) -> None:
    """Read the middle integration back and hold it against the tables; whoever wrote it."""
    time, n = layout.mjd.size // 2, layout.antenna1.size
    ends = np.stack([layout.antenna1, layout.antenna2], axis=-1)
    with ms.opened(path) as main:
        data, there = (main.getcol(name, time * n, n) for name in ("DATA", "CORRECTED_DATA"))
        flags, weight = (main.getcol(name, time * n, n) for name in ("FLAG", "WEIGHT"))
        expected_weight = _weights(main, solutions, ends, time) if calwt else weight
    block = applying.Block(data, np.empty((n, 0, data.shape[2]), np.complex64), np.zeros(data.shape, np.bool_))
    sums = np.zeros((n, data.shape[2], applying.N_SUMS))
    applying.correct(block, solutions.inverse(time), ends, solutions.feeds, sums)
    faults = []
    if not (flags | ~block.flags).all():
        faults.append(f"{int((block.flags & ~flags).sum())} data without a solution are not flagged")
    if not flags.all():
        size = float(np.abs(block.data[~flags]).max())
        apart = float(np.abs(there - block.data)[~flags].max())
        if not apart <= SAME * size:
            faults.append(f"CORRECTED_DATA differs by {apart:.3g} of {size:.3g} Jy")
    if not np.allclose(weight, expected_weight, rtol=SAME):
        faults.append("WEIGHT is not scaled as the gains are")
    if faults:
        raise CorruptFileError(
            "The corrected data are not what the tables ask for", path=path, found="; ".join(faults), expected="equal"
        )
