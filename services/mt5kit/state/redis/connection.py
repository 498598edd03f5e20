"""Opening Redis, running Lua, and turning its failures into ours."""

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, OutOfMemoryError, RedisError, ResponseError

from mt5kit.errors import InternalFault, ServiceOverloaded
from mt5kit.networks import Networks, OutsideNetworks
from mt5kit.state.keys import Keys
from mt5kit.state.redis.guarded import GuardedConnection

TIMEOUT_S = 2.0
"""A healthy Redis answers within milliseconds; a lease (10 s) must survive several timeouts."""

MAX_CONNECTIONS = 32
"""30 replicas stay far below Redis' own limit of 10,000; more waits for a free one."""

RETRY_AFTER_S = 2.0
"""A restarted Redis is back within seconds."""

_PASSING = re.compile(
    r"(?:^|-)(?:LOADING|BUSY|MASTERDOWN|READONLY|CLUSTERDOWN|TRYAGAIN|MISCONF|NOREPLICAS) "
)
"""Refusals that pass by themselves, or when an operator frees a disk; bare, or in a script's."""


class StateUnavailable(ServiceOverloaded):
    """Redis is away, starting, full, or takes no writes."""


class StateFull(StateUnavailable):
    """Redis answers, and has no memory left for what was to be written; reading works."""


class RedisFault(InternalFault):
    """Redis refused a command of ours as wrong."""


def open_redis(url: str, networks: Networks | None = None) -> Redis:
    """A client with short timeouts and a bounded pool; connects on first use.

    One retry, and only after a lost connection: that is what a pooled connection to a restarted
    Redis looks like. A command whose answer timed out may have run.

    Args:
        url: With the password, if any.
        networks: Outside which no Redis is connected to; one behind a Unix socket is none of them.

    Raises:
        ValueError: The URL is malformed, or TLS is to be spoken to what is not called by its name.
    """
    guard: dict[str, Any] = {}
    if networks is not None and urlsplit(url).scheme != "unix":
        if urlsplit(url).scheme == "rediss":
            raise ValueError("a Redis behind TLS cannot be restricted to networks")
        guard = {"connection_class": GuardedConnection, "networks": networks}
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=MAX_CONNECTIONS,
        timeout=TIMEOUT_S,
        socket_timeout=TIMEOUT_S,
        socket_connect_timeout=TIMEOUT_S,
        retry=Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
        protocol=2,
        **guard,
    )
    return Redis.from_pool(pool)


@contextmanager
def answering() -> Iterator[None]:
    """Turn what redis-py raises into our errors, and raise the cancellations it loses.

    It sends within `asyncio.wait_for`, which before Python 3.12 forgets a cancellation that
    arrives when the bytes are just sent: the task would run on, and whoever waits for its end,
    for ever.

    Raises:
        CancelledError: The task was cancelled meanwhile.
        StateUnavailable: No answer, still loading, no memory left, or no writes taken.
        RedisFault: The command was wrong.
    """
    task = asyncio.current_task()
    cancellations = task.cancelling() if task else 0
    try:
        yield
    except OutOfMemoryError as full:
        raise StateFull("the state store is full", retry_after_s=RETRY_AFTER_S) from full
    except ResponseError as refused:
        raise _refusal(str(refused)) from refused
    except (RedisError, OSError, TimeoutError) as away:
        raise StateUnavailable(_why(away), retry_after_s=RETRY_AFTER_S) from away
    if task is not None and task.cancelling() > cancellations:
        raise asyncio.CancelledError


def _why(away: BaseException) -> str:
    # redis-py wraps what a connection raises in its own.
    if isinstance(away.__context__, OutsideNetworks):
        return f"the state store is not connected to: {away.__context__}"
    return "the state store does not answer"


def _refusal(text: str) -> StateUnavailable | RedisFault:
    # Inside a script the memory error arrives wrapped in the script's own.
    if "OOM " in text:
        return StateFull("the state store is full", retry_after_s=RETRY_AFTER_S)
    if _PASSING.search(text):
        return StateUnavailable("the state store is not ready", retry_after_s=RETRY_AFTER_S)
    return RedisFault(f"Redis refused a command: {text}")


NOW_MS = """
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
"""
"""Beginning of a script: `now` is UTC epoch ms of the one clock that all replicas share."""

LIFE = """
local function life() return string.match(redis.call('INFO', 'server'), 'run_id:(%w+)') end
"""
"""A Redis that started again may have come back with an older file; this tells its lives apart."""

MEMORY = (
    NOW_MS
    + LIFE
    + """
local function remembers_ms(key)
  local of, since = string.match(redis.call('GET', key) or '', '^(%w+) (%d+)$')
  if of == life() then return now - since end
  redis.call('SET', key, life() .. ' ' .. string.format('%.0f', now))
  return 0
end
"""
)
"""For how long Redis has forgotten nothing: neither started again nor been emptied."""


class Lua:
    """A script and the digest Redis knows it by."""

    def __init__(self, source: str) -> None:
        self.source = source
        # SHA-1 is Redis' name for a script, not a safeguard.
        self.digest = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()


class RedisStore:
    """Base of the stores: a client, the key names, and calls that raise only our errors."""

    __slots__ = ("_execute", "_keys", "_redis")

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        # redis-py leaves it untyped.
        self._execute: Callable[..., Awaitable[Any]] = redis.execute_command
        self._keys = keys

    async def _command(self, *parts: str | bytes | int) -> Any:  # noqa: ANN401 - Redis answers in many shapes; each store names its own
        with answering():
            return await self._execute(*parts)

    async def _run(self, script: Lua, keys: Sequence[str], *args: str | bytes | int) -> Any:  # noqa: ANN401 - as above
        parts = (len(keys), *keys, *args)
        with answering():
            try:
                return await self._execute("EVALSHA", script.digest, *parts)
            except NoScriptError:
                return await self._execute("EVAL", script.source, *parts)
