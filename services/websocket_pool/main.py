"""`python -m websocket_pool.main`: one WebSocket replica on port 8000."""

import asyncio
import sys

import uvicorn

from mt5kit.telemetry.http_protocol import ShapedHttpProtocol
from mt5kit.telemetry.logs import configure_logs
from websocket_pool.app import create_app
from websocket_pool.context import StreamContext
from websocket_pool.messages import LARGEST_CLIENT_MESSAGE
from websocket_pool.settings import StreamSettings
from websocket_pool.transport import AbortableProtocol

PORT = 8000

GRACE_S = 5
"""uvicorn sends every socket 1012; one that does not read it has this long, then it is cut."""


async def serve() -> None:
    """Read the settings, wire the context, serve until SIGTERM."""
    context = await StreamContext.from_settings(StreamSettings())
    config = uvicorn.Config(
        create_app(context),
        host="0.0.0.0",  # noqa: S104 - inside its container
        port=PORT,
        http=ShapedHttpProtocol,
        ws=AbortableProtocol,
        ws_max_size=LARGEST_CLIENT_MESSAGE,
        # Frames are small and many, and a compressor is memory for each socket.
        ws_per_message_deflate=False,
        access_log=False,
        log_config=None,
        log_level="warning",
        timeout_graceful_shutdown=GRACE_S,
    )
    await uvicorn.Server(config).serve()


if __name__ == "__main__":
    configure_logs(sys.stdout)
    asyncio.run(serve())
