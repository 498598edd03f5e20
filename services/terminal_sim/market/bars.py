"""Bars of every timeframe: M1 bars grouped by the broker's wall clock.

A bar is the ticks whose wall-clock reading lies in its span, in the order they came. In the hour
after the clock was put back readings repeat, so a bar may hold two stretches of ticks; no reading
is lost, none counted twice, and opening times stay strictly ascending.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from terminal_sim.catalogue import catalogue
from terminal_sim.market.clocks import WallClock
from terminal_sim.market.instruments import INSTRUMENTS
from terminal_sim.market.noise import Ints
from terminal_sim.market.prices import MINUTE_MS, Market, Minutes, Table
from terminal_sim.market.timeframes import DAY_S, MONTH, Span, moved, opened, opens

FIRST_S = 946_684_800
"""No bar opens before 2000-01-01 on the broker's clock."""

# M1 bars aggregated at a time: their arrays stay below the size that malloc maps afresh each time.
_BLOCK = 8192
_HOUR_S = 3600
# Aggregated blocks kept per process: 8 kB each by hours, 1 kB by days.
_HOUR_BLOCKS, _DAY_BLOCKS = 1024, 8192


class Sums(NamedTuple):
    """Bars in points, one item a bar; ``open_s`` may repeat until :func:`merged`."""

    open_s: Ints
    open: Ints
    high: Ints
    low: Ints
    close: Ints
    ticks: Ints
    spread: Ints


class Bars:
    """Bars of one market on one server's clock.

    Args:
        market: The market.
        wall: The server's wall clock.
    """

    def __init__(self, market: Market, wall: WallClock) -> None:
        self.market = market
        self.wall = wall
        self._hours = lru_cache(_HOUR_BLOCKS)(self._hour_block)
        self._days = lru_cache(_DAY_BLOCKS)(self._day_block)

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
        if length == MONTH or length > _HOUR_S:
            return 0
        spans = self.wall.skipped_ms(first_s * 1000, stop_s * 1000)
        return sum(
            (min(end // 1000, stop_s) - max(start // 1000, first_s)) // length
            for start, end in spans
        )

    def _gather(self, symbol: str, length: Span, first_s: int, stop_s: int, now_ms: int) -> Sums:
        low_ms, high_ms = self.wall.bounds_ms(first_s * 1000, stop_s * 1000)
        present = now_ms // MINUTE_MS
        first, stop = low_ms // MINUTE_MS, min(-(-high_ms // MINUTE_MS), present)
        parts = []
        for number in range(first // _BLOCK, -(-stop // _BLOCK)):
            start, end = max(first, number * _BLOCK), min(stop, (number + 1) * _BLOCK)
            if start < end:
                parts.append(self._part(symbol, length, start, end))
        if high_ms > present * MINUTE_MS:
            parts.append(self._forming(symbol, now_ms))
        joined = Sums(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
        return merged(joined._replace(open_s=opens(length, joined.open_s)))

    def _part(self, symbol: str, length: Span, start: int, end: int) -> Sums:
        """Return the minutes ``[start, end)`` of one block, from the cache when it is whole."""
        if end - start < _BLOCK or 0 < length < _HOUR_S:
            return self._sums(symbol, length, start, end)
        if 0 < length < DAY_S:
            return self._hours(symbol, start)
        return self._days(symbol, start)

    def _hour_block(self, symbol: str, start: int) -> Sums:
        return self._sums(symbol, _HOUR_S, start, start + _BLOCK)

    def _day_block(self, symbol: str, start: int) -> Sums:
        return self._sums(symbol, DAY_S, start, start + _BLOCK)

    def _sums(self, symbol: str, length: Span, start: int, end: int) -> Sums:
        minutes = self.market.minutes(symbol, np.arange(start, end, dtype=np.int64))
        wall_s = self.wall.walls_ms(minutes.minute * MINUTE_MS) // 1000
        return merged(_sums(opens(length, wall_s), minutes))

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


def merged(sums: Sums) -> Sums:
    """Return one bar for each opening time, ascending; rows of a bar keep their order."""
    if not sums.open_s.size:
        return sums
    if np.any(np.diff(sums.open_s) < 0):
        order = np.argsort(sums.open_s, kind="stable")
        sums = Sums(*(column[order] for column in sums))
    fresh: npt.NDArray[np.bool_] = np.diff(sums.open_s, prepend=sums.open_s[0] - 1) > 0
    starts = np.flatnonzero(fresh)
    ends = np.append(starts[1:], sums.open_s.size) - 1
    return Sums(
        open_s=sums.open_s[starts],
        open=sums.open[starts],
        high=np.maximum.reduceat(sums.high, starts),
        low=np.minimum.reduceat(sums.low, starts),
        close=sums.close[ends],
        ticks=np.add.reduceat(sums.ticks, starts),
        spread=np.minimum.reduceat(sums.spread, starts),
    )


def _sums(open_s: Ints, bars: Minutes) -> Sums:
    return Sums(open_s, bars.open, bars.high, bars.low, bars.close, bars.ticks, bars.spread)


def _table(symbol: str, sums: Sums) -> Table:
    scale = INSTRUMENTS[symbol].scale
    table = np.zeros(sums.open_s.size, catalogue().rates())
    table["time"] = sums.open_s
    for name, column in zip(("open", "high", "low", "close"), sums[1:5], strict=True):
        table[name] = column / scale
    table["tick_volume"] = sums.ticks
    table["spread"] = sums.spread
    return table
