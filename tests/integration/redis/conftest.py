"""A client and key names for the tests of the Redis stores."""

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from mt5kit.state.redis import Keys, open_redis


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    """An empty Redis."""
    client = open_redis(redis_url)
    yield client
    await client.aclose()


@pytest.fixture
def keys() -> Keys:
    """Key names unlike the default ones, so that a forgotten prefix shows."""
    return Keys("test")
