"""What a group looks at: where it points, the sources about its track, the calibrators that cross it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dsa110_contimg.io import catalogs, uvh5
from dsa110_contimg.options import PipelineOptions
from dsa110_contimg.records import SubbandGroup
from dsa110_contimg.science import beam, calibrators, coordinates, subtraction

Pointing = tuple[NDArray[np.float64], NDArray[np.float64]]


def pointing(group: SubbandGroup) -> Pointing:
    """Right ascension and declination of the meridian in each integration, (time,) each (rad, ICRS)."""
    header = uvh5.read_header(group.files[0].path)
    return coordinates.meridian_icrs(header.mjd, header.pointing_dec)


def sources(track: Pointing, options: PipelineOptions, catalog_path: Path | None = None) -> pd.DataFrame:
    """All catalogue sources that may matter to a group: around its track, brightest first.

    Calibration and imaging take the same, or one would subtract what the other has not solved for (the Crab nebula,
    6 deg from 3C138, still stands in a far sidelobe with a Jansky).

    Parameters
    ----------
    track : as from `pointing`
    catalog_path : Path, optional
        A user's source list instead of the packaged catalogue.
    """
    ra, dec = track
    radius = options.calibrate.model_radius_deg
    source = catalogs.packaged_catalog() if catalog_path is None else catalogs.read_catalog(catalog_path)
    middle = coordinates.circular_mean(ra)
    least = min(options.calibrate.model_min_jy, options.measure.min_flux_jy)
    near = catalogs.within(source, float(np.degrees(middle)), float(np.degrees(dec.mean())), radius + 1.5, least)
    where = subtraction.point_sources(near)
    nearest = np.min([beam.separation(where.ra, where.dec, *p) for p in zip(ra, dec, strict=True)], axis=0)
    return near[nearest <= np.radians(radius)].reset_index(drop=True)


def transits(track: Pointing, candidates: pd.DataFrame, options: PipelineOptions) -> list[calibrators.Transit]:
    """Candidates that cross the meridian in a group and are bright and near enough, strongest first."""
    wanted = options.calibrate
    return calibrators.transits(candidates, *track, wanted.min_calibrator_jy, wanted.max_calibrator_offset_deg)
