"""How often accounts are read, told to the owners of their terminals."""

from collections.abc import Mapping, Sequence

from mt5kit.state.redis.connection import Lua, RedisStore

DEMAND_TTL_MS = 60_000
"""Owners take it every second; what nobody took for a minute says nothing about now."""

_ADD = Lua("""
-- KEYS demand of each terminal; ARGV TTL ms, then for each: how many, and account, reads by turns
local at = 2
for _, key in ipairs(KEYS) do
  local last = at + 2 * ARGV[at]
  for i = at + 1, last, 2 do redis.call('HINCRBY', key, ARGV[i], ARGV[i + 1]) end
  redis.call('PEXPIRE', key, ARGV[1])
  at = last + 1
end
""")

_TAKE = Lua("""
-- KEYS demand of each terminal
local taken = {}
for i, key in ipairs(KEYS) do taken[i] = redis.call('HGETALL', key) end
if #KEYS > 0 then redis.call('DEL', unpack(KEYS)) end
return taken
""")


class DemandStore(RedisStore):
    """Reads by terminal and account. Every method raises `StateUnavailable` while Redis is away."""

    __slots__ = ()

    async def add(self, reads: Mapping[str, Mapping[str, int]]) -> None:
        """Count reads, by terminal and account; a lost answer may count them twice."""
        counted = {terminal: accounts for terminal, accounts in reads.items() if accounts}
        if not counted:
            return
        flat: list[str | int] = []
        for accounts in counted.values():
            flat.append(len(accounts))
            flat.extend(part for pair in accounts.items() for part in pair)
        keys = [self._keys.demand(terminal) for terminal in counted]
        await self._run(_ADD, keys, DEMAND_TTL_MS, *flat)

    async def take(self, terminals: Sequence[str]) -> Mapping[str, Mapping[str, int]]:
        """What was counted since the last take, of each terminal; it is then forgotten."""
        if not terminals:
            return {}
        keys = [self._keys.demand(terminal) for terminal in terminals]
        taken = await self._run(_TAKE, keys)
        return {
            terminal: {
                account.decode(): int(reads)
                for account, reads in zip(flat[::2], flat[1::2], strict=True)
            }
            for terminal, flat in zip(terminals, taken, strict=True)
        }
