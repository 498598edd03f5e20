"""Stored accounts for the owner of a terminal: logged in once, recorded until it is written."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, cast
from uuid import uuid4

import pytest
from structlog.testing import capture_logs

from api_pool import sessions as sessions_module
from api_pool.fleet import Fleet, FleetParts, OwnedTerminal
from api_pool.sessions import SessionAccounts
from mt5kit.domain.accounts import AccountIdentity, AccountState
from mt5kit.errors import (
    AccountNotFound,
    Conflict,
    LoginRefused,
    Mt5SwarmError,
    VaultFault,
    WrongAccount,
)
from mt5kit.secret import Secret
from mt5kit.service.background import Background
from mt5kit.state.postgres import (
    AccountError,
    DatabaseUnavailable,
    StoredLogin,
    WorkerLogin,
    WorkerStore,
)
from mt5kit.vault import AccountBinding, KeyRing, Vault

IDENTITY = AccountIdentity(7, "S")
REFUSED = LoginRefused("no")
ENDED = (AccountState.DISCONNECTED, AccountState.LOGIN_FAILED)


class Store:
    """Rows in memory; `failures` are raised by the writes to come."""

    def __init__(self) -> None:
        self.vault = Vault(KeyRing.generate())
        self.rows: dict[str, WorkerLogin] = {}
        self.failures: list[Mt5SwarmError] = []
        self.written: list[tuple[str, AccountState, AccountError | None, bytes | None, bool]] = []
        self._ids = iter(range(1, 1000))

    def keep(self, account_id: str, password: str, state: AccountState) -> bytes:
        binding = AccountBinding(uuid4(), IDENTITY.login, IDENTITY.server)
        sealed = self.vault.seal(Secret(password), binding)
        login = StoredLogin(next(self._ids), binding, sealed)
        self.rows[account_id] = WorkerLogin(login, uuid4(), state)
        return sealed.ciphertext

    async def credentials(self, account_id: str) -> WorkerLogin:
        if account_id not in self.rows:
            raise AccountNotFound("none")
        return self.rows[account_id]

    async def set_state(
        self,
        account_id: str,
        state: AccountState,
        error: AccountError | None = None,
        *,
        ciphertext: bytes | None = None,
        logged_in: bool = False,
    ) -> bool:
        if self.failures:
            raise self.failures.pop(0)
        self.written.append((account_id, state, error, ciphertext, logged_in))
        return True


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(sessions_module, "RECORD_AGAIN_S", 0.001)
    return Store()


@pytest.fixture
async def background() -> AsyncIterator[Background]:
    background = Background()
    yield background
    await background.aclose()


@pytest.fixture
def sessions(store: Store, background: Background) -> SessionAccounts:
    return SessionAccounts(cast("WorkerStore", store), store.vault, background)


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)


async def test_credentials_are_opened_when_a_login_needs_them(
    sessions: SessionAccounts, store: Store
) -> None:
    store.keep("alpha", "secret", AccountState.CONNECTED)
    entrant = sessions.entrant("alpha", IDENTITY)
    assert sessions.rows() == ()
    credentials = await entrant.credentials()
    assert (credentials.identity, credentials.password.reveal()) == (IDENTITY, "secret")
    assert sessions.rows() == (1,)


async def test_a_disconnected_account_is_not_logged_in(
    sessions: SessionAccounts, store: Store
) -> None:
    store.keep("alpha", "secret", AccountState.DISCONNECTED)
    with pytest.raises(Conflict):
        await sessions.entrant("alpha", IDENTITY).credentials()


async def test_a_refused_account_is_not_tried_again_and_the_caller_learns_why(
    sessions: SessionAccounts, store: Store
) -> None:
    store.keep("alpha", "secret", AccountState.LOGIN_FAILED)
    with pytest.raises(LoginRefused):
        await sessions.entrant("alpha", IDENTITY).credentials()


async def test_other_credentials_than_the_reader_knew_are_not_used_for_its_turn(
    sessions: SessionAccounts, store: Store
) -> None:
    store.keep("alpha", "secret", AccountState.CONNECTED)
    with pytest.raises(WrongAccount):
        await sessions.entrant("alpha", AccountIdentity(8, "S")).credentials()


async def test_a_password_that_does_not_open_is_our_fault_and_touches_nothing(
    sessions: SessionAccounts, store: Store, background: Background
) -> None:
    store.keep("alpha", "secret", AccountState.CONNECTED)
    other = SessionAccounts(cast("WorkerStore", store), Vault(KeyRing.generate()), background)
    with capture_logs() as logs, pytest.raises(VaultFault):
        await other.entrant("alpha", IDENTITY).credentials()
    assert [(line["event"], line["account_id"]) for line in logs] == [
        ("password_not_opened", "alpha")
    ]
    assert store.written == []
    await sessions.entrant("alpha", IDENTITY).credentials()


@pytest.mark.parametrize("state", [*ENDED, None])
async def test_what_has_ended_is_not_refreshed(
    sessions: SessionAccounts, store: Store, state: AccountState | None
) -> None:
    if state is not None:
        store.keep("alpha", "secret", state)
    assert await sessions.to_refresh("alpha") is None


async def test_a_state_is_told_once_and_only_when_it_is_news(
    sessions: SessionAccounts, store: Store
) -> None:
    ciphertext = store.keep("alpha", "secret", AccountState.CONNECTED)
    entrant = await sessions.to_refresh("alpha")
    assert entrant is not None
    await entrant.credentials()
    for connected in (True, True, False, False, True):
        sessions.looked("alpha", connected=connected)
    await until(lambda: len(store.written) == 2)
    assert sorted(written[1] for written in store.written) == ["broker_disconnected", "connected"]
    assert {written[3] for written in store.written} == {ciphertext}


async def test_a_look_mends_what_somebody_else_has_recorded(
    sessions: SessionAccounts, store: Store
) -> None:
    store.keep("alpha", "secret", AccountState.CONNECTED)
    await sessions.to_refresh("alpha")
    sessions.looked("alpha", connected=True)
    # A reader elsewhere met the terminal while it was away; the account stayed in it.
    store.keep("alpha", "secret", AccountState.TERMINAL_UNAVAILABLE)
    await sessions.to_refresh("alpha")
    sessions.looked("alpha", connected=True)
    await until(lambda: store.written)
    assert [written[1] for written in store.written] == [AccountState.CONNECTED]


async def test_a_refusal_is_recorded_however_long_the_database_is_away(
    sessions: SessionAccounts, store: Store
) -> None:
    ciphertext = store.keep("alpha", "secret", AccountState.CONNECTED)
    await sessions.entrant("alpha", IDENTITY).credentials()
    store.failures = [DatabaseUnavailable("away") for _ in range(10)]
    sessions.refused("alpha", REFUSED)
    await until(lambda: store.written)
    (written,) = store.written
    told = AccountError("MT5_LOGIN_FAILED", "no")
    assert written == ("alpha", AccountState.LOGIN_FAILED, told, ciphertext, False)


async def test_a_refusal_is_about_the_password_that_was_tried(
    sessions: SessionAccounts, store: Store
) -> None:
    tried = store.keep("alpha", "old", AccountState.CONNECTED)
    await sessions.entrant("alpha", IDENTITY).credentials()
    store.failures = [DatabaseUnavailable("away") for _ in range(3)]
    sessions.refused("alpha", REFUSED)
    # Before it is written the account is connected anew, and then served elsewhere.
    store.keep("alpha", "new", AccountState.CONNECTED)
    await sessions.entrant("alpha", IDENTITY).credentials()
    sessions.forget("alpha")
    await until(lambda: store.written)
    assert store.written[0][3] == tried


async def test_a_deleted_account_is_recorded_no_further(
    sessions: SessionAccounts, store: Store, background: Background
) -> None:
    store.failures = [AccountNotFound("gone")]
    sessions.refused("alpha", REFUSED)
    await until(lambda: not store.failures)
    await background.aclose()
    assert store.written == []


async def test_accounts_that_left_are_not_said_to_be_served_here(
    sessions: SessionAccounts, store: Store
) -> None:
    for account_id in ("a", "b", "c"):
        store.keep(account_id, "secret", AccountState.CONNECTED)
        await sessions.entrant(account_id, IDENTITY).credentials()
    assert sessions.rows() == (1, 2, 3)
    sessions.keep({"b"})
    assert sessions.rows() == (2,)


async def test_a_terminal_is_given_away_only_when_its_refusals_are_recorded(
    sessions: SessionAccounts, store: Store
) -> None:
    store.keep("alpha", "secret", AccountState.CONNECTED)
    await sessions.entrant("alpha", IDENTITY).credentials()
    store.failures = [DatabaseUnavailable("away") for _ in range(3)]

    class Scheduler:
        async def hand_over(self) -> None:
            sessions.refused("alpha", REFUSED)

    absent: Any = None
    fleet = Fleet(
        FleetParts(
            instance_id="api-1",
            addresses={},
            guard=absent,
            sessions=sessions,
            looks=absent,
            budget=absent,
            metrics=absent,
            session_metrics=absent,
            refusals=absent,
            journal=absent,
        ),
        absent,
    )
    scheduler: Any = Scheduler()
    fleet._owned["t-1"] = OwnedTerminal("t-1", absent, scheduler, absent)
    await fleet.losing("t-1")
    assert [written[1] for written in store.written] == [AccountState.LOGIN_FAILED]


async def test_a_database_that_stays_away_does_not_keep_a_terminal_from_others(
    sessions: SessionAccounts, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions_module, "RECORDED_S", 0.01)
    store.failures = [DatabaseUnavailable("away") for _ in range(100_000)]
    sessions.refused("alpha", REFUSED)
    await sessions.recorded()
    assert store.written == []
    store.failures = []
    await until(lambda: store.written)
    await sessions.recorded()
    assert len(store.written) == 1
