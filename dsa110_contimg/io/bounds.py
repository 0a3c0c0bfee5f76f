"""The bounds of calibration: `data/bounds.yaml`, packaged, or a file of one's own."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path

import yaml
from pydantic import ValidationError

from dsa110_contimg.exceptions import SettingsError
from dsa110_contimg.options import CalibrationBounds


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
    return _packaged() if path is None else _parsed(path)


@cache
def _packaged() -> CalibrationBounds:
    return _parsed(Path(str(files("dsa110_contimg") / "data" / "bounds.yaml")))


def _parsed(path: Path) -> CalibrationBounds:
    try:
        body = yaml.safe_load(path.read_text(encoding="utf-8"))
        return CalibrationBounds(date=body["date"], calibration=body["calibration"])
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValidationError) as error:
        raise SettingsError(
            "The bounds of calibration do not parse", path=path, found=error, expected="date, calibration"
        ) from error
