"""No password is sent to a Redis outside its networks."""

from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest
from tests.named_servers import ELSEWHERE, HERE, INSIDE, Dns, Door, door_to

from mt5kit.networks import Networks
from mt5kit.state.redis import Keys, LeaseStore, RedisProbe, StateUnavailable, open_redis

NAME = "redis"


@pytest.fixture
def dns(monkeypatch: pytest.MonkeyPatch) -> Dns:
    dns = Dns({NAME: [HERE]})
    dns.rule(monkeypatch)
    return dns


@pytest.fixture
async def door(redis_url: str) -> AsyncIterator[Door]:
    async with door_to(urlsplit(redis_url).path) as door:
        yield door


def named(door: Door, redis_url: str) -> str:
    there = urlsplit(redis_url)
    return f"redis://{there.username}:{there.password}@{NAME}:{door.port}/0"


async def test_a_redis_inside_is_spoken_to_at_the_address_that_was_looked_at(
    dns: Dns, door: Door, redis_url: str
) -> None:
    # The first is no answer for us, the second is.
    dns.names[NAME] = ["203.0.113.9", HERE]
    redis = open_redis(named(door, redis_url), Networks(INSIDE))
    store = LeaseStore(redis, Keys("mt5:test"))
    assert await store.acquire("t-1", "api-1") is not None
    assert await store.replicas("api") == ()
    # Had the name been looked up once more to connect, somebody could answer otherwise then.
    assert (dns.asked, door.come) == ([NAME], 1)
    await redis.aclose()


async def test_a_redis_outside_is_not_connected_to(dns: Dns, door: Door, redis_url: str) -> None:
    redis = open_redis(named(door, redis_url), Networks(ELSEWHERE))
    with pytest.raises(StateUnavailable, match="redis resolves outside the permitted networks"):
        await RedisProbe(redis, Keys("mt5:test")).ping()
    assert NAME in dns.asked
    assert not door.come
    await redis.aclose()


async def test_every_connection_looks_the_name_up_anew(
    dns: Dns, door: Door, redis_url: str
) -> None:
    redis = open_redis(named(door, redis_url), Networks(INSIDE))
    probe = RedisProbe(redis, Keys("mt5:test"))
    await probe.ping()
    dns.names[NAME] = ["203.0.113.9"]
    # Whoever is connected stays so.
    await probe.ping()
    door.cut()
    with pytest.raises(StateUnavailable, match="outside"):
        await probe.ping()
    del dns.names[NAME]
    with pytest.raises(StateUnavailable, match="does not answer"):
        await probe.ping()
    dns.names[NAME] = [HERE]
    await probe.ping()
    assert door.come == 2
    await redis.aclose()


async def test_a_redis_behind_a_unix_socket_is_of_no_network(redis_url: str) -> None:
    redis = open_redis(redis_url, Networks(ELSEWHERE))
    await RedisProbe(redis, Keys("mt5:test")).ping()
    await redis.aclose()


def test_tls_and_networks_do_not_go_together() -> None:
    with pytest.raises(ValueError, match="TLS"):
        open_redis("rediss://redis:6379", Networks(INSIDE))
