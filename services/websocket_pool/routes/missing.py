"""Handshakes to paths that have no socket."""

import re
import uuid

from fastapi import APIRouter, WebSocket

from mt5kit.errors import NotFound
from mt5kit.telemetry.errors_http import failure_response

_REQUEST_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


def missing_routes() -> APIRouter:
    """Answers every handshake with our 404; include it last."""
    router = APIRouter()

    @router.websocket("/{path:path}")
    async def missing(websocket: WebSocket, path: str) -> None:
        given = websocket.headers.get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        response = failure_response(NotFound(f"no socket at /{path}"), request_id)
        response.headers["X-Request-ID"] = request_id
        await websocket.send_denial_response(response)

    return router
