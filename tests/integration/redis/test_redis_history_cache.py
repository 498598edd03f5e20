import msgspec
import pytest
from redis.asyncio import Redis

from mt5kit.errors import StaleToken
from mt5kit.state.redis import CachedPage, HistoryCache, Keys, LeaseStore, PlacementStore
from mt5kit.state.redis import history_cache as history_module


@pytest.fixture
def cache(redis: Redis, keys: Keys) -> HistoryCache:
    return HistoryCache(redis, keys)


@pytest.fixture
async def token(redis: Redis, keys: Keys) -> int:
    """Of a lease of T1, on which account 1 is placed."""
    await PlacementStore(redis, keys).place("1", ["T1"])
    lease = await LeaseStore(redis, keys).acquire("T1", "a")
    assert lease is not None
    return lease.token


def page(as_of_ms: int = 5, *, terminal: str = "T1", payload: bytes = b"[]") -> CachedPage:
    return CachedPage(as_of_ms, terminal, "api-1", 2**40, "Demo", payload)


async def test_pages_are_kept_by_kind_and_query(
    cache: HistoryCache, token: int, redis: Redis, admin: Redis, keys: Keys
) -> None:
    deals, orders = page(payload=bytes(range(256))), page(7)
    await cache.put("1", token, "deals", b"q\0", deals)
    await cache.put("1", token, "orders", b"q\0", orders)
    assert await cache.get("1", "deals", b"q\0") == deals
    assert await cache.get("1", "orders", b"q\0") == orders
    assert await cache.get("1", "deals", b"q") is None
    assert await cache.get("2", "deals", b"q\0") is None
    await cache.put("1", token, "deals", b"q\0", orders)
    assert await cache.get("1", "deals", b"q\0") == orders
    for key in (keys.pages("1"), keys.page_order("1")):
        assert 0 < await redis.pttl(key) <= 600_000
    await cache.drop("1")
    assert await cache.get("1", "orders", b"q\0") is None
    assert await admin.keys("*page*") == []


async def test_the_oldest_pages_make_room(
    cache: HistoryCache, token: int, redis: Redis, keys: Keys
) -> None:
    for number in range(70):
        await cache.put("1", token, "deals", b"%d" % number, page(number))
    # Kept anew, it is the newest.
    await cache.put("1", token, "deals", b"6", page(600))
    await cache.put("1", token, "deals", b"70", page(70))
    kept = [number for number in range(71) if await cache.get("1", "deals", b"%d" % number)]
    assert kept == [6, *range(8, 71)]
    assert await redis.hlen(keys.pages("1")) == await redis.zcard(keys.page_order("1")) == 64


async def test_pages_are_bounded_by_bytes(
    cache: HistoryCache, token: int, redis: Redis, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_module, "MOST_BYTES", 1_000)
    for number in range(4):
        await cache.put("1", token, "deals", b"%d" % number, page(payload=bytes(400)))
    assert await cache.get("1", "deals", b"0") is None
    assert await cache.get("1", "deals", b"1") is None
    assert await cache.get("1", "deals", b"2") is not None
    assert await cache.get("1", "deals", b"3") is not None
    await cache.put("1", token, "deals", b"3", page(9, payload=bytes(2_000)))
    # Too large for the cache: what was there says how old it is.
    assert await cache.get("1", "deals", b"3") == page(payload=bytes(400))
    assert await cache.get("1", "deals", b"2") is not None
    await cache.put("1", token, "deals", b"4", page(payload=bytes(900)))
    assert await redis.hlen(keys.pages("1")) == await redis.zcard(keys.page_order("1")) == 1


async def test_a_page_is_not_kept_alive_by_others(
    cache: HistoryCache, token: int, redis: Redis, keys: Keys
) -> None:
    await cache.put("1", token, "deals", b"old", page())
    [name] = await redis.hkeys(keys.pages("1"))
    await redis.zincrby(keys.page_order("1"), -600_001, name)
    assert await cache.get("1", "deals", b"old") is None
    await cache.put("1", token, "deals", b"new", page())
    assert name not in await redis.hkeys(keys.pages("1"))
    assert await cache.get("1", "deals", b"new") is not None


async def test_a_former_owner_writes_no_page(
    cache: HistoryCache, token: int, redis: Redis, keys: Keys
) -> None:
    leases = LeaseStore(redis, keys)
    newer = await leases.acquire("T1", "a")
    assert newer is not None
    with pytest.raises(StaleToken):
        await cache.put("1", token, "deals", b"q", page())
    assert await cache.get("1", "deals", b"q") is None
    await cache.put("1", newer.token, "deals", b"q", page())


async def test_a_terminal_the_account_has_left_writes_no_page(
    cache: HistoryCache, token: int, redis: Redis, keys: Keys
) -> None:
    await PlacementStore(redis, keys).place("1", ["T2"])
    with pytest.raises(StaleToken):
        await cache.put("1", token, "deals", b"q", page())
    there = msgspec.structs.replace(page(), terminal_id="T2")
    await cache.put("1", 1, "deals", b"q", there)
    assert await cache.get("1", "deals", b"q") == there
