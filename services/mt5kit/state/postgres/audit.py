"""The audit log: who did what to what. Append only, in the database too."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from mt5kit.state.postgres.database import Database, json_text

if TYPE_CHECKING:
    from mt5kit.state.postgres.database import Connection


class AuditEntry(msgspec.Struct, frozen=True):
    """One thing that was done.

    Args:
        actor: Name of the key or operator, or a user's id; never a key itself.
        action: What was done, as `account.delete`.
        target: What it was done to.
        detail: JSON-ready facts, no secrets.
        request_id: The request that asked for it.
    """

    actor: str
    action: str
    target: str
    detail: Mapping[str, object] = {}
    request_id: str | None = None


class AuditStore:
    """Writes the audit log; nobody reads it back with the rights of a service."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def append(self, entry: AuditEntry) -> None:
        """Append an entry in a transaction of its own."""
        async with self._database.transaction() as connection:
            await append_audit(connection, entry)


async def append_audit(connection: "Connection", entry: AuditEntry) -> None:
    """Append an entry in the transaction of what it tells of."""
    await connection.execute(
        "INSERT INTO audit_log (actor, action, target, detail, request_id)"
        " VALUES ($1, $2, $3, $4, $5)",
        *(entry.actor, entry.action, entry.target, json_text(entry.detail), entry.request_id),
    )
