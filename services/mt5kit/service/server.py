"""The HTTP server of a pool, which drains before it stops."""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final

import structlog
import uvicorn

log = structlog.get_logger(__name__)

KEEP_ALIVE_S: Final = 75
"""An idle connection must be closed by whoever sends, or a request is lost on its way: nginx keeps
one for 60 s, httpx for 5 s, and so does uvicorn by itself."""


class DrainingServer(uvicorn.Server):
    """On SIGTERM or SIGINT it lets its pool drain before it stops listening.

    uvicorn by itself closes its listeners at once, while nginx still sends requests here, and ends
    the lifespan only when all of them are answered. A second signal stops it at once.

    Args:
        config: Of uvicorn.
        drain: Gives away what the pool holds. Runs once, while requests are still served; its
            failure is logged, and stops nothing.
    """

    def __init__(self, config: uvicorn.Config, drain: Callable[[], Awaitable[None]]) -> None:
        super().__init__(config)
        self._drain = drain
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
        self._draining = asyncio.create_task(self._drain_and_exit(), name="drain")

    async def _drain_and_exit(self) -> None:
        try:
            await self._drain()
        except Exception:
            log.exception("drain_failed")
        self.should_exit = True
