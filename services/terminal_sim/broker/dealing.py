"""What a deal does to an account: openings, increases, reductions, closes and reversals."""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from msgspec.structs import replace

from terminal_sim.broker.amounts import Prices
from terminal_sim.broker.codes import (
    DEAL_ENTRY_IN,
    DEAL_ENTRY_INOUT,
    DEAL_ENTRY_OUT,
    DEAL_TYPE_BUY,
    DEAL_TYPE_SELL,
    ORDER_STATE_FILLED,
    ORDER_TIME_GTC,
    ORDER_TYPE_BUY,
    ORDER_TYPE_SELL,
)
from terminal_sim.broker.state import AccountState
from terminal_sim.broker.values import Change, Deal, Order, Position

# Volumes closer than this are the same: the smallest step is 0.01.
_SAME = 1e-8
_VOLUME_DIGITS = 8


class Tickets(Protocol):
    """Numbers for orders and deals, ascending over a whole server."""

    def next(self) -> int:
        """Return a number that was never given before."""
        ...


@dataclass(frozen=True, slots=True)
class Instruction:
    """What is to be dealt now, at the market's price.

    Attributes:
        symbol: Symbol.
        sign: 1 to buy, -1 to sell.
        volume: Lots.
        magic: Of the expert, or 0.
        reason: ``DEAL_REASON_*``.
        comment: Text.
        sl: Stop loss of the position, or 0.
        tp: Take profit of the position, or 0.
        filling: ``ORDER_FILLING_*``.
        closes: Position that is reduced or closed, where several of a symbol are possible.
        pending: Order that is filled; None when the deal has an order made for it.
    """

    symbol: str
    sign: int
    volume: float
    magic: int
    reason: int
    comment: str
    sl: float = 0.0
    tp: float = 0.0
    filling: int = 0
    closes: Position | None = None
    pending: Order | None = None


class _Effect(NamedTuple):
    """What happens to the position; ``now`` is it afterwards, ``gone`` a ticket that ends."""

    entry: int
    identifier: int
    now: Position | None
    gone: int | None
    profit: float
    swap: float


def same_volume(one: float, two: float) -> bool:
    """Tell whether two volumes are the same but for the last bits."""
    return abs(one - two) < _SAME


def affected(state: AccountState, instruction: Instruction) -> Position | None:
    """Return the position a deal would change; None: it opens one."""
    if state.profile.margin_mode == "hedging" or instruction.closes:
        return instruction.closes
    return netted(state, instruction.symbol)


def netted(state: AccountState, symbol: str) -> Position | None:
    """Return a netting account's position of a symbol."""
    return next((p for p in state.positions.values() if p.symbol == symbol), None)


def deal(
    state: AccountState,
    prices: Prices,
    commission: float,
    instruction: Instruction,
    tickets: Tickets,
) -> Change:
    """Return what an instruction changes; the account must have been found to allow it.

    ``commission`` is charged per lot. A netting position that grows has the average of its opening
    prices; one that is turned round takes the ticket of the order, keeps its identifier, and has
    one deal of ``DEAL_ENTRY_INOUT`` with the whole volume. Of a part that is closed the swap is
    paid in proportion.
    """
    price = prices.dealt(instruction.symbol, instruction.sign)
    ticket = instruction.pending.ticket if instruction.pending else tickets.next()
    effect = _effect(affected(state, instruction), instruction, prices, ticket)
    made = Deal(
        ticket=tickets.next(),
        order=ticket,
        position_id=effect.identifier,
        symbol=instruction.symbol,
        type=DEAL_TYPE_BUY if instruction.sign > 0 else DEAL_TYPE_SELL,
        entry=effect.entry,
        time_ms=prices.now_ms,
        volume=instruction.volume,
        price=price,
        commission=prices.money(-commission * instruction.volume),
        swap=effect.swap,
        profit=effect.profit,
        fee=0.0,
        magic=instruction.magic,
        reason=instruction.reason,
        comment=instruction.comment,
    )
    return Change(
        positions=(effect.now,) if effect.now else (),
        gone=() if effect.gone is None else (effect.gone,),
        removed=(ticket,) if instruction.pending else (),
        deals=(made,),
        done=(_filled(instruction, prices, ticket, effect.identifier),),
    )


def _filled(instruction: Instruction, prices: Prices, ticket: int, identifier: int) -> Order:
    price = prices.dealt(instruction.symbol, instruction.sign)
    if instruction.pending:
        return replace(
            instruction.pending,
            state=ORDER_STATE_FILLED,
            volume_current=0.0,
            price_current=price,
            done_ms=prices.now_ms,
            position_id=identifier,
        )
    return Order(
        ticket=ticket,
        symbol=instruction.symbol,
        type=ORDER_TYPE_BUY if instruction.sign > 0 else ORDER_TYPE_SELL,
        state=ORDER_STATE_FILLED,
        volume_initial=instruction.volume,
        volume_current=0.0,
        price_open=price,
        price_current=price,
        sl=instruction.sl,
        tp=instruction.tp,
        setup_ms=prices.now_ms,
        done_ms=prices.now_ms,
        expires_ms=0,
        type_time=ORDER_TIME_GTC,
        type_filling=instruction.filling,
        magic=instruction.magic,
        reason=instruction.reason,
        position_id=identifier,
        comment=instruction.comment,
    )


def _effect(
    held: Position | None, instruction: Instruction, prices: Prices, ticket: int
) -> _Effect:
    if held is None:
        made = _opened(instruction, prices, ticket, instruction.volume)
        return _Effect(DEAL_ENTRY_IN, ticket, made, None, 0.0, 0.0)
    if held.sign == instruction.sign:
        made = _increased(held, instruction, prices)
        return _Effect(DEAL_ENTRY_IN, held.identifier, made, None, 0.0, 0.0)
    price = prices.dealt(instruction.symbol, instruction.sign)
    volume = min(held.volume, instruction.volume)
    profit = prices.profit(held.symbol, held.sign, volume, held.price_open, price)
    if same_volume(held.volume, instruction.volume):
        return _Effect(DEAL_ENTRY_OUT, held.identifier, None, held.ticket, profit, held.swap)
    if instruction.volume < held.volume:
        left = _reduced(held, instruction, prices)
        paid = prices.money(held.swap - left.swap)
        return _Effect(DEAL_ENTRY_OUT, held.identifier, left, None, profit, paid)
    rest = round(instruction.volume - held.volume, _VOLUME_DIGITS)
    made = replace(_opened(instruction, prices, ticket, rest), identifier=held.identifier)
    return _Effect(DEAL_ENTRY_INOUT, held.identifier, made, held.ticket, profit, held.swap)


def _opened(instruction: Instruction, prices: Prices, ticket: int, volume: float) -> Position:
    price = prices.dealt(instruction.symbol, instruction.sign)
    return Position(
        ticket=ticket,
        identifier=ticket,
        symbol=instruction.symbol,
        sign=1 if instruction.sign > 0 else -1,
        volume=volume,
        price_open=price,
        opened_ms=prices.now_ms,
        updated_ms=prices.now_ms,
        sl=instruction.sl,
        tp=instruction.tp,
        magic=instruction.magic,
        reason=instruction.reason,
        comment=instruction.comment,
        swap=0.0,
        margin=prices.margin(instruction.symbol, volume, price),
    )


def _increased(held: Position, instruction: Instruction, prices: Prices) -> Position:
    """Return a netting position after more of it was dealt; new stops replace the old."""
    price = prices.dealt(instruction.symbol, instruction.sign)
    volume = round(held.volume + instruction.volume, _VOLUME_DIGITS)
    paid = held.price_open * held.volume + price * instruction.volume
    more = prices.margin(instruction.symbol, instruction.volume, price)
    return replace(
        held,
        volume=volume,
        price_open=paid / (held.volume + instruction.volume),
        updated_ms=prices.now_ms,
        sl=instruction.sl or held.sl,
        tp=instruction.tp or held.tp,
        margin=prices.money(held.margin + more),
    )


def _reduced(held: Position, instruction: Instruction, prices: Prices) -> Position:
    volume = round(held.volume - instruction.volume, _VOLUME_DIGITS)
    share = volume / held.volume
    return replace(
        held,
        volume=volume,
        updated_ms=prices.now_ms,
        swap=prices.money(held.swap * share),
        margin=prices.money(held.margin * share),
    )
