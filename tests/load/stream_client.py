"""A WebSocket client that costs next to nothing: it notes what came when, unread.

It knows as much of RFC 6455 as a server's frames need: one frame a message, unmasked,
uncompressed. Of a message it keeps the beginning, where type, number and instant stand.
"""

import asyncio
from dataclasses import dataclass
from time import time
from typing import Final, NamedTuple, cast

# What stands before `data`, with an account id of 64 characters.
HEAD_BYTES: Final = 200
SNAPSHOT: Final = b'{"type":"snapshot"'

_TEXT, _CLOSE, _PING, _PONG = 0x81, 0x88, 0x89, 0x8A
_TWO_BYTES, _EIGHT_BYTES = 126, 127
_UPGRADE: Final = (
    "GET {path} HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
_WELCOME: Final = b"HTTP/1.1 101 "


@dataclass(frozen=True, slots=True)
class Seat:
    """Where a client connects, and to what.

    Args:
        host: The server's address.
        port: The server's port.
        path: With the ticket, if it needs one.
        account: What it watches there.
        place: Which server that is, for the reader of figures.
    """

    host: str
    port: int
    path: str
    account: str
    place: str = ""


class Got(NamedTuple):
    """A message: UTC epoch seconds of its last byte, bytes of its payload, how that begins."""

    at_s: float
    size: int
    head: bytes


class Client(asyncio.Protocol):
    """One connection. What it gets is noted while `got` is a list.

    Args:
        seat: Where.
        until: How the message begins that `greeted` waits for; it is kept whole as `greeting`.
    """

    def __init__(self, seat: Seat, until: bytes = SNAPSHOT) -> None:
        self.seat = seat
        self.greeting = b""
        self.got: list[Got] | None = None
        self.lost: str | None = None
        self.greeted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._until = until
        self._rest = b""
        self._open = False
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are of no class of asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(_UPGRADE.format(path=self.seat.path).encode("ascii"))

    def data_received(self, data: bytes) -> None:
        at_s = time()
        if self._rest:
            data = self._rest + data
        at = 0
        if not self._open:
            at = self._handshake(data)
        while self._open and (frame := _frame(data, at)) is not None:
            first, start, at = frame
            if first != _TEXT:
                self._control(first, data[start:at])
                continue
            if self.got is not None:
                self.got.append(Got(at_s, at - start, data[start : min(at, start + HEAD_BYTES)]))
            if not self.greeting:
                self._greet(data[start:at])
        self._rest = data[at:]

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = self.lost or f"the server hung up ({error})"
        self._transport = None
        self._fail()

    def leave(self) -> None:
        """Hang up without a word."""
        self.lost = self.lost or "left"
        if self._transport is not None:
            self._transport.abort()

    def _handshake(self, data: bytes) -> int:
        """Where frames begin, once the server's answer is whole."""
        end = data.find(b"\r\n\r\n")
        if end < 0:
            return 0
        if data.startswith(_WELCOME):
            self._open = True
        else:
            self.lost = data.decode("latin-1")
            self.leave()
        return end + 4

    def _greet(self, payload: bytes) -> None:
        if payload.startswith(self._until):
            self.greeting = payload
            if not self.greeted.done():
                self.greeted.set_result(None)

    def _control(self, first: int, payload: bytes) -> None:
        if first == _PING and self._transport is not None:
            # Masked with zeros, which leaves it as it is.
            self._transport.write(bytes((_PONG, 0x80 | len(payload), 0, 0, 0, 0)) + payload)
        elif first == _CLOSE:
            code, reason = int.from_bytes(payload[:2], "big"), payload[2:].decode()
            self.lost = f"closed with {code}: {reason}"
            # The server waits for it.
            self.leave()

    def _fail(self) -> None:
        if not self.greeted.done():
            self.greeted.set_exception(RuntimeError(f"{self.seat.account}: {self.lost}"))


def _frame(data: bytes, at: int) -> tuple[int, int, int] | None:
    """First byte of the frame there, start and end of its payload; None unless it is whole."""
    have = len(data)
    if have - at < 2:
        return None
    size, start = data[at + 1], at + 2
    if size == _TWO_BYTES:
        start = at + 4
    elif size == _EIGHT_BYTES:
        start = at + 10
    if start > have:
        return None
    if start > at + 2:
        size = int.from_bytes(data[at + 2 : start], "big")
    end = start + size
    return (data[at], start, end) if end <= have else None
