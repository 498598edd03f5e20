"""What terminals and brokers say to each other: msgpack, each message after its length.

A terminal opens a TCP connection for each login. Requests carry an ``id`` that the answer repeats;
what has no ``id`` comes by itself. A message that is told before an answer is sent before it, so a
terminal that has read the answer to its trade has also read what the trade changed.
"""

from typing import Literal, TypeAlias

import msgspec

from terminal_sim.broker.values import (
    Change,
    CheckResult,
    Deal,
    Order,
    Position,
    Profile,
    Terms,
    TradeRequest,
    TradeResult,
)
from terminal_sim.faults.kinds import BrokerFault

LENGTH_BYTES = 4
"""Before each message stands its length, big-endian."""
MAX_MESSAGE = 64 * 1024 * 1024
"""Nobody sends more; whoever announces more is no simulator."""
BEAT_S = 1.0
"""A broker says at least so often that it is there."""


class Message(msgspec.Struct, frozen=True, tag=True):
    """Any message."""


class Login(Message, frozen=True):
    """First message of a terminal. ``terminal`` is its name, for the log and for faults."""

    id: int
    login: int
    password: str
    terminal: str

    def __repr__(self) -> str:
        """Leave the password out: a repr ends up in logs."""
        return f"Login(id={self.id}, login={self.login}, terminal={self.terminal!r})"


class Trade(Message, frozen=True):
    """Carry a request out; with ``check`` only tell what would come of it."""

    id: int
    request: TradeRequest
    check: bool = False


class History(Message, frozen=True):
    """Ask for deals or done orders, oldest first; None does not filter.

    ``first_s`` and ``last_s`` are readings of the server's wall clock in seconds, inclusive.
    ``order`` is the ticket of an order, ``position`` the identifier of a position.
    """

    id: int
    kind: Literal["deals", "orders"]
    first_s: int | None = None
    last_s: int | None = None
    order: int | None = None
    position: int | None = None


class Act(Message, frozen=True):
    """A person elsewhere acts on an account: no password, but the broker's key.

    Attributes:
        key: Of the broker; None when it has none.
        login: Account.
        request: What to trade; None to move money only.
        deposit: Amount to pay in, or out when negative.
        reason: ``DEAL_REASON_CLIENT``, ``_MOBILE`` or ``_WEB``.
    """

    id: int
    login: int
    request: TradeRequest | None = None
    deposit: float = 0.0
    reason: int = 0
    key: str | None = None


class Look(Message, frozen=True):
    """Ask, with the broker's key, for the state of an account."""

    id: int
    login: int
    key: str | None = None


class Inject(Message, frozen=True):
    """Begin a fault; ``fault_id`` is the supervisor's."""

    id: int
    fault_id: int
    fault: BrokerFault
    key: str | None = None


class Mend(Message, frozen=True):
    """End a fault, or all of them when ``fault_id`` is None."""

    id: int
    fault_id: int | None = None
    key: str | None = None


Request: TypeAlias = Login | Trade | History | Act | Look | Inject | Mend


class Snapshot(Message, frozen=True):
    """An account's present."""

    profile: Profile
    positions: tuple[Position, ...]
    orders: tuple[Order, ...]
    balance: float
    credit: float
    version: int


class Welcome(Message, frozen=True):
    """The login was accepted; from now on :class:`Changed` tells every change."""

    id: int
    investor: bool
    terms: Terms
    account: Snapshot


class Refused(Message, frozen=True):
    """The request was not carried out.

    ``unauthorized``: wrong credentials, or logins are refused. ``forbidden``: wrong key.
    ``unknown``: no such account. ``invalid``: not now, or not in this way.
    """

    id: int
    reason: Literal["unauthorized", "forbidden", "unknown", "invalid"]
    text: str


class Traded(Message, frozen=True):
    """Answer to :class:`Trade` and :class:`Act`."""

    id: int
    result: TradeResult


class Checked(Message, frozen=True):
    """Answer to :class:`Trade` with ``check``."""

    id: int
    result: CheckResult


class Deals(Message, frozen=True):
    """Answer to :class:`History` of deals."""

    id: int
    rows: tuple[Deal, ...]


class Orders(Message, frozen=True):
    """Answer to :class:`History` of orders."""

    id: int
    rows: tuple[Order, ...]


class Seen(Message, frozen=True):
    """Answer to :class:`Look`."""

    id: int
    account: Snapshot


class Done(Message, frozen=True):
    """Answer to :class:`Inject` and :class:`Mend`."""

    id: int


class Changed(Message, frozen=True):
    """The account has changed; ``version`` is its version afterwards."""

    change: Change
    version: int


class Shifted(Message, frozen=True):
    """The server's wall clock was put forward or back; see ``Terms.shifts``."""

    shifts: tuple[tuple[int, int], ...]


class Beat(Message, frozen=True):
    """The broker is there."""


class Spent(Message, frozen=True):
    """A fault has acted once; told to connections that have injected one."""

    fault_id: int


Answer: TypeAlias = (
    Welcome
    | Refused
    | Traded
    | Checked
    | Deals
    | Orders
    | Seen
    | Done
    | Changed
    | Shifted
    | Beat
    | Spent
)
