"""A primary beam from what the pipeline has measured: photometry of many groups in the database, and their images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd

from dsa110_contimg import telescope
from dsa110_contimg.exceptions import MeasurementError
from dsa110_contimg.io import beams, catalogs
from dsa110_contimg.science.beamfit import LIMITS, BeamFit, FitLimits, fit_beam
from dsa110_contimg.science.photometry import Quality
from dsa110_contimg.settings import Settings
from dsa110_contimg.stages.measure import read_response
from dsa110_contimg.state.database import open_database
from dsa110_contimg.state.products import Products

Tell = Callable[[int, int], None]

UNFIT = Quality.BLENDED | Quality.CONFUSED | Quality.NEAR_EDGE | Quality.DISPLACED
"""Measurements that are not of one source alone; faint ones and those low in the beam are wanted."""


def fit(
    settings: Settings,
    out: Path,
    *,
    catalog: Path | None = None,
    limits: FitLimits = LIMITS,
    run_label: str = "",
    progress: Tell | None = None,
) -> BeamFit:
    """Fit the beam to all photometry of a run and write it as a table (`io.beams`).

    The gains of the groups were solved on a model seen through the beam that was assumed then. What that got wrong on
    axis is a scale, and is divided out; what it got wrong in the wings is a few per cent of the flux in the beam, so
    where the fitted beam differs much from the assumed one, process with it and fit again.

    Parameters
    ----------
    out : Path
        ECSV; for ``beam_table`` of the options.
    catalog : Path, optional
        The source list that the groups were measured with; the packaged catalogue by default.
    run_label : str
        Whose photometry.
    progress : callable (done, total), optional
        Called for each image.

    Raises
    ------
    MeasurementError
        Too few measurements.
    StateError
        There is no database.
    CorruptFileError
        An image's file cannot be read.
    """
    products = Products(open_database(settings.state_dir, create=False))
    photometry = pd.DataFrame(products.list_photometry(run_label=run_label))
    if photometry.empty:
        raise MeasurementError(
            "There is no photometry", path=settings.state_dir, found="0 measurements", expected="processed groups"
        )
    table = _with_catalog(photometry, catalog)
    images = [row for row in products.list_images(run_label=run_label) if row["group"] in set(table["group"])]
    responses = {}
    for number, row in enumerate(images, start=1):
        responses[row["group"]] = read_response(Path(row["pb_path"])).merged()
        if progress:
            progress(number, len(images))
    found = fit_beam(table, responses, limits)
    _write(out, found, limits, len(responses))
    return found


def _with_catalog(photometry: pd.DataFrame, path: Path | None) -> pd.DataFrame:
    """Measurements of single sources, with the catalogue's errors and spectral indices by name."""
    everything = catalogs.packaged_catalog() if path is None else catalogs.read_catalog(path)
    listed = everything.drop_duplicates("name").set_index("name")
    good = photometry[(photometry["quality"].astype(int) & UNFIT.value) == 0]
    good = good[good["source"].isin(listed.index)]
    if good.empty:
        raise MeasurementError(
            "No measurement is of a source of the catalogue",
            path=path,
            found=f"{len(photometry)} measurements",
            expected="the source list that the groups were measured with",
        )
    here = listed.loc[good["source"]]
    index = here["spectral_index"].to_numpy(np.float64)
    return good.assign(
        # at 1.4 GHz, whatever frequency the fluxes were reported at
        catalog_flux_jy=here["flux_jy"].to_numpy(np.float64),
        catalog_error_jy=here["flux_error_jy"].to_numpy(np.float64),
        spectral_index=index,
    )


def _write(out: Path, found: BeamFit, limits: FitLimits, n_groups: int) -> None:
    frequency = np.array([telescope.REFERENCE_FREQUENCY_HZ])
    table = beams.beam_table(found.angle_deg, frequency, found.power[None], found.error[None])
    table.meta |= {
        "made of": f"{found.n_measurements} fluxes of {found.n_sources} sources in {n_groups} groups",
        "left out": found.n_rejected,
        "flux scale": round(found.scale, 5),
        "reduced chi-square": round(found.chi_square, 3),
        "limits": asdict(limits),
    }
    beams.write_beam(out, table)
