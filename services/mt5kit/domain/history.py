"""What to read of an account's past."""

from typing import TypeAlias

import msgspec

# (milliseconds, ticket) of a row: unique, and in the order of history.
Cursor: TypeAlias = tuple[int, int]


class HistoryQuery(msgspec.Struct, frozen=True):
    """A page of history: between two wall-clock epochs in seconds, both included.

    `symbol` is empty for all; `before` is the cursor of the last row already seen.
    """

    start: int
    end: int
    symbol: str
    before: Cursor | None
    limit: int
