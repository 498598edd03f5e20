"""`WS /ws/account/{account_id}`."""

from typing import cast
from urllib.parse import parse_qs

from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from websocket_pool.close_codes import CloseCode
from websocket_pool.door import Door
from websocket_pool.entrance import Knock
from websocket_pool.messages import Message
from websocket_pool.session import SocketGone
from websocket_pool.wire import WIRE_EXTENSION, Flow, Wire

QUERY_KEY = "mt5.query"
"""Where `HideQuery` leaves the query string."""


class HideQuery:
    """ASGI middleware: uvicorn logs the query string of a WebSocket, tickets and all.

    It reads its scope again after us, so the string moves to a key it does not know.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a connection on."""
        if scope["type"] == "websocket":
            scope[QUERY_KEY] = scope["query_string"]
            scope["query_string"] = b""
        await self._app(scope, receive, send)


class AsgiSocket:
    """A `Socket` on Starlette's: on the server's `Wire`, or without one on ASGI alone."""

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket
        extensions = websocket.scope.get("extensions", {})
        self._wire = cast("Wire | None", extensions.get(WIRE_EXTENSION))
        self._sent = 0
        self._sending = False

    def offer(self, message: Message) -> bool:
        """See `Socket.offer`."""
        return self._wire is not None and self._wire.offer(message.frame)

    async def writable(self) -> None:
        """See `Socket.writable`; what happens without a wire, `send` knows."""
        if self._wire is not None and not await self._wire.drained():
            raise SocketGone(CloseCode.NO_STATUS)

    async def send(self, message: Message) -> None:
        """See `Socket.send`."""
        if self.offer(message):
            return
        if self._wire is not None:
            raise SocketGone(CloseCode.NO_STATUS)
        self._sending = True
        try:
            await self._websocket.send({"type": "websocket.send", "text": message.text})
        except (WebSocketDisconnect, RuntimeError) as gone:
            # Starlette: a RuntimeError once the client's close has been received.
            raise SocketGone(_code_of(gone)) from gone
        self._sending = False
        self._sent += 1

    def flow(self) -> Flow:
        """See `Socket.flow`; without a wire a client takes whole messages."""
        return Flow(self._sent, self._sending) if self._wire is None else self._wire.flow()

    async def receive(self) -> str | bytes:
        """See `Socket.receive`."""
        message = await self._websocket.receive()
        if message["type"] == "websocket.disconnect":
            raise SocketGone(int(message.get("code") or CloseCode.NO_STATUS))
        text, data = message.get("text"), message.get("bytes")
        return str(text) if text is not None else bytes(data or b"")

    async def close(self, code: int, reason: str) -> None:
        """See `Socket.close`."""
        short = reason.encode()[:_LONGEST_REASON].decode(errors="ignore")
        try:
            await self._websocket.close(code, short)
        except (WebSocketDisconnect, RuntimeError):
            return

    def abort(self) -> None:
        """See `Socket.abort`; a server without a wire closes in its own time."""
        if self._wire is not None:
            self._wire.abort()


_LONGEST_REASON = 123
"""Bytes; a close frame has room for no more."""


def _code_of(gone: WebSocketDisconnect | RuntimeError) -> int:
    return gone.code if isinstance(gone, WebSocketDisconnect) else CloseCode.NO_STATUS


def account_routes(door: Door) -> APIRouter:
    """The route, behind this door."""
    router = APIRouter()

    @router.websocket("/ws/account/{account_id}")
    async def account(websocket: WebSocket, account_id: str) -> None:
        # Accepted before it is judged: a browser sees no close code of a refused handshake.
        await websocket.accept()
        query = parse_qs(websocket.scope.get(QUERY_KEY, b"").decode("latin-1"))
        knock = Knock(
            account_id=account_id,
            origin=websocket.headers.get("origin"),
            ticket=query.get("ticket", [None])[0],
            since=query.get("since", [""])[0],
            address=websocket.client.host if websocket.client else "",
        )
        await door.serve(AsgiSocket(websocket), knock)

    return router
