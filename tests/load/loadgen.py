"""Requests that are sent when they are due, however the server does: an open loop over HTTP/1.1.

A request that has to wait, in the server or for a connection of ours, waits on its own account:
its latency counts from when it was due, so a server that stalls cannot hide behind a client that
stalls with it (coordinated omission).
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias, cast

import httptools

# uvicorn hangs up after 5 s; a request must not cross its goodbye.
IDLE_S = 3.0
# A connection more is a file descriptor more on either side; fresh reads of a full pool wait for
# seconds, 500 a second of them.
MOST_CONNECTIONS = 4000
# Why there is no reply.
BROKEN, NOT_CONNECTED, TOO_LATE = b"connection broken", b"not connected", b"no answer in time"


@dataclass(frozen=True, slots=True)
class Call:
    """A request to be sent.

    Attributes:
        number: Which of them; told back with its reply.
        due_s: When, in seconds after the start.
        raw: What goes over the wire.
    """

    number: int
    due_s: float
    raw: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of a call.

    Attributes:
        number: The call's.
        status: Of HTTP; 0 without a reply.
        body: Of the reply; without one, why.
        sent_s: Seconds from the start to when it was written to a connection.
        latency_s: Seconds from when it was due to its last byte.
    """

    number: int
    status: int
    body: bytes
    sent_s: float
    latency_s: float


OnReply: TypeAlias = Callable[[Reply], None]
_Answered: TypeAlias = Callable[["_Line", int, bytes], None]


def request_bytes(path: str, headers: dict[str, str]) -> bytes:
    """A GET as it goes over the wire."""
    lines = [f"GET {path} HTTP/1.1", "Host: bench", *(f"{k}: {v}" for k, v in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("ascii")


class _Line(asyncio.Protocol):
    """A connection with at most one call under way."""

    def __init__(self, answered: _Answered, closed: Callable[["_Line"], None]) -> None:
        self.call: Call | None = None
        self.sent_s = 0.0
        self.idle_since_s = 0.0
        self._answered = answered
        self._closed = closed
        self._transport: asyncio.Transport | None = None
        self._parts: list[bytes] = []
        self._parser = httptools.HttpResponseParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are of no class of asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.close()

    def connection_lost(self, _error: Exception | None) -> None:
        self._transport = None
        self._closed(self)

    def on_body(self, part: bytes) -> None:
        self._parts.append(part)

    def on_message_complete(self) -> None:
        status, body = self._parser.get_status_code(), b"".join(self._parts)
        self._parts = []
        if not self._parser.should_keep_alive():
            self.close()
        self._answered(self, status, body)

    @property
    def open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def send(self, call: Call, now_s: float) -> None:
        assert self._transport is not None
        self.call, self.sent_s = call, now_s
        self._transport.write(call.raw)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()


class Replica:
    """The connections to one server.

    Args:
        host: Its address.
        port: Its port.
        most: Connections; calls beyond them wait for one.
        on_reply: Told of every reply.
    """

    def __init__(self, host: str, port: int, most: int, on_reply: OnReply) -> None:
        self._host, self._port, self._most = host, port, most
        self._on_reply = on_reply
        self._loop = asyncio.get_running_loop()
        self._start_s = self._loop.time()
        self._lines: set[_Line] = set()
        self._idle: list[_Line] = []
        self._opening: set[asyncio.Task[None]] = set()
        self._waiting: deque[Call] = deque()

    def begin(self, at_s: float) -> None:
        """From here on times are seconds after this instant of the loop."""
        self._start_s = at_s

    def send(self, call: Call) -> None:
        """Send a call now, or as soon as there is a connection for it."""
        while self._idle:
            line = self._idle.pop()
            if line.open and self._now_s() - line.idle_since_s < IDLE_S:
                line.send(call, self._now_s())
                return
            line.close()
        self._waiting.append(call)
        self._open_another()

    async def aclose(self) -> None:
        """Hang up; what is under way ends as broken."""
        self._most = 0
        for task in self._opening:
            task.cancel()
        await asyncio.gather(*self._opening, return_exceptions=True)
        while self._waiting:
            self._broken(self._waiting.popleft(), self._now_s(), TOO_LATE)
        for line in tuple(self._lines):
            line.close()
        while self._lines:
            await asyncio.sleep(0)

    def _open_another(self) -> None:
        if len(self._lines) + len(self._opening) < self._most:
            task = self._loop.create_task(self._open())
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def _open(self) -> None:
        line = None
        with contextlib.suppress(OSError):
            _, line = await self._loop.create_connection(
                lambda: _Line(self._answered, self._closed), self._host, self._port
            )
        if line is not None and line.open:
            self._lines.add(line)
            self._next(line)
        elif self._waiting:
            self._broken(self._waiting.popleft(), self._now_s(), NOT_CONNECTED)

    def _answered(self, line: _Line, status: int, body: bytes) -> None:
        call, line.call = line.call, None
        if call is None:
            # Nobody asked; the connection cannot be trusted with another call.
            line.close()
            return
        latency_s = self._now_s() - call.due_s
        self._on_reply(Reply(call.number, status, body, line.sent_s, latency_s))
        self._next(line)

    def _next(self, line: _Line) -> None:
        if not line.open:
            return
        if self._waiting:
            line.send(self._waiting.popleft(), self._now_s())
        else:
            line.idle_since_s = self._now_s()
            self._idle.append(line)

    def _closed(self, line: _Line) -> None:
        self._lines.discard(line)
        with contextlib.suppress(ValueError):
            self._idle.remove(line)
        call, line.call = line.call, None
        if call is not None:
            self._broken(call, line.sent_s, BROKEN if self._most else TOO_LATE)
        if self._waiting:
            self._open_another()

    def _broken(self, call: Call, sent_s: float, why: bytes) -> None:
        self._on_reply(Reply(call.number, 0, why, sent_s, self._now_s() - call.due_s))

    def _now_s(self) -> float:
        return self._loop.time() - self._start_s


async def run_open_loop(
    calls: Iterable[Call],
    addresses: Sequence[tuple[str, int]],
    on_reply: OnReply,
    *,
    grace_s: float,
    most: int = MOST_CONNECTIONS,
) -> None:
    """Send every call when it is due, to the servers in turn.

    Args:
        calls: In the order of when they are due.
        addresses: Host and port of each server.
        on_reply: Told of every call's reply, once; those without one by then have status 0.
        grace_s: How long after the last call its replies are waited for.
        most: Connections in all.
    """
    loop = asyncio.get_running_loop()
    left = 0
    settled = asyncio.Event()

    def count_down(reply: Reply) -> None:
        nonlocal left
        left -= 1
        if not left:
            settled.set()
        on_reply(reply)

    replicas = [Replica(*address, most // len(addresses), count_down) for address in addresses]
    start_s = loop.time()
    for replica in replicas:
        replica.begin(start_s)
    try:
        for sent, call in enumerate(calls):
            if (early_s := start_s + call.due_s - loop.time()) > 0:
                await asyncio.sleep(early_s)
            left += 1
            settled.clear()
            replicas[sent % len(replicas)].send(call)
        if left:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(settled.wait(), grace_s)
    finally:
        await asyncio.gather(*(replica.aclose() for replica in replicas))
