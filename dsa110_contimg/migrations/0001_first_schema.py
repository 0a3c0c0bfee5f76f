"""The first schema: queue, subband files, calibration tables, products, reports and checkpoints."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    _queue()
    _calibration()
    _measurement_sets()
    _images()
    _photometry()
    _runs()


def _queue() -> None:
    op.create_table(
        "ingest_queue",
        sa.Column("group_id", sa.String(length=32), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("is_calibrator", sa.Boolean(), nullable=False),
        sa.Column("mjd_first", sa.Double(), nullable=True),
        sa.Column("pointing_dec_deg", sa.Double(), nullable=True),
        sa.Column("attempts", sa.BigInteger(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "state IN ('collecting', 'pending', 'in_progress', 'completed', 'failed')",
            name=op.f("ck_ingest_queue_state"),
        ),
        sa.PrimaryKeyConstraint("group_id", name=op.f("pk_ingest_queue")),
    )
    op.create_index(op.f("ix_ingest_queue_state"), "ingest_queue", ["state"])
    op.create_table(
        "subband_files",
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("group_id", sa.String(length=32), nullable=False),
        sa.Column("subband", sa.BigInteger(), nullable=False),
        sa.Column("mjd_first", sa.Double(), nullable=True),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("mtime_ns", sa.BigInteger(), nullable=True),
        sa.Column("registered_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("subband BETWEEN 0 AND 15", name=op.f("ck_subband_files_subband")),
        sa.ForeignKeyConstraint(
            ["group_id"], ["ingest_queue.group_id"], name=op.f("fk_subband_files_group_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("path", name=op.f("pk_subband_files")),
        sa.UniqueConstraint("group_id", "subband", name=op.f("uq_subband_files_group_id")),
    )
    op.create_table(
        "file_fingerprints",
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("mtime_ns", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("path", name=op.f("pk_file_fingerprints")),
    )


def _calibration() -> None:
    op.create_table(
        "caltables",
        sa.Column("path", sa.Text(), nullable=False),
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
        sa.Column("run_label", sa.Text(), nullable=False),
        sa.Column("registered_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("status IN ('active', 'retired', 'failed')", name=op.f("ck_caltables_status")),
        sa.CheckConstraint("valid_from < valid_to", name=op.f("ck_caltables_window")),
        sa.PrimaryKeyConstraint("path", name=op.f("pk_caltables")),
    )
    op.create_index(op.f("ix_caltables_kind"), "caltables", ["kind", "mjd"])


def _measurement_sets() -> None:
    op.create_table(
        "ms_index",
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("group_id", sa.String(length=32), nullable=False),
        sa.Column("ra_deg", sa.Double(), nullable=True),
        sa.Column("dec_deg", sa.Double(), nullable=True),
        sa.Column("mjd_start", sa.Double(), nullable=True),
        sa.Column("mjd_end", sa.Double(), nullable=True),
        sa.Column("n_antennas", sa.BigInteger(), nullable=False),
        sa.Column("missing_subbands", sa.Text(), nullable=False),
        sa.Column("is_current", sa.Boolean(), nullable=False),
        sa.Column("run_label", sa.Text(), nullable=False),
        sa.Column("registered_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("path", name=op.f("pk_ms_index")),
    )
    op.create_index(op.f("ix_ms_index_group_id"), "ms_index", ["group_id"])


def _images() -> None:
    op.create_table(
        "images",
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("pbcor_path", sa.Text(), nullable=False),
        sa.Column("pb_path", sa.Text(), nullable=False),
        sa.Column("residual_path", sa.Text(), nullable=False),
        sa.Column("model_path", sa.Text(), nullable=False),
        sa.Column("psf_path", sa.Text(), nullable=False),
        sa.Column("smearing_path", sa.Text(), nullable=False),
        sa.Column("group_id", sa.String(length=32), nullable=False),
        sa.Column("ra_deg", sa.Double(), nullable=True),
        sa.Column("dec_deg", sa.Double(), nullable=True),
        sa.Column("mjd_start", sa.Double(), nullable=True),
        sa.Column("mjd_end", sa.Double(), nullable=True),
        sa.Column("n_pixels", sa.BigInteger(), nullable=False),
        sa.Column("cell_arcsec", sa.Double(), nullable=True),
        sa.Column("bmaj_deg", sa.Double(), nullable=True),
        sa.Column("bmin_deg", sa.Double(), nullable=True),
        sa.Column("bpa_deg", sa.Double(), nullable=True),
        sa.Column("noise_jy", sa.Double(), nullable=True),
        sa.Column("thermal_noise_jy", sa.Double(), nullable=True),
        sa.Column("frequency_hz", sa.Double(), nullable=True),
        sa.Column("flux_scale_error", sa.Double(), nullable=True),
        sa.Column("is_current", sa.Boolean(), nullable=False),
        sa.Column("run_label", sa.Text(), nullable=False),
        sa.Column("registered_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("path", name=op.f("pk_images")),
    )
    op.create_index(op.f("ix_images_group_id"), "images", ["group_id"])


def _photometry() -> None:
    op.create_table(
        "photometry_timeseries",
        sa.Column("run_label", sa.Text(), nullable=False),
        sa.Column("group_id", sa.String(length=32), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("mjd", sa.Double(), nullable=False),
        sa.Column("ra_deg", sa.Double(), nullable=True),
        sa.Column("dec_deg", sa.Double(), nullable=True),
        sa.Column("flux_jy", sa.Double(), nullable=True),
        sa.Column("flux_error_jy", sa.Double(), nullable=True),
        sa.Column("flux_raw_jy", sa.Double(), nullable=True),
        sa.Column("local_noise_jy", sa.Double(), nullable=True),
        sa.Column("beam_response", sa.Double(), nullable=True),
        sa.Column("smearing", sa.Double(), nullable=True),
        sa.Column("catalog_flux_jy", sa.Double(), nullable=True),
        sa.Column("ratio", sa.Double(), nullable=True),
        sa.Column("x_pixel", sa.Double(), nullable=True),
        sa.Column("y_pixel", sa.Double(), nullable=True),
        sa.Column("offset_ra_arcsec", sa.Double(), nullable=True),
        sa.Column("offset_dec_arcsec", sa.Double(), nullable=True),
        sa.Column("quality", sa.BigInteger(), nullable=False),
        sa.Column("image", sa.Text(), nullable=False),
        sa.Column("registered_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["image"], ["images.path"], name=op.f("fk_photometry_timeseries_image")),
        sa.PrimaryKeyConstraint("run_label", "group_id", "source", name=op.f("pk_photometry_timeseries")),
    )
    op.create_index(op.f("ix_photometry_timeseries_mjd"), "photometry_timeseries", ["mjd"])
    op.create_index(op.f("ix_photometry_timeseries_source"), "photometry_timeseries", ["source"])


def _runs() -> None:
    op.create_table(
        "reports",
        sa.Column("html_path", sa.Text(), nullable=False),
        sa.Column("notebook_path", sa.Text(), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("night", sa.String(length=10), nullable=False),
        sa.Column("group_id", sa.String(length=32), nullable=False),
        sa.Column("verdict", sa.String(length=16), nullable=False),
        sa.Column("failed_step", sa.Text(), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("summary", sa.Text(), nullable=False),
        sa.Column("run_label", sa.Text(), nullable=False),
        sa.Column("registered_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("html_path", name=op.f("pk_reports")),
    )
    op.create_index(op.f("ix_reports_night"), "reports", ["night"])
    op.create_table(
        "checkpoints",
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("group_id", sa.String(length=32), nullable=False),
        sa.Column("run_label", sa.Text(), nullable=False),
        sa.Column("step", sa.String(length=32), nullable=False),
        sa.Column("record", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_checkpoints")),
    )
    op.create_index(op.f("ix_checkpoints_group_id"), "checkpoints", ["group_id"])
