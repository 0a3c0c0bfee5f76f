"""A view as a Measurement Set of one field, for programs that read nothing else.

Imagers outside this package see the visibilities through it: turned to one phase centre, with known sources taken out,
as Stokes I or as one hand, whatever the stage made of the view. It is written an integration at a time, so its size is
bounded by the disk and not by memory, and it is somebody's to delete.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from dsa110_contimg import telescope
from dsa110_contimg.exceptions import InputError
from dsa110_contimg.io import files, ms, ms_create

_STOKES_I = ("I",)
_BLOCK_BYTES = 400_000_000
"""Of a lazy view, whole chunks of time are computed at once, up to about this size; else each integration alone."""
_BYTES_PER_VALUE = 8 + 1 + 4
_BYTES_PER_ROW = 300


def write(dataset: xr.Dataset, path: Path) -> Path:
    """Write DATA, FLAG and WEIGHT_SPECTRUM of a view.

    Parameters
    ----------
    dataset : Visibilities view
        Of one phase centre, with antenna positions. Polarisations are linear hands, or ``I`` alone (`science.stokes`),
        which is written as one correlation of the type Stokes I. What is no number is written as 0, flagged.
    path : Path
        Replaced if it is there. Nothing is left of it when something goes wrong.

    Returns
    -------
    Path
        ``path``.

    Raises
    ------
    InputError
        Several phase centres, no antenna positions, or hands that are not linear.
    OutputError
        No room, or no permission.
    """
    layout, stokes = _layout(dataset)
    values = layout.n_rows * layout.cell[0] * layout.cell[1]
    files.require_room(path.parent, values * _BYTES_PER_VALUE + layout.n_rows * _BYTES_PER_ROW)
    with files.beside(path) as partial:
        ms_create.create(partial, layout)
        _relabel(partial, str(dataset.attrs["telescope_name"]), stokes)
        with ms.opened(partial, writable=True) as main:
            for time, (data, flags, weights) in enumerate(_integrations(dataset)):
                start = ms_create.add_time(main, layout, time)
                total, count = np.where(flags, 0.0, weights).sum(axis=1), (~flags).sum(axis=1)
                mean = np.divide(total, count, out=np.zeros_like(total), where=count > 0)
                ms.write_rows(main, start, data, flags, weights, mean.astype(np.float32))
    return path


def _layout(dataset: xr.Dataset) -> tuple[ms.Layout, bool]:
    """The metadata of a view, and whether it is Stokes I, whose correlation stands as XX in the layout."""
    if "phase_center_ra" in dataset.coords:
        raise InputError(
            "Each integration has a phase centre of its own", expected="one: phase_to turns the view to a direction"
        )
    if "antenna_position" not in dataset.coords:
        raise InputError("The antenna positions are not known", expected="antenna_position (antenna_name, 3), m, ITRF")
    names = [str(name) for name in dataset["antenna_name"].to_numpy()]
    ends = [[str(name) for name in dataset[f"baseline_antenna{i}_name"].to_numpy()] for i in (1, 2)]
    polarizations = tuple(str(name) for name in dataset["polarization"].to_numpy())
    if polarizations != _STOKES_I and not set(polarizations) <= set(ms.CORRELATIONS):
        raise InputError("These polarisations are not written", found=polarizations, expected="XX and YY, or Stokes I")
    frequencies = np.asarray(dataset["frequency"].to_numpy(), np.float64)
    diameter = float(dataset.attrs.get("dish_diameter", telescope.DISH_DIAMETER_M))
    row = {name: number for number, name in enumerate(names)}
    layout = ms.Layout(
        mjd=np.asarray(dataset["time"].to_numpy(), np.float64),
        antenna1=np.array([row[name] for name in ends[0]], np.int64),
        antenna2=np.array([row[name] for name in ends[1]], np.int64),
        uvw=np.nan_to_num(np.asarray(dataset["UVW"].to_numpy(), np.float64)),
        positions=np.asarray(dataset["antenna_position"].to_numpy(), np.float64),
        names=tuple(names),
        diameters=np.full(len(names), diameter),
        frequencies=frequencies,
        channel_width=float(dataset.attrs["channel_width"]),
        integration_s=float(dataset.attrs["integration_time"]),
        polarizations=("XX",) if polarizations == _STOKES_I else polarizations,
        centers=np.array([[dataset.attrs["phase_center_ra"], dataset.attrs["phase_center_dec"]]], np.float64),
        pointing_ra=np.asarray(dataset["pointing_ra"].to_numpy(), np.float64),
        pointing_dec=np.asarray(dataset["pointing_dec"].to_numpy(), np.float64),
        group_id=str(dataset.attrs["group_id"]),
        history="a view, written for an imager",
    )
    return layout, polarizations == _STOKES_I


def _relabel(path: Path, telescope_name: str, stokes: bool) -> None:
    """What `ms_create` has of its own telescope, as the view has it."""
    with ms.opened(path / "OBSERVATION", writable=True) as sub:
        sub.putcell("TELESCOPE_NAME", 0, telescope_name)
    if stokes:
        with ms.opened(path / "POLARIZATION", writable=True) as sub:
            sub.putcell("CORR_TYPE", 0, np.array([1], np.int32))


def _integrations(
    dataset: xr.Dataset,
) -> Iterator[tuple[NDArray[np.complex64], NDArray[np.bool_], NDArray[np.float32]]]:
    """Data, flags (also of what is no number) and weights of each integration, (baseline, frequency, polarization)."""
    shape = dataset["VISIBILITY"].shape
    chunks = dataset["VISIBILITY"].chunks
    longest = max(chunks[0]) if chunks else 1
    step = max(1, min(longest, _BLOCK_BYTES // (int(np.prod(shape[1:])) * _BYTES_PER_VALUE)))
    for first in range(0, shape[0], step):
        part = dataset[["VISIBILITY", "FLAG", "WEIGHT"]].isel(time=slice(first, first + step)).compute()
        data, flags, weights = (part[name].to_numpy() for name in ("VISIBILITY", "FLAG", "WEIGHT"))
        unknown = np.isnan(dataset["UVW"].isel(time=slice(first, first + step)).to_numpy()).any(axis=-1)
        for one in range(len(data)):
            strange = ~np.isfinite(data[one]) | unknown[one][:, None, None]
            yield (
                np.where(strange, np.complex64(0), data[one]).astype(np.complex64, copy=False),
                flags[one] | strange,
                np.ascontiguousarray(weights[one], np.float32),
            )
