"""The views: what each Dataset holds, declared once. Names and units follow MSv4.

`check` reports every fault of a Dataset at once. Sign of the visibilities, whatever they were opened from:
V = sum S exp(+2 pi i (u l + v m + w (n - 1)) f / c), with UVW = position(antenna 1) - position(antenna 2) and
V_observed = G_1 conj(G_2) V, as in a Measurement Set.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dsa110_contimg.exceptions import SchemaError

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True)
class Variable:
    """One data variable or coordinate: dimensions, kind of number (numpy ``dtype.kind``), unit and meaning."""

    dims: tuple[str, ...]
    kind: str
    unit: str
    meaning: str
    required: bool = True


@dataclass(frozen=True)
class View:
    """One kind of Dataset."""

    name: str
    variables: dict[str, Variable]
    coordinates: dict[str, Variable]
    attributes: dict[str, str]


_VIS = ("time", "baseline_id", "frequency", "polarization")

VISIBILITIES = View(
    "Visibilities",
    variables={
        "VISIBILITY": Variable(_VIS, "c", "Jy", "cross-correlations; raw files are in arbitrary units"),
        "MODEL": Variable(_VIS, "c", "Jy", "predicted visibilities", required=False),
        "FLAG": Variable(_VIS, "b", "", "True where the datum must not be used"),
        "WEIGHT": Variable(_VIS, "f", "", "proportional to 1 / variance"),
        "UVW": Variable(
            ("time", "baseline_id", "uvw_label"),
            "f",
            "m",
            "position(antenna 1) - position(antenna 2)",
        ),
    },
    coordinates={
        "time": Variable(("time",), "f", "d", "centre of the integration, MJD UTC"),
        "frequency": Variable(("frequency",), "f", "Hz", "channel centre"),
        "polarization": Variable(("polarization",), "U", "", "XX, YY (or XX, XY, YX, YY)"),
        "baseline_antenna1_name": Variable(("baseline_id",), "U", "", "station number as text"),
        "baseline_antenna2_name": Variable(("baseline_id",), "U", "", "station number as text"),
        "pointing_ra": Variable(("time",), "f", "rad", "beam centre, ICRS"),
        "pointing_dec": Variable(("time",), "f", "rad", "beam centre, ICRS"),
        "phase_center_ra": Variable(("time",), "f", "rad", "where each integration has its own, ICRS", required=False),
        "phase_center_dec": Variable(("time",), "f", "rad", "where each integration has its own, ICRS", required=False),
        "antenna_name": Variable(("antenna_name",), "U", "", "station number as text", required=False),
        "antenna_position": Variable(
            ("antenna_name", "cartesian_pos_label"), "f", "m", "ITRF, from the centre of the earth", required=False
        ),
    },
    attributes={
        "phase_center_ra": "rad, ICRS; of the first integration where each has its own",
        "phase_center_dec": "rad, ICRS",
        "integration_time": "s",
        "channel_width": "Hz, positive",
        "telescope_name": "DSA_110",
        "group_id": "UTC start of the first integration",
    },
)

_GAIN = ("time", "antenna_name", "frequency", "polarization")

CALTABLE = View(
    "CalTable",
    variables={
        "GAIN": Variable(_GAIN, "c", "", "G of V_observed = G_1 conj(G_2) V_true"),
        "FLAG": Variable(_GAIN, "b", "", "True where there is no solution"),
        "SNR": Variable(_GAIN, "f", "", "signal to noise of the solution"),
    },
    coordinates={
        "time": Variable(("time",), "f", "d", "MJD UTC"),
        "frequency": Variable(("frequency",), "f", "Hz", "channel centre; one, the band centre, for gains"),
        "antenna_name": Variable(("antenna_name",), "U", "", "station number as text"),
        "polarization": Variable(("polarization",), "U", "", "receptor, X or Y"),
    },
    attributes={"kind": "B, G or GP", "refant": "reference antenna"},
)


def faults(dataset: xr.Dataset, view: View) -> list[str]:
    """Everything in which a Dataset differs from its declaration; empty when it holds."""
    found: list[str] = []
    for where, names, declared in (
        ("variable", dataset.data_vars, view.variables),
        ("coordinate", dataset.coords, view.coordinates),
    ):
        for name, variable in declared.items():
            if name not in names:
                if variable.required:
                    found.append(f"{where} {name} is missing")
                continue
            array = names[name]
            if array.dims != variable.dims:
                found.append(f"{where} {name} has dims {array.dims}, not {variable.dims}")
            if np.dtype(array.dtype).kind not in (variable.kind, "O" if variable.kind == "U" else variable.kind):
                found.append(f"{where} {name} is of dtype {array.dtype}, not of kind {variable.kind!r}")
    found += [f"attribute {name} is missing" for name in view.attributes if name not in dataset.attrs]
    return found


def check(dataset: xr.Dataset, view: View) -> xr.Dataset:
    """Return the Dataset unchanged if it holds to its declaration.

    Raises
    ------
    SchemaError
        Naming every fault.
    """
    wrong = faults(dataset, view)
    if wrong:
        raise SchemaError(
            f"The {view.name} Dataset is not what it must be", found="; ".join(wrong), expected="see schema"
        )
    return dataset
