"""Jobs that read an account's whole history."""

import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from mt5kit.state.redis.connection import NOW_MS, Lua, RedisStore

SYNC_TTL_MS = 24 * 3_600_000
"""Since its last progress; whoever asked for a job looks at how it ended within a day."""

SyncStatus = Literal["queued", "running", "done", "failed"]

# What all of them end with: `job` is false, or every field of the hash.
_FIELDS = """
local function job_of(key)
  local flat = redis.call('HGETALL', key)
  return #flat > 0 and flat
end
local function unfinished(key)
  local status = redis.call('HGET', key, 'status')
  return status == 'queued' or status == 'running'
end
"""

_CREATE = Lua(
    "-- KEYS sync, sync_of, syncs; ARGV sync, account, user, days, TTL ms, prefix of sync"
    + NOW_MS
    + _FIELDS
    + """
local known = redis.call('GET', KEYS[2])
if known and unfinished(ARGV[6] .. known) then return job_of(ARGV[6] .. known) end
redis.call('HSET', KEYS[1], 'sync_id', ARGV[1], 'account_id', ARGV[2], 'user_id', ARGV[3],
  'history_days', ARGV[4], 'status', 'queued', 'progress', 0, 'deals', 0, 'orders', 0,
  'created_ms', now, 'updated_ms', now)
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[5])
redis.call('ZADD', KEYS[3], now, ARGV[1])
for i = 1, 3, 2 do redis.call('PEXPIRE', KEYS[i], ARGV[5]) end
return job_of(KEYS[1])
"""
)

_PENDING = Lua(
    "-- KEYS syncs; ARGV limit, prefix of sync"
    + NOW_MS
    + _FIELDS
    + """
local limit, free, claimed = tonumber(ARGV[1]), {}, {}
for _, sync in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  if #free >= limit then break end
  local key = ARGV[2] .. sync
  if unfinished(key) then
    local taken = tonumber(redis.call('HGET', key, 'claimed_until') or '0') > now
    local some = taken and claimed or free
    some[#some + 1] = key
  else
    redis.call('ZREM', KEYS[1], sync)
  end
end
local jobs = {}
for _, some in ipairs({free, claimed}) do
  for _, key in ipairs(some) do
    if #jobs < limit then jobs[#jobs + 1] = job_of(key) end
  end
end
return jobs
"""
)

_CLAIM = Lua(
    "-- KEYS sync; ARGV replica, claim ms"
    + NOW_MS
    + _FIELDS
    + """
if not unfinished(KEYS[1]) then return 0 end
local claim = redis.call('HMGET', KEYS[1], 'claimant', 'claimed_until')
if claim[1] and claim[1] ~= ARGV[1] and tonumber(claim[2]) > now then return 0 end
redis.call('HSET', KEYS[1], 'claimant', ARGV[1], 'claimed_until', now + ARGV[2],
  'status', 'running', 'updated_ms', now)
return 1
"""
)

_PROGRESS = Lua(
    "-- KEYS sync, sync_of, syncs; ARGV replica, claim ms, progress, deals, orders, TTL ms"
    + NOW_MS
    + _FIELDS
    + """
if not unfinished(KEYS[1]) or redis.call('HGET', KEYS[1], 'claimant') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'claimed_until', now + ARGV[2], 'progress', ARGV[3],
  'deals', ARGV[4], 'orders', ARGV[5], 'updated_ms', now)
for i = 1, 3 do redis.call('PEXPIRE', KEYS[i], ARGV[6]) end
return 1
"""
)

_END = """
local function finish(key, sync_of, syncs, sync, status, ...)
  redis.call('HSET', key, 'status', status, 'updated_ms', now, ...)
  redis.call('HDEL', key, 'claimant', 'claimed_until')
  if redis.call('GET', sync_of) == sync then redis.call('DEL', sync_of) end
  redis.call('ZREM', syncs, sync)
  return 1
end
"""

_FINISH = Lua(
    "-- KEYS sync, sync_of, syncs; ARGV replica, sync, deals, orders, done or failed, code, message"
    + NOW_MS
    + _FIELDS
    + _END
    + """
if not unfinished(KEYS[1]) or redis.call('HGET', KEYS[1], 'claimant') ~= ARGV[1] then return 0 end
if ARGV[5] == 'done' then
  return finish(KEYS[1], KEYS[2], KEYS[3], ARGV[2], 'done', 'progress', 100, 'deals', ARGV[3],
    'orders', ARGV[4])
end
return finish(KEYS[1], KEYS[2], KEYS[3], ARGV[2], 'failed', 'deals', ARGV[3],
  'orders', ARGV[4], 'code', ARGV[6], 'message', ARGV[7])
"""
)

_CANCEL = Lua(
    "-- KEYS sync_of, syncs; ARGV prefix of sync, error code, message"
    + NOW_MS
    + _FIELDS
    + _END
    + """
local sync = redis.call('GET', KEYS[1])
if not sync or not unfinished(ARGV[1] .. sync) then return 0 end
return finish(ARGV[1] .. sync, KEYS[1], KEYS[2], sync, 'failed', 'code', ARGV[2],
  'message', ARGV[3])
"""
)


class SyncError(msgspec.Struct, frozen=True):
    """Why a job failed; `code` is one of `mt5kit.errors`."""

    code: str
    message: str


class SyncJob(msgspec.Struct, frozen=True):
    """A job and how far it is; `progress` in percent, times in UTC epoch ms by Redis' clock."""

    sync_id: str
    account_id: str
    user_id: str
    history_days: int
    status: SyncStatus
    progress: int
    deals: int
    orders: int
    error: SyncError | None
    created_ms: int
    updated_ms: int


class SyncStore(RedisStore):
    """Jobs of all accounts; an account has one unfinished job at most.

    Every method raises `StateUnavailable` while Redis is away, those that write also while it is
    full.
    """

    __slots__ = ()

    async def create(self, account_id: str, user_id: str, history_days: int) -> SyncJob:
        """A new job that waits for somebody to claim it, or the account's unfinished one."""
        sync_id = str(uuid.uuid4())
        args = (sync_id, account_id, user_id, history_days, SYNC_TTL_MS, self._keys.sync(""))
        return _job(_pairs(await self._run(_CREATE, self._of(sync_id, account_id), *args)))

    async def get(self, sync_id: str) -> SyncJob | None:
        """A job, for a day after its end."""
        stored = await self._command("HGETALL", self._keys.sync(sync_id))
        return _job(stored) if stored else None

    async def pending(self, limit: int) -> tuple[SyncJob, ...]:
        """Unfinished jobs, oldest first; those that can be claimed now before the others."""
        jobs = await self._run(_PENDING, (self._keys.syncs(),), limit, self._keys.sync(""))
        return tuple(_job(_pairs(flat)) for flat in jobs)

    async def claim(self, sync_id: str, replica: str, ttl_ms: int) -> bool:
        """Take a job for `ttl_ms`; False if it has ended or another replica works on it.

        A claimant that told of no progress for its `ttl_ms` can be displaced by another.
        """
        return bool(await self._run(_CLAIM, (self._keys.sync(sync_id),), replica, ttl_ms))

    async def progress(self, job: SyncJob, replica: str, ttl_ms: int) -> bool:
        """Write a claimed job's `progress`, `deals` and `orders`, and keep it for `ttl_ms` more.

        Returns:
            Whether it is still ours; if not, it has ended or is another's: leave it alone.
        """
        keys = self._of(job.sync_id, job.account_id)
        counts = (job.progress, job.deals, job.orders)
        return bool(await self._run(_PROGRESS, keys, replica, ttl_ms, *counts, SYNC_TTL_MS))

    async def finish(self, job: SyncJob, replica: str) -> bool:
        """End a claimed job: failed if it has an `error`, else done; writes its counts.

        Returns:
            Whether it was still ours.
        """
        keys = self._of(job.sync_id, job.account_id)
        error = job.error or SyncError("", "")
        how = ("done" if job.error is None else "failed", error.code, error.message)
        counts = (job.deals, job.orders)
        return bool(await self._run(_FINISH, keys, replica, job.sync_id, *counts, *how))

    async def cancel_account(self, account_id: str) -> bool:
        """Fail the unfinished job of an account that was deleted; False if it has none."""
        keys = (self._keys.sync_of(account_id), self._keys.syncs())
        error = ("ACCOUNT_NOT_FOUND", "the account was deleted")
        return bool(await self._run(_CANCEL, keys, self._keys.sync(""), *error))

    def _of(self, sync_id: str, account_id: str) -> tuple[str, str, str]:
        return self._keys.sync(sync_id), self._keys.sync_of(account_id), self._keys.syncs()


def _pairs(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _job(stored: Mapping[bytes, bytes]) -> SyncJob:
    fields: dict[str, Any] = {name.decode(): value.decode() for name, value in stored.items()}
    code, message = fields.pop("code", None), fields.pop("message", "")
    fields["error"] = None if code is None else SyncError(code, message)
    return msgspec.convert(fields, SyncJob, strict=False)
