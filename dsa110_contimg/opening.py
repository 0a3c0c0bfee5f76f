"""Records and names become views: the functions behind `dsa110_contimg.open` and `dsa110_contimg.open_group`."""

from __future__ import annotations

import re
from functools import singledispatch
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from dsa110_contimg.exceptions import InputError
from dsa110_contimg.io import fits, groups, ms, uvh5
from dsa110_contimg.io.caltable import open_caltable
from dsa110_contimg.records import CalTable, ImageProduct, MeasurementSet, Photometry, SubbandGroup
from dsa110_contimg.science.coordinates import meridian_icrs
from dsa110_contimg.settings import load_settings

_TIME = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d$")


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
        The Visibilities view (`schema.VISIBILITIES`): raw, fringestopped at the meridian, frequencies ascending.

    Raises
    ------
    EmptyInputError, CorruptFileError, ForeignTelescopeError
        Nothing there, or files that cannot be used.
    InputError
        The directory holds several groups; they are named.
    """
    return uvh5.open_group(where if isinstance(where, SubbandGroup) else _find(Path(where)), meridian_icrs)


def _find(path: Path) -> SubbandGroup:
    if not path.is_dir() and _TIME.match(path.name):
        directory = path.parent if str(path) != path.name else load_settings().input_dir
        return groups.find_group(directory, path.name)
    found = groups.discover(path)
    if len(found.groups) != 1:
        raise InputError(
            "The directory does not hold exactly one group; name its time too",
            path=path,
            found=", ".join(g.group_id for g in found.groups) or "; ".join(str(p) for p in found.problems),
            expected=f"{path}/YYYY-MM-DDTHH:MM:SS",
        )
    return found.groups[0]


@singledispatch
def open_record(record: Any) -> xr.Dataset | pd.DataFrame:
    """The view of a record.

    Parameters
    ----------
    record : SubbandGroup, MeasurementSet, CalTable, ImageProduct or Photometry

    Raises
    ------
    InputError
        Not a record that has a view.
    """
    raise InputError("There is no view of this", found=type(record).__name__, expected="a record")


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
