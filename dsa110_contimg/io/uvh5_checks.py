"""What must hold in a UVH5 file of DSA-110, and in a group of them.

Every check is of something that would otherwise become a wrong number without a word.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dsa110_contimg import telescope
from dsa110_contimg.exceptions import CorruptFileError
from dsa110_contimg.io.uvh5_header import Header, meridian_uvw

_UVW_TOLERANCE_M = 2e-3  # float32 of 2.6 km is good to 0.12 mm; a wrong frame is off by metres
_SITE_DEG, _SITE_M = 0.01, 100.0
_HANDS = ({"XX", "YY"}, {"XX", "XY", "YX", "YY"})
_FS_TABLE = re.compile(r"_dec([+-]?\d+(?:\.(\d+))?)deg")

Fault = tuple[str, object, object]
"""What is wrong, what was found, what was expected."""


def raise_first(path: Path, faults: Sequence[Fault]) -> None:
    """Raise `CorruptFileError` of the first fault, if there is one."""
    for what, found, expected in faults:
        raise CorruptFileError(what, path=path, found=found, expected=expected)


def check_any(header: Header) -> None:
    """What holds for every telescope: numbers that are numbers, antennas that exist, channels in order."""
    faults: list[Fault] = []
    if not ((header.frequencies > 0) & np.isfinite(header.frequencies)).all():
        raise CorruptFileError("Frequencies are not positive numbers", path=header.path)
    steps = np.diff(header.frequencies)
    if not np.allclose(np.abs(steps), header.channel_width, rtol=1e-6) or np.unique(np.sign(steps)).size > 1:
        faults.append(
            ("Frequencies are not equally spaced by the channel width", steps[:3].tolist(), header.channel_width)
        )
    if len(set(header.polarizations)) != len(header.polarizations):
        faults.append(("A polarisation is there twice", header.polarizations, "each once"))
    low, high = np.minimum(header.antenna1, header.antenna2), np.maximum(header.antenna1, header.antenna2)
    if (n_pairs := np.unique(low * len(header.names) + high).size) != low.size:
        faults.append(("A baseline is there twice within an integration", f"{n_pairs} pairs", low.size))
    if not ((header.mjd > 40000) & (header.mjd < 100000)).all():
        faults.append(("Times are not Julian dates", header.mjd[:2].tolist(), "MJD 40000 to 100000"))
    if not 1e-4 < header.integration_s < 3600.0:
        faults.append(("The integration time is not one", header.integration_s, "s"))
    used = np.unique([header.antenna1, header.antenna2])
    if not np.isfinite(header.positions[used]).all():
        faults.append(("An antenna has no position", header.positions[used].min(), "finite numbers"))
    raise_first(header.path, faults)


def check_ours(header: Header, latitude_deg: float, altitude_m: float, uvw: NDArray[np.floating]) -> None:
    """What holds for DSA-110.

    Parameters
    ----------
    header : Header
    latitude_deg, altitude_m : of the array, from the file.
    uvw : (baseline, 3) of the first integration, or (time, baseline, 3) of a phased file; m, from the file.

    Raises
    ------
    CorruptFileError
    """
    faults: list[Fault] = []
    if not (header.frequencies.min() > 1.2e9 and header.frequencies.max() < 1.6e9):
        faults.append(("Frequencies are outside the band", header.frequencies[[0, -1]].tolist(), "1.31e9 to 1.50e9 Hz"))
    if not -np.pi / 2 < header.pointing_dec < np.pi / 2:
        faults.append(("phase_center_dec is not an angle in radians", header.pointing_dec, "-1.57 to 1.57"))
    site = (latitude_deg, header.longitude_deg, altitude_m)
    true = (telescope.LATITUDE_DEG, telescope.LONGITUDE_DEG, telescope.HEIGHT_M)
    limits = (_SITE_DEG, _SITE_DEG, _SITE_M)
    if not all(abs(a - b) <= limit for a, b, limit in zip(site, true, limits, strict=True)):
        faults.append(("The array is not at its place", site, true))
    if header.names != tuple(str(slot + 1) for slot in range(len(header.names))):
        faults.append(("Antenna names are not the station numbers", header.names[:3], "1, 2, 3, ..."))
    if not (np.abs(header.diameters - telescope.DISH_DIAMETER_M) < 0.05).all():
        faults.append(("antenna_diameters are not those of the dishes", header.diameters.max(), "4.65 m"))
    if set(header.polarizations) not in _HANDS:
        faults.append(("Polarisations are not those of the telescope", header.polarizations, "XX, YY, or all four"))
    steps = np.diff(header.mjd) * 86400
    if not 1.0 < header.integration_s < 60.0 or not (np.abs(steps / header.integration_s - 1) < 0.01).all():
        faults.append(("Times are not one integration apart", steps[:3].tolist(), header.integration_s))
    raise_first(header.path, faults)
    offset = _off_meridian(header, uvw) if header.centres is None else _off_any_frame(header, uvw)
    if not offset <= _UVW_TOLERANCE_M:
        what = (
            "that of hour angle 0 at the pointing" if header.centres is None else "the baselines turned to a direction"
        )
        raise CorruptFileError(
            f"uvw_array is not {what}", path=header.path, found=f"{offset:.4f} m off", expected="below 2 mm"
        )


def _off_meridian(header: Header, uvw: NDArray[np.floating]) -> float:
    return float(np.abs(uvw - meridian_uvw(header)).max())


def _off_any_frame(header: Header, uvw: NDArray[np.floating]) -> float:
    """Largest distance (m) of any uvw from the linear map of the baselines that fits its integration best."""
    fit = np.linalg.pinv(header.baselines)
    return max(float(np.abs(one - header.baselines @ (fit @ one)).max()) for one in uvw.astype(np.float64))


def check_fringestopping_table(header: Header, name: str) -> None:
    """Compare the declination with the one in the fringestopping table's name (``..._dec54.6deg_96ant.npz``).

    Raises
    ------
    CorruptFileError
        They differ by more than the precision of the name.
    """
    match = _FS_TABLE.search(name)
    if match is None:
        return
    precision = 10.0 ** -len(match.group(2) or "")
    if not abs(np.degrees(header.pointing_dec) - float(match.group(1))) <= precision:
        raise CorruptFileError(
            "phase_center_dec and the fringestopping table disagree on the declination",
            path=header.path,
            found=f"phase_center_dec {np.degrees(header.pointing_dec):.4f} deg",
            expected=f"{match.group(1)} deg, of {name}",
        )


def require_same(first: Header, other: Header) -> None:
    """Raise `CorruptFileError` unless two files of a group fit: all but the subband is the same, and that differs."""
    for what, one, two in (
        ("numbers of integrations", first.mjd.size, other.mjd.size),
        ("numbers of baselines", first.antenna1.size, other.antenna1.size),
        ("numbers of channels", first.frequencies.size, other.frequencies.size),
        ("polarisations", first.polarizations, other.polarizations),
        ("pointing declinations (rad)", round(first.pointing_dec, 6), round(other.pointing_dec, 6)),
        ("integration times (s)", round(first.integration_s, 3), round(other.integration_s, 3)),
    ):
        if one != two:
            raise CorruptFileError(
                f"Two subbands of a group have different {what}", path=other.path, found=two, expected=one
            )
    if (first.antenna1 != other.antenna1).any() or (first.antenna2 != other.antenna2).any():
        raise CorruptFileError("Two subbands of a group have different baselines", path=other.path, expected=first.path)
    if not np.abs(first.baselines - other.baselines).max() <= _UVW_TOLERANCE_M:
        raise CorruptFileError(
            "Two subbands of a group have different antenna positions", path=other.path, expected=first.path
        )
    _require_same_centre(first, other)
    lag = float(np.abs(first.mjd - other.mjd).max() * 86400)
    # subbands are started within seconds of each other; half an integration would mix different sky
    if lag > telescope.INTEGRATION_S / 2:
        raise CorruptFileError(
            "Two subbands of a group are not simultaneous",
            path=other.path,
            found=f"{lag:.1f} s apart",
            expected=first.path,
        )


def _require_same_centre(first: Header, other: Header) -> None:
    one, two = first.centres, other.centres
    if (one is None) != (two is None) or (
        one is not None
        and two is not None
        and (
            one.stopped != two.stopped or not np.abs(_vectors(one.ra, one.dec) - _vectors(two.ra, two.dec)).max() < 1e-9
        )
    ):
        raise CorruptFileError(
            "Two subbands of a group are phased to different directions", path=other.path, expected=first.path
        )


def _vectors(ra: NDArray[np.float64], dec: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)])


def require_contiguous(headers: Sequence[Header]) -> None:
    """Raise unless the channels of several files make one grid, with no gap but that of whole missing files.

    Parameters
    ----------
    headers : sequence of Header
        Of one group, in any order.

    Raises
    ------
    CorruptFileError
        Naming the two files between which the channels do not continue.
    """
    ordered = sorted(headers, key=lambda header: float(header.frequencies.min()))
    for lower, upper in itertools.pairwise(ordered):
        width, n_channels = lower.channel_width, lower.frequencies.size
        gap = (upper.frequencies.min() - lower.frequencies.max()) / width - 1
        missing = round(gap / n_channels)
        if missing < 0 or abs(gap - missing * n_channels) > 0.01 or abs(upper.channel_width / width - 1) > 1e-6:
            raise CorruptFileError(
                "The frequencies of two subbands do not continue each other",
                path=upper.path,
                found=f"{gap:.3f} channels between it and {lower.path.name}",
                expected=f"none, or a whole number of subbands of {n_channels}",
            )
