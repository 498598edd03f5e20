"""`WS /ws/account/{account_id}`."""

from typing import TYPE_CHECKING, cast
from urllib.parse import parse_qs

from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from websocket_pool.close_codes import CloseCode
from websocket_pool.door import Door, Knock
from websocket_pool.session import SocketGone
from websocket_pool.transport import ABORT_EXTENSION

if TYPE_CHECKING:
    from collections.abc import Callable

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
    """A `Socket` on Starlette's."""

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket

    async def send(self, text: str) -> None:
        """See `Socket.send`."""
        try:
            await self._websocket.send({"type": "websocket.send", "text": text})
        except (WebSocketDisconnect, RuntimeError) as gone:
            # Starlette: a RuntimeError once the client's close has been received.
            raise SocketGone(_code_of(gone)) from gone

    async def receive(self) -> str | bytes:
        """See `Socket.receive`."""
        message = await self._websocket.receive()
        if message["type"] == "websocket.disconnect":
            raise SocketGone(int(message.get("code") or CloseCode.NO_STATUS))
        text, data = message.get("text"), message.get("bytes")
        return str(text) if text is not None else bytes(data or b"")

    async def close(self, code: int, reason: str) -> None:
        """See `Socket.close`."""
        try:
            await self._websocket.close(code, reason[:_LONGEST_REASON])
        except (WebSocketDisconnect, RuntimeError):
            return

    def abort(self) -> None:
        """See `Socket.abort`; a server that cannot do it closes in its own time."""
        extensions = self._websocket.scope.get("extensions", {})
        abort = cast("Callable[[], None] | None", extensions.get(ABORT_EXTENSION))
        if abort is not None:
            abort()


_LONGEST_REASON = 120
"""A close frame has room for 123 bytes; our reasons are ASCII."""


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
        )
        await door.serve(AsgiSocket(websocket), knock)

    return router
