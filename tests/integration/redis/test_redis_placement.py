import asyncio
from collections.abc import Awaitable, Callable

import pytest
from redis.asyncio import Redis

from mt5kit.errors import ServiceOverloaded
from mt5kit.state.redis import Keys, LeaseStore, PlacementStore, StreamPlacementStore

Sessions = Callable[[str], Awaitable[set[bytes | str]]]


@pytest.fixture
def sessions(redis: Redis, keys: Keys) -> Sessions:
    """The accounts placed on a terminal."""
    return lambda terminal: redis.smembers(keys.sessions("api", terminal))


@pytest.fixture
def api(redis: Redis, keys: Keys) -> PlacementStore:
    return PlacementStore(redis, keys, "api")


@pytest.fixture
def stream(redis: Redis, keys: Keys) -> StreamPlacementStore:
    return StreamPlacementStore(redis, keys)


async def test_the_emptiest_terminal_is_chosen_and_kept(
    api: PlacementStore, sessions: Sessions
) -> None:
    assert await api.place("1", ["T1", "T2"]) == "T1"
    assert await api.place("2", ["T1", "T2"]) == "T2"
    assert await api.place("3", ["T1", "T2"]) == "T1"
    assert await api.place("3", ["T2", "T1"]) == "T1"
    assert await api.where("3") == "T1"
    assert await sessions("T1") == {b"1", b"3"}


async def test_an_account_moves_when_its_terminal_is_no_candidate(
    api: PlacementStore, sessions: Sessions
) -> None:
    await api.place("1", ["T1"])
    assert await api.place("1", ["T2"]) == "T2"
    assert await sessions("T1") == set()
    assert await sessions("T2") == {b"1"}


async def test_removing_leaves_no_trace(api: PlacementStore, redis: Redis) -> None:
    await api.place("1", ["T1"])
    assert await api.remove("1")
    assert not await api.remove("1")
    assert await api.where("1") is None
    assert await redis.keys("*") == []


async def test_full_terminals_take_no_more_but_keep_theirs(api: PlacementStore) -> None:
    await api.place("1", ["T1"], capacity=1)
    with pytest.raises(ServiceOverloaded) as full:
        await api.place("2", ["T1"], capacity=1)
    assert full.value.retry_after_s
    assert await api.place("1", ["T1"], capacity=1) == "T1"
    with pytest.raises(ServiceOverloaded):
        await api.place("3", [])


async def test_many_at_once_spread_evenly(api: PlacementStore, sessions: Sessions) -> None:
    terminals = ["T1", "T2", "T3"]
    await asyncio.gather(*(api.place(str(number), terminals) for number in range(30)))
    assert [len(await sessions(terminal)) for terminal in terminals] == [10, 10, 10]


async def test_a_stream_terminal_has_one_account(
    stream: StreamPlacementStore, redis: Redis, keys: Keys
) -> None:
    assert await stream.reserve("1", ["T1", "T2"], 60) == "T1"
    assert await stream.reserve("1", ["T2", "T1"], 60) == "T1"
    assert await stream.reserve("2", ["T1", "T2"], 60) == "T2"
    with pytest.raises(ServiceOverloaded) as full:
        await stream.reserve("3", ["T1", "T2"], 60)
    assert full.value.retry_after_s
    assert await stream.free("1")
    assert await stream.reserve("3", ["T1", "T2"], 60) == "T1"
    assert await redis.get(keys.occupant("T1")) == b"3"
    assert await stream.where("1") is None


async def test_leased_stream_terminals_come_first(
    stream: StreamPlacementStore, redis: Redis, keys: Keys
) -> None:
    await LeaseStore(redis, keys).acquire("T3", "a")
    assert await stream.reserve("1", ["T1", "T2", "T3"], 60) == "T3"
    assert await stream.reserve("2", ["T1", "T2", "T3"], 60) == "T1"


async def test_many_reservations_at_once_never_share(stream: StreamPlacementStore) -> None:
    terminals = [f"T{number}" for number in range(5)]
    answers = await asyncio.gather(
        *(stream.reserve(str(number), terminals, 60) for number in range(8)),
        return_exceptions=True,
    )
    reserved = [answer for answer in answers if isinstance(answer, str)]
    assert sorted(reserved) == terminals


async def test_a_reservation_that_ran_out_is_taken_up_unless_another_has_it(
    stream: StreamPlacementStore, redis: Redis, keys: Keys
) -> None:
    await stream.reserve("1", ["T1"], 60)
    await redis.flushall()
    assert await stream.refresh("1", "T1", 30)
    assert 0 < await redis.pttl(keys.occupant("T1")) <= 30_000
    await redis.flushall()
    await stream.reserve("2", ["T1"], 60)
    assert not await stream.refresh("1", "T1", 30)
    assert not await stream.free("1", "T1")
    assert await redis.get(keys.occupant("T1")) == b"2"


async def test_an_owner_frees_only_the_terminal_it_names(
    stream: StreamPlacementStore, redis: Redis, keys: Keys
) -> None:
    await stream.reserve("1", ["T1"], 60)
    await stream.reserve("1", ["T2"], 60)
    assert await redis.get(keys.occupant("T1")) is None
    assert not await stream.free("1", "T1")
    assert await stream.where("1") == "T2"
    assert await stream.free("1", "T2")
    assert await stream.where("1") is None
