"""FITS cubes over frequency or time: planes on one grid, each with a beam of its own in the table BEAMS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from astropy.io import fits
from astropy.table import Table
from numpy.typing import NDArray

from dsa110_contimg.io.files import beside
from dsa110_contimg.io.fits import ImageHeader

BEAMS_TABLE = "BEAMS"
Axis = tuple[Literal["FREQ", "TIME"], float, float]
"""Kind, value of the first plane, and step."""


@dataclass(frozen=True)
class PlaneHeader:
    """What differs from plane to plane.

    Attributes
    ----------
    beam_deg : FWHM major, minor, position angle (deg); NaN where there are no data.
    frequency_hz : weighted mean.
    mjd : middle (UTC).
    noise_jy, thermal_noise_jy : Jy/beam.
    """

    beam_deg: tuple[float, float, float]
    frequency_hz: float
    mjd: float
    noise_jy: float
    thermal_noise_jy: float


def write_cube(
    path: Path,
    planes: NDArray[np.float32],
    header: ImageHeader,
    unit: str,
    axis: Axis,
    each: Sequence[PlaneHeader],
) -> None:
    """Write planes ``[plane, y, x]`` as a FITS cube: RA, DEC, FREQ, STOKES, and TIME where they are times.

    Parameters
    ----------
    path : Path
    planes : (plane, n, n)
        NaN where there are no data.
    header : ImageHeader
        Of the observation; its beam is the mean beam.
    unit : str
        BUNIT.
    axis : kind, value of the first plane, and step
        FREQ in Hz; TIME in seconds from DATE-OBS to the middle of the plane.
    each : of every plane
        The table BEAMS: CASA's columns BMAJ and BMIN (arcsec), BPA (deg), CHAN and POL, and ours.

    Raises
    ------
    OutputError
        The place cannot be written.
    """
    kind, first, step = axis
    cards = header.cards(unit)
    number = 3 if kind == "FREQ" else 5
    cards[f"CTYPE{number}"], cards[f"CRPIX{number}"] = kind, 1.0
    cards[f"CRVAL{number}"], cards[f"CDELT{number}"] = first, step
    cards[f"CUNIT{number}"] = "Hz" if kind == "FREQ" else "s"
    cards["CASAMBM"] = (True, "each plane has its beam, in the table BEAMS")
    cube = planes[None] if kind == "FREQ" else planes[:, None, None]
    hdus = fits.HDUList([fits.PrimaryHDU(cube.astype(">f4"), cards), _beams(each)])
    with beside(path) as partial:
        hdus.writeto(partial)


def _beams(each: Sequence[PlaneHeader]) -> fits.BinTableHDU:
    beams = np.array([plane.beam_deg for plane in each])
    table = Table(
        {
            "BMAJ": (beams[:, 0] * 3600.0).astype(np.float32),
            "BMIN": (beams[:, 1] * 3600.0).astype(np.float32),
            "BPA": beams[:, 2].astype(np.float32),
            "CHAN": np.arange(len(each), dtype=np.int32),
            "POL": np.zeros(len(each), np.int32),
            "FREQUENCY": np.array([plane.frequency_hz for plane in each]),
            "MJD": np.array([plane.mjd for plane in each]),
            "NOISE": np.array([plane.noise_jy for plane in each]),
            "THERMAL": np.array([plane.thermal_noise_jy for plane in each]),
        },
        units={"BMAJ": "arcsec", "BMIN": "arcsec", "BPA": "deg", "FREQUENCY": "Hz", "MJD": "d"}
        | {"NOISE": "Jy/beam", "THERMAL": "Jy/beam"},
    )
    hdu = fits.table_to_hdu(table)
    hdu.name = BEAMS_TABLE
    hdu.header["NCHAN"], hdu.header["NPOL"] = len(each), 1
    return hdu
