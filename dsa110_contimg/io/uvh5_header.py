"""What the header of a UVH5 file says, in our own words, and the geometry that follows from it.

Sign of the visibilities in a file (pyuvdata's): V(ant1, ant2) = sum S exp(+2 pi i (w_source - w_phase) f / c), with w
the component of position(ant2) - position(ant1). In a file as recorded the phase direction of every integration is hour
angle 0 at the pointing declination.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dsa110_contimg import telescope
from dsa110_contimg.exceptions import InputError

POLARIZATIONS = {
    -5: "XX", -6: "YY", -7: "XY", -8: "YX", -1: "RR", -2: "LL", -3: "RL", -4: "LR", 1: "I", 2: "Q", 3: "U", 4: "V",
}  # fmt: skip
"""AIPS numbers of correlations."""
_OFF_GRID = 0.01
"""Channels, of a whole number, by which two files may differ: what is left of rounding is far less."""


@dataclass(frozen=True)
class PhaseCentres:
    """Where the fringes of each integration are stopped, in a file that is not as the telescope recorded it.

    Attributes
    ----------
    ra, dec : (time,) rad, ICRS.
    stopped : False if the phases were left as they arrived; then (ra, dec) is the zenith, and V = sum S
        exp(+2 pi i w_source f / c).
    """

    ra: NDArray[np.float64]
    dec: NDArray[np.float64]
    stopped: bool = True

    @property
    def fixed(self) -> bool:
        """Whether all integrations share one."""
        return bool(np.ptp(self.ra) == 0 and np.ptp(self.dec) == 0)


@dataclass(frozen=True)
class Header:
    """The checked header of one file.

    Attributes
    ----------
    mjd : (time,) centres of the integrations (MJD UTC).
    antenna1, antenna2 : (baseline,) index into ``names`` and ``positions`` (DSA-110: the 117 slots), in the file's
        order, which is not sorted.
    positions : (antenna, 3) ITRF (m), absolute.
    frequencies : (frequency,) Hz, in the file's order (descending in the writer).
    pointing_dec : apparent declination of the beam (rad); NaN for another telescope.
    longitude_deg : of the meridian that hour angles refer to.
    uvw : (time, baseline, 3) m of a file that is not as recorded, position(antenna 2) - position(antenna 1).
    centres : of a file that is not as recorded; None: hour angle 0 at the pointing declination.
    """

    path: Path
    mjd: NDArray[np.float64]
    antenna1: NDArray[np.int64]
    antenna2: NDArray[np.int64]
    positions: NDArray[np.float64]
    names: tuple[str, ...]
    diameters: NDArray[np.float64]
    frequencies: NDArray[np.float64]
    channel_width: float
    integration_s: float
    polarizations: tuple[str, ...]
    pointing_dec: float
    longitude_deg: float
    telescope_name: str = telescope.HEADER_TELESCOPE_NAME
    uvw: NDArray[np.float64] | None = None
    centres: PhaseCentres | None = None

    @property
    def baselines(self) -> NDArray[np.float64]:
        """(baseline, 3) position(antenna 2) - position(antenna 1), ITRF (m)."""
        return self.positions[self.antenna2] - self.positions[self.antenna1]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(row, channel, polarization) of the visibilities; rows are time-major."""
        return self.mjd.size * self.antenna1.size, self.frequencies.size, len(self.polarizations)

    @property
    def ours(self) -> bool:
        """Whether it is of DSA-110."""
        return self.telescope_name in (telescope.HEADER_TELESCOPE_NAME, telescope.TELESCOPE_NAME)


def meridian_uvw(header: Header) -> NDArray[np.float64]:
    """(baseline, 3) uvw (m, double precision) at hour angle 0 and the apparent pointing declination.

    Raises
    ------
    InputError
        The file has been phased since it was recorded.
    """
    if header.centres is not None:
        raise InputError(
            "The file is not as the telescope recorded it: its visibilities are phased to another direction",
            path=header.path,
            found=f"RA {np.degrees(header.centres.ra[0]):.4f}, Dec {np.degrees(header.centres.dec[0]):.4f} deg",
            expected="hour angle 0 at the pointing declination",
        )
    lon, dec = np.radians(header.longitude_deg), header.pointing_dec
    u_axis = np.array([-np.sin(lon), np.cos(lon), 0.0])
    v_axis = np.array([-np.sin(dec) * np.cos(lon), -np.sin(dec) * np.sin(lon), np.cos(dec)])
    w_axis = np.array([np.cos(dec) * np.cos(lon), np.cos(dec) * np.sin(lon), np.sin(dec)])
    return header.baselines @ np.stack([u_axis, v_axis, w_axis], axis=-1)


def subband_number(frequencies_hz: NDArray[np.float64]) -> int:
    """Which of the 16 subbands a set of channels is (0 is the highest).

    Raises
    ------
    InputError
        Channels that are not those of one subband.
    """
    channel = (telescope.TOP_FREQUENCY_HZ - float(frequencies_hz.max())) / telescope.CHANNEL_WIDTH_HZ
    number = round(channel / telescope.N_CHANNELS_PER_SUBBAND)
    last = (telescope.TOP_FREQUENCY_HZ - float(frequencies_hz.min())) / telescope.CHANNEL_WIDTH_HZ
    first = number * telescope.N_CHANNELS_PER_SUBBAND
    if (
        abs(channel - first) > _OFF_GRID
        or abs(last - first - telescope.N_CHANNELS_PER_SUBBAND + 1) > _OFF_GRID
        or frequencies_hz.size != telescope.N_CHANNELS_PER_SUBBAND
        or not 0 <= number < telescope.N_SUBBANDS
    ):
        raise InputError(
            "Channels are not those of a subband",
            found=f"{frequencies_hz.size} from {frequencies_hz.min():.0f} to {frequencies_hz.max():.0f} Hz",
            expected=f"48 of the {telescope.N_CHANNELS} below {telescope.TOP_FREQUENCY_HZ:.0f} Hz, all of one subband",
        )
    return number
