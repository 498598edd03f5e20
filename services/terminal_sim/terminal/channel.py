"""A connection to a broker that carries whole messages and never blocks by itself."""

import socket
import time
from collections.abc import Callable, Iterator
from typing import Self

import msgspec

from terminal_sim.broker.messages import LENGTH_BYTES, MAX_MESSAGE, Answer, Request
from terminal_sim.terminal.held_wait import WRITABLE, HeldWait

Address = tuple[str, int]

_CHUNK = 262_144
_encode = msgspec.msgpack.Encoder().encode
_decode: Callable[[bytes], Answer] = msgspec.msgpack.Decoder(Answer).decode


class LineDown(Exception):
    """The broker cannot be reached, or was lost: what was sent may have been carried out or not."""


class LineTimeout(Exception):
    """The broker did not answer in time."""


class Channel:
    """A connected socket, non-blocking from now on.

    Args:
        connected: Taken over, and closed by :meth:`close`.
    """

    def __init__(self, connected: socket.socket) -> None:
        connected.setblocking(False)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = connected
        self._readable = HeldWait(connected.fileno())
        self._writable = HeldWait(connected.fileno(), WRITABLE)
        self._buffer = bytearray()
        self.heard = time.monotonic()

    @classmethod
    def dial(cls, address: Address, timeout_s: float) -> Self:
        """Connect; other threads run meanwhile.

        Raises:
            LineDown: Nobody listens there, the name is unknown, or it took too long.
        """
        try:
            return cls(socket.create_connection(address, max(timeout_s, 0.001)))
        except (OSError, UnicodeError) as error:
            raise LineDown(str(error)) from error

    def close(self) -> None:
        """End the connection."""
        self._socket.close()

    def send(self, message: Request, deadline: float) -> None:
        """Send a message; holds the interpreter should the broker not take it at once.

        Raises:
            LineDown: The connection has ended, or the broker takes nothing until the deadline
                (``time.monotonic()``); a part of the message may have gone, so it must be closed.
        """
        body = _encode(message)
        left = memoryview(len(body).to_bytes(LENGTH_BYTES, "big") + body)
        while left:
            try:
                left = left[self._socket.send(left) :]
            except BlockingIOError:
                if not self._writable.until(deadline):
                    raise LineDown("the broker takes no more") from None
            except OSError as error:
                raise LineDown(str(error)) from error

    def wait(self, deadline: float) -> bool:
        """Wait until there is something to read, holding the interpreter."""
        return self._readable.until(deadline)

    def read(self) -> Iterator[Answer]:
        """Yield the messages that have come.

        Raises:
            LineDown: The connection has ended, after its last message, or makes no sense.
        """
        ended: str | None = None
        while ended is None and self._readable.now():
            ended = self._take()
            while (message := self._next()) is not None:
                yield message
        if ended is not None:
            raise LineDown(ended)

    def _take(self) -> str | None:
        """Read once; return why nothing more will come."""
        try:
            chunk = self._socket.recv(_CHUNK)
        except BlockingIOError:
            return None
        except OSError as error:
            return str(error)
        if not chunk:
            return "the broker has ended the connection"
        self.heard = time.monotonic()
        self._buffer += chunk
        return None

    def _next(self) -> Answer | None:
        size = int.from_bytes(self._buffer[:LENGTH_BYTES], "big")
        if size > MAX_MESSAGE:
            raise LineDown("the broker announces a message that is too long")
        if len(self._buffer) < LENGTH_BYTES + size or not self._buffer:
            return None
        body = bytes(self._buffer[LENGTH_BYTES : LENGTH_BYTES + size])
        del self._buffer[: LENGTH_BYTES + size]
        try:
            return _decode(body)
        except msgspec.DecodeError as error:
            raise LineDown(f"the broker sent what is no message: {error}") from error
