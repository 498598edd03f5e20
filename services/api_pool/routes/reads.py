"""Reading an account: info, positions, orders, snapshot; by path or by header."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from api_pool.answers import InfoAnswer, OrdersAnswer, PositionsAnswer, SnapshotAnswer, answer
from api_pool.context import ProcessContext
from api_pool.reading import Read
from api_pool.routes.requests import (
    AccountInHeader,
    AccountInPath,
    AskedAccount,
    Context,
    MaxAge,
    SymbolFilter,
)
from mt5kit.telemetry.http import mark_turn

router = APIRouter(prefix="/api/mt5", tags=["reads"])
by_header = APIRouter(prefix="/api/mt5", tags=["reads by X-Account-ID"])


@router.get("/account/{account_id}/info")
async def info(request: Request, context: Context, asked: AccountInPath, age: MaxAge) -> Response:
    """All 28 fields of AccountInfo."""
    return _info(await _look(request, context, asked, age))


@by_header.get("/account")
async def info_by_header(
    request: Request, context: Context, asked: AccountInHeader, age: MaxAge
) -> Response:
    """The same as `/account/{id}/info`."""
    return _info(await _look(request, context, asked, age))


@router.get("/account/{account_id}/positions")
async def positions(
    request: Request, context: Context, asked: AccountInPath, age: MaxAge, symbol: SymbolFilter
) -> Response:
    """Open positions, of one symbol or all."""
    return _positions(await _look(request, context, asked, age), symbol)


@by_header.get("/positions")
async def positions_by_header(
    request: Request, context: Context, asked: AccountInHeader, age: MaxAge, symbol: SymbolFilter
) -> Response:
    """The same as `/account/{id}/positions`."""
    return _positions(await _look(request, context, asked, age), symbol)


@router.get("/account/{account_id}/orders")
async def orders(
    request: Request, context: Context, asked: AccountInPath, age: MaxAge, symbol: SymbolFilter
) -> Response:
    """Pending orders, of one symbol or all."""
    return _orders(await _look(request, context, asked, age), symbol)


@by_header.get("/orders")
async def orders_by_header(
    request: Request, context: Context, asked: AccountInHeader, age: MaxAge, symbol: SymbolFilter
) -> Response:
    """The same as `/account/{id}/orders`."""
    return _orders(await _look(request, context, asked, age), symbol)


@router.get("/account/{account_id}/snapshot")
async def snapshot(
    request: Request, context: Context, asked: AccountInPath, age: MaxAge
) -> Response:
    """Account, positions and orders of one terminal turn."""
    read = await _look(request, context, asked, age)
    seen = read.snapshot
    return answer(
        SnapshotAnswer(
            account=seen.account, positions=seen.positions, orders=seen.orders, meta=read.meta
        )
    )


async def _look(request: Request, context: ProcessContext, asked: AskedAccount, age: int) -> Read:
    account = await asked.find()
    return await context.reader.look(account, age, lambda: mark_turn(request))


def _info(read: Read) -> Response:
    return answer(InfoAnswer(account=read.snapshot.account, meta=read.meta))


def _positions(read: Read, symbol: str | None) -> Response:
    kept = [p for p in read.snapshot.positions if symbol is None or p.symbol == symbol]
    return answer(PositionsAnswer(positions=kept, meta=read.meta))


def _orders(read: Read, symbol: str | None) -> Response:
    kept = [o for o in read.snapshot.orders if symbol is None or o.symbol == symbol]
    return answer(OrdersAnswer(orders=kept, meta=read.meta))
