"""Pages of history, for whichever replica is asked."""

import hashlib

import msgspec

from mt5kit.errors import StaleToken
from mt5kit.state.redis.connection import NOW_MS, Lua, RedisStore

PAGE_TTL_MS = 600_000
"""As long as a snapshot is kept; callers say what age they take."""

MOST_PAGES = 64
"""Of an account: more queries than a screen of charts and tables asks."""

MOST_BYTES = 4 * 1024 * 1024
"""Of an account: 400 of them that all fill it are 1.6 GB, which a 3 GB Redis can hold."""

_PUT = Lua(
    "-- KEYS pages, page order, fence, placements; "
    "ARGV token, account, terminal, page, encoded, TTL ms, most pages, most bytes"
    + NOW_MS
    + """
if tonumber(redis.call('GET', KEYS[3]) or '0') > tonumber(ARGV[1]) then return 0 end
-- Tokens of different terminals do not compare: the place decides, and without one it has ended.
local placed = redis.call('HGET', KEYS[4], ARGV[2])
if placed ~= ARGV[3] then return 0 end
redis.call('HSET', KEYS[1], ARGV[4], ARGV[5])
-- Of two pages of one millisecond the later one is the newer.
redis.call('ZADD', KEYS[2], now + clock[2] % 1000 / 1000, ARGV[4])
redis.call('PEXPIRE', KEYS[1], ARGV[6])
redis.call('PEXPIRE', KEYS[2], ARGV[6])
local newest_first = redis.call('ZREVRANGE', KEYS[2], 0, -1, 'WITHSCORES')
local pages, bytes = 0, 0
for i = 1, #newest_first, 2 do
  local page = newest_first[i]
  pages = pages + 1
  bytes = bytes + redis.call('HSTRLEN', KEYS[1], page)
  local old = tonumber(newest_first[i + 1]) <= now - ARGV[6]
  if old or pages > tonumber(ARGV[7]) or bytes > tonumber(ARGV[8]) then
    redis.call('HDEL', KEYS[1], page)
    redis.call('ZREM', KEYS[2], page)
  end
end
return 1
"""
)

_GET = Lua(
    "-- KEYS pages, page order; ARGV page, TTL ms"
    + NOW_MS
    + """
local kept = redis.call('ZSCORE', KEYS[2], ARGV[1])
if not kept or tonumber(kept) <= now - ARGV[2] then return false end
return redis.call('HGET', KEYS[1], ARGV[1])
"""
)


class CachedPage(msgspec.Struct, frozen=True, array_like=True):
    """An encoded page of history.

    `as_of_ms` is when the terminal answered, UTC epoch milliseconds; the identity is the login and
    the server that the terminal said it answered for.
    """

    as_of_ms: int
    terminal_id: str
    instance_id: str
    identity_login: int
    identity_server: str
    payload: bytes


class HistoryCache(RedisStore):
    """Pages by account, kind and query. Raises `StateUnavailable` while Redis is away."""

    __slots__ = ()

    async def get(self, account_id: str, kind: str, query_key: bytes) -> CachedPage | None:
        """The page kept for a query within the last ten minutes, unless others displaced it."""
        keys = (self._keys.pages(account_id), self._keys.page_order(account_id))
        encoded = await self._run(_GET, keys, _page(kind, query_key), PAGE_TTL_MS)
        return None if encoded is None else msgspec.msgpack.decode(encoded, type=CachedPage)

    async def put(
        self, account_id: str, token: int, kind: str, query_key: bytes, page: CachedPage
    ) -> None:
        """Keep a page for ten minutes; the oldest of the account make room for it.

        A page larger than all that an account may keep changes nothing.

        Args:
            account_id: Whose page.
            token: The lease token of the terminal it came from.
            kind: What it is a page of, e.g. `deals`.
            query_key: Everything that tells this query from others, in any encoding.
            page: The page.

        Raises:
            StaleToken: The terminal has a newer owner, or the account is on another terminal.
            StateUnavailable: Redis is away or full.
        """
        keys = (
            self._keys.pages(account_id),
            self._keys.page_order(account_id),
            self._keys.fence(page.terminal_id),
            self._keys.placements("api"),
        )
        encoded = msgspec.msgpack.encode(page)
        if len(encoded) > MOST_BYTES:
            return
        source = (token, account_id, page.terminal_id, _page(kind, query_key), encoded)
        if not await self._run(_PUT, keys, *source, PAGE_TTL_MS, MOST_PAGES, MOST_BYTES):
            raise StaleToken("a newer owner serves this account", retry_after_s=1)

    async def drop(self, account_id: str) -> None:
        """Forget every page: the account was disconnected or deleted."""
        await self._command("DEL", self._keys.pages(account_id), self._keys.page_order(account_id))


def _page(kind: str, query_key: bytes) -> str:
    return f"{kind}:{hashlib.sha256(query_key).hexdigest()}"
