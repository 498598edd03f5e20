"""The schema before there were migrations."""

from ops.migrating import apply_sql

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Run 0001_schema.sql."""
    apply_sql(__file__)
