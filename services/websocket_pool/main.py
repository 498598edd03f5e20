"""`python -m websocket_pool.main`: one WebSocket replica."""

import asyncio
import gc
import sys

import uvicorn
from uvicorn.loops.auto import auto_loop_factory

from mt5kit.service.server import KEEP_ALIVE_S, DrainingServer
from mt5kit.settings import from_environment
from mt5kit.telemetry.http_protocol import ShapedHttpProtocol
from mt5kit.telemetry.logs import configure_logs
from websocket_pool.app import create_app
from websocket_pool.context import StreamContext
from websocket_pool.messages import LARGEST_CLIENT_MESSAGE
from websocket_pool.settings import StreamSettings
from websocket_pool.transport import PONG_S, AbortableProtocol, listener

GRACE_S = 5
"""uvicorn sends every socket 1012; one that does not read it has this long, then it is cut."""


async def serve(settings: StreamSettings) -> None:
    """Wire the context and serve until SIGTERM."""
    context = await StreamContext.from_settings(settings)
    config = uvicorn.Config(
        create_app(context),
        http=ShapedHttpProtocol,
        ws=AbortableProtocol,
        ws_max_size=LARGEST_CLIENT_MESSAGE,
        ws_ping_timeout=PONG_S,
        # Frames are small and many, and a compressor is memory for each socket.
        ws_per_message_deflate=False,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=list(settings.trusted_proxies),
        access_log=False,
        log_config=None,
        log_level="warning",
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACE_S,
    )
    bound = listener(settings.host, settings.port)
    # A full collection walks all that importing made, and meanwhile nothing is delivered.
    gc.collect()
    gc.freeze()
    await DrainingServer(config, context.drain).serve(sockets=[bound])


if __name__ == "__main__":
    configure_logs(sys.stdout)
    # A frame is a system call for each socket, and asyncio's own loop costs as much again.
    with asyncio.Runner(loop_factory=auto_loop_factory()) as runner:
        runner.run(serve(from_environment(StreamSettings)))
