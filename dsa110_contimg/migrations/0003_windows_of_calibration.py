"""Calibration tables are never forgotten: a row for each solution, and the windows it was in force with their times."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_KEPT = (
    "path, registered_at, kind, set_name, apply_order, group_id, refant, mjd, valid_from, valid_to, flagged_fraction, "
    "median_snr, calibrator, status, run_label"
)


def upgrade() -> None:
    # the primary key changes, which SQLite cannot do in place
    op.execute("CREATE TABLE caltables_before AS SELECT * FROM caltables")
    op.drop_table("caltables")
    op.create_table(
        "caltables",
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("registered_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("kind", sa.String(length=8), nullable=False),
        sa.Column("set_name", sa.Text(), nullable=False),
        sa.Column("apply_order", sa.BigInteger(), nullable=False),
        sa.Column("group_id", sa.String(length=32), nullable=False),
        sa.Column("refant", sa.Text(), nullable=False),
        sa.Column("mjd", sa.Double(), nullable=False),
        sa.Column("valid_from", sa.Double(), nullable=False),
        sa.Column("valid_to", sa.Double(), nullable=False),
        sa.Column("flagged_fraction", sa.Double(), nullable=True),
        sa.Column("median_snr", sa.Double(), nullable=True),
        sa.Column("calibrator", sa.Text(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("retired_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("content_hash", sa.String(length=64), nullable=False),
        sa.Column("parents", sa.Text(), nullable=False),
        sa.Column("quality", sa.Text(), nullable=False),
        sa.Column("run_label", sa.Text(), nullable=False),
        sa.CheckConstraint("status IN ('active', 'retired', 'failed')", name=op.f("ck_caltables_status")),
        sa.CheckConstraint("valid_from < valid_to", name=op.f("ck_caltables_window")),
        sa.PrimaryKeyConstraint("path", "registered_at", name=op.f("pk_caltables")),
    )
    op.create_index(op.f("ix_caltables_kind"), "caltables", ["kind", "mjd"])
    op.execute(
        f"INSERT INTO caltables ({_KEPT}, reason, retired_at, content_hash, parents, quality) SELECT {_KEPT}, '', "
        "CASE status WHEN 'retired' THEN registered_at END, '', '[]', '{}' FROM caltables_before"
    )
    op.execute("DROP TABLE caltables_before")
    _windows()


def _windows() -> None:
    op.create_table(
        "caltable_windows",
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("registered_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("valid_from", sa.Double(), nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("valid_to", sa.Double(), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("valid_from < valid_to", name=op.f("ck_caltable_windows_window")),
        sa.ForeignKeyConstraint(
            ["path", "registered_at"],
            ["caltables.path", "caltables.registered_at"],
            name=op.f("fk_caltable_windows_path"),
        ),
        sa.PrimaryKeyConstraint("path", "registered_at", "valid_from", "opened_at", name=op.f("pk_caltable_windows")),
    )
    op.execute(
        "INSERT INTO caltable_windows (path, registered_at, valid_from, opened_at, valid_to) "
        "SELECT path, registered_at, valid_from, registered_at, valid_to FROM caltables WHERE status = 'active'"
    )
