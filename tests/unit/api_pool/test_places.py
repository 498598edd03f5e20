"""Room at a switch time, the board of terminals, and places while the state store is away."""

import time
from collections.abc import Mapping, Sequence
from typing import Any, cast

import pytest

from api_pool import places as places_module
from api_pool.draining import farewell
from api_pool.places import DOWN_GRACE_S, STALE_S, Board, Places, Room
from api_pool.store_watch import AWAY_S, StoreWatch
from mt5kit.domain.instants import now_ms
from mt5kit.errors import TerminalUnavailable
from mt5kit.state.redis import PlacementStore, StateUnavailable, TerminalEntry


class Clock:
    def __init__(self) -> None:
        self.now = 5.0

    def __call__(self) -> float:
        return self.now


def entry(**changes: Any) -> TerminalEntry:
    known: dict[str, Any] = {
        "owner": "api-2",
        "up": True,
        "since_ms": 0,
        "switch_ms": 1500,
        "waiting": 0,
        "at_ms": 1,
    }
    return TerminalEntry(**known | changes)


@pytest.mark.parametrize(
    ("switch_s", "capacity", "age_s"),
    [
        (0.0, 20, 60),
        (0.2, 20, 60),
        (1.5, 20, 60),
        (3.0, 20, 90),
        (4.0, 20, 120),
        (6.0, 13, 117),
        (60.0, 1, 90),
        (600.0, 1, 120),
    ],
)
def test_slower_switches_leave_room_for_fewer_and_older(
    switch_s: float, capacity: int, age_s: float
) -> None:
    assert Room.at(switch_s, 20) == Room(capacity, age_s)


def test_our_terminals_are_as_they_are_and_theirs_as_told() -> None:
    clock = Clock()
    board = Board((), 20, clock)
    ours = {"t-1": entry(owner="api-1", up=False, since_ms=now_ms())}
    board.attach(lambda: ours)
    board.told({"t-1": entry(), "t-2": entry(switch_ms=6000), "t-3": entry(up=False)})
    assert board.up() == {"t-2": 13}
    assert sorted(board.bearable()) == ["t-1", "t-2"]
    ours["t-1"] = entry(owner="api-1", switch_ms=None)
    assert board.up() == {"t-1": 20, "t-2": 13}
    assert board.room("t-2").capacity == 13
    assert board.room("t-9") == Room(20, 60)
    assert board.default_age_ms == 117_000


def test_a_terminal_that_drains_keeps_its_accounts_until_it_is_laid_down() -> None:
    board = Board((), 20)
    ours = {"ours": entry(draining=True)}
    board.attach(lambda: ours)
    board.told({"open": entry(), "theirs": entry(draining=True), "dead": entry(up=False)})
    assert [*board.up()] == ["open"]
    assert sorted(board.bearable()) == ["open", "ours", "theirs"]
    assert sorted(board.leaving()) == ["ours", "theirs"]
    board.told({"theirs": farewell(now_ms())})
    assert sorted(board.bearable()) == ["open", "ours"]
    assert board.leaving() == ["ours"]


def test_a_terminal_down_for_long_keeps_no_accounts() -> None:
    board = Board((), 20)
    edge_ms = now_ms() - round(DOWN_GRACE_S * 1000)
    down = {
        "short": entry(up=False, since_ms=edge_ms + 5000),
        "long": entry(up=False, since_ms=edge_ms - 5000),
    }
    board.attach(lambda: down)
    assert board.bearable() == ["short"]
    assert board.up() == {}


def test_what_nobody_renews_is_forgotten() -> None:
    clock = Clock()
    board = Board((), 20, clock)
    board.told({"t-1": entry(at_ms=1), "t-2": entry(at_ms=1)})
    clock.now += STALE_S - 1
    board.told({"t-1": entry(at_ms=2), "t-2": entry(at_ms=1)})
    assert [*board.up()] == ["t-1", "t-2"]
    clock.now += 2
    assert [*board.up()] == ["t-1"]
    clock.now += STALE_S
    assert board.up() == {}
    assert board.default_age_ms == 60_000


class Store:
    """Places every account on one terminal, unless it is away."""

    def __init__(self) -> None:
        self.away = False
        self.asked = 0
        self.removed: list[str] = []
        self.terminal = "t-1"
        self.places: dict[str, str] = {}
        self.sessions: Mapping[str, int] = {}

    def _answer(self) -> None:
        self.asked += 1
        if self.away:
            raise StateUnavailable("away")

    async def place(self, _account_id: str, _candidates: Sequence[str], **_rules: object) -> str:
        self._answer()
        return self.terminal

    async def where(self, account_id: str) -> str | None:
        self._answer()
        return self.places.get(account_id)

    async def counts(self, terminals: Sequence[str]) -> Mapping[str, int]:
        self._answer()
        return {one: self.sessions.get(one, 0) for one in terminals}

    async def move(self, _account_id: str, _source: str, _target: str, *, capacity: int) -> bool:
        self._answer()
        return capacity > 0

    async def remove(self, account_id: str) -> bool:
        self._answer()
        self.removed.append(account_id)
        return True


def made(store: Store, *up: str, clock: Clock | None = None) -> Places:
    board = Board((), 20)
    board.attach(lambda: {one: entry() for one in up})
    watch = StoreWatch(clock or time.monotonic)
    return Places(cast("PlacementStore", store), board, 300, watch)


async def test_a_place_is_remembered_while_the_state_store_is_away() -> None:
    store, clock = Store(), Clock()
    places = made(store, "t-1", "t-2", clock=clock)
    assert await places.place("alpha") == "t-1"
    assert await places.move("alpha", "t-1", "t-2")
    store.away = True
    for _ in range(3):
        assert await places.place("alpha") == "t-2"
        with pytest.raises(StateUnavailable):
            await places.place("beta")
    # Place and move, then one that failed; the rest did not ask.
    assert store.asked == 3
    store.away, clock.now = False, clock.now + AWAY_S
    assert await places.place("alpha") == "t-1"


async def test_a_place_given_up_is_not_remembered_even_if_the_store_is_away() -> None:
    store = Store()
    places = made(store, "t-1")
    await places.place("alpha")
    store.away = True
    await places.give_up("alpha")
    with pytest.raises(StateUnavailable):
        await places.place("alpha")


async def test_without_a_terminal_nobody_is_placed_but_who_was_stays() -> None:
    store = Store()
    board = Board((), 20)
    ours = {"t-1": entry()}
    board.attach(lambda: ours)
    places = Places(cast("PlacementStore", store), board, 300, StoreWatch())
    await places.place("alpha")
    ours.clear()
    assert await places.place("alpha") == "t-1"
    with pytest.raises(TerminalUnavailable):
        await places.place("beta")
    with pytest.raises(TerminalUnavailable):
        await places.emptiest()


async def test_a_replica_that_starts_leaves_accounts_where_they_are() -> None:
    clock = Clock()
    store, board = Store(), Board(("t-1", "t-2"), 20, clock)
    ours = {"t-1": entry(up=False)}
    board.attach(lambda: ours)
    places = Places(cast("PlacementStore", store), board, 300, StoreWatch())
    store.places = {"alpha": "t-2"}
    # Of t-2 nobody has told it yet: its owner may be starting, too.
    assert await places.place("alpha") == "t-2"
    clock.now += 16
    assert "t-2" not in board.bearable()


async def test_unproven_credentials_go_where_fewest_are() -> None:
    store = Store()
    store.sessions = {"t-1": 3, "t-2": 1, "t-3": 2}
    assert await made(store, "t-1", "t-2", "t-3").emptiest() == "t-2"


async def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places_module, "MOST_KNOWN", 2)
    store = Store()
    places = made(store, "t-1")
    for account_id in ("a", "b", "a", "c"):
        await places.place(account_id)
    store.away = True
    assert [await places.place(account_id) for account_id in ("a", "c")] == ["t-1", "t-1"]
    with pytest.raises(StateUnavailable):
        await places.place("b")
