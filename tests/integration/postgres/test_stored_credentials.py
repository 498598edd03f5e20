"""A row under a key that the ring lacks: told to the operator, and left as it is."""

from collections.abc import Awaitable, Callable

import asyncpg
import pytest
from structlog.testing import capture_logs

from mt5kit.domain.accounts import AccountState
from mt5kit.errors import LoginRefused
from mt5kit.state.postgres import AccountRow, AccountStore, WorkerStore
from mt5kit.vault import KeyMissing, KeyRing, SealBroken, Sealed, Vault
from websocket_pool.credentials import StoredCredentials

MakeAccount = Callable[..., Awaitable[AccountRow]]


async def whole(owner: asyncpg.Connection, account: AccountRow) -> list[asyncpg.Record]:
    return await owner.fetch(
        "SELECT a.*, (SELECT count(*) FROM account_state_transitions t WHERE t.account_id = a.id)"
        " FROM accounts a WHERE id = $1",
        account.id,
    )


@pytest.mark.parametrize(("key_id", "fault"), [("other", KeyMissing), ("test", SealBroken)])
async def test_a_row_that_does_not_open_is_named_and_left_alone(
    worker_store: WorkerStore,
    make_account: MakeAccount,
    owner: asyncpg.Connection,
    key_id: str,
    fault: type[Exception],
) -> None:
    account = await make_account()
    before = await whole(owner, account)
    source = StoredCredentials(worker_store, Vault(KeyRing.generate(key_id)))
    with capture_logs() as logs, pytest.raises(fault):
        await source.read(account.account_id)
    (line,) = logs
    assert (line["event"], line["log_level"]) == ("password_not_opened", "error")
    assert (line["account_id"], line["key_id"]) == (account.account_id, "test")
    assert await whole(owner, account) == before


async def test_a_refusal_is_recorded_though_the_key_was_rotated_meanwhile(
    worker_store: WorkerStore,
    account_store: AccountStore,
    make_account: MakeAccount,
    owner: asyncpg.Connection,
    vault: Vault,
) -> None:
    account = await make_account()
    source = StoredCredentials(worker_store, vault)
    tried = await source.read(account.account_id)
    stored = await account_store.sealed_password(account.user_id, account.account_id)
    fresh: Sealed = vault.rewrap(stored.sealed, stored.binding)
    assert fresh.wrapped_key != stored.sealed.wrapped_key
    await owner.execute(
        "UPDATE accounts SET wrapped_key = $2 WHERE id = $1", account.id, fresh.wrapped_key
    )
    assert (await source.read(account.account_id)).seal == tried.seal
    await source.refused(tried, LoginRefused("no"))
    row = await account_store.get(account.user_id, account.account_id)
    assert row is not None
    assert row.state is AccountState.LOGIN_FAILED
