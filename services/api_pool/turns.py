"""What is asked of a terminal's owner, and what it answers; the same here and over the wire."""

from typing import Literal, Protocol, TypeAlias

import msgspec

from mt5kit.domain.accounts import AccountIdentity
from mt5kit.domain.history import HistoryQuery
from mt5kit.vault import AccountBinding, Sealed

HistoryKind: TypeAlias = Literal["deals", "orders"]


class LookTurn(msgspec.Struct, frozen=True, tag="look"):
    """Look at an account; a look of at most `max_age_ms` ago will do."""

    account_id: str
    identity: AccountIdentity
    max_age_ms: int


class HistoryTurn(msgspec.Struct, frozen=True, tag="history"):
    """Read a page of an account's past."""

    account_id: str
    identity: AccountIdentity
    kind: HistoryKind
    query: HistoryQuery


class ProofTurn(msgspec.Struct, frozen=True, tag="prove"):
    """Try credentials. They travel sealed: the network between the replicas sees no password."""

    binding: AccountBinding
    sealed: Sealed


TurnRequest: TypeAlias = LookTurn | HistoryTurn | ProofTurn


class Taken(msgspec.Struct, frozen=True):
    """What a turn gave.

    Attributes:
        terminal_id: Where it was taken.
        instance_id: The replica that holds the terminal.
        token: The fencing token it was taken under.
        as_of_ms: When the terminal was looked at, UTC epoch milliseconds.
        queue_wait_ms: Spent waiting for the turn.
        broker_ms: Spent on the terminal.
        payload: JSON of a `Snapshot`, or of a `HistoryPage`, with UTC times.
    """

    terminal_id: str
    instance_id: str
    token: int
    as_of_ms: int
    queue_wait_ms: float
    broker_ms: float
    payload: msgspec.Raw


class Owner(Protocol):
    """Takes turns on the terminals it holds."""

    async def take(self, terminal_id: str, turn: TurnRequest, deadline_s: float) -> Taken:
        """Take a turn that begins within `deadline_s` seconds.

        Raises:
            TerminalMoved: The terminal is another's, or about to be; nothing was begun.
            LoginRefused: The broker refused the credentials.
            BrokerTimeout: The broker did not answer in time.
            ServiceOverloaded: The turn would not begin in time.
            TerminalUnavailable: The terminal did not answer.
        """
