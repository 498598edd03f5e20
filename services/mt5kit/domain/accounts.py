"""Who an account is, and what the terminal says of it."""

from enum import StrEnum

import msgspec


class AccountState(StrEnum):
    """Where an account stands; the names callers see."""

    NEW = "new"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    BROKER_DISCONNECTED = "broker_disconnected"
    LOGIN_FAILED = "login_failed"
    DISCONNECTED = "disconnected"
    TERMINAL_UNAVAILABLE = "terminal_unavailable"


class AccountIdentity(msgspec.Struct, frozen=True):
    """What the terminal must report for an answer to belong to an account."""

    login: int
    server: str


class AccountInfo(msgspec.Struct, frozen=True):
    """All 28 fields of MetaTrader's AccountInfo, under their own names.

    Money is in `currency`; `margin_level` is in percent and 0 without open margin.
    """

    login: int
    trade_mode: int
    leverage: int
    limit_orders: int
    margin_so_mode: int
    trade_allowed: bool
    trade_expert: bool
    margin_mode: int
    currency_digits: int
    fifo_close: bool
    balance: float
    credit: float
    profit: float
    equity: float
    margin: float
    margin_free: float
    margin_level: float
    margin_so_call: float
    margin_so_so: float
    margin_initial: float
    margin_maintenance: float
    assets: float
    liabilities: float
    commission_blocked: float
    name: str
    server: str
    currency: str
    company: str

    @property
    def identity(self) -> AccountIdentity:
        """The login and server these figures belong to."""
        return AccountIdentity(self.login, self.server)
