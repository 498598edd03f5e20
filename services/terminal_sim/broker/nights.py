"""The rollovers of a server's wall clock, many at a time.

The same instants and charges as :mod:`terminal_sim.broker.rollover` gives one by one.
"""

from bisect import bisect_right

import numpy as np

from terminal_sim.broker.days import DAY_MS, SATURDAY
from terminal_sim.broker.rollover import WEDNESDAY
from terminal_sim.broker.trades import Nights
from terminal_sim.market.clocks import WallClock
from terminal_sim.market.noise import Ints

# Days looked ahead at a time when the next rollover is asked for.
_AHEAD = 400
# 1970-01-01 was a Thursday.
_THURSDAY = 3


def weekdays(wall_ms: Ints) -> Ints:
    """Return the days of the week of readings of a wall clock; Monday is 0."""
    return (wall_ms // DAY_MS + _THURSDAY) % 7


def nights(wall: WallClock, first_ms: int, last_ms: int) -> Nights:
    """Return the rollovers in ``(first_ms, last_ms]`` (UTC)."""
    day, last_day = wall.latest_ms(first_ms) // DAY_MS, wall.latest_ms(last_ms) // DAY_MS
    at = _instants(wall, np.arange(day + 1, last_day + 1, dtype=np.int64) * DAY_MS)
    ended = weekdays(wall.latests_ms(at - 1))
    count = np.where(ended >= SATURDAY, 0, np.where(ended == WEDNESDAY, 3, 1))
    return Nights(at, count.astype(np.int64))


class Midnights:
    """Tells when the next day begins on a wall clock.

    Args:
        wall: The wall clock.
    """

    def __init__(self, wall: WallClock) -> None:
        self._wall = wall
        self._first_ms = 0
        self._known: list[int] = []

    def after(self, utc_ms: int) -> int:
        """Return the first rollover after a UTC instant."""
        if not self._known or not self._first_ms <= utc_ms < self._known[-1]:
            self._first_ms = utc_ms
            self._known = nights(self._wall, utc_ms, utc_ms + _AHEAD * DAY_MS).at.tolist()
        return self._known[bisect_right(self._known, utc_ms)]


def _instants(wall: WallClock, reading_ms: Ints) -> Ints:
    """Return the first UTC instants at which the wall clock shows, or skips, each reading."""
    low, high = (reading_ms + shift for shift in wall.bounds_ms(0, 0))
    while np.any(low < high):
        middle = (low + high) // 2
        early = wall.latests_ms(middle) < reading_ms
        low, high = np.where(early, middle + 1, low), np.where(early, high, middle)
    return low
