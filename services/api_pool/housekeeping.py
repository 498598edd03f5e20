"""What the database needs now and then, from whichever replica is there."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

import structlog

from mt5kit.errors import Unavailable

log = structlog.get_logger(__name__)

DAY_S: Final = 86_400.0
# Partitions are made a week ahead, so that a database away for hours costs nothing.
RETRY_S: Final = 300.0
# Connects are over within half a minute; past this, whoever was proving them has died.
MEND_AFTER_S: Final = 120
MEND_EVERY_S: Final = 60.0
DAYS_AHEAD: Final = 7


class MaintainedStore(Protocol):
    """What the housekeeping needs of `WorkerStore`."""

    async def ensure_request_log_partitions(self, days_ahead: int = 7) -> int:
        """Make the log's partitions of the days to come; how many were missing."""

    async def drop_request_log_partitions(self, keep_days: int) -> int:
        """Drop the log of older days; how many partitions went."""

    async def mend_connecting(self, older_than_s: int) -> int:
        """Put back accounts that were left `connecting`; how many."""


class Housekeeping:
    """Partitions of the request log each day; accounts left `connecting`, each minute.

    Every replica does it: the second finds nothing to do. A failure is logged and tried again.

    Args:
        store: The database, as `mt5_worker`.
        keep_days: How long requests are kept in the log.
        day_s: Seconds between two looks at the partitions; up to a tenth is added at random, so
            that replicas started together do not come together for ever.
        mend_every_s: Seconds between two looks for accounts left `connecting`.
        retry_s: Seconds after a failed look at the partitions.
        rng: Where the jitter comes from; seed it in a test.
    """

    def __init__(
        self,
        store: MaintainedStore,
        keep_days: int = 30,
        *,
        day_s: float = DAY_S,
        mend_every_s: float = MEND_EVERY_S,
        retry_s: float = RETRY_S,
        rng: random.Random | None = None,
    ) -> None:
        self._store = store
        self._keep_days = keep_days
        self._day_s = day_s
        self._mend_every_s = mend_every_s
        self._retry_s = retry_s
        self._rng = rng or random.Random()  # noqa: S311 - jitter
        self._tasks: tuple[asyncio.Task[None], ...] = ()

    def start(self) -> None:
        """Begin at once, in the background; needs a running event loop."""
        partitions = self._repeated("partitions", self.partitions, self._day_s, self._retry_s)
        mending = self._repeated("mending", self.mend, self._mend_every_s, self._mend_every_s)
        self._tasks = (
            asyncio.create_task(partitions, name="partitions"),
            asyncio.create_task(mending, name="mending"),
        )

    async def aclose(self) -> None:
        """Stop, wherever it is: each step is one transaction."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = ()

    async def partitions(self) -> None:
        """Make the request log's partitions a week ahead, and drop those past their time.

        Raises:
            DatabaseUnavailable: Postgres is away.
        """
        made = await self._store.ensure_request_log_partitions(DAYS_AHEAD)
        dropped = await self._store.drop_request_log_partitions(self._keep_days)
        log.info("partitions_kept", made=made, dropped=dropped, keep_days=self._keep_days)

    async def mend(self) -> None:
        """Put accounts back that whoever was connecting them has left `connecting`.

        Raises:
            DatabaseUnavailable: Postgres is away.
        """
        if mended := await self._store.mend_connecting(MEND_AFTER_S):
            log.warning("accounts_left_connecting", mended=mended)

    async def _repeated(
        self, chore: str, work: Callable[[], Awaitable[None]], every_s: float, retry_s: float
    ) -> None:
        failed = False
        while True:
            pause_s = every_s * self._rng.uniform(1.0, 1.1)
            try:
                await work()
            except Unavailable as away:
                if not failed:
                    log.warning("chore_waits", chore=chore, error=away.message, retry_s=retry_s)
                failed, pause_s = True, retry_s
            except Exception:
                log.exception("chore_failed", chore=chore, retry_s=retry_s)
                failed, pause_s = True, retry_s
            else:
                failed = False
            await asyncio.sleep(pause_s)
