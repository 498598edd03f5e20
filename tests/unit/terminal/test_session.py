"""Turns of a shared terminal: who is in, who waits, what a foreign answer is."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from prometheus_client import CollectorRegistry

from mt5kit.domain.accounts import AccountIdentity
from mt5kit.domain.history import HistoryPage, HistoryQuery
from mt5kit.domain.snapshots import Snapshot
from mt5kit.domain.trades import Deal, Order
from mt5kit.errors import ServiceOverloaded, TerminalUnavailable, WrongAccount
from mt5kit.secret import Secret
from mt5kit.telemetry.terminal_metrics import TerminalMetrics
from mt5kit.terminal import session as session_module
from mt5kit.terminal.credentials import Credentials
from mt5kit.terminal.session import TerminalSession
from mt5kit.testing.fake_terminal import make_snapshot

ONE, TWO = AccountIdentity(1, "S"), AccountIdentity(2, "S")


class FakeTerminal:
    """Holds one login; counts what it is asked."""

    terminal_id = "t-1"

    def __init__(self) -> None:
        self.now_in: AccountIdentity | None = None
        self.signed_in: list[tuple[int, AccountIdentity, bool]] = []
        self.renamed: AccountIdentity | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def sign_in(
        self,
        token: int,
        credentials: Credentials,
        *,
        must_prove: bool = False,
        deadline_s: float = 0,
    ) -> Snapshot:
        await self.gate.wait()
        self.signed_in.append((token, credentials.identity, must_prove))
        self.now_in = self.renamed or credentials.identity
        return make_snapshot(identity=self.now_in)

    async def snapshot(
        self, token: int, identity: AccountIdentity, *, deadline_s: float = 0
    ) -> Snapshot:
        await self.gate.wait()
        if self.now_in != identity:
            raise WrongAccount("another")
        return make_snapshot(identity=identity)

    async def deals(
        self, token: int, identity: AccountIdentity, query: HistoryQuery, *, deadline_s: float = 0
    ) -> HistoryPage[Deal]:
        raise NotImplementedError

    async def orders(
        self, token: int, identity: AccountIdentity, query: HistoryQuery, *, deadline_s: float = 0
    ) -> HistoryPage[Order]:
        raise NotImplementedError


def credentials_of(identity: AccountIdentity) -> Callable[[], Awaitable[Credentials]]:
    async def credentials() -> Credentials:
        return Credentials(identity, Secret("pw"))

    return credentials


@pytest.fixture
def terminal() -> FakeTerminal:
    return FakeTerminal()


@pytest.fixture
def session(terminal: FakeTerminal) -> TerminalSession:
    return TerminalSession(terminal, lambda: 7, TerminalMetrics(CollectorRegistry()))


async def test_a_login_happens_only_when_another_account_is_in(
    terminal: FakeTerminal, session: TerminalSession
) -> None:
    for identity in (ONE, ONE, TWO, TWO, ONE):
        turn = await session.look(identity, credentials_of(identity))
        assert (turn.value.identity, turn.token) == (identity, 7)
    assert terminal.signed_in == [(7, ONE, False), (7, TWO, False), (7, ONE, False)]


async def test_an_account_that_is_gone_is_logged_in_again(
    terminal: FakeTerminal, session: TerminalSession
) -> None:
    await session.look(ONE, credentials_of(ONE))
    terminal.now_in = TWO
    assert (await session.look(ONE, credentials_of(ONE))).value.identity == ONE
    assert len(terminal.signed_in) == 2


async def test_a_login_that_gives_another_account_is_no_answer(
    terminal: FakeTerminal, session: TerminalSession
) -> None:
    terminal.renamed = AccountIdentity(1, "Renamed")
    with pytest.raises(WrongAccount):
        await session.look(ONE, credentials_of(ONE))
    # Only a proof may learn an identity.
    proven = await session.prove(Credentials(ONE, Secret("pw")))
    assert proven.value.identity == terminal.renamed


async def test_a_proof_always_logs_in(terminal: FakeTerminal, session: TerminalSession) -> None:
    for _ in range(2):
        await session.prove(Credentials(ONE, Secret("pw")))
    assert [must_prove for _, _, must_prove in terminal.signed_in] == [True, True]


async def test_without_a_lease_nothing_is_asked(terminal: FakeTerminal) -> None:
    def no_lease() -> int:
        raise TerminalUnavailable("not ours")

    session = TerminalSession(terminal, no_lease, TerminalMetrics(CollectorRegistry()))
    with pytest.raises(TerminalUnavailable):
        await session.look(ONE, credentials_of(ONE))
    assert terminal.signed_in == []


async def test_the_queue_is_bounded_in_number_and_time(
    terminal: FakeTerminal, session: TerminalSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "MOST_WAITING", 3)
    monkeypatch.setattr(session_module, "QUEUE_DEADLINE_S", 0.05)
    terminal.gate.clear()
    first = asyncio.create_task(session.look(ONE, credentials_of(ONE)))
    await asyncio.sleep(0)
    waiting = [asyncio.create_task(session.look(ONE, credentials_of(ONE))) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(ServiceOverloaded):
        await session.look(ONE, credentials_of(ONE))
    for late in waiting:
        with pytest.raises(ServiceOverloaded) as refused:
            await late
        assert refused.value.retry_after_s
    terminal.gate.set()
    assert (await first).value.identity == ONE
    assert (await session.look(ONE, credentials_of(ONE))).value.identity == ONE
