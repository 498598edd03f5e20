"""Which stream terminal an account has to itself."""

from collections.abc import Mapping, Sequence

from mt5kit.errors import ServiceOverloaded
from mt5kit.state.redis.connection import Lua, RedisStore

STREAM_FULL_RETRY_AFTER_S = 30.0
"""An unwatched stream frees its terminal after this long, so that is when to ask again."""

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
                "every stream terminal is taken", retry_after_s=STREAM_FULL_RETRY_AFTER_S
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

    async def taken(self, terminals: Sequence[str]) -> int:
        """How many of these terminals are reserved for an account."""
        if not terminals:
            return 0
        return int(await self._command("EXISTS", *map(self._keys.occupant, terminals)))

    async def occupants(self, terminals: Sequence[str]) -> Mapping[str, str]:
        """The account of each of these terminals that is reserved; free ones are left out."""
        if not terminals:
            return {}
        accounts = await self._command("MGET", *map(self._keys.occupant, terminals))
        pairs = zip(terminals, accounts, strict=True)
        return {terminal: account.decode() for terminal, account in pairs if account}
