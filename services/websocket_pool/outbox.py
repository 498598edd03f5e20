"""The way to one socket: at once where that is possible, else behind what waits."""

import asyncio
from collections.abc import Callable
from typing import Protocol

from websocket_pool.mailbox import Mailbox
from websocket_pool.messages import Message


class Sink(Protocol):
    """Where messages go."""

    def offer(self, message: Message) -> bool:
        """Hand one over at once; False if that is not possible now, or never."""

    async def writable(self) -> None:
        """Wait until the next can be handed over.

        Raises:
            SocketGone: The client has closed.
        """

    async def send(self, message: Message) -> None:
        """Hand one over; may wait while the client does not read.

        Raises:
            SocketGone: The client has closed.
        """


class Outbox:
    """Hands messages over in order.

    A writer task lives only while something waits.

    Args:
        sink: Where to.
        mailbox: Where the rest waits.
        sent: Called with each message that has waited and is handed over.
        stuck: Called when something begins to wait.
        failed: Called with what the sink has raised; nothing is sent after that.
    """

    def __init__(
        self,
        sink: Sink,
        mailbox: Mailbox,
        sent: Callable[[Message], None],
        stuck: Callable[[], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._sink = sink
        self._mailbox = mailbox
        self._sent = sent
        self._stuck = stuck
        self._failed = failed
        self._writer: asyncio.Task[None] | None = None

    @property
    def waits(self) -> bool:
        """Whether something waits to be handed over."""
        return self._writer is not None

    def greet(self, message: Message) -> bool:
        """Send one of those that come before all others; they do not count as backlog.

        Whether it has been handed over.
        """
        if self._writer is None and self._sink.offer(message):
            return True
        self._mailbox.greet(message)
        self._write_soon()
        return False

    def put(self, message: Message) -> bool:
        """Send a message; whether it has been handed over."""
        if self._writer is None and self._sink.offer(message):
            return True
        self._mailbox.put(message)
        self._write_soon()
        return False

    async def flushed(self) -> None:
        """Wait until nothing waits."""
        if self._writer is not None:
            await asyncio.wait([self._writer])

    def cancel(self) -> None:
        """Send nothing more of what waits."""
        if self._writer is not None:
            self._writer.cancel()

    def _write_soon(self) -> None:
        if self._writer is None:
            self._writer = asyncio.create_task(self._write())
            self._writer.add_done_callback(self._written)
            self._stuck()

    async def _write(self) -> None:
        while self._mailbox:
            await self._sink.writable()
            # Not before: a snapshot is of the moment it is sent.
            message = self._mailbox.take()
            if message is not None:
                await self._sink.send(message)
                self._sent(message)

    def _written(self, writer: asyncio.Task[None]) -> None:
        if writer.cancelled():
            return
        failure = writer.exception()
        if failure is not None:
            self._failed(failure)
            return
        self._writer = None
        if self._mailbox:
            # Put there between its end and now.
            self._write_soon()
