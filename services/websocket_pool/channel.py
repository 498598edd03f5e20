"""One account on this replica: its line, whoever feeds it, and who watches it."""

from collections.abc import Callable, Iterable, Sequence

import msgspec

from mt5kit.domain.accounts import AccountState
from mt5kit.domain.instants import now_ms
from mt5kit.state.redis import Frame
from mt5kit.telemetry.stream_metrics import StreamMetrics
from websocket_pool.close_codes import CloseCode
from websocket_pool.diff import Status, View
from websocket_pool.frames import NotUnderstood, numbered_of
from websocket_pool.line import Line, Numbered
from websocket_pool.messages import Message, Place, encode
from websocket_pool.source import Ending, Watcher

DEGRADED = "degraded"
"""The state of a connection, not of an account, that hears nothing just now."""


class Caught(msgspec.Struct, frozen=True):
    """Where another replica says an account's line stands.

    Args:
        epoch: Of the line.
        seq: Of its last message.
        told: What its clients know there, encoded; None if the frames alone lead there.
        frames: The last messages, without a gap.
    """

    epoch: int
    seq: int
    told: bytes | None
    frames: Sequence[Frame]


class Channel:
    """Carries one account's messages to its watchers here. An `AccountSource`.

    Args:
        account_id: Whose.
        metrics: Counts what is delivered.
        clock: Milliseconds now, UTC epoch.

    Attributes:
        line: What has been told.
        watchers: Who is told.
        attached: Whether anybody has come since it was last set to False.
    """

    def __init__(
        self, account_id: str, metrics: StreamMetrics, clock: Callable[[], int] = now_ms
    ) -> None:
        self.line = Line(account_id, clock)
        self.watchers: set[Watcher] = set()
        self.attached = False
        self._metrics = metrics
        self._ending: Ending | None = None
        self._deaf: str | None = None

    @property
    def place(self) -> Place:
        """See `AccountSource.place`."""
        return self.line.place

    @property
    def status(self) -> Status:
        """See `AccountSource.status`."""
        return self.line.told.status

    @property
    def ending(self) -> Ending | None:
        """See `AccountSource.ending`."""
        return self._ending

    @property
    def blank(self) -> bool:
        """Whether the account has not been seen: then no message can be built upon."""
        return self.line.told.account is None

    def attach(self, watcher: Watcher) -> None:
        """See `AccountSource.attach`; one that comes while nothing is heard is told so."""
        self.watchers.add(watcher)
        self.attached = True
        if self._deaf is not None:
            self._deliver(_aside(self.place, DEGRADED, self._deaf), [watcher])

    def detach(self, watcher: Watcher) -> None:
        """See `AccountSource.detach`."""
        self.watchers.discard(watcher)

    def snapshot(self, *, conflated: bool = False) -> Message | None:
        """See `AccountSource.snapshot`."""
        return self.line.snapshot(conflated=conflated)

    def replay(self, epoch: int, after_seq: int) -> Sequence[Message] | None:
        """See `AccountSource.replay`."""
        return self.line.replay(epoch, after_seq)

    def tell(self, message: Message | None) -> None:
        """Deliver to every watcher; nothing if there is nothing."""
        if message is not None:
            # A watcher may leave while it is told.
            self._deliver(message, list(self.watchers))

    def heard(self, numbered: Numbered) -> None:
        """Take the next message of the line's owner."""
        self.line.follow(numbered)
        self.tell(numbered.message)

    def catch_up(self, caught: Caught, *, afresh: bool = False) -> None:
        """Stand where the line's owner does, and tell the watchers how.

        What they miss is told message by message if it is all there. Otherwise they get one
        snapshot, `conflated` unless it begins an epoch for them.

        Args:
            caught: Where it stands.
            afresh: Have it told by a snapshot anyway.

        Raises:
            NotUnderstood: It is none of ours; nothing has changed.
        """
        line = self.line
        same = caught.epoch == line.epoch
        missed = [frame for frame in caught.frames if frame.seq > line.seq]
        whole = [frame.seq for frame in missed] == [*range(line.seq + 1, caught.seq + 1)]
        if same and whole and not (self.blank or afresh):
            for numbered in [numbered_of(frame, live=False) for frame in missed]:
                self.heard(numbered)
        elif caught.told is not None and (not same or caught.seq > line.seq or self.blank):
            try:
                told = msgspec.json.decode(caught.told, type=View)
            except msgspec.DecodeError as odd:
                raise NotUnderstood(f"what is told: {odd}") from odd
            self._stand(caught, told)

    def _stand(self, caught: Caught, told: View) -> None:
        line = self.line
        if (caught.epoch, caught.seq) == (line.epoch, line.seq) and told == line.told:
            return
        conflated = caught.epoch == line.epoch and caught.seq > line.seq
        try:
            ring = [numbered_of(frame, live=False) for frame in caught.frames]
        except NotUnderstood:
            # Whoever comes back is told everything instead.
            ring = []
        line.restore(caught.epoch, caught.seq, told, ring)
        snapshot = line.snapshot(conflated=conflated)
        # An epoch that has seen nothing yet has only its trouble to tell.
        self.tell(snapshot or _aside(self.place, told.status.state, told.status.reason))

    def deafen(self, reason: str) -> None:
        """Tell the watchers, once, that nothing is heard of their account for now, and why."""
        if self._deaf is None:
            self._deaf = reason
            self.tell(_aside(self.place, DEGRADED, reason))

    def hear_again(self) -> None:
        """Tell the watchers that what they know is true again."""
        if self._deaf is not None:
            self._deaf = None
            self.tell(_aside(self.place, self.status.state, self.status.reason))

    def end(self, code: CloseCode, reason: str) -> None:
        """Tell every watcher that there will be no more."""
        if self._ending is None:
            self._ending = code, reason
            for watcher in list(self.watchers):
                watcher.end(code, reason)

    def _deliver(self, message: Message, watchers: Iterable[Watcher]) -> None:
        """Deliver, and count once for all sockets: for each it was most of Python's part."""
        handed = 0
        for watcher in watchers:
            handed += watcher.deliver(message)
        self._metrics.handed(message.type, message.seen_ms, handed)


def _aside(place: Place, state: AccountState | str, reason: str | None) -> Message:
    """A `status` that no owner has numbered: it is about the connections of this replica."""
    return encode("status", place, now_ms(), {"state": state, "reason": reason}, state=False)
