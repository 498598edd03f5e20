"""positions_* and orders_*."""

from collections.abc import Callable
from functools import partial
from typing import Any

from terminal_sim.broker.values import Order
from terminal_sim.module import history_rows
from terminal_sim.module.arguments import Refusal, check_keywords, integer, mask, text
from terminal_sim.module.entry import entry
from terminal_sim.module.history_rows import Rows, buys
from terminal_sim.terminal.account import Session
from terminal_sim.terminal.session import Terminal


class HoldingFunctions:
    """Functions that read what an account holds.

    Args:
        terminal: The terminal they act on.
    """

    def __init__(self, terminal: Terminal) -> None:
        self.terminal = terminal

    @entry(arity=0)
    def positions_total(self) -> int:
        """Return how many positions are open."""
        return len(self.terminal.account().state.positions)

    @entry()
    def positions_get(self, *args: object, **kwargs: object) -> Rows:
        """Return the open positions, of a symbol, a group of symbols, or a ticket."""
        return _picked("positions_get", self._positions, args, kwargs)

    @entry(arity=0)
    def orders_total(self) -> int:
        """Return how many orders are pending."""
        return len(self.terminal.account().state.orders)

    @entry()
    def orders_get(self, *args: object, **kwargs: object) -> Rows:
        """Return the pending orders, of a symbol, a group of symbols, or a ticket."""
        return _picked("orders_get", self._orders, args, kwargs)

    def _positions(self) -> Rows:
        session = self.terminal.account()
        return session.positions.rows(session.state, session.value())

    def _orders(self) -> Rows:
        session = self.terminal.account()
        pending = tuple(session.state.orders.values())
        return history_rows.orders(pending, session.wall, partial(_market, session))


def _picked(
    name: str, rows: Callable[[], Rows], args: tuple[object, ...], kwargs: dict[str, Any]
) -> Rows:
    check_keywords(name, ("symbol", "group", "ticket"), kwargs)
    if args:
        raise Refusal((-2, "Unnamed arguments not allowed"))
    if "symbol" in kwargs:
        symbol = text("symbol", kwargs["symbol"])
        return tuple(row for row in rows() if row.symbol == symbol)
    if "group" in kwargs:
        wanted = mask(text("group", kwargs["group"]))
        return tuple(row for row in rows() if wanted(row.symbol))
    if "ticket" in kwargs:
        ticket = integer("ticket", kwargs["ticket"])
        return tuple(row for row in rows() if row.ticket == ticket)
    return rows()


def _market(session: Session, order: Order) -> float:
    """Return the price a pending order would get now."""
    quote = session.tape.at(order.symbol, session.now_ms())
    return quote.ask if buys(order) else quote.bid
