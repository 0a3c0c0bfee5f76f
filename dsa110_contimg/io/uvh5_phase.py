"""Where the visibilities of a UVH5 file are phased to, in the two ways in which pyuvdata has written it down.

Old files: `phase_type`, and `phase_center_ra`, `_dec`, `_frame`, `_epoch`. New ones (UVH5 memo, version 1.1 and later):
`phase_center_catalog` and the index `phase_center_id_array` into it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
from astropy import units as u
from astropy.coordinates import FK5, ICRS, AltAz, EarthLocation, SkyCoord
from astropy.time import Time
from numpy.typing import NDArray

from dsa110_contimg.exceptions import CorruptFileError, InputError
from dsa110_contimg.io.uvh5_header import PhaseCentres


def phase_centres(path: Path, head: h5py.Group, n_times: int, n_baselines: int) -> PhaseCentres | None:
    """Where the integrations of a file are phased to; None if the header says that they are not.

    Parameters
    ----------
    path : Path
    head : the header.
    n_times, n_baselines : int

    Raises
    ------
    InputError
        A kind of phase centre that we do not read, or several within an integration.
    CorruptFileError
        The entries contradict each other.
    """
    if "phase_center_catalog" in head:
        return _of_catalog(path, head, n_times, n_baselines)
    kind = _text(head["phase_type"][()]) if "phase_type" in head else "drift"
    if kind == "drift":
        return None
    if kind != "phased":
        raise CorruptFileError("phase_type is unknown", path=path, found=kind, expected="drift or phased")
    frame = _text(head["phase_center_frame"][()]) if "phase_center_frame" in head else "icrs"
    epoch = float(head["phase_center_epoch"][()]) if frame != "icrs" and "phase_center_epoch" in head else 2000.0
    ra, dec = _icrs(path, frame, epoch, float(head["phase_center_ra"][()]), float(head["phase_center_dec"][()]))
    return PhaseCentres(np.full(n_times, ra), np.full(n_times, dec))


def _of_catalog(path: Path, head: h5py.Group, n_times: int, n_baselines: int) -> PhaseCentres | None:
    data = head["phase_center_id_array"]
    if data.shape != (n_times * n_baselines,):
        raise CorruptFileError("phase_center_id_array has the wrong shape", path=path, found=data.shape)
    ids = np.asarray(data[:]).reshape(n_times, n_baselines)
    if (ids != ids[:, :1]).any():
        raise InputError("Baselines of one integration are phased to different directions", path=path)
    ra, dec = np.empty(n_times), np.empty(n_times)
    kinds = set()
    for one in np.unique(ids[:, 0]):
        entry = head["phase_center_catalog"][str(int(one))]
        kind = _text(entry["cat_type"][()])
        kinds.add(kind)
        if kind == "sidereal":
            epoch = _number(entry, "cat_epoch", 2000.0)
            where = (float(entry["cat_lon"][()]), float(entry["cat_lat"][()]))
            ra[ids[:, 0] == one], dec[ids[:, 0] == one] = _icrs(path, _text(entry["cat_frame"][()]), epoch, *where)
    if kinds == {"unprojected"}:
        return None
    if kinds != {"sidereal"}:
        raise InputError(
            "The file has a phase centre that is not read",
            path=path,
            found=sorted(kinds),
            expected="sidereal, or unprojected",
        )
    return PhaseCentres(ra, dec)


def _icrs(path: Path, frame: str, epoch: float, lon: float, lat: float) -> tuple[float, float]:
    """ICRS direction (rad) of one in the frame of a header."""
    if not (np.isfinite([lon, lat, epoch]).all() and abs(lat) <= np.pi / 2 and abs(lon) <= 4 * np.pi):
        raise CorruptFileError("The phase centre is not a direction in radians", path=path, found=(lon, lat))
    if frame == "icrs":
        return lon % (2 * np.pi), lat
    if frame != "fk5":
        raise InputError(
            "The phase centre is in a frame that is not read", path=path, found=frame, expected="icrs, fk5"
        )
    there = SkyCoord(lon * u.rad, lat * u.rad, frame=FK5(equinox=Time(epoch, format="jyear"))).transform_to(ICRS())
    return float(there.ra.rad), float(there.dec.rad)


def zenith(mjd: NDArray[np.float64], place: EarthLocation) -> PhaseCentres:
    """The zenith of each integration, where unstopped fringes are counted from."""
    when = Time(mjd, format="mjd", scale="utc")
    up = SkyCoord(
        np.zeros(mjd.size) * u.rad, np.full(mjd.size, 90.0) * u.deg, frame=AltAz(obstime=when, location=place)
    )
    there = up.transform_to(ICRS())
    return PhaseCentres(there.ra.rad, there.dec.rad, stopped=False)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _number(group: h5py.Group, name: str, default: float) -> float:
    """A number that may be absent, or there as an empty entry."""
    if name not in group or group[name].shape is None:
        return default
    return float(group[name][()])
