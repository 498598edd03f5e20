"""The rows of sockets: made once, kept alive by who serves them, ended by whoever outlives it."""

import asyncio
from collections.abc import Awaitable, Callable
from uuid import UUID, uuid4

import asyncpg
import pytest

from mt5kit.errors import AccountNotFound
from mt5kit.service.registration import SILENT_AFTER_S, Registration
from mt5kit.state.postgres import (
    AccountRow,
    AccountStore,
    AuditEntry,
    ClosedSocket,
    DatabaseFault,
    InstanceReport,
    OpenSocket,
    SubscriptionStore,
    WorkerStore,
)
from websocket_pool.subscriptions import BEAT_S, SubscriptionBook

MakeAccount = Callable[..., Awaitable[AccountRow]]
Subscribe = Callable[[str], Awaitable[UUID]]

ROW = """
    SELECT account_id, user_id, instance_id, is_active, close_code,
        round(extract(epoch FROM now() - connected_at)) AS open_s,
        round(extract(epoch FROM now() - disconnected_at)) AS closed_s
    FROM websocket_subscriptions WHERE socket = $1
"""
ACTIVE = "SELECT socket FROM websocket_subscriptions WHERE is_active AND account_id = $1"


async def silence(owner: asyncpg.Connection, *sockets: UUID) -> None:
    await owner.execute(
        "UPDATE websocket_subscriptions SET last_heartbeat = now() - make_interval(secs => $2)"
        " WHERE socket = ANY ($1)",
        *(sockets, SILENT_AFTER_S + 1),
    )


async def active(owner: asyncpg.Connection, account: AccountRow) -> set[UUID]:
    return {row["socket"] for row in await owner.fetch(ACTIVE, account.id)}


async def test_a_socket_has_one_row_however_often_it_is_written(
    subscription_store: SubscriptionStore, make_account: MakeAccount, owner: asyncpg.Connection
) -> None:
    account, socket = await make_account(), uuid4()
    who, opened = account.account_id, [OpenSocket(socket, 40.0)]
    for _ in range(2):
        await subscription_store.record(who, "ws-1", opened)
    row = await owner.fetchrow(ROW, socket)
    assert row is not None
    assert tuple(row) == (account.id, account.user_id, "ws-1", True, None, 40, None)
    for _ in range(2):
        await subscription_store.record(who, "ws-1", [], [ClosedSocket(socket, 20.0, 4408)])
    row = await owner.fetchrow(ROW, socket)
    assert row is not None
    assert tuple(row) == (account.id, account.user_id, "ws-1", False, 4408, 40, 20)


async def test_a_socket_that_came_and_went_between_two_writings_has_its_row(
    subscription_store: SubscriptionStore, make_account: MakeAccount, owner: asyncpg.Connection
) -> None:
    account, socket = await make_account(), uuid4()
    await subscription_store.record(
        account.account_id, "ws-1", [OpenSocket(socket, 0.8)], [ClosedSocket(socket, 0.1, 1001)]
    )
    row = await owner.fetchrow(ROW, socket)
    assert row is not None
    assert (row["is_active"], row["close_code"]) == (False, 1001)


async def test_under_another_account_or_replica_a_socket_is_out_of_reach(
    subscription_store: SubscriptionStore,
    make_account: MakeAccount,
    subscribe: Subscribe,
    owner: asyncpg.Connection,
) -> None:
    account, other = await make_account(), await make_account()
    socket = await subscribe(account.account_id)
    closed = [ClosedSocket(socket, 0.0, 1001)]
    await subscription_store.record(other.account_id, "ws-1", [], closed)
    await subscription_store.record(account.account_id, "ws-2", [], closed)
    assert await active(owner, account) == {socket}
    assert await subscription_store.beat("ws-2", [socket]) == (socket,)


async def test_an_account_that_is_not_there_has_no_sockets(
    subscription_store: SubscriptionStore,
) -> None:
    for name in ("absent", "no\x00body"):
        with pytest.raises(AccountNotFound):
            await subscription_store.record(name, "ws-1", [OpenSocket(uuid4(), 0.0)])


async def test_one_beat_keeps_the_sockets_of_many_accounts_and_names_those_without_a_row(
    subscription_store: SubscriptionStore,
    worker_store: WorkerStore,
    make_account: MakeAccount,
    subscribe: Subscribe,
    owner: asyncpg.Connection,
) -> None:
    accounts = [await make_account() for _ in range(3)]
    kept, also, left = [await subscribe(account.account_id) for account in accounts]
    await silence(owner, kept, also, left)
    absent = uuid4()
    assert await subscription_store.beat("ws-1", [kept, absent, also]) == (absent,)
    assert await worker_store.end_silent_subscriptions(SILENT_AFTER_S) == 1
    assert [await active(owner, account) for account in accounts] == [{kept}, {also}, set()]
    # What was ended is named, and writing it makes it active again.
    assert await subscription_store.beat("ws-1", [kept, left]) == (left,)
    await subscription_store.record(accounts[2].account_id, "ws-1", [OpenSocket(left, 9.0)])
    assert await active(owner, accounts[2]) == {left}
    assert await subscription_store.beat("ws-1", []) == ()


async def test_closed_sockets_are_forgotten_after_their_time_and_open_ones_never(
    subscription_store: SubscriptionStore,
    make_account: MakeAccount,
    subscribe: Subscribe,
    owner: asyncpg.Connection,
) -> None:
    account = await make_account()
    recent, old, stays = [await subscribe(account.account_id) for _ in range(3)]
    day_s = 86_400.0
    closed = [ClosedSocket(recent, 29 * day_s, 1000), ClosedSocket(old, 31 * day_s, 1000)]
    await subscription_store.record(account.account_id, "ws-1", [], closed)
    await owner.execute(
        "UPDATE websocket_subscriptions SET connected_at = now() - INTERVAL '1 year'"
    )
    assert await subscription_store.forget(30) == 1
    rows = await owner.fetch(
        "SELECT socket FROM websocket_subscriptions WHERE account_id = $1", account.id
    )
    assert {row["socket"] for row in rows} == {recent, stays}
    with pytest.raises(DatabaseFault, match="days to keep"):
        await subscription_store.forget(0)


async def test_only_one_at_a_time_looks_for_the_silent(
    worker_store: WorkerStore,
    make_account: MakeAccount,
    subscribe: Subscribe,
    owner: asyncpg.Connection,
) -> None:
    await silence(owner, await subscribe((await make_account()).account_id))
    async with owner.transaction():
        await owner.execute(
            "SELECT pg_advisory_xact_lock(hashtext('public.websocket_subscriptions'))"
        )
        assert await worker_store.end_silent_subscriptions(SILENT_AFTER_S) == 0
    assert await worker_store.end_silent_subscriptions(SILENT_AFTER_S) == 1


async def test_a_senseless_silence_is_refused(worker_store: WorkerStore) -> None:
    for seconds in (0, -1, 10**6):
        with pytest.raises(DatabaseFault, match="seconds"):
            await worker_store.end_silent_subscriptions(seconds)


async def test_what_a_crashed_replica_left_open_is_ended_by_one_of_any_pool(
    subscription_store: SubscriptionStore,
    worker_store: WorkerStore,
    make_account: MakeAccount,
    owner: asyncpg.Connection,
) -> None:
    account = await make_account()
    crashed = SubscriptionBook(subscription_store, "ws-1")
    row = crashed.opened(account.account_id)
    await crashed.flush()
    assert await active(owner, account) == {row.socket}
    # It has crashed: the next task of its slot knows nothing of its sockets.
    now_s = 0.0
    book = SubscriptionBook(subscription_store, "ws-1", lambda: now_s)
    mine = book.opened(account.account_id)
    await book.flush()
    await silence(owner, row.socket, mine.socket)
    now_s = BEAT_S
    await book.flush()
    api = Registration(worker_store, lambda: InstanceReport("api-1", "api"))
    await api.beat()
    assert await active(owner, account) == {mine.socket}


async def test_a_replica_that_was_taken_for_dead_tells_its_open_sockets_again(
    subscription_store: SubscriptionStore,
    worker_store: WorkerStore,
    make_account: MakeAccount,
    owner: asyncpg.Connection,
) -> None:
    now_s, accounts = 0.0, [await make_account() for _ in range(3)]
    book = SubscriptionBook(subscription_store, "ws-1", lambda: now_s)
    rows = [book.opened(account.account_id) for account in accounts]
    await book.flush()
    await silence(owner, *(row.socket for row in rows))
    assert await worker_store.end_silent_subscriptions(SILENT_AFTER_S) == 3
    book.closed(rows[1], 4408)
    now_s = BEAT_S
    # The first beat finds them gone, the next writing makes them again.
    await book.flush()
    await book.flush()
    expected = [{rows[0].socket}, set(), {rows[2].socket}]
    assert [await active(owner, account) for account in accounts] == expected
    await book.close()
    assert [await active(owner, account) for account in accounts] == [set()] * 3
    codes = [
        await owner.fetchval(
            "SELECT close_code FROM websocket_subscriptions WHERE socket = $1", row.socket
        )
        for row in rows
    ]
    assert codes == [1012, 4408, 1012]


async def test_a_deletion_and_the_writing_of_its_sockets_do_not_hold_each_other_up(
    account_store: AccountStore,
    subscription_store: SubscriptionStore,
    make_account: MakeAccount,
    owner: asyncpg.Connection,
) -> None:
    now_s, accounts = 0.0, [await make_account() for _ in range(8)]
    book = SubscriptionBook(subscription_store, "ws-1", lambda: now_s)
    for account in accounts * 4:
        book.opened(account.account_id)

    async def delete(account: AccountRow) -> None:
        entry = AuditEntry("key:edge", "account.delete", account.account_id)
        await account_store.delete(account.user_id, account.account_id, entry)

    async def write() -> None:
        nonlocal now_s
        for _ in range(10):
            now_s += BEAT_S
            await book.flush()

    await asyncio.gather(write(), *(delete(account) for account in accounts[::2]))
    left = [len(await active(owner, account)) for account in accounts]
    assert left == [0, 4] * 4
