"""Flagging of one observation, run of channels by run of channels, wherever its visibilities come from.

`stages.flag` reads a Measurement Set with it and `flag_visibilities` a Dataset: the same flags come out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from dsa110_contimg import schema, telescope
from dsa110_contimg.exceptions import InputError
from dsa110_contimg.options import FlagOptions
from dsa110_contimg.science import flagging, selection, spectrogram

Detector = Callable[[NDArray[np.complex64], NDArray[np.bool_]], NDArray[np.bool_]]
"""Visibilities and flags (time, baseline, channel, polarization) -> what is interference and not yet flagged."""

_BLOCK_BYTES = 500_000_000


@dataclass(frozen=True)
class Axes:
    """What flagging must know of an observation.

    Attributes
    ----------
    antenna1, antenna2 : (baseline,) indices of antennas.
    n_antennas : int
    frequencies : (channel,) Hz.
    polarizations : names such as XX and XY; a single letter is a polarisation of its own.
    """

    antenna1: NDArray[np.int64]
    antenna2: NDArray[np.int64]
    n_antennas: int
    frequencies: NDArray[np.float64]
    polarizations: tuple[str, ...]

    @property
    def auto(self) -> NDArray[np.bool_]:
        """(baseline,) autocorrelations."""
        return np.asarray(self.antenna1 == self.antenna2)

    @property
    def runs(self) -> list[tuple[int, int]]:
        """First and past-the-last channel of each subband."""
        n_channels, step = self.frequencies.size, telescope.N_CHANNELS_PER_SUBBAND
        return [(first, min(first + step, n_channels)) for first in range(0, n_channels, step)]

    @property
    def feeds(self) -> list[int]:
        """Polarisations of a feed with itself, whose autocorrelations are power."""
        return [i for i, name in enumerate(self.polarizations) if name[0] == name[-1]]

    @property
    def hands(self) -> list[tuple[int, int]] | None:
        """Both feeds of each polarisation, counted as in `feeds`; none, where the power of one was not recorded."""
        feeds = [self.polarizations[i][0] for i in self.feeds]
        if any(end not in feeds for name in self.polarizations for end in (name[0], name[-1])):
            return None
        return [(feeds.index(name[0]), feeds.index(name[-1])) for name in self.polarizations]

    def known(self, dead: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """(baseline,) the cause that the antennas give, or 0."""
        cause = np.where(dead[self.antenna1] | dead[self.antenna2], flagging.DEAD, 0)
        return np.where(self.auto, flagging.AUTOCORRELATION, cause).astype(np.uint8)


@dataclass(frozen=True)
class Examined:
    """What one run of channels told.

    Attributes
    ----------
    level : (antenna, feed) of the autocorrelations, relative to the median antenna; NaN where there are none.
    power : (antenna, channel, feed) of the autocorrelations of living antennas, else NaN.
    total, count, seen : (time, channel, polarization) of `flagging.examine`.
    """

    level: NDArray[np.float64]
    power: NDArray[np.float64]
    total: NDArray[np.float64]
    count: NDArray[np.int64]
    seen: NDArray[np.int64]


def examine_run(
    axes: Axes, options: FlagOptions, data: NDArray[np.complex64], flags: NDArray[np.bool_], causes: NDArray[np.uint8]
) -> Examined:
    """Look at one run of channels, of all times and baselines.

    Parameters
    ----------
    data, flags : (time, baseline, channel, polarization)
    causes : (time, baseline, channel * polarization)
        Filled here; a view of the whole, where the caller has one.
    """
    n_times, n_baselines, n_channels, n_pols = data.shape
    auto = np.flatnonzero(axes.auto)
    power = np.full((axes.n_antennas, n_channels, len(axes.feeds)), np.nan)
    measured = flagging.autocorrelation_power(data[:, auto], flags[:, auto])
    power[axes.antenna1[auto]] = measured[..., axes.feeds]
    level = flagging.autocorrelation_level(power)
    # an antenna may be dead in a part of the band; one that was not measured here may still be alive
    weak = np.asarray((level < options.dead_antenna_ratio).any(axis=-1))
    power[weak] = np.nan
    flat = (n_times, n_baselines, n_channels * n_pols)
    total, count, seen = flagging.examine(
        data.reshape(flat), flags.reshape(flat), axes.known(weak), n_pols, options.visibility_sigma, causes
    )
    shape = (n_times, n_channels, n_pols)
    return Examined(level, power, total.reshape(shape), count.reshape(shape), seen.reshape(shape))


def dead_antennas(examined: Sequence[Examined], ratio: float) -> NDArray[np.bool_]:
    """(antenna,) dead in the median of the band: `flagging.dead_by_band`."""
    return flagging.dead_by_band(np.stack([run.level for run in examined]), ratio)


def common_interference(axes: Axes, options: FlagOptions, examined: Sequence[Examined]) -> NDArray[np.bool_]:
    """(time, 1, channel, polarization) what is bad on the whole array: `spectrogram.common_interference`."""
    total, count, seen, power = (
        np.concatenate([getattr(run, name) for run in examined], axis=1) for name in ("total", "count", "seen", "power")
    )
    noise = None if axes.hands is None else spectrogram.noise_amplitude(power, axes.hands)
    found = spectrogram.common_interference(total, count, seen, options.spectrogram_sigma, noise, axes.frequencies)
    return found[:, None]


def extend(causes: NDArray[np.uint8], options: FlagOptions) -> NDArray[np.int64]:
    """Extend in place what was found, as the options say, and count the causes: `flagging.extend`."""
    return flagging.extend(
        causes, options.extend_polarizations, options.extend_fraction, options.grow_integrations, options.grow_channels
    )


def shares(tally: NDArray[np.int64], auto: NDArray[np.bool_]) -> dict[str, float]:
    """Share of the cross-correlations that each cause took; ``tally`` is that of `extend`."""
    cross = tally[~auto].sum(axis=0)
    parts = cross / max(int(cross.sum()), 1)
    return {cause: float(parts[number]) for number, cause in enumerate(flagging.CAUSES, start=1)}


# ---- a Dataset ----------------------------------------------------------------------------------------------------


def flag_visibilities(dataset: xr.Dataset, options: FlagOptions, detector: Detector | None = None) -> xr.Dataset:
    """Flag a raw Visibilities view: the same flags as `stages.flag` gives the Measurement Set of the same data.

    Measured on 16 antennas with carriers, bursts, drifting and intermittent lines at once (`docs/concepts.md`): from 5
    sigma a visibility on, 1.00 of each kind is found by ``builtin`` and 0.95 by AOFlagger.

    Parameters
    ----------
    dataset : Visibilities view
        Uncalibrated, all channels and times of an observation if it can be: what stands out does so from the rest.
        Visibilities are read in parts of half a gigabyte, and again, some baselines at a time, for a detector.
        Where all autocorrelations are flagged, as in a Measurement Set that has been flagged, neither dead antennas
        nor wide carriers are looked for.
    options : FlagOptions
        ``rfi`` is ``builtin``, or ``none`` or ``aoflagger`` where a detector is given. ``max_flagged_fraction`` and
        ``threads`` do not matter.
    detector : callable, optional
        What finds interference baseline by baseline, as `io.rfi.AOFlagger.detect`.

    Returns
    -------
    xarray.Dataset
        With another FLAG, in memory: what was flagged before, and what was found. Its attributes tell the share of the
        cross-correlations that each cause took; the attribute ``flagging`` of the Dataset, the options as JSON.
        Autocorrelations keep the flags they had.

    Raises
    ------
    InputError
        The detector that the options name is not the one given, or works on Measurement Sets only.
    SchemaError
        Not a Visibilities view.
    """
    if options.rfi == "casa" or (options.rfi == "aoflagger") != (detector is not None):
        raise InputError(
            "This detector cannot flag a Dataset", found=options.rfi, expected="builtin, none, or aoflagger with it"
        )
    vis = schema.check(dataset, schema.VISIBILITIES)[["VISIBILITY", "FLAG"]]
    axes = _axes(vis)
    causes = np.empty(vis["FLAG"].shape, np.uint8)
    flags = np.ascontiguousarray(vis["FLAG"].to_numpy(), np.bool_)
    examined = _examine_dataset(vis, flags, axes, options, causes)
    dead = np.zeros(axes.n_antennas, bool)
    if any(np.isfinite(run.level).any() for run in examined):
        dead = dead_antennas(examined, options.dead_antenna_ratio)
    known = axes.known(dead)
    found = np.zeros((causes.shape[0], 1, *causes.shape[2:]), bool)
    if options.rfi == "builtin":
        found = common_interference(axes, options, examined)
    elif detector is not None:
        found = _detected(vis, known, causes, detector)
    flagging.settle(causes, known, found)
    tally = extend(causes, options)
    grown = causes != 0
    grown[:, axes.auto] = flags[:, axes.auto]
    flag = vis["FLAG"].copy(data=grown).assign_attrs(shares(tally, axes.auto))
    return dataset.assign(FLAG=flag).assign_attrs(
        flagging=options.model_dump_json(exclude={"threads", "max_flagged_fraction"})
    )


def _axes(vis: xr.Dataset) -> Axes:
    ends = np.stack([vis[f"baseline_antenna{i}_name"].to_numpy().astype(str) for i in (1, 2)])
    names, index = np.unique(ends, return_inverse=True)
    one, two = index.reshape(2, -1)
    polarizations = tuple(str(name) for name in vis["polarization"].to_numpy())
    return Axes(one, two, names.size, vis["frequency"].to_numpy(), polarizations)


def _examine_dataset(
    vis: xr.Dataset, flags: NDArray[np.bool_], axes: Axes, options: FlagOptions, causes: NDArray[np.uint8]
) -> list[Examined]:
    """Every run of channels. Several are read at once: a Measurement Set is read whole for any part of its band."""
    per_run = axes.runs[0][1] * 8 * causes[:, :, 0].size
    step = max(1, _BLOCK_BYTES // max(per_run, 1))
    examined = []
    for k in range(0, len(axes.runs), step):
        runs = axes.runs[k : k + step]
        low = runs[0][0]
        block = selection.take(vis, "frequency", np.arange(low, runs[-1][1]))["VISIBILITY"].to_numpy()
        for first, stop in runs:
            data = np.ascontiguousarray(block[:, :, first - low : stop - low], np.complex64)
            here = np.empty((*data.shape[:2], data.shape[2] * data.shape[3]), np.uint8)
            known = np.ascontiguousarray(flags[:, :, first:stop])
            examined.append(examine_run(axes, options, data, known, here))
            causes[:, :, first:stop] = here.reshape(data.shape)
    return examined


def _detected(
    vis: xr.Dataset, known: NDArray[np.uint8], causes: NDArray[np.uint8], detector: Detector
) -> NDArray[np.bool_]:
    """What the detector finds on the whole band of living cross-correlations."""
    found = np.zeros(causes.shape, bool)
    use = np.flatnonzero(known == 0)
    step = max(1, _BLOCK_BYTES // (8 * causes[:, 0].size))
    for first in range(0, use.size, step):
        here = use[first : first + step]
        data = selection.take(vis, "baseline_id", here)["VISIBILITY"].to_numpy()
        found[:, here] = detector(np.ascontiguousarray(data, np.complex64), causes[:, here] != 0)
    return found
