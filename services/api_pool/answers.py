"""What a successful answer looks like on the wire."""

from collections.abc import Sequence
from typing import Final, Literal

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api_pool.seen import Seen
from mt5kit.domain.accounts import AccountInfo, AccountState
from mt5kit.domain.instants import iso_utc, now_ms
from mt5kit.domain.trades import Deal, Order
from mt5kit.state.postgres import AccountError
from mt5kit.state.redis import SyncStatus

Source = Literal["terminal", "stream", "cache"]

_ENCODER: Final = msgspec.json.Encoder()
_JSON: Final = (b"content-type", b"application/json")


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


class SyncAccepted(msgspec.Struct, frozen=True, kw_only=True):
    """`POST …/sync`: the job that was begun, or the one under way."""

    success: bool = True
    sync_id: str


class SyncAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`GET /sync/{sync_id}`: how far a job is; `progress` in percent, rows read so far."""

    success: bool = True
    sync_id: str
    account_id: str
    status: SyncStatus
    progress: int
    deals: int
    orders: int
    error: AccountError | None


class CapacityAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`GET /api/metrics/capacity`; the utilisation is in percent, None while no terminal is up."""

    success: bool = True
    api_pool_utilization: float | None
    current_replicas: int
    api_sessions: int
    api_max_sessions: int
    ws_accounts: int
    ws_max_accounts: int
    ws_replicas: int


class JsonResponse(Response):
    """A body that is JSON already, without the work that a `Response` does for others."""

    def __init__(self, body: bytes, status: int = 200) -> None:
        self.status_code = status
        self.background = None
        self.body = body
        self.raw_headers = [(b"content-length", b"%d" % len(body)), _JSON]

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        """Send it."""
        start = "http.response.start"
        await send({"type": start, "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body})


def answer(body: msgspec.Struct, status: int = 200) -> Response:
    """A success with this body."""
    return JsonResponse(_ENCODER.encode(body), status)


def info_answer(seen: Seen, meta: Meta) -> Response:
    """`GET …/info`: `success`, `account`, `meta`."""
    return _joined((b'{"success":true,"account":', seen.account), meta)


def positions_answer(seen: Seen, symbol: str | None, meta: Meta) -> Response:
    """`GET …/positions`: `success`, `positions` of one symbol or all, `meta`."""
    return _joined((b'{"success":true,"positions":', seen.positions_of(symbol)), meta)


def orders_answer(seen: Seen, symbol: str | None, meta: Meta) -> Response:
    """`GET …/orders`: `success`, `orders` of one symbol or all, `meta`."""
    return _joined((b'{"success":true,"orders":', seen.orders_of(symbol)), meta)


def snapshot_answer(seen: Seen, meta: Meta) -> Response:
    """`GET …/snapshot`: `success`, `account`, `positions`, `orders` of one turn, `meta`."""
    parts = (
        *(b'{"success":true,"account":', seen.account),
        *(b',"positions":', seen.positions),
        *(b',"orders":', seen.orders),
    )
    return _joined(parts, meta)


def age(as_of_ms: int) -> tuple[str, int]:
    """`as_of` and `age_ms` of a look; clocks that differ make no negative age."""
    return iso_utc(as_of_ms), max(now_ms() - as_of_ms, 0)


def _joined(parts: tuple[bytes | msgspec.Raw, ...], meta: Meta) -> Response:
    return JsonResponse(b"".join((*parts, b',"meta":', _ENCODER.encode(meta), b"}")))
