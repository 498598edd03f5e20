"""Who takes a turn: this replica, the owner, or nobody yet."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from api_pool import routing
from api_pool.routing import LET_IN_S, MOVED_S, PATIENCE_S, Patience, TurnRouter
from api_pool.store_watch import StoreWatch
from api_pool.turns import LookTurn, Taken, TurnRequest
from mt5kit.domain.accounts import AccountIdentity
from mt5kit.errors import AccountNotFound, Conflict, LoginRefused, Mt5SwarmError, TerminalMoved
from mt5kit.state.redis import Lease, StateUnavailable

LOOK = LookTurn("alpha", AccountIdentity(7, "S"), 0)


def taken(by: str) -> Taken:
    return Taken("t-1", by, 1, 1, 0, 0, msgspec.Raw(b"{}"))


class World:
    """Implements all that a router asks; one account, placed on `terminal`."""

    instance_id = "api-1"

    def __init__(self) -> None:
        self.ours: set[str] = set()
        self.terminal = "t-1"
        self.leases: dict[str, Lease] = {}
        self.away = False
        self.given_up: list[str] = []
        self.takes: list[tuple[str, str]] = []
        self.failures: list[Mt5SwarmError] = []
        self.on_failure: Callable[[], None] = lambda: None
        self.router = TurnRouter(
            *_parts(self, _Local(self), self, self, _Remote(self), StoreWatch())
        )

    def holds(self, terminal_id: str) -> bool:
        return terminal_id in self.ours

    async def place(self, _account_id: str) -> str:
        return self.terminal

    async def give_up(self, account_id: str) -> None:
        self.given_up.append(account_id)

    async def holder(self, terminal_id: str) -> Lease | None:
        if self.away:
            raise StateUnavailable("away")
        return self.leases.get(terminal_id)

    def taken(self, where: str, terminal_id: str) -> Taken:
        self.takes.append((where, terminal_id))
        if self.failures:
            failure = self.failures.pop(0)
            self.on_failure()
            raise failure
        return taken(where)


def _parts(*parts: Any) -> Any:
    return parts


class _Local:
    def __init__(self, world: World) -> None:
        self._world = world

    async def take(self, terminal_id: str, _turn: TurnRequest, _deadline_s: float) -> Taken:
        return self._world.taken("here", terminal_id)


class _Remote:
    def __init__(self, world: World) -> None:
        self._world = world

    async def take(
        self, url: str, terminal_id: str, _turn: TurnRequest, _deadline_s: float
    ) -> Taken:
        return self._world.taken(url, terminal_id)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(routing, "STEP_S", 0.001)
    return World()


async def test_our_terminal_is_served_here_and_another_by_its_owner(world: World) -> None:
    world.ours = {"t-1"}
    world.leases["t-2"] = Lease("t-2", "api-2", 1, "http://two")
    assert (await world.router.of_account("alpha", LOOK, 5)).instance_id == "here"
    world.terminal = "t-2"
    assert (await world.router.of_account("alpha", LOOK, 5)).instance_id == "http://two"
    assert world.takes == [("here", "t-1"), ("http://two", "t-2")]


async def test_a_terminal_that_moves_is_followed(world: World) -> None:
    world.leases["t-1"] = Lease("t-1", "api-2", 1, "http://two")
    world.failures = [TerminalMoved("moved")]

    def move() -> None:
        world.leases["t-1"] = Lease("t-1", "api-3", 2, "http://three")

    world.on_failure = move
    assert (await world.router.of_account("alpha", LOOK, 5)).instance_id == "http://three"


async def test_an_account_that_moves_is_followed(world: World) -> None:
    world.ours, world.failures = {"t-1", "t-2"}, [TerminalMoved("the account has left")]
    world.on_failure = lambda: setattr(world, "terminal", "t-2")
    await world.router.of_account("alpha", LOOK, 5)
    assert world.takes == [("here", "t-1"), ("here", "t-2")]


@pytest.mark.parametrize(
    "lease", [None, Lease("t-1", "api-2", 1), Lease("t-1", "api-1", 1, "http://ourselves")]
)
async def test_without_an_owner_patience_ends(
    world: World, monkeypatch: pytest.MonkeyPatch, lease: Lease | None
) -> None:
    monkeypatch.setattr(routing, "PATIENCE_S", 0.01)
    if lease is not None:
        world.leases["t-1"] = lease
    with pytest.raises(TerminalMoved) as caught:
        await world.router.of_account("alpha", LOOK, 5)
    assert caught.value.retry_after_s
    assert world.takes == []


async def test_nobody_waits_longer_than_asked_for(world: World) -> None:
    with pytest.raises(TerminalMoved):
        await world.router.of_account("alpha", LOOK, 0.01)


async def test_the_last_known_owner_serves_while_the_state_store_is_away(world: World) -> None:
    world.leases["t-1"] = Lease("t-1", "api-2", 1, "http://two")
    await world.router.on_terminal("t-1", LOOK, 5)
    world.away = True
    assert (await world.router.on_terminal("t-1", LOOK, 5)).instance_id == "http://two"
    with pytest.raises(TerminalMoved):
        await world.router.on_terminal("t-2", LOOK, 5)


@pytest.mark.parametrize("ended", [Conflict("disconnected"), AccountNotFound("deleted")])
async def test_an_account_that_ended_meanwhile_keeps_no_place(
    world: World, ended: Mt5SwarmError
) -> None:
    world.ours, world.failures = {"t-1"}, [ended]
    with pytest.raises(type(ended)):
        await world.router.of_account("alpha", LOOK, 5)
    assert world.given_up == ["alpha"]


async def test_a_refusal_is_told_and_not_tried_again(world: World) -> None:
    world.ours, world.failures = {"t-1"}, [LoginRefused("no")]
    with pytest.raises(LoginRefused):
        await world.router.of_account("alpha", LOOK, 5)
    assert len(world.takes) == 1
    assert world.given_up == []


class Waiting:
    """A turn's patience, in a time that is told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, deadline_s: float) -> None:
        self.now = 100.0
        monkeypatch.setattr(routing, "time", SimpleNamespace(monotonic=lambda: self.now))
        self.patience = Patience(deadline_s)

    def refused(self, terminal_id: str, *, after_s: float, handed_over: bool = False) -> bool:
        """Ask a terminal and be refused after so long; whether that was the end."""
        self.patience.asks(terminal_id)
        self.now += after_s
        return self.patience.over(handed_over=handed_over)


def test_a_terminal_without_an_owner_is_waited_for_briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = Waiting(monkeypatch, 15)
    assert not waiting.refused("t-1", after_s=0)
    assert not waiting.refused("t-1", after_s=PATIENCE_S)
    assert waiting.refused("t-1", after_s=0.1)


def test_a_terminal_that_is_handed_over_is_waited_for_until_the_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waiting = Waiting(monkeypatch, 15)
    for _ in range(15):
        assert not waiting.refused("t-1", after_s=1, handed_over=True)
    # And its next owner for a moment more.
    assert not waiting.refused("t-2", after_s=1)
    assert not waiting.refused("t-2", after_s=1)
    assert waiting.refused("t-2", after_s=1)


def test_an_account_that_moves_after_it_has_waited_is_followed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waiting = Waiting(monkeypatch, 15)
    assert waiting.patience.left_s == 15
    assert not waiting.refused("t-1", after_s=8), "it waited for its turn, and the account left"
    waiting.patience.asks("t-2")
    assert waiting.patience.left_s == 7
    assert not waiting.refused("t-2", after_s=LET_IN_S + 1)
    # Let in where it was refused before: the terminal has changed hands once more.
    assert not waiting.refused("t-2", after_s=0.1)
    assert not waiting.refused("t-2", after_s=LET_IN_S + 0.1)
    waiting.patience.asks("t-2")
    assert waiting.patience.left_s == MOVED_S
    assert waiting.refused("t-3", after_s=5), "not for ever"


@pytest.mark.parametrize("handed_over", [True, False])
def test_a_short_deadline_is_all_there_is(
    monkeypatch: pytest.MonkeyPatch, handed_over: bool
) -> None:
    waiting = Waiting(monkeypatch, 0.5)
    assert waiting.patience.left_s == 0.5
    assert not waiting.refused("t-1", after_s=0.1, handed_over=handed_over)
    assert waiting.refused("t-1", after_s=0.6, handed_over=handed_over)
