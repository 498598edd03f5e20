"""How often a broker's server is asked to log somebody in."""

from mt5kit.state.redis.connection import Lua, RedisStore

BURST_S = 10.0
"""Logins saved up while nobody logs in: a few reads start at once, brokers see no flood."""

SPARED = 0.25
"""Of the burst, for logins that somebody waits for."""

_TAKE = Lua("""
-- KEYS logins of the server; ARGV µs between logins, burst in logins, logins to leave
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local between, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
-- The generic cell rate algorithm: the time at which the bucket is full again says it all.
local full = math.max(tonumber(redis.call('GET', KEYS[1]) or '0'), now) + between
local wait = full - now - (burst - ARGV[3]) * between
if wait > 0 then return math.ceil(wait) end
redis.call('SET', KEYS[1], string.format('%.0f', math.ceil(full)),
  'PX', math.ceil((full - now) / 1000))
return 0
""")


class LoginBudgetStore(RedisStore):
    """One token bucket per broker server, and one per user who connects, by the clock of Redis.

    Raises `StateUnavailable` while Redis is away or full: then nobody may log in on this account
    unless the caller keeps a budget of its own.
    """

    __slots__ = ()

    async def take(self, server: str, per_minute: float, *, spare: bool) -> float:
        """Ask for one login; 0.0 if it is granted, else the seconds after which to ask again.

        Never more than `per_minute` a minute and 10 s' worth at once (one at least) are granted.

        Args:
            server: The broker's server.
            per_minute: Logins a minute, above 0.
            spare: For a login nobody waits for: a quarter of the burst must be left after it (of
                a burst of one login, which has no quarter to leave, it may take that one).

        Raises:
            ValueError: `per_minute` is not above 0.
        """
        if not per_minute > 0:
            raise ValueError("logins per minute are above 0")
        burst = max(1.0, per_minute / 60 * BURST_S)
        left = min(SPARED * burst, burst - 1) if spare else 0.0
        between_us = 60e6 / per_minute
        return await self._taken(self._keys.logins(server), between_us, burst, left)

    async def take_connect(self, user_id: str, per_minute: float) -> float:
        """Ask for one connect of a user; as `take`, with a minute's worth at once."""
        burst = max(1.0, per_minute)
        return await self._taken(self._keys.connects(user_id), 60e6 / per_minute, burst, 0.0)

    async def _taken(self, key: str, between_us: float, burst: float, left: float) -> float:
        args = (repr(between_us), repr(burst), repr(left))
        return int(await self._run(_TAKE, (key,), *args)) / 1e6
