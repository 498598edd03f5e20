"""The request log, written in batches off the request path."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, Literal, Protocol

import structlog

from mt5kit.backoff import Backoff
from mt5kit.state.postgres import DatabaseUnavailable, RequestLog, ValueRefused
from mt5kit.telemetry.request_log_metrics import RequestLogMetrics

log = structlog.get_logger(__name__)

# A failure of every row must not fill the log with itself.
SAY_EVERY_S: Final = 60.0
# What an orchestrator's patience with a stopping process leaves room for.
CLOSE_LIMIT_S: Final = 10.0

Loss = Literal["full", "refused", "closing"]


class LogStore(Protocol):
    """What the writer needs of `WorkerStore`."""

    async def append_request_logs(self, rows: Sequence[RequestLog]) -> None:
        """Append rows that are not there yet, all or none.

        Raises:
            ValueRefused: A row holds what its column does not take.
            DatabaseUnavailable: Postgres is away; whether the rows are there is unknown.
        """


class RequestLogWriter:
    """Keeps answered requests until a background task has written them, in order.

    While Postgres is away they wait; beyond `most` the oldest are dropped and counted. A batch
    whose outcome is unknown is written again, and its rows' ids keep it from being there twice. A
    row that Postgres refuses for its values is dropped, logged and counted; the rest of its
    batch is written.

    Args:
        store: Where they are written.
        metrics: Counts what is lost.
        most: How many may wait. At some 500 bytes each, 50,000 are 25 MB.
        batch: How many are written in one statement.
        interval_s: Seconds between two writes.
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        store: LogStore,
        metrics: RequestLogMetrics,
        *,
        most: int = 50_000,
        batch: int = 500,
        interval_s: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._metrics = metrics
        self._most = most
        self._size = batch
        self._interval_s = interval_s
        self._clock = clock
        self._waiting: deque[RequestLog] = deque()
        self._batch: list[RequestLog] = []
        self._writing = asyncio.Lock()
        self._losses: dict[Loss, int] = {}
        self._example: dict[str, str] = {}
        self._said_s = float("-inf")
        self._closed = False
        self._task: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """How many are not written yet."""
        return len(self._waiting) + len(self._batch)

    def start(self) -> None:
        """Write in the background; needs a running event loop."""
        self._task = asyncio.create_task(self._keep_writing(), name="request-log")

    def add(self, entry: RequestLog) -> None:
        """Keep an answered request for the next batch. Takes a microsecond and never fails."""
        if self._closed:
            self._lost("closing", 1)
            return
        # What is being written stays: it may be in the database already.
        if self.waiting >= self._most:
            if not self._waiting:
                self._lost("full", 1)
                return
            self._waiting.popleft()
            self._lost("full", 1)
        self._waiting.append(entry)

    async def flush(self) -> None:
        """Write all that waits now.

        Raises:
            DatabaseUnavailable: Postgres is away; nothing is lost.
            DatabaseFault: A statement of ours is wrong; nothing is lost.
        """
        async with self._writing:
            most = self._size
            while self._batch or self._waiting:
                while self._waiting and len(self._batch) < self._size:
                    self._batch.append(self._waiting.popleft())
                most = await self._write_first(most)

    async def aclose(self) -> None:
        """Stop taking entries and write all that waits, for ten seconds at most."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_LIMIT_S):
                await self._flush_at_last()
        if self.waiting:
            self._lost("closing", self.waiting)
            self._waiting.clear()
            self._batch = []
        self._said_s = float("-inf")
        self._say_losses()

    async def _flush_at_last(self) -> None:
        backoff = Backoff(cap_s=1.0)
        while self.waiting:
            try:
                await self.flush()
            except DatabaseUnavailable:
                await asyncio.sleep(backoff.next_s())
            except Exception:
                log.exception("request_log_not_written", waiting=self.waiting)
                return

    async def _keep_writing(self) -> None:
        backoff = Backoff(first_s=self._interval_s, cap_s=max(30.0, self._interval_s))
        failed = False
        pause_s = self._interval_s
        while True:
            await asyncio.sleep(pause_s)
            try:
                await self.flush()
            except DatabaseUnavailable as away:
                pause_s = backoff.next_s()
                if not failed:
                    log.warning("request_log_waits", error=away.message, waiting=self.waiting)
                failed = True
            except Exception:
                pause_s = backoff.next_s()
                log.exception("request_log_not_written", waiting=self.waiting, retry_s=pause_s)
                failed = True
            else:
                if failed:
                    log.info("request_log_written_again")
                failed, pause_s = False, self._interval_s
                backoff.reset()
            self._say_losses()

    async def _write_first(self, most: int) -> int:
        """Write the first of the batch, `most` at most; how many to try next.

        What cannot be written stays in the batch. Fewer and fewer rows are tried until the one
        that is refused stands alone.
        """
        rows = self._batch[:most]
        try:
            await self._store.append_request_logs(rows)
        except ValueRefused as refused:
            if len(rows) > 1:
                return len(rows) // 2
            self._refused(rows[0], refused)
        del self._batch[: len(rows)]
        return min(self._size, 2 * most)

    def _refused(self, row: RequestLog, refused: ValueRefused) -> None:
        self._example = {"of_request": row.request_id, "error": refused.message}
        self._lost("refused", 1)

    def _lost(self, reason: Loss, count: int) -> None:
        self._metrics.dropped.labels(reason).inc(count)
        self._losses[reason] = self._losses.get(reason, 0) + count

    def _say_losses(self) -> None:
        now = self._clock()
        if self._losses and now - self._said_s >= SAY_EVERY_S:
            log.error("request_log_dropped", **self._losses, **self._example)
            self._said_s, self._losses, self._example = now, {}, {}
