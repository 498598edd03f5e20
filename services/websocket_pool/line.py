"""The numbered line of one account: what has been told so far, and what can be told again."""

from collections import deque
from collections.abc import Callable, Sequence

import msgspec

from mt5kit.domain.accounts import AccountState
from mt5kit.domain.instants import now_ms
from websocket_pool.diff import Status, View, message_data
from websocket_pool.messages import Kind, Message, Place, encode

RING_MESSAGES = 500
RING_BYTES = 1 << 20
RING_MS = 60_000
"""How much a reader may have missed and still resume, whichever is least (contracts §4)."""


ORDER_CHANGES = ("placed", "removed", "modified")
"""What somebody decided about pending orders; the rest is their market price."""


class Numbered(msgspec.Struct, frozen=True):
    """A state message and its number. `at_ms` is when it was made, UTC epoch milliseconds."""

    seq: int
    at_ms: int
    message: Message


class Line:
    """What clients of an account have been told, in one epoch.

    Everything a client is sent stems from `told`, never from a newer look: only so do the
    messages that follow a snapshot fit it.

    Args:
        account_id: Whose line.
        epoch: The lease token that opened it.
        clock: Milliseconds now, UTC epoch.
    """

    def __init__(self, account_id: str, epoch: int, clock: Callable[[], int] = now_ms) -> None:
        self.epoch = epoch
        self.seq = 0
        # Clients take it for granted until a `status` says otherwise.
        self.told = View(Status(AccountState.CONNECTED))
        self._account_id = account_id
        self._clock = clock
        self._ring: deque[Numbered] = deque()
        self._ring_bytes = 0
        self._snapshots: dict[bool, Message] = {}

    @property
    def place(self) -> Place:
        """Where the line stands."""
        return Place(self._account_id, self.epoch, self.seq)

    @property
    def oldest_seq(self) -> int:
        """The lowest number that can still be told again; one above `seq` if none can."""
        return self._ring[0].seq if self._ring else self.seq + 1

    def begin(self, view: View) -> None:
        """Take the first look as told: a snapshot tells it. The status is told by its message."""
        self.told = msgspec.structs.replace(view, status=self.told.status)
        self._snapshots.clear()

    def advance(self, kind: Kind, newest: View, changed_ms: int) -> Numbered:
        """The next message: it brings one kind to the newest look.

        Args:
            kind: What it tells.
            newest: The newest look.
            changed_ms: When the terminal first showed the change, UTC epoch milliseconds.
        """
        data = message_data(kind, self.told, newest)
        self.seq += 1
        self.told = self.told.with_kind(kind, newest)
        self._snapshots.clear()
        now = self._clock()
        ts_ms = now if kind is Kind.STATUS else newest.seen_ms
        # The mere price of a pending order waits for a lull on purpose: that is no delivery time.
        decided = kind is not Kind.ORDERS or any(data[part] for part in ORDER_CHANGES)
        seen_ms = changed_ms if decided else None
        message = encode(kind.value, self.place, ts_ms, data, changed_ms=seen_ms)
        numbered = Numbered(self.seq, now, message)
        self._ring.append(numbered)
        self._ring_bytes += message.size
        self._trim(now)
        return numbered

    def snapshot(self, *, conflated: bool = False) -> Message | None:
        """The `snapshot` of the current seq, encoded once; None before the first look."""
        if self.told.account is None:
            return None
        if conflated not in self._snapshots:
            told = self.told
            data: dict[str, object] = {
                "account": told.account,
                "positions": told.positions,
                "orders": told.orders,
                "status": told.status,
            }
            if conflated:
                data["conflated"] = True
            self._snapshots[conflated] = encode("snapshot", self.place, told.seen_ms, data)
        return self._snapshots[conflated]

    def replay(self, epoch: int, after_seq: int) -> Sequence[Message] | None:
        """Every message after a seq, or None where one of them is not there any more."""
        self._trim(self._clock())
        if epoch != self.epoch or not self.oldest_seq - 1 <= after_seq <= self.seq:
            return None
        return [numbered.message for numbered in self._ring if numbered.seq > after_seq]

    def _trim(self, now: int) -> None:
        while self._ring and (
            len(self._ring) > RING_MESSAGES
            or self._ring_bytes > RING_BYTES
            or self._ring[0].at_ms < now - RING_MS
        ):
            self._ring_bytes -= self._ring.popleft().message.size
