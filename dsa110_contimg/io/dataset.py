"""The Visibilities Dataset, put together in one place for whatever was opened; names and attributes follow MSv4.

`docs/visibilities.md` lists where it differs from MSv4 on purpose.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import numpy as np
import xarray as xr
from astropy.time import Time
from numpy.typing import NDArray

from dsa110_contimg import schema

DIMS = ("time", "baseline_id", "frequency", "polarization")
MSV4_VERSION = "4.0.1"
_ANGLE = {"units": "rad", "frame": "icrs"}


@dataclass(frozen=True)
class Antennas:
    """Antennas, and which two make each baseline.

    Attributes
    ----------
    names : (antenna,) text; positions : (antenna, 3) ITRF (m).
    antenna1, antenna2 : (baseline,) index into them.
    """

    names: NDArray[np.str_]
    positions: NDArray[np.float64]
    antenna1: NDArray[np.int64]
    antenna2: NDArray[np.int64]


@dataclass(frozen=True)
class Axes:
    """What the axes of the visibilities stand for.

    Attributes
    ----------
    mjd : (time,) centres (MJD UTC).
    frequencies : (frequency,) Hz, ascending.
    centre, pointing : (time, 2) right ascension and declination (rad, ICRS) of the phase centre and of the beam.
    per_integration : whether each integration has a phase centre of its own.
    """

    mjd: NDArray[np.float64]
    frequencies: NDArray[np.float64]
    polarizations: tuple[str, ...]
    antennas: Antennas
    centre: NDArray[np.float64]
    pointing: NDArray[np.float64]
    per_integration: bool
    channel_width: float
    integration_s: float


@dataclass(frozen=True)
class Origin:
    """Where the visibilities come from.

    Attributes
    ----------
    unit : of the visibilities, ``Jy`` or ``arbitrary``.
    fields : (time,) names of the fields.
    extra : attributes that only this kind has.
    """

    telescope_name: str
    group_id: str
    unit: str
    fields: NDArray[np.str_]
    observer: str = ""
    project: str = ""
    extra: Mapping[str, Any] | None = None


def visibilities(arrays: Mapping[str, Any], uvw: Any, axes: Axes, origin: Origin) -> xr.Dataset:
    """The Visibilities view (`schema.VISIBILITIES`).

    Parameters
    ----------
    arrays : mapping
        VISIBILITY, FLAG, WEIGHT and perhaps MODEL, each (time, baseline, frequency, polarization).
    uvw : (time, baseline, 3)
        m, position(antenna 1) - position(antenna 2).
    axes : Axes
    origin : Origin

    Raises
    ------
    SchemaError
        The arrays do not fit.
    """
    attributes: dict[str, dict[str, Any]] = {
        "VISIBILITY": {"units": origin.unit},
        "MODEL": {"units": "Jy"},
        "FLAG": {},
        "WEIGHT": {},
    }
    variables: dict[str, Any] = {name: (DIMS, values, attributes[name]) for name, values in arrays.items()}
    variables["UVW"] = (
        ("time", "baseline_id", "uvw_label"),
        uvw,
        {"type": "uvw", "frame": "icrs", "units": "m"},
    )
    dataset = xr.Dataset(
        variables, coords=_coordinates(axes, origin), attrs=_attributes(axes, origin, "MODEL" in arrays)
    )
    return schema.check(dataset, schema.VISIBILITIES)


def _quantity(value: float, units: str) -> dict[str, Any]:
    """A number with its unit, as MSv4 keeps one in an attribute."""
    return {"dims": (), "data": float(value), "attrs": {"type": "quantity", "units": units}}


def _coordinates(axes: Axes, origin: Origin) -> dict[str, Any]:
    antennas = axes.antennas
    used = np.unique([antennas.antenna1, antennas.antenna2])
    own = {
        "phase_center_ra": ("time", axes.centre[:, 0], _ANGLE),
        "phase_center_dec": ("time", axes.centre[:, 1], _ANGLE),
    }
    middle = float(axes.frequencies[axes.frequencies.size // 2])
    return {
        "time": ("time", axes.mjd, _time_attributes(axes.integration_s)),
        "baseline_id": np.arange(antennas.antenna1.size),
        "frequency": ("frequency", axes.frequencies, _frequency_attributes(middle, axes.channel_width)),
        "polarization": list(axes.polarizations),
        "uvw_label": ["u", "v", "w"],
        "baseline_antenna1_name": ("baseline_id", antennas.names[antennas.antenna1]),
        "baseline_antenna2_name": ("baseline_id", antennas.names[antennas.antenna2]),
        "field_name": ("time", origin.fields),
        "scan_name": ("time", np.full(axes.mjd.size, "1"), {"scan_intents": ["OBSERVE_TARGET#ON_SOURCE"]}),
        "pointing_ra": ("time", axes.pointing[:, 0], _ANGLE),
        "pointing_dec": ("time", axes.pointing[:, 1], _ANGLE),
        "antenna_name": antennas.names[used],
        "cartesian_pos_label": ["x", "y", "z"],
        "antenna_position": (
            ("antenna_name", "cartesian_pos_label"),
            antennas.positions[used],
            {"type": "location", "units": "m", "frame": "ITRS", "coordinate_system": "geocentric"},
        ),
        **(own if axes.per_integration else {}),
    }


def _time_attributes(integration_s: float) -> dict[str, Any]:
    return {
        "type": "time",
        "units": "d",
        "format": "mjd",
        "scale": "utc",
        "integration_time": _quantity(integration_s, "s"),
    }


def _frequency_attributes(middle_hz: float, width_hz: float) -> dict[str, Any]:
    reference = {"dims": (), "data": middle_hz, "attrs": {"type": "spectral_coord", "units": "Hz", "observer": "TOPO"}}
    return {
        "type": "spectral_coord",
        "units": "Hz",
        "observer": "TOPO",
        "spectral_window_name": "band",
        "spectral_window_intents": ["OBSERVE_TARGET"],
        "reference_frequency": reference,
        "channel_width": _quantity(width_hz, "Hz"),
    }


def _attributes(axes: Axes, origin: Origin, has_model: bool) -> dict[str, Any]:
    start = Time(axes.mjd[0] - axes.integration_s / 2 / 86400, format="mjd", scale="utc").isot
    base = {
        "correlated_data": "VISIBILITY",
        "flag": "FLAG",
        "weight": "WEIGHT",
        "uvw": "UVW",
        "field_and_source": "",
        "description": "as opened",
        "date": start,
    }
    groups = {"base": base}
    if has_model:
        groups["model"] = base | {"correlated_data": "MODEL", "description": "predicted"}
    return {
        "phase_center_ra": float(axes.centre[0, 0]),
        "phase_center_dec": float(axes.centre[0, 1]),
        "integration_time": axes.integration_s,
        "channel_width": axes.channel_width,
        "telescope_name": origin.telescope_name,
        "group_id": origin.group_id,
        **(origin.extra or {}),
        "type": "visibility",
        "schema_version": MSV4_VERSION,
        "creator": {"software_name": "dsa110_contimg", "version": metadata.version("dsa110_contimg")},
        "creation_date": start,
        "observation_info": {"observer": [origin.observer], "release_date": start, "project_UID": origin.project},
        "processor_info": {"type": "CORRELATOR", "sub_type": ""},
        "data_groups": groups,
    }
