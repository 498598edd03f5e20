"""A connection that comes back by itself, and the one named thread that may touch it."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final, Protocol

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
# A call that the thread has taken up ends at its deadline by itself, so much later at the most.
THREAD_MARGIN_S: Final = 0.25
# How long a terminal that hung up unnoticed passes for connected.
IDLE_CHECK_S: Final = 2.0
# One late answer is a slow call; two in a row may be a peer that is gone without a word.
TIMEOUTS_TO_DROP: Final = 2


class Door(Protocol):
    """What a channel needs of a connection; `Connection` is the real one."""

    def open(self, limit_s: float) -> None:
        """Connect; raises TerminalTimeout or TerminalUnavailable."""

    def call(self, op: str, token: int, args: tuple[object, ...], timeout_s: float) -> object:
        """One round trip; raises TerminalTimeout or TerminalUnavailable."""

    def stale(self) -> bool:
        """Whether the terminal has hung up already."""

    def close(self) -> None:
        """End it politely."""

    def abort(self) -> None:
        """End it from any thread."""


class Channel:
    """Calls to one terminal, one after another, over a connection made and remade as needed.

    Args:
        name: Of the thread, in logs and stack dumps.
        make: Makes a connection, not yet open.
        on_change: Told True when a connection stands and False when it has gone, from the thread.
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
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._door: Door | None = None
        self._opening: Door | None = None
        self._last_attempt = float("-inf")
        self._timeouts = 0
        self._waiting = 0
        self._closed = False
        self._wanted = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def connected(self) -> bool:
        """Whether a connection stands, as far as anybody has noticed."""
        return self._door is not None

    def start(self) -> None:
        """Connect in the background and keep at it; needs a running event loop."""
        self._loop = asyncio.get_running_loop()
        self._keeper = asyncio.create_task(self._keep_connected(), name=f"{self._name}-keeper")

    async def call(self, op: str, token: int, args: tuple[object, ...], timeout_s: float) -> object:
        """The terminal's raw reply within `timeout_s` seconds, queueing included.

        Raises:
            ServiceOverloaded: Too many calls wait already.
            TerminalTimeout: The time was over before the reply came; the outcome is unknown.
            TerminalUnavailable: There is no connection, or it broke.
        """
        if self._closed:
            raise TerminalUnavailable(f"{self._name} is closing", retry_after_s=1)
        if self._waiting >= MOST_WAITING:
            raise ServiceOverloaded(f"too many calls wait for {self._name}", retry_after_s=1)
        self._waiting += 1
        deadline = time.monotonic() + timeout_s
        try:
            async with asyncio.timeout(timeout_s + THREAD_MARGIN_S):
                return await asyncio.get_running_loop().run_in_executor(
                    self._executor, self._call, op, token, args, deadline
                )
        except TimeoutError:
            # The thread is connecting to a terminal that does not answer; it never took this up.
            raise self._busy() from None
        finally:
            self._waiting -= 1

    async def aclose(self) -> None:
        """End the connection and the thread; a call under way fails at once."""
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
        await asyncio.get_running_loop().run_in_executor(self._executor, self._drop)
        self._executor.shutdown(wait=False)

    # -- in the thread ----------------------------------------------------------------------------

    def _call(self, op: str, token: int, args: tuple[object, ...], deadline: float) -> object:
        self._left(deadline)
        self._drop_if_stale()
        door = self._door or self._connect_for_call(deadline)
        try:
            reply = door.call(op, token, args, self._left(deadline))
        except TerminalTimeout:
            self._timeouts += 1
            if self._timeouts >= TIMEOUTS_TO_DROP:
                self._drop()
            raise
        except TerminalUnavailable:
            self._drop()
            raise
        self._timeouts = 0
        return reply

    def _left(self, deadline: float) -> float:
        """Seconds until the deadline; TerminalTimeout when there are none."""
        left = deadline - time.monotonic()
        if left <= 0:
            raise self._busy()
        return left

    def _busy(self) -> TerminalTimeout:
        return TerminalTimeout(f"{self._name} was busy until the deadline", retry_after_s=1)

    def _drop_if_stale(self) -> None:
        if self._door is not None and self._door.stale():
            self._drop()

    def _connect_for_call(self, deadline: float) -> Door:
        pause = self._last_attempt + CALL_RETRY_GAP_S - time.monotonic()
        if pause > 0:
            time.sleep(min(pause, self._left(deadline)))
        return self._open(self._left(deadline))

    def _open(self, limit_s: float = OPEN_LIMIT_S) -> Door:
        if self._door is not None:
            return self._door
        self._opening = door = self._make()
        try:
            # Only now: whoever closes us later finds the door and cuts it.
            if self._closed:
                raise TerminalUnavailable(f"{self._name} is closing", retry_after_s=1)
            door.open(limit_s)
        finally:
            self._opening = None
            self._last_attempt = time.monotonic()
        self._door = door
        self._timeouts = 0
        self._on_change(True)
        return door

    def _drop(self) -> None:
        door, self._door = self._door, None
        if door is None:
            return
        door.abort()
        door.close()
        self._on_change(False)
        if self._loop is not None and not self._closed:
            self._loop.call_soon_threadsafe(self._wanted.set)

    # -- in the event loop ------------------------------------------------------------------------

    async def _keep_connected(self) -> None:
        while True:
            try:
                await asyncio.get_running_loop().run_in_executor(self._executor, self._renew)
            except TerminalUnavailable as away:
                pause = self._backoff.next_s()
                log.info("terminal_away", channel=self._name, why=away.message, retry_s=pause)
            except Exception:
                pause = self._backoff.next_s()
                log.exception("connecting_failed", channel=self._name, retry_s=pause)
            else:
                self._backoff.reset()
                pause = IDLE_CHECK_S
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wanted.wait()
            self._wanted.clear()

    def _renew(self) -> None:
        self._drop_if_stale()
        self._open()
