"""Positions, orders and deals out of columns: the same objects for the past and for what comes."""

from collections.abc import Iterator

import numpy as np

from terminal_sim.broker.codes import (
    DEAL_ENTRY_IN,
    DEAL_ENTRY_OUT,
    ORDER_FILLING_FOK,
    ORDER_STATE_FILLED,
    ORDER_TIME_GTC,
)
from terminal_sim.broker.plans import CLIENT, EXPERT
from terminal_sim.broker.trades import SYMBOLS, Trades
from terminal_sim.broker.values import Deal, Order, Position


def positions(trades: Trades) -> Iterator[Position]:
    """Yield the positions of trades while they are open."""
    columns = (
        trades.ticket.tolist(),
        _symbols(trades),
        trades.sign.tolist(),
        trades.volume.tolist(),
        trades.price.tolist(),
        trades.opened.tolist(),
        trades.sl.tolist(),
        trades.tp.tolist(),
        trades.magic.tolist(),
        _reasons(trades),
        trades.comment.tolist(),
        trades.swap.tolist(),
        trades.margin.tolist(),
    )
    for ticket, symbol, sign, volume, price, opened, *rest in zip(*columns, strict=True):
        yield Position(ticket, ticket, symbol, sign, volume, price, opened, opened, *rest)


def deals(trades: Trades, *, closing: bool) -> Iterator[Deal]:
    """Yield the deals that open trades, or that close them."""
    nothing = [0.0] * trades.ticket.size
    columns = (
        trades.ticket.tolist(),
        _symbols(trades),
        _types(trades, closing=closing),
        (trades.closed if closing else trades.opened).tolist(),
        trades.volume.tolist(),
        (trades.price_close if closing else trades.price).tolist(),
        trades.commission.tolist(),
        trades.swap.tolist() if closing else nothing,
        trades.profit.tolist() if closing else nothing,
        trades.magic.tolist(),
        _reasons(trades),
        trades.comment.tolist(),
    )
    entry, number = (DEAL_ENTRY_OUT, 2) if closing else (DEAL_ENTRY_IN, 0)
    for ticket, symbol, kind, at, volume, price, cost, swap, profit, *rest in zip(
        *columns, strict=True
    ):
        order = ticket + number
        money = cost, swap, profit, 0.0
        yield Deal(order + 1, order, ticket, symbol, kind, entry, at, volume, price, *money, *rest)


def orders(trades: Trades, *, closing: bool) -> Iterator[Order]:
    """Yield the filled orders that opened trades, or that closed them."""
    nothing = [0.0] * trades.ticket.size
    price = (trades.price_close if closing else trades.price).tolist()
    columns = (
        trades.ticket.tolist(),
        _symbols(trades),
        _types(trades, closing=closing),
        trades.volume.tolist(),
        price,
        nothing if closing else trades.sl.tolist(),
        nothing if closing else trades.tp.tolist(),
        (trades.closed if closing else trades.opened).tolist(),
        trades.magic.tolist(),
        _reasons(trades),
        trades.comment.tolist(),
    )
    for ticket, symbol, kind, volume, paid, sl, tp, at, magic, reason, comment in zip(
        *columns, strict=True
    ):
        yield Order(
            ticket=ticket + 2 if closing else ticket,
            symbol=symbol,
            type=kind,
            state=ORDER_STATE_FILLED,
            volume_initial=volume,
            volume_current=0.0,
            price_open=paid,
            price_current=paid,
            sl=sl,
            tp=tp,
            setup_ms=at,
            done_ms=at,
            expires_ms=0,
            type_time=ORDER_TIME_GTC,
            type_filling=ORDER_FILLING_FOK,
            magic=magic,
            reason=reason,
            position_id=ticket,
            comment=comment,
        )


def _symbols(trades: Trades) -> list[str]:
    return [SYMBOLS[index] for index in trades.symbol.tolist()]


def _types(trades: Trades, *, closing: bool) -> list[int]:
    """Return ``*_TYPE_BUY`` (0) or ``*_TYPE_SELL`` (1)."""
    types: list[int] = np.where((trades.sign > 0) != closing, 0, 1).tolist()
    return types


def _reasons(trades: Trades) -> list[int]:
    reasons: list[int] = np.where(trades.magic > 0, EXPERT, CLIENT).tolist()
    return reasons
