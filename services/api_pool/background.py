"""Small tasks that nobody waits for: kept alive, logged when they fail, ended with the process."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import structlog

from mt5kit.errors import Unavailable

log = structlog.get_logger(__name__)


class Background:
    """Owns the tasks it spawns."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` once; its failure is logged."""
        self._own(asyncio.create_task(_logged(name, work), name=name))

    def every(self, name: str, pause_s: float, work: Callable[[], Awaitable[None]]) -> None:
        """Run `work` again and again, `pause_s` after it has ended, whatever becomes of it."""
        self._own(asyncio.create_task(_repeated(name, pause_s, work), name=name))

    async def aclose(self) -> None:
        """Cancel what still runs and wait for its end."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _own(self, task: "asyncio.Task[None]") -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _logged(name: str, work: Coroutine[Any, Any, None]) -> None:
    try:
        await work
    except Unavailable as away:
        log.warning("background_work_failed", work=name, error=away.message)
    except Exception:
        log.exception("background_work_failed", work=name)


async def _repeated(name: str, pause_s: float, work: Callable[[], Awaitable[None]]) -> None:
    """Says once that a store is away, not in every round."""
    away = False
    while True:
        try:
            await work()
        except Unavailable as gone:
            if not away:
                log.warning("background_work_waits", work=name, error=gone.message)
            away = True
        except Exception:
            log.exception("background_work_failed", work=name)
        else:
            away = False
        await asyncio.sleep(pause_s)
