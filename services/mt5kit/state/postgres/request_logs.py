"""Answered requests: what is kept of one, and how a batch of them is written."""

import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING
from uuid import UUID

import msgspec

if TYPE_CHECKING:
    from mt5kit.state.postgres.database import Connection


def _log_id() -> int:
    return secrets.randbits(63)


class RequestLog(msgspec.Struct, frozen=True):
    """One answered request. `endpoint` is the route's template; `code` is None on success.

    `id` is made here, not by the database, so that a batch whose outcome is unknown can be
    written again: what is there already stays as it is.
    """

    created_at_ms: int
    request_id: str
    endpoint: str
    method: str
    status_code: int
    response_time_ms: int
    instance_id: str
    turn: bool = False
    code: str | None = None
    account_id: str | None = None
    user_id: UUID | None = None
    id: int = msgspec.field(default_factory=_log_id)


_LOG_COLUMNS = {
    "created_at_ms": "bigint",
    "request_id": "text",
    "endpoint": "text",
    "method": "text",
    "status_code": "integer",
    "response_time_ms": "integer",
    "instance_id": "text",
    "turn": "boolean",
    "code": "text",
    "account_id": "text",
    "user_id": "uuid",
    "id": "bigint",
}

# One statement for a batch, since COPY is refused on a table under row security.
_APPEND_LOGS = f"""
    INSERT INTO api_request_logs (created_at, {", ".join([*_LOG_COLUMNS][1:])})
    SELECT to_timestamp(created_at_ms / 1000.0), {", ".join([*_LOG_COLUMNS][1:])}
    FROM unnest({", ".join(f"${n}::{t}[]" for n, t in enumerate(_LOG_COLUMNS.values(), 1))})
        AS batch ({", ".join(_LOG_COLUMNS)})
    ON CONFLICT DO NOTHING
"""  # noqa: S608 - joined from constants


async def append_request_logs(connection: "Connection", rows: Sequence[RequestLog]) -> None:
    """Append rows that are not there yet, by time and id."""
    columns = [[getattr(row, name) for row in rows] for name in _LOG_COLUMNS]
    await connection.execute(_APPEND_LOGS, *columns)
