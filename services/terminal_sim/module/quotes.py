"""symbols_*, symbol_*, copy_rates_* and copy_ticks_*."""

import numpy as np

from terminal_sim.catalogue import catalogue
from terminal_sim.market.bars import FIRST_S
from terminal_sim.market.clocks import WallClock
from terminal_sim.market.instruments import INSTRUMENTS
from terminal_sim.market.prices import MINUTE_MS, Table
from terminal_sim.market.timeframes import Span, moved, opened, span
from terminal_sim.module import symbol_rows
from terminal_sim.module.arguments import (
    MAX_COUNT,
    check_keywords,
    epoch,
    integer,
    mask,
    refusal,
    text,
)
from terminal_sim.module.connection import MAX_BARS
from terminal_sim.module.entry import entry
from terminal_sim.module.structs import StructSequence
from terminal_sim.terminal.account import Session
from terminal_sim.terminal.session import Terminal

# Ticks in one answer at most: about 60 MB, some 46 hours of a symbol.
_MAX_TICKS = 1_000_000
# A tick's average distance, rounded down: how far to look for a number of ticks.
_SPARSEST_MS = MINUTE_MS // 200


class QuoteFunctions:
    """Functions that read the market.

    Args:
        terminal: The terminal they act on.
    """

    def __init__(self, terminal: Terminal) -> None:
        self.terminal = terminal

    @entry(arity=0)
    def symbols_total(self) -> int:
        """Return how many symbols the server has."""
        self.terminal.account()
        return len(INSTRUMENTS)

    @entry()
    def symbols_get(self, *args: object, **kwargs: object) -> tuple[StructSequence, ...]:
        """Return SymbolInfo of every symbol, or of those of a group."""
        check_keywords("symbols_get", ("group",), kwargs)
        if len(args) + len(kwargs) > 1:
            raise refusal("RES_E_INVALID_PARAMS")
        session = self.terminal.account()
        groups = [mask(text("group", group)) for group in (*args, *kwargs.values())]
        return tuple(
            self._info(session, symbol)
            for symbol in INSTRUMENTS
            if all(wanted(symbol) for wanted in groups)
        )

    @entry(arity=1)
    def symbol_info(self, symbol: object) -> StructSequence:
        """Return SymbolInfo of a symbol."""
        name = text("symbol", symbol)
        session = self.terminal.account()
        return self._info(session, known(name))

    @entry(arity=1)
    def symbol_info_tick(self, symbol: object) -> StructSequence:
        """Return the last tick of a symbol."""
        name = text("symbol", symbol)
        session = self.terminal.account()
        return symbol_rows.tick(session.tape.at(known(name), session.now_ms()), session.wall)

    @entry(failure=False)
    def symbol_select(self, *args: object, **kwargs: object) -> bool:
        """Show a symbol in Market Watch or hide it."""
        if kwargs:
            raise TypeError("symbol_select() takes no keyword arguments")
        if not 1 <= len(args) <= 2:  # noqa: PLR2004 - the symbol, and whether to show it
            raise TypeError(f"symbol_select() takes 1 or 2 arguments ({len(args)} given)")
        name = text("symbol", args[0])
        session = self.terminal.account()
        if name not in INSTRUMENTS:
            raise refusal("RES_E_FAIL")
        if len(args) == 1 or args[1]:
            self.terminal.hidden.discard(name)
            return True
        if any(held.symbol == name for held in session.state.positions.values()):
            raise refusal("RES_E_FAIL")
        self.terminal.hidden.add(name)
        return True

    @entry(arity=4)
    def copy_rates_from(
        self, symbol: object, timeframe: object, date_from: object, count: object
    ) -> Table:
        """Return up to ``count`` bars that open at or before a date, oldest first."""
        name, length = text("symbol", symbol), _span(timeframe)
        last, number = epoch("date_from", date_from), _count(count)
        session = self.terminal.account()
        now_ms = session.now_ms()
        return session.bars.until(known(name), length, last, min(number, MAX_BARS), now_ms)

    @entry(arity=4)
    def copy_rates_from_pos(
        self, symbol: object, timeframe: object, start_pos: object, count: object
    ) -> Table:
        """Return up to ``count`` bars up to the one with ``start_pos`` newer ones."""
        name, length = text("symbol", symbol), _span(timeframe)
        start = integer("start_pos", start_pos, high=MAX_COUNT)
        number = min(_count(count), MAX_BARS)
        session = self.terminal.account()
        now_ms = session.now_ms()
        return session.bars.latest(known(name), length, start, number, now_ms)

    @entry(arity=4)
    def copy_rates_range(
        self, symbol: object, timeframe: object, date_from: object, date_to: object
    ) -> Table:
        """Return the bars that open between two dates, oldest first."""
        name, length = text("symbol", symbol), _span(timeframe)
        first, last = _dates(date_from, date_to)
        session = self.terminal.account()
        now_ms = session.now_ms()
        present = session.wall.latest_ms(now_ms) // 1000
        newest = opened(length, max(min(last, present), FIRST_S))
        floor = moved(length, newest, -MAX_BARS)
        table = session.bars.between(known(name), length, max(first, floor), last, now_ms)
        return table[-MAX_BARS:]

    @entry(arity=4)
    def copy_ticks_from(
        self, symbol: object, date_from: object, count: object, flags: object
    ) -> Table:
        """Return up to ``count`` ticks from a date on, oldest first."""
        name, number = text("symbol", symbol), _count(count)
        first = max(epoch("date_from", date_from), FIRST_S)
        shown = _flags(flags)
        session = self.terminal.account()
        number = min(number, _MAX_TICKS)
        span = number * _SPARSEST_MS + 2 * MINUTE_MS
        stop = _shown_stop(session.wall, first * 1000, span)
        return self._ticks(session, known(name), first * 1000, stop, shown)[:number]

    @entry(arity=4)
    def copy_ticks_range(
        self, symbol: object, date_from: object, date_to: object, flags: object
    ) -> Table:
        """Return the ticks between two dates, oldest first."""
        name, shown = text("symbol", symbol), _flags(flags)
        first, last = _dates(date_from, date_to)
        first = max(first, FIRST_S)
        session = self.terminal.account()
        longest = _MAX_TICKS * _SPARSEST_MS // 1000
        stop = min(last, first + longest) * 1000 + 1
        return self._ticks(session, known(name), first * 1000, stop, shown)[:_MAX_TICKS]

    def _info(self, session: Session, symbol: str) -> StructSequence:
        shown = symbol not in self.terminal.hidden
        return session.symbols.row(symbol, session.now_ms(), shown=shown)

    def _ticks(
        self, session: Session, symbol: str, first_ms: int, stop_ms: int, shown: bool
    ) -> Table:
        """Return the ticks whose wall clock lies in ``[first, stop)``, up to the present.

        ``first`` is no earlier than the market itself.
        """
        wall = session.wall
        low, high = wall.bounds_ms(first_ms, stop_ms)
        high = min(high, session.now_ms() + 1)
        if not shown or low >= high:
            return np.empty(0, catalogue().ticks())
        quotes = session.tape.market.ticks(symbol, low, high)
        msc = wall.walls_ms(quotes["time_msc"])
        inside = (msc >= first_ms) & (msc < stop_ms)
        table = np.zeros(int(inside.sum()), catalogue().ticks())
        table["time_msc"] = msc[inside]
        table["time"] = table["time_msc"] // 1000
        table["bid"] = quotes["bid"][inside]
        table["ask"] = quotes["ask"][inside]
        table["flags"] = symbol_rows.tick_flags()
        return table


def known(symbol: str) -> str:
    """Return a symbol the server has.

    Raises:
        Refusal: -4.
    """
    if symbol not in INSTRUMENTS:
        raise refusal("RES_E_NOT_FOUND")
    return symbol


def _shown_stop(wall: WallClock, first_ms: int, span_ms: int) -> int:
    """Return the reading by which the clock has shown ``span_ms`` of readings from the first on."""
    stop = 0
    longer = first_ms + span_ms
    while longer != stop:
        stop = longer
        gaps = (end - max(start, first_ms) for start, end in wall.skipped_ms(first_ms, stop))
        longer = first_ms + span_ms + sum(gaps)
    return stop


def _span(timeframe: object) -> Span:
    length = span(integer("timeframe", timeframe))
    if length is None:
        raise refusal("RES_E_INVALID_PARAMS")
    return length


def _count(count: object) -> int:
    number = integer("count", count, low=-MAX_COUNT, high=MAX_COUNT)
    if number < 1:
        raise refusal("RES_E_INVALID_PARAMS")
    return number


def _flags(flags: object) -> bool:
    """Return whether quotes are wanted at all; trades, which there are none of, may be instead."""
    value = integer("flags", flags, low=-MAX_COUNT)
    constants = catalogue().constants
    known = ("COPY_TICKS_ALL", "COPY_TICKS_INFO", "COPY_TICKS_TRADE")
    if value not in {constants[name] for name in known} | {3, 0xFFFFFFFF}:
        raise refusal("RES_E_INVALID_PARAMS")
    return value != constants["COPY_TICKS_TRADE"]


def _dates(date_from: object, date_to: object) -> tuple[int, int]:
    first, last = epoch("date_from", date_from), epoch("date_to", date_to)
    if last < first:
        raise refusal("RES_E_INVALID_PARAMS")
    return first, last
