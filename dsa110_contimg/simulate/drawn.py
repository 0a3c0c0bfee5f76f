"""An image that was drawn, not observed: catalogued sources, a beam and noise, to try on what looks at images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from dsa110_contimg import telescope
from dsa110_contimg.io import catalogs, fits
from dsa110_contimg.science.beam import airy_power, separation
from dsa110_contimg.science.grid import SkyGrid
from dsa110_contimg.science.restoring import Beam, add_points

_BEAM_ARCSEC = (44.0, 20.0, 90.0)


def draw_image(
    folder: Path,
    *,
    ra_deg: float = 80.29,
    dec_deg: float = 16.64,
    n_pixels: int = 2400,
    cell_arcsec: float = 6.0,
    noise_jy: float = 3e-4,
    seed: int = 1,
) -> Path:
    """Draw the sources of the packaged catalogue as Gaussians, through the beam of one pointing, on noise.

    The noise has the correlation of the Gaussian beam; there are no sidelobes and no calibration errors.

    Parameters
    ----------
    folder : Path
        ``drawn.image.fits`` and ``drawn.pb.fits`` are written there.
    ra_deg, dec_deg : centre and pointing (ICRS).
    noise_jy : rms (Jy/beam).

    Returns
    -------
    Path of the image.

    Raises
    ------
    OutputError
        The folder cannot be written.
    """
    grid = SkyGrid(n_pixels, float(np.radians(cell_arcsec / 3600.0)), *map(float, np.radians([ra_deg, dec_deg])))
    major, minor, angle = (float(np.radians(v)) for v in (_BEAM_ARCSEC[0] / 3600, _BEAM_ARCSEC[1] / 3600, 90.0))
    beam, frequency = Beam(major, minor, angle), telescope.REFERENCE_FREQUENCY_HZ
    response = grid.map(lambda ra, dec: airy_power(separation(ra, dec, grid.ra, grid.dec), frequency), np.radians(0.2))
    sources = catalogs.cone(ra_deg, dec_deg, n_pixels * cell_arcsec / 3600.0, 0.05)
    ra, dec = np.radians(sources["ra_deg"].to_numpy()), np.radians(sources["dec_deg"].to_numpy())
    x, y = grid.pixel(ra, dec)
    inside = (x > -0.5) & (x < n_pixels - 0.5) & (y > -0.5) & (y < n_pixels - 0.5)
    peak = sources["flux_jy"].to_numpy() * airy_power(separation(ra, dec, grid.ra, grid.dec), frequency)
    sky = _noise(n_pixels, grid.cell, beam, noise_jy, seed)
    add_points(sky, beam, grid.cell, (x[inside], y[inside]), peak[inside])
    header = fits.ImageHeader(
        n_pixels=n_pixels,
        cell_deg=cell_arcsec / 3600.0,
        ra_deg=ra_deg,
        dec_deg=dec_deg,
        frequency_hz=frequency,
        bandwidth_hz=telescope.CHANNEL_WIDTH_HZ * telescope.N_CHANNELS,
        beam_deg=(_BEAM_ARCSEC[0] / 3600, _BEAM_ARCSEC[1] / 3600, _BEAM_ARCSEC[2]),
        mjd_start=61066.2,
        mjd_end=61066.2 + telescope.GROUP_S / 86400.0,
        vafactor=1.0,
        telescope=telescope.TELESCOPE_NAME,
        provenance=(("OBJECT", "drawn, not observed", ""), ("RESNOISE", noise_jy, "[Jy/beam] rms of the noise")),
    )
    fits.write_image(folder / "drawn.pb.fits", response, header, "")
    fits.write_image(folder / "drawn.image.fits", sky, header, "JY/BEAM")
    return folder / "drawn.image.fits"


def _noise(n: int, cell: float, beam: Beam, rms: float, seed: int) -> NDArray[np.float32]:
    """White noise smoothed with the beam, scaled back to its rms."""
    offset = (np.arange(n) - n // 2) * cell
    east, north = np.meshgrid(-offset.astype(np.float64), offset.astype(np.float64))
    kernel = beam.value(east, north)
    white = np.random.default_rng(seed).normal(size=(n, n))
    smooth = fft.irfft2(fft.rfft2(white) * fft.rfft2(fft.ifftshift(kernel)), s=(n, n))
    return np.asarray(smooth * (rms / smooth.std()), np.float32)
