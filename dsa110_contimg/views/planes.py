"""Planes that figures of visibilities show: the uv plane, time against frequency, and where the flags are."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.constants import speed_of_light

from dsa110_contimg.exceptions import InputError
from dsa110_contimg.science.selection import select, take
from dsa110_contimg.views import kernels
from dsa110_contimg.views.columns import (
    Columns,
    columns_of,
    datum,
    frequency_columns,
    time_columns,
    uv_unit,
)
from dsa110_contimg.views.scan import Block, gather, wanted_hands, wanted_rows


@dataclass(frozen=True)
class UvPlane:
    """Numbers of visibilities on the uv plane, each with its mirror image (-u, -v).

    Attributes
    ----------
    whole, core : (v, u) number of visibilities on a pixel.
    frequency : (v, u) their mean frequency (Hz), on the pixels of ``whole``; NaN where there is none.
    limit, core_limit : half a side of each, in ``unit``.
    wavelengths, unit : what they are measured in: 1000 wavelengths (kλ), for a small array one (λ).
    lengths : (column,) visibilities by projected length, not mirrored.
    columns : the lengths.
    baselines : number of baselines that hold data; datum : what one visibility is, in words.
    """

    whole: NDArray[np.int64]
    core: NDArray[np.int64]
    frequency: NDArray[np.float64]
    limit: float
    core_limit: float
    wavelengths: float
    unit: str
    lengths: NDArray[np.int64]
    columns: Columns
    baselines: int
    datum: str

    @property
    def number(self) -> int:
        """Unflagged visibilities."""
        return int(self.lengths.sum())

    @property
    def caption(self) -> str:
        """What is drawn, in full."""
        sides = (2 * r * self.wavelengths / len(p) for r, p in ((self.limit, self.whole), (self.core_limit, self.core)))
        big, small = (f"{side:.3g}" for side in sides)
        return (
            f"{self.number:,} unflagged visibilities and their mirror images: {self.datum}. "
            f"One pixel: {big} wavelengths a side; in the core, {small}."
        )


def uv_plane(vis: xr.Dataset, pixels: int = 420, core_m: float = 500.0) -> UvPlane:
    """Where the unflagged visibilities lie in the uv plane: only FLAG and UVW are read.

    Parameters
    ----------
    vis : Visibilities view
    pixels : a side of the whole plane; the core has half as many. Where few of them would hold data, neighbours are put
        together, so that single baselines of a few antennas can be seen.
    core_m : baselines (m) at the band's middle that fill the core.
    """
    columns, row_x, channel_x = columns_of(vis, "uvdist")
    uv, frequency, hands = vis["UVW"].values[..., :2], vis["frequency"].values, wanted_hands(vis)
    uv = np.where(np.isnan(row_x)[..., None], np.nan, uv)
    reach = 1.04 * float(np.nanmax(np.abs(uv), initial=1e-3, where=np.isfinite(uv)))
    size, unit = uv_unit(reach * frequency.max() / speed_of_light)
    per_metre = frequency / speed_of_light / size
    limit = reach * float(per_metre.max())
    core = min(limit, core_m * float(per_metre.mean()))

    def fresh() -> dict[str, NDArray[Any]]:
        whole, small = (pixels, pixels), (pixels // 2, pixels // 2)
        sums: dict[str, NDArray[Any]] = {"whole": np.zeros(whole, np.int64), "scale": np.zeros(whole)}
        sums |= {"core": np.zeros(small, np.int64), "core_scale": np.zeros(small)}
        sums["lengths"] = np.zeros(columns.edges.size - 1, np.int64)
        return sums | {"baseline": np.zeros(uv.shape[1], np.int64)}

    def add(block: Block, sums: dict[str, NDArray[Any]]) -> None:
        flag, here, scale = block.flag, np.ascontiguousarray(uv[block.time, block.baseline]), per_metre[block.frequency]
        kernels.uv_counts(flag, here, scale * (pixels / 2 / limit), hands, sums["whole"], sums["scale"])
        kernels.uv_counts(flag, here, scale * (pixels // 2 / 2 / core), hands, sums["core"], sums["core_scale"])
        where = row_x[block.time, block.baseline], channel_x[block.frequency]
        kernels.column_counts(flag, *where, hands, sums["lengths"], sums["baseline"][block.baseline])

    sums = gather(vis, fresh, add)
    mirror = partial(np.flip, axis=(0, 1))
    whole, scale = (sums[name] + mirror(sums[name]) for name in ("whole", "scale"))
    together = _together(whole)
    whole, scale = _binned(whole, together), _binned(scale, together)
    with np.errstate(invalid="ignore"):
        mean = scale / whole * (limit / (pixels / 2)) * speed_of_light * size
    baselines = int((sums["baseline"] > 0).sum())
    core_count = sums["core"] + mirror(sums["core"])
    core_count = _binned(core_count, _together(core_count))
    return UvPlane(whole, core_count, mean, limit, core, size, unit, sums["lengths"], columns, baselines, datum(vis))


def _together(count: NDArray[np.int64]) -> int:
    """How many pixels a side become one, by the fraction of them that hold data."""
    filled = np.count_nonzero(count) / count.size
    wanted = 6 if filled < 0.0005 else 4 if filled < 0.006 else 2 if filled < 0.015 else 1
    return max(n for n in (1, 2, 3, 4, 5, 6) if n <= wanted and len(count) % n == 0)


def _binned(plane: NDArray[Any], n: int) -> NDArray[Any]:
    """Sums of n x n pixels."""
    side = len(plane) // n
    return np.asarray(plane.reshape(side, n, side, n).sum(axis=(1, 3)))


@dataclass(frozen=True)
class Waterfall:
    """Amplitude and phase on a plane of time against frequency.

    Attributes
    ----------
    amplitude : (polarization, time, frequency) mean of |V|; NaN where all is flagged.
    phase : (polarization, time, frequency) argument of the mean of V / |V| (rad), of baselines that begin at the
        antenna.
    number : (polarization, time, frequency) visibilities that entered.
    times, frequencies : the axes.
    polarizations : names.
    title : antenna or baseline; baselines : how many.
    empty : why a pixel may be empty, in words.
    """

    amplitude: NDArray[np.float64]
    phase: NDArray[np.float64]
    number: NDArray[np.int64]
    times: Columns
    frequencies: Columns
    polarizations: tuple[str, ...]
    title: str
    baselines: int
    empty: str

    @property
    def caption(self) -> str:
        """What is drawn, in full."""
        text = f"{int(self.number.sum()):,} unflagged visibilities. One pixel: {self.times.width}, "
        text += f"{self.frequencies.width}, one polarisation"
        if self.baselines == 1 and self.number.max(initial=0) <= 1:
            return f"{text}. Empty: {self.empty}."
        return (
            f"{text}, {self.baselines} baseline{'s' * (self.baselines != 1)}: mean of |V| and, for the phase, of "
            f"V / |V| (incoherent: fringes do not cancel in the amplitude). Empty: {self.empty}."
        )


def _chosen(
    vis: xr.Dataset, antenna: str | int | None, baseline: str | tuple[str, str] | None
) -> tuple[xr.Dataset, NDArray[np.bool_], str]:
    """Some baselines of a Dataset, which of them end at the antenna (the first of the baseline), and their name."""
    if antenna is not None and baseline is not None:
        raise InputError("Ask for an antenna or for a baseline", found=f"{antenna} and {baseline}", expected="one")
    if baseline is not None:
        part = select(vis, baseline=baseline)
        title = baseline if isinstance(baseline, str) else "-".join(str(end) for end in baseline)
        start, title = title.split("-")[0].strip(), f"Baseline {title}"
    elif antenna is not None:
        start, title = str(antenna), f"Antenna {antenna}"
        part = select(vis, antenna=start, autocorrelations=False)
    else:
        part, title, start = _cross(vis), "All baselines", ""
    one, two = (part[f"baseline_antenna{i}_name"].values.astype(str) for i in (1, 2))
    return part, (two == start) & (one != start), title


def _cross(vis: xr.Dataset) -> xr.Dataset:
    keep = wanted_rows(vis)
    return vis if keep.all() else take(vis, "baseline_id", np.flatnonzero(keep))


def waterfall(
    vis: xr.Dataset, antenna: str | int | None = None, baseline: str | tuple[str, str] | None = None
) -> Waterfall:
    """Amplitude and phase of some baselines against time and frequency; only these are read.

    Parameters
    ----------
    vis : Visibilities view
    antenna : station number; its autocorrelation is left out
    baseline : ``"25-48"`` or a pair; ``"25-25"`` is an autocorrelation. Neither: all cross-correlations.

    Raises
    ------
    InputError
        Both are given, or there is no such antenna or baseline.
    """
    part, turned, title = _chosen(vis, antenna, baseline)
    times, i = time_columns(part)
    frequencies, j = frequency_columns(part, most=800)
    shape = (times.edges.size - 1, frequencies.edges.size - 1, part.sizes["polarization"])

    def fresh() -> dict[str, NDArray[Any]]:
        sums: dict[str, NDArray[Any]] = {"amplitude": np.zeros(shape), "phasor": np.zeros(shape, complex)}
        return sums | {"number": np.zeros(shape, np.int64)}

    def add(block: Block, sums: dict[str, NDArray[Any]]) -> None:
        where = turned[block.baseline], i[block.time], j[block.frequency]
        kernels.waterfall_sums(block.value, block.flag, *where, sums["amplitude"], sums["phasor"], sums["number"])

    sums = gather(part, fresh, add)
    number = sums["number"]
    mean = np.divide(sums["amplitude"], number, out=np.full(shape, np.nan), where=number > 0)
    phase = np.where((number > 0) & (sums["phasor"] != 0), np.angle(sums["phasor"]), np.nan)
    hands = tuple(str(name) for name in part["polarization"].values)
    first = partial(np.moveaxis, source=-1, destination=0)
    return Waterfall(
        first(mean), first(phase), first(number), times, frequencies, hands, title, part.sizes["baseline_id"],
        flagged_means(vis),
    )  # fmt: skip


def flagged_means(vis: xr.Dataset) -> str:
    """What it takes to be flagged: of averages, those of nothing that has weight are."""
    averaged = max(vis.attrs.get(f"averaged_{what}", 1) for what in ("channels", "integrations")) > 1
    if averaged or "I" in vis["polarization"].values:
        return "flagged, or an average of nothing that has weight"
    return "flagged (weights are not looked at)"


def flag_fractions(vis: xr.Dataset) -> xr.Dataset:
    """Fraction of the cross-correlations that is flagged, by channel, antenna and time; FLAG is read once.

    Returns
    -------
    xarray.Dataset
        ``by_frequency`` (frequency, polarization), ``by_antenna`` (antenna_name, polarization), ``by_time`` (time,
        polarization); attribute ``flagged``, of all. An antenna's fraction is that of its baselines. Autocorrelations
        count only where there is nothing else.
    """
    rows = np.flatnonzero(wanted_rows(vis))
    hands = vis.sizes["polarization"]
    sizes = {"frequency": vis.sizes["frequency"], "baseline": vis.sizes["baseline_id"], "time": vis.sizes["time"]}

    def fresh() -> dict[str, NDArray[Any]]:
        return {name: np.zeros((size, hands), np.int64) for name, size in sizes.items()}

    def add(block: Block, sums: dict[str, NDArray[Any]]) -> None:
        here = {"frequency": block.frequency, "baseline": block.baseline, "time": block.time}
        where = [sums[name][part] for name, part in here.items()]
        kernels.flag_counts(block.flag, keep[block.baseline], *where)

    keep = wanted_rows(vis)
    sums = gather(vis, fresh, add)
    per = {"frequency": sizes["time"] * rows.size, "time": sizes["frequency"] * rows.size}
    names, fraction = _by_antenna(vis, rows, sums["baseline"] / max(1, sizes["frequency"] * sizes["time"]))
    hand = "polarization"
    result = xr.Dataset(
        {f"by_{name}": ((name, hand), sums[name] / max(1, n)) for name, n in per.items()}
        | {"by_antenna": (("antenna_name", hand), fraction)},
        coords={name: vis[name].variable for name in ("frequency", "time", hand)} | {"antenna_name": names},
    )
    result.attrs["flagged"] = float(sums["time"].sum() / max(1, per["time"] * sizes["time"] * hands))
    return result


def _by_antenna(
    vis: xr.Dataset, rows: NDArray[np.int64], of_baseline: NDArray[np.float64]
) -> tuple[NDArray[np.str_], NDArray[np.float64]]:
    """Names, and means over the baselines of each antenna."""
    one, two = (vis[f"baseline_antenna{i}_name"].values.astype(str)[rows] for i in (1, 2))
    names = np.array(sorted(set(one) | set(two), key=lambda name: (len(name), name)))
    return names, np.array([of_baseline[rows[(one == name) | (two == name)]].mean(axis=0) for name in names])


def antenna_amplitudes(vis: xr.Dataset) -> xr.DataArray:
    """Median over the baselines of each antenna of their mean |V|: (antenna_name, polarization); NaN: all flagged.

    An antenna that is much weaker or stronger than the others has a fault or interference.
    """
    shape = (vis.sizes["baseline_id"], vis.sizes["polarization"])

    def fresh() -> dict[str, NDArray[Any]]:
        return {"amplitude": np.zeros(shape), "number": np.zeros(shape, np.int64)}

    def add(block: Block, sums: dict[str, NDArray[Any]]) -> None:
        here = sums["amplitude"][block.baseline], sums["number"][block.baseline]
        kernels.baseline_sums(block.value, block.flag, *here)

    sums = gather(vis, fresh, add)
    mean = np.divide(sums["amplitude"], sums["number"], out=np.full(shape, np.nan), where=sums["number"] > 0)
    rows = np.flatnonzero(wanted_rows(vis))
    one, two = (vis[f"baseline_antenna{i}_name"].values.astype(str)[rows] for i in (1, 2))
    names = np.array(sorted(set(one) | set(two), key=lambda name: (len(name), name)))
    own = [np.ma.masked_invalid(mean[rows[(one == name) | (two == name)]]) for name in names]
    medians = np.array([np.ma.median(values, axis=0).filled(np.nan) for values in own])
    coords = {"antenna_name": names, "polarization": vis["polarization"].values}
    return xr.DataArray(medians, dims=("antenna_name", "polarization"), coords=coords)
