import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest

from local_stack.embedded import EmbeddedPostgres, apply_schema
from mt5kit.state.postgres import AccountStore, Database, DatabaseFault, DatabaseUnavailable


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedPostgres]:
    """A server that these tests may stop."""
    with (
        tempfile.TemporaryDirectory(prefix="mt5-swarm-tests-") as directory,
        EmbeddedPostgres(Path(directory), durable=False) as server,
    ):
        yield server


@pytest.fixture
async def database(server: EmbeddedPostgres) -> AsyncIterator[Database]:
    server.start()
    roles = await apply_schema(server.dsn())
    database = await Database.open(
        roles.app, application_name="test", max_connections=1, command_timeout_s=0.5
    )
    yield database
    await database.aclose()


async def test_a_restarted_server_is_away_and_then_answers(
    server: EmbeddedPostgres, database: Database
) -> None:
    store = AccountStore(database)
    assert await store.list(uuid4()) == ()
    await asyncio.to_thread(server.stop)
    for _ in range(2):
        with pytest.raises(DatabaseUnavailable) as caught:
            await store.list(uuid4())
        assert caught.value.retry_after_s is not None
        with pytest.raises(DatabaseUnavailable):
            await database.ping()
    await asyncio.to_thread(server.start)
    await database.ping()
    assert await store.list(uuid4()) == ()


async def test_a_pool_opens_while_the_server_is_away(tmp_path: Path) -> None:
    dsn = f"postgresql://mt5_app:x@/postgres?host={tmp_path}"
    database = await Database.open(dsn, application_name="test")
    with pytest.raises(DatabaseUnavailable):
        await database.ping()
    await database.aclose()


async def test_a_stuck_statement_is_cut_off(database: Database) -> None:
    with pytest.raises(DatabaseUnavailable):
        async with database.transaction() as connection:
            await connection.execute("SELECT pg_sleep(60)")
    await database.ping()


async def test_a_statement_of_ours_that_is_wrong_is_our_fault(database: Database) -> None:
    with pytest.raises(DatabaseFault):
        async with database.transaction() as connection:
            await connection.execute("SELEC")
    with pytest.raises(DatabaseFault):
        async with database.transaction() as connection:
            await connection.execute("SELECT $1::bigint", 2**63)
    with pytest.raises(asyncpg.UniqueViolationError):
        async with database.transaction():
            raise asyncpg.UniqueViolationError


async def test_a_killed_connection_is_unavailable_and_replaced(
    server: EmbeddedPostgres, database: Database
) -> None:
    killer = await asyncpg.connect(server.dsn())

    async def use_and_be_killed() -> None:
        async with database.transaction() as connection:
            pid = await connection.fetchval("SELECT pg_backend_pid()")
            await killer.execute("SELECT pg_terminate_backend($1)", pid)
            await connection.fetchval("SELECT 1")

    with pytest.raises(DatabaseUnavailable):
        await use_and_be_killed()
    await killer.close()
    await database.ping()
