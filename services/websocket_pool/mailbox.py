"""What waits to be sent to one socket, bounded."""

from collections import deque
from collections.abc import Callable
from itertools import takewhile

from websocket_pool.messages import Message, Place, moved

BACKLOG_BYTES = 256 * 1024
"""A reader's backlog beyond this is replaced by one snapshot."""

CONTROL_MESSAGES = 32
"""Pongs and errors kept besides; who sends more pings than this without reading misses pongs."""

Snapshot = Callable[[], Message | None]


class Mailbox:
    """A queue that never grows: what overflows becomes one snapshot, taken when it is sent.

    It holds at most the greeting with its replay (1 MiB of messages, which the account's ring
    holds too), the backlog and one message more, and `CONTROL_MESSAGES`. Messages are shared
    between sockets, so a thousand readers that lag alike take little more than one. Of its own a
    socket has the unsent rest of its transport: 64 KiB and a message; and the kernel's buffers.

    Args:
        snapshot: The account's conflated snapshot of this moment; None before there is one.
        place: Where the account's line stands at this moment.
    """

    def __init__(self, snapshot: Snapshot, place: Callable[[], Place]) -> None:
        self._snapshot = snapshot
        self._place = place
        self._greeting: deque[Message] = deque()
        self._queue: deque[Message] = deque()
        self._bytes = 0
        self._controls = 0
        self._conflated = False

    def __bool__(self) -> bool:
        """Whether there is something to take."""
        return bool(self._greeting or self._queue or self._conflated)

    def greet(self, message: Message) -> None:
        """Add what comes before anything that is `put`; it does not count as backlog."""
        self._greeting.append(message)

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

    def take(self) -> Message | None:
        """The next message, to be sent at once; None if there is none."""
        if self._greeting:
            return self._greeting.popleft()
        if self._conflated:
            return self._take_snapshot()
        if not self._queue:
            return None
        message = self._queue.popleft()
        self._bytes -= message.size
        self._controls -= not message.state
        return message

    def _append(self, message: Message) -> None:
        self._queue.append(message)
        self._bytes += message.size
        self._controls += not message.state

    def _conflate(self) -> None:
        waiting = [*self._greeting, *self._queue]
        first = list(takewhile(lambda one: not one.state, waiting))
        self._greeting = deque(first)
        self._queue.clear()
        self._bytes = self._controls = 0
        for message in waiting[len(first) :]:
            if not message.state:
                self._append(message)
        self._conflated = True

    def _take_snapshot(self) -> Message | None:
        """The snapshot; what follows it was made at a place its reader has never seen."""
        self._conflated = False
        snapshot, place = self._snapshot(), self._place()
        late = list(self._queue)
        self._queue.clear()
        self._bytes = self._controls = 0
        for message in late:
            self._append(moved(message, place))
        return snapshot
