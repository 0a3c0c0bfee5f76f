"""Where deconvolution may look: masks from a catalogue or from a file of one's own, and the door they go through.

CLEAN that may take components anywhere takes peaks of the noise too, and so lowers noise and faint sources together. A
mask of known places keeps it from that where the automatic mask, made of peaks, cannot: below its own threshold.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from dsa110_contimg.exceptions import ImagingError
from dsa110_contimg.science.grid import SkyGrid
from dsa110_contimg.science.response import Response
from dsa110_contimg.science.subtraction import PointSources

_SAME_PLACE = 0.1
"""Pixels by which the grid of a given mask may differ from the image's, anywhere in the image."""


def catalog_mask(
    sources: PointSources, response: Response, grid: SkyGrid, min_jy: float, radius_rad: float
) -> NDArray[np.bool_]:
    """Discs about those sources of a catalogue that the image sees brightly enough.

    Parameters
    ----------
    sources : PointSources
    response : Response
        Of the image: a source counts by its apparent flux.
    grid : SkyGrid
    min_jy : float
        Least apparent flux (Jy at 1.4 GHz).
    radius_rad : float
        Of the discs: about the FWHM of the synthesised beam. At least one pixel is taken.

    Returns
    -------
    (n_pixels, n_pixels) ``[y, x]``, True where components may stand.

    Raises
    ------
    ImagingError
        No source of the catalogue is so bright in this image.
    """
    mask = np.zeros((grid.n_pixels, grid.n_pixels), np.bool_)
    x, y = grid.pixel(sources.ra, sources.dec)
    reach = max(radius_rad / grid.cell, 0.75)
    last = grid.n_pixels - 1
    here = (x > -reach) & (x < last + reach) & (y > -reach) & (y < last + reach)
    bright = np.zeros(len(sources), np.bool_)
    near = sources.where(here)
    bright[here] = near.flux_jy * response.at(near.ra, near.dec, near.spectral_index) >= min_jy
    for x_of, y_of in zip(x[bright], y[bright], strict=True):
        columns = np.arange(max(0, int(x_of - reach)), min(last, int(x_of + reach) + 1) + 1)
        rows = np.arange(max(0, int(y_of - reach)), min(last, int(y_of + reach) + 1) + 1)
        disc = (columns[None, :] - x_of) ** 2 + (rows[:, None] - y_of) ** 2 <= reach**2
        mask[np.ix_(rows, columns)] |= disc
    if not mask.any():
        raise ImagingError(
            "The catalogue has no source to clean in this image",
            found=f"{len(sources)} sources",
            expected=f"{min_jy} Jy",
        )
    return mask


def given_mask(plane: NDArray[np.float32], header: fits.Header, grid: SkyGrid) -> NDArray[np.bool_]:
    """A mask of one's own: True where ``plane`` ``[y, x]`` is neither 0 nor NaN.

    Parameters
    ----------
    plane : (n, n)
    header : FITS header
        Its CRVAL, CRPIX and CDELT must be the image's to a tenth of a pixel at the edge; true or apparent angles.
    grid : SkyGrid

    Raises
    ------
    ImagingError
        Another size, another grid, or nothing in it.
    """
    n = grid.n_pixels
    if plane.shape != (n, n):
        raise ImagingError("The mask is of another size", found=plane.shape, expected=(n, n))
    offset = _grid_offset(header, grid)
    if not offset < _SAME_PLACE:
        raise ImagingError(
            "The mask is on another grid", found=f"{offset:.3g} pixels from it", expected=f"at most {_SAME_PLACE}"
        )
    mask = np.isfinite(plane) & (plane != 0.0)
    if not mask.any():
        raise ImagingError("The mask leaves nothing to clean", found="zeros", expected="pixels that are not 0")
    return np.asarray(mask)


def _grid_offset(header: fits.Header, grid: SkyGrid) -> float:
    """Pixels by which a header's grid differs from ours: at the centre, and by its scale at the edge."""
    keys = ("CRVAL1", "CRVAL2", "CRPIX1", "CRPIX2", "CDELT1", "CDELT2")
    missing = [key for key in keys if key not in header]
    if missing:
        raise ImagingError("The mask does not say where it is", found=f"no {', '.join(missing)}", expected="a SIN grid")
    x, y = grid.pixel(np.radians(header["CRVAL1"]), np.radians(header["CRVAL2"]))
    centre = np.hypot(x - (header["CRPIX1"] - 1.0), y - (header["CRPIX2"] - 1.0))
    # aberration, 1e-4 at most, is no reason to refuse: some programs write the apparent angle
    steps = np.array([-header["CDELT1"], header["CDELT2"]]) / np.degrees(grid.cell)
    edge = np.max(np.maximum(np.abs(steps - 1.0) - 1.1e-4, 0.0)) * grid.n_pixels / 2
    return float(centre + edge)


@contextmanager
def as_file(mask: NDArray[np.bool_] | None) -> Iterator[Path | None]:
    """A FITS file of a mask ``[y, x]``, for programs that take masks by name; removed afterwards. None stays None."""
    if mask is None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="dsa110-mask-") as directory:
        path = Path(directory) / "mask.fits"
        header = fits.Header()
        for i, (kind, step) in enumerate((("RA---SIN", -1.0), ("DEC--SIN", 1.0), ("FREQ", 1.0), ("STOKES", 1.0)), 1):
            header[f"CTYPE{i}"], header[f"CRPIX{i}"], header[f"CRVAL{i}"], header[f"CDELT{i}"] = kind, 1.0, 1.0, step
        fits.PrimaryHDU(mask[None, None].astype(">f4"), header).writeto(path)
        yield path
