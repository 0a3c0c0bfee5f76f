"""The bounds of calibrations and images: `data/bounds.yaml`, packaged, or a file of one's own."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from dsa110_contimg.bounds import CalibrationBounds, ImageBounds
from dsa110_contimg.exceptions import SettingsError

_Section = TypeVar("_Section", bound=BaseModel)


def calibration_bounds(path: Path | None = None) -> CalibrationBounds:
    """What makes a calibration good, suspect or bad.

    Parameters
    ----------
    path : Path, optional
        YAML with ``date`` and ``calibration``; other sections are of others. None takes the packaged file.

    Raises
    ------
    SettingsError
        The file cannot be read, or is not what the packaged one shows.
    """
    return _parsed(path or _packaged(), "calibration", CalibrationBounds)


def image_bounds(path: Path | None = None) -> ImageBounds:
    """What makes an image good, suspect or bad.

    Parameters
    ----------
    path : Path, optional
        YAML with ``date`` and ``image``; other sections are of others. None takes the packaged file.

    Raises
    ------
    SettingsError
        The file cannot be read, or is not what the packaged one shows.
    """
    return _parsed(path or _packaged(), "image", ImageBounds)


@cache
def _packaged() -> Path:
    return Path(str(files("dsa110_contimg") / "data" / "bounds.yaml"))


def _parsed(path: Path, name: str, kind: type[_Section]) -> _Section:
    try:
        body = yaml.safe_load(path.read_text(encoding="utf-8"))
        return kind.model_validate({"date": body["date"], name: body[name]})
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValidationError) as error:
        raise SettingsError(
            f"The bounds of {name} do not parse", path=path, found=error, expected=f"date, {name}"
        ) from error
