"""uvicorn's WebSocket protocol as a `Wire`, and the socket it listens on.

Give `AbortableProtocol` to `uvicorn.Config(ws=…)` and `listener` to `Server.serve(sockets=…)`.
"""

import fcntl
import socket
import struct
import termios
from typing import Final

from uvicorn._types import ASGISendEvent
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from websocket_pool.close_codes import CloseCode
from websocket_pool.wire import WIRE_EXTENSION, Flow

SEND_BUFFER_BYTES: Final = 64 * 1024
"""Of the kernel, for each socket; Linux doubles it. By itself it would grow to megabytes."""

RECEIVE_BUFFER_BYTES: Final = 16 * 1024
"""Clients say little. What fits here is parsed at one go, so this bounds what a flood takes."""

USER_TIMEOUT_MS: Final = 60_000
"""Bytes unacknowledged for so long end a connection that no session judges any more."""

PONG_S: Final = 30.0
"""For uvicorn's `ws_ping_timeout`: a pong says that all before it was read, so as for a stall."""

CLOSE_PATIENCE_S: Final = 1.0
"""A client that reads takes a close frame at once."""


class AbortableProtocol(WebSocketsSansIOProtocol):
    """Is a `Wire`, found at `WIRE_EXTENSION`; bounded, and cut where uvicorn would wait for ever.

    uvicorn closes by `transport.close()`, which waits for unsent bytes; and it buffers a pong for
    every ping, read or not.
    """

    _offered = 0

    def offer(self, frame: bytes) -> bool:
        """See `Wire.offer`."""
        if not self.writable.is_set() or self._over():
            return False
        self.transport.write(frame)
        self._offered += len(frame)
        return True

    async def drained(self) -> bool:
        """See `Wire.drained`."""
        await self.writable.wait()
        return not self._over()

    def flow(self) -> Flow:
        """See `Wire.flow`."""
        unacknowledged = self._unacknowledged()
        return Flow(self._offered - unacknowledged, unacknowledged > 0)

    def abort(self) -> None:
        """See `Wire.abort`."""
        self.transport.abort()

    async def run_asgi(self) -> None:
        """Run the application with the extension in its scope; then the connection ends soon."""
        self.scope["extensions"][WIRE_EXTENSION] = self  # type: ignore[assignment]  # uvicorn types only the extensions of the standard
        await super().run_asgi()
        if self.disconnected:
            return
        if self.close_timer is not None:
            self.close_timer.cancel()
            self.close_timer = self.loop.call_later(self.close_timeout, self.transport.abort)
        self.loop.call_later(CLOSE_PATIENCE_S, self._cut_unread)

    async def send(self, message: ASGISendEvent) -> None:
        """Send; a refusal by an HTTP answer completes the handshake, which uvicorn forgets."""
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body"):
            self.handshake_complete = True

    def shutdown(self) -> None:
        """Say 1012 if nothing has been said, and hang up, on readers that do not read, too."""
        super().shutdown()
        self.loop.call_later(CLOSE_PATIENCE_S, self._cut_unread)

    def eof_received(self) -> None:
        """Half a connection is none; asyncio would send the rest first, to whom does not read."""
        if self.transport.get_write_buffer_size():
            self.transport.abort()

    def handle_ping(self) -> None:
        """Answer, unless the answers before are still unread (RFC 6455, 5.5.3, allows it)."""
        pong = b"".join(self.conn.data_to_send())
        if self.writable.is_set():
            self.transport.write(pong)

    def keepalive_timeout(self) -> None:
        """No pong: the session judges a client for which bytes still wait, others are cut."""
        if self._unacknowledged():
            self.pong_timer = self.loop.call_later(self.ping_timeout or 0, self.keepalive_timeout)
            return
        self.pong_timer = None
        if not self._over():
            self.queue.put_nowait({"type": "websocket.disconnect", "code": CloseCode.SLOW})
            self.transport.abort()

    def _over(self) -> bool:
        return self.close_sent or self.disconnected or self.transport.is_closing()

    def _cut_unread(self) -> None:
        if not self.disconnected and self.transport.get_write_buffer_size():
            self.transport.abort()

    def _unacknowledged(self) -> int:
        """Bytes handed to the transport that the client's machine has not acknowledged."""
        if self.disconnected or self.transport.is_closing():
            return 0
        return self.transport.get_write_buffer_size() + self._in_kernel()

    def _in_kernel(self) -> int:
        answer = bytearray(_INT.size)
        try:
            fcntl.ioctl(self.transport.get_extra_info("socket").fileno(), _SIOCOUTQ, answer)
        except OSError:
            # It was reset a moment ago, which the event loop will tell.
            return 0
        return int(_INT.unpack(answer)[0])


_SIOCOUTQ: Final = termios.TIOCOUTQ
"""Linux: bytes in a socket's send queue, sent or not, that have not been acknowledged."""

_INT: Final = struct.Struct("i")


def listener(host: str, port: int) -> socket.socket:
    """A listening TCP socket; those it accepts inherit its small buffers and its timeout.

    Args:
        host: An address, or a name for one.
        port: 0 for any.

    Raises:
        OSError: It cannot be bound.
    """
    family, *_, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    # asyncio sends without delay only on what calls itself TCP.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound
