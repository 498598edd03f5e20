"""How much of a request the control API takes."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from terminal_sim.supervisor.errors import failure

MOST_BYTES = 64 * 1024
"""Of a body: many times what the longest sensible one takes."""


class BodyLimit:
    """Refuses bodies that are too long with 413; the memory of what it refuses is given back.

    Args:
        app: Gets the requests that are short enough.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = await _body(receive)
        if body is None:
            said = f"A request's body has at most {MOST_BYTES} bytes."
            await failure(413, said)(scope, receive, send)
            return
        await self._app(scope, _Again(body, receive), send)


class _Again:
    """Tells a body that has been read, and then what comes after it."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive

    async def __call__(self) -> Message:
        body, self._body = self._body, None
        if body is None:
            return await self._receive()
        return {"type": "http.request", "body": body, "more_body": False}


async def _body(receive: Receive) -> bytes | None:
    """Read a body to its end, without keeping more than is taken; None: it is too long."""
    kept, size, more = bytearray(), 0, True
    while more:
        message = await receive()
        part: bytes = message.get("body", b"")
        size += len(part)
        if size <= MOST_BYTES:
            kept += part
        more = message.get("more_body", False)
    return bytes(kept) if size <= MOST_BYTES else None
