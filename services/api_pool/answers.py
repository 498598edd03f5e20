"""What a successful answer looks like on the wire."""

from collections.abc import Sequence
from typing import Literal

import msgspec
from starlette.responses import Response

from mt5kit.domain.accounts import AccountInfo, AccountState
from mt5kit.domain.instants import iso_utc, now_ms
from mt5kit.domain.trades import Deal, Order, Position
from mt5kit.state.postgres import AccountError

Source = Literal["terminal", "stream", "cache"]


class Meta(msgspec.Struct, frozen=True, kw_only=True):
    """Where an answer comes from and how old it is; `as_of` is the last successful look."""

    account_id: str
    terminal_id: str
    instance_id: str
    source: Source
    as_of: str
    age_ms: int
    queue_wait_ms: float | None = None
    broker_ms: float | None = None


class InfoAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`GET …/info`."""

    success: bool = True
    account: AccountInfo
    meta: Meta


class PositionsAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`GET …/positions`."""

    success: bool = True
    positions: Sequence[Position]
    meta: Meta


class OrdersAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`GET …/orders`."""

    success: bool = True
    orders: Sequence[Order]
    meta: Meta


class SnapshotAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`GET …/snapshot`: account, positions and orders of one terminal turn."""

    success: bool = True
    account: AccountInfo
    positions: Sequence[Position]
    orders: Sequence[Order]
    meta: Meta


class DealsAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`GET …/history/deals`, newest first."""

    success: bool = True
    deals: Sequence[Deal]
    next_cursor: str | None
    meta: Meta


class OrderHistoryAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`GET …/history/orders`, newest first."""

    success: bool = True
    orders: Sequence[Order]
    next_cursor: str | None
    meta: Meta


class ConnectAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`POST /connect`."""

    success: bool = True
    account_id: str
    instance_id: str
    terminal_id: str
    account: AccountInfo
    meta: Meta


class AccountEntry(msgspec.Struct, frozen=True, kw_only=True):
    """An account in a list."""

    account_id: str
    login: int
    server: str
    state: AccountState


class AccountsAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`GET /accounts`."""

    success: bool = True
    accounts: Sequence[AccountEntry]


class AccountDetail(msgspec.Struct, frozen=True, kw_only=True):
    """An account and the state it is in."""

    account_id: str
    login: int
    server: str
    state: AccountState
    since: str
    last_error: AccountError | None


class AccountAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`GET /account/{id}`."""

    success: bool = True
    account: AccountDetail


class DoneAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Done, and nothing to tell."""

    success: bool = True


class AssignAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`POST /api/ws/assign`; `instance_id` is the owner just now, None while there is none."""

    success: bool = True
    instance_id: str | None
    ticket: str
    websocket_url: str
    expires_at: str


def answer(body: msgspec.Struct) -> Response:
    """A 200 of this body."""
    return Response(msgspec.json.encode(body), media_type="application/json")


def age(as_of_ms: int) -> tuple[str, int]:
    """`as_of` and `age_ms` of a look; clocks that differ make no negative age."""
    return iso_utc(as_of_ms), max(now_ms() - as_of_ms, 0)
