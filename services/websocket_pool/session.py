"""One socket: a reader, and a writer while something waits."""

import asyncio
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec
import structlog

from mt5kit.errors import InvalidParameters
from mt5kit.telemetry.stream_metrics import StreamMetrics
from websocket_pool.asides import Asides
from websocket_pool.close_codes import CloseCode
from websocket_pool.mailbox import Mailbox
from websocket_pool.messages import BadMessage, Message, Ping, Refresh, parse, too_large
from websocket_pool.outbox import Outbox, Sink
from websocket_pool.resume import ResumeTicket
from websocket_pool.source import AccountSource
from websocket_pool.stall import Stall
from websocket_pool.wire import Flow

BAD_MESSAGES: Final = 5
"""A client that has sent this many messages we do not understand is not one of ours."""

_CLOSE_PATIENCE_S: Final = 1.0
"""A client that reads takes a close frame at once."""

_STALL_CHECKS: Final = 6
"""How often a client that takes nothing is looked at before it is given up."""

log = structlog.get_logger(__name__)


class SocketGone(Exception):
    """The client has closed; `code` is what it said, or 1005 or 1006."""

    def __init__(self, code: int) -> None:
        super().__init__(f"closed with {code}")
        self.code = code


class Socket(Sink, Protocol):
    """What a session needs of a WebSocket."""

    def flow(self) -> Flow:
        """How far the client has got."""

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
        stall_s: How long a client may take nothing (`Stall` says what that is).
        lifetime_s: How long a connection lives whose door says nothing else.
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

    Idle, it is the task it runs in and two timers. A message is handed to the socket where it is
    delivered; only what the socket does not take then waits in the mailbox, for a writer task.

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
        self._asides = Asides(source, ticket)
        self._rules = rules
        self._metrics = metrics
        self._loop = asyncio.get_running_loop()
        mailbox = Mailbox(lambda: source.snapshot(conflated=True), lambda: source.place)
        self._outbox = Outbox(socket, mailbox, self._count, self._schedule, self._failed)
        self._stall = Stall(rules.stall_s)
        self._sent_s = self._loop.time()
        self._ticket_s = self._sent_s + rules.ticket_s
        self._pulse: asyncio.TimerHandle | None = None
        self._life: asyncio.Timeout | None = None
        self._ending: Ending | None = None

    def deliver(self, message: Message) -> bool:
        """See `Watcher.deliver`."""
        if self._ending is None and self._outbox.put(message):
            self._sent_s = self._loop.time()
            return True
        return False

    def end(self, code: CloseCode, reason: str) -> None:
        """See `Watcher.end`. What was delivered before goes first, if the client reads."""
        self._finish(Ending(code, reason))

    async def run(self, since: tuple[int, int] | None, *, lifetime_s: float | None = None) -> int:
        """Serve until somebody ends it; the close code.

        Args:
            since: (epoch, seq) the client has already, if any.
            lifetime_s: It ends with 4401 after this; by default what the rules say.
        """
        try:
            try:
                self._greet(since)
                self._source.attach(self)
                self._schedule()
                ending = await self._until_ended(lifetime_s)
            finally:
                self._source.detach(self)
                self._unschedule()
            await self._part(ending)
        finally:
            self._outbox.cancel()
        return ending.code

    def _greet(self, since: tuple[int, int] | None) -> None:
        """Send what comes before the first delivery, or have it wait first in the mailbox."""
        rules = self._rules
        missed = self._source.replay(*since) if since else None
        resumed = missed is not None
        connected = self._asides.connected(rules.instance_id, rules.heartbeat_s, resumed=resumed)
        greeting = [connected, *self._asides.trouble()]
        snapshot = None if resumed else self._source.snapshot()
        if snapshot is not None:
            greeting.append(snapshot)
        # Its age is the client's absence, not our delivery.
        greeting += [message.late() for message in missed or ()]
        for message in greeting:
            if self._outbox.greet(message):
                self._count(message)

    async def _until_ended(self, lifetime_s: float | None) -> Ending:
        if self._ending is not None:
            return self._ending
        if lifetime_s is None:
            lifetime_s = self._rules.lifetime_s
        try:
            async with asyncio.timeout(lifetime_s) as self._life:
                ending = await self._read()
        except TimeoutError:
            ending = Ending(CloseCode.UNAUTHENTICATED, "the connection's hour is over")
        self._life = None
        return self._finish(ending)

    def _finish(self, ending: Ending) -> Ending:
        """Have it end, in whatever it does; the first ending counts and is returned."""
        if self._ending is None:
            self._ending = ending
            if self._life is not None and not self._life.expired():
                self._life.reschedule(self._loop.time())
        return self._ending

    async def _part(self, ending: Ending) -> None:
        if ending.gone:
            return
        if ending.code != CloseCode.SLOW:
            try:
                async with asyncio.timeout(_CLOSE_PATIENCE_S):
                    await self._outbox.flushed()
                    await self._socket.close(ending.code, ending.reason)
            except TimeoutError:
                pass
            else:
                return
        self._socket.abort()

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
                self._say(self._asides.error(InvalidParameters.code, str(nonsense)))
                if bad >= BAD_MESSAGES:
                    return Ending(CloseCode.BAD_CLIENT, str(nonsense))
            except SocketGone as gone:
                return Ending(gone.code, gone=True)
            # Who says a lot at once lets the others have their turns.
            await asyncio.sleep(0)

    def _answer(self, text: str | bytes) -> None:
        asked = parse(text)
        if isinstance(asked, Ping):
            self._say(self._asides.pong())
        elif isinstance(asked, Refresh):
            snapshot = self._source.snapshot()
            if snapshot is not None:
                self._say(snapshot)
        else:
            raise BadMessage("this connection is authenticated already")

    def _say(self, message: Message) -> None:
        """Deliver what only this client is told."""
        if self.deliver(message):
            self._count(message)

    def _failed(self, failure: BaseException) -> None:
        if isinstance(failure, SocketGone):
            self._finish(Ending(failure.code, gone=True))
        else:
            log.error("socket_not_written", exc_info=failure)
            self._finish(Ending(CloseCode.INTERNAL, "a fault on our side"))

    def _look(self) -> None:
        """Give up who has stalled, beat where it is silent."""
        now_s = self._loop.time()
        if self._stall.noticed(self._socket.flow(), now_s):
            self._finish(Ending(CloseCode.SLOW, "nothing was taken for too long"))
            return
        silent = not self._outbox.waits and now_s >= self._sent_s + self._rules.heartbeat_s
        if silent or now_s >= self._ticket_s:
            self._ticket_s = now_s + self._rules.ticket_s
            # Behind what waits, or it would tell a seq that its reader has not been sent.
            self._say(self._asides.heartbeat())
        self._schedule()

    def _schedule(self) -> None:
        """Look again when a heartbeat may be due, and sooner while something waits."""
        self._unschedule()
        if self._ending is not None:
            return
        due_s = self._ticket_s
        if not self._outbox.waits:
            due_s = min(due_s, self._sent_s + self._rules.heartbeat_s)
        if self._outbox.waits or self._stall.waits:
            due_s = min(due_s, self._loop.time() + self._rules.stall_s / _STALL_CHECKS)
        self._pulse = self._loop.call_at(due_s, self._look)

    def _unschedule(self) -> None:
        if self._pulse is not None:
            self._pulse.cancel()

    def _count(self, message: Message) -> None:
        self._sent_s = self._loop.time()
        self._metrics.handed(message.type, message.seen_ms)
