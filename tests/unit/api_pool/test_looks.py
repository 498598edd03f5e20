"""Which look answers a read, and what becomes of looks that are written and forgotten."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import pytest
from structlog.testing import capture_logs
from tests.unit.api_pool.looks_made import snapshot

from api_pool import looks as looks_module
from api_pool.looks import Looks
from api_pool.memory import CHECK_S, LATEST_CHECK_S, Kept
from api_pool.seen import Seen
from api_pool.store_watch import AWAY_S, StoreWatch
from mt5kit.domain.brokers import Brokers
from mt5kit.domain.instants import now_ms
from mt5kit.domain.snapshots import Snapshot
from mt5kit.errors import StaleToken
from mt5kit.service.background import Background
from mt5kit.state.redis import (
    CachedSnapshot,
    LiveState,
    LiveStore,
    SnapshotCache,
    StateUnavailable,
)


class Clock:
    def __init__(self) -> None:
        self.now = 5.0

    def __call__(self) -> float:
        return self.now


class Live:
    def __init__(self) -> None:
        self.away = False
        self.states: list[LiveState | None] = []
        self.reads = 0

    async def read(self, _account_id: str) -> LiveState | None:
        self.reads += 1
        if self.away:
            raise StateUnavailable("away")
        if len(self.states) > 1:
            return self.states.pop(0)
        return self.states[0] if self.states else None


class Cache:
    """Keeps one look for each account; `gate` holds writes up."""

    def __init__(self) -> None:
        self.away = False
        self.looks: dict[str, CachedSnapshot] = {}
        self.puts: list[tuple[int, int]] = []
        self.failures: list[Exception] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def get(self, account_id: str) -> CachedSnapshot | None:
        if self.away:
            raise StateUnavailable("away")
        return self.looks.get(account_id)

    async def put(self, account_id: str, token: int, look: CachedSnapshot) -> None:
        self.puts.append((token, look.as_of_ms))
        await self.gate.wait()
        if self.failures:
            raise self.failures.pop(0)
        self.looks[account_id] = look

    async def drop(self, account_id: str) -> None:
        if self.away:
            raise StateUnavailable("away")
        self.looks.pop(account_id, None)


class Bench:
    def __init__(self) -> None:
        self.clock, self.live, self.cache = Clock(), Live(), Cache()
        self.background = Background()
        self.looks = Looks(
            instance_id="api-1",
            live=cast("LiveStore", self.live),
            cache=cast("SnapshotCache", self.cache),
            brokers=Brokers({}, "UTC"),
            background=self.background,
            watch=StoreWatch(self.clock),
            clock=self.clock,
        )

    def cached(self, age_ms: int, terminal_id: str = "t-9") -> None:
        look = CachedSnapshot(now_ms() - age_ms, terminal_id, "api-2", payload(age_ms))
        self.cache.looks["a"] = look

    def streamed(self, *ages_ms: int) -> None:
        self.live.states = [
            LiveState(1, 1, now_ms() - age_ms, "s-1", "ws-1", payload(age_ms)) for age_ms in ages_ms
        ]

    async def source(self, max_age_ms: int) -> str | None:
        kept = await self.looks.kept("a", max_age_ms)
        return None if kept is None else f"{kept.source} of {kept.terminal_id}"

    def heard(self, age_ms: int, terminal_id: str = "t-1") -> None:
        seen = Seen.of(look(age_ms))
        self.looks.heard("a", Kept(seen, terminal_id, "api-2", "cache", now_ms() - age_ms))

    def looked(self, age_ms: int, token: int = 1, login: int = 7) -> None:
        self.looks.looked("a", "t-1", token, look(age_ms, login))


def look(age_ms: int, login: int = 7) -> Snapshot:
    return snapshot(login=login, seen_ms=now_ms() - age_ms)


def payload(age_ms: int) -> bytes:
    return Seen.of(look(age_ms)).payload


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr(looks_module, "NEXT_LOOK_STEP_S", 0)
    bench = Bench()
    yield bench
    bench.cache.gate.set()
    await bench.background.aclose()


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("memory", "live", "cached", "max_age_ms", "expected"),
    [
        (None, None, None, 60_000, None),
        (1000, None, None, 60_000, "cache of t-1"),
        (1000, 100, 100, 60_000, "cache of t-1"),
        (30_000, 100, None, 10_000, "stream of s-1"),
        (30_000, None, 2000, 10_000, "cache of t-9"),
        (None, 5000, 4000, 60_000, "cache of t-9"),
        (None, 4000, 5000, 60_000, "stream of s-1"),
        (None, 90_000, 80_000, 60_000, None),
        (90_000, None, None, 60_000, None),
        (0, None, None, 0, None),
        (0, None, 0, 0, None),
    ],
)
async def test_the_freshest_that_is_young_enough_answers(
    bench: Bench,
    memory: int | None,
    live: int | None,
    cached: int | None,
    max_age_ms: int,
    expected: str | None,
) -> None:
    if memory is not None:
        bench.heard(memory)
    if live is not None:
        bench.streamed(live)
    if cached is not None:
        bench.cached(cached)
    assert await bench.source(max_age_ms) == expected


async def test_fresh_waits_for_the_next_look_of_a_stream(bench: Bench) -> None:
    bench.streamed(900, 900, -5000)
    assert await bench.source(0) == "stream of s-1"
    assert bench.live.reads == 3


async def test_a_stream_that_has_stopped_is_not_waited_for_any_longer(bench: Bench) -> None:
    bench.streamed(900)
    waiting = asyncio.create_task(bench.source(0))
    await until(lambda: bench.live.reads > 1)
    bench.clock.now += looks_module.NEXT_LOOK_TIMEOUT_S
    assert await waiting is None


async def test_while_the_state_store_is_away_memory_answers(bench: Bench) -> None:
    bench.looked(1000)
    bench.live.away = bench.cache.away = True
    bench.clock.now += LATEST_CHECK_S + 0.1
    reads = [await bench.source(60_000) for _ in range(3)]
    assert reads == ["cache of t-1"] * 3
    assert bench.live.reads == 1, "a store that hangs is asked once in so long"
    assert await bench.source(500) is None
    assert await bench.source(0) is None
    bench.clock.now += AWAY_S
    assert await bench.source(60_000) == "cache of t-1"
    assert bench.live.reads == 2


async def test_what_others_have_forgotten_is_not_answered_from_memory(bench: Bench) -> None:
    bench.heard(10, "t-2")
    assert await bench.source(60_000) == "cache of t-2"
    bench.clock.now += CHECK_S + 0.1
    assert await bench.source(60_000) is None


async def test_looks_that_come_while_one_is_written_are_written_once(bench: Bench) -> None:
    bench.cache.gate.clear()
    for token in range(1, 6):
        bench.looked(100 - token, token)
        for _ in range(3):
            # Whatever was begun gets as far as it can.
            await asyncio.sleep(0)
    assert [token for token, _ in bench.cache.puts] == [1]
    bench.cache.gate.set()
    await until(lambda: len(bench.cache.puts) == 2)
    await bench.background.aclose()
    assert [token for token, _ in bench.cache.puts] == [1, 5]


async def test_an_account_forgotten_while_its_look_is_written_is_written_no_more(
    bench: Bench,
) -> None:
    bench.cache.gate.clear()
    bench.looked(100)
    await until(lambda: bench.cache.puts)
    bench.looked(50)
    await bench.looks.forget("a")
    bench.cache.gate.set()
    await bench.background.aclose()
    assert len(bench.cache.puts) == 1


async def test_memory_forgets_even_if_the_state_store_is_away(bench: Bench) -> None:
    bench.looked(100)
    bench.cache.away = True
    with pytest.raises(StateUnavailable):
        await bench.looks.forget("a")
    bench.live.away = True
    assert await bench.source(60_000) is None


@pytest.mark.parametrize("failure", [StateUnavailable("full"), StaleToken("moved")])
async def test_an_unwritten_look_answers_here_all_the_same(
    bench: Bench, failure: Exception
) -> None:
    bench.cache.failures = [failure]
    bench.looked(100)
    await until(lambda: not bench.cache.failures)
    assert await bench.source(60_000) == "cache of t-1"


async def test_a_write_that_stumbles_keeps_no_later_one_from_being_written(bench: Bench) -> None:
    bench.cache.failures = [ValueError("odd")]
    with capture_logs() as logs:
        bench.looked(100, token=1)
        await until(lambda: logs)
    bench.looked(50, token=2)
    await until(lambda: bench.cache.looks)
    assert [token for token, _ in bench.cache.puts] == [1, 2]


async def test_a_look_is_never_taken_for_another_account_of_the_same_instant(bench: Bench) -> None:
    first = look(100, login=7)
    bench.looks.looked("a", "t-1", 1, first)
    other = snapshot(login=8, seen_ms=first.seen_ms)
    assert bench.looks.of("a", "t-1", other).seen.identity.login == 8
