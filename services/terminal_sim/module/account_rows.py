"""AccountInfo, TradePosition and pending TradeOrder rows of a book."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from terminal_sim.broker.book import Book, Held, Valued
from terminal_sim.broker.plans import order_ticket
from terminal_sim.broker.trades import SYMBOLS
from terminal_sim.catalogue import catalogue
from terminal_sim.market.instruments import INSTRUMENTS
from terminal_sim.module.structs import StructSequence, maker, struct
from terminal_sim.scenario.model import Order

_EXPERT, _CLIENT = 3, 0
# Margin level, in percent, at which a broker warns and closes positions.
_CALL_LEVEL, _STOP_LEVEL = 50.0, 30.0
# A pending order without a price stands this far from the market.
_AWAY = 0.02
_MAX_PENDING = 200


def account_info(book: Book, now_ms: int, *, investor: bool) -> StructSequence:
    """Return AccountInfo; an investor (read-only password) may not trade."""
    account, valued = book.account, book.value(now_ms)
    margin = round(valued.held.margin, book.digits)
    constants = catalogue().constants
    return _filled(
        "AccountInfo",
        login=account.login,
        trade_mode=constants["ACCOUNT_TRADE_MODE_DEMO"],
        leverage=account.leverage,
        limit_orders=_MAX_PENDING,
        margin_so_mode=constants["ACCOUNT_STOPOUT_MODE_PERCENT"],
        trade_allowed=not investor,
        trade_expert=True,
        margin_mode=constants[f"ACCOUNT_MARGIN_MODE_RETAIL_{account.margin_mode.upper()}"],
        currency_digits=book.digits,
        fifo_close=False,
        balance=valued.balance,
        credit=valued.credit,
        profit=round(float(valued.profit.sum()), book.digits),
        equity=valued.equity,
        margin=margin,
        margin_free=round(valued.equity - margin, book.digits),
        margin_level=valued.equity / margin * 100 if margin else 0.0,
        margin_so_call=_CALL_LEVEL,
        margin_so_so=_STOP_LEVEL,
        margin_initial=0.0,
        margin_maintenance=0.0,
        assets=0.0,
        liabilities=0.0,
        commission_blocked=0.0,
        name=account.name,
        server=account.server,
        currency=account.currency,
        company=book.server.company,
    )


class PositionRows:
    """Turns a valued account into TradePosition rows; what does not move is prepared once.

    Args:
        book: The account.
    """

    def __init__(self, book: Book) -> None:
        self._book = book
        self._make = maker("TradePosition")
        self._still: tuple[Held, tuple[list[Any], ...], tuple[list[Any], ...]] | None = None
        self._rows: tuple[Valued, tuple[StructSequence, ...]] | None = None

    def rows(self, now_ms: int) -> tuple[StructSequence, ...]:
        """Return the open positions, oldest first."""
        valued = self._book.value(now_ms)
        last = self._rows
        if last and last[0] is valued:
            return last[1]
        before, after = self._columns(valued.held)
        swap = [0.0] * len(valued.profit)
        moving = valued.price.tolist(), swap, valued.profit.tolist()
        rows = tuple(map(self._make, zip(*before, *moving, *after, strict=True)))
        self._rows = valued, rows
        return rows

    def _columns(self, held: Held) -> tuple[tuple[list[Any], ...], tuple[list[Any], ...]]:
        """Return the columns up to ``tp`` and from ``symbol`` on."""
        last = self._still
        if last and last[0] is held:
            return last[1], last[2]
        trades = held.trades
        opened_ms = self._book.wall.walls_ms(trades.opened)
        ticket, msc, opened = trades.ticket.tolist(), opened_ms.tolist(), opened_ms // 1000
        reason = np.where(trades.magic > 0, _EXPERT, _CLIENT).tolist()
        kind = np.where(trades.sign > 0, 0, 1).tolist()
        seconds, magic = opened.tolist(), trades.magic.tolist()
        numbers = trades.volume.tolist(), trades.price.tolist(), trades.sl.tolist()
        before = (ticket, seconds, msc, seconds, msc, kind, magic, ticket, reason, *numbers)
        names = [SYMBOLS[i] for i in trades.symbol.tolist()]
        after = names, trades.comment.tolist(), [""] * len(names)
        self._still = held, (*before, trades.tp.tolist()), after
        return self._still[1], self._still[2]


def pending_orders(book: Book, now_ms: int) -> tuple[StructSequence, ...]:
    """Return the pending orders placed up to an instant."""
    orders = enumerate(book.account.orders)
    return tuple(
        _pending(book, number, order, now_ms)
        for number, order in orders
        if order.placed_at.ms <= now_ms
    )


def _pending(book: Book, number: int, order: Order, now_ms: int) -> StructSequence:
    constants = catalogue().constants
    quote = book.tape.at(order.symbol, now_ms)
    placed_ms = book.wall.wall_ms(order.placed_at.ms)
    return _filled(
        "TradeOrder",
        ticket=order_ticket(book.base, number),
        time_setup=placed_ms // 1000,
        time_setup_msc=placed_ms,
        time_done=0,
        time_done_msc=0,
        time_expiration=0,
        type=constants[f"ORDER_TYPE_{order.type.upper()}"],
        type_time=constants["ORDER_TIME_GTC"],
        type_filling=constants["ORDER_FILLING_RETURN"],
        state=constants["ORDER_STATE_PLACED"],
        magic=order.magic,
        position_id=0,
        position_by_id=0,
        reason=_EXPERT if order.magic else _CLIENT,
        volume_initial=order.volume,
        volume_current=order.volume,
        price_open=_limit(book, order) if order.price is None else order.price,
        sl=order.sl,
        tp=order.tp,
        price_current=quote.ask if order.type.startswith("buy") else quote.bid,
        price_stoplimit=0.0,
        symbol=order.symbol,
        comment=order.comment,
        external_id="",
    )


def _limit(book: Book, order: Order) -> float:
    """Return a price away from the market of the moment the order was placed."""
    bid = float(book.tape.market.quotes(order.symbol, np.array([order.placed_at.ms]))["bid"][0])
    below = order.type in {"buy_limit", "sell_stop"}
    return round(bid * (1 - _AWAY if below else 1 + _AWAY), INSTRUMENTS[order.symbol].digits)


def _filled(name: str, /, **values: Any) -> StructSequence:  # noqa: ANN401 - a field may hold anything
    cls = struct(name)
    return cls(_ordered(cls.__match_args__, values))


def _ordered(names: tuple[str, ...], values: dict[str, Any]) -> Iterator[Any]:
    return (values[name] for name in names)
