"""One look at an account: everything the terminal showed in one turn."""

from typing import Self

import msgspec

from mt5kit.domain.accounts import AccountIdentity, AccountInfo
from mt5kit.domain.broker_time import BrokerClock
from mt5kit.domain.trades import Order, Position


class TerminalStatus(msgspec.Struct, frozen=True):
    """What the terminal says of itself: broker link up, algorithmic trading permitted."""

    connected: bool
    trade_allowed: bool


class Snapshot(msgspec.Struct, frozen=True):
    """Account, positions and pending orders of one terminal turn.

    `seen_ms` is the instant of the look, in UTC epoch milliseconds.
    """

    account: AccountInfo
    positions: tuple[Position, ...]
    orders: tuple[Order, ...]
    terminal: TerminalStatus
    seen_ms: int

    @property
    def identity(self) -> AccountIdentity:
        """The login and server the terminal reported."""
        return self.account.identity

    def in_utc(self, clock: BrokerClock) -> Self:
        """The same look with every UTC time filled in."""
        return msgspec.structs.replace(
            self,
            positions=tuple(position.in_utc(clock) for position in self.positions),
            orders=tuple(order.in_utc(clock) for order in self.orders),
        )
