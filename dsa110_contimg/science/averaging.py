"""Visibilities in the form that imaging wants: Stokes I, flat rows, channels averaged as far as each baseline allows.

A short baseline turns its phase slowly with frequency, so its channels can be averaged further than those of a long
one for the same loss. Spending one budget of loss where it saves most makes gridding seven times cheaper and stays
true over the whole field, which no single factor does. What is lost is known, row by row, and is put into the smearing
map (`smearing`), so nothing is lost in flux.

Nothing here asks the data to be rectangular: a row is one baseline at one time, rows may have different channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray
from scipy.constants import speed_of_light

from dsa110_contimg import telescope
from dsa110_contimg.exceptions import ImagingError
from dsa110_contimg.science.beam import AiryBeam, PrimaryBeam
from dsa110_contimg.science.threads import ahead

if TYPE_CHECKING:
    import xarray as xr

Cubes = tuple[NDArray[np.complex64], NDArray[np.bool_], NDArray[np.float32]]
PARALLEL_HANDS = (("XX", "YY"), ("RR", "LL"), ("I",))
MAX_FACTOR = 16
"""Most channels that become one: 3.9 MHz, over which the beam and a spectrum change by 0.3 %."""

_WORST_ROW = 10.0
"""Most that a row of little weight may lose, in units of the budget of the image."""
_CHUNK_BYTES = 256_000_000
_LANES = 8


@dataclass(frozen=True)
class Track:
    """When and where the telescope looked.

    Attributes
    ----------
    mjd : (time,) centre of each integration (MJD UTC).
    pointing_ra, pointing_dec : (time,) beam centre and fringe-tracking centre of each integration (rad, ICRS).
    integration_s : length of an integration (s).
    dish_diameter_m : for the primary beam (m).
    beam : a beam known better than by the diameter of its dish; None: the Airy pattern of that.
    """

    mjd: NDArray[np.float64]
    pointing_ra: NDArray[np.float64]
    pointing_dec: NDArray[np.float64]
    integration_s: float
    dish_diameter_m: float
    beam: PrimaryBeam | None = None

    @property
    def primary_beam(self) -> PrimaryBeam:
        return AiryBeam(self.dish_diameter_m) if self.beam is None else self.beam


@dataclass(frozen=True)
class Channels:
    """The channels that some of the rows share.

    Attributes
    ----------
    frequencies : (channel,) weighted mean frequency of each (averaged) channel, ascending (Hz).
    native_width_hz : width of a channel of the correlator (Hz).
    factor : number of native channels averaged into one.
    """

    frequencies: NDArray[np.float64]
    native_width_hz: float
    factor: int


@dataclass(frozen=True)
class ImagingData:
    """Stokes I visibilities in flat rows; row r owns the samples ``offsets[r]:offsets[r + 1]``.

    Sign: V = sum S exp(+2 pi i (u l + v m + w (n - 1)) f / c) with l east and m north, which is what WSClean makes of
    the UVW and DATA of a Measurement Set.

    Attributes
    ----------
    uvw : (row, 3) metres, towards the phase centre.
    time_index : (row,) index into ``track``.
    channels_index : (row,) index into ``channels``.
    offsets : (row + 1,)
    visibilities, weights : (sample,) Jy; natural weight, proportional to 1 / variance, 0 where flagged.
    phase_center_ra, phase_center_dec : rad, ICRS.
    unit_variance : variance of the real part of a visibility of weight 1 (Jy^2); NaN if not known.
    """

    uvw: NDArray[np.float64]
    time_index: NDArray[np.int64]
    channels_index: NDArray[np.int64]
    offsets: NDArray[np.int64]
    visibilities: NDArray[np.complex64]
    weights: NDArray[np.float32]
    channels: tuple[Channels, ...]
    track: Track
    phase_center_ra: float
    phase_center_dec: float
    unit_variance: float


def averaging_factors(
    uv_m: NDArray[np.float64],
    loss: float,
    radius_rad: float,
    width_hz: float,
    n_channels: int,
    importance: NDArray[np.float64] | None = None,
) -> NDArray[np.int64]:
    """How many channels each row may average, so that the image as a whole stays within one budget of loss.

    Averaging n channels of width d, beyond what the channels lose themselves, takes (n^2 - 1) (pi d tau)^2 / 6 of the
    amplitude of a source with delay tau = (u l + v m) / c (Thompson, Moran & Swenson 2017, section 6.4, to second
    order), and a source's peak in the image is the weighted mean of the rows. The visibilities that are left, N / n a
    row, are fewest for a given loss where each row's derivative by n of the one is in the same ratio to the other's:
    n goes as (weight uv^2)^(-1/3), so that long baselines are averaged too, and short ones less than they could be.

    Parameters
    ----------
    uv_m : (row, 2)
        u and v (m).
    loss : float
        Largest loss of the peak of a source at ``radius_rad``, in the direction where it is largest; 0 averages
        nothing. No row loses more than ten times as much.
    radius_rad : float
        Angle from the phase centre at which it is reckoned.
    width_hz, n_channels : float, int
        Native channels.
    importance : (row,), optional
        Imaging weight of a visibility of each row (`weighting.row_importance`), in any unit; equal by default.

    Returns
    -------
    (row,) integers: divisors of the number of channels, at most `MAX_FACTOR`.
    """
    divisors = np.array([n for n in range(1, MAX_FACTOR + 1) if n_channels % n == 0])
    weight = np.ones(len(uv_m)) if importance is None else np.asarray(importance, np.float64)
    if not loss > 0.0 or not weight.any():
        return np.ones(len(uv_m), np.int64)
    # row by row, in quadratic approximation: loss = (n^2 - 1) each, along the worst direction of the sky
    tensor = np.stack([uv_m[:, 0] ** 2, uv_m[:, 0] * uv_m[:, 1], uv_m[:, 1] ** 2])
    tensor *= (np.pi * radius_rad * width_hz / speed_of_light) ** 2 / 6.0
    each = tensor[0] + tensor[2]
    allowed = np.sqrt(1.0 + _WORST_ROW * loss / np.maximum(each, 1e-300))
    most = np.clip(np.searchsorted(divisors, allowed, side="right") - 1, 0, None)
    # the price of a loss at which one divisor is as good as the next
    prices = -np.diff(1.0 / divisors) / np.diff(divisors.astype(float) ** 2)
    charge = weight * each / weight.mean() / each.mean()

    def chosen(price: float) -> NDArray[np.int64]:
        step = np.searchsorted(-prices, -price * charge, side="right")
        return np.asarray(divisors[np.minimum(step, most)], np.int64)

    def lost(price: float) -> float:
        xx, xy, yy = tensor @ (weight * (chosen(price).astype(float) ** 2 - 1.0)) / weight.sum()
        return float((xx + yy) / 2.0 + np.hypot((xx - yy) / 2.0, xy))

    low, high = 1e-12, 1e12
    if lost(low) <= loss:
        return chosen(low)
    for _ in range(60):
        middle = np.sqrt(low * high)
        low, high = (low, middle) if lost(middle) <= loss else (middle, high)
    return chosen(high)


@njit(parallel=True, nogil=True, cache=True)
def _average(
    vis: NDArray[np.complex64],
    flag: NDArray[np.bool_],
    weight: NDArray[np.float32],
    factor: NDArray[np.int64],
    start: NDArray[np.int64],
    lane_bounds: NDArray[np.int64],
    out_vis: NDArray[np.complex64],
    out_weight: NDArray[np.float32],
    channel_weight: NDArray[np.float64],
) -> tuple[int, int]:
    """Stokes I of the parallel hands, averaged; returns how many samples were used, and how many were not finite.

    ``vis``, ``flag``, ``weight`` are (row, channel, hand), or ``weight`` is (row, 1, hand) for all channels; row r goes
    to ``out[start[r]:]``, or nowhere where its factor is 0; ``channel_weight`` (lane, factor, channel) gathers the
    weights of the native channels by factor.
    """
    n_channel, n_hand = vis.shape[1], vis.shape[2]
    has_spectrum = weight.shape[1] > 1
    used = np.zeros(len(lane_bounds) - 1, np.int64)
    bad = np.zeros(len(lane_bounds) - 1, np.int64)
    for lane in prange(len(lane_bounds) - 1):
        for row in range(lane_bounds[lane], lane_bounds[lane + 1]):
            n = factor[row]
            if n == 0:
                continue
            for out in range(n_channel // n):
                total, norm = 0j, 0.0
                for channel in range(out * n, out * n + n):
                    here = 0.0
                    for hand in range(n_hand):
                        w = weight[row, channel if has_spectrum else 0, hand]
                        if flag[row, channel, hand] or not w > 0.0:
                            continue
                        v = vis[row, channel, hand]
                        if not (np.isfinite(v.real) and np.isfinite(v.imag) and np.isfinite(w)):
                            bad[lane] += 1
                            continue
                        total += w * v
                        here += w
                        used[lane] += 1
                    norm += here
                    channel_weight[lane, n, channel] += here
                out_weight[start[row] + out] = norm
                out_vis[start[row] + out] = total / norm if norm > 0.0 else 0j
    return used.sum(), bad.sum()


def from_dataset(
    dataset: xr.Dataset,
    loss: float,
    radius_rad: float,
    importance: NDArray[np.float64] | None = None,
    stokes: str = "I",
    parts: Iterable[Cubes] | None = None,
) -> ImagingData:
    """Stokes I (or one hand) of a Visibilities view, averaged over channels within a budget of loss.

    Stokes I is the weighted mean of the parallel hands, of whichever is not flagged: for an unpolarised sky each hand
    alone measures I, so no half-flagged visibility is thrown away.

    Parameters
    ----------
    dataset : Visibilities view
        May be lazy: it is read a part at a time. Autocorrelations are left out. Where data are not rectangular, the
        baselines that a time lacks are flagged there (their UVW may be NaN).
    loss, radius_rad, importance
        Budget of `averaging_factors`; rows are (time, baseline).
    stokes : str
        ``I``, or the name of one hand (XX, YY): alone it measures I too, of an unpolarised sky.
    parts : iterable of (visibility, flag, weight), each (row, channel, hand), optional
        The data, some integrations after another, the hands of ``parallel_hands`` alone; the view then says only what
        they are. Weights may be (row, 1, hand). Each may be changed once the second after it is asked for.

    Raises
    ------
    ImagingError
        Everything is flagged, an unflagged visibility is not finite, or there are no parallel hands.
    """
    names = [str(name) for name in dataset["polarization"].to_numpy()]
    hands = [names.index(hand) for hand in parallel_hands(names, stokes)]
    frequencies = np.asarray(dataset["frequency"].to_numpy(), np.float64)
    width = float(dataset.attrs["channel_width"])
    uvw = np.asarray(dataset["UVW"].to_numpy(), np.float64)
    n_time, n_baseline = uvw.shape[:2]
    uvw = np.nan_to_num(uvw.reshape(-1, 3))
    factor = averaging_factors(uvw[:, :2], loss, radius_rad, width, len(frequencies), importance)
    offsets = np.concatenate([[0], np.cumsum(len(frequencies) // factor)])
    visibilities, weights, channel_weight, used = _read(dataset, hands, factor, offsets, parts)
    present = np.unique(factor)
    channels = tuple(Channels(_mean_frequencies(frequencies, channel_weight[n], n), width, int(n)) for n in present)
    track = _track(dataset)
    return ImagingData(
        uvw=uvw,
        time_index=np.repeat(np.arange(n_time), n_baseline),
        channels_index=np.searchsorted(present, factor),
        offsets=offsets,
        visibilities=visibilities,
        weights=weights,
        channels=channels,
        track=track,
        phase_center_ra=float(dataset.attrs["phase_center_ra"]),
        phase_center_dec=float(dataset.attrs["phase_center_dec"]),
        unit_variance=_noise_variance(dataset) * float(weights.sum(dtype=np.float64)) / used,
    )


def _read(
    dataset: xr.Dataset,
    hands: list[int],
    factor: NDArray[np.int64],
    offsets: NDArray[np.int64],
    given: Iterable[Cubes] | None,
) -> tuple[NDArray[np.complex64], NDArray[np.float32], NDArray[np.float64], int]:
    """Averaged visibilities and weights, weights (factor, channel) of the native channels, number of samples used."""
    names = dataset["baseline_antenna1_name"].to_numpy(), dataset["baseline_antenna2_name"].to_numpy()
    n_time = dataset.sizes["time"]
    used_factor = np.where(np.tile(names[0] != names[1], n_time), factor, 0)
    visibilities, weights = np.zeros(offsets[-1], np.complex64), np.zeros(offsets[-1], np.float32)
    channel_weight = np.zeros((_LANES, MAX_FACTOR + 1, dataset.sizes["frequency"]))
    used = bad = begin = 0
    # one part is read while the one before is averaged
    for part in ahead(_parts(dataset, hands, n_time) if given is None else given):
        rows = slice(begin, begin := begin + len(part[0]))
        bounds = np.linspace(0, len(part[0]), _LANES + 1).astype(np.int64)
        counts = _average(*part, used_factor[rows], offsets[rows], bounds, visibilities, weights, channel_weight)
        used, bad = used + int(counts[0]), bad + int(counts[1])
    if bad:
        raise ImagingError("Unflagged visibilities are not finite", found=f"{bad} of them", expected="none")
    if not used:
        raise ImagingError("Every visibility is flagged", found="no weight", expected="data to image")
    return visibilities, weights, channel_weight.sum(axis=0), used


def concatenate(parts: Sequence[ImagingData]) -> ImagingData:
    """Several sets of rows, such as spectral windows, as one; they must share a phase centre.

    Raises
    ------
    ImagingError
        There is nothing to image, or the phase centres differ.
    """
    if not parts:
        raise ImagingError("There are no visibilities", found="an empty list", expected="at least one Dataset")
    if len(parts) == 1:
        return parts[0]
    first = parts[0]
    centres = {(p.phase_center_ra, p.phase_center_dec) for p in parts}
    if len(centres) > 1:
        raise ImagingError("Visibilities of several phase centres", found=sorted(centres), expected="one: rephase them")
    times = np.cumsum([0] + [len(p.track.mjd) for p in parts])
    lists = np.cumsum([0] + [len(p.channels) for p in parts])
    samples = np.cumsum([0] + [int(p.offsets[-1]) for p in parts])
    return ImagingData(
        uvw=np.concatenate([p.uvw for p in parts]),
        time_index=np.concatenate([p.time_index + t for p, t in zip(parts, times[:-1], strict=True)]),
        channels_index=np.concatenate([p.channels_index + c for p, c in zip(parts, lists[:-1], strict=True)]),
        offsets=np.concatenate([[0]] + [p.offsets[1:] + o for p, o in zip(parts, samples[:-1], strict=True)]),
        visibilities=np.concatenate([p.visibilities for p in parts]),
        weights=np.concatenate([p.weights for p in parts]),
        channels=tuple(c for p in parts for c in p.channels),
        track=Track(
            mjd=np.concatenate([p.track.mjd for p in parts]),
            pointing_ra=np.concatenate([p.track.pointing_ra for p in parts]),
            pointing_dec=np.concatenate([p.track.pointing_dec for p in parts]),
            integration_s=first.track.integration_s,
            dish_diameter_m=first.track.dish_diameter_m,
            beam=first.track.beam,
        ),
        phase_center_ra=first.phase_center_ra,
        phase_center_dec=first.phase_center_dec,
        unit_variance=float(np.mean([p.unit_variance for p in parts])),
    )


def parallel_hands(names: Sequence[str], stokes: str = "I") -> tuple[str, ...]:
    """Which of the polarisations make Stokes I, or are the one hand that is asked for.

    Raises
    ------
    ImagingError
        They are not there.
    """
    if stokes != "I":
        if stokes not in names:
            raise ImagingError("The polarisation is not in the data", found=names, expected=stokes)
        return (stokes,)
    for hands in PARALLEL_HANDS:
        if set(hands) <= set(names):
            return hands
    raise ImagingError("No Stokes I without both parallel hands", found=names, expected="XX and YY, or RR and LL")


def _parts(dataset: xr.Dataset, hands: list[int], n_time: int) -> Iterator[Cubes]:
    """The rows, a bounded number of times at a time: (visibility, flag, weight), each (row, channel, hand)."""
    data = [dataset[name] for name in ("VISIBILITY", "FLAG", "WEIGHT")]
    step = max(1, int(_CHUNK_BYTES // max(1, data[0].nbytes // n_time)))
    for begin in range(0, n_time, step):
        end = min(begin + step, n_time)
        arrays = [np.ascontiguousarray(v.isel(time=slice(begin, end)).to_numpy()) for v in data]
        flat = [a.reshape(-1, *a.shape[2:]) for a in arrays]
        if hands != list(range(flat[0].shape[-1])):
            flat = [np.ascontiguousarray(a[..., hands]) for a in flat]
        visibility, flag, weight = flat
        yield visibility.astype(np.complex64, copy=False), flag, weight.astype(np.float32, copy=False)


def _mean_frequencies(
    frequencies: NDArray[np.float64], weight: NDArray[np.float64], factor: np.int64
) -> NDArray[np.float64]:
    """Weighted mean frequency of each averaged channel: where a channel is flagged on every baseline, as interference
    is, the plain mean would put the fringe at a frequency that was not observed. Plain where nothing was.
    """
    f, w = frequencies.reshape(-1, factor), weight.reshape(-1, factor)
    w = np.where(w.sum(axis=1, keepdims=True) > 0.0, w, 1.0)
    return np.asarray((f * w).sum(axis=1) / w.sum(axis=1))


def _track(dataset: xr.Dataset) -> Track:
    return Track(
        mjd=np.asarray(dataset["time"].to_numpy(), np.float64),
        pointing_ra=np.asarray(dataset["pointing_ra"].to_numpy(), np.float64),
        pointing_dec=np.asarray(dataset["pointing_dec"].to_numpy(), np.float64),
        integration_s=float(dataset.attrs["integration_time"]),
        dish_diameter_m=float(dataset.attrs.get("dish_diameter", telescope.DISH_DIAMETER_M)),
    )


def _noise_variance(dataset: xr.Dataset) -> float:
    """Mean variance of the real part of one visibility of one hand (Jy^2); NaN for a telescope we do not know."""
    if dataset.attrs["telescope_name"] != telescope.TELESCOPE_NAME:
        return float("nan")
    return telescope.visibility_noise(dataset.attrs["channel_width"], dataset.attrs["integration_time"]) ** 2
