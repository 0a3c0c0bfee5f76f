"""What MODEL_DATA was predicted from, kept with the column.

A Measurement Set outlives the run that wrote it. Without this nobody could tell a model of the whole field from one of
the calibrator alone, or how deep its catalogue went; and a model that was copied from another field would be solved on.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dsa110_contimg.exceptions import CalibrationError
from dsa110_contimg.io.ms import opened

if TYPE_CHECKING:
    from casacore.tables import table

COLUMN, KEYWORD = "MODEL_DATA", "DSA110_FIELD_MODEL"


@dataclass(frozen=True)
class FieldModel:
    """The sources that a field model holds.

    Attributes
    ----------
    group_id : group that it is of.
    source : ``catalog``, ``setjy`` or ``componentlist``.
    catalog : which one, and how deep it is.
    n_sources : sources predicted.
    faintest_jy : flux density of the faintest of them (Jy at 1.4 GHz).
    radius_deg : of the model about the pointing track.
    sources : `science.subtraction.PointSources.digest` of what was predicted through the dish's own beam; empty for
        anything else.
    least_jy, least_apparent_jy : limits in flux density and in apparent flux, through the beam, that were asked for
        (Jy at 1.4 GHz); 0 is none.
    """

    group_id: str
    source: str
    catalog: str
    n_sources: int
    faintest_jy: float
    radius_deg: float
    least_jy: float = 0.0
    least_apparent_jy: float = 0.0
    sources: str = ""

    def __str__(self) -> str:
        limits = [
            f"{value * 1e3:g} mJy{what}"
            for value, what in ((self.least_jy, ""), (self.least_apparent_jy, " through the beam"))
            if value
        ]
        count = f"{self.n_sources} source{'s' if self.n_sources > 1 else ''}"
        return (
            f"{self.source}, {self.catalog}: {count}, the faintest {self.faintest_jy * 1e3:.3g} mJy, "
            f"within {self.radius_deg:g} deg{', at least ' + ' and '.join(limits) if limits else ''}"
        )


def write_field_model(main: table, model: FieldModel) -> None:
    """Keep it with the model column of an open, writable Measurement Set."""
    main.putcolkeyword(COLUMN, KEYWORD, asdict(model))


def forget_field_model(main: table) -> None:
    """Before the column is written anew: a model that was cut short is nobody's."""
    if field_model_of(main) is not None:
        main.removecolkeyword(COLUMN, KEYWORD)


def field_model_of(main: table) -> FieldModel | None:
    """As `read_field_model`, of an open Measurement Set."""
    if COLUMN not in main.colnames() or KEYWORD not in main.colkeywordnames(COLUMN):
        return None
    kept: dict[str, Any] = main.getcolkeyword(COLUMN, KEYWORD)
    return FieldModel(**kept)


def read_field_model(path: Path) -> FieldModel | None:
    """What the model of a Measurement Set was predicted from; None if it has no model, or one that is not ours."""
    with opened(path) as main:
        return field_model_of(main)


def require_own_field(path: Path, group_id: str) -> None:
    """Refuse a Measurement Set without a model, or with one that was predicted for another group.

    Raises
    ------
    CalibrationError
        So it is. A model without a record of its origin is not refused.
    """
    with opened(path) as main:
        there, model = main.colnames(), field_model_of(main)
    if COLUMN not in there:
        raise CalibrationError("There is no model to solve against", path=path, found=there, expected=COLUMN)
    if model is not None and model.group_id != group_id:
        raise CalibrationError(
            "The model is not of this field", path=path, found=f"group {model.group_id}", expected=f"group {group_id}"
        )


def require_predicted(model: NDArray[np.complex64], path: Path) -> None:
    """Refuse model visibilities that nobody can have predicted.

    Raises
    ------
    CalibrationError
        All are one, which CASA writes into a new column: a point source that nobody meant; or some are not finite.
    """
    if model.flat[0] == 1.0 and (model == 1.0).all():
        raise CalibrationError("The model is not of this field", path=path, found=f"ones in {COLUMN}")
    if not np.isfinite(np.vdot(model, model)):  # several times as fast as looking at each
        raise CalibrationError("The model is not finite", path=path, found=f"NaN in {COLUMN}")
