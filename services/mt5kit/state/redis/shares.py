"""Rate limits of the whole service, divided among the replicas that are asked."""

from collections.abc import Mapping
from typing import Literal

from mt5kit.state.redis.connection import NOW_MS, Lua, RedisStore

SHARE_TTL_MS = 3_000
"""Replicas ask every second: after three silent ones nobody reads through that replica."""

CALLERS_PER_SCRIPT = 200
"""A script of so many callers and ten replicas holds Redis up for a few milliseconds."""

Kind = Literal["key", "account"]
"""Whose rate: an API key's, or an account's."""

_SHARE = Lua(
    "-- KEYS share of each caller; ARGV replica, rate, TTL ms, then the demand of each"
    + NOW_MS
    + """
local rate, ttl = tonumber(ARGV[2]), tonumber(ARGV[3])
local function granted(key, mine)
  redis.call('HSET', key, ARGV[1], mine .. ' ' .. string.format('%.0f', now))
  redis.call('PEXPIRE', key, ttl)
  local asked, total = {}, 0
  local flat = redis.call('HGETALL', key)
  for i = 1, #flat, 2 do
    local demand, at = string.match(flat[i + 1], '(%S+) (%S+)')
    if tonumber(at) > now - ttl then
      asked[#asked + 1] = tonumber(demand)
      total = total + tonumber(demand)
    else
      redis.call('HDEL', key, flat[i])
    end
  end
  mine = tonumber(mine)
  if total <= rate then return mine + (rate - total) / #asked end
  -- The smaller demands are met; what is left is divided equally among the larger ones.
  table.sort(asked)
  local left = rate
  for i, demand in ipairs(asked) do
    local level = left / (#asked - i + 1)
    if demand >= level then return math.min(mine, level) end
    left = left - demand
  end
  return mine
end
local answer = {}
for i, key in ipairs(KEYS) do answer[i] = string.format('%.17g', granted(key, ARGV[i + 3])) end
return answer
"""
)


class ShareStore(RedisStore):
    """Demands of the replicas, by caller. Raises `StateUnavailable` while Redis is away or full."""

    __slots__ = ()

    async def share(
        self, kind: Kind, replica: str, demands: Mapping[str, float], rate: float
    ) -> Mapping[str, float]:
        """Say what a replica needs of each caller's rate; what it may let through.

        Demands below the rate are met and the rest is divided equally, so a replica that is
        alone has the whole rate. Of demands above it the smaller are met first. Grants of the
        replicas that asked within 3 s add up to the rate; when one joins or asks for more, that
        is true again as soon as the others have asked once more. One round trip for every 200
        callers.

        Args:
            kind: Whose rate.
            replica: Who asks.
            demands: Requests per second, by the caller's identifier (never a secret).
            rate: Requests per second that each caller may make on all replicas together.

        Raises:
            ValueError: A demand or the rate is negative or no number.
        """
        if not (rate >= 0 and all(demand >= 0 for demand in demands.values())):
            raise ValueError("rate and demands are numbers from 0")
        grants: dict[str, float] = {}
        everyone = list(demands.items())
        for start in range(0, len(everyone), CALLERS_PER_SCRIPT):
            some = everyone[start : start + CALLERS_PER_SCRIPT]
            keys = [self._keys.share(kind, caller) for caller, _ in some]
            asked = [format(demand, ".6g") for _, demand in some]
            answer = await self._run(_SHARE, keys, replica, repr(rate), SHARE_TTL_MS, *asked)
            grants.update(
                (caller, float(grant)) for (caller, _), grant in zip(some, answer, strict=True)
            )
        return grants
