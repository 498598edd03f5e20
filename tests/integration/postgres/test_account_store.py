import asyncio
from collections.abc import Awaitable, Callable
from uuid import UUID, uuid4

import asyncpg
import pytest

from mt5kit.domain.accounts import AccountIdentity, AccountState
from mt5kit.errors import AccountNotFound, Conflict
from mt5kit.state.postgres import (
    AccountError,
    AccountRow,
    AccountStore,
    AuditEntry,
    AuditStore,
    WorkerStore,
)
from mt5kit.vault import AccountBinding, Sealed, Vault

MakeAccount = Callable[..., Awaitable[AccountRow]]
Subscribe = Callable[[str], Awaitable[UUID]]
Sealing = Callable[[str], Callable[[AccountBinding], Sealed]]


async def password_of(store: AccountStore, vault: Vault, account: AccountRow) -> str:
    stored = await store.sealed_password(account.user_id, account.account_id)
    return vault.open(stored.sealed, stored.binding).reveal()


async def test_a_saved_login_is_read_back(
    account_store: AccountStore, sealing: Sealing, vault: Vault
) -> None:
    user, identity = uuid4(), AccountIdentity(2**63 - 1, "Größe-Demo")
    saved = await account_store.save_login(user, "my_own-ID", identity, sealing("geheim"))
    assert await account_store.get(user, "my_own-ID") == saved
    assert await account_store.list(user) == (saved,)
    assert (saved.identity, saved.state, saved.last_error) == (
        identity,
        AccountState.CONNECTED,
        None,
    )
    assert saved.last_login_ms is not None
    stored = await account_store.sealed_password(user, "my_own-ID")
    assert (stored.id, stored.identity) == (saved.id, identity)
    assert stored.binding.account_uuid == saved.uuid
    assert await password_of(account_store, vault, saved) == "geheim"


async def test_new_credentials_replace_the_old_under_the_same_uuid(
    account_store: AccountStore, make_account: MakeAccount, sealing: Sealing, vault: Vault
) -> None:
    old = await make_account()
    await account_store.set_state(
        old.user_id, old.account_id, AccountState.LOGIN_FAILED, AccountError("X", "refused")
    )
    moved = AccountIdentity(old.identity.login + 10**12, "Other-Server")
    new = await account_store.save_login(old.user_id, old.account_id, moved, sealing("second"))
    assert (new.id, new.uuid, new.identity) == (old.id, old.uuid, moved)
    assert (new.state, new.last_error) == (AccountState.CONNECTED, None)
    assert await password_of(account_store, vault, new) == "second"


async def test_another_user_s_account_is_not_found(
    account_store: AccountStore, make_account: MakeAccount, sealing: Sealing, vault: Vault
) -> None:
    theirs, stranger = await make_account(), uuid4()
    name = theirs.account_id
    assert await account_store.get(stranger, name) is None
    assert await account_store.list(stranger) == ()
    for attempt in (
        account_store.set_state(stranger, name, AccountState.DISCONNECTED),
        account_store.sealed_password(stranger, name),
        account_store.delete(stranger, name),
        account_store.save_login(stranger, name, AccountIdentity(1, "Demo"), sealing("x")),
        # Their login too: that the id is taken must not be told by a conflict.
        account_store.save_login(stranger, name, theirs.identity, sealing("x")),
    ):
        with pytest.raises(AccountNotFound):
            await attempt
    assert await account_store.get(theirs.user_id, name) == theirs
    assert await password_of(account_store, vault, theirs) == "first"


@pytest.mark.parametrize("name", ["", "a b", "nul\x00", "x" * 65, "naïve", "line\n"])
async def test_what_cannot_be_an_id_is_not_found(
    account_store: AccountStore, worker_store: WorkerStore, sealing: Sealing, name: str
) -> None:
    user = uuid4()
    assert await account_store.get(user, name) is None
    for attempt in (
        account_store.sealed_password(user, name),
        account_store.save_login(user, name, AccountIdentity(1, "Demo"), sealing("x")),
        worker_store.credentials(name),
    ):
        with pytest.raises(AccountNotFound):
            await attempt


async def test_a_login_held_under_another_id_is_a_conflict(
    account_store: AccountStore, make_account: MakeAccount, sealing: Sealing
) -> None:
    first, second = await make_account(), await make_account()
    for user, name in (
        (uuid4(), "other-user"),
        (first.user_id, "other-id"),
        (second.user_id, second.account_id),
    ):
        with pytest.raises(Conflict):
            await account_store.save_login(user, name, first.identity, sealing("x"))
    assert await account_store.get(second.user_id, second.account_id) == second


async def test_the_same_login_at_another_server_is_another_account(
    account_store: AccountStore, make_account: MakeAccount, sealing: Sealing
) -> None:
    first = await make_account()
    elsewhere = AccountIdentity(first.identity.login, "Elsewhere")
    await account_store.save_login(first.user_id, "elsewhere", elsewhere, sealing("x"))
    assert len(await account_store.list(first.user_id)) == 2


async def test_concurrent_connects_leave_one_row_that_opens(
    account_store: AccountStore, sealing: Sealing, vault: Vault
) -> None:
    for round_number in range(10):
        user, name = uuid4(), f"race-{round_number}"
        identity = AccountIdentity(9_000_000 + round_number, "Demo")
        saved = await asyncio.gather(
            *(
                account_store.save_login(user, name, identity, sealing(f"password {n}"))
                for n in range(3)
            )
        )
        assert len({row.uuid for row in saved}) == 1
        assert len(await account_store.list(user)) == 1
        assert (await password_of(account_store, vault, saved[0])).startswith("password ")


async def test_of_two_users_racing_for_an_id_one_gets_it(
    account_store: AccountStore, sealing: Sealing
) -> None:
    for round_number in range(10):
        users = [uuid4(), uuid4()]
        results = await asyncio.gather(
            *(
                account_store.save_login(
                    user,
                    f"contested-{round_number}",
                    AccountIdentity(9_500_000 + round_number * 2 + n, "Demo"),
                    sealing("x"),
                )
                for n, user in enumerate(users)
            ),
            return_exceptions=True,
        )
        assert sorted(type(result).__name__ for result in results) == [
            "AccountNotFound",
            "AccountRow",
        ]


async def test_a_failing_seal_stores_nothing(account_store: AccountStore) -> None:
    def fail(_: AccountBinding) -> Sealed:
        raise ArithmeticError

    user = uuid4()
    with pytest.raises(ArithmeticError):
        await account_store.save_login(user, "unsealed", AccountIdentity(31, "Demo"), fail)
    assert await account_store.list(user) == ()


async def test_state_changes_are_kept_with_their_reason(
    account_store: AccountStore, make_account: MakeAccount, owner: asyncpg.Connection
) -> None:
    account = await make_account()
    error = AccountError(
        "MT5_LOGIN_FAILED",
        "refused: \x00 \ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"),
    )
    for _ in range(2):
        await account_store.set_state(
            account.user_id, account.account_id, AccountState.LOGIN_FAILED, error
        )
    now = await account_store.get(account.user_id, account.account_id)
    assert now is not None
    assert now.state is AccountState.LOGIN_FAILED
    assert now.last_error == AccountError("MT5_LOGIN_FAILED", "refused: \ufffd \U0001f600")
    assert now.state_since_ms >= account.state_since_ms
    moves = await owner.fetch(
        "SELECT from_state, to_state, reason FROM account_state_transitions"
        " WHERE account_id = $1 ORDER BY id",
        account.id,
    )
    assert [tuple(move) for move in moves] == [
        (None, "connected", None),
        ("connected", "login_failed", "MT5_LOGIN_FAILED"),
    ]


async def test_deleting_erases_everything_but_the_audit_row(
    account_store: AccountStore,
    subscribe: Subscribe,
    make_account: MakeAccount,
    owner: asyncpg.Connection,
) -> None:
    account = await make_account()
    await subscribe(account.account_id)
    entry = AuditEntry("key:edge", "account.delete", account.account_id, {"n": 1}, "req-1")
    await account_store.delete(account.user_id, account.account_id, entry)
    assert await account_store.get(account.user_id, account.account_id) is None
    for table in ("account_state_transitions", "websocket_subscriptions"):
        left = await owner.fetchval(
            f"SELECT count(*) FROM {table} WHERE account_id = $1",  # noqa: S608 - a literal of this file
            account.id,
        )
        assert left == 0
    row = await owner.fetchrow("SELECT * FROM audit_log WHERE target = $1", account.account_id)
    assert row is not None
    assert (row["actor"], row["action"], row["detail"], row["request_id"]) == (
        "key:edge",
        "account.delete",
        '{"n": 1}',
        "req-1",
    )
    with pytest.raises(AccountNotFound):
        await account_store.delete(account.user_id, account.account_id, entry)
    count = "SELECT count(*) FROM audit_log WHERE target = $1"
    assert await owner.fetchval(count, account.account_id) == 1


async def test_the_audit_store_appends_under_either_role(
    account_store: AccountStore, worker_store: WorkerStore, owner: asyncpg.Connection
) -> None:
    for store in (account_store, worker_store):
        await AuditStore(store._database).append(AuditEntry("op", "terminal.restart", "MT5_01"))
    count = "SELECT count(*) FROM audit_log WHERE target = 'MT5_01'"
    assert await owner.fetchval(count) == 2


async def test_an_observation_moves_only_the_state_it_saw(
    account_store: AccountStore, make_account: MakeAccount
) -> None:
    account = await make_account()
    who = (account.user_id, account.account_id)
    await account_store.set_state(*who, AccountState.DISCONNECTED)
    assert not await account_store.move_state(account, AccountState.TERMINAL_UNAVAILABLE)
    kept = await account_store.get(*who)
    assert kept is not None
    assert kept.state is AccountState.DISCONNECTED
    why = AccountError("X", "why")
    assert await account_store.move_state(kept, AccountState.LOGIN_FAILED, why)
    moved = await account_store.get(*who)
    assert moved is not None
    assert (moved.state, moved.last_error) == (AccountState.LOGIN_FAILED, why)


async def test_an_observation_with_old_credentials_says_nothing_of_new_ones(
    account_store: AccountStore, make_account: MakeAccount, sealing: Sealing
) -> None:
    seen = await make_account()
    await account_store.save_login(
        seen.user_id, seen.account_id, seen.identity, sealing("the right one")
    )
    assert not await account_store.move_state(seen, AccountState.LOGIN_FAILED)
    kept = await account_store.get(seen.user_id, seen.account_id)
    assert kept is not None
    assert kept.state is AccountState.CONNECTED
