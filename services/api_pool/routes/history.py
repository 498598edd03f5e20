"""Deals and orders of the past, page by page."""

import base64
import binascii
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from api_pool.answers import DealsAnswer, OrderHistoryAnswer, answer
from api_pool.history_pages import FIRST_PAGE, page_query
from api_pool.routes.requests import LONGEST_AGE_MS, AccountInPath, Context, SymbolFilter
from mt5kit.domain.brokers import Brokers
from mt5kit.domain.history import HistoryQuery
from mt5kit.domain.instants import parse_instant_ms
from mt5kit.domain.trades import Cursor
from mt5kit.errors import InvalidParameters
from mt5kit.telemetry.http import mark_turn

router = APIRouter(prefix="/api/mt5/account/{account_id}/history", tags=["history"])

# The past changes seldom, and a look at it costs a turn (contracts §1).
DEFAULT_HISTORY_AGE_MS = 300_000


@dataclass(frozen=True, slots=True)
class Page:
    """Which page of history is asked for; instants in UTC epoch milliseconds, None where open."""

    start_ms: int | None
    end_ms: int | None
    symbol: str
    before: Cursor | None
    limit: int
    max_age_ms: int

    def query(self, brokers: Brokers, server: str) -> HistoryQuery:
        """The same as terminals are asked."""
        return page_query(
            brokers, server, self.start_ms, self.end_ms, self.symbol, self.before, self.limit
        )


async def page_of(  # noqa: PLR0913, PLR0917 - the parameters of the query
    symbol: SymbolFilter,
    from_: Annotated[str | None, Query(alias="from", max_length=64)] = None,
    to: Annotated[str | None, Query(max_length=64)] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = FIRST_PAGE,
    cursor: Annotated[str | None, Query(max_length=128)] = None,
    max_age_ms: Annotated[int, Query(ge=0, le=LONGEST_AGE_MS)] = DEFAULT_HISTORY_AGE_MS,
    fresh: Annotated[bool, Query()] = False,
) -> Page:
    """The page that a request's query names.

    Raises:
        InvalidParameters: An instant or the cursor is malformed, or the span is empty.
    """
    start_ms = _instant("from", from_) if from_ else None
    end_ms = _instant("to", to) if to else None
    if start_ms is not None and end_ms is not None and start_ms > end_ms:
        raise InvalidParameters("from lies after to")
    before = decode_cursor(cursor) if cursor else None
    return Page(start_ms, end_ms, symbol or "", before, limit, 0 if fresh else max_age_ms)


PageQuery = Annotated[Page, Depends(page_of)]


@router.get("/deals")
async def deals(
    request: Request, context: Context, asked: AccountInPath, page: PageQuery
) -> Response:
    """Deals of a span, newest first."""
    account = await asked.find()
    query = page.query(context.brokers, account.identity.server)
    read = await context.reader.deals(account, query, page.max_age_ms, lambda: mark_turn(request))
    cursor = encode_cursor(read.page.next_cursor)
    return answer(DealsAnswer(deals=read.page.rows, next_cursor=cursor, meta=read.meta))


@router.get("/orders")
async def orders(
    request: Request, context: Context, asked: AccountInPath, page: PageQuery
) -> Response:
    """Finished orders of a span, newest first."""
    account = await asked.find()
    query = page.query(context.brokers, account.identity.server)
    read = await context.reader.orders(account, query, page.max_age_ms, lambda: mark_turn(request))
    cursor = encode_cursor(read.page.next_cursor)
    return answer(OrderHistoryAnswer(orders=read.page.rows, next_cursor=cursor, meta=read.meta))


def encode_cursor(cursor: Cursor | None) -> str | None:
    """A cursor as callers carry it."""
    if cursor is None:
        return None
    return base64.urlsafe_b64encode("{}:{}".format(*cursor).encode()).decode().rstrip("=")


def decode_cursor(text: str) -> Cursor:
    """The cursor that a caller carried.

    Raises:
        InvalidParameters: It is none of ours.
    """
    try:
        plain = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        moment, _, ticket = plain.decode("ascii").partition(":")
        cursor = int(moment), int(ticket)
    except (ValueError, binascii.Error) as odd:
        raise InvalidParameters("cursor is none of ours; begin without one") from odd
    if not all(0 <= part < 2**63 for part in cursor):
        raise InvalidParameters("cursor is none of ours; begin without one")
    return cursor


def _instant(name: str, text: str) -> int:
    try:
        return parse_instant_ms(text)
    except (ValueError, OverflowError) as odd:
        raise InvalidParameters(f"{name} is neither an ISO instant nor an epoch") from odd
