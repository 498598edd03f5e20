"""What every replica knows about the terminals of a role."""

from collections.abc import Mapping

import msgspec
from redis.asyncio import Redis

from mt5kit.state.keys import Keys, Role
from mt5kit.state.redis.connection import NOW_MS, Lua, RedisStore

BOARD_TTL_MS = 60_000
"""Owners publish every second; a terminal nobody spoke of for a minute is nobody's."""

_PUBLISH = Lua(
    "-- KEYS board; ARGV TTL ms, then terminal and entry by turns"
    + NOW_MS
    + """
for i = 2, #ARGV, 2 do
  redis.call('HSET', KEYS[1], ARGV[i], string.format('%.0f ', now) .. ARGV[i + 1])
end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
"""
)

_READ = Lua(
    "-- KEYS board; ARGV TTL ms"
    + NOW_MS
    + """
local fresh = {}
local flat = redis.call('HGETALL', KEYS[1])
for i = 1, #flat, 2 do
  if tonumber(string.match(flat[i + 1], '%d+')) < now - ARGV[1] then
    redis.call('HDEL', KEYS[1], flat[i])
  else
    fresh[#fresh + 1], fresh[#fresh + 2] = flat[i], flat[i + 1]
  end
end
return fresh
"""
)


class TerminalEntry(msgspec.Struct, frozen=True):
    """What its owner says of a terminal.

    Args:
        owner: The replica that holds its lease; empty if its last owner has laid it down.
        up: Whether it takes turns.
        since_ms: Since when it is up or not, UTC epoch ms.
        switch_ms: What changing the account costs, measured; None when not yet known.
        waiting: Turns queued.
        at_ms: When this was published, UTC epoch ms; Redis says it, whatever is given.
        draining: Whether it is about to end, so that it takes no more accounts.
    """

    owner: str
    up: bool
    since_ms: int
    switch_ms: int | None
    waiting: int
    at_ms: int = 0
    draining: bool = False

    @property
    def open(self) -> bool:
        """Whether it takes accounts."""
        return self.up and not self.draining


class BoardStore(RedisStore):
    """The board of a role. Every method raises `StateUnavailable` while Redis is away."""

    __slots__ = ("_role",)

    def __init__(self, redis: Redis, keys: Keys, role: Role = "api") -> None:
        super().__init__(redis, keys)
        self._role: Role = role

    async def publish(self, entries: Mapping[str, TerminalEntry]) -> None:
        """Say how terminals are, by terminal id."""
        if not entries:
            return
        flat = [
            part
            for terminal, entry in entries.items()
            for part in (terminal, msgspec.json.encode(entry))
        ]
        await self._run(_PUBLISH, (self._keys.board(self._role),), BOARD_TTL_MS, *flat)

    async def read(self) -> Mapping[str, TerminalEntry]:
        """The last word on each terminal that was spoken of within the last minute."""
        flat = await self._run(_READ, (self._keys.board(self._role),), BOARD_TTL_MS)
        return {
            terminal.decode(): _entry(stamped)
            for terminal, stamped in zip(flat[::2], flat[1::2], strict=True)
        }


def _entry(stamped: bytes) -> TerminalEntry:
    at_ms, _, encoded = stamped.partition(b" ")
    entry = msgspec.json.decode(encoded, type=TerminalEntry)
    return msgspec.structs.replace(entry, at_ms=int(at_ms))
