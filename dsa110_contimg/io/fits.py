"""FITS images: one plane, full WCS, beam and provenance in the header; written whole or not at all."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import xarray as xr
from astropy.io import fits
from astropy.table import Table
from astropy.time import Time
from astropy.utils.exceptions import AstropyUserWarning
from numpy.typing import NDArray

from dsa110_contimg.exceptions import CorruptFileError, InputError
from dsa110_contimg.io.casa_image import open_casa_image
from dsa110_contimg.io.files import beside
from dsa110_contimg.io.image_view import ReadPlane, image_view

COMPANIONS = {
    "image": "SKY",
    "pbcor": "SKY_PBCOR",
    "pb": "PRIMARY_BEAM",
    "residual": "RESIDUAL",
    "model": "MODEL",
    "psf": "PSF",
    "smearing": "SMEARING",
    "noise": "NOISE",
    "alpha": "SPECTRAL_INDEX",
    "alpha_error": "SPECTRAL_INDEX_ERROR",
}
"""Kinds of product and the variable that each becomes in an Image view."""

_AT_ONCE = 2
"""Files that are written at once."""
UNITS = {"model": "JY/PIXEL", "pb": "", "smearing": "", "alpha": "", "alpha_error": ""}


@dataclass(frozen=True)
class ImageHeader:
    """What the header of every product of one image says.

    Attributes
    ----------
    n_pixels : size on a side.
    cell_deg : true angle of a pixel on the sky (deg), aberration included.
    ra_deg, dec_deg : phase centre (ICRS), at pixel n // 2 + 1 counted from 1.
    frequency_hz, bandwidth_hz : weighted mean, and extent, of the channels used.
    beam_deg : FWHM major, minor, and position angle north through east of the restoring beam (deg).
    mjd_start, mjd_end : begin of the first and end of the last integration (MJD UTC).
    vafactor : true over apparent angle, which ``cell_deg`` holds already.
    provenance : (keyword, value, comment) cards.
    history : lines.
    """

    n_pixels: int
    cell_deg: float
    ra_deg: float
    dec_deg: float
    frequency_hz: float
    bandwidth_hz: float
    beam_deg: tuple[float, float, float]
    mjd_start: float
    mjd_end: float
    vafactor: float
    telescope: str
    provenance: tuple[tuple[str, str | float | int, str], ...] = ()
    history: tuple[str, ...] = ()

    def cards(self, unit: str) -> fits.Header:
        """The FITS header (Calabretta & Greisen 2002; Greisen et al. 2006; Rots et al. 2015)."""
        header = fits.Header()
        half = self.n_pixels // 2 + 1
        axes = (
            ("RA---SIN", half, self.ra_deg, -self.cell_deg, "deg"),
            ("DEC--SIN", half, self.dec_deg, self.cell_deg, "deg"),
            ("FREQ", 1, self.frequency_hz, self.bandwidth_hz, "Hz"),
            ("STOKES", 1, 1.0, 1.0, ""),
        )
        for i, (kind, pixel, value, step, axis_unit) in enumerate(axes, start=1):
            header[f"CTYPE{i}"], header[f"CRPIX{i}"] = kind, float(pixel)
            header[f"CRVAL{i}"], header[f"CDELT{i}"] = value, step
            header[f"CUNIT{i}"] = axis_unit
        header["RADESYS"] = "ICRS"
        header["EQUINOX"] = 2000.0
        header["SPECSYS"] = "TOPOCENT"
        header["RESTFRQ"] = (self.frequency_hz, "[Hz] effective frequency")
        header["VAFACTOR"] = (self.vafactor, "true over apparent angle; CDELT is true")
        header["BUNIT"] = unit
        for name, value in zip(("BMAJ", "BMIN", "BPA"), self.beam_deg, strict=True):
            header[name] = (value, "[deg] restoring beam")
        start, end = (Time(mjd, format="mjd", scale="utc") for mjd in (self.mjd_start, self.mjd_end))
        header["TIMESYS"] = "UTC"
        header["DATE-OBS"], header["DATE-END"] = start.isot, end.isot
        header["MJD-OBS"], header["MJD-END"] = self.mjd_start, self.mjd_end
        header["EXPTIME"] = ((self.mjd_end - self.mjd_start) * 86400.0, "[s]")
        header["TELESCOP"] = self.telescope
        for keyword, content, comment in self.provenance:
            header[keyword] = (content, comment)
        for line in self.history:
            header["HISTORY"] = line
        return header


def write_image(
    path: Path, plane: NDArray[np.float32], header: ImageHeader, unit: str, tables: Mapping[str, Table] | None = None
) -> None:
    """Write one plane ``[y, x]`` (x west, y north) as a four-axis FITS image.

    Parameters
    ----------
    path : Path
    plane : (n, n)
    header : ImageHeader
    unit : str
        BUNIT; empty for a ratio.
    tables : mapping of extension name to Table, optional

    Raises
    ------
    OutputError
        The place cannot be written.
    """
    hdus = fits.HDUList([fits.PrimaryHDU(plane[None, None].astype(">f4"), header.cards(unit))])
    for name, table in (tables or {}).items():
        hdu = fits.table_to_hdu(table)
        hdu.name = name
        hdus.append(hdu)
    with beside(path) as partial:
        hdus.writeto(partial)


def write_images(
    paths: Mapping[str, Path],
    planes: Mapping[str, NDArray[np.float32]],
    header: ImageHeader,
    tables: Mapping[str, Mapping[str, Table]],
) -> None:
    """Write the planes of one image by kind, each to its path with its tables, as `write_image`; two at a time.

    Raises
    ------
    OutputError
        The place cannot be written; some may have been.
    """

    def write(kind: str) -> None:
        write_image(paths[kind], planes[kind], header, UNITS.get(kind, "JY/BEAM"), tables.get(kind))

    with ThreadPoolExecutor(_AT_ONCE) as pool:  # one is written to disk while the next is put together
        for _ in pool.map(write, planes):
            pass


def read_plane(path: Path) -> NDArray[np.float32]:
    """The plane ``[y, x]`` of an image, in the machine's byte order.

    Raises
    ------
    CorruptFileError
        Not a FITS image, or truncated.
    """
    try:
        # a stream of our own is closed whatever astropy meets in it
        with warnings.catch_warnings(), path.open("rb") as stream, fits.open(stream, memmap=False) as hdus:
            warnings.simplefilter("error", AstropyUserWarning)  # which is how a truncated file is announced
            data = hdus[0].data
            if data is None or data.ndim < 2 or data.size != data.shape[-1] * data.shape[-2]:
                shape = None if data is None else data.shape
                raise CorruptFileError("Not an image of one plane", path=path, found=shape, expected="(1, 1, n, n)")
            return np.asarray(data.reshape(data.shape[-2:]), dtype=np.float32)
    except (OSError, TypeError, ValueError, AstropyUserWarning) as error:
        raise CorruptFileError("The image cannot be read", path=path, found=error, expected="a FITS image") from error


def read_header(path: Path) -> fits.Header:
    """The header of the image.

    Raises
    ------
    CorruptFileError
        Not a FITS file.
    """
    try:
        with path.open("rb") as stream, fits.open(stream) as hdus:
            return hdus[0].header.copy()
    except OSError as error:
        raise CorruptFileError("The image cannot be read", path=path, found=error, expected="a FITS image") from error


def read_table(path: Path, name: str) -> Table:
    """A table extension of an image.

    Raises
    ------
    CorruptFileError
        Not there, or not readable.
    """
    try:
        with fits.open(path) as hdus:
            if name not in hdus:
                found = [hdu.name for hdu in hdus]
                raise CorruptFileError("The image lacks a table", path=path, found=found, expected=name)
            return Table.read(hdus[name], format="fits")
    except OSError as error:
        raise CorruptFileError("The image cannot be read", path=path, found=error, expected="a FITS image") from error


def companion(path: Path, kind: str) -> Path:
    """The file of another kind beside a product: ``<id>.image.fits`` -> ``<id>.pb.fits``."""
    name = path.name
    for known in COMPANIONS:
        suffix = f".{known}.fits"
        if name.endswith(suffix):
            return path.with_name(f"{name.removesuffix(suffix)}.{kind}.fits")
    return path.with_name(f"{path.stem}.{kind}.fits")


def open_image(path: str | Path) -> xr.Dataset:
    """An image, ours or anybody's, and the companions beside it as an Image view; pixels are read when they are used.

    Parameters
    ----------
    path : path of a FITS image (of our products any, usually the restored image) or of a CASA image.

    Returns
    -------
    xarray.Dataset
        Dims time, frequency, polarization, l, m. SKY (Jy/beam, or as its unit says) and, where their files exist,
        SKY_PBCOR, PRIMARY_BEAM, RESIDUAL, MODEL (Jy/pixel), PSF, SMEARING. Coordinates: time (MJD UTC; the middle of
        the observation, its begin where the end is not known), frequency (Hz), polarization (empty: not known), l
        (east) and m (north) in the plane of projection (rad; of SIN, the direction cosines). Attributes: phase centre
        (rad, ICRS: the reference point of the projection), beam (deg), span, the header's own celestial coordinates
        (``frame``, ``projection``, ``wcs``), ``tier``, ``imager``. What the file does not say is NaN or None.

    Raises
    ------
    InputError
        Nothing there.
    CorruptFileError
        Not an image of the sky.
    """
    path = Path(path)
    if not path.exists():
        raise InputError("There is no such image", path=path, found="nothing", expected="a FITS or CASA image")
    if path.is_dir():
        return open_casa_image(path)
    restored = companion(path, "image")
    if restored.exists() and any(path.name.endswith(f".{kind}.fits") for kind in COMPANIONS):
        path = restored
    header, _ = _sky_hdu(path)
    planes: dict[str, tuple[ReadPlane, str | None]] = {"SKY": (partial(read_sky, path), header.get("BUNIT"))}
    for kind, name in COMPANIONS.items():
        beside_it = companion(path, kind)
        if kind != "image" and beside_it.exists() and beside_it != path and _same_shape(beside_it, header):
            planes[name] = (partial(read_sky, beside_it), UNITS.get(kind, "JY/BEAM"))
    return image_view(header, planes, path)


def image_dataset(planes: Mapping[str, NDArray[np.float32]], header: ImageHeader) -> xr.Dataset:
    """The same view of planes ``[y, x]`` by kind that were never written."""
    cards = header.cards("JY/BEAM")
    cards["NAXIS"] = 4
    for i, n in enumerate((header.n_pixels, header.n_pixels, 1, 1), start=1):
        cards[f"NAXIS{i}"] = n
    units = {name: (planes[kind], UNITS.get(kind, "JY/BEAM")) for kind, name in COMPANIONS.items() if kind in planes}
    return image_view(cards, units, Path("(not written)"))


def read_sky(path: Path, index: tuple[int, ...]) -> NDArray[np.float32]:
    """One plane ``[y, x]`` of an image with any number of axes, in the machine's byte order.

    Raises
    ------
    CorruptFileError
        Not a FITS image, or truncated.
    """
    _, number = _sky_hdu(path)
    try:
        with warnings.catch_warnings(), path.open("rb") as stream, fits.open(stream, memmap=False) as hdus:
            warnings.simplefilter("error", AstropyUserWarning)  # which is how a truncated file is announced
            return np.asarray(hdus[number].section[(*index, slice(None), slice(None))], dtype=np.float32)
    except (OSError, TypeError, ValueError, AstropyUserWarning) as error:
        raise CorruptFileError("The image cannot be read", path=path, found=error, expected="a FITS image") from error


def _sky_hdu(path: Path) -> tuple[fits.Header, int]:
    """Header and number of the first extension that holds an image."""
    try:
        with path.open("rb") as stream, fits.open(stream) as hdus:
            for number, hdu in enumerate(hdus):
                if hdu.is_image and int(hdu.header.get("NAXIS", 0)) >= 2:
                    return hdu.header.copy(), number
    except OSError as error:
        raise CorruptFileError("The image cannot be read", path=path, found=error, expected="a FITS image") from error
    raise CorruptFileError("The file holds no image", path=path, found="no array of two axes", expected="a FITS image")


def _same_shape(path: Path, header: fits.Header) -> bool:
    other, _ = _sky_hdu(path)
    return all(other.get(f"NAXIS{i}", 1) == header.get(f"NAXIS{i}", 1) for i in range(1, 5))


def package_version() -> str:
    """Of this package, for headers."""
    try:
        return version("dsa110_contimg")
    except PackageNotFoundError:  # run from a source tree that is not installed
        return "(not installed)"
