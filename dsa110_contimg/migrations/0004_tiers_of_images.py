"""Images say which tier of quality they are of, what made them, and their dynamic range."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_IMAGES = (
    "path, pbcor_path, pb_path, residual_path, model_path, psf_path, smearing_path, group_id, ra_deg, dec_deg, "
    "mjd_start, mjd_end, n_pixels, cell_arcsec, bmaj_deg, bmin_deg, bpa_deg, noise_jy, thermal_noise_jy, "
    "frequency_hz, flux_scale_error, is_current, run_label, registered_at"
)
_FLUXES = (
    "run_label, group_id, source, mjd, ra_deg, dec_deg, flux_jy, flux_error_jy, flux_raw_jy, local_noise_jy, "
    "beam_response, smearing, catalog_flux_jy, ratio, x_pixel, y_pixel, offset_ra_arcsec, offset_dec_arcsec, quality, "
    "image, registered_at"
)


def upgrade() -> None:
    # tables made anew are the same on every engine; the fluxes refer to the images, so they go with them
    for table in ("photometry_timeseries", "images"):
        op.execute(f"CREATE TABLE {table}_before AS SELECT * FROM {table}")
        op.drop_table(table)
    _images()
    _photometry()
    # whatever was imaged before was of the only tier and by the only imager there were
    op.execute(
        f"INSERT INTO images ({_IMAGES}, tier, imager) SELECT {_IMAGES}, 'standard', 'native' FROM images_before"
    )
    op.execute(f"INSERT INTO photometry_timeseries ({_FLUXES}) SELECT {_FLUXES} FROM photometry_timeseries_before")
    for table in ("photometry_timeseries", "images"):
        op.execute(f"DROP TABLE {table}_before")


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
        sa.Column("tier", sa.String(length=16), nullable=False),
        sa.Column("imager", sa.String(length=16), nullable=False),
        sa.Column("dynamic_range", sa.Double(), nullable=True),
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
