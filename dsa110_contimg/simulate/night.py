"""A night, simulated: groups of 16 subband files that follow each other without a gap, and their truth.

What is in the data: the Airy beam of every integration and channel over apparent places; averaging over integrations
and channels; gains; noise; faults. What is not: the sky's share of the noise, sources that are extended or polarised,
the ionosphere, coupling between antennas, and the loss within a 0.13 s correlator sample (2 % on the longest
east-west baselines, the same for all sources).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, timedelta
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pandas as pd
from astropy.time import Time
from numpy.typing import NDArray

from dsa110_contimg import telescope
from dsa110_contimg.exceptions import OutputError
from dsa110_contimg.records import group_id
from dsa110_contimg.science import coordinates
from dsa110_contimg.simulate import array, faults, gains, sky, truth, uvh5, visibilities
from dsa110_contimg.simulate.faults import GroupFaults, Interference
from dsa110_contimg.simulate.plan import NightOptions

Progress = Callable[[int, int, str], None]
"""Called with files done, files in all, and the name of the one just written."""

_NOISE_STREAM, _NAME_STREAM, _RFI_PHASE_STREAM = 5, 6, 7
DEAD_FRACTION = 1e-3
"""Share of its noise that a dead antenna still delivers."""
_NAME_DELAY_ODDS = (0.45, 0.45, 0.10)
"""Odds that a subband's file is opened 0, 1 or 2 s late (group_name_jitter: median spread 1 s, 90 % within 2 s)."""


@dataclass(frozen=True)
class SimulatedNight:
    """What was made.

    Attributes
    ----------
    n_files : files of the night.
    resumed : the night was there already, complete, and nothing was done.
    """

    directory: Path
    truth_path: Path
    group_ids: tuple[str, ...]
    n_files: int
    resumed: bool


@dataclass(frozen=True)
class _Night:
    """What all groups of a night share."""

    options: NightOptions
    out_dir: Path
    array: array.Array
    dec_rad: float
    baselines: NDArray[np.float64]
    bandpass: NDArray[np.complex64]


@dataclass(frozen=True)
class _Group:
    """One group, ready to be written."""

    number: int
    mjd: NDArray[np.float64]
    sources: pd.DataFrame
    track: sky.BeamTrack
    drift: NDArray[np.complex64]
    faults: GroupFaults
    interference: list[Interference]


def simulate_night(
    options: NightOptions,
    out_dir: Path,
    progress: Progress | None = None,
    catalog: pd.DataFrame | None = None,
) -> SimulatedNight:
    """Write the files of a night, and their truth, into a directory.

    A night that is there already, made with the same options, is left as it is.

    Parameters
    ----------
    options : NightOptions
    out_dir : Path
    progress : callable, optional
    catalog : DataFrame, optional
        A sky of one's own with the columns of `io.catalogs`; the packaged catalogue without it.

    Raises
    ------
    OutputError
        The directory cannot be written, or holds another night.
    CatalogError
        A group without a source in the beam.
    """
    out_dir = Path(out_dir)
    if (out_dir / truth.TRUTH_NAME).exists():
        return _already_there(options, out_dir)
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError("The output directory cannot be made", path=out_dir, found=error) from error
    numba.set_num_threads(min(options.threads, numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]
    antennas = array.build_array(options.n_antennas)
    night = _Night(
        options=options,
        out_dir=out_dir,
        array=antennas,
        dec_rad=float(np.radians(options.dec_deg)),
        baselines=antennas.baselines_m,
        bandpass=gains.bandpass(options.seed) if options.gains else gains.flat_bandpass(),
    )
    plan = [_plan_group(night, number, catalog) for number in range(options.n_groups)]
    written = _write_groups(night, plan, progress)
    path = truth.save_truth(_truth(night, plan, written), out_dir)
    ids = tuple(group_id(group.mjd[0]) for group in plan)
    return SimulatedNight(out_dir, path, ids, sum(len(names) for names in written), resumed=False)


def _already_there(options: NightOptions, out_dir: Path) -> SimulatedNight:
    held = truth.load_truth(out_dir)
    names = [name for group in held.groups for name in group.files]
    lost = [name for name in names if not (out_dir / name).is_file()]
    if _described(options) != held.options or lost:
        raise OutputError(
            "The directory holds another simulated night, or one that has lost files",
            path=out_dir,
            found=f"{len(lost)} of {len(names)} files missing" if lost else "the truth of other options",
            expected="an empty directory, or the same night",
        )
    ids = tuple(group.group_id for group in held.groups)
    return SimulatedNight(out_dir, out_dir / truth.TRUTH_NAME, ids, len(names), resumed=True)


def _described(options: NightOptions) -> dict[str, Any]:
    """The options that change the result, as JSON holds them."""
    return dict(json.loads(options.model_dump_json(exclude={"threads"})))


def _plan_group(night: _Night, number: int, catalog: pd.DataFrame | None) -> _Group:
    options = night.options
    start = float(Time(options.start).mjd)
    integration = np.arange(telescope.N_INTEGRATIONS) + 0.5 + number * telescope.N_INTEGRATIONS
    # through the Julian date, which is what the file will hold: to 40 microseconds, 0.6 mas of rotation
    mjd = (start + 2400000.5 + integration * telescope.INTEGRATION_S / 86400) - 2400000.5
    chosen = sky.choose_sources(
        mjd, night.dec_rad, options.radius_deg, options.min_flux_jy, catalog, options.min_apparent_jy
    )
    sources = sky.with_true_indices(chosen, options.seed)
    if options.gains:
        drift = gains.drift(options.seed, mjd, options.gain_amplitude_rms, options.gain_phase_rms_deg)
    else:
        drift = gains.no_drift(len(mjd))
    fault = options.faults.get(number, GroupFaults())
    return _Group(
        number=number,
        mjd=mjd,
        sources=sources,
        track=sky.track(sources, mjd, night.dec_rad),
        drift=drift,
        faults=fault,
        interference=faults.draw_interference(options.seed, number) if fault.rfi else [],
    )


def _subbands(options: NightOptions, group: _Group) -> list[int]:
    return [sb for sb in options.subbands if sb not in group.faults.missing_subbands]


def _write_groups(night: _Night, plan: list[_Group], progress: Progress | None) -> list[tuple[str, ...]]:
    """Write every file; names of the files by group."""
    total = sum(len(_subbands(night.options, group)) for group in plan)
    done, written = 0, []
    for group in plan:
        names = []
        for subband in _subbands(night.options, group):
            path = _write_subband(night, group, subband)
            names.append(path.name)
            done += 1
            if progress is not None:
                progress(done, total, path.name)
        written.append(tuple(names))
    return written


def _write_subband(night: _Night, group: _Group, subband: int) -> Path:
    header = uvh5.SubbandHeader(
        array=night.array,
        subband=subband,
        mjd=group.mjd,
        dec_rad=night.dec_rad,
        uvw_m=uvh5.meridian_uvw(night.baselines, night.dec_rad),
        opened=_wall_clock(night.options, group, subband),
    )
    path = uvh5.write_subband(night.out_dir, header, raw_visibilities(night, group, subband))
    if subband in group.faults.truncated_subbands:
        uvh5.truncate(path)
    return path


def _wall_clock(options: NightOptions, group: _Group, subband: int) -> str:
    """When the correlator node of a subband opened its file: each has a clock and a load of its own."""
    rng = np.random.default_rng([options.seed, _NAME_STREAM, group.number, subband])
    start = Time(group.mjd[0], format="mjd", scale="utc").to_datetime(timezone=UTC)
    late = int(rng.choice(len(_NAME_DELAY_ODDS), p=_NAME_DELAY_ODDS))
    # a Julian date is good to 40 microseconds: half a millisecond keeps a whole second from being cut to the one before
    opened = start + timedelta(seconds=late - telescope.INTEGRATION_S / 2 + 5e-4)
    return str(opened.strftime("%Y-%m-%dT%H:%M:%S"))


def raw_visibilities(night: _Night, group: _Group, subband: int) -> NDArray[np.complex64]:
    """(time, baseline, 48, polarization) raw visibilities of one subband, channels descending."""
    options, antennas = night.options, night.array
    frequencies = telescope.subband_frequencies(subband)
    shape = (len(group.mjd), antennas.n_baselines, len(frequencies), options.n_polarizations)
    model = np.empty(shape[:3], np.complex64)
    visibilities.predict(
        night.baselines,
        group.track.offset,
        group.track.rate,
        sky.apparent_flux(group.sources, group.track.separation, frequencies),
        float(frequencies[0]),
        -telescope.CHANNEL_WIDTH_HZ,
        telescope.INTEGRATION_S,
        model,
    )
    first, second = antennas.first, antennas.second
    phase_key = [options.seed, _RFI_PHASE_STREAM, group.number]
    faults.add_interference(model, group.interference, subband, first, second, phase_key)
    if options.noise:
        key = [options.seed, _NOISE_STREAM, group.number, subband]
        vis = visibilities.unit_noise(shape, key, options.threads)
    else:
        vis = np.zeros(shape, np.complex64)
    alive = np.where(np.isin(antennas.order, group.faults.dead_antennas), DEAD_FRACTION, 1.0).astype(np.float32)
    visibilities.corrupt(model, first, second, _antenna_gains(night, group, subband), alive, _levels(), vis)
    return vis


def _antenna_gains(night: _Night, group: _Group, subband: int) -> NDArray[np.complex64]:
    """(time, antenna, feed, 48) gains in the order of the array, channels descending."""
    begin = subband * telescope.N_CHANNELS_PER_SUBBAND
    index = night.array.order - 1
    shape = night.bandpass[index, :, begin : begin + telescope.N_CHANNELS_PER_SUBBAND]
    return np.asarray(group.drift[:, index, :, None] * shape[None], np.complex64)


def _levels() -> NDArray[np.float32]:
    """Noise of a cross-correlation (Jy), system power (Jy), relative noise of an autocorrelation.

    The system power SEFD / eta is what makes the three obey one radiometer equation.
    """
    cross = telescope.visibility_noise(telescope.CHANNEL_WIDTH_HZ, telescope.INTEGRATION_S)
    samples = telescope.CHANNEL_WIDTH_HZ * telescope.INTEGRATION_S
    return np.array([cross, telescope.SEFD_JY / telescope.EFFICIENCY, 1 / np.sqrt(samples)], np.float32)


def _truth(night: _Night, plan: list[_Group], written: list[tuple[str, ...]]) -> truth.Truth:
    station = np.sort(night.array.order)
    groups = tuple(_group_truth(night, group, names) for group, names in zip(plan, written, strict=True))
    masks = np.stack([faults.interference_mask(group.interference) for group in plan])
    sources = pd.concat([group.sources for group in plan]).drop_duplicates("name")
    return truth.Truth(
        options=_described(night.options),
        sources=sources.sort_values("flux_jy", ascending=False, ignore_index=True),
        groups=groups,
        pointing_dec_rad=night.dec_rad,
        station=station,
        bandpass=night.bandpass[station - 1][..., ::-1],
        drift=np.stack([group.drift[:, station - 1] for group in plan]),
        rfi=masks[..., ::-1],
        visibility_noise_jy=float(_levels()[0]) if night.options.noise else 0.0,
    )


def _group_truth(night: _Night, group: _Group, names: tuple[str, ...]) -> truth.GroupTruth:
    ra, dec = coordinates.meridian_icrs(group.mjd, night.dec_rad)
    return truth.GroupTruth(
        group_id=group_id(group.mjd[0]),
        mjd=group.mjd,
        pointing_ra_deg=np.degrees(ra),
        pointing_dec_deg=np.degrees(dec),
        files=names,
        sources=tuple(group.sources["name"]),
        dead_antennas=group.faults.dead_antennas,
        missing_subbands=group.faults.missing_subbands,
        truncated_subbands=group.faults.truncated_subbands,
        rfi_fraction=float(faults.interference_mask(group.interference).mean()),
    )
