"""The request log's writer over a real table: what is written twice is there once."""

import time
from collections.abc import Sequence
from uuid import uuid4

import asyncpg
from prometheus_client import CollectorRegistry

from api_pool.request_log import RequestLogWriter
from mt5kit.state.postgres import DatabaseUnavailable, RequestLog, WorkerStore
from mt5kit.telemetry.request_log_metrics import RequestLogMetrics

DAY_MS = 86_400_000


def entry(request_id: str, days: int = 0) -> RequestLog:
    return RequestLog(
        created_at_ms=time.time_ns() // 1_000_000 + days * DAY_MS,
        request_id=request_id,
        endpoint="/api/health",
        method="GET",
        status_code=200,
        response_time_ms=1,
        instance_id="api-1",
        user_id=uuid4(),
    )


async def written(owner: asyncpg.Connection) -> list[str]:
    rows = await owner.fetch("SELECT request_id FROM api_request_logs ORDER BY request_id")
    return [row["request_id"] for row in rows]


async def test_a_batch_that_is_written_again_is_there_once(
    worker_store: WorkerStore, owner: asyncpg.Connection
) -> None:
    rows = [entry("a"), entry("b"), entry("c", days=20)]
    for batch in (rows[:2], rows, rows[1:]):
        await worker_store.append_request_logs(batch)
    # Also where a row has moved from the default partition to its day's meanwhile.
    await worker_store.ensure_request_log_partitions(20)
    await worker_store.append_request_logs(rows)
    assert await written(owner) == ["a", "b", "c"]
    assert await owner.fetchval("SELECT count(*) FROM api_request_logs_default") == 0
    await owner.execute("DELETE FROM api_request_logs")


class SilentStore:
    """Writes each batch, and says the first time that the database went away."""

    def __init__(self, store: WorkerStore) -> None:
        self._store = store
        self._calls = 0

    async def append_request_logs(self, rows: Sequence[RequestLog]) -> None:
        await self._store.append_request_logs(rows)
        self._calls += 1
        if self._calls % 2:
            raise DatabaseUnavailable("away")


async def test_neither_lost_answers_nor_bad_rows_lose_or_double_an_entry(
    worker_store: WorkerStore, owner: asyncpg.Connection
) -> None:
    registry = CollectorRegistry()
    writer = RequestLogWriter(
        SilentStore(worker_store), RequestLogMetrics(registry), batch=10, interval_s=0.001
    )
    writer.start()
    names = [f"{number:02d}" for number in range(20)]
    for name in names:
        writer.add(entry("bad\x00" if name == "17" else name))
    await writer.aclose()
    assert await written(owner) == [name for name in names if name != "17"]
    sample = "api_request_log_dropped_total"
    assert registry.get_sample_value(sample, {"reason": "refused"}) == 1
    await owner.execute("DELETE FROM api_request_logs")
