"""Bars of every timeframe: M1 bars grouped by the broker's wall clock.

A bar is the ticks whose wall-clock reading lies in its span, in the order they came. In the hour
after the clock was put back readings repeat, so a bar may hold two stretches of ticks; no reading
is lost, none counted twice, and opening times stay strictly ascending. A clock that is shifted
within a minute shifts its bars from the next minute on.
"""

import numpy as np

from terminal_sim.catalogue import catalogue
from terminal_sim.market.clocks import WallClock
from terminal_sim.market.instruments import INSTRUMENTS
from terminal_sim.market.long_bars import LongBars
from terminal_sim.market.prices import MINUTE_MS, Market, Table
from terminal_sim.market.sums import Sums, merged, opening
from terminal_sim.market.timeframes import MONTH, Span, moved, opened, opens

FIRST_S = 946_684_800
"""No bar opens before 2000-01-01 on the broker's clock."""

# M1 bars aggregated at a time: their arrays stay below the size that malloc maps afresh each time.
_BLOCK = 8192
# From this length on bars are searched for rather than added up from M1.
_SEARCHED_S = 3600


class Bars:
    """Bars of one market on one server's clock.

    Args:
        market: The market.
        wall: The server's wall clock.
    """

    def __init__(self, market: Market, wall: WallClock) -> None:
        self.market = market
        # A minute belongs to one bar: here the clock is shifted when the next one begins.
        shifts = tuple((-(-at_ms // MINUTE_MS) * MINUTE_MS, by_ms) for at_ms, by_ms in wall.shifts)
        self.wall = wall.shifted(shifts) if shifts else wall
        self._long = LongBars(market, self.wall)

    def between(self, symbol: str, length: Span, first_s: int, last_s: int, now_ms: int) -> Table:
        """Return the bars whose opening time lies in ``[first_s, last_s]`` (wall seconds).

        Bars after ``now_ms`` (UTC) do not exist yet; the last may still be forming.

        Raises:
            KeyError: No such symbol.
        """
        first = max(opened(length, max(first_s, FIRST_S)), FIRST_S)
        last = min(last_s, self.wall.latest_ms(now_ms) // 1000)
        if last < first:
            return np.empty(0, catalogue().rates())
        stop = moved(length, opened(length, last), 1)
        sums = self._gather(symbol, length, first, stop, now_ms)
        keep = (sums.open_s >= max(first_s, first)) & (sums.open_s <= last)
        return _table(symbol, Sums(*(column[keep] for column in sums)))

    def latest(self, symbol: str, length: Span, skip: int, count: int, now_ms: int) -> Table:
        """Return ``count`` bars, of which the last has ``skip`` newer ones after it.

        Raises:
            KeyError: No such symbol.
        """
        newest = opened(length, self.wall.latest_ms(now_ms) // 1000)
        last = self._back(length, newest, skip)
        return self.between(symbol, length, self._back(length, last, count - 1), last, now_ms)

    def until(self, symbol: str, length: Span, last_s: int, count: int, now_ms: int) -> Table:
        """Return up to ``count`` bars that open at or before ``last_s`` (wall seconds).

        Raises:
            KeyError: No such symbol.
        """
        newest = self.wall.latest_ms(now_ms) // 1000
        last = opened(length, min(max(last_s, FIRST_S - 1), newest))
        missing = self._skipped(length, last, moved(length, last, 1))
        first = self._back(length, last, count - 1 + missing)
        return self.between(symbol, length, first, last_s, now_ms)

    def _back(self, length: Span, open_s: int, count: int) -> int:
        """Walk back over bars that exist; spans the clock skipped have none."""
        at, found = open_s, 0
        while found < count and at > FIRST_S:
            start = max(moved(length, at, found - count), 0)
            found += count - found - self._skipped(length, start, at)
            at = start
        return at

    def _skipped(self, length: Span, first_s: int, stop_s: int) -> int:
        """Return how many bars that would open in ``[first_s, stop_s)`` have no ticks at all."""
        if length == MONTH:
            return 0
        count = 0
        for start, end in self.wall.skipped_ms(first_s * 1000, stop_s * 1000):
            first = max(opened(length, -(-start // 1000) + length - 1), first_s)
            last = min(opened(length, end // 1000), stop_s)
            count += max(0, last - first) // length
        return count

    def _gather(self, symbol: str, length: Span, first_s: int, stop_s: int, now_ms: int) -> Sums:
        low_ms, high_ms = self.wall.bounds_ms(first_s * 1000, stop_s * 1000)
        present = now_ms // MINUTE_MS
        first, stop = low_ms // MINUTE_MS, min(-(-high_ms // MINUTE_MS), present)
        parts = []
        if first < stop and (length == MONTH or length >= _SEARCHED_S):
            parts += self._long.holding(symbol, length, first, stop)
        elif first < stop:
            parts += self._added(symbol, length, first, stop)
        if high_ms > present * MINUTE_MS:
            parts.append(self._forming(symbol, now_ms))
        joined = Sums(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
        return merged(joined._replace(open_s=opens(length, joined.open_s)))

    def _added(self, symbol: str, length: Span, first: int, stop: int) -> list[Sums]:
        """Return the bars of the minutes ``[first, stop)``, added up from M1 bars."""
        parts = []
        for start in range(first, stop, _BLOCK):
            minute = np.arange(start, min(stop, start + _BLOCK), dtype=np.int64)
            bars = self.market.minutes(symbol, minute)
            wall_s = self.wall.walls_ms(minute * MINUTE_MS) // 1000
            parts.append(merged(opening(opens(length, wall_s), bars)))
        return parts

    def _forming(self, symbol: str, now_ms: int) -> Sums:
        """Return the part of the present minute that has happened, under its M1 opening time."""
        start_ms = now_ms - now_ms % MINUTE_MS
        ticks = self.market.ticks(symbol, start_ms, now_ms + 1)
        bids = np.rint(ticks["bid"] * INSTRUMENTS[symbol].scale).astype(np.int64)
        minute = self.market.minutes(symbol, np.array([now_ms // MINUTE_MS], np.int64))
        return Sums(
            open_s=np.array([self.wall.wall_ms(start_ms) // 1000], np.int64),
            open=bids[:1],
            high=bids.max(keepdims=True),
            low=bids.min(keepdims=True),
            close=bids[-1:],
            ticks=np.array([bids.size], np.int64),
            spread=minute.spread,
        )


def _table(symbol: str, sums: Sums) -> Table:
    scale = INSTRUMENTS[symbol].scale
    table = np.zeros(sums.open_s.size, catalogue().rates())
    table["time"] = sums.open_s
    for name, column in zip(("open", "high", "low", "close"), sums[1:5], strict=True):
        table[name] = column / scale
    table["tick_volume"] = sums.ticks
    table["spread"] = sums.spread
    return table
