"""Scenario files: the brokers' servers, their accounts, and what these hold."""

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from terminal_sim.market.clocks import EET_US
from terminal_sim.scenario.moments import Moment
from terminal_sim.scenario.planned import PlannedFault

Volume = Annotated[float, Meta(gt=0, le=1_000_000)]
Price = Annotated[float, Meta(ge=0, le=1e9)]
Text = Annotated[str, Meta(max_length=64)]
Name = Annotated[str, Meta(min_length=1, max_length=64)]
PendingType = Literal["buy_limit", "sell_limit", "buy_stop", "sell_stop"]


class ScenarioError(Exception):
    """A scenario file was refused.

    Attributes:
        path: The file.
        reason: What is wrong with it, with the line or the place.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class Model(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part of a scenario; fields it does not know are refused."""


class Server(Model, frozen=True):
    """A broker's server; ``clock`` is a rule of :class:`terminal_sim.market.clocks.WallClock`.

    ``commission`` is charged per lot and deal, in the account's currency. On ``weekdays`` only
    crypto is traded on Saturday and Sunday of its clock.
    """

    name: Name
    company: Text = "MT5Swarm Ltd"
    clock: str = EET_US
    commission: Annotated[float, Meta(ge=0, le=1e6)] = 0.0
    trading_days: Literal["all", "weekdays"] = "all"


class Position(Model, frozen=True):
    """A position; with ``closed_at`` it turns into history at that instant.

    ``price_open`` is by default the market's price at ``opened_at``.
    """

    symbol: str
    type: Literal["buy", "sell"]
    volume: Volume
    opened_at: Moment
    closed_at: Moment | None = None
    price_open: Price | None = None
    sl: Price = 0.0
    tp: Price = 0.0
    comment: Text = ""
    magic: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0


class Order(Model, frozen=True):
    """A pending order; ``price`` is by default 2 % from the market on its proper side."""

    symbol: str
    type: PendingType
    volume: Volume
    placed_at: Moment
    price: Price | None = None
    sl: Price = 0.0
    tp: Price = 0.0
    comment: Text = ""
    magic: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0


class Robot(Model, frozen=True):
    """Opens a position every ``period_s`` seconds and closes it ``hold_s`` seconds later."""

    symbol: str
    volume: Volume
    starts_at: Moment
    period_s: Annotated[float, Meta(ge=0.1, le=1e6)] = 45.0
    hold_s: Annotated[float, Meta(ge=0.05, le=1e6)] = 30.0


class Account(Model, frozen=True):
    """An account; ``balance`` is the initial deposit, paid in at ``registered_at``.

    ``registered_at`` is by default a day before the first thing that happens in the account.
    """

    login: Annotated[int, Meta(ge=1, le=2**63 - 1)]
    password: Text
    server: str
    investor_password: Text | None = None
    name: Text = "Demo Account"
    currency: Literal["USD", "EUR", "GBP", "JPY"] = "USD"
    leverage: Annotated[int, Meta(ge=1, le=10_000)] = 100
    balance: Annotated[float, Meta(ge=0, le=1e12)] = 10_000.0
    credit: Annotated[float, Meta(ge=0, le=1e12)] = 0.0
    margin_mode: Literal["hedging", "netting"] = "hedging"
    registered_at: Moment | None = None
    positions: tuple[Position, ...] = ()
    orders: tuple[Order, ...] = ()
    robot: Robot | None = None

    def __repr__(self) -> str:
        """Leave the passwords out: a repr ends up in logs."""
        return f"Account(login={self.login}, server={self.server!r})"


class Scenario(Model, frozen=True):
    """A whole scenario."""

    servers: Annotated[tuple[Server, ...], Meta(min_length=1)]
    accounts: Annotated[tuple[Account, ...], Meta(min_length=1)]
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 1
    faults: tuple[PlannedFault, ...] = ()

    def server(self, name: str) -> Server | None:
        """Return the server of that name."""
        return next((server for server in self.servers if server.name == name), None)

    def account(self, login: int, server: str) -> Account | None:
        """Return the account of that login on that server."""
        held = (a for a in self.accounts if (a.login, a.server) == (login, server))
        return next(held, None)
