"""Who may pass: everything under /console but the sign-in needs a session."""

from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from console.sessions import Sessions
from mt5kit.errors import Forbidden, Mt5SwarmError, Unauthenticated
from mt5kit.telemetry.errors_http import failure_response

ROOT: Final = "/console"
LOGIN: Final = f"{ROOT}/login"
STATIC: Final = f"{ROOT}/static"
COOKIE: Final = "mt5_console"

# WebSocket close code 1008, policy violation: before the handshake it becomes a 403.
_POLICY_VIOLATION = 1008

# Vue compiles templates in the browser and NiceGUI's page is one inline script: hence the two
# 'unsafe' words. The rest keeps every request on this host.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data:; object-src 'none'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": _POLICY,
    # The sign-in link carries its token in the address. (`no-referrer` would make the Origin of
    # our own forms "null".)
    "Referrer-Policy": "strict-origin",
    "X-Content-Type-Options": "nosniff",
}


class SessionGate:
    """ASGI middleware; what is not under /console passes untouched.

    A page without a session is sent to the sign-in; anything else gets the failure of contracts
    §1. A WebSocket, and a request that changes something, must come from a page of this host.
    """

    def __init__(self, app: ASGIApp, sessions: Sessions) -> None:
        self._app = app
        self._sessions = sessions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] not in ("http", "websocket") or not _guarded(scope["path"]):
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is None:
            await self._app(scope, receive, _with_headers(send))
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION})
        else:
            await _answer(scope, refusal)(scope, receive, _with_headers(send))

    def _refusal(self, scope: Scope) -> Mt5SwarmError | None:
        connection = HTTPConnection(scope)
        if _changes(scope) and not _same_host(connection.headers):
            return Forbidden("this came from a page of another host")
        if _public(scope["path"]):
            return None
        if not self._sessions.valid(connection.cookies.get(COOKIE, "")):
            return Unauthenticated("sign in first")
        return None


def _guarded(path: str) -> bool:
    return path == ROOT or path.startswith(f"{ROOT}/")


def _public(path: str) -> bool:
    return path == LOGIN or path.startswith(f"{STATIC}/")


def _changes(scope: Scope) -> bool:
    return scope["type"] == "websocket" or scope["method"] not in ("GET", "HEAD")


def _same_host(headers: Headers) -> bool:
    origin = headers.get("origin")
    return origin is None or urlsplit(origin).netloc == headers.get("host")


def _answer(scope: Scope, refusal: Mt5SwarmError) -> Response:
    wants_page = scope["method"] == "GET" and "text/html" in Headers(scope=scope).get("accept", "")
    if wants_page and isinstance(refusal, Unauthenticated):
        return RedirectResponse(LOGIN, 303)
    return failure_response(refusal, str(scope.get("mt5.request_id", "")))


def _with_headers(send: Send) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers[name] = value
        await send(message)

    return send_with_headers
