"""Image one Measurement Set, or one group, on request, with options of one's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from dsa110_contimg import telescope
from dsa110_contimg.exceptions import InputError
from dsa110_contimg.io import catalogs, files, fits, foreign, groups, ms
from dsa110_contimg.io.casa_image import export_casa_image
from dsa110_contimg.options import ImageOptions
from dsa110_contimg.pipeline import STEPS, GroupRun
from dsa110_contimg.records import ImageProduct, MeasurementSet
from dsa110_contimg.science.selection import take
from dsa110_contimg.settings import Settings
from dsa110_contimg.stages import cubes, image
from dsa110_contimg.state.database import open_database
from dsa110_contimg.state.products import Products

Progress = Callable[[str, int, int], None]
_LOOKS = 3
"""Integrations that are looked at for whether a column holds anything."""


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
    field: int | None = None,
    skip_fits: bool = False,
    casa_image: bool = False,
) -> Imaged:
    """Image a calibrated Measurement Set, or a group, which is converted, flagged and calibrated where it is not yet.

    A Measurement Set of another telescope is imaged as it is: CORRECTED_DATA if it has that, else DATA, of one field in
    all its spectral windows. Its own dish makes the beam, and no catalogue sources are subtracted: a list of 1.4 GHz at
    45 arcsec is not its sky.

    What is made with the configured options is the pipeline's own image of its group. With others it goes to a folder
    of its own (``images/<digest of the options>``) and is registered under that label: it never becomes current.

    Parameters
    ----------
    target : Path
        A Measurement Set, or the id of a group (the begin of the observation) in the input directory.
    field : int, optional
        Row of FIELD of another telescope's Measurement Set; needed if several have data.
    skip_fits : bool
        The image is in memory alone: no file is written, and nothing registered, for a registered image has files.
    casa_image : bool
        Write the restored image as a CASA image beside the FITS images, too.

    Raises
    ------
    InputError
        Both ``skip_fits`` and ``casa_image``; a ``field`` that is not there, not said, or of our own data; a column
        that is allocated, but holds zeros.
    ContimgError
        As the stages raise.
    """
    if skip_fits and casa_image:
        raise InputError("A CASA image is made of the FITS image, which is not to be kept", found="--skip-fits")
    if field is not None and not target.is_dir():
        raise InputError("A group is imaged whole", path=target, found=f"field {field}", expected="no field")
    run = None if target.is_dir() else _calibrated(target, settings, options, progress)
    own = options == settings.options.image
    if run is not None and own and not skip_fits:
        product = run.step("image").record
    else:
        what = _of_set(target, field, settings) if run is None else _of_run(run)
        cubes_of = _require_cubes(what.visibilities, options, skip_fits=skip_fits)
        tell, work = _tell(progress), files.make_directory(settings.scratch_dir)
        if skip_fits:
            view = image.image_in_memory(
                what.visibilities, options, known=what.known, history=what.history, progress=tell, work_dir=work
            )
            return Imaged(what.group_id, view, None, None)
        product = image.image(
            what.visibilities,
            options,
            files.make_directory(settings.output_dir / "images" / options.digest()),
            flux_scale_error=what.flux_scale_error,
            known=what.known,
            history=what.history,
            progress=tell,
            work_dir=work,
        )
        label = f"image {options.digest()}"
        Products(open_database(settings.state_dir)).record_image(product, run_label=label)
        if cubes_of is not None:
            cubes.image_cubes(
                cubes_of, options, product.path.parent, known=what.known, history=what.history, work_dir=work
            )
    exported = _export(product, settings) if casa_image else None
    return Imaged(product.group_id, fits.open_image(product.path), product, exported)


def _require_cubes(
    visibilities: image.Visibilities, options: ImageOptions, *, skip_fits: bool
) -> MeasurementSet | xr.Dataset | None:
    """What cubes are made of; None if none are asked for."""
    if not (options.subbands or options.per_integration):
        return None
    if skip_fits:
        raise InputError("Cubes are FITS files, which are not to be written", found="--skip-fits")
    if isinstance(visibilities, MeasurementSet | xr.Dataset):
        return visibilities
    if len(visibilities) > 1:
        windows = f"{len(visibilities)} spectral windows"
        raise InputError("A cube is made of one spectral window", found=windows, expected="a split Measurement Set")
    return visibilities[0]


@dataclass(frozen=True)
class _What:
    """What is imaged, and what is known of it."""

    group_id: str
    visibilities: image.Visibilities
    known: pd.DataFrame | None
    flux_scale_error: float
    history: tuple[str, ...]


def _of_run(run: GroupRun) -> _What:
    record, applied = run.records["convert"], run.records["apply"]
    history = [f"Measurement Set {record.path}", *(f"calibration table {t.kind} {t.path.name}" for t in applied.tables)]
    return _What(record.group_id, record, run.field_catalog, applied.flux_scale_error, tuple(history))


def _of_set(path: Path, field: int | None, settings: Settings) -> _What:
    history = (f"Measurement Set {path}",)
    if foreign.telescope_name(path) == telescope.TELESCOPE_NAME:
        if field is not None:
            raise InputError("A Measurement Set of a group is imaged whole", path=path, found=f"field {field}")
        record = _record(path)
        _require_data(path, "CORRECTED_DATA", [ms.open_ms(path, "CORRECTED_DATA")], "a calibration that is applied")
        return _What(record.group_id, record, _field(record, settings), float("nan"), history)
    there = foreign.contents(path)
    if field is None and len(there.fields) > 1:
        listed = "; ".join(map(str, there.fields))
        raise InputError("The Measurement Set has several fields", path=path, found=listed, expected="--field NUMBER")
    number = there.fields[0].number if field is None else field
    column = "CORRECTED_DATA" if "CORRECTED_DATA" in there.columns else "DATA"
    views = foreign.open_foreign(path, column, number)
    wanted = "visibilities"
    if column == "CORRECTED_DATA":
        wanted = "a calibration that is applied" + ("; without this column DATA is imaged" * ("DATA" in there.columns))
    _require_data(path, column, views, wanted)
    about = f"{there.telescope_name}, field {number}, {column} in {len(views)} spectral windows"
    return _What(path.stem, views, None, float("nan"), (*history, about))


def _require_data(path: Path, column: str, views: Sequence[xr.Dataset], wanted: str) -> None:
    """Raise `InputError` if all that is not flagged is zero: a column that is there may never have been filled."""
    unflagged = False
    for view in views:
        # a few integrations tell, unless they are flagged or zero; then all of them do
        few = np.unique(np.linspace(0, view.sizes["time"] - 1, _LOOKS).astype(int))
        for part in (*(take(view, "time", few[k : k + 1]) for k in range(few.size)), view):
            used = ~part["FLAG"]
            if bool(((part["VISIBILITY"] != 0) & used).any()):
                return
        unflagged = unflagged or bool(used.any())
    if unflagged:
        raise InputError(f"{column} holds nothing", path=path, found="zeros where not flagged", expected=wanted)


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
