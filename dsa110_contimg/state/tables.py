"""The tables of the state database, each column with its meaning and unit.

This metadata is the newest schema; ``dsa110_contimg/migrations`` holds the way to it, and a test keeps the two equal.
Column types carry the conversions, so that a row and a record hold the same values on SQLite and on PostgreSQL:
a missing number is NaN here and NULL there, times are aware and UTC, paths are text, numpy scalars become plain numbers
(SQLite would otherwise store an ``np.int64`` as bytes without a word).
"""

from __future__ import annotations

import dataclasses
import json
import math
import operator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Dialect

QUEUE_STATES = ("collecting", "pending", "in_progress", "completed", "failed")
TABLE_STATUSES = ("active", "retired", "failed")


class Real(sa.types.TypeDecorator[float]):
    """Double precision; NaN is stored as NULL, which SQLite would do anyway and PostgreSQL would not."""

    impl = sa.Double
    cache_ok = True

    def process_bind_param(self, value: Any, _: Dialect) -> float | None:
        number = math.nan if value is None else float(value)
        return None if math.isnan(number) else number

    def process_result_value(self, value: Any, _: Dialect) -> float:
        return math.nan if value is None else float(value)


class Whole(sa.types.TypeDecorator[int]):
    """64-bit integer; anything that is not an integer is refused."""

    impl = sa.BigInteger
    cache_ok = True

    def process_bind_param(self, value: Any, _: Dialect) -> int | None:
        return None if value is None else operator.index(value)


class Location(sa.types.TypeDecorator[Path]):
    """A path, stored as text exactly as given."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: Any, _: Dialect) -> str | None:
        return None if value is None else str(value)

    def process_result_value(self, value: Any, _: Dialect) -> Path | None:
        return None if value is None else Path(value)


class Members(sa.types.TypeDecorator[tuple[Any, ...]]):
    """A short tuple of numbers or names, stored as a JSON list."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: Any, _: Dialect) -> str | None:
        return None if value is None else json.dumps(list(value))

    def process_result_value(self, value: Any, _: Dialect) -> tuple[Any, ...] | None:
        return None if value is None else tuple(json.loads(value))


class Figures(sa.types.TypeDecorator[dict[str, Any]]):
    """Named figures, stored as a JSON object; a number that is missing or infinite is stored as null."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: Any, _: Dialect) -> str | None:
        return None if value is None else json.dumps({str(k): _plain(v) for k, v in value.items()}, sort_keys=True)

    def process_result_value(self, value: Any, _: Dialect) -> dict[str, Any] | None:
        return None if value is None else dict(json.loads(value))


class Utc(sa.types.TypeDecorator[datetime]):
    """A moment in UTC. SQLite keeps no zone, so a time without one is refused on the way in."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: Any, _: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"a time without zone cannot be stored: {value}")
        return value.astimezone(UTC)  # type: ignore[no-any-return]

    def process_result_value(self, value: Any, _: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)  # type: ignore[no-any-return]


metadata = sa.MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)


def _one_of(column: str, values: tuple[str, ...]) -> str:
    return f"{column} IN ({', '.join(repr(value) for value in values)})"


def _required(name: str, kind: Any, comment: str, **more: Any) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=False, info={"help": comment}, **more)


def _number(name: str, comment: str) -> sa.Column[Any]:
    """A measured number: NULL where it could not be determined."""
    return sa.Column(name, Real, nullable=True, info={"help": comment})


def _label() -> sa.Column[Any]:
    return _required("run_label", sa.Text, "whose run made it; empty: the pipeline's own")


def _registered() -> sa.Column[Any]:
    return _required("registered_at", Utc, "when this row was written (UTC)")


ingest_queue = sa.Table(
    "ingest_queue",
    metadata,
    _required("group_id", sa.String(32), "UTC start of the first integration", primary_key=True),
    _required("state", sa.String(16), "collecting, pending, in_progress, completed or failed"),
    _required("is_calibrator", sa.Boolean, "whether a bandpass calibrator transits in it"),
    _number("mjd_first", "centre of the first integration (MJD UTC)"),
    _number("pointing_dec_deg", "declination of the pointing (deg, apparent)"),
    _required("attempts", Whole, "how often it was started"),
    _required("owner", sa.Text, "process that works on it, or did last"),
    _required("error", sa.Text, "why it failed last; empty: it did not"),
    _required("created_at", Utc, "when it was first seen (UTC)"),
    _required("updated_at", Utc, "last change of state (UTC)"),
    sa.Column("started_at", Utc, info={"help": "begin of the last attempt (UTC)"}),
    sa.Column("finished_at", Utc, info={"help": "end of the last attempt (UTC)"}),
    sa.CheckConstraint(_one_of("state", QUEUE_STATES), name="state"),
    sa.Index(None, "state"),
)

subband_files = sa.Table(
    "subband_files",
    metadata,
    _required("path", Location, "the UVH5 file", primary_key=True),
    sa.Column("group_id", sa.String(32), info={"help": "the group of the queue it belongs to, if any"}),
    sa.Column("subband", Whole, info={"help": "0 (highest frequencies) to 15; NULL: the file cannot be used"}),
    _number("mjd_first", "centre of the first integration (MJD UTC), read from the file"),
    _required("size_bytes", Whole, "size on disk when it was read or registered"),
    sa.Column("mtime_ns", Whole, info={"help": "time of modification then (ns since 1970)"}),
    _number("pointing_dec_deg", "declination of the pointing (deg, apparent)"),
    sa.Column("n_integrations", Whole, info={"help": "number of integrations"}),
    _number("integration_s", "length of one integration (s)"),
    sa.Column("layout", sa.Text, info={"help": "what the files of a group have in common, in words"}),
    sa.Column("problem", Members, info={"help": "why it cannot be used: kind, sentence, found, expected"}),
    sa.Column("reader", sa.String(16), info={"help": "version of the code that read it; NULL: registered, not read"}),
    _registered(),
    sa.ForeignKeyConstraint(["group_id"], ["ingest_queue.group_id"], ondelete="SET NULL"),
    sa.UniqueConstraint("group_id", "subband"),
    sa.CheckConstraint("subband BETWEEN 0 AND 15", name="subband"),
)

file_fingerprints = sa.Table(
    "file_fingerprints",
    metadata,
    _required("path", Location, "the file", primary_key=True),
    _required("size_bytes", Whole, "size when it was hashed"),
    _required("mtime_ns", Whole, "time of modification when it was hashed (ns since 1970)"),
    _required("sha256", sa.String(64), "hash of the content"),
)

caltables = sa.Table(
    "caltables",
    metadata,
    _required("path", Location, "CASA calibration table", primary_key=True),
    _required("registered_at", Utc, "when this row was written (UTC): solved anew, a new one", primary_key=True),
    _required("kind", sa.String(8), "K, BA, BP, B, GA, G, GP, 2G or FLUX; GP are phases alone"),
    _required("set_name", sa.Text, "tables solved together share it; in a set, windows of one kind never overlap"),
    _required("apply_order", Whole, "place in the order of application"),
    _required("group_id", sa.String(32), "group it was solved on"),
    _required("refant", sa.Text, "reference antenna (station name)"),
    _required("mjd", Real, "middle of the data it was solved on (MJD UTC)"),
    _required("valid_from", Real, "begin of the validity as solved, inclusive (MJD UTC)"),
    _required("valid_to", Real, "end of the validity as solved, exclusive (MJD UTC)"),
    _number("flagged_fraction", "fraction of solutions flagged"),
    _number("median_snr", "median signal to noise ratio of the solutions"),
    _required("calibrator", sa.Text, "calibrator source; empty: the field itself"),
    _required("status", sa.String(16), "active, retired or failed: only active tables are applied"),
    _required("reason", sa.Text, "why it is not active; empty: nobody said"),
    sa.Column("retired_at", Utc, info={"help": "when it ceased to be active (UTC)"}),
    _required("content_hash", sa.String(64), "hash of the table's files; empty: not known"),
    _required("parents", Members, "tables that were applied when it was solved"),
    _required("quality", Figures, "figures of its quality, as JSON"),
    _label(),
    sa.CheckConstraint(_one_of("status", TABLE_STATUSES), name="status"),
    sa.CheckConstraint("valid_from < valid_to", name="window"),
    sa.Index(None, "kind", "mjd"),
)

caltable_windows = sa.Table(
    "caltable_windows",
    metadata,
    _required("path", Location, "CASA calibration table", primary_key=True),
    _required("registered_at", Utc, "which of the solutions under that path (UTC)", primary_key=True),
    _required("valid_from", Real, "begin, inclusive (MJD UTC)", primary_key=True),
    _required("opened_at", Utc, "since when it is applied in this window (UTC)", primary_key=True),
    _required("valid_to", Real, "end, exclusive (MJD UTC)"),
    sa.Column("closed_at", Utc, info={"help": "until when it was (UTC); NULL: it is"}),
    sa.ForeignKeyConstraint(["path", "registered_at"], ["caltables.path", "caltables.registered_at"]),
    sa.CheckConstraint("valid_from < valid_to", name="window"),
)

ms_index = sa.Table(
    "ms_index",
    metadata,
    _required("path", Location, "Measurement Set", primary_key=True),
    _required("group_id", sa.String(32), "the group it was made from"),
    _number("ra_deg", "phase centre, right ascension (deg, ICRS)"),
    _number("dec_deg", "phase centre, declination (deg, ICRS)"),
    _number("mjd_start", "begin of the first integration (MJD UTC)"),
    _number("mjd_end", "end of the last integration (MJD UTC)"),
    _required("n_antennas", Whole, "antennas with data"),
    _required("missing_subbands", Members, "subbands written as flagged data"),
    _required("is_current", sa.Boolean, "whether it is the newest of its group and run label"),
    _label(),
    _registered(),
    sa.Index(None, "group_id"),
)

images = sa.Table(
    "images",
    metadata,
    _required("path", Location, "restored image (Jy/beam), not beam corrected", primary_key=True),
    _required("pbcor_path", Location, "beam-corrected image (Jy/beam)"),
    _required("pb_path", Location, "drift-averaged primary beam"),
    _required("residual_path", Location, "residual (Jy/beam)"),
    _required("model_path", Location, "model (Jy/pixel)"),
    _required("psf_path", Location, "point spread function"),
    _required("smearing_path", Location, "fraction of a peak that survives averaging"),
    _required("group_id", sa.String(32), "the group it was made from"),
    _number("ra_deg", "centre, right ascension (deg, ICRS)"),
    _number("dec_deg", "centre, declination (deg, ICRS)"),
    _number("mjd_start", "begin of the observation (MJD UTC)"),
    _number("mjd_end", "end of the observation (MJD UTC)"),
    _required("n_pixels", Whole, "pixels on a side"),
    _number("cell_arcsec", "pixel size (arcsec)"),
    _number("bmaj_deg", "restoring beam, major axis (deg)"),
    _number("bmin_deg", "restoring beam, minor axis (deg)"),
    _number("bpa_deg", "restoring beam, position angle (deg, north through east)"),
    _number("noise_jy", "robust rms of the residual (Jy/beam)"),
    _number("thermal_noise_jy", "radiometer equation for the weights used (Jy/beam)"),
    _number("frequency_hz", "effective frequency (Hz)"),
    _number("flux_scale_error", "1-sigma relative error of the flux scale"),
    _required("tier", sa.String(16), "development (not for science), standard or high_precision"),
    _required("imager", sa.String(16), "native, wsclean or tclean"),
    _number("dynamic_range", "peak of the restored image over noise_jy"),
    _required("is_current", sa.Boolean, "whether it is the newest of its group and run label"),
    _label(),
    _registered(),
    sa.Index(None, "group_id"),
)

photometry_timeseries = sa.Table(
    "photometry_timeseries",
    metadata,
    _required("run_label", sa.Text, "whose run made it; empty: the pipeline's own", primary_key=True),
    _required("group_id", sa.String(32), "the group it was measured in", primary_key=True),
    _required("source", sa.Text, "name in the source list", primary_key=True),
    _required("mjd", Real, "middle of the observation (MJD UTC)"),
    _number("ra_deg", "right ascension (deg, ICRS)"),
    _number("dec_deg", "declination (deg, ICRS)"),
    _number("flux_jy", "flux density at 1.4 GHz, corrected for beam and smearing (Jy)"),
    _number("flux_error_jy", "1-sigma error of flux_jy: noise and flux scale (Jy)"),
    _number("flux_raw_jy", "flux density in the image, not beam corrected (Jy)"),
    _number("local_noise_jy", "rms of the residual about the source (Jy/beam)"),
    _number("beam_response", "drift-averaged primary beam at the source"),
    _number("smearing", "fraction of the peak that survives averaging"),
    _number("catalog_flux_jy", "flux density in the source list at 1.4 GHz (Jy)"),
    _number("ratio", "flux_jy / catalog_flux_jy"),
    _number("x_pixel", "position in the image, 0-based (pixels)"),
    _number("y_pixel", "position in the image, 0-based (pixels)"),
    _number("offset_ra_arcsec", "fitted minus catalogued position, on the sky (arcsec)"),
    _number("offset_dec_arcsec", "fitted minus catalogued position (arcsec)"),
    _required("quality", Whole, "bits that say what is doubtful; 0: nothing"),
    _required("image", Location, "image it was measured in"),
    _registered(),
    sa.ForeignKeyConstraint(["image"], ["images.path"]),
    sa.Index(None, "source"),
    sa.Index(None, "mjd"),
)

reports = sa.Table(
    "reports",
    metadata,
    _required("html_path", Location, "the page", primary_key=True),
    _required("notebook_path", Location, "the executed notebook"),
    _required("kind", sa.String(32), "template: group, night, ..."),
    _required("night", sa.String(10), "date it is filed under (YYYY-MM-DD)"),
    _required("group_id", sa.String(32), "the group; empty: the whole night"),
    _required("verdict", sa.String(16), "good, suspect, bad, unknown or failed"),
    _required("failed_step", sa.Text, "step that failed; empty: none"),
    _required("error", sa.Text, "the error of that step"),
    _required("summary", sa.Text, "numbers for the index, as JSON"),
    _label(),
    _registered(),
    sa.Index(None, "night"),
)

checkpoints = sa.Table(
    "checkpoints",
    metadata,
    _required("key", sa.String(64), "hash of step, inputs, options, code and run label", primary_key=True),
    _required("group_id", sa.String(32), "the group"),
    _label(),
    _required("step", sa.String(32), "the step that was done"),
    _required("record", sa.Text, "its result, as JSON"),
    _required("created_at", Utc, "when it was done (UTC)"),
    _required("seconds", Real, "how long it took (s)"),
    sa.Index(None, "group_id"),
)


def now() -> datetime:
    """The present moment, aware."""
    return datetime.now(UTC)


def record_row(record: Any) -> dict[str, Any]:
    """The fields of a dataclass that holds no other, by column name."""
    return {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}


def plain(row: dict[str, Any]) -> dict[str, Any]:
    """A row as JSON can hold it: paths and times as text, a number that is missing or infinite as None."""
    return {name: _plain(value) for name, value in row.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    return list(value) if isinstance(value, tuple) else value
