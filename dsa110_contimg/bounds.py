"""Where figures of quality are good, suspect or bad: the models of ``data/bounds.yaml``."""

from __future__ import annotations

import datetime as dt
import math

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Bound(BaseModel):
    """Where a figure is good and where it is suspect (inclusive; None is no bound); outside both it is bad."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    label: str
    unit: str
    scale: float
    good: tuple[float | None, float | None]
    suspect: tuple[float | None, float | None]
    why: str = Field(min_length=20)

    @model_validator(mode="after")
    def _nested(self) -> Bound:
        if any(edge is not None and not _within(edge, self.suspect) for edge in self.good):
            raise ValueError(f"the good interval {self.good} is not inside the suspect one {self.suspect}")
        return self

    def level(self, value: float) -> str:
        """good, suspect or bad; unknown if the value is not finite."""
        if not math.isfinite(value):
            return "unknown"
        if _within(value, self.good):
            return "good"
        return "suspect" if _within(value, self.suspect) else "bad"

    def good_text(self) -> str:
        """The good interval, for readers."""
        low, high = (None if edge is None else f"{edge * self.scale:g}" for edge in self.good)
        body = f"{low} to {high}" if low and high else f"at most {high}" if high else f"at least {low}"
        return f"{body} {self.unit}".rstrip()


class CalibrationBounds(BaseModel):
    """The section ``calibration`` of ``data/bounds.yaml``, with the date of the file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    date: dt.date
    calibration: dict[str, Bound]


class ImageBounds(BaseModel):
    """The section ``image`` of ``data/bounds.yaml``, with the date of the file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    date: dt.date
    image: dict[str, Bound]


def _within(value: float, interval: tuple[float | None, float | None]) -> bool:
    low, high = interval
    return (low is None or value >= low) and (high is None or value <= high)
