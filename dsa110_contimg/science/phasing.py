"""Phase rotation: from the fringestopped meridian, or any phase centre, to one phase centre.

With V = sum S exp(+2 pi i (w_source - w_phase) f / c), moving the phase centre multiplies a visibility by
exp(+2 pi i (w_old - w_new) f / c). The factor is linear in frequency, so one sine and cosine per baseline and time and
a recurrence over the channels do it. The recurrence runs in double precision: over 48 channels it is exact to 1e-14.

`phase_to` works on Datasets, block by block where they are lazy. Blocks are turned by several threads of dask at once,
so the kernel under it uses one each. Conversion has a kernel of its own (`assembly`), which also puts rows in place.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import xarray as xr
from astropy import units as u
from astropy.coordinates import SkyCoord
from numba import njit
from numpy.typing import NDArray
from scipy.constants import speed_of_light

from dsa110_contimg import schema
from dsa110_contimg.exceptions import InputError
from dsa110_contimg.science.coordinates import circular_mean, uvw_frame

Direction: TypeAlias = SkyCoord | tuple[float, float]
"""A direction in any frame, or ICRS right ascension and declination (rad)."""

_EVEN_HZ = 1e-2
"""How far channels may lie from an even grid that is stepped along: 1e-6 rad of phase over 5 km."""


@njit(nogil=True, cache=True)
def _turn(
    visibilities: NDArray[np.complex64],
    delta_w_m: NDArray[np.float64],
    frequencies_hz: NDArray[np.float64],
    anchor: NDArray[np.bool_],
    step_hz: float,
    out: NDArray[np.complex64],
) -> None:
    """Multiply (time, baseline, frequency, polarization) by exp(2 pi i delta_w f / c), delta_w (time, baseline) in m.

    At an ``anchor`` channel the factor is computed, from there on it is stepped by ``step_hz``.
    """
    n_time, n_baseline, n_channel, n_pol = visibilities.shape
    for time in range(n_time):
        for baseline in range(n_baseline):
            delay = delta_w_m[time, baseline] / speed_of_light
            angle = 2.0 * np.pi * delay * step_hz
            step = complex(np.cos(angle), np.sin(angle))
            factor = 1.0 + 0.0j
            for channel in range(n_channel):
                if anchor[channel]:
                    turns = delay * frequencies_hz[channel]
                    angle = 2.0 * np.pi * (turns - np.floor(turns))
                    factor = complex(np.cos(angle), np.sin(angle))
                for pol in range(n_pol):
                    out[time, baseline, channel, pol] = visibilities[time, baseline, channel, pol] * factor
                factor *= step


def _anchors(frequencies_hz: NDArray[np.float64]) -> tuple[NDArray[np.bool_], float]:
    """Channels at which a run of evenly spaced ones begins, and the spacing (Hz)."""
    step = float(np.median(np.diff(frequencies_hz))) if frequencies_hz.size > 1 else 0.0
    anchor = np.zeros(frequencies_hz.size, bool)
    begin = 0
    for channel, frequency in enumerate(frequencies_hz):
        if channel == 0 or abs(frequency - frequencies_hz[begin] - (channel - begin) * step) > _EVEN_HZ:
            anchor[channel] = True
            begin = channel
    return anchor, step


def _turned(
    visibilities: NDArray[np.complex64], delta_w_m: NDArray[np.float64], frequencies_hz: NDArray[np.float64]
) -> NDArray[np.complex64]:
    """One block: visibilities (time, baseline, frequency, polarization), w_old - w_new (time, baseline, 1, 1)."""
    data = np.ascontiguousarray(visibilities, np.complex64)
    out = np.empty_like(data)
    frequencies = np.ascontiguousarray(frequencies_hz, np.float64).ravel()
    if frequencies.size:
        delta = np.ascontiguousarray(delta_w_m, np.float64).reshape(data.shape[:2])
        _turn(data, delta, frequencies, *_anchors(frequencies), out)
    return out


def radec(direction: Direction) -> tuple[float, float]:
    """ICRS right ascension in [0, 2 pi) and declination (rad) of a direction.

    Raises
    ------
    InputError
        Not one direction, or not finite, or a declination beyond the poles.
    """
    if isinstance(direction, SkyCoord):
        if not direction.isscalar:
            raise InputError("Not one direction", found=f"{direction.size} directions", expected="1")
        icrs = direction.icrs
        direction = (float(icrs.ra.rad), float(icrs.dec.rad))
    try:
        ra, dec = (float(angle) for angle in direction)
    except (TypeError, ValueError) as error:
        raise InputError("Not a direction", found=direction, expected="a SkyCoord, or two angles in rad") from error
    if not (np.isfinite(ra) and abs(dec) <= np.pi / 2):
        raise InputError(
            "Not a direction", found=f"({ra}, {dec})", expected="a SkyCoord, or right ascension and declination in rad"
        )
    return ra % (2.0 * np.pi), dec


def _name(ra_rad: float, dec_rad: float) -> str:
    """``J052109.9+163822.1``: what the one field of a rephased view is called."""
    text: str = SkyCoord(ra_rad * u.rad, dec_rad * u.rad).to_string("hmsdms", sep="", precision=1, pad=True)
    return "J" + text.replace(" ", "")


def uvw_from_positions(
    positions: NDArray[np.float64],
    antenna1: NDArray[np.int64],
    antenna2: NDArray[np.int64],
    direction: Direction,
    mjd_utc: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Coordinates of baselines towards a direction, in the sense of a Measurement Set.

    Parameters
    ----------
    positions : (antenna, 3)
        ITRF (m).
    antenna1, antenna2 : (baseline,)
        Rows of ``positions``.
    direction : SkyCoord or (ra, dec)
        Phase centre; a pair is ICRS (rad).
    mjd_utc : (time,)

    Returns
    -------
    (time, baseline, 3)
        u, v, w (m) of position(antenna 1) - position(antenna 2), oriented as `science.coordinates.uvw_frame` says.
    """
    return uvw_frame(*radec(direction), mjd_utc).uvw(positions[antenna1] - positions[antenna2])


def uvw(dataset: xr.Dataset, direction: Direction) -> xr.DataArray:
    """UVW (time, baseline_id, uvw_label) in m of a Visibilities view towards a direction, from its antenna positions.

    Raises
    ------
    InputError
        The view carries no antenna positions, or not those of all its antennas.
    """
    if "antenna_position" not in dataset.coords:
        raise InputError(
            "The antenna positions are not known",
            found="no coordinate antenna_position",
            expected="antenna_position (antenna_name, cartesian_pos_label), m, ITRF",
        )
    row = {str(name): index for index, name in enumerate(dataset["antenna_name"].to_numpy())}
    ends = [[str(name) for name in dataset[f"baseline_antenna{i}_name"].to_numpy()] for i in (1, 2)]
    unknown = sorted({*ends[0], *ends[1]} - row.keys())
    if unknown:
        raise InputError("The positions of some antennas are not known", found=unknown, expected=sorted(row))
    index = np.array([[row[name] for name in names] for names in ends], np.int64).reshape(2, -1)
    positions = np.asarray(dataset["antenna_position"].to_numpy(), np.float64)
    values = uvw_from_positions(positions, index[0], index[1], direction, dataset["time"].to_numpy())
    return xr.DataArray(values, dims=("time", "baseline_id", "uvw_label"), attrs=dataset["UVW"].attrs)


def phase_to(dataset: xr.Dataset, direction: Direction) -> xr.Dataset:
    """Turn a Visibilities view to a phase centre.

    V' = V exp(+2 pi i (w_old - w_new) f / c), with w_old from ``UVW`` (of averaged integrations, from the positions at
    their mean time) and w_new from the antenna positions. VISIBILITY
    and, where there is one, MODEL are turned; flags, weights and pointings are carried. The correlator's own averaging
    was about the old centre and stays so: what it lost far from there does not come back.

    Parameters
    ----------
    dataset : Visibilities view
        With coordinate ``antenna_position``. Integrations may have phase centres of their own, as in a raw group.
    direction : SkyCoord or (ra, dec)
        In any frame; a pair is ICRS (rad).

    Returns
    -------
    xarray.Dataset
        One phase centre, in the attributes ``phase_center_ra`` and ``phase_center_dec``; coordinates of these names
        are gone, and ``field_name``, where there is one, is one name. Lazy where the input is lazy.

    Raises
    ------
    InputError
        No antenna positions, or not a direction.
    """
    schema.check(dataset, schema.VISIBILITIES)
    ra, dec = radec(direction)
    new, old = uvw(dataset, (ra, dec)), dataset["UVW"]
    if dataset.attrs.get("averaged_integrations", 1) > 1:
        # UVW is then a mean over what was not flagged, which no one time has: both centres are taken at one time
        before = uvw(dataset, (dataset.attrs["phase_center_ra"], dataset.attrs["phase_center_dec"]))
        delta = (before - new).isel(uvw_label=2, drop=True)
        new = old - (before - new)
    else:
        delta = (old - new).isel(uvw_label=2, drop=True)
    # where data are not rectangular, a baseline that a time lacks has no UVW and is flagged
    delta = delta.where(delta.notnull(), 0.0)
    turned = {
        name: xr.apply_ufunc(
            _turned,
            dataset[name],
            delta.reset_coords(drop=True),
            dataset["frequency"].variable,
            dask="parallelized",
            output_dtypes=[np.complex64],
            keep_attrs="override",
        )
        for name in ("VISIBILITY", "MODEL")
        if name in dataset
    }
    out = dataset.assign(**turned, UVW=new).drop_vars(["phase_center_ra", "phase_center_dec"], errors="ignore")
    if "field_name" in out.coords:
        out = out.assign_coords(field_name=("time", np.full(out.sizes["time"], _name(ra, dec))))
    return schema.check(out.assign_attrs(phase_center_ra=ra, phase_center_dec=dec), schema.VISIBILITIES)


def of_one_centre(dataset: xr.Dataset) -> xr.Dataset:
    """Integrations that have phase centres of their own are turned to the middle of them."""
    if "phase_center_ra" not in dataset.coords:
        return dataset
    ra, dec = (dataset[f"phase_center_{name}"].to_numpy() for name in ("ra", "dec"))
    return phase_to(dataset, (float(circular_mean(ra)), float(dec.mean())))
