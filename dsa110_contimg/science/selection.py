"""Parts of a Visibilities view: by antenna, baseline, length, time and frequency.

Nothing is read to select but coordinates and UVW, so a selection of a lazy view costs nothing.
"""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import xarray as xr
from astropy.time import Time
from numpy.typing import NDArray

from dsa110_contimg import schema
from dsa110_contimg.exceptions import InputError

Range: TypeAlias = tuple[float | None, float | None]
"""Lowest and highest value, both included; None is open."""
Pair: TypeAlias = str | tuple[str | int, str | int]
_BASELINE = '"1-5" or ("1", "5"), or a list of such'


def select(
    dataset: xr.Dataset,
    *,
    antenna: str | int | Sequence[str | int] | None = None,
    baseline: Pair | Sequence[Pair] | None = None,
    uvrange: Range | None = None,
    time: tuple[float | str | None, float | str | None] | None = None,
    frequency: Range | None = None,
    autocorrelations: bool = True,
) -> xr.Dataset:
    """The part of a Visibilities view that meets every condition given.

    Parameters
    ----------
    dataset : Visibilities view
    antenna : str, int, or list of these
        Names (station numbers): baselines with any of them at either end.
    baseline : str, pair, or list of these
        ``"1-5"`` or ``("1", "5")``, in either order.
    uvrange : (min, max)
        sqrt(u^2 + v^2) in m. It changes while the sky turns: baselines that are in the range at no time are dropped, of
        the others those integrations that are out of it are flagged.
    time : (start, stop)
        MJD UTC, or ISO 8601 text (UTC): integrations whose centre lies between.
    frequency : (low, high)
        Hz: channels whose centre lies between.
    autocorrelations : bool
        False drops them.

    Returns
    -------
    xarray.Dataset
        Lazy where the input is lazy, in the order of the input.

    Raises
    ------
    InputError
        A condition of another form than these, an antenna or baseline that is not there, a text that is not a time, or
        nothing that meets a condition.
    """
    uvrange, frequency = _numbers("uvrange", uvrange), _numbers("frequency", frequency)
    if not isinstance(autocorrelations, (bool, np.bool_)):
        raise InputError("Not what autocorrelations can be", found=repr(autocorrelations), expected="True or False")
    mjd = None if time is None else _numbers("time", [_mjd(when) for when in _ends("time", time)])
    out = _along(dataset, "time", _within(dataset["time"].to_numpy(), mjd), time)
    out = _along(out, "frequency", _within(out["frequency"].to_numpy(), frequency), frequency)
    ends = [out[f"baseline_antenna{i}_name"].to_numpy().astype(str) for i in (1, 2)]
    keep = np.ones(ends[0].size, bool)
    if antenna is not None:
        keep &= _with_antennas(ends, antenna)
    if baseline is not None:
        keep &= _of_pairs(ends, _pairs(baseline))
    if not autocorrelations:
        keep &= ends[0] != ends[1]
    conditions = {"antenna": antenna, "baseline": baseline, "autocorrelations": autocorrelations}
    out = _along(out, "baseline_id", keep, {k: v for k, v in conditions.items() if v is not None})
    if uvrange is not None:
        out = _in_uvrange(out, uvrange)
    return schema.check(out, schema.VISIBILITIES)


def _ends(name: str, limits: Any) -> tuple[Any, Any]:
    """Two ends of a range."""
    if not isinstance(limits, (tuple, list, np.ndarray)) or len(limits) != 2:
        raise InputError(f"Not a range of {name}", found=repr(limits), expected="(lowest, highest), or None for an end")
    return limits[0], limits[1]


def _numbers(name: str, limits: Any) -> Range | None:
    """A range of numbers."""
    if limits is None:
        return None
    low, high = ends = _ends(name, limits)
    for end in ends:
        if end is not None and (isinstance(end, bool) or not isinstance(end, numbers.Real) or np.isnan(float(end))):
            raise InputError(f"Not an end of a range of {name}", found=repr(end), expected="a number, or None")
    return low, high


def _along(dataset: xr.Dataset, axis: str, keep: NDArray[np.bool_], condition: object) -> xr.Dataset:
    if keep.all() and keep.size:
        return dataset
    index = np.flatnonzero(keep)
    if not index.size:
        extent = (
            f"{axis} from {float(dataset[axis].min())} to {float(dataset[axis].max())}"
            if axis in ("time", "frequency") and keep.size
            else f"{keep.size} baselines"
        )
        raise InputError("Nothing is left after this selection", found=extent, expected=condition)
    return take(dataset, axis, index)


def take(dataset: xr.Dataset, axis: str, index: NDArray[np.int64]) -> xr.Dataset:
    """These places along an axis, as ``isel``, reading no more than them.

    Arrays that know where they come from (``io.lazy``: those that still are as they were opened) are narrowed at their
    source; of any other dask array ``isel`` reads whole chunks.

    Parameters
    ----------
    dataset : xarray.Dataset
    axis : str
    index : (n,) ascending
    """
    run = index.size and index[-1] - index[0] + 1 == index.size
    key: Any = slice(int(index[0]), int(index[-1]) + 1) if run else index
    out = dataset.isel({axis: key})
    for name, variable in dataset.data_vars.items():
        selection = getattr(variable.data, "selection", None)
        if axis in variable.dims and selection is not None:
            each = tuple(key if dim == axis else slice(None) for dim in variable.dims)
            out[name] = out[name].copy(data=selection.narrowed(each, variable.chunks))
    return out


def _within(values: NDArray[Any], limits: Range | None) -> NDArray[np.bool_]:
    low, high = limits or (None, None)
    keep = np.ones(values.shape, bool)
    if low is not None:
        keep &= values >= low
    if high is not None:
        keep &= values <= high
    return keep


def _mjd(when: float | str | None) -> float | None:
    if not isinstance(when, str):
        return when
    try:
        return float(Time(when, scale="utc").mjd)
    except ValueError as error:
        raise InputError("Not a time", found=when, expected="MJD, or ISO 8601 such as 2026-01-25T22:26:05") from error


def _with_antennas(ends: list[NDArray[np.str_]], wanted: str | int | Sequence[str | int]) -> NDArray[np.bool_]:
    each: Any = [wanted] if isinstance(wanted, (str, numbers.Integral)) else wanted
    listed = isinstance(each, (Sequence, set, np.ndarray)) and not isinstance(each, bytes)
    if not (listed and all(_is_name(name) for name in each)):
        raise InputError("Not antennas", found=repr(wanted), expected='a station such as 25 or "25", or a list of them')
    names = [str(name) for name in each]
    there = np.unique(np.concatenate(ends))
    unknown = [name for name in names if name not in there]
    if unknown:
        raise InputError("There are no such antennas", found=unknown, expected=f"of {', '.join(there)}")
    return np.asarray(np.isin(ends[0], names) | np.isin(ends[1], names))


def _is_name(name: object) -> bool:
    return isinstance(name, (str, numbers.Integral)) and not isinstance(name, bool)


def _pairs(baseline: Pair | Sequence[Pair]) -> list[tuple[str, str]]:
    single = isinstance(baseline, str) or (
        isinstance(baseline, tuple) and all(_is_name(end) and "-" not in str(end) for end in baseline)
    )
    if not (single or isinstance(baseline, (Sequence, set, np.ndarray))):
        raise InputError("Not a baseline", found=repr(baseline), expected=_BASELINE)
    pairs = []
    for item in [baseline] if single else baseline:
        ends = item.split("-") if isinstance(item, str) else item
        if not isinstance(ends, (tuple, list)) or len(ends) != 2 or not all(_is_name(end) for end in ends):
            raise InputError("Not a baseline", found=repr(item), expected=_BASELINE)
        pairs.append((str(ends[0]).strip(), str(ends[1]).strip()))
    return pairs


def _of_pairs(ends: list[NDArray[np.str_]], wanted: list[tuple[str, str]]) -> NDArray[np.bool_]:
    there = [frozenset(pair) for pair in zip(ends[0].tolist(), ends[1].tolist(), strict=True)]
    unknown = ["-".join(pair) for pair in wanted if frozenset(pair) not in there]
    if unknown:
        raise InputError("There are no such baselines", found=unknown, expected="two antennas of the view")
    sought = {frozenset(pair) for pair in wanted}
    return np.array([pair in sought for pair in there], bool)


def _in_uvrange(dataset: xr.Dataset, uvrange: Range) -> xr.Dataset:
    uvw = dataset["UVW"].transpose("time", "baseline_id", "uvw_label").to_numpy()
    inside = _within(np.hypot(uvw[..., 0], uvw[..., 1]), uvrange)
    keep = np.asarray(inside.any(axis=0))
    out = _along(dataset, "baseline_id", keep, {"uvrange": uvrange})
    inside = inside[:, keep]
    if inside.all():
        return out
    outside = xr.DataArray(~inside, dims=("time", "baseline_id"))
    return out.assign(FLAG=(out["FLAG"] | outside).assign_attrs(out["FLAG"].attrs))
