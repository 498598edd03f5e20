"""Leases of terminals: one owner at a time, each with a higher token than the last."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence

import msgspec

from mt5kit.state.keys import Role
from mt5kit.state.redis.connection import MEMORY, Lua, RedisStore
from mt5kit.state.redis.subscription import ignore_standing, subscribed

LEASE_TTL_MS = 10_000
"""A dead owner's terminals are free again after this; four renewals fit into it."""

FENCE_TTL_MS = 7 * 24 * 3_600_000
"""The clock makes tokens grow anyway; the last token only guards against a clock set back."""

_ACQUIRE = Lua("""
-- KEYS lease, fence; ARGV owner, lease TTL ms, fence TTL ms, url
local holder = redis.call('HGET', KEYS[1], 'owner')
if holder and holder ~= ARGV[1] then return false end
local now = redis.call('TIME')
local token = now[1] * 1000000 + now[2]
local last = tonumber(redis.call('GET', KEYS[2]) or '0')
if last >= token then token = last + 1 end
local text = string.format('%.0f', token)
redis.call('SET', KEYS[2], text, 'PX', ARGV[3])
redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'token', text, 'url', ARGV[4])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return text
""")

_RENEW = Lua(
    "-- KEYS lease, fence, memory; ARGV owner, token, lease TTL ms, fence TTL ms, url, lapsed ms"
    + MEMORY
    + """
local lease = redis.call('HMGET', KEYS[1], 'owner', 'token')
if lease[1] then
  if lease[1] ~= ARGV[1] or lease[2] ~= ARGV[2] then return 0 end
  redis.call('PEXPIRE', KEYS[2], ARGV[4])
  return redis.call('PEXPIRE', KEYS[1], ARGV[3])
end
-- It ran out while Redis was away or was wiped. If nobody has had it since, it is still ours.
local last = redis.call('GET', KEYS[2])
if last and last ~= ARGV[2] then return 0 end
-- Whoever has had it while we had no right to it may have been forgotten.
local lapsed = tonumber(ARGV[6])
if lapsed > 0 and remembers_ms(KEYS[3]) < lapsed then return 0 end
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[4])
redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'token', ARGV[2], 'url', ARGV[5])
return redis.call('PEXPIRE', KEYS[1], ARGV[3])
"""
)

_RELEASE = Lua("""
-- KEYS lease; ARGV owner, token, channel of releases or ''
local lease = redis.call('HMGET', KEYS[1], 'owner', 'token')
if lease[1] ~= ARGV[1] or lease[2] ~= ARGV[2] then return 0 end
redis.call('DEL', KEYS[1])
if ARGV[3] ~= '' then redis.call('PUBLISH', ARGV[3], ARGV[1]) end
return 1
""")

_HOLDERS = Lua("""
-- KEYS leases
local holders = {}
for i, key in ipairs(KEYS) do
  holders[i] = redis.call('HMGET', key, 'owner', 'token', 'url')
end
return holders
""")

_ANNOUNCE = Lua(
    "-- KEYS replicas, memory; ARGV replica, window ms"
    + MEMORY
    + """
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
-- Asked in every round, so it is known since when nothing has been forgotten, or a round later.
return {remembers_ms(KEYS[2]), redis.call('ZRANGE', KEYS[1], 0, -1)}
"""
)


class Lease(msgspec.Struct, frozen=True):
    """The right to use a terminal.

    `token` fences off every earlier owner, and is below 2^53; `url` is where the owner answers
    the other replicas, empty if it does not.
    """

    terminal_id: str
    owner: str
    token: int
    url: str = ""


class Announced(msgspec.Struct, frozen=True):
    """What a replica learns when it says that it lives.

    `replicas` are all that were heard of within the window, sorted; `remembers_ms` is for how long
    Redis has forgotten nothing: if only since a moment, there may be more.
    """

    replicas: tuple[str, ...]
    remembers_ms: int


class LeaseStore(RedisStore):
    """Leases and the replicas that share them.

    Every method raises `StateUnavailable` while Redis is away; `acquire` and `announce` also
    while it is full.
    """

    __slots__ = ()

    async def acquire(
        self, terminal_id: str, owner: str, ttl_ms: int = LEASE_TTL_MS, url: str = ""
    ) -> Lease | None:
        """A lease with a new token, or None while another owner holds the terminal.

        An owner that already holds it gets a higher token too: that opens a new epoch.
        """
        keys = (self._keys.lease(terminal_id), self._keys.fence(terminal_id))
        token = await self._run(_ACQUIRE, keys, owner, ttl_ms, FENCE_TTL_MS, url)
        return Lease(terminal_id, owner, int(token), url) if token else None

    async def renew(self, lease: Lease, ttl_ms: int = LEASE_TTL_MS, *, lapsed_ms: int = 0) -> bool:
        """Whether the lease still stands, now for another `ttl_ms`; works in a full Redis.

        One that ran out is taken up again under its token if nobody has had the terminal since.
        An owner that has not believed in it all the while says for how long at most it may have
        had no right to it: if Redis has forgotten anything in that time, nobody knows.
        """
        terminal_id, names = lease.terminal_id, self._keys
        keys = (names.lease(terminal_id), names.fence(terminal_id), names.memory())
        args = (lease.owner, lease.token, ttl_ms, FENCE_TTL_MS, lease.url, lapsed_ms)
        return bool(await self._run(_RENEW, keys, *args))

    async def release(self, lease: Lease, role: Role | None = None) -> bool:
        """Give the terminal back; False if it was no longer ours.

        With a role, everybody who listens to its `releases` is told.
        """
        keys = (self._keys.lease(lease.terminal_id),)
        channel = self._keys.releases(role) if role else ""
        return bool(await self._run(_RELEASE, keys, lease.owner, lease.token, channel))

    async def releases(
        self, role: Role, stands: Callable[[], None] = ignore_standing
    ) -> AsyncIterator[str]:
        """The owner of each lease of a role that is given back, for ever; outlives Redis restarts.

        Args:
            role: Of the terminals.
            stands: Told whenever the subscription stands (again): releases before went unheard.
        """
        channel = self._keys.releases(role)
        async for _, owner in subscribed(self._redis, channel, stands):
            yield owner.decode()

    async def holder(self, terminal_id: str) -> Lease | None:
        """Who holds the terminal now."""
        return (await self.holders((terminal_id,))).get(terminal_id)

    async def holders(self, terminal_ids: Sequence[str]) -> Mapping[str, Lease]:
        """Who holds these terminals now; those that nobody holds are left out."""
        if not terminal_ids:
            return {}
        keys = [self._keys.lease(terminal_id) for terminal_id in terminal_ids]
        holders = zip(terminal_ids, await self._run(_HOLDERS, keys), strict=True)
        return {
            terminal_id: Lease(terminal_id, owner.decode(), int(token), (url or b"").decode())
            for terminal_id, (owner, token, url) in holders
            if owner
        }

    async def announce(self, role: Role, replica: str, window_ms: int) -> Announced:
        """Say that a replica lives; who else was heard of within the window."""
        keys = (self._keys.replicas(role), self._keys.memory())
        remembers_ms, members = await self._run(_ANNOUNCE, keys, replica, window_ms)
        return Announced(tuple(sorted(member.decode() for member in members)), remembers_ms)

    async def withdraw(self, role: Role, replica: str) -> None:
        """Say that a replica has gone, so that the others take over at once."""
        await self._command("ZREM", self._keys.replicas(role), replica)

    async def replicas(self, role: Role) -> tuple[str, ...]:
        """Every replica of a role that lives, sorted."""
        members = await self._command("ZRANGE", self._keys.replicas(role), 0, -1)
        return tuple(sorted(member.decode() for member in members))
