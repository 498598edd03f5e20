"""uvicorn's WebSocket protocol, with a way to cut a stalled connection.

uvicorn closes a client that reads nothing by `transport.close()`, which waits for the unsent
bytes, that is, for ever. Give this class to `uvicorn.Config(ws=…)`.
"""

from uvicorn._types import ASGISendEvent
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

ABORT_EXTENSION = "mt5.abort"
"""In the scope's `extensions`: a function without arguments that cuts the connection."""


class AbortableProtocol(WebSocketsSansIOProtocol):
    """Offers `ABORT_EXTENSION` to the application."""

    async def run_asgi(self) -> None:
        """Run the application with the extension in its scope."""
        self.scope["extensions"][ABORT_EXTENSION] = self.transport.abort  # type: ignore[assignment]  # uvicorn types only the extensions of the standard
        await super().run_asgi()

    async def send(self, message: ASGISendEvent) -> None:
        """Send; a refusal by an HTTP answer completes the handshake, which uvicorn forgets."""
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body"):
            self.handshake_complete = True
