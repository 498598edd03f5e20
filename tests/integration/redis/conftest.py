"""A client and key names for the tests of the Redis stores."""

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from local_stack.embedded import EmbeddedRedis
from mt5kit.state.redis import Keys, open_redis


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    """An empty Redis, with the rights of a pool."""
    client = open_redis(redis_url)
    yield client
    await client.aclose()


@pytest.fixture
async def admin(redis_url: str, redis_server: EmbeddedRedis) -> AsyncIterator[Redis]:
    """The same, as somebody who may do anything to it."""
    client = open_redis(redis_server.admin_url)
    yield client
    await client.aclose()


@pytest.fixture
def keys() -> Keys:
    """Key names unlike the default ones, so that a forgotten prefix shows."""
    return Keys("mt5:test")
