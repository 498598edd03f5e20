"""Pending orders: placed, modified, removed, expired, rejected."""

from msgspec.structs import replace

from terminal_sim.broker import retcodes, rules
from terminal_sim.broker.amounts import Prices
from terminal_sim.broker.codes import (
    ORDER_STATE_CANCELED,
    ORDER_STATE_EXPIRED,
    ORDER_STATE_PLACED,
    ORDER_STATE_REJECTED,
    order_sign,
)
from terminal_sim.broker.retcodes import Refusal
from terminal_sim.broker.state import AccountState
from terminal_sim.broker.values import Change, Order, TradeRequest
from terminal_sim.market.clocks import WallClock
from terminal_sim.market.instruments import INSTRUMENTS


def drafted(
    state: AccountState, request: TradeRequest, prices: Prices, wall: WallClock, reason: int
) -> Order:
    """Return the order a request asks for, without a ticket yet.

    Raises:
        Refusal: With the code of what is wrong with it.
    """
    instrument = INSTRUMENTS[request.symbol]
    volume = rules.stepped(instrument, request.volume)
    rules.check_filling(request, pending=True)
    expires_ms = rules.expiry(request, wall, prices.now_ms)
    price, levels = _levels(request, request.symbol, request.type, prices)
    if len(state.orders) >= rules.MAX_PENDING:
        raise Refusal(retcodes.LIMIT_ORDERS)
    rules.check_limits(state, request.symbol, order_sign(request.type), volume)
    return Order(
        ticket=0,
        symbol=request.symbol,
        type=request.type,
        state=ORDER_STATE_PLACED,
        volume_initial=volume,
        volume_current=volume,
        price_open=price,
        price_current=0.0,
        sl=levels[0],
        tp=levels[1],
        setup_ms=prices.now_ms,
        done_ms=0,
        expires_ms=expires_ms,
        type_time=request.type_time,
        type_filling=request.type_filling,
        magic=request.magic,
        reason=reason,
        position_id=0,
        comment=request.comment[: rules.COMMENT_LENGTH],
    )


def modified(order: Order, request: TradeRequest, prices: Prices, wall: WallClock) -> Order:
    """Return an order with another price, other stops, another expiration.

    Raises:
        Refusal: With the code of what is wrong with it; 10025 when nothing changes.
    """
    price, levels = _levels(request, order.symbol, order.type, prices)
    changed = replace(
        order,
        price_open=price,
        sl=levels[0],
        tp=levels[1],
        type_time=request.type_time,
        expires_ms=rules.expiry(request, wall, prices.now_ms),
    )
    if changed == order:
        raise Refusal(retcodes.NO_CHANGES)
    return changed


def cancelled(order: Order, prices: Prices) -> Change:
    """Return the removal of an order that somebody asked for."""
    return _over(order, prices, ORDER_STATE_CANCELED)


def rejected(order: Order, prices: Prices) -> Change:
    """Return the end of an order that could not be filled."""
    return _over(order, prices, ORDER_STATE_REJECTED)


def expired(order: Order, prices: Prices) -> Change:
    """Return the end of an order whose time has come."""
    return _over(order, prices, ORDER_STATE_EXPIRED)


def next_expiry(state: AccountState) -> int | None:
    """Return when the first pending order expires (UTC epoch milliseconds), None for never."""
    return min((o.expires_ms for o in state.orders.values() if o.expires_ms), default=None)


def _levels(
    request: TradeRequest, symbol: str, order_type: int, prices: Prices
) -> tuple[float, tuple[float, float]]:
    digits = INSTRUMENTS[symbol].digits
    price = rules.price_level(request.price, digits, retcodes.INVALID_PRICE)
    rules.check_side(order_type, price, prices.quote(symbol))
    levels = rules.stops(request, symbol)
    rules.check_stops(order_sign(order_type), levels, price)
    return price, levels


def _over(order: Order, prices: Prices, state: int) -> Change:
    price = prices.dealt(order.symbol, order_sign(order.type))
    done = replace(order, state=state, price_current=price, done_ms=prices.now_ms)
    return Change(removed=(order.ticket,), done=(done,))
