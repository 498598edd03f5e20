"""What an account consists of: values on the wire, in the journal and in memory alike.

Instants are UTC epoch milliseconds, amounts are in the account's currency, volumes in lots.
Whoever shows them to a client turns instants into readings of the server's wall clock.
"""

from typing import Literal

import msgspec

Money = float


class Value(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A value without identity; an array on the wire."""


class Position(Value, frozen=True, array_like=True, gc=False):
    """An open position.

    Attributes:
        ticket: Of the order that opened it, or that last reversed it.
        identifier: Of the order that first opened it; deals and orders carry it.
        symbol: Symbol.
        sign: 1 bought, -1 sold.
        volume: Lots.
        price_open: Price, averaged over the deals that increased a netting position.
        opened_ms: When it was opened.
        updated_ms: When it last changed.
        sl: Stop loss or 0.
        tp: Take profit or 0.
        magic: Of the expert that opened it, or 0.
        reason: ``POSITION_REASON_*``.
        comment: Text.
        swap: Collected so far; paid out with the deal that closes it.
        margin: What it holds at the prices of its opening, before hedging is considered.
    """

    ticket: int
    identifier: int
    symbol: str
    sign: Literal[1, -1]
    volume: float
    price_open: float
    opened_ms: int
    updated_ms: int
    sl: float
    tp: float
    magic: int
    reason: int
    comment: str
    swap: Money
    margin: Money


class Order(Value, frozen=True, array_like=True, gc=False):
    """An order, pending or done.

    Attributes:
        ticket: Ticket.
        symbol: Symbol.
        type: ``ORDER_TYPE_*``.
        state: ``ORDER_STATE_*``.
        volume_initial: Lots asked for.
        volume_current: Lots not filled.
        price_open: Price asked for; of a market order the price it got.
        price_current: Price at the end; 0 while pending.
        sl: Stop loss or 0.
        tp: Take profit or 0.
        setup_ms: When it was placed.
        done_ms: When it was filled, cancelled or expired; 0 while pending.
        expires_ms: When it expires; 0: never.
        type_time: ``ORDER_TIME_*``.
        type_filling: ``ORDER_FILLING_*``.
        magic: Of the expert that placed it, or 0.
        reason: ``ORDER_REASON_*``.
        position_id: Identifier of the position it opened or changed; 0: none.
        comment: Text.
    """

    ticket: int
    symbol: str
    type: int
    state: int
    volume_initial: float
    volume_current: float
    price_open: float
    price_current: float
    sl: float
    tp: float
    setup_ms: int
    done_ms: int
    expires_ms: int
    type_time: int
    type_filling: int
    magic: int
    reason: int
    position_id: int
    comment: str


class Deal(Value, frozen=True, array_like=True, gc=False):
    """A deal; profit, swap, commission and fee together are what it did to the balance.

    A deal of ``DEAL_TYPE_CREDIT`` moves the credit line instead.

    Attributes:
        ticket: Ticket.
        order: Ticket of the order behind it; 0: none.
        position_id: Identifier of the position; 0: none.
        symbol: Symbol; empty when only money moved.
        type: ``DEAL_TYPE_*``.
        entry: ``DEAL_ENTRY_*``.
        time_ms: When.
        volume: Lots.
        price: Price.
        commission: Usually negative.
        swap: Of the part of a position that was closed.
        profit: Realised.
        fee: Usually 0.
        magic: Of the expert, or 0.
        reason: ``DEAL_REASON_*``.
        comment: Text.
    """

    ticket: int
    order: int
    position_id: int
    symbol: str
    type: int
    entry: int
    time_ms: int
    volume: float
    price: float
    commission: Money
    swap: Money
    profit: Money
    fee: Money
    magic: int
    reason: int
    comment: str


class Change(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one event did to an account: what the journal keeps and terminals are told.

    Attributes:
        positions: New or changed ones, whole.
        gone: Tickets of those that are no more; to be taken out before ``positions`` are put in.
        orders: Pending ones, new or changed, whole.
        removed: Tickets that are no longer pending.
        deals: Made now.
        done: Orders that went to the history now.
    """

    positions: tuple[Position, ...] = ()
    gone: tuple[int, ...] = ()
    orders: tuple[Order, ...] = ()
    removed: tuple[int, ...] = ()
    deals: tuple[Deal, ...] = ()
    done: tuple[Order, ...] = ()

    def __bool__(self) -> bool:
        return self != NOTHING


NOTHING = Change()
"""No change at all."""


class Profile(msgspec.Struct, frozen=True):
    """What does not change about an account.

    Attributes:
        login: Number.
        name: Of its owner.
        currency: ISO code.
        leverage: 100 for 1:100.
        margin_mode: Several positions of a symbol, or one.
    """

    login: int
    name: str
    currency: str
    leverage: int
    margin_mode: Literal["hedging", "netting"]


class Terms(msgspec.Struct, frozen=True):
    """What a server tells every terminal that logs in.

    Attributes:
        server: Name.
        company: Name of the broker.
        seed: Of its market.
        clock: Rule of its wall clock.
        shifts: By how many ms its wall clock was put forward (or back) at which instants, beyond
            what the rule says; ascending.
        commission: Charged per lot and deal, in the account's currency.
        trading_days: ``weekdays``: only crypto is traded on Saturday and Sunday of its clock.
    """

    server: str
    company: str
    seed: int
    clock: str
    shifts: tuple[tuple[int, int], ...] = ()
    commission: Money = 0.0
    trading_days: Literal["all", "weekdays"] = "all"


class TradeRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """``TradeRequest`` of the MetaTrader5 module; unset fields are zero, as in MetaTrader.

    ``expiration`` is wall-clock seconds, as a client gives it.
    """

    action: int = 0
    magic: int = 0
    order: int = 0
    symbol: str = ""
    volume: float = 0.0
    price: float = 0.0
    stoplimit: float = 0.0
    sl: float = 0.0
    tp: float = 0.0
    deviation: int = 0
    type: int = 0
    type_filling: int = 0
    type_time: int = 0
    expiration: int = 0
    comment: str = ""
    position: int = 0
    position_by: int = 0


class TradeResult(msgspec.Struct, frozen=True):
    """What ``OrderSendResult`` shows, without the request."""

    retcode: int
    comment: str
    deal: int = 0
    order: int = 0
    volume: float = 0.0
    price: float = 0.0
    bid: float = 0.0
    ask: float = 0.0
    request_id: int = 0
    retcode_external: int = 0


class CheckResult(msgspec.Struct, frozen=True):
    """What ``OrderCheckResult`` shows, without the request: the account as if it had traded."""

    retcode: int
    comment: str
    balance: Money = 0.0
    equity: Money = 0.0
    profit: Money = 0.0
    margin: Money = 0.0
    margin_free: Money = 0.0
    margin_level: float = 0.0
