"""image: calibrated visibilities to a restored image with its beam, smearing, noise and provenance."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from astropy.table import Table
from numpy.typing import NDArray
from scipy.constants import speed_of_light

from dsa110_contimg import telescope
from dsa110_contimg.exceptions import ImagingError
from dsa110_contimg.io import beams, blocks, fieldmodel, files, fits, ms, scratch_ms, tclean, wsclean
from dsa110_contimg.io.imagers import Request
from dsa110_contimg.options import ImageOptions
from dsa110_contimg.records import ImageProduct, MeasurementSet
from dsa110_contimg.science import spectral, subtraction
from dsa110_contimg.science.aberration import aberration_scale
from dsa110_contimg.science.apparent import ApparentSky
from dsa110_contimg.science.averaging import Cubes, ImagingData, concatenate, from_dataset, parallel_hands
from dsa110_contimg.science.beam import AIRY, PrimaryBeam, half_power_radius, primary_beam
from dsa110_contimg.science.cleanmask import as_file, catalog_mask, given_mask
from dsa110_contimg.science.deconvolution import COARSE, Share, band_mean, clean_jointly, robust_rms
from dsa110_contimg.science.faraway import FarFit, fit_and_subtract, solar_elongation
from dsa110_contimg.science.geometry import geometry
from dsa110_contimg.science.grid import SkyGrid
from dsa110_contimg.science.gridding import Gridder
from dsa110_contimg.science.heap import kept_memory
from dsa110_contimg.science.imaging import Cleaned, memory_estimate, require, require_memory, uv_limits_lambda
from dsa110_contimg.science.phasing import of_one_centre
from dsa110_contimg.science.response import Response, image_response, noise_map
from dsa110_contimg.science.restoring import Beam, add_points, fit_beam, restore
from dsa110_contimg.science.smearing import surviving_fraction
from dsa110_contimg.science.stokes import stokes_i
from dsa110_contimg.science.weighting import (
    described,
    imaging_weights,
    row_importance,
    thermal_noise,
    uv_shape,
    weights_made,
)

Progress = Callable[[int, int], None]
Visibilities = MeasurementSet | xr.Dataset | Sequence[xr.Dataset]
"""A Measurement Set, of which CORRECTED_DATA counts, a Visibilities view, or several (spectral windows)."""

RESPONSE_TABLE = "RESPONSE"
KNOWN_TABLE = "KNOWN"
_MAP_STEPS = 12
"""Coarse points of the beam map per half-power radius: splines between them are true to 1e-5."""


@dataclass(frozen=True)
class _Sky:
    """What is imaged, with which weights, onto which pixels.

    Attributes
    ----------
    cell : apparent angle of a pixel (rad), without the aberration that the pixels of ``grid`` have.
    averaged : whether the imager is given ``data`` as averaged here.
    """

    data: ImagingData
    weights: NDArray[np.float32]
    response: Response
    grid: SkyGrid
    cell: float
    vafactor: float
    averaged: bool
    far: tuple[FarFit, ...]

    def surviving(self, ra: NDArray[np.float64], dec: NDArray[np.float64]) -> NDArray[np.float64]:
        return surviving_fraction(ra, dec, self.data, self.weights, averaged=self.averaged)


@dataclass(frozen=True)
class _Made:
    """What an imager made of it."""

    sky: _Sky
    cleaned: Cleaned
    imager: str

    @cached_property
    def noise_jy(self) -> float:
        return robust_rms(self.cleaned.residual)


@dataclass(frozen=True)
class _Source:
    """What is known of the visibilities besides their numbers."""

    group_id: str
    telescope_name: str
    flux_scale_error: float
    history: tuple[str, ...]


class _More(NamedTuple):
    """What `image` is given besides visibilities and options."""

    flux_scale_error: float
    known: pd.DataFrame | None
    history: tuple[str, ...]
    progress: Progress | None
    work_dir: Path


class _Done(NamedTuple):
    """An image that is not yet written."""

    made: _Made
    planes: dict[str, NDArray[np.float32]]
    tables: dict[str, dict[str, Table]]
    source: _Source


@kept_memory()
def image(
    visibilities: Visibilities,
    options: ImageOptions,
    out_dir: Path,
    *,
    flux_scale_error: float = float("nan"),
    known: pd.DataFrame | None = None,
    history: Sequence[str] = (),
    progress: Progress | None = None,
    work_dir: Path | None = None,
) -> ImageProduct:
    """Image calibrated visibilities and deconvolve them.

    The imager makes model, residual and point spread function; beam, smearing, known sources and products are the same
    whoever made them.

    Parameters
    ----------
    visibilities : MeasurementSet, Visibilities view, or several views (spectral windows) of one phase centre
        Of a Measurement Set, CORRECTED_DATA is imaged.
    options : ImageOptions
    out_dir : Path
        ``<group id>.<kind>.fits`` are written there: image, pbcor, pb, residual, model, psf, smearing, noise; with
        ``spectral_terms`` alpha and alpha_error, the spectral index of the sky (`science.spectral`).
    flux_scale_error : float
        Relative error of the flux scale, from calibration; NaN if not known. It is carried, not used.
    known : DataFrame, optional
        A catalogue (`io.catalogs.COLUMNS`). Its sources, in the image or beyond its edge, are subtracted from the
        visibilities first, and those in the image restored to it (`science.subtraction`).
    history : sequence of str
        Lines for the header's HISTORY: where the visibilities come from.
    progress : callable (done, total), optional
        Called after every major cycle of the native imager.
    work_dir : Path, optional
        Where the other imagers work; ``out_dir`` by default. Nothing stays there.

    Raises
    ------
    ImagingError
        Everything is flagged, deconvolution diverged, the pixels are too coarse for the beam, the image needs more
        memory than there is, or the imager does not do what the options ask for.
    ExternalToolError
        The imager is not installed, or failed.
    OutputError
        ``out_dir`` cannot be written.
    """
    more = _More(flux_scale_error, known, tuple(history), progress, work_dir or out_dir)
    done = _imaged(visibilities, options, more)
    return _write(done, options, out_dir / done.source.group_id)


@kept_memory()
def image_in_memory(
    visibilities: Visibilities,
    options: ImageOptions,
    *,
    known: pd.DataFrame | None = None,
    history: Sequence[str] = (),
    progress: Progress | None = None,
    work_dir: Path,
) -> xr.Dataset:
    """The same image as an Image view that is nowhere on disk. Parameters and errors as of `image`.

    Only programs of their own (WSClean, tclean) write in ``work_dir``, and what they write goes.
    """
    done = _imaged(visibilities, options, _More(float("nan"), known, tuple(history), progress, work_dir))
    return fits.image_dataset(done.planes, _header(done.made, options, done.source))


def _imaged(visibilities: Visibilities, asked: ImageOptions, more: _More) -> _Done:
    """All of it but writing."""
    imager = "native" if asked.imager == "auto" else asked.imager
    require(asked, imager)
    if asked.n_pixels % 2:
        raise ImagingError("The image size must be even", found=asked.n_pixels, expected=asked.n_pixels + 1)
    datasets = _datasets(visibilities)
    n_pixels, cell, derived = geometry(asked, datasets)
    options = asked.model_copy(update={"n_pixels": n_pixels, "cell_arcsec": cell})
    require_memory(_memory(options, 0, imager), files.available_memory(), options.memory_gb)
    measured = None if options.beam_table is None else beams.read_beam(options.beam_table)
    primary = primary_beam(measured, float(datasets[0].attrs.get("dish_diameter", telescope.DISH_DIAMETER_M)))
    sources = subtraction.NOTHING
    if more.known is not None and options.subtract_known:
        sources = subtraction.known_sources(datasets[0], more.known, options.known_min_jy, primary)
        datasets = _subtracted(visibilities, datasets, sources, primary)
    parts = _parts(visibilities, options.stokes, sources, primary)
    sky = _prepare(datasets, parts, primary, options, imager)
    if imager == "native":
        made = _natively(sky, more.known, options, more.progress)
    else:
        made = _outside(datasets, sky, more.known, options, imager, more.work_dir)
    known_here = subtraction.known_table(sources, sky.grid, sky.response, sky.surviving)
    own = {} if measured is None else {beams.EXTENSION: measured}
    tables = {"pb": {RESPONSE_TABLE: sky.response.table(), **own}, "model": {KNOWN_TABLE: known_here}}
    group_id, name = (str(datasets[0].attrs[key]) for key in ("group_id", "telescope_name"))
    source = _Source(group_id, name, more.flux_scale_error, (*more.history, *filter(None, [derived])))
    return _Done(made, _planes(made, options, known_here), tables, source)


def _datasets(visibilities: Visibilities) -> list[xr.Dataset]:
    if isinstance(visibilities, MeasurementSet):
        given = [ms.open_ms(visibilities.path, "CORRECTED_DATA")]
    else:
        given = [visibilities] if isinstance(visibilities, xr.Dataset) else list(visibilities)
    return [of_one_centre(dataset) for dataset in given]


def _subtracted(
    visibilities: Visibilities,
    datasets: list[xr.Dataset],
    sources: subtraction.PointSources,
    primary: PrimaryBeam,
) -> list[xr.Dataset]:
    """Without the known sources."""
    if isinstance(visibilities, MeasurementSet) and _is_modelled(visibilities, sources, primary):
        whole = of_one_centre(ms.open_ms(visibilities.path, "CORRECTED_DATA", model=True))
        return [whole.assign(VISIBILITY=whole["VISIBILITY"] - whole["MODEL"]).drop_vars("MODEL")]
    return [subtraction.subtract(dataset, sources, primary) for dataset in datasets]


def _parts(
    visibilities: Visibilities,
    stokes: str,
    sources: subtraction.PointSources,
    primary: PrimaryBeam,
) -> Iterator[Cubes] | None:
    """The same from a Measurement Set straight, several times as fast as a lazy view; None if there is no way."""
    if not isinstance(visibilities, MeasurementSet):
        return None
    layout = ms.read_layout(visibilities.path, several=True)
    modelled = _is_modelled(visibilities, sources, primary)
    if len(layout.centers) > 1 or layout.n_windows > 1 or (len(sources) and not modelled):
        return None
    hands = parallel_hands(layout.polarizations, stokes)
    return blocks.integrations(visibilities.path, layout, "CORRECTED_DATA", hands, less_model=modelled)


def _is_modelled(record: MeasurementSet, sources: subtraction.PointSources, primary: PrimaryBeam) -> bool:
    """Whether MODEL_DATA was predicted from these very sources."""
    told = fieldmodel.read_field_model(record.path)
    return told is not None and told.sources == sources.digest() and primary == AIRY


def _prepare(
    datasets: list[xr.Dataset],
    blocks_of_one: Iterator[Cubes] | None,
    primary: PrimaryBeam,
    options: ImageOptions,
    imager: str,
) -> _Sky:
    """Flat rows with their weights. Imagers that read the visibilities themselves get them unaveraged: then what is
    averaged here serves to know the weights alone, and smears nothing.
    """
    parts, cell, averaged = [], np.radians(options.cell_arcsec / 3600.0), imager == "native"
    far: list[FarFit] = []
    for dataset in datasets:
        radius = half_power_radius(float(dataset["frequency"].mean()), primary.diameter_m)
        rows = np.nan_to_num(np.asarray(dataset["UVW"].to_numpy(), np.float64).reshape(-1, 3))
        frequencies = np.asarray(dataset["frequency"].to_numpy(), np.float64)
        worth = row_importance(
            rows, frequencies, options.n_pixels, cell, options.weighting, options.robust, uv_shape(options)
        )
        part = from_dataset(dataset, options.averaging_loss, radius, worth, options.stokes, blocks_of_one)
        part = replace(part, track=replace(part.track, beam=primary))
        # where other telescopes stand is not known here, nor what is above their horizon
        ours = dataset.attrs["telescope_name"] == telescope.TELESCOPE_NAME
        if averaged and ours and options.far_sigma is not None:
            far += fit_and_subtract(part, least_sigma=options.far_sigma)
        parts.append(part)
    data = concatenate(parts)
    require_memory(_memory(options, len(data.weights), imager), files.available_memory(), options.memory_gb)
    weights = imaging_weights(data, options.n_pixels, cell, options.weighting, options.robust, uv_shape(options))
    centre = (data.phase_center_ra, data.phase_center_dec)
    vafactor = aberration_scale(*centre, float(data.track.mjd.mean()))
    grid = SkyGrid(options.n_pixels, cell * vafactor, *centre)
    return _Sky(data, weights, image_response(data, weights).merged(), grid, cell, vafactor, averaged, tuple(far))


def _natively(sky: _Sky, known: pd.DataFrame | None, options: ImageOptions, progress: Progress | None) -> _Made:
    gridder = Gridder(sky.data, sky.weights, options.n_pixels, sky.cell, options.accuracy, options.threads)
    psf = gridder.quick_psf(gridder.coarser(COARSE))
    beam = fit_beam(psf, sky.cell)
    reach = max(2, round(beam.major / sky.cell / 1.5))
    if options.spectral_terms > 1:
        shares = spectral.shares_of_band(sky.data, sky.weights, sky.grid, sky.cell, reach, options)
    else:
        shares = (Share(gridder, psf, ApparentSky(gridder, sky.grid, reach), sky.response.mean_frequency_hz),)
    total = options.max_major_cycles
    told = (lambda cycle: progress(cycle.number, total)) if progress else None
    result = clean_jointly(shares, options, told, _mask(options, known, sky, beam))
    last, program = result.cycles[-1], f"ducc0 {version('ducc0')}, radler {version('radler')}"
    sums = np.array([share.gridder.weight_sum for share in shares])
    model, residual = band_mean(result.models, sums), band_mean(result.residuals, sums)
    slope = None
    if options.spectral_terms > 1:
        axis = np.array([share.frequency_hz for share in shares]), sums
        slope = spectral.slope(result.models, *axis), spectral.slope(result.residuals, *axis)
    cleaned = Cleaned(model, residual, psf, beam, None, last.iterations, last.number, program, slope)
    return _Made(sky, cleaned, "native")


def _outside(
    datasets: list[xr.Dataset],
    sky: _Sky,
    known: pd.DataFrame | None,
    options: ImageOptions,
    imager: str,
    work_dir: Path,
) -> _Made:
    """By WSClean or tclean, from a Measurement Set written for it: one phase centre, known sources subtracted."""
    # a mask of the catalogue needs a size before the beam is known: that of the longest baseline
    longest = float(np.sqrt((sky.data.uvw[:, :2] ** 2).sum(axis=1)).max())
    size = speed_of_light / sky.response.mean_frequency_hz / max(longest, 1.0)
    mask = _mask(options, known, sky, Beam(size, size, 0.0))
    program = {"wsclean": wsclean, "tclean": tclean}[imager]
    files.make_directory(work_dir)
    with tempfile.TemporaryDirectory(prefix=f".{imager}-", dir=work_dir) as scratch, as_file(mask) as mask_path:
        place = Path(scratch)
        hands = [stokes_i(d) if options.stokes == "I" else d.sel(polarization=[options.stokes]) for d in datasets]
        hands, asked = weights_made(hands, options, sky.cell) if imager == "tclean" else (hands, options)
        paths = tuple(scratch_ms.write(view, place / f"{number}.ms") for number, view in enumerate(hands))
        request = Request(
            paths,
            asked,
            mask=mask_path,
            uv_lambda=uv_limits_lambda(options),
            memory_gb=options.memory_gb,
            reference_hz=sky.response.mean_frequency_hz,
        )
        planes = program.image(request, place)
    beam = fit_beam(planes.psf, sky.cell)
    count = planes.iterations, planes.major_cycles
    images = planes.model, planes.residual, planes.psf
    return _Made(sky, Cleaned(*images, beam, None, *count, planes.program, planes.slope), imager)


def _memory(options: ImageOptions, n_samples: int, imager: str) -> int:
    side, shares = options.n_pixels, options.channel_groups if options.spectral_terms > 1 else 1
    if imager == "tclean":  # its images are wider, and it has planes of every term
        side, shares = tclean.wider(side), options.spectral_terms
    return memory_estimate(side, n_samples, multiscale=options.deconvolver == "multiscale", shares=shares)


def _mask(options: ImageOptions, known: pd.DataFrame | None, sky: _Sky, beam: Beam) -> NDArray[np.bool_] | None:
    """Where the options let components stand; None: the automatic mask, or anywhere."""
    if options.mask in ("auto", "none"):
        return None
    if options.mask == "catalog":
        if known is None:
            raise ImagingError("A mask of catalogue sources needs a catalogue", found="none", expected="known")
        wanted = subtraction.point_sources(known)
        return catalog_mask(wanted, sky.response, sky.grid, options.mask_min_jy, beam.major)
    path = Path(options.mask)
    return given_mask(fits.read_plane(path), fits.read_header(path), sky.grid)


def _planes(made: _Made, options: ImageOptions, known: Table) -> dict[str, NDArray[np.float32]]:
    """The images by kind; the ``known`` sources that were subtracted are put back into the restored one.

    The model keeps what deconvolution found: the known sources are not on its pixels, and stand in a table beside it.
    """
    sky, cleaned, cell = made.sky, made.cleaned, made.sky.cell
    spacing = half_power_radius(sky.response.mean_frequency_hz, sky.response.dish_diameter_m) / _MAP_STEPS
    restored = cleaned.restored
    if restored is None:
        restored = restore(cleaned.model, cleaned.residual, cleaned.beam, cell, options.threads)
    add_points(restored, cleaned.beam, cell, (known["X"], known["Y"]), known["PEAK"])
    pb = sky.grid.map(sky.response.at, spacing)
    smearing = sky.grid.map(sky.surviving, 2 * spacing)
    with np.errstate(divide="ignore", invalid="ignore"):
        pbcor = np.where(pb >= options.pb_cut, restored / pb, np.float32(np.nan))
    return {
        **spectral.index_maps(cleaned, (restored, pb), (sky.grid, cell, sky.response), options, known, spacing),
        "pbcor": pbcor,
        "pb": pb,
        "residual": cleaned.residual,
        "model": cleaned.model,
        "psf": cleaned.psf,
        "smearing": smearing,
        "noise": noise_map(made.noise_jy, pb, options.pb_cut),
        "image": restored,
    }


def _write(done: _Done, options: ImageOptions, stem: Path) -> ImageProduct:
    made, planes, tables, source = done
    header = _header(made, options, source)
    paths = {kind: stem.with_name(f"{stem.name}.{kind}.fits") for kind in planes}
    fits.write_images(paths, planes, header, tables)
    for kind in ("alpha", "alpha_error"):  # of an image that was here before
        if kind not in planes:
            files.remove(stem.with_name(f"{stem.name}.{kind}.fits"))
    return ImageProduct(
        path=paths["image"],
        pbcor_path=paths["pbcor"],
        pb_path=paths["pb"],
        residual_path=paths["residual"],
        model_path=paths["model"],
        psf_path=paths["psf"],
        smearing_path=paths["smearing"],
        group_id=source.group_id,
        ra_deg=header.ra_deg,
        dec_deg=header.dec_deg,
        mjd_start=header.mjd_start,
        mjd_end=header.mjd_end,
        n_pixels=header.n_pixels,
        cell_arcsec=header.cell_deg * 3600.0,
        bmaj_deg=header.beam_deg[0],
        bmin_deg=header.beam_deg[1],
        bpa_deg=header.beam_deg[2],
        noise_jy=made.noise_jy,
        thermal_noise_jy=thermal_noise(made.sky.data, made.sky.weights),
        frequency_hz=header.frequency_hz,
        flux_scale_error=source.flux_scale_error,
        tier=options.tier,
        imager=made.imager,
        dynamic_range=float(np.nanmax(planes["image"])) / made.noise_jy if made.noise_jy > 0 else float("nan"),
    )


def _header(made: _Made, options: ImageOptions, source: _Source) -> fits.ImageHeader:
    sky, cleaned, track, channels = made.sky, made.cleaned, made.sky.data.track, made.sky.data.channels
    half = track.integration_s / 2.0 / 86400.0
    low = min(c.frequencies[0] - c.native_width_hz * c.factor / 2 for c in channels)
    high = max(c.frequencies[-1] + c.native_width_hz * c.factor / 2 for c in channels)
    package, thermal = fits.package_version(), thermal_noise(sky.data, sky.weights)
    crossed = np.repeat(sky.data.uvw.any(axis=1), np.diff(sky.data.offsets))
    noises = (("THERMAL", thermal, "[Jy/beam] radiometer equation"),) if np.isfinite(thermal) else ()
    return fits.ImageHeader(
        n_pixels=sky.grid.n_pixels,
        cell_deg=float(np.degrees(sky.grid.cell)),
        ra_deg=float(np.degrees(sky.data.phase_center_ra) % 360.0),
        dec_deg=float(np.degrees(sky.data.phase_center_dec)),
        frequency_hz=sky.response.mean_frequency_hz,
        bandwidth_hz=float(high - low),
        beam_deg=(
            float(np.degrees(cleaned.beam.major) * sky.vafactor),
            float(np.degrees(cleaned.beam.minor) * sky.vafactor),
            float(np.degrees(cleaned.beam.angle)),
        ),
        mjd_start=float(track.mjd.min() - half),
        mjd_end=float(track.mjd.max() + half),
        vafactor=sky.vafactor,
        telescope=source.telescope_name,
        provenance=(
            ("OBJECT", source.group_id, "group"),
            ("ORIGIN", f"dsa110_contimg {package}", ""),
            ("IMAGER", made.imager, cleaned.program),
            ("TIER", options.tier, "NON-SCIENCE" if options.tier == "development" else ""),
            ("OPTIONS", options.digest(), "digest of the imaging options"),
            ("WEIGHT", described(options), "imaging weights"),
            ("NTERMS", options.spectral_terms, "terms of the spectrum of a component"),
            ("NCLEAN", cleaned.iterations, "minor iterations"),
            ("NMAJOR", cleaned.major_cycles, "major cycles"),
            ("RESNOISE", made.noise_jy, "[Jy/beam] robust rms of the residual"),
            *noises,
            ("SUNELONG", _elongation(sky), "[deg] angle to the Sun"),
            ("FLAGGED", 1.0 - float((sky.data.weights[crossed] > 0).mean()), "averaged visibilities without data"),
        ),
        history=(
            f"imaged by dsa110_contimg {package}: {cleaned.program}",
            f"options {options.model_dump_json()}",
            *map(str, sky.far),
            *source.history,
        ),
    )


def _elongation(sky: _Sky) -> float:
    centre = sky.data.phase_center_ra, sky.data.phase_center_dec
    return round(solar_elongation(*centre, float(sky.data.track.mjd.mean())), 3)
