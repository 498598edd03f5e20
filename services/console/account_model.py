"""What the stream has told of one account. Pure: messages in, a new model out."""

from typing import Final, TypeVar

import msgspec

from mt5kit.domain.accounts import AccountInfo
from mt5kit.domain.trades import Order, Position

T = TypeVar("T")

# What a replica tells of its own connections while it cannot follow the account.
DEGRADED: Final = "degraded"

NUMBERED: Final = frozenset({"position_update", "account_update", "order_update", "status"})


class Frame(msgspec.Struct, frozen=True):
    """A server message of contracts §4; `data` waits to be decoded by its type."""

    type: str
    account_id: str
    epoch: int
    seq: int
    ts: str
    data: msgspec.Raw = msgspec.Raw(b"{}")


class Status(msgspec.Struct, frozen=True):
    """Where the stream says the account stands, and why."""

    state: str
    reason: str | None = None


class _Connected(msgspec.Struct, frozen=True):
    resumed: bool
    status: Status | None = None


class _Snapshot(msgspec.Struct, frozen=True):
    account: AccountInfo
    positions: tuple[Position, ...]
    orders: tuple[Order, ...]
    status: Status | None = None


class _Positions(msgspec.Struct, frozen=True):
    positions: tuple[Position, ...]


class _Orders(msgspec.Struct, frozen=True):
    orders: tuple[Order, ...]


class _Changes(msgspec.Struct, frozen=True):
    account: dict[str, object]


class AccountModel(msgspec.Struct, frozen=True):
    """An account as far as the messages have told.

    Args:
        account: None before the first snapshot.
        positions: Open ones.
        orders: Pending ones.
        status: None until a message tells it.
        epoch: Of the line that `seq` counts in.
        seq: Of the last message applied.
        ts: When the terminal saw the last change, ISO-8601 UTC.
        based: A snapshot, or a good resume, stands under the changes.
        broken: Messages are missing: only a snapshot mends it.
    """

    account: AccountInfo | None = None
    positions: tuple[Position, ...] = ()
    orders: tuple[Order, ...] = ()
    status: Status | None = None
    epoch: int = 0
    seq: int = 0
    ts: str = ""
    based: bool = False
    broken: bool = False

    def apply(self, frame: Frame) -> "AccountModel":
        """The model after one more message.

        A message that was applied before changes nothing; one that does not follow the last
        makes the model `broken`, and it then waits for a snapshot, which replaces everything. A
        `status` with the last number is about the connection: it is shown and not counted.

        Raises:
            msgspec.ValidationError: The message is not of the contract.
        """
        if frame.type == "connected":
            return self._begun(frame)
        if frame.type == "snapshot":
            return self._based_on(frame)
        if frame.type == "status" and (self.broken or not self._follows(frame)):
            return self._shown(frame)
        if frame.type in NUMBERED and not self.broken:
            return self._advanced(frame)
        if frame.type == "heartbeat" and self._ahead(frame):
            return msgspec.structs.replace(self, broken=True)
        return self

    def _begun(self, frame: Frame) -> "AccountModel":
        greeting = _decode(frame, _Connected)
        known = self.status if self.status and self.status.state != DEGRADED else None
        status = greeting.status or known
        if not greeting.resumed:
            return msgspec.structs.replace(
                self, status=status, epoch=frame.epoch, seq=frame.seq, based=False, broken=False
            )
        # A resume of what was never told here can only be mended by a snapshot.
        whole = self.based and frame.epoch == self.epoch and frame.seq >= self.seq
        return msgspec.structs.replace(self, status=status, broken=not whole)

    def _based_on(self, frame: Frame) -> "AccountModel":
        told = _decode(frame, _Snapshot)
        return AccountModel(
            told.account,
            told.positions,
            told.orders,
            told.status or self.status,
            frame.epoch,
            frame.seq,
            frame.ts,
            based=True,
        )

    def _shown(self, frame: Frame) -> "AccountModel":
        here = frame.epoch == self.epoch
        if here and frame.seq < self.seq and not self.broken:
            return self
        # What comes out of turn is no state of the account, but it may well say why.
        missed = self.broken or not here or frame.seq > self.seq
        return msgspec.structs.replace(self, status=_decode(frame, Status), broken=missed)

    def _advanced(self, frame: Frame) -> "AccountModel":
        if frame.epoch == self.epoch and frame.seq <= self.seq:
            return self
        if not self._follows(frame) or (frame.type == "account_update" and not self.based):
            return msgspec.structs.replace(self, broken=True)
        changes = self._changes(frame)
        return msgspec.structs.replace(self, seq=frame.seq, ts=frame.ts, **changes)

    def _changes(self, frame: Frame) -> dict[str, object]:
        if frame.type == "position_update":
            return {"positions": _decode(frame, _Positions).positions}
        if frame.type == "order_update":
            return {"orders": _decode(frame, _Orders).orders}
        if frame.type == "status":
            return {"status": _decode(frame, Status)}
        before = msgspec.structs.asdict(self.account) if self.account else {}
        changed = _decode(frame, _Changes).account
        return {"account": msgspec.convert({**before, **changed}, AccountInfo)}

    def _follows(self, frame: Frame) -> bool:
        return (frame.epoch, frame.seq) == (self.epoch, self.seq + 1)

    def _ahead(self, frame: Frame) -> bool:
        return (frame.epoch, frame.seq) > (self.epoch, self.seq)


def _decode(frame: Frame, kind: type[T]) -> T:
    return msgspec.json.decode(frame.data, type=kind)
