"""The narrative: what happens to a group. Reads like a methods section.

A group is **converted** from 16 subband files to one Measurement Set, phased to the meridian at its middle, which is
validated by what did not write it; **flagged**; **calibrated**: the field's catalogue sources are predicted through the
drifting beam, a group that a calibrator crosses is solved for bandpass and gains, any other takes those valid at its
time, and each solves its own phases; the tables are **applied**; the Stokes I **image** is made, known sources
subtracted before deconvolution and restored after; and every catalogued source is **measured** in it.

Each step is kept as a checkpoint under a key made of what it depends on. A killed run resumes at the step it was in, a
repeated run does nothing and says so.
"""

from __future__ import annotations

import html
import importlib.metadata
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from dataclasses import field as dataclass_field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from dsa110_contimg import field
from dsa110_contimg.exceptions import CalibrationError, ContimgError, NoValidCalibrationError, StateError
from dsa110_contimg.io import catalogs, files, groups, measures, ms
from dsa110_contimg.io.caltable import open_caltable
from dsa110_contimg.options import ConvertOptions, PipelineOptions
from dsa110_contimg.records import (
    CalTable,
    CalTableSet,
    FlagSummary,
    ImageProduct,
    MeasurementSet,
    Photometry,
    SubbandGroup,
)
from dsa110_contimg.science import calibrators
from dsa110_contimg.settings import Settings, load_settings
from dsa110_contimg.stages import apply, calibrate, convert, flag, image, interpolate, judge, measure, model, validate
from dsa110_contimg.stages.cubes import image_cubes
from dsa110_contimg.stages.selfcal import selfcal
from dsa110_contimg.state.checkpoints import Checkpoints, checkpoint_key, code_version
from dsa110_contimg.state.claims import JUDGED
from dsa110_contimg.state.database import open_database
from dsa110_contimg.state.products import Products
from dsa110_contimg.state.queue import Queue
from dsa110_contimg.state.registry import Registry
from dsa110_contimg.state.subbands import SubbandIndex
from dsa110_contimg.views.record import rows as record_rows

STEPS = ("convert", "flag", "calibrate", "apply", "image", "measure")
"""What happens to a group, in order. The cells of ``templates/group.ipynb`` are these."""

_DEPENDS = {"calibrate": ("calibrate", "judge"), "apply": ("calibrate", "apply", "judge")}
_DEPENDS |= {"image": ("image", "selfcal")}
"""The options that a step depends on, where they are not its own alone."""

Progress = Callable[[str, int, int], None]
"""Called with the step, and how much of it is done, of how much."""


@dataclass(frozen=True)
class StepResult:
    """What a step made, and whether it had been made before."""

    step: str
    record: Any
    resumed: bool
    seconds: float

    def _repr_html_(self) -> str:
        how = "resumed from its checkpoint" if self.resumed else f"{self.seconds:.1f} s"
        cell = "<td style='text-align:left'>{}</td>".format
        rows = "".join(
            f"<tr>{cell(html.escape(name))}{cell(html.escape(value))}</tr>"
            for name, value in record_rows(self.record).items()
        )
        return f"<b>{self.step}</b>: {type(self.record).__name__}, {how}<table>{rows}</table>"


@dataclass
class GroupRun:
    """One group on its way through the pipeline, resumable.

    Parameters
    ----------
    group : SubbandGroup
    settings, options
    run_label : str
        Empty for the pipeline's own run. A person's run has a label: its products go to a place of their own and never
        become current.
    catalog_path : Path, optional
        A user's source list instead of the packaged catalogue, for field model and photometry.
    progress : callable, optional
    """

    group: SubbandGroup
    settings: Settings
    options: PipelineOptions = dataclass_field(default_factory=PipelineOptions)
    run_label: str = ""
    catalog_path: Path | None = None
    progress: Progress | None = None

    def __post_init__(self) -> None:
        self.database = open_database(self.settings.state_dir)
        self.checkpoints, self.products = Checkpoints(self.database), Products(self.database)
        self.registry = Registry(self.database)
        self.records: dict[str, Any] = {}
        self._tokens: dict[str, str] = {}

    @classmethod
    def open(
        cls,
        group_id: str,
        *,
        input_dir: str = "",
        output_dir: str = "",
        scratch_dir: str = "",
        state_dir: str = "",
        reports_dir: str = "",
        catalog: str = "",
        run_label: str = "",
        options_json: str = "",
    ) -> GroupRun:
        """The run of a group from plain text, as the notebook's parameters give it; empty means the configured value.

        Raises
        ------
        EmptyInputError, StateError
            The group is neither in the queue nor in the input directory.
        """
        places = {
            "input_dir": input_dir,
            "output_dir": output_dir,
            "scratch_dir": scratch_dir,
            "state_dir": state_dir,
            "reports_dir": reports_dir,
        }
        settings = load_settings(**{name: Path(value) for name, value in places.items() if value})
        queue = Queue(open_database(settings.state_dir))
        try:
            group = queue.group(group_id)
        except StateError:
            group = groups.find_group(settings.input_dir, group_id)
        options = PipelineOptions.model_validate_json(options_json) if options_json else settings.options
        return cls(group, settings, options, run_label, Path(catalog) if catalog else None)

    # ---- where and what -------------------------------------------------------------------------------------------

    @property
    def group_id(self) -> str:
        return self.group.group_id

    @property
    def products_dir(self) -> Path:
        """Where this run's products go."""
        base = self.settings.output_dir
        return base / "runs" / self.run_label if self.run_label else base

    @cached_property
    def field_catalog(self) -> pd.DataFrame:
        """All catalogue sources that may matter to this group (`field.sources`)."""
        return field.sources(self._pointing, self.options, self.catalog_path)

    @cached_property
    def _pointing(self) -> field.Pointing:
        return field.pointing(self.group)

    @cached_property
    def transits(self) -> list[calibrators.Transit]:
        """Calibrators that cross the meridian in this group, strongest first.

        With a user's source list, its own bright sources are the calibrators.
        """
        own = self.field_catalog if self.catalog_path is not None else catalogs.calibrators(self.settings.vla_catalog)
        return field.transits(self._pointing, own, self.options)

    @property
    def is_calibrator(self) -> bool:
        """Whether this group is solved for bandpass and gains."""
        return bool(self.transits)

    @property
    def calibrator(self) -> str:
        """Name of the calibrator, empty if none."""
        return self.transits[0].name if self.transits else ""

    # ---- steps ----------------------------------------------------------------------------------------------------

    def run(self) -> dict[str, Any]:
        """All steps in order; the record of each by name."""
        for name in STEPS:
            self.step(name)
        return self.records

    def step(self, name: str) -> StepResult:
        """Run a step, or take its result from the checkpoint if nothing that it depends on has changed.

        Raises
        ------
        StateError
            The steps before it have not run.
        ContimgError
            As the stage raises; nothing is recorded then.
        """
        key = self._key(name)
        kept = self.checkpoints.get(key)
        if kept is None:
            self.checkpoints.forget(self.group_id, step=name, run_label=self.run_label)  # it is written over now
            begun = time.monotonic()
            record = getattr(self, f"_{name}")()
            seconds = time.monotonic() - begun
            self.checkpoints.put(
                key, record, group_id=self.group_id, step=name, seconds=seconds, run_label=self.run_label
            )
            kept = self.checkpoints.get(key)
            if kept is None:
                raise StateError(f"The step {name} left no product", found=record, expected="its files on disk")
            result = StepResult(name, kept.record, resumed=False, seconds=seconds)
        else:
            result = StepResult(name, kept.record, resumed=True, seconds=kept.seconds)
        self.records[name] = kept.record
        # the next step depends on this very execution: a Measurement Set made anew must be flagged anew
        self._tokens[name] = f"{key}@{kept.created_at.isoformat()}"
        return result

    def is_done(self) -> bool:
        """Whether every step has a valid checkpoint; takes their results."""
        try:
            for name in STEPS:
                if self.checkpoints.get(self._key(name)) is None:
                    return False
                self.step(name)
        except NoValidCalibrationError:
            return False
        return True

    def _key(self, name: str) -> str:
        number = STEPS.index(name)
        if number == 0:
            inputs = [self.checkpoints.fingerprint(f.path for f in self.group.files)]
        elif STEPS[number - 1] not in self._tokens:
            raise StateError(
                f"The step {name} comes after {STEPS[number - 1]}, which has not run", found=list(self.records)
            )
        else:
            inputs = [self._tokens[STEPS[number - 1]]]
        lists = [self.catalog_path] if name in ("calibrate", "image", "measure") else []
        lists += [self.options.calibrate.model_path] if name == "calibrate" else []
        lists += [self.options.image.beam_table] if name in ("calibrate", "image") else []
        inputs += [self.checkpoints.fingerprint([path]) for path in lists if path is not None]
        if name == "calibrate" and not self.is_calibrator:
            valid, around = self._for_target()
            inputs += [files.fingerprint(t.path) for t in (*valid, *itertools.chain.from_iterable(around))]
        digest = "+".join(getattr(self.options, part).digest() for part in _DEPENDS.get(name, (name,)))
        return checkpoint_key(name, inputs=inputs, options_digest=digest, code=code_version(), run_label=self.run_label)

    def _for_target(self) -> tuple[tuple[CalTable, ...], list[tuple[CalTable, CalTable]]]:
        """Tables that hold at this time; and, where no gains do, those to interpolate between."""
        return self.registry.for_target(self.group.mjd_mid, run_label=self.run_label)

    def _tell(self, name: str) -> Callable[[int, int], None]:
        def report(done: int, total: int) -> None:
            if self.progress is not None:
                self.progress(name, done, total)

        return report

    def _convert(self) -> MeasurementSet:
        options, work = self.options.convert, self.settings.scratch_dir / "casa" / self.group_id

        def check(made: Path) -> None:
            found = validate.validate(
                made,
                self.group,
                workdir=work,
                casa_too=options.smoke_test,
                measures_cache=self.settings.state_dir / "measures",
            )
            validate.require_valid(found, self.products_dir / "failed", f"{self.group_id}.ms")

        record = convert.convert(
            self.group, options, self.products_dir / "ms", self._tell("convert"), self.settings.scratch_dir, check
        )
        self.products.record_measurement_set(record, run_label=self.run_label)
        return record

    def _flag(self) -> FlagSummary:
        work, measures_dir = self.settings.scratch_dir / "casa" / self.group_id, self.settings.state_dir / "measures"
        return flag.flag(
            self.records["convert"], self.options.flag, self._tell("flag"), work_dir=work, measures=measures_dir
        )

    def _calibrate(self) -> CalTableSet:
        record, options = self.records["convert"], self.options.calibrate.for_group(self.is_calibrator)
        place = calibrate.Workplace(
            files.make_directory(self.products_dir / "caltables"),
            files.make_directory(self.settings.scratch_dir / "casa" / self.group_id),
            self.settings.state_dir / "measures",
        )
        solved, around = ((), []) if self.is_calibrator else self._for_target()
        transit, known = next(iter(self.transits), None), catalogs.describe(self.catalog_path)
        told = model.predict_field(record, self.field_catalog, options, self._tell("calibrate"), transit, known)
        if transit is not None:
            ra, dec = np.radians([transit.ra_deg, transit.dec_deg])
            solved = calibrate.solve_calibrator(record, self.calibrator, options, place, (float(ra), float(dec)))
        found: interpolate.Interpolated | None = None
        if around:
            bandpass = next(table for table in solved if table.kind in ("B", "BA"))
            found = interpolate.interpolate(record, around, bandpass, place.out_dir, options.gain_minutes)
        between = (found.table,) if found else ()
        own = calibrate.solve_field(record, (*solved, *between), options, place)
        made = (*(solved if self.is_calibrator else between), *own)
        judged = (*solved, *own) if self.is_calibrator else own
        self._judge(made, judged, previous=self._previous(made), interpolated=found.figures if found else None)
        quality = {found.table.path: found.quality} if found else {}
        self.registry.register(made, run_label=self.run_label, quality=quality, whole_sets=True)
        # one table of each kind is applied, and judged: phases of the field hold the calibrator's own
        applied = (*(table for table in (*solved, *between) if table.kind != "GP"), *own)
        error, bits = (found.flux_scale_error, found.bits) if found else (float("nan"), 0)
        return CalTableSet(applied, error, solved=made, quality=bits, field_model=str(told))

    def _previous(self, made: tuple[CalTable, ...]) -> tuple[CalTable, ...]:
        """The solutions on the calibrator before, of the kinds just solved on one, while its bandpass is valid."""
        days, begin = self.options.calibrate.bandpass_hours / 24, self.group.mjd_first
        ask = partial(self.registry.nearest, begin, run_label=self.run_label, within_days=days)
        return tuple(t for new in made if new.calibrator for t in [o for o in ask(new.kind) if o.mjd < begin][-1:])

    def _judge(
        self, made: tuple[CalTable, ...], judged: tuple[CalTable, ...], comparison: Any = None, **more: Any
    ) -> None:
        """Raise unless the calibration is good enough; what this group made for it is then registered as failed."""
        try:
            judge.judge(self.group_id, judged, self.options.judge, comparison=comparison, **more)
        except CalibrationError as error:
            self.registry.register(made, status="failed", run_label=self.run_label, reason=f"{JUDGED}{error.found}")
            raise

    def _apply(self) -> CalTableSet:
        tables: CalTableSet = self.records["calibrate"]
        work, measures_dir = self.settings.scratch_dir / "casa" / self.group_id, self.settings.state_dir / "measures"
        record, tell, options = self.records["convert"], self._tell("apply"), self.options.apply
        check = partial(self._judge, tables.solved, ())
        applied = apply.apply(record, tables.tables, files.make_directory(work), measures_dir, tell, options, check)
        # interpolated amplitudes say themselves how wrong they may be; what the data show counts if it is more
        error = float(np.fmax(applied.flux_scale_error, tables.flux_scale_error))
        return replace(applied, flux_scale_error=error, quality=tables.quality)

    def _image(self) -> ImageProduct:
        record, scale = self.records["convert"], self.records["apply"].flux_scale_error
        known = self.field_catalog[self.field_catalog["flux_jy"] >= self.options.calibrate.model_min_jy]
        options, out_dir, tell = self.options.image, self.products_dir / "images", self._tell("image")

        def make(data: MeasurementSet | xr.Dataset, place: Path, told: tuple[str, ...] = ()) -> ImageProduct:
            more = {"flux_scale_error": scale, "known": known, "progress": tell, "work_dir": self.settings.scratch_dir}
            return image.image(data, options, place, history=(*self._history(), *told), **more)

        made, data, told = make(record, out_dir), record, self._history()
        if self.options.selfcal.rounds:
            tables = self.products_dir / "caltables"
            best = selfcal(record, made, make, self.options.selfcal, options, known=known, tables_dir=tables)
            made, data, told = best.image, best.visibilities, (*told, *best.history)
        # a plane that diverges takes nothing from the image, which is whole
        self.products.record_image(made, run_label=self.run_label)
        image_cubes(data, options, out_dir, known=known, history=told, work_dir=self.settings.scratch_dir)
        return made

    def _history(self) -> tuple[str, ...]:
        """Where an image comes from, for its header."""
        tables = [f"{t.kind} {t.path.name} {files.fingerprint(t.path)}" for t in self.records["apply"].tables]
        return (
            f"group {self.group_id}: {len(self.group.files)} subband files, missing {list(self.group.missing)}",
            *(f"calibration table {table}" for table in tables),
            f"source catalogue {self.catalog_path or 'packaged'}",
            f"code {code_version()}, run label {self.run_label or '(the pipeline)'}",
        )

    def _measure(self) -> Photometry:
        made, out, bits = self.records["image"], self.products_dir / "photometry", self.records["apply"].quality
        record = measure.measure(made, self.field_catalog, self.options.measure, out, calibration_quality=bits)
        self.products.record_photometry(record, read_photometry(record), run_label=self.run_label)
        return record

    # ---- views ----------------------------------------------------------------------------------------------------

    def raw(self) -> xr.Dataset:
        """The Measurement Set's visibilities as recorded, phased and flagged, in raw units."""
        return ms.open_ms(self._record("convert").path, "DATA", model="calibrate" in self.records)

    def corrected(self) -> xr.Dataset:
        """The calibrated visibilities and the field model (Jy)."""
        self._record("apply")
        return ms.open_ms(self._record("convert").path, "CORRECTED_DATA", model=True)

    def caltable(self, kind: str) -> xr.Dataset:
        """The solutions of a kind (B, G, GP) that this group was calibrated with."""
        tables = {t.kind: t for t in self._record("calibrate").tables}
        if kind not in tables:
            raise StateError("No table of that kind was used", found=kind, expected=sorted(tables))
        return open_caltable(tables[kind].path)

    def photometry(self) -> pd.DataFrame:
        """The forced fluxes of this group."""
        return read_photometry(self._record("measure"))

    def _record(self, step: str) -> Any:
        if step not in self.records:
            raise StateError(f"The step {step} has not run", found=list(self.records), expected=step)
        return self.records[step]

    def provenance(self) -> dict[str, str]:
        """What a reader needs to make this again."""
        packages = ("dsa110_contimg", "casatasks", "python-casacore", "ducc0", "radler", "astropy", "numpy")
        return {
            "group": self.group_id,
            "subbands": f"{len(self.group.files)} of 16"
            + (f", missing {self.group.missing}" if self.group.missing else ""),
            "first file": str(self.group.files[0].path),
            "calibrator": self.calibrator or "none in this group",
            "source catalogue": catalogs.describe(self.catalog_path),
            "field model": getattr(self.records.get("calibrate"), "field_model", "") or "none: not calibrated",
            "run label": self.run_label or "(the pipeline's own)",
            "options": ", ".join(
                f"{name} {getattr(self.options, name).digest()}" for name in PipelineOptions.model_fields
            ),
            "code": code_version(),
            "earth orientation": measures.ut1_source(),
            **{name: importlib.metadata.version(name) for name in packages},
        }


def convert_group(
    group: SubbandGroup, settings: Settings, options: ConvertOptions, progress: Callable[[int, int], None] | None = None
) -> StepResult:
    """Convert, validate and register one group, and nothing else; what is done already is not done again.

    Raises
    ------
    ContimgError
        As `stages.convert.convert` and `stages.validate.require_valid` raise; nothing is registered then.
    """

    def tell(_: str, done: int, total: int) -> None:
        if progress is not None:
            progress(done, total)

    run = GroupRun(group, settings, settings.options.model_copy(update={"convert": options}), progress=tell)
    return run.step("convert")


def read_photometry(record: Photometry) -> pd.DataFrame:
    """The table of a photometry record."""
    from astropy.table import Table

    return Table.read(record.path, format="ascii.ecsv").to_pandas()


def register(
    directory: Path, settings: Settings, options: PipelineOptions, catalog_path: Path | None = None
) -> tuple[list[GroupRun], list[ContimgError]]:
    """Find the groups of a directory and enter them into the queue.

    Returns
    -------
    runs : calibrators' groups first, then the others; oldest first in each.
    problems : files that cannot be used and groups with too few subbands, each with the reason.

    Raises
    ------
    EmptyInputError
        No subband files.
    """
    database = open_database(settings.state_dir)
    chunk = groups.Chunk(settings.chunk_duration)
    found = groups.discover(directory, chunk=chunk, index=SubbandIndex(database))
    problems = list(found.problems)
    queue = Queue(database)
    runs = []
    for group in found.groups:
        try:
            groups.require_complete(group, options.convert.min_subbands)
        except ContimgError as error:
            problems.append(error)
            continue
        run = GroupRun(group, settings, options, catalog_path=catalog_path)
        queue.register(group, is_calibrator=run.is_calibrator)
        runs.append(run)
    return sorted(runs, key=lambda run: (not run.is_calibrator, run.group.mjd_first)), problems
