"""What the owners of terminals and streams read and record. Runs as `mt5_worker`."""

from collections.abc import Mapping, Sequence
from typing import Literal
from uuid import UUID

import msgspec

from mt5kit.domain.accounts import AccountState
from mt5kit.state.postgres.database import Database, json_text
from mt5kit.state.postgres.request_logs import RequestLog, append_request_logs
from mt5kit.state.postgres.rows import (
    RECORD_STANDING,
    AccountError,
    Standing,
    WorkerLogin,
    check_id,
    fetch_login,
    found,
)

InstanceType = Literal["websocket", "api", "hybrid"]


class InstanceReport(msgspec.Struct, frozen=True):
    """What a replica tells of itself.

    Args:
        instance_id: Its slot name.
        instance_type: Which pool it belongs to.
        assigned_accounts: Row ids (`accounts.id`) of the accounts it holds.
        cpu_usage: Percent of one core.
        memory_usage: Percent of its limit.
        active_connections: Open sockets, or requests under way.
        health_status: As an operator should see it.
        hostname: Where it runs.
        ip_address: Where it is reached.
    """

    instance_id: str
    instance_type: InstanceType
    assigned_accounts: tuple[int, ...] = ()
    cpu_usage: float | None = None
    memory_usage: float | None = None
    active_connections: int = 0
    health_status: Literal["healthy", "degraded", "draining", "unhealthy"] = "healthy"
    hostname: str | None = None
    ip_address: str | None = None


_UPSERT_INSTANCE = """
    INSERT INTO instance_registry AS known (instance_id, instance_type, assigned_accounts,
        cpu_usage, memory_usage, active_connections, health_status, hostname, ip_address)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
    ON CONFLICT (instance_id) DO UPDATE SET
        instance_type = EXCLUDED.instance_type, assigned_accounts = EXCLUDED.assigned_accounts,
        cpu_usage = EXCLUDED.cpu_usage, memory_usage = EXCLUDED.memory_usage,
        active_connections = EXCLUDED.active_connections, health_status = EXCLUDED.health_status,
        hostname = EXCLUDED.hostname, ip_address = EXCLUDED.ip_address, last_heartbeat = now(),
        started_at = CASE WHEN $10 THEN now() ELSE known.started_at END
"""


class WorkerStore:
    """Accounts by name, one at a time, and the records that belong to no user."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def credentials(self, account_id: str) -> WorkerLogin:
        """The stored credentials, to log the account in if its state permits.

        Raises:
            AccountNotFound: There is no such account.
        """
        check_id(account_id)
        async with self._database.transaction(account_id=account_id) as connection:
            row = await connection.fetchrow(
                # Until the login is read too, nobody changes either.
                "SELECT user_id, coalesce(connecting_from, state) AS standing,"
                " state = 'connecting' AS now FROM accounts WHERE account_id = $1 FOR SHARE",
                account_id,
            )
            known = found(row, account_id)
            login = await fetch_login(connection, account_id)
        state = AccountState(known["standing"])
        return WorkerLogin(login, known["user_id"], state, known["now"])

    async def standing(self, account_id: str) -> Standing:
        """Whose the account is and where it stands; its password is not read.

        Raises:
            AccountNotFound: There is no such account.
        """
        check_id(account_id)
        async with self._database.transaction(account_id=account_id) as connection:
            row = await connection.fetchrow(
                "SELECT id, user_id, coalesce(connecting_from, state) AS standing"
                " FROM accounts WHERE account_id = $1",
                account_id,
            )
        row = found(row, account_id)
        return Standing(row["id"], row["user_id"], AccountState(row["standing"]))

    async def owner(self, account_id: str) -> UUID | None:
        """Whose account it is; None if there is none."""
        async with self._database.transaction(account_id=account_id) as connection:
            owner: UUID | None = await connection.fetchval(
                "SELECT user_id FROM accounts WHERE account_id = $1", account_id
            )
        return owner

    async def set_state(
        self,
        account_id: str,
        state: AccountState,
        error: AccountError | None = None,
        *,
        ciphertext: bytes | None = None,
        logged_in: bool = False,
    ) -> bool:
        """Record where the account stands, why, and whether it has just logged in.

        What its owner has disconnected stays so. While new credentials are being proven the
        account stays `connecting`, and what is recorded is where it returns if they fail.

        Args:
            account_id: The caller's identifier.
            state: Where it stands with the credentials that are stored; not `connecting`.
            error: Why, if it is not well.
            ciphertext: The sealed password this is about; nothing is recorded if it has been
                replaced. It outlasts a rotation of keys, which the wrapped key does not.
            logged_in: Whether it has just logged in.

        Returns:
            Whether it was recorded.

        Raises:
            AccountNotFound: There is no such account, or no longer.
        """
        check_id(account_id)
        async with self._database.transaction(account_id=account_id) as connection:
            changed: bool | None = await connection.fetchval(
                f"UPDATE accounts SET {RECORD_STANDING},"  # noqa: S608 - a constant
                " last_login = CASE WHEN $4 THEN now() ELSE last_login END"
                " WHERE account_id = $1 AND coalesce(connecting_from, state) <> 'disconnected'"
                " AND ($5::bytea IS NULL OR encrypted_password = $5) RETURNING TRUE",
                *(account_id, state.value, error and json_text(error), logged_in, ciphertext),
            )
            known: bool | None = changed or await connection.fetchval(
                "SELECT FALSE FROM accounts WHERE account_id = $1", account_id
            )
        return found(known, account_id)

    async def touch_poll(self, account_id: str) -> None:
        """Record that the account has been looked at now. For once a minute, not for every look.

        Raises:
            AccountNotFound: There is no such account, or no longer.
        """
        check_id(account_id)
        async with self._database.transaction(account_id=account_id) as connection:
            changed = await connection.fetchval(
                "UPDATE accounts SET last_poll = now() WHERE account_id = $1 RETURNING 1",
                account_id,
            )
        found(changed, account_id)

    async def register_instance(self, report: InstanceReport) -> None:
        """Enter a replica that has just started; a slot's earlier task is overwritten."""
        await self._upsert_instance(report, started=True)

    async def heartbeat_instance(self, report: InstanceReport) -> None:
        """Renew a replica's entry; it is made again if somebody has removed it."""
        await self._upsert_instance(report, started=False)

    async def _upsert_instance(self, report: InstanceReport, *, started: bool) -> None:
        async with self._database.transaction() as connection:
            await connection.execute(
                _UPSERT_INSTANCE,
                *(report.instance_id, report.instance_type, report.assigned_accounts),
                *(report.cpu_usage, report.memory_usage, report.active_connections),
                *(report.health_status, report.hostname, report.ip_address, started),
            )

    async def remove_instance(self, instance_id: str) -> None:
        """Take a replica that shuts down out of the registry."""
        async with self._database.transaction() as connection:
            await connection.execute(
                "DELETE FROM instance_registry WHERE instance_id = $1", instance_id
            )

    async def remove_dead_instances(self, older_than_s: float) -> tuple[str, ...]:
        """Take replicas out of the registry that have not been heard of for so long; their ids."""
        async with self._database.transaction() as connection:
            rows = await connection.fetch(
                "DELETE FROM instance_registry"
                " WHERE last_heartbeat < now() - make_interval(secs => $1) RETURNING instance_id",
                older_than_s,
            )
        return tuple(sorted(row["instance_id"] for row in rows))

    async def end_silent_subscriptions(self, older_than_s: int) -> int:
        """End sockets that their replica has not renewed for so long, of whatever account.

        Returns:
            How many there were; 0 while another replica does the same.
        """
        async with self._database.transaction() as connection:
            ended: int = await connection.fetchval(
                "SELECT end_silent_subscriptions($1)", older_than_s
            )
        return ended

    async def mend_connecting(self, older_than_s: int) -> int:
        """Put back accounts that have been `connecting` for so long, where they stood before.

        Whoever was proving their credentials has died. The stored credentials are the old ones.

        Returns:
            How many there were.
        """
        async with self._database.transaction() as connection:
            mended: int = await connection.fetchval("SELECT mend_connecting($1)", older_than_s)
        return mended

    async def terminal_event(
        self, terminal_id: str, event: str, detail: Mapping[str, object] | None = None
    ) -> None:
        """Append to the history of a terminal."""
        async with self._database.transaction() as connection:
            await connection.execute(
                "INSERT INTO terminal_events (terminal_id, event, detail) VALUES ($1, $2, $3)",
                *(terminal_id, event, json_text(detail or {})),
            )

    async def append_request_logs(self, rows: Sequence[RequestLog]) -> None:
        """Append a batch of answered requests: all of it, or nothing and an error.

        Rows that are there already, by time and id, are left alone.

        Raises:
            ValueRefused: A row holds what its column does not take.
        """
        async with self._database.transaction() as connection:
            await append_request_logs(connection, rows)

    async def ensure_request_log_partitions(self, days_ahead: int = 7) -> int:
        """Make the log's partitions of today and the days to come; how many were missing."""
        async with self._database.transaction() as connection:
            made: int = await connection.fetchval(
                "SELECT ensure_request_log_partitions($1)", days_ahead
            )
        return made

    async def drop_request_log_partitions(self, keep_days: int) -> int:
        """Drop the log of days older than `keep_days` before today; how many partitions went."""
        async with self._database.transaction() as connection:
            dropped: int = await connection.fetchval(
                "SELECT drop_request_log_partitions($1)", keep_days
            )
        return dropped
