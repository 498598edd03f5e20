"""A way through an account's past in calls that hold its terminal for a quarter of a second.

A history is walked from its end backwards in windows of time, whose length follows what the last
ones cost. MetaTrader selects deals by when they were made and orders by when they were done, and
counts both ends of a period in whole seconds (MQL5 book, "Selecting orders and deals from
history"; the conformance matrix asks every terminal). Windows overlap by the second at their end
and the cursor cuts exactly there, so nothing depends on how a terminal treats the milliseconds of
its last second.
"""

from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeAlias, TypeVar

import msgspec

from mt5kit.domain.accounts import AccountIdentity
from mt5kit.domain.history import HistoryPage, HistoryQuery
from mt5kit.domain.trades import Cursor, Deal, Order
from mt5kit.terminal.answers import TooManyRows

DAY_S: Final = 86_400
# The terminal's Python has 32 bits: later seconds may be beyond what its module takes.
LAST_S: Final = 2**31 - 2
# Short enough for a busy account; a quiet one's windows are months long after two calls.
FIRST_WINDOW_S: Final = 7 * DAY_S
# What a terminal selects for one call: some 100 ms, which the pace of the walk then corrects. It
# is what stops a window that has grown in years without a row where the busy years begin.
MOST_ROWS: Final = 5000
# Of terminal time in one call: what another account's read may have to wait for it.
LONGEST_CALL_S: Final = 0.25
# What a call should take: a window with twice the rows of the last stays within the longest.
AIM_S: Final = LONGEST_CALL_S / 2
# The rows of a period that holds too many may all be in one corner of it: empty windows cost
# nothing, and every further count of too many does.
CROWDED_SHARE: Final = 1 / 16
# Years without a row are crossed in a few calls, and one quick answer does not make a year.
FASTEST_GROWTH: Final = 4.0

Row = TypeVar("Row", Deal, Order)
Clock: TypeAlias = Callable[[], float]
Read: TypeAlias = Callable[[int, AccountIdentity, HistoryQuery], Awaitable[HistoryPage[Row]]]
"""`AccountTerminal.deals` or `AccountTerminal.orders`."""


class Walk(Generic[Row]):
    """Goes through a history newest first, one call of the terminal at a time.

    Args:
        read: One page of the terminal.
        identity: The account.
        query: Where the walk begins and ends; its limit does not count.
        clock: Seconds that only grow.
    """

    def __init__(
        self, read: Read[Row], identity: AccountIdentity, query: HistoryQuery, clock: Clock
    ) -> None:
        self._read: Read[Row] = read
        self._identity = identity
        self._symbol = query.symbol
        self._clock = clock
        self._start = max(query.start, 0)
        self._end = min(query.end, LAST_S) + 1
        # The walk is at a second, exclusive, and at a place within it.
        self._high = self._end
        self._before: Cursor = (self._high * 1000, 0)
        if query.before is not None and query.before < self._before:
            self._go_to(query.before)
        self._window_s = FIRST_WINDOW_S
        # Between here and where the walk is, there are more rows than one call may select.
        self._crowded = self._end

    @property
    def over(self) -> bool:
        """Whether nothing is left."""
        return self._high <= self._start

    @property
    def share(self) -> float:
        """How much of the period lies behind, from 0 to 1."""
        return 1.0 if self.over else (self._end - self._high) / (self._end - self._start)

    async def rows(self, token: int, limit: int) -> tuple[Row, ...]:
        """The next rows, at most `limit`; none when a window holds none, or too many."""
        low = max(self._start, self._high - self._window_s)
        query = HistoryQuery(low, self._high, self._symbol, self._before, limit)
        # A single second is read whatever it holds.
        if self._high - low > 1:
            query = msgspec.structs.replace(query, most=MOST_ROWS)
        began = self._clock()
        try:
            page = await self._read(token, self._identity, query)
        except TooManyRows as many:
            share = min(MOST_ROWS / (2 * many.rows), CROWDED_SHARE)
            self._window_s = max(int((self._high - low) * share), 1)
            self._crowded = low
            return ()
        took_s = self._clock() - began
        if page.more:
            self._go_to(page.rows[-1].cursor)
        else:
            self._high = low
            self._before = (low * 1000, 0)
        self._window_s = self._next_window_s(took_s, empty=not page.rows)
        return page.rows

    def _go_to(self, row: Cursor) -> None:
        """Go on behind a row, in its second."""
        self._before = row
        self._high = row[0] // 1000 + 1

    def _next_window_s(self, took_s: float, *, empty: bool) -> int:
        # Where too many rows lie ahead, an empty window means only that they come later.
        fastest = 1.0 if empty and self._high > self._crowded else FASTEST_GROWTH
        growth = min(AIM_S / took_s, fastest) if took_s > 0 else fastest
        return min(max(int(self._window_s * growth), 1), LAST_S)
