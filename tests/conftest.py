"""Real servers for the tests: one PostgreSQL and one Redis per test process.

A module gets a database of its own, copied from one that holds the schema; Redis is emptied
before every test that asks for it. Under pytest-xdist every worker has its own servers.
"""

import asyncio
import io
import itertools
import logging
import tempfile
from collections.abc import AsyncIterator, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import pytest
import redis
import structlog
from hypothesis import HealthCheck, settings

from local_stack.embedded import EmbeddedPostgres, EmbeddedRedis, RoleDsns, apply_schema
from mt5kit.telemetry.logs import configure_logs

T = TypeVar("T")

# The same examples everywhere, however slow the machine is.
settings.register_profile(
    "mt5-swarm",
    deadline=None,
    derandomize=True,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("mt5-swarm")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest file: at the end one worker would wait for it alone."""
    items.sort(key=lambda item: item.path.name != "test_ws_chaos.py")


@pytest.fixture
def written_log() -> Iterator[io.StringIO]:
    """Everything that is logged, ours and the libraries', as production writes it."""
    stream = io.StringIO()
    configure_logs(stream, level=logging.DEBUG)
    yield stream
    structlog.reset_defaults()
    logging.basicConfig(handlers=[], force=True)


def _run(work: Coroutine[Any, Any, T]) -> T:
    # In a thread of its own, so that tests may call it with or without a loop running.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


async def _execute(dsn: str, statement: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


class PostgresServer:
    """A running PostgreSQL with a template database that holds the schema."""

    def __init__(self, server: EmbeddedPostgres) -> None:
        self.server = server
        self._numbers = itertools.count(1)
        _run(_execute(server.dsn(), "CREATE DATABASE mt5_template"))
        self._roles = _run(apply_schema(server.dsn("mt5_template")))

    def create_empty(self) -> str:
        """Make an empty database; the superuser's DSN for it."""
        name = f"mt5_test_{next(self._numbers)}"
        _run(_execute(self.server.dsn(), f"CREATE DATABASE {name}"))
        return self.server.dsn(name)

    def create(self) -> RoleDsns:
        """Make a database with the schema in it."""
        name = f"mt5_test_{next(self._numbers)}"
        _run(_execute(self.server.dsn(), f"CREATE DATABASE {name} TEMPLATE mt5_template"))

        def here(dsn: str) -> str:
            return dsn.replace("/mt5_template?", f"/{name}?")

        return RoleDsns(
            owner=here(self._roles.owner),
            app=here(self._roles.app),
            worker=here(self._roles.worker),
            keys=here(self._roles.keys),
        )


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """The PostgreSQL of this test process. For tests that need another database or a restart."""
    with (
        tempfile.TemporaryDirectory(prefix="mt5-swarm-tests-") as directory,
        EmbeddedPostgres(Path(directory), durable=False) as server,
    ):
        yield PostgresServer(server)


@pytest.fixture(scope="module")
def postgres(postgres_server: PostgresServer) -> RoleDsns:
    """DSNs of a fresh database with the schema, shared by the tests of one module."""
    return postgres_server.create()


@pytest.fixture
async def owner(postgres: RoleDsns) -> AsyncIterator[asyncpg.Connection]:
    """A connection of the database's owner (a superuser: row security does not bind it)."""
    connection = await asyncpg.connect(postgres.owner)
    yield connection
    await connection.close()


@pytest.fixture
async def app_pool(postgres: RoleDsns) -> AsyncIterator[asyncpg.Pool]:
    """A pool of `mt5_app`, with one connection so that every test reuses it."""
    async with asyncpg.create_pool(postgres.app, min_size=1, max_size=1) as pool:
        yield pool


@pytest.fixture
async def worker_pool(postgres: RoleDsns) -> AsyncIterator[asyncpg.Pool]:
    """A pool of `mt5_worker`, with one connection so that every test reuses it."""
    async with asyncpg.create_pool(postgres.worker, min_size=1, max_size=1) as pool:
        yield pool


@pytest.fixture(scope="session")
def redis_server() -> Iterator[EmbeddedRedis]:
    """The Redis of this test process. For tests that stop it or look at it from outside."""
    with (
        tempfile.TemporaryDirectory(prefix="mt5-swarm-tests-") as directory,
        EmbeddedRedis(Path(directory), durable=False) as server,
    ):
        yield server


@pytest.fixture
def redis_url(redis_server: EmbeddedRedis) -> str:
    """URL of an empty Redis, for `redis.asyncio.from_url`."""
    redis_server.start()
    with redis.Redis.from_url(redis_server.admin_url) as client:
        client.flushall()
    return redis_server.url
