"""What changes placements: the record and the sessions of the terminals change together.

`placements` is the record; `used` of a terminal names the accounts on it by their last use.
In every script what takes memory is written first, so that a full Redis refuses it whole.
"""

from mt5kit.state.redis.connection import NOW_MS, Lua

PLACE = Lua(
    "-- KEYS placements; ARGV account, prefix of used, idle ms or -1, how many to keep, those, "
    "then candidate and capacity by turns"
    + NOW_MS
    + """
local account, used, idle_ms, kept = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local placed = redis.call('HGET', KEYS[1], account)
for i = 5, 4 + kept do
  if ARGV[i] == placed then
    redis.call('ZADD', used .. placed, now, account)
    return placed
  end
end

local best, fewest, longest_idle, evicted
for i = 5 + kept, #ARGV, 2 do
  local key, capacity = used .. ARGV[i], tonumber(ARGV[i + 1])
  local count = redis.call('ZCARD', key)
  -- An account that may not stay may yet come back to where it was.
  if ARGV[i] == placed and redis.call('ZSCORE', key, account) then count = count - 1 end
  if count < capacity then
    if not fewest or count < fewest then best, fewest = ARGV[i], count end
  elseif idle_ms >= 0 and capacity > 0 then
    local excess, others, last = count - capacity + 1, {}, nil
    local oldest = redis.call('ZRANGE', key, 0, excess, 'WITHSCORES')
    for j = 1, #oldest, 2 do
      if oldest[j] ~= account and #others < excess then
        others[#others + 1], last = oldest[j], tonumber(oldest[j + 1])
      end
    end
    if not longest_idle or last < longest_idle.last then
      longest_idle = {terminal = ARGV[i], last = last, others = others}
    end
  end
end

if not best then
  if not longest_idle then return false end
  local wait = longest_idle.last + idle_ms - now
  if wait > 0 then return math.ceil(wait) end
  best, evicted = longest_idle.terminal, longest_idle.others
end
redis.call('ZADD', used .. best, now, account)
redis.call('HSET', KEYS[1], account, best)
if placed and placed ~= best then redis.call('ZREM', used .. placed, account) end
for _, other in ipairs(evicted or {}) do
  redis.call('ZREM', used .. best, other)
  if redis.call('HGET', KEYS[1], other) == best then redis.call('HDEL', KEYS[1], other) end
end
return best
"""
)

REMOVE = Lua("""
-- KEYS placements; ARGV account, prefix of used, terminal or ''
local placed = redis.call('HGET', KEYS[1], ARGV[1])
if not placed or (ARGV[3] ~= '' and placed ~= ARGV[3]) then return 0 end
redis.call('ZREM', ARGV[2] .. placed, ARGV[1])
return redis.call('HDEL', KEYS[1], ARGV[1])
""")

MOVE = Lua(
    "-- KEYS placements, used of the source, used of the target; "
    "ARGV account, source, target, capacity"
    + NOW_MS
    + """
local placed = redis.call('HGET', KEYS[1], ARGV[1])
if placed == ARGV[3] then return 1 end
if placed ~= ARGV[2] or redis.call('ZCARD', KEYS[3]) >= tonumber(ARGV[4]) then return 0 end
redis.call('ZADD', KEYS[3], redis.call('ZSCORE', KEYS[2], ARGV[1]) or now, ARGV[1])
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
redis.call('ZREM', KEYS[2], ARGV[1])
return 1
"""
)

TOUCH = Lua(
    "-- KEYS placements; ARGV prefix of used, then account and ms by turns"
    + NOW_MS
    + """
for i = 2, #ARGV, 2 do
  local placed = redis.call('HGET', KEYS[1], ARGV[i])
  if placed then
    local at = math.min(tonumber(ARGV[i + 1]), now)
    redis.call('ZADD', ARGV[1] .. placed, 'XX', 'GT', at, ARGV[i])
  end
end
"""
)

DROP_IDLE = Lua(
    "-- KEYS placements, used of the terminal; ARGV terminal, ms"
    + NOW_MS
    + """
local idle = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now - ARGV[2])
for _, account in ipairs(idle) do
  redis.call('ZREM', KEYS[2], account)
  if redis.call('HGET', KEYS[1], account) == ARGV[1] then redis.call('HDEL', KEYS[1], account) end
end
return idle
"""
)

COUNTS = Lua("""
-- KEYS used of each terminal
local counts = {}
for i, key in ipairs(KEYS) do counts[i] = redis.call('ZCARD', key) end
return counts
""")
