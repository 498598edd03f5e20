"""Pages of history that have been read, shared through the state store for some minutes."""

import hashlib
from dataclasses import dataclass
from typing import Final

import msgspec
import structlog

from api_pool.answers import Meta, age
from api_pool.directory import KnownAccount
from api_pool.store_watch import StoreWatch
from api_pool.turns import HistoryKind, Taken
from mt5kit.domain.brokers import Brokers
from mt5kit.domain.history import HistoryQuery
from mt5kit.domain.instants import now_ms
from mt5kit.domain.trades import Cursor
from mt5kit.errors import StaleToken
from mt5kit.service.background import Background
from mt5kit.state.redis import CachedPage, HistoryCache, StateUnavailable

log = structlog.get_logger(__name__)

DAY_MS: Final = 24 * 3_600_000
# What a person asks for first, and what a terminal answers in milliseconds.
DEFAULT_DAYS: Final = 30
# Rows of a page that does not say how many.
FIRST_PAGE: Final = 100


@dataclass(frozen=True, slots=True)
class HistoryPages:
    """Pages by account and question.

    Args:
        cache: Where they are.
        background: Writes what nobody waits for.
        watch: Knows whether the state store is away.
    """

    cache: HistoryCache
    background: Background
    watch: StoreWatch

    async def kept(
        self, account: KnownAccount, kind: HistoryKind, query: HistoryQuery, max_age_ms: int
    ) -> tuple[bytes, Meta] | None:
        """JSON of a page that answers the question and is at most `max_age_ms` old."""
        if max_age_ms == 0:
            return None
        try:
            page = await self.watch.asked(
                lambda: self.cache.get(account.account_id, kind, key_of(query))
            )
        except StateUnavailable as away:
            log.warning("read_without_state_store", error=away.message)
            return None
        if page is None or page.as_of_ms < now_ms() - max_age_ms:
            return None
        identity = account.identity
        if (page.identity_login, page.identity_server) != (identity.login, identity.server):
            return None
        as_of, age_ms = age(page.as_of_ms)
        meta = Meta(
            account_id=account.account_id,
            terminal_id=page.terminal_id,
            instance_id=page.instance_id,
            source="cache",
            as_of=as_of,
            age_ms=age_ms,
        )
        return page.payload, meta

    def keep(
        self, account: KnownAccount, kind: HistoryKind, query: HistoryQuery, taken: Taken
    ) -> None:
        """Share a page that a turn gave."""
        page = CachedPage(
            as_of_ms=taken.as_of_ms,
            terminal_id=taken.terminal_id,
            instance_id=taken.instance_id,
            identity_login=account.identity.login,
            identity_server=account.identity.server,
            payload=bytes(taken.payload),
        )
        work = self.put(account.account_id, taken.token, kind, query, page)
        self.background.spawn(f"page-{account.account_id}", work)

    async def put(
        self,
        account_id: str,
        token: int,
        kind: HistoryKind,
        query: HistoryQuery,
        page: CachedPage,
    ) -> None:
        """Share a page; unshared, it makes later reads slower, not worse."""
        try:
            await self.cache.put(account_id, token, kind, key_of(query), page)
        except (StateUnavailable, StaleToken) as unkept:
            log.info("page_not_cached", error=unkept.message)


def key_of(query: HistoryQuery) -> bytes:
    """What tells one question from another."""
    return hashlib.sha256(msgspec.json.encode(query)).digest()


def page_query(  # noqa: PLR0913, PLR0917 - the parameters of one question
    brokers: Brokers,
    server: str,
    start_ms: int | None = None,
    end_ms: int | None = None,
    symbol: str = "",
    before: Cursor | None = None,
    limit: int = FIRST_PAGE,
) -> HistoryQuery:
    """The question in the broker's wall clock, which is what terminals are asked in.

    Instants are UTC epoch milliseconds. What is left out lies on a day's boundary, so that the
    same question asked twice a day is the same question: until the end of tomorrow, since a
    terminal's own day may be ahead of UTC, and the 30 days before today.
    """
    today_ms = now_ms() // DAY_MS * DAY_MS
    end = today_ms + 2 * DAY_MS if end_ms is None else end_ms
    start = max(min(today_ms, end) - DEFAULT_DAYS * DAY_MS, 0) if start_ms is None else start_ms
    clock = brokers.clock_of(server)
    return HistoryQuery(
        clock.from_utc_ms(start) // 1000, clock.from_utc_ms(end) // 1000, symbol, before, limit
    )
