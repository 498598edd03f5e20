import asyncio
import os
import signal
from collections.abc import AsyncIterator, Sequence

import pytest
from redis.asyncio import Redis
from tests.integration.conftest import freeze
from tests.integration.redis.lines import frames, leased, state

from local_stack.embedded import EmbeddedRedis
from mt5kit.errors import StaleToken
from mt5kit.state.redis import (
    Keys,
    LeaseStore,
    LiveStore,
    RedisFault,
    StateFull,
    StateUnavailable,
    open_redis,
)
from mt5kit.state.redis import connection as connection_module
from mt5kit.state.redis.connection import Lua
from mt5kit.state.redis.script_batch import MOST_BYTES, MOST_CALLS, ScriptBatch

ECHO = Lua("return ARGV[1]")
NOTE = Lua("return redis.call('RPUSH', KEYS[1], ARGV[1])")
WRONG = Lua("return redis.call('INCR', 'a', 'b')")


class Watched(ScriptBatch):
    """Tells how many calls shared each round trip."""

    def __init__(self, redis: Redis) -> None:
        super().__init__(redis)
        self.trips: list[int] = []

    async def _round_trip(self, calls: Sequence[object]) -> None:
        self.trips.append(len(calls))
        await super()._round_trip(calls)  # type: ignore[arg-type]


@pytest.fixture
def batch(redis: Redis) -> Watched:
    return Watched(redis)


@pytest.fixture
async def frozen(
    admin: Redis, batch: Watched, redis_server: EmbeddedRedis
) -> AsyncIterator[EmbeddedRedis]:
    """A Redis that takes what is sent and answers nothing yet."""
    for script in (ECHO, NOTE):
        await admin.script_load(script.source)
    await batch.run(ECHO, (), "connected")
    batch.trips.clear()
    pid = redis_server.pid
    assert pid is not None
    freeze(pid)
    yield redis_server
    if redis_server.pid == pid:
        os.kill(pid, signal.SIGCONT)


def thaw(server: EmbeddedRedis) -> None:
    assert server.pid is not None
    os.kill(server.pid, signal.SIGCONT)


async def all_sent(batch: Watched, trips: int) -> None:
    async with asyncio.timeout(10):
        while len(batch.trips) < trips:
            await asyncio.sleep(0)


async def test_answers_go_to_whom_they_belong(batch: Watched) -> None:
    answers = await asyncio.gather(*(batch.run(ECHO, (), f"n{one}") for one in range(50)))
    assert answers == [b"n%d" % one for one in range(50)]
    assert batch.trips == [50]


async def test_what_is_asked_for_meanwhile_goes_next_and_in_its_order(
    redis: Redis, batch: Watched, frozen: EmbeddedRedis
) -> None:
    first = asyncio.create_task(batch.run(NOTE, ("mt5:list",), 0))
    await all_sent(batch, 1)
    rest = [asyncio.create_task(batch.run(NOTE, ("mt5:list",), one)) for one in range(1, 6)]
    await asyncio.sleep(0)
    thaw(frozen)
    assert await asyncio.gather(first, *rest) == [1, 2, 3, 4, 5, 6]
    assert batch.trips == [1, 5]
    assert await redis.lrange("mt5:list", 0, -1) == [b"0", b"1", b"2", b"3", b"4", b"5"]


async def test_a_round_trip_is_of_so_many_calls_at_most(batch: Watched) -> None:
    await asyncio.gather(*(batch.run(ECHO, (), 1) for _ in range(MOST_CALLS + 3)))
    assert batch.trips == [MOST_CALLS, 3]


async def test_a_round_trip_is_of_so_many_bytes_at_most(batch: Watched) -> None:
    large = b"x" * (MOST_BYTES // 2)
    assert await asyncio.gather(*(batch.run(ECHO, (), large) for _ in range(5))) == [large] * 5
    assert batch.trips == [2, 2, 1]


async def test_a_mistake_of_one_is_no_other_s(batch: Watched) -> None:
    calls = (
        batch.run(ECHO, (), "before"),
        batch.run(WRONG, ()),
        batch.run(ECHO, (), "\ud800"),
        batch.run(ECHO, (), "after"),
    )
    answers: list[object] = await asyncio.gather(*calls, return_exceptions=True)
    before, wrong, not_text, after = answers
    assert (before, after) == (b"before", b"after")
    assert isinstance(wrong, RedisFault)
    assert isinstance(not_text, UnicodeEncodeError)
    assert batch.trips == [3]


async def test_each_account_learns_its_own_fate(redis: Redis, admin: Redis, keys: Keys) -> None:
    leases, live = LeaseStore(redis, keys), LiveStore(redis, keys)
    old, well = await leased(leases, "T1"), await leased(leases, "T2")
    await live.publish("1", old.token, state(old.token, 1), frames(1, 1))
    await live.publish("2", well.token, state(well.token, 1, terminal="T2"), frames(1, 1))
    await leased(leases, "T1", "b")
    stale, touched, unknown, published = await asyncio.gather(
        live.publish("1", old.token, state(old.token, 2), frames(2, 2)),
        live.touch("2", well.token, 9, "T2"),
        live.touch("3", well.token, 9, "T2"),
        live.publish("4", well.token, state(well.token, 1, terminal="T2"), frames(1, 1)),
        return_exceptions=True,
    )
    assert isinstance(stale, StaleToken)
    assert (touched, unknown, published) == (True, False, None)
    try:
        await admin.config_set("maxmemory", "1")
        full, touched = await asyncio.gather(
            live.publish("4", well.token, state(well.token, 2, terminal="T2"), frames(2, 2)),
            live.touch("2", well.token, 10, "T2"),
            return_exceptions=True,
        )
    finally:
        await admin.config_set("maxmemory", "0")
    assert isinstance(full, StateFull)
    assert touched is True


async def test_a_redis_that_is_stopped_in_the_middle_fails_everybody_and_later_works(
    batch: Watched, frozen: EmbeddedRedis
) -> None:
    calls = [asyncio.create_task(batch.run(ECHO, (), one)) for one in range(3)]
    await all_sent(batch, 1)
    calls += [asyncio.create_task(batch.run(ECHO, (), one)) for one in range(3)]
    await asyncio.sleep(0)
    assert frozen.pid is not None
    os.kill(frozen.pid, signal.SIGKILL)
    failures = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(one) for one in failures] == [StateUnavailable] * 6
    assert len({id(one) for one in failures}) == 6
    with pytest.raises(StateUnavailable):
        await batch.run(ECHO, (), "still away")
    await asyncio.to_thread(frozen.stop)
    await asyncio.to_thread(frozen.start)
    assert await batch.run(ECHO, (), "back") == b"back"


async def test_a_redis_that_was_restarted_meanwhile_disturbs_nobody(
    batch: Watched, redis_server: EmbeddedRedis
) -> None:
    await batch.run(ECHO, (), "before")
    await asyncio.to_thread(redis_server.stop)
    await asyncio.to_thread(redis_server.start)
    answers = await asyncio.gather(*(batch.run(ECHO, (), one) for one in range(3)))
    assert answers == [b"0", b"1", b"2"]


async def test_whoever_stops_waiting_disturbs_nobody(
    redis: Redis, batch: Watched, frozen: EmbeddedRedis
) -> None:
    sent = [asyncio.create_task(batch.run(NOTE, ("mt5:sent",), one)) for one in range(3)]
    await all_sent(batch, 1)
    asked = [asyncio.create_task(batch.run(NOTE, ("mt5:asked",), one)) for one in range(3)]
    await asyncio.sleep(0)
    for task in (sent[1], asked[1]):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    thaw(frozen)
    assert [await sent[0], await sent[2]] == [1, 3]
    assert [await asked[0], await asked[2]] == [1, 2]
    # What has not been sent when it is given up is not sent any more.
    assert await redis.lrange("mt5:asked", 0, -1) == [b"0", b"2"]
    assert await redis.lrange("mt5:sent", 0, -1) == [b"0", b"1", b"2"]


async def test_an_answer_that_came_too_late_is_nobody_s(
    redis: Redis, redis_url: str, frozen: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "TIMEOUT_S", 0.5)
    client = open_redis(redis_url)
    batch = Watched(client)
    thaw(frozen)
    await batch.run(ECHO, (), "connected")
    assert frozen.pid is not None
    freeze(frozen.pid)
    late = asyncio.create_task(batch.run(ECHO, (), "late"))
    await all_sent(batch, 2)
    after = asyncio.create_task(batch.run(ECHO, (), "after"))
    with pytest.raises(StateUnavailable):
        await late
    thaw(frozen)
    # Whoever came meanwhile has no part in the failure.
    assert await after == b"after"
    await client.aclose()


async def test_scripts_that_redis_has_forgotten_are_sent_whole(
    redis: Redis, admin: Redis, batch: Watched
) -> None:
    await batch.run(NOTE, ("mt5:list",), 0)
    await batch.run(ECHO, (), 0)
    await admin.script_flush()
    calls = [batch.run(ECHO, (), 1), batch.run(NOTE, ("mt5:list",), 1), batch.run(WRONG, ())]
    answers: list[object] = await asyncio.gather(*calls, return_exceptions=True)
    echoed, noted, wrong = answers
    assert (echoed, noted) == (b"1", 2)
    assert isinstance(wrong, RedisFault)
    assert await admin.script_exists(ECHO.digest, NOTE.digest) == [True, True]


async def test_nobody_waits_for_ever_where_the_loop_ends(
    batch: Watched, frozen: EmbeddedRedis
) -> None:
    calls = [asyncio.create_task(batch.run(ECHO, (), 1))]
    await all_sent(batch, 1)
    calls.append(asyncio.create_task(batch.run(ECHO, (), 2)))
    await asyncio.sleep(0)
    working = batch._working
    assert working is not None
    async with asyncio.timeout(10):
        # One cancellation may be lost while the bytes are being sent.
        while not working.done():
            working.cancel()
            await asyncio.sleep(0)
    failures = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(one) for one in failures] == [StateUnavailable] * 2
    thaw(frozen)
    assert await batch.run(ECHO, (), "again") == b"again"
