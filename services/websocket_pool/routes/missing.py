"""Handshakes to paths that have no socket."""

from fastapi import APIRouter, WebSocket

from mt5kit.telemetry.sockets import refuse_socket


def missing_routes() -> APIRouter:
    """Answers every handshake with our 404; include it last."""
    router = APIRouter()

    @router.websocket("/{path:path}")
    async def missing(websocket: WebSocket) -> None:
        await refuse_socket(websocket)

    return router
