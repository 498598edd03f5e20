"""`python -m api_pool.main`: one API replica."""

import asyncio
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
import uvicorn
from uvicorn.loops.auto import auto_loop_factory

from api_pool.app import create_app
from api_pool.context import ProcessContext
from api_pool.settings import ApiSettings
from mt5kit.telemetry.http_protocol import ShapedHttpProtocol
from mt5kit.telemetry.logs import configure_logs

log = structlog.get_logger(__name__)

# Longer than a login takes.
GRACE_S = 25


class DrainingServer(uvicorn.Server):
    """On SIGTERM it gives its terminals away before it stops listening.

    uvicorn by itself closes its listeners at once, while nginx still sends requests here, and ends
    the lifespan only when all of them are answered. A second signal stops it at once.
    """

    def __init__(self, config: uvicorn.Config, context: ProcessContext) -> None:
        super().__init__(config)
        self._context = context
        self._draining: asyncio.Task[None] | None = None

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take SIGTERM and SIGINT for as long as the server runs."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled, number)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    def _signalled(self, number: int) -> None:
        log.info("stopping", signal=signal.Signals(number).name)
        if self._draining is not None:
            self.should_exit = True
            return
        self._draining = asyncio.create_task(self._drain(), name="drain")

    async def _drain(self) -> None:
        try:
            await self._context.drain()
        except Exception:
            log.exception("drain_failed")
        self.should_exit = True


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
        timeout_graceful_shutdown=GRACE_S,
    )
    await DrainingServer(config, context).serve()


if __name__ == "__main__":
    configure_logs(sys.stdout)
    # asyncio's own loop sends head and body of an answer apart, at a system call each.
    with asyncio.Runner(loop_factory=auto_loop_factory()) as runner:
        runner.run(serve(ApiSettings()))
