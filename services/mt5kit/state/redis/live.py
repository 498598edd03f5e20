"""The newest state of a streamed account and its last messages, for every other replica."""

from collections.abc import Sequence

import msgspec

from mt5kit.errors import StaleToken
from mt5kit.state.redis.connection import Lua, RedisStore

LIVE_TTL_MS = 60_000
"""As long as a reader may resume; what is older has lost its owner."""

REPLAY_LENGTH = 500
"""Messages kept for resuming; the owner trims by bytes besides."""

Frame = tuple[int, bytes]
"""A state message: its seq and its encoded form."""

# A stale owner is one whose terminal, or whose account's stream, has seen a higher token.
_GUARD = """
local fence = tonumber(redis.call('GET', KEYS[2]) or '0')
local stored = redis.call('HMGET', KEYS[1], 'token', 'epoch', 'seq')
local token = tonumber(ARGV[1])
if fence > token or tonumber(stored[1] or '0') > token then return -1 end
"""

_PUBLISH = Lua(
    "-- KEYS live, fence, replay; ARGV token, epoch, seq, as_of, terminal, instance, payload, "
    "line, TTL ms, length, oldest seq, then seq and frame by turns"
    + _GUARD
    + """
local epoch, seen = tonumber(ARGV[2]), tonumber(stored[3] or '0')
if tonumber(stored[2] or '0') > epoch then return -1 end
if tonumber(stored[2] or '0') < epoch then
  redis.call('DEL', KEYS[3])
  seen = 0
end
if tonumber(ARGV[3]) >= seen then
  redis.call('HSET', KEYS[1], 'token', ARGV[1], 'epoch', ARGV[2], 'seq', ARGV[3],
    'as_of', ARGV[4], 'terminal', ARGV[5], 'instance', ARGV[6], 'payload', ARGV[7],
    'line', ARGV[8])
end
for i = 12, #ARGV, 2 do
  -- A frame that is there already comes from an attempt whose answer was lost.
  if tonumber(ARGV[i]) > seen then
    local id = ARGV[2] .. '-' .. ARGV[i]
    redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[10], id, 'm', ARGV[i + 1])
  end
end
redis.call('XTRIM', KEYS[3], 'MINID', ARGV[2] .. '-' .. ARGV[11])
redis.call('PEXPIRE', KEYS[1], ARGV[9])
redis.call('PEXPIRE', KEYS[3], ARGV[9])
return 1
"""
)

_TOUCH = Lua(
    "-- KEYS live, fence, replay; ARGV token, as_of, TTL ms"
    + _GUARD
    + """
if not stored[1] then return 0 end
redis.call('HSET', KEYS[1], 'as_of', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('PEXPIRE', KEYS[3], ARGV[3])
return 1
"""
)

_REPLAY = Lua("""
-- KEYS live, replay; ARGV epoch, after seq
local live = redis.call('HMGET', KEYS[1], 'epoch', 'seq')
if live[1] ~= ARGV[1] then return false end
local from = ARGV[1] .. '-' .. string.format('%.0f', tonumber(ARGV[2]) + 1)
return {live[2], redis.call('XRANGE', KEYS[2], from, '+')}
""")

_DROP = Lua("""
-- KEYS live, fence, replay; ARGV token
local fence = tonumber(redis.call('GET', KEYS[2]) or '0')
local held = tonumber(redis.call('HGET', KEYS[1], 'token') or '0')
if fence > tonumber(ARGV[1]) or held > tonumber(ARGV[1]) then return -1 end
return redis.call('DEL', KEYS[1], KEYS[3])
""")


class LiveState(msgspec.Struct, frozen=True):
    """What a stream stands at.

    `payload` is the newest look as JSON of `mt5kit.domain.snapshots.Snapshot`, one terminal turn;
    `as_of_ms` is the last successful look in UTC epoch milliseconds and moves without `seq`.
    `line` is the `snapshot` message of exactly `seq`, for sockets on other replicas: messages are
    spaced out, so it may be a moment behind the look.
    """

    epoch: int
    seq: int
    as_of_ms: int
    terminal_id: str
    instance_id: str
    payload: bytes
    line: bytes = b""


class LiveStore(RedisStore):
    """Live states. Every method raises `StateUnavailable` while Redis is away."""

    __slots__ = ()

    async def publish(
        self,
        account_id: str,
        token: int,
        state: LiveState,
        frames: Sequence[Frame],
        *,
        oldest_seq: int = 0,
    ) -> None:
        """Write the state and append the messages that led to it; harmless when repeated.

        Args:
            account_id: Whose stream.
            token: The writer's lease token.
            state: Where the stream stands after the frames.
            frames: State messages of `state.epoch`, in order.
            oldest_seq: Messages below it are dropped, so that the owner's byte bound holds here.

        Raises:
            StaleToken: A newer owner has been there.
        """
        body = (state.as_of_ms, state.terminal_id, state.instance_id, state.payload, state.line)
        bounds = (LIVE_TTL_MS, REPLAY_LENGTH, oldest_seq)
        flat = [part for frame in frames for part in frame]
        args = (token, state.epoch, state.seq, *body, *bounds, *flat)
        _refuse_stale(
            await self._run(_PUBLISH, self._guarded(account_id, state.terminal_id), *args)
        )

    async def touch(self, account_id: str, token: int, as_of_ms: int, terminal_id: str) -> bool:
        """Say that the state was still true at `as_of_ms`; False if there is none to touch.

        Raises:
            StaleToken: A newer owner has been there.
        """
        keys = self._guarded(account_id, terminal_id)
        answer = await self._run(_TOUCH, keys, token, as_of_ms, LIVE_TTL_MS)
        _refuse_stale(answer)
        return bool(answer)

    async def drop(self, account_id: str, token: int, terminal_id: str) -> None:
        """Remove the state of a stream that has ended.

        Raises:
            StaleToken: A newer owner has been there.
        """
        _refuse_stale(await self._run(_DROP, self._guarded(account_id, terminal_id), token))

    async def read(self, account_id: str) -> LiveState | None:
        """The newest state, None if nobody streams the account."""
        fields = ("epoch", "seq", "as_of", "terminal", "instance", "payload", "line")
        epoch, seq, as_of, terminal, instance, payload, line = await self._command(
            "HMGET", self._keys.live(account_id), *fields
        )
        if payload is None:
            return None
        return LiveState(
            int(epoch), int(seq), int(as_of), terminal.decode(), instance.decode(), payload, line
        )

    async def replay(self, account_id: str, epoch: int, after_seq: int) -> tuple[Frame, ...] | None:
        """Every message of the epoch after a seq, or None if they are not all there."""
        keys = (self._keys.live(account_id), self._keys.replay(account_id))
        answer = await self._run(_REPLAY, keys, epoch, after_seq)
        if answer is None:
            return None
        newest, entries = int(answer[0]), answer[1]
        frames = tuple((int(entry.split(b"-")[1]), fields[1]) for entry, fields in entries)
        wanted = range(after_seq + 1, newest + 1)
        whole = after_seq <= newest and [seq for seq, _ in frames] == list(wanted)
        return frames if whole else None

    def _guarded(self, account_id: str, terminal_id: str) -> tuple[str, str, str]:
        keys = self._keys
        return keys.live(account_id), keys.fence(terminal_id), keys.replay(account_id)


def _refuse_stale(answer: int) -> None:
    if answer == -1:
        raise StaleToken("a newer owner streams this account", retry_after_s=1)
