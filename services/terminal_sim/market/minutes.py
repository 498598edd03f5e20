"""M1 bars of one symbol, decided before any of their ticks, and what spans of them add up to."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from terminal_sim.market.extremes import extremes, smallest
from terminal_sim.market.instruments import Instrument
from terminal_sim.market.noise import Ints, Words, bits, key, words
from terminal_sim.market.paths import MINUTES_A_DAY, Path

# An instrument ticks 250 times a minute, give or take up to 50: four or five times a second.
_TICKS, _SPARE_TICKS = 250, 50


@dataclass(frozen=True, slots=True)
class Minutes:
    """Bars: one item a minute, or a span of minutes; prices in points.

    Attributes:
        minute: UTC epoch minutes, the first of each span.
        open: First bid; also the close of the minute before.
        high: Highest bid.
        low: Lowest bid.
        close: Last bid.
        ticks: Number of ticks.
        spread: Smallest spread, which is that of the first tick.
    """

    minute: Ints
    open: Ints
    high: Ints
    low: Ints
    close: Ints
    ticks: Ints
    spread: Ints

    def take(self, where: npt.NDArray[Any]) -> "Minutes":
        """Return some of the items, by their indices."""
        return Minutes(
            self.minute[where],
            self.open[where],
            self.high[where],
            self.low[where],
            self.close[where],
            self.ticks[where],
            self.spread[where],
        )


class MinuteBars:
    """The M1 bars of one symbol.

    Args:
        seed: Of the market.
        instrument: Whose bars.
    """

    def __init__(self, seed: int, instrument: Instrument) -> None:
        self._instrument = instrument
        self._path = Path(seed, instrument)
        self._stream = key(seed, instrument.name, "minute")
        # Points, exclusive, that a minute's extremes stand out of its open and close.
        move = 2.0 * instrument.daily * instrument.price * instrument.scale
        self._wick = move / math.sqrt(MINUTES_A_DAY)

    def at(self, minute: Ints) -> Minutes:
        """Return the M1 bars of any UTC epoch minutes, in the order asked for."""
        opened = self._path.at(minute)
        hashed = words(self._stream, minute)
        if minute.size > 1 and bool(np.all(np.diff(minute) == 1)):
            closed = np.concatenate((opened[1:], self._path.at(minute[-1:] + 1)))
            after = np.concatenate((hashed[1:], words(self._stream, minute[-1:] + 1)))
        else:
            closed = self._path.at(minute + 1)
            after = words(self._stream, minute + 1)
        high, low = self._wicks(hashed, opened, closed)
        return Minutes(
            minute=minute,
            open=opened,
            high=high,
            low=low,
            close=closed,
            ticks=_TICKS + _spare(after) - _spare(hashed),
            spread=self._spread(hashed),
        )

    def between(self, edges: Ints) -> Minutes:
        """Return the bars between consecutive UTC epoch minutes, which must ascend.

        They are what :meth:`at` adds up to, found without visiting every minute.
        """

        def wicks(minute: Ints, opened: Ints, closed: Ints) -> tuple[Ints, Ints]:
            return self._wicks(words(self._stream, minute), opened, closed)

        def spread(minute: Ints) -> Ints:
            return self._spread(words(self._stream, minute))

        high, low = extremes(self._path, edges, int(self._wick), wicks)
        price = self._path.at(edges)
        return Minutes(
            minute=edges[:-1],
            open=price[:-1],
            high=high,
            low=low,
            close=price[1:],
            ticks=_TICKS * np.diff(edges) + np.diff(_spare(words(self._stream, edges))),
            spread=smallest(spread, edges, self._instrument.spread),
        )

    def _wicks(self, hashed: Words, opened: Ints, closed: Ints) -> tuple[Ints, Ints]:
        above, below = bits(hashed, 0, 20), bits(hashed, 20, 20)
        return (
            np.maximum(opened, closed) + (above * above * self._wick).astype(np.int64),
            np.minimum(opened, closed) - (below * below * self._wick).astype(np.int64),
        )

    def _spread(self, hashed: Words) -> Ints:
        extra = bits(hashed, 52, 12) * self._instrument.spread_extra
        spread: Ints = self._instrument.spread + extra.astype(np.int64)
        return spread


def _spare(hashed: Words) -> Ints:
    """Return how many ticks a minute leaves to the one before it.

    A minute has 250, the spare ones of its successor, and not its own: so those of a whole bar
    add up from its two ends.
    """
    return (bits(hashed, 40, 12) * (_SPARE_TICKS + 1)).astype(np.int64)
