"""Refusing a WebSocket handshake in the shape of every other failure."""

from starlette.websockets import WebSocket

from mt5kit.errors import NotFound
from mt5kit.telemetry.errors_http import failure_response
from mt5kit.telemetry.request_ids import request_id_of_scope


async def refuse_socket(websocket: WebSocket) -> None:
    """Answer a handshake to a path that has no socket: 404 `NOT_FOUND`."""
    request_id = request_id_of_scope(websocket.scope)
    error = NotFound(f"no socket at {websocket.url.path}; streams are under /ws/account/")
    response = failure_response(error, request_id)
    response.headers["X-Request-ID"] = request_id
    await websocket.send_denial_response(response)
