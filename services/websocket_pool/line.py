"""The numbered line of one account: what has been told so far, and what can be told again."""

from collections import deque
from collections.abc import Callable, Sequence

import msgspec
import structlog

from mt5kit.domain.accounts import AccountState
from mt5kit.domain.instants import now_ms
from websocket_pool.diff import Changes, Status, View
from websocket_pool.folding import folded
from websocket_pool.messages import Kind, Message, Place, encode

RING_MESSAGES = 500
RING_BYTES = 1 << 20
RING_MS = 60_000
"""How much a reader may have missed and still resume, whichever is least (contracts §4)."""

FOLD_AFTER = 64
"""Messages of another owner are read when somebody needs their sum, or when so many wait."""

ORDER_CHANGES = ("placed", "removed", "modified")
"""What somebody decided about pending orders; the rest is their market price."""

log = structlog.get_logger(__name__)

NOTHING_TOLD = View(Status(AccountState.CONNECTED))
"""What clients take for granted until a `status` says otherwise."""


class Numbered(msgspec.Struct, frozen=True):
    """A state message and its number.

    Args:
        seq: Its number.
        at_ms: When it was made, UTC epoch milliseconds.
        look_ms: When the look that it tells was taken, UTC epoch milliseconds.
        message: The message.
    """

    seq: int
    at_ms: int
    look_ms: int
    message: Message


class Line:
    """What clients of an account have been told, in one epoch at a time.

    Whoever polls the account makes its messages (`begin`, `advance`); whoever does not takes them
    from the one who does (`restore`, `follow`). Everything a client is sent stems from
    `told`, never from a newer look: only so do the messages that follow a snapshot fit it.

    What its messages lead to is unknown where one of another version is not understood; then it is
    as before the first look, until it stands anew where its owner does.

    Args:
        account_id: Whose line.
        clock: Milliseconds now, UTC epoch.

    Attributes:
        epoch: The lease token that opened it; 0 before it is known.
        seq: Of the last message.
    """

    def __init__(self, account_id: str, clock: Callable[[], int] = now_ms) -> None:
        self.epoch = 0
        self.seq = 0
        self._told = NOTHING_TOLD
        self._unfolded: list[Numbered] = []
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
    def told(self) -> View:
        """What its clients know."""
        self._fold()
        return self._told

    @property
    def oldest_seq(self) -> int:
        """The first message that can be told again; the next one to come if there is none."""
        return self._ring[0].seq if self._ring else self.seq + 1

    def begin(self, view: View) -> None:
        """Take the first look as told: a snapshot tells it. The status is told by its message."""
        self._stand(msgspec.structs.replace(view, status=self.told.status))

    def restore(
        self,
        epoch: int,
        seq: int = 0,
        told: View = NOTHING_TOLD,
        ring: Sequence[Numbered] = (),
    ) -> None:
        """Stand at the beginning of a new epoch, or where another owner does.

        Args:
            epoch: Of the line.
            seq: Where it stands.
            told: What clients know there.
            ring: The messages that lead there, without a gap.
        """
        self.epoch, self.seq = epoch, seq
        self._stand(told)
        self._ring.clear()
        self._ring_bytes = 0
        for numbered in ring:
            self._keep(numbered)

    def advance(self, kind: Kind, changes: Changes, changed_ms: int) -> Numbered:
        """The next message: it brings one kind to the newest look.

        Args:
            kind: What it tells.
            changes: Between what clients know of that kind and the newest look.
            changed_ms: When the terminal first showed the change, UTC epoch milliseconds.
        """
        data, newest = changes.data(kind), changes.newest
        self.seq += 1
        now = self._clock()
        ts_ms = now if kind is Kind.STATUS else newest.seen_ms
        # The mere price of a pending order waits for a lull on purpose: that is no delivery time.
        decided = kind is not Kind.ORDERS or any(data[part] for part in ORDER_CHANGES)
        seen_ms = changed_ms if decided else None
        message = encode(kind.value, self.place, ts_ms, data, changed_ms=seen_ms)
        numbered = Numbered(self.seq, now, newest.seen_ms, message)
        self._stand(self.told.with_kind(kind, newest))
        self._keep(numbered)
        return numbered

    def follow(self, numbered: Numbered) -> None:
        """Take the next message of the line's owner.

        Raises:
            ValueError: It is not the next one.
        """
        if numbered.seq != self.seq + 1:
            raise ValueError(f"message {numbered.seq} does not follow {self.seq}")
        self.seq = numbered.seq
        self._unfolded.append(numbered)
        self._snapshots.clear()
        self._keep(numbered)
        if len(self._unfolded) > FOLD_AFTER:
            self._fold()

    def snapshot(self, *, conflated: bool = False) -> Message | None:
        """The `snapshot` of the current seq, encoded once; None before the first look."""
        told = self.told
        if told.account is None:
            return None
        if conflated not in self._snapshots:
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

    def _fold(self) -> None:
        try:
            for numbered in self._unfolded:
                self._told = folded(self._told, numbered.message, numbered.look_ms)
        except (msgspec.DecodeError, ValueError) as odd:
            # Of another version: what it leads to is asked of its owner.
            log.warning("line_not_understood", account_id=self._account_id, error=str(odd))
            self._told = NOTHING_TOLD
        self._unfolded.clear()

    def _stand(self, told: View) -> None:
        self._told = told
        self._unfolded.clear()
        self._snapshots.clear()

    def _keep(self, numbered: Numbered) -> None:
        self._ring.append(numbered)
        self._ring_bytes += numbered.message.size
        self._trim(self._clock())

    def _trim(self, now: int) -> None:
        while self._ring and (
            len(self._ring) > RING_MESSAGES
            or self._ring_bytes > RING_BYTES
            or self._ring[0].at_ms < now - RING_MS
        ):
            self._ring_bytes -= self._ring.popleft().message.size
