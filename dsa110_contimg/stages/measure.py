"""measure: forced flux densities of catalogue sources in one image, with errors and quality."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from astropy.table import Table
from numpy.typing import NDArray

from dsa110_contimg import telescope
from dsa110_contimg.exceptions import MeasurementError
from dsa110_contimg.io import beams, fits
from dsa110_contimg.io.files import beside
from dsa110_contimg.options import MeasureOptions
from dsa110_contimg.records import ImageProduct, Photometry
from dsa110_contimg.science.beam import primary_beam
from dsa110_contimg.science.deconvolution import robust_rms
from dsa110_contimg.science.grid import SkyGrid
from dsa110_contimg.science.photometry import (
    Pixels,
    Planes,
    Quality,
    fit_offsets,
    forced_peaks,
    local_noise,
    of_calibration,
    sample,
    scale_error,
)
from dsa110_contimg.science.response import Response
from dsa110_contimg.science.restoring import Beam

POSITION_SNR = 10.0
"""Sources above this get a fitted position."""
BRIGHT_SNR = 20.0
"""Sources above this, inside the half-power radius, make the median ratio."""
EDGE_BEAMS = 3.0
JOINT_BEAMS = 4.0
"""Sources nearer to each other than this (times the major FWHM) are solved for together."""
LOW_BEAM = 0.3
NOISE_BOX_BEAMS = 20.0
"""Side of the box of the local noise: 400 beam areas, whose robust rms is true to 6 %."""

UNITS = {
    "mjd": "d",
    "ra_deg": "deg",
    "dec_deg": "deg",
    "flux_jy": "Jy",
    "flux_error_jy": "Jy",
    "flux_raw_jy": "Jy",
    "local_noise_jy": "Jy",
    "catalog_flux_jy": "Jy",
    "x_pixel": "pix",
    "y_pixel": "pix",
    "offset_ra_arcsec": "arcsec",
    "offset_dec_arcsec": "arcsec",
}


@dataclass(frozen=True)
class _Opened:
    """An image's files, read."""

    pixels: Pixels
    planes: Planes
    smearing: NDArray[np.float32]
    grid: SkyGrid
    response: Response


def measure(
    image: ImageProduct,
    catalog: pd.DataFrame,
    options: MeasureOptions,
    out_dir: Path,
    *,
    calibration_quality: int = 0,
) -> Photometry:
    """Measure every catalogue source where the beam response allows.

    flux = peak / (response x smearing), response being that of the image's own pointings and channels for the source's
    spectral index, so the flux is at ``options.reference_frequency_hz``. Its error holds the local noise, the flux
    scale's error where known, and what the spectral index's error makes of the response. Where the drift of the gains
    is assumed, the bright sources of the field say how far off the scale is (`science.photometry.scale_error`).

    Parameters
    ----------
    image : ImageProduct
    catalog : DataFrame
        Columns of `io.catalogs.COLUMNS`.
    options : MeasureOptions
    out_dir : Path
        ``<group id>.photometry.ecsv`` is written there.
    calibration_quality : int
        Bits of the gains the image was made with (`records.CalTableSet`); every flux gets what they mean for it.

    Raises
    ------
    MeasurementError
        The catalogue has no source in the image.
    CorruptFileError
        A file of the image is missing or unreadable.
    OutputError
        ``out_dir`` cannot be written.
    """
    opened = _open(image)
    sources = _in_image(opened, catalog, options)
    if sources.empty:
        raise MeasurementError(
            "No catalogue source lies in the image",
            path=image.path,
            found=f"{len(catalog)} sources, none of {options.min_flux_jy} Jy with the beam above {options.min_beam}",
            expected="at least one",
        )
    table = _measured(opened, sources, image, options)
    shared = of_calibration(calibration_quality)
    table["quality"] |= shared.value
    scale = image.flux_scale_error
    if Quality.DRIFT_ASSUMED in shared:
        scale = scale_error(scale, table.loc[_tells(table), "ratio"].to_numpy(np.float64))
    known = np.isfinite(scale)
    table["flux_error_jy"] = np.hypot(table["flux_error_jy"], table["flux_jy"] * (scale if known else 0.0))
    path = out_dir / f"{image.group_id}.photometry.ecsv"
    rows = Table.from_pandas(table, units={name: unit for name, unit in UNITS.items() if name in table})
    rows.meta["flux_scale_error"] = scale if known else "not known: not in the errors"
    rows.meta["reference_frequency_hz"] = options.reference_frequency_hz
    rows.meta["quality"] = {bit.name: bit.value for bit in Quality}
    with beside(path) as partial:
        rows.write(partial, format="ascii.ecsv")
    return _summary(path, table, image, scale)


def _open(image: ImageProduct) -> _Opened:
    header = fits.read_header(image.path)
    grid = SkyGrid(
        int(header["NAXIS1"]),
        float(np.radians(header["CDELT2"])),
        float(np.radians(header["CRVAL1"])),
        float(np.radians(header["CRVAL2"])),
    )
    beam = Beam(*(float(np.radians(header[name])) for name in ("BMAJ", "BMIN", "BPA")))
    response = read_response(image.pb_path)
    subtracted = fits.read_table(image.model_path, "KNOWN")
    x, y, peak = (np.asarray(subtracted[name], np.float64) for name in ("X", "Y", "PEAK"))
    return _Opened(
        pixels=Pixels(fits.read_plane(image.path), grid.cell, beam),
        planes=Planes(
            residual=fits.read_plane(image.residual_path),
            model=fits.read_plane(image.model_path),
            psf=fits.read_plane(image.psf_path),
            known=(x, y, peak),
        ),
        smearing=fits.read_plane(image.smearing_path),
        grid=grid,
        response=response,
    )


def read_response(pb_path: Path) -> Response:
    """What an image saw, as its ``.pb.fits`` keeps it: weights of pointings and frequencies, and the beam.

    Raises
    ------
    CorruptFileError
        The file is missing, unreadable, or not ours.
    """
    table = fits.read_table(pb_path, "RESPONSE")
    return Response(
        pointing_ra=np.radians(np.asarray(table["POINTING_RA"], np.float64)),
        pointing_dec=np.radians(np.asarray(table["POINTING_DEC"], np.float64)),
        frequencies=np.array(table["FREQUENCY"][0], np.float64, ndmin=1),
        weights=np.asarray(table["WEIGHT"], np.float64).reshape(len(table), -1),
        beam=primary_beam(beams.beam_of_image(pb_path), float(table["DISH_DIAMETER"][0])),
    )


def _in_image(opened: _Opened, catalog: pd.DataFrame, options: MeasureOptions) -> pd.DataFrame:
    """Catalogue rows that are measured, with ``x``, ``y`` (pixels) and ``beam``."""
    bright = catalog.loc[catalog["flux_jy"] >= options.min_flux_jy]
    ra, dec = (np.radians(bright[name].to_numpy(np.float64)) for name in ("ra_deg", "dec_deg"))
    x, y = opened.grid.pixel(ra, dec)
    last = opened.grid.n_pixels - 1
    inside = (x >= 0) & (x <= last) & (y >= 0) & (y <= last)
    beam = np.zeros(len(bright))
    beam[inside] = opened.response.at(ra[inside], dec[inside])
    keep = inside & (beam >= options.min_beam)
    return bright.assign(x=x, y=y, beam=beam).loc[keep].reset_index(drop=True)


def _measured(opened: _Opened, sources: pd.DataFrame, image: ImageProduct, options: MeasureOptions) -> pd.DataFrame:
    """The table, but for what all of its fluxes share: the error of the flux scale, and bits of the calibration."""
    pixels = opened.pixels
    x, y = sources["x"].to_numpy(), sources["y"].to_numpy()
    peaks = forced_peaks(pixels, opened.planes, x, y, JOINT_BEAMS * pixels.beam.major / pixels.cell)
    noise = local_noise(opened.planes.residual, x, y, round(NOISE_BOX_BEAMS / 2 * pixels.beam_pixels))
    raw_error = noise * peaks.error_factor
    response, response_error = _response(opened.response, sources, options)
    gain = response * sample(opened.smearing, x, y)
    flux = peaks.flux / gain
    error = np.hypot(raw_error / gain, flux * response_error)
    snr = peaks.flux / raw_error
    east, north = fit_offsets(pixels, x, y, peaks.flux, snr > POSITION_SNR)
    quality = _quality(opened, sources, (peaks.neighbour, peaks.error_factor), snr, np.hypot(east, north))
    steps = options.reference_frequency_hz / telescope.REFERENCE_FREQUENCY_HZ
    catalog_flux = sources["flux_jy"].to_numpy(np.float64) * steps ** sources["spectral_index"].to_numpy(np.float64)
    return pd.DataFrame(
        {
            "source": sources["name"].astype(str),
            "group": image.group_id,
            "mjd": image.mjd_mid,
            "ra_deg": sources["ra_deg"],
            "dec_deg": sources["dec_deg"],
            "flux_jy": flux,
            "flux_error_jy": error,
            "flux_raw_jy": peaks.flux,
            "local_noise_jy": noise,
            "beam_response": response,
            "smearing": gain / response,
            "catalog_flux_jy": catalog_flux,
            "ratio": np.divide(flux, catalog_flux, out=np.full_like(flux, np.nan), where=catalog_flux > 0),
            "x_pixel": x,
            "y_pixel": y,
            "offset_ra_arcsec": np.degrees(east) * 3600.0,
            "offset_dec_arcsec": np.degrees(north) * 3600.0,
            "quality": quality,
            "image": str(image.path),
        }
    )


def _response(
    response: Response, sources: pd.DataFrame, options: MeasureOptions
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Response for each source's spectrum, and its relative error from the spectral index's."""
    where = [np.radians(sources[name].to_numpy(np.float64)) for name in ("ra_deg", "dec_deg")]
    index, error = (sources[name].to_numpy(np.float64) for name in ("spectral_index", "spectral_index_error"))
    reference = options.reference_frequency_hz
    value, steeper = (response.at(where[0], where[1], alpha, reference) for alpha in (index, index + error))
    return value, np.abs(steeper / value - 1.0)


def _quality(
    opened: _Opened,
    sources: pd.DataFrame,
    blend: tuple[NDArray[np.float64], NDArray[np.float64]],
    snr: NDArray[np.float64],
    offset: NDArray[np.float64],
) -> NDArray[np.int64]:
    neighbour, error_factor = blend
    x, y = sources["x"].to_numpy(), sources["y"].to_numpy()
    last = opened.grid.n_pixels - 1
    edge = np.minimum(np.minimum(x, last - x), np.minimum(y, last - y))
    with np.errstate(invalid="ignore"):  # no fitted position is NaN, and not displaced
        displaced = offset > opened.pixels.beam.minor / 2
    bits = (
        (neighbour > 0.01, Quality.BLENDED),
        ((error_factor > 2.0) | (neighbour > 0.999), Quality.CONFUSED),
        (edge < EDGE_BEAMS * opened.pixels.beam_pixels, Quality.NEAR_EDGE),
        (sources["beam"].to_numpy() < LOW_BEAM, Quality.LOW_BEAM),
        (snr < 5.0, Quality.FAINT),
        (displaced, Quality.DISPLACED),
    )
    quality = np.zeros(len(sources), np.int64)
    for which, bit in bits:
        quality[which] |= bit.value
    return quality


def _tells(table: pd.DataFrame) -> pd.Series:
    """Which sources tell the flux scale: bright, in the main beam, and not confused."""
    signal = table["flux_raw_jy"] / table["local_noise_jy"]
    clear = (table["quality"] & Quality.CONFUSED.value) == 0
    return (signal > BRIGHT_SNR) & (table["beam_response"] >= 0.5) & clear


def _summary(path: Path, table: pd.DataFrame, image: ImageProduct, scale: float) -> Photometry:
    """Median and scatter of measured over catalogue flux of the bright sources in the main beam."""
    ratios = table.loc[_tells(table), "ratio"].to_numpy(np.float64)
    return Photometry(
        path=path,
        group_id=image.group_id,
        image_path=image.path,
        n_sources=len(table),
        n_bright=len(ratios),
        median_ratio=float(np.median(ratios)) if len(ratios) else float("nan"),
        ratio_scatter=robust_rms(ratios) if len(ratios) > 1 else float("nan"),
        flux_scale_error=scale,
    )
