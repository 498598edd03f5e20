"""Which tick fills a pending order or hits a stop first: exact to the tick, over any span."""

from bisect import bisect_right
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from math import inf
from typing import Literal, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from terminal_sim.broker.codes import (
    ORDER_TYPE_BUY_LIMIT,
    ORDER_TYPE_BUY_STOP,
    ORDER_TYPE_SELL_LIMIT,
    ORDER_TYPE_SELL_STOP,
)
from terminal_sim.broker.days import SATURDAY, TradingHours, weekday
from terminal_sim.broker.state import AccountState
from terminal_sim.market.instruments import INSTRUMENTS
from terminal_sim.market.prices import MINUTE_MS, Market

# Bars looked at at a time when long spans are searched: about three days.
_BLOCK = 4096

Kind = Literal["order", "sl", "tp"]


@dataclass(frozen=True, slots=True)
class Trigger:
    """Something whose price has come.

    Attributes:
        at_ms: Time of the tick (UTC epoch milliseconds).
        ticket: Of the order or position.
        symbol: Symbol.
        kind: ``order``: it is to be filled; ``sl``, ``tp``: the position is to be closed.
        bid: Of the tick.
        ask: Of the tick.
    """

    at_ms: int
    ticket: int
    symbol: str
    kind: Kind
    bid: float
    ask: float


class _Level(NamedTuple):
    """A price to wait for; ``above``: it has come when the bid (or ask) is there or higher."""

    ticket: int
    kind: Kind
    of_ask: bool
    above: bool
    price: float
    expires_ms: int

    def hit(self, at_ms: int, bid: float, ask: float) -> bool:
        if self.expires_ms and at_ms >= self.expires_ms:
            return False
        price = ask if self.of_ask else bid
        return price >= self.price if self.above else price <= self.price


@dataclass(frozen=True, slots=True)
class _Watch:
    """A symbol's levels by ticket, and the nearest in each direction."""

    symbol: str
    levels: tuple[_Level, ...]
    bid_under: float
    bid_over: float
    ask_under: float
    ask_over: float

    def possible(self, low: float, high: float, ask_low: float, ask_high: float) -> bool:
        return (
            low <= self.bid_under
            or high >= self.bid_over
            or ask_low <= self.ask_under
            or ask_high >= self.ask_over
        )


@dataclass(frozen=True, slots=True)
class _Minute:
    number: int
    extremes: tuple[float, float, float, float]
    times: list[int]
    bids: list[float]
    asks: list[float]


class Watcher:
    """Looks for triggers; keeps each account's levels and each symbol's last minutes.

    Args:
        market: Where the ticks come from.
        hours: When symbols can be traded; None: always. Nothing triggers while they cannot.
    """

    def __init__(self, market: Market, hours: TradingHours | None = None) -> None:
        self.market = market
        self.hours = hours
        self._watches: WeakKeyDictionary[AccountState, tuple[int, tuple[_Watch, ...]]] = (
            WeakKeyDictionary()
        )
        self._minutes: dict[tuple[str, int], _Minute] = {}

    def next(
        self, state: AccountState, since_ms: int, until_ms: int, halted: Container[str] = ()
    ) -> Trigger | None:
        """Return the first trigger in ``(since_ms, until_ms]``; ties go to the lowest ticket.

        Of a position whose both stops are hit by one tick, the stop loss counts. ``halted`` names
        symbols in which nothing triggers. One tick may hit several things: after a trigger was
        carried out, search again from a millisecond before its tick.
        """
        known = self._watches.get(state)
        if known is None or known[0] != state.version:
            known = state.version, _watches(state)
            self._watches[state] = known
        best: Trigger | None = None
        for watch in known[1]:
            if watch.symbol in halted:
                continue
            found = self._first(watch, since_ms, best.at_ms if best else until_ms)
            if found and (best is None or (found.at_ms, found.ticket) < (best.at_ms, best.ticket)):
                best = found
        return best

    def _first(self, watch: _Watch, since_ms: int, until_ms: int) -> Trigger | None:
        for number in self._candidates(watch, (since_ms + 1) // MINUTE_MS, until_ms // MINUTE_MS):
            found = self._within(watch, number, since_ms, until_ms)
            if found:
                return found
        return None

    def _candidates(self, watch: _Watch, first: int, last: int) -> Iterable[int]:
        """Return the minutes whose bars reach a level, or all when there are only a few."""
        return range(first, last + 1) if last - first <= 1 else self._sieved(watch, first, last)

    def _sieved(self, watch: _Watch, first: int, last: int) -> Iterator[int]:
        instrument = INSTRUMENTS[watch.symbol]
        scale, extra = instrument.scale, instrument.spread_extra
        for start in range(first, last + 1, _BLOCK):
            minute = np.arange(start, min(start + _BLOCK, last + 1), dtype=np.int64)
            bars = self.market.minutes(watch.symbol, minute)
            near = bars.low / scale <= watch.bid_under
            near |= bars.high / scale >= watch.bid_over
            near |= (bars.low + bars.spread) / scale <= watch.ask_under
            near |= (bars.high + bars.spread + extra) / scale >= watch.ask_over
            yield from (n for n in minute[near].tolist() if self._traded(watch.symbol, n))

    def _traded(self, symbol: str, number: int) -> bool:
        """Tell whether a symbol can be traded at the beginning or at the end of a minute."""
        if self.hours is None or not self.hours.restricted(symbol):
            return True
        first = number * MINUTE_MS
        wall = self.hours.wall
        return min(weekday(wall.wall_ms(first)), weekday(wall.wall_ms(first + MINUTE_MS - 1))) < (
            SATURDAY
        )

    def _within(self, watch: _Watch, number: int, since_ms: int, until_ms: int) -> Trigger | None:
        minute = self._minute(watch.symbol, number)
        if not watch.possible(*minute.extremes):
            return None
        times, symbol = minute.times, watch.symbol
        for index in range(bisect_right(times, since_ms), bisect_right(times, until_ms)):
            at_ms, bid, ask = times[index], minute.bids[index], minute.asks[index]
            if not watch.possible(bid, bid, ask, ask):
                continue
            if self.hours and not self.hours.is_open(symbol, at_ms):
                continue
            for level in watch.levels:
                if level.hit(at_ms, bid, ask):
                    return Trigger(at_ms, level.ticket, symbol, level.kind, bid, ask)
        return None

    def _minute(self, symbol: str, number: int) -> _Minute:
        # Two minutes of each symbol: a step of all accounts may lie across the turn of a minute.
        place = symbol, number % 2
        known = self._minutes.get(place)
        if known is None or known.number != number:
            known = self._minutes[place] = _read(self.market, symbol, number)
        return known


def next_trigger(
    state: AccountState,
    market: Market,
    since_ms: int,
    until_ms: int,
    hours: TradingHours | None = None,
) -> Trigger | None:
    """Return the first trigger of an account once; see :meth:`Watcher.next`."""
    return Watcher(market, hours).next(state, since_ms, until_ms)


def _read(market: Market, symbol: str, number: int) -> _Minute:
    ticks = market.ticks(symbol, number * MINUTE_MS, (number + 1) * MINUTE_MS)
    bids, asks = ticks["bid"].tolist(), ticks["ask"].tolist()
    extremes = min(bids), max(bids), min(asks), max(asks)
    return _Minute(number, extremes, ticks["time_msc"].tolist(), bids, asks)


def _watches(state: AccountState) -> tuple[_Watch, ...]:
    by_symbol: dict[str, list[_Level]] = {}
    for position in state.positions.values():
        short = position.sign < 0
        if position.sl:
            level = _Level(position.ticket, "sl", short, short, position.sl, 0)
            by_symbol.setdefault(position.symbol, []).append(level)
        if position.tp:
            level = _Level(position.ticket, "tp", short, not short, position.tp, 0)
            by_symbol.setdefault(position.symbol, []).append(level)
    for order in state.orders.values():
        of_ask = order.type in {ORDER_TYPE_BUY_LIMIT, ORDER_TYPE_BUY_STOP}
        above = order.type in {ORDER_TYPE_SELL_LIMIT, ORDER_TYPE_BUY_STOP}
        if of_ask or order.type in {ORDER_TYPE_SELL_LIMIT, ORDER_TYPE_SELL_STOP}:
            level = _Level(order.ticket, "order", of_ask, above, order.price_open, order.expires_ms)
            by_symbol.setdefault(order.symbol, []).append(level)
    return tuple(_watch(symbol, levels) for symbol, levels in sorted(by_symbol.items()))


def _watch(symbol: str, levels: list[_Level]) -> _Watch:
    # The sort is stable and a position's stop loss was put in first.
    levels.sort(key=lambda level: level.ticket)
    return _Watch(
        symbol=symbol,
        levels=tuple(levels),
        bid_under=max((x.price for x in levels if not x.of_ask and not x.above), default=-inf),
        bid_over=min((x.price for x in levels if not x.of_ask and x.above), default=inf),
        ask_under=max((x.price for x in levels if x.of_ask and not x.above), default=-inf),
        ask_over=min((x.price for x in levels if x.of_ask and x.above), default=inf),
    )
