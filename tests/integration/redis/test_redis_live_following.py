"""Replicas that follow an account they do not own."""

import asyncio

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs
from tests.integration.redis.lines import followed, frames, leased, listening, state

from mt5kit.state.redis import (
    INTEREST_MS,
    Followed,
    Frame,
    Keys,
    LeaseStore,
    LiveStore,
    Relayed,
)
from mt5kit.state.redis.live import LIVE_TTL_MS
from mt5kit.state.redis.relay import read_relayed


@pytest.fixture
def live(redis: Redis, keys: Keys) -> LiveStore:
    return LiveStore(redis, keys)


@pytest.fixture
async def token(redis: Redis, keys: Keys) -> int:
    return (await leased(LeaseStore(redis, keys))).token


def relayed(token: int, first: int, last: int) -> list[Relayed]:
    return [Relayed("frame", "1", token, frame) for frame in frames(first, last)]


async def test_each_frame_reaches_exactly_the_followers_once(
    live: LiveStore, token: int, redis: Redis, keys: Keys
) -> None:
    async with listening(redis, keys, "ws-2") as follower, listening(redis, keys, "ws-22") as other:
        assert await live.follow("1", "ws-2", 0, 0) is None
        await live.follow("2", "ws-22", 0, 0)
        await live.publish("1", token, state(token, 2), frames(1, 2))
        await live.publish("1", token, state(token, 2), frames(1, 2))
        await live.publish("1", token, state(token, 3), frames(1, 3))
        for replica in ("ws-2", "ws-22"):
            assert await live.ask(replica, "1") == 1
        look = Relayed("look", "1", token)
        assert await follower.until_asked("1") == [look, *relayed(token, 1, 3)]
        assert await other.until_asked("1") == []


async def test_a_new_epoch_and_an_end_are_worth_a_look(
    live: LiveStore, token: int, redis: Redis, keys: Keys
) -> None:
    async with listening(redis, keys, "ws-2") as follower:
        await live.publish("1", token, state(token, 1), frames(1, 1))
        await live.follow("1", "ws-2", 0, 0)
        newer = (await leased(LeaseStore(redis, keys))).token
        await live.publish("1", newer, state(newer, 1), frames(1, 1))
        assert await follower.next(2) == [Relayed("look", "1", newer), *relayed(newer, 1, 1)]
        for _ in range(2):
            await live.drop("1", newer, "T1")
        await live.ask("ws-2", "1")
        assert await follower.until_asked("1") == [Relayed("look", "1")]
        assert await live.follow("1", "ws-2", newer, 1) is None


async def test_who_unfollows_or_falls_silent_is_told_nothing(
    live: LiveStore, token: int, redis: Redis, keys: Keys
) -> None:
    async with listening(redis, keys, "ws-2") as gone, listening(redis, keys, "ws-3") as silent:
        for replica in ("ws-2", "ws-3"):
            await live.follow("1", replica, 0, 0)
        assert await live.followers("1") == 2
        assert 0 < await redis.pttl(keys.watching("1")) <= INTEREST_MS
        await live.unfollow("1", "ws-2")
        await redis.zincrby(keys.watching("1"), -INTEREST_MS, "ws-3")
        assert await live.followers("1") == 0
        await live.publish("1", token, state(token, 1), frames(1, 1))
        for replica, ear in (("ws-2", gone), ("ws-3", silent)):
            await live.ask(replica, "1")
            assert await ear.until_asked("1") == []
        await live.follow("1", "ws-4", 0, 0)
        assert await redis.zrange(keys.watching("1"), 0, -1) == [b"ws-4"]


async def test_a_follower_is_brought_up_by_frames_or_by_what_was_told(
    live: LiveStore, token: int
) -> None:
    await live.publish("1", token, state(token, 2), frames(1, 2))
    await live.publish("1", token, state(token, 6), frames(4, 6))

    def at_six(told: bytes | None, *missed: Frame) -> Followed:
        return Followed(token, 6, 5, "ws-1", told, missed)

    assert await followed(live, token, 3) == at_six(None, *frames(4, 6))
    assert await followed(live, token, 5) == at_six(None, *frames(6, 6))
    assert await followed(live, token, 6) == at_six(None)
    # Message 3 never came.
    for epoch, seq in ((token, 2), (token, 0), (0, 0), (token - 1, 6), (token + 1, 5)):
        assert await followed(live, epoch, seq) == at_six(b"told 6", *frames(4, 6))


async def test_a_follower_learns_how_long_the_owner_has_been_silent(
    live: LiveStore, token: int, redis: Redis, keys: Keys
) -> None:
    await live.publish("1", token, state(token, 1), frames(1, 1))
    # As if it had been written 20 s ago.
    await redis.pexpire(keys.live("1"), LIVE_TTL_MS - 20_000)
    found = await live.follow("1", "ws-2", 0, 0)
    assert found is not None
    assert 20_000 <= found.silent_ms < LIVE_TTL_MS
    await live.touch("1", token, 9, "T1")
    found = await live.follow("1", "ws-2", 0, 0)
    assert found is not None
    assert found.silent_ms < 20_000


async def test_a_follower_ahead_of_redis_is_told_nothing(live: LiveStore, token: int) -> None:
    await live.publish("1", token, state(token, 2), frames(1, 2))
    assert await followed(live, token, 9) == Followed(token, 2, 5, "ws-1", None, ())


async def test_without_its_messages_a_line_is_still_followed(
    live: LiveStore, token: int, redis: Redis, keys: Keys
) -> None:
    await live.publish("1", token, state(token, 2), frames(1, 2))
    await redis.delete(keys.replay("1"))
    assert await followed(live, token, 1) == Followed(token, 2, 5, "ws-1", b"told 2", ())
    assert await followed(live, token, 2) == Followed(token, 2, 5, "ws-1", None, ())
    await live.publish("1", token, state(token, 3), frames(3, 3))
    found = await followed(live, token, 2)
    assert found == Followed(token, 3, 5, "ws-1", None, frames(3, 3))


async def test_a_wiped_redis_learns_the_line_again(
    live: LiveStore, token: int, admin: Redis
) -> None:
    await live.publish("1", token, state(token, 2), frames(1, 2))
    await live.follow("1", "ws-2", token, 2)
    await admin.flushall()
    assert await live.followers("1") == 0
    assert await live.follow("1", "ws-2", token, 2) is None
    assert not await live.touch("1", token, 9, "T1")
    assert not await live.hand_over("1", token, token, 2, "T1")
    await live.publish("1", token, state(token, 3), frames(3, 3))
    found = await followed(live, token, 2)
    assert found == Followed(token, 3, 5, "ws-1", None, frames(3, 3))


async def test_frames_of_any_bytes_are_relayed(
    live: LiveStore, token: int, redis: Redis, keys: Keys
) -> None:
    anything = bytes(range(256))
    sent = [Frame(1, anything, anything), Frame(2, b"", b""), Frame(3, b"\n", b"\n\n")]
    async with listening(redis, keys, "odd[name]*?") as ear:
        await live.follow("1", "odd[name]*?", 0, 0)
        await live.publish("1", token, state(token, 3), sent)
        heard = [told.frame for told in await ear.next(4)]
        assert heard == [None, *sent]


MALFORMED = [
    b"",
    b"frame",
    b"gossip\n1",
    b"wanted\n",
    b"wanted\n1\n2",
    b"wanted\n\xff",
    b"look\n1",
    b"look\n1\nsoon",
    b"look\n1\n2\n3",
    b"frame\n1\n2\n3",
    b"frame\n1\n2\n3\n9\nshort",
    b"frame\n1\n2\n3\n-1\ntext",
    b"frame\n1\n2\nthree\n0\ntext",
]


@pytest.mark.parametrize("message", MALFORMED)
async def test_what_is_no_message_of_ours_is_said_to_be_none(message: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        read_relayed(message)


async def test_malformed_messages_are_passed_over(
    live: LiveStore, redis: Redis, keys: Keys
) -> None:
    with capture_logs() as logs:
        async with listening(redis, keys, "ws-2") as ear:
            for message in MALFORMED:
                await redis.publish(keys.relay("ws-2"), message)
            await live.ask("ws-2", "1")
            assert await ear.until_asked("1") == []
    assert [log["event"] for log in logs].count("relay_malformed") == len(MALFORMED)


async def test_many_frames_arrive_in_order(
    live: LiveStore, token: int, redis: Redis, keys: Keys
) -> None:
    async with listening(redis, keys, "ws-2") as ear:
        await live.follow("1", "ws-2", 0, 0)
        for last in range(50, 501, 50):
            await live.publish("1", token, state(token, last), frames(last - 49, last))
        _, *heard = await asyncio.wait_for(ear.next(501), 10)
        assert heard == relayed(token, 1, 500)
