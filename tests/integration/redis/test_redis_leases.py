import asyncio

import pytest
from redis.asyncio import Redis

from mt5kit.domain.instants import now_ms
from mt5kit.state.redis import Keys, LeaseStore, Role, StateUnavailable


@pytest.fixture
def store(redis: Redis, keys: Keys) -> LeaseStore:
    return LeaseStore(redis, keys)


async def test_one_owner_at_a_time_with_growing_tokens(store: LeaseStore) -> None:
    first = await store.acquire("T1", "a")
    assert first is not None
    assert await store.acquire("T1", "b") is None
    assert await store.holder("T1") == first
    assert await store.release(first)
    second = await store.acquire("T1", "b")
    assert second is not None
    assert first.token < second.token < 2**53


async def test_a_token_grows_across_a_wiped_redis(store: LeaseStore, admin: Redis) -> None:
    before = await store.acquire("T1", "a")
    await admin.flushall()
    after = await store.acquire("T1", "b")
    assert before is not None
    assert after is not None
    assert after.token > before.token


async def test_who_had_no_right_takes_nothing_up_that_may_have_been_forgotten(
    store: LeaseStore, redis: Redis, admin: Redis, keys: Keys
) -> None:
    lease = await store.acquire("T1", "a")
    assert lease is not None
    await admin.flushall()
    assert not await store.renew(lease, lapsed_ms=60_000)
    # Whoever has believed in it all the while goes on.
    assert await store.renew(lease)
    await redis.delete(keys.lease("T1"))
    run_id = (await redis.info("server"))["run_id"]
    await redis.set(keys.memory(), f"{run_id} {now_ms() - 120_000}")
    assert await store.renew(lease, lapsed_ms=60_000)


async def test_a_token_grows_when_the_clock_was_set_back(
    store: LeaseStore, redis: Redis, keys: Keys
) -> None:
    ahead = 2**52
    await redis.set(keys.fence("T1"), ahead)
    lease = await store.acquire("T1", "a")
    assert lease is not None
    assert lease.token == ahead + 1


async def test_the_same_owner_gets_a_new_token(store: LeaseStore) -> None:
    first = await store.acquire("T1", "a")
    second = await store.acquire("T1", "a")
    assert first is not None
    assert second is not None
    assert second.token > first.token
    assert not await store.renew(first)
    assert await store.renew(second)


async def test_renewal_needs_owner_and_token(store: LeaseStore, redis: Redis, keys: Keys) -> None:
    lease = await store.acquire("T1", "a", 5_000)
    assert lease is not None
    assert await store.renew(lease, 9_000)
    assert await redis.pttl(keys.lease("T1")) > 5_000
    await store.release(lease)
    await store.acquire("T1", "b")
    assert not await store.renew(lease)
    assert not await store.release(lease)


async def test_renewal_works_in_a_full_redis(
    store: LeaseStore, redis: Redis, admin: Redis, keys: Keys
) -> None:
    lease = await store.acquire("T1", "a", 5_000)
    assert lease is not None
    await admin.config_set("maxmemory", 1)
    try:
        assert await store.renew(lease, 9_000)
        assert await redis.pttl(keys.lease("T1")) > 5_000
        with pytest.raises(StateUnavailable, match="full"):
            await store.acquire("T2", "a")
        assert await store.release(lease)
    finally:
        await admin.config_set("maxmemory", 0)


async def test_a_lease_that_ran_out_untouched_is_taken_up_again(
    store: LeaseStore, redis: Redis, admin: Redis, keys: Keys
) -> None:
    lease = await store.acquire("T1", "a")
    assert lease is not None
    await redis.delete(keys.lease("T1"))
    assert await store.renew(lease)
    await admin.flushall()
    assert await store.renew(lease)
    assert await store.holder("T1") == lease


async def test_a_lease_that_another_had_meanwhile_is_lost(
    store: LeaseStore, redis: Redis, keys: Keys
) -> None:
    lease = await store.acquire("T1", "a")
    assert lease is not None
    await redis.delete(keys.lease("T1"))
    other = await store.acquire("T1", "b")
    assert other is not None
    await store.release(other)
    assert not await store.renew(lease)


async def test_silent_replicas_are_forgotten(store: LeaseStore, redis: Redis, keys: Keys) -> None:
    await redis.zadd(keys.replicas("api"), {"silent": 1})
    assert (await store.announce("api", "b", 10_000)).replicas == ("b",)
    assert (await store.announce("api", "a", 10_000)).replicas == ("a", "b")
    assert sorted(await store.replicas("api")) == ["a", "b"]
    assert 0 < await redis.pttl(keys.replicas("api")) <= 10_000
    await store.withdraw("api", "a")
    assert (await store.announce("api", "b", 10_000)).replicas == ("b",)


async def test_a_lease_says_where_its_owner_answers(store: LeaseStore, admin: Redis) -> None:
    first = await store.acquire("T1", "a", url="http://a:8000")
    second = await store.acquire("T2", "b")
    assert first is not None
    assert second is not None
    assert (first.url, second.url) == ("http://a:8000", "")
    assert await store.holder("T1") == first
    assert await store.holders(["T2", "T9", "T1"]) == {"T1": first, "T2": second}
    assert await store.holders([]) == {}
    await admin.flushall()
    assert await store.holder("T1") is None
    assert await store.renew(first)
    assert await store.holder("T1") == first


async def test_a_lease_of_an_earlier_version_has_no_url(
    store: LeaseStore, redis: Redis, keys: Keys
) -> None:
    await redis.hset(keys.lease("T1"), mapping={"owner": "a", "token": 7})
    holder = await store.holder("T1")
    assert holder is not None
    assert (holder.owner, holder.token, holder.url) == ("a", 7, "")


async def test_a_release_is_announced_to_the_role(store: LeaseStore) -> None:
    heard: asyncio.Queue[str] = asyncio.Queue()
    stands = asyncio.Event()

    async def listen() -> None:
        async for owner in store.releases("api", stands.set):
            heard.put_nowait(owner)

    listener = asyncio.create_task(listen())
    try:
        async with asyncio.timeout(10):
            await stands.wait()
            told: dict[str, Role | None] = {"quiet": None, "other": "stream", "a": "api"}
            for owner, role in told.items():
                lease = await store.acquire("T1", owner)
                assert lease is not None
                assert await store.release(lease, role)
                # No lease, no news.
                assert not await store.release(lease, role)
            assert await heard.get() == "a"
        assert heard.empty()
    finally:
        listener.cancel()
        await asyncio.wait([listener])
