"""Records and names become views: the functions behind `dsa110_contimg.open` and `dsa110_contimg.open_group`."""

from __future__ import annotations

import warnings
from functools import singledispatch
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from dsa110_contimg import (
    accessor,  # noqa: F401  # importing it gives every Dataset its `dsa`
    telescope,
)
from dsa110_contimg.exceptions import InputError
from dsa110_contimg.io import fits, foreign, groups, ms, netcdf, uvh5_views
from dsa110_contimg.io.caltable import open_caltable
from dsa110_contimg.records import CalTable, ImageProduct, MeasurementSet, Photometry, SubbandGroup
from dsa110_contimg.science.coordinates import meridian_icrs
from dsa110_contimg.settings import load_settings


def open_group(where: str | Path | SubbandGroup) -> xr.Dataset:
    """The observation of a group, lazily: nothing but headers is read.

    Parameters
    ----------
    where : str, Path or SubbandGroup
        A directory that holds one group, a directory and a time (``raw/2026-01-25T22:26:05``), or a time alone, which
        is looked for in the configured input directory. A time may be the group's id or that of any of its files.

    Returns
    -------
    xarray.Dataset
        The Visibilities view (`schema.VISIBILITIES`) in the sense of a Measurement Set, frequencies ascending; raw,
        each integration fringestopped at its own meridian, unless the files were phased since.

    Raises
    ------
    EmptyInputError, CorruptFileError, ForeignTelescopeError
        Nothing there, or files that cannot be used.
    InputError
        The directory holds several groups; they are named.
    """
    return uvh5_views.open_group(where if isinstance(where, SubbandGroup) else _find(Path(where)), meridian_icrs)


def open_uvh5(path: str | Path) -> xr.Dataset:
    """One UVH5 file, lazily, of DSA-110 or another telescope, as recorded or phased.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    xarray.Dataset
        The Visibilities view in the sense of a Measurement Set. ``phase_center_ra`` and ``phase_center_dec`` are along
        time where each integration has a phase centre of its own; fringes that were never stopped (another telescope's
        drift scan) are stopped at the zenith.

    Raises
    ------
    CorruptFileError, InputError
        A file that is damaged, or written in a way that is not understood.
    """
    return uvh5_views.open_file(Path(path), meridian_icrs)


def open_ms(
    path: str | Path, column: str = "DATA", *, model: bool = False, field: int | None = None, spw: int | None = None
) -> xr.Dataset:
    """A Measurement Set, lazily, ours or anybody's.

    Parameters
    ----------
    path : str or Path
    column : str
        DATA, MODEL_DATA or CORRECTED_DATA, becomes VISIBILITY.
    model : bool
        Whether MODEL_DATA comes with it, as MODEL.
    field, spw : int, optional
        Which field and spectral window (rows of FIELD and DATA_DESCRIPTION). Not needed where there is one of each, nor
        for those that `convert` wrote: their windows are joined, and their fields are the phase centres of the
        integrations.

    Returns
    -------
    xarray.Dataset
        The Visibilities view.

    Raises
    ------
    InputError
        Several fields or windows and none chosen (the error lists them), or the column is absent.
    CorruptFileError
        Not a Measurement Set.
    """
    path = Path(path)
    if field is None and spw is None and foreign.telescope_name(path) == telescope.TELESCOPE_NAME:
        return ms.open_ms(path, column, model=model)
    return foreign.open_window(path, column, model=model, field=field, spw=spw)


def open_image(path: str | Path) -> xr.Dataset:
    """An image, ours or anybody's, FITS or CASA, lazily: `io.fits.open_image`.

    Parameters
    ----------
    path : str or Path
        A FITS image or cube (of our products any: its companions beside it come with it), or a CASA image.

    Returns
    -------
    xarray.Dataset
        The Image view; what the file does not say is NaN or None.

    Raises
    ------
    InputError, CorruptFileError
        Nothing there, or not an image of the sky.
    """
    return fits.open_image(path)


def _find(path: Path) -> SubbandGroup:
    settings = load_settings()
    found = groups.resolve(path, settings.input_dir, chunk=groups.Chunk(settings.chunk_duration))
    for problem in found.problems:
        warnings.warn(str(problem), groups.GroupWarning, stacklevel=3)
    return found.groups[0]


@singledispatch
def open_record(record: Any) -> xr.Dataset | pd.DataFrame:
    """The view of a record.

    Parameters
    ----------
    record : SubbandGroup, MeasurementSet, CalTable, ImageProduct or Photometry
        Or the path of visibilities that ``ds.dsa.to_netcdf`` has written.

    Raises
    ------
    InputError
        Not a record that has a view.
    CorruptFileError
        A path of something else.
    """
    raise InputError("There is no view of this", found=type(record).__name__, expected="a record")


@open_record.register(str)
@open_record.register(Path)
def _(record: str | Path) -> xr.Dataset:
    return netcdf.read(Path(record))


@open_record.register
def _(record: SubbandGroup) -> xr.Dataset:
    return open_group(record)


@open_record.register
def _(record: MeasurementSet) -> xr.Dataset:
    return ms.open_ms(record.path)


@open_record.register
def _(record: CalTable) -> xr.Dataset:
    return open_caltable(record.path)


@open_record.register
def _(record: ImageProduct) -> xr.Dataset:
    return fits.open_image(record.path)


@open_record.register
def _(record: Photometry) -> pd.DataFrame:
    from astropy.table import Table

    return Table.read(record.path, format="ascii.ecsv").to_pandas()
