"""What waits to be sent to one socket, bounded."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from websocket_pool.messages import Message

BACKLOG_BYTES = 256 * 1024
"""A reader's backlog beyond this is replaced by one snapshot.

With one message more, the one in flight and the transport's own buffer (64 KiB and a message),
a socket takes at most 320 KiB and three messages; messages are shared between sockets, so a
thousand readers that lag alike take little more than one.
"""

GREETING_BYTES = 4 * 1024
"""Room for what precedes a replay: `connected` and perhaps an `error`."""

CONTROL_MESSAGES = 32
"""Pongs and errors kept besides; who sends more pings than this without reading misses pongs."""

Snapshot = Callable[[], Message | None]


class Mailbox:
    """A queue that never grows: what overflows becomes one snapshot, taken when it is sent.

    Args:
        snapshot: The account's conflated snapshot of this moment; None before there is one.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._queue: deque[Message] = deque()
        self._bytes = 0
        self._controls = 0
        self._conflated = False
        self._filled = asyncio.Event()

    @staticmethod
    def fits(replay: Sequence[Message]) -> bool:
        """Whether a new mailbox takes all of these without making a snapshot of them."""
        return sum(message.size for message in replay) <= BACKLOG_BYTES - GREETING_BYTES

    def put(self, message: Message) -> None:
        """Add a message, or drop it where a snapshot to come makes it superfluous."""
        if message.state:
            if self._conflated:
                return
            if self._bytes > BACKLOG_BYTES:
                self._conflate()
                return
        elif self._controls >= CONTROL_MESSAGES:
            return
        self._append(message)

    async def take(self, timeout_s: float) -> Message | None:
        """The next message to send; None if none came in time, and none is there."""
        while True:
            if self._queue:
                return self._pop()
            if self._conflated:
                self._conflated = False
                snapshot = self._snapshot()
                if snapshot is not None:
                    return snapshot
            self._filled.clear()
            try:
                async with asyncio.timeout(timeout_s):
                    await self._filled.wait()
            except TimeoutError:
                # A message may have come in the very turn of the loop in which the time ran out;
                # whatever follows a None may say that everything has been sent.
                if not self._queue and not self._conflated:
                    return None

    def _append(self, message: Message) -> None:
        self._queue.append(message)
        self._bytes += message.size
        self._controls += not message.state
        self._filled.set()

    def _pop(self) -> Message:
        message = self._queue.popleft()
        self._bytes -= message.size
        self._controls -= not message.state
        return message

    def _conflate(self) -> None:
        kept = [message for message in self._queue if not message.state]
        self._queue.clear()
        self._bytes = self._controls = 0
        for message in kept:
            self._append(message)
        self._conflated = True
        self._filled.set()
