"""What the pipeline has made: Measurement Sets, images, photometry, reports; and the lists people ask for.

Products are registered after they are complete on disk. Of the products of one group the newest is current. Runs under
a label of their own are kept apart: nothing of theirs appears in a list unless that label is asked for.
Lists are plain values, ready for JSON: a missing number is None.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from dsa110_contimg.exceptions import StateError
from dsa110_contimg.records import ImageProduct, MeasurementSet, Photometry
from dsa110_contimg.state.database import Database, upsert
from dsa110_contimg.state.tables import (
    images,
    ms_index,
    now,
    photometry_timeseries,
    plain,
    record_row,
    reports,
)

if TYPE_CHECKING:
    import pandas as pd
    from astropy.table import Table

_OURS = {"run_label", "group_id", "image", "registered_at"}


@dataclass(frozen=True)
class Report:
    """A page to register.

    Attributes
    ----------
    kind : the template: ``group``, ``night``.
    night : date it is filed under (YYYY-MM-DD).
    group_id : empty for a report on the whole night.
    verdict : good, suspect, bad, unknown or failed.
    failed_step, error : empty unless a step failed.
    summary : numbers and texts for the index, whatever it shows.
    """

    html_path: Path
    notebook_path: Path
    kind: str
    night: str
    group_id: str = ""
    verdict: str = "unknown"
    failed_step: str = ""
    error: str = ""
    summary: Mapping[str, Any] = field(default_factory=dict)


class Products:
    """The products in one database."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def record_measurement_set(self, ms: MeasurementSet, *, run_label: str = "") -> None:
        """Enter a Measurement Set; it becomes the current one of its group."""
        self._record(ms_index, ms, run_label)

    def record_image(self, image: ImageProduct, *, run_label: str = "") -> None:
        """Enter an image; it becomes the current one of its group."""
        self._record(images, image, run_label)

    def record_photometry(self, photometry: Photometry, table: pd.DataFrame | Table, *, run_label: str = "") -> int:
        """Enter the fluxes of one group in one transaction, in place of those it had under this label.

        Parameters
        ----------
        photometry : Photometry
            Says which group and which image; the image must have been recorded.
        table : DataFrame or astropy Table
            One row a source: ``source``, ``mjd`` and the other columns of ``photometry_timeseries``. A column that
            may be missing is then NaN in every row.

        Returns
        -------
        int
            Number of rows.

        Raises
        ------
        StateError
            If a column is unknown or required and absent, a source comes twice, rows are of another group, or the
            image is not recorded.
        """
        rows = _photometry_rows(table, photometry)
        ours = {"run_label": run_label, "group_id": photometry.group_id, "image": photometry.image_path}
        with self.database.write() as connection:
            known = connection.execute(sa.select(images.c.path).where(images.c.path == photometry.image_path)).first()
            if known is None:
                raise StateError("Photometry of an image that is not recorded", path=photometry.image_path)
            connection.execute(
                sa.delete(photometry_timeseries).where(
                    photometry_timeseries.c.group_id == photometry.group_id,
                    photometry_timeseries.c.run_label == run_label,
                )
            )
            if rows:
                stamp = {"registered_at": now()}
                connection.execute(sa.insert(photometry_timeseries), [row | ours | stamp for row in rows])
        return len(rows)

    def record_report(self, report: Report, *, run_label: str = "") -> None:
        """Enter a page, or replace what is known about it."""
        values = record_row(report) | {"summary": json.dumps(dict(report.summary), sort_keys=True)}
        with self.database.write() as connection:
            upsert(connection, reports, values | {"run_label": run_label, "registered_at": now()})

    def image(self, group_id: str, *, run_label: str = "") -> ImageProduct | None:
        """The current image of a group, or None if it has none."""
        found: ImageProduct | None = self._current(images, ImageProduct, group_id, run_label)
        return found

    def measurement_set(self, group_id: str, *, run_label: str = "") -> MeasurementSet | None:
        """The current Measurement Set of a group, or None if it has none."""
        found: MeasurementSet | None = self._current(ms_index, MeasurementSet, group_id, run_label)
        return found

    def list_measurement_sets(self, group: str | None = None, *, run_label: str | None = "") -> list[dict[str, Any]]:
        """Current Measurement Sets by time; ``run_label=None`` lists every run's."""
        return self._list(ms_index, [ms_index.c.mjd_start], group, run_label, ms_index.c.is_current)

    def list_images(self, group: str | None = None, *, run_label: str | None = "") -> list[dict[str, Any]]:
        """Current images by time, each with ``beam`` as [major (arcsec), minor (arcsec), position angle (deg)].

        ``run_label=None`` lists every run's.
        """
        rows = self._list(images, [images.c.mjd_start], group, run_label, images.c.is_current)
        for row in rows:
            axes = [row["bmaj_deg"], row["bmin_deg"]]
            row["beam"] = [None if axis is None else axis * 3600.0 for axis in axes] + [row["bpa_deg"]]
        return rows

    def list_photometry(
        self,
        source: str | None = None,
        group: str | None = None,
        *,
        mjd_range: tuple[float, float] | None = None,
        run_label: str | None = "",
    ) -> list[dict[str, Any]]:
        """Fluxes by source and time, of one source, one group, or a half-open range of MJD, as asked.

        ``run_label=None`` lists every run's.
        """
        column = photometry_timeseries.c
        conditions = [] if source is None else [column.source == source]
        if mjd_range is not None:
            conditions += [column.mjd >= mjd_range[0], column.mjd < mjd_range[1]]
        return self._list(photometry_timeseries, [column.source, column.mjd], group, run_label, *conditions)

    def list_reports(self, night: str | None = None, *, run_label: str | None = "") -> list[dict[str, Any]]:
        """Pages by night and group, with ``summary`` as a dict; ``run_label=None`` lists every run's."""
        conditions = [] if night is None else [reports.c.night == night]
        order = [reports.c.night, reports.c.group_id, reports.c.html_path]
        rows = self._list(reports, order, None, run_label, *conditions)
        return [row | {"summary": json.loads(row["summary"])} for row in rows]

    def _record(self, table: sa.Table, record: MeasurementSet | ImageProduct, run_label: str) -> None:
        ours = {"is_current": True, "run_label": run_label, "registered_at": now()}
        older = sa.and_(table.c.group_id == record.group_id, table.c.run_label == run_label)
        with self.database.write() as connection:
            connection.execute(sa.update(table).where(older).values(is_current=False))
            upsert(connection, table, record_row(record) | ours)

    def _current(self, table: sa.Table, kind: type[Any], group_id: str, run_label: str) -> Any:
        query = sa.select(table).where(table.c.group_id == group_id, table.c.run_label == run_label, table.c.is_current)
        with self.database.read() as connection:
            row = connection.execute(query).mappings().first()
        if row is None:
            return None
        return kind(**{k: v for k, v in row.items() if k not in ("is_current", "run_label", "registered_at")})

    def _list(
        self,
        table: sa.Table,
        order: list[Any],
        group: str | None,
        run_label: str | None,
        *conditions: sa.ColumnElement[bool],
    ) -> list[dict[str, Any]]:
        query = sa.select(table).where(*conditions).order_by(*order)
        if group is not None:
            query = query.where(table.c.group_id == group)
        if run_label is not None:
            query = query.where(table.c.run_label == run_label)
        with self.database.read() as connection:
            rows = connection.execute(query).mappings().all()
        return [plain({"group" if k == "group_id" else k: v for k, v in row.items()}) for row in rows]


def _photometry_rows(table: pd.DataFrame | Table, photometry: Photometry) -> list[dict[str, Any]]:
    """Rows by column name, checked against the table they go to."""
    columns = photometry_timeseries.c
    frame = table if hasattr(table, "itertuples") else table.to_pandas()
    names = [str(name) for name in frame.columns]
    measured = [name for name in names if name not in ("group", "image")]
    unknown = [name for name in measured if name not in columns or name in _OURS]
    absent = [c.name for c in columns if not c.nullable and c.name not in _OURS and c.name not in names]
    if unknown or absent:
        raise StateError(
            "The photometry table has the wrong columns",
            path=photometry.path,
            found=f"unknown {unknown}, absent {absent}",
            expected=[c.name for c in columns if c.name not in _OURS],
        )
    if "group" in names and len(frame) and set(frame["group"]) != {photometry.group_id}:
        raise StateError(
            "The photometry table has rows of another group",
            path=photometry.path,
            found=sorted(set(frame["group"])),
            expected=photometry.group_id,
        )
    twice = sorted(set(frame["source"][frame["source"].duplicated()]))
    if twice:
        raise StateError("Sources come twice in the photometry table", path=photometry.path, found=twice[:5])
    empty: dict[str, Any] = {c.name: None for c in columns if c.nullable and c.name not in measured}
    return [
        dict(zip(measured, values, strict=True)) | empty
        for values in frame[measured].itertuples(index=False, name=None)
    ]
