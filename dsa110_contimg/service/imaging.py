"""Image one Measurement Set, or one group, on request, with options of one's own."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from dsa110_contimg.exceptions import InputError
from dsa110_contimg.io import catalogs, files, fits, groups, ms
from dsa110_contimg.io.casa_image import export_casa_image
from dsa110_contimg.options import ImageOptions
from dsa110_contimg.pipeline import STEPS, GroupRun
from dsa110_contimg.records import ImageProduct, MeasurementSet
from dsa110_contimg.settings import Settings
from dsa110_contimg.stages import image
from dsa110_contimg.state.database import open_database
from dsa110_contimg.state.products import Products

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Imaged:
    """An image that was made, its view in memory, and where else it was put.

    Attributes
    ----------
    product : None where no FITS images are kept.
    casa_image : the CASA image, or None.
    """

    group_id: str
    view: xr.Dataset
    product: ImageProduct | None
    casa_image: Path | None


def make_image(
    target: Path,
    settings: Settings,
    options: ImageOptions,
    progress: Progress | None = None,
    *,
    skip_fits: bool = False,
    casa_image: bool = False,
) -> Imaged:
    """Image a calibrated Measurement Set, or a group, which is converted, flagged and calibrated where it is not yet.

    What is made with the configured options is the pipeline's own image of its group. With others it goes to a folder
    of its own (``images/<digest of the options>``) and is registered under that label: it never becomes current.

    Parameters
    ----------
    target : Path
        A Measurement Set, or the id of a group (the begin of the observation) in the input directory.
    skip_fits : bool
        Keep nothing on disk.
    casa_image : bool
        Write the restored image as a CASA image beside the FITS images, too.

    Raises
    ------
    InputError
        Both ``skip_fits`` and ``casa_image``.
    ContimgError
        As the stages raise.
    """
    if skip_fits and casa_image:
        raise InputError("A CASA image is made of the FITS image, which is not to be kept", found="--skip-fits")
    run = None if target.is_dir() else _calibrated(target, settings, options, progress)
    record = _record(target) if run is None else run.records["convert"]
    own = options == settings.options.image
    if run is not None and own and not skip_fits:
        product = run.step("image").record
    else:
        known = _field(record, settings) if run is None else run.field_catalog
        label, scale, history = f"image {options.digest()}", float("nan"), [f"Measurement Set {record.path}"]
        if run is not None:
            scale = run.records["apply"].flux_scale_error
            history += [f"calibration table {t.kind} {t.path.name}" for t in run.records["apply"].tables]
        with _place(settings, options, skip_fits) as folder:
            product = image.image(
                record, options, folder, flux_scale_error=scale, known=known, history=history, progress=_tell(progress)
            )
            view = fits.open_image(product.path).load() if skip_fits else fits.open_image(product.path)
        if skip_fits:
            return Imaged(record.group_id, view, None, None)
        Products(open_database(settings.state_dir)).record_image(product, run_label=label)
    exported = _export(product, settings) if casa_image else None
    return Imaged(record.group_id, fits.open_image(product.path), product, exported)


@contextmanager
def _place(settings: Settings, options: ImageOptions, gone: bool) -> Iterator[Path]:
    """Where images are written; of those that are not kept, a folder that goes."""
    if not gone:
        yield files.make_directory(settings.output_dir / "images" / options.digest())
        return
    folder = Path(tempfile.mkdtemp(prefix=".image-", dir=files.make_directory(settings.scratch_dir)))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _tell(progress: Progress | None) -> Callable[[int, int], None] | None:
    return None if progress is None else lambda done, total: progress("image", done, total)


def _calibrated(target: Path, settings: Settings, options: ImageOptions, progress: Progress | None) -> GroupRun:
    """The run of a group, up to what the image needs."""
    group = groups.find_group(settings.input_dir, target.name)
    run = GroupRun(group, settings, settings.options.model_copy(update={"image": options}), progress=progress)
    for step in STEPS[: STEPS.index("image")]:
        run.step(step)
    return run


def _record(path: Path) -> MeasurementSet:
    layout = ms.read_layout(path)
    half = layout.integration_s / 2 / 86400
    return MeasurementSet(
        path=path.absolute(),
        group_id=layout.group_id,
        ra_deg=float(np.degrees(layout.ra)),
        dec_deg=float(np.degrees(layout.dec)),
        mjd_start=float(layout.mjd[0] - half),
        mjd_end=float(layout.mjd[-1] + half),
        n_antennas=len(layout.names),
    )


def _field(record: MeasurementSet, settings: Settings) -> pd.DataFrame:
    options = settings.options.calibrate
    return catalogs.cone(record.ra_deg, record.dec_deg, options.model_radius_deg, options.model_min_jy)


def _export(product: ImageProduct, settings: Settings) -> Path:
    made = product.path.with_name(product.path.name.removesuffix(".fits"))
    work, cache = settings.scratch_dir / "casa" / product.group_id, settings.state_dir / "measures"
    return export_casa_image(product, made, workdir=files.make_directory(work), measures_cache=cache)
