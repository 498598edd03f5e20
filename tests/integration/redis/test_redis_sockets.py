import asyncio

import pytest
from redis.asyncio import Redis

from mt5kit.state.redis import Keys, SocketCounts
from mt5kit.state.redis import sockets as sockets_module


@pytest.fixture
def counts(redis: Redis, keys: Keys) -> SocketCounts:
    return SocketCounts(redis, keys)


async def test_a_user_has_so_many_sockets_on_all_replicas(counts: SocketCounts) -> None:
    entered = await asyncio.gather(*(counts.enter("u", f"s{n}", 5, 30) for n in range(9)))
    assert sum(entered) == 5
    inside = f"s{entered.index(True)}"
    assert await counts.enter("u", inside, 5, 30)
    assert await counts.enter("v", "s0", 5, 30)
    for _ in range(2):
        await counts.leave("u", inside)
    assert await counts.enter("u", "late", 5, 30)
    assert not await counts.enter("u", "later", 5, 30)


async def test_a_socket_nobody_renews_counts_no_more(
    counts: SocketCounts, redis: Redis, keys: Keys
) -> None:
    for name in ("kept", "lost"):
        assert await counts.enter("u", name, 2, 30)
    assert 0 < await redis.pttl(keys.sockets("u")) <= 30_000
    # As if their time were over.
    for name in ("kept", "lost"):
        await redis.zincrby(keys.sockets("u"), -30_001, name)
    await counts.renew({"u": ["kept"]}, 60)
    assert await redis.zrange(keys.sockets("u"), 0, -1) == [b"kept"]
    assert 30_000 < await redis.pttl(keys.sockets("u")) <= 60_000
    assert await counts.enter("u", "new", 2, 30)
    # The longer life is not cut short.
    assert await redis.pttl(keys.sockets("u")) > 30_000
    assert not await counts.enter("u", "newer", 2, 30)


async def test_renewing_brings_back_what_redis_forgot(
    counts: SocketCounts, redis: Redis, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets_module, "USERS_PER_SCRIPT", 2)
    users = {f"u{n}": [f"{n}-{m}" for m in range(n)] for n in range(5)}
    await counts.renew(users, 30)
    for user, sockets in users.items():
        found = await redis.zrange(keys.sockets(user), 0, -1)
        assert sorted(found) == [name.encode() for name in sockets]
    await counts.renew({}, 30)


async def test_sockets_are_counted_while_redis_is_full(counts: SocketCounts, admin: Redis) -> None:
    try:
        await admin.config_set("maxmemory", "1")
        assert await counts.enter("u", "a", 1, 30)
        assert not await counts.enter("u", "b", 1, 30)
        await counts.renew({"u": ["a"], "v": ["c"]}, 30)
        await counts.leave("u", "a")
        assert await counts.enter("u", "b", 1, 30)
    finally:
        await admin.config_set("maxmemory", "0")
