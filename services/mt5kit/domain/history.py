"""What to read of an account's past."""

from typing import Generic, TypeVar

import msgspec

from mt5kit.domain.broker_time import BrokerClock
from mt5kit.domain.trades import Cursor, Deal, Order

Row = TypeVar("Row", Deal, Order)


class HistoryPage(msgspec.Struct, Generic[Row], frozen=True):
    """Rows of the past, newest first; `more` says that older ones lie behind the last."""

    rows: tuple[Row, ...]
    more: bool

    @property
    def next_cursor(self) -> Cursor | None:
        """Where the next page begins, None after the last one."""
        return self.rows[-1].cursor if self.more and self.rows else None

    def in_utc(self, clock: BrokerClock) -> "HistoryPage[Row]":
        """The same page with every UTC time filled in."""
        return HistoryPage(tuple(row.in_utc(clock) for row in self.rows), self.more)


class HistorySize(msgspec.Struct, frozen=True):
    """How many deals and finished orders a terminal has of an account, of all time.

    `funded` says that there is a balance or a credit: then there is a deal that paid it in.
    """

    deals: int
    orders: int
    funded: bool = True


class HistoryQuery(msgspec.Struct, frozen=True):
    """A page of history: between two wall-clock epochs in seconds, both included.

    `symbol` is empty for all; `before` is the cursor of the last row already seen. A terminal that
    would have to select more than `most` rows for it refuses.
    """

    start: int
    end: int
    symbol: str
    before: Cursor | None
    limit: int
    most: int = 2**31 - 1
