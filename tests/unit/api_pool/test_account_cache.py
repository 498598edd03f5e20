"""Rows of accounts in memory: of their user only, young, asked for once."""

import asyncio
from collections.abc import Callable
from uuid import UUID

import pytest

from api_pool.directory import MOST_ROWS, ROW_TTL_S, AccountCache
from mt5kit.domain.accounts import AccountIdentity, AccountState
from mt5kit.state.postgres import AccountRow, DatabaseUnavailable

OWNER, OTHER = UUID(int=1), UUID(int=2)


def row(account_id: str, state: AccountState = AccountState.CONNECTED) -> AccountRow:
    identity = AccountIdentity(7, "Server-1")
    return AccountRow(1, OWNER, account_id, OWNER, identity, state, 0, None, True, None, None)


class Table:
    """Stands for the accounts table; a reading waits while `gate` is closed."""

    def __init__(self) -> None:
        self.now = 100.0
        self.queries: list[tuple[UUID, str]] = []
        self.rows: dict[str, AccountRow] = {"a": row("a")}
        self.failure: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    def clock(self) -> float:
        return self.now

    async def read(self, user_id: UUID, account_id: str) -> AccountRow | None:
        self.queries.append((user_id, account_id))
        found = self.rows.get(account_id)
        gate = self.gate
        await gate.wait()
        if self.failure is not None:
            raise self.failure
        return found if found is not None and found.user_id == user_id else None


@pytest.fixture
async def table() -> Table:
    return Table()


@pytest.fixture
async def cache(table: Table) -> AccountCache:
    return AccountCache(table.read, table.clock)


async def until(met: Callable[[], bool]) -> None:
    for _ in range(1000):
        if met():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came")


async def test_a_row_is_read_again_when_it_is_too_old(table: Table, cache: AccountCache) -> None:
    assert await cache.get(OWNER, "a") is await cache.get(OWNER, "a")
    assert len(table.queries) == 1
    table.now += ROW_TTL_S - 0.01
    assert await cache.get(OWNER, "a") is not None
    assert len(table.queries) == 1
    del table.rows["a"]
    table.now += 0.02
    assert await cache.get(OWNER, "a") is None
    assert len(table.queries) == 2


async def test_a_row_is_its_users_only(table: Table, cache: AccountCache) -> None:
    assert await cache.get(OWNER, "a") is not None
    assert cache.kept(OTHER, "a") is None
    for _ in range(2):
        assert await cache.get(OTHER, "a") is None
    # Who asks for another's account neither sees it nor drops it.
    assert cache.kept(OWNER, "a") is not None
    assert table.queries == [(OWNER, "a"), (OTHER, "a"), (OTHER, "a")]


async def test_what_is_missed_at_once_is_read_once(table: Table, cache: AccountCache) -> None:
    table.gate.clear()
    asking = [asyncio.create_task(cache.get(OWNER, "a")) for _ in range(20)]
    stranger = asyncio.create_task(cache.get(OTHER, "a"))
    await until(lambda: len(table.queries) == 2)
    asking[0].cancel()
    table.gate.set()
    answers = await asyncio.gather(*asking, return_exceptions=True)
    assert isinstance(answers[0], asyncio.CancelledError)
    assert all(answer is answers[1] for answer in answers[1:])
    assert answers[1] is not None
    assert await stranger is None
    assert len(table.queries) == 2


async def test_a_reading_begun_before_a_change_is_kept_by_nobody(
    table: Table, cache: AccountCache
) -> None:
    table.gate.clear()
    early = asyncio.create_task(cache.get(OWNER, "a"))
    await until(lambda: len(table.queries) == 1)
    table.rows["a"] = row("a", AccountState.DISCONNECTED)
    cache.invalidate("a")
    slow, table.gate = table.gate, asyncio.Event()
    table.gate.set()
    after = await cache.get(OWNER, "a")
    assert after is not None
    assert after.state is AccountState.DISCONNECTED
    slow.set()
    before = await early
    assert before is not None
    assert before.state is AccountState.CONNECTED
    kept = cache.kept(OWNER, "a")
    assert kept is not None
    assert kept.state is AccountState.DISCONNECTED


@pytest.mark.parametrize("wait", [True, False])
async def test_a_failure_is_told_to_all_and_kept_by_nobody(
    table: Table, cache: AccountCache, wait: bool
) -> None:
    table.failure = DatabaseUnavailable("away")
    table.gate.clear()
    asking = [asyncio.create_task(cache.get(OWNER, "a")) for _ in range(3)]
    await until(lambda: len(table.queries) == 1)
    if not wait:
        # Nobody is left to take the exception; it must not be reported as never retrieved.
        for one in asking:
            one.cancel()
    table.gate.set()
    answers = await asyncio.gather(*asking, return_exceptions=True)
    told = DatabaseUnavailable if wait else asyncio.CancelledError
    assert all(isinstance(answer, told) for answer in answers)
    table.failure = None
    assert await cache.get(OWNER, "a") is not None
    assert len(table.queries) == 2


async def test_it_holds_so_many_rows_and_no_more() -> None:
    async def read(_user: UUID, account_id: str) -> AccountRow | None:
        return row(account_id)

    cache = AccountCache(read)

    for number in range(MOST_ROWS + 3):
        await cache.get(OWNER, f"a-{number}")
    assert len(cache) == MOST_ROWS
    assert cache.kept(OWNER, "a-2") is None
    assert cache.kept(OWNER, f"a-{MOST_ROWS}") is not None
