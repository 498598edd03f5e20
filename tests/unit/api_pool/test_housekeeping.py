"""Partitions each day, accounts left connecting each minute, whatever fails."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable

import pytest
from structlog.testing import capture_logs

from api_pool.housekeeping import MEND_AFTER_S, Housekeeping
from mt5kit.state.postgres import DatabaseFault, DatabaseUnavailable


class Store:
    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []
        self.failures: list[Exception] = []

    async def ensure_request_log_partitions(self, days_ahead: int = 7) -> int:
        return self._called("ensure", days_ahead)

    async def drop_request_log_partitions(self, keep_days: int) -> int:
        return self._called("drop", keep_days)

    async def mend_connecting(self, older_than_s: int) -> int:
        return self._called("mend", older_than_s)

    def _called(self, name: str, number: int) -> int:
        if self.failures and name == "ensure":
            raise self.failures.pop(0)
        self.calls.append((name, number))
        return 1

    def times(self, name: str) -> int:
        return sum(call[0] == name for call in self.calls)


@pytest.fixture
def store() -> Store:
    return Store()


Keep = Callable[..., Housekeeping]


@pytest.fixture
async def keep(store: Store) -> AsyncIterator[Keep]:
    kept: list[Housekeeping] = []

    def make(**pauses: float) -> Housekeeping:
        kept.append(Housekeeping(store, 30, rng=random.Random(1), **pauses))
        kept[-1].start()
        return kept[-1]

    yield make
    for one in kept:
        await one.aclose()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.001)


async def test_all_is_done_at_the_start(keep: Keep, store: Store) -> None:
    keep()
    await until(lambda: len(store.calls) == 3)
    assert sorted(store.calls) == [("drop", 30), ("ensure", 7), ("mend", MEND_AFTER_S)]


async def test_each_is_done_again_at_its_own_pace(keep: Keep, store: Store) -> None:
    keep(mend_every_s=0.001)
    await until(lambda: store.times("mend") > 5)
    assert store.times("ensure") == 1
    keep(day_s=0.001)
    await until(lambda: store.times("drop") > 5)


@pytest.mark.parametrize("failure", [DatabaseUnavailable("away"), DatabaseFault("x"), KeyError()])
async def test_a_failure_is_told_and_tried_again_soon(
    keep: Keep, store: Store, failure: Exception
) -> None:
    store.failures = [failure] * 3
    with capture_logs() as logs:
        keep(retry_s=0.001)
        await until(lambda: store.times("drop") == 1)
    events = [line["event"] for line in logs]
    away = isinstance(failure, DatabaseUnavailable)
    assert events.count("chore_waits" if away else "chore_failed") == (1 if away else 3)


async def test_it_ends_where_it_is(keep: Keep, store: Store) -> None:
    one = keep(mend_every_s=0.0)
    await until(lambda: store.times("mend") > 5)
    await one.aclose()
    calls = len(store.calls)
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(store.calls) == calls
