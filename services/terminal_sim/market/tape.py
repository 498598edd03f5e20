"""The newest tick of each symbol, read from the market minute by minute."""

from bisect import bisect_right
from typing import NamedTuple

from terminal_sim.market.prices import MINUTE_MS, Market


class Quote(NamedTuple):
    """A tick: UTC epoch milliseconds and prices."""

    time_msc: int
    bid: float
    ask: float


class _Minute(NamedTuple):
    number: int
    times: list[int]
    bids: list[float]
    asks: list[float]


class Tape:
    """Keeps the present minute's ticks of the symbols somebody looks at.

    Args:
        market: Where the ticks come from.
    """

    def __init__(self, market: Market) -> None:
        self.market = market
        self._minutes: dict[str, _Minute] = {}

    def at(self, symbol: str, now_ms: int) -> Quote:
        """Return the newest tick at or before an instant (UTC epoch milliseconds).

        Raises:
            KeyError: No such symbol.
        """
        number = now_ms // MINUTE_MS
        minute = self._minutes.get(symbol)
        if minute is None or minute.number != number:
            minute = self._minutes[symbol] = self._read(symbol, number)
        index = bisect_right(minute.times, now_ms) - 1
        return Quote(minute.times[index], minute.bids[index], minute.asks[index])

    def _read(self, symbol: str, number: int) -> _Minute:
        ticks = self.market.ticks(symbol, number * MINUTE_MS, (number + 1) * MINUTE_MS)
        return _Minute(
            number, ticks["time_msc"].tolist(), ticks["bid"].tolist(), ticks["ask"].tolist()
        )
