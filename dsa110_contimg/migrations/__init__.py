"""Alembic revisions of the state database, applied in order by `dsa110_contimg.state.database`."""
