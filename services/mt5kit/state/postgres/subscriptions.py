"""The rows of browsers' sockets. Runs as `mt5_worker`."""

from collections.abc import Sequence
from uuid import UUID

import msgspec

from mt5kit.state.postgres.database import Database
from mt5kit.state.postgres.rows import check_id, not_found


class OpenSocket(msgspec.Struct, frozen=True):
    """A socket that has no row yet, or whose row was ended by mistake.

    Args:
        socket: Its replica's name for it.
        open_s: Seconds since it was opened.
    """

    socket: UUID
    open_s: float


class ClosedSocket(msgspec.Struct, frozen=True):
    """A socket that has closed.

    Args:
        socket: Its replica's name for it.
        closed_s: Seconds since it closed.
        code: It was closed with this.
    """

    socket: UUID
    closed_s: float
    code: int


_OPEN = """
    INSERT INTO websocket_subscriptions (account_id, user_id, instance_id, socket, connected_at)
    SELECT a.id, a.user_id, $2, told.socket, now() - make_interval(secs => told.open_s)
    FROM accounts a, unnest($3::uuid[], $4::float8[]) AS told (socket, open_s)
    WHERE a.account_id = $1
    -- A deletion under way finishes first, and then there is no row.
    FOR KEY SHARE OF a
    ON CONFLICT (socket) DO UPDATE
    SET is_active = TRUE, disconnected_at = NULL, close_code = NULL, last_heartbeat = now()
"""

_CLOSE = """
    UPDATE websocket_subscriptions AS s
    SET is_active = FALSE, close_code = told.code,
        disconnected_at = now() - make_interval(secs => told.closed_s)
    FROM unnest($2::uuid[], $3::float8[], $4::smallint[]) AS told (socket, closed_s, code)
    WHERE s.socket = told.socket AND s.instance_id = $1
"""


class SubscriptionStore:
    """Sockets: what of them is written, and that they are still open."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def record(
        self,
        account_id: str,
        instance_id: str,
        opened: Sequence[OpenSocket],
        closed: Sequence[ClosedSocket] = (),
    ) -> None:
        """Write that sockets on one account have opened, and then that some have closed.

        Both may be written again: where it is known, it stays.

        Raises:
            AccountNotFound: There is no such account, or no longer; its rows went with it.
            DatabaseUnavailable: Postgres is away; whether it was written is unknown.
        """
        check_id(account_id)
        async with self._database.transaction(account_id=account_id) as connection:
            if opened:
                sockets, ages = [one.socket for one in opened], [one.open_s for one in opened]
                done = await connection.execute(_OPEN, account_id, instance_id, sockets, ages)
                if done == "INSERT 0 0":
                    raise not_found(account_id)
            if closed:
                await connection.execute(
                    _CLOSE,
                    instance_id,
                    [one.socket for one in closed],
                    [one.closed_s for one in closed],
                    [one.code for one in closed],
                )

    async def beat(self, instance_id: str, sockets: Sequence[UUID]) -> tuple[UUID, ...]:
        """Say that these sockets are open yet, of whatever account.

        Returns:
            Those that have no active row: `record` makes it, or revives it.

        Raises:
            DatabaseUnavailable: Postgres is away.
        """
        if not sockets:
            return ()
        async with self._database.transaction() as connection:
            missing: list[UUID] = await connection.fetchval(
                "SELECT beat_subscriptions($1, $2)", instance_id, sockets
            )
        return tuple(missing)

    async def forget(self, keep_days: int) -> int:
        """Remove rows of sockets that closed longer ago, 50,000 at most; how many there were.

        Raises:
            DatabaseUnavailable: Postgres is away.
        """
        async with self._database.transaction() as connection:
            gone: int = await connection.fetchval("SELECT forget_subscriptions($1)", keep_days)
        return gone
