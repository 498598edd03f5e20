"""What to read of an account's past."""

from typing import Generic, TypeVar

import msgspec

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


class HistoryQuery(msgspec.Struct, frozen=True):
    """A page of history: between two wall-clock epochs in seconds, both included.

    `symbol` is empty for all; `before` is the cursor of the last row already seen.
    """

    start: int
    end: int
    symbol: str
    before: Cursor | None
    limit: int
