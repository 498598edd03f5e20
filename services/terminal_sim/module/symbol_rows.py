"""SymbolInfo and Tick rows."""

from typing import Any, NamedTuple

import numpy as np

from terminal_sim.catalogue import catalogue
from terminal_sim.market.bars import Bars
from terminal_sim.market.clocks import WallClock
from terminal_sim.market.instruments import INSTRUMENTS, Instrument
from terminal_sim.market.money import rate
from terminal_sim.market.prices import MINUTE_MS
from terminal_sim.market.tape import Quote, Tape
from terminal_sim.market.timeframes import DAY_S, opened
from terminal_sim.module.structs import StructSequence, struct

_TEXTS = frozenset(
    (
        "basis",
        "category",
        "currency_base",
        "currency_profit",
        "currency_margin",
        "bank",
        "description",
        "exchange",
        "formula",
        "isin",
        "name",
        "page",
        "path",
    )
)
_FLAGS = frozenset(("custom", "select", "visible", "spread_float", "margin_hedged_use_leg"))
# Fields after these names are floating point; those before are whole numbers.
_FIRST_FLOAT = "bid"
# The fillings and expirations brokers of forex and CFDs usually allow: FOK and IOC; all of them.
_FILLING, _EXPIRATION, _ORDERS = 3, 15, 127
_WEDNESDAY = 3
_TICK_FLAGS = ("TICK_FLAG_BID", "TICK_FLAG_ASK")


class _Day(NamedTuple):
    """A symbol's day on the server's clock, up to the beginning of a UTC epoch minute or later."""

    opened_s: int
    minute: int
    open: float
    close: float
    low: float
    high: float


def tick(quote: Quote, wall: WallClock) -> StructSequence:
    """Return a Tick row."""
    msc = wall.wall_ms(quote.time_msc)
    return struct("Tick")((msc // 1000, quote.bid, quote.ask, 0.0, 0, msc, tick_flags(), 0.0))


def tick_flags() -> int:
    """Return the flags of a tick in which bid and ask changed."""
    return sum(catalogue().constants[name] for name in _TICK_FLAGS)


class SymbolRows:
    """Makes SymbolInfo rows; the day's extremes are worked out once a minute.

    Args:
        tape: Newest ticks.
        wall: The server's clock, which begins the day.
        bars: Bars on that clock.
        currency: Of the account; the value of a tick is counted in it.
    """

    def __init__(self, tape: Tape, wall: WallClock, bars: Bars, currency: str) -> None:
        self._tape = tape
        self._wall = wall
        self._bars = bars
        self._currency = currency
        self._days: dict[str, _Day] = {}

    def row(self, symbol: str, now_ms: int, *, shown: bool) -> StructSequence:
        """Return SymbolInfo; ``shown`` tells whether it is selected in Market Watch."""
        values = _still(INSTRUMENTS[symbol]) | self._moving(symbol, now_ms)
        values |= {"select": shown, "visible": shown}
        fields = catalogue().structs["SymbolInfo"]
        first_float = fields.index(_FIRST_FLOAT)
        return struct("SymbolInfo")(
            values[name] if name in values else _empty(name, whole=i < first_float)
            for i, name in enumerate(fields)
        )

    def _moving(self, symbol: str, now_ms: int) -> dict[str, Any]:
        instrument, tape = INSTRUMENTS[symbol], self._tape
        quote = tape.at(symbol, now_ms)
        value = rate(instrument.profit, self._currency, lambda leg: tape.at(leg, now_ms).bid)
        value *= instrument.contract * instrument.point
        day = self._day(symbol, now_ms)
        spread = instrument.spread * instrument.point
        return {
            "time": self._wall.wall_ms(quote.time_msc) // 1000,
            "spread": round((quote.ask - quote.bid) * instrument.scale),
            "bid": quote.bid,
            "ask": quote.ask,
            "trade_tick_value": value,
            "trade_tick_value_profit": value,
            "trade_tick_value_loss": value,
            "bidhigh": max(day.high, quote.bid),
            "bidlow": min(day.low, quote.bid),
            "askhigh": max(day.high + spread, quote.ask),
            "asklow": min(day.low + spread, quote.ask),
            "session_open": day.open,
            "session_close": day.close,
            "price_change": (quote.bid / day.close - 1) * 100,
        }

    def _day(self, symbol: str, now_ms: int) -> _Day:
        minute, latest_ms = now_ms // MINUTE_MS, self._wall.latest_ms(now_ms)
        opened_s = opened(DAY_S, latest_ms // 1000)
        known = self._days.get(symbol)
        # After the clock was put back, minutes may belong to the day before.
        grows = known and known.opened_s == opened_s and self._wall.wall_ms(now_ms) == latest_ms
        if known and grows and known.minute <= minute:
            day = self._grown(symbol, known, minute) if known.minute < minute else known
        else:
            before, today = self._bars.latest(symbol, DAY_S, 0, 2, now_ms)
            day = _Day(
                opened_s,
                minute,
                float(today["open"]),
                float(before["close"]),
                float(today["low"]),
                float(today["high"]),
            )
        self._days[symbol] = day
        return day

    def _grown(self, symbol: str, day: _Day, minute: int) -> _Day:
        """Add the minutes that have passed since a day was last looked at."""
        scale = INSTRUMENTS[symbol].scale
        passed = self._bars.market.minutes(symbol, np.arange(day.minute, minute, dtype=np.int64))
        low, high = int(passed.low.min()) / scale, int(passed.high.max()) / scale
        return day._replace(minute=minute, low=min(day.low, low), high=max(day.high, high))


def _empty(name: str, *, whole: bool) -> str | bool | int | float:
    if name in _TEXTS:
        return ""
    if name in _FLAGS:
        return False
    return 0 if whole else 0.0


def _still(instrument: Instrument) -> dict[str, Any]:
    constants = catalogue().constants
    least, most, step = instrument.volumes
    return {
        "spread_float": True,
        "digits": instrument.digits,
        "trade_calc_mode": constants[
            "SYMBOL_CALC_MODE_FOREX" if instrument.is_forex else "SYMBOL_CALC_MODE_CFDLEVERAGE"
        ],
        "trade_mode": constants["SYMBOL_TRADE_MODE_FULL"],
        "trade_exemode": constants["SYMBOL_TRADE_EXECUTION_MARKET"],
        "swap_mode": constants["SYMBOL_SWAP_MODE_POINTS"],
        "swap_rollover3days": _WEDNESDAY,
        "expiration_mode": _EXPIRATION,
        "filling_mode": _FILLING,
        "order_mode": _ORDERS,
        "point": instrument.point,
        "trade_tick_size": instrument.point,
        "trade_contract_size": instrument.contract,
        "volume_min": least,
        "volume_max": most,
        "volume_step": step,
        "swap_long": instrument.swaps[0],
        "swap_short": instrument.swaps[1],
        "margin_hedged": instrument.contract,
        "currency_base": instrument.base,
        "currency_profit": instrument.profit,
        "currency_margin": instrument.base if instrument.is_forex else instrument.profit,
        "description": instrument.description,
        "name": instrument.name,
        "path": f"{instrument.folder}\\{instrument.name}",
    }
