"""Reads: which source answers, what is counted and recorded, and never another's account."""

from typing import Any
from uuid import uuid4

import msgspec
import pytest
from prometheus_client import CollectorRegistry
from tests.unit.api_pool.looks_made import snapshot

from api_pool.demand import ReadCounter
from api_pool.directory import KnownAccount
from api_pool.memory import Kept
from api_pool.reading import Reader
from api_pool.seen import Seen
from api_pool.turns import LookTurn, Taken
from mt5kit.domain.accounts import AccountIdentity, AccountState
from mt5kit.domain.instants import now_ms
from mt5kit.errors import (
    Conflict,
    LoginRefused,
    Mt5SwarmError,
    ServiceOverloaded,
    StaleToken,
    TerminalMoved,
    TerminalTimeout,
    WrongAccount,
)
from mt5kit.state.postgres import AccountRow
from mt5kit.telemetry.session_metrics import SessionMetrics


class World:
    """Directory, looks and router in one; the terminal shows the account of `login`."""

    def __init__(self) -> None:
        self.login = 7
        self.known: Kept | None = None
        self.failure: Mt5SwarmError | None = None
        self.turns: list[LookTurn] = []
        self.noted: list[tuple[AccountState, str | None]] = []
        self.remembered: list[Kept] = []
        self.waits = 0
        self.counter = ReadCounter()
        parts: dict[str, Any] = {"directory": self, "looks": self, "router": self, "pages": self}
        self.reader = Reader(
            **parts,
            counter=self.counter,
            metrics=SessionMetrics(CollectorRegistry()),
            turn_deadline_s=5,
        )

    async def kept(self, _account_id: str, _max_age_ms: int) -> Kept | None:
        return self.known

    def heard(self, _account_id: str, kept: Kept) -> None:
        self.remembered.append(kept)

    async def note(
        self, _account: KnownAccount, state: AccountState, why: Mt5SwarmError | None = None
    ) -> None:
        self.noted.append((state, None if why is None else why.code))

    async def of_account(self, _account_id: str, turn: LookTurn, _deadline_s: float) -> Taken:
        self.turns.append(turn)
        if self.failure is not None:
            raise self.failure
        payload = msgspec.Raw(msgspec.json.encode(snapshot(login=self.login)))
        return Taken("t-1", "api-2", 1, now_ms(), 3.0, 4.0, payload)

    async def read(self, account: KnownAccount, max_age_ms: int = 1000) -> Any:
        def on_wait() -> None:
            self.waits += 1

        return await self.reader.look(account, max_age_ms, on_wait)


def account(state: AccountState = AccountState.CONNECTED, login: int = 7) -> KnownAccount:
    row = AccountRow(
        id=1,
        uuid=uuid4(),
        user_id=uuid4(),
        account_id="alpha",
        identity=AccountIdentity(login, "Server-1"),
        state=state,
        state_since_ms=0,
        last_error=None,
        is_active=True,
        last_login_ms=None,
        last_poll_ms=None,
    )
    return KnownAccount(row)


def kept(login: int = 7, source: Any = "cache") -> Kept:
    return Kept(Seen.of(snapshot(login=login)), "t-3", "api-3", source, now_ms())


@pytest.fixture
def world() -> World:
    return World()


async def test_a_kept_look_answers_without_a_turn_and_is_counted(world: World) -> None:
    world.known = kept()
    read = await world.read(account())
    assert (read.meta.source, read.meta.terminal_id) == ("cache", "t-3")
    assert (world.turns, world.waits) == ([], 0)
    assert world.counter.take() == {"t-3": {"alpha": 1}}


async def test_reads_of_a_stream_ask_for_no_refreshing(world: World) -> None:
    world.known = kept(source="stream")
    await world.read(account())
    assert world.counter.take() == {}


async def test_a_turn_is_taken_counted_remembered_and_recorded(world: World) -> None:
    read = await world.read(account())
    assert (read.meta.source, read.meta.instance_id) == ("terminal", "api-2")
    assert (read.meta.queue_wait_ms, read.meta.broker_ms) == (3.0, 4.0)
    assert world.waits
    assert world.turns == [LookTurn("alpha", AccountIdentity(7, "Server-1"), 1000)]
    assert world.counter.take() == {"t-1": {"alpha": 1}}
    assert [one.terminal_id for one in world.remembered] == ["t-1"]
    assert world.noted == [(AccountState.CONNECTED, None)]


async def test_a_look_under_other_credentials_is_passed_over(world: World) -> None:
    world.known = kept(login=8)
    assert (await world.read(account())).seen.identity.login == 7
    assert len(world.turns) == 1


async def test_a_look_of_another_account_is_no_answer_whoever_took_it(world: World) -> None:
    world.login = 8
    with pytest.raises(WrongAccount):
        await world.read(account())
    assert (world.remembered, world.noted) == ([], [])
    assert world.counter.take() == {}


@pytest.mark.parametrize(
    ("state", "refusal"),
    [(AccountState.DISCONNECTED, Conflict), (AccountState.LOGIN_FAILED, LoginRefused)],
)
async def test_an_account_that_has_ended_is_not_read(
    world: World, state: AccountState, refusal: type[Mt5SwarmError]
) -> None:
    world.known = kept()
    with pytest.raises(refusal):
        await world.read(account(state))
    assert world.turns == []


@pytest.mark.parametrize(
    ("failure", "noted"),
    [
        (LoginRefused("no"), [(AccountState.LOGIN_FAILED, "MT5_LOGIN_FAILED")]),
        (TerminalTimeout("late"), [(AccountState.TERMINAL_UNAVAILABLE, "TERMINAL_UNAVAILABLE")]),
        (TerminalMoved("moved"), []),
        (StaleToken("stale"), []),
        (WrongAccount("other"), []),
        (ServiceOverloaded("full"), []),
    ],
)
async def test_what_a_failure_says_of_the_account_is_recorded(
    world: World, failure: Mt5SwarmError, noted: list[tuple[AccountState, str]]
) -> None:
    world.failure = failure
    with pytest.raises(type(failure)):
        await world.read(account())
    assert world.noted == noted
