"""The request log's writer: nothing lost, nothing doubled, nothing in the way."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from api_pool import request_log
from api_pool.request_log import RequestLogWriter
from mt5kit.state.postgres import DatabaseFault, DatabaseUnavailable, RequestLog, ValueRefused
from mt5kit.telemetry.request_log_metrics import RequestLogMetrics


class Store:
    """A table that can be away, hang, refuse, or take rows without saying so."""

    def __init__(self) -> None:
        self.rows: dict[int, RequestLog] = {}
        self.failures: list[Exception] = []
        self.silent: list[Exception] = []
        self.bad: set[str] = set()
        self.sizes: list[int] = []
        self.hanging: asyncio.Event | None = None

    async def append_request_logs(self, rows: Sequence[RequestLog]) -> None:
        self.sizes.append(len(rows))
        if self.hanging is not None:
            await self.hanging.wait()
        if self.failures:
            raise self.failures.pop(0)
        if any(row.request_id in self.bad for row in rows):
            raise ValueRefused("no")
        for row in rows:
            self.rows.setdefault(row.id, row)
        if self.silent:
            raise self.silent.pop(0)

    @property
    def names(self) -> list[str]:
        return [row.request_id for row in self.rows.values()]


def away() -> DatabaseUnavailable:
    return DatabaseUnavailable("away")


def entry(name: object) -> RequestLog:
    return RequestLog(1_700_000_000_000, str(name), "/x", "GET", 200, 1, "api-1")


def names(*numbers: int) -> list[str]:
    return [str(number) for number in range(*numbers)]


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
async def writer(store: Store, registry: CollectorRegistry) -> AsyncIterator[RequestLogWriter]:
    # It never comes to write by itself, but where a test starts it.
    writer = RequestLogWriter(
        store, RequestLogMetrics(registry), most=20, batch=8, interval_s=0.001
    )
    yield writer
    store.failures, store.hanging = [], None
    await writer.aclose()


def dropped(registry: CollectorRegistry, reason: str) -> float | None:
    return registry.get_sample_value("api_request_log_dropped_total", {"reason": reason})


async def until(condition: object) -> None:
    async with asyncio.timeout(60):
        while not condition():  # type: ignore[operator]  # a lambda
            await asyncio.sleep(0.001)


async def test_entries_are_written_in_order_and_in_batches(
    writer: RequestLogWriter, store: Store
) -> None:
    for number in range(19):
        writer.add(entry(number))
    await writer.flush()
    assert store.names == names(19)
    assert store.sizes == [8, 8, 3]
    assert writer.waiting == 0


async def test_it_writes_by_itself_once_started(writer: RequestLogWriter, store: Store) -> None:
    writer.start()
    for number in range(3):
        writer.add(entry(number))
        await until(lambda: store.names == names(number + 1))  # noqa: B023 - awaited here


@pytest.mark.parametrize(
    "failure", [DatabaseUnavailable("away"), DatabaseFault("ours"), KeyError()]
)
async def test_no_failure_ends_it_or_costs_an_entry(
    writer: RequestLogWriter, store: Store, failure: Exception
) -> None:
    store.failures = [failure] * 3
    with capture_logs() as logs:
        writer.start()
        for number in range(10):
            writer.add(entry(number))
        await until(lambda: store.names == names(10))
    known = isinstance(failure, DatabaseUnavailable)
    event = "request_log_waits" if known else "request_log_not_written"
    # That Postgres is away is said once; what is our fault, each time.
    assert [line["event"] for line in logs].count(event) == (1 if known else 3)


@pytest.mark.parametrize("seed", range(5))
async def test_what_fails_at_random_is_there_once_and_in_order(
    writer: RequestLogWriter, store: Store, seed: int
) -> None:
    print("seed", seed)  # noqa: T201 - for whoever sees it fail
    rng = random.Random(seed)
    for number in range(100):
        writer.add(entry(number))
        if rng.random() < 0.2:
            kind = rng.choice([store.failures, store.silent])
            kind.append(away())
            with pytest.raises(DatabaseUnavailable):
                await writer.flush()
        if rng.random() < 0.2 or writer.waiting == 20:
            await writer.flush()
    await writer.flush()
    assert store.names == names(100)


async def test_a_cancelled_write_loses_nothing(writer: RequestLogWriter, store: Store) -> None:
    store.hanging = asyncio.Event()
    for number in range(10):
        writer.add(entry(number))
    writing = asyncio.create_task(writer.flush())
    await until(lambda: store.sizes)
    writing.cancel()
    await asyncio.wait((writing,))
    store.hanging = None
    await writer.flush()
    assert store.names == names(10)


async def test_beyond_the_bound_the_oldest_go_and_are_counted_and_told_once(
    writer: RequestLogWriter, store: Store, registry: CollectorRegistry
) -> None:
    store.failures = [away()]
    with capture_logs() as logs:
        for number in range(25):
            writer.add(entry(number))
        assert writer.waiting == 20
        assert dropped(registry, "full") == 5
        writer.start()
        await until(lambda: store.names == names(5, 25))
    told = [line for line in logs if line["event"] == "request_log_dropped"]
    assert [line["full"] for line in told] == [5]


async def test_what_is_being_written_is_not_among_the_dropped(
    writer: RequestLogWriter, store: Store
) -> None:
    for number in range(20):
        writer.add(entry(number))
    store.failures = [away()]
    with pytest.raises(DatabaseUnavailable):
        await writer.flush()
    for number in range(20, 25):
        writer.add(entry(number))
    await writer.flush()
    assert store.names == [*names(8), *names(13, 25)]


async def test_a_refused_row_is_dropped_and_told_and_the_rest_is_written(
    writer: RequestLogWriter, store: Store, registry: CollectorRegistry
) -> None:
    store.bad = {"3", "9"}
    for number in range(16):
        writer.add(entry(number))
    with capture_logs() as logs:
        await writer.flush()
        await writer.aclose()
    assert store.names == [name for name in names(16) if name not in store.bad]
    assert dropped(registry, "refused") == 2
    (line,) = [line for line in logs if line["event"] == "request_log_dropped"]
    assert (line["refused"], line["of_request"], line["error"]) == (2, "9", "no")


async def test_a_refused_row_is_found_by_halves(registry: CollectorRegistry, store: Store) -> None:
    writer = RequestLogWriter(store, RequestLogMetrics(registry))
    store.bad = {"371"}
    for number in range(500):
        writer.add(entry(number))
    await writer.flush()
    assert len(store.names) == 499
    assert len(store.sizes) < 60


async def test_a_stop_writes_all_that_is_left_though_postgres_is_back_late(
    writer: RequestLogWriter, store: Store
) -> None:
    writer.start()
    store.failures = [away(), away()]
    for number in range(20):
        writer.add(entry(number))
    await writer.aclose()
    assert store.names == names(20)


async def test_a_stop_ends_though_postgres_never_answers(
    writer: RequestLogWriter,
    store: Store,
    registry: CollectorRegistry,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(request_log, "CLOSE_LIMIT_S", 0.05)
    store.hanging = asyncio.Event()
    for number in range(9):
        writer.add(entry(number))
    await writer.aclose()
    writer.add(entry("late"))
    assert writer.waiting == 0
    assert dropped(registry, "closing") == 10
