"""Fewer visibilities: averages over channels and integrations, with the loss that they cost stated.

Averages are weighted and leave flagged data out. A source away from the phase centre turns across what is averaged,
so part of its amplitude is lost, more on long baselines and far out; `averaging_loss` says how much before anything is
averaged. (`averaging` averages each baseline as far as imaging allows; here all baselines are averaged alike, and the
result is again a Visibilities view.)
"""

from __future__ import annotations

import numbers
from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from numba import njit
from numpy.typing import NDArray
from scipy.constants import speed_of_light

from dsa110_contimg import schema, telescope
from dsa110_contimg.exceptions import InputError
from dsa110_contimg.science.beam import half_power_radius
from dsa110_contimg.science.phasing import uvw
from dsa110_contimg.science.smearing import EARTH_ROTATION

DIMS = ("time", "baseline_id", "frequency", "polarization")

_ANGLES = 12
"""Position angles around the phase centre over which a loss is taken."""

# --- kernel ----------------------------------------------------------------------------------------------------------


@njit(nogil=True, cache=True)
def _weighted_mean(
    values: NDArray[np.complex64],
    flag: NDArray[np.bool_],
    weight: NDArray[np.float32],
    bins: tuple[int, int, int],
    mean: NDArray[np.complex64],
    total: NDArray[np.float32],
) -> None:
    """Means of bins of (integrations, channels, polarizations) of (time, baseline, frequency, polarization).

    Flagged values, values without weight and values that are not finite do not count. ``total`` is the sum of the
    weights that do; where it is 0, so is the mean.
    """
    n_time, n_baseline, n_channel, n_pol = mean.shape
    for time in range(n_time):
        for baseline in range(n_baseline):
            for channel in range(n_channel):
                for pol in range(n_pol):
                    real, imag, norm = 0.0, 0.0, 0.0
                    for t in range(time * bins[0], (time + 1) * bins[0]):
                        for c in range(channel * bins[1], (channel + 1) * bins[1]):
                            for p in range(pol * bins[2], (pol + 1) * bins[2]):
                                w = np.float64(weight[t, baseline, c, p])
                                x = w * np.float64(values[t, baseline, c, p].real)
                                y = w * np.float64(values[t, baseline, c, p].imag)
                                # a product that is finite has finite factors
                                if not flag[t, baseline, c, p] and w > 0.0 and np.isfinite(x + y):
                                    real += x
                                    imag += y
                                    norm += w
                    scale = 1.0 / norm if norm > 0.0 else 0.0
                    mean[time, baseline, channel, pol] = complex(real * scale, imag * scale)
                    total[time, baseline, channel, pol] = norm


_MEANS = np.dtype([("mean", np.complex64), ("total", np.float32)])


def _block(
    values: NDArray[Any], flag: NDArray[Any], weight: NDArray[Any], *, bins: tuple[int, int, int]
) -> NDArray[np.void]:
    """One block's means and sums of weights, together, so that dask computes them once."""
    shape = tuple(n // b for n, b in zip(values.shape, (bins[0], 1, *bins[1:]), strict=True))
    out = np.empty(shape, _MEANS)
    arrays = _as(values, np.complex64), _as(flag, np.bool_), _as(weight, np.float32)
    _weighted_mean(*arrays, bins, out["mean"], out["total"])
    return out


def _as(array: NDArray[Any], kind: type) -> NDArray[Any]:
    return np.ascontiguousarray(array, kind)


def binned(dataset: xr.Dataset, bins: tuple[int, int, int]) -> dict[str, tuple[tuple[str, ...], Any]]:
    """Weighted means of VISIBILITY (and MODEL), WEIGHT and FLAG in bins of (integrations, channels, polarizations).

    MODEL is averaged with the weights and flags of the visibilities, so the two stay comparable. Bins fit the axes.

    Returns
    -------
    dict: variables of a Visibilities view, lazy where the input is.
    """
    names = [name for name in ("VISIBILITY", "FLAG", "WEIGHT", "MODEL") if name in dataset]
    arrays = {name: dataset[name].transpose(*DIMS).data for name in names}
    if any(isinstance(array, da.Array) for array in arrays.values()):
        per_axis = (bins[0], 1, *bins[1:])
        sizes = da.asarray(arrays["VISIBILITY"]).chunks
        chunks = tuple(_aligned(axis, n) for axis, n in zip(sizes, per_axis, strict=True))
        arrays = {name: da.asarray(array).rechunk(chunks) for name, array in arrays.items()}
        shrunk = tuple(tuple(size // n for size in axis) for axis, n in zip(chunks, per_axis, strict=True))

    def means(name: str) -> Any:
        inputs = (arrays[name], arrays["FLAG"], arrays["WEIGHT"])
        if not isinstance(inputs[0], da.Array):
            return _block(*inputs, bins=bins)
        meta: NDArray[np.void] = np.empty((0, 0, 0, 0), _MEANS)
        return da.map_blocks(_block, *inputs, bins=bins, chunks=shrunk, dtype=_MEANS, meta=meta)

    visibilities = means("VISIBILITY")
    total = visibilities["total"].copy()
    out = {"VISIBILITY": visibilities["mean"].copy(), "WEIGHT": total, "FLAG": ~(total > 0.0)}
    if "MODEL" in arrays:
        out["MODEL"] = means("MODEL")["mean"].copy()
    return {name: (DIMS, array) for name, array in out.items()}


def _aligned(sizes: tuple[int, ...], n: int) -> tuple[int, ...]:
    """Chunks whose edges are multiples of n: each edge moves up to the next one."""
    edges = np.unique(np.minimum(-(-np.cumsum(sizes) // n) * n, sum(sizes)))
    return tuple(int(size) for size in np.diff(np.concatenate([[0], edges])) if size)


# --- averaging -------------------------------------------------------------------------------------------------------


def average(dataset: xr.Dataset, channels: int = 1, integrations: int = 1) -> xr.Dataset:
    """Average channels and integrations.

    V = sum w V / sum w over what is not flagged and finite; WEIGHT is sum w; a bin in which nothing counts is flagged
    and has no weight. UVW is the mean over the integrations, weighted with the weights of all channels and
    polarisations; ``time``, ``frequency`` and the pointing are plain means of the members, flagged or not, so all
    baselines share them. The attributes ``averaged_channels`` and ``averaged_integrations`` count native ones, and
    ``averaging_loss_half_power`` is the mean loss (`averaging_loss`) of all averaging so far, at the half-power radius
    of the primary beam.

    Every bin is full: an axis whose last bin would be shorter has no one channel width or integration time, and is
    refused, as are bins across a gap in frequency or time. `selection.select` cuts an axis to fit.

    Parameters
    ----------
    dataset : Visibilities view
        Integrations can be averaged only about one phase centre: `phasing.phase_to` first.
    channels, integrations : int
        How many become one.

    Returns
    -------
    xarray.Dataset
        Lazy where the input is lazy; then UVW is so, too, if integrations are averaged.

    Raises
    ------
    InputError
        Not whole numbers from 1 up, bins that do not fit, or integrations with phase centres of their own.
    """
    schema.check(dataset, schema.VISIBILITIES)
    channels, integrations = _whole("channels", channels), _whole("integrations", integrations)
    _require_bins(dataset, channels, integrations)
    before = (int(dataset.attrs.get("averaged_channels", 1)), int(dataset.attrs.get("averaged_integrations", 1)))
    total = (before[0] * channels, before[1] * integrations)
    radius = half_power_radius(telescope.REFERENCE_FREQUENCY_HZ, _dish(dataset))
    native = (float(dataset.attrs["channel_width"]) / before[0], float(dataset.attrs["integration_time"]) / before[1])
    loss = _loss(dataset, total, native, radius)
    out = xr.Dataset(binned(dataset, (integrations, channels, 1)), attrs=dict(dataset.attrs))
    out["UVW"] = (("time", "baseline_id", "uvw_label"), _mean_uvw(dataset, integrations))
    for name in dataset.data_vars:
        if name in out:
            out[name].attrs.update(dataset[name].attrs)
    out = out.assign_coords(_coordinates(dataset, channels, integrations)).assign_attrs(
        channel_width=float(dataset.attrs["channel_width"]) * channels,
        integration_time=float(dataset.attrs["integration_time"]) * integrations,
        averaged_channels=total[0],
        averaged_integrations=total[1],
        averaging_loss_half_power=loss.mean,
    )
    return schema.check(out, schema.VISIBILITIES)


def _whole(what: str, number: Any) -> int:
    if isinstance(number, bool) or not isinstance(number, numbers.Integral):
        raise InputError(f"Not a number of {what}", found=repr(number), expected="a whole number from 1 up")
    return int(number)


def _dish(dataset: xr.Dataset) -> float:
    return float(dataset.attrs.get("dish_diameter", telescope.DISH_DIAMETER_M))


def _require_bins(dataset: xr.Dataset, channels: int, integrations: int) -> None:
    for what, axis, n, spacing in (
        ("channels", "frequency", channels, float(dataset.attrs["channel_width"])),
        ("integrations", "time", integrations, float(dataset.attrs["integration_time"]) / 86400.0),
    ):
        size = dataset.sizes[axis]
        if n < 1 or size % n:
            divisors = [k for k in range(1, size + 1) if size % k == 0]
            raise InputError(f"{size} {what} cannot be averaged by this", found=n, expected=f"one of {divisors}")
        steps = np.abs(np.diff(dataset[axis].to_numpy().reshape(-1, n), axis=1))
        if steps.size and np.abs(steps - spacing).max() > 0.1 * spacing:
            raise InputError(
                f"There is a gap within the {what} that would be averaged",
                found=f"{steps.max() / spacing:.1f} times the spacing",
                expected="bins that do not cross a gap",
            )
    if integrations > 1 and _drifts(dataset):
        raise InputError(
            "Integrations with phase centres of their own cannot be averaged",
            found="coordinate phase_center_ra (time)",
            expected="one phase centre: phase_to first",
        )


def _drifts(dataset: xr.Dataset) -> bool:
    return "phase_center_ra" in dataset.coords and "time" in dataset["phase_center_ra"].dims


def _coordinates(dataset: xr.Dataset, channels: int, integrations: int) -> dict[str, Any]:
    """Coordinates of the averages: plain means along time and frequency, of names the first, the others as they are."""
    out: dict[str, Any] = {}
    for name, coordinate in dataset.coords.items():
        values = coordinate.to_numpy() if {"time", "frequency"} & set(coordinate.dims) else coordinate.data
        attributes = _widened(_widened(coordinate.attrs, "channel_width", channels), "integration_time", integrations)
        if coordinate.dims == ("time",) and values.dtype.kind not in "fiu":
            values = values[::integrations]
        elif coordinate.dims == ("time",):
            angle = str(name).endswith("_ra")
            values = np.unwrap(values) if angle else values
            values = values.reshape(-1, integrations).mean(axis=1)
            values = values % (2.0 * np.pi) if angle else values
        elif coordinate.dims == ("frequency",):
            values = values.reshape(-1, channels).mean(axis=1)
        out[str(name)] = (coordinate.dims, values, attributes)
    return out


def _widened(attributes: dict[Any, Any], name: str, n: int) -> dict[Any, Any]:
    """Attributes with a quantity of MSv4 (a number and its unit), where there is one of this name, n times as large."""
    quantity = attributes.get(name)
    if not isinstance(quantity, dict):
        return dict(attributes)
    return {**attributes, name: {**quantity, "data": quantity["data"] * n}}


def _mean_uvw(dataset: xr.Dataset, integrations: int) -> Any:
    """(time, baseline, 3) m, weighted; where a bin has no weight, the plain mean of what is known."""
    coordinates = dataset["UVW"].transpose("time", "baseline_id", "uvw_label")
    if integrations == 1:
        return coordinates.data
    weight = dataset["WEIGHT"].where(~dataset["FLAG"] & (dataset["WEIGHT"] > 0.0), 0.0)
    summed = weight.sum(("frequency", "polarization"), dtype=np.float64).transpose("time", "baseline_id").data
    arrays = (coordinates.data, summed)
    n = integrations
    if not any(isinstance(array, da.Array) for array in arrays):
        return _uvw_block(*arrays, integrations=n)
    times = _aligned(da.asarray(arrays[1]).chunks[0], n)
    lazy = [da.asarray(array).rechunk({0: times}) for array in arrays]
    lazy[0] = lazy[0].rechunk({1: lazy[1].chunks[1], 2: -1})
    chunks = (tuple(size // n for size in times), lazy[0].chunks[1], lazy[0].chunks[2])
    return da.map_blocks(
        _uvw_block,
        lazy[0],
        lazy[1][..., None],
        integrations=n,
        chunks=chunks,
        dtype=np.float64,
        meta=np.empty((0, 0, 0)),
    )


def _uvw_block(coordinates: NDArray[Any], weight: NDArray[Any], *, integrations: int) -> NDArray[np.float64]:
    n_baseline = coordinates.shape[1]
    values = np.asarray(coordinates, np.float64).reshape(-1, integrations, n_baseline, 3)
    known = np.isfinite(values)
    weights = np.where(known, np.asarray(weight).reshape(-1, integrations, n_baseline, 1), 0.0)
    weights = np.where(weights.sum(axis=1, keepdims=True) > 0.0, weights, known)
    total = weights.sum(axis=1)
    summed = np.sum(np.where(known, values, 0.0) * weights, axis=1)
    return np.asarray(np.where(total > 0.0, summed / np.where(total > 0.0, total, 1.0), np.nan))


# --- loss ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AveragingLoss:
    """What averaging takes from the amplitude of a point source.

    Attributes
    ----------
    mean : 1 - mean over baselines, times and position angles, all weighted alike: the loss of a naturally weighted
        peak.
    worst : the largest loss of any baseline.
    """

    mean: float
    worst: float


def averaging_loss(dataset: xr.Dataset, channels: int, integrations: int, radius_rad: float) -> AveragingLoss:
    """Loss of averaging n channels and k integrations for a point source at an angle from the phase centre.

    Of n channels of width d is left sin(n x) / (n sin x) with x = pi d tau, tau = (u l + v m + w (n - 1)) / c; of k
    integrations of length t the same with x = pi r t, r = omega (z x b).(s - s_0) f / c the fringe rate about the
    phase centre at the middle of the band (Thompson, Moran & Swenson 2017, sections 6.4 and 16.2). This is the sum over
    the channels and integrations that the Dataset has; what the correlator lost within each of them before is not
    counted (`smearing.surviving_fraction` does). Flags and weights are not read. In a raw group each integration is
    taken about its own phase centre, its pointing.

    Parameters
    ----------
    dataset : Visibilities view
    channels, integrations : int
    radius_rad : float
        Angle from the phase centre; the loss is taken over all position angles.

    Raises
    ------
    InputError
        Several integrations that have phase centres of their own.
    """
    channels, integrations = _whole("channels", channels), _whole("integrations", integrations)
    if integrations > 1 and _drifts(dataset):
        _require_bins(dataset, 1, integrations)
    native = (float(dataset.attrs["channel_width"]), float(dataset.attrs["integration_time"]))
    if min(channels, integrations) < 1:
        raise InputError("Not numbers to average", found=(channels, integrations), expected="1 or more of each")
    return _loss(dataset, (channels, integrations), native, radius_rad)


def _loss(
    dataset: xr.Dataset, counts: tuple[int, int], native: tuple[float, float], radius_rad: float
) -> AveragingLoss:
    """``counts`` and ``native``: of channels and integrations, how many and how wide (Hz, s)."""
    if max(counts) == 1:
        return AveragingLoss(0.0, 0.0)
    cross = dataset["baseline_antenna1_name"].to_numpy() != dataset["baseline_antenna2_name"].to_numpy()
    baselines = _metres(dataset)[:, cross] / speed_of_light
    baselines = baselines[np.isfinite(baselines).all(axis=-1)]
    if not len(baselines):
        return AveragingLoss(0.0, 0.0)
    angle = 2.0 * np.pi * np.arange(_ANGLES) / _ANGLES
    l, m = np.sin(radius_rad) * np.sin(angle), np.sin(radius_rad) * np.cos(angle)
    offset = np.stack([l, m, np.full(_ANGLES, np.cos(radius_rad) - 1.0)])
    dec = float(dataset.attrs["phase_center_dec"])
    rate = np.cross(np.array([0.0, np.cos(dec), np.sin(dec)]), baselines) * EARTH_ROTATION
    middle = float(dataset["frequency"].mean())
    left = _dirichlet(baselines @ offset * native[0], counts[0])
    left *= _dirichlet(rate @ offset * (middle * native[1]), counts[1])
    return AveragingLoss(float(1.0 - left.mean()), float(1.0 - left.min()))


def _metres(dataset: xr.Dataset) -> NDArray[np.float64]:
    """UVW in memory; where it is lazy, as it depends on weights, that of the antenna positions if they are known."""
    if isinstance(dataset["UVW"].data, da.Array) and "antenna_position" in dataset.coords:
        return uvw(dataset, (dataset.attrs["phase_center_ra"], dataset.attrs["phase_center_dec"])).to_numpy()
    return np.asarray(dataset["UVW"].to_numpy(), np.float64)


def _dirichlet(turns: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """sin(n x) / (n sin x) for x = pi ``turns``: what is left of n equal steps of phase about their middle."""
    whole = np.round(turns)
    part = turns - whole
    # after whole turns every step is back in phase, and the middle of an even number of steps may be half a turn off
    sign = 1.0 - 2.0 * np.mod(whole * (n - 1), 2.0)
    return np.asarray(sign * np.sinc(n * part) / np.sinc(part))
