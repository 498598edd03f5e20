"""The state machine of an account, as a table: who may move it from where to where."""

from collections.abc import Awaitable, Callable

import asyncpg
import msgspec
import pytest

from mt5kit.domain.accounts import AccountState
from mt5kit.state.postgres import AccountError, AccountRow, AccountStore, WorkerStore
from mt5kit.vault import AccountBinding, Sealed

MakeAccount = Callable[..., Awaitable[AccountRow]]
Sealing = Callable[[str], Callable[[AccountBinding], Sealed]]

REST = tuple(state for state in AccountState if state is not AccountState.CONNECTING)
OBSERVED = (
    AccountState.CONNECTED,
    AccountState.BROKER_DISCONNECTED,
    AccountState.LOGIN_FAILED,
    AccountState.TERMINAL_UNAVAILABLE,
)
OLD_ERROR = AccountError("BEFORE", "what was wrong before")
NEW_ERROR = AccountError("NOW", "what is wrong now")


@pytest.fixture
def stand(
    make_account: MakeAccount, owner: asyncpg.Connection
) -> Callable[[AccountState], Awaitable[AccountRow]]:
    """Makes an account that stands in a state, with an error and without a history."""

    async def make(state: AccountState) -> AccountRow:
        account = await make_account()
        await owner.execute(
            "UPDATE accounts SET state = $2, last_error = $3 WHERE id = $1",
            *(account.id, state.value, msgspec.json.encode(OLD_ERROR).decode()),
        )
        await owner.execute(
            "DELETE FROM account_state_transitions WHERE account_id = $1", account.id
        )
        return account

    return make


class Machine:
    """One account, and every way it is moved."""

    def __init__(
        self, accounts: AccountStore, worker: WorkerStore, sealing: Sealing, account: AccountRow
    ) -> None:
        self.accounts = accounts
        self.worker = worker
        self.sealing = sealing
        self.account = account
        self.user, self.name = account.user_id, account.account_id

    async def row(self) -> AccountRow:
        row = await self.accounts.get(self.user, self.name)
        assert row is not None
        return row

    async def state(self) -> AccountState:
        return (await self.row()).state

    async def connecting(self) -> AccountRow:
        before = await self.accounts.connecting(self.user, self.name)
        assert before is not None
        return before

    async def connected(self) -> None:
        await self.accounts.save_login(
            self.user, self.name, self.account.identity, self.sealing("new")
        )

    async def disconnected(self) -> None:
        await self.accounts.set_state(self.user, self.name, AccountState.DISCONNECTED)


@pytest.fixture
def machine(
    stand: Callable[[AccountState], Awaitable[AccountRow]],
    account_store: AccountStore,
    worker_store: WorkerStore,
    sealing: Sealing,
) -> Callable[[AccountState], Awaitable[Machine]]:
    async def make(state: AccountState) -> Machine:
        return Machine(account_store, worker_store, sealing, await stand(state))

    return make


MakeMachine = Callable[[AccountState], Awaitable[Machine]]


async def moves(owner: asyncpg.Connection, machine: Machine) -> list[tuple[str, str, str]]:
    rows = await owner.fetch(
        "SELECT from_state, to_state, reason FROM account_state_transitions"
        " WHERE account_id = $1 ORDER BY id",
        machine.account.id,
    )
    return [tuple(row) for row in rows]


@pytest.mark.parametrize("state", REST)
async def test_a_connect_that_fails_ends_where_it_began(
    machine: MakeMachine, owner: asyncpg.Connection, state: AccountState
) -> None:
    one = await machine(state)
    before = await one.connecting()
    assert (before.state, before.standing, before.last_error) == (state, state, OLD_ERROR)
    during = await one.row()
    assert (during.state, during.standing) == (AccountState.CONNECTING, state)
    assert during.last_error == OLD_ERROR
    stored = await one.worker.credentials(one.name)
    assert (stored.state, stored.connecting) == (state, True)
    await one.accounts.connect_failed(before)
    after = await one.row()
    assert (after.state, after.connecting_from, after.last_error) == (state, None, OLD_ERROR)
    stored = await one.worker.credentials(one.name)
    assert (stored.state, stored.connecting) == (state, False)
    assert await moves(owner, one) == [
        (state, "connecting", "BEFORE"),
        ("connecting", state, "BEFORE"),
    ]


@pytest.mark.parametrize("state", REST)
async def test_a_connect_that_succeeds_ends_connected(
    machine: MakeMachine, owner: asyncpg.Connection, state: AccountState
) -> None:
    one = await machine(state)
    before = await one.connecting()
    await one.connected()
    # The failure of another connect of the same account comes late.
    await one.accounts.connect_failed(before)
    row = await one.row()
    assert (row.state, row.standing, row.last_error) == (*[AccountState.CONNECTED] * 2, None)
    assert await moves(owner, one) == [
        (state, "connecting", "BEFORE"),
        ("connecting", "connected", None),
    ]


@pytest.mark.parametrize("state", REST)
async def test_a_disconnect_during_a_connect_stays(
    machine: MakeMachine, state: AccountState
) -> None:
    one = await machine(state)
    before = await one.connecting()
    await one.disconnected()
    await one.accounts.connect_failed(before)
    assert await one.state() is AccountState.DISCONNECTED
    assert not await one.worker.set_state(one.name, AccountState.CONNECTED)


@pytest.mark.parametrize("observed", OBSERVED)
@pytest.mark.parametrize("state", REST)
async def test_a_worker_s_observation_moves_all_but_what_its_owner_ended(
    machine: MakeMachine, owner: asyncpg.Connection, state: AccountState, observed: AccountState
) -> None:
    one = await machine(state)
    ended = state is AccountState.DISCONNECTED
    assert await one.worker.set_state(one.name, observed, NEW_ERROR) is not ended
    row = await one.row()
    assert (row.state, row.last_error) == ((state, OLD_ERROR) if ended else (observed, NEW_ERROR))
    same = ended or state is observed
    assert await moves(owner, one) == ([] if same else [(state, observed, "NOW")])


@pytest.mark.parametrize("by_worker", [True, False])
@pytest.mark.parametrize("observed", OBSERVED)
@pytest.mark.parametrize("state", [AccountState.CONNECTED, AccountState.DISCONNECTED])
async def test_an_observation_during_a_connect_is_where_the_failed_one_ends(
    machine: MakeMachine, state: AccountState, observed: AccountState, by_worker: bool
) -> None:
    one = await machine(state)
    seen = await one.row()
    before = await one.connecting()
    ended = state is AccountState.DISCONNECTED
    if by_worker:
        recorded = await one.worker.set_state(one.name, observed, NEW_ERROR)
        assert recorded is not ended
    else:
        # Somebody who saw it as it stands may move it; reads of a disconnected one do not happen.
        assert await one.accounts.move_state(seen, observed, NEW_ERROR)
        ended = False
    assert await one.state() is AccountState.CONNECTING
    # A refused password is not tried again while another is being proven.
    standing = state if ended else observed
    assert (await one.worker.credentials(one.name)).state is standing
    await one.accounts.connect_failed(before)
    row = await one.row()
    assert (row.state, row.last_error) == (standing, OLD_ERROR if ended else NEW_ERROR)


async def test_a_second_connect_under_way_begins_where_the_first_did(machine: MakeMachine) -> None:
    one = await machine(AccountState.LOGIN_FAILED)
    first = await one.connecting()
    second = await one.connecting()
    assert (second.state, second.standing) == (AccountState.CONNECTING, AccountState.LOGIN_FAILED)
    await one.accounts.connect_failed(second)
    assert await one.state() is AccountState.LOGIN_FAILED
    await one.accounts.connect_failed(first)
    assert await one.state() is AccountState.LOGIN_FAILED


async def test_a_connect_of_what_is_not_there_or_another_s_moves_nothing(
    machine: MakeMachine, account_store: AccountStore, make_account: MakeAccount
) -> None:
    one = await machine(AccountState.CONNECTED)
    stranger = await make_account()
    assert await account_store.connecting(stranger.user_id, one.name) is None
    assert await account_store.connecting(stranger.user_id, "nobody") is None
    assert await account_store.connecting(stranger.user_id, "no\x00body") is None
    assert await one.state() is AccountState.CONNECTED


async def test_the_failure_of_a_deleted_account_s_connect_spares_a_new_one_of_its_name(
    machine: MakeMachine, sealing: Sealing
) -> None:
    one = await machine(AccountState.LOGIN_FAILED)
    before = await one.connecting()
    await one.accounts.delete(one.user, one.name)
    await one.accounts.connect_failed(before)
    await one.connected()
    again = await one.connecting()
    await one.accounts.connect_failed(before)
    assert await one.state() is AccountState.CONNECTING
    await one.accounts.connect_failed(again)
    assert await one.state() is AccountState.CONNECTED


@pytest.mark.parametrize("state", REST)
async def test_what_a_dead_replica_left_connecting_is_put_back_after_a_while(
    machine: MakeMachine,
    worker_store: WorkerStore,
    owner: asyncpg.Connection,
    state: AccountState,
) -> None:
    dead, alive = await machine(state), await machine(state)
    await dead.connecting()
    await alive.connecting()
    await owner.execute(
        "UPDATE accounts SET state_since = now() - INTERVAL '121 s' WHERE id = $1", dead.account.id
    )
    assert await worker_store.mend_connecting(120) == 1
    assert await worker_store.mend_connecting(120) == 0
    assert await dead.state() is state
    assert await alive.state() is AccountState.CONNECTING
    assert (await dead.row()).last_error == OLD_ERROR
    assert (await moves(owner, dead))[-1] == ("connecting", state, "BEFORE")
    await owner.execute("DELETE FROM accounts WHERE id = $1", alive.account.id)


async def test_where_a_connecting_account_came_from_is_not_the_writer_s_to_say(
    make_account: MakeAccount, owner: asyncpg.Connection
) -> None:
    account = await make_account()
    with pytest.raises(asyncpg.CheckViolationError):
        await owner.execute("UPDATE accounts SET connecting_from = 'new' WHERE id = $1", account.id)
    kept = await owner.fetchval(
        "UPDATE accounts SET state = 'connecting', connecting_from = 'new' WHERE id = $1"
        " RETURNING connecting_from",
        account.id,
    )
    assert kept == "connected"
