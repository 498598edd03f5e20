"""What a broker refuses, by the fields of a request.

Each function raises :class:`~terminal_sim.broker.retcodes.Refusal` with the code it is named in.
"""

from math import isfinite

from terminal_sim.broker import retcodes
from terminal_sim.broker.codes import (
    ORDER_FILLING_FOK,
    ORDER_FILLING_IOC,
    ORDER_FILLING_RETURN,
    ORDER_TIME_DAY,
    ORDER_TIME_GTC,
    ORDER_TIME_SPECIFIED,
    ORDER_TIME_SPECIFIED_DAY,
    ORDER_TYPE_BUY_LIMIT,
    ORDER_TYPE_BUY_STOP,
    ORDER_TYPE_SELL_LIMIT,
    ORDER_TYPE_SELL_STOP,
    order_sign,
)
from terminal_sim.broker.days import end_of_day, instant_of
from terminal_sim.broker.retcodes import Refusal
from terminal_sim.broker.state import AccountState
from terminal_sim.broker.values import TradeRequest
from terminal_sim.market.clocks import WallClock
from terminal_sim.market.instruments import INSTRUMENTS, Instrument
from terminal_sim.market.tape import Quote

MAX_PENDING = 200
"""Pending orders an account may have; ``limit_orders`` of ``account_info()`` tells it."""
COMMENT_LENGTH = 31
"""A terminal has no room for longer comments; what exceeds it is cut off."""

PENDING = (ORDER_TYPE_BUY_LIMIT, ORDER_TYPE_SELL_LIMIT, ORDER_TYPE_BUY_STOP, ORDER_TYPE_SELL_STOP)
"""Types of pending orders that can be placed; stop-limit orders are refused."""

# Largest orders an account may hold of a symbol in one direction.
_LARGEST_ORDERS = 10
# A volume may miss its step by this share of it, which arithmetic on decimals costs.
_OFF_STEP = 1e-6
# The market knows no later instant: 2100-01-01 in seconds.
_LAST_S = 4_102_444_800
# Above any price a symbol can have.
_MOST = 1e12


def volume_limit(instrument: Instrument) -> float:
    """Return how many lots an account may hold and have ordered in one direction."""
    return _LARGEST_ORDERS * instrument.volumes[1]


def stepped(instrument: Instrument, volume: float) -> float:
    """Return a volume without the dust of its arithmetic; refuse what is no valid volume (10014).

    Not a number, below the smallest, above the largest, between two steps.
    """
    least, most, step = instrument.volumes
    if not least - step * _OFF_STEP <= volume <= most + step * _OFF_STEP:
        raise Refusal(retcodes.INVALID_VOLUME)
    steps = round(volume / step)
    if abs(volume / step - steps) > _OFF_STEP:
        raise Refusal(retcodes.INVALID_VOLUME)
    return round(steps * step, 8)


def check_filling(request: TradeRequest, *, pending: bool) -> None:
    """Refuse fillings (10030) that ``filling_mode`` of ``symbol_info()`` does not allow.

    FOK and IOC; RETURN for pending orders only, because it does not exist with market execution
    (MQL5 reference, "Order Properties", ``ENUM_ORDER_TYPE_FILLING``).
    """
    allowed = (ORDER_FILLING_FOK, ORDER_FILLING_IOC, *((ORDER_FILLING_RETURN,) if pending else ()))
    if request.type_filling not in allowed:
        raise Refusal(retcodes.INVALID_FILL)


def price_level(price: float, digits: int, retcode: int) -> float:
    """Return a price rounded to the symbol's digits; 0 stays 0, what is no price is refused."""
    if not isfinite(price) or not 0 <= price < _MOST:
        raise Refusal(retcode)
    return round(price, digits)


def stops(request: TradeRequest, symbol: str) -> tuple[float, float]:
    """Return stop loss and take profit, rounded; refuse what is no price (10016)."""
    digits, invalid = INSTRUMENTS[symbol].digits, retcodes.INVALID_STOPS
    return price_level(request.sl, digits, invalid), price_level(request.tp, digits, invalid)


def check_stops(sign: int, levels: tuple[float, float], reference: float) -> None:
    """Refuse stops on the wrong side of a price (10016).

    Of a position the reference is the price it would be closed at, of a pending order its own.
    """
    sl, tp = levels
    if (sl and (reference - sl) * sign <= 0) or (tp and (tp - reference) * sign <= 0):
        raise Refusal(retcodes.INVALID_STOPS)


def check_side(order_type: int, price: float, quote: Quote) -> None:
    """Refuse a pending order on the wrong side of the market (10015): it would be filled now."""
    away = {
        ORDER_TYPE_BUY_LIMIT: quote.ask - price,
        ORDER_TYPE_SELL_LIMIT: price - quote.bid,
        ORDER_TYPE_BUY_STOP: price - quote.ask,
        ORDER_TYPE_SELL_STOP: quote.bid - price,
    }
    if price <= 0 or away[order_type] <= 0:
        raise Refusal(retcodes.INVALID_PRICE)


def check_limits(state: AccountState, symbol: str, sign: int, volume: float) -> None:
    """Refuse a volume (10034) beyond :func:`volume_limit` in one direction of a symbol."""
    held = sum(p.volume for p in state.positions.values() if (p.symbol, p.sign) == (symbol, sign))
    ordered = sum(
        order.volume_current
        for order in state.orders.values()
        if order.symbol == symbol and order_sign(order.type) == sign
    )
    if held + ordered + volume > volume_limit(INSTRUMENTS[symbol]) + _OFF_STEP:
        raise Refusal(retcodes.LIMIT_VOLUME)


def expiry(request: TradeRequest, wall: WallClock, now_ms: int) -> int:
    """Return when an order expires (UTC epoch milliseconds), 0 for never.

    ``ORDER_TIME_DAY`` ends with the server's day, ``_SPECIFIED_DAY`` with the day of
    ``expiration``, ``_SPECIFIED`` at it. Another kind or a past time is refused (10022).
    """
    if request.type_time == ORDER_TIME_GTC:
        return 0
    if request.type_time == ORDER_TIME_DAY:
        return end_of_day(wall, wall.wall_ms(now_ms))
    if request.type_time not in {ORDER_TIME_SPECIFIED, ORDER_TIME_SPECIFIED_DAY}:
        raise Refusal(retcodes.INVALID_EXPIRATION)
    if not 0 < request.expiration < _LAST_S:
        raise Refusal(retcodes.INVALID_EXPIRATION)
    reading_ms = request.expiration * 1000
    if request.type_time == ORDER_TIME_SPECIFIED:
        at_ms = instant_of(wall, reading_ms)
    else:
        at_ms = end_of_day(wall, reading_ms)
    if at_ms <= now_ms:
        raise Refusal(retcodes.INVALID_EXPIRATION)
    return at_ms
