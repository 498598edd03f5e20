"""Pages of history are the same question's, the same account's, and young enough."""

import asyncio
from collections.abc import AsyncIterator
from typing import cast
from uuid import uuid4

import msgspec
import pytest

from api_pool.directory import KnownAccount
from api_pool.history_pages import DAY_MS, DEFAULT_DAYS, HistoryPages, key_of, page_query
from api_pool.store_watch import StoreWatch
from api_pool.turns import Taken
from mt5kit.domain.accounts import AccountIdentity, AccountState
from mt5kit.domain.brokers import Brokers
from mt5kit.domain.history import HistoryQuery
from mt5kit.domain.instants import now_ms
from mt5kit.errors import StaleToken
from mt5kit.service.background import Background
from mt5kit.state.postgres import AccountRow
from mt5kit.state.redis import CachedPage, HistoryCache, StateUnavailable

QUERY = HistoryQuery(1, 2, "", None, 100)
BROKERS = Brokers({"S": "UTC"}, "UTC")


class Cache:
    def __init__(self) -> None:
        self.away = False
        self.failure: Exception | None = None
        self.pages: dict[tuple[str, str, bytes], CachedPage] = {}
        self.gets = 0

    async def get(self, account_id: str, kind: str, query_key: bytes) -> CachedPage | None:
        self.gets += 1
        if self.away:
            raise StateUnavailable("away")
        return self.pages.get((account_id, kind, query_key))

    async def put(
        self, account_id: str, token: int, kind: str, query_key: bytes, page: CachedPage
    ) -> None:
        assert token == 11
        if self.failure is not None:
            raise self.failure
        self.pages[account_id, kind, query_key] = page


def account(login: int = 7) -> KnownAccount:
    row = AccountRow(
        id=1,
        uuid=uuid4(),
        user_id=uuid4(),
        account_id="alpha",
        identity=AccountIdentity(login, "S"),
        state=AccountState.CONNECTED,
        state_since_ms=0,
        last_error=None,
        is_active=True,
        last_login_ms=None,
        last_poll_ms=None,
    )
    return KnownAccount(row)


def taken(age_ms: int = 1000) -> Taken:
    payload = msgspec.Raw(b'{"rows":[],"more":false}')
    return Taken("t-1", "api-1", 11, now_ms() - age_ms, 0, 0, payload)


@pytest.fixture
def cache() -> Cache:
    return Cache()


@pytest.fixture
async def pages(cache: Cache) -> AsyncIterator[HistoryPages]:
    background = Background()
    yield HistoryPages(cast("HistoryCache", cache), background, StoreWatch())
    await background.aclose()


async def kept(pages: HistoryPages, cache: Cache) -> None:
    pages.keep(account(), "deals", QUERY, taken())
    async with asyncio.timeout(5):
        while not cache.pages:
            await asyncio.sleep(0)


async def test_a_page_answers_its_own_question(pages: HistoryPages, cache: Cache) -> None:
    await kept(pages, cache)
    found = await pages.kept(account(), "deals", QUERY, 300_000)
    assert found is not None
    payload, meta = found
    assert payload == bytes(taken().payload)
    assert (meta.source, meta.terminal_id, meta.instance_id) == ("cache", "t-1", "api-1")
    assert meta.age_ms >= 1000
    for other in (
        msgspec.structs.replace(QUERY, limit=99),
        msgspec.structs.replace(QUERY, before=(1, 2)),
        msgspec.structs.replace(QUERY, symbol="EURUSD"),
    ):
        assert await pages.kept(account(), "deals", other, 300_000) is None
    assert await pages.kept(account(), "orders", QUERY, 300_000) is None


async def test_a_page_of_other_credentials_answers_nobody(
    pages: HistoryPages, cache: Cache
) -> None:
    await kept(pages, cache)
    assert await pages.kept(account(login=8), "deals", QUERY, 300_000) is None


async def test_a_page_that_is_too_old_answers_nobody(pages: HistoryPages, cache: Cache) -> None:
    await kept(pages, cache)
    assert await pages.kept(account(), "deals", QUERY, 500) is None
    asked = cache.gets
    assert await pages.kept(account(), "deals", QUERY, 0) is None
    assert cache.gets == asked, "fresh asks nobody"


async def test_without_the_state_store_there_are_no_pages(
    pages: HistoryPages, cache: Cache
) -> None:
    cache.away = True
    for _ in range(3):
        assert await pages.kept(account(), "deals", QUERY, 300_000) is None
    assert cache.gets == 1


@pytest.mark.parametrize("failure", [StateUnavailable("full"), StaleToken("moved")])
async def test_an_unkept_page_fails_nobody(
    pages: HistoryPages, cache: Cache, failure: Exception
) -> None:
    cache.failure = failure
    await pages.put("alpha", 11, "deals", QUERY, CachedPage(0, "t-1", "api-1", 7, "S", b""))


def test_a_question_without_a_span_is_the_same_question_all_day() -> None:
    today_ms = now_ms() // DAY_MS * DAY_MS
    asked = page_query(BROKERS, "S")
    again = page_query(BROKERS, "S")
    if now_ms() // DAY_MS * DAY_MS == today_ms:
        assert key_of(asked) == key_of(again)
        assert asked.end * 1000 == today_ms + 2 * DAY_MS
        assert asked.start * 1000 == today_ms - DEFAULT_DAYS * DAY_MS


def test_a_span_that_ends_early_begins_before_its_end() -> None:
    asked = page_query(BROKERS, "S", end_ms=40 * DAY_MS)
    assert (asked.start, asked.end) == (10 * DAY_MS // 1000, 40 * DAY_MS // 1000)
    assert page_query(BROKERS, "S", end_ms=DAY_MS).start == 0
