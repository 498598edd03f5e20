from dataclasses import dataclass

import msgspec
import pytest
from redis.asyncio import Redis

from mt5kit.errors import StaleToken
from mt5kit.state.redis import (
    CachedSnapshot,
    Frame,
    Keys,
    Lease,
    LeaseStore,
    LiveState,
    LiveStore,
    PlacementStore,
    SnapshotCache,
)


@dataclass(frozen=True)
class Stores:
    leases: LeaseStore
    live: LiveStore
    snapshots: SnapshotCache
    placement: PlacementStore

    async def lease(self, terminal_id: str = "T1", owner: str = "a") -> Lease:
        held = await self.leases.holder(terminal_id)
        if held is not None:
            await self.leases.release(held)
        lease = await self.leases.acquire(terminal_id, owner)
        assert lease is not None
        return lease


@pytest.fixture
def stores(redis: Redis, keys: Keys) -> Stores:
    return Stores(
        LeaseStore(redis, keys),
        LiveStore(redis, keys),
        SnapshotCache(redis, keys),
        PlacementStore(redis, keys),
    )


def state(epoch: int, seq: int, *, terminal: str = "T1", as_of_ms: int = 5) -> LiveState:
    return LiveState(epoch, seq, as_of_ms, terminal, "ws-1", b"state %d" % seq, b"line %d" % seq)


def frames(first: int, last: int) -> list[Frame]:
    return [(seq, b"m%d" % seq) for seq in range(first, last + 1)]


async def test_state_and_messages_are_read_back(stores: Stores, redis: Redis, keys: Keys) -> None:
    lease = await stores.lease()
    assert await stores.live.read("1") is None
    await stores.live.publish("1", lease.token, state(lease.token, 3), frames(1, 3))
    assert await stores.live.read("1") == state(lease.token, 3)
    assert await stores.live.replay("1", lease.token, 1) == tuple(frames(2, 3))
    assert await stores.live.replay("1", lease.token, 3) == ()
    for key in (keys.live("1"), keys.replay("1")):
        assert 0 < await redis.pttl(key) <= 60_000


async def test_a_replay_is_whole_or_none(stores: Stores) -> None:
    token = (await stores.lease()).token
    assert await stores.live.replay("1", token, 0) is None
    await stores.live.publish("1", token, state(token, 2), frames(1, 2))
    await stores.live.publish("1", token, state(token, 4), frames(4, 4))
    assert await stores.live.replay("1", token, 1) is None
    assert await stores.live.replay("1", token, 3) == tuple(frames(4, 4))
    assert await stores.live.replay("1", token, 9) is None
    assert await stores.live.replay("1", token + 1, 3) is None
    await stores.live.publish("1", token, state(token, 6), frames(5, 6), oldest_seq=6)
    assert await stores.live.replay("1", token, 4) is None
    assert await stores.live.replay("1", token, 5) == tuple(frames(6, 6))


async def test_repeating_a_publish_changes_nothing(stores: Stores) -> None:
    token = (await stores.lease()).token
    for _ in range(2):
        await stores.live.publish("1", token, state(token, 2), frames(1, 2))
    assert await stores.live.replay("1", token, 0) == tuple(frames(1, 2))


async def test_a_stale_owner_is_refused(stores: Stores) -> None:
    old = await stores.lease(owner="a")
    await stores.live.publish("1", old.token, state(old.token, 2), frames(1, 2))
    new = await stores.lease(owner="b")
    # Before the new owner has written anything the fence already refuses the old one.
    with pytest.raises(StaleToken):
        await stores.live.publish("1", old.token, state(old.token, 3), frames(3, 3))
    with pytest.raises(StaleToken):
        await stores.live.touch("1", old.token, 9, "T1")
    await stores.live.publish("1", new.token, state(new.token, 1), frames(1, 1))
    with pytest.raises(StaleToken):
        await stores.live.publish("1", old.token, state(old.token, 3), frames(3, 3))
    with pytest.raises(StaleToken):
        await stores.live.drop("1", old.token, "T1")
    assert await stores.live.read("1") == state(new.token, 1)
    assert await stores.live.replay("1", new.token, 0) == tuple(frames(1, 1))
    assert await stores.live.replay("1", old.token, 0) is None


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


def look(as_of_ms: int, terminal: str = "T1") -> CachedSnapshot:
    return CachedSnapshot(as_of_ms, terminal, "api-1", b"look %d" % as_of_ms)


async def test_a_snapshot_is_kept_for_a_while(stores: Stores, redis: Redis, keys: Keys) -> None:
    lease = await stores.lease()
    await stores.placement.place("1", ["T1"])
    assert await stores.snapshots.get("1") is None
    await stores.snapshots.put("1", lease.token, look(5))
    await stores.snapshots.put("1", lease.token, look(4))
    assert await stores.snapshots.get("1") == look(5)
    assert 0 < await redis.pttl(keys.snapshot("1")) <= 600_000
    await stores.snapshots.drop("1")
    assert await stores.snapshots.get("1") is None


async def test_a_stale_owner_cannot_overwrite_a_snapshot(stores: Stores) -> None:
    await stores.placement.place("1", ["T1"])
    old = await stores.lease(owner="a")
    new = await stores.lease(owner="b")
    await stores.snapshots.put("1", new.token, look(5))
    with pytest.raises(StaleToken):
        await stores.snapshots.put("1", old.token, look(9))
    assert await stores.snapshots.get("1") == look(5)


async def test_a_newer_token_does_not_bring_an_older_look(stores: Stores) -> None:
    await stores.placement.place("1", ["T1"])
    old = await stores.lease(owner="a")
    await stores.snapshots.put("1", old.token, look(5))
    new = await stores.lease(owner="b")
    await stores.snapshots.put("1", new.token, look(4))
    assert await stores.snapshots.get("1") == look(5)
    await stores.snapshots.put("1", new.token, look(6))
    assert await stores.snapshots.get("1") == look(6)


async def test_a_moved_account_is_written_by_its_new_terminal_only(stores: Stores) -> None:
    # The new terminal's lease is the older one: tokens of two terminals do not compare.
    there, here = await stores.lease("T2"), await stores.lease("T1")
    await stores.placement.place("1", ["T1"])
    await stores.snapshots.put("1", here.token, look(5))
    await stores.placement.place("1", ["T2"])
    with pytest.raises(StaleToken):
        await stores.snapshots.put("1", here.token, look(6))
    await stores.snapshots.put("1", there.token, look(7, "T2"))
    assert await stores.snapshots.get("1") == look(7, "T2")


async def test_a_look_under_way_does_not_outlive_its_session(stores: Stores) -> None:
    token = (await stores.lease()).token
    await stores.placement.place("1", ["T1"])
    await stores.snapshots.put("1", token, look(5))
    await stores.placement.remove("1")
    await stores.snapshots.drop("1")
    with pytest.raises(StaleToken):
        await stores.snapshots.put("1", token, look(6))
    assert await stores.snapshots.get("1") is None


async def test_payloads_may_be_any_bytes(stores: Stores) -> None:
    token = (await stores.lease()).token
    payload = bytes(range(256))
    written = msgspec.structs.replace(state(token, 1), payload=payload)
    await stores.live.publish("1", token, written, [(1, payload)])
    assert await stores.live.read("1") == written
    assert await stores.live.replay("1", token, 0) == ((1, payload),)
