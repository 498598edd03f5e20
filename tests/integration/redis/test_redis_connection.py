import asyncio
import random

import pytest
from redis.asyncio import Redis

from mt5kit.state.redis import Keys, LeaseStore


async def test_no_cancellation_is_lost(redis: Redis, keys: Keys) -> None:
    store, rng = LeaseStore(redis, keys), random.Random(1)

    async def work() -> None:
        while True:
            await store.announce("api", "a", 10_000)

    async def cancelled_at_random() -> None:
        task = asyncio.create_task(work())
        await asyncio.sleep(rng.random() * 0.01)
        task.cancel()
        ended, _ = await asyncio.wait([task], timeout=10)
        task.cancel()
        assert ended

    for _ in range(20):
        await asyncio.gather(*(cancelled_at_random() for _ in range(20)))


async def test_a_task_that_was_cancelled_may_still_clean_up(redis: Redis, keys: Keys) -> None:
    store, cleaned = LeaseStore(redis, keys), asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await store.acquire("T1", "a")
            cleaned.set()

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cleaned.is_set()


async def test_a_deadline_of_ours_is_kept(redis: Redis, keys: Keys) -> None:
    store = LeaseStore(redis, keys)

    async def work_for(seconds: float) -> None:
        async with asyncio.timeout(seconds):
            while True:
                await store.announce("api", "a", 10_000)

    for _ in range(50):
        with pytest.raises(TimeoutError):
            await work_for(0.005)
