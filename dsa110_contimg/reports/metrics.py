"""The verdict on an observation: a few numbers held against dated bounds, each with its reason.

Good is earned: a number that is not known is ``unknown``, and an observation with an unknown number is not good.
The bounds are data, in ``data/bounds.yaml``.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dsa110_contimg import records
from dsa110_contimg.exceptions import SettingsError
from dsa110_contimg.science import calibrated, interpolation, judging

LEVELS = ("good", "unknown", "suspect", "bad", "failed")
"""From best to worst: the worst of its numbers is the verdict."""

VERDICT_MIME = "application/vnd.dsa110.verdict+json"
"""How a verdict stands in the outputs of a notebook, for programs to read."""

MARKS = {"good": "✓", "unknown": "?", "suspect": "!", "bad": "✕", "failed": "✕"}
"""A verdict is told by word and mark, never by colour alone."""


@dataclass(frozen=True)
class Bound:
    """Bounds of one number (inclusive; None is no bound), and why they stand where they do.

    Attributes
    ----------
    scale : number shown = value x scale, in ``unit``.
    """

    name: str
    label: str
    unit: str
    scale: float
    good: tuple[float | None, float | None]
    suspect: tuple[float | None, float | None]
    why: str

    def level(self, value: float) -> str:
        """The level of a value; not finite is unknown."""
        if not math.isfinite(value):
            return "unknown"
        if _inside(value, self.good):
            return "good"
        return "suspect" if _inside(value, self.suspect) else "bad"

    def text(self) -> str:
        """The good interval, for readers."""
        low, high = (None if edge is None else f"{edge * self.scale:g}" for edge in self.good)
        body = f"{low} to {high}" if low and high else f"at most {high}" if high else f"at least {low}"
        return f"{body}{_unit(self.unit)}"


@dataclass(frozen=True)
class Bounds:
    """All bounds, and the date they were set on."""

    date: str
    metrics: tuple[Bound, ...]


@dataclass(frozen=True)
class Judged:
    """One number with its level."""

    name: str
    label: str
    value: float | None
    text: str
    level: str
    good: str
    why: str

    @classmethod
    def of(cls, figure: judging.Figure) -> Judged:
        """A figure of `science.judging` as reports show it, named by what it is of."""
        value = figure.value if figure.level != "unknown" else None
        label, why = f"{figure.table}: {figure.bound.label}", " ".join(figure.bound.why.split())
        name = f"{figure.table}.{figure.name}"
        return cls(name, label, value, figure.text, figure.level, figure.bound.good_text(), why)


@dataclass(frozen=True)
class Verdict:
    """What an observation is worth, and why.

    Attributes
    ----------
    level : one of `LEVELS`.
    judged : every number that went into it.
    bounds_date : date of the bounds.
    summary : numbers and names for an index: what the report itself is about.
    """

    level: str
    judged: tuple[Judged, ...]
    bounds_date: str
    summary: dict[str, Any]

    @property
    def reasons(self) -> tuple[str, ...]:
        """One phrase for each number that is not good, the worst first."""
        wrong = [item for item in self.judged if item.level != "good"]
        wrong.sort(key=lambda item: -LEVELS.index(item.level))
        return tuple(f"{item.label} {item.text}" + (f" (good: {item.good})" if item.good else "") for item in wrong)

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it; a missing number is null."""
        return asdict(self) | {"judged": [asdict(item) for item in self.judged], "reasons": list(self.reasons)}

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> Verdict:
        """What `to_dict` described."""
        judged = tuple(Judged(**item) for item in body["judged"])
        return cls(body["level"], judged, body["bounds_date"], dict(body["summary"]))

    def __str__(self) -> str:
        return f"{self.level}: {'; '.join(self.reasons) or 'all numbers within bounds'}"

    def _repr_mimebundle_(self, **_: object) -> dict[str, Any]:
        return {"text/plain": str(self), "text/html": self._repr_html_(), VERDICT_MIME: self.to_dict()}

    def _repr_html_(self) -> str:
        rows = "".join(
            f'<tr><td>{html.escape(item.label)}</td><td class="number">{html.escape(item.text)}</td>'
            f"<td>{html.escape(item.good)}</td>"
            f'<td><span class="chip {item.level}">{MARKS[item.level]} {item.level}</span></td>'
            f"<td>{html.escape(item.why)}</td></tr>"
            for item in self.judged
        )
        head = "".join(f"<th>{name}</th>" for name in ("", "value", "good", "verdict", "why"))
        return f'<table class="verdict"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'


def load_bounds(path: Path | None = None) -> Bounds:
    """The bounds, packaged or of a file of one's own.

    Raises
    ------
    SettingsError
        The file is not what `data/bounds.yaml` shows.
    """
    return _packaged_bounds() if path is None else _read_bounds(path.read_text(encoding="utf-8"), path)


@cache
def _packaged_bounds() -> Bounds:
    place = files("dsa110_contimg") / "data" / "bounds.yaml"
    return _read_bounds(place.read_text(encoding="utf-8"), Path(str(place)))


def _read_bounds(text: str, path: Path) -> Bounds:
    import yaml

    try:
        body = yaml.safe_load(text)
        metrics = tuple(_bound(name, spec) for name, spec in body["metrics"].items())
        return Bounds(str(body["date"]), metrics)
    except (yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise SettingsError(
            "The bounds of the verdict do not parse", path=path, found=repr(error), expected="date, metrics"
        ) from error


def _bound(name: str, spec: Mapping[str, Any]) -> Bound:
    good, suspect = (_interval(spec[level]) for level in ("good", "suspect"))
    if any(edge is not None and not _inside(edge, suspect) for edge in good):
        raise ValueError(f"{name}: the good interval {good} is not inside the suspect one {suspect}")
    return Bound(name, spec["label"], spec["unit"], float(spec["scale"]), good, suspect, spec["why"].strip())


def _interval(pair: list[float | None]) -> tuple[float | None, float | None]:
    low, high = (None if edge is None else float(edge) for edge in pair)
    return low, high


def _inside(value: float, interval: tuple[float | None, float | None]) -> bool:
    low, high = interval
    return (low is None or value >= low) and (high is None or value <= high)


def _unit(unit: str) -> str:
    return f" {unit}" if unit else ""


def judge(
    values: Mapping[str, float], summary: Mapping[str, Any] | None = None, bounds: Bounds | None = None
) -> Verdict:
    """Hold numbers against bounds.

    Parameters
    ----------
    values : mapping of metric name to value
        As `measurements` gives them. A metric of the bounds that is absent or not finite is unknown.
    summary : mapping, optional
        What the index shall show; kept as it is.
    bounds : Bounds, optional
        Default: the packaged ones.
    """
    held = bounds or load_bounds()
    judged = tuple(_judge_one(bound, float(values.get(bound.name, math.nan))) for bound in held.metrics)
    worst = max((item.level for item in judged), key=LEVELS.index, default="unknown")
    return Verdict(worst, judged, held.date, dict(summary or {}))


def _judge_one(bound: Bound, value: float) -> Judged:
    known = math.isfinite(value)
    text = f"{value * bound.scale:#.3g}".rstrip(".") + _unit(bound.unit) if known else "not known"
    return Judged(bound.name, bound.label, value if known else None, text, bound.level(value), bound.text(), bound.why)


def measurements(steps: Mapping[str, object], photometry: pd.DataFrame | None = None) -> dict[str, float]:
    """The numbers that a verdict rests on, from the records of the steps; NaN where a record is missing.

    Parameters
    ----------
    steps : mapping of step name to record
        Records of a group: FlagSummary, CalTableSet, ImageProduct, Photometry, found by kind.
    photometry : DataFrame, optional
        The photometry table, for positions.
    """
    kinds = {type(record): record for record in steps.values()}
    flags, tables = kinds.get(records.FlagSummary), kinds.get(records.CalTableSet)
    image, fluxes = kinds.get(records.ImageProduct), kinds.get(records.Photometry)
    found: dict[str, float] = {bound.name: math.nan for bound in load_bounds().metrics}
    if isinstance(flags, records.FlagSummary):
        found["flagged_fraction"] = flags.flagged_fraction
    if isinstance(tables, records.CalTableSet) and tables.tables:
        found["calibration_flagged_fraction"] = max(table.flagged_fraction for table in tables.tables)
    if isinstance(fluxes, records.Photometry):
        found["median_flux_ratio"] = fluxes.median_ratio
        found["flux_scale_error"] = fluxes.flux_scale_error
    if isinstance(image, records.ImageProduct):
        found["noise_over_thermal"] = _ratio(image.noise_jy, image.thermal_noise_jy)
        found["beam_axis_ratio"] = _ratio(image.bmaj_deg, image.bmin_deg)
        if photometry is not None:
            beam_arcsec = 3600.0 * math.sqrt(image.bmaj_deg * image.bmin_deg)
            found["astrometric_offset_beams"] = median_offset_arcsec(photometry) / beam_arcsec
    return found


def median_offset_arcsec(photometry: pd.DataFrame) -> float:
    """Length of the median offset vector, fitted minus catalogue (arcsec); NaN if nothing was fitted."""
    east, north = photometry["offset_ra_arcsec"], photometry["offset_dec_arcsec"]
    fitted = np.isfinite(east) & np.isfinite(north)
    if not fitted.any():
        return math.nan
    return float(np.hypot(east[fitted].median(), north[fitted].median()))


def _ratio(above: float, below: float) -> float:
    return above / below if below > 0 else math.nan


def judge_group(
    steps: Mapping[str, object],
    photometry: pd.DataFrame | None = None,
    bounds: Bounds | None = None,
    image: judging.Verdict | None = None,
) -> Verdict:
    """The verdict on a group, with the summary that the index shows.

    Parameters
    ----------
    steps : mapping of step name to record
    photometry : DataFrame, optional
    bounds : Bounds, optional
    image : judging.Verdict, optional
        Of the image (`reports.judge_product`): its figures stand below the numbers, those they have already left out.
    """
    values = measurements(steps, photometry)
    summary: dict[str, Any] = {}
    for record in steps.values():
        if isinstance(record, records.ImageProduct):
            summary["image"] = record.to_json()
            summary |= {"noise_jy": _known(record.noise_jy), "thermal_noise_jy": _known(record.thermal_noise_jy)}
            summary |= {"mjd": record.mjd_mid, "ra_deg": record.ra_deg, "dec_deg": record.dec_deg}
        elif isinstance(record, records.Photometry):
            summary |= {"n_sources": record.n_sources, "n_bright": record.n_bright}
            summary |= {"median_ratio": _known(record.median_ratio), "ratio_scatter": _known(record.ratio_scatter)}
        elif isinstance(record, records.CalTableSet):
            if record.field_model:
                summary["field_model"] = record.field_model
            names = {table.calibrator for table in record.solved if table.kind != "GP"} - {""}
            summary |= {"calibrator": ", ".join(sorted(names))} if names else {}
            summary |= {"gains": gains_from(record)} if record.solved else {}
    return _joined(judge(values, summary, bounds), image)


def _joined(verdict: Verdict, image: judging.Verdict | None) -> Verdict:
    if image is None:
        return verdict
    known = {item.name for item in verdict.judged}
    judged = (*verdict.judged, *(Judged.of(figure) for figure in image.figures if figure.name not in known))
    level = max((item.level for item in judged), key=LEVELS.index, default=verdict.level)
    return replace(verdict, level=level, judged=judged)


def gains_from(tables: records.CalTableSet) -> str:
    """Where the amplitude gains of a calibrated group are from, one of `science.calibrated.ORIGINS`."""
    if any(table.calibrator for table in tables.solved):
        return calibrated.OWN
    if not any(table.kind == "GA" for table in tables.solved):
        return calibrated.VALID
    return calibrated.ONE_SIDED if tables.quality & interpolation.EXTRAPOLATED else calibrated.BRACKETED


def _known(value: float) -> float | None:
    """A number as JSON can hold it."""
    return value if math.isfinite(value) else None
