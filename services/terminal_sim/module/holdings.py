"""positions_*, orders_* and history_*."""

from collections.abc import Callable
from typing import Any

from terminal_sim.module import account_rows, history_rows
from terminal_sim.module.arguments import (
    Refusal,
    check_keywords,
    epoch,
    integer,
    mask,
    refusal,
    text,
)
from terminal_sim.module.entry import entry
from terminal_sim.module.history_rows import Wanted
from terminal_sim.module.structs import StructSequence
from terminal_sim.terminal.session import Terminal

Rows = tuple[StructSequence, ...]
_DATES = 2


class HoldingFunctions:
    """Functions that read what an account holds and held.

    Args:
        terminal: The terminal they act on.
    """

    def __init__(self, terminal: Terminal) -> None:
        self.terminal = terminal

    @entry(arity=0)
    def positions_total(self) -> int:
        """Return how many positions are open."""
        return len(self._positions())

    @entry()
    def positions_get(self, *args: object, **kwargs: object) -> Rows:
        """Return the open positions, of a symbol, a group of symbols, or a ticket."""
        return _picked("positions_get", self._positions, args, kwargs)

    @entry(arity=0)
    def orders_total(self) -> int:
        """Return how many orders are pending."""
        return len(self._orders())

    @entry()
    def orders_get(self, *args: object, **kwargs: object) -> Rows:
        """Return the pending orders, of a symbol, a group of symbols, or a ticket."""
        return _picked("orders_get", self._orders, args, kwargs)

    @entry(arity=2)
    def history_deals_total(self, date_from: object, date_to: object) -> int:
        """Return how many deals were made between two dates."""
        return len(self._history(history_rows.deals, _between(date_from, date_to)))

    @entry()
    def history_deals_get(self, *args: object, **kwargs: object) -> Rows:
        """Return the deals between two dates, of an order, or of a position."""
        return self._history(history_rows.deals, _wanted("history_deals_get", args, kwargs))

    @entry(arity=2)
    def history_orders_total(self, date_from: object, date_to: object) -> int:
        """Return how many orders were completed between two dates."""
        return len(self._history(history_rows.orders, _between(date_from, date_to)))

    @entry()
    def history_orders_get(self, *args: object, **kwargs: object) -> Rows:
        """Return the completed orders between two dates, of a ticket, or of a position."""
        return self._history(history_rows.orders, _wanted("history_orders_get", args, kwargs))

    def _positions(self) -> Rows:
        return self.terminal.account().positions.rows(self.terminal.clock.now_ms())

    def _orders(self) -> Rows:
        book = self.terminal.account().book
        return account_rows.pending_orders(book, self.terminal.clock.now_ms())

    def _history(self, read: Callable[..., Rows], wanted: Wanted) -> Rows:
        book = self.terminal.account().book
        return read(book, wanted, self.terminal.clock.now_ms())


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


def _wanted(name: str, args: tuple[object, ...], kwargs: dict[str, Any]) -> Wanted:
    check_keywords(name, ("date_from", "date_to", "group", "ticket", "position"), kwargs)
    dates = [*args, *(kwargs[key] for key in ("date_from", "date_to") if key in kwargs)]
    if not dates and "ticket" in kwargs:
        return Wanted(order=integer("ticket", kwargs["ticket"]))
    if not dates and "position" in kwargs:
        return Wanted(position=integer("position", kwargs["position"]))
    if len(dates) != _DATES:
        raise refusal("RES_E_INVALID_PARAMS")
    group = text("group", kwargs["group"]) if "group" in kwargs else None
    return _between(dates[0], dates[1], group)


def _between(date_from: object, date_to: object, group: str | None = None) -> Wanted:
    first, last = epoch("date_from", date_from), epoch("date_to", date_to)
    if last < first:
        raise refusal("RES_E_INVALID_PARAMS")
    return Wanted(first=first, last=last, symbol=None if group is None else mask(group))
