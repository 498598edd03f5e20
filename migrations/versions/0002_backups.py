"""Backups read which keys of the vault are in use."""

from ops.migrating import apply_sql

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Run 0002_backups.sql."""
    apply_sql(__file__)
