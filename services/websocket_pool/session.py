"""One socket: a reader, a bounded mailbox, and one writer."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec

from mt5kit.domain.accounts import AccountState
from mt5kit.domain.instants import now_ms
from mt5kit.errors import InvalidParameters, LoginRefused, TerminalUnavailable
from mt5kit.telemetry.stream_metrics import StreamMetrics
from websocket_pool.close_codes import CloseCode
from websocket_pool.mailbox import Mailbox
from websocket_pool.messages import (
    BadMessage,
    Message,
    Ping,
    Refresh,
    encode,
    parse,
    too_large,
)
from websocket_pool.resume import ResumeTicket
from websocket_pool.source import AccountSource

BAD_MESSAGES: Final = 5
"""A client that has sent this many messages we do not understand is not one of ours."""

_CLOSE_PATIENCE_S: Final = 1.0
"""A client that reads takes a close frame at once."""


class SocketGone(Exception):
    """The client has closed; `code` is what it said, or 1005 or 1006."""

    def __init__(self, code: int) -> None:
        super().__init__(f"closed with {code}")
        self.code = code


class Socket(Protocol):
    """What a session needs of a WebSocket."""

    async def send(self, text: str) -> None:
        """Hand one message over; waits while the client does not read.

        Raises:
            SocketGone: The client has closed.
        """

    async def receive(self) -> str | bytes:
        """The next message, text or binary.

        Raises:
            SocketGone: The client has closed.
        """

    async def close(self, code: int, reason: str) -> None:
        """Say goodbye; waits while the client does not read, without effect if it has gone."""

    def abort(self) -> None:
        """Cut the connection without waiting for what has not been sent."""


@dataclass(frozen=True, slots=True)
class SessionRules:
    """Times of a session, in seconds.

    Args:
        instance_id: This replica.
        heartbeat_s: Silence after which a heartbeat goes.
        ticket_s: Longest time without a heartbeat, silence or not: it brings the ticket.
        stall_s: How long a client may take nothing.
        lifetime_s: How long a ticketed connection lives.
    """

    instance_id: str
    heartbeat_s: float = 15.0
    ticket_s: float = 60.0
    stall_s: float = 30.0
    lifetime_s: float = 3600.0


class Ending(msgspec.Struct, frozen=True):
    """How a session ends. `gone` if the client has closed by itself."""

    code: int
    reason: str = ""
    gone: bool = False


class Session:
    """Serves one socket from one source. A `Watcher`.

    Args:
        socket: The client.
        source: What it watches.
        ticket: Opens its next connection.
        rules: Times.
        metrics: Counts what is sent.
    """

    def __init__(
        self,
        socket: Socket,
        source: AccountSource,
        ticket: ResumeTicket,
        rules: SessionRules,
        metrics: StreamMetrics,
    ) -> None:
        self._socket = socket
        self._source = source
        self._ticket = ticket
        self._rules = rules
        self._metrics = metrics
        self._mailbox = Mailbox(lambda: source.snapshot(conflated=True))
        self._ending: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()

    def deliver(self, message: Message) -> None:
        """See `Watcher.deliver`."""
        self._mailbox.put(message)

    def end(self, code: CloseCode, reason: str) -> None:
        """See `Watcher.end`."""
        if not self._ending.done():
            self._ending.set_result(Ending(code, reason))

    async def run(self, since: tuple[int, int] | None) -> int:
        """Serve until somebody ends it; the close code.

        Args:
            since: (epoch, seq) the client has already, if any.
        """
        self._greet(since)
        self._source.attach(self)
        try:
            ending = await self._until_ended()
        finally:
            self._source.detach(self)
        await self._part(ending)
        return ending.code

    def _greet(self, since: tuple[int, int] | None) -> None:
        """Fill the mailbox with what comes before the first delivery."""
        missed = self._source.replay(*since) if since else None
        if missed is not None and not self._mailbox.fits(missed):
            missed = None
        data = {
            "instance_id": self._rules.instance_id,
            "heartbeat_s": self._rules.heartbeat_s,
            "resumed": missed is not None,
            "resume_ticket": self._ticket.value,
            "status": self._source.status,
        }
        self._mailbox.put(self._unnumbered("connected", data))
        self._put_trouble()
        if missed is None:
            self._put_snapshot()
        for message in missed or ():
            # Its age is the client's absence, not our delivery.
            self._mailbox.put(msgspec.structs.replace(message, seen_ms=None))

    async def _until_ended(self) -> Ending:
        tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._write())]
        try:
            done, _ = await asyncio.wait(
                [*tasks, self._ending],
                timeout=self._rules.lifetime_s,
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if not done:
            return Ending(CloseCode.UNAUTHENTICATED, "the connection's hour is over")
        # Whoever has gone or stalled cannot be told anything else.
        return next((task.result() for task in tasks if task in done), None) or await self._ending

    async def _read(self) -> Ending:
        bad = 0
        while True:
            try:
                text = await self._socket.receive()
                if too_large(text):
                    return Ending(CloseCode.TOO_LARGE, "messages have at most 4 KiB")
                self._answer(text)
            except BadMessage as nonsense:
                bad += 1
                self._put_error(InvalidParameters.code, str(nonsense))
                if bad >= BAD_MESSAGES:
                    return Ending(CloseCode.BAD_CLIENT, str(nonsense))
            except SocketGone as gone:
                return Ending(gone.code, gone=True)

    def _answer(self, text: str | bytes) -> None:
        asked = parse(text)
        if isinstance(asked, Ping):
            self._mailbox.put(self._unnumbered("pong", {}))
        elif isinstance(asked, Refresh):
            self._put_snapshot()
        else:
            raise BadMessage("this connection is authenticated already")

    async def _write(self) -> Ending:
        loop = asyncio.get_running_loop()
        due_s = loop.time() + self._rules.ticket_s
        while True:
            left_s = max(0.0, due_s - loop.time())
            message = await self._mailbox.take(min(self._rules.heartbeat_s, left_s))
            if message is None:
                due_s = loop.time() + self._rules.ticket_s
                data = {"resume_ticket": self._ticket.value}
                message = self._unnumbered("heartbeat", data)
            try:
                async with asyncio.timeout(self._rules.stall_s):
                    await self._socket.send(message.text)
            except TimeoutError:
                return Ending(CloseCode.SLOW, "nothing was taken for too long")
            except SocketGone as gone:
                return Ending(gone.code, gone=True)
            self._count(message)

    async def _part(self, ending: Ending) -> None:
        if ending.gone:
            return
        if ending.code != CloseCode.SLOW:
            try:
                async with asyncio.timeout(_CLOSE_PATIENCE_S):
                    await self._socket.close(ending.code, ending.reason)
            except TimeoutError:
                pass
            else:
                return
        self._socket.abort()

    def _count(self, message: Message) -> None:
        self._metrics.sent.labels(message.type).inc()
        if message.seen_ms is not None:
            self._metrics.delivery.observe(max(0, now_ms() - message.seen_ms) / 1000)

    def _put_snapshot(self) -> None:
        snapshot = self._source.snapshot()
        if snapshot is not None:
            self._mailbox.put(snapshot)

    def _put_trouble(self) -> None:
        """Tell who comes late what its `status` message has told the others."""
        status = self._source.status
        if status.state is AccountState.LOGIN_FAILED:
            self._put_error(LoginRefused.code, status.reason or status.state)
        elif status.state is not AccountState.CONNECTED:
            self._put_error(TerminalUnavailable.code, status.reason or status.state)

    def _put_error(self, code: str, text: str) -> None:
        data = {"code": code, "message": text, "retry_after_s": None}
        self._mailbox.put(self._unnumbered("error", data))

    def _unnumbered(self, kind: str, data: Mapping[str, object]) -> Message:
        return encode(kind, self._source.place, now_ms(), data)
