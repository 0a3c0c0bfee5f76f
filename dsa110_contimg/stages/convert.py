"""convert: the subband files of a group become one Measurement Set.

By default it has one FIELD, the meridian at mid-group, and one spectral window. The direct writer, the default, streams
the group one integration after another: read, turned and put in place for all subbands at once, while the
integration before is being written. Two other writers, pyuvdata's and CASA's, are there to compare with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dsa110_contimg import telescope
from dsa110_contimg.io import files, groups, ms, ms_create, uvdata, uvh5
from dsa110_contimg.io.uvh5_storage import SubbandReader, as_complex, as_flags
from dsa110_contimg.options import ConvertOptions
from dsa110_contimg.records import MeasurementSet, SubbandGroup
from dsa110_contimg.science import assembly, coordinates

Progress = Callable[[int, int], None]


def convert(
    group: SubbandGroup,
    options: ConvertOptions,
    out_dir: Path,
    progress: Progress | None = None,
    scratch_dir: Path | None = None,
    check: Callable[[Path], None] | None = None,
) -> MeasurementSet:
    """Write the Measurement Set of a group.

    Each visibility is turned from the meridian of its own integration to the phase centre. The 24 pointings go to the
    POINTING table. Missing subbands stay as flagged data.

    Parameters
    ----------
    group : SubbandGroup
    options : ConvertOptions
    out_dir : Path
        Gets ``<group id>.ms``, whole or not at all.
    progress : callable, optional
        Called with the number of integrations done, of how many.
    scratch_dir : Path, optional
        For staging and for the UVFITS file of the casa writer; ``out_dir`` if not given.
    check : callable, optional
        Called with the Measurement Set under its temporary name. If it raises, an earlier one of the name stays.

    Raises
    ------
    IncompleteGroupError
        Fewer subbands than ``options.min_subbands``.
    CorruptFileError, ForeignTelescopeError
        A file cannot be used.
    ExternalToolError
        pyuvdata or CASA is asked for and absent, or failed.
    OutputError
        The Measurement Set cannot be written; nothing is left behind.
    """
    groups.require_complete(group, options.min_subbands)
    headers = [uvh5.read_header(f.path) for f in group.files]
    for other in headers[1:]:
        uvh5.require_same(headers[0], other)
    uvh5.require_contiguous(headers)
    layout, plan = _plan(group, headers[0], options)
    path = out_dir / f"{group.group_id}.ms"
    scratch = scratch_dir or out_dir
    need = _size(options, layout)
    stage = _staging(options, need, scratch)
    for place in {out_dir, out_dir if stage is None else stage}:
        files.require_room(place, need)
    with files.beside(path, stage) as partial:
        if _writer(options) == "direct":
            _write_direct(partial, (group, headers), layout, plan, options, progress)
        else:
            inputs = uvdata.Inputs(group, layout, telescope.subband_frequencies)
            uvdata.WRITERS[_writer(options)](partial, inputs, files.make_directory(scratch))
            ms_create.complete(partial, layout, _data_columns(options))
        if check is not None:
            with ThreadPoolExecutor(1) as pool:  # what is looked at goes to the disk meanwhile
                synced = pool.submit(files.sync, partial)
                check(partial)
                synced.result()
    half = layout.integration_s / 2 / 86400
    return MeasurementSet(
        path=path,
        group_id=group.group_id,
        ra_deg=float(np.degrees(plan.ra)),
        dec_deg=float(np.degrees(plan.dec)),
        mjd_start=float(layout.mjd[0] - half),
        mjd_end=float(layout.mjd[-1] + half),
        n_antennas=len(layout.names),
        missing_subbands=group.missing,
    )


def _writer(options: ConvertOptions) -> str:
    return "direct" if options.writer == "auto" else options.writer


def _data_columns(options: ConvertOptions) -> tuple[str, ...]:
    return ("DATA", "MODEL_DATA", "CORRECTED_DATA") if options.columns == "imaging" else ("DATA",)


def _size(options: ConvertOptions, layout: ms.Layout) -> int:
    """Bytes on disk: the cubes, flags in bits, and a little for each row."""
    values = layout.n_rows * layout.cell[0] * layout.cell[1]
    return values * (8 * len(_data_columns(options)) + 4 * layout.weight_spectrum + 1) + 300 * layout.n_rows


def _staging(options: ConvertOptions, need: int, scratch: Path) -> Path | None:
    """Where to write first: shared memory if it fits there twice, else scratch; None is beside the final place."""
    if options.staging == "beside":
        return None
    return files.shared_memory(2 * need) or files.make_directory(scratch)


@dataclass(frozen=True)
class _Plan:
    """What is the same for every subband.

    Attributes
    ----------
    turning : over all rows (time * baseline) of a file.
    ra, dec : meridian at mid-group (rad, ICRS).
    """

    turning: assembly.Turning
    ra: float
    dec: float


def _plan(group: SubbandGroup, header: uvh5.Header, options: ConvertOptions) -> tuple[ms.Layout, _Plan]:
    pointing_ra, pointing_dec = coordinates.meridian_icrs(header.mjd, header.pointing_dec)
    ra, dec = (float(a[0]) for a in coordinates.meridian_icrs(header.mjd.mean(), header.pointing_dec))
    if options.phase_center == "midpoint":
        centers = np.array([[ra, dec]])
        uvw = coordinates.uvw_frame(ra, dec, header.mjd).uvw(header.baselines)
    else:
        centers = np.stack([pointing_ra, pointing_dec], axis=-1)
        each = zip(pointing_ra, pointing_dec, header.mjd, strict=True)
        frames = [coordinates.uvw_frame(float(a), float(d), np.array([t])) for a, d, t in each]
        uvw = np.concatenate([frame.uvw(header.baselines) for frame in frames])
    delta_w = uvh5.meridian_uvw(header)[None, :, 2] - uvw[:, :, 2]
    used = np.unique(np.concatenate([header.antenna1, header.antenna2]))
    row = {int(slot): index for index, slot in enumerate(used)}
    swap = header.antenna1 > header.antenna2
    order = [p for p in ("XX", "XY", "YX", "YY") if p in header.polarizations]
    layout = ms.Layout(
        mjd=header.mjd,
        antenna1=np.array([row[int(a)] for a in np.minimum(header.antenna1, header.antenna2)]),
        antenna2=np.array([row[int(a)] for a in np.maximum(header.antenna1, header.antenna2)]),
        # UVW is position(ANTENNA1) - position(ANTENNA2), with ANTENNA1 <= ANTENNA2
        uvw=np.where(swap[None, :, None], uvw, -uvw),
        positions=header.positions[used],
        names=tuple(header.names[slot] for slot in used),
        diameters=header.diameters[used],
        frequencies=np.sort(np.concatenate([telescope.subband_frequencies(sb) for sb in range(telescope.N_SUBBANDS)])),
        channel_width=header.channel_width,
        integration_s=header.integration_s,
        polarizations=tuple(order),
        centers=centers,
        pointing_ra=pointing_ra,
        pointing_dec=pointing_dec,
        group_id=group.group_id,
        history=f"{_writer(options)} writer, from {len(group.files)} UVH5 files of {group.group_id}; "
        f"missing subbands {list(group.missing)}",
        n_windows=options.spectral_windows,
        weight_spectrum=options.weight_spectrum,
    )
    turning = assembly.Turning(
        delta_w=delta_w.ravel(),
        swap=np.tile(swap, header.mjd.size),
        straight=np.array([header.polarizations.index(p) for p in order]),
        swapped=np.array([header.polarizations.index(p[::-1]) for p in order]),
    )
    return layout, _Plan(turning, ra, dec)


# ---- the direct writer --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Block:
    """One integration: rows by spectral window and baseline, as they go into the Measurement Set.

    Attributes
    ----------
    rows : (window * baseline, channel, polarization)
    subbands : the same memory by position of a subband in ascending frequency, (baseline, 48 channels, polarization).
    totals : (subband, baseline, polarization, 2) sums and numbers of weights.
    """

    rows: assembly.Rows
    subbands: tuple[assembly.Rows, ...]
    totals: NDArray[np.float64]


def _block(layout: ms.Layout) -> _Block:
    """An empty integration: zeros, flagged, without weight, which is what a missing subband stays."""
    n_baselines, (n_channels, n_pols) = layout.antenna1.size, layout.cell
    shape = (layout.n_windows * n_baselines, n_channels, n_pols)
    rows = assembly.Rows(np.zeros(shape, np.complex64), np.ones(shape, bool), np.zeros(shape, np.float32))
    width = telescope.N_CHANNELS_PER_SUBBAND

    def part(position: int) -> assembly.Rows:
        window, first = divmod(position * width, n_channels)
        where = slice(window * n_baselines, (window + 1) * n_baselines), slice(first, first + width)
        return assembly.Rows(rows.data[where], rows.flags[where], rows.weights[where])

    positions = range(telescope.N_SUBBANDS)
    totals = np.zeros((telescope.N_SUBBANDS, n_baselines, n_pols, 2))
    return _Block(rows, tuple(part(i) for i in positions), totals)


def _write_direct(
    path: Path,
    source: tuple[SubbandGroup, list[uvh5.Header]],
    layout: ms.Layout,
    plan: _Plan,
    options: ConvertOptions,
    progress: Progress | None,
) -> None:
    """Read integration n + 1 of all subbands in threads while integration n is written."""
    group, headers = source
    ms_create.create(path, layout, _data_columns(options))
    with ExitStack() as stack:
        main = stack.enter_context(ms.opened(path, writable=True))
        readers = [stack.enter_context(SubbandReader(f.path)) for f in group.files]
        pool = stack.enter_context(ThreadPoolExecutor(options.workers))  # last: its threads end before files close
        positions = [telescope.N_SUBBANDS - 1 - f.subband for f in group.files]
        jobs = list(zip(readers, headers, positions, strict=True))
        blocks = (_block(layout), _block(layout))

        def begin(time: int) -> list[Future[None]]:
            return [pool.submit(_fill, job, plan, time, blocks[time % 2]) for job in jobs]

        for time in _ahead(begin, layout.mjd.size):
            block = blocks[time % 2]
            start = ms_create.add_time(main, layout, time)
            ms.write_rows(main, start, *block.rows, _row_weights(block, layout))
            if progress:
                progress(time + 1, layout.mjd.size)


def _ahead(begin: Callable[[int], list[Future[None]]], count: int) -> Iterator[int]:
    """Count, each number when the work begun for it is done, and that for the next one has begun."""
    pending = begin(0)
    for number in range(count):
        for future in pending:
            future.result()
        pending = begin(number + 1) if number + 1 < count else []
        yield number


def _fill(job: tuple[SubbandReader, uvh5.Header, int], plan: _Plan, time: int, block: _Block) -> None:
    """One integration of one subband, from its file to its place."""
    reader, header, position = job
    rows = slice(time * header.antenna1.size, (time + 1) * header.antenna1.size)
    raw = assembly.Rows(
        as_complex(reader.rows("visdata", rows.start, rows.stop)),
        as_flags(reader.rows("flags", rows.start, rows.stop)),
        reader.rows("nsamples", rows.start, rows.stop).astype(np.float32, copy=False),
    )
    turning = plan.turning
    here = assembly.Turning(turning.delta_w[rows], turning.swap[rows], turning.straight, turning.swapped)
    block.totals[position] = 0.0
    assembly.place(raw, header.frequencies, here, block.subbands[position], block.totals[position])


def _row_weights(block: _Block, layout: ms.Layout) -> NDArray[np.float32]:
    """(row, polarization) WEIGHT: the mean weight of the channels that are not flagged; 0 where all are."""
    by_window = block.totals.reshape(layout.n_windows, -1, *block.totals.shape[1:]).sum(axis=1)
    total, count = by_window[..., 0], by_window[..., 1]
    mean = np.divide(total, count, out=np.zeros_like(total), where=count > 0)
    return np.asarray(mean.reshape(-1, mean.shape[-1]), np.float32)
