"""The schema of release 1.16.1: a column that its own code writes and that 1.16.0 can live with."""

from alembic import op

revision = "standin_1_16_1"
down_revision = "standin_1_16_0"


def upgrade() -> None:
    """Add the column."""
    op.execute("ALTER TABLE messages ADD COLUMN trace_session_id text")
    op.execute("SELECT pg_sleep(1)")
    op.execute("INSERT INTO standin_migrations (release) VALUES ('1.16.1')")


def downgrade() -> None:
    """Fail: Dify's releases are not taken back either."""
    raise NotImplementedError("a backup is the way back")
