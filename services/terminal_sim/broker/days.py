"""Days on a server's wall clock: when they begin, and which of them are for trading."""

from dataclasses import dataclass
from typing import Literal

from terminal_sim.market.clocks import WallClock
from terminal_sim.market.instruments import INSTRUMENTS

DAY_MS = 86_400_000
SATURDAY = 5
"""Monday is 0, as in :meth:`datetime.date.weekday`."""

# 1970-01-01 was a Thursday.
_THURSDAY = 3


def weekday(wall_ms: int) -> int:
    """Return the day of the week of a reading of a wall clock; Monday is 0."""
    return (wall_ms // DAY_MS + _THURSDAY) % 7


def instant_of(wall: WallClock, reading_ms: int) -> int:
    """Return the first UTC instant at which a wall clock shows a reading, or skips it.

    A reading that comes twice, because the clock was put back, has its first instant.
    """
    low, high = wall.bounds_ms(reading_ms, reading_ms)
    while low < high:
        middle = (low + high) // 2
        if wall.latest_ms(middle) < reading_ms:
            low = middle + 1
        else:
            high = middle
    return low


def end_of_day(wall: WallClock, reading_ms: int) -> int:
    """Return the UTC instant at which the day of a reading is over."""
    return instant_of(wall, (reading_ms // DAY_MS + 1) * DAY_MS)


@dataclass(frozen=True, slots=True)
class TradingHours:
    """When symbols can be traded.

    Attributes:
        days: ``weekdays``: only crypto is traded on Saturday and Sunday of the wall clock.
        wall: The server's wall clock.
    """

    days: Literal["all", "weekdays"]
    wall: WallClock

    def restricted(self, symbol: str) -> bool:
        """Tell whether there are times at which a symbol cannot be traded."""
        return self.days == "weekdays" and INSTRUMENTS[symbol].folder != "Crypto"

    def is_open(self, symbol: str, utc_ms: int) -> bool:
        """Tell whether a symbol can be traded at an instant.

        Raises:
            KeyError: No such symbol.
        """
        return not self.restricted(symbol) or weekday(self.wall.wall_ms(utc_ms)) < SATURDAY
