"""A calibration under review: its tables, those before them, the data corrected with them, and the verdict.

`CalibrationReview.open` takes plain text, as the parameters of ``templates/calibration_qa.ipynb`` are, and the command
``dsa110 calibrate qa`` gives.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import pandas as pd
import xarray as xr

from dsa110_contimg.exceptions import InputError, NoValidCalibrationError
from dsa110_contimg.io import files, ms
from dsa110_contimg.io.bounds import calibration_bounds
from dsa110_contimg.io.caltable import open_caltable
from dsa110_contimg.io.fieldmodel import read_field_model
from dsa110_contimg.records import MeasurementSet
from dsa110_contimg.reports.metrics import Judged, Verdict
from dsa110_contimg.science import applying, judging
from dsa110_contimg.settings import Settings, load_settings
from dsa110_contimg.stages import apply, calibrate
from dsa110_contimg.state.checkpoints import code_version
from dsa110_contimg.state.database import open_database
from dsa110_contimg.state.registry import Registry

_BY_CASA = {"B": "B", "G": "G", "T": "G", "K": "K"}
"""Kind of a table whose name does not end in one, by the first letter of what CASA calls it."""


@dataclasses.dataclass(frozen=True)
class CalibrationReview:
    """Tables by kind, in the order in which they are applied, and what they are to be judged with.

    Attributes
    ----------
    paths : of the tables by kind.
    previous_paths : of the calibration before; may be empty.
    measurement_set : corrected with the tables, with a model; None if only the tables are judged.
    bounds_path : None takes the packaged bounds.
    interpolated : figures of gains (GA) that are interpolated between calibrators; empty if they were solved.
    """

    paths: dict[str, Path]
    previous_paths: dict[str, Path]
    measurement_set: Path | None = None
    bounds_path: Path | None = None
    interpolated: Mapping[str, float] = dataclasses.field(default_factory=dict)

    @classmethod
    def open(
        cls,
        *,
        group_id: str = "",
        tables: str = "",
        previous: str = "",
        measurement_set: str = "",
        bounds: str = "",
        state_dir: str = "",
    ) -> CalibrationReview:
        """The review of tables given by path, or of those that the registry has of a group.

        Parameters
        ----------
        group_id : text
            Its tables in the registry, and for each kind the one solved last before it. Ignored with ``tables``.
        tables, previous : text
            Paths, one a line.
        measurement_set : text
            Path; empty: only the tables are judged.
        bounds : text
            Path of bounds of one's own.
        state_dir : text
            Of the registry; empty means the configured one.

        Raises
        ------
        InputError
            Neither tables nor a group.
        NoValidCalibrationError
            The registry has no tables of the group.
        """
        between: Mapping[str, float] = {}
        if tables:
            now, before = ([Path(line) for line in text.splitlines() if line] for text in (tables, previous))
        elif group_id:
            settings = load_settings(**({"state_dir": Path(state_dir)} if state_dir else {}))
            now, before, between = _registered(group_id, settings)
        else:
            raise InputError("Nothing to review", found="no tables, no group", expected="tables or group_id")
        return cls(
            {_kind(path): path for path in now},
            {_kind(path): path for path in before},
            Path(measurement_set) if measurement_set else None,
            Path(bounds) if bounds else None,
            between,
        )

    @cached_property
    def tables(self) -> dict[str, xr.Dataset]:
        """CalTable views by kind."""
        return {kind: open_caltable(path) for kind, path in self.paths.items()}

    @cached_property
    def comparison(self) -> applying.Comparison | None:
        """The corrected data against the model; None without a Measurement Set."""
        return None if self.measurement_set is None else apply.compare(self.measurement_set)

    @cached_property
    def judgement(self) -> judging.Verdict:
        """The verdict as the pipeline takes it."""
        previous = {kind: open_caltable(path) for kind, path in self.previous_paths.items()}
        bounds = calibration_bounds(self.bounds_path)
        # gains that were interpolated have the SNR of a drift, and no solution before them
        solved = {kind: table for kind, table in self.tables.items() if not (self.interpolated and kind == "GA")}
        return judging.judge_calibration(
            solved, bounds, previous=previous, interpolated=self.interpolated, comparison=self.comparison
        )

    @property
    def verdict(self) -> Verdict:
        """The verdict as reports show it."""
        judged = tuple(Judged.of(figure) for figure in self.judgement.figures)
        return Verdict(
            self.judgement.level,
            judged,
            self.judgement.bounds_date,
            {"tables": [path.name for path in self.paths.values()], "field_model": self.field_model},
        )

    def refants(self) -> pd.DataFrame:
        """The ranking of reference antennas, from the data; empty without a Measurement Set."""
        if self.measurement_set is None:
            return pd.DataFrame(columns=["name", "share", "baselines", "distance_m", "against"])
        layout = ms.read_layout(self.measurement_set)
        half = layout.integration_s / 2 / 86400
        record = MeasurementSet(
            self.measurement_set, layout.group_id, layout.ra, layout.dec,
            float(layout.mjd[0] - half), float(layout.mjd[-1] + half), len(layout.names),
        )  # fmt: skip
        rows = [dataclasses.asdict(one) for one in calibrate.rank_refants(record)]
        return pd.DataFrame(rows).assign(against=[", ".join(row["against"]) for row in rows])

    @property
    def field_model(self) -> str:
        """What the tables were solved against: which catalogue, how deep."""
        if self.measurement_set is None:
            return "not known without the Measurement Set"
        return str(read_field_model(self.measurement_set) or "not known: the model was not predicted by us")

    def provenance(self) -> dict[str, str]:
        """Where it comes from, each table with the hash of its content."""
        named = {kind: f"{path} ({files.fingerprint(path)})" for kind, path in self.paths.items()}
        before = {f"previous {kind}": str(path) for kind, path in self.previous_paths.items()}
        data = {"Measurement Set": str(self.measurement_set or "none: only the tables were judged")}
        data |= {"field model": self.field_model}
        return named | before | data | {"bounds": str(self.bounds_path or "packaged"), "code": code_version()}


def _kind(path: Path) -> str:
    """The pipeline's name for what a table is: the end of its name, or by CASA's."""
    end = path.name.rpartition(".")[2]
    if end in ("FLUX", "GP", *judging.SNR_FIGURE, "K"):
        return end
    return _BY_CASA[str(open_caltable(path).attrs["kind"])[0]]


def _registered(group_id: str, settings: Settings) -> tuple[list[Path], list[Path], dict[str, float]]:
    registry = Registry(open_database(settings.state_dir, create=False))
    rows = registry.list_tables()
    own = [row for row in rows if row["group"] == group_id]
    own = [row for row in own if row["status"] != "retired"] or own
    if not own:
        raise NoValidCalibrationError(
            "The registry has no tables of this group", found=group_id, expected=sorted({r["group"] for r in rows})
        )
    # of two of a kind the last counts: the phases of the field, which are applied, and not the calibrator's
    own.sort(key=lambda row: (row["apply_order"], row["kind"], not row["calibrator"]))
    before = []
    for row in own:
        alike = [r for r in rows if r["kind"] == row["kind"] and bool(r["calibrator"]) == bool(row["calibrator"])]
        earlier = [r for r in alike if r["mjd"] < row["mjd"] and r["status"] == "active"]
        before += [Path(r["path"]) for r in earlier[-1:]]
    names = ("flagged_fraction", "gap_hours", "flux_scale_error")
    between = [row | row["quality"] for row in own if row["kind"] == "GA" and "gap_hours" in row["quality"]]
    figures = {name: float(row[name]) for row in between for name in names}
    return [Path(row["path"]) for row in own], before, figures
