"""Depth of market: what is offered around a tick, another pure function of the market.

Only the best bid and ask come from the tick; the levels behind them are hashed from its time, so
every process that knows the seed sees the same depth.
"""

from typing import NamedTuple

import numpy as np

from terminal_sim.catalogue import catalogue
from terminal_sim.market.instruments import INSTRUMENTS, Instrument
from terminal_sim.market.noise import Floats, Ints, bits, key, words
from terminal_sim.market.prices import Market
from terminal_sim.market.tape import Quote

LEVELS = 8
"""Levels of each side."""

# Room for the index of a level in the hash index of (tick, side, level).
_LEVEL_BITS, _SIDE_BITS = 4, 1
# Lots at the best price, at least, of an instrument that is traded in up to 100 lots at once.
_BEST_LOTS = 20
# By how much volume grows from level to level: liquidity lies behind the best price.
_GROWTH = 1.4


class Level(NamedTuple):
    """A price at which something is offered.

    Attributes:
        type: ``BOOK_TYPE_SELL`` or ``BOOK_TYPE_BUY``.
        price: In the profit currency.
        volume: Whole lots.
    """

    type: int
    price: float
    volume: float


def levels(market: Market, symbol: str, quote: Quote) -> tuple[Level, ...]:
    """Return the depth at a tick, highest price first: offers to sell, then bids, 8 of each.

    The last sell offer is the ask of the tick, the first bid its bid.

    Raises:
        KeyError: No such symbol.
    """
    instrument = INSTRUMENTS[symbol]
    stream = key(market.seed, symbol, "depth")
    constants = catalogue().constants
    sides = []
    for side, best, sign in ((0, quote.ask, 1), (1, quote.bid, -1)):
        index = (quote.time_msc << _SIDE_BITS) + side << _LEVEL_BITS
        hashed = words(stream, index + np.arange(LEVELS, dtype=np.int64))
        away = _away(instrument, bits(hashed, 0, 24))
        price = (round(best * instrument.scale) + sign * away) / instrument.scale
        sides.append((price.tolist(), _lots(instrument, bits(hashed, 24, 24)).tolist()))
    (asks, sold), (bids, bought) = sides
    sell, buy = constants["BOOK_TYPE_SELL"], constants["BOOK_TYPE_BUY"]
    offers = [Level(sell, price, lots) for price, lots in zip(asks, sold, strict=True)]
    wanted = [Level(buy, price, lots) for price, lots in zip(bids, bought, strict=True)]
    return (*reversed(offers), *wanted)


def _away(instrument: Instrument, hashed: Floats) -> Ints:
    """Return how many points the levels lie behind the best price, which is the first."""
    steps = 1 + (hashed * max(2, instrument.spread // 2)).astype(np.int64)
    away: Ints = np.cumsum(steps) - steps[0]
    return away


def _lots(instrument: Instrument, hashed: Floats) -> Floats:
    best = _BEST_LOTS * instrument.volumes[1] / 100.0
    lots: Floats = np.rint(best * _GROWTH ** np.arange(LEVELS) * (1.0 + hashed))
    return lots
