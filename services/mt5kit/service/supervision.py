"""Tasks that must not end before their process does."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import NoReturn

import structlog

from mt5kit.backoff import Backoff

log = structlog.get_logger(__name__)


async def keep_running(
    name: str, work: Callable[[], Awaitable[object]], backoff: Backoff | None = None
) -> NoReturn:
    """Run something until cancelled, again whenever it fails; each failure is logged.

    Args:
        name: Of the task, for the log.
        work: What to run.
        backoff: The pauses in between; they begin anew after a run longer than the longest.
    """
    pauses = backoff or Backoff(first_s=0.5, cap_s=30.0)
    loop = asyncio.get_running_loop()
    while True:
        began_s = loop.time()
        try:
            await work()
        except Exception:
            log.exception("task_failed", task=name)
        if loop.time() - began_s > pauses.cap_s:
            pauses.reset()
        await asyncio.sleep(pauses.next_s())
