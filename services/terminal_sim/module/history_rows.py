"""TradeDeal and historical TradeOrder rows of a book."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from terminal_sim.broker.book import Book
from terminal_sim.broker.plans import CREDIT, DEPOSIT
from terminal_sim.broker.trades import SYMBOLS, Trades
from terminal_sim.catalogue import catalogue
from terminal_sim.module.structs import StructSequence, maker

Mask = npt.NDArray[np.bool_]
Rows = tuple[StructSequence, ...]

_EXPERT, _CLIENT = 3, 0


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which history is asked for; None does not filter.

    Attributes:
        first: Earliest broker time in seconds.
        last: Latest broker time in seconds.
        order: Ticket of an order.
        position: Identifier of a position.
        symbol: Tells whether a symbol is wanted.
    """

    first: float | None = None
    last: float | None = None
    order: int | None = None
    position: int | None = None
    symbol: Callable[[str], bool] | None = None


def deals(book: Book, wanted: Wanted, now_ms: int) -> Rows:
    """Return the wanted deals up to an instant, oldest first."""
    trades = book.trades(now_ms)
    rows = list(_money(book, wanted, now_ms))
    for closing in (False, True):
        chosen, seconds, msc = _chosen(book, trades, wanted, now_ms, closing=closing)
        make, names = maker("TradeDeal"), [SYMBOLS[i] for i in chosen.symbol.tolist()]
        count = len(names)
        nothing = [0.0] * count
        columns = (
            (chosen.ticket + (3 if closing else 1)).tolist(),
            (chosen.ticket + (2 if closing else 0)).tolist(),
            seconds,
            msc,
            np.where((chosen.sign > 0) != closing, 0, 1).tolist(),
            [int(closing)] * count,
            chosen.magic.tolist(),
            chosen.ticket.tolist(),
            np.where(chosen.magic > 0, _EXPERT, _CLIENT).tolist(),
            chosen.volume.tolist(),
            (chosen.price_close if closing else chosen.price).tolist(),
            nothing,
            nothing,
            chosen.profit.tolist() if closing else nothing,
            nothing,
            names,
            chosen.comment.tolist(),
            [""] * count,
        )
        rows += map(make, zip(*columns, strict=True))
    return tuple(sorted(rows, key=lambda row: (row.time_msc, row.ticket)))


def orders(book: Book, wanted: Wanted, now_ms: int) -> Rows:
    """Return the wanted filled orders up to an instant, oldest first."""
    trades = book.trades(now_ms)
    rows: list[StructSequence] = []
    filled = catalogue().constants["ORDER_STATE_FILLED"]
    for closing in (False, True):
        chosen, seconds, msc = _chosen(book, trades, wanted, now_ms, closing=closing)
        make, names = maker("TradeOrder"), [SYMBOLS[i] for i in chosen.symbol.tolist()]
        count = len(names)
        zero, nothing = [0] * count, [0.0] * count
        price = (chosen.price_close if closing else chosen.price).tolist()
        columns = (
            (chosen.ticket + (2 if closing else 0)).tolist(),
            seconds,
            msc,
            seconds,
            msc,
            zero,
            np.where((chosen.sign > 0) != closing, 0, 1).tolist(),
            zero,
            zero,
            [filled] * count,
            chosen.magic.tolist(),
            chosen.ticket.tolist(),
            zero,
            np.where(chosen.magic > 0, _EXPERT, _CLIENT).tolist(),
            chosen.volume.tolist(),
            nothing,
            price,
            nothing if closing else chosen.sl.tolist(),
            nothing if closing else chosen.tp.tolist(),
            price,
            nothing,
            names,
            chosen.comment.tolist(),
            [""] * count,
        )
        rows += map(make, zip(*columns, strict=True))
    return tuple(sorted(rows, key=lambda row: (row.time_setup_msc, row.ticket)))


def _chosen(
    book: Book, trades: Trades, wanted: Wanted, now_ms: int, *, closing: bool
) -> tuple[Trades, list[int], list[int]]:
    """Return the wanted trades, and when they were opened or closed in s and ms."""
    instant = trades.closed if closing else trades.opened
    trades = trades.take(instant <= now_ms)
    msc = book.wall.walls_ms(trades.closed if closing else trades.opened)
    keep = _mask(trades, msc // 1000, wanted, trades.ticket + (2 if closing else 0))
    return trades.take(keep), (msc[keep] // 1000).tolist(), msc[keep].tolist()


def _mask(
    trades: Trades, seconds: npt.NDArray[np.int64], wanted: Wanted, order: npt.NDArray[np.int64]
) -> Mask:
    keep: Mask = np.ones(seconds.shape, np.bool_)
    if wanted.first is not None:
        keep &= seconds >= wanted.first
    if wanted.last is not None:
        keep &= seconds <= wanted.last
    if wanted.order is not None:
        keep &= order == wanted.order
    if wanted.position is not None:
        keep &= trades.ticket == wanted.position
    if wanted.symbol is not None:
        keep &= np.array([wanted.symbol(symbol) for symbol in SYMBOLS])[trades.symbol]
    return keep


def _money(book: Book, wanted: Wanted, now_ms: int) -> Iterator[StructSequence]:
    """Yield the deals that only move money: the initial deposit and the credit."""
    if now_ms < book.registered_ms or wanted.order is not None or wanted.position is not None:
        return
    msc = book.wall.wall_ms(book.registered_ms)
    if wanted.first is not None and msc // 1000 < wanted.first:
        return
    if wanted.last is not None and msc // 1000 > wanted.last:
        return
    if wanted.symbol is not None and not wanted.symbol(""):
        return
    constants = catalogue().constants
    parts = (
        (DEPOSIT, "DEAL_TYPE_BALANCE", book.account.balance, "Deposit"),
        (CREDIT, "DEAL_TYPE_CREDIT", book.account.credit, "Credit"),
    )
    for number, kind, amount, comment in parts:
        if amount:
            start = (book.base + number, 0, msc // 1000, msc, constants[kind], 0, 0, 0, 0, 0.0, 0.0)
            yield maker("TradeDeal")((*start, 0.0, 0.0, amount, 0.0, "", comment, ""))
