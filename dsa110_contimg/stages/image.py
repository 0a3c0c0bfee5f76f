"""image: calibrated visibilities to a restored image with its beam, smearing, noise and provenance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from astropy.table import Table
from numpy.typing import NDArray

from dsa110_contimg.exceptions import ImagingError
from dsa110_contimg.io import fieldmodel, fits, ms
from dsa110_contimg.options import ImageOptions
from dsa110_contimg.records import ImageProduct, MeasurementSet
from dsa110_contimg.science import subtraction
from dsa110_contimg.science.aberration import aberration_scale
from dsa110_contimg.science.apparent import ApparentSky
from dsa110_contimg.science.averaging import ImagingData, concatenate, from_dataset
from dsa110_contimg.science.beam import half_power_radius
from dsa110_contimg.science.deconvolution import clean, robust_rms
from dsa110_contimg.science.grid import SkyGrid
from dsa110_contimg.science.gridding import Gridder
from dsa110_contimg.science.imaging import Cleaned
from dsa110_contimg.science.response import Response, image_response
from dsa110_contimg.science.restoring import add_points, fit_beam, restore
from dsa110_contimg.science.smearing import surviving_fraction
from dsa110_contimg.science.weighting import imaging_weights, row_importance, thermal_noise

Progress = Callable[[int, int], None]

RESPONSE_TABLE = "RESPONSE"
KNOWN_TABLE = "KNOWN"
_MAP_STEPS = 12
"""Coarse points of the beam map per half-power radius: splines between them are true to 1e-5."""


@dataclass(frozen=True)
class _Made:
    """Everything that imaging computes, before it is written."""

    data: ImagingData
    weights: NDArray[np.float32]
    cleaned: Cleaned
    response: Response
    grid: SkyGrid
    vafactor: float


@dataclass(frozen=True)
class _Source:
    """What is known of the visibilities besides their numbers."""

    group_id: str
    telescope_name: str
    flux_scale_error: float
    history: tuple[str, ...]


def image(
    visibilities: MeasurementSet | xr.Dataset | Sequence[xr.Dataset],
    options: ImageOptions,
    out_dir: Path,
    *,
    flux_scale_error: float = float("nan"),
    known: pd.DataFrame | None = None,
    history: Sequence[str] = (),
    progress: Progress | None = None,
) -> ImageProduct:
    """Image calibrated visibilities and deconvolve them.

    Parameters
    ----------
    visibilities : MeasurementSet, Visibilities view, or several views (spectral windows) of one phase centre
        Of a Measurement Set, CORRECTED_DATA is imaged.
    options : ImageOptions
    out_dir : Path
        ``<group id>.<kind>.fits`` are written there: image, pbcor, pb, residual, model, psf, smearing.
    flux_scale_error : float
        Relative error of the flux scale, from calibration; NaN if not known. It is carried, not used.
    known : DataFrame, optional
        A catalogue (`io.catalogs.COLUMNS`). Its sources, in the image or beyond its edge, are subtracted from the
        visibilities first, and those in the image restored to it (`science.subtraction`).
    history : sequence of str
        Lines for the header's HISTORY: where the visibilities come from.
    progress : callable (done, total), optional
        Called after every major cycle.

    Raises
    ------
    ImagingError
        Everything is flagged, deconvolution diverged, or the pixels are too coarse for the beam.
    OutputError
        ``out_dir`` cannot be written.
    """
    if options.n_pixels % 2:
        raise ImagingError("The image size must be even", found=options.n_pixels, expected=options.n_pixels + 1)
    datasets = _datasets(visibilities)
    sources = subtraction.NOTHING
    if known is not None:
        sources = subtraction.known_sources(datasets[0], known, options.known_min_jy)
        datasets = _subtracted(visibilities, datasets, sources)
    made = _make(datasets, options, progress)
    known_here = _known_table(made, sources)
    planes = _planes(made, options, known_here)
    group_id = str(datasets[0].attrs["group_id"])
    source = _Source(group_id, str(datasets[0].attrs["telescope_name"]), flux_scale_error, tuple(history))
    tables = {"pb": {RESPONSE_TABLE: _response_table(made.response)}, "model": {KNOWN_TABLE: known_here}}
    return _write(made, planes, tables, options, out_dir / group_id, source)


def _datasets(visibilities: MeasurementSet | xr.Dataset | Sequence[xr.Dataset]) -> list[xr.Dataset]:
    if isinstance(visibilities, MeasurementSet):
        return [ms.open_ms(visibilities.path, "CORRECTED_DATA")]
    return [visibilities] if isinstance(visibilities, xr.Dataset) else list(visibilities)


def _subtracted(
    visibilities: MeasurementSet | xr.Dataset | Sequence[xr.Dataset],
    datasets: list[xr.Dataset],
    sources: subtraction.PointSources,
) -> list[xr.Dataset]:
    """Without the known sources: less MODEL_DATA where that was predicted from these very sources."""
    if isinstance(visibilities, MeasurementSet):
        told = fieldmodel.read_field_model(visibilities.path)
        if told is not None and told.sources == sources.digest():
            whole = ms.open_ms(visibilities.path, "CORRECTED_DATA", model=True)
            return [whole.assign(VISIBILITY=whole["VISIBILITY"] - whole["MODEL"]).drop_vars("MODEL")]
    return [subtraction.subtract(dataset, sources) for dataset in datasets]


def _make(datasets: list[xr.Dataset], options: ImageOptions, progress: Progress | None) -> _Made:
    parts, cell = [], np.radians(options.cell_arcsec / 3600.0)
    for dataset in datasets:
        diameter = float(dataset.attrs.get("dish_diameter", 0.0))
        middle = float(dataset["frequency"].mean())
        radius = half_power_radius(middle, diameter) if diameter else half_power_radius(middle)
        rows = np.nan_to_num(np.asarray(dataset["UVW"].to_numpy(), np.float64).reshape(-1, 3))
        frequencies = np.asarray(dataset["frequency"].to_numpy(), np.float64)
        worth = row_importance(rows, frequencies, options.n_pixels, cell, options.weighting, options.robust)
        parts.append(from_dataset(dataset, options.averaging_loss, radius, worth))
    data = concatenate(parts)
    weights = imaging_weights(data, options.n_pixels, cell, options.weighting, options.robust)
    gridder = Gridder(data, weights, options.n_pixels, cell, options.accuracy, options.threads)
    psf = gridder.psf()
    beam = fit_beam(psf, cell)
    centre = (data.phase_center_ra, data.phase_center_dec)
    vafactor = aberration_scale(*centre, float(data.track.mjd.mean()))
    grid = SkyGrid(options.n_pixels, cell * vafactor, *centre)
    apparent = ApparentSky(gridder, grid, max(2, round(beam.major / cell / 1.5)))
    total = options.max_major_cycles
    result = clean(gridder, psf, options, apparent, (lambda cycle: progress(cycle.number, total)) if progress else None)
    last, program = result.cycles[-1], f"ducc0 {version('ducc0')}, radler {version('radler')}"
    cleaned = Cleaned(result.model, result.residual, psf, beam, None, last.iterations, last.number, program)
    return _Made(data, weights, cleaned, image_response(data, weights).merged(), grid, vafactor)


def _planes(made: _Made, options: ImageOptions, known: Table) -> dict[str, NDArray[np.float32]]:
    """The images by kind; the ``known`` sources that were subtracted are put back into the restored one.

    The model keeps what deconvolution found: the known sources are not on its pixels, and stand in a table beside it.
    """
    spacing = half_power_radius(made.response.mean_frequency_hz, made.response.dish_diameter_m) / _MAP_STEPS
    cleaned, cell = made.cleaned, made.grid.cell / made.vafactor
    restored = cleaned.restored
    if restored is None:
        restored = restore(cleaned.model, cleaned.residual, cleaned.beam, cell, options.threads)
    add_points(restored, cleaned.beam, cell, (known["X"], known["Y"]), known["PEAK"])
    pb = made.grid.map(made.response.at, spacing)
    smearing = made.grid.map(lambda ra, dec: surviving_fraction(ra, dec, made.data, made.weights), 2 * spacing)
    with np.errstate(divide="ignore", invalid="ignore"):
        pbcor = np.where(pb >= options.pb_cut, restored / pb, np.float32(np.nan))
    return {
        "pbcor": pbcor,
        "pb": pb,
        "residual": cleaned.residual,
        "model": cleaned.model,
        "psf": cleaned.psf,
        "smearing": smearing,
        "image": restored,
    }


def _known_table(made: _Made, sources: subtraction.PointSources) -> Table:
    """Place (pixels from 0) and peak in this image of those subtracted sources that lie in it."""
    x, y = made.grid.pixel(sources.ra, sources.dec)
    inside = (x > -0.5) & (x < made.grid.n_pixels - 0.5) & (y > -0.5) & (y < made.grid.n_pixels - 0.5)
    here = sources.where(inside)
    peak = np.zeros(0)
    if len(here):
        response = made.response.at(here.ra, here.dec, here.spectral_index)
        peak = here.flux_jy * response * surviving_fraction(here.ra, here.dec, made.data, made.weights)
    columns = {"RA": np.degrees(here.ra), "DEC": np.degrees(here.dec), "X": x[inside], "Y": y[inside], "PEAK": peak}
    return Table(columns, units={"RA": "deg", "DEC": "deg", "X": "pix", "Y": "pix", "PEAK": "Jy/beam"})


def _write(
    made: _Made,
    planes: dict[str, NDArray[np.float32]],
    tables: dict[str, dict[str, Table]],
    options: ImageOptions,
    stem: Path,
    source: _Source,
) -> ImageProduct:
    header = _header(made, options, source)
    paths = {kind: stem.with_name(f"{stem.name}.{kind}.fits") for kind in planes}
    for kind, plane in planes.items():
        fits.write_image(paths[kind], plane, header, fits.UNITS.get(kind, "JY/BEAM"), tables.get(kind))
    return ImageProduct(
        path=paths["image"],
        **{f"{kind}_path": paths[kind] for kind in ("pbcor", "pb", "residual", "model", "psf", "smearing")},
        group_id=source.group_id,
        ra_deg=header.ra_deg,
        dec_deg=header.dec_deg,
        mjd_start=header.mjd_start,
        mjd_end=header.mjd_end,
        n_pixels=options.n_pixels,
        cell_arcsec=header.cell_deg * 3600.0,
        bmaj_deg=header.beam_deg[0],
        bmin_deg=header.beam_deg[1],
        bpa_deg=header.beam_deg[2],
        noise_jy=robust_rms(made.cleaned.residual),
        thermal_noise_jy=thermal_noise(made.data, made.weights),
        frequency_hz=made.response.mean_frequency_hz,
        flux_scale_error=source.flux_scale_error,
    )


def _header(made: _Made, options: ImageOptions, source: _Source) -> fits.ImageHeader:
    track, channels = made.data.track, made.data.channels
    half = track.integration_s / 2.0 / 86400.0
    low = min(c.frequencies[0] - c.native_width_hz * c.factor / 2 for c in channels)
    high = max(c.frequencies[-1] + c.native_width_hz * c.factor / 2 for c in channels)
    package = _package_version()
    weighting = f"briggs {options.robust:+.1f}" if options.weighting == "briggs" else options.weighting
    return fits.ImageHeader(
        n_pixels=options.n_pixels,
        cell_deg=float(np.degrees(made.grid.cell)),
        ra_deg=float(np.degrees(made.data.phase_center_ra) % 360.0),
        dec_deg=float(np.degrees(made.data.phase_center_dec)),
        frequency_hz=made.response.mean_frequency_hz,
        bandwidth_hz=float(high - low),
        beam_deg=(
            float(np.degrees(made.cleaned.beam.major) * made.vafactor),
            float(np.degrees(made.cleaned.beam.minor) * made.vafactor),
            float(np.degrees(made.cleaned.beam.angle)),
        ),
        mjd_start=float(track.mjd.min() - half),
        mjd_end=float(track.mjd.max() + half),
        vafactor=made.vafactor,
        telescope=source.telescope_name,
        provenance=(
            ("OBJECT", source.group_id, "group"),
            ("ORIGIN", f"dsa110_contimg {package}", ""),
            ("OPTIONS", options.digest(), "digest of the imaging options"),
            ("WEIGHT", weighting, "imaging weights"),
            ("NCLEAN", made.cleaned.iterations, "minor iterations"),
            ("NMAJOR", made.cleaned.major_cycles, "major cycles"),
            ("RESNOISE", robust_rms(made.cleaned.residual), "[Jy/beam] robust rms of the residual"),
        ),
        history=(
            f"imaged by dsa110_contimg {package}: {made.cleaned.program}",
            f"options {options.model_dump_json()}",
            *source.history,
        ),
    )


def _package_version() -> str:
    try:
        return version("dsa110_contimg")
    except PackageNotFoundError:  # run from a source tree that is not installed
        return "(not installed)"


def _response_table(response: Response) -> Table:
    """One row a pointing; frequencies and the dish in the table's header would lose digits, so they are columns."""
    n = len(response.pointing_ra)
    return Table(
        {
            "POINTING_RA": np.degrees(response.pointing_ra),
            "POINTING_DEC": np.degrees(response.pointing_dec),
            "FREQUENCY": np.tile(response.frequencies, (n, 1)),
            "WEIGHT": response.weights,
            "DISH_DIAMETER": np.full(n, response.dish_diameter_m),
        },
        units={"POINTING_RA": "deg", "POINTING_DEC": "deg", "FREQUENCY": "Hz", "DISH_DIAMETER": "m"},
    )
