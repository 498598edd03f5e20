"""history_*."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from terminal_sim.broker.values import Deal, Order
from terminal_sim.faults.kinds import HistoryEmpty
from terminal_sim.module import history_rows
from terminal_sim.module.arguments import check_keywords, epoch, integer, mask, refusal, text
from terminal_sim.module.entry import entry
from terminal_sim.module.history_rows import Rows
from terminal_sim.terminal.account import Asked, Session
from terminal_sim.terminal.channel import LineDown, LineTimeout
from terminal_sim.terminal.session import Terminal

_DATES = 2


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which history is asked for.

    Attributes:
        asked: Of the broker.
        symbol: Tells whether a symbol is wanted; None: all are.
    """

    asked: Asked
    symbol: Callable[[str], bool] | None = None


class HistoryFunctions:
    """Functions that read what an account did.

    Args:
        terminal: The terminal they act on.
    """

    def __init__(self, terminal: Terminal) -> None:
        self.terminal = terminal

    @entry(arity=2)
    def history_deals_total(self, date_from: object, date_to: object) -> int:
        """Return how many deals were made between two dates."""
        return len(self._deals(self.terminal.account(), _between(date_from, date_to)))

    @entry()
    def history_deals_get(self, *args: object, **kwargs: object) -> Rows:
        """Return the deals between two dates, of an order, or of a position."""
        wanted = _wanted("history_deals_get", args, kwargs)
        session = self.terminal.account()
        return history_rows.deals(self._deals(session, wanted), session.wall)

    @entry(arity=2)
    def history_orders_total(self, date_from: object, date_to: object) -> int:
        """Return how many orders were completed between two dates."""
        return len(self._orders(self.terminal.account(), _between(date_from, date_to)))

    @entry()
    def history_orders_get(self, *args: object, **kwargs: object) -> Rows:
        """Return the completed orders between two dates, of a ticket, or of a position."""
        wanted = _wanted("history_orders_get", args, kwargs)
        session = self.terminal.account()
        return history_rows.orders(self._orders(session, wanted), session.wall)

    def _deals(self, session: Session, wanted: Wanted) -> list[Deal]:
        if self._seems_empty(session):
            return []
        with _refusing():
            rows = session.deals(wanted.asked)
        return [deal for deal in rows if wanted.symbol is None or wanted.symbol(deal.symbol)]

    def _orders(self, session: Session, wanted: Wanted) -> list[Order]:
        if self._seems_empty(session):
            return []
        with _refusing():
            rows = session.orders(wanted.asked)
        return [order for order in rows if wanted.symbol is None or wanted.symbol(order.symbol)]

    def _seems_empty(self, session: Session) -> bool:
        passed_ms = self.terminal.clock.now_ms() - session.since_ms
        faults = self.terminal.faults
        return (
            bool(faults)
            and faults.take(HistoryEmpty, lambda fault: passed_ms < fault.ready_s * 1000)
            is not None
        )


@contextmanager
def _refusing() -> Iterator[None]:
    """Turn what befell the line into what the module tells.

    Raises:
        Refusal: -1 without a line, -10005 without an answer.
    """
    try:
        yield
    except LineDown:
        raise refusal("RES_E_FAIL") from None
    except LineTimeout:
        raise refusal("RES_E_INTERNAL_FAIL_TIMEOUT") from None


def _wanted(name: str, args: tuple[object, ...], kwargs: dict[str, Any]) -> Wanted:
    check_keywords(name, ("date_from", "date_to", "group", "ticket", "position"), kwargs)
    dates = [*args, *(kwargs[key] for key in ("date_from", "date_to") if key in kwargs)]
    if not dates and "ticket" in kwargs:
        return Wanted(Asked(order=integer("ticket", kwargs["ticket"])))
    if not dates and "position" in kwargs:
        return Wanted(Asked(position=integer("position", kwargs["position"])))
    if len(dates) != _DATES:
        raise refusal("RES_E_INVALID_PARAMS")
    group = text("group", kwargs["group"]) if "group" in kwargs else None
    return _between(dates[0], dates[1], group)


def _between(date_from: object, date_to: object, group: str | None = None) -> Wanted:
    first, last = epoch("date_from", date_from), epoch("date_to", date_to)
    if last < first:
        raise refusal("RES_E_INVALID_PARAMS")
    return Wanted(Asked(first, last), None if group is None else mask(group))
