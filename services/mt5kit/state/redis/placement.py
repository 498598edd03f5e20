"""Which terminal an account is on."""

from collections.abc import Sequence

from redis.asyncio import Redis

from mt5kit.errors import ServiceOverloaded
from mt5kit.state.keys import Keys, Role
from mt5kit.state.redis.connection import Lua, RedisStore

FULL_RETRY_AFTER_S = 30.0
"""An unwatched stream frees its terminal after this long, so that is when to ask again."""

_PLACE = Lua("""
-- KEYS placements; ARGV account, sessions prefix, capacity, terminals...
local placed = redis.call('HGET', KEYS[1], ARGV[1])
local best, fewest
for i = 4, #ARGV do
  if ARGV[i] == placed then return placed end
  local count = redis.call('SCARD', ARGV[2] .. ARGV[i])
  if count < tonumber(ARGV[3]) and (not fewest or count < fewest) then
    best, fewest = ARGV[i], count
  end
end
if not best then return false end
if placed then redis.call('SREM', ARGV[2] .. placed, ARGV[1]) end
redis.call('SADD', ARGV[2] .. best, ARGV[1])
redis.call('HSET', KEYS[1], ARGV[1], best)
return best
""")

_REMOVE = Lua("""
-- KEYS placements; ARGV account, sessions prefix
local placed = redis.call('HGET', KEYS[1], ARGV[1])
if not placed then return 0 end
redis.call('SREM', ARGV[2] .. placed, ARGV[1])
return redis.call('HDEL', KEYS[1], ARGV[1])
""")

_RESERVE = Lua("""
-- KEYS stream_of the account; ARGV account, occupant prefix, lease prefix, TTL ms, terminals...
local had = redis.call('GET', KEYS[1])
local leased, idle
for i = 5, #ARGV do
  local occupant = redis.call('GET', ARGV[2] .. ARGV[i])
  if ARGV[i] == had and (not occupant or occupant == ARGV[1]) then
    leased = had
    break
  end
  if not occupant then
    if redis.call('EXISTS', ARGV[3] .. ARGV[i]) == 1 then leased = leased or ARGV[i]
    else idle = idle or ARGV[i] end
  end
end
local chosen = leased or idle
if not chosen then return false end
if had and had ~= chosen and redis.call('GET', ARGV[2] .. had) == ARGV[1] then
  redis.call('DEL', ARGV[2] .. had)
end
redis.call('SET', ARGV[2] .. chosen, ARGV[1], 'PX', ARGV[4])
redis.call('SET', KEYS[1], chosen, 'PX', ARGV[4])
return chosen
""")

_REFRESH = Lua("""
-- KEYS stream_of the account, occupant of the terminal; ARGV account, terminal, TTL ms
local terminal, occupant = redis.call('GET', KEYS[1]), redis.call('GET', KEYS[2])
if terminal == ARGV[2] and occupant == ARGV[1] then
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
  return redis.call('PEXPIRE', KEYS[2], ARGV[3])
end
if (terminal and terminal ~= ARGV[2]) or (occupant and occupant ~= ARGV[1]) then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[3])
return 1
""")

_FREE = Lua("""
-- KEYS stream_of the account; ARGV account, occupant prefix, terminal or ''
local terminal = redis.call('GET', KEYS[1])
if ARGV[3] ~= '' and terminal ~= ARGV[3] then
  if redis.call('GET', ARGV[2] .. ARGV[3]) ~= ARGV[1] then return 0 end
  return redis.call('DEL', ARGV[2] .. ARGV[3])
end
if not terminal then return 0 end
if redis.call('GET', ARGV[2] .. terminal) == ARGV[1] then
  redis.call('DEL', ARGV[2] .. terminal)
end
return redis.call('DEL', KEYS[1])
""")


class PlacementStore(RedisStore):
    """Accounts that share terminals by turns: the API role, and the market role if it needs to.

    Every method raises `StateUnavailable` while Redis is away.
    """

    __slots__ = ("_role",)

    def __init__(self, redis: Redis, keys: Keys, role: Role = "api") -> None:
        super().__init__(redis, keys)
        self._role: Role = role

    async def place(
        self, account_id: str, terminals: Sequence[str], *, capacity: int = 2**31
    ) -> str:
        """The account's terminal: the one it has if that is a candidate, else the emptiest.

        Args:
            account_id: The caller's identifier.
            terminals: Candidates; of equally empty ones the first is taken.
            capacity: Sessions a terminal may have; an account already placed stays regardless.

        Raises:
            ServiceOverloaded: There is no candidate with room.
        """
        prefix = self._keys.sessions(self._role, "")
        keys = (self._keys.placements(self._role),)
        terminal = await self._run(_PLACE, keys, account_id, prefix, capacity, *terminals)
        if terminal is None:
            raise ServiceOverloaded("no terminal has room", retry_after_s=FULL_RETRY_AFTER_S)
        return str(terminal, "utf-8")

    async def where(self, account_id: str) -> str | None:
        """The terminal an account is placed on."""
        terminal = await self._command("HGET", self._keys.placements(self._role), account_id)
        return terminal.decode() if terminal else None

    async def remove(self, account_id: str) -> bool:
        """Forget an account's place; False if it had none."""
        prefix = self._keys.sessions(self._role, "")
        keys = (self._keys.placements(self._role),)
        return bool(await self._run(_REMOVE, keys, account_id, prefix))


class StreamPlacementStore(RedisStore):
    """Streamed accounts: one to a terminal, for as long as somebody refreshes it.

    Every method raises `StateUnavailable` while Redis is away.
    """

    __slots__ = ()

    async def reserve(self, account_id: str, terminals: Sequence[str], ttl_s: float) -> str:
        """A stream terminal for the account alone: the one it has, else a free one.

        Terminals that somebody leases come first.

        Raises:
            ServiceOverloaded: None is free.
        """
        prefixes = (self._keys.occupant(""), self._keys.lease(""))
        keys, ttl_ms = (self._keys.stream_of(account_id),), round(ttl_s * 1000)
        terminal = await self._run(_RESERVE, keys, account_id, *prefixes, ttl_ms, *terminals)
        if terminal is None:
            raise ServiceOverloaded(
                "every stream terminal is taken", retry_after_s=FULL_RETRY_AFTER_S
            )
        return str(terminal, "utf-8")

    async def refresh(self, account_id: str, terminal_id: str, ttl_s: float) -> bool:
        """Keep a reservation, or take it up again if it ran out; False if it is another's."""
        keys = (self._keys.stream_of(account_id), self._keys.occupant(terminal_id))
        return bool(await self._run(_REFRESH, keys, account_id, terminal_id, round(ttl_s * 1000)))

    async def free(self, account_id: str, terminal_id: str = "") -> bool:
        """Give the account's terminal (or only that one, if named) to whoever comes next."""
        keys = (self._keys.stream_of(account_id),)
        return bool(await self._run(_FREE, keys, account_id, self._keys.occupant(""), terminal_id))

    async def where(self, account_id: str) -> str | None:
        """The stream terminal reserved for an account."""
        terminal = await self._command("GET", self._keys.stream_of(account_id))
        return terminal.decode() if terminal else None
