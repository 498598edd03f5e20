"""How a terminal changes hands: in no time when it is given back, never while it is in use."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from local_stack.embedded import EmbeddedRedis
from mt5kit.errors import TerminalUnavailable
from mt5kit.state.redis import (
    KeeperPlan,
    Keys,
    Lease,
    LeaseKeeper,
    LeaseStore,
    StateUnavailable,
    open_redis,
)
from mt5kit.state.redis import lease_keeper as keeper_module
from mt5kit.state.redis import subscription as subscription_module

TERMINALS = ("T1", "T2", "T3", "T4")
TTL_S = 10.0


class Clock:
    """Monotonic seconds that go on when a test says so."""

    now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Replica:
    """A keeper that runs a round only when something happens."""

    def __init__(
        self, redis: Redis, keys: Keys, owner: str, on_losing: Callable[[str], Awaitable[None]]
    ) -> None:
        self.told: list[str] = []
        self.clock = Clock()
        self.store = LeaseStore(redis, keys)
        self.keeper = LeaseKeeper(
            self.store,
            KeeperPlan("api", owner, lambda: TERMINALS, interval_s=1_000, url=f"http://{owner}"),
            on_gained=lambda lease: self.told.append(f"gained {lease.terminal_id}"),
            on_lost=lambda terminal: self.told.append(f"lost {terminal}"),
            on_losing=on_losing,
            clock=self.clock,
        )

    @property
    def held(self) -> set[str]:
        return set(self.keeper.held)


Make = Callable[..., Replica]


async def _at_once(_: str) -> None:
    """Nothing is in progress."""


@pytest.fixture
async def make(redis: Redis, keys: Keys) -> AsyncIterator[Make]:
    made: list[Replica] = []

    def _make(owner: str, on_losing: Callable[[str], Awaitable[None]] = _at_once) -> Replica:
        made.append(Replica(redis, keys, owner, on_losing))
        return made[-1]

    yield _make
    for one in made:
        await one.keeper.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def shared(first: Replica, second: Replica) -> None:
    """The first has everything, then the second comes and takes its half."""
    first.keeper.start()
    await until(lambda: len(first.held) == 4)
    second.keeper.start()
    # The first learns of the second in a round of its own; no round of time's passing comes.
    async with asyncio.timeout(10):
        while len(second.held) != 2:
            first.keeper.poke()
            await asyncio.sleep(0.01)


class Busy:
    """Calls in progress that end when the test says so."""

    def __init__(self) -> None:
        self.losing: list[str] = []
        self.done = asyncio.Event()

    async def __call__(self, terminal_id: str) -> None:
        self.losing.append(terminal_id)
        await self.done.wait()


async def test_what_is_given_back_is_taken_at_once(make: Make) -> None:
    first, second = make("a"), make("b")
    await shared(first, second)
    assert first.held | second.held == set(TERMINALS)
    assert second.keeper.held[min(second.held)].url == "http://b"
    await first.keeper.close()
    assert first.held == set()
    await until(lambda: second.held == set(TERMINALS))


async def test_releases_are_heard_after_a_restart_of_redis(
    redis_server: EmbeddedRedis, redis_url: str, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscription_module, "_RECONNECT_S", 0.01)
    client, admin = open_redis(redis_url), open_redis(redis_server.admin_url)
    first, second = (Replica(client, keys, owner, _at_once) for owner in "ab")
    try:
        await shared(first, second)
        await asyncio.to_thread(redis_server.stop)
        await asyncio.to_thread(redis_server.start)
        # The new Redis counts who listens; a client may also have come back without a word.
        async with asyncio.timeout(10):
            while len(await admin.client_list(_type="pubsub")) < 2:
                await asyncio.sleep(0.005)
            # It may have come back empty: what it does not know it cannot tell of.
            while len(await LeaseStore(client, keys).holders(TERMINALS)) < len(TERMINALS):
                await asyncio.sleep(0.005)
        await first.keeper.close()
        await until(lambda: second.held == set(TERMINALS))
    finally:
        await first.keeper.close()
        await second.keeper.close()
        await client.aclose()
        await admin.aclose()
        await asyncio.to_thread(redis_server.start)


async def test_calls_in_progress_end_before_terminals_are_given_back(
    make: Make, redis: Redis, keys: Keys
) -> None:
    busy = Busy()
    first, second = make("a", busy), make("b")
    await first.keeper.round()
    await second.keeper.round()
    # Two are to go, and both are told although neither has ended.
    await first.keeper.round()
    await until(lambda: len(busy.losing) == 2)
    leaving = set(busy.losing)
    for terminal in TERMINALS:
        await redis.pexpire(keys.lease(terminal), 1_000)
    await first.keeper.round()
    for terminal in TERMINALS:
        assert await redis.pttl(keys.lease(terminal)) > 1_000
        assert first.keeper.token_of(terminal)
    await second.keeper.round()
    assert second.held == set()
    # They are told once.
    assert len(busy.losing) == 2
    busy.done.set()
    await until(lambda: first.held == set(TERMINALS) - leaving)
    assert {told for told in first.told if told.startswith("lost")} == {
        f"lost {terminal}" for terminal in leaving
    }
    await until(lambda: not first.keeper._leaving)
    await second.keeper.round()
    assert second.held == leaving


async def test_a_call_without_end_does_not_keep_a_terminal(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper_module, "LOSING_S", 0.02)
    busy = Busy()
    first, second = make("a", busy), make("b")
    await first.keeper.round()
    await second.keeper.round()
    with capture_logs() as logs:
        await first.keeper.round()
        await until(lambda: len(first.held) == 2)
        await until(lambda: not first.keeper._leaving)
    assert [line["event"] for line in logs] == ["lease_given_back_in_use"] * 2
    await second.keeper.round()
    assert len(second.held) == 2
    busy.done.set()


async def test_a_failure_to_prepare_does_not_keep_a_terminal(make: Make, admin: Redis) -> None:
    async def fail(_: str) -> None:
        raise LookupError("no such terminal")

    alone = make("a", fail)
    await alone.keeper.round()
    with capture_logs() as logs:
        await alone.keeper.close()
    assert [line["event"] for line in logs] == ["lease_given_back_unprepared"] * 4
    assert await admin.keys("*:lease:*") == []


async def test_a_lease_lost_meanwhile_is_told_at_once(make: Make, admin: Redis) -> None:
    busy = Busy()
    alone = make("a", busy)
    await alone.keeper.round()
    store = alone.keeper._store
    await store.announce("api", "b", 10_000)
    await alone.keeper.round()
    await until(lambda: len(busy.losing) == 2)
    [stolen, kept] = busy.losing
    await admin.flushall()
    await store.announce("api", "b", 10_000)
    thief = await store.acquire(stolen, "b")
    await alone.keeper.round()
    assert [told for told in alone.told if told.startswith("lost")] == [f"lost {stolen}"]
    busy.done.set()
    await until(lambda: not alone.keeper._leaving)
    assert kept not in alone.held
    assert await store.holder(stolen) == thief
    assert alone.told.count(f"lost {stolen}") == 1


async def test_closing_waits_for_what_is_in_progress(make: Make, admin: Redis) -> None:
    busy = Busy()
    alone = make("a", busy)
    alone.keeper.start()
    await until(lambda: alone.held == set(TERMINALS))
    closing = asyncio.create_task(alone.keeper.close())
    await until(lambda: len(busy.losing) == 4)
    assert len(await admin.keys("*:lease:*")) == 4
    assert await admin.keys("*:replicas:*") == []
    busy.done.set()
    await closing
    assert await admin.keys("*:lease:*") == []
    assert sorted(alone.told[4:]) == [f"lost {terminal}" for terminal in TERMINALS]


async def test_a_renewal_on_its_way_takes_nothing_up_that_is_given_back(
    make: Make, monkeypatch: pytest.MonkeyPatch, redis: Redis
) -> None:
    busy, asked, answers = Busy(), asyncio.Event(), asyncio.Event()
    alone = make("a", busy)
    await alone.keeper.round()
    store = alone.keeper._store
    await store.announce("api", "b", 10_000)
    await alone.keeper.round()
    await until(lambda: len(busy.losing) == 2)
    renew = LeaseStore.renew

    async def slow(self: LeaseStore, lease: Lease, ttl_ms: int, *, lapsed_ms: int) -> bool:
        if lease.terminal_id == busy.losing[0]:
            asked.set()
            await answers.wait()
        return await renew(self, lease, ttl_ms, lapsed_ms=lapsed_ms)

    monkeypatch.setattr(LeaseStore, "renew", slow)
    rounding = asyncio.create_task(alone.keeper.round())
    await asked.wait()
    busy.done.set()
    # Time enough to give it back, were it not for the renewal.
    await asyncio.sleep(0.05)
    answers.set()
    await rounding
    await until(lambda: not alone.keeper._leaving)
    assert await store.holders(busy.losing) == {}
    # Given back once, not taken up and given back again.
    assert sorted(alone.told[4:]) == sorted(f"lost {terminal}" for terminal in busy.losing)
    assert len(busy.losing) == 2


async def test_closing_leaves_nothing_that_was_being_taken(
    make: Make, monkeypatch: pytest.MonkeyPatch, admin: Redis
) -> None:
    asked, answers = asyncio.Event(), asyncio.Event()
    alone = make("a")
    acquire = LeaseStore.acquire

    async def slow(self: LeaseStore, *args: Any) -> Lease | None:
        asked.set()
        lease = await acquire(self, *args)
        await answers.wait()
        return lease

    monkeypatch.setattr(LeaseStore, "acquire", slow)
    alone.keeper.start()
    await asked.wait()
    closing = asyncio.create_task(alone.keeper.close())
    await asyncio.sleep(0)
    answers.set()
    await closing
    assert await admin.keys("*:lease:*") == []
    assert await admin.keys("*:replicas:*") == []


async def test_a_stopped_process_refuses_until_it_has_asked(make: Make) -> None:
    alone = make("a")
    await alone.keeper.round()
    token = alone.keeper.token_of("T1")
    alone.clock.now += TTL_S
    assert alone.keeper.token_of("T1") == token
    alone.clock.now += 0.001
    with pytest.raises(TerminalUnavailable, match="in time") as refused:
        alone.keeper.token_of("T1")
    assert refused.value.retry_after_s
    with pytest.raises(TerminalUnavailable, match="in time"):
        await alone.keeper.reissue("T1")
    await alone.keeper.round()
    assert alone.keeper.token_of("T1") == token
    assert "lost T1" not in alone.told


async def test_a_process_stopped_while_it_asked_refuses(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = make("a")
    await alone.keeper.round()
    renew = LeaseStore.renew

    async def stopped_meanwhile(*args: object, **_: object) -> bool:
        alone.clock.now += TTL_S - 1
        raise StateUnavailable("the state store does not answer")

    monkeypatch.setattr(LeaseStore, "renew", stopped_meanwhile)
    alone.clock.now += 2
    # It looks as if Redis were away, but it was us: the lease has run out.
    with pytest.raises(StateUnavailable):
        await alone.keeper.round()
    with pytest.raises(TerminalUnavailable, match="in time"):
        alone.keeper.token_of("T1")
    monkeypatch.setattr(LeaseStore, "renew", renew)
    await alone.keeper.round()
    assert alone.keeper.token_of("T1")


async def test_an_owner_keeps_its_terminals_for_as_long_as_redis_is_known_to_be_away(
    redis_server: EmbeddedRedis, redis_url: str, keys: Keys
) -> None:
    client = open_redis(redis_url)
    alone = Replica(client, keys, "a", _at_once)
    keeper = alone.keeper
    try:
        await keeper.round()
        token = keeper.token_of("T1")
        await asyncio.to_thread(redis_server.stop)
        for _ in range(4):
            alone.clock.now += TTL_S - 1
            with pytest.raises(StateUnavailable):
                await keeper.round()
            assert keeper.token_of("T1") == token
        # Stopped: somebody may have got a token while Redis was back for a moment.
        alone.clock.now += 2 * TTL_S
        for _ in range(2):
            with pytest.raises(TerminalUnavailable, match="in time"):
                keeper.token_of("T1")
            with pytest.raises(StateUnavailable):
                await keeper.round()
        await asyncio.to_thread(redis_server.start)
        await keeper.round()
        # It came back empty, so whoever had the terminal meanwhile is forgotten.
        assert keeper.token_of("T1") > token
        # Away no more, so its being away excuses nothing.
        alone.clock.now += TTL_S + 0.001
        with pytest.raises(TerminalUnavailable, match="in time"):
            keeper.token_of("T1")
    finally:
        await asyncio.to_thread(redis_server.start)
        await keeper.close()
        await client.aclose()


async def test_closing_without_redis_gives_up_soon(
    redis_server: EmbeddedRedis, redis_url: str, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = open_redis(redis_url)
    alone = Replica(client, keys, "a", _at_once)
    released: list[str] = []

    async def release(_: LeaseStore, lease: Lease, *_args: object) -> None:
        released.append(lease.terminal_id)
        raise StateUnavailable("the state store does not answer")

    monkeypatch.setattr(LeaseStore, "release", release)
    try:
        await alone.keeper.round()
        await asyncio.to_thread(redis_server.stop)
        with capture_logs() as logs:
            await alone.keeper.close()
        assert released == []
        assert [line["event"] for line in logs] == ["leases_left_to_run_out"]
        assert sorted(alone.told[4:]) == [f"lost {terminal}" for terminal in TERMINALS]
    finally:
        await asyncio.to_thread(redis_server.start)
        await client.aclose()


async def test_what_a_task_gives_back_is_for_the_other_one_of_its_slot(make: Make) -> None:
    """In an update that starts first; whoever could have it as well does not ask."""
    first, old, idle, new = (make(f"pool.{slot}.{n:025d}") for n, slot in enumerate((1, 2, 3, 2)))
    await shared(first, old)
    idle.keeper.start()
    new.keeper.start()
    async with asyncio.timeout(10):
        while len(await idle.store.replicas("api")) != 4:
            await asyncio.sleep(0.01)
    await idle.keeper.round()
    assert not idle.held | new.held
    moving = old.held
    await old.keeper.close()
    await until(lambda: new.held == moving)
    assert not idle.held
