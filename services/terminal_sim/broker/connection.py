"""One connection of a broker: messages with their length before them."""

import asyncio
import logging
from typing import TypeVar

import msgspec

from terminal_sim.broker.messages import LENGTH_BYTES, MAX_MESSAGE, Answer, Request

_LOG = logging.getLogger("terminal_sim.broker")
# What may wait for a peer that does not read; then it is given up. The longest answer may wait too.
_BACKLOG = 8 * 1024 * 1024
# Requests are small; who announces more is no terminal.
_LONGEST_REQUEST = 256 * 1024

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Request).decode

R = TypeVar("R")


class Malformed(Exception):
    """A peer sent what is no message."""


def framed(message: Answer) -> bytes:
    """Return a message as it goes over the wire."""
    body = _encode(message)
    return len(body).to_bytes(LENGTH_BYTES, "big") + body


class Connection:
    """A peer: a terminal with its account, or a supervisor.

    Args:
        reader: What comes from it.
        writer: What goes to it.

    Attributes:
        login: Account that is logged in; None before.
        investor: It was logged in with the read-only password.
        name: For the log.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.login: int | None = None
        self.investor = False
        peer = writer.get_extra_info("peername")
        self.name = f"{peer[0]}:{peer[1]}" if peer else "somebody"
        self._reader = reader
        self._writer = writer
        self._allowance = _BACKLOG

    async def read(self) -> Request | None:
        """Return the next request; None when the peer has gone.

        Raises:
            Malformed: It is no request.
        """
        try:
            length = int.from_bytes(await self._reader.readexactly(LENGTH_BYTES), "big")
            if length > _LONGEST_REQUEST:
                raise Malformed(f"a request of {length} bytes")
            body = await self._reader.readexactly(length)
        except (asyncio.IncompleteReadError, OSError):
            return None
        try:
            request: Request = _decode(body)
        except (msgspec.DecodeError, RecursionError):  # its text may hold what was sent
            raise Malformed("no request of ours") from None
        return request

    def tell(self, frame: bytes) -> None:
        """Send what the peer has not asked for; one that does not read is given up."""
        if self._writer.is_closing():
            return
        self._writer.write(frame)
        if self._writer.transport.get_write_buffer_size() > self._allowance:
            _LOG.warning("%s does not read; given up", self.name)
            self.abort()

    async def answer(self, message: Answer) -> None:
        """Send what the peer has asked for, and wait until it takes it."""
        frame = framed(message)
        if len(frame) > MAX_MESSAGE:
            raise ValueError(f"an answer of {len(frame)} bytes")
        self._allowance = _BACKLOG + len(frame)
        self.tell(frame)
        try:
            await self._writer.drain()
        except OSError:
            return
        self._allowance = _BACKLOG

    def abort(self) -> None:
        """Close at once, whatever is still to be sent."""
        self._writer.transport.abort()
