"""Positions, orders and deals as MetaTrader names them, each time paired with its UTC.

The raw times (`time`, `time_msc`, …) are the broker's wall clock written as an epoch; the
`*_utc` strings are ISO-8601 with milliseconds, None where the raw time is 0 ("never").
"""

from typing import Self, TypeAlias

import msgspec

from mt5kit.domain.broker_time import BrokerClock

# (milliseconds, ticket) of a row of history: unique, and in the order of history.
Cursor: TypeAlias = tuple[int, int]


class Position(msgspec.Struct, frozen=True):
    """An open position: MetaTrader's 19 TradePosition fields and their UTC."""

    ticket: int
    time: int
    time_msc: int
    time_update: int
    time_update_msc: int
    type: int
    magic: int
    identifier: int
    reason: int
    volume: float
    price_open: float
    sl: float
    tp: float
    price_current: float
    swap: float
    profit: float
    symbol: str
    comment: str
    external_id: str
    time_utc: str | None = None
    time_update_utc: str | None = None

    def in_utc(self, clock: BrokerClock) -> Self:
        """The same position with its UTC times filled in."""
        return msgspec.structs.replace(
            self,
            time_utc=clock.iso(self.time_msc),
            time_update_utc=clock.iso(self.time_update_msc),
        )


class Order(msgspec.Struct, frozen=True):
    """A pending or historical order: MetaTrader's 24 TradeOrder fields and their UTC."""

    ticket: int
    time_setup: int
    time_setup_msc: int
    time_done: int
    time_done_msc: int
    time_expiration: int
    type: int
    type_time: int
    type_filling: int
    state: int
    magic: int
    position_id: int
    position_by_id: int
    reason: int
    volume_initial: float
    volume_current: float
    price_open: float
    sl: float
    tp: float
    price_current: float
    price_stoplimit: float
    symbol: str
    comment: str
    external_id: str
    time_setup_utc: str | None = None
    time_done_utc: str | None = None
    time_expiration_utc: str | None = None

    @property
    def cursor(self) -> Cursor:
        """Its place in the history of finished orders."""
        return self.time_done_msc, self.ticket

    def in_utc(self, clock: BrokerClock) -> Self:
        """The same order with its UTC times filled in."""
        return msgspec.structs.replace(
            self,
            time_setup_utc=clock.iso(self.time_setup_msc),
            time_done_utc=clock.iso(self.time_done_msc),
            time_expiration_utc=clock.iso(self.time_expiration * 1000),
        )


class Deal(msgspec.Struct, frozen=True):
    """An executed deal: MetaTrader's 18 TradeDeal fields and their UTC."""

    ticket: int
    order: int
    time: int
    time_msc: int
    type: int
    entry: int
    magic: int
    position_id: int
    reason: int
    volume: float
    price: float
    commission: float
    swap: float
    profit: float
    fee: float
    symbol: str
    comment: str
    external_id: str
    time_utc: str | None = None

    @property
    def cursor(self) -> Cursor:
        """Its place in the history of deals."""
        return self.time_msc, self.ticket

    def in_utc(self, clock: BrokerClock) -> Self:
        """The same deal with its UTC time filled in."""
        return msgspec.structs.replace(self, time_utc=clock.iso(self.time_msc))
