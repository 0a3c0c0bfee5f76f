"""cubes: calibrated visibilities to images of every subband, for spectra, and of every integration, for time series."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from dsa110_contimg.io import cubes as cube_files
from dsa110_contimg.io import files, fits, ms
from dsa110_contimg.options import ImageOptions
from dsa110_contimg.records import CubeProduct, MeasurementSet
from dsa110_contimg.science import cubes, subtraction
from dsa110_contimg.science.aberration import aberration_scale
from dsa110_contimg.science.averaging import ImagingData, from_dataset
from dsa110_contimg.science.beam import half_power_radius
from dsa110_contimg.science.grid import SkyGrid
from dsa110_contimg.science.imaging import memory_estimate, require_memory
from dsa110_contimg.science.weighting import row_importance, uv_shape

_CUBE_COPIES = 3
"""The planes, their primary beams, and what is being written."""
Kind = Literal["subbands", "integrations"]
_MAX_CYCLES = 4
"""Major cycles of a plane: its noise is several times the image's, and hides the rest."""


@dataclass(frozen=True)
class _Field:
    """What all planes share."""

    data: ImagingData
    grid: SkyGrid
    vafactor: float
    options: ImageOptions
    group_id: str
    telescope: str
    history: tuple[str, ...]

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
) -> tuple[CubeProduct, ...]:
    """The cubes that the options ask for: ``subbands`` planes over the band, one of each integration.

    Parameters
    ----------
    visibilities : MeasurementSet, or Visibilities view of one phase centre
        Of a Measurement Set, CORRECTED_DATA is imaged.
    options : ImageOptions
        Size, weights and deconvolution are those of the image, in at most four major cycles.
    out_dir : Path
        ``<group id>.subbands.fits`` and ``<group id>.integrations.fits`` are written there, not beam corrected, each
        with the primary beam of its planes in ``<group id>.<kind>.pb.fits``.
    known : DataFrame, optional
        A catalogue (`io.catalogs.COLUMNS`). Its sources beyond the edge of the image are subtracted, which cannot be
        cleaned; those within it are cleaned, for what a cube is to show is how they vary.
    mask : (n, n), optional
        As of `deconvolution.clean`.
    history : sequence of str
        Lines for the header's HISTORY.

    Returns
    -------
    One record for each cube; none if the options ask for none.

    Raises
    ------
    ImagingError
        Everything is flagged, a deconvolution diverged, the pixels are too coarse for the beam, or the cube needs more
        memory than there is.
    OutputError
        ``out_dir`` cannot be written.
    """
    if not (options.subbands or options.per_integration):
        return ()
    dataset = visibilities
    if isinstance(dataset, MeasurementSet):
        dataset = ms.open_ms(dataset.path, "CORRECTED_DATA")
    field = _field(dataset, known, options, tuple(history))
    n_planes = max(options.subbands, len(field.data.track.mjd) if options.per_integration else 0)
    cube_bytes = _CUBE_COPIES * 4 * n_planes * options.n_pixels**2
    needed = memory_estimate(options.n_pixels, len(field.data.weights), multiscale=options.deconvolver == "multiscale")
    require_memory(needed + cube_bytes, files.available_memory(), options.memory_gb)
    made = []
    if options.subbands:
        made.append(_cube(field, "subbands", cubes.by_frequency(field.data, options.subbands), out_dir, mask))
    if options.per_integration:
        made.append(_cube(field, "integrations", cubes.by_time(field.data), out_dir, mask))
    return tuple(made)


def _field(dataset: xr.Dataset, known: pd.DataFrame | None, options: ImageOptions, history: tuple[str, ...]) -> _Field:
    cell, n = np.radians(options.cell_arcsec / 3600.0), options.n_pixels
    centre = float(dataset.attrs["phase_center_ra"]), float(dataset.attrs["phase_center_dec"])
    vafactor = aberration_scale(*centre, float(dataset["time"].mean()))
    grid = SkyGrid(n, cell * vafactor, *centre)
    if known is not None and options.subtract_known:
        sources = subtraction.known_sources(dataset, known, options.known_min_jy)
        x, y = grid.pixel(sources.ra, sources.dec)
        inside = (x > -0.5) & (x < n - 0.5) & (y > -0.5) & (y < n - 0.5)
        dataset = subtraction.subtract(dataset, sources.where(~inside))
    rows = np.nan_to_num(np.asarray(dataset["UVW"].to_numpy(), np.float64).reshape(-1, 3))
    frequencies = np.asarray(dataset["frequency"].to_numpy(), np.float64)
    worth = row_importance(rows, frequencies, n, cell, options.weighting, options.robust, uv_shape(options))
    data = from_dataset(
        dataset, options.averaging_loss, half_power_radius(float(frequencies.mean())), worth, options.stokes
    )
    telescope = str(dataset.attrs["telescope_name"])
    return _Field(data, grid, vafactor, options, str(dataset.attrs["group_id"]), telescope, history)


def _cube(
    field: _Field, kind: Kind, parts: Iterator[ImagingData | None], out_dir: Path, mask: NDArray[np.bool_] | None
) -> CubeProduct:
    cycles = min(_MAX_CYCLES, field.options.max_major_cycles)
    options, data, n = field.options.model_copy(update={"max_major_cycles": cycles}), field.data, field.grid.n_pixels
    n_planes = options.subbands if kind == "subbands" else len(data.track.mjd)
    restored = np.full((n_planes, n, n), np.nan, np.float32)
    pb, each = np.full_like(restored, np.nan), []
    edges = cubes.band_edges(data, options.subbands if kind == "subbands" else 1)
    for k, plane in enumerate(cubes.image_parts(parts, field.grid, field.cell, options, mask)):
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
    path = out_dir / f"{field.group_id}.{kind}.fits"
    pb_path = path.with_name(f"{field.group_id}.{kind}.pb.fits")
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
            ("OPTIONS", field.options.digest(), "digest of the imaging options"),
        ),
        history=(f"options {field.options.model_dump_json()}", *field.history),
    )
