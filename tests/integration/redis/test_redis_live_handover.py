"""A line that goes on under its next owner, and one that must not."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis
from tests.integration.redis.lines import frames, leased, listening, state
from tests.redis_server import RedisServer

from mt5kit.domain.instants import now_ms
from mt5kit.errors import StaleToken
from mt5kit.state.redis import Claim, Keys, LeaseStore, LiveStore, Relayed, Taken, open_redis


@pytest.fixture
def live(redis: Redis, keys: Keys) -> LiveStore:
    return LiveStore(redis, keys)


@pytest.fixture
def leases(redis: Redis, keys: Keys) -> LeaseStore:
    return LeaseStore(redis, keys)


async def published(live: LiveStore, leases: LeaseStore, last: int) -> int:
    """A line at a seq; the token that opened it."""
    token = (await leased(leases)).token
    await live.publish("1", token, state(token, last), frames(1, last))
    return token


async def test_the_next_owner_goes_on_where_the_last_one_ended(
    live: LiveStore, leases: LeaseStore, redis: Redis, keys: Keys
) -> None:
    epoch = await published(live, leases, 3)
    async with listening(redis, keys, "ws-3") as ear:
        await live.follow("1", "ws-3", epoch, 3)
        for _ in range(2):
            assert await live.hand_over("1", epoch, epoch, 3, "T1")
        token = (await leased(leases, "T2", "b")).token
        taken = (await live.take_over("1", token, "T2")).taken
        assert taken == Taken(epoch, 3, b"told 3", frames(1, 3))
        # The last look stands until there is a newer one.
        assert await live.read("1") == state(epoch, 3)
        await live.publish("1", token, state(epoch, 4, terminal="T2"), frames(4, 4))
        assert await ear.next(1) == [Relayed("frame", "1", epoch, frames(4, 4)[0])]
    with pytest.raises(StaleToken):
        await live.publish("1", epoch, state(epoch, 4), frames(4, 4))


async def test_a_line_is_taken_once(live: LiveStore, leases: LeaseStore) -> None:
    epoch = await published(live, leases, 3)
    await live.hand_over("1", epoch, epoch, 3, "T1")
    token = (await leased(leases, owner="b")).token
    assert (await live.take_over("1", token, "T1")).taken
    # Its answer may have been lost: a second call opens a new epoch.
    assert (await live.take_over("1", token, "T1")).taken is None
    with pytest.raises(StaleToken):
        await live.hand_over("1", epoch, epoch, 3, "T1")
    assert await live.hand_over("1", token, epoch, 3, "T1")


async def test_who_stopped_for_want_of_watchers_goes_on_itself(
    live: LiveStore, leases: LeaseStore
) -> None:
    epoch = await published(live, leases, 3)
    assert await live.hand_over("1", epoch, epoch, 3, "T1")
    assert (await live.take_over("1", epoch, "T1")).taken == Taken(
        epoch, 3, b"told 3", frames(1, 3)
    )


async def test_only_what_redis_knows_to_the_last_word_is_handed_over(
    live: LiveStore, leases: LeaseStore
) -> None:
    assert not await live.hand_over("1", 1, 1, 3, "T1")
    epoch = await published(live, leases, 3)
    for said, seq in ((epoch, 4), (epoch, 2), (epoch + 1, 3)):
        assert not await live.hand_over("1", epoch, said, seq, "T1")
    token = (await leased(leases, owner="b")).token
    # It has the terminal, and has not taken over the line.
    assert not await live.hand_over("1", token, epoch, 3, "T1")
    assert (await live.take_over("1", token, "T1")).taken is None


@pytest.mark.parametrize("seq", [3, 4])
async def test_a_word_after_the_hand_over_takes_it_back(
    live: LiveStore, leases: LeaseStore, seq: int
) -> None:
    epoch = await published(live, leases, 3)
    await live.hand_over("1", epoch, epoch, 3, "T1")
    await live.publish("1", epoch, state(epoch, seq), frames(seq, seq))
    token = (await leased(leases, "T2", "b")).token
    assert (await live.take_over("1", token, "T2")).taken is None


async def test_an_ended_line_is_not_taken_over(live: LiveStore, leases: LeaseStore) -> None:
    epoch = await published(live, leases, 3)
    await live.hand_over("1", epoch, epoch, 3, "T1")
    await live.drop("1", epoch, "T1")
    assert (await live.take_over("1", (await leased(leases)).token, "T1")).taken is None


async def test_of_many_owners_one_goes_on(live: LiveStore, leases: LeaseStore) -> None:
    epoch = await published(live, leases, 3)
    await live.hand_over("1", epoch, epoch, 3, "T1")
    tokens = [(await leased(leases, f"N{number}")).token for number in range(8)]
    answers = await asyncio.gather(
        *(live.take_over("1", token, f"N{number}") for number, token in enumerate(tokens)),
        return_exceptions=True,
    )
    claims = [answer for answer in answers if isinstance(answer, Claim)]
    assert sum(claim.taken is not None for claim in claims) == 1
    assert all(isinstance(answer, Claim | StaleToken) for answer in answers)


async def test_with_messages_missing_only_the_unbroken_end_is_taken(
    live: LiveStore, leases: LeaseStore
) -> None:
    epoch = await published(live, leases, 2)
    await live.publish("1", epoch, state(epoch, 5), frames(4, 5))
    await live.hand_over("1", epoch, epoch, 5, "T1")
    assert (await live.take_over("1", epoch, "T1")).taken == Taken(
        epoch, 5, b"told 5", frames(4, 5)
    )


async def test_whoever_claims_an_account_refuses_those_before(
    live: LiveStore, leases: LeaseStore
) -> None:
    """On another terminal, whose fence does not refuse them."""
    old = await published(live, leases, 3)
    token = (await leased(leases, "T2", "b")).token
    assert (await live.take_over("1", token, "T2")).taken is None
    for call in (
        live.publish("1", old, state(old, 4), frames(4, 4)),
        live.touch("1", old, 9, "T1"),
        live.hand_over("1", old, old, 3, "T1"),
        live.take_over("1", old, "T1"),
    ):
        with pytest.raises(StaleToken):
            await call
    # Also where nothing was known of the account.
    assert (await live.take_over("2", token, "T2")).taken is None
    with pytest.raises(StaleToken):
        await live.publish("2", old, state(old, 4), frames(4, 4))
    assert await live.follow("2", "ws-3", 0, 0) is None


async def test_it_is_told_since_when_nothing_was_forgotten(
    live: LiveStore, leases: LeaseStore, redis: Redis, admin: Redis, keys: Keys
) -> None:
    token = (await leased(leases)).token
    await leases.announce("stream", "ws-1", 10_000)
    assert await redis.exists(keys.memory())
    run_id = (await redis.info("server"))["run_id"]
    await redis.set(keys.memory(), f"{run_id} {now_ms() - 60_000}")
    await leases.announce("stream", "ws-1", 10_000)
    assert (await live.take_over("1", token, "T1")).remembers_ms >= 60_000
    for forgotten in (f"{'0' * 40} 1", "nonsense"):
        await redis.set(keys.memory(), forgotten)
        assert (await live.take_over("1", token, "T1")).remembers_ms == 0
    await admin.flushall()
    await leases.announce("stream", "ws-1", 10_000)
    assert (await live.take_over("1", token, "T1")).remembers_ms < 60_000


@pytest.fixture
async def kept(tmp_path: Path) -> AsyncIterator[tuple[RedisServer, Redis]]:
    """A Redis that comes back with its data, and a client of it."""
    with RedisServer(tmp_path) as server:
        client = open_redis(server.url)
        yield server, client
        await client.aclose()


async def test_a_redis_that_started_again_continues_no_line(
    kept: tuple[RedisServer, Redis], keys: Keys
) -> None:
    server, redis = kept
    live, leases = LiveStore(redis, keys), LeaseStore(redis, keys)
    epoch = await published(live, leases, 3)
    assert await live.hand_over("1", epoch, epoch, 3, "T1")
    assert await live.touch("1", epoch, 9, "T1")
    await asyncio.to_thread(server.restart)
    # It may have come back without the last words, or with an older look.
    assert await live.read("1") == state(epoch, 3, as_of_ms=9)
    assert not await live.touch("1", epoch, 10, "T1")
    assert (await live.take_over("1", epoch, "T1")).taken is None
    assert await live.follow("1", "ws-3", 0, 0) is None
    # A call whose answer the restart swallowed is repeated by the client.
    assert not await live.hand_over("1", epoch, epoch, 3, "T1")
    await live.publish("1", epoch, state(epoch, 4, as_of_ms=10), frames(4, 4))
    assert await live.touch("1", epoch, 11, "T1")
    assert await live.follow("1", "ws-3", 0, 0)
    assert await live.hand_over("1", epoch, epoch, 4, "T1")
    taken = (await live.take_over("1", epoch, "T1")).taken
    assert taken == Taken(epoch, 4, b"told 4", frames(1, 4))
