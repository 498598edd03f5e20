from dataclasses import dataclass

import msgspec
import pytest
from redis.asyncio import Redis
from tests.integration.redis.lines import followed, frames, leased, state

from mt5kit.errors import StaleToken
from mt5kit.state.redis import (
    Followed,
    Frame,
    Keys,
    Lease,
    LeaseStore,
    LiveState,
    LiveStore,
    StateFull,
)


@dataclass(frozen=True)
class Stores:
    leases: LeaseStore
    live: LiveStore

    async def lease(self, terminal_id: str = "T1", owner: str = "a") -> Lease:
        return await leased(self.leases, terminal_id, owner)

    async def replay(self, epoch: int, after_seq: int) -> tuple[Frame, ...] | None:
        """What a follower at that message misses, None if that is not all there."""
        found = await followed(self.live, epoch, after_seq)
        return found.frames if found and found.told is None else None


@pytest.fixture
def stores(redis: Redis, keys: Keys) -> Stores:
    return Stores(LeaseStore(redis, keys), LiveStore(redis, keys))


async def test_state_and_messages_are_read_back(stores: Stores, redis: Redis, keys: Keys) -> None:
    lease = await stores.lease()
    assert await stores.live.read("1") is None
    await stores.live.publish("1", lease.token, state(lease.token, 3), frames(1, 3))
    assert await stores.live.read("1") == state(lease.token, 3)
    assert await stores.replay(lease.token, 1) == frames(2, 3)
    assert await stores.replay(lease.token, 3) == ()
    for key in (keys.live("1"), keys.replay("1")):
        assert 0 < await redis.pttl(key) <= 60_000


async def test_a_state_before_the_first_look_is_followed_but_not_read(stores: Stores) -> None:
    token = (await stores.lease()).token
    await stores.live.publish("1", token, LiveState(token, 1, 0, "T1", "ws-1"), frames(1, 1))
    assert await stores.live.read("1") is None
    found = await followed(stores.live, 0, 0)
    assert found == Followed(token, 1, 0, "ws-1", b"", frames(1, 1))


async def test_a_replay_is_whole_or_none(stores: Stores) -> None:
    token = (await stores.lease()).token
    assert await stores.replay(token, 0) is None
    await stores.live.publish("1", token, state(token, 2), frames(1, 2))
    await stores.live.publish("1", token, state(token, 4), frames(4, 4))
    assert await stores.replay(token, 1) is None
    assert await stores.replay(token, 3) == frames(4, 4)
    assert await stores.replay(token + 1, 3) is None
    await stores.live.publish("1", token, state(token, 6), frames(5, 6), oldest_seq=6)
    assert await stores.replay(token, 4) is None
    assert await stores.replay(token, 5) == frames(6, 6)


async def test_no_more_than_500_messages_are_kept(stores: Stores, redis: Redis, keys: Keys) -> None:
    token = (await stores.lease()).token
    for last in range(200, 801, 200):
        await stores.live.publish("1", token, state(token, last), frames(last - 199, last))
    assert await redis.xlen(keys.replay("1")) == 500
    assert await stores.replay(token, 300) == frames(301, 800)
    assert await stores.replay(token, 299) is None


async def test_messages_are_kept_no_longer_because_somebody_looks(
    stores: Stores, redis: Redis, keys: Keys
) -> None:
    token = (await stores.lease()).token
    await stores.live.publish("1", token, state(token, 1), frames(1, 1))
    for key in (keys.live("1"), keys.replay("1")):
        await redis.pexpire(key, 30_000)
    assert await stores.live.touch("1", token, 9, "T1")
    await stores.live.publish("1", token, state(token, 1, as_of_ms=9), ())
    assert await redis.pttl(keys.live("1")) > 30_000
    assert await redis.pttl(keys.replay("1")) <= 30_000
    await stores.live.publish("1", token, state(token, 2), frames(2, 2))
    assert await redis.pttl(keys.replay("1")) > 30_000


async def test_repeating_a_publish_changes_nothing(stores: Stores) -> None:
    token = (await stores.lease()).token
    for _ in range(2):
        await stores.live.publish("1", token, state(token, 2), frames(1, 2))
    assert await stores.replay(token, 0) == frames(1, 2)
    assert await stores.live.read("1") == state(token, 2)


async def test_a_publish_that_comes_late_does_not_bring_an_older_look(stores: Stores) -> None:
    token = (await stores.lease()).token
    await stores.live.publish("1", token, state(token, 2, as_of_ms=9), frames(1, 2))
    await stores.live.publish("1", token, state(token, 2, as_of_ms=8), frames(1, 2))
    with pytest.raises(StaleToken):
        await stores.live.publish("1", token, state(token, 1, as_of_ms=10), frames(1, 1))
    assert await stores.live.read("1") == state(token, 2, as_of_ms=9)
    assert await stores.live.touch("1", token, 4, "T1")
    assert await stores.live.read("1") == state(token, 2, as_of_ms=9)


@pytest.mark.parametrize("order", [(2, 1), (1, 1), (1, 3)])
async def test_frames_out_of_order_are_a_mistake(stores: Stores, order: tuple[int, int]) -> None:
    token = (await stores.lease()).token
    mixed = [Frame(seq, b"", b"") for seq in order]
    with pytest.raises(ValueError, match="ascend"):
        await stores.live.publish("1", token, state(token, 2), mixed)


async def test_a_stale_owner_is_refused(stores: Stores) -> None:
    old = await stores.lease(owner="a")
    await stores.live.publish("1", old.token, state(old.token, 2), frames(1, 2))
    new = await stores.lease(owner="b")

    async def refused() -> None:
        for call in (
            stores.live.publish("1", old.token, state(old.token, 3), frames(3, 3)),
            stores.live.touch("1", old.token, 9, "T1"),
            stores.live.hand_over("1", old.token, old.token, 2, "T1"),
            stores.live.take_over("1", old.token, "T1"),
            stores.live.drop("1", old.token, "T1"),
        ):
            with pytest.raises(StaleToken):
                await call

    # Before the new owner has written anything the fence already refuses the old one.
    await refused()
    assert await stores.live.read("1") == state(old.token, 2)
    await stores.live.publish("1", new.token, state(new.token, 1), frames(1, 1))
    await refused()
    assert await stores.live.read("1") == state(new.token, 1)
    assert await stores.replay(new.token, 0) == frames(1, 1)
    assert await stores.replay(old.token, 0) is None


async def test_an_account_that_moved_refuses_its_last_terminal(stores: Stores) -> None:
    old = await stores.lease("T1")
    new = await stores.lease("T2")
    await stores.live.publish("1", old.token, state(old.token, 1), frames(1, 1))
    await stores.live.publish("1", new.token, state(new.token, 1, terminal="T2"), frames(1, 1))
    with pytest.raises(StaleToken):
        await stores.live.publish("1", old.token, state(old.token, 2), frames(2, 2))


async def test_a_stale_epoch_is_refused(stores: Stores) -> None:
    token = (await stores.lease()).token
    await stores.live.publish("1", token, state(token, 1), [])
    with pytest.raises(StaleToken):
        await stores.live.publish("1", token, state(token - 1, 9), [])


async def test_touching_moves_only_the_age(stores: Stores) -> None:
    token = (await stores.lease()).token
    assert not await stores.live.touch("1", token, 9, "T1")
    await stores.live.publish("1", token, state(token, 1), frames(1, 1))
    assert await stores.live.touch("1", token, 9, "T1")
    assert await stores.live.read("1") == state(token, 1, as_of_ms=9)
    await stores.live.drop("1", token, "T1")
    assert await stores.live.read("1") is None


async def test_an_ended_stream_does_not_come_back_with_a_late_publish(
    stores: Stores, redis: Redis, keys: Keys
) -> None:
    token = (await stores.lease()).token
    await stores.live.publish("1", token, state(token, 2), frames(1, 2))
    await stores.live.drop("1", token, "T1")
    with pytest.raises(StaleToken):
        await stores.live.publish("1", token, state(token, 2), frames(1, 2))
    assert not await stores.live.touch("1", token, 9, "T1")
    assert await stores.live.read("1") is None
    assert await followed(stores.live, 0, 0) is None
    assert await redis.hgetall(keys.live("1")) == {b"ended": str(token).encode()}
    assert 0 < await redis.pttl(keys.live("1")) <= 60_000
    assert not await redis.exists(keys.replay("1"))
    newer = (await stores.lease()).token
    await stores.live.publish("1", newer, state(newer, 1), frames(1, 1))
    assert await stores.live.read("1") == state(newer, 1)


async def test_nobody_touches_what_another_wrote(stores: Stores) -> None:
    old = await stores.lease(owner="a")
    await stores.live.publish("1", old.token, state(old.token, 1), frames(1, 1))
    new = await stores.lease(owner="b")
    assert not await stores.live.touch("1", new.token, 9, "T1")
    assert await stores.live.read("1") == state(old.token, 1)


async def test_a_full_redis_takes_all_but_news(stores: Stores, admin: Redis) -> None:
    token = (await stores.lease()).token
    await stores.live.publish("1", token, state(token, 1), frames(1, 1))
    try:
        await admin.config_set("maxmemory", "1")
        for epoch, seq in ((token, 2), (token + 1, 1)):
            with pytest.raises(StateFull):
                await stores.live.publish("1", token, state(epoch, seq), frames(seq, seq))
        assert await stores.live.touch("1", token, 9, "T1")
        assert await stores.live.read("1") == state(token, 1, as_of_ms=9)
        found = await followed(stores.live, 0, 0)
        assert found == Followed(token, 1, 9, "ws-1", b"told 1", frames(1, 1))
        assert await stores.live.followers("1") == 1
        assert await stores.live.hand_over("1", token, token, 1, "T1")
        assert (await stores.live.take_over("1", token, "T1")).taken
        await stores.live.unfollow("1", "ws-2")
        await stores.live.drop("1", token, "T1")
    finally:
        await admin.config_set("maxmemory", "0")


async def test_payloads_may_be_any_bytes(stores: Stores) -> None:
    token = (await stores.lease()).token
    anything = bytes(range(256)) * 2
    written = msgspec.structs.replace(state(token, 1), payload=anything, told=anything)
    frame = Frame(1, anything, anything)
    await stores.live.publish("1", token, written, [frame])
    assert await stores.live.read("1") == written
    assert await stores.replay(token, 0) == (frame,)
