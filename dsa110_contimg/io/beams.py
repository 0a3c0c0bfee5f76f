"""Measured primary beams: ECSV tables of a radial profile at one or more frequencies, and the one an image carries.

Columns: ``angle_deg`` from the pointing, ``frequency_hz``, ``power`` (1 on axis), ``error`` (1 sigma); one row for each
angle of each frequency, the same angles at all. An image made with such a beam has it as extension ``BEAM`` of its
``.pb.fits``, so that what is measured in it later is divided by the same.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.io.ascii import InconsistentTableError
from astropy.table import Table
from numpy.typing import NDArray

from dsa110_contimg.exceptions import CorruptFileError, InputError
from dsa110_contimg.io.files import beside

EXTENSION = "BEAM"
COLUMNS = {"angle_deg": "deg", "frequency_hz": "Hz", "power": "", "error": ""}
_ON_AXIS = 0.02
"""How far a profile may be from 1 on axis: a few errors of a good measurement."""


def beam_table(
    angle_deg: NDArray[np.float64],
    frequency_hz: NDArray[np.float64],
    power: NDArray[np.float64],
    error: NDArray[np.float64],
) -> Table:
    """Rows of profiles ``power`` and ``error`` (frequency, angle), as a file has them."""
    angle, frequency = np.broadcast_arrays(angle_deg, np.asarray(frequency_hz)[:, None])
    values = (angle, frequency, power, error)
    units = {name: unit for name, unit in COLUMNS.items() if unit}
    return Table({n: np.ravel(v).astype(float) for n, v in zip(COLUMNS, values, strict=True)}, units=units)


def write_beam(path: Path, table: Table) -> None:
    """Write a beam (ECSV), whole or not at all.

    Raises
    ------
    InputError
        It is not a beam: it would not be read.
    OutputError
        The place cannot be written.
    """
    checked = _checked(table, path, InputError)
    with beside(path) as partial:
        checked.write(partial, format="ascii.ecsv")


def read_beam(path: Path) -> Table:
    """A measured beam, rows sorted by frequency and angle.

    Raises
    ------
    CorruptFileError
        Not there, not a table, or not a beam: a column is missing, values are not finite, frequencies have different
        angles, angles do not begin at 0, the power is not 1 there, or leaves [0, 1.1].
    """
    try:
        table = Table.read(path, format="ascii.ecsv")
    except (OSError, ValueError, InconsistentTableError) as error:
        raise CorruptFileError(
            "The beam cannot be read", path=path, found=error, expected=f"ECSV with {', '.join(COLUMNS)}"
        ) from error
    return _checked(table, path, CorruptFileError)


def beam_of_image(pb_path: Path) -> Table | None:
    """The measured beam that an image was made with (extension ``BEAM``); None: the Airy pattern of its dish.

    Raises
    ------
    CorruptFileError
        Not a FITS file, or the extension is not a beam.
    """
    try:
        with pb_path.open("rb") as stream, fits.open(stream) as hdus:
            table = Table.read(hdus[EXTENSION], format="fits") if EXTENSION in hdus else None
    except (OSError, ValueError) as error:
        raise CorruptFileError("The image cannot be read", path=pb_path, found=error, expected="FITS") from error
    return None if table is None else _checked(table, pb_path, CorruptFileError)


def _checked(table: Table, path: Path, error: type[InputError]) -> Table:
    missing = [name for name in COLUMNS if name not in table.colnames]
    if missing:
        raise error("A beam lacks columns", path=path, found=table.colnames, expected=list(COLUMNS))
    try:
        values = {name: np.asarray(table[name], np.float64) for name in COLUMNS}
    except (TypeError, ValueError) as fault:
        raise error("A beam is not numbers", path=path, found=fault, expected="four columns of numbers") from fault
    angles, frequencies = np.unique(values["angle_deg"]), np.unique(values["frequency_hz"])
    order = np.lexsort((values["angle_deg"], values["frequency_hz"]))
    power = values["power"][order]
    pairs = np.unique(np.stack([values["angle_deg"], values["frequency_hz"]]), axis=1).shape[1]
    faults = {
        "values that are not finite": not all(np.isfinite(v).all() for v in values.values()),
        "fewer than 4 angles": len(angles) < 4,
        "frequencies with different angles": len(power) != len(angles) * len(frequencies) or pairs != len(power),
        "angles that do not begin at 0, or reach 15 deg": not (len(angles) and angles[0] == 0 and angles[-1] < 15),
        "frequencies that are not of L band": not (len(frequencies) and (abs(frequencies - 1.4e9) < 0.6e9).all()),
        "power outside of 0 to 1.1": not ((power >= 0) & (power <= 1.1)).all(),
    }
    found = [what for what, wrong in faults.items() if wrong]
    if not found and (np.abs(power.reshape(-1, len(angles))[:, 0] - 1) > _ON_AXIS).any():
        found = [f"power {power[:: len(angles)]} on axis"]
    if not found and (power.reshape(-1, len(angles))[:, -1] >= 0.99).any():
        found = ["a beam that does not fall"]
    if found:
        raise error("Not a primary beam", path=path, found="; ".join(found), expected="profiles as `io.beams` has them")
    out = Table({name: column[order] for name, column in values.items()}, meta=dict(table.meta))
    for name, unit in COLUMNS.items():
        if unit:
            out[name].unit = unit
    return out
