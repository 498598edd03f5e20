"""Where the messages of an account come from, and who takes them."""

from collections.abc import Sequence
from typing import Protocol

from websocket_pool.close_codes import CloseCode
from websocket_pool.diff import Status
from websocket_pool.messages import Message, Place

Ending = tuple[CloseCode, str]
"""What sockets are closed with, and a sentence for a person."""


class StreamOver(Exception):
    """An account's stream ends, or does not begin, and trying again here changes nothing.

    Args:
        code: What its sockets are closed with.
        reason: A sentence for a person.
    """

    def __init__(self, code: CloseCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Watcher(Protocol):
    """Somebody who watches an account. Both calls return at once."""

    def deliver(self, message: Message) -> bool:
        """Take one message; whether the client was handed it, for whoever delivers to count.

        What waits first is counted by the watcher when it goes.
        """

    def end(self, code: CloseCode, reason: str) -> None:
        """There will be no more."""


class AccountSource(Protocol):
    """An account as a socket sees it, whoever polls it."""

    @property
    def place(self) -> Place:
        """Where the line stands."""

    @property
    def status(self) -> Status:
        """What has been told of the stream itself."""

    @property
    def ending(self) -> Ending | None:
        """With what it has ended, None while it runs; watchers of that moment have been told."""

    def attach(self, watcher: Watcher) -> None:
        """Deliver to this watcher everything after the present place."""

    def detach(self, watcher: Watcher) -> None:
        """Deliver nothing more to it."""

    def snapshot(self, *, conflated: bool = False) -> Message | None:
        """The state at the present place; None before the first look."""

    def replay(self, epoch: int, after_seq: int) -> Sequence[Message] | None:
        """Everything after a place up to the present one; None if it is not all there."""
