"""Every subband file that was read is kept with what its header said, whether the queue has its group or not."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_KEPT = "path, group_id, subband, mjd_first, size_bytes, mtime_ns, registered_at"


def upgrade() -> None:
    # SQLite cannot make a column nullable; a table made anew is the same on every engine
    op.execute("CREATE TABLE subband_files_before AS SELECT * FROM subband_files")
    op.drop_table("subband_files")
    op.create_table(
        "subband_files",
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("group_id", sa.String(length=32), nullable=True),
        sa.Column("subband", sa.BigInteger(), nullable=True),
        sa.Column("mjd_first", sa.Double(), nullable=True),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("mtime_ns", sa.BigInteger(), nullable=True),
        sa.Column("pointing_dec_deg", sa.Double(), nullable=True),
        sa.Column("n_integrations", sa.BigInteger(), nullable=True),
        sa.Column("integration_s", sa.Double(), nullable=True),
        sa.Column("layout", sa.Text(), nullable=True),
        sa.Column("problem", sa.Text(), nullable=True),
        sa.Column("reader", sa.String(length=16), nullable=True),
        sa.Column("registered_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("subband BETWEEN 0 AND 15", name=op.f("ck_subband_files_subband")),
        sa.ForeignKeyConstraint(
            ["group_id"], ["ingest_queue.group_id"], name=op.f("fk_subband_files_group_id"), ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("path", name=op.f("pk_subband_files")),
        sa.UniqueConstraint("group_id", "subband", name=op.f("uq_subband_files_group_id")),
    )
    op.execute(f"INSERT INTO subband_files ({_KEPT}) SELECT {_KEPT} FROM subband_files_before")
    op.execute("DROP TABLE subband_files_before")
