import asyncio

import msgspec
import pytest
from redis.asyncio import Redis

from mt5kit.state.redis import Keys, StateUnavailable, SyncError, SyncJob, SyncStore

CLAIM_MS = 60_000


@pytest.fixture
def syncs(redis: Redis, keys: Keys) -> SyncStore:
    return SyncStore(redis, keys)


async def found(syncs: SyncStore, job: SyncJob) -> SyncJob:
    stored = await syncs.get(job.sync_id)
    assert stored is not None
    return stored


async def unclaim(redis: Redis, keys: Keys, job: SyncJob) -> None:
    """Let the claim run out."""
    await redis.hset(keys.sync(job.sync_id), "claimed_until", 1)


async def test_a_job_goes_its_way(syncs: SyncStore, redis: Redis, admin: Redis, keys: Keys) -> None:
    job = await syncs.create("acc", "user", 30)
    assert job == SyncJob(
        job.sync_id, "acc", "user", 30, "queued", 0, 0, 0, None, job.created_ms, job.created_ms
    )
    assert await found(syncs, job) == job
    assert await syncs.pending(9) == (job,)
    assert await syncs.claim(job.sync_id, "a", CLAIM_MS)
    assert (await found(syncs, job)).status == "running"
    job = msgspec.structs.replace(job, progress=40, deals=7, orders=2**40)
    assert await syncs.progress(job, "a", CLAIM_MS)
    stored = await found(syncs, job)
    assert (stored.status, stored.progress, stored.deals, stored.orders) == (
        *("running", 40),
        *(7, 2**40),
    )
    assert await syncs.finish(msgspec.structs.replace(job, deals=9), "a")
    ended = await found(syncs, job)
    assert (ended.status, ended.progress, ended.deals, ended.error) == ("done", 100, 9, None)
    assert ended.updated_ms >= ended.created_ms == job.created_ms
    assert await syncs.pending(9) == ()
    assert not await syncs.finish(job, "a")
    assert not await syncs.progress(job, "a", CLAIM_MS)
    assert not await syncs.claim(job.sync_id, "a", CLAIM_MS)
    assert await admin.keys("*") == [keys.sync(job.sync_id).encode()]
    assert 0 < await redis.pttl(keys.sync(job.sync_id)) <= 24 * 3_600_000


async def test_a_failed_job_says_why(syncs: SyncStore) -> None:
    job = await syncs.create("acc", "user", 30)
    await syncs.claim(job.sync_id, "a", CLAIM_MS)
    error = SyncError("MT5_LOGIN_FAILED", "the broker refused")
    assert await syncs.finish(msgspec.structs.replace(job, error=error), "a")
    ended = await found(syncs, job)
    assert (ended.status, ended.progress, ended.error) == ("failed", 0, error)


async def test_an_account_has_one_unfinished_job(syncs: SyncStore) -> None:
    jobs = await asyncio.gather(*(syncs.create("acc", "user", 30) for _ in range(10)))
    assert len(set(jobs)) == 1
    other = await syncs.create("other", "user", 30)
    assert other.sync_id != jobs[0].sync_id
    await syncs.claim(jobs[0].sync_id, "a", CLAIM_MS)
    running = await syncs.create("acc", "user", 5)
    assert (running.sync_id, running.status) == (jobs[0].sync_id, "running")
    await syncs.finish(running, "a")
    again = await syncs.create("acc", "user", 5)
    assert again.sync_id != running.sync_id
    assert again.history_days == 5


async def test_of_many_claimants_one_works(syncs: SyncStore) -> None:
    job = await syncs.create("acc", "user", 30)
    replicas = [f"r{number}" for number in range(10)]
    claims = await asyncio.gather(*(syncs.claim(job.sync_id, one, CLAIM_MS) for one in replicas))
    assert sum(claims) == 1
    winner = replicas[claims.index(True)]
    loser = replicas[claims.index(False)]
    assert await syncs.claim(job.sync_id, winner, CLAIM_MS)
    assert not await syncs.progress(job, loser, CLAIM_MS)
    assert not await syncs.finish(job, loser)
    assert not await syncs.claim("unknown", winner, CLAIM_MS)


async def test_a_dead_claimants_job_is_taken_over(
    syncs: SyncStore, redis: Redis, keys: Keys
) -> None:
    job = await syncs.create("acc", "user", 30)
    assert await syncs.claim(job.sync_id, "a", CLAIM_MS)
    await unclaim(redis, keys, job)
    # It was only slow: as long as nobody else has claimed it, it is its own.
    assert await syncs.progress(job, "a", CLAIM_MS)
    assert not await syncs.claim(job.sync_id, "b", CLAIM_MS)
    await unclaim(redis, keys, job)
    assert await syncs.claim(job.sync_id, "b", CLAIM_MS)
    assert not await syncs.progress(job, "a", CLAIM_MS)
    assert not await syncs.finish(job, "a")
    assert await syncs.finish(job, "b")


async def test_jobs_that_can_be_claimed_are_listed_first(
    syncs: SyncStore, redis: Redis, keys: Keys
) -> None:
    first, second, third = [await syncs.create(one, "user", 30) for one in ("a", "b", "c")]
    # Their order is that of their creation; they may have come in one millisecond.
    for number, job in enumerate((first, second, third), 1):
        await redis.zadd(keys.syncs(), {job.sync_id: number})
    await syncs.claim(first.sync_id, "r", CLAIM_MS)
    listed = [job.sync_id for job in await syncs.pending(9)]
    assert listed == [second.sync_id, third.sync_id, first.sync_id]
    assert [job.sync_id for job in await syncs.pending(1)] == [second.sync_id]
    assert await syncs.pending(0) == ()
    await unclaim(redis, keys, first)
    assert [job.sync_id for job in await syncs.pending(1)] == [first.sync_id]
    await redis.delete(keys.sync(first.sync_id))
    assert [job.sync_id for job in await syncs.pending(1)] == [second.sync_id]
    assert await redis.zcard(keys.syncs()) == 2


async def test_the_job_of_a_deleted_account_fails(syncs: SyncStore) -> None:
    assert not await syncs.cancel_account("acc")
    job = await syncs.create("acc", "user", 30)
    await syncs.claim(job.sync_id, "a", CLAIM_MS)
    assert await syncs.cancel_account("acc")
    assert not await syncs.cancel_account("acc")
    ended = await found(syncs, job)
    assert (ended.status, ended.error) == (
        "failed",
        SyncError("ACCOUNT_NOT_FOUND", "the account was deleted"),
    )
    assert not await syncs.progress(job, "a", CLAIM_MS)
    assert not await syncs.finish(job, "a")
    assert await syncs.pending(9) == ()
    assert (await syncs.create("acc", "user", 30)).status == "queued"


async def test_a_full_redis_takes_no_jobs(syncs: SyncStore, admin: Redis) -> None:
    await admin.config_set("maxmemory", 1)
    try:
        with pytest.raises(StateUnavailable, match="full"):
            await syncs.create("acc", "user", 30)
        assert await admin.keys("*") == []
    finally:
        await admin.config_set("maxmemory", 0)


async def test_an_unknown_job_is_none(syncs: SyncStore) -> None:
    assert await syncs.get("unknown") is None
