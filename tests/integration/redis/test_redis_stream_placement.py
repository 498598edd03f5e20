import asyncio

import pytest
from redis.asyncio import Redis

from mt5kit.errors import ServiceOverloaded
from mt5kit.state.redis import Keys, LeaseStore, StreamPlacementStore


@pytest.fixture
def stream(redis: Redis, keys: Keys) -> StreamPlacementStore:
    return StreamPlacementStore(redis, keys)


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
    stream: StreamPlacementStore, redis: Redis, admin: Redis, keys: Keys
) -> None:
    await stream.reserve("1", ["T1"], 60)
    await admin.flushall()
    assert await stream.refresh("1", "T1", 30)
    assert 0 < await redis.pttl(keys.occupant("T1")) <= 30_000
    await admin.flushall()
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


async def test_occupants_are_told_by_terminal(stream: StreamPlacementStore) -> None:
    await stream.reserve("1", ["T1"], 60)
    await stream.reserve("2", ["T3"], 60)
    assert await stream.occupants(["T1", "T2", "T3"]) == {"T1": "1", "T3": "2"}
    assert await stream.occupants([]) == {}
