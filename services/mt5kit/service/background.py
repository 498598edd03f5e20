"""Small tasks that nobody waits for: kept alive, logged when they fail, ended with the process."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine
from typing import Any, Final

import structlog

from mt5kit.errors import Unavailable

log = structlog.get_logger(__name__)

# A write to Redis or Postgres takes milliseconds; to one that is away nothing is written.
FINISH_S: Final = 2.0


class Background:
    """Owns the tasks it spawns."""

    def __init__(self) -> None:
        self._once: set[asyncio.Task[None]] = set()
        self._loops: set[asyncio.Task[None]] = set()

    def spawn(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` once; its failure is logged."""
        task = asyncio.create_task(_logged(name, work), name=name)
        self._once.add(task)
        task.add_done_callback(self._once.discard)

    def every(self, name: str, pause_s: float, work: Callable[[], Awaitable[None]]) -> None:
        """Run `work` again and again, `pause_s` after it has ended, whatever becomes of it."""
        task = asyncio.create_task(_repeated(name, pause_s, work), name=name)
        self._loops.add(task)

    async def aclose(self) -> None:
        """End the loops, give what runs once a moment to finish, and wait for the end of all."""
        await _ended(self._loops)
        if self._once:
            await asyncio.wait(set(self._once), timeout=FINISH_S)
        await _ended(self._once)


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


async def _ended(tasks: Collection["asyncio.Task[None]"]) -> None:
    ending = list(tasks)
    for task in ending:
        task.cancel()
    await asyncio.gather(*ending, return_exceptions=True)
