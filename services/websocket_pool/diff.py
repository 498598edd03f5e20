"""What has changed between two states of an account. Pure."""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from operator import attrgetter
from typing import Generic, Protocol, Self, TypeVar

import msgspec

from mt5kit.domain.accounts import AccountInfo, AccountState
from mt5kit.domain.snapshots import Snapshot
from mt5kit.domain.trades import Order, Position
from websocket_pool.messages import Kind

POSITION_TERMS = ("volume", "sl", "tp", "price_open", "comment")
"""What makes a position `modified`; price, profit and swap move by themselves."""

ORDER_TERMS = (
    "volume_initial",
    "volume_current",
    "price_open",
    "sl",
    "tp",
    "price_stoplimit",
    "type_time",
    "time_expiration",
    "state",
    "comment",
)
"""What makes an order `modified`; its current price moves by itself."""


class _Ticketed(Protocol):
    @property
    def ticket(self) -> int: ...


T = TypeVar("T", bound=_Ticketed)


class Status(msgspec.Struct, frozen=True):
    """Where the stream stands, and a sentence saying why when it is not `connected`."""

    state: AccountState
    reason: str | None = None


class View(msgspec.Struct, frozen=True):
    """An account as a client sees it. `account` is None before the first look.

    `seen_ms` is the instant of the look, UTC epoch milliseconds.
    """

    status: Status
    account: AccountInfo | None = None
    positions: tuple[Position, ...] = ()
    orders: tuple[Order, ...] = ()
    seen_ms: int = 0

    def looked(self, snapshot: Snapshot) -> "View":
        """The view after a look."""
        return View(
            status_of(snapshot),
            snapshot.account,
            snapshot.positions,
            snapshot.orders,
            snapshot.seen_ms,
        )

    def with_kind(self, kind: Kind, newest: "View") -> "View":
        """This view with one kind's part taken from the newest."""
        part = _PART[kind]
        return msgspec.structs.replace(
            self, **{part: getattr(newest, part), "seen_ms": newest.seen_ms}
        )


_PART: Mapping[Kind, str] = {
    Kind.STATUS: "status",
    Kind.POSITIONS: "positions",
    Kind.ORDERS: "orders",
    Kind.ACCOUNT: "account",
}


class Rows(msgspec.Struct, Generic[T], frozen=True):
    """Positions or orders that came, went, or were modified."""

    added: tuple[T, ...]
    removed: tuple[T, ...]
    modified: tuple[T, ...]

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.modified)


def status_of(snapshot: Snapshot) -> Status:
    """Whether the terminal that answered has its broker."""
    if snapshot.terminal.connected:
        return Status(AccountState.CONNECTED)
    return Status(AccountState.BROKER_DISCONNECTED, "the terminal has lost its broker")


def diff_rows(before: Sequence[T], after: Sequence[T], terms: tuple[str, ...]) -> Rows[T]:
    """Which rows came, went, or differ in their terms, by ticket; removed ones as last seen."""
    old = {row.ticket: row for row in before}
    new = {row.ticket for row in after}
    terms_of = _terms_of(terms)
    added: list[T] = []
    modified: list[T] = []
    for row in after:
        was = old.get(row.ticket)
        if was is None:
            added.append(row)
        elif terms_of(row) != terms_of(was):
            modified.append(row)
    removed = tuple(row for row in before if row.ticket not in new) if old.keys() != new else ()
    return Rows(tuple(added), removed, tuple(modified))


@lru_cache(maxsize=8)
def _terms_of(terms: tuple[str, ...]) -> Callable[[_Ticketed], object]:
    return attrgetter(*terms)


def diff_account(before: AccountInfo, after: AccountInfo) -> dict[str, object]:
    """The fields that differ, with their new values."""
    return {
        name: value
        for name in AccountInfo.__struct_fields__
        if (value := getattr(after, name)) != getattr(before, name)
    }


_NO_POSITIONS: Rows[Position] = Rows((), (), ())
_NO_ORDERS: Rows[Order] = Rows((), (), ())


class Changes(msgspec.Struct, frozen=True):
    """What differs between two views, found once for all who ask: take them by `between`.

    Args:
        told: What clients know.
        newest: The newest look.
        positions: What became of the positions; None if no field of them differs.
        orders: Likewise.
        dirty: The kinds that differ, and of each whether the change is structural: what a person
            decided (or the broker), which is rows that came, went or were modified, and the
            status. The rest moves with the market.
    """

    told: View
    newest: View
    positions: Rows[Position] | None
    orders: Rows[Order] | None
    dirty: Mapping[Kind, bool]

    @classmethod
    def between(cls, told: View, newest: View) -> Self:
        """What differs between what was told and the newest look."""
        found: dict[Kind, bool] = {}
        positions: Rows[Position] | None = None
        orders: Rows[Order] | None = None
        if told.status != newest.status:
            found[Kind.STATUS] = True
        if told.positions != newest.positions:
            positions = diff_rows(told.positions, newest.positions, POSITION_TERMS)
            found[Kind.POSITIONS] = bool(positions)
        if told.orders != newest.orders:
            orders = diff_rows(told.orders, newest.orders, ORDER_TERMS)
            found[Kind.ORDERS] = bool(orders)
        if told.account != newest.account:
            found[Kind.ACCOUNT] = False
        return cls(told, newest, positions, orders, found)

    def data(self, kind: Kind) -> dict[str, object]:
        """The `data` of the message that brings one kind from `told` to `newest`.

        Raises:
            ValueError: It is of an account that has not been seen.
        """
        newest = self.newest
        if kind is Kind.STATUS:
            return {"state": newest.status.state, "reason": newest.status.reason}
        if kind is Kind.POSITIONS:
            rows = self.positions or _NO_POSITIONS
            return {
                "positions": newest.positions,
                "opened": rows.added,
                "closed": rows.removed,
                "modified": rows.modified,
            }
        if kind is Kind.ORDERS:
            moves = self.orders or _NO_ORDERS
            return {
                "orders": newest.orders,
                "placed": moves.added,
                "removed": moves.removed,
                "modified": moves.modified,
            }
        if self.told.account is None or newest.account is None:
            raise ValueError("an account has no changes before its first look")
        return {"account": diff_account(self.told.account, newest.account)}
