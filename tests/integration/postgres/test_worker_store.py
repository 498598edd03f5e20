import time
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import asyncpg
import msgspec
import pytest

from mt5kit.domain.accounts import AccountState
from mt5kit.errors import AccountNotFound
from mt5kit.state.postgres import (
    AccountError,
    AccountRow,
    AccountStore,
    DatabaseFault,
    InstanceReport,
    RequestLog,
    Standing,
    ValueRefused,
    WorkerStore,
)
from mt5kit.vault import AccountBinding, Sealed, Vault

MakeAccount = Callable[..., Awaitable[AccountRow]]
DAY_MS = 86_400_000


async def test_credentials_of_a_named_account_open(
    worker_store: WorkerStore, make_account: MakeAccount, vault: Vault
) -> None:
    account = await make_account()
    known = await worker_store.credentials(account.account_id)
    stored = known.login
    assert known.state is AccountState.CONNECTED
    assert (stored.id, stored.identity) == (account.id, account.identity)
    assert (known.row_id, known.user_id) == (account.id, account.user_id)
    assert vault.open(stored.sealed, stored.binding).reveal() == "first"


async def test_an_unknown_account_is_not_found(worker_store: WorkerStore) -> None:
    for attempt in (
        worker_store.credentials("absent"),
        worker_store.set_state("absent", AccountState.CONNECTED),
        worker_store.touch_poll("absent"),
        worker_store.standing("absent"),
        worker_store.standing("no\x00body"),
    ):
        with pytest.raises(AccountNotFound):
            await attempt


async def test_state_login_and_poll_are_recorded(
    worker_store: WorkerStore, account_store: AccountStore, make_account: MakeAccount
) -> None:
    account = await make_account()
    error = AccountError("TERMINAL_UNAVAILABLE", "restarting")
    await worker_store.set_state(account.account_id, AccountState.TERMINAL_UNAVAILABLE, error)
    away = await account_store.get(account.user_id, account.account_id)
    assert away is not None
    assert (away.state, away.last_error) == (AccountState.TERMINAL_UNAVAILABLE, error)
    assert away.last_login_ms == account.last_login_ms
    assert away.last_poll_ms is None

    await worker_store.set_state(account.account_id, AccountState.CONNECTED, logged_in=True)
    await worker_store.touch_poll(account.account_id)
    back = await account_store.get(account.user_id, account.account_id)
    assert back is not None
    assert (back.state, back.last_error) == (AccountState.CONNECTED, None)
    assert (back.last_login_ms or 0) > (account.last_login_ms or 0)
    assert back.last_poll_ms is not None


async def test_what_is_disconnected_stays_so(
    worker_store: WorkerStore, account_store: AccountStore, make_account: MakeAccount
) -> None:
    account = await make_account()
    await account_store.set_state(account.user_id, account.account_id, AccountState.DISCONNECTED)
    for state in (AccountState.LOGIN_FAILED, AccountState.CONNECTED):
        assert not await worker_store.set_state(account.account_id, state)
    assert (await worker_store.credentials(account.account_id)).state is AccountState.DISCONNECTED


async def test_a_late_refusal_does_not_touch_new_credentials(
    worker_store: WorkerStore,
    account_store: AccountStore,
    make_account: MakeAccount,
    sealing: Callable[[str], Callable[[AccountBinding], Sealed]],
) -> None:
    account = await make_account()
    who, error = account.account_id, AccountError("MT5_LOGIN_FAILED", "refused")
    tried = (await worker_store.credentials(who)).login.sealed.ciphertext
    await account_store.save_login(account.user_id, who, account.identity, sealing("first"))
    assert not await worker_store.set_state(who, AccountState.LOGIN_FAILED, error, ciphertext=tried)
    known = await worker_store.credentials(who)
    assert known.state is AccountState.CONNECTED
    again = known.login.sealed.ciphertext
    assert await worker_store.set_state(who, AccountState.LOGIN_FAILED, error, ciphertext=again)
    row = await account_store.get(account.user_id, who)
    assert row is not None
    assert (row.state, row.last_error) == (AccountState.LOGIN_FAILED, error)


async def test_the_standing_is_that_of_the_stored_credentials(
    worker_store: WorkerStore, account_store: AccountStore, make_account: MakeAccount
) -> None:
    account = await make_account()
    who, error = account.account_id, AccountError("MT5_LOGIN_FAILED", "refused")
    connected = Standing(account.id, account.user_id, AccountState.CONNECTED)
    assert await worker_store.standing(who) == connected
    await worker_store.set_state(who, AccountState.LOGIN_FAILED, error)
    await account_store.connecting(account.user_id, who)
    assert (await worker_store.standing(who)).state is AccountState.LOGIN_FAILED


async def test_the_registry_finds_the_holder_or_the_emptiest(
    worker_store: WorkerStore, worker_pool: asyncpg.Pool, owner: asyncpg.Connection
) -> None:
    async def instance_for(row_id: int, kind: str) -> str | None:
        found: str | None = await worker_pool.fetchval(
            "SELECT get_instance_for_account($1, $2)", row_id, kind
        )
        return found

    await owner.execute("DELETE FROM instance_registry")
    full = InstanceReport("api-1", "api", (41, 42), 50.0, 20.0, 9, "healthy", "h", "10.0.0.1")
    await worker_store.register_instance(full)
    await worker_store.register_instance(InstanceReport("api-2", "api", active_connections=2))
    await worker_store.register_instance(
        InstanceReport("api-3", "api", (43,), active_connections=0, health_status="draining")
    )
    await worker_store.register_instance(InstanceReport("ws-1", "websocket"))
    assert await instance_for(42, "api") == "api-1"
    assert await instance_for(43, "api") == "api-2"
    assert await instance_for(42, "websocket") == "ws-1"
    await worker_store.remove_instance("ws-1")
    assert await instance_for(42, "websocket") is None
    await owner.execute(
        "UPDATE instance_registry SET last_heartbeat = now() - INTERVAL '6 minutes'"
    )
    assert await instance_for(42, "api") is None


async def test_a_heartbeat_keeps_the_start_and_a_registration_renews_it(
    worker_store: WorkerStore, owner: asyncpg.Connection
) -> None:
    report = InstanceReport("api-9", "api")
    query = "SELECT started_at, cpu_usage FROM instance_registry WHERE instance_id = 'api-9'"
    await worker_store.heartbeat_instance(report)
    began = await owner.fetchval(query)
    await worker_store.heartbeat_instance(InstanceReport("api-9", "api", cpu_usage=12.5))
    beaten = await owner.fetchrow(query)
    assert beaten is not None
    assert tuple(beaten) == (began, 12.5)
    await worker_store.register_instance(report)
    assert await owner.fetchval(query) > began


async def test_the_view_counts_each_account_once(
    worker_store: WorkerStore, make_account: MakeAccount, owner: asyncpg.Connection
) -> None:
    await owner.execute("DELETE FROM instance_registry")
    await owner.execute("UPDATE accounts SET is_active = FALSE")
    one, two, gone = await make_account(), await make_account(), await make_account()
    await owner.execute("UPDATE accounts SET is_active = FALSE WHERE id = $1", gone.id)
    for report in (
        InstanceReport("api-1", "api", (one.id, gone.id), 10.0, 30.0, 3),
        InstanceReport("api-2", "api", (one.id,), 20.0, 50.0, 4, "draining"),
        InstanceReport("ws-1", "websocket", (one.id, two.id), active_connections=5),
        InstanceReport("ws-2", "websocket", (two.id,), active_connections=500),
    ):
        await worker_store.register_instance(report)
    await owner.execute(
        "UPDATE instance_registry SET last_heartbeat = now() - INTERVAL '1 hour'"
        " WHERE instance_id = 'ws-2'"
    )
    async with owner.transaction():
        await owner.execute("SET LOCAL ROLE mt5_monitor")
        rows = await owner.fetch("SELECT * FROM monitoring_dashboard ORDER BY instance_type")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with owner.transaction():
                await owner.fetch("SELECT login FROM accounts")
    assert [tuple(row) for row in rows] == [
        ("api", 2, 7, 15.0, 40.0, 1, 2, 1),
        ("websocket", 1, 5, None, None, 1, 2, 2),
    ]


async def test_terminal_events_are_appended(
    worker_store: WorkerStore, owner: asyncpg.Connection
) -> None:
    await worker_store.terminal_event("mt5-api-1", "lost")
    await worker_store.terminal_event("mt5-api-1", "connected", {"build": 5430, "text": "a\x00b"})
    rows = await owner.fetch("SELECT event, detail FROM terminal_events ORDER BY id")
    assert [row["event"] for row in rows] == ["lost", "connected"]
    assert rows[1]["detail"] == '{"text": "a\ufffdb", "build": 5430}'


def request_log(created_at_ms: int, request_id: str = "req") -> RequestLog:
    return RequestLog(
        created_at_ms=created_at_ms,
        request_id=request_id,
        endpoint="/api/mt5/account/{account_id}/info",
        method="GET",
        status_code=404,
        response_time_ms=3,
        instance_id="api-1",
        turn=True,
        code="ACCOUNT_NOT_FOUND",
        account_id="acc",
        user_id=uuid4(),
    )


async def test_request_logs_land_in_their_day(
    worker_store: WorkerStore, owner: asyncpg.Connection
) -> None:
    now_ms = time.time_ns() // 1_000_000
    await worker_store.append_request_logs([])
    await worker_store.append_request_logs([request_log(now_ms + n) for n in range(1000)])
    rows = await owner.fetch(
        "SELECT tableoid::regclass::text AS place, count(*) AS n, count(DISTINCT id) AS ids,"
        " bool_and(turn AND code = 'ACCOUNT_NOT_FOUND') AS whole FROM api_request_logs GROUP BY 1"
    )
    assert sum(row["n"] for row in rows) == sum(row["ids"] for row in rows) == 1000
    assert all(row["whole"] for row in rows)
    assert "api_request_logs_default" not in {row["place"] for row in rows}
    await owner.execute("DELETE FROM api_request_logs")


@pytest.mark.parametrize(
    "wrong",
    [
        {"request_id": "\x00"},
        {"request_id": "\ud800"},
        {"response_time_ms": -1},
        {"status_code": 2**40},
        {"created_at_ms": 10**18},
    ],
)
async def test_a_bad_batch_is_refused_whole(
    worker_store: WorkerStore, owner: asyncpg.Connection, wrong: dict[str, Any]
) -> None:
    now_ms = time.time_ns() // 1_000_000
    bad = msgspec.structs.replace(request_log(now_ms), **wrong)
    with pytest.raises(ValueRefused):
        await worker_store.append_request_logs([request_log(now_ms), bad])
    assert await owner.fetchval("SELECT count(*) FROM api_request_logs") == 0


async def test_dead_instances_are_removed_and_live_ones_stay(
    worker_store: WorkerStore, owner: asyncpg.Connection
) -> None:
    await owner.execute("DELETE FROM instance_registry")
    for name in ("api-1", "api-2", "ws-1"):
        await worker_store.register_instance(InstanceReport(name, "api"))
    await owner.execute(
        "UPDATE instance_registry SET last_heartbeat = now() - INTERVAL '16 s'"
        " WHERE instance_id <> 'api-1'"
    )
    assert await worker_store.remove_dead_instances(15) == ("api-2", "ws-1")
    assert await worker_store.remove_dead_instances(15) == ()
    left = await owner.fetch("SELECT instance_id FROM instance_registry")
    assert [row["instance_id"] for row in left] == ["api-1"]


async def test_partitions_are_made_and_take_over_what_was_caught(
    worker_store: WorkerStore, owner: asyncpg.Connection
) -> None:
    # Those of the schema are of the day on which the tests began.
    await worker_store.ensure_request_log_partitions(7)
    now_ms = time.time_ns() // 1_000_000
    await worker_store.append_request_logs([request_log(now_ms + 20 * DAY_MS)])
    caught = "SELECT count(*) FROM api_request_logs_default"
    assert await owner.fetchval(caught) == 1
    made = await worker_store.ensure_request_log_partitions(20)
    assert made == 13
    assert await worker_store.ensure_request_log_partitions(20) == 0
    assert await owner.fetchval(caught) == 0
    assert await owner.fetchval("SELECT count(*) FROM api_request_logs") == 1
    unforced = await owner.fetchval(
        "SELECT count(*) FROM pg_class WHERE relname ~ '^api_request_logs_[0-9]'"
        " AND relkind = 'r' AND NOT relforcerowsecurity"
    )
    assert unforced == 0
    await owner.execute("DELETE FROM api_request_logs")


async def test_old_partitions_are_dropped_and_the_rest_stay(
    worker_store: WorkerStore, owner: asyncpg.Connection
) -> None:
    count = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'api_request_logs'::regclass"
    before = await owner.fetchval(count)
    for days_ago in (31, 30, 29):
        await owner.execute(
            "DO $$ DECLARE d date := (now() AT TIME ZONE 'UTC')::date - "
            f"{days_ago}; BEGIN EXECUTE format('CREATE TABLE api_request_logs_%s PARTITION OF"
            " api_request_logs FOR VALUES FROM (%L) TO (%L)', to_char(d, 'YYYYMMDD'),"
            " d::timestamp AT TIME ZONE 'UTC', (d + 1)::timestamp AT TIME ZONE 'UTC'); END $$"
        )
    now_ms = time.time_ns() // 1_000_000
    await worker_store.append_request_logs(
        [request_log(now_ms - days * DAY_MS) for days in (90, 31, 30, 29)]
    )
    assert await worker_store.drop_request_log_partitions(30) == 1
    assert await worker_store.drop_request_log_partitions(30) == 0
    assert await owner.fetchval(count) == before + 2
    assert await owner.fetchval("SELECT count(*) FROM api_request_logs") == 2


@pytest.mark.parametrize("days", [0, -1, 10**6])
async def test_senseless_retention_is_refused(worker_store: WorkerStore, days: int) -> None:
    with pytest.raises(DatabaseFault, match="days to keep"):
        await worker_store.drop_request_log_partitions(days)
