import time
from collections.abc import AsyncIterator, Awaitable, Callable
from uuid import UUID, uuid4

import asyncpg
import pytest

from local_stack.embedded import RoleDsns
from mt5kit.state.postgres import (
    AccountRow,
    Database,
    DatabaseFault,
    InstanceReport,
    RequestLog,
    WorkerStore,
)

MakeAccount = Callable[..., Awaitable[AccountRow]]
Subscribe = Callable[[str], Awaitable[UUID]]


@pytest.fixture
async def keys_pool(postgres: RoleDsns) -> AsyncIterator[asyncpg.Pool]:
    async with asyncpg.create_pool(postgres.keys, min_size=1, max_size=1) as pool:
        yield pool


@pytest.fixture
def pools(
    app_pool: asyncpg.Pool, worker_pool: asyncpg.Pool, keys_pool: asyncpg.Pool
) -> dict[str, asyncpg.Pool]:
    return {"app": app_pool, "worker": worker_pool, "keys": keys_pool}


async def visible(database: Database, table: str, **scope: object) -> int:
    async with database.transaction(**scope) as connection:  # type: ignore[arg-type]  # user_id or account_id
        count: int = await connection.fetchval(f"SELECT count(*) FROM {table}")  # noqa: S608 - a literal of this file
    return count


async def test_a_forgotten_where_reaches_only_the_user(
    make_account: MakeAccount, app_database: Database, owner: asyncpg.Connection
) -> None:
    mine, other = await make_account(), await make_account()
    async with app_database.transaction(user_id=mine.user_id) as connection:
        rows = await connection.fetch("SELECT account_id FROM accounts")
        assert [row["account_id"] for row in rows] == [mine.account_id]
        assert await connection.execute("UPDATE accounts SET metadata = '{\"x\": 1}'") == "UPDATE 1"
        moves = await connection.fetch("SELECT DISTINCT account_id FROM account_state_transitions")
        assert [move["account_id"] for move in moves] == [mine.id]
        assert await connection.execute("DELETE FROM accounts") == "DELETE 1"
    left = await owner.fetch("SELECT metadata FROM accounts WHERE id = $1", other.id)
    assert [row["metadata"] for row in left] == ["{}"]


async def test_a_forgotten_where_reaches_only_the_named_account(
    make_account: MakeAccount, worker_database: Database, owner: asyncpg.Connection
) -> None:
    user = uuid4()
    named, other = await make_account(user), await make_account(user)
    async with worker_database.transaction(account_id=named.account_id) as connection:
        rows = await connection.fetch("SELECT account_id FROM accounts")
        assert [row["account_id"] for row in rows] == [named.account_id]
        moved = await connection.execute("UPDATE accounts SET state = 'broker_disconnected'")
        assert moved == "UPDATE 1"
    state = await owner.fetchval("SELECT state FROM accounts WHERE id = $1", other.id)
    assert state == "connected"


@pytest.mark.parametrize("table", ["accounts", "websocket_subscriptions"])
async def test_a_transaction_that_names_nothing_sees_nothing(
    make_account: MakeAccount,
    subscribe: Subscribe,
    app_database: Database,
    worker_database: Database,
    table: str,
) -> None:
    account = await make_account()
    await subscribe(account.account_id)
    assert await visible(app_database, table) == 0
    assert await visible(worker_database, table) == 0
    # Each role has its own scope; the other's name opens nothing.
    assert await visible(app_database, table, account_id=account.account_id) == 0
    assert await visible(worker_database, table, user_id=account.user_id) == 0
    assert await visible(app_database, table, user_id=account.user_id) == 1
    assert await visible(worker_database, table, account_id=account.account_id) == 1


@pytest.mark.parametrize("role", ["app", "worker"])
async def test_after_a_commit_the_setting_is_empty_and_opens_nothing(
    make_account: MakeAccount, role: str, pools: dict[str, asyncpg.Pool]
) -> None:
    account = await make_account()
    async with pools[role].acquire() as connection:
        async with connection.transaction():
            await connection.execute(
                "SELECT set_config('app.user_id', $1, true),"
                " set_config('app.account_id', $2, true)",
                *(str(account.user_id), account.account_id),
            )
            assert await connection.fetchval("SELECT count(*) FROM accounts") == 1
        assert await connection.fetchval("SELECT current_setting('app.user_id', true)") == ""
        assert await connection.fetchval("SELECT current_setting('app.account_id', true)") == ""
        assert await connection.fetchval("SELECT count(*) FROM accounts") == 0


async def test_a_row_cannot_be_given_to_another_user(
    make_account: MakeAccount, app_database: Database
) -> None:
    account = await make_account()
    for statement in (
        "UPDATE accounts SET user_id = gen_random_uuid()",
        "UPDATE accounts SET account_id = 'other'",
        "UPDATE accounts SET uuid = gen_random_uuid()",
    ):
        with pytest.raises(DatabaseFault, match="permission denied"):
            async with app_database.transaction(user_id=account.user_id) as connection:
                await connection.execute(statement)
    with pytest.raises(DatabaseFault, match="row-level security"):
        async with app_database.transaction(user_id=account.user_id) as connection:
            await insert_for(connection, uuid4())


async def insert_for(connection: asyncpg.pool.PoolConnectionProxy, user_id: UUID) -> None:
    await connection.execute(
        "INSERT INTO accounts (account_id, user_id, login, server, encrypted_password, wrapped_key,"
        " encryption_key_id) VALUES ('planted', $1, 1, 'Demo', $2, $2, 'k')",
        *(user_id, b"s" * 60),
    )


@pytest.mark.parametrize(
    ("role", "statement"),
    [
        ("app", "SELECT * FROM api_request_logs"),
        ("app", "SELECT * FROM api_request_logs_default"),
        ("app", "SELECT * FROM instance_registry"),
        ("app", "SELECT * FROM audit_log"),
        (
            "app",
            "INSERT INTO account_state_transitions (account_id, to_state) VALUES (1, 'x')",
        ),
        ("app", "SELECT drop_request_log_partitions(1)"),
        ("app", "CREATE TABLE mine ()"),
        ("worker", "SELECT * FROM api_request_logs"),
        ("worker", "SELECT * FROM api_request_logs_default"),
        ("worker", "DELETE FROM api_request_logs"),
        ("worker", "SELECT * FROM audit_log"),
        ("worker", "SELECT * FROM account_state_transitions"),
        ("worker", "DELETE FROM accounts"),
        ("worker", "UPDATE accounts SET encrypted_password = wrapped_key"),
        ("worker", "SELECT * FROM monitoring_dashboard"),
        ("worker", "DELETE FROM terminal_events"),
        ("worker", "CREATE TABLE mine ()"),
        ("keys", "SELECT encrypted_password FROM accounts"),
        ("keys", "SELECT * FROM accounts"),
        ("keys", "SELECT user_id FROM accounts"),
        ("keys", "UPDATE accounts SET login = 1"),
        ("keys", "UPDATE accounts SET encrypted_password = wrapped_key"),
        ("keys", "DELETE FROM accounts"),
        ("keys", "SELECT * FROM audit_log"),
        ("keys", "SELECT mend_connecting(0)"),
        ("keys", "CREATE TABLE mine ()"),
        ("app", "SELECT mend_connecting(0)"),
        ("app", "SELECT beat_subscriptions('ws-1', '{}')"),
        ("keys", "SELECT beat_subscriptions('ws-1', '{}')"),
        ("app", "SELECT end_silent_subscriptions(10)"),
        ("keys", "SELECT end_silent_subscriptions(10)"),
        ("app", "SELECT forget_subscriptions(30)"),
        ("keys", "SELECT forget_subscriptions(30)"),
        ("worker", "DELETE FROM websocket_subscriptions"),
    ],
)
async def test_what_a_role_has_no_use_for_is_denied(
    role: str, statement: str, pools: dict[str, asyncpg.Pool]
) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await pools[role].execute(statement)


async def test_a_worker_cannot_subscribe_another_user(
    make_account: MakeAccount, worker_database: Database
) -> None:
    account = await make_account()
    with pytest.raises(DatabaseFault, match="row-level security"):
        async with worker_database.transaction(account_id=account.account_id) as connection:
            await connection.execute(
                "INSERT INTO websocket_subscriptions (account_id, user_id, instance_id)"
                " VALUES ($1, $2, 'ws-1')",
                *(account.id, uuid4()),
            )


# -- every table, every role, every statement that is granted, without a WHERE --------------------

# What belongs to no user, so that a role which may touch it touches all of it.
OF_NO_USER = frozenset({("instance_registry", "worker"), ("terminal_events", "worker")})
# The rotation goes over all rows, and reads no password.
ALL_BY_DESIGN = OF_NO_USER | {("accounts", "keys")}

_TABLES = """
    SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace
    AND relkind IN ('r', 'p') AND NOT relispartition ORDER BY relname
"""

_COLUMNS = """
    SELECT attname FROM pg_attribute WHERE attrelid = $1::text::regclass AND attnum > 0
    AND NOT attisdropped AND has_column_privilege($2, attrelid, attnum, $3) ORDER BY attnum
"""


async def granted(owner: asyncpg.Connection, table: str, role: str, privilege: str) -> list[str]:
    rows = await owner.fetch(_COLUMNS, table, f"mt5_{role}", privilege)
    return [row["attname"] for row in rows]


async def statements(owner: asyncpg.Connection, table: str, role: str) -> dict[str, str]:
    """Those that the role may run on the table, each to count the rows it reaches."""
    found = {}
    if readable := await granted(owner, table, role, "SELECT"):
        found["SELECT"] = f"SELECT {readable[0]} FROM {table}"  # noqa: S608 - from the catalogue
    if writable := await granted(owner, table, role, "UPDATE"):
        # The last: ids come first, and identities are not updated to themselves.
        found["UPDATE"] = f"UPDATE {table} SET {writable[-1]} = {writable[-1]}"  # noqa: S608 - likewise
    if await owner.fetchval("SELECT has_table_privilege($1, $2, 'DELETE')", f"mt5_{role}", table):
        found["DELETE"] = f"DELETE FROM {table}"  # noqa: S608 - likewise
    return found


@pytest.fixture
async def furnished(
    make_account: MakeAccount,
    worker_store: WorkerStore,
    subscribe: Subscribe,
    owner: asyncpg.Connection,
) -> AccountRow:
    """Rows of two users in every table; the account of one of them."""
    await owner.execute("DELETE FROM accounts")
    mine, other = await make_account(), await make_account()
    for account in (mine, other):
        await subscribe(account.account_id)
        await worker_store.register_instance(InstanceReport(f"api-{account.id}", "api"))
        await worker_store.terminal_event("t-1", "lost")
        await worker_store.append_request_logs(
            [RequestLog(time.time_ns() // 1_000_000, "r", "/", "GET", 200, 1, "api-1")]
        )
        await owner.execute("INSERT INTO audit_log (actor, action, target) VALUES ('x', 'x', 'x')")
    return mine


async def reached(
    pool: asyncpg.Pool, statement: str, account: AccountRow | None
) -> tuple[int, int]:
    """Rows that a statement reaches where the transaction names nothing, and an account."""
    counts = []
    for named in (False, True):
        async with pool.acquire() as connection:
            transaction = connection.transaction()
            await transaction.start()
            try:
                if named and account is not None:
                    await connection.execute(
                        "SELECT set_config('app.user_id', $1, true),"
                        " set_config('app.account_id', $2, true)",
                        *(str(account.user_id), account.account_id),
                    )
                status = await connection.execute(statement)
                counts.append(int(status.split()[-1]))
            finally:
                await transaction.rollback()
    return counts[0], counts[1]


@pytest.mark.parametrize("role", ["app", "worker", "keys"])
async def test_every_statement_without_a_where_stays_in_scope(
    furnished: AccountRow, owner: asyncpg.Connection, pools: dict[str, asyncpg.Pool], role: str
) -> None:
    tables = [row["relname"] for row in await owner.fetch(_TABLES)]
    assert len(tables) >= 7
    tried = 0
    for table in tables:
        total = await owner.fetchval(f"SELECT count(*) FROM {table}")  # noqa: S608 - from the catalogue
        assert total >= 2, f"{table}: this test must put rows of two users in it"
        for kind, statement in (await statements(owner, table, role)).items():
            unnamed, named = await reached(pools[role], statement, furnished)
            expected = (total, total) if (table, role) in ALL_BY_DESIGN else (0, 1)
            assert (unnamed, named) == expected, f"{role}: {kind} on {table}"
            tried += 1
    assert tried == {"app": 5, "worker": 8, "keys": 2}[role]


async def test_backups_read_the_keys_in_use_and_nothing_else(
    furnished: AccountRow, owner: asyncpg.Connection
) -> None:
    async with owner.transaction():
        await owner.execute("SET LOCAL ROLE mt5_backup")
        assert len(await owner.fetch("SELECT encryption_key_id FROM accounts")) == 2
    readable = await owner.fetch(
        "SELECT table_name, column_name, privilege_type FROM information_schema.column_privileges"
        " WHERE grantee = 'mt5_backup'"
    )
    assert [tuple(row) for row in readable] == [("accounts", "encryption_key_id", "SELECT")]


async def test_every_table_has_a_policy(owner: asyncpg.Connection) -> None:
    bare = await owner.fetch(
        "SELECT relname FROM pg_class c WHERE relnamespace = 'public'::regnamespace"
        " AND relkind IN ('r', 'p') AND NOT relispartition"
        " AND NOT EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid)"
    )
    assert bare == []
