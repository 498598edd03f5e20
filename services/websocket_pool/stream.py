"""From looks to numbered messages: diff, pace, number, fan out. No I/O and no waiting."""

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from mt5kit.domain.accounts import AccountIdentity
from mt5kit.domain.instants import now_ms
from mt5kit.domain.snapshots import Snapshot
from websocket_pool.close_codes import CloseCode
from websocket_pool.diff import Status, dirty
from websocket_pool.line import Line, Numbered
from websocket_pool.messages import Kind, Message, Place
from websocket_pool.pacer import Pacer
from websocket_pool.source import StreamOver, Watcher


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
    """One account's line and its watchers.

    Args:
        line: The line to advance.
        loop: The event loop.

    `on_message` is told of each numbered message, after the watchers.
    """

    def __init__(self, line: Line, loop: Scheduler) -> None:
        self.line = line
        self.on_message: Callable[[Numbered], None] = _nobody
        self.look: Snapshot | None = None
        self.as_of_ms = 0
        self.watchers: set[Watcher] = set()
        self.ended = False
        self._newest = line.told
        self._heard_ms = 0
        self._loop = loop
        self._pacer = Pacer()
        self._changed_ms: dict[Kind, int] = {}
        self._timer: Timer | None = None

    @property
    def place(self) -> Place:
        """Where the line stands."""
        return self.line.place

    @property
    def status(self) -> Status:
        """What has been told of the stream itself."""
        return self.line.told.status

    @property
    def identity(self) -> AccountIdentity | None:
        """Who the line is about; None before the first look."""
        account = self.line.told.account
        return account.identity if account else None

    def see(self, snapshot: Snapshot) -> None:
        """Take a look, its UTC times filled in; the very first one is told by a snapshot.

        Raises:
            StreamOver: It is of another account than the line: only a new epoch may tell it.
        """
        if self.identity not in {None, snapshot.identity}:
            raise StreamOver(CloseCode.RESTART, "the account has another login now")
        self.look, self.as_of_ms = snapshot, snapshot.seen_ms
        self._newest = self._newest.looked(snapshot)
        self._heard_ms = snapshot.seen_ms
        if self.line.told.account is None:
            self.line.begin(self._newest)
            self._broadcast(self.line.snapshot())
        self._pump()

    def trouble(self, status: Status) -> None:
        """Note that there are no looks for now, and why; the next look ends it."""
        self._newest = msgspec.structs.replace(self._newest, status=status)
        self._heard_ms = now_ms()
        self._pump()

    def snapshot(self, *, conflated: bool = False) -> Message | None:
        """See `AccountSource.snapshot`."""
        return self.line.snapshot(conflated=conflated)

    def replay(self, epoch: int, after_seq: int) -> Sequence[Message] | None:
        """See `AccountSource.replay`."""
        return self.line.replay(epoch, after_seq)

    def end(self, code: CloseCode, reason: str) -> None:
        """Tell every watcher that there will be no more."""
        self.ended = True
        if self._timer is not None:
            self._timer.cancel()
        for watcher in list(self.watchers):
            watcher.end(code, reason)

    def _pump(self) -> None:
        """Send what may go now, and come back when the next may."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.ended:
            return
        now_s = self._loop.time()
        self._note(now_s)
        kind = self._pacer.choose(now_s)
        if kind is not None:
            self._send(kind)
            self._note(now_s)
        wait_s = self._pacer.wait_s(now_s)
        if wait_s is not None:
            self._timer = self._loop.call_later(wait_s, self._pump)

    def _note(self, now_s: float) -> None:
        changes = dirty(self.line.told, self._newest)
        self._pacer.note(now_s, changes)
        heard_ms = self._heard_ms
        self._changed_ms = {kind: self._changed_ms.get(kind, heard_ms) for kind in changes}

    def _send(self, kind: Kind) -> None:
        numbered = self.line.advance(kind, self._newest, self._changed_ms.pop(kind))
        self._broadcast(numbered.message)
        self.on_message(numbered)

    def _broadcast(self, message: Message | None) -> None:
        if message is not None:
            for watcher in list(self.watchers):
                watcher.deliver(message)


def _nobody(_: Numbered) -> None:
    """Until a publisher asks to be told."""
