"""Middleware at the API's door: a valid key, within its rate."""

from collections.abc import Mapping
from dataclasses import dataclass

from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from api_pool.keys import ApiKeys
from api_pool.limits import RateLimiter
from mt5kit.errors import CallerError, Forbidden, Unauthenticated
from mt5kit.telemetry.errors_http import failure_response
from mt5kit.telemetry.sockets import refuse_socket

# What load balancers, Docker and Prometheus ask without a key (contracts §1, §5).
OPEN_PATHS = ("/api/health", "/health/live", "/health/ready", "/metrics")


ADMIN_PATHS = "/api/admin/"


@dataclass(frozen=True, slots=True)
class GateRules:
    """Who may pass: service keys and their rate, and the keys of the admin paths."""

    keys: ApiKeys
    admin_keys: ApiKeys
    limiter: RateLimiter

    def check(self, path: str, headers: Mapping[bytes, bytes]) -> None:
        """Let a request pass.

        Raises:
            Unauthenticated: It has no valid service key.
            Forbidden: It is for an admin path and has no valid admin key.
            RateLimited: The key has been used too often.
        """
        self.limiter.admit(self.keys.name_of(headers.get(b"x-api-key")))
        if path.startswith(ADMIN_PATHS):
            try:
                self.admin_keys.name_of(headers.get(b"x-admin-api-key"))
            except Unauthenticated as refused:
                raise Forbidden(refused.message) from None


class KeyGate:
    """ASGI middleware that lets requests with a service key through, and those to open paths.

    It stands before the router, so that without a key even an unknown route is a 401.
    """

    def __init__(self, app: ASGIApp, rules: GateRules) -> None:
        self._app = app
        self._rules = rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection; sockets are refused, for the API has none."""
        if scope["type"] == "websocket":
            await refuse_socket(WebSocket(scope, receive, send))
            return
        if scope["type"] == "http" and scope["path"] not in OPEN_PATHS:
            try:
                self._rules.check(scope["path"], dict(scope["headers"]))
            except CallerError as refused:
                response = failure_response(refused, scope["mt5.request_id"])
                await response(scope, receive, send)
                return
        await self._app(scope, receive, send)
