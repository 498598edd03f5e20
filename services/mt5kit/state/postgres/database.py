"""A small pool, transactions that name their scope, and Postgres' failures turned into ours."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Self, TypeAlias
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import asyncpg
import msgspec

from mt5kit.errors import InternalFault, ServiceOverloaded
from mt5kit.networks import Networks, OutsideNetworks

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    Connection: TypeAlias = PoolConnectionProxy[asyncpg.Record]

MAX_CONNECTIONS = 3
"""30 replicas with a pool for each of the two roles stay under 200 connections."""

COMMAND_TIMEOUT_S = 5.0
"""Every statement here touches a few rows by key; longer means waiting for a lock or a disk."""

ACQUIRE_TIMEOUT_S = 2.0
"""A pool that has nothing free for so long is overrun, and a caller does better to come back."""

IDLE_TRANSACTION_LIMIT_S = 10
"""A replica that freezes in a transaction must not hold its row locks for longer."""

RETRY_AFTER_S = 2.0
"""A restarted Postgres is back within seconds."""

POSTGRES_PORT = 5432
"""Of a server whose URL says nothing else."""

_PASSING = (
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.TransactionRollbackError,
    asyncpg.LockNotAvailableError,
    asyncpg.IdleInTransactionSessionTimeoutError,
)
"""Shutdowns, crashes, cancelled and timed-out statements, full disks, deadlocks."""


class DatabaseUnavailable(ServiceOverloaded):
    """Postgres is away, starting, or overrun. Whether a write took effect is unknown."""


class DatabaseFault(InternalFault):
    """Postgres refused a statement of ours as wrong."""


class ValueRefused(DatabaseFault):
    """A value does not fit its column, or breaks a constraint; another row may still do."""


class Database:
    """A pool of connections of one role.

    Unique violations leave `transaction` as asyncpg raises them: the store knows their meaning.
    """

    __slots__ = ("_pool",)

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]") -> None:
        self._pool = pool

    @classmethod
    async def open(
        cls,
        dsn: str,
        *,
        application_name: str,
        max_connections: int = MAX_CONNECTIONS,
        command_timeout_s: float = COMMAND_TIMEOUT_S,
        networks: Networks | None = None,
    ) -> Self:
        """A pool that connects on first use, so that a replica starts while Postgres is away.

        Args:
            dsn: With the password.
            application_name: In the server's lists of sessions.
            max_connections: Of the pool.
            command_timeout_s: For one statement.
            networks: Outside which no server is connected to; one behind a Unix socket is none
                of them.

        Raises:
            ValueError: The DSN is malformed, or does not name the one host to be looked up.
        """
        with answering():
            pool = await asyncpg.create_pool(
                dsn,
                min_size=0,
                max_size=max_connections,
                command_timeout=command_timeout_s,
                timeout=ACQUIRE_TIMEOUT_S,
                connect=_connecting(dsn, networks),
                server_settings={
                    "application_name": application_name,
                    "timezone": "UTC",
                    "idle_in_transaction_session_timeout": f"{IDLE_TRANSACTION_LIMIT_S}s",
                },
            )
        return cls(pool)

    async def aclose(self) -> None:
        """Close the pool, once statements under way have ended; or cut them at the timeout."""
        try:
            await asyncio.wait_for(self._pool.close(), COMMAND_TIMEOUT_S)
        except TimeoutError:
            self._pool.terminate()

    async def ping(self) -> None:
        """Ask Postgres for an answer.

        Raises:
            DatabaseUnavailable: None came.
        """
        with answering():
            async with self._pool.acquire(timeout=ACQUIRE_TIMEOUT_S) as connection:
                await connection.fetchval("SELECT 1")

    @asynccontextmanager
    async def transaction(
        self, *, user_id: UUID | None = None, account_id: str | None = None
    ) -> "AsyncIterator[Connection]":
        """A transaction in which row security shows what belongs to the user or the account.

        Raises:
            DatabaseUnavailable: Postgres is away, or no connection came free.
            DatabaseFault: A statement was wrong.
            asyncpg.UniqueViolationError: As it is.
        """
        with answering():
            async with (
                self._pool.acquire(timeout=ACQUIRE_TIMEOUT_S) as connection,
                connection.transaction(),
            ):
                # Both each time, and until the end of the transaction only.
                await connection.execute(
                    "SELECT set_config('app.user_id', $1, true),"
                    " set_config('app.account_id', $2, true)",
                    "" if user_id is None else str(user_id),
                    account_id or "",
                )
                yield connection


@contextmanager
def answering() -> Iterator[None]:
    """Turn what asyncpg raises into our errors, but for unique violations.

    Raises:
        DatabaseUnavailable: Postgres is away, starting, overrun, or cut the statement short.
        ValueRefused: A value was wrong.
        DatabaseFault: The statement was wrong.
    """
    try:
        yield
    except asyncpg.UniqueViolationError:
        raise
    except _PASSING as passing:
        raise _unavailable() from passing
    except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError) as refused:
        raise ValueRefused(f"Postgres refused a value: {refused}") from refused
    except asyncpg.PostgresError as refused:
        raise DatabaseFault(f"Postgres refused a statement: {refused}") from refused
    except OutsideNetworks as outside:
        raise _unavailable(f"the database is not connected to: {outside}") from outside
    except (asyncpg.InterfaceError, OSError, TimeoutError) as away:
        raise _unavailable() from away


def _unavailable(why: str = "the database does not answer") -> DatabaseUnavailable:
    return DatabaseUnavailable(why, retry_after_s=RETRY_AFTER_S)


def _connecting(dsn: str, networks: Networks | None) -> Callable[..., Any] | None:
    """Connects to an address that was looked up and is inside; None: as the pool always does."""
    parts = urlsplit(dsn)
    host = parts.hostname or parse_qs(parts.query).get("host", [""])[0]
    if networks is None or host.startswith("/"):
        return None
    if not host or "," in parts.netloc + host:
        raise ValueError("the database's URL names one host, where networks are given")
    port = parts.port or POSTGRES_PORT

    async def connect(dsn: str, **options: Any) -> Any:  # noqa: ANN401 - asyncpg's
        numeric = await networks.resolved(host, port)
        return await asyncpg.connect(dsn, host=numeric, port=port, **options)

    return connect


def json_text(value: object) -> str:
    """JSON that JSONB takes: it has no NUL, which brokers' texts may."""
    return msgspec.json.encode(value).decode().replace("\\u0000", "\\ufffd")
