"""`python -m api_pool.main`: one API replica."""

import asyncio
import sys

import uvicorn
from uvicorn.loops.auto import auto_loop_factory

from api_pool.app import create_app
from api_pool.context import ProcessContext
from api_pool.settings import ApiSettings
from mt5kit.service.server import KEEP_ALIVE_S, DrainingServer
from mt5kit.settings import from_environment
from mt5kit.telemetry.http_protocol import ShapedHttpProtocol
from mt5kit.telemetry.logs import configure_logs

# Longer than a login takes.
GRACE_S = 25


async def serve(settings: ApiSettings) -> None:
    """Wire the context and serve until SIGTERM."""
    context = await ProcessContext.from_settings(settings)
    # The envelope logs each request itself, without query strings.
    config = uvicorn.Config(
        create_app(context),
        host=settings.host,
        port=settings.port,
        http=ShapedHttpProtocol,
        access_log=False,
        log_config=None,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACE_S,
    )
    await DrainingServer(config, context.drain).serve()


if __name__ == "__main__":
    configure_logs(sys.stdout)
    # asyncio's own loop sends head and body of an answer apart, at a system call each.
    with asyncio.Runner(loop_factory=auto_loop_factory()) as runner:
        runner.run(serve(from_environment(ApiSettings)))
