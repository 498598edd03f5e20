"""Reading an account: info, positions, orders, snapshot; by path or by header.

`OrdinaryReads` answers what nearly every request looks like; whatever has anything odd about it
goes on to FastAPI's routes below, which judge it, refuse it in detail and document it all.
"""

import time
from collections.abc import Callable, Mapping
from typing import Final

from fastapi import APIRouter, FastAPI, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match
from starlette.types import Receive, Scope, Send

from api_pool.answers import info_answer, orders_answer, positions_answer, snapshot_answer
from api_pool.context import ProcessContext
from api_pool.reading import Read
from api_pool.routes.ordinary import OrdinaryRead, OrdinaryRequests
from api_pool.routes.requests import (
    AccountInHeader,
    AccountInPath,
    AskedAccount,
    Context,
    MaxAge,
    SymbolFilter,
    context_in,
    note_named,
)
from mt5kit.telemetry.http import mark_turn_of

# It follows from the switch times of every terminal, which change from minute to minute.
DEFAULT_AGE_S: Final = 1.0

router = APIRouter(prefix="/api/mt5", tags=["reads"])
by_header = APIRouter(prefix="/api/mt5", tags=["reads by X-Account-ID"])


@router.get("/account/{account_id}/info")
async def info(request: Request, context: Context, asked: AccountInPath, age: MaxAge) -> Response:
    """All 28 fields of AccountInfo."""
    return _info(await _look(request.scope, context, asked, age))


@by_header.get("/account")
async def info_by_header(
    request: Request, context: Context, asked: AccountInHeader, age: MaxAge
) -> Response:
    """The same as `/account/{id}/info`."""
    return _info(await _look(request.scope, context, asked, age))


@router.get("/account/{account_id}/positions")
async def positions(
    request: Request, context: Context, asked: AccountInPath, age: MaxAge, symbol: SymbolFilter
) -> Response:
    """Open positions, of one symbol or all."""
    return _positions(await _look(request.scope, context, asked, age), symbol)


@by_header.get("/positions")
async def positions_by_header(
    request: Request, context: Context, asked: AccountInHeader, age: MaxAge, symbol: SymbolFilter
) -> Response:
    """The same as `/account/{id}/positions`."""
    return _positions(await _look(request.scope, context, asked, age), symbol)


@router.get("/account/{account_id}/orders")
async def orders(
    request: Request, context: Context, asked: AccountInPath, age: MaxAge, symbol: SymbolFilter
) -> Response:
    """Pending orders, of one symbol or all."""
    return _orders(await _look(request.scope, context, asked, age), symbol)


@by_header.get("/orders")
async def orders_by_header(
    request: Request, context: Context, asked: AccountInHeader, age: MaxAge, symbol: SymbolFilter
) -> Response:
    """The same as `/account/{id}/orders`."""
    return _orders(await _look(request.scope, context, asked, age), symbol)


@router.get("/account/{account_id}/snapshot")
async def snapshot(
    request: Request, context: Context, asked: AccountInPath, age: MaxAge
) -> Response:
    """Account, positions and orders of one terminal turn."""
    return _snapshot(await _look(request.scope, context, asked, age))


class OrdinaryReads(BaseRoute):
    """The same reads, without FastAPI's work for requests that need none of it.

    A route of its own at the head of the router: it matches only what `OrdinaryRequests` can
    read whole, and answers as the functions above do.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._requests = OrdinaryRequests()
        self._default_age_ms = 0
        self._default_until = float("-inf")

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match an ordinary read; everything else is somebody else's."""
        asked = self._requests.read_in(scope)
        if asked is None:
            return Match.NONE, {}
        return Match.FULL, {"route": asked.route, "mt5.ordinary": asked}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer what `matches` has found."""
        asked: OrdinaryRead = scope["mt5.ordinary"]
        context = context_in(scope)
        note_named(scope, asked.user, asked.account_id)
        account = AskedAccount(context, asked.user, asked.account_id)
        age = self._default_age(context) if asked.max_age_ms is None else asked.max_age_ms
        read = await _look(scope, context, account, age)
        response = _ANSWERS[asked.part](read, asked.symbol)
        await response(scope, receive, send)

    def _default_age(self, context: ProcessContext) -> int:
        now = self._clock()
        if now >= self._default_until:
            self._default_age_ms = context.default_max_age_ms
            self._default_until = now + DEFAULT_AGE_S
        return self._default_age_ms


def install_reads(app: FastAPI) -> None:
    """Put every read into the app; before other routers, for they are what is asked most."""
    app.router.routes.insert(0, OrdinaryReads())
    app.include_router(router)
    app.include_router(by_header)


async def _look(scope: Scope, context: ProcessContext, asked: AskedAccount, age: int) -> Read:
    account = await asked.find()
    return await context.reader.look(account, age, lambda: mark_turn_of(scope))


def _info(read: Read, _symbol: str | None = None) -> Response:
    return info_answer(read.seen, read.meta)


def _positions(read: Read, symbol: str | None) -> Response:
    return positions_answer(read.seen, symbol, read.meta)


def _orders(read: Read, symbol: str | None) -> Response:
    return orders_answer(read.seen, symbol, read.meta)


def _snapshot(read: Read, _symbol: str | None = None) -> Response:
    return snapshot_answer(read.seen, read.meta)


_ANSWERS: Final[Mapping[str, Callable[[Read, str | None], Response]]] = {
    "info": _info,
    "positions": _positions,
    "orders": _orders,
    "snapshot": _snapshot,
}
