"""What people at other terminals do with an account, as requests to its broker."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from terminal_sim.broker.messages import Snapshot
from terminal_sim.broker.values import Order, Position, TradeRequest
from terminal_sim.catalogue import catalogue
from terminal_sim.market.instruments import INSTRUMENTS
from terminal_sim.process.wire import iso


def _known(symbol: str) -> str:
    if symbol not in INSTRUMENTS:
        raise ValueError(f"There is no symbol {symbol!r}.")
    return symbol


def _not_nothing(amount: float) -> float:
    if amount == 0:
        raise ValueError("A deposit of 0 changes nothing: it is paid in above 0, and out below.")
    return amount


By = Literal["client", "mobile", "web"]
Price = Annotated[float, Field(ge=0, le=1e9)]
Volume = Annotated[float, Field(gt=0, le=1e6)]
Symbol = Annotated[str, Field(max_length=31), AfterValidator(_known)]
Comment = Annotated[str, Field(max_length=31)]
PENDING = ("buy_limit", "sell_limit", "buy_stop", "sell_stop")


class Body(BaseModel):
    """What somebody wants; unknown fields and numbers that are none are refused."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, strict=True)

    by: By = "client"

    @property
    def reason(self) -> int:
        """``DEAL_REASON_*`` of who acts."""
        return _constant(f"DEAL_REASON_{self.by.upper()}")


class Ordering(Body):
    """What every order has."""

    symbol: Symbol
    volume: Volume
    sl: Price = 0.0
    tp: Price = 0.0
    comment: Comment = ""


class Opening(Ordering):
    """A position at the market's price."""

    type: Literal["buy", "sell"]

    def request(self) -> TradeRequest:
        """Return what the broker is asked."""
        return TradeRequest(
            action=_constant("TRADE_ACTION_DEAL"),
            symbol=self.symbol,
            type=_constant(f"ORDER_TYPE_{self.type.upper()}"),
            volume=self.volume,
            sl=self.sl,
            tp=self.tp,
            comment=self.comment,
        )


class Placing(Ordering):
    """A pending order."""

    type: Literal["buy_limit", "sell_limit", "buy_stop", "sell_stop"]
    price: Price

    def request(self) -> TradeRequest:
        """Return what the broker is asked."""
        return TradeRequest(
            action=_constant("TRADE_ACTION_PENDING"),
            symbol=self.symbol,
            type=_constant(f"ORDER_TYPE_{self.type.upper()}"),
            type_filling=_constant("ORDER_FILLING_RETURN"),
            volume=self.volume,
            price=self.price,
            sl=self.sl,
            tp=self.tp,
            comment=self.comment,
        )


class Stops(Body):
    """Other stops of a position; what is left out stays, 0 takes it away."""

    sl: Price | None = None
    tp: Price | None = None

    def request(self, position: Position) -> TradeRequest:
        """Return what the broker is asked."""
        return TradeRequest(
            action=_constant("TRADE_ACTION_SLTP"),
            symbol=position.symbol,
            position=position.ticket,
            sl=position.sl if self.sl is None else self.sl,
            tp=position.tp if self.tp is None else self.tp,
        )


class Moving(Body):
    """Another price or other stops of a pending order; what is left out stays."""

    price: Price | None = None
    sl: Price | None = None
    tp: Price | None = None

    def request(self, order: Order) -> TradeRequest:
        """Return what the broker is asked."""
        return TradeRequest(
            action=_constant("TRADE_ACTION_MODIFY"),
            order=order.ticket,
            symbol=order.symbol,
            type=order.type,
            type_time=order.type_time,
            price=order.price_open if self.price is None else self.price,
            sl=order.sl if self.sl is None else self.sl,
            tp=order.tp if self.tp is None else self.tp,
        )


class Deposit(Body):
    """Money paid in, or out when negative."""

    amount: Annotated[float, Field(ge=-1e12, le=1e12), AfterValidator(_not_nothing)]


def closing(position: Position, volume: float | None) -> TradeRequest:
    """Return what closes a position, or a part of it."""
    return TradeRequest(
        action=_constant("TRADE_ACTION_DEAL"),
        position=position.ticket,
        symbol=position.symbol,
        type=_constant("ORDER_TYPE_SELL" if position.sign > 0 else "ORDER_TYPE_BUY"),
        volume=position.volume if volume is None else volume,
    )


def removal(order: Order) -> TradeRequest:
    """Return what removes a pending order."""
    return TradeRequest(action=_constant("TRADE_ACTION_REMOVE"), order=order.ticket)


def shown(account: Snapshot) -> dict[str, object]:
    """Return an account as a person reads it: names for numbers, ISO 8601 for instants."""
    profile = account.profile
    return {
        "login": profile.login,
        "name": profile.name,
        "currency": profile.currency,
        "leverage": profile.leverage,
        "margin_mode": profile.margin_mode,
        "balance": account.balance,
        "credit": account.credit,
        "version": account.version,
        "positions": [_position(each) for each in account.positions],
        "orders": [_order(each) for each in account.orders],
    }


def _position(position: Position) -> dict[str, object]:
    return {
        "ticket": position.ticket,
        "symbol": position.symbol,
        "type": "buy" if position.sign > 0 else "sell",
        "volume": position.volume,
        "price_open": position.price_open,
        "sl": position.sl,
        "tp": position.tp,
        "swap": position.swap,
        "comment": position.comment,
        "magic": position.magic,
        "opened_at": iso(position.opened_ms),
    }


def _order(order: Order) -> dict[str, object]:
    types = {_constant(f"ORDER_TYPE_{name.upper()}"): name for name in PENDING}
    return {
        "ticket": order.ticket,
        "symbol": order.symbol,
        "type": types[order.type],
        "volume": order.volume_current,
        "price": order.price_open,
        "sl": order.sl,
        "tp": order.tp,
        "comment": order.comment,
        "magic": order.magic,
        "placed_at": iso(order.setup_ms),
        "expires_at": iso(order.expires_ms) if order.expires_ms else None,
    }


def _constant(name: str) -> int:
    return catalogue().constants[name]
