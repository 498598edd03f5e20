"""From a client's request to what it is about: the first part of deciding it."""

from math import isfinite

from msgspec.structs import replace

from terminal_sim.broker import retcodes, rules
from terminal_sim.broker.amounts import Prices
from terminal_sim.broker.codes import (
    ORDER_TYPE_BUY,
    ORDER_TYPE_SELL,
    TRADE_ACTION_DEAL,
    TRADE_ACTION_MODIFY,
    TRADE_ACTION_PENDING,
    TRADE_ACTION_REMOVE,
    TRADE_ACTION_SLTP,
    order_sign,
)
from terminal_sim.broker.dealing import Instruction, netted, same_volume
from terminal_sim.broker.retcodes import Refusal
from terminal_sim.broker.state import AccountState
from terminal_sim.broker.values import Order, Position, TradeRequest
from terminal_sim.market.instruments import INSTRUMENTS


def target(state: AccountState, request: TradeRequest) -> str:
    """Return the symbol a request is about.

    A request about a position or an order may leave the symbol out, but not name another.

    Raises:
        Refusal: 10013 when its action, type or symbol make no sense, 10035 and 10036 when there is
            no such order or position.
    """
    if request.action in {TRADE_ACTION_MODIFY, TRADE_ACTION_REMOVE}:
        return _order(state, request).symbol
    if request.action == TRADE_ACTION_SLTP:
        return _position(state, request).symbol
    if request.action == TRADE_ACTION_DEAL and request.type in {ORDER_TYPE_BUY, ORDER_TYPE_SELL}:
        if request.position:
            return _position(state, request).symbol
        return _known(request.symbol)
    if request.action == TRADE_ACTION_PENDING and request.type in rules.PENDING:
        return _known(request.symbol)
    raise Refusal(retcodes.INVALID)


def instructed(
    state: AccountState, request: TradeRequest, prices: Prices, reason: int
) -> Instruction:
    """Return the deal that a market request asks for, its fields found to be in order.

    Prices and deviations of market requests do not matter: symbols have market execution.

    Raises:
        Refusal: With the code of what is wrong with it.
    """
    sign, symbol = order_sign(request.type), target(state, request)
    held = _touched(state, request, symbol)
    against = held if held and held.sign != sign else None
    hedging = state.profile.margin_mode == "hedging"
    if held and hedging and not against:
        raise Refusal(retcodes.INVALID)
    volume = _volume(request, symbol, against)
    rules.check_filling(request, pending=False)
    rules.price_level(request.price, INSTRUMENTS[symbol].digits, retcodes.INVALID_PRICE)
    levels = rules.stops(request, symbol)
    grows = volume - against.volume if against else volume
    if grows > 0:
        rules.check_stops(sign, levels, prices.dealt(symbol, -sign))
        rules.check_limits(state, symbol, sign, grows)
    return Instruction(
        symbol=symbol,
        sign=sign,
        volume=volume,
        magic=request.magic,
        reason=reason,
        comment=request.comment[: rules.COMMENT_LENGTH],
        sl=levels[0] if grows > 0 else 0.0,
        tp=levels[1] if grows > 0 else 0.0,
        filling=request.type_filling,
        closes=against if hedging else None,
    )


def restopped(state: AccountState, request: TradeRequest, prices: Prices) -> Position:
    """Return a position with the stops a request asks for; 0 takes one away.

    Raises:
        Refusal: 10016 when they are no prices or on the wrong side, 10025 when nothing changes.
    """
    position = _position(state, request)
    levels = rules.stops(request, position.symbol)
    if levels == (position.sl, position.tp):
        raise Refusal(retcodes.NO_CHANGES)
    closes_at = prices.dealt(position.symbol, -position.sign)
    rules.check_stops(position.sign, levels, closes_at)
    return replace(position, sl=levels[0], tp=levels[1], updated_ms=prices.now_ms)


def _position(state: AccountState, request: TradeRequest) -> Position:
    """Return the position a request names; netting accounts may name it by its symbol alone."""
    if not request.position and state.profile.margin_mode == "hedging":
        raise Refusal(retcodes.INVALID)
    if request.position:
        position = state.positions.get(request.position)
    else:
        position = netted(state, _known(request.symbol))
    if position is None:
        raise Refusal(retcodes.POSITION_CLOSED)
    _agree(position, request)
    return position


def _order(state: AccountState, request: TradeRequest) -> Order:
    order = state.orders.get(request.order)
    if order is None:
        raise Refusal(retcodes.INVALID_ORDER)
    _agree(order, request)
    return order


def _agree(held: Position | Order, request: TradeRequest) -> None:
    if request.symbol not in {"", held.symbol}:
        raise Refusal(retcodes.INVALID)


def _known(symbol: str) -> str:
    if symbol not in INSTRUMENTS:
        raise Refusal(retcodes.INVALID)
    return symbol


def _touched(state: AccountState, request: TradeRequest, symbol: str) -> Position | None:
    """Return the position a market request acts on; None: it opens one."""
    if request.position:
        return state.positions[request.position]
    return netted(state, symbol) if state.profile.margin_mode == "netting" else None


def _volume(request: TradeRequest, symbol: str, against: Position | None) -> float:
    """Return the volume to deal; all of a position may be closed whatever the symbol's steps."""
    if against and isfinite(request.volume) and request.volume > 0:
        if same_volume(request.volume, against.volume):
            return against.volume
        if request.position and request.volume > against.volume:
            raise Refusal(retcodes.INVALID_CLOSE_VOLUME)
    return rules.stepped(INSTRUMENTS[symbol], request.volume)
