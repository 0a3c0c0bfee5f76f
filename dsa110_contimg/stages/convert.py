"""convert: the subband files of a group become one Measurement Set with one FIELD, the meridian at mid-group."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dsa110_contimg import telescope
from dsa110_contimg.io import files, groups, ms, ms_create, uvh5
from dsa110_contimg.options import ConvertOptions
from dsa110_contimg.records import MeasurementSet, SubbandGroup
from dsa110_contimg.science import coordinates, phasing

Progress = Callable[[int, int], None]


def convert(
    group: SubbandGroup, options: ConvertOptions, out_dir: Path, progress: Progress | None = None
) -> MeasurementSet:
    """Write the Measurement Set of a group; the visibilities go subband by subband, never all in memory.

    Each visibility is turned from the meridian of its own integration to the ICRS direction of the meridian at
    mid-group. The 24 pointings go to the POINTING table. Missing subbands stay as flagged data.

    Raises
    ------
    IncompleteGroupError
        Fewer subbands than ``options.min_subbands``.
    CorruptFileError, ForeignTelescopeError
        A file cannot be used.
    OutputError
        The Measurement Set cannot be written; nothing is left behind.
    """
    groups.require_complete(group, options.min_subbands)
    headers = [uvh5.read_header(f.path) for f in group.files]
    for other in headers[1:]:
        uvh5.require_same(headers[0], other)
    layout, plan = _plan(group, headers[0])
    path = out_dir / f"{group.group_id}.ms"
    with files.beside(path) as partial:
        ms_create.create(partial, layout)
        with ms.opened(partial, writable=True) as main:
            for subband in group.missing:
                ms.write_channels(main, _first_channel(subband), *_nothing(layout))
            for count, (file, header) in enumerate(zip(group.files, headers, strict=True)):
                ms.write_channels(main, _first_channel(file.subband), *_rotated(header, plan))
                if progress:
                    progress(count + 1, len(headers))
    half = layout.integration_s / 2 / 86400
    return MeasurementSet(
        path=path,
        group_id=group.group_id,
        ra_deg=float(np.degrees(layout.ra)),
        dec_deg=float(np.degrees(layout.dec)),
        mjd_start=float(layout.mjd[0] - half),
        mjd_end=float(layout.mjd[-1] + half),
        n_antennas=len(layout.names),
        missing_subbands=group.missing,
    )


def _first_channel(subband: int) -> int:
    """Where a subband begins among the ascending channels."""
    return (telescope.N_SUBBANDS - 1 - subband) * telescope.N_CHANNELS_PER_SUBBAND


def _nothing(layout: ms.Layout) -> tuple[NDArray[np.complex64], NDArray[np.bool_], NDArray[np.float32]]:
    """A subband that was not recorded: zeros, flagged, without weight."""
    shape = (layout.n_rows, telescope.N_CHANNELS_PER_SUBBAND, len(layout.polarizations))
    return np.zeros(shape, np.complex64), np.ones(shape, bool), np.zeros(shape, np.float32)


class _Plan:
    """What is the same for every subband: the phase rotation and the sense of each row."""

    def __init__(self, delta_w: NDArray[np.float64], swap: NDArray[np.bool_], swap_pols: list[int]) -> None:
        self.delta_w = delta_w  # (time * baseline,) w_old - w_new (m) in the file's sense
        self.swap = swap  # (baseline,) rows of the file with ant1 > ant2
        self.swap_pols = swap_pols  # order of polarisations in a swapped row


def _plan(group: SubbandGroup, header: uvh5.Header) -> tuple[ms.Layout, _Plan]:
    pointing_ra, pointing_dec = coordinates.meridian_icrs(header.mjd, header.pointing_dec)
    ra, dec = (float(a[0]) for a in coordinates.meridian_icrs(header.mjd.mean(), header.pointing_dec))
    uvw = coordinates.uvw_frame(ra, dec, header.mjd).uvw(header.baselines)
    delta_w = uvh5.meridian_uvw(header)[None, :, 2] - uvw[:, :, 2]
    used = np.unique(np.concatenate([header.antenna1, header.antenna2]))
    row = {int(slot): index for index, slot in enumerate(used)}
    swap = header.antenna1 > header.antenna2
    # UVW is position(ANTENNA1) - position(ANTENNA2), with ANTENNA1 <= ANTENNA2
    uvw = np.where(swap[None, :, None], uvw, -uvw)
    order = _ms_order(header)
    layout = ms.Layout(
        mjd=header.mjd,
        antenna1=np.array([row[int(a)] for a in np.minimum(header.antenna1, header.antenna2)]),
        antenna2=np.array([row[int(a)] for a in np.maximum(header.antenna1, header.antenna2)]),
        uvw=uvw,
        positions=header.positions[used],
        names=tuple(header.names[slot] for slot in used),
        diameters=header.diameters[used],
        frequencies=np.sort(np.concatenate([telescope.subband_frequencies(sb) for sb in range(telescope.N_SUBBANDS)])),
        channel_width=header.channel_width,
        integration_s=header.integration_s,
        polarizations=tuple(order),
        ra=ra,
        dec=dec,
        pointing_ra=pointing_ra,
        pointing_dec=pointing_dec,
        group_id=group.group_id,
        history=f"from {len(group.files)} UVH5 files of {group.group_id}; missing subbands {list(group.missing)}",
    )
    swapped = [header.polarizations.index(p[::-1]) for p in order]
    return layout, _Plan(delta_w.ravel(), swap, swapped)


def _rotated(header: uvh5.Header, plan: _Plan) -> tuple[NDArray[np.complex64], NDArray[np.bool_], NDArray[np.float32]]:
    """Visibilities, flags and weights (row, channel ascending, polarization) of one file, in the MS's sense."""
    straight = [header.polarizations.index(p) for p in _ms_order(header)]
    raw, flags, weights = uvh5.read_visibilities(header)
    swap = np.tile(plan.swap, header.mjd.size)
    data = np.empty_like(raw)
    # a row in the file's own order is conjugated; a swapped one is conjugated twice
    phasing.rotate(raw, plan.delta_w, header.frequencies, ~swap, data)
    if header.frequencies[0] > header.frequencies[-1]:
        flags, weights = flags[:, ::-1], weights[:, ::-1]
    if straight != plan.swap_pols or straight != list(range(len(straight))):
        data, flags, weights = (
            np.where(swap[:, None, None], a[..., plan.swap_pols], a[..., straight]) for a in (data, flags, weights)
        )
    bad = ~np.isfinite(data)
    data[bad] = 0
    return data, np.ascontiguousarray(flags | bad), np.ascontiguousarray(weights, dtype=np.float32)


def _ms_order(header: uvh5.Header) -> list[str]:
    return [p for p in ("XX", "XY", "YX", "YY") if p in header.polarizations]
