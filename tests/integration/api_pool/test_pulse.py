"""What replicas exchange each second, on a real Redis."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from api_pool.budget import ServerBudget
from api_pool.demand import DemandBook, ReadCounter
from api_pool.fleet import Fleet
from api_pool.limits import RateLimiter
from api_pool.places import Board, Places
from api_pool.pulse import FORGOTTEN_MS, MOST_MOVES, Pulse, PulseStores
from api_pool.store_watch import StoreWatch
from local_stack.embedded import EmbeddedRedis
from mt5kit.domain.instants import now_ms
from mt5kit.service.roster import Roster
from mt5kit.state.redis import (
    BoardStore,
    DemandStore,
    Keys,
    LeaseStore,
    LoginBudgetStore,
    PlacementStore,
    Redis,
    ShareStore,
    StateUnavailable,
    TerminalEntry,
    open_redis,
)
from mt5kit.telemetry.session_metrics import SessionMetrics

KEYS = Keys("mt5:test")
TERMINALS = ("t-1", "t-2", "t-3")


class Scheduler:
    def __init__(self) -> None:
        self.current: str | None = None
        self.forgotten: list[str] = []

    def forget(self, account_id: str) -> None:
        self.forgotten.append(account_id)

    def leave(self, account_id: str) -> None:
        self.forgotten.append(account_id)


class Owned:
    def __init__(self, terminal_id: str) -> None:
        self.terminal_id = terminal_id
        self.scheduler = Scheduler()
        self.demand = DemandBook()


class Sessions:
    def __init__(self) -> None:
        self.kept: set[str] = set()

    def keep(self, accounts: set[str]) -> None:
        self.kept = set(accounts)

    def forget(self, account_id: str) -> None:
        self.kept.discard(account_id)


class Replica:
    """A replica with the terminals of these names; the pulse is the real one."""

    def __init__(self, redis: Redis, name: str, *terminals: str) -> None:
        self.instance_id = name
        self.owned = {one: Owned(one) for one in terminals}
        self.down: set[str] = set()
        self.board = Board((), 4)
        self.board.attach(self.entries)
        self.roster = Roster(TERMINALS, lambda _: False, dict)
        self.placements = PlacementStore(redis, KEYS)
        self.counter, self.sessions = ReadCounter(), Sessions()
        self.measured = False
        self.keys, self.accounts = RateLimiter("key", 100), RateLimiter("account", 20)
        self.budget = ServerBudget(LoginBudgetStore(redis, KEYS), 60, StoreWatch())
        self.metrics = SessionMetrics(CollectorRegistry())
        parts: dict[str, Any] = {"fleet": self, "sessions": self.sessions}
        self.pulse = Pulse(
            stores=PulseStores(
                board=BoardStore(redis, KEYS),
                demand=DemandStore(redis, KEYS),
                placements=self.placements,
                shares=ShareStore(redis, KEYS),
                leases=LeaseStore(redis, KEYS),
            ),
            board=self.board,
            roster=self.roster,
            places=Places(self.placements, self.board, 300, StoreWatch()),
            counter=self.counter,
            keys=self.keys,
            accounts=self.accounts,
            budget=self.budget,
            metrics=self.metrics,
            **parts,
        )

    def part_with(self, terminal_id: str, accounts: Iterable[str], *, moved: bool) -> None:
        Fleet.part_with(self, terminal_id, accounts, moved=moved)  # type: ignore[arg-type]

    @property
    def _owned(self) -> dict[str, Owned]:
        return self.owned

    @property
    def _parts(self) -> "Replica":
        return self

    def measure(self) -> None:
        self.measured = True

    def entries(self) -> dict[str, TerminalEntry]:
        return {
            one: TerminalEntry(self.instance_id, one not in self.down, now_ms(), 1500, 0)
            for one in self.owned
        }

    async def put(self, terminal_id: str, *accounts: str) -> None:
        for account_id in accounts:
            await self.placements.place(account_id, [terminal_id])

    async def on(self, terminal_id: str) -> set[str]:
        return set(await self.placements.sessions(terminal_id))


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    client = open_redis(redis_url)
    yield client
    await client.aclose()


async def test_replicas_know_each_others_terminals(redis: Redis) -> None:
    one, two = Replica(redis, "api-1", "t-1"), Replica(redis, "api-2", "t-2", "t-3")
    two.down = {"t-3"}
    await two.pulse.beat()
    await one.pulse.beat()
    assert one.board.up() == {"t-1": 4, "t-2": 4}
    assert one.measured
    assert one.roster.terminals() == ["t-1", "t-2"], "what is up is there"
    assert set(one.board.bearable()) == {"t-1", "t-2", "t-3"}


async def test_reads_are_told_to_the_owner_of_the_terminal(redis: Redis) -> None:
    one, two = Replica(redis, "api-1", "t-1"), Replica(redis, "api-2", "t-2")
    await one.put("t-1", "ours")
    await one.put("t-2", "theirs")
    for _ in range(60):
        one.counter.count("t-1", "ours")
        one.counter.count("t-2", "theirs")
    await one.pulse.beat()
    await two.pulse.beat()
    assert one.owned["t-1"].demand.rates() == pytest.approx({"ours": 1.0}, rel=0.05)
    assert two.owned["t-2"].demand.rates() == pytest.approx({"theirs": 1.0}, rel=0.05)
    before = two.owned["t-2"].demand.rates()["theirs"]
    await one.pulse.beat()
    await two.pulse.beat()
    assert two.owned["t-2"].demand.rates()["theirs"] <= before, "taken once"
    assert one.metrics.pool_size._value.get() == 1
    assert one.metrics.pool_capacity._value.get() == 4
    assert one.sessions.kept == {"ours"}


async def test_reads_of_an_account_that_moved_are_told_to_where_it_is(redis: Redis) -> None:
    one, two = Replica(redis, "api-1", "t-1"), Replica(redis, "api-2", "t-2")
    await one.put("t-2", "moved")
    for _ in range(60):
        # Its looks are still those of the terminal it came from.
        one.counter.count("t-1", "moved")
        one.counter.count("t-1", "gone")
    await one.pulse.beat()
    assert one.owned["t-1"].demand.rates() == {}
    await two.pulse.beat()
    assert two.owned["t-2"].demand.rates() == pytest.approx({"moved": 1.0}, rel=0.05)


async def test_being_read_is_being_used(redis: Redis) -> None:
    one = Replica(redis, "api-1", "t-1")
    await one.put("t-1", "read", "unread")
    await redis.zadd(KEYS.sessions("api", "t-1"), {"read": 1, "unread": 1})
    one.counter.count("t-1", "read")
    await one.pulse.beat()
    used = await one.placements.sessions("t-1")
    assert used["unread"] == 1
    assert used["read"] > now_ms() - FORGOTTEN_MS


async def test_an_account_that_left_is_forgotten_by_its_terminal(redis: Redis) -> None:
    one = Replica(redis, "api-1", "t-1")
    await one.put("t-1", "stays", "leaves")
    for account_id in ("stays", "leaves"):
        one.counter.count("t-1", account_id)
    await one.pulse.beat()
    await one.placements.remove("leaves")
    await one.pulse.beat()
    assert one.owned["t-1"].scheduler.forgotten == ["leaves"]
    assert set(one.owned["t-1"].demand.rates()) == {"stays"}
    assert one.sessions.kept == {"stays"}


async def test_limits_and_the_login_budget_are_shared(redis: Redis) -> None:
    one, two = Replica(redis, "api-1"), Replica(redis, "api-2")
    leases = LeaseStore(redis, KEYS)
    for name in ("api-1", "api-2"):
        await leases.announce("api", name, 10_000)
    for replica in (one, two, one):
        for limiter in (replica.keys, replica.accounts):
            limiter.demands()
            limiter.admit("caller")
        await replica.pulse.beat()
    assert one.keys.default_share == 50
    assert one.accounts.default_share == 10
    assert (one.budget.replicas, two.budget.replicas) == (2, 2)


async def test_the_least_read_move_from_the_fullest_to_the_emptiest(redis: Redis) -> None:
    one, two = Replica(redis, "api-1", "t-1", "t-2"), Replica(redis, "api-2", "t-3")
    await one.put("t-1", "a", "b", "c", "d")
    await one.put("t-2", "e", "f", "g")
    for account_id, times in (("a", 9), ("b", 1), ("d", 5)):
        for _ in range(times):
            one.counter.count("t-1", account_id)
    one.owned["t-1"].scheduler.current = "c"
    await two.pulse.beat()
    await one.pulse.beat()
    await two.pulse.even_out()
    assert await one.on("t-3") == set(), "its owner takes nothing from others"
    await one.pulse.even_out()
    assert await one.on("t-3") == {"b", "d"}
    assert await one.on("t-1") == {"a", "c"}
    assert one.owned["t-1"].scheduler.forgotten == ["b", "d"]
    assert set(one.owned["t-1"].demand.rates()) == {"a"}
    assert len(await one.on("t-2")) == 3


async def test_even_terminals_stay_as_they_are(redis: Redis) -> None:
    one = Replica(redis, "api-1", "t-1", "t-2", "t-3")
    await one.put("t-1", "a", "b")
    await one.put("t-2", "c")
    await one.put("t-3", "d")
    await one.pulse.beat()
    for _ in range(3):
        await one.pulse.even_out()
    assert await one.on("t-1") == {"a", "b"}
    assert one.owned["t-1"].scheduler.forgotten == []


async def test_few_sessions_move_at_once_and_none_to_a_terminal_that_is_down(
    redis: Redis,
) -> None:
    one = Replica(redis, "api-1", "t-1", "t-2")
    await one.put("t-1", *(f"a-{number}" for number in range(8)))
    one.down = {"t-2"}
    await one.pulse.beat()
    await one.pulse.even_out()
    assert await one.on("t-2") == set()
    one.down = set()
    await one.pulse.even_out()
    assert len(await one.on("t-2")) == MOST_MOVES
    await one.pulse.even_out()
    await one.pulse.even_out()
    # Four on each side: full and even.
    assert (len(await one.on("t-1")), len(await one.on("t-2"))) == (4, 4)


async def test_what_nobody_asks_for_is_dropped(redis: Redis) -> None:
    one = Replica(redis, "api-1", "t-1")
    await one.put("t-1", "old", "new")
    await redis.zadd(KEYS.sessions("api", "t-1"), {"old": now_ms() - FORGOTTEN_MS - 1000})
    await one.pulse.even_out()
    assert await one.on("t-1") == {"new"}
    assert one.owned["t-1"].scheduler.forgotten == ["old"]


async def test_without_redis_a_beat_fails_and_the_next_one_goes_on(
    redis: Redis, redis_server: EmbeddedRedis
) -> None:
    one = Replica(redis, "api-1", "t-1")
    await one.put("t-1", "a")
    redis_server.stop()
    try:
        for work in (one.pulse.beat, one.pulse.even_out):
            with pytest.raises(StateUnavailable):
                await work()
    finally:
        await asyncio.to_thread(redis_server.start)
    await one.put("t-1", "a")
    one.counter.count("t-1", "a")
    await one.pulse.beat()
    assert set(one.owned["t-1"].demand.rates()) == {"a"}
