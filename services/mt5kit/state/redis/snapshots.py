"""The last look of an API terminal at an account, for whichever replica is asked."""

import msgspec

from mt5kit.errors import StaleToken
from mt5kit.state.redis.connection import Lua, RedisStore

SNAPSHOT_TTL_MS = 600_000
"""Older than any age a caller is given unasked (60 s); callers may ask for more."""

_PUT = Lua("""
-- KEYS snapshot, fence, placements; ARGV token, account, as_of, terminal, instance, payload, TTL ms
if tonumber(redis.call('GET', KEYS[2]) or '0') > tonumber(ARGV[1]) then return 0 end
-- Tokens of different terminals do not compare: the place decides, and without one it has ended.
local placed = redis.call('HGET', KEYS[3], ARGV[2])
if placed ~= ARGV[4] then return 0 end
local stored = redis.call('HMGET', KEYS[1], 'terminal', 'token', 'as_of')
if stored[1] == ARGV[4] then
  if tonumber(stored[2]) > tonumber(ARGV[1]) then return 0 end
  if tonumber(stored[3]) > tonumber(ARGV[3]) then return 1 end
end
redis.call('HSET', KEYS[1], 'token', ARGV[1], 'as_of', ARGV[3], 'terminal', ARGV[4],
  'instance', ARGV[5], 'payload', ARGV[6])
redis.call('PEXPIRE', KEYS[1], ARGV[7])
return 1
""")


class CachedSnapshot(msgspec.Struct, frozen=True):
    """An encoded look. `as_of_ms` is when the terminal was looked at, UTC epoch milliseconds."""

    as_of_ms: int
    terminal_id: str
    instance_id: str
    payload: bytes


class SnapshotCache(RedisStore):
    """Looks by account. Every method raises `StateUnavailable` while Redis is away."""

    __slots__ = ()

    async def put(self, account_id: str, token: int, snapshot: CachedSnapshot) -> None:
        """Keep a look for ten minutes; an older one of the same terminal changes nothing.

        Args:
            account_id: Whose look.
            token: The lease token of the terminal it came from.
            snapshot: The look.

        Raises:
            StaleToken: The terminal has a newer owner, or the account is on another terminal.
        """
        keys = (
            self._keys.snapshot(account_id),
            self._keys.fence(snapshot.terminal_id),
            self._keys.placements("api"),
        )
        source = (snapshot.as_of_ms, snapshot.terminal_id, snapshot.instance_id)
        args = (token, account_id, *source, snapshot.payload, SNAPSHOT_TTL_MS)
        if not await self._run(_PUT, keys, *args):
            raise StaleToken("a newer owner serves this account", retry_after_s=1)

    async def get(self, account_id: str) -> CachedSnapshot | None:
        """The last look, however old within ten minutes."""
        as_of, terminal, instance, payload = await self._command(
            "HMGET", self._keys.snapshot(account_id), "as_of", "terminal", "instance", "payload"
        )
        if payload is None:
            return None
        return CachedSnapshot(int(as_of), terminal.decode(), instance.decode(), payload)

    async def drop(self, account_id: str) -> None:
        """Forget the look: the account was disconnected or deleted."""
        await self._command("DEL", self._keys.snapshot(account_id))
