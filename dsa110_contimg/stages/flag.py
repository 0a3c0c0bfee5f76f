"""flag: mark what must not be used in a Measurement Set, by cause. Visibilities are read once, only FLAG is written.

One thread reads: casacore is not safe in threads, and its calls hold the interpreter. What is done to a subband that
has been read needs neither and runs beside it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsa110_contimg.exceptions import CorruptFileError, OutputError
from dsa110_contimg.io import ms, rfi, tiles
from dsa110_contimg.options import FlagOptions
from dsa110_contimg.records import FlagSummary, MeasurementSet
from dsa110_contimg.science import flagging, masking

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class _Job:
    """What every step of one group needs.

    Attributes
    ----------
    causes : (time, baseline, channel, polarization) uint8, `flagging.CAUSES`.
    """

    path: Path
    layout: ms.Layout
    axes: masking.Axes
    options: FlagOptions
    causes: NDArray[np.uint8]
    pool: ThreadPoolExecutor

    def in_parts(self, work: Callable[[slice], Any]) -> list[Any]:
        """Results of a function of a range of baselines, in threads, in order."""
        edges = np.linspace(0, self.layout.antenna1.size, self.options.threads + 1).astype(int)
        return list(self.pool.map(work, [slice(int(a), int(b)) for a, b in pairwise(edges)]))


def flag(
    record: MeasurementSet,
    options: FlagOptions,
    progress: Progress | None = None,
    *,
    work_dir: Path | None = None,
    measures: Path | None = None,
) -> FlagSummary:
    """Flag a raw Measurement Set.

    In order: what is flagged already (missing subbands, the correlator's own flags), exact zeros and NaNs, dead
    antennas, single outliers, interference, what these are extended to; autocorrelations at last. It starts from the
    flags that `convert` left, so that its result does not depend on what was flagged before, by other options or by a
    try that was killed. If it raises, FLAG is what it was before.

    Parameters
    ----------
    work_dir, measures : Path, optional
        Scratch and data of CASA (`io.casa.run_tasks`), where ``options.rfi`` is ``casa``; else temporary places.

    Raises
    ------
    CorruptFileError
        Everything is flagged already, or more than ``options.max_flagged_fraction`` of the cross-correlations are in
        the end.
    OutputError
        The Measurement Set is read-only.
    ExternalToolError
        The detector of ``options.rfi`` is not installed, or failed.
    """
    if record.path.exists() and not os.access(record.path / "table.dat", os.W_OK, effective_ids=True):
        raise OutputError(
            "Flags cannot be written into a read-only Measurement Set",
            path=record.path,
            found="no permission to write",
            expected="a Measurement Set that may be changed",
        )
    layout = ms.read_layout(record.path)
    shape = (layout.mjd.size, layout.antenna1.size, *layout.cell)
    with ThreadPoolExecutor(options.threads) as pool:
        axes = masking.Axes(
            layout.antenna1, layout.antenna2, len(layout.names), layout.frequencies, layout.polarizations
        )
        job = _Job(record.path, layout, axes, options, np.empty(shape, np.uint8), pool)
        tell = _counting(progress, len(axes.runs) + layout.mjd.size)
        examined = _examine(job, tell)
        dead = _dead(job, examined)
        known = axes.known(dead)
        found = _interference(job, examined, known, work_dir, measures)
        job.in_parts(lambda part: flagging.settle(job.causes[:, part], known[part], _part(found, part)))
        tally = np.concatenate(job.in_parts(lambda part: masking.extend(job.causes[:, part], options)))
        summary = _summary(record, job, tally, dead)
        with ms.opened(record.path, writable=True) as main:
            _write(main, job, ("FLAG", ms.FLAG_VERSIONS[1]), tell)
    return summary


def _counting(progress: Progress | None, total: int) -> Callable[[], None]:
    done = 0

    def one() -> None:
        nonlocal done
        done += 1
        if progress:
            progress(done, total)

    return one


def _part(found: NDArray[np.bool_], part: slice) -> NDArray[np.bool_]:
    return found[:, part] if found.shape[1] > 1 else found


# ---- one pass over the visibilities -------------------------------------------------------------------------------


def _examine(job: _Job, tell: Callable[[], None]) -> list[masking.Examined]:
    """Read one subband after the other, and look at those that have been read in threads."""
    n_pols, rows = job.layout.cell[1], job.layout.n_rows
    buffers: list[NDArray[np.complex64]] = []
    pending: list[Future[masking.Examined]] = []
    with ms.opened(job.path) as main:
        read = tiles.reading(main, job.path, "DATA")
        for number, (first, stop) in enumerate(job.axes.runs):
            shape = (rows, stop - first, n_pols)
            turn = number % (job.options.threads + 1)
            if number > job.options.threads:
                pending[number - job.options.threads - 1].result()
            if turn == len(buffers):
                buffers.append(np.empty(shape, np.complex64))
            elif buffers[turn].shape != shape:
                buffers[turn] = np.empty(shape, np.complex64)
            # into memory that is there already: making new pages costs three times as much as reading
            read(buffers[turn], 0, first)
            flags = main.getcolslice(ms.FLAG_VERSIONS[0], [first, 0], [stop - 1, n_pols - 1])
            pending.append(job.pool.submit(_examine_run, job, first, buffers[turn], flags))
            tell()
    return [future.result() for future in pending]


def _examine_run(job: _Job, first: int, data: NDArray[np.complex64], flags: NDArray[np.bool_]) -> masking.Examined:
    """One subband: (row, channel, polarization)."""
    n_times, n_baselines = job.layout.mjd.size, job.layout.antenna1.size
    n_channels, n_pols = data.shape[1:]
    cube = (n_times, n_baselines, n_channels, n_pols)
    causes = job.causes.reshape(n_times, n_baselines, -1)[:, :, first * n_pols : (first + n_channels) * n_pols]
    return masking.examine_run(job.axes, job.options, data.reshape(cube), flags.reshape(cube), causes)


def _dead(job: _Job, examined: list[masking.Examined]) -> NDArray[np.bool_]:
    """Dead antennas, by the median over the band of their autocorrelations; all alive where none were recorded."""
    if not job.axes.auto.any():
        return np.zeros(len(job.layout.names), bool)
    if not any(np.isfinite(run.level).any() for run in examined):
        raise CorruptFileError("Every visibility is flagged already", path=job.path, expected="some data")
    return masking.dead_antennas(examined, job.options.dead_antenna_ratio)


# ---- interference -------------------------------------------------------------------------------------------------


def _interference(
    job: _Job, examined: list[masking.Examined], known: NDArray[np.uint8], work_dir: Path | None, measures: Path | None
) -> NDArray[np.bool_]:
    """(time, baseline, channel, polarization) of what the detector of choice finds; one baseline stands for all."""
    if job.options.rfi == "builtin":
        return masking.common_interference(job.axes, job.options, examined)
    if job.options.rfi == "aoflagger":
        return _by_aoflagger(job, known)
    if job.options.rfi == "casa":
        return _by_casa(job, known, work_dir, measures)
    return np.zeros((job.causes.shape[0], 1, *job.causes.shape[2:]), bool)


def _by_aoflagger(job: _Job, known: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """The whole band of some baselines at a time."""
    detector = rfi.AOFlagger(job.options.aoflagger_threshold)
    n_times, n_baselines = job.causes.shape[:2]
    found = np.zeros(job.causes.shape, bool)
    step = -(-n_baselines // 8)
    with ms.opened(job.path) as main:
        for first in range(0, n_baselines, step):
            here = slice(first, min(first + step, n_baselines))
            use = np.flatnonzero(known[here] == 0)
            rows = [main.getcol("DATA", t * n_baselines + first, here.stop - first)[use] for t in range(n_times)]
            flags = job.causes[:, here][:, use] != 0
            found[:, first + use] = detector.detect(np.stack(rows), flags)
    return found


def _by_casa(job: _Job, known: NDArray[np.uint8], work_dir: Path | None, measures: Path | None) -> NDArray[np.bool_]:
    """What tfcrop and rflag add to FLAG, which holds what is known before them as long as they work."""
    no_more = np.zeros((job.causes.shape[0], 1, *job.causes.shape[2:]), bool)
    job.in_parts(lambda part: flagging.settle(job.causes[:, part], known[part], no_more))
    before = _read_flags(job)
    with ms.opened(job.path, writable=True) as main:
        _write(main, job, ("FLAG",))
    with ExitStack() as stack:
        stack.callback(_put_back, job, before)
        place = work_dir or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="flag-")))
        rfi.casa_flag(job.path, workdir=place, measures_cache=measures, threads=job.options.threads)
        return np.asarray(_read_flags(job) & (job.causes == 0))


def _read_flags(job: _Job) -> NDArray[np.bool_]:
    flags = np.empty(job.causes.shape, bool)
    with ms.opened(job.path) as main:
        for t, rows in enumerate(_rows(job)):
            flags[t] = main.getcol("FLAG", rows.start, rows.stop - rows.start)
    return flags


def _put_back(job: _Job, flags: NDArray[np.bool_]) -> None:
    with ms.opened(job.path, writable=True) as main:
        for t, rows in enumerate(_rows(job)):
            main.putcol("FLAG", flags[t], rows.start, rows.stop - rows.start)


# ---- the result ---------------------------------------------------------------------------------------------------


def _rows(job: _Job) -> Iterator[slice]:
    """Rows of each integration."""
    n_times, n_baselines = job.causes.shape[:2]
    return (slice(t * n_baselines, (t + 1) * n_baselines) for t in range(n_times))


def _write(main: Any, job: _Job, columns: tuple[str, ...], tell: Callable[[], None] | None = None) -> None:
    flags = np.empty(job.causes.shape[1:], bool)
    for t, rows in enumerate(_rows(job)):
        np.not_equal(job.causes[t], 0, out=flags)
        for column in columns:
            main.putcol(column, flags, rows.start, len(flags))
        if tell:
            tell()


def _summary(record: MeasurementSet, job: _Job, tally: NDArray[np.int64], dead: NDArray[np.bool_]) -> FlagSummary:
    """Shares of the cross-correlations by cause; ``tally`` is (baseline, cause)."""
    shares = tuple(masking.shares(tally, job.axes.auto).items())
    fraction = sum(share for _, share in shares)
    if fraction > job.options.max_flagged_fraction:
        causes = ", ".join(f"{cause} {part:.0%}" for cause, part in shares if part > 0.005)
        raise CorruptFileError(
            "Nearly everything is flagged",
            path=record.path,
            found=f"{fraction:.1%} ({causes})",
            expected=f"at most {job.options.max_flagged_fraction:.0%}",
        )
    names = tuple(name for name, gone in zip(job.layout.names, dead, strict=True) if gone)
    return FlagSummary(record, shares, fraction, names)
