"""`python -m console.main`: the console on port 8000."""

import asyncio
import sys

import uvicorn

from console.app import create_app
from console.settings import ConsoleSettings
from mt5kit.service.server import KEEP_ALIVE_S
from mt5kit.settings import from_environment
from mt5kit.telemetry.http_protocol import ShapedHttpProtocol
from mt5kit.telemetry.logs import configure_logs

PORT = 8000


async def serve() -> None:
    """Read the settings and serve until SIGTERM."""
    # The envelope logs each request itself, without query strings: one carries a token.
    config = uvicorn.Config(
        create_app(from_environment(ConsoleSettings)),
        host="0.0.0.0",  # noqa: S104 - inside its container
        port=PORT,
        http=ShapedHttpProtocol,
        access_log=False,
        log_config=None,
        timeout_keep_alive=KEEP_ALIVE_S,
    )
    await uvicorn.Server(config).serve()


if __name__ == "__main__":
    configure_logs(sys.stdout)
    asyncio.run(serve())
