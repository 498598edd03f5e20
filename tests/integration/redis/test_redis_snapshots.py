from dataclasses import dataclass

import pytest
from redis.asyncio import Redis
from tests.integration.redis.lines import leased

from mt5kit.errors import StaleToken
from mt5kit.state.redis import (
    CachedSnapshot,
    Keys,
    Lease,
    LeaseStore,
    PlacementStore,
    SnapshotCache,
)


@dataclass(frozen=True)
class Stores:
    leases: LeaseStore
    snapshots: SnapshotCache
    placement: PlacementStore

    async def lease(self, terminal_id: str = "T1", owner: str = "a") -> Lease:
        return await leased(self.leases, terminal_id, owner)


@pytest.fixture
def stores(redis: Redis, keys: Keys) -> Stores:
    return Stores(LeaseStore(redis, keys), SnapshotCache(redis, keys), PlacementStore(redis, keys))


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
