"""What is atomic about a live line: the Lua behind `LiveStore`.

A full Redis refuses what may need memory only as a script's first write. So publishing begins with
such a write, and renewing with one that needs none.
"""

from mt5kit.state.redis.connection import LIFE, MEMORY, NOW_MS, Lua

# A stale owner is one whose terminal, or whose account's stream, has seen a higher token. What is
# left of a stream that has ended is the token that ended it.
_GUARD = """
local fence = tonumber(redis.call('GET', KEYS[2]) or '0')
local stored = redis.call('HMGET', KEYS[1],
  'token', 'epoch', 'seq', 'as_of', 'life', 'handed', 'ended')
local token, ended = tonumber(ARGV[1]), tonumber(stored[7] or '0')
if fence > token or tonumber(stored[1] or '0') > token or ended > token then return -1 end
"""

_RELAY = (
    NOW_MS
    + """
local function relay(watching, interest_ms, channels, message)
  local since = '(' .. string.format('%.0f', now - interest_ms)
  for _, replica in ipairs(redis.call('ZRANGEBYSCORE', watching, since, '+inf')) do
    redis.call('PUBLISH', channels .. replica, message)
  end
end
"""
)

PUBLISH = Lua(
    "-- KEYS live, fence, replay, watching; ARGV token, epoch, seq, as_of, terminal, instance, "
    "payload, told, TTL ms, oldest seq, interest ms, channels, account, then seq, head, text of "
    "each frame"
    + _GUARD
    + LIFE
    + _RELAY
    + """
local epoch, seq, as_of = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local known, seen = tonumber(stored[2] or '0'), tonumber(stored[3] or '0')
local fresh = known < epoch
if fresh then seen = 0 end
-- Who is behind its own line has opened an epoch twice, or was given up long ago.
if known > epoch or seq < seen then return -1 end
-- An account that was deleted does not come back with a call that was given up.
if ended == token then return -1 end
-- A call that was given up may arrive after the next one. What was written in an earlier life of
-- Redis must be written again, also by an owner that has not looked yet.
if fresh or seq > seen or as_of >= tonumber(stored[4]) or stored[5] ~= life() then
  redis.call('HSET', KEYS[1], 'token', ARGV[1], 'epoch', ARGV[2], 'seq', ARGV[3],
    'as_of', ARGV[4], 'terminal', ARGV[5], 'instance', ARGV[6], 'payload', ARGV[7],
    'told', ARGV[8], 'life', life())
  redis.call('HDEL', KEYS[1], 'handed', 'ended')
end
redis.call('PEXPIRE', KEYS[1], ARGV[9])
if fresh then relay(KEYS[4], ARGV[11], ARGV[12], 'look\\n' .. ARGV[13] .. '\\n' .. ARGV[2]) end
local added = false
for i = 14, #ARGV, 3 do
  -- A frame that is there already comes from an attempt whose answer was lost.
  if tonumber(ARGV[i]) > seen then
    local head, text = ARGV[i + 1], ARGV[i + 2]
    redis.call('XADD', KEYS[3], ARGV[2] .. '-' .. ARGV[i], 'h', head, 't', text)
    relay(KEYS[4], ARGV[11], ARGV[12], table.concat(
      {'frame', ARGV[13], ARGV[2], ARGV[i], #head, head .. text}, '\\n'))
    added = true
  end
end
-- This also ends what is left of an earlier epoch.
redis.call('XTRIM', KEYS[3], 'MINID', ARGV[2] .. '-' .. ARGV[10])
if added then redis.call('PEXPIRE', KEYS[3], ARGV[9]) end
return 1
"""
)

TOUCH = Lua(
    "-- KEYS live, fence; ARGV token, as_of, TTL ms"
    + _GUARD
    + LIFE
    + """
if stored[1] ~= ARGV[1] or stored[5] ~= life() then return 0 end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
if tonumber(ARGV[2]) > tonumber(stored[4]) then redis.call('HSET', KEYS[1], 'as_of', ARGV[2]) end
return 1
"""
)

DROP = Lua(
    "-- KEYS live, fence, replay, watching; ARGV token, TTL ms, interest ms, channels, "
    "account"
    + _GUARD
    + _RELAY
    + """
redis.call('DEL', KEYS[1], KEYS[3])
redis.call('HSET', KEYS[1], 'ended', ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
if stored[2] then relay(KEYS[4], ARGV[3], ARGV[4], 'look\\n' .. ARGV[5] .. '\\n0') end
return 1
"""
)

HAND_OVER = Lua(
    "-- KEYS live, fence; ARGV token, epoch, seq, TTL ms"
    + _GUARD
    + LIFE
    + """
if stored[1] ~= ARGV[1] or stored[2] ~= ARGV[2] or stored[3] ~= ARGV[3] then return 0 end
-- A call repeated after a restart may find a state from before the next owner.
local now_living = life()
if stored[5] ~= now_living then return 0 end
redis.call('PEXPIRE', KEYS[1], ARGV[4])
redis.call('HSET', KEYS[1], 'handed', now_living)
return 1
"""
)

TAKE_OVER = Lua(
    "-- KEYS live, fence, replay, memory; ARGV token, TTL ms"
    + _GUARD
    + MEMORY
    + """
-- From here on every earlier owner is refused, on whichever terminal it polls.
redis.call('HDEL', KEYS[1], 'handed')
redis.call('HSET', KEYS[1], 'token', ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
local remembers = remembers_ms(KEYS[4])
if not stored[6] or stored[6] ~= life() then return {remembers} end
local frames = redis.call('XRANGE', KEYS[3], stored[2] .. '-0', stored[2] .. '-' .. stored[3])
return {remembers, stored[2], stored[3], redis.call('HGET', KEYS[1], 'told'), frames}
"""
)

FOLLOW = Lua(
    "-- KEYS live, replay, watching; ARGV replica, interest ms, epoch, after seq"
    + NOW_MS
    + LIFE
    + """
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now - ARGV[2])
redis.call('ZADD', KEYS[3], now, ARGV[1])
redis.call('PEXPIRE', KEYS[3], ARGV[2])
local live = redis.call('HMGET', KEYS[1], 'epoch', 'seq', 'as_of', 'instance', 'life')
-- An older file may tell of an epoch that ended long ago, as it stood before that.
if not live[1] or live[5] ~= life() then return false end
local same, last, after = live[1] == ARGV[3], tonumber(live[2]), tonumber(ARGV[4])
local first, told = string.format('%.0f', same and after + 1 or 0), false
local frames = redis.call('XRANGE', KEYS[2], live[1] .. '-' .. first, live[1] .. '-' .. live[2])
if not same or #frames < last - after then told = redis.call('HGET', KEYS[1], 'told') end
return {live[1], live[2], live[3], live[4], told, frames, redis.call('PTTL', KEYS[1])}
"""
)

FOLLOWERS = Lua(
    "-- KEYS watching; ARGV interest ms"
    + NOW_MS
    + """
local since = '(' .. string.format('%.0f', now - ARGV[1])
return redis.call('ZCOUNT', KEYS[1], since, '+inf')
"""
)
