"""`python -m api_pool.main`: one API replica on port 8000."""

import asyncio
import sys

import uvicorn

from api_pool.app import create_app
from api_pool.context import ProcessContext
from api_pool.settings import ApiSettings
from mt5kit.telemetry.http_protocol import ShapedHttpProtocol
from mt5kit.telemetry.logs import configure_logs

PORT = 8000
# Longer than a login takes.
GRACE_S = 25


async def serve() -> None:
    """Read the settings, wire the context, serve until SIGTERM."""
    context = await ProcessContext.from_settings(ApiSettings())
    # The envelope logs each request itself, without query strings.
    config = uvicorn.Config(
        create_app(context),
        host="0.0.0.0",  # noqa: S104 - inside its container
        port=PORT,
        http=ShapedHttpProtocol,
        access_log=False,
        log_config=None,
        timeout_graceful_shutdown=GRACE_S,
    )
    await uvicorn.Server(config).serve()


if __name__ == "__main__":
    configure_logs(sys.stdout)
    asyncio.run(serve())
