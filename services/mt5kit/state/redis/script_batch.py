"""Scripts that many ask for at the same time, run in one round trip, each with its own answer."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, Final, Protocol

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, ResponseError

from mt5kit.state.redis.connection import Lua, answering

MOST_CALLS: Final = 64
"""In one round trip: whoever comes next waits no longer than these take."""

MOST_BYTES: Final = 1 << 20
"""Beyond which no more calls join a round trip: after an outage every account has a lot to tell,
and all that is sent at once must get through within one short timeout."""


class _Connection(Protocol):
    """What redis-py leaves half untyped."""

    async def send_packed_command(self, command: Sequence[bytes], /) -> None: ...

    async def read_response(self) -> Any: ...  # noqa: ANN401 - Redis answers in many shapes

    async def disconnect(self, nowait: bool = ...) -> None: ...


class _Call:
    """A script, what it is run with, and who waits for its answer."""

    __slots__ = ("answer", "rest", "script", "size")

    def __init__(self, script: Lua, rest: bytes, size: int) -> None:
        self.script = script
        self.rest = rest
        self.size = size
        self.answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    @property
    def waits(self) -> bool:
        """Whether there is no answer yet, and somebody still wants one."""
        return not self.answer.done()

    def packed(self, *, whole: bool) -> bytes:
        """The command as Redis reads it: with the script's source, or with its digest."""
        name, script = ("EVAL", self.script.source) if whole else ("EVALSHA", self.script.digest)
        return b"*%d\r\n%b%b" % (self.size + 2, _bulks((name, script)), self.rest)

    def succeed(self, value: Any) -> None:  # noqa: ANN401 - as above
        if self.waits:
            self.answer.set_result(value)

    def fail(self, failure: Exception) -> None:
        if self.waits:
            self.answer.set_exception(failure)


class ScriptBatch:
    """Runs scripts, as many in one round trip as are asked for while the one before is under way.

    Whoever asks while none is under way is served at the end of the loop's turn. There is one
    round trip at a time, so that scripts run in the order in which they were asked for. Every
    script must be harmless to repeat: after a lost connection what has no answer is sent once more.

    A connection is taken from the client's pool at the first call, and closed with the client.
    redis-py's own pipeline costs more for a single call than no pipeline at all (ADR 0012).

    Args:
        redis: The client.
    """

    def __init__(self, redis: Redis) -> None:
        # redis-py leaves it untyped.
        self._connect: Callable[[], Awaitable[_Connection]] = redis.connection_pool.get_connection
        self._connection: _Connection | None = None
        self._asked: deque[_Call] = deque()
        self._working: asyncio.Task[None] | None = None

    async def run(self, script: Lua, keys: Sequence[str], *args: str | bytes | int) -> Any:  # noqa: ANN401 - as above
        """What a script answers.

        Raises:
            StateUnavailable: No answer, still loading, no memory left, or no writes taken.
            RedisFault: The script was wrong; whoever shares the round trip knows nothing of it.
        """
        # Packed here: what cannot be encoded is the caller's failure alone.
        parts = (len(keys), *keys, *args)
        call = _Call(script, _bulks(parts), len(parts))
        self._asked.append(call)
        if self._working is None:
            self._working = asyncio.create_task(self._work())
        with answering():
            return await call.answer

    async def _work(self) -> None:
        calls: list[_Call] = []
        try:
            while calls := list(self._next()):
                await self._round_trip(calls)
        finally:
            self._working = None
            # Only where the loop is ending, or by a mistake of ours: nobody waits for ever.
            for call in (*calls, *self._asked):
                call.fail(RedisConnectionError("the round trip was given up"))
            self._asked.clear()

    def _next(self) -> Iterator[_Call]:
        """The calls of the next round trip."""
        count = size = 0
        while self._asked and count < MOST_CALLS and size < MOST_BYTES:
            call = self._asked.popleft()
            count, size = count + 1, size + len(call.rest)
            yield call

    async def _round_trip(self, calls: Sequence[_Call]) -> None:
        try:
            unknown = await self._sent(calls, whole=False)
            # A Redis that has started anew has forgotten its scripts.
            for call in await self._sent(unknown, whole=True):
                call.fail(NoScriptError("a script that was sent whole is not known"))
        except Exception as failure:  # noqa: BLE001 - whatever it is, it is told to all who wait
            for call in calls:
                call.fail(failure)

    async def _sent(self, calls: Sequence[_Call], *, whole: bool) -> list[_Call]:
        """Have calls answered, and those returned whose scripts Redis does not know."""
        try:
            return await self._exchange(calls, whole=whole)
        except RedisConnectionError:
            # What a connection to a Redis that was restarted meanwhile looks like.
            return await self._exchange(calls, whole=whole)

    async def _exchange(self, calls: Sequence[_Call], *, whole: bool) -> list[_Call]:
        waiting = [call for call in calls if call.waits]
        unknown: list[_Call] = []
        if not waiting:
            return unknown
        if self._connection is None:
            self._connection = await self._connect()
        connection, done = self._connection, False
        try:
            await connection.send_packed_command([call.packed(whole=whole) for call in waiting])
            for call in waiting:
                try:
                    call.succeed(await connection.read_response())
                except NoScriptError:
                    unknown.append(call)
                except ResponseError as refused:
                    call.fail(refused)
            done = True
        finally:
            if not done:
                # Answers that nobody has read would be taken for those of the next calls.
                await connection.disconnect(nowait=True)
        return unknown


def _bulks(parts: Sequence[str | bytes | int]) -> bytes:
    """Parts of a command as Redis' bulk strings; an integer goes as its digits."""
    strings = (part if isinstance(part, bytes) else str(part).encode() for part in parts)
    return b"".join([b"$%d\r\n%b\r\n" % (len(string), string) for string in strings])
