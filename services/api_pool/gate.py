"""Middleware at the API's door: a valid key, within its rate."""

import uuid

from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from api_pool.keys import ApiKeys
from api_pool.limits import RateLimiter
from mt5kit.errors import CallerError, NotFound
from mt5kit.telemetry.errors_http import failure_response

# What load balancers, Docker and Prometheus ask without a key (contracts §1, §5).
OPEN_PATHS = ("/api/health", "/health/live", "/health/ready", "/metrics")


class KeyGate:
    """ASGI middleware that lets requests with a service key through, and those to open paths.

    It stands before the router, so that without a key even an unknown route is a 401.
    """

    def __init__(self, app: ASGIApp, keys: ApiKeys, limiter: RateLimiter) -> None:
        self._app = app
        self._keys = keys
        self._limiter = limiter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection; sockets are refused, for the API has none."""
        if scope["type"] == "websocket":
            error = NotFound("the API has no sockets; streams are under /ws/")
            response = failure_response(error, uuid.uuid4().hex)
            await WebSocket(scope, receive, send).send_denial_response(response)
            return
        if scope["type"] == "http" and scope["path"] not in OPEN_PATHS:
            try:
                self._limiter.admit(self._keys.name_of(dict(scope["headers"]).get(b"x-api-key")))
            except CallerError as refused:
                response = failure_response(refused, scope["mt5.request_id"])
                await response(scope, receive, send)
                return
        await self._app(scope, receive, send)
