"""A connection that comes back by itself, and calls on it one after another."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Final, Protocol, TypeVar

import structlog

from mt5kit.backoff import Backoff
from mt5kit.errors import ServiceOverloaded, TerminalTimeout, TerminalUnavailable

log = structlog.get_logger(__name__)

# Calls that may wait for one terminal: at 10 s each the last would wait far beyond any deadline.
MOST_WAITING: Final = 64
# A call may try to connect itself, but the calls together must not hammer.
CALL_RETRY_GAP_S: Final = 0.2
# Connecting and installing, when no call's deadline bounds it.
OPEN_LIMIT_S: Final = 10.0
# A call that has its turn ends at its deadline by itself, so much later at the most.
TURN_MARGIN_S: Final = 0.25
# What connects still, so long after its limit, is cut: half a message holds RPyC for ever.
OPEN_MARGIN_S: Final = 1.0
# A connection that goes sooner was none: the next is made as after a failure.
STEADY_S: Final = 2.0
# One late answer is a slow call; two in a row may be a peer that is gone without a word.
TIMEOUTS_TO_DROP: Final = 2

T = TypeVar("T")


class Door(Protocol):
    """What a channel needs of a connection; `Connection` is the real one."""

    def open(self, limit_s: float) -> None:
        """Connect, in a thread; raises TerminalTimeout or TerminalUnavailable."""

    async def attach(self, lost: Callable[[], None]) -> None:
        """Make it one of the event loop, which tells `lost` when it has ended.

        Raises:
            TerminalUnavailable: It has ended already.
        """

    def ask(
        self, op: str, token: int, args: tuple[object, ...], timeout_s: float
    ) -> asyncio.Future[object]:
        """One round trip; the future raises TerminalTimeout or TerminalUnavailable."""

    @property
    def address(self) -> str:
        """The numeric address it is connected to; after `open`."""

    def stale(self) -> bool:
        """Whether the terminal has hung up already."""

    def abort(self) -> None:
        """End it, or the opening of it."""


class Channel:
    """Calls to one terminal, one after another, over a connection made and remade as needed.

    A thread is there only while a connection is being opened.

    Args:
        name: Of the thread, in logs and stack dumps.
        make: Makes a connection, not yet open.
        on_change: Told True when a connection stands and False when it has gone.
        backoff: Between the attempts to connect that no call asked for.
    """

    def __init__(
        self,
        name: str,
        make: Callable[[], Door],
        on_change: Callable[[bool], None],
        backoff: Backoff | None = None,
    ) -> None:
        self._name = name
        self._make = make
        self._on_change = on_change
        self._backoff = backoff or Backoff()
        self._door: Door | None = None
        self._opening: Door | None = None
        self._last_attempt = float("-inf")
        self._timeouts = 0
        self._waiting = 0
        self._closed = False
        # Whoever has the turn connects or calls; it ends with the work, not with its caller.
        self._turn = asyncio.Lock()
        self._wanted = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None

    @property
    def connected(self) -> bool:
        """Whether a connection stands, as far as anybody has noticed."""
        return self._door is not None

    @property
    def address(self) -> str | None:
        """The numeric address that it is connected to; None while it is not."""
        return None if self._door is None else self._door.address

    def start(self) -> None:
        """Connect in the background and keep at it; needs a running event loop."""
        self._keeper = asyncio.create_task(self._keep_connected(), name=f"{self._name}-keeper")

    async def call(self, op: str, token: int, args: tuple[object, ...], timeout_s: float) -> object:
        """The terminal's raw reply within `timeout_s` seconds, queueing included.

        Raises:
            ServiceOverloaded: Too many calls wait already.
            TerminalTimeout: The time was over before the reply came; the outcome is unknown.
            TerminalUnavailable: There is no connection, or it broke.
        """
        if self._closed:
            raise self._closing()
        if self._waiting >= MOST_WAITING:
            raise ServiceOverloaded(f"too many calls wait for {self._name}", retry_after_s=1)
        self._waiting += 1
        deadline = time.monotonic() + timeout_s
        try:
            async with asyncio.timeout(timeout_s + TURN_MARGIN_S):
                await self._turn.acquire()
                return await asyncio.shield(self._begin(op, token, args, deadline))
        except TimeoutError:
            # Somebody is connecting to a terminal that does not answer; this was never sent.
            raise self._busy() from None
        finally:
            self._waiting -= 1

    async def aclose(self) -> None:
        """End the connection; a call under way fails at once."""
        if self._closed:
            return
        self._closed = True
        if self._keeper is not None:
            self._keeper.cancel()
            with suppress(asyncio.CancelledError):
                await self._keeper
        for door in (self._door, self._opening):
            if door is not None:
                door.abort()
        async with self._turn:
            if self._door is not None:
                self._drop(self._door)

    # -- with the turn ----------------------------------------------------------------------------

    def _begin(
        self, op: str, token: int, args: tuple[object, ...], deadline: float
    ) -> asyncio.Future[object]:
        """Start a call; the turn ends when it has ended."""
        try:
            left_s = self._left(deadline)
            door = self._standing()
            if door is None:
                return self._with_turn(self._connect_and_ask(op, token, args, deadline))
            reply = self._ask(door, op, token, args, left_s)
        except BaseException:
            self._turn.release()
            raise
        reply.add_done_callback(self._end_turn)
        return reply

    def _with_turn(self, work: Coroutine[object, object, T]) -> asyncio.Future[T]:
        task = asyncio.create_task(work)
        task.add_done_callback(self._end_turn)
        return task

    def _end_turn(self, work: asyncio.Future[T]) -> None:
        if not work.cancelled():
            # Somebody has to look at it: its caller may have gone.
            work.exception()
        self._turn.release()

    async def _connect_and_ask(
        self, op: str, token: int, args: tuple[object, ...], deadline: float
    ) -> object:
        pause = self._last_attempt + CALL_RETRY_GAP_S - time.monotonic()
        if pause > 0:
            await asyncio.sleep(min(pause, self._left(deadline)))
        door = await self._open(self._left(deadline))
        return await self._ask(door, op, token, args, self._left(deadline))

    def _ask(
        self, door: Door, op: str, token: int, args: tuple[object, ...], left_s: float
    ) -> asyncio.Future[object]:
        reply = door.ask(op, token, args, left_s)
        reply.add_done_callback(partial(self._note, door))
        return reply

    def _note(self, door: Door, reply: asyncio.Future[object]) -> None:
        """What a reply says of the connection, whether or not its caller is still there."""
        failure = None if reply.cancelled() else reply.exception()
        if failure is None:
            self._timeouts = 0
        elif isinstance(failure, TerminalTimeout):
            self._timeouts += 1
            if self._timeouts >= TIMEOUTS_TO_DROP:
                self._drop(door)
        elif isinstance(failure, TerminalUnavailable):
            self._drop(door)

    def _standing(self) -> Door | None:
        if self._door is not None and self._door.stale():
            self._drop(self._door)
        return self._door

    async def _open(self, limit_s: float) -> Door:
        self._opening = door = self._make()
        try:
            # Only now: whoever closes us later finds the door and cuts it.
            if self._closed:
                raise self._closing()
            await self._open_in_thread(door, limit_s)
            await door.attach(partial(self._drop, door))
        finally:
            self._opening = None
            self._last_attempt = time.monotonic()
        self._timeouts = 0
        self._door = door
        self._on_change(True)
        if door.stale():
            # It told us before it was ours to drop.
            self._drop(door)
            raise TerminalUnavailable(f"{self._name} was hung up on", retry_after_s=1)
        return door

    async def _open_in_thread(self, door: Door, limit_s: float) -> None:
        loop = asyncio.get_running_loop()
        executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=self._name)
        watch = loop.call_later(limit_s + OPEN_MARGIN_S, door.abort)
        try:
            await loop.run_in_executor(executor, door.open, limit_s)
        finally:
            watch.cancel()
            executor.shutdown(wait=False)

    def _drop(self, door: Door) -> None:
        if self._door is not door:
            return
        self._door = None
        door.abort()
        self._on_change(False)
        self._wanted.set()

    def _left(self, deadline: float) -> float:
        """Seconds until the deadline; raises TerminalTimeout when there are none.

        Raises TerminalUnavailable when nothing is to be done any more.
        """
        if self._closed:
            raise self._closing()
        left = deadline - time.monotonic()
        if left <= 0:
            raise self._busy()
        return left

    def _busy(self) -> TerminalTimeout:
        return TerminalTimeout(f"{self._name} was busy until the deadline", retry_after_s=1)

    def _closing(self) -> TerminalUnavailable:
        return TerminalUnavailable(f"{self._name} is closing", retry_after_s=1)

    # -- in the background ------------------------------------------------------------------------

    async def _keep_connected(self) -> None:
        while True:
            try:
                await self._renew()
            except TerminalUnavailable as away:
                pause = self._backoff.next_s()
                log.info("terminal_away", channel=self._name, why=away.message, retry_s=pause)
            except Exception:
                pause = self._backoff.next_s()
                log.exception("connecting_failed", channel=self._name, retry_s=pause)
            else:
                await self._until_dropped()
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wanted.wait()
            self._wanted.clear()

    async def _renew(self) -> None:
        await self._turn.acquire()
        await asyncio.shield(self._with_turn(self._stand()))

    async def _stand(self) -> None:
        if self._standing() is None:
            await self._open(OPEN_LIMIT_S)

    async def _until_dropped(self) -> None:
        since = time.monotonic()
        await self._wanted.wait()
        self._wanted.clear()
        if time.monotonic() - since < STEADY_S:
            await asyncio.sleep(self._backoff.next_s())
        else:
            self._backoff.reset()
