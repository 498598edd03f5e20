"""From looks to numbered messages: diff, pace, number, fan out. No I/O and no waiting."""

from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from mt5kit.domain.accounts import AccountIdentity
from mt5kit.domain.instants import now_ms
from mt5kit.domain.snapshots import Snapshot
from websocket_pool.channel import Channel
from websocket_pool.close_codes import CloseCode
from websocket_pool.diff import Changes, Status
from websocket_pool.line import NOTHING_TOLD, Numbered
from websocket_pool.messages import Kind
from websocket_pool.pacer import Pacer
from websocket_pool.source import StreamOver

GRACE_S: Final = 0.04
"""What is due waits so long for the look that was asked for: it may show something newer."""


class Timer(Protocol):
    """A call that has been put off."""

    def cancel(self) -> None:
        """Do not make it."""


class Scheduler(Protocol):
    """The clock and alarm of an event loop."""

    def time(self) -> float:
        """Seconds, growing."""

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        """Call back after `delay` seconds."""


class Stream:
    """Makes the messages of one account for as long as its terminal is ours.

    The channel's line may be in that epoch already, then it is continued. Otherwise the epoch is
    opened by the first look or the first trouble: until then nothing new has been told.

    Args:
        channel: Whose line to advance.
        epoch: The line's epoch from now on.
        loop: The event loop.

    Attributes:
        look: The newest look; None before the first.
        as_of_ms: When it was taken, UTC epoch milliseconds.

    `on_message` is told of each numbered message, after the watchers; `on_look` of each look and
    trouble, after that.
    """

    def __init__(self, channel: Channel, epoch: int, loop: Scheduler) -> None:
        self.channel = channel
        self.line = channel.line
        self.epoch = epoch
        self.on_message: Callable[[Numbered], None] = _nobody
        self.on_look: Callable[[], None] = _ignored
        self.look: Snapshot | None = None
        self.as_of_ms = 0
        self.ended = False
        self._loop = loop
        self._newest = self.line.told if self.opened else NOTHING_TOLD
        self._heard_ms = 0
        self._pacer = Pacer()
        self._changed_ms: dict[Kind, int] = {}
        self._timer: Timer | None = None
        self._look_due_s: float | None = None

    @property
    def opened(self) -> bool:
        """Whether the line is in this epoch."""
        return self.line.epoch == self.epoch

    @property
    def status(self) -> Status:
        """What is known of the stream itself, told or not yet."""
        return self._newest.status

    @property
    def identity(self) -> AccountIdentity | None:
        """Who the line is about; None before the first look."""
        account = self.line.told.account
        return account.identity if account else None

    def hold_s(self) -> float:
        """Seconds before which a look is worth nothing, since no message may go; 0 if one may.

        Whoever asks gets the next look after that time, changed or not: what waits for its turn is
        made from it.
        """
        now_s = self._loop.time()
        hold_s = self._pacer.free_s(now_s)
        self._look_due_s = now_s + hold_s if hold_s else None
        return hold_s

    def see(self, snapshot: Snapshot) -> None:
        """Take a look, its UTC times filled in; the very first one is told by a snapshot.

        Raises:
            StreamOver: It is of another account than the line: only a new epoch may tell it.
        """
        if self.identity not in {None, snapshot.identity}:
            raise StreamOver(CloseCode.RESTART, "the account has another login now")
        if not self.opened:
            self.line.restore(self.epoch)
        self._look_due_s = None
        self.look, self.as_of_ms = snapshot, snapshot.seen_ms
        self._newest = self._newest.looked(snapshot)
        self._heard_ms = snapshot.seen_ms
        if self.line.told.account is None:
            self.line.begin(self._newest)
            self.channel.tell(self.line.snapshot())
        self._pump()
        self.on_look()

    def trouble(self, status: Status) -> None:
        """Note that there are no looks for now, and why; the next look ends it."""
        if not self.opened:
            self._open_in_trouble(status)
        self._look_due_s = None
        self._newest = msgspec.structs.replace(self._newest, status=status)
        self._heard_ms = now_ms()
        self._pump()
        self.on_look()

    def end(self) -> None:
        """Make no more messages."""
        self.ended = True
        if self._timer is not None:
            self._timer.cancel()

    def _open_in_trouble(self, status: Status) -> None:
        """A new epoch begins with a snapshot; its state is the last that anybody has seen."""
        last = self.line.told
        if last.account is None:
            self.line.restore(self.epoch)
            return
        self._newest = msgspec.structs.replace(last, status=status)
        self.line.restore(self.epoch, told=self._newest)
        self.channel.tell(self.line.snapshot())

    def _pump(self) -> None:
        """Send what may go now, and come back when the next may."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.ended:
            return
        now_s = self._loop.time()
        changes = self._note(now_s)
        if self._look_due_s is not None and now_s < self._look_due_s + GRACE_S:
            late_s = self._look_due_s + GRACE_S - now_s
            self._timer = self._loop.call_later(late_s, self._pump)
            return
        kind = self._pacer.choose(now_s)
        if kind is not None:
            self._send(kind, changes)
        wait_s = self._pacer.wait_s(now_s)
        if wait_s is not None:
            self._timer = self._loop.call_later(wait_s, self._pump)

    def _note(self, now_s: float) -> Changes:
        changes = Changes.between(self.line.told, self._newest)
        self._pacer.note(now_s, changes.dirty)
        heard_ms, known = self._heard_ms, self._changed_ms
        self._changed_ms = {kind: known.get(kind, heard_ms) for kind in changes.dirty}
        return changes

    def _send(self, kind: Kind, changes: Changes) -> None:
        numbered = self.line.advance(kind, changes, self._changed_ms.pop(kind))
        self.channel.tell(numbered.message)
        self.on_message(numbered)


def _nobody(_: Numbered) -> None:
    """Until a publisher asks to be told."""


def _ignored() -> None:
    """Until a publisher asks to be told."""
