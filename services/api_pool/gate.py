"""Middleware at the API's door: a valid key, within its rate."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from api_pool.keys import ApiKeys
from api_pool.limits import RateLimiter
from mt5kit.errors import CallerError, Forbidden, Unauthenticated
from mt5kit.telemetry.errors_http import failure_response
from mt5kit.telemetry.http import headers_of
from mt5kit.telemetry.sockets import refuse_socket

# What load balancers, Docker and Prometheus ask without a key (contracts §1, §5).
OPEN_PATHS: Final = frozenset({"/api/health", "/health/live", "/health/ready", "/metrics"})
ADMIN_PATHS: Final = "/api/admin/"
INTERNAL_PATHS: Final = "/internal/"
INTERNAL_HEADER: Final = b"x-internal-key"
_KEY_NAME: Final = "mt5.key_name"


@dataclass(frozen=True, slots=True)
class GateRules:
    """Who may pass: service keys and their rate, and the keys of the admin and internal paths."""

    keys: ApiKeys
    admin_keys: ApiKeys
    internal_keys: ApiKeys
    limiter: RateLimiter

    def check(self, path: str, headers: Mapping[bytes, bytes]) -> str:
        """Let a request pass; the name of the key it came with.

        Raises:
            Unauthenticated: It has no valid service key; for an internal path, no internal key.
            Forbidden: It is for an admin path and has no valid admin key.
            RateLimited: The key has been used too often.
        """
        if path.startswith(INTERNAL_PATHS):
            # A turn forwarded by a replica has been counted there.
            return self.internal_keys.name_of(headers.get(INTERNAL_HEADER))
        name = self.keys.name_of(headers.get(b"x-api-key"))
        self.limiter.admit(name)
        if path.startswith(ADMIN_PATHS):
            try:
                self.admin_keys.name_of(headers.get(b"x-admin-api-key"))
            except Unauthenticated as refused:
                raise Forbidden(refused.message) from None
        return name


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
                scope[_KEY_NAME] = self._rules.check(scope["path"], headers_of(scope))
            except CallerError as refused:
                response = failure_response(refused, scope["mt5.request_id"])
                await response(scope, receive, send)
                return
        await self._app(scope, receive, send)


def actor_of(request: Request) -> str:
    """The name of the key a request came with, for the audit log."""
    return str(request.scope[_KEY_NAME])
