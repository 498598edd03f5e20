from collections.abc import AsyncIterator
from typing import Protocol
from uuid import uuid4

import asyncpg
import pytest

from local_stack.embedded import SCHEMA_FILE, RoleDsns
from mt5kit.domain.accounts import AccountState

ROLES = ["mt5_app", "mt5_worker", "mt5_keys", "mt5_monitor", "mt5_backup"]
SEALED = b"s" * 60


class EmptyDatabases(Protocol):
    def create_empty(self) -> str: ...


@pytest.fixture
async def empty(postgres_server: EmptyDatabases) -> AsyncIterator[asyncpg.Connection]:
    """A superuser's connection to an empty database."""
    connection = await asyncpg.connect(postgres_server.create_empty())
    yield connection
    await connection.close()


@pytest.fixture
async def plain_owner(empty: asyncpg.Connection) -> asyncpg.Connection:
    """The same, as an owner of that database who may create roles and is no superuser."""
    name = await empty.fetchval("SELECT current_database()")
    # CREATEROLE alone may not touch the roles that another database's owner has made.
    await empty.execute(f"CREATE ROLE {name}_owner CREATEROLE NOSUPERUSER NOBYPASSRLS")
    await empty.execute(f"ALTER DATABASE {name} OWNER TO {name}_owner")
    await empty.execute(f"SET SESSION AUTHORIZATION {name}_owner")
    return empty


async def insert_account(connection: asyncpg.Connection, account_id: str, login: int) -> int:
    row_id: int = await connection.fetchval(
        "INSERT INTO accounts (account_id, user_id, login, server, encrypted_password, wrapped_key,"
        " encryption_key_id) VALUES ($1, $2, $3, 'Demo', $4, $4, 'k') RETURNING id",
        *(account_id, uuid4(), login, SEALED),
    )
    return row_id


async def catalogue(connection: asyncpg.Connection) -> list[asyncpg.Record]:
    """Everything that an application of the schema could change."""
    return await connection.fetch("""
        SELECT 'column', attrelid::regclass::text || '.' || attname, attacl::text
        FROM pg_attribute JOIN pg_class c ON c.oid = attrelid
        WHERE c.relnamespace = 'public'::regnamespace AND attnum > 0
        UNION ALL SELECT 'relation', relname, relkind::text || coalesce(relacl::text, '')
        FROM pg_class WHERE relnamespace = 'public'::regnamespace
        UNION ALL SELECT 'function', proname, pg_get_functiondef(oid) || coalesce(proacl::text, '')
        FROM pg_proc WHERE pronamespace = 'public'::regnamespace
        UNION ALL SELECT 'policy', tablename || '.' || policyname,
            coalesce(qual, '') || coalesce(with_check, '') || roles::text || cmd
        FROM pg_policies
        UNION ALL SELECT 'constraint', conname, pg_get_constraintdef(oid) FROM pg_constraint
        WHERE connamespace = 'public'::regnamespace
        UNION ALL SELECT 'trigger', tgname, pg_get_triggerdef(oid) FROM pg_trigger
        WHERE NOT tgisinternal
        ORDER BY 1, 2, 3
    """)


async def test_a_second_application_changes_nothing(empty: asyncpg.Connection) -> None:
    await empty.execute(SCHEMA_FILE.read_text())
    await insert_account(empty, "kept", 1)
    before = await catalogue(empty)
    assert len(before) > 100
    await empty.execute(SCHEMA_FILE.read_text())
    assert await catalogue(empty) == before
    assert await empty.fetchval("SELECT count(*) FROM accounts") == 1


async def test_it_applies_and_works_without_a_superuser(plain_owner: asyncpg.Connection) -> None:
    for _ in range(2):
        await plain_owner.execute(SCHEMA_FILE.read_text())
    assert await plain_owner.fetchval("SELECT count(*) FROM accounts") == 0
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
        await insert_account(plain_owner, "own", 1)


async def test_the_definer_functions_work_for_a_plain_owner(
    plain_owner: asyncpg.Connection,
) -> None:
    await plain_owner.execute(SCHEMA_FILE.read_text())
    name = await plain_owner.fetchval("SELECT current_user")
    await plain_owner.execute("RESET SESSION AUTHORIZATION")
    row_id = await insert_account(plain_owner, "definer", 1)
    await plain_owner.execute("SET ROLE mt5_worker")
    await plain_owner.execute("SELECT set_config('app.account_id', 'definer', false)")
    await plain_owner.execute("UPDATE accounts SET state = 'connecting'")
    await plain_owner.execute(
        "INSERT INTO api_request_logs (created_at, request_id, endpoint, method, status_code,"
        " response_time_ms, instance_id) VALUES (now() + INTERVAL '8 days', 'r', '/', 'GET', 200,"
        " 1, 'i')"
    )
    assert await plain_owner.fetchval("SELECT ensure_request_log_partitions(8)") == 1
    async with plain_owner.transaction():
        assert await plain_owner.fetchval("SELECT mend_connecting(0)") == 1
        # What opened the accounts to the owner does so no longer than the call.
        assert await plain_owner.fetchval("SELECT current_setting('app.mending', true)") == ""
        # Nor what opens the sockets.
        socket = await plain_owner.fetchval(
            "INSERT INTO websocket_subscriptions (account_id, user_id, instance_id)"
            " SELECT id, user_id, 'ws-1' FROM accounts RETURNING socket"
        )
        beat = "SELECT beat_subscriptions('ws-1', ARRAY[$1::uuid])"
        assert await plain_owner.fetchval(beat, socket) == []
        await plain_owner.execute(
            "UPDATE websocket_subscriptions SET last_heartbeat = now() - INTERVAL '11 s'"
        )
        assert await plain_owner.fetchval("SELECT end_silent_subscriptions(10)") == 1
        assert await plain_owner.fetchval(beat, socket) == [socket]
        await plain_owner.execute(
            "UPDATE websocket_subscriptions SET disconnected_at = now() - INTERVAL '2 days'"
        )
        assert await plain_owner.fetchval("SELECT forget_subscriptions(1)") == 1
        assert await plain_owner.fetchval("SELECT current_setting('app.tending', true)") == ""
    await plain_owner.execute("RESET ROLE")
    moves = await plain_owner.fetch(
        "SELECT to_state FROM account_state_transitions WHERE account_id = $1 ORDER BY id", row_id
    )
    assert [move["to_state"] for move in moves] == ["new", "connecting", "new"]
    owners = await plain_owner.fetch(
        "SELECT DISTINCT pg_get_userbyid(relowner) FROM pg_class"
        " WHERE relnamespace = 'public'::regnamespace"
    )
    assert [owner[0] for owner in owners] == [name]
    assert await plain_owner.fetchval("SELECT count(*) FROM api_request_logs_default") == 0


async def test_the_app_roles_own_nothing_and_bypass_nothing(owner: asyncpg.Connection) -> None:
    assert not await owner.fetch(
        "SELECT c.oid::regclass FROM pg_class c JOIN pg_roles r ON r.oid = c.relowner"
        " WHERE r.rolname = ANY ($1)",
        ROLES,
    )
    roles = await owner.fetch(
        "SELECT rolname, rolcanlogin, rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb"
        " OR rolreplication AS mighty FROM pg_roles WHERE rolname = ANY ($1) ORDER BY rolname",
        ROLES,
    )
    assert [tuple(role) for role in roles] == [
        ("mt5_app", True, False),
        ("mt5_backup", False, False),
        ("mt5_keys", True, False),
        ("mt5_monitor", False, False),
        ("mt5_worker", True, False),
    ]


async def test_row_security_is_forced_on_every_table(owner: asyncpg.Connection) -> None:
    open_tables = await owner.fetch(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        " AND relkind IN ('r', 'p') AND NOT (relrowsecurity AND relforcerowsecurity)"
    )
    assert open_tables == []


async def test_it_needs_no_extension(owner: asyncpg.Connection) -> None:
    extensions = await owner.fetch("SELECT extname FROM pg_extension")
    assert [extension[0] for extension in extensions] == ["plpgsql"]


async def test_definer_functions_pin_their_search_path(owner: asyncpg.Connection) -> None:
    functions = await owner.fetch(
        "SELECT proname, proconfig, has_function_privilege('mt5_app', oid, 'EXECUTE') AS app"
        " FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND prosecdef"
    )
    assert len(functions) == 7
    for function in functions:
        assert "search_path=pg_catalog, pg_temp" in function["proconfig"]
        assert not function["app"]


async def test_nobody_else_may_create_or_call(owner: asyncpg.Connection) -> None:
    assert not await owner.fetchval("SELECT has_schema_privilege('mt5_app', 'public', 'CREATE')")
    public = await owner.fetch(
        "SELECT proname FROM pg_proc CROSS JOIN aclexplode(proacl) acl"
        " WHERE pronamespace = 'public'::regnamespace AND acl.grantee = 0"
    )
    assert public == []


async def test_states_are_those_of_the_domain(owner: asyncpg.Connection) -> None:
    row_id = await insert_account(owner, "states", 77)
    for state in AccountState:
        await owner.execute("UPDATE accounts SET state = $2 WHERE id = $1", row_id, state.value)
    with pytest.raises(asyncpg.CheckViolationError):
        await owner.execute("UPDATE accounts SET state = 'asleep' WHERE id = $1", row_id)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("account_id", "white space"),
        ("account_id", "line\n"),
        ("account_id", ""),
        ("account_id", "x" * 65),
        ("login", 0),
        ("server", ""),
        ("encrypted_password", b"plain"),
        ("last_error", '{"code": "X"}'),
        ("last_error", '["code", "message"]'),
    ],
)
async def test_a_row_that_cannot_be_is_refused(
    owner: asyncpg.Connection, column: str, value: object
) -> None:
    async with owner.transaction():
        row_id = await insert_account(owner, "refused", 78)
        with pytest.raises(asyncpg.CheckViolationError):
            async with owner.transaction():
                await owner.execute(
                    f"UPDATE accounts SET {column} = $2 WHERE id = $1",  # noqa: S608 - from the list above
                    *(row_id, value),
                )
        await owner.execute("DELETE FROM accounts WHERE id = $1", row_id)


async def test_the_audit_log_is_append_only_even_for_a_superuser(
    owner: asyncpg.Connection,
) -> None:
    await owner.execute("INSERT INTO audit_log (actor, action, target) VALUES ('a', 'b', 'c')")
    for statement in (
        "UPDATE audit_log SET actor = 'x'",
        "DELETE FROM audit_log",
        "TRUNCATE audit_log",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="append only"):
            await owner.execute(statement)


async def test_a_role_that_bypasses_row_security_is_refused(empty: asyncpg.Connection) -> None:
    statements = SCHEMA_FILE.read_text().replace("\nBEGIN;\n", "").replace("\nCOMMIT;\n", "")
    # In one transaction that is rolled back, so that other tests never meet such a role.
    attempt = empty.transaction()
    await attempt.start()
    await empty.execute("ALTER ROLE mt5_monitor BYPASSRLS")
    with pytest.raises(asyncpg.RaiseError, match="mt5_monitor bypasses row security"):
        await empty.execute(statements)
    await attempt.rollback()


async def test_the_password_of_a_role_is_needed(postgres: RoleDsns) -> None:
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(postgres.app, password="another")
