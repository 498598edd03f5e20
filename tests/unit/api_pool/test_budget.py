"""Logins are asked of the store, and of our own share while it is away."""

from typing import cast

import pytest

from api_pool.budget import ServerBudget
from api_pool.store_watch import AWAY_S, StoreWatch
from mt5kit.state.redis import LoginBudgetStore, StateUnavailable


class Clock:
    def __init__(self) -> None:
        self.now = 5.0

    def __call__(self) -> float:
        return self.now


class Store:
    def __init__(self) -> None:
        self.away = False
        self.asked: list[tuple[str, float, bool]] = []

    async def take(self, server: str, per_minute: float, *, spare: bool) -> float:
        self.asked.append((server, per_minute, spare))
        if self.away:
            raise StateUnavailable("away", retry_after_s=3)
        return 0.25


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def budget(store: Store, clock: Clock) -> ServerBudget:
    return ServerBudget(cast("LoginBudgetStore", store), 60, StoreWatch(clock), clock)


async def test_the_store_decides(budget: ServerBudget, store: Store) -> None:
    assert await budget.take("S", spare=True) == 0.25
    assert store.asked == [("S", 60, True)]


async def test_without_it_a_replica_keeps_to_its_share(
    budget: ServerBudget, store: Store, clock: Clock
) -> None:
    budget.replicas, store.away = 4, True
    granted = 0
    for _ in range(60 * 10):
        granted += await budget.take("S", spare=False) == 0
        clock.now += 0.1
    assert granted == pytest.approx(15, abs=1), "60 a minute of four replicas"
    assert await budget.take("other", spare=False) == 0


async def test_without_it_nobody_refreshes(
    budget: ServerBudget, store: Store, clock: Clock
) -> None:
    store.away = True
    assert await budget.take("S", spare=True) == 3
    assert await budget.take("S", spare=True) == AWAY_S, "not asked again so soon"
    assert len(store.asked) == 1
    store.away, clock.now = False, clock.now + AWAY_S
    assert await budget.take("S", spare=True) == 0.25
