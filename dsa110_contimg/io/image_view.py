"""Headers of images as anybody writes them, read into the coordinates and attributes of an Image view.

Axes come in any order, beams in the history, dates in the style of 1984, or nothing of it at all. What a header does
not say is NaN or None here, never a guess.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import xarray as xr
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS, FITSFixedWarning, WcsError
from astropy.wcs.utils import wcs_to_celestial_frame
from numpy.typing import NDArray

from dsa110_contimg.exceptions import CorruptFileError

DIMS = ("time", "frequency", "polarization", "l", "m")

ReadPlane = Callable[[tuple[int, ...]], NDArray[np.float32]]
"""The plane ``[y, x]`` at an index on the axes before the last two."""

_STOKES = {
    1: "I",
    2: "Q",
    3: "U",
    4: "V",
    -1: "RR",
    -2: "LL",
    -3: "RL",
    -4: "LR",
    -5: "XX",
    -6: "YY",
    -7: "XY",
    -8: "YX",
}
_AIPS_BEAM = re.compile(r"CLEAN\s+BMAJ=\s*(\S+)\s+BMIN=\s*(\S+)\s+BPA=\s*(\S+)")
_NUMBERS = (("bandwidth_hz", "BANDWID"), ("noise_jy", "RESNOISE"), ("vafactor", "VAFACTOR"))
_WORDS = (("telescope_name", "TELESCOP"), ("group_id", "OBJECT"), ("tier", "TIER"), ("imager", "IMAGER"))


@dataclass(frozen=True)
class SkyAxes:
    """What the axes of an image are.

    Attributes
    ----------
    wcs : of all axes.
    shape : in numpy's order, (..., y, x).
    frequency_axis, stokes_axis : in that order; None where there is none.
    """

    wcs: WCS
    shape: tuple[int, ...]
    frequency_axis: int | None
    stokes_axis: int | None

    def length(self, axis: int | None) -> int:
        """Of an axis that may not be there."""
        return 1 if axis is None else self.shape[axis]

    def index(self, channel: int, hand: int) -> tuple[int, ...]:
        """Of a plane, on the axes before the last two."""
        found = [0] * (len(self.shape) - 2)
        for axis, value in ((self.frequency_axis, channel), (self.stokes_axis, hand)):
            if axis is not None:
                found[axis] = value
        return tuple(found)


def sky_axes(header: fits.Header, path: Path) -> SkyAxes:
    """Find the axes of the sky, of frequency and of polarisation in a FITS header.

    Raises
    ------
    CorruptFileError
        No celestial coordinates, axes of the sky that are not the first two, or another axis longer than one.
    """
    n_axes = int(header.get("NAXIS", 0))
    shape = tuple(int(header[f"NAXIS{i}"]) for i in range(n_axes, 0, -1))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FITSFixedWarning)  # old styles of dates and units, which it mends
            wcs = WCS(header)
    except (WcsError, ValueError, KeyError, TypeError) as error:
        raise CorruptFileError("The coordinates of the image cannot be read", path=path, found=error) from error
    if n_axes < 2 or (wcs.wcs.lng, wcs.wcs.lat) != (0, 1):
        found = [str(kind) for kind in wcs.wcs.ctype] if n_axes else "no pixels"
        raise CorruptFileError("Not an image of the sky", path=path, found=found, expected="first axes like RA, DEC")
    kinds = [str(kind) for kind in wcs.wcs.ctype]
    spectral = int(wcs.wcs.spec)
    places = (spectral if spectral >= 0 else None, kinds.index("STOKES") if "STOKES" in kinds else None)
    known = {0, 1, *(place for place in places if place is not None)}
    others = {kind: n for i, (kind, n) in enumerate(zip(kinds, shape[::-1], strict=False)) if i not in known and n > 1}
    if others:
        raise CorruptFileError("An axis of the image is not known", path=path, found=others, expected="FREQ or STOKES")
    # a header may describe more axes than there are pixels for: they have one value
    where = [None if place is None or place >= n_axes else n_axes - 1 - place for place in places]
    return SkyAxes(wcs, shape, *where)


def image_view(
    header: fits.Header, planes: Mapping[str, tuple[ReadPlane | NDArray[np.float32], str | None]], path: Path
) -> xr.Dataset:
    """The Image view of planes that share a header.

    Parameters
    ----------
    header : of the first image.
    planes : variable -> (what reads one plane, or the only plane ``[y, x]`` itself; unit, None if not known).
    path : for errors.

    Raises
    ------
    CorruptFileError
        As `sky_axes`.
    """
    axes = sky_axes(header, path)
    variables = {}
    for name, (source, unit) in planes.items():
        values = _lazy(axes, source) if callable(source) else source.T[None, None, None]
        variables[name] = (DIMS, values, {} if unit is None else {"units": unit})
    return xr.Dataset(variables, coords=_coordinates(axes), attrs=_attributes(axes, header))


def _lazy(axes: SkyAxes, read: ReadPlane) -> da.Array:
    n_y, n_x = axes.shape[-2:]

    def plane(channel: int, hand: int) -> da.Array:
        return da.from_delayed(dask.delayed(read)(axes.index(channel, hand)), (n_y, n_x), np.float32).T

    hands = range(axes.length(axes.stokes_axis))
    channels = [da.stack([plane(f, p) for p in hands]) for f in range(axes.length(axes.frequency_axis))]
    return da.stack(channels)[None]


def _coordinates(axes: SkyAxes) -> dict[str, Any]:
    wcs = axes.wcs.wcs
    steps = wcs.get_cdelt() if wcs.has_cd() is False else np.sqrt((axes.wcs.pixel_scale_matrix**2).sum(axis=0))
    signs = np.sign(np.diag(axes.wcs.pixel_scale_matrix)[:2])
    steps = np.where(signs == 0, 1.0, signs) * np.abs(steps[:2])
    n_y, n_x = axes.shape[-2:]
    l, m = (np.radians(steps[i]) * (np.arange(n) + 1 - wcs.crpix[i]) for i, n in enumerate((n_x, n_y)))
    start, end = wcs.mjdobs, wcs.mjdend
    middle = wcs.mjdavg if np.isfinite(wcs.mjdavg) else (start + end) / 2 if np.isfinite(end) else start
    return {
        "time": ("time", [float(middle)], {"units": "d", "format": "mjd"}),
        "frequency": ("frequency", _frequencies(axes), {"units": "Hz"}),
        "polarization": ("polarization", _polarizations(axes)),
        "l": ("l", l),
        "m": ("m", m),
    }


def _frequencies(axes: SkyAxes) -> NDArray[np.float64]:
    """Centres of the channels (Hz), of velocities too where the header has a rest frequency; NaN if it does not say."""
    number, place = axes.length(axes.frequency_axis), int(axes.wcs.wcs.spec)
    unknown = np.full(number, np.nan)
    if place < 0:
        return unknown
    spectral = axes.wcs.sub([place + 1])
    try:
        if not str(spectral.wcs.ctype[0]).startswith("FREQ"):
            if not spectral.wcs.restfrq > 0:
                return unknown
            spectral.wcs.sptr("FREQ-???")
        found = np.asarray(spectral.wcs_pix2world(np.arange(number, dtype=np.float64), 0)[0], np.float64)
    except (WcsError, ValueError):
        return unknown
    return np.where(found > 0, found, np.nan)


def _polarizations(axes: SkyAxes) -> list[str]:
    """Names by the codes of FITS; empty where the header does not say."""
    number = axes.length(axes.stokes_axis)
    kinds = [str(kind) for kind in axes.wcs.wcs.ctype]
    if "STOKES" not in kinds:
        return [""] * number
    place, wcs = kinds.index("STOKES"), axes.wcs.wcs
    codes = wcs.crval[place] + (np.arange(number) + 1 - wcs.crpix[place]) * axes.wcs.pixel_scale_matrix[place, place]
    return [_STOKES.get(round(float(code)), "") for code in codes]


def _attributes(axes: SkyAxes, header: fits.Header) -> dict[str, Any]:
    celestial, wcs = axes.wcs.celestial, axes.wcs.wcs
    try:
        frame = wcs_to_celestial_frame(celestial)
    except ValueError:  # coordinates of the ecliptic or of the sun, which have no fixed place on the sky
        frame, ra, dec = None, float("nan"), float("nan")
    else:
        place = SkyCoord(*celestial.wcs.crval * u.deg, frame=frame).icrs
        ra, dec = float(place.ra.rad), float(place.dec.rad)
    found: dict[str, Any] = {
        "phase_center_ra": ra,
        "phase_center_dec": dec,
        "beam_deg": _beam(header),
        "mjd_start": float(wcs.mjdobs),
        "mjd_end": float(wcs.mjdend),
        "frame": None if frame is None else str(frame.name),
        "projection": str(celestial.wcs.ctype[0])[5:] or None,
        "wcs": celestial.to_header_string(relax=True),
    }
    for name, key in _NUMBERS:
        value = header.get(key)
        found[name] = float(value) if isinstance(value, (int, float)) else float("nan")
    for name, key in _WORDS:
        found[name] = str(header[key]).strip() or None if key in header else None
    return found


def _beam(header: fits.Header) -> tuple[float, float, float]:
    """FWHM major, minor, position angle (deg): of the keywords, or of AIPS's last line in the history."""
    major, minor, angle = (header.get(key) for key in ("BMAJ", "BMIN", "BPA"))
    if isinstance(major, (int, float)) and isinstance(minor, (int, float)) and major > 0 and minor > 0:
        # a round beam needs no angle
        angle = angle if isinstance(angle, (int, float)) else 0.0 if major == minor else float("nan")
        return float(major), float(minor), float(angle)
    lines = [str(line) for line in header.get("HISTORY", [])]
    told = [match for line in lines if (match := _AIPS_BEAM.search(line))]
    if told:
        a, b, c = (float(value) for value in told[-1].groups())
        return a, b, c
    return float("nan"), float("nan"), float("nan")
