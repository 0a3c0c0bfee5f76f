"""Stokes I of a Visibilities view, as a Visibilities view."""

from __future__ import annotations

import numpy as np
import xarray as xr

from dsa110_contimg import schema
from dsa110_contimg.exceptions import InputError
from dsa110_contimg.science.averaging import PARALLEL_HANDS
from dsa110_contimg.science.reduction import binned


def stokes_i(dataset: xr.Dataset) -> xr.Dataset:
    """Stokes I: the weighted mean of the parallel hands, of whichever is not flagged.

    For an unpolarised sky each hand alone measures I, so no half-flagged visibility is thrown away; weights add up.
    The same as imaging does (`averaging.from_dataset`). Cross hands are left out.

    Parameters
    ----------
    dataset : Visibilities view

    Returns
    -------
    xarray.Dataset
        One polarization, ``I``; flagged where both hands are. Lazy where the input is lazy.

    Raises
    ------
    InputError
        The parallel hands are not both there.
    """
    schema.check(dataset, schema.VISIBILITIES)
    names = [str(name) for name in dataset["polarization"].to_numpy()]
    hands = next((hands for hands in PARALLEL_HANDS if set(hands) <= set(names)), None)
    if hands is None:
        raise InputError("No Stokes I without both parallel hands", found=names, expected="XX and YY, or RR and LL")
    # a selection copies what is in memory: not where all is taken anyway
    parallel = dataset if tuple(names) == hands else dataset.isel(polarization=[names.index(hand) for hand in hands])
    out = dataset.drop_dims("polarization").assign(binned(parallel, (1, 1, len(hands))))
    for name in ("VISIBILITY", "MODEL", "FLAG", "WEIGHT"):
        if name in dataset:
            out[name].attrs.update(dataset[name].attrs)
    coordinate = ("polarization", np.array(["I"]), dict(dataset["polarization"].attrs))
    return schema.check(out.assign_coords(polarization=coordinate), schema.VISIBILITIES)
