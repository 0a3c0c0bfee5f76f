"""CASA images: directories of tables, read by casacore, written by CASA."""

from __future__ import annotations

import tempfile
import threading
from functools import partial
from pathlib import Path

import numpy as np
import xarray as xr
from astropy.io import fits
from numpy.typing import NDArray

from dsa110_contimg.exceptions import CorruptFileError, InputError
from dsa110_contimg.io import casa
from dsa110_contimg.io.image_view import image_view
from dsa110_contimg.records import ImageProduct

_ONE_AT_A_TIME = threading.Lock()
"""casacore's tables are not made for threads."""


def open_casa_image(path: Path) -> xr.Dataset:
    """A CASA image as an Image view with SKY; masked pixels are NaN, and pixels are read when they are used.

    Raises
    ------
    CorruptFileError
        Not an image of CASA's, or not one of the sky.
    """
    header = read_header(path)
    return image_view(header, {"SKY": (partial(_read_plane, path), header.get("BUNIT"))}, path)


def read_header(path: Path) -> fits.Header:
    """The header that casacore writes into a FITS file for this image.

    Raises
    ------
    CorruptFileError
        Not an image of CASA's.
    """
    from casacore.images import image

    if not (path / "table.dat").is_file():
        raise CorruptFileError("Not a CASA image", path=path, found="no table.dat", expected="a CASA image")
    with _ONE_AT_A_TIME, tempfile.TemporaryDirectory() as folder:
        small = Path(folder) / "header.fits"
        try:
            whole = image(str(path))
            shape = tuple(int(n) for n in whole.shape())
            # one pixel of each plane: the first, so that reference pixels stay what they are
            part = whole.subimage(blc=(0,) * len(shape), trc=(*(n - 1 for n in shape[:-2]), 0, 0), dropdegenerate=False)
            part.tofits(str(small), velocity=False)
        except RuntimeError as error:
            raise CorruptFileError("The CASA image cannot be read", path=path, found=str(error).strip()) from error
        with small.open("rb") as stream, fits.open(stream) as hdus:
            header = hdus[0].header.copy()
    header["NAXIS1"], header["NAXIS2"] = shape[-1], shape[-2]
    return header


def _read_plane(path: Path, index: tuple[int, ...]) -> NDArray[np.float32]:
    from casacore.images import image

    with _ONE_AT_A_TIME:
        try:
            whole = image(str(path))
            last = tuple(int(n) - 1 for n in whole.shape()[-2:])
            found = whole.get(blc=(*index, 0, 0), trc=(*index, *last))
        except RuntimeError as error:
            raise CorruptFileError("The CASA image cannot be read", path=path, found=str(error).strip()) from error
    plane = np.asarray(found.filled(np.nan), np.float32)
    return plane.reshape(plane.shape[-2:])


def export_casa_image(
    product: ImageProduct | Path, path: Path, *, workdir: Path, measures_cache: Path | None = None
) -> Path:
    """Write a FITS image as a CASA image, by CASA's ``importfits``, over an earlier one of that name.

    Parameters
    ----------
    product : ImageProduct or Path
        Of a product, the restored image.
    path : Path
        Directory to make.
    workdir : Path
        For scratch and the log of CASA.

    Raises
    ------
    ContimgError
        As `io.casa.run_tasks`.
    """
    source = product.path if isinstance(product, ImageProduct) else product
    if not source.is_file():
        raise InputError("There is no FITS image to export", path=source, found="nothing", expected="a FITS file")
    arguments = {"fitsimage": source, "imagename": path, "overwrite": True}
    task = casa.CasaTask("importfits", arguments, product="imagename")
    casa.run_tasks([task], workdir=workdir, measures_cache=measures_cache)
    return path
