"""cubes: calibrated visibilities to images of every subband, for spectra, and of every integration, for time series."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from dsa110_contimg import telescope
from dsa110_contimg.io import beams, files, fits, ms, scratch_ms, tclean, wsclean
from dsa110_contimg.io import cubes as cube_files
from dsa110_contimg.io.imagers import Request
from dsa110_contimg.options import ImageOptions
from dsa110_contimg.records import CubeProduct, MeasurementSet
from dsa110_contimg.science import cubes, subtraction
from dsa110_contimg.science.aberration import aberration_scale
from dsa110_contimg.science.averaging import ImagingData, from_dataset
from dsa110_contimg.science.beam import half_power_radius, primary_beam
from dsa110_contimg.science.cleanmask import as_file
from dsa110_contimg.science.faraway import fit_and_subtract
from dsa110_contimg.science.geometry import geometry
from dsa110_contimg.science.grid import SkyGrid
from dsa110_contimg.science.imaging import memory_estimate, require, require_memory, uv_limits_lambda
from dsa110_contimg.science.restoring import fit_beam
from dsa110_contimg.science.selection import take
from dsa110_contimg.science.stokes import stokes_i
from dsa110_contimg.science.weighting import imaging_weights, row_importance, uv_shape, weights_made

_CUBE_COPIES = 3
"""The planes, their primary beams, and what is being written."""
Kind = Literal["subbands", "integrations"]
_MAX_CYCLES = 4
"""Major cycles of a plane: its noise is several times the image's, and hides the rest."""


@dataclass(frozen=True)
class _Field:
    """What all planes share; ``dataset`` are the visibilities that ``data`` was averaged from."""

    dataset: xr.Dataset
    data: ImagingData
    grid: SkyGrid
    vafactor: float
    options: ImageOptions
    group_id: str
    telescope: str
    history: tuple[str, ...]
    mask: NDArray[np.bool_] | None
    work_dir: Path

    @property
    def cell(self) -> float:
        return self.grid.cell / self.vafactor


def image_cubes(
    visibilities: MeasurementSet | xr.Dataset,
    options: ImageOptions,
    out_dir: Path,
    *,
    known: pd.DataFrame | None = None,
    mask: NDArray[np.bool_] | None = None,
    history: Sequence[str] = (),
    work_dir: Path | None = None,
) -> tuple[CubeProduct, ...]:
    """The cubes that the options ask for: ``subbands`` planes over the band, one of each integration.

    Every plane is an image by itself, whoever makes it: WSClean and tclean are called once for each, on a Measurement
    Set of the visibilities that are in it.

    Parameters
    ----------
    visibilities : MeasurementSet, or Visibilities view of one phase centre
        Of a Measurement Set, CORRECTED_DATA is imaged.
    options : ImageOptions
        Size, weights and deconvolution are those of the image, in at most four major cycles.
    out_dir : Path
        ``<group id>.subbands.fits`` and ``<group id>.integrations.fits`` are written there, not beam corrected, each
        with the primary beam of its planes in ``<group id>.<kind>.pb.fits``. Of a kind that is not asked for, those
        files are removed: they were made with an image that was here before.
    known : DataFrame, optional
        A catalogue (`io.catalogs.COLUMNS`). Its sources beyond the edge of the image are subtracted, which cannot be
        cleaned; those within it are cleaned, for what a cube is to show is how they vary.
    mask : (n, n), optional
        As of `deconvolution.clean`.
    history : sequence of str
        Lines for the header's HISTORY.
    work_dir : Path, optional
        Where the other imagers work; ``out_dir`` by default. Nothing stays there.

    Returns
    -------
    One record for each cube; none if the options ask for none.

    Raises
    ------
    ImagingError
        Everything is flagged, a deconvolution diverged, the pixels are too coarse for the beam, the cube needs more
        memory than there is, or the imager does not do what the options ask for.
    ExternalToolError
        The imager is not installed, or failed.
    OutputError
        ``out_dir`` cannot be written.
    """
    asked = {"subbands": bool(options.subbands), "integrations": options.per_integration}
    if any(asked.values()):
        require(options, _imager(options))
    group = visibilities.group_id if isinstance(visibilities, MeasurementSet) else str(visibilities.attrs["group_id"])
    for kind in get_args(Kind):
        if not asked[kind]:
            for path in _paths(out_dir, group, kind):
                files.remove(path)
    if not any(asked.values()):
        return ()
    dataset = visibilities
    if isinstance(dataset, MeasurementSet):
        dataset = ms.open_ms(dataset.path, "CORRECTED_DATA")
    field = _field(dataset, known, options)
    field = replace(field, history=(*history, *field.history), mask=mask, work_dir=work_dir or out_dir)
    n_planes = max(options.subbands, len(field.data.track.mjd) if options.per_integration else 0)
    cube_bytes = _CUBE_COPIES * 4 * n_planes * field.grid.n_pixels**2
    multiscale = options.deconvolver == "multiscale"
    side = tclean.wider(field.grid.n_pixels) if options.imager == "tclean" else field.grid.n_pixels
    needed = memory_estimate(side, len(field.data.weights), multiscale=multiscale)
    require_memory(needed + cube_bytes, files.available_memory(), options.memory_gb)
    made = []
    if options.subbands:
        made.append(_cube(field, "subbands", cubes.by_frequency(field.data, options.subbands), out_dir))
    if options.per_integration:
        made.append(_cube(field, "integrations", cubes.by_time(field.data), out_dir))
    return tuple(made)


def _paths(out_dir: Path, group_id: str, kind: Kind) -> tuple[Path, Path]:
    """Of a cube, and of the primary beam of its planes."""
    return out_dir / f"{group_id}.{kind}.fits", out_dir / f"{group_id}.{kind}.pb.fits"


def _imager(options: ImageOptions) -> str:
    return "native" if options.imager == "auto" else options.imager


def _field(dataset: xr.Dataset, known: pd.DataFrame | None, options: ImageOptions) -> _Field:
    n, cell_arcsec, told = geometry(options, [dataset])
    cell = float(np.radians(cell_arcsec / 3600.0))
    centre = float(dataset.attrs["phase_center_ra"]), float(dataset.attrs["phase_center_dec"])
    vafactor = aberration_scale(*centre, float(dataset["time"].mean()))
    grid = SkyGrid(n, cell * vafactor, *centre)
    measured = None if options.beam_table is None else beams.read_beam(options.beam_table)
    primary = primary_beam(measured, float(dataset.attrs.get("dish_diameter", telescope.DISH_DIAMETER_M)))
    if known is not None and options.subtract_known:
        sources = subtraction.known_sources(dataset, known, options.known_min_jy, primary)
        x, y = grid.pixel(sources.ra, sources.dec)
        inside = (x > -0.5) & (x < n - 0.5) & (y > -0.5) & (y < n - 0.5)
        dataset = subtraction.subtract(dataset, sources.where(~inside), primary)
    rows = np.nan_to_num(np.asarray(dataset["UVW"].to_numpy(), np.float64).reshape(-1, 3))
    frequencies = np.asarray(dataset["frequency"].to_numpy(), np.float64)
    worth = row_importance(rows, frequencies, n, cell, options.weighting, options.robust, uv_shape(options))
    radius = half_power_radius(float(frequencies.mean()), primary.diameter_m)
    data = from_dataset(dataset, options.averaging_loss, radius, worth, options.stokes)
    data = replace(data, track=replace(data.track, beam=primary))
    names = str(dataset.attrs["group_id"]), str(dataset.attrs["telescope_name"])
    lines = [told] if told else []
    # the other imagers read the visibilities themselves; where other telescopes stand is not known here
    if _imager(options) == "native" and names[1] == telescope.TELESCOPE_NAME and options.far_sigma is not None:
        lines += [str(fit) for fit in fit_and_subtract(data, least_sigma=options.far_sigma)]
    return _Field(dataset, data, grid, vafactor, options, *names, tuple(lines), None, Path())


def _of_a_plane(field: _Field) -> ImageOptions:
    """A plane is shallower than the image, and its spectrum is flat; its mask is automatic where none is given."""
    given = field.options
    mask = "auto" if field.mask is None and given.mask != "none" else given.mask
    cycles = min(_MAX_CYCLES, given.max_major_cycles)
    size = {"n_pixels": field.grid.n_pixels, "cell_arcsec": float(np.degrees(field.cell)) * 3600.0}
    return given.model_copy(update={**size, "max_major_cycles": cycles, "spectral_terms": 1, "mask": mask})


def _natively(field: _Field, part: ImagingData) -> cubes.Plane:
    return cubes.image_part(part, field.grid, field.cell, _of_a_plane(field), field.mask)


def _outside(field: _Field, view: xr.Dataset, part: ImagingData) -> cubes.Plane:
    """By WSClean or tclean, of the visibilities of a view; its weights are known from those of a part."""
    options, imager, n, cell = _of_a_plane(field), _imager(field.options), field.grid.n_pixels, field.cell
    program = {"wsclean": wsclean, "tclean": tclean}[imager]
    hands = stokes_i(view) if options.stokes == "I" else view.sel(polarization=[options.stokes])
    weights = imaging_weights(part, n, cell, options.weighting, options.robust, uv_shape(options))
    files.make_directory(field.work_dir)
    with (
        tempfile.TemporaryDirectory(prefix=f".{imager}-", dir=field.work_dir) as scratch,
        as_file(field.mask) as mask_path,
    ):
        place = Path(scratch)
        (hands,), asked = weights_made([hands], options, cell) if imager == "tclean" else ([hands], options)
        path = scratch_ms.write(hands, place / "plane.ms")
        limits, memory = uv_limits_lambda(options), options.memory_gb
        planes = program.image(Request((path,), asked, mask=mask_path, uv_lambda=limits, memory_gb=memory), place)
    images = planes.model, planes.residual, fit_beam(planes.psf, cell)
    return cubes.finished(part, weights, field.grid, cell, options, images)


def _view(field: _Field, kind: Kind, number: int, edges: NDArray[np.float64]) -> xr.Dataset:
    """The visibilities of a plane: an integration, or the channels whose middle lies in its share of the band."""
    if kind == "integrations":
        return take(field.dataset, "time", np.array([number]))
    middle = np.asarray(field.dataset["frequency"].to_numpy(), np.float64)
    inside = (middle >= edges[number]) & (middle < edges[number + 1])
    return take(field.dataset, "frequency", np.flatnonzero(inside))


def _cube(field: _Field, kind: Kind, parts: Iterator[ImagingData | None], out_dir: Path) -> CubeProduct:
    options, data, n = field.options, field.data, field.grid.n_pixels
    n_planes = options.subbands if kind == "subbands" else len(data.track.mjd)
    restored = np.full((n_planes, n, n), np.nan, np.float32)
    pb, each = np.full_like(restored, np.nan), []
    edges = cubes.band_edges(data, options.subbands if kind == "subbands" else 1)

    def make(number: int, part: ImagingData) -> cubes.Plane:
        if _imager(options) == "native":
            return _natively(field, part)
        return _outside(field, _view(field, kind, number, edges), part)

    for k, plane in enumerate(cubes.image_parts(parts, make)):
        mjd = float(data.track.mjd[k] if kind == "integrations" else data.track.mjd.mean())
        nominal = float(edges[k : k + 2].mean() if kind == "subbands" else edges.mean())
        if plane is not None:
            restored[k], pb[k] = plane.restored, plane.pb
        each.append(_plane_header(plane, nominal, mjd, field.vafactor))
    half = data.track.integration_s / 2.0
    axis: cube_files.Axis = ("TIME", half, 2.0 * half)
    if kind == "subbands":
        axis = ("FREQ", float(edges[:2].mean()), float(edges[1] - edges[0]))
    header = _header(field, each, (float(edges[0]), float(edges[-1])))
    path, pb_path = _paths(out_dir, field.group_id, kind)
    cube_files.write_cube(pb_path, pb, header, "", axis, each)
    cube_files.write_cube(path, restored, header, "JY/BEAM", axis, each)
    return CubeProduct(
        path=path,
        pb_path=pb_path,
        group_id=field.group_id,
        kind=kind,
        frequency_hz=tuple(p.frequency_hz for p in each),
        mjd=tuple(p.mjd for p in each),
        noise_jy=tuple(p.noise_jy for p in each),
        thermal_noise_jy=tuple(p.thermal_noise_jy for p in each),
    )


def _plane_header(plane: cubes.Plane | None, nominal_hz: float, mjd: float, vafactor: float) -> cube_files.PlaneHeader:
    nan = float("nan")
    if plane is None:
        return cube_files.PlaneHeader((nan, nan, nan), nominal_hz, mjd, nan, nan)
    major, minor, angle = (float(np.degrees(v)) for v in (plane.beam.major, plane.beam.minor, plane.beam.angle))
    beam = (major * vafactor, minor * vafactor, angle)
    return cube_files.PlaneHeader(beam, plane.frequency_hz, mjd, plane.noise_jy, plane.thermal_noise_jy)


def _header(field: _Field, each: Sequence[cube_files.PlaneHeader], band: tuple[float, float]) -> fits.ImageHeader:
    track, grid = field.data.track, field.grid
    half = track.integration_s / 2.0 / 86400.0
    # position angles near 0 and 180 deg are the same: the beam of the middle plane stands for all
    beams = [plane.beam_deg for plane in each if np.isfinite(plane.beam_deg).all()]
    return fits.ImageHeader(
        n_pixels=grid.n_pixels,
        cell_deg=float(np.degrees(grid.cell)),
        ra_deg=float(np.degrees(grid.ra) % 360.0),
        dec_deg=float(np.degrees(grid.dec)),
        frequency_hz=float(np.mean(band)),
        bandwidth_hz=band[1] - band[0],
        beam_deg=beams[len(beams) // 2],
        mjd_start=float(track.mjd.min() - half),
        mjd_end=float(track.mjd.max() + half),
        vafactor=field.vafactor,
        telescope=field.telescope,
        provenance=(
            ("OBJECT", field.group_id, "group"),
            ("IMAGER", _imager(field.options), "of every plane"),
            ("OPTIONS", field.options.digest(), "digest of the imaging options"),
        ),
        history=(f"options {field.options.model_dump_json()}", *field.history),
    )
