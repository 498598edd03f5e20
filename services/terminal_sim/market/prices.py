"""The market: one pure function of (seed, symbol, time), in UTC.

A minute is decided first: its open, close, extremes and number of ticks. The ticks inside it are
drawn between those, so bars and ticks agree by construction, and every process that knows the
seed sees the same market without talking to another.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from terminal_sim.market.instruments import INSTRUMENTS, Instrument
from terminal_sim.market.minutes import MinuteBars, Minutes
from terminal_sim.market.noise import Floats, Ints, bits, key, units, words

Table: TypeAlias = npt.NDArray[np.void]

MINUTE_MS = 60_000
QUOTES = np.dtype([("time_msc", "<i8"), ("bid", "<f8"), ("ask", "<f8")])
"""Columns of :meth:`Market.ticks`: UTC epoch milliseconds and prices."""

# Room for the index of a tick in the hash index of (minute, tick).
_TICK_BITS = 9
# Ticks keep a tenth of their slot free, so that two never share a millisecond.
_SLOT = 0.9
# Share of the minute's range by which a tick strays from the line between the extremes.
_STRAY = 0.35
# Minutes turned into ticks at a time: bounds the memory of a long tick request.
_BATCH = 512


@dataclass(frozen=True, slots=True)
class Draw:
    """Ticks: one item a tick; bid and spread in points, time in milliseconds of the minute."""

    offset: Ints
    bid: Ints
    spread: Ints


class Market:
    """The market of one seed.

    Args:
        seed: Another seed is another history.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._minutes = {name: MinuteBars(seed, each) for name, each in INSTRUMENTS.items()}

    def minutes(self, symbol: str, minute: Ints) -> Minutes:
        """Return the M1 bars of any UTC epoch minutes, in the order asked for.

        Raises:
            KeyError: No such symbol.
        """
        return self._minutes[symbol].at(minute)

    def bars(self, symbol: str, edges: Ints) -> Minutes:
        """Return the bars between consecutive UTC epoch minutes, which must ascend.

        They are what :meth:`minutes` adds up to, found without visiting every minute.

        Raises:
            KeyError: No such symbol.
        """
        return self._minutes[symbol].between(edges)

    def ticks(self, symbol: str, start_ms: int, end_ms: int) -> Table:
        """Return the ticks with ``start_ms <= time_msc < end_ms`` (UTC), as ``QUOTES``.

        Raises:
            KeyError: No such symbol.
        """
        first, stop = start_ms // MINUTE_MS, -(-end_ms // MINUTE_MS)
        parts = [np.empty(0, QUOTES)]
        for at in range(first, stop, _BATCH):
            minute = np.arange(at, min(stop, at + _BATCH), dtype=np.int64)
            part = self._grid(symbol, minute)
            inside = (part["time_msc"] >= start_ms) & (part["time_msc"] < end_ms)
            parts.append(part[inside])
        return np.concatenate(parts)

    def quotes(self, symbol: str, at_ms: Ints) -> Table:
        """Return, for each UTC instant, the newest tick at or before it, as ``QUOTES``.

        Raises:
            KeyError: No such symbol.
        """
        wanted, where = np.unique(at_ms // MINUTE_MS, return_inverse=True)
        bars = self.minutes(symbol, wanted).take(where)
        offset = at_ms - bars.minute * MINUTE_MS
        index = np.minimum((offset + 1) * bars.ticks // MINUTE_MS, bars.ticks - 1)
        index = np.where(self._draw(symbol, bars, index).offset > offset, index - 1, index)
        return _priced(INSTRUMENTS[symbol], bars, self._draw(symbol, bars, index))

    def _grid(self, symbol: str, minute: Ints) -> Table:
        bars = self.minutes(symbol, minute)
        where = np.repeat(np.arange(minute.size), bars.ticks)
        starts = np.cumsum(bars.ticks) - bars.ticks
        index = np.arange(where.size, dtype=np.int64) - starts[where]
        bars = bars.take(where)
        return _priced(INSTRUMENTS[symbol], bars, self._draw(symbol, bars, index))

    def _draw(self, symbol: str, bars: Minutes, index: Ints) -> Draw:
        hashed = words(key(self.seed, symbol, "tick"), (bars.minute << _TICK_BITS) + index)
        moment = (index + _SLOT * bits(hashed, 0, 20)) * MINUTE_MS / bars.ticks
        first = index == 0
        extra = bits(hashed, 20, 12) ** 2 * (INSTRUMENTS[symbol].spread_extra + 1)
        return Draw(
            offset=np.where(first, 0, moment.astype(np.int64)),
            bid=self._bid(symbol, bars, index, bits(hashed, 32, 24)),
            spread=bars.spread + np.where(first, 0, extra.astype(np.int64)),
        )

    def _bid(self, symbol: str, bars: Minutes, index: Ints, stray: Floats) -> Ints:
        top, bottom = self._extremes(symbol, bars)
        peak_first = top < bottom
        one, two = np.minimum(top, bottom), np.maximum(top, bottom)
        one_bid = np.where(peak_first, bars.high, bars.low)
        two_bid = np.where(peak_first, bars.low, bars.high)
        last = bars.ticks - 1
        line = np.where(
            index < one,
            _line(index, bars.open, one_bid, one),
            np.where(
                index < two,
                _line(index - one, one_bid, two_bid, two - one),
                _line(index - two, two_bid, bars.close, last - two),
            ),
        )
        line += (stray - 0.5) * _STRAY * (bars.high - bars.low)
        bid = np.clip(np.rint(line).astype(np.int64), bars.low, bars.high)
        bid = np.where(index == one, one_bid, np.where(index == two, two_bid, bid))
        return np.where(index == 0, bars.open, np.where(index == last, bars.close, bid))

    def _extremes(self, symbol: str, bars: Minutes) -> tuple[Ints, Ints]:
        """Return which tick carries the high and which the low: never the first or the last."""
        inner = bars.ticks - 2
        top = (units(key(self.seed, symbol, "top"), bars.minute) * inner).astype(np.int64)
        step = (units(key(self.seed, symbol, "bottom"), bars.minute) * (inner - 1)).astype(np.int64)
        return 1 + top, 1 + (top + 1 + step) % inner


def _line(step: Ints, start: Ints, end: Ints, length: Ints) -> Floats:
    slope: Floats = start + (end - start) * (step / length)
    return slope


def _priced(instrument: Instrument, bars: Minutes, draw: Draw) -> Table:
    quotes = np.empty(draw.bid.size, QUOTES)
    quotes["time_msc"] = bars.minute * MINUTE_MS + draw.offset
    quotes["bid"] = draw.bid / instrument.scale
    quotes["ask"] = (draw.bid + draw.spread) / instrument.scale
    return quotes
