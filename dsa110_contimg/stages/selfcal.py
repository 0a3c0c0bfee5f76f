"""selfcal: gains solved on a group's own image, as long as the image gets better by it.

Every round solves against the best image so far and makes a new one. What is new is kept only if its noise is lower and
its dynamic range higher by a margin, so that no round can make the product worse; the first that does not improve ends
it. The Measurement Set stays as calibration left it: the gains belong to the image, whose header names them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import pandas as pd
import xarray as xr

from dsa110_contimg import telescope
from dsa110_contimg.exceptions import CalibrationError
from dsa110_contimg.io import beams, files, fits, ms
from dsa110_contimg.io.caltable import write_caltable
from dsa110_contimg.options import ImageOptions, SelfcalOptions
from dsa110_contimg.records import ImageProduct, MeasurementSet
from dsa110_contimg.science import gains, subtraction
from dsa110_contimg.science.beam import PrimaryBeam, primary_beam
from dsa110_contimg.science.geometry import geometry
from dsa110_contimg.science.selfcal import Sky, solve_on_image

Progress = Callable[[int, int], None]

KINDS = {"phase": "GP", "amplitude": "2G"}
"""What the table of each is: phases, and on top of them complex gains."""


class MakeImage(Protocol):
    """How an image is made of visibilities, in a directory, with more lines for its history."""

    def __call__(self, data: xr.Dataset, place: Path, told: tuple[str, ...], /) -> ImageProduct:
        """The product."""


@dataclass(frozen=True)
class Round:
    """One round, and whether its image was kept.

    Attributes
    ----------
    what : phase or amplitude.
    noise_jy, dynamic_range : of the image it made; NaN if there was no solution.
    flagged_fraction : of its solutions.
    """

    what: str
    noise_jy: float
    dynamic_range: float
    flagged_fraction: float
    kept: bool


@dataclass(frozen=True)
class Refined:
    """What self-calibration came to.

    Attributes
    ----------
    image : the best image; the first one where nothing improved.
    tables : gains that it was made with, by kind (GP, 2G), as CalTable views; empty where nothing improved.
    paths : of the same as CASA tables, if the visibilities are those of a Measurement Set.
    rounds : all that were tried.
    visibilities : what the image was made of: a view with those gains, or what was given.
    history : lines that name the gains in the image's header; none where nothing improved.
    """

    image: ImageProduct
    tables: dict[str, xr.Dataset]
    paths: tuple[Path, ...]
    rounds: tuple[Round, ...]
    visibilities: MeasurementSet | xr.Dataset
    history: tuple[str, ...]


class _Around(NamedTuple):
    """What all rounds share of how the image is made: sources subtracted first, and the beam."""

    sources: subtraction.PointSources
    primary: PrimaryBeam
    imaging: ImageOptions


def selfcal(
    visibilities: MeasurementSet | xr.Dataset,
    first: ImageProduct,
    make: MakeImage,
    options: SelfcalOptions,
    imaging: ImageOptions,
    *,
    known: pd.DataFrame | None = None,
    tables_dir: Path | None = None,
    progress: Progress | None = None,
) -> Refined:
    """Improve an image by gains solved on it: rounds of phases, then of amplitudes.

    Parameters
    ----------
    visibilities : MeasurementSet or corrected Visibilities view
        What ``first`` was made of. Not changed.
    first : ImageProduct
        Replaced, file by file, by the best image, if any is better.
    make : callable
        Makes an image as ``first`` was made.
    options, imaging : options
    known : DataFrame, optional
        The catalogue that ``first`` was made with. Its sources are of the sky beside the model where the options
        subtract them (``subtract_known``).
    tables_dir : Path, optional
        Where CASA tables are written, ``<group>.selfcal.GP`` and ``.2G``; beside the image by default.
    progress : callable (done, total), optional
        Called after every round.

    Raises
    ------
    ImagingError, OutputError
        As ``make`` raises. The first image is then still there.
    """
    is_set = isinstance(visibilities, MeasurementSet)
    dataset = (
        ms.open_ms(visibilities.path, "CORRECTED_DATA") if isinstance(visibilities, MeasurementSet) else visibilities
    )
    around = _around(dataset, known, imaging)
    best, tables, rounds = first, dict[str, xr.Dataset](), list[Round]()
    told: tuple[str, ...] = ()
    plan = ["phase"] * options.phase_rounds + ["amplitude"] * options.amplitude_rounds
    with tempfile.TemporaryDirectory(prefix=f".{first.group_id}.selfcal.", dir=first.path.parent) as work:
        for number, what in enumerate(plan, start=1):
            table, candidate = _solved(dataset, best, around, tables, what, options), None
            if table is not None:
                after = {**tables, KINDS[what]: table}
                place = files.make_directory(Path(work) / str(number))
                candidate = make(_corrected(dataset, after), place, _told(number, after))
            kept = candidate is not None and _is_better(candidate, best, options.min_improvement)
            rounds.append(_round(what, table, candidate, kept=kept))
            if progress:
                progress(number, len(plan))
            if not kept or candidate is None:
                break
            best, tables, told = candidate, after, _told(number, after)
        if best is first:
            return Refined(first, {}, (), tuple(rounds), visibilities, ())
        paths: tuple[Path, ...] = ()
        if is_set:
            paths = _written(tables, tables_dir or first.path.parent, first.group_id, visibilities.path)
        return Refined(_in_place(best, first), tables, paths, tuple(rounds), _corrected(dataset, tables), told)


def _around(dataset: xr.Dataset, known: pd.DataFrame | None, imaging: ImageOptions) -> _Around:
    """As `stages.image` takes it."""
    measured = None if imaging.beam_table is None else beams.read_beam(imaging.beam_table)
    primary = primary_beam(measured, float(dataset.attrs.get("dish_diameter", telescope.DISH_DIAMETER_M)))
    sources = subtraction.NOTHING
    if known is not None and imaging.subtract_known:
        sources = subtraction.known_sources(dataset, known, imaging.known_min_jy, primary)
    cell = geometry(imaging, [dataset]).cell_arcsec
    return _Around(sources, primary, imaging.model_copy(update={"cell_arcsec": cell}))


def _solved(
    dataset: xr.Dataset,
    best: ImageProduct,
    around: _Around,
    tables: dict[str, xr.Dataset],
    what: str,
    options: SelfcalOptions,
) -> xr.Dataset | None:
    """The gains of a round; None where the field is too weak for any.

    A round of phases starts from the data, one of amplitudes from the data with the phases taken out.
    """
    below = [tables[KINDS["phase"]]] if what == "amplitude" and KINDS["phase"] in tables else []
    data = gains.apply_gains(dataset, *below, scale_weights=False) if below else dataset
    reach = max(2, round(best.bmaj_deg * 3600.0 / best.cell_arcsec / 1.5))
    try:
        return solve_on_image(
            data,
            Sky(fits.read_plane(best.model_path), around.sources, around.primary),
            around.imaging,
            noise_jy=best.noise_jy,
            reach=reach,
            interval_s=options.phase_interval_s if what == "phase" else options.amplitude_interval_s,
            phase_only=what == "phase",
            min_snr=options.min_snr,
        )
    except CalibrationError:
        return None


def _told(number: int, tables: dict[str, xr.Dataset]) -> tuple[str, ...]:
    return tuple(
        f"self-calibration round {number}: {kind}, {table.sizes['time']} intervals, reference {table.attrs['refant']}"
        for kind, table in tables.items()
    )


def _corrected(dataset: xr.Dataset, tables: dict[str, xr.Dataset]) -> xr.Dataset:
    return gains.apply_gains(dataset, *tables.values(), scale_weights=False)


def _dynamic_range(image: ImageProduct) -> float:
    return float(np.nanmax(fits.read_plane(image.path))) / image.noise_jy


def _is_better(new: ImageProduct, old: ImageProduct, margin: float) -> bool:
    return new.noise_jy <= old.noise_jy and _dynamic_range(new) >= (1.0 + margin) * _dynamic_range(old)


def _round(what: str, table: xr.Dataset | None, image: ImageProduct | None, *, kept: bool) -> Round:
    if table is None or image is None:
        return Round(what, float("nan"), float("nan"), 1.0, kept)
    return Round(what, image.noise_jy, _dynamic_range(image), float(table["FLAG"].mean()), kept)


def _written(tables: dict[str, xr.Dataset], out_dir: Path, group_id: str, like: Path) -> tuple[Path, ...]:
    made = []
    for kind, table in tables.items():
        path = out_dir / f"{group_id}.selfcal.{kind}"
        files.remove(path)
        made.append(write_caltable(table, path, like=like))
    return tuple(made)


def _in_place(best: ImageProduct, first: ImageProduct) -> ImageProduct:
    """The files of the best image under the names of the first, of which none stays."""
    names = [f.name for f in fields(ImageProduct) if isinstance(getattr(first, f.name), Path)]
    for name in names:
        getattr(best, name).replace(getattr(first, name))
    moved = {getattr(first, name) for name in names}
    for kind in fits.COMPANIONS:
        new, old = fits.companion(best.path, kind), fits.companion(first.path, kind)
        if old in moved:
            continue
        if new.exists():
            new.replace(old)
        else:
            files.remove(old)
    files.sync_directory(first.path.parent)
    return replace(best, **{name: getattr(first, name) for name in names})
