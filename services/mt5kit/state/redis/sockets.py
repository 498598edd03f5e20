"""How many sockets a user has open, on all replicas together."""

from collections.abc import Mapping, Sequence

from mt5kit.state.redis.connection import NOW_MS, Lua, RedisStore

USERS_PER_SCRIPT = 200
"""A script of so many users with a few sockets each holds Redis up for about a millisecond."""

# Both begin with a write that needs no memory: a full Redis then takes the few bytes that follow.
_ENTER = Lua(
    "-- KEYS sockets of the user; ARGV socket, most, TTL ms"
    + NOW_MS
    + """
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
local known = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not known and redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[2]) then return 0 end
redis.call('ZADD', KEYS[1], now + ARGV[3], ARGV[1])
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[3]) then
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
end
return 1
"""
)

_RENEW = Lua(
    "-- KEYS sockets of each user; ARGV TTL ms, then for each: how many, and the sockets"
    + NOW_MS
    + """
local at = 2
for _, key in ipairs(KEYS) do
  local last = at + ARGV[at]
  redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
  for i = at + 1, last do redis.call('ZADD', key, now + ARGV[1], ARGV[i]) end
  if redis.call('PTTL', key) < tonumber(ARGV[1]) then redis.call('PEXPIRE', key, ARGV[1]) end
  at = last + 1
end
"""
)


class SocketCounts(RedisStore):
    """Open sockets by user, each for as long as somebody renews it.

    Every method raises `StateUnavailable` while Redis is away; all work while it is full.
    Repeating any call is harmless.
    """

    __slots__ = ()

    async def enter(self, user_id: str, socket_id: str, most: int, ttl_s: float) -> bool:
        """Count a socket, unless its user has `most` others; False if so."""
        keys = (self._keys.sockets(user_id),)
        return bool(await self._run(_ENTER, keys, socket_id, most, round(ttl_s * 1000)))

    async def renew(self, open_sockets: Mapping[str, Sequence[str]], ttl_s: float) -> None:
        """Keep these sockets counted for another `ttl_s`, by user; what was forgotten returns."""
        everyone = [(user, sockets) for user, sockets in open_sockets.items() if sockets]
        for start in range(0, len(everyone), USERS_PER_SCRIPT):
            some = everyone[start : start + USERS_PER_SCRIPT]
            keys = [self._keys.sockets(user) for user, _ in some]
            flat: list[str | int] = []
            for _, sockets in some:
                flat += (len(sockets), *sockets)
            await self._run(_RENEW, keys, round(ttl_s * 1000), *flat)

    async def leave(self, user_id: str, socket_id: str) -> None:
        """Count a socket no more."""
        await self._command("ZREM", self._keys.sockets(user_id), socket_id)
